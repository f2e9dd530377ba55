"""PASCAL VOC: JPEGImages/ID.jpg, SegmentationClass/ID.png, and ImageSets/Segmentation/SPLIT.txt with one id a line.

    PATH/
    ├── ImageSets/Segmentation/train.txt     one id a line
    ├── JPEGImages/2007_000032.jpg
    ├── SegmentationClass/2007_000032.png    class ids, 255 is void
    ├── SegmentationObject/2007_000032.png   numbers of objects, may be missing
    └── ImageSets/Main/cat_train.txt         which images contain a cat, may be missing; see `read_tags`

Where every listed id has SegmentationObject/ID.png, the ground truth has objects: each of its numbers is one, of the
class that most of its pixels have in SegmentationClass; 0 is none and 255 the border. `?instances=false` leaves them
out. `?instances=regions` makes objects where there are no such files: each connected region of a class is one, since
VOC draws a border of void around every object, also between two of a class. An object that another one cuts into pieces
becomes several.

Where CVAT's labelmap.txt lies in the folder, masks hold its colours, and have no objects.

PATH is the folder of one year, such as VOC2012, or the VOCdevkit around it. Without a label file of its own the set has
the 20 classes and the background of VOC 2012.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from skimage.measure import label

from pixelwise.data.kinds.class_masks import ObjectFiles, mask_listing
from pixelwise.data.kinds.class_masks_writer import PairWriter, writable_labels
from pixelwise.data.kinds.folders import by_stem, in_reading_order, item_of, labels_for, names_colours, require_split
from pixelwise.data.kinds.object_masks import contradictions, instances_option, read_object_ids
from pixelwise.data.listing import Fault, Item, Listing
from pixelwise.data.spec import Format
from pixelwise.data.truth.object_ids import majority_classes
from pixelwise.data.truth.segments import ids_in, instances_of_ids
from pixelwise.errors import DataError
from pixelwise.files.text import read_lines
from pixelwise.labels import LabelSet, published
from pixelwise.types import Annotation, Instances

OPTIONS: Mapping[str, str] = {
    "labels": "a published label set, or a .txt or .toml file in the folder",
    "instances": "false skips the objects of SegmentationObject, true refuses a set without, regions makes "
    "objects of the connected regions of each class",
}

BORDER = 255
"""The number of pixels around objects, which belong to none."""

REGIONS = "regions"

SMALLEST_REGION = 100
"""Pixels; smaller regions are mostly slivers of objects that another one cuts, and become crowds, which are ignored."""

_LISTS = Path("ImageSets", "Segmentation")
_TAGS = Path("ImageSets", "Main")
_OBJECTS = "SegmentationObject"


def splits(path: Path, options: Mapping[str, str]) -> tuple[str, ...]:  # noqa: ARG001
    """The lists in ImageSets/Segmentation."""
    lists = _year(path) / _LISTS
    found = in_reading_order(file.stem for file in lists.glob("*.txt"))
    if not found:
        raise DataError(f"{lists}: no list in it; expected train.txt or val.txt with one id a line")
    return found


def list_split(path: Path, split: str, options: Mapping[str, str]) -> Listing:
    """The listed ids in the list's order, with the files that are there. Raises DataError without such a list."""
    require_split(split, splits(path, options), source=path)
    list_file, labels = _year(path) / _LISTS / f"{split}.txt", labels_for(_year(path), options, default="voc")
    listed = read_lines(list_file)
    images, masks = by_stem(_year(path) / "JPEGImages"), by_stem(_year(path) / "SegmentationClass")
    items = [item_of(id, images, masks) for id in map(str.strip, listed) if id]
    objects, colours = None, names_colours(_year(path), options)
    if options.get("instances") == REGIONS:
        items = [item._replace(extra=item.truth) for item in items]
        objects = ObjectFiles(read_regions, required=True)
    elif not colours and (required := instances_option(options, name="voc")) is not False:
        folder = _year(path) / _OBJECTS
        items = [item._replace(extra=file if (file := folder / f"{item.id}.png").is_file() else None) for item in items]
        objects = ObjectFiles(read_instances, _inspect_instances, instances_in, required)
    listing = mask_listing(items, labels, source=list_file, writer=writer, colours=colours, objects=objects)
    tag_files = sorted((_year(path) / _TAGS).glob(f"*_{split}.txt"))
    return replace(listing, tags=partial(read_tags, tuple(tag_files), split)) if tag_files else listing


