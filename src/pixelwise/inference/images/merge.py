"""Merge files of semantic and instance predictions into panoptic predictions, image by image."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pixelwise.data.kinds.class_masks import read_semantic
from pixelwise.errors import DataError
from pixelwise.files.atomic import write_file
from pixelwise.files.images import IMAGE_SUFFIXES
from pixelwise.inference.scene import Scene
from pixelwise.labels import LabelSet, published, published_names
from pixelwise.nn.panoptic_merge import merge_segments
from pixelwise.predictions.coco_objects import Entry, coco_image_id, read_entries
from pixelwise.predictions.lines import RESULTS_NAME, ResultsFile, StoredLine, as_line, read_image_lines
from pixelwise.predictions.pictures import PANOPTIC_SUFFIX, RESULT_SUFFIXES, SEMANTIC_SUFFIX, segment_picture
from pixelwise.types import Annotation, Instances, Masks

MODEL = "merged"
"""Name of the model in results."""


class Outcome(NamedTuple):
    """Outcome of an image.

    Attributes:
        line: its line in `results.jsonl`.
        failure: why there is none, in one line that names a file.
    """

    line: str = ""
    failure: str = ""


@dataclass
class Predictions:
    """Predictions of two models for the same images, by the images' names without suffix.

    Attributes:
        labels: of both.
        semantic: the id mask of each image.
        images: the path of each image, if a `results.jsonl` has it.
        lines: lines with instances.
        entries: COCO's entries, by image.
        alone: images that one of both lacks, and a line about each.
    """

    labels: LabelSet
    semantic: dict[str, Path]
    images: dict[str, str] = field(default_factory=dict)
    lines: defaultdict[str, list[StoredLine]] = field(default_factory=lambda: defaultdict(list))
    entries: defaultdict[str, list[Entry]] = field(default_factory=lambda: defaultdict(list))
    alone: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The images that can be merged."""
        return [name for name in self.semantic if name not in self.alone]


def find_predictions(semantic: Path, instances: Sequence[Path], *, labels: LabelSet | None = None) -> Predictions:
    """Pair the masks of a folder with the instances of other files, by the images' names.

    Args:
        semantic: a folder with `NAME.semantic.png` files, as `pixelwise predict` writes it, or else with `NAME.png`.
        instances: folders with a `results.jsonl`, such files, or COCO's results JSON, in which an image without entry
            has no instances.
        labels: of both models; by default those in `results.jsonl`, a published set where one has the names.

    Raises:
        DataError: nothing to pair, or label sets that differ or are unknown.
    """
    if not semantic.is_dir():
        what = "is a file" if semantic.exists() else "no such folder"
        raise DataError(f"{semantic}: {what}; expected a folder of id masks, {_EXPECTED_MASKS}")
    masks = _masks(semantic, SEMANTIC_SUFFIX) or _masks(semantic, ".png")
    if not masks:
        raise DataError(f"{semantic}: no id masks, {_EXPECTED_MASKS}")
    told: dict[Path, list[str]] = {}
    images: dict[str, str] = {}

    def lines_in(file: Path) -> Mapping[str, StoredLine]:
        stored = read_image_lines(file)
        if stored.names is not None:
            told[file] = stored.names
        return stored.lines

    if (semantic / RESULTS_NAME).is_file():
        images = {name: line.image for name, line in lines_in(semantic / RESULTS_NAME).items()}
    of_objects: list[tuple[Path, str, StoredLine]] = []
    lists: list[tuple[Path, Sequence[Entry]]] = []
    for path in instances:
        file = path / RESULTS_NAME if path.is_dir() else path
        if not file.is_file():
            raise DataError(
                f"{file}: no such file; expected a folder or file of an instance model's `pixelwise predict`"
            )
        if file.suffix == ".json":
            lists.append((file, read_entries(file).entries))
        else:
            of_objects += [(file, name, line) for name, line in lines_in(file).items()]
    # COCO's results have ids on disk, which are the class ids of an unpublished set
    thing_ids = {number for _, _, line in of_objects for number in line.classes}
    thing_ids |= {entry.category_id for _, entries in lists for entry in entries}
    paths = {name: images[name] for name in masks if name in images}
    found = Predictions(_common_labels(told, labels, thing_ids), masks, paths)
    has_objects: set[str] = set()
    for file, name, line in of_objects:
        if name not in masks:
            found.alone[name] = f"{name}: {file} has its instances, but {semantic} no mask of it"
            continue
        has_objects.add(name)
        found.lines[name].append(line)
    names = {str(key): name for name in masks for key in _keys(name, found.images.get(name, name))}
    for file, entries in lists:
        for entry in entries:
            image = str(entry.image_id)
            stem = Path(image).with_suffix("").as_posix() if Path(image).suffix.lower() in IMAGE_SUFFIXES else image
            name = names.get(image) or names.get(stem)
            if name is not None:
                found.entries[name].append(entry)
            else:
                found.alone[image] = f"{image}: {file} has its instances, but {semantic} no mask of it"
    if not lists:
        listed = ", ".join(str(path) for path in instances)
        found.alone.update({name: f"{name}: no line in {listed}" for name in masks if name not in has_objects})
    if not found.names or not (has_objects or found.entries):
        first = next(iter(found.alone.values()), "there are no instances")
        raise DataError(f"{semantic}: no image of it is in {', '.join(map(str, instances))}; {first}")
    return found


