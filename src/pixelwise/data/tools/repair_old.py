"""The way of formats that have no listing yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pixelwise.data.formats.coco.repair import repair_json
from pixelwise.data.formats.labelme.repair import labelme_copy
from pixelwise.data.formats.yolo.repair import yolo_copy
from pixelwise.data.kinds.repair_images import FolderCopy, write_copy
from pixelwise.data.spec import DataSpec
from pixelwise.files.parallel import Progress

JSON_REPAIRS = {
    "coco": ("instances_", repair_json),
}
"""What the repaired files of a format of one JSON are called, and what writes them."""

_COPIES: Mapping[str, Callable[[Path, Sequence[str], Mapping[str, str]], FolderCopy]] = {
    "labelme": labelme_copy,
    "yolo": yolo_copy,
}
"""How the copies of formats are made that hold objects in a file for each image."""


def repair_old(
    spec: DataSpec,
    format: Any,
    path: Path,
    out: Path,
    ordered: Sequence[str],
    options: Mapping[str, str],
    *,
    workers: int,
    progress: Progress,
) -> tuple[Mapping[str, int], int, tuple[str, ...]]:
    if spec.format not in JSON_REPAIRS:
        copy = _COPIES[spec.format](path, ordered, options)
        done, images = write_copy(out, copy, name=str(spec), workers=workers, progress=progress)
        opened = DataSpec(spec.format, str(out), spec.split, tuple(copy.query.items()))
        return done, images, (str(opened),)
    done = Counter[str]()
    opens_as: list[str] = []
    seen: set[Any] = set()
    images = 0
    for split in ordered:
        prefix, repair = JSON_REPAIRS[spec.format]
        file = out if out.suffix == ".json" else out / f"{prefix}{split}.json"
        repaired = repair(path, split, options, file, seen=seen, workers=workers, progress=progress)
        done += Counter(repaired.done)
        images += repaired.images
        opens_as.append(repaired.opens_as)
    return done, images, tuple(opens_as)
