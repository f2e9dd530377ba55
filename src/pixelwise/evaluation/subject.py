"""What an evaluation evaluates: a model, or masks that any tool wrote, and the data set it is evaluated on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixelwise.data.dataset import Dataset, Mapped, Merged, clips_of
from pixelwise.data.label_maps import describe_label_map, with_labels
from pixelwise.data.spec import open_dataset
from pixelwise.errors import CheckpointError, DataError
from pixelwise.evaluation.evaluate import Predictions, model_predictions
from pixelwise.inference.load import load, weights_digest
from pixelwise.inference.predictor import DEFAULTS, Options, Predictor
from pixelwise.metrics.choice import JUDGED_TASKS, TaskMetric, new_metric
from pixelwise.predictions.clips import StoredFrames, has_colours, read_object_frame, read_step_frame
from pixelwise.predictions.coco_objects import read_objects
from pixelwise.predictions.coco_segments import find_segments, read_segments
from pixelwise.predictions.id_masks import find_masks


@dataclass(frozen=True)
class Subject:
    """What is evaluated, and on what.

    Attributes:
        name: of the model, or the folder of masks.
        answers: what it says of a sample.
        dataset: in the classes of the model.
        indices: the images that have an answer.
        notes: what the user should know beforehand.
        conditions: what else decides the numbers, as JSON values: the weights, and the options of prediction.
        predictor: the model; None for masks.
        task: `semantic`, `instance` or `panoptic`.
        usual: the definition that evaluates where none is asked for; None for that of the task.
    """

    name: str
    answers: Predictions
    dataset: Dataset
    indices: Sequence[int]
    notes: tuple[str, ...]
    conditions: dict[str, Any] = field(default_factory=dict)
    predictor: Predictor | None = None
    task: str = "semantic"
    usual: str | None = None

    def new_metric(self, definition: str | None, *, windows: Sequence[int] | None = None) -> TaskMetric:
        """A metric for its task and classes, by this definition or, with None, by the usual one; see `new_metric`."""
        clips = clips_of(self.dataset) is not None
        return new_metric(self.task, self.dataset.labels, definition or self.usual, clips=clips, windows=windows)


def model_subject(
    name: str,
    specs: Sequence[str],
    label_map: str | None,
    *,
    device: str = "auto",
    options: Options = DEFAULTS,
    tracks: bool = False,
) -> Subject:
    """A model, to be evaluated on data in its own classes.

    Args:
        name: a shipped name, a model folder or a run folder.
        specs: of the data; val where a split is left open.
        label_map: how other classes become the model's; see `with_labels`.
        device: see `load`.
        options: how it runs on an image.
        tracks: see `model_predictions`.

    Raises:
        CheckpointError: the model cannot be loaded, or its task cannot be evaluated.
        DataError: the data cannot be opened, or has other classes and there is no map.
        RecipeError: the model cannot look at images in that way.
    """
    datasets = open_evaluated(specs)
    predictor = load(name, device=device)
    if predictor.card.task not in JUDGED_TASKS:
        raise CheckpointError(
            f"{name}: a model for {predictor.card.task} segmentation; {', '.join(JUDGED_TASKS)} ones can be evaluated"
        )
    mapped = [with_labels(dataset, predictor.labels, label_map) for dataset in datasets]
    maps = dict.fromkeys(dataset.label_map for dataset in mapped if isinstance(dataset, Mapped))
    tables = (line for one in maps for line in describe_label_map(one))
    joined = _joined(mapped)
    return Subject(
        name,
        model_predictions(predictor, options, tracks=tracks),
        joined,
        range(len(joined)),
        (*([predictor.note] if predictor.note else []), *_notes(datasets), *tables),
        {
            "weights": weights_digest(name),
            "input_size": options.input_size or predictor.card.input_size,
            "tile": options.tile,
            "tta": options.tta,
            "track": tracks,
            "label_maps": [[list(row) for row in one.rows()] for one in maps],
        },
        predictor,
        predictor.card.task,
    )


def mask_subject(folder: Path, specs: Sequence[str]) -> Subject:
    """The masks of a folder, paired by name with the images of data sets.

    With the frames of DAVIS they hold the numbers of objects; with those of other clips files of three channels are
    maps as KITTI-STEP has them, and others hold classes, as with images.

    Raises:
        DataError: the data cannot be opened, or which mask belongs to which image is not clear.
    """
    datasets = open_evaluated(specs)
    for other in datasets[1:]:
        mine, theirs = datasets[0].labels, other.labels
        if (mine.names, mine.dataset_ids, mine.void_ids) != (theirs.names, theirs.dataset_ids, theirs.void_ids):
            raise DataError(
                f"{datasets[0].name} and {other.name} have different classes or ids on disk, so the ids in {folder} "
                "could mean either; judge the masks of each by themselves"
            )
    joined = _joined(datasets)
    masks = find_masks(folder, joined)
    indices, notes = tuple(masks.files), _notes(datasets)
    if joined.format == "davis":
        objects = StoredFrames(masks, read_object_frame)
        return Subject(str(folder), objects, joined, indices, notes, task="instance", usual="davis")
    if clips_of(joined) is not None and has_colours(masks.files[indices[0]]):
        segments = StoredFrames(masks, read_step_frame)
        return Subject(str(folder), segments, joined, indices, notes, task="panoptic")
    return Subject(str(folder), masks, joined, indices, notes)


def object_subject(path: Path, specs: Sequence[str]) -> Subject:
    """The objects of a COCO results JSON, with the images of a data set; an image without entries has no objects.

    Raises:
        DataError: the data cannot be opened, or the file is not sound.
    """
    datasets = open_evaluated(specs)
    for other in datasets[1:]:
        datasets[0].labels.require_same(other.labels, mine=f"data {datasets[0].name}", theirs=f"data {other.name}")
    joined = _joined(datasets)
    answers = read_objects(path, joined)
    return Subject(str(path), answers, joined, range(len(joined)), _notes(datasets), task="instance")


def segment_subject(path: Path, specs: Sequence[str]) -> Subject:
    """The segments of a COCO panoptic JSON and its PNGs, with the images of a data set.

    Raises:
        DataError: the data cannot be opened, or the file is not sound.
    """
    datasets = open_evaluated(specs)
    for other in datasets[1:]:
        datasets[0].labels.require_same(other.labels, mine=f"data {datasets[0].name}", theirs=f"data {other.name}")
    joined = _joined(datasets)
    answers = read_segments(path, joined)
    indices = tuple(index for index, id in enumerate(joined.ids) if id in answers.maps)
    return Subject(str(path), answers, joined, indices, _notes(datasets), task="panoptic")


def stored_subject(path: Path, specs: Sequence[str]) -> Subject:
    """Predictions that any tool wrote, of the kind that the path holds.

    A panoptic JSON, or a folder with one, has segments; another JSON has objects; another folder has masks, or
    frames of clips.

    Raises:
        DataError: the data cannot be opened, or the predictions are not sound.
    """
    segments = find_segments(path)
    if segments is not None:
        return segment_subject(segments, specs)
    return object_subject(path, specs) if path.suffix == ".json" else mask_subject(path, specs)


def open_evaluated(specs: Sequence[str]) -> list[Dataset]:
    """The data sets to judge on, val where a split is left open. Raises DataError also for one without images."""
    datasets = [open_dataset(text, default_split="val") for text in specs]
    for dataset in datasets:
        if not len(dataset):
            raise DataError(f"{dataset.name}: no images in it; see pixelwise data check")
    return datasets


def _joined(datasets: Sequence[Dataset]) -> Dataset:
    return datasets[0] if len(datasets) == 1 else Merged(tuple(datasets))


def _notes(datasets: Sequence[Dataset]) -> tuple[str, ...]:
    return tuple(f"{dataset.name}: {dataset.note}" for dataset in datasets if dataset.note)