_EXPECTED_MASKS = f"*{SEMANTIC_SUFFIX} as a semantic model's `pixelwise predict` writes them, or *.png"


def _masks(folder: Path, suffix: str) -> dict[str, Path]:
    """The id masks with that suffix, by the names of their images; other results beside them are none."""
    others = tuple(one for one in RESULT_SUFFIXES if one != suffix)
    return {
        path.relative_to(folder).as_posix().removesuffix(suffix): path
        for path in sorted(folder.rglob(f"*{suffix}"))
        if not path.name.startswith(".") and not path.name.endswith(others)
    }


def merge_files(
    found: Predictions,
    out: Path,
    results: ResultsFile,
    *,
    score_threshold: float,
    largest_overlap: float,
    smallest_stuff: int,
) -> Iterator[Outcome]:
    """Write `NAME.panoptic.png` and a line of `results` for each image; see `nn.panoptic_merge` for the options.

    Yields:
        the outcome of each image, once it is on the disk.

    Raises:
        OSError: the folder cannot be written.
    """
    options = {
        "score_threshold": score_threshold,
        "largest_overlap": largest_overlap,
        "smallest_stuff": smallest_stuff,
    }
    labels = found.labels
    things = [index for index, is_thing in enumerate(labels.is_thing) if is_thing]
    pictures = [f"{name}{PANOPTIC_SUFFIX}" for name in found.names]
    results.forget([found.images.get(name, name) for name in found.names], files=pictures)
    for name, picture in zip(found.names, pictures, strict=True):
        begin = time.perf_counter()
        image = found.images.get(name, name)
        try:
            semantic = torch.from_numpy(read_semantic(found.semantic[name], labels))
            size = (semantic.shape[0], semantic.shape[1])
            panoptic = merge_segments(
                semantic, _objects(found, name, size), num_classes=len(labels), things=things, **options
            )
        except DataError as error:
            yield Outcome(failure=f"{name}: {' '.join(str(error).split())}")
            continue
        scene = Scene(
            image=torch.zeros(1, dtype=torch.uint8).expand(3, *size),  # the record holds its size alone
            annotation=Annotation(panoptic=panoptic),
            labels=labels,
            seconds=time.perf_counter() - begin,
            model=MODEL,
            name=image,
        )
        path = out / picture
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, partial(segment_picture(panoptic).save, format="PNG"), sync=False)
        identity = {"image": image, "file": {}, "model": MODEL, "weights": "", "options": options}
        record = {**scene.record(), **identity, "files": [picture]}
        results.append(record)
        yield Outcome(line=as_line(record))


def _objects(found: Predictions, name: str, size: tuple[int, int]) -> Instances:
    """The instances of an image from all files. Raises DataError for one without mask, or of another size."""
    class_of = {dataset_id: index for index, dataset_id in enumerate(found.labels.dataset_ids)}
    runs: list[Any] = []
    labels: list[int] = []
    scores: list[float] = []
    for line in found.lines[name]:
        for segment in line.segments():
            runs.append(segment.rle)
            labels.append(segment.label)
            scores.append(1.0 if segment.score is None else segment.score)
    for entry in found.entries[name]:
        if entry.category_id not in class_of:
            raise DataError(f"category {entry.category_id} is not in '{found.labels.name}'")
        runs.append(entry.segmentation)
        labels.append(class_of[entry.category_id])
        scores.append(entry.score)
    if any(one is None for one in runs):
        raise DataError("one of its instances has no mask; boxes alone cannot be merged")
    masks = Masks.from_coco(runs, size, source="object")
    return Instances(
        boxes=masks.boxes.float(),
        labels=torch.tensor(labels, dtype=torch.int64),
        masks=masks,
        scores=torch.tensor(scores, dtype=torch.float64),
    )


def _keys(name: str, image: str) -> set[int | str]:
    """The image ids of COCO's results for an image."""
    return {name, Path(name).name, image, coco_image_id(name), coco_image_id(image)}


def _common_labels(told: Mapping[Path, list[str]], given: LabelSet | None, thing_ids: set[int]) -> LabelSet:
    """The label set of all files; in an unpublished set the classes with instances are the things.

    Raises DataError where they differ or are unknown.
    """
    sets = [(str(path), names) for path, names in told.items()]
    if given is not None:
        sets.insert(0, ("--labels", list(given.names)))
    if not sets:
        raise DataError(f"no {RESULTS_NAME} has the classes of the ids; give them by --labels")
    first, names = sets[0]
    for other, listed in sets[1:]:
        if listed != names:
            raise DataError(
                f"label sets differ: {first} has {len(names)} ({', '.join(names)}), {other} has {len(listed)} "
                f"({', '.join(listed)}); predict both with models of one label set"
            )
    if given is not None:
        return given
    known = next((one for one in map(published, published_names()) if list(one.names) == names), None)
    if known is not None:
        return known
    is_thing = tuple(number in thing_ids for number in range(len(names)))
    return replace(LabelSet.from_names("predicted", names), is_thing=is_thing)
