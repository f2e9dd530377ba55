"""The subject of an evaluation: a model, or predictions of any tool, and the data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from pixelwise.data.dataset import Dataset, Mapped, Merged
from pixelwise.data.label_maps import describe_label_map, with_labels
from pixelwise.data.spec import open_dataset
from pixelwise.errors import CheckpointError, DataError, RecipeError
from pixelwise.evaluation.evaluate import Predictions, model_predictions
from pixelwise.evaluation.protocols import ProtocolPredictions, protocol_of
from pixelwise.inference.load import load, weights_digest
from pixelwise.inference.predictor import DEFAULTS, Options, Predictor
from pixelwise.labels import LabelMap, LabelSet
from pixelwise.metrics.choice import EVALUATED_TASKS, TaskMetric, new_metric
from pixelwise.predictions.clips import (
    StoredFrames,
    has_colours,
    line_files,
    object_reader,
    pair_lines,
    read_numbered_frame,
)
from pixelwise.predictions.coco_objects import Entries, pair_objects, read_entries
from pixelwise.predictions.coco_segments import SegmentList, find_segments, pair_segments, read_segment_list
from pixelwise.predictions.id_masks import find_masks
from pixelwise.types import Annotation, Sample

OF_TRACKS = "davis-unsupervised"
"""Default definition for tracked objects of any class."""


@dataclass(frozen=True)
class Subject:
    """The subject of an evaluation and its data.

    Attributes:
        name: of the model, or the place of the predictions.
        answers: what it says of a sample.
        dataset: in the classes of the predictions.
        indices: the images that have a prediction.
        notes: what the user should know beforehand.
        conditions: what else decides the numbers, as JSON values: the weights, and the options of prediction.
        predictor: the model; None for stored predictions.
        task: `semantic`, `instance` or `panoptic`.
        usual: the definition that evaluates where none is asked for; None for that of the task.
        masks: whether stored masks of classes are evaluated.
        chosen: the images that are evaluated; None for all.
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
    masks: bool = False
    chosen: Sequence[int] | None = None

    @property
    def considered(self) -> Sequence[int]:
        """The images that are evaluated, with or without a prediction."""
        return range(len(self.dataset)) if self.chosen is None else self.chosen

    @property
    def is_mapped(self) -> bool:
        """Whether the classes differ from those of the data set on disk."""
        parts = self.dataset.parts if isinstance(self.dataset, Merged) else (self.dataset,)
        return any(isinstance(part, Mapped) for part in parts)

    def new_metric(self, definition: str | None, *, windows: Sequence[int] | None = None) -> TaskMetric:
        """A metric for its task and classes, by this definition or, with None, by the usual one; see `new_metric`."""
        clips = self.dataset.clips is not None
        return new_metric(self.task, self.dataset.labels, definition or self.usual, clips=clips, windows=windows)


# ---- models


def model_subject(
    name: str,
    specs: Sequence[str],
    label_map: str | None,
    *,
    device: str = "auto",
    options: Options = DEFAULTS,
    tracks: bool = False,
    protocol: str | None = None,
) -> Subject:
    """A model evaluated on data in its own classes.

    Objects of sets whose one class is `object` are objects of any class: there a model of objects is evaluated in the
    set's class, unless a map says otherwise.

    Args:
        name: a shipped name, a model folder or a run folder.
        specs: of the data; val where a split is left open.
        label_map: how other classes become the model's; see `with_labels`.
        device: see `load`.
        options: how it runs on an image.
        tracks: see `model_predictions`.
        protocol: of the test, see `protocols.protocol_of`; None predicts as `pixelwise predict` does.

    Raises:
        CheckpointError: the model cannot be loaded, or its task cannot be evaluated.
        DataError: the data cannot be opened, or has other classes and there is no map.
        RecipeError: the model cannot run in that way.
    """
    datasets = open_evaluated(specs)
    predictor = load(name, device=device)
    task = predictor.card.task
    if task not in EVALUATED_TASKS:
        raise CheckpointError(
            f"{name}: a model for {task} segmentation; {', '.join(EVALUATED_TASKS)} ones can be evaluated"
        )
    notes = [predictor.note] if predictor.note else []
    conditions: dict[str, Any] = {}
    if protocol is None:
        answers = model_predictions(predictor, options, tracks=tracks)
    else:
        if tracks:
            raise RecipeError("--track: not with --protocol, which is of single images")
        chosen = protocol_of(protocol, predictor, options)
        answers = ProtocolPredictions(predictor, chosen, options)
        notes.append(str(chosen))
        conditions["protocol"] = chosen.to_json()
    first = datasets[0].labels
    any_class = task == "instance" and label_map is None and all(one.labels.is_class_agnostic for one in datasets)
    any_class = any_class and first.names != predictor.labels.names
    mapped = datasets if any_class else [with_labels(dataset, predictor.labels, label_map) for dataset in datasets]
    if any_class:
        answers = _AnyClass(answers, LabelMap.by_names_or_objects(predictor.labels, first))
        count = len(predictor.labels.object_ids)
        notes.append(f"'{first.name}' has objects of any class: instances of all {count} classes of the model count")
    joined = _joined(mapped)
    is_followed = joined.clips is not None and (tracks or predictor.gives_identities)
    maps = _maps(mapped)
    return Subject(
        name,
        answers,
        joined,
        range(len(joined)),
        (*notes, *_notes(datasets), *_tables(maps)),
        {
            "weights": weights_digest(name),
            "input_size": predictor.resize_rule(options).input_size,
            "tile": options.tile,
            "tta": options.tta,
            "track": tracks,
            "label_maps": [[list(row) for row in one.rows()] for one in maps],
            **conditions,
        },
        predictor,
        task,
        OF_TRACKS if task == "instance" and is_followed and first.is_class_agnostic else None,
    )


