"""Repaired copies of YOLO sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixelwise.data.formats.yolo.layout import LabelFiles, label_place
from pixelwise.data.formats.yolo.text import Line, leaves_unit_square, read_yolo
from pixelwise.data.formats.yolo.text import all_faults as faults_of_lines
from pixelwise.data.formats.yolo.writer import line_of, write_label_files
from pixelwise.data.kinds.object_lists_repair import Drawn, rasterised, told_apart
from pixelwise.data.kinds.repairing import read_upright
from pixelwise.data.kinds.writing import write_image
from pixelwise.data.listing import Item, Repair, Repaired, Repairer, UnusableError, Written
from pixelwise.errors import DataError
from pixelwise.files.text import read_lines
from pixelwise.labels import LabelSet


def repair_of(items: Sequence[Item], labels: LabelSet, known: tuple[int, ...], lonely: int) -> Repair:
    """How the copy of a split is made, which has `lonely` label files without image.

    Raises DataError where every line is a box.
    """
    finder = LabelFiles()
    entries: list[Item] = []
    lines = boxes = renamed = 0
    for item in items:
        assert item.image is not None
        file = item.truth if item.truth and item.truth.is_file() else finder.misnamed(item.image) or item.truth
        entries.append(item._replace(truth=file))
        renamed += file is not None and file != item.truth
        try:
            content = read_yolo(file) if file is not None else None
        except DataError:  # the repairer counts it
            continue
        if content is not None:
            lines, boxes = lines + len(content.lines), boxes + len(content.boxes)
    if boxes and not lines:
        raise DataError(
            f"{items[0].truth}: all {boxes:,} lines are boxes; boxes alone do not say which pixels are the object's"
        )
    return Repair(entries, YoloRepairer(labels, known), {"label_names": renamed, "lonely_labels": lonely})


@dataclass(frozen=True)
class YoloRepairer(Repairer):
    """Writes images/SPLIT/, labels/SPLIT/, data.yaml and labels.toml. See Repairer.

    Attributes:
        labels: the classes; their ids on disk are the numbers that lines begin with.
        known: those of these numbers that lines may have.
    """

    labels: LabelSet
    known: tuple[int, ...]

    def repair(self, item: Item, *, root: Path, split: str, id: str) -> Repaired:
        """Remove lines that mark no object, and cut polygons at the border of the image. See Repairer."""
        assert item.image is not None
        assert item.truth is not None
        pixels, _ = read_upright(item, needs_truth=False)
        try:
            file = read_yolo(item.truth)
        except DataError as error:
            raise UnusableError("unreadable_annotations", str(error)) from None
        texts = read_lines(item.truth) if item.truth.exists() else []
        done: Counter[str] = Counter()
        size = (pixels.shape[0], pixels.shape[1])
        unusable = {fault.shape for fault in faults_of_lines(file, self.known) if fault.kind != "polygon outside"}
        drawn: list[Drawn] = []
        for line in file.lines:
            if line.place not in unusable and (found := rasterised([_in_pixels(line, size)], size)) is not None:
                drawn.append(Drawn((line.place,), line.class_id, False, *found))
        first = {(box.class_id, *box.polygon): box for box in reversed(file.boxes) if box.class_id in self.known}
        boxes = {box.place for box in first.values() if rasterised([_in_pixels(box, size)], size) is not None}
        done["boxes_alone"] += len(boxes)
        done["repeated_annotations"] += sum(box.class_id in self.known for box in file.boxes) - len(first)
        done["shapes"] += sum(bool(text.strip()) for text in texts) - len(drawn) - len(boxes)
        done["shapes"] -= sum(box.class_id in self.known for box in file.boxes) - len(first)
        outside = {line.place for line in file.lines if leaves_unit_square(line)}
        kept = {place: texts[place - 1].strip() for place in boxes}
        for one in told_apart(drawn, done):
            text = texts[one.places[0] - 1].strip()
            if one.places[0] in outside:
                done["cut_polygons"] += 1
                text = line_of(one.kind, one.mask, one.box, size)
            kept[one.places[0]] = text
        place, _ = write_image(root, f"images/{split}/{id}", item.image, pixels)
        target = label_place(root / place)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(f"{kept[number]}\n" for number in sorted(kept)), encoding="utf-8")
        return Repaired(Written(id, place), done)

    def finish_set(self, root: Path) -> None:
        """Write data.yaml and labels.toml."""
        write_label_files(root, self.labels, self.known)


def _in_pixels(line: Line, size: tuple[int, int]) -> list[float]:
    """The corners of a line in an image of that height and width."""
    return (np.asarray(line.polygon).reshape(-1, 2) * (size[1], size[0])).ravel().tolist()
