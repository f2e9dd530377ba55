"""Images with objects that are drawn in files: polygons and runs in flat arrays, rasterised one object at a time.

The ground truth of an image is its objects and, painted from them, the class of each pixel (`data.truth.painting`).
What the formats differ in is how a file is read; coco, labelme and yolo share everything behind that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8

from pixelwise.data.listing import Fault, Findings, Item, Size
from pixelwise.data.truth.boxes import is_elsewhere, leaves_image, tight_box
from pixelwise.data.truth.painting import HOLE, painted
from pixelwise.errors import DataError, count
from pixelwise.labels import LabelSet
from pixelwise.ops import rle
from pixelwise.types import Annotation, Instances, Masks

LARGEST_ID = 2**63 - 1
"""The largest id that `Objects` holds as a number."""


class Shape(NamedTuple):
    """One object as it stands in a file.

    Attributes:
        image: the number of its image, 0 for the first of the set.
        id: its annotation id, or its place in the file.
        class_id: 0…K-1; or HOLE of a region of no class, which takes its pixels from the shapes before it, and in which
            nothing is evaluated if it is a crowd.
        polygons: x1 y1 x2 y2 … of each part.
        runs: its RLE, where it has no polygons.
        crowd: whether the region is of many objects.
        box: x1 y1 x2 y2 in pixels as stated, or None to take the mask's.
        area: in square pixels as stated, or None to take the mask's.
        boxed: whether it has a box alone; such an instance is a crowd everywhere but in box AP.
        name: what errors call it, where that is another than its id: text, or a number above LARGEST_ID.
    """

    image: int
    id: int
    class_id: int
    polygons: Sequence[Sequence[float]] = ()
    runs: Mapping[str, Any] | None = None
    crowd: bool = False
    box: tuple[float, float, float, float] | None = None
    area: float | None = None
    boxed: bool = False
    name: str | None = None


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of many images in flat arrays: small, and shared with worker processes without copies.

    Attributes:
        starts: objects starts[i] … starts[i+1]-1 belong to image i.
        ids: of the annotations, or places in a file.
        class_ids: 0…K-1, or HOLE.
        boxes: x1 y1 x2 y2, pixels; NaN to take the mask's.
        areas: square pixels; NaN to take the mask's.
        crowd: whether the region is of many objects.
        boxed: whether it has a box alone.
        polygon_starts: polygons polygon_starts[n] … polygon_starts[n+1]-1 belong to object n.
        point_starts: where in `coordinates` each polygon begins, and the end of the last.
        coordinates: x, y of all polygons.
        runs: object → its RLE, of those that have no polygons.
        names: object → its id in the file, of those whose id there is text, or above LARGEST_ID.
        fractions: whether coordinates are fractions of width and height, instead of pixels.
        in_order: whether shapes are painted in their order, instead of the largest first.
    """

    starts: np.ndarray
    ids: np.ndarray
    class_ids: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    boxed: np.ndarray
    polygon_starts: np.ndarray
    point_starts: np.ndarray
    coordinates: np.ndarray
    runs: Mapping[int, Mapping[str, Any]]
    names: Mapping[int, str]
    fractions: bool = False
    in_order: bool = False

    @classmethod
    def from_shapes(
        cls, shapes: Sequence[Shape], images: int, *, fractions: bool = False, in_order: bool = False
    ) -> Objects:
        """Pack sound objects of that many images; those of an image stay in their order."""
        ordered = sorted(shapes, key=lambda shape: shape.image)
        flat = [polygon for shape in ordered for polygon in shape.polygons]
        unstated = (np.nan,) * 4
        return cls(
            starts=np.searchsorted(np.array([shape.image for shape in ordered], dtype=np.int64), np.arange(images + 1)),
            ids=np.array([shape.id for shape in ordered], dtype=np.int64),
            class_ids=np.array([shape.class_id for shape in ordered], dtype=np.int64),
            boxes=np.array([shape.box or unstated for shape in ordered], dtype=np.float32).reshape(-1, 4),
            areas=np.array([np.nan if shape.area is None else shape.area for shape in ordered], dtype=np.float64),
            crowd=np.array([shape.crowd for shape in ordered], dtype=np.bool_),
            boxed=np.array([shape.boxed for shape in ordered], dtype=np.bool_),
            polygon_starts=np.cumsum([0, *(len(shape.polygons) for shape in ordered)]),
            point_starts=np.cumsum([0, *(len(polygon) for polygon in flat)]),
            coordinates=np.concatenate([np.zeros(0), *(np.asarray(polygon, dtype=np.float64) for polygon in flat)]),
            runs={number: shape.runs for number, shape in enumerate(ordered) if shape.runs is not None},
            names={number: shape.name for number, shape in enumerate(ordered) if shape.name is not None},
            fractions=fractions,
            in_order=in_order,
        )

    def of_image(self, index: int) -> range:
        """The numbers of the objects of one image."""
        return range(int(self.starts[index]), int(self.starts[index + 1]))

    def name(self, number: int) -> str:
        """What errors call one object: its id in the file."""
        return self.names.get(number) or str(self.ids[number])

    def crop(self, number: int, size: tuple[int, int], *, source: str) -> tuple[UInt8[np.ndarray, "h w"], rle.Box]:
        """One object inside its tight box, and the box. Raises DataError, beginning with `source`."""
        if number in self.runs:
            return rle.crop(self.runs[number], size=size, source=source)
        polygons = [
            self.coordinates[self.point_starts[polygon] : self.point_starts[polygon + 1]]
            for polygon in range(self.polygon_starts[number], self.polygon_starts[number + 1])
        ]
        if self.fractions:
            polygons = [(polygon.reshape(-1, 2) * (size[1], size[0])).ravel() for polygon in polygons]
        return rle.crop_polygons([polygon.tolist() for polygon in polygons], size, source=source)