@dataclass(frozen=True)
class _AnyClass:
    """Predicted instances in the classes of a set with one class for all objects."""

    answers: Predictions
    table: LabelMap

    def __call__(self, sample: Sample) -> Annotation:
        predicted = self.answers(sample).to("cpu")
        assert predicted.instances is not None
        labels = torch.tensor(self.table.table)[predicted.instances.labels]
        return Annotation(instances=replace(predicted.instances, labels=labels))


# ---- predictions of any tool


def stored_subject(path: Path, specs: Sequence[str], label_map: str | None = None) -> Subject:
    """Predictions of any tool, of the kind at the path.

    A panoptic JSON, or a folder with one, has segments; JSON lines, or a folder with files of such, tracked videos;
    another JSON has objects; another folder has masks, or frames of clips.

    Args:
        path: of the predictions.
        specs: of the data; val where a split is left open.
        label_map: the map under which results were written; for those alone that say so.

    Raises:
        DataError: the data cannot be opened, or the predictions are not sound.
        RecipeError: a map for predictions that were not written under one.
    """
    segments = find_segments(path)
    lines = [] if segments is not None else line_files(path)
    if segments is not None:
        return segment_subject(segments, specs, label_map)
    if not lines and path.suffix.lower() == ".json":
        return object_subject(path, specs, label_map)
    if label_map is not None:
        raise RecipeError(f"--map: {path} was not written with a map; masks and lines are evaluated without one")
    return line_subject(path, lines, specs) if lines else mask_subject(path, specs)


def mask_subject(folder: Path, specs: Sequence[str]) -> Subject:
    """The masks of a folder, paired by name with the images of data sets.

    With clips whose objects have no classes they hold the numbers of objects; with those of other clips files of three
    channels are maps as KITTI-STEP has them, and others hold classes, as with images.

    Raises:
        DataError: the data cannot be opened, or which mask belongs to which image is not clear.
    """
    datasets = open_evaluated(specs)
    for other in datasets[1:]:
        mine, theirs = datasets[0].labels, other.labels
        if (mine.names, mine.dataset_ids, mine.void_ids) != (theirs.names, theirs.dataset_ids, theirs.void_ids):
            raise DataError(
                f"{datasets[0].name} and {other.name} have different classes or ids on disk, so the ids in {folder} "
                "could mean either; evaluate the masks of each by themselves"
            )
    joined = _joined(datasets)
    masks = find_masks(folder, joined)
    indices, notes = tuple(masks.files), _notes(datasets)
    if joined.clips is not None and joined.labels.is_class_agnostic:
        objects = StoredFrames(masks, object_reader(joined))
        return Subject(str(folder), objects, joined, indices, notes, task="instance", usual=OF_TRACKS)
    if joined.clips is not None and has_colours(masks.files[indices[0]]):
        segments = StoredFrames(masks, read_numbered_frame)
        return Subject(str(folder), segments, joined, indices, notes, task="panoptic")
    return Subject(str(folder), masks, joined, indices, notes, masks=True)


