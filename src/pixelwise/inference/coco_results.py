"""COCO's results JSON: one entry for each object that was found, as pycocotools and every COCO server read it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pixelwise.labels import LabelSet

COCO_RESULTS_NAME = "coco_results.json"


def coco_image_id(name: str) -> int | str:
    """The id that COCO gives an image: the number that its file is named after, or else the name itself."""
    stem = Path(name).stem
    return int(stem) if stem.isascii() and stem.isdecimal() and len(stem) <= 15 else name


def coco_entry(
    image: str,
    label: int,
    box_xywh: Sequence[float],
    score: float,
    rle: Mapping[str, Any] | None,
    *,
    labels: LabelSet,
) -> dict[str, Any]:
    """One object.

    Args:
        image: id or file of the image.
        label: class id.
        box_xywh: x y width height, pixels.
        score: in [0, 1].
        rle: its mask, compressed; None where there is no mask.
        labels: whose ids on disk are the category ids.
    """
    entry: dict[str, Any] = {"image_id": coco_image_id(image), "category_id": labels.native_ids[label]}
    entry |= {"bbox": [round(value, 2) for value in box_xywh], "score": round(score, 5)}
    return entry if rle is None else {**entry, "segmentation": dict(rle)}


def entries_of_record(record: Mapping[str, Any], labels: LabelSet) -> Iterable[dict[str, Any]]:
    """The objects of a line of `results.jsonl`."""
    for segment in record["segments"]:
        x1, y1, x2, y2 = segment["box"]
        box = (x1, y1, x2 - x1, y2 - y1)
        yield coco_entry(record["image"], segment["label"], box, segment["score"], segment["rle"], labels=labels)


def write_coco_results(path: Path, entries: Iterable[Mapping[str, Any]]) -> None:
    """Write the entries one by one, so that few are held; the file is there whole or not at all.

    Raises:
        OSError: the place cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            separator = "["
            for entry in entries:
                file.write(f"{separator}{json.dumps(entry)}")
                separator = ",\n"
            file.write("[]\n" if separator == "[" else "]\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
