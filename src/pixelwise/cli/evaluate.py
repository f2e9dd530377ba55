"""`pixelwise evaluate`: evaluate a model, or predictions of any tool, on a data set, at once or in parts."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pixelwise.cli.evaluation import evaluate_images, heading, print_failures
from pixelwise.cli.options import (
    DefinitionOption,
    Device,
    DeviceOption,
    InputSizeOption,
    JsonOption,
    MapOption,
    QuietOption,
    TileOption,
    TtaOption,
    WorkersOption,
)
from pixelwise.cli.terminal import cell, print
from pixelwise.errors import DataError, RecipeError

if TYPE_CHECKING:
    from PIL import Image

    from pixelwise.data.dataset import Dataset
    from pixelwise.evaluation.class_confusion import ClassConfusion
    from pixelwise.evaluation.report import Evaluation
    from pixelwise.metrics.choice import TaskMetric
    from pixelwise.predictions.coco_objects import CocoResults
    from pixelwise.predictions.coco_segments import PanopticResults
    from pixelwise.types import Annotation, Sample

NAMED_MISSING = 5
"""Number of images without prediction that are named."""


def evaluate(
    model: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL", help="A shipped name, a model folder or a run folder; with --merge, the parts."
        ),
    ] = None,
    *,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="SPEC",
            help="FORMAT:PATH[@SPLIT][?option=value], val by default; may be given several times.",
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions",
            metavar="PATH",
            help="Evaluate the id masks in this folder, paired by name, the instances in this COCO results JSON, the "
            "segments of this COCO panoptic JSON, its PNGs in the folder of its name, or the lines of tracked videos, "
            "CLIP.labelled.jsonl or a folder of such.",
        ),
    ] = None,
    input_size: InputSizeOption = None,
    tile: TileOption = False,
    tta: TtaOption = False,
    protocol: Annotated[
        str | None,
        typer.Option(
            "--protocol",
            metavar="NAME",
            help="Run as the test of a paper does: pspnet or pspnet:CROP, mirrored windows of the crop, with --tta at "
            "six scales from 0.5 to 1.75; deeplab_v3, mirrored at these scales and output stride 8.",
        ),
    ] = None,
    track: Annotated[
        bool,
        typer.Option(
            "--track",
            help="In clips: track the instances of a model that runs on frames one by one. On DAVIS this gives J and "
            "F, by the unsupervised definition.",
        ),
    ] = False,
    label_map: MapOption = None,
    definition: DefinitionOption = None,
    windows: Annotated[
        str | None,
        typer.Option(
            "--windows", metavar="N,N,…", help="Lengths of VPQ's windows in labelled frames, 1,2,3,4 by default."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Write evaluation.json, images.jsonl, worst.png; confusion.png of classes and of segments, "
            "coco_results.json of instances, panoptic_results.json and its folder of PNGs of segments.",
        ),
    ] = None,
    shard: Annotated[
        str | None, typer.Option("--shard", metavar="I/N", help="Evaluate the I-th of N parts, from 1/N to N/N.")
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Join the results of all shards: evaluate --merge FILE…")
    ] = False,
    device: DeviceOption = Device.auto,
    workers: WorkersOption = 2,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> int:
    """Evaluate a model, or predictions of any tool, on a data set.

    Masks hold the ids of the data set's own files, and lie in PATH under the names of the images: NAME.png or
    NAME.semantic.png. On sets whose one class is "object", such as DAVIS, instances of all classes count; there tracks
    are matched to objects (davis-unsupervised), unless --definition davis says that their ids are those of the ground
    truth. Exit code 1 if an image could not be evaluated.
    """
    of_model = {
        "--input-size": input_size,
        "--tile": tile,
        "--tta": tta,
        "--protocol": protocol,
        "--track": track,
    }
    names = model or []
    if merge:
        of_data = {
            "--data": data,
            "--predictions": predictions,
            "--definition": definition,
            "--windows": windows,
            "--shard": shard,
            "--map": label_map,
        }
        _refuse({**of_data, **of_model}, "not with --merge, which joins the counts of the shards")
        if not names:
            raise RecipeError("--merge: expected the files of the shards: evaluate --merge FILE…")
        return _merged(names, out, quiet=quiet, as_json=as_json)
    if len(names) > 1:
        raise RecipeError(f"{len(names)} models; evaluate evaluates one, see pixelwise compare")
    if bool(names) == (predictions is not None):
        raise RecipeError("expected either MODEL or --predictions PATH; see pixelwise evaluate --help")
    if not data:
        raise RecipeError("Missing option '--data', such as voc:./VOC2012@val (see pixelwise evaluate --help)")
    if predictions is not None:
        _refuse(of_model, "only with MODEL; --predictions evaluates stored results")

    started = time.perf_counter()
    from pixelwise.evaluation.class_confusion import ClassConfusion
    from pixelwise.evaluation.report import Evaluation, make_report_folder
    from pixelwise.evaluation.shards import Shard, shard_to_json
    from pixelwise.evaluation.subject import model_subject, stored_subject
    from pixelwise.evaluation.void_predictions import VoidPredictions
    from pixelwise.evaluation.worst_images import WorstImages
    from pixelwise.inference.predictor import Options
    from pixelwise.predictions.coco_objects import COCO_RESULTS_NAME, CocoResults
    from pixelwise.predictions.coco_segments import PANOPTIC_RESULTS_NAME, PanopticResults

    part = None if shard is None else Shard.parse(shard)
    if predictions is None:
        subject = model_subject(
            names[0],
            data,
            label_map,
            device=device.value,
            options=Options(input_size=input_size, tile=tile, tta=tta),
            tracks=track,
            protocol=protocol,
        )
    else:
        subject = stored_subject(predictions, data, label_map)
    metric = subject.new_metric(definition, windows=None if windows is None else _lengths(windows))
    if out is not None:
        make_report_folder(out)
    if not quiet:
        for line in subject.notes:
            print(line, file=sys.stderr)

    everything = subject.considered
    selected = everything if part is None else part.part_of(everything, subject.dataset.clips)
    answered = set(subject.indices)
    indices = [index for index in selected if index in answered]
    missing = tuple(subject.dataset.ids[index] for index in selected if index not in answered)
    worst = None if out is None else WorstImages(metric)
    classes = None if out is None or subject.task != "panoptic" else ClassConfusion(subject.dataset.labels)
    void = VoidPredictions(subject.dataset.labels) if subject.masks else None
    watchers: list[Callable[[Sample, Annotation], None]] = [one for one in (worst, classes, void) if one is not None]
    with ExitStack() as files:
        if out is not None and subject.task == "instance":
            mapped = subject.dataset.labels if subject.is_mapped else None
            results = files.enter_context(CocoResults(out / COCO_RESULTS_NAME, mapped=mapped))
            watchers.append(_writer(results, subject.dataset))
        if out is not None and subject.task == "panoptic":
            ids, labels = subject.dataset.ids, subject.dataset.labels
            segments = files.enter_context(
                PanopticResults(out / PANOPTIC_RESULTS_NAME, ids, labels, mapped=subject.is_mapped)
            )
            watchers.append(_segment_writer(segments))
        failures = evaluate_images(
            subject, metric, indices, watchers=watchers, workers=workers, hidden=quiet or as_json
        )
    evaluation = Evaluation(
        model=subject.name,
        data=subject.dataset.name,
        metric=metric,
        failures=failures,
        missing=missing,
        total=len(selected),
        seconds=time.perf_counter() - started,
        protocol=subject.conditions.get("protocol"),
    )
    if subject.is_mapped and part is None:
        _require_ground_truth(metric, subject.dataset.name)
    if void is not None and predictions is not None and (note := void.note(predictions)):
        print(note, file=sys.stderr)
    content = evaluation.to_json() if part is None else shard_to_json(evaluation, part, subject)
    sheet = None if worst is None else worst.sheet()
    return _report(evaluation, content, out, worst=sheet, classes=classes, as_json=as_json)


def _require_ground_truth(metric: TaskMetric, data: str) -> None:
    """Raise DataError where a map ignores all ground truth."""
    means = [value for value in metric.compute().values() if not isinstance(value, dict)]
    if metric.images and all(value is None for value in means):
        raise DataError(
            f"--map: no ground truth of {data} is left in its {len(metric.images):,} images, so nothing was evaluated; "
            "name pairs of classes in a file, --map FILE.toml"
        )


def _segment_writer(results: PanopticResults) -> Callable[[Sample, Annotation], None]:
    def write(sample: Sample, predicted: Annotation) -> None:
        if predicted.panoptic is not None:
            results.add(sample.id, predicted.panoptic)

    return write


def _writer(results: CocoResults, dataset: Dataset) -> Callable[[Sample, Annotation], None]:
    from pixelwise.predictions.coco_objects import coco_image_ids, entries_of_instances

    ids = coco_image_ids(dataset.ids)

    def write(sample: Sample, predicted: Annotation) -> None:
        if predicted.instances is not None:
            results.add(entries_of_instances(ids[sample.id], predicted.instances, dataset.labels))

    return write


def _merged(names: Sequence[str], out: Path | None, *, quiet: bool, as_json: bool) -> int:
    """Join the reports of shards."""
    from pixelwise.evaluation.report import make_report_folder
    from pixelwise.evaluation.shards import merge_shards

    evaluation = merge_shards([Path(name) for name in names])
    if out is not None:
        make_report_folder(out)
        if not quiet:
            print(f"{out}: without worst.png; the --out of each shard has its own", file=sys.stderr)
    return _report(evaluation, evaluation.to_json(), out, worst=None, classes=None, as_json=as_json)


def _refuse(options: dict[str, Any], why: str) -> None:
    """Raise RecipeError if one of the options is given."""
    given = [name for name, value in options.items() if value]
    if given:
        raise RecipeError(f"{', '.join(given)}: {why}")


def _lengths(windows: str) -> list[int]:
    """The numbers of `--windows`. Raises RecipeError for anything else."""
    try:
        return [int(number) for number in windows.split(",")]
    except ValueError:
        raise RecipeError(f"--windows '{windows}': expected numbers of labelled frames, such as 1,2,3,4") from None


def _report(
    evaluation: Evaluation,
    content: dict[str, Any],
    out: Path | None,
    *,
    worst: Image.Image | None,
    classes: ClassConfusion | None,
    as_json: bool,
) -> int:
    """Print and write the results; return the exit code."""
    from pixelwise.evaluation.report import write_report

    if as_json:
        print(json.dumps(content, ensure_ascii=False), whole=True)
    else:
        _print_tables(content)
    if out is not None:
        write_report(out, evaluation, content, worst, confusion=None if classes is None else classes.counts)
    missing, failures = evaluation.missing, evaluation.failures
    if missing:
        more = ", …" if len(missing) > NAMED_MISSING else ""
        print(
            f"{len(missing)} of {evaluation.total} images have no prediction: "
            f"{', '.join(missing[:NAMED_MISSING])}{more}; skipped",
            file=sys.stderr,
        )
    print_failures(failures, evaluation.total - len(missing))
    return 1 if failures or missing else 0


def _print_tables(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from pixelwise.metrics.choice import DEFINITIONS

    # as wide as the tables: rich would cut their columns to the terminal
    console = Console(width=1000, highlight=False, markup=False, emoji=False, soft_wrap=True)
    part = f", shard {result['shard']['number']}/{result['shard']['count']}" if "shard" in result else ""
    print(f"{result['model']} on {result['data']}{part}: {result['images']:,} images, {result['seconds']:,.1f} s")
    for kind, name in (("class", "per_class"), ("category", "per_category")):
        rows: dict[str, dict[str, Any]] = result.get(name, {})
        columns = list(dict.fromkeys(column for values in rows.values() for column in values))
        table = Table(box=None, pad_edge=False)
        table.add_column(kind)
        for column in columns:
            table.add_column(heading(column), justify="right")
        for row, values in rows.items():
            table.add_row(cell(row), *(_shown(values[column]) for column in columns))
        if rows:
            console.print(table)
    means = Table(box=None, pad_edge=False, show_header=False)
    for name, value in result["metrics"].items():
        means.add_row(heading(name), _shown(value))
    console.print(means)
    print(DEFINITIONS[result["definition"]])
    if "protocol" in result:
        print(f"protocol {result['protocol'].get('name')}")


def _shown(value: float | int | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
