"""Repaired copies of YOLO sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from pixelwise.data.formats.yolo import reader as yolo
from pixelwise.data.formats.yolo.layout import LabelFiles, ids_of, label_place
from pixelwise.data.formats.yolo.text import Line, leaves_image, read_yolo
from pixelwise.data.formats.yolo.text import all_faults as faults_of_lines
from pixelwise.data.formats.yolo.writer import line_of
from pixelwise.data.kinds.folders import Entry, labels_toml
from pixelwise.data.kinds.object_lists_repair import _Drawn, _pixels, _rasterised, _told_apart
from pixelwise.data.kinds.repair_images import FolderCopy, Repaired
from pixelwise.data.kinds.writing import Written, write_image
from pixelwise.errors import DataError
from pixelwise.files.text import read_lines
from pixelwise.labels import LabelSet


def yolo_copy(path: Path, splits: Sequence[str], options: Mapping[str, str]) -> FolderCopy:
    """How the copy of some splits of a yolo set is made. Raises DataError where every line is a box."""
    labels = yolo.labels_of(path, options)
    entries: dict[str, list[Entry]] = {}
    finder = LabelFiles()
    lines = boxes = 0
    for split in splits:
        images = yolo.images_of(path, split, options)
        files = [finder.of(image) or finder.misnamed(image) or label_place(image) for image in images]
        named = zip(ids_of(images), images, files, strict=True)
        entries[split] = [Entry(id, image, file) for id, image, file in named]
        for label_file in files:
            try:
                file = read_yolo(label_file)
            except DataError:  # the repairer counts it
                continue
            lines, boxes = lines + len(file.lines), boxes + len(file.boxes)
    if boxes and not lines:
        raise DataError(f"{path}: all {boxes:,} lines are boxes; boxes alone do not say which pixels are the object's")
    return FolderCopy(entries, YoloRepairer(labels, yolo.class_numbers(labels, path, options)), {})


@dataclass(frozen=True)
class YoloRepairer:
    """Writes images/SPLIT/, labels/SPLIT/, data.yaml and labels.toml. See Repairer.

    Attributes:
        labels: the classes; their ids on disk are the numbers that lines begin with.
        known: those of these numbers that lines may have.
    """

    labels: LabelSet
    known: tuple[int, ...]

    def repair(self, entry: Entry, *, root: Path, split: str) -> Repaired:
        """Remove lines that mark no object, and cut polygons at the border of the image."""
        assert entry.mask is not None
        pixels, fault = _pixels(entry)
        if pixels is None or entry.image is None:
            return Repaired(None, {fault: 1})
        try:
            file = read_yolo(entry.mask)
        except DataError:
            return Repaired(None, {"unreadable_annotations": 1})
        texts = read_lines(entry.mask) if entry.mask.exists() else []
        done: Counter[str] = Counter()
        size = (pixels.shape[0], pixels.shape[1])
        unusable = {fault.shape for fault in faults_of_lines(file, self.known) if fault.kind != "polygon outside"}
        drawn: list[_Drawn] = []
        for line in file.lines:
            if line.place not in unusable and (found := _rasterised([_in_pixels(line, size)], size)) is not None:
                drawn.append(_Drawn((line.place,), line.class_id, False, *found))
        first = {(box.class_id, *box.polygon): box for box in reversed(file.boxes) if box.class_id in self.known}
        boxes = {box.place for box in first.values() if _rasterised([_in_pixels(box, size)], size) is not None}
        done["boxes_alone"] += len(boxes)
        done["repeated_annotations"] += sum(box.class_id in self.known for box in file.boxes) - len(first)
        done["shapes"] += sum(bool(text.strip()) for text in texts) - len(drawn) - len(boxes)
        done["shapes"] -= sum(box.class_id in self.known for box in file.boxes) - len(first)
        outside = {line.place for line in file.lines if leaves_image(line)}
        kept = {place: texts[place - 1].strip() for place in boxes}
        for one in _told_apart(drawn, done):
            text = texts[one.places[0] - 1].strip()
            if one.places[0] in outside:
                done["cut_polygons"] += 1
                text = line_of(one.kind, one.mask, one.box, size)
            kept[one.places[0]] = text
        place, _ = write_image(root, f"images/{split}/{entry.id}", entry.image, pixels)
        target = label_place(root / place)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(f"{kept[number]}\n" for number in sorted(kept)), encoding="utf-8")
        return Repaired(Written(entry.id, place, {}), done)

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> None:
        """Nothing: data.yaml names the folders."""

    def finish_set(self, root: Path) -> None:
        """Write data.yaml and labels.toml."""
        places = {folder.name: f"images/{folder.name}" for folder in sorted((root / "images").glob("*/"))}
        names = dict(zip(self.labels.dataset_ids, self.labels.names, strict=True))
        content = {**places, "names": {number: names[number] for number in sorted(self.known)}}
        text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
        (root / "data.yaml").write_text(text, encoding="utf-8")
        (root / "labels.toml").write_text(labels_toml(self.labels), encoding="utf-8")


def _in_pixels(line: Line, size: tuple[int, int]) -> list[float]:
    """The corners of a line in an image of that height and width."""
    return (np.asarray(line.polygon).reshape(-1, 2) * (size[1], size[0])).ravel().tolist()
