"""Images with objects that are drawn in files: polygons and runs in flat arrays, rasterised one object at a time.

The truth of an image is its objects and, painted from them, the class of each pixel (`data.truth.painting`). What the
formats differ in is how a file is read; coco, labelme and yolo share everything behind that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8

from pixelwise.data.kinds.faults import Fault, Findings, count, notes_on, readable_image, size_fault
from pixelwise.data.truth.boxes import is_elsewhere, leaves_image
from pixelwise.data.truth.painting import painted
from pixelwise.errors import DataError
from pixelwise.files.images import image_size, read_image
from pixelwise.files.parallel import Progress, apply
from pixelwise.labels import LabelSet
from pixelwise.ops import rle
from pixelwise.types import Annotation, Instances, Masks, Sample


class Shape(NamedTuple):
    """One object as it stands in a file.

    Attributes:
        image: the number of its image, 0 for the first of the set.
        id: its annotation id, or its place in the file.
        class_id: 0…K-1.
        polygons: x1 y1 x2 y2 … of each part.
        runs: its RLE, where it has no polygons.
        crowd: whether the region is of many objects.
        box: x1 y1 x2 y2 in pixels as stated, or None where only the mask tells it.
        area: in square pixels as stated, or None where only the mask tells it.
        boxed: whether nothing but its box is known: that of one object, which is a crowd to everything but box AP.
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


class ShapeFault(NamedTuple):
    """What is wrong with one shape of an image's own file, or with the file where `shape` is None.

    Attributes:
        kind: a few words, the same for all faults of the kind.
        shape: its place in the file, from 1.
        text: what is wrong.
        fatal: whether a set with it cannot be opened; else the shape is left out.
    """

    kind: str
    shape: int | None
    text: str
    fatal: bool


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of many images in flat arrays: small, and shared with worker processes without copies.

    Attributes:
        starts: objects starts[i] … starts[i+1]-1 belong to image i.
        ids: of the annotations, or places in a file.
        class_ids: 0…K-1.
        boxes: x1 y1 x2 y2, pixels; NaN where only the mask tells.
        areas: square pixels; NaN where only the mask tells.
        crowd: whether the region is of many objects.
        boxed: whether nothing but the box is known.
        polygon_starts: polygons polygon_starts[n] … polygon_starts[n+1]-1 belong to object n.
        point_starts: where in `coordinates` each polygon begins, and the end of the last.
        coordinates: x, y of all polygons.
        runs: object → its RLE, of those that have no polygons.
        fractions: whether coordinates are fractions of width and height, instead of pixels.
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
    fractions: bool = False

    @classmethod
    def from_shapes(cls, shapes: Sequence[Shape], images: int, *, fractions: bool = False) -> Objects:
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
            fractions=fractions,
        )

    def of_image(self, index: int) -> range:
        """The numbers of the objects of one image."""
        return range(int(self.starts[index]), int(self.starts[index + 1]))

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


@dataclass(frozen=True, eq=False)
class DrawnObjects:
    """Images with the objects in them. See Dataset for the attributes.

    Attributes:
        images: the image files.
        truth_files: the file that holds the objects of each image.
        objects: the objects.
        noun: what an object is called in its file, such as `annotation`.
        sizes: height and width of each image by the truth, or None where the truth does not tell.
    """

    name: str
    format: str
    labels: LabelSet
    ids: tuple[str, ...]
    images: tuple[Path, ...] = field(repr=False)
    truth_files: tuple[Path, ...] = field(repr=False)
    objects: Objects = field(repr=False)
    noun: str
    sizes: tuple[tuple[int, int], ...] | None = field(repr=False, default=None)
    note: str | None = None
    clips = None
    numbered_by = None

    def flow(self, index: int, *, reference: int) -> None:
        """Nobody knows the flow."""

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """Read one image and rasterise its objects. Raises DataError with the file, the image and the object."""
        index = range(len(self))[index]  # negative and too large indices as in a list
        try:
            image = read_image(self.images[index])
        except DataError as error:
            raise DataError(f"{error} (image {self.ids[index]})") from None
        size = (image.shape[1], image.shape[2])
        if self.sizes is not None and size != self.sizes[index]:
            height, width = self.sizes[index]
            raise DataError(
                f"{self.images[index]}: {size[0]}×{size[1]} pixels (height×width, upright), "
                f"{self.truth_files[index].name} says {height}×{width} (image {self.ids[index]})"
            )
        return Sample(image=image, truth=self._truth(index, size), id=self.ids[index], original_size=size)

    def truth(self, index: int) -> Annotation:
        """The objects of one image and the classes painted from them, without reading the image's pixels."""
        return self._truth(index, self.size_of(index))

    def instances(self, index: int, size: tuple[int, int]) -> Instances:
        """The objects of one image of that height and width."""
        numbers, objects = self.objects.of_image(index), self.objects
        source = f"{self.truth_files[index]}: image {self.ids[index]}, {self.noun}"
        crops, places = [], []
        for number in numbers:
            crop, place = objects.crop(number, size, source=f"{source} {objects.ids[number]}")
            crops.append(torch.from_numpy(crop))
            places.append(place)
        chosen = slice(numbers.start, numbers.stop)
        boxes = torch.from_numpy(objects.boxes[chosen].copy())
        tight = torch.tensor(places, dtype=torch.float32).reshape(-1, 4)
        masks = Masks.from_crops(crops, places, size)
        areas = torch.from_numpy(objects.areas[chosen].copy())
        return Instances(
            boxes=torch.where(boxes.isnan(), tight, boxes),
            labels=torch.from_numpy(objects.class_ids[chosen].copy()),
            masks=masks,
            crowd=torch.from_numpy(objects.crowd[chosen].copy()),
            boxed=torch.from_numpy(objects.boxed[chosen].copy()) if objects.boxed[chosen].any() else None,
            areas=None if bool(areas.isnan().all()) else torch.where(areas.isnan(), masks.areas().double(), areas),
        )

    def size_of(self, index: int) -> tuple[int, int]:
        """Height and width of the upright image, by the truth, else from its header."""
        return image_size(self.images[index]) if self.sizes is None else self.sizes[index]

    def image_path(self, index: int) -> Path:
        """The file of the image."""
        return self.images[index]

    def truth_path(self, index: int) -> Path:
        """The file that holds its objects."""
        return self.truth_files[index]

    def _truth(self, index: int, size: tuple[int, int]) -> Annotation:
        instances = self.instances(index, size)
        assert instances.masks is not None
        assert instances.crowd is not None
        semantic = painted(instances.masks, instances.labels.numpy(), instances.crowd.numpy(), self.labels)
        return Annotation(semantic=torch.from_numpy(semantic), instances=instances)


