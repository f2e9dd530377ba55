"""The JSON files of LabelMe, one beside each image: reading their shapes, and everything that can be wrong with them.

Areas are polygons (also oriented rectangles, by their four corners), rectangles (two corners), circles (centre and a
point of the line) and masks (a box and a picture in it). Points, lines and line strips have no area. Of a polygon of
two points, and of a shape of another kind, only its box is known. Shapes of one label and one `group_id` are parts of
one object. Coordinates are pixels from the image's corner, and polygons are rasterised by COCO's rule, not by
LabelMe's, which adds the pixels under the line.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from pixelwise.data.kinds.coco_json import is_finite, is_id, is_integer, number_of_text, truth_value, whole
from pixelwise.data.kinds.object_lists import DrawnFault
from pixelwise.errors import DataError
from pixelwise.files.images import MAX_MEGAPIXELS
from pixelwise.files.lookup import posix_name
from pixelwise.files.text import read_json
from pixelwise.ops import rle
from pixelwise.ops.rle import FARTHEST_PX

BACKGROUND = "_background_"
"""What LabelMe calls the background."""

IGNORED = "__ignore__"
"""LabelMe's name of what is not to be used."""

UNUSED = (IGNORED, BACKGROUND, "background")
"""Shapes of these names mark no object."""

CIRCLE_CORNERS = 72
"""A circle is a polygon of that many corners; the area it loses is an eighth of a percent."""

POLYGONS = ("polygon", "rotation", "oriented_rectangle", "quadrilateral")
"""Shapes that are given by their corners; the others by names of LabelMe's later versions, and of X-AnyLabeling."""

WITHOUT_AREA = ("point", "points", "line", "linestrip")


class Part(NamedTuple):
    """One sound shape.

    Attributes:
        place: in the file, from 1.
        label: its name.
        group: the number or name of its group, or None.
        crowd: whether it is marked as a region of many objects.
        polygon: x1 y1 x2 y2 …, or None of a mask.
        mask: the pixels and their box, or None of a polygon.
        void: whether the shape has a box alone, so that the pixels of its object are unknown.
    """

    place: int
    label: str
    group: int | str | None
    crowd: bool
    polygon: Sequence[float] | None
    mask: tuple[np.ndarray, rle.Box] | None = None
    void: bool = False


@dataclass(frozen=True)
class LabelmeFile:
    """The content of a file.

    Attributes:
        path: the file.
        image: the image's name as it stands in it, with slashes.
        size: height and width by the file, or None where it does not say them.
        parts: the sound shapes.
        faults: of the others.
        embedded: the image itself, as bytes of a picture, where the file holds it.
    """

    path: Path
    image: str
    size: tuple[int, int] | None
    parts: tuple[Part, ...]
    faults: tuple[DrawnFault, ...]
    embedded: str | None = field(default=None, repr=False)

    def objects(self) -> list[list[Part]]:
        """The parts of each object, in the order of their first."""
        objects: dict[Any, list[Part]] = {}
        for part in self.parts:
            key = part.place if part.group is None else (part.label, part.group)
            objects.setdefault(key, []).append(part)
        return list(objects.values())


def read_labelme(path: Path) -> LabelmeFile:
    """Read a file. Raises DataError when it is not one of LabelMe's."""
    content = read_json(path)
    shapes = content.get("shapes") if isinstance(content, dict) else None
    if not isinstance(shapes, list):
        raise DataError(f"{path}: no list 'shapes'; expected a file of LabelMe")
    height, width = (whole(content.get(side)) for side in ("imageHeight", "imageWidth"))
    sides: tuple[Any, Any] = (height, width)
    size = sides if all(is_integer(side) and side > 0 for side in sides) else None
    faults: list[DrawnFault] = []
    if sides != (None, None) and size is None:
        text = f"imageHeight {sides[0]!r}, imageWidth {sides[1]!r}; expected whole numbers of pixels"
        faults.append(DrawnFault("image entry", None, text, True))
    elif size is not None and size[0] * size[1] > MAX_MEGAPIXELS * 1e6:
        text = f"{size[0]:,}×{size[1]:,} pixels; at most {MAX_MEGAPIXELS:g} megapixels are read"
        faults.append(DrawnFault("image entry", None, text, True))
    parts: list[Part] = []
    for place, shape in enumerate(shapes, start=1):
        found = _part(shape, place)
        if isinstance(found, DrawnFault):
            faults.append(found)
            found = None if found.fatal else _void(shape, place, found)
        if found is not None:
            parts.append(found)
    name, embedded = content.get("imagePath"), content.get("imageData")
    image = posix_name(name) if isinstance(name, str) else ""
    return LabelmeFile(
        path, image, size, tuple(parts), tuple(faults), embedded if isinstance(embedded, str) and embedded else None
    )


def _void(shape: Mapping[str, Any], place: int, fault: DrawnFault) -> Part | None:
    """The box of a shape that has some, but does not tell which pixels it means; None of what marks no area."""
    points, crowd = shape["points"], truth_value((shape.get("flags") or {}).get("crowd"))
    if fault.kind == "shape without area" or not points:
        return None
    (left, top), (right, bottom) = (tuple(of(point[axis] for point in points) for axis in (0, 1)) for of in (min, max))
    if left >= right or top >= bottom:
        return None
    outline = [float(value) for value in (left, top, right, top, right, bottom, left, bottom)]
    return Part(place, shape["label"], None, bool(crowd), outline, void=True)


