"""`pixelwise predict`: images in, overlays, masks and lines of JSON out."""

from __future__ import annotations

import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pixelwise.cli.options import (
    Device,
    DeviceOption,
    InputSizeOption,
    JsonOption,
    QuietOption,
    TileOption,
    TtaOption,
    WorkersOption,
)
from pixelwise.cli.progress import image_bar
from pixelwise.errors import DataError

if TYPE_CHECKING:
    from pixelwise.inference.image_files import ImageFile
    from pixelwise.inference.predict_files import Outcome
    from pixelwise.inference.results_file import ResultsFile


def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT", help="Images, folders of images with their sub-folders, or patterns."),
    ],
    *,
    model: Annotated[
        str, typer.Option("--model", metavar="NAME_OR_PATH", help="A shipped name, a model folder or a run folder.")
    ] = "default",
    task: Annotated[
        str | None, typer.Option("--task", help="Whose default model: semantic, instance, panoptic, …")
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where results go.")] = Path("out"),
    input_size: InputSizeOption = None,
    tile: TileOption = False,
    tta: TtaOption = False,
    score_threshold: Annotated[
        float | None,
        typer.Option("--score-threshold", min=0, max=1, help="Leave out what the model is less sure of."),
    ] = None,
    max_detections: Annotated[
        int | None, typer.Option("--max-detections", min=1, help="Most objects for each image.")
    ] = None,
    max_megapixels: Annotated[
        float, typer.Option("--max-megapixels", min=0, help="Refuse images with more pixels than this.")
    ] = 200,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Do again what is done already.")] = False,
    device: DeviceOption = Device.auto,
    workers: WorkersOption = 2,
    quiet: QuietOption = False,
    json_lines: JsonOption = False,
) -> int:
    """Label every pixel of images.

    For photo.jpg: photo.overlay.png to look at, photo.semantic.png with the ids (or photo.instances.png with the number
    of the object in each pixel), and a line in results.jsonl. A run that is started again does only what is not done.
    """
    from pixelwise.inference.coco_results import COCO_RESULTS_NAME, CocoResults
    from pixelwise.inference.image_files import find_image_files
    from pixelwise.inference.load import find_model, load
    from pixelwise.inference.model_folder import model_digest
    from pixelwise.inference.predict_files import Job, done_before, predict_files
    from pixelwise.inference.predictor import Options

    options = Options(score_threshold, max_detections, input_size, tile, tta)
    images = find_image_files(inputs, out=out)
    predictor = load(model, task=task, device=device)
    job = Job(predictor, model_digest(find_model(model, task=task)), options, out, max_megapixels, workers)
    report = _Report(total=len(images), json_lines=json_lines)
    with _sigterm_as_exit(), _opened_results(out) as results:
        done = set() if overwrite else {report.add(outcome) for outcome in done_before(images, job, results)}
        if done and not quiet:
            print(f"{len(done)} of {len(images)} done before, skipped; --overwrite redoes them", file=sys.stderr)
        todo = [image for image in images if image not in done]
        title = inputs[0] if len(inputs) == 1 else f"{len(inputs)} inputs"
        with (
            image_bar(title, len(todo), hidden=quiet or json_lines or not todo) as advance,
            closing(predict_files(todo, job, results)) as outcomes,
        ):
            for outcome in outcomes:
                report.add(outcome)
                advance(0 if outcome.failure else 1)
        if predictor.card.task == "instance":
            with CocoResults(out / COCO_RESULTS_NAME) as coco:
                coco.add(results.coco_entries(predictor.labels))
    report.print_failures()
    if not (quiet or json_lines):
        report.print_summary(out)
    return 1 if report.failures else 0


@dataclass
class _Report:
    """What the run has to say at its end, and with --json on the way."""

    total: int
    json_lines: bool
    failures: list[str] = field(default_factory=list)
    files: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome) -> ImageFile:
        if outcome.failure:
            self.failures.append(outcome.failure)
        elif self.json_lines:
            print(outcome.line, flush=True)
        self.files.update("".join(Path(name).suffixes[-2:]) for name in outcome.files)
        return outcome.image

    def print_failures(self) -> None:
        if self.failures:
            print(f"{len(self.failures)} of {self.total} failed:", file=sys.stderr)
        for failure in self.failures:
            print(f"  {failure}; skipped", file=sys.stderr)

    def print_summary(self, out: Path) -> None:
        nouns = {".overlay.png": "overlay", ".semantic.png": "mask", ".instances.png": "object map"}
        counts = [
            f"{self.files[suffix]} {noun}{'' if self.files[suffix] == 1 else 's'}"
            for suffix, noun in nouns.items()
            if self.files[suffix] or suffix == ".overlay.png"
        ]
        others = ["results.jsonl", *(["coco_results.json"] if self.files[".instances.png"] else [])]
        print(f"{out}/  {', '.join([*counts, *others])}")


@contextmanager
def _opened_results(out: Path) -> Iterator[ResultsFile]:
    from pixelwise.inference.results_file import ResultsFile

    try:
        results = ResultsFile(out)
    except OSError as error:
        raise DataError(f"{out}: results cannot be written ({error.strerror}); choose another --out") from None
    with results:
        yield results


@contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """Leave by an exception when the process is asked to end, so that what was computed is written."""

    def leave(*_: object) -> None:
        raise SystemExit(143)

    former = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
