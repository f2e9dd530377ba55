"""A run folder: the plan, the log, the best and the last weights, and the state to resume from.

recipe.json   every resolved number, data, revision
log.jsonl     a line for each step and each evaluation
best/ last/   models, to load
state/        for resuming; see `checkpoint`

With several processes, this runs on all ranks; only rank 0 writes.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pixelwise.contracts import Recipe, SolverProgress, Stage, as_system
from pixelwise.data.loading.batches import sizes_median
from pixelwise.errors import CheckpointError, DataError, PixelwiseError, RecipeError
from pixelwise.files.parallel import Progress, silent
from pixelwise.inference.model_folder import recover_model
from pixelwise.inference.systems import system_module
from pixelwise.labels import LabelSet
from pixelwise.training.allocator import keep_freed_memory
from pixelwise.training.class_weights import balanced_weights, repeat_factors
from pixelwise.training.fit import Fit, Step, backbones_of, fit, set_pixel_loss
from pixelwise.training.interruption import Interruption
from pixelwise.training.processes import new_accelerator, on_all_ranks, on_first_rank, process_count, process_rank
from pixelwise.training.run.checkpoint import load_state, recover_states, save_state
from pixelwise.training.run.data import TrainingData, open_training_data
from pixelwise.training.run.initial_weights import carry_over, initialise, new_system
from pixelwise.training.run.log import Log
from pixelwise.training.run.plan import Plan, revision
from pixelwise.training.run.recipes import require_possible
from pixelwise.training.run.validation import Evaluated, Evaluating, Validation

Result = TypeVar("Result")


class Note(NamedTuple):
    """A note to the user, in one line."""

    text: str


Event = Step | SolverProgress | Evaluated | Evaluating | Note


def start(
    folder: Path,
    *,
    system: str,
    arguments: Mapping[str, Any],
    recipe: Recipe,
    data: tuple[str, ...],
    label_map: str | None,
    init: str | None,
    command: str,
    notes: tuple[str, ...] = (),
    device: str = "cpu",
    workers: int = 0,
    progress: Progress = silent,
) -> tuple[Plan, TrainingData]:
    """Open the data of a new run, check its networks and initial weights, and write its recipe.

    Args:
        folder: of the run.
        system: name of the file under models/.
        arguments: of its `build`, beside the number of classes.
        recipe: every number.
        data: data set specifications.
        label_map: `--map`, or None.
        init: of `check_init`, or None.
        command: that starts the run.
        notes: what was decided before, for the plan.
        device: `cpu` or `cuda`.
        workers: processes that read images where classes must be counted.
        progress: of that counting.

    Raises:
        RecipeError: the folder holds a run already, or the network cannot be built or trained with these values.
        CheckpointError: the initial weights do not fit. Nothing is written then.
    """
    opened = on_all_ranks(lambda: open_training_data(data, label_map))

    def written() -> Plan:
        if (folder / "recipe.json").exists():
            raise RecipeError(f"{folder}: holds a run already; --resume {folder} continues it, or choose another --out")
        _require_possible(recipe, device)
        _require_truth(system, opened)
        plan = Plan(
            system=system,
            arguments=_with_things(arguments, opened.labels),
            recipe=recipe,
            data=data,
            label_map=label_map,
            init=init,
            command=command,
            revision=revision(),
        )
        initial_weights = _tried_out(plan, opened)
        plan = resolved(plan, opened, workers=workers, progress=progress)
        all_notes = (*opened.notes, *notes, *([initial_weights] if initial_weights else []))
        plan = replace(plan, notes=all_notes, chosen_on=opened.split_off)
        plan.write(folder)
        return plan

    return on_first_rank(written), opened


def resume(folder: Path) -> tuple[Plan, TrainingData]:
    """Open a run that was started before.

    Raises:
        CheckpointError: its recipe.json is invalid.
        RecipeError: it was started with another number of processes.
        DataError: a set without splits now has other validation images.
    """

    def opened() -> tuple[Plan, TrainingData]:
        plan = Plan.read(folder)
        if plan.processes != process_count():
            raise RecipeError(
                f"{folder}: was started with {plan.processes} processes, here are {process_count()}, which is another "
                f"batch: {plan.launcher} train --resume {folder}"
            )
        data = open_training_data(plan.data, plan.label_map)
        try:
            require_possible(plan.recipe)
            with torch.device("meta"):
                for stage in plan.recipe.stages:
                    new_system(plan, stage, classes=len(data.labels))
        except PixelwiseError as error:
            raise CheckpointError(f"{folder / 'recipe.json'}: {error}") from None
        if data.split_off != plan.chosen_on:
            differ = sorted(set(data.split_off) ^ set(plan.chosen_on))
            raise DataError(
                f"{folder}: images were added or removed since the run began, and every fifth is for validation: "
                f"these differ now ({', '.join(differ[:3])} …); bring the files of "
                f"{', '.join(plan.data)} back, or begin a new run"
            )
        return plan, data

    return on_all_ranks(opened)


def resolved(plan: Plan, data: TrainingData, *, workers: int = 0, progress: Progress = silent) -> Plan:
    """Resolve the values that depend on data and machine: input size, precision, class weights.

    Raises:
        RecipeError: class weights of another number of classes.
    """
    recipe = plan.recipe
    evaluated = data.val or data.train
    input_size = recipe.input_size
    if not input_size and recipe.input_side != "none":
        sizes = [evaluated.size_of(index) for index in range(len(evaluated))]
        input_size = sizes_median(sizes, short=recipe.input_side == "short")
    precision = recipe.precision
    if precision == "auto":
        precision = "bfloat16" if computes_bfloat16() else "float32"
    balanced: tuple[float, ...] = ()
    stages: list[Stage] = []
    for stage in recipe.stages:
        weights = stage.class_weights
        if weights == "balanced":
            balanced = balanced or balanced_weights(data.train, workers=workers, progress=progress)
            stages.append(replace(stage, class_weights=balanced))
            continue
        if not isinstance(weights, str) and len(weights) != len(data.labels):
            raise RecipeError(
                f"--set class_weights: {len(weights)} numbers for the {len(data.labels)} classes "
                f"{', '.join(data.labels.names)}"
            )
        stages.append(stage)
    recipe = replace(recipe, input_size=input_size, precision=precision, stages=tuple(stages))
    return replace(plan, recipe=recipe)


def run(
    folder: Path, plan: Plan, data: TrainingData, *, device: str, workers: int, interruption: Interruption
) -> Iterator[Event]:
    """Continue a run to its end, or to an interruption.

    After an interruption the state is saved and the iteration ends; `interruption.answered` says why.

    Args:
        folder: of the run, with recipe.json.
        plan: of `start` or `resume`.
        data: likewise.
        device: `cpu` or `cuda`.
        workers: processes that read images, for each process that trains.
        interruption: checked after each step.
    """
    keep_freed_memory()
    on_all_ranks(lambda: _require_possible(plan.recipe, device))
    accelerator = new_accelerator(device, plan.recipe.precision)
    folders = [folder / "state" / f"{number}-{stage.name}" for number, stage in enumerate(plan.recipe.stages)]

    def newest_stage() -> int:
        for name in ("best", "last"):
            recover_model(folder / name)
        begun = [number for number, states in enumerate(folders) if recover_states(states)]
        return max(begun, default=0)

    number = on_first_rank(newest_stage)
    carried: dict[str, Tensor] | None = None
    offset = 0
    remaining = list(zip(folders, plan.recipe.stages, strict=True))[number:]
    factors: tuple[float, ...] | None = None
    if any(stage.sampling == "balanced" for _, stage in remaining):
        factors = on_all_ranks(lambda: repeat_factors(data.train, workers=workers))
    for states, stage in remaining:
        system = new_system(plan, stage, classes=len(data.labels))
        system.to(accelerator.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        fitting = Fit.start(system, stage)
        progress = on_all_ranks(lambda: load_state(states, fitting))  # noqa: B023 (called at once)
        if progress is None:
            note = ""
            if carried is not None:
                note = carry_over(system, carried)
                yield Note(f"stage {stage.name}{f': {note}' if note else ''}")
            elif plan.init:
                initialise(system, plan, stage, data.labels)
            fitting = Fit.start(system, stage)
        validation = Validation(folder, plan, data, fitting, progress, offset)
        if progress is None and carried is not None:
            _save(states, validation)
        _first(lambda: _remove(folders[: folders.index(states)]))  # noqa: B023 (called at once)
        yield from _run_stage(
            states,
            validation,
            data,
            plan,
            accelerator=accelerator,
            workers=workers,
            stop=interruption,
            weights=factors if stage.sampling == "balanced" else None,
        )
        if interruption.answered is not None:
            return
        carried = fitting.shipped_state()
        offset = validation.step


def _run_stage(
    states: Path,
    validation: Validation,
    data: TrainingData,
    plan: Plan,
    *,
    accelerator: Accelerator,
    workers: int,
    stop: Interruption,
    weights: Sequence[float] | None,
) -> Iterator[Event]:
    fitting, offset = validation.fitting, validation.offset
    path = validation.folder / "log.jsonl"
    log = _first(lambda: Log(path, keep_steps=validation.step, keep_evaluation=offset + validation.evaluated))

    def evaluated() -> Iterator[Event]:
        # the state is saved first, so that a kill inside the evaluation loses no step; the evaluation is then repeated
        _save(states, validation)
        yield from validation.evaluate(log, stop=stop, device=accelerator.device, workers=workers)
        if stop.answered is not None:
            return
        if validation.is_impatient:
            if log:
                log.early_end(validation.step, evaluations=validation.stale)
            yield Note(f"ended at step {validation.step:,}: no better score in {validation.stale} evaluations")
        _save(states, validation)

    if validation.is_due:
        yield from evaluated()
    if stop.answered is not None or validation.is_over:
        return
    if fitting.stage.solver:
        yield from _solved(fitting, data, plan, device=accelerator.device, stop=stop)
        if stop.answered is None:
            yield from evaluated()
        return
    clock = time.perf_counter()
    for step in fit(
        fitting,
        data.train,
        accelerator=accelerator,
        resize=plan.recipe.resize,
        labels=data.labels,
        seed=plan.recipe.seed,
        workers=workers,
        weights=weights,
    ):
        now = time.perf_counter()
        made = step._replace(number=validation.step)
        if log:
            log.step(made, seconds=now - clock)
        yield made
        stopped = stop.asked()
        if validation.is_due:
            yield from evaluated()
        elif stopped or step.number % plan.recipe.checkpoint_every == 0:
            _save(states, validation)
        if stop.answered is not None:
            validation.write_last()
            return
        if validation.is_over:
            return
        clock = time.perf_counter()


def _solved(
    fitting: Fit, data: TrainingData, plan: Plan, *, device: torch.device, stop: Interruption
) -> Iterator[SolverProgress]:
    """Run the stage's solver; every process does, with the same result."""
    solve = vars(system_module(plan.system))[fitting.stage.solver]
    torch.manual_seed(plan.recipe.seed)
    fitting.system.to(device).eval()
    for progress in solve(fitting.system, data.train, resize=plan.recipe.resize):
        yield progress
        if stop.asked():
            return
    fitting.step = fitting.stage.steps


