"""YOLO's polygons: a text file for each image, in the folder `labels` where the images lie in `images`.

    PATH/
    ├── data.yaml                  train:, val:, names:
    ├── images/train/0001.jpg
    └── labels/train/0001.txt      class x1 y1 x2 y2 x3 y3 …, fractions of the image

Layouts: a `data.yaml` with `train:`, `val:` (or `test:`) and `names:` (or one YAML file of another name, or the
`obj.data` of Darknet and CVAT); without it `images/SPLIT/` and `labels/SPLIT/`, `SPLIT/images/` and `SPLIT/labels/`, or
`images/` and `labels/`, of which every fifth image by name then goes to `val`. Label files may lie beside the images
instead. An image without text file has no objects; a set in which hardly an image has one is at fault.

The classes are those of `?labels=` or of a `labels.toml` in PATH, else the names in `data.yaml`, else a `labels.txt`,
`classes.txt` or `obj.names` with one name a line, the first is class 0; `background` comes before them. A line that is
a box does not say which pixels are the object's: its box is ignored in training and evaluation. The set's note counts
them; a set in which every line is a box is refused, and so is a set of poses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import count as count_from
from pathlib import Path
from typing import Any

from pixelwise.data.formats.yolo import layout
from pixelwise.data.formats.yolo.layout import NAME_FILES, YAML, LabelFiles, config_of, ids_of, label_place
from pixelwise.data.formats.yolo.repair import repair_of
from pixelwise.data.formats.yolo.text import YoloFile, all_faults, read_yolo
from pixelwise.data.formats.yolo.writer import YoloWriter, yolo_labels
from pixelwise.data.kinds.class_masks_writer import writable_labels
from pixelwise.data.kinds.coco_json import is_integer, labels_from, number_of_text
from pixelwise.data.kinds.folders import (
    EVERY_FIFTH,
    divided,
    in_reading_order,
    read_labels,
    require_split,
    stored_labels,
)
from pixelwise.data.kinds.object_lists import (
    Objects,
    Shape,
    faults_in,
    inspect_objects,
    joined,
    read_objects,
    similar_names,
    skipped,
)
from pixelwise.data.listing import NO_TRUTH, Fault, Item, Listing, without_path
from pixelwise.errors import DataError, count
from pixelwise.labels import LabelSet

OPTIONS: Mapping[str, str] = {
    "labels": "a published label set, or a .txt or .toml file in the folder",
    "data": "a file of the folder that is to be taken for data.yaml",
}

_NOUN = "line"

_LONELY = "labels without image"


def splits(path: Path, options: Mapping[str, str]) -> tuple[str, ...]:
    """The splits that data.yaml names or that have folders; `train` and `val` where there are none."""
    found, _ = layout.places_of(path, options)
    if found:
        return in_reading_order(found)
    entries = _every_entry(path)
    if not entries:
        raise DataError(f"{path}: no {YAML} and no images/ with labels/ in it; expected a set of YOLO")
    return ("train", "val")[: 1 + bool(divided(entries, "val"))]


def list_split(path: Path, split: str, options: Mapping[str, str]) -> Listing:
    """The images of one split with the objects in their label files. Raises DataError where no class is named."""
    images, labels = images_of(path, split, options), labels_of(path, options)
    known = class_numbers(labels, path, options)
    finder = LabelFiles()
    found = [finder.of(image) for image in images]
    faults = [*_label_faults(path, split, options, images, found)]
    files: list[YoloFile] = []
    for image, label_file in zip(images, found, strict=True):
        file = YoloFile(label_file or label_place(image), (), (), ())
        try:
            file = file if label_file is None else read_yolo(label_file)
        except DataError as error:
            faults.append(Fault("unreadable annotations", str(label_file), without_path(error, str(label_file))))
        faults += faults_in(file.path, all_faults(file, known), noun=_NOUN)
        lines, boxes = (tuple(line for line in of if line.class_id in known) for of in (file.lines, file.boxes))
        files.append(replace(file, lines=lines, boxes=boxes))
    boxes = sum(len(file.boxes) for file in files)
    if boxes and not any(file.lines for file in files):
        text = f"all {boxes:,} lines are boxes; boxes alone do not say which pixels are the object's"
        faults.append(Fault("boxes alone", f"{path}@{split}", text))
    objects = _packed(files, labels)
    items = tuple(
        Item(id, image, file.path, extra=number)
        for number, (id, image, file) in enumerate(zip(ids_of(images), images, files, strict=True))
    )
    return Listing(
        items,
        labels,
        read=partial(read_objects, objects=objects, noun=_NOUN),
        inspect=partial(inspect_objects, objects=objects, noun=_NOUN),
        source=path,
        faults=tuple(faults),
        notes=tuple(notes_of(path, options, labels)),
        skipped=joined(*_losses(files)),
        truths=layout.looked_for(images) if images else "in labels/",
        may_lack=True,
        noun="label file",
        parts=("object", "objects"),
        repair=partial(repair_of, items, labels, known, sum(fault.kind == _LONELY for fault in faults)),
    )


def _label_faults(
    path: Path,
    split: str,
    options: Mapping[str, str],
    images: Sequence[Path],
    label_files: Sequence[Path | None],
) -> Iterator[Fault]:
    """Label files that belong to no image, and a split in which hardly an image has one."""
    finder = LabelFiles()
    found = any(file is not None for file in label_files)
    misnamed = {
        file: image
        for image, label_file in zip(images, label_files, strict=True)
        if label_file is None and (file := finder.misnamed(image)) is not None
    }
    for file, image in misnamed.items():
        yield Fault("misnamed labels", str(file), f"the labels of {image.name}? Call the file {image.stem}.txt")
    if images and not misnamed and not found:
        text = f"none of {count(len(images), 'image')} has a label file; looked for {layout.looked_for(images)}"
        yield Fault(NO_TRUTH, f"{path}@{split}", text)
    yield from (
        Fault(_LONELY, str(file), f"no image '{file.stem}' of any split", False)
        for file in _unclaimed(path, split, options, images)
        if file not in misnamed
    )


def _unclaimed(path: Path, split: str, options: Mapping[str, str], images: Sequence[Path]) -> list[Path]:
    """Label files of no image of any split; those in folders that an earlier split has too are that split's."""
    places, _ = layout.places_of(path, options)
    finder, claimed, earlier = LabelFiles(), set[Path](), set[Path]()
    in_order = in_reading_order(places or ("train", "val"))
    for other in in_order:
        of_other = images if other == split else images_of(path, other, options)
        claimed |= {file for image in of_other if (file := finder.of(image)) is not None}
        if in_order.index(other) < in_order.index(split):
            earlier |= {folder for image in of_other for folder in finder.places(image)}
    samples = [*images, *(place / "image.png" for place in places.get(split, ()) if place.is_dir())]
    return [file for file in finder.unclaimed(samples, claimed) if file.parent not in earlier]