class Shapes(NamedTuple):
    """The shapes of one image, rasterised.

    Attributes:
        crops: the pixels of each in its box.
        places: the boxes, x1 y1 x2 y2.
        numbers: of the shapes in `Objects`.
    """

    crops: list[np.ndarray]
    places: list[rle.Box]
    numbers: range


def read_objects(item: Item, labels: LabelSet, size: Size, *, objects: Objects, noun: str) -> Annotation:
    """The objects of one image and the classes painted from them; see `Listing.read`.

    Args:
        item: the image; its `extra` is its number in `objects`.
        objects: of all images.
        noun: what an object is called in its file, such as `annotation`.
    """
    numbers = objects.of_image(item.extra)
    crops: list[np.ndarray] = []
    places: list[rle.Box] = []
    for number in numbers:
        source = f"{item.truth}: image {item.id}, {noun} {objects.name(number)}"
        crop, place = objects.crop(number, size, source=source)
        crops.append(crop)
        places.append(place)
    shapes = Shapes(crops, places, numbers)
    chosen = slice(numbers.start, numbers.stop)
    class_ids, crowd = objects.class_ids[chosen], objects.crowd[chosen]
    masks = Masks.from_crops([torch.from_numpy(crop) for crop in crops], places, size)
    semantic = painted(masks, class_ids, crowd, labels, in_order=objects.in_order)
    if objects.in_order:
        shapes = _with_holes(shapes, class_ids)
    return Annotation(semantic=torch.from_numpy(semantic), instances=_instances(shapes, objects, labels, size))


def _with_holes(shapes: Shapes, class_ids: np.ndarray) -> Shapes:
    """Shapes without the pixels of holes that come after them."""
    crops, places = [*shapes.crops], [*shapes.places]
    for hole in np.flatnonzero(class_ids == HOLE):
        x1, y1, x2, y2 = places[hole]
        for number in range(hole):
            left, top, right, bottom = places[number]
            inner = max(x1, left), max(y1, top), min(x2, right), min(y2, bottom)
            if class_ids[number] == HOLE or inner[0] >= inner[2] or inner[1] >= inner[3]:
                continue
            crop = crops[number].copy()
            cut = crops[hole][inner[1] - y1 : inner[3] - y1, inner[0] - x1 : inner[2] - x1]
            crop[inner[1] - top : inner[3] - top, inner[0] - left : inner[2] - left][cut != 0] = 0
            crops[number], places[number] = _tight(crop, (left, top))
    return Shapes(crops, places, shapes.numbers)


