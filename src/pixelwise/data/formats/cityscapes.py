"""Cityscapes: leftImg8bit/SPLIT/CITY/ID_leftImg8bit.png and gtFine/SPLIT/CITY/ID_gtFine_labelIds.png.

    PATH/
    ├── leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png
    └── gtFine/train/aachen/
        ├── aachen_000000_000019_gtFine_labelIds.png
        └── aachen_000000_000019_gtFine_instanceIds.png    may be missing

The ground truth has the 19 classes of the benchmark, read from `labelIds` or, by `?ids=trainIds` or where only those
are there, from `*_labelTrainIds.png` (0-18, 255 = void); every other id is void. `?annotations=gtCoarse` takes the
coarse masks. Where every image has `*_instanceIds.png`, the ground truth has objects and segments too: an id from 1000
on is labelId · 1000 + number; a smaller one is a region, which is a crowd if its class is one with instances.
`?instances=false` leaves them out. Images may be of any kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from pixelwise.data.kinds.class_masks import ObjectFiles, mask_listing
from pixelwise.data.kinds.class_masks_writer import PairWriter
from pixelwise.data.kinds.folders import FilesByStem, by_stem, in_reading_order, item_of, require_split
from pixelwise.data.kinds.object_masks import contradictions, instances_option, read_object_ids
from pixelwise.data.listing import Fault, Item, Listing
from pixelwise.data.spec import Format
from pixelwise.data.truth.segments import ids_in, instances_of_ids, panoptic_of
from pixelwise.errors import DataError
from pixelwise.labels import LabelSet, published
from pixelwise.types import Annotation, Instances, Panoptic

OPTIONS: Mapping[str, str] = {
    "ids": "labelIds or trainIds; labelIds where they are there",
    "annotations": "gtFine or gtCoarse",
    "instances": "false skips the objects and segments of instanceIds, true refuses a set without",
}

_FILES = {"labelIds": "labelIds", "trainIds": "labelTrainIds"}
"""Ids → what the names of their files end with."""

_OBJECTS = 1000
"""Ids from here on are labelId · 1000 + number."""


def splits(path: Path, options: Mapping[str, str]) -> tuple[str, ...]:
    """The folders that leftImg8bit/ and gtFine/ have in common."""
    images, masks = path / "leftImg8bit", path / _annotations(options)
    missing = [folder.name for folder in (images, masks) if not folder.is_dir()]
    if missing:
        raise DataError(f"{path}: not a Cityscapes folder: {', '.join(f'{name}/' for name in missing)} is missing")
    found = in_reading_order(folder.name for folder in images.iterdir() if (masks / folder.name).is_dir())
    if not found:
        raise DataError(f"{path}: {images.name}/ and {masks.name}/ have no split in common, such as train/ or val/")
    return found


def list_split(path: Path, split: str, options: Mapping[str, str]) -> Listing:
    """The images and masks of all cities of a split, also those without partner, by name."""
    require_split(split, splits(path, options), source=path)
    annotations, ids = _annotations(options), ids_of(path, split, options)
    images = _of_all_cities(path / "leftImg8bit" / split, "_leftImg8bit")
    masks = _of_all_cities(path / annotations / split, f"_{annotations}_{_FILES[ids]}")
    items = [item_of(id, images, masks) for id in sorted(images.keys() | masks.keys())]
    objects, required = None, instances_option(options, name="cityscapes")
    if required is not False:
        items = [_with_objects(item, options) for item in items]
        objects = ObjectFiles(read_instances, _inspect_instances, instances_in, required, tells_class=True)
    return mask_listing(
        items,
        _with_ids(ids),
        source=path / "leftImg8bit" / split,
        writer=writer,
        options={"ids": ids, **{name: options[name] for name in ("annotations",) if name in options}},
        objects=objects,
    )


def read_instances(path: Path, semantic: np.ndarray, labels: LabelSet) -> Annotation:
    """The objects of a file of instance ids, then the crowds, each in the order of their ids; and all segments.

    See ObjectFiles. Raises DataError for an unreadable file, or one of another size.
    """
    ids = read_object_ids(path, semantic.shape)
    return Annotation(instances=instances_in(ids, semantic, labels), panoptic=panoptic_in(ids, labels))


def panoptic_in(ids: np.ndarray, labels: LabelSet) -> Panoptic:
    """The segments of instance ids [H, W], under their ids; ids of classes that are ignored are void.

    It is what Cityscapes' own createPanopticImgs makes of them: a region of things without number is a crowd.
    """
    class_of = {dataset_id: index for index, dataset_id in enumerate(published("cityscapes").dataset_ids)}
    found = ids_in(ids)
    kept = [id for id in found if _label_id(id) in class_of]
    class_ids = [class_of[_label_id(id)] for id in kept]
    crowd = [id < _OBJECTS and labels.is_thing[class_id] for id, class_id in zip(kept, class_ids, strict=True)]
    evaluated = np.where(np.isin(ids, kept), ids, 0).astype(np.int32)
    return panoptic_of(evaluated, kept, class_ids, crowd)


def instances_in(ids: np.ndarray, semantic: np.ndarray, labels: LabelSet) -> Instances:  # noqa: ARG001
    """The objects of instance ids [H, W]; see `read_instances`."""
    things = _things(labels)
    found = sorted((id for id in ids_in(ids) if _label_id(id) in things), key=lambda id: (id < _OBJECTS, id))
    classes = [things[_label_id(id)] for id in found]
    return instances_of_ids(ids, found, classes, [id < _OBJECTS for id in found])


def _label_id(id: int) -> int:
    return id // _OBJECTS if id >= _OBJECTS else id


def _things(labels: LabelSet) -> dict[int, int]:
    """labelId → class id of the classes with instances."""
    dataset_id = published("cityscapes").dataset_ids
    return {id: index for index, id in enumerate(dataset_id) if labels.is_thing[index]}


def _inspect_instances(item: Item, semantic: np.ndarray, labels: LabelSet) -> Iterator[Fault]:
    """What is wrong with the instance ids of an image, which say the class once more."""
    try:
        ids = read_object_ids(item.extra, semantic.shape)
    except DataError as error:
        yield Fault("unreadable objects", str(item.extra), str(error).removeprefix(f"{item.extra}: "))
        return
    things = _things(labels)
    for id in ids_in(ids):
        if id >= _OBJECTS and _label_id(id) not in things and _label_id(id) in published("cityscapes").dataset_ids:
            yield Fault("object of stuff", f"{item.extra}: object {id}", f"labelId {_label_id(id)} is no thing")
        elif _label_id(id) in things:
            yield from contradictions(semantic[ids == id], things[_label_id(id)], labels, item.extra, id)


def writer(options: Mapping[str, str], source: LabelSet) -> PairWriter:  # noqa: ARG001
    """Writes a set of this format, all cities as one folder `all`; PNG or JPEG images, greyscale masks.

    Where the ground truth has objects, instanceIds are written too.
    """
    ids, annotations = _ids_option(options) or "labelIds", _annotations(options)
    mask = f"{annotations}/{{split}}/all/{{name}}_{annotations}"
    return PairWriter(
        format="cityscapes",
        labels=_with_ids(ids),
        image="leftImg8bit/{split}/all/{name}_leftImg8bit",
        mask=f"{mask}_{_FILES[ids]}.png",
        suffixes=(".png", ".jpg"),
        default=_with_ids(ids),
        objects=None if instances_option(options, name="cityscapes") is False else f"{mask}_instanceIds.png",
        object_labels=published("cityscapes"),
        divisor=_OBJECTS,
    )


def _of_all_cities(folder: Path, suffix: str) -> FilesByStem:
    found: dict[str, tuple[Path, ...]] = {}
    for city in sorted(inner for inner in folder.iterdir() if inner.is_dir()):
        for id, files in by_stem(city, suffix=suffix).items():
            found[id] = (*found.get(id, ()), *files)
    return found


def _with_objects(item: Item, options: Mapping[str, str]) -> Item:
    """With the file of instance ids beside its mask, if that is there."""
    file = item.truth and item.truth.with_name(f"{item.id}_{_annotations(options)}_instanceIds.png")
    return item._replace(extra=file if file and file.is_file() else None)


def _annotations(options: Mapping[str, str]) -> str:
    option = options.get("annotations", "gtFine")
    if option not in ("gtFine", "gtCoarse"):
        raise DataError(f"cityscapes: annotations={option}; expected gtFine or gtCoarse")
    return option


def _ids_option(options: Mapping[str, str]) -> str | None:
    option = options.get("ids")
    if option is not None and option not in _FILES:
        raise DataError(f"cityscapes: ids={option}; expected labelIds or trainIds")
    return option


def ids_of(path: Path, split: str, options: Mapping[str, str]) -> str:
    """`labelIds` unless others are given, or only `trainIds` are there."""
    folder, annotations = path / _annotations(options) / split, _annotations(options)
    there = (ids for ids, name in _FILES.items() if any(folder.glob(f"*/*_{annotations}_{name}.*")))
    return _ids_option(options) or next(there, "labelIds")


def _with_ids(ids: str) -> LabelSet:
    labels = published("cityscapes")
    if ids == "labelIds":
        return labels
    return replace(labels, dataset_ids=tuple(range(len(labels))), void_ids=(255, -1))


FORMAT = Format(OPTIONS, splits, list_split, writer, takes=tuple(OPTIONS))
