"""Copies of labelme and yolo sets with their faults mended where that can be done without guessing.

Both have a file for each image in which objects are drawn. What is sound is copied as it stands there.
"""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from PIL import Image

from pixelwise.data.coco_repair import turned_points
from pixelwise.data.folder_repair import FolderCopy, Mended
from pixelwise.data.folders import Entry, labels_toml
from pixelwise.data.formats import labelme, yolo
from pixelwise.data.images import exif_orientation, read_image, turned_upright
from pixelwise.data.labelme_json import LabelmeFile, Part, all_faults, mask_runs, read_labelme
from pixelwise.data.pair_target import Written, write_image
from pixelwise.data.yolo_target import line_of
from pixelwise.data.yolo_text import all_faults as faults_of_lines
from pixelwise.data.yolo_text import leaves_image, read_yolo
from pixelwise.errors import DataError
from pixelwise.labels import LabelSet
from pixelwise.ops import rle


class _Drawn(NamedTuple):
    """One object: where it stands in the file, what it is, and its pixels in their box."""

    places: tuple[int, ...]
    kind: Any
    crowd: bool
    mask: np.ndarray
    box: rle.Box


def labelme_copy(path: Path, splits: Sequence[str], options: Mapping[str, str]) -> FolderCopy:
    """How the copy of some splits of a labelme set is made."""
    entries = {split: [*_labelme_entries(path, split, options)] for split in splits}
    labels = labelme.labels_of(path, options, skip=True)
    return FolderCopy(entries, LabelmeMender(labels), {})


def _labelme_entries(path: Path, split: str, options: Mapping[str, str]) -> Iterator[Entry]:
    for json_file in labelme.files_of(path, split, options):
        try:
            file = read_labelme(json_file)
        except DataError:  # the mender counts it
            file = LabelmeFile(json_file, "", None, (), ())
        yield Entry(json_file.stem, labelme.image_of(file, path, split, options), json_file)


@dataclass(frozen=True)
class LabelmeMender:
    """Writes SPLIT/ with a JSON file beside each image, and labels.toml. See Mender.

    Attributes:
        labels: the classes.
    """

    labels: LabelSet

    def mend(self, entry: Entry, *, root: Path, split: str) -> Mended:
        """Remove shapes that mark no object, and make size and shapes those of the upright image."""
        assert entry.mask is not None
        pixels, fault = _pixels(entry)
        if pixels is None or entry.image is None:
            return Mended(None, {fault: 1})
        try:
            file = read_labelme(entry.mask)
            content = json.loads(entry.mask.read_bytes())
        except DataError:
            return Mended(None, {"unreadable_annotations": 1})
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
        return Mended(Written(entry.id, place, {}), done)

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


def yolo_copy(path: Path, splits: Sequence[str], options: Mapping[str, str]) -> FolderCopy:
    """How the copy of some splits of a yolo set is made. Raises DataError where every line is a box."""
    labels = yolo.labels_of(path, options)
    entries: dict[str, list[Entry]] = {}
    lines = boxes = 0
    for split in splits:
        images = yolo.images_of(path, split, options)
        ids = yolo.ids_of(images)
        entries[split] = [Entry(id, image, yolo.label_file(image)) for id, image in zip(ids, images, strict=True)]
        for image in images:
            try:
                file = read_yolo(yolo.label_file(image))
            except DataError:  # the mender counts it
                continue
            lines, boxes = lines + len(file.lines), boxes + len(file.boxes)
    if boxes and not lines:
        raise DataError(f"{path}: all {boxes:,} lines are boxes; boxes alone do not say which pixels are the object's")
    return FolderCopy(entries, YoloMender(labels, yolo.class_numbers(labels, path, options)), {})


@dataclass(frozen=True)
class YoloMender:
    """Writes images/SPLIT/, labels/SPLIT/, data.yaml and labels.toml. See Mender.

    Attributes:
        labels: the classes; their ids on disk are the numbers that lines begin with.
        known: those of these numbers that lines may have.
    """

    labels: LabelSet
    known: tuple[int, ...]

    def mend(self, entry: Entry, *, root: Path, split: str) -> Mended:
        """Remove lines that mark no object, and cut polygons at the border of the image."""
        assert entry.mask is not None
        pixels, fault = _pixels(entry)
        if pixels is None or entry.image is None:
            return Mended(None, {fault: 1})
        try:
            file = read_yolo(entry.mask)
        except DataError:
            return Mended(None, {"unreadable_annotations": 1})
        texts = entry.mask.read_text(encoding="utf-8-sig").splitlines() if entry.mask.exists() else []
        done: Counter[str] = Counter()
        height, width = size = (pixels.shape[0], pixels.shape[1])
        unusable = {fault.shape for fault in faults_of_lines(file, self.known) if fault.kind != "polygon outside"}
        drawn: list[_Drawn] = []
        for line in file.lines:
            polygon = (np.asarray(line.polygon).reshape(-1, 2) * (width, height)).ravel().tolist()
            if line.place not in unusable and (found := _rasterised([polygon], size)) is not None:
                drawn.append(_Drawn((line.place,), line.class_id, False, *found))
        done["shapes"] += sum(bool(text.strip()) for text in texts) - len(drawn)
        outside = {line.place for line in file.lines if leaves_image(line)}
        kept: list[str] = []
        for one in _told_apart(drawn, done):
            text = texts[one.places[0] - 1].strip()
            if one.places[0] in outside:
                done["cut_polygons"] += 1
                text = line_of(one.kind, one.mask, one.box, size)
            kept.append(f"{text}\n")
        place, _ = write_image(root, f"images/{split}/{entry.id}", entry.image, pixels)
        target = yolo.label_file(root / place)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(kept), encoding="utf-8")
        return Mended(Written(entry.id, place, {}), done)

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> None:
        """Nothing: data.yaml names the folders."""

    def finish_set(self, root: Path) -> None:
        """Write data.yaml and labels.toml."""
        places = {folder.name: f"images/{folder.name}" for folder in sorted((root / "images").glob("*/"))}
        names = dict(zip(self.labels.native_ids, self.labels.names, strict=True))
        content = {**places, "names": {number: names[number] for number in sorted(self.known)}}
        text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
        (root / "data.yaml").write_text(text, encoding="utf-8")
        (root / "labels.toml").write_text(labels_toml(self.labels), encoding="utf-8")


def _pixels(entry: Entry) -> tuple[np.ndarray | None, str]:
    """The upright image, or why there is none."""
    if entry.image is None or not entry.image.is_file():
        return None, "missing_images"
    try:
        return read_image(entry.image).permute(1, 2, 0).contiguous().numpy(), ""
    except DataError:
        return None, "unreadable_images"


def _told_apart(drawn: Sequence[_Drawn], done: Counter[str]) -> Iterator[_Drawn]:
    """The objects without those that stand there already."""
    first_of: dict[tuple[bool, rle.Box, bytes], _Drawn] = {}
    for one in drawn:
        first = first_of.setdefault((one.crowd, one.box, np.packbits(one.mask).tobytes()), one)
        if first is not one and first.kind == one.kind:
            done["repeated_annotations"] += 1
            continue
        done["two_classes"] += first is not one
        yield one


def _rasterised(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> tuple[np.ndarray, rle.Box] | None:
    """The pixels of an object in their box, or None where it has none."""
    try:
        mask, box = rle.crop_polygons(polygons, size)
    except DataError:
        return None
    return (mask, box) if mask.size else None


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
