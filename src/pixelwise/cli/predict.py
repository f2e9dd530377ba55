"""`pixelwise predict`: images and videos in, overlays, masks and lines of JSON out."""

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

from pixelwise.cli.clips import ClipRun, is_video_output, only_clip, predict_clip, video_names
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
from pixelwise.cli.terminal import print
from pixelwise.errors import DataError

if TYPE_CHECKING:
    from pixelwise.inference.images.find import FoundFiles, ImageFile
    from pixelwise.inference.images.predict import Job, Outcome
    from pixelwise.predictions.lines import ResultsFile

NAMED_IMAGES = 3
"""Number of images of several frames that are named."""


def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT", help="Images, videos, folders of them with their sub-folders, or patterns."),
    ],
    *,
    model: Annotated[
        str, typer.Option("--model", metavar="NAME_OR_PATH", help="A shipped name, a model folder or a run folder.")
    ] = "default",
    task: Annotated[
        str | None, typer.Option("--task", help="Task of the default model: semantic, instance or panoptic.")
    ] = None,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", help="Folder for results, or for one clip or a folder of frames an .mp4."),
    ] = Path("out"),
    input_size: InputSizeOption = None,
    tile: TileOption = False,
    tta: TtaOption = False,
    score_threshold: Annotated[
        float | None,
        typer.Option("--score-threshold", min=0, max=1, help="Skip predictions with a lower score."),
    ] = None,
    max_detections: Annotated[
        int | None, typer.Option("--max-detections", min=1, help="Largest number of instances per image.")
    ] = None,
    max_megapixels: Annotated[
        float, typer.Option("--max-megapixels", min=0, help="Refuse images with more pixels than this.")
    ] = 200,
    track: Annotated[
        bool, typer.Option("--track", help="In videos: track the instances of a model that runs on frames one by one.")
    ] = False,
    frame_rate: Annotated[
        float, typer.Option("--frame-rate", min=0.01, help="Frames per second of a folder of frames.")
    ] = 25,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Predict again what is done already.")] = False,
    device: DeviceOption = Device.auto,
    workers: WorkersOption = 2,
    quiet: QuietOption = False,
    json_lines: JsonOption = False,
) -> int:
    """Segment images and videos.

    For photo.jpg: photo.overlay.png, photo.semantic.png with class ids (or photo.instances.png with the id of the
    instance in each pixel, photo.panoptic.png with that of its segment), and a line in results.jsonl. A run that is
    started again predicts only what is not done. For clip.mp4: clip.overlay.mp4, and clip.jsonl with a line for each
    frame; with --out NAME.mp4 these are NAME.mp4 and NAME.jsonl, and a folder of images is the frames of a clip.
    """
    from pixelwise.inference.images.find import find_image_files
    from pixelwise.inference.images.predict import Job
    from pixelwise.inference.load import load, weights_digest
    from pixelwise.inference.predictor import Options
    from pixelwise.inference.video.input import is_video, open_video
    from pixelwise.inference.video.predict import VideoJob, look_for_results

    options = Options(score_threshold, max_detections, input_size, tile, tta)
    clip = None
    if is_video_output(out):
        clip = only_clip(inputs, out, frame_rate=frame_rate, max_megapixels=max_megapixels)
    found = None if clip else find_image_files(inputs, out=out, videos=True)
    files = found.files if found else ()
    if found and not quiet:
        _print_skipped(found)
    predictor = load(model, task=task, device=device)
    predictor.require_possible(options)
    if predictor.note and not quiet:
        print(predictor.note, file=sys.stderr)
    weights = weights_digest(model, task=task)
    if clip:
        job = VideoJob(predictor, weights, options, track, out, out.with_suffix(".jsonl"))
        with _sigterm_as_exit():
            run = ClipRun(clip, job, look_for_results(clip, job, overwrite=overwrite))
            failure = predict_clip(run, quiet=quiet, json_lines=json_lines)
        if failure:
            print(f"pixelwise: {failure}", file=sys.stderr)
        return 1 if failure else 0
    videos = [file for file in files if is_video(file.path)]
    images = [file for file in files if file not in set(videos)]
    if track and not videos:
        raise DataError("--track: tracks instances in videos, and there is no video among the inputs")
    report = _Report(total=len(files), json_lines=json_lines)
    runs: list[ClipRun] = []
    for file in videos:
        try:
            video = open_video(file.path, max_megapixels=max_megapixels)
        except DataError as error:
            if len(files) == 1:
                raise
            report.fail(f"{error}; skipped")
            continue
        job = VideoJob(predictor, weights, options, track, *video_names(file, out))
        runs.append(ClipRun(video, job, look_for_results(video, job, overwrite=overwrite)))
    with _sigterm_as_exit():
        if images:
            title = inputs[0] if len(inputs) == 1 else f"{len(inputs)} inputs"
            job = Job(predictor, weights, options, out, max_megapixels, workers)
            _predict_images(images, job, report, title=title, overwrite=overwrite, quiet=quiet)
        for run in runs:
            failure = predict_clip(run, quiet=quiet, json_lines=json_lines)
            if failure:
                report.fail(failure)
    report.print_failures()
    if images and not quiet:
        _print_further_frames([image.path for image in images], max_megapixels=max_megapixels)
    if images and not (quiet or json_lines):
        report.print_summary(out)
    return 1 if report.failures else 0


