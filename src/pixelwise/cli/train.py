"""`pixelwise train`: fit a system to data, into a run folder that can be resumed."""

from __future__ import annotations

import shlex
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from pixelwise.cli.evaluation import heading
from pixelwise.cli.launch import is_first_process
from pixelwise.cli.options import Device, DeviceOption, QuietOption, WorkersOption
from pixelwise.cli.progress import image_bar
from pixelwise.cli.terminal import print, printable
from pixelwise.errors import RecipeError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from pixelwise.files.parallel import Progress as ImageProgress
    from pixelwise.training.fit import Step
    from pixelwise.training.run.data import TrainingData
    from pixelwise.training.run.plan import Plan
    from pixelwise.training.run.run import Event

Item = TypeVar("Item")


def train(
    system: Annotated[str | None, typer.Argument(help="A system or a variant; see pixelwise models.")] = None,
    data: Annotated[
        list[str] | None, typer.Option("--data", help="FORMAT:PATH[@SPLIT][?option=value]; may be given several times.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The run folder to make.")] = None,
    resume: Annotated[Path | None, typer.Option("--resume", help="Continue this run folder.")] = None,
    backbone: Annotated[str | None, typer.Option("--backbone", help="Such as resnet50 or mobilenet_v2.")] = None,
    init: Annotated[
        str | None,
        typer.Option(
            "--init",
            help="A backbone file, a run or shipped model (its architecture is taken), torchvision, timm, or pip: the "
            "installed package of the backbone, see pixelwise models --backbones.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE, such as steps=4000; see pixelwise models SYSTEM.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help="A published one, such as paper, in place of that of small machines."),
    ] = None,
    label_map: Annotated[
        str | None, typer.Option("--map", help="Map from other label sets to the first one's: names, or a TOML file.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="The same as --set seed=N.")] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write OUT/tensorboard (needs pixelwise[track]).")
    ] = False,
    device: DeviceOption = Device.auto,
    workers: WorkersOption = 2,
    quiet: QuietOption = False,
) -> int:
    """Train a system, or continue a stopped run."""
    if resume is not None:
        given = [name for name, value in (("SYSTEM", system), ("--data", data), ("--out", out)) if value]
        if given or settings or init or backbone or recipe or label_map or seed is not None:
            raise RecipeError(
                f"--resume {resume} takes everything from its recipe.json; leave out "
                f"{', '.join([*given, *(['the options that change it'] if not given else [])])}"
            )
    folder = resume or out
    if folder is None or (resume is None and (system is None or not data)):
        raise RecipeError("expected SYSTEM, --data and --out, or --resume RUN; see pixelwise train --help")
    from pixelwise.inference.predictor import choose_device
    from pixelwise.training.processes import joined_processes

    where = choose_device(device.value).type
    quiet = quiet or not is_first_process()
    with joined_processes(where):
        if system is None or not data:
            from pixelwise.training.run.run import resume as open_run

            plan, sources = open_run(folder)
        else:
            plan, sources = _start(
                system,
                data,
                folder,
                backbone=backbone,
                recipe=recipe,
                init=init,
                settings=[*(settings or []), *([f"seed={seed}"] if seed is not None else [])],
                label_map=label_map,
                device=where,
                workers=workers,
                quiet=quiet,
            )
        for line in () if quiet else _notes(plan, sources, folder, resumes=resume is not None):
            print(line, file=sys.stderr)
        return _carry_on(folder, plan, sources, device=where, workers=workers, quiet=quiet, tensorboard=tensorboard)


def _start(
    system: str,
    data: list[str],
    out: Path,
    *,
    backbone: str | None,
    recipe: str | None,
    init: str | None,
    settings: list[str],
    label_map: str | None,
    device: str,
    workers: int,
    quiet: bool,
) -> tuple[Plan, TrainingData]:
    from pixelwise.training.run.initial_weights import check_init, init_arguments
    from pixelwise.training.run.recipes import named_system, one_size, resolve_sets
    from pixelwise.training.run.run import start

    named = named_system(system, recipe)
    first_weights = None if init is None else check_init(init)
    taken = {} if first_weights is None else init_arguments(first_weights, named.system, named.recipe)
    arguments = {**named.arguments, **taken, **named.module.VARIANTS.get(system, {})}
    if backbone is not None:
        if "backbone" not in arguments:
            raise RecipeError(f"--backbone: {system} has none to choose")
        arguments["backbone"] = backbone
    settings = one_size(settings) if named.module.TRAITS.stretches_input else settings
    numbers, arguments = resolve_sets(settings, named.recipe, arguments)
    others = [f"{name}={value}" for name, value in taken.items() if arguments[name] == value != named.arguments[name]]
    return start(
        out,
        system=named.system,
        arguments=arguments,
        recipe=numbers,
        data=tuple(data),
        label_map=label_map,
        init=first_weights,
        notes=(f"--init {first_weights}: built as that model, with {', '.join(others)}",) if others else (),
        command=shlex.join(["pixelwise", *sys.argv[1:]]),
        device=device,
        workers=workers,
        progress=_counting_bar(hidden=quiet),
    )


def _counting_bar(*, hidden: bool) -> ImageProgress:
    def bar(items: Iterable[Item], *, total: int, what: str) -> Iterable[Item]:
        with image_bar(what, total, hidden=hidden) as advance:
            for item in items:
                yield item
                advance(1)

    return bar


def _notes(plan: Plan, sources: TrainingData, folder: Path, *, resumes: bool) -> Iterator[str]:
    import torch

    from pixelwise.data.label_maps import describe_label_map

    chosen = (
        f"{len(sources.val):,} to validate on" if sources.val else "none to validate on: the last weights are the best"
    )
    learned = f"{len(sources.train):,} images to train on"
    yield f"{plan.system}: {learned}, {chosen}; {len(sources.labels)} classes; {folder}"
    for label_map in sources.label_maps:
        yield from describe_label_map(label_map)
    if plan.init is None and not resumes and "backbone" in plan.arguments:
        yield "the backbone starts at random; --init pip, torchvision, timm or FILE: from ImageNet; default: from VOC"
    # the origin of the weights does not matter for a resumed run
    yield from sources.notes if resumes else plan.notes
    threads = torch.get_num_threads()
    if plan.threads != threads:
        yield f"{threads} threads, not {plan.threads} as at the start: the result will differ in the last digits"


def _carry_on(
    folder: Path, plan: Plan, sources: TrainingData, *, device: str, workers: int, quiet: bool, tensorboard: bool
) -> int:
    from pixelwise.training.interruption import Interruption
    from pixelwise.training.run.run import run
    from pixelwise.training.run.tensorboard import Board
    from pixelwise.training.run.validation import Evaluated

    board = Board(folder / "tensorboard") if tensorboard and is_first_process() else None
    display = _Display(plan, quiet=quiet)
    last: Evaluated | None = None
    with Interruption() as interruption, display:
        for event in run(folder, plan, sources, device=device, workers=workers, interruption=interruption):
            display.show(event)
            if board:
                board.add(event)
            if isinstance(event, Evaluated):
                last = event
    if interruption.exit_code is not None:
        if is_first_process():
            print(f"stopped; the state is saved: {plan.launcher} train --resume {folder}", file=sys.stderr)
        return interruption.exit_code
    if not quiet:
        score = f"val {heading(last.chosen_by)} {last.score:.4f} at the end" if last else "done"
        print(f"{folder}/  best/, last/, log.jsonl; {score}")
    return 0


class _Display:
    """The progress line of a training run: step, loss, images per second, the last evaluation, time left."""

    def __init__(self, plan: Plan, *, quiet: bool) -> None:
        self.quiet = quiet
        self.total = sum(stage.steps for stage in plan.recipe.stages)
        self.times: deque[tuple[float, int]] = deque(maxlen=50)
        self.progress: Progress | None = None
        self.task: TaskID | None = None
        self.loss = self.speed = self.evaluated = self.left = ""

    def __enter__(self) -> _Display:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            self.progress = Progress(
                TextColumn("step {task.completed:,.0f}/{task.total:,.0f}"),
                BarColumn(bar_width=24),
                TextColumn("{task.description}"),
                console=Console(stderr=True),
            )
            self.task = self.progress.add_task("starting", total=self.total)
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.progress:
            self.progress.stop()

    def show(self, event: Event) -> None:
        """Update the line, or print a note above it."""
        from pixelwise.contracts import SolverProgress
        from pixelwise.training.fit import Step
        from pixelwise.training.run.run import Note
        from pixelwise.training.run.validation import Evaluated

        if isinstance(event, Note):
            if self.progress:
                self.progress.console.print(printable(event.text), markup=False, highlight=False)
            elif not self.quiet:
                print(event.text, file=sys.stderr)
            return
        if self.progress is None or self.task is None:
            return
        activity = ""
        if isinstance(event, Step):
            terms = " ".join(f"{name} {value:.3f}" for name, value in event.terms.items())
            self.loss = f"loss {event.loss:.3f} ({terms})"
            self._measure(event)
            self.progress.update(self.task, completed=event.number)
        elif isinstance(event, SolverProgress):
            activity = f"{event.name} {event.done:,}/{event.total:,}"
        elif isinstance(event, Evaluated):
            self.times.clear()
            self.evaluated = (
                f"val {heading(event.chosen_by)} {event.score:.3f} at {event.step:,}{' (best)' if event.best else ''}"
            )
        else:
            activity = f"evaluating {event.done}/{event.of}"
        parts = (self.loss, self.speed, activity or self.evaluated, self.left)
        self.progress.update(self.task, description=" · ".join(part for part in parts if part))

    def _measure(self, step: Step) -> None:
        self.times.append((time.perf_counter(), step.images))
        if len(self.times) < 2:
            return
        seconds = self.times[-1][0] - self.times[0][0]
        images = sum(count for _, count in self.times) - self.times[0][1]
        minutes, second = divmod(int(seconds / (len(self.times) - 1) * (self.total - step.number)), 60)
        self.speed = f"{images / seconds:.1f} images/s"
        self.left = f"{minutes // 60}:{minutes % 60:02}:{second:02} left"
