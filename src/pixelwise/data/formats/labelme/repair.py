"""Repaired copies of LabelMe folders."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pixelwise.data.formats.labelme.json import UNUSED, LabelmeFile, Part, all_faults, object_runs, read_labelme
from pixelwise.data.kinds.folders import labels_toml
from pixelwise.data.kinds.object_lists_repair import Drawn, rasterised, told_apart
from pixelwise.data.kinds.repairing import read_upright
from pixelwise.data.kinds.writing import write_image
from pixelwise.data.listing import Item, Repair, Repaired, Repairer, UnusableError, Written
from pixelwise.errors import DataError
from pixelwise.files.exif import Frame, common_frame, frame_of, turned_points
from pixelwise.files.images import exif_orientation, image_size, turned_upright
from pixelwise.files.text import read_json
from pixelwise.labels import LabelSet
from pixelwise.ops import rle


def repair_of(items: Sequence[Item], labels: LabelSet, known: Sequence[str]) -> Repair:
    """How the copy of a split is made: its JSON files, the labels, and what shapes may be called."""
    done: Counter[str] = Counter()
    swapped: dict[int, tuple[LabelmeFile, int]] = {}
    frames: dict[int, Frame | None] = {}
    for number, item in enumerate(items):
        try:
            if item.image is None or item.truth is None or (orientation := exif_orientation(item.image)) < 5:
                continue
            file, size = read_labelme(item.truth), image_size(item.image)
        except DataError:  # the repairer counts it
            continue
        if file.size is not None and file.size == size[::-1] and file.size != size:
            swapped[number] = file, orientation
            frames[number] = frame_of((value for part in file.parts for value in _corners(part)), file.size)
    common = common_frame(frames.values())
    done["frames_by_size"] += sum(
        frame is None and common is None and bool(swapped[number][0].parts) for number, frame in frames.items()
    )
    turned = {
        number: swapped[number][1] for number, frame in frames.items() if (frame or common or "stored") == "stored"
    }
    turning = [item._replace(extra=turned.get(number, 1)) for number, item in enumerate(items)]
    return Repair(turning, LabelmeRepairer(labels, tuple(known)), dict(done))


def _corners(part: Part) -> Sequence[float]:
    return part.polygon if part.mask is None and part.polygon is not None else part.mask[1] if part.mask else ()


@dataclass(frozen=True)
class LabelmeRepairer(Repairer):
    """Writes SPLIT/ with a JSON file beside each image, and labels.toml. See Repairer.

    Attributes:
        labels: the classes.
        known: what shapes may be called.
    """

    labels: LabelSet
    known: tuple[str, ...]

    def repair(self, item: Item, *, root: Path, split: str, id: str) -> Repaired:
        """Remove shapes that mark no object, and make size and shapes those of the upright image. See Repairer."""
        assert item.truth is not None
        try:
            file, content = read_labelme(item.truth), read_json(item.truth)
        except DataError as error:
            raise UnusableError("unreadable_annotations", str(error)) from None
        done: Counter[str] = Counter()
        if item.image is None and file.embedded is not None:
            item = item._replace(image=_written_out(file.embedded, root / split / id))
            done["embedded_images"] += 1
        pixels, _ = read_upright(item, needs_truth=False)
        assert item.image is not None
        size = (pixels.shape[0], pixels.shape[1])
        is_stated = (content.get("imageHeight"), content.get("imageWidth")) != (None, None)
        done["sizes"] += is_stated and (content.get("imageHeight"), content.get("imageWidth")) != size
        orientation = item.extra
        kept = self._kept(file, len(content["shapes"]), size, orientation, done)
        done["turned_annotations"] += len(kept) if orientation != 1 else 0
        place = item.image.relative_to(root).as_posix() if item.image.is_relative_to(root) else None
        if place is None:
            place, _ = write_image(root, f"{split}/{id}", item.image, pixels)
        part_at = {part.place: part for part in file.parts}
        content["shapes"] = [
            _turned_shape(content["shapes"][number - 1], part_at[number], size, orientation) for number in kept
        ]
        content["imagePath"], content["imageData"] = Path(place).name, None
        if is_stated:
            content |= {"imageHeight": size[0], "imageWidth": size[1]}
        (root / split / f"{id}.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        return Repaired(Written(id, place), done)

    def finish_set(self, root: Path) -> None:
        """Write labels.toml."""
        (root / "labels.toml").write_text(labels_toml(self.labels), encoding="utf-8")

    def _kept(
        self, file: LabelmeFile, shapes: int, size: tuple[int, int], orientation: int, done: Counter[str]
    ) -> list[int]:
        """The places of the shapes that stay."""
        faulty = {fault.shape for fault in all_faults(file, self.known) if fault.fatal}
        objects = [parts for parts in file.objects() if faulty.isdisjoint(part.place for part in parts)]
        unused = [parts for parts in objects if parts[0].label in UNUSED]
        places = [part.place for parts in unused for part in parts]
        done["regions_of_boxes"] += sum(part.void for parts in objects for part in parts)
        drawn: list[Drawn] = []
        for parts in objects:
            if parts in unused:
                continue
            numbers, crowd = tuple(part.place for part in parts), any(part.crowd or part.void for part in parts)
            drawn_pixels = _pixels_of(parts, size, orientation)
            if drawn_pixels is not None:
                drawn.append(Drawn(numbers, parts[0].label, crowd, *drawn_pixels))
        done["shapes"] += shapes - len(places) - sum(len(one.places) for one in drawn)
        return sorted([*places, *(place for one in told_apart(drawn, done) for place in one.places)])


def _pixels_of(parts: Sequence[Part], size: tuple[int, int], orientation: int) -> tuple[np.ndarray, rle.Box] | None:
    """The pixels of an object of LabelMe in the upright image."""
    turned = [
        part._replace(
            polygon=None if part.polygon is None else turned_points(part.polygon, size, orientation),
            mask=None if part.mask is None else _turned_mask(*part.mask, size, orientation),
        )
        for part in parts
    ]
    if all(part.mask is None for part in turned):
        return rasterised([part.polygon for part in turned if part.polygon is not None], size)
    mask, box = rle.crop(object_runs(turned, size))
    return (mask, box) if mask.size else None


def _turned_mask(mask: np.ndarray, box: rle.Box, size: tuple[int, int], orientation: int) -> tuple[np.ndarray, rle.Box]:
    x1, y1, x2, y2 = (round(value) for value in turned_points(box, size, orientation))
    return turned_upright(mask, orientation), (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))


def _turned_shape(shape: dict[str, Any], part: Part, size: tuple[int, int], orientation: int) -> dict[str, Any]:
    """A shape of LabelMe as it lies in the upright image."""
    if part.void:  # a region in which nothing is learned
        corners = [*(part.polygon or ())]
        x1, y1, x2, y2 = corners[0:2] + corners[4:6]
        points = [turned_points(point, size, orientation) for point in ([x1, y1], [x2, y2])]
        flags = {**(shape.get("flags") or {}), "crowd": True}
        return {**shape, "shape_type": "rectangle", "points": points, "group_id": None, "flags": flags}
    flags = shape.get("flags")
    if isinstance(flags, dict) and isinstance(flags.get("crowd"), str):
        shape = {**shape, "flags": {**flags, "crowd": part.crowd}}
    if orientation == 1:
        return shape
    if part.mask is None:
        return {**shape, "points": [turned_points(point, size, orientation) for point in shape["points"]]}
    mask, (x1, y1, x2, y2) = _turned_mask(*part.mask, size, orientation)
    stream = io.BytesIO()
    Image.fromarray((mask * 255).astype(np.uint8)).save(stream, "PNG")
    picture = base64.b64encode(stream.getvalue()).decode("ascii")
    return {**shape, "points": [[x1, y1], [x2 - 1, y2 - 1]], "mask": picture}


def _written_out(picture: str, place: Path) -> Path:
    """The file of an image that a JSON holds. Raises UnusableError where it is none."""
    try:
        data = base64.b64decode(picture, validate=True)
        with Image.open(io.BytesIO(data)) as image:
            suffix = {"JPEG": ".jpg", "PNG": ".png"}.get(image.format or "")
    except Exception as error:  # whatever a picture that is none makes Pillow raise
        raise UnusableError("missing_images", str(error)) from None
    if suffix is None:
        raise UnusableError("missing_images")
    place.parent.mkdir(parents=True, exist_ok=True)
    file = place.with_name(f"{place.name}{suffix}")
    file.write_bytes(data)
    return file
