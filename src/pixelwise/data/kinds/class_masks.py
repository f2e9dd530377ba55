"""Images with a mask of class ids each, and perhaps a file of object ids beside it: listed, read, checked, repaired."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from pixelwise.data.kinds.repairing import RepairedTruth, WriterRepairer, usable_mask
from pixelwise.data.kinds.writing import MakeWriter
from pixelwise.data.listing import Fault, Findings, Item, Listing, Repair, Size, UnusableError, sides, without_path
from pixelwise.data.truth.colours import describe_unknown, ids_of_colours, match_colours
from pixelwise.errors import DataError
from pixelwise.files.images import ColourMaskError, read_colours, read_ids, turned_upright
from pixelwise.labels import LabelSet
from pixelwise.types import Annotation, Instances


class ObjectFiles(NamedTuple):
    """How a format reads the files of object ids beside its masks; `Item.extra` is the file. Functions of a module.

    Attributes:
        read: the objects of a file, and the segments if it tells them, given the class ids [H, W] of the image.
        inspect: what is wrong with the objects of an item, given its class ids [H, W]; None where nothing can be.
        instances_in: the objects of ids [H, W] and class ids [H, W]; None where a repaired copy has no such files.
        required: True refuses a set without; None takes them if they are there for all images.
        tells_class: whether the id of an object tells its class, and regions have ids too.
    """

    read: Callable[[Path, np.ndarray, LabelSet], Annotation]
    inspect: Callable[[Item, np.ndarray, LabelSet], Iterable[Fault]] | None = None
    instances_in: Callable[[np.ndarray, np.ndarray, LabelSet], Instances] | None = None
    required: bool | None = None
    tells_class: bool = False


def mask_listing(
    items: Sequence[Item],
    labels: LabelSet,
    *,
    source: Path | str,
    writer: MakeWriter,
    options: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
    colours: bool = False,
    halves: bool = False,
    objects: ObjectFiles | None = None,
) -> Listing:
    """The listing of a split of images and masks.

    Args:
        items: the images with their masks, and with their files of objects as `extra`.
        labels: what the ids in the masks mean.
        source: the file or the folder that lists them.
        writer: of the format, which writes repaired copies.
        options: with which a copy is written, and opens.
        notes: what was decided.
        colours: whether masks are pictures in the colours of the label set, instead of ids.
        halves: see Listing.
        objects: how the files of objects are read; None leaves them out.
    """
    faults, more, read = [], [], None
    lonely = [item for item in items if item.truth and item.extra is None]
    if objects is not None and (objects.required or any(item.extra for item in items)):
        text = "no file of object ids beside it, others have one"
        faults = [Fault("missing objects", str(item.truth), text, bool(objects.required), item) for item in lonely]
        read = objects.read if not lonely else None
        if lonely and not objects.required:
            have = "1 image has" if len(lonely) == 1 else f"{len(lonely):,} images have"
            more.append(f"objects are skipped: {have} no file of them, such as {lonely[0].id}")
    else:
        objects = None
    return Listing(
        tuple(items),
        labels,
        read=partial(read_mask, colours=colours, objects=read),
        inspect=partial(inspect_mask, colours=colours, objects=objects),
        source=source,
        faults=tuple(faults),
        notes=tuple(notes),
        skipped="; ".join(more) or None,
        halves=halves,
        repair=partial(_repair, tuple(items), labels, writer, dict(options or {}), colours, objects),
    )


def read_semantic(path: Path, labels: LabelSet, *, colours: bool = False) -> np.ndarray:
    """Read a mask file, of ids or of colours, as class ids [H, W].

    Raises DataError for an unusable file, or an id or a colour that is not of the label set.
    """
    if colours:
        return ids_of_colours(read_colours(path), labels, source=str(path))
    return labels.class_ids(read_ids(path), source=str(path))


def require_size(shape: Sequence[int], size: Size, *, source: Path | None, image: Path | None, noun: str) -> None:
    """Raise DataError unless a file of ground truth has the size of its image."""
    if tuple(shape[:2]) != size:
        raise DataError(f"{source}: the {noun} is {shape[0]}×{shape[1]}, its image {image} {sides(size)}")


def read_mask(
    item: Item,
    labels: LabelSet,
    size: Size,
    *,
    colours: bool,
    objects: Callable[[Path, np.ndarray, LabelSet], Annotation] | None,
) -> Annotation:
    """The class of each pixel, and the objects; see `Listing.read`."""
    assert item.truth is not None
    semantic = read_semantic(item.truth, labels, colours=colours)
    require_size(semantic.shape, size, source=item.truth, image=item.image, noun="mask")
    truth = Annotation(semantic=torch.from_numpy(semantic))
    if objects is None:
        return truth
    found = objects(item.extra, semantic, labels)
    return replace(truth, instances=found.instances, panoptic=found.panoptic)


def inspect_mask(
    item: Item,
    labels: LabelSet,
    size: Size | None,  # noqa: ARG001
    *,
    colours: bool,
    objects: ObjectFiles | None,
) -> Findings:
    """The contents of a mask, and its faults; see `Listing.inspect`."""
    path = item.truth
    assert path is not None
    stored = stored_mask(path, colours=colours)
    if isinstance(stored, Fault):
        return Findings((stored,))
    faults: list[Fault] = []
    if colours:
        class_ids, unknown = match_colours(stored, labels)
        if unknown:
            faults.append(Fault("unknown colours", str(path), describe_unknown(unknown, labels)))
    else:
        try:
            class_ids = labels.class_ids(stored, source=str(path))
        except DataError as error:
            faults.append(Fault("unknown ids", str(path), without_path(error, path)))
            class_ids = None
    palette = {} if colours else _palette_of(path)
    if class_ids is None:
        there = [index for index, dataset_id in enumerate(labels.dataset_ids) if (stored == dataset_id).any()]
    else:
        there = [index for index in np.unique(class_ids).tolist() if index != labels.ignore_id]
        if not there and not faults:
            faults.append(Fault("only void", str(path), "every pixel is void, nothing can be trained on it"))
    if objects is not None and objects.inspect is not None and class_ids is not None and item.extra is not None:
        faults.extend(objects.inspect(item, class_ids, labels))
    return Findings(
        tuple(faults),
        size_hw=(stored.shape[0], stored.shape[1]),
        by=f"mask {path.name}",
        class_ids=frozenset(there),
        has_void=class_ids is not None and bool((class_ids == labels.ignore_id).any()),
        palette={index: palette[id] for index in there if (id := labels.dataset_ids[index]) in palette},
    )


def stored_mask(path: Path, *, colours: bool = False) -> np.ndarray | Fault:
    """Ids [H, W] or colours [H, W, 3] of a mask, or why it has none."""
    try:
        return read_colours(path) if colours else read_ids(path)
    except ColourMaskError as error:
        return Fault("colour mask", str(path), without_path(error, path))
    except DataError as error:
        return Fault("unreadable mask", str(path), without_path(error, path))


def _palette_of(path: Path) -> dict[int, tuple[int, int, int]]:
    """The colour of each id of a file that has a palette."""
    with Image.open(path) as header:
        values = header.getpalette() if header.mode == "P" else None
    triples = zip(*[iter(values or ())] * 3, strict=False)
    return {id: (red, green, blue) for id, (red, green, blue) in enumerate(triples)}


def _repair(
    items: Sequence[Item],
    labels: LabelSet,
    writer: MakeWriter,
    options: Mapping[str, str],
    colours: bool,
    objects: ObjectFiles | None,
) -> Repair:
    """How a copy is made: unknown ids become void, and classes and objects agree."""
    labels = _with_void(labels)
    made = replace(writer(options, labels), labels=labels, suffixes=())
    read = partial(repaired_mask, colours=colours, objects=objects)
    return Repair(items, WriterRepairer(read, labels, made), options=options)


def repaired_mask(
    item: Item, labels: LabelSet, size: Size, orientation: int, *, colours: bool, objects: ObjectFiles | None
) -> RepairedTruth:
    """The classes of an image as far as they can be used, and its objects; see `repairing.ReadRepaired`."""
    mask, steps = usable_mask(item, size, orientation, colours=colours)
    done = Counter(steps)
    class_ids, done["unknown_pixels"] = _class_ids(mask, labels, colours=colours)
    if (class_ids == labels.ignore_id).all():
        raise UnusableError("only_void")
    instances = None
    if objects is not None and objects.instances_in is not None:
        ids = _read_objects(item.extra, size, orientation)
        instances = objects.instances_in(ids, class_ids, labels)
        _make_agree(instances, ids, class_ids, labels, done, tells_class=objects.tells_class)
    return RepairedTruth(Annotation(semantic=torch.from_numpy(class_ids), instances=instances), done)


def _read_objects(path: Path | None, size: Size, orientation: int) -> np.ndarray:
    """Object ids [H, W], turned as EXIF turns the image if that makes them fit."""
    try:
        ids = None if path is None else read_ids(path)
    except DataError:
        ids = None
    if ids is not None and ids.shape != size and orientation >= 5:
        ids = turned_upright(ids, orientation)
    if ids is None or ids.shape != size:
        raise UnusableError("missing_objects")
    return ids


def _make_agree(
    instances: Instances,
    ids: np.ndarray,
    class_ids: np.ndarray,
    labels: LabelSet,
    done: Counter[str],
    *,
    tells_class: bool,
) -> None:
    """Make class ids agree with objects, in place; `done` is told what was done."""
    assert instances.masks is not None
    covered = np.zeros(ids.shape, dtype=np.bool_)
    for number, class_id in enumerate(instances.labels.tolist()):
        x1, y1, x2, y2 = instances.masks.boxes[number].tolist()
        inside, place = instances.masks.crop(number).numpy() != 0, np.s_[y1:y2, x1:x2]
        covered[place] |= inside
        wrong = inside & (class_ids[place] != labels.ignore_id) & (class_ids[place] != class_id)
        done["object_classes"] += bool(wrong.any())
        class_ids[place][wrong] = class_id
    if not tells_class:
        there = set(np.unique(ids).tolist()) - {0, *labels.void_ids}
        done["objects_without_class"] += len(there) - len(instances)
        lost = ~covered & (class_ids != labels.ignore_id) & (class_ids != (labels.background_id or 0))
        done["pixels_without_object"] += int(lost.sum())
        class_ids[lost] = labels.ignore_id


def _class_ids(mask: np.ndarray, labels: LabelSet, *, colours: bool) -> tuple[np.ndarray, int]:
    """Class ids, unknown ids or colours as void, and the number of those pixels."""
    if colours:
        ids, unknown = match_colours(mask, labels)
        return ids, sum(unknown.values())
    known = np.isin(mask, (*labels.dataset_ids, *labels.void_ids))
    ids = np.where(known, mask.astype(np.int32), labels.void_ids[0])
    return labels.class_ids(ids, source="mask"), int((~known).sum())


def _with_void(labels: LabelSet) -> LabelSet:
    """The same set with an id for void, if it has none."""
    if labels.void_ids:
        return labels
    return replace(labels, void_ids=(255,) if 255 not in labels.dataset_ids else (max(labels.dataset_ids) + 1,))
