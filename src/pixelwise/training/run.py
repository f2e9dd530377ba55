"""A run folder: what was asked for, what happened, the best and the last weights, and the state to resume from.

recipe.json   every resolved number, data, revision
log.jsonl     a line for each step and each evaluation
best/ last/   models, to load
state/        for resuming; see `checkpoint`
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import nn

from pixelwise.contracts import Recipe, Stage
from pixelwise.errors import CheckpointError, RecipeError
from pixelwise.inference.model_folder import ModelCard, read_model, recover_model, system_module, write_model
from pixelwise.inference.predictor import Predictor
from pixelwise.metrics.mean_iou import MeanIoU
from pixelwise.nn.backbones import load_backbone
from pixelwise.training.allocator import keep_freed_memory
from pixelwise.training.checkpoint import load_state, save_state
from pixelwise.training.evaluate import evaluate, model_answers
from pixelwise.training.fit import Fit, Step, fit
from pixelwise.training.interruption import Interruption
from pixelwise.training.log import Log
from pixelwise.training.order import sizes_median
from pixelwise.training.plan import Plan, revision
from pixelwise.training.sources import TrainingData, open_training_data

CHOSEN_BY = "mean_iou"


class Evaluated(NamedTuple):
    """An evaluation that ended.

    Attributes:
        step: at which.
        metrics: see MeanIoU.compute.
        best: whether these weights are the best so far.
    """

    step: int
    metrics: dict[str, Any]
    best: bool


class Evaluating(NamedTuple):
    """One image of an evaluation that was judged."""

    done: int
    of: int


Event = Step | Evaluated | Evaluating


def resolved(plan: Plan, data: TrainingData) -> Plan:
    """The plan with what depends on data and machine put in: input size, precision, remarks."""
    recipe = plan.recipe
    judged = data.val or data.train
    input_size = recipe.input_size or sizes_median([judged.size_of(index) for index in range(len(judged))])
    precision = recipe.precision
    if precision == "auto":
        precision = "bfloat16" if computes_bfloat16() else "float32"
    values = {**recipe.__dict__, "input_size": input_size, "precision": precision}
    return Plan(**{**plan.__dict__, "recipe": Recipe(**values), "remarks": data.remarks})


def run(
    folder: Path, plan: Plan, data: TrainingData, *, device: str, workers: int, interruption: Interruption
) -> Iterator[Event]:
    """Carry a run on from wherever it stands to its end, or to an interruption.

    After an interruption the state is saved and the iteration ends; `interruption.signal` says why.
    """
    keep_freed_memory()
    system = new_system(plan, data)
    accelerator = Accelerator(
        cpu=device == "cpu", mixed_precision="bf16" if plan.recipe.precision == "bfloat16" else "no"
    )
    for name in ("best", "last"):
        recover_model(folder / name)
    started = False
    offset = 0
    for number, stage in enumerate(plan.recipe.stages):
        states = folder / "state" / f"{number}-{stage.name}"
        fitting = Fit.start(system, stage)
        progress = load_state(states, fitting)
        if progress is None and not started and plan.init:
            initialise(system, plan)
            fitting = Fit.start(system, stage)
        started = True
        judge = _Judge(folder, plan, data, fitting, offset, progress or {"best": None, "evaluated": -1})
        log = Log(folder / "log.jsonl", keep_steps=offset + fitting.step, keep_evaluation=judge.evaluated + offset)
        yield from _run_stage(
            stage, fitting, judge, log, states, data, plan, accelerator=accelerator, workers=workers, stop=interruption
        )
        if interruption.signal is not None:
            return
        offset += stage.steps


def _run_stage(
    stage: Stage,
    fitting: Fit,
    judge: _Judge,
    log: Log,
    states: Path,
    data: TrainingData,
    plan: Plan,
    *,
    accelerator: Accelerator,
    workers: int,
    stop: Interruption,
) -> Iterator[Event]:
    main = accelerator.is_main_process

    def evaluation_is_due() -> bool:
        every = plan.recipe.evaluate_every
        at_end = fitting.step == stage.steps
        return judge.evaluated != fitting.step and (
            at_end or bool(every and fitting.step and fitting.step % every == 0)
        )

    def judged() -> Iterator[Event]:
        # the state comes first, so that a kill inside the evaluation costs no step; the evaluation is then done again
        save_state(states, fitting, judge.progress)
        yield from judge.evaluate(log, stop=stop, device=accelerator.device, workers=workers)
        if stop.signal is None:
            save_state(states, fitting, judge.progress)

    if main and evaluation_is_due():
        yield from judged()
    if stop.signal is not None:
        return
    clock = time.perf_counter()
    steps = fit(
        fitting,
        data.train,
        accelerator=accelerator,
        input_size=plan.recipe.input_size,
        ignore_id=data.labels.ignore_id,
        seed=plan.recipe.seed,
        workers=workers,
    )
    for step in steps if fitting.step < stage.steps else ():
        now = time.perf_counter()
        if main:
            log.step(step, judge.offset, seconds=now - clock)
        yield step
        if main and evaluation_is_due():
            yield from judged()
        elif main and (stop.signal is not None or step.number % plan.recipe.checkpoint_every == 0):
            save_state(states, fitting, judge.progress)
        if stop.signal is not None:
            judge.write_last()
            return
        clock = time.perf_counter()


class _Judge:
    """Evaluates the shipped weights, and keeps the best and the last on disk."""

    def __init__(
        self, folder: Path, plan: Plan, data: TrainingData, fitting: Fit, offset: int, progress: dict[str, Any]
    ) -> None:
        self.folder, self.plan, self.data, self.fitting, self.offset = folder, plan, data, fitting, offset
        self.best: float | None = progress["best"]
        self.evaluated: int = progress["evaluated"]

    @property
    def progress(self) -> dict[str, Any]:
        return {"best": self.best, "evaluated": self.evaluated}

    def evaluate(self, log: Log, *, stop: Interruption, device: torch.device, workers: int) -> Iterator[Event]:
        if self.data.val is None:
            self._write("best", {})
            self._write("last", {})
            self.evaluated = self.fitting.step
            return
        started = time.perf_counter()
        system = copy.deepcopy(self.fitting.system)
        system.load_state_dict(self.fitting.shipped_state())
        metric = MeanIoU(self.data.labels)
        answers = model_answers(Predictor(system.eval(), self._card({}), device=str(device)))
        for done, _ in enumerate(evaluate(answers, self.data.val, metric, workers=workers), start=1):
            yield Evaluating(done, len(self.data.val))
            if stop.signal is not None:
                return
        metrics = metric.compute()
        scores = {name: value for name, value in metrics.items() if name != "per_class"}
        value = metrics[CHOSEN_BY] or 0.0
        is_best = self.best is None or value > self.best
        if is_best:
            self.best = value
            self._write("best", scores)
        self._write("last", scores)
        self.evaluated = self.fitting.step
        step = self.offset + self.fitting.step
        log.evaluation(step, metrics, seconds=time.perf_counter() - started)
        yield Evaluated(step, metrics, is_best)

    def write_last(self) -> None:
        self._write("last", {})

    def _write(self, name: str, scores: dict[str, Any]) -> None:
        write_model(self.folder / name, self.fitting.shipped_state(), self._card(scores))

    def _card(self, scores: dict[str, Any]) -> ModelCard:
        val = {"data": self.data.val.name} if self.data.val and scores else {}
        return ModelCard(
            task=type(self.fitting.system).task,  # pyright: ignore[reportAttributeAccessIssue]
            system=self.plan.system,
            labels=self.data.labels,
            arguments=self.plan.arguments,
            input_size=self.plan.recipe.input_size,
            scores={**scores, **val},
            training={
                "data": list(self.plan.data),
                "label_map": self.plan.label_map,
                "init": self.plan.init,
                "step": self.offset + self.fitting.step,
                "command": self.plan.command,
                "revision": self.plan.revision,
            },
        )


def new_system(plan: Plan, data: TrainingData) -> nn.Module:
    """The network of the plan, with random weights that depend on its seed alone."""
    torch.manual_seed(plan.recipe.seed)
    return system_module(plan.system).build(num_classes=len(data.labels), **plan.arguments)


def initialise(system: nn.Module, plan: Plan) -> None:
    """Fill a new system with the weights that the plan begins from.

    `torchvision` or a file fills the backbone; a run or model folder fills everything whose name and shape agree, so
    that a head for other classes is dropped.

    Raises:
        CheckpointError: nothing there, or it does not fit; names the first differences.
    """
    source = str(plan.init)
    if source == "torchvision" or Path(source).is_file():
        backbone = getattr(system, "backbone", None)
        if backbone is None:
            raise RecipeError(f"--init {source}: {plan.system} has no backbone to fill")
        place = "torchvision" if source == "torchvision" else Path(source)
        load_backbone(backbone, str(plan.arguments.get("backbone")), place)
        return
    folder = next((Path(source) / name for name in ("best", "last") if (Path(source) / name).is_dir()), Path(source))
    module, card = read_model(folder)
    wanted, found = system.state_dict(), module.state_dict()
    fitting = {key: value for key, value in found.items() if key in wanted and wanted[key].shape == value.shape}
    if len(fitting) < len(wanted) // 2:
        strange = next(key for key in wanted if key not in fitting)
        raise CheckpointError(
            f"--init {source}: a {card.system}, not a {plan.system} with these arguments; no '{strange}'"
        )
    system.load_state_dict(fitting, strict=False)


def check_init(init: str) -> str:
    """The place that `--init` names, absolute. Raises CheckpointError when nothing is there."""
    if init == "torchvision":
        return init
    if not Path(init).exists():
        raise CheckpointError(
            f"--init {init}: no such file or folder; a backbone file, a run, or torchvision is wanted"
        )
    return str(Path(init).absolute())


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
) -> tuple[Plan, TrainingData]:
    """Open the data of a new run, try out its network and its first weights, and write its recipe.

    Raises:
        RecipeError: the folder holds a run already, or the network cannot be built so.
        CheckpointError: the first weights do not fit. Nothing is written then.
    """
    if (folder / "recipe.json").exists():
        raise RecipeError(f"{folder}: holds a run already; --resume {folder} goes on with it, or choose another --out")
    opened = open_training_data(data, label_map)
    plan = Plan(
        system=system,
        arguments=arguments,
        recipe=recipe,
        data=data,
        label_map=label_map,
        init=init,
        command=command,
        revision=revision(),
    )
    plan = resolved(plan, opened)
    system_to_try = new_system(plan, opened)
    if plan.init:
        initialise(system_to_try, plan)
    plan.write(folder)
    return plan, opened


def resume(folder: Path) -> tuple[Plan, TrainingData]:
    """Open a run that was started before."""
    plan = Plan.read(folder)
    return plan, open_training_data(plan.data, plan.label_map)


def computes_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware; without, it is slower than float32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