def _predict_images(
    images: list[ImageFile], job: Job, report: _Report, *, title: str, overwrite: bool, quiet: bool
) -> None:
    """Predict the images that are not done, and collect all in COCO's results."""
    from pixelwise.inference.images.predict import done_before, predict_files
    from pixelwise.predictions.coco_objects import COCO_RESULTS_NAME, CocoResults
    from pixelwise.predictions.coco_segments import PANOPTIC_RESULTS_NAME, panoptic_head

    predictor, out = job.predictor, job.out
    with _opened_results(out) as results:
        done = set() if overwrite else {report.add(outcome) for outcome in done_before(images, job, results)}
        if done and not quiet:
            print(f"{len(done)} of {len(images)} done before, skipped; --overwrite redoes them", file=sys.stderr)
        todo = [image for image in images if image not in done]
        with (
            image_bar(title, len(todo), hidden=quiet or report.json_lines or not todo) as advance,
            closing(predict_files(todo, job, results)) as outcomes,
        ):
            for outcome in outcomes:
                report.add(outcome)
                advance(0 if outcome.failure else 1)
        if predictor.card.task == "instance":
            with CocoResults(out / COCO_RESULTS_NAME) as coco:
                coco.add(results.coco_entries(predictor.labels))
        if predictor.card.task == "panoptic":
            with CocoResults(out / PANOPTIC_RESULTS_NAME, head=panoptic_head(predictor.labels)) as coco:
                coco.add(results.panoptic_entries(predictor.labels))


def _print_skipped(found: FoundFiles) -> None:
    """Print the number of files in folders that are neither images nor videos, or are results."""
    from pixelwise.files.images import describe_passed_over

    if found.passed_over:
        print(describe_passed_over(found.passed_over), file=sys.stderr)
    if found.results:
        files = "1 file" if found.results == 1 else f"{found.results:,} files"
        print(f"{files} skipped, named as results are (such as .overlay.png)", file=sys.stderr)


def _print_further_frames(images: list[Path], *, max_megapixels: float) -> None:
    """Name the images with several frames or pages, of which the first alone is predicted."""
    from pixelwise.files.images import frame_count

    counts = {image: frame_count(image, max_megapixels=max_megapixels) for image in images}
    several = {image: count for image, count in counts.items() if count > 1}
    if not several:
        return
    named = [f"{image} has {count:,}" for image, count in list(several.items())[:NAMED_IMAGES]]
    if len(several) > NAMED_IMAGES:
        named.append(f"{len(several) - NAMED_IMAGES:,} other images have several")
    print(f"first frame alone predicted, the others skipped: {', '.join(named)}", file=sys.stderr)


@dataclass
class _Report:
    """The report of the run: lines with --json, failures and a summary."""

    total: int
    json_lines: bool
    failures: list[str] = field(default_factory=list)
    files: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome) -> ImageFile:
        if outcome.failure:
            self.fail(f"{outcome.failure}; skipped")
        elif self.json_lines:
            print(outcome.line, whole=True, flush=True)
        self.files.update("".join(Path(name).suffixes[-2:]) for name in outcome.files)
        return outcome.image

    def fail(self, failure: str) -> None:
        self.failures.append(failure)

    def print_failures(self) -> None:
        if self.failures:
            print(f"{len(self.failures)} of {self.total} failed:", file=sys.stderr)
        for failure in self.failures:
            print(f"  {failure}", file=sys.stderr)

    def print_summary(self, out: Path) -> None:
        nouns = {
            ".overlay.png": "overlay",
            ".semantic.png": "mask",
            ".instances.png": "instance map",
            ".panoptic.png": "segment map",
        }
        counts = [
            f"{self.files[suffix]} {noun}{'' if self.files[suffix] == 1 else 's'}"
            for suffix, noun in nouns.items()
            if self.files[suffix] or suffix == ".overlay.png"
        ]
        lists = {".instances.png": "coco_results.json", ".panoptic.png": "panoptic_results.json"}
        others = ["results.jsonl", *(name for suffix, name in lists.items() if self.files[suffix])]
        print(f"{out}/  {', '.join([*counts, *others])}")


@contextmanager
def _opened_results(out: Path) -> Iterator[ResultsFile]:
    from pixelwise.predictions.lines import ResultsFile

    try:
        results = ResultsFile(out)
    except OSError as error:
        raise DataError(f"{out}: results cannot be written ({error.strerror}); choose another --out") from None
    with results:
        yield results


@contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that computed results are written."""

    def leave(*_: object) -> None:
        raise SystemExit(143)

    former = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
