"""Repaired copies of LabelMe folders."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pixelwise.data.formats.labelme import reader as labelme
from pixelwise.data.formats.labelme.json import LabelmeFile, Part, all_faults, mask_runs, read_labelme
from pixelwise.data.kinds.folders import Entry, labels_toml
from pixelwise.data.kinds.object_lists_repair import _Drawn, _pixels, _rasterised, _told_apart
from pixelwise.data.kinds.repair_images import FolderCopy, Repaired
from pixelwise.data.kinds.writing import Written, write_image
from pixelwise.errors import DataError
from pixelwise.files.exif import turned_points
from pixelwise.files.images import exif_orientation, turned_upright
from pixelwise.files.text import read_json
from pixelwise.labels import LabelSet
from pixelwise.ops import rle


def labelme_copy(path: Path, splits: Sequence[str], options: Mapping[str, str]) -> FolderCopy:
    """How the copy of some splits of a labelme set is made."""
    entries = {split: [*_labelme_entries(path, split, options)] for split in splits}
    labels = labelme.labels_of(path, options, skip=True)
    return FolderCopy(entries, LabelmeRepairer(labels), {})


def _labelme_entries(path: Path, split: str, options: Mapping[str, str]) -> Iterator[Entry]:
    for json_file in labelme.files_of(path, split, options):
        try:
            file = read_labelme(json_file)
        except DataError:  # the repairer counts it
            file = LabelmeFile(json_file, "", None, (), ())
        yield Entry(json_file.stem, labelme.image_of(file, path, split, options), json_file)


@dataclass(frozen=True)
class LabelmeRepairer:
    """Writes SPLIT/ with a JSON file beside each image, and labels.toml. See Repairer.

    Attributes:
        labels: the classes.
    """

    labels: LabelSet

    def repair(self, entry: Entry, *, root: Path, split: str) -> Repaired:
        """Remove shapes that mark no object, and make size and shapes those of the upright image."""
        assert entry.mask is not None
        pixels, fault = _pixels(entry)
        if pixels is None or entry.image is None:
            return Repaired(None, {fault: 1})
        try:
            file = read_labelme(entry.mask)
            content = read_json(entry.mask)
        except DataError:
            return Repaired(None, {"unreadable_annotations": 1})
        done: Counter[str] = Counter()
        size = (pixels.shape[0], pixels.shape[1])
        orientation = exif_orientation(entry.image)
        turned = orientation if orientation >= 5 and file.size == size[::-1] and file.size != size else 1
        is_stated = (content.get("imageHeight"), content.get("imageWidth")) != (None, None)
        done["sizes"] += is_stated and file.size != size
        kept = self._kept(file, len(content["shapes"]), size, turned, done)
        done["turned_annotations"] += len(kept) if turned != 1 else 0
        place, _ = write_image(root, f"{split}/{entry.id}", entry.image, pixels)
        part_at = {part.place: part for part in file.parts}
        content["shapes"] = [
            _turned_shape(content["shapes"][number - 1], part_at[number], size, turned) for number in kept
        ]
        content["imagePath"] = Path(place).name
        if is_stated:
            content |= {"imageHeight": size[0], "imageWidth": size[1]}
        (root / split / f"{entry.id}.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        return Repaired(Written(entry.id, place, {}), done)

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> None:
        """Nothing: each image has its own file."""

    def finish_set(self, root: Path) -> None:
        """Write labels.toml."""
        (root / "labels.toml").write_text(labels_toml(self.labels), encoding="utf-8")

    def _kept(
        self, file: LabelmeFile, shapes: int, size: tuple[int, int], orientation: int, done: Counter[str]
    ) -> list[int]:
        """The places of the shapes that stay."""
        faulty = {fault.shape for fault in all_faults(file, labelme.known_names(self.labels))}
        objects = [parts for parts in file.objects() if faulty.isdisjoint(part.place for part in parts)]
        unused = [parts for parts in objects if parts[0].label in labelme.UNUSED]
        places = [part.place for parts in unused for part in parts]
        drawn: list[_Drawn] = []
        for parts in objects:
            if parts in unused:
                continue
            numbers, crowd = tuple(part.place for part in parts), any(part.crowd for part in parts)
            drawn_pixels = _pixels_of(parts, size, orientation)
            if drawn_pixels is not None:
                drawn.append(_Drawn(numbers, parts[0].label, crowd, *drawn_pixels))
        done["shapes"] += shapes - len(places) - sum(len(one.places) for one in drawn)
        return sorted([*places, *(place for one in _told_apart(drawn, done) for place in one.places)])


def _pixels_of(parts: Sequence[Part], size: tuple[int, int], orientation: int) -> tuple[np.ndarray, rle.Box] | None:
    """The pixels of an object of LabelMe in the upright image."""
    if parts[0].mask is None:
        polygons = [turned_points(part.polygon, size, orientation) for part in parts if part.polygon is not None]
        return _rasterised(polygons, size)
    mask, box = rle.crop(mask_runs(*_turned_mask(*parts[0].mask, size, orientation), size))
    return (mask, box) if mask.size else None


def _turned_mask(mask: np.ndarray, box: rle.Box, size: tuple[int, int], orientation: int) -> tuple[np.ndarray, rle.Box]:
    x1, y1, x2, y2 = (round(value) for value in turned_points(box, size, orientation))
    return turned_upright(mask, orientation), (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))


def _turned_shape(shape: dict[str, Any], part: Part, size: tuple[int, int], orientation: int) -> dict[str, Any]:
    """A shape of LabelMe as it lies in the upright image."""
    if orientation == 1:
        return shape
    if part.mask is None:
        return {**shape, "points": [turned_points(point, size, orientation) for point in shape["points"]]}
    mask, (x1, y1, x2, y2) = _turned_mask(*part.mask, size, orientation)
    stream = io.BytesIO()
    Image.fromarray((mask * 255).astype(np.uint8)).save(stream, "PNG")
    picture = base64.b64encode(stream.getvalue()).decode("ascii")
    return {**shape, "points": [[x1, y1], [x2 - 1, y2 - 1]], "mask": picture}