def _tight(crop: np.ndarray, corner: tuple[int, int]) -> tuple[np.ndarray, rle.Box]:
    if not crop.any():
        return np.zeros((0, 0), dtype=np.uint8), (0, 0, 0, 0)
    x1, y1, x2, y2 = tight_box(crop)
    left, top = corner
    return np.ascontiguousarray(crop[y1:y2, x1:x2]), (left + x1, top + y1, left + x2, top + y2)


def _instances(shapes: Shapes, objects: Objects, labels: LabelSet, size: Size) -> Instances:
    """The objects; a region of no class in which nothing is evaluated is a crowd of every class of objects."""
    places: list[int] = []
    class_ids: list[int] = []
    for place, number in enumerate(shapes.numbers):
        class_id, crowd = int(objects.class_ids[number]), bool(objects.crowd[number])
        if class_id != HOLE and (shapes.crops[place].size or not objects.in_order):
            places.append(place)
            class_ids.append(class_id)
        elif class_id == HOLE and crowd and shapes.crops[place].size:
            places += [place] * len(labels.object_ids)
            class_ids += labels.object_ids
    numbers = [shapes.numbers[place] for place in places]
    masks = Masks.from_crops(
        [torch.from_numpy(shapes.crops[place]) for place in places], [shapes.places[place] for place in places], size
    )
    boxes = torch.from_numpy(objects.boxes[numbers].reshape(-1, 4))
    tight = torch.tensor([shapes.places[place] for place in places], dtype=torch.float32).reshape(-1, 4)
    areas = torch.from_numpy(objects.areas[numbers])
    return Instances(
        boxes=torch.where(boxes.isnan(), tight, boxes),
        labels=torch.tensor(class_ids, dtype=torch.int64),
        masks=masks,
        crowd=torch.from_numpy(objects.crowd[numbers]),
        boxed=torch.from_numpy(objects.boxed[numbers]) if objects.boxed[numbers].any() else None,
        areas=None if bool(areas.isnan().all()) else torch.where(areas.isnan(), masks.areas().double(), areas),
    )


def inspect_objects(
    item: Item, labels: LabelSet, size: Size | None, *, objects: Objects, noun: str, by_id: bool = False
) -> Findings:
    """Rasterise the objects of an image and report their faults; see `Listing.inspect`.

    Args:
        item: the image; its `extra` is its number in `objects`.
        size: of the image; without one that it states, nothing is rasterised.
        objects: of all images.
        noun: what an object is called in its file.
        by_id: whether faults name an object by its id and that of its image, and not by its place in a file.
    """
    numbers, size = objects.of_image(item.extra), item.size_hw or size
    class_ids, crowd = (values[numbers.start : numbers.stop] for values in (objects.class_ids, objects.crowd))
    faults = [] if size is None else [*_object_faults(item, labels, numbers, size, objects, noun, by_id=by_id)]
    ground = labels.background_id
    found = frozenset(class_ids.tolist()) - {HOLE}
    return Findings(
        tuple(faults),
        class_ids=found | ({ground} if ground is not None else set()),
        parts=int((class_ids != HOLE).sum()),
        crowds=int(crowd.sum()),
    )


def faults_in(file: Path, faults: Iterable[DrawnFault], *, noun: str) -> Iterator[Fault]:
    """The faults of a file, with the file and the place in it."""
    for fault in faults:
        where = f"{file}: {noun} {fault.shape}" if fault.shape else str(file)
        yield Fault(fault.kind, where, fault.text, fault.fatal, fault.shape)


