"""`pixelwise evaluate`: a model, or masks that any tool wrote, judged on a data set."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from pixelwise.errors import CheckpointError, DataError, RecipeError

if TYPE_CHECKING:
    from pixelwise.data.dataset import Dataset
    from pixelwise.metrics.mean_iou import MeanIoU
    from pixelwise.training.evaluate import Answers

NAMED_MISSING = 5
"""How many of the images without prediction are named."""


def evaluate(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="A shipped name, a model folder or a run folder.")
    ] = None,
    *,
    data: Annotated[
        list[str],
        typer.Option(
            "--data",
            metavar="SPEC",
            help="FORMAT:PATH[@SPLIT][?option=value], val by default; may be given several times.",
        ),
    ],
    predictions: Annotated[
        Path | None,
        typer.Option("--predictions", metavar="DIR", help="Judge the id masks in this folder, paired by name."),
    ] = None,
    input_size: InputSizeOption = None,
    tile: TileOption = False,
    tta: TtaOption = False,
    label_map: Annotated[
        str | None,
        typer.Option("--map", metavar="MAP", help="How the data's classes become the model's: names, or a TOML file."),
    ] = None,
    device: DeviceOption = Device.auto,
    workers: WorkersOption = 2,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> int:
    """Judge a model, or masks that any tool wrote, on a data set.

    Masks hold the ids of the data set's own files, and lie in DIR under the names of the images: NAME.png or
    NAME.semantic.png. Exit code 1 if an image could not be judged.
    """
    from pixelwise.metrics.mean_iou import MeanIoU

    started = time.perf_counter()
    if (model is None) == (predictions is None):
        raise RecipeError("evaluate wants either MODEL or --predictions DIR; see pixelwise evaluate --help")
    if predictions is None:
        subject = _model(str(model), data, label_map, device, input_size=input_size, tile=tile, tta=tta)
    else:
        _refuse({"--input-size": input_size, "--tile": tile, "--tta": tta, "--map": label_map})
        subject = _stored_masks(predictions, data)
    if not quiet:
        for line in subject.remarks:
            print(line, file=sys.stderr)

    metric = MeanIoU(subject.dataset.labels)
    failures = _judge(subject, metric, workers=workers, hidden=quiet or as_json)
    result = _result(subject, metric, seconds=time.perf_counter() - started)
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        _print_tables(result)
    _print_missing(subject)
    if failures:
        print(f"{len(failures)} of {len(subject.indices)} failed:", file=sys.stderr)
    for failure in failures:
        print(f"  {failure}; left out", file=sys.stderr)
    return 1 if failures or subject.missing else 0


@dataclass(frozen=True)
class _Subject:
    """What is judged, and on what.

    Attributes:
        name: of the model, or the folder of masks.
        answers: what it says of a sample.
        dataset: in the classes of the model.
        indices: the images that have an answer.
        remarks: what the user should know beforehand.
    """

    name: str
    answers: Answers
    dataset: Dataset
    indices: Sequence[int]
    remarks: tuple[str, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """The ids of the images without answer."""
        answered = set(self.indices)
        return tuple(id for index, id in enumerate(self.dataset.ids) if index not in answered)


def _model(
    name: str,
    specs: Sequence[str],
    label_map: str | None,
    device: Device,
    *,
    input_size: int | None,
    tile: bool,
    tta: bool,
) -> _Subject:
    datasets = _opened(specs)
    from pixelwise.data.dataset import Mapped
    from pixelwise.inference.load import load
    from pixelwise.training.evaluate import model_answers
    from pixelwise.training.sources import describe_label_map, with_labels

    predictor = load(name, device=device.value)
    if predictor.card.task != "semantic":
        raise CheckpointError(f"{name}: a model for {predictor.card.task} segmentation; evaluate judges semantic ones")
    mapped = [with_labels(dataset, predictor.labels, label_map) for dataset in datasets]
    maps = dict.fromkeys(dataset.label_map for dataset in mapped if isinstance(dataset, Mapped))
    tables = (line for one in maps for line in describe_label_map(one))
    joined = _joined(mapped)
    answers = model_answers(predictor, input_size=input_size, tile=tile, tta=tta)
    return _Subject(name, answers, joined, range(len(joined)), (*_remarks(datasets), *tables))


def _stored_masks(folder: Path, specs: Sequence[str]) -> _Subject:
    datasets = _opened(specs)
    from pixelwise.training.stored_masks import find_masks

    for other in datasets[1:]:
        mine, theirs = datasets[0].labels, other.labels
        if (mine.names, mine.native_ids, mine.void_ids) != (theirs.names, theirs.native_ids, theirs.void_ids):
            raise DataError(
                f"{datasets[0].name} and {other.name} have different classes or ids on disk, so the ids in {folder} "
                "could mean either; judge the masks of each by themselves"
            )
    joined = _joined(datasets)
    answers = find_masks(folder, joined)
    return _Subject(str(folder), answers, joined, tuple(answers.files), _remarks(datasets))


def _judge(subject: _Subject, metric: MeanIoU, *, workers: int, hidden: bool) -> list[str]:
    """Count every image that has an answer; returns why some could not be."""
    from pixelwise.training.evaluate import evaluate as judge

    outcomes = judge(subject.answers, subject.dataset, metric, workers=workers, indices=subject.indices, go_on=True)
    failures: list[str] = []
    with image_bar(subject.name, len(subject.indices), hidden=hidden) as advance, closing(outcomes):
        for outcome in outcomes:
            if outcome.failure:
                failures.append(outcome.failure)
            advance(1)
    return failures


def _opened(specs: Sequence[str]) -> list[Dataset]:
    from pixelwise.data.spec import open_dataset

    datasets = [open_dataset(text, default_split="val") for text in specs]
    for dataset in datasets:
        if not len(dataset):
            raise DataError(f"{dataset.name}: no images in it; see pixelwise data check")
    return datasets


def _joined(datasets: Sequence[Dataset]) -> Dataset:
    from pixelwise.data.dataset import Merged

    return datasets[0] if len(datasets) == 1 else Merged(tuple(datasets))


def _remarks(datasets: Sequence[Dataset]) -> tuple[str, ...]:
    return tuple(f"{dataset.name}: {dataset.remark}" for dataset in datasets if dataset.remark)


def _refuse(options: dict[str, Any]) -> None:
    """Raise RecipeError for options that mean nothing without a model."""
    given = [name for name, value in options.items() if value]
    if given:
        raise RecipeError(f"{', '.join(given)}: only with MODEL; --predictions judges masks as they are")


def _result(subject: _Subject, metric: MeanIoU, *, seconds: float) -> dict[str, Any]:
    values = metric.compute()
    return {
        "model": subject.name,
        "data": subject.dataset.name,
        "images": len(metric.images),
        "labels": list(metric.labels.names),
        "metrics": {name: value for name, value in values.items() if name != "per_class"},
        "per_class": values["per_class"],
        "seconds": round(seconds, 3),
    }


def _print_tables(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from pixelwise.metrics.mean_iou import DEFINITION

    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    console.print(f"{result['model']} on {result['data']}: {result['images']:,} images, {result['seconds']:,.1f} s")
    classes = Table(box=None, pad_edge=False)
    classes.add_column("class")
    for heading in ("IoU", "accuracy", "pixels"):
        classes.add_column(heading, justify="right")
    for name, values in result["per_class"].items():
        classes.add_row(name, _shown(values["iou"]), _shown(values["accuracy"]), f"{values['pixels']:,}")
    console.print(classes)
    means = Table(box=None, pad_edge=False, show_header=False)
    for name, value in result["metrics"].items():
        means.add_row(name.replace("_", " ").replace("iou", "IoU"), _shown(value))
    console.print(means)
    console.print(DEFINITION)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _print_missing(subject: _Subject) -> None:
    missing = subject.missing
    if missing:
        more = ", …" if len(missing) > NAMED_MISSING else ""
        print(
            f"{len(missing)} of {len(subject.dataset)} images have no prediction: "
            f"{', '.join(missing[:NAMED_MISSING])}{more}; left out",
            file=sys.stderr,
        )