def labels_of(path: Path, options: Mapping[str, str]) -> LabelSet:
    """The label set, whose ids on disk are the numbers in the text files. Raises DataError where nothing says it."""
    stored = stored_labels(path, options) if "labels" in options or (path / "labels.toml").is_file() else None
    if stored is not None and not stored[1]:
        return yolo_labels(stored[0]) if "labels" in options else stored[0]
    config = config_of(path, options)
    if stored is not None:
        pairs = [*enumerate(stored[0].names)]
    elif config.names is not None:
        pairs = _numbered(config.names, source=str(config.file))
    else:
        files = [path / name for name in NAME_FILES if (path / name).is_file()]
        if not files:
            there = f"no names in {config.file.name}" if config.file else f"no {YAML}"
            raise DataError(f"{path}: {there}, and no labels.txt or classes.txt with one class name a line")
        pairs = [*enumerate(read_labels(files[0]).names)]
    if len({one for _, one in pairs}) < len(pairs):
        raise DataError(f"{config.file or path}: a name occurs more than once in names")
    labels = labels_from(sorted(pairs), name=path.resolve().name)
    if labels.background_id is None or "background" in (one for _, one in pairs):
        return labels
    free = next(id for id in count_from(max(id for id, _ in pairs) + 1) if id not in labels.void_ids)
    return replace(labels, dataset_ids=(free, *labels.dataset_ids[1:]))