def _tried_out(plan: Plan, data: TrainingData) -> str:
    """Build every stage's network and initialise the first; return the note of `initialise`."""
    first, *others = plan.recipe.stages
    system = new_system(plan, first, classes=len(data.labels))
    _require_fitting(system, first, plan.recipe.input_size)
    for stage in plan.recipe.stages:
        set_pixel_loss(system, stage, data.labels.ignore_id)
    with torch.device("meta"):
        for stage in others:
            _require_fitting(new_system(plan, stage, classes=len(data.labels)), stage, plan.recipe.input_size)
    return initialise(system, plan, first, data.labels) if plan.init else ""


def _require_fitting(system: nn.Module, stage: Stage, input_size: int) -> None:
    """Raise RecipeError for a stage whose training does not fit its evaluation."""
    traits = as_system(system).traits
    if traits.stretches_input and (stage.augmentation.short_sides or stage.augmentation.scale_around == "image"):
        raise RecipeError(
            f"stage {stage.name}: augmentation.short_sides={list(stage.augmentation.short_sides)}, "
            f"scale_around={stage.augmentation.scale_around}: {type(system).__name__} runs on squares; expected none "
            "and input"
        )
    if traits.stretches_input and stage.crop_size not in (input_size, (input_size, input_size)):
        raise RecipeError(
            f"stage {stage.name}: crop_size={stage.crop_size}, input_size={input_size}: {type(system).__name__} runs "
            "on squares of one size, to which its anchors scale; set both to the same number"
        )
    if stage.batch_size == 1 and stage.freeze_batch_norm is True:
        frozen = {module for backbone in backbones_of(system) for module in backbone.modules()}
        norms = [name for name, part in system.named_modules() if isinstance(part, _BatchNorm) and part not in frozen]
        if norms:
            raise RecipeError(
                f"stage {stage.name}: batch_size=1 gives the batch norms of pyramid and heads nothing to average "
                f"({norms[0]}, …); use more images, or --set freeze_batch_norm=all"
            )
    if traits.clip_frames > 1 and stage.augmentation.copy_paste:
        raise RecipeError(
            f"stage {stage.name}: augmentation.copy_paste={stage.augmentation.copy_paste}: pasted instances would not "
            "move with the clip; --set augmentation.copy_paste=0"
        )