def read_tags(files: Sequence[Path], split: str) -> dict[str, frozenset[str]]:
    """The classes that each image contains, by VOC's lists for classification.

    Args:
        files: CLASS_SPLIT.txt, each with the id of an image and 1, 0 (hard to recognise) or -1 (absent) a line.
        split: of the names.

    Raises:
        DataError: a line of another form; names file and line.
    """
    tags: dict[str, set[str]] = {}
    for file in files:
        for number, line in enumerate(read_lines(file), start=1):
            parts = line.split()
            if parts and (len(parts) != 2 or parts[1] not in ("1", "0", "-1")):
                raise DataError(
                    f"{file}, line {number}: {line.strip()[:80]!r}; expected the id of an image and 1, 0 or -1"
                )
            if parts:
                here = tags.setdefault(parts[0], set())
                here |= set() if parts[1] == "-1" else {file.stem.removesuffix(f"_{split}")}
    return {id: frozenset(names) for id, names in tags.items()}


def read_instances(path: Path, semantic: np.ndarray, labels: LabelSet) -> Annotation:
    """The objects of a file, in the order of their numbers; those of no class by the class mask are skipped.

    See ObjectFiles. Raises DataError for an unreadable file, or one of another size.
    """
    return Annotation(instances=instances_in(read_object_ids(path, semantic.shape), semantic, labels))


def read_regions(path: Path, semantic: np.ndarray, labels: LabelSet) -> Annotation:  # noqa: ARG001
    """The connected regions of each class but the background as objects, from top to bottom. See ObjectFiles."""
    shown = np.where((semantic == labels.ignore_id) | (semantic == labels.background_id), -1, semantic.astype(np.int32))
    regions = np.asarray(label(shown, background=-1, connectivity=1))
    firsts = np.unique(regions, return_index=True)
    found = [(int(id), int(semantic.ravel()[place])) for id, place in zip(*firsts, strict=True) if id]
    areas = np.bincount(regions.ravel())
    instances = instances_of_ids(
        regions,
        [id for id, _ in found],
        [class_id for _, class_id in found],
        [bool(areas[id] < SMALLEST_REGION) for id, _ in found],
    )
    return Annotation(instances=instances)


def instances_in(ids: np.ndarray, semantic: np.ndarray, labels: LabelSet) -> Instances:
    """The objects of object ids [H, W]; see `read_instances`."""
    found = ids_in(ids, but=(0, BORDER))
    classes = majority_classes(ids, found, semantic, labels)
    known = [id for id in found if id in classes]
    return instances_of_ids(ids, known, [classes[id] for id in known])


def _inspect_instances(item: Item, semantic: np.ndarray, labels: LabelSet) -> Iterator[Fault]:
    """What is wrong with the objects of an image, and with its classes by their objects."""
    try:
        ids = read_object_ids(item.extra, semantic.shape)
    except DataError as error:
        yield Fault("unreadable objects", str(item.extra), str(error).removeprefix(f"{item.extra}: "))
        return
    for id in ids_in(ids, but=(0, BORDER)):
        yield from contradictions(semantic[ids == id], None, labels, item.extra, id)
    nobody = semantic[ids == 0]
    for class_id in np.unique(nobody):
        if class_id not in (labels.ignore_id, labels.background_id):
            pixels = int((nobody == class_id).sum())
            text = f"{pixels:,} pixels of class '{labels.names[class_id]}' belong to no object of {item.extra.name}"
            yield Fault("class without object", str(item.truth), text)


def writer(options: Mapping[str, str], source: LabelSet) -> PairWriter:
    """Writes a set of this format; JPEG images, palette masks, and a list for each split.

    Where the ground truth has objects, SegmentationObject is written too.
    """
    return PairWriter(
        format="voc",
        labels=writable_labels(options, source=source, default="voc"),
        image="JPEGImages/{name}",
        mask="SegmentationClass/{name}.png",
        suffixes=(".jpg",),
        list_file="ImageSets/Segmentation/{split}.txt",
        shares_images=True,
        palette=True,
        objects=None
        if options.get("instances") == REGIONS or instances_option(options, name="voc") is False
        else "SegmentationObject/{name}.png",
        default=published("voc"),
    )


def _year(path: Path) -> Path:
    """The folder with the images: `path` itself, or the one year in a VOCdevkit."""
    parts = ("JPEGImages", "SegmentationClass", str(_LISTS))
    missing = [name for name in parts if not (path / name).is_dir()]
    if not missing:
        return path
    devkit = path / "VOCdevkit" if (path / "VOCdevkit").is_dir() else path
    years = [folder for folder in sorted(devkit.glob("VOC*")) if all((folder / name).is_dir() for name in parts)]
    if len(years) == 1:
        return years[0]
    if years:
        raise DataError(f"{path}: several years in it ({', '.join(year.name for year in years)}); name one of them")
    raise DataError(f"{path}: not a VOC folder: {', '.join(f'{name}/' for name in missing)} is missing")


FORMAT = Format(OPTIONS, splits, list_split, writer, takes=("labels", "instances"), shared_images=True)