def _numbered(names: Sequence[tuple[Any, Any]], *, source: str) -> list[tuple[int, str]]:
    """Number and name of each class. Raises DataError, beginning with `source`, where one is neither."""
    numbers = [id if is_integer(id) else number_of_text(id) for id, _ in names]
    pairs = [(id, one.strip()) for id, (_, one) in zip(numbers, names, strict=True) if isinstance(one, str)]
    if not names or len(pairs) < len(names) or not all(isinstance(id, int) and id >= 0 and one for id, one in pairs):
        shown = [one for _, one in names]
        raise DataError(f"{source}: names is {shown}; expected a list of names, or numbers with names")
    return [(id, one) for id, one in pairs if isinstance(id, int)]


def class_numbers(labels: LabelSet, path: Path, options: Mapping[str, str]) -> tuple[int, ...]:
    """The numbers that lines may begin with: those of all classes, without a background that no list of names has."""
    if "background" in [name for _, name in config_of(path, options).names or ()]:
        return labels.dataset_ids
    return tuple(id for index, id in enumerate(labels.dataset_ids) if index != labels.background_id)


def writer(options: Mapping[str, str], source: LabelSet) -> YoloWriter:
    """Writes images/SPLIT/, labels/SPLIT/, data.yaml and labels.toml."""
    return YoloWriter(yolo_labels(writable_labels(options, source=source, default=None)))


def _every_entry(path: Path) -> list[Item]:
    return [Item(image.stem, image, image) for image in layout.every_image(path)]


def images_of(path: Path, split: str, options: Mapping[str, str]) -> list[Path]:
    """The images of a split, whether they are there or not."""
    config, (places, missing) = config_of(path, options), layout.places_of(path, options)
    if split in missing:
        raise DataError(f"{config.file}: split '{split}': no folder {missing[split]}")
    require_split(split, tuple(places) or ("train", "val"), source=path)
    if not places:
        return [entry.image for entry in divided(_every_entry(path), split) if entry.image]
    return layout.images_in(places[split], path, config)


def _packed(files: Sequence[YoloFile], labels: LabelSet) -> Objects:
    class_of = {id: index for index, id in enumerate(labels.dataset_ids)}
    shapes = [
        Shape(
            image=number,
            id=line.place,
            class_id=class_of[line.class_id],
            polygons=[line.polygon],
            crowd=is_box,
            boxed=is_box,
        )
        for number, file in enumerate(files)
        for is_box, lines in ((False, file.lines), (True, file.boxes))
        for line in lines
        if class_of[line.class_id] != labels.background_id
    ]
    return Objects.from_shapes(shapes, len(files), fractions=True)


def notes_of(path: Path, options: Mapping[str, str], labels: LabelSet) -> Iterator[str]:
    """Notes on a set that are no faults."""
    config, (places, missing) = config_of(path, options), layout.places_of(path, options)
    if not places:
        yield EVERY_FIFTH
    for split, value in missing.items():
        yield f"no split '{split}': {config.file} names {value}, which is not there"
    number = number_of_text(config.count)
    if number is not None and config.names is not None and number != len(config.names):
        yield f"{config.file}: nc is {config.count}, and there are {count(len(config.names), 'name')}; the names count"
    yield from similar_names(labels)


def _losses(files: Sequence[YoloFile]) -> Iterator[str]:
    lost = Counter(fault.kind for file in files for fault in file.faults)
    flat = skipped({"without extent": lost["polygon without extent"]})
    if flat:
        yield flat
    boxes = sum(len(file.boxes) for file in files)
    if boxes:
        yield f"ignored in training and evaluation: {count(boxes, 'line')} without polygon, boxes alone"