class DrawnFault(NamedTuple):
    """What is wrong with one shape of an image's own file, or with the file where `shape` is None.

    Attributes:
        kind: a few words, the same for all faults of the kind.
        shape: its place in the file, from 1.
        text: the fault.
        fatal: whether a set with it cannot be opened; else the shape is skipped.
    """

    kind: str
    shape: int | None
    text: str
    fatal: bool


def similar_names(labels: LabelSet) -> Iterator[str]:
    """Class names that differ in capitals or in spaces around them alone, and those with such spaces."""
    first: dict[str, str] = {}
    for name in labels.names:
        other = first.setdefault(name.strip().casefold(), name)
        if other is not name:
            yield f"classes '{other}' and '{name}' differ in spaces or capitals alone; are they one?"
        elif name != name.strip():
            yield f"the name of class '{name}' has spaces around it"


def skipped(counts: Mapping[str, int]) -> str | None:
    """The note of a set of whose annotations some are skipped: what they lack → how many."""
    parts = [f"{count(number, 'annotation')} {lacking}" for lacking, number in counts.items() if number]
    return f"skipped: {', '.join(parts)}, see pixelwise data check" if parts else None


def joined(*notes: str | None) -> str | None:
    """Notes as one, or None where there is none."""
    return "; ".join(note for note in notes if note) or None


def _object_faults(
    item: Item, labels: LabelSet, numbers: range, size: Size, objects: Objects, noun: str, *, by_id: bool
) -> Iterator[Fault]:
    first_of: dict[tuple[bool, rle.Box, bytes], int] = {}
    for number in numbers:
        id, source = objects.name(number), "object"
        image = item.image.name if item.image else ""
        where = f"{noun} {id} (image {item.id}, '{image}')" if by_id else f"{item.truth}: {noun} {id}"
        try:
            mask, tight = objects.crop(number, size, source=source)
        except DataError as error:
            yield Fault("segmentation", where, str(error).removeprefix(f"{source}: "))
            continue
        box = tuple(float(value) for value in objects.boxes[number])
        yield from _box_faults(box, tight, size, where, has_pixels=bool(mask.size), crowd=bool(objects.crowd[number]))
        if not mask.size:
            yield Fault("object without pixels", where, "its segmentation covers no pixel of the image")
            continue
        if objects.class_ids[number] == HOLE:
            continue
        key = (bool(objects.crowd[number]), tight, np.packbits(mask).tobytes())
        first = first_of.setdefault(key, number)
        if first != number:
            other, names = f"{noun} {objects.name(first)}", labels.names
            before, now = (names[objects.class_ids[one]] for one in (first, number))
            if before == now:
                yield Fault("repeated annotation", where, f"{other} has the same class and the same pixels")
            else:
                text = f"{other} of class '{before}' has the same pixels, this is '{now}'"
                yield Fault("object in two classes", where, text)


def _box_faults(
    box: tuple[float, ...], tight: rle.Box, size: Size, where: str, *, has_pixels: bool, crowd: bool
) -> Iterator[Fault]:
    """What is wrong with a stated box; nothing where none is stated."""
    x1, y1, x2, y2 = box
    if np.isnan(x1):
        return
    if leaves_image(box, size):
        text = f"box [{x1:g},{y1:g},{x2:g},{y2:g}] (x1,y1,x2,y2) leaves the image of {size[0]}×{size[1]} (height×width)"
        yield Fault("box outside", where, text)
    elif has_pixels and not crowd and is_elsewhere(box, tight):
        stated, found = (",".join(f"{value:g}" for value in one) for one in (box, tight))
        text = f"box [{stated}] (x1,y1,x2,y2) is not that of its segmentation, [{found}]"
        swapped = (x1, y1, x2 - x1, y2 - y1)
        hint = "" if is_elsewhere(swapped, tight) else "; COCO has x, y, width, height"
        yield Fault("box elsewhere", where, text + hint)