def _part(shape: Any, place: int) -> Part | DrawnFault:
    if not isinstance(shape, dict) or not isinstance(shape.get("label"), str) or not shape["label"].strip():
        return DrawnFault("shape", place, "a shape needs a label and points", True)
    kind, points, group = shape.get("shape_type") or "polygon", shape.get("points"), whole(shape.get("group_id"))
    group = number if is_integer(number := number_of_text(group)) else group or (0 if group == 0 else None)
    if group is not None and not is_id(group):
        return DrawnFault("shape", place, f"its group_id is {group!r}; expected a number, text or null", True)
    if not isinstance(points, list) or not all(_is_point(point) for point in points):
        return DrawnFault("shape", place, "its points are not a list of pairs x, y", True)
    farthest = max((abs(value) for point in points for value in point), default=0)
    if farthest > FARTHEST_PX:
        return DrawnFault("shape", place, f"a coordinate of {farthest:g} pixels", True)
    flags = shape.get("flags")
    crowd = truth_value(flags.get("crowd")) if isinstance(flags, Mapping) else False
    name = shape["label"]
    if crowd is None:
        return DrawnFault(
            "shape", place, f"its flag crowd is {shape['flags']['crowd']!r}; expected true or false", True
        )
    if kind in WITHOUT_AREA:
        return DrawnFault("shape without area", place, f"a {kind} of '{name}' covers no pixel", False)
    if kind == "mask":
        drawn = _mask(points, shape.get("mask"))
        if drawn is None:
            return DrawnFault("shape", place, f"the mask of '{name}' needs two corners and a picture in base64", True)
        return Part(place, name, group, crowd, None, drawn)
    if kind not in (*POLYGONS, "rectangle", "circle"):
        text = f"a {kind}; polygons, rectangles, circles and masks are read"
        return DrawnFault("unknown shape", place, text, False)
    fewest = 3 if kind in POLYGONS else 2
    if len(points) < fewest:
        return DrawnFault("polygon without extent", place, f"the {kind} has {len(points)} points, not {fewest}", False)
    return Part(place, name, group, crowd, _outline(kind, points))


def _outline(kind: str, points: Sequence[Sequence[float]]) -> list[float]:
    """The corners of a shape."""
    if kind in POLYGONS or len(points) > 2:
        return [float(value) for point in points for value in point]
    (x1, y1), (x2, y2) = points
    if kind == "rectangle":
        return [float(value) for value in (x1, y1, x2, y1, x2, y2, x1, y2)]
    radius = math.hypot(x2 - x1, y2 - y1)
    angles = (2 * math.pi * corner / CIRCLE_CORNERS for corner in range(CIRCLE_CORNERS))
    return [value for angle in angles for value in (x1 + radius * math.cos(angle), y1 + radius * math.sin(angle))]


def _mask(points: Sequence[Sequence[float]], picture: Any) -> tuple[np.ndarray, rle.Box] | None:
    """The pixels of a mask and the box they fill, or None of an unusable one."""
    if len(points) != 2 or not isinstance(picture, str):
        return None
    try:
        with Image.open(io.BytesIO(base64.b64decode(picture, validate=True)), formats=("PNG",)) as image:
            pixels = np.asarray(image.convert("L")) != 0
    except Exception:  # whatever a picture that is none makes Pillow raise
        return None
    x1, y1 = (round(min(point[axis] for point in points)) for axis in (0, 1))
    return pixels, (x1, y1, x1 + pixels.shape[1], y1 + pixels.shape[0])


def _is_point(point: Any) -> bool:
    return isinstance(point, list) and len(point) == 2 and all(map(is_finite, point))


def mask_runs(mask: np.ndarray, box: rle.Box, size: tuple[int, int]) -> dict[str, Any]:
    """The RLE of a mask in an image, without what lies outside of it."""
    x1, y1, x2, y2 = box
    left, top, right, bottom = max(x1, 0), max(y1, 0), max(min(x2, size[1]), 0), max(min(y2, size[0]), 0)
    inside = mask[top - y1 : max(bottom - y1, top - y1), left - x1 : max(right - x1, left - x1)]
    return rle.encode_crop(inside, (left, top, right, bottom), size)


def object_runs(parts: Sequence[Part], size: tuple[int, int]) -> dict[str, Any]:
    """The RLE of an object with masks among its parts."""
    pixels = np.zeros(size, dtype=np.uint8)
    for part in parts:
        if part.mask is not None:
            pixels |= rle.decode(mask_runs(*part.mask, size))
        elif part.polygon is not None:
            pixels |= rle.from_polygons([part.polygon], size)
    return rle.encode(pixels)


def labels_in(files: Sequence[LabelmeFile]) -> list[str]:
    """The names that stand in some files, sorted."""
    return sorted({part.label for file in files for part in file.parts})


def all_faults(file: LabelmeFile, known: Sequence[str]) -> Iterator[DrawnFault]:
    """The faults of a file, and its shapes whose label is not known."""
    yield from file.faults
    for part in file.parts:
        if part.label not in known:
            yield DrawnFault("unknown category", part.place, f"label '{part.label}' is not in the label set", True)