def _require_truth(system: str, data: TrainingData) -> None:
    """Raise DataError where the first image has no ground truth of the kind that the system is trained on."""
    task = system_module(system).TASK
    if task not in ("instance", "panoptic"):
        return
    for dataset in (data.train, *([data.val] if data.val else [])):
        truth = dataset[0].truth
        if truth.instances is None or truth.instances.masks is None:
            raise DataError(
                f"{dataset.name}: no instances, which {system} is trained on; expected a set of instances with masks, "
                f"such as {'coco-panoptic:PATH' if task == 'panoptic' else 'coco:PATH or instance-masks:PATH'}"
            )
        if task == "panoptic" and truth.semantic is None:
            raise DataError(
                f"{dataset.name}: no class maps, which {system} is trained on beside instances; "
                "expected a panoptic set, such as coco-panoptic:PATH or kitti-step:PATH"
            )


def _with_things(arguments: Mapping[str, Any], labels: LabelSet) -> dict[str, Any]:
    """The arguments of `build` with the things of the label set, where they are not all but the first class."""
    things = [index for index, thing in enumerate(labels.is_thing) if thing]
    is_usual = things == list(range(1, len(labels)))
    if "thing_ids" not in arguments or arguments["thing_ids"] is not None or not things or is_usual:
        return dict(arguments)
    return {**arguments, "thing_ids": things}


def _require_possible(recipe: Recipe, device: str) -> None:
    if device == "cpu" and any(stage.sync_batch_norm for stage in recipe.stages):
        raise RecipeError(
            "sync_batch_norm=true needs CUDA; on the CPU freeze the statistics instead: "
            "--set sync_batch_norm=false --set freeze_batch_norm=true"
        )


def _save(states: Path, validation: Validation) -> None:
    _first(lambda: save_state(states, validation.fitting, validation.progress))


def _remove(folders: list[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _first(work: Callable[[], Result]) -> Result | None:
    """Run the work on rank 0, return None on the others; raise its error on all ranks."""
    return on_all_ranks(lambda: work() if process_rank() == 0 else None)


def computes_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware; without, it is slower than float32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