def line_subject(path: Path, files: Sequence[Path], specs: Sequence[str]) -> Subject:
    """The lines of tracked videos, paired with the clips of a data set by name and with the frames by their order.

    Raises:
        DataError: the data cannot be opened, or the lines are not sound or of other clips.
    """
    datasets, joined = _of_one_label_set(specs)
    answers = pair_lines(files, joined)
    clips = joined.clips
    assert clips is not None
    told = {clips[index] for index, id in enumerate(joined.ids) if id in answers.lines}
    considered = [index for index, clip in enumerate(clips) if clip in told]
    indices = [index for index in considered if joined.ids[index] in answers.lines]
    left = len(set(clips) - told)
    notes = [f"{path}: lines of {len(told)} of {len(told) + left} clips; the others are skipped"] if left else []
    return Subject(
        str(path),
        answers,
        joined,
        indices,
        (*_notes(datasets), *notes),
        task=answers.task,
        usual=OF_TRACKS if answers.task == "instance" and joined.labels.is_class_agnostic else None,
        chosen=considered,
    )


def object_subject(path: Path, specs: Sequence[str], label_map: str | None = None) -> Subject:
    """The instances of a COCO results JSON, with the images of a data set; an image without entries has none.

    Raises:
        DataError: the data cannot be opened, or the file is not sound.
        RecipeError: a map for results that were not written under one.
    """
    entries = read_entries(path)
    datasets, joined, maps = _in_stored_classes(entries, specs, label_map)
    answers = pair_objects(entries, joined)
    notes = (*_notes(datasets), *_tables(maps), *([answers.note] if answers.note else []))
    return Subject(str(path), answers, joined, range(len(joined)), notes, _conditions(maps), task="instance")


def segment_subject(path: Path, specs: Sequence[str], label_map: str | None = None) -> Subject:
    """The segments of a COCO panoptic JSON and its PNGs, with the images of a data set.

    Raises:
        DataError: the data cannot be opened, or the file is not sound.
        RecipeError: a map for results that were not written under one.
    """
    listed = read_segment_list(path)
    datasets, joined, maps = _in_stored_classes(listed, specs, label_map)
    answers = pair_segments(listed, joined)
    indices = tuple(index for index, id in enumerate(joined.ids) if id in answers.maps)
    notes = (*_notes(datasets), *_tables(maps))
    return Subject(str(path), answers, joined, indices, notes, _conditions(maps), task="panoptic")


def _in_stored_classes(
    results: Entries | SegmentList, specs: Sequence[str], label_map: str | None
) -> tuple[list[Dataset], Dataset, list[LabelMap]]:
    """The data sets on disk, and joined in the classes of the results, with the maps to these."""
    if results.label_set is None:
        if label_map is not None:
            raise RecipeError(f"--map: {results.path} was not written with a map; its categories are the data set's")
        return *_of_one_label_set(specs), []
    datasets = open_evaluated(specs)
    if label_map is None:
        raise DataError(
            f"{results.path}: written with a --map, in the classes of '{results.label_set.name}' "
            f"({_listed(results.label_set)}); give the same --map"
        )
    mapped = [with_labels(dataset, results.label_set, label_map) for dataset in datasets]
    return datasets, _joined(mapped), _maps(mapped)


def _of_one_label_set(specs: Sequence[str]) -> tuple[list[Dataset], Dataset]:
    datasets = open_evaluated(specs)
    for other in datasets[1:]:
        datasets[0].labels.require_same(other.labels, mine=f"data {datasets[0].name}", theirs=f"data {other.name}")
    return datasets, _joined(datasets)


# ---- data


def open_evaluated(specs: Sequence[str]) -> list[Dataset]:
    """The data sets to evaluate on, val where a split is left open. Raises DataError also for one without images."""
    datasets = [open_dataset(text, default_split="val") for text in specs]
    for dataset in datasets:
        if not len(dataset):
            raise DataError(f"{dataset.name}: no images in it; see pixelwise data check")
    return datasets


def _joined(datasets: Sequence[Dataset]) -> Dataset:
    return datasets[0] if len(datasets) == 1 else Merged(tuple(datasets))


def _notes(datasets: Sequence[Dataset]) -> tuple[str, ...]:
    return tuple(f"{dataset.name}: {dataset.note}" for dataset in datasets if dataset.note)


def _maps(datasets: Sequence[Dataset]) -> list[LabelMap]:
    return list(dict.fromkeys(dataset.label_map for dataset in datasets if isinstance(dataset, Mapped)))


def _tables(maps: Sequence[LabelMap]) -> Iterator[str]:
    return (line for one in maps for line in describe_label_map(one))


def _conditions(maps: Sequence[LabelMap]) -> dict[str, Any]:
    return {"label_maps": [[list(row) for row in one.rows()] for one in maps]} if maps else {}


def _listed(labels: LabelSet) -> str:
    shown = ", ".join(labels.names[:8])
    return f"{shown}, …" if len(labels) > 8 else shown
