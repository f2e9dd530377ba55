"""COCO's results JSON: one entry for each object that was found, as pycocotools and every COCO server read it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pixelwise.labels import LabelSet
from pixelwise.types import Instances

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


def entries_of_instances(image: str, instances: Instances, labels: LabelSet) -> Iterator[dict[str, Any]]:
    """The objects that were found in an image, by its id or its file."""
    instances = instances.to("cpu")
    runs = [None] * len(instances) if instances.masks is None else instances.masks.to_coco()
    for index, label in enumerate(instances.labels.tolist()):
        x1, y1, x2, y2 = instances.boxes[index].double().tolist()
        score = 1.0 if instances.scores is None else float(instances.scores[index])
        yield coco_entry(image, label, (x1, y1, x2 - x1, y2 - y1), score, runs[index], labels=labels)


def entries_of_record(record: Mapping[str, Any], labels: LabelSet) -> Iterator[dict[str, Any]]:
    """The objects of a line of `results.jsonl`."""
    for segment in record["segments"]:
        x1, y1, x2, y2 = segment["box"]
        box = (x1, y1, x2 - x1, y2 - y1)
        yield coco_entry(record["image"], segment["label"], box, segment["score"], segment["rle"], labels=labels)


class CocoResults:
    """The file, written entry by entry, so that few are held; it is there whole, once it is closed, or not at all.

    Args:
        path: of the file.

    Raises:
        OSError: the place cannot be written; so may every method.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._temporary = path.with_name(f".{path.name}.tmp")
        self._file = self._temporary.open("w", encoding="utf-8")
        self._separator = "["

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._file.write("[]\n" if self._separator == "[" else "]\n")
        self._file.close()
        if kind is None:
            os.replace(self._temporary, self.path)
        else:
            self._temporary.unlink(missing_ok=True)

    def add(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Write so many more."""
        for entry in entries:
            self._file.write(f"{self._separator}{json.dumps(entry)}")
            self._separator = ",\n"