def inspect_images(
    dataset: DrawnObjects, *, split: str, workers: int, progress: Progress
) -> tuple[list[Fault], list[str]]:
    """Read every image of a set and rasterise every object; the faults, and the notes of a report."""
    read = apply(partial(inspect_image, dataset=dataset), range(len(dataset)), workers=workers)
    findings = list(progress(read, total=len(dataset), what=split))
    return [fault for found in findings for fault in found.faults], [*notes_on(findings, dataset.labels)]


def inspect_image(index: int, *, dataset: DrawnObjects) -> Findings:
    """Read one image, compare its size with the stated one, and rasterise its objects."""
    faults: list[Fault] = []
    path, objects = dataset.images[index], dataset.objects
    name = f"image {dataset.ids[index]} '{path.name}'" if dataset.sizes is not None else str(path)
    size, degrees, fault = readable_image(path, name)
    if fault is not None:
        is_missing = dataset.sizes is not None and not path.is_file()
        faults.append(replace(fault, text=f"{path}: no such file") if is_missing else fault)
    if dataset.sizes is not None:
        stated = dataset.sizes[index]
        if size is not None and size != stated:
            faults.append(size_fault(name, size, degrees, stated=stated, by="JSON"))
        size = stated
    numbers = objects.of_image(index)
    if size is not None:
        faults.extend(_object_faults(dataset, index, numbers, size))
    class_ids = frozenset(objects.class_ids[numbers.start : numbers.stop].tolist())
    ground = dataset.labels.background_id
    return Findings(tuple(faults), class_ids | ({ground} if ground is not None else set()), turned=degrees != 0)


def shape_faults(file: Path, faults: Iterable[ShapeFault], *, noun: str) -> Iterator[Fault]:
    """The faults of a file, with the file and the place in it."""
    for fault in faults:
        yield Fault(fault.kind, f"{file}: {noun} {fault.shape}" if fault.shape else str(file), fault.text)


def refuse(file: Path, faults: Iterable[ShapeFault], *, noun: str) -> None:
    """Raise DataError with the first fault for which a set cannot be opened."""
    fatal = next(shape_faults(file, (fault for fault in faults if fault.fatal), noun=noun), None)
    if fatal is not None:
        raise DataError(f"{fatal.where}: {fatal.text}; pixelwise data check lists all such faults")


def similar_names(labels: LabelSet) -> Iterator[str]:
    """Class names that differ in capitals or in spaces around them alone, and those with such spaces."""
    first: dict[str, str] = {}
    for name in labels.names:
        other = first.setdefault(name.strip().casefold(), name)
        if other is not name:
            yield f"classes '{other}' and '{name}' differ in spaces or capitals alone; are they one?"
        elif name != name.strip():
            yield f"the name of class '{name}' has spaces around it"


def left_out(counts: Mapping[str, int]) -> str | None:
    """The note of a set of whose annotations some are left out: what they lack → how many."""
    parts = [f"{count(number, 'annotation')} {lacking}" for lacking, number in counts.items() if number]
    return f"left out: {', '.join(parts)}, see pixelwise data check" if parts else None


def _object_faults(dataset: DrawnObjects, index: int, numbers: range, size: tuple[int, int]) -> Iterator[Fault]:
    objects = dataset.objects
    first_of: dict[tuple[bool, rle.Box, bytes], int] = {}
    for number in numbers:
        where, source = object_name(dataset, index, int(objects.ids[number])), "object"
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
        key = (bool(objects.crowd[number]), tight, np.packbits(mask).tobytes())
        first = first_of.setdefault(key, number)
        if first != number:
            yield _repeated(dataset, first, number, where)


def object_name(dataset: DrawnObjects, index: int, id: int) -> str:
    """How faults name an object: its id and those of its image, or its place in the image's own file."""
    if dataset.format == "coco":
        return f"annotation {id} (image {dataset.ids[index]}, '{dataset.images[index].name}')"
    return f"{dataset.truth_files[index]}: {dataset.noun} {id}"


def _repeated(dataset: DrawnObjects, first: int, number: int, where: str) -> Fault:
    objects, names = dataset.objects, dataset.labels.names
    other = f"{dataset.noun} {objects.ids[first]}"
    before, now = (names[objects.class_ids[one]] for one in (first, number))
    if before == now:
        return Fault("repeated annotation", where, f"{other} has the same class and the same pixels")
    return Fault("object in two classes", where, f"{other} of class '{before}' has the same pixels, this is '{now}'")


def _box_faults(
    box: tuple[float, ...], tight: rle.Box, size: tuple[int, int], where: str, *, has_pixels: bool, crowd: bool
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
        hint = "" if is_elsewhere(swapped, tight) else "; COCO wants x, y, width, height"
        yield Fault("box elsewhere", where, text + hint)
