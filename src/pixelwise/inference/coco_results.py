"""COCO's results JSON, as pycocotools, panopticapi and every COCO server read them.

Of objects there is one entry for each that was found; of segments one for each image, beside the PNG that shows them.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pixelwise.data.panoptic_json import panoptic_categories as panoptic_categories
from pixelwise.labels import LabelSet
from pixelwise.types import Instances

COCO_RESULTS_NAME = "coco_results.json"
PANOPTIC_RESULTS_NAME = "panoptic_results.json"


def coco_image_id(name: str) -> int | str:
    """The id that COCO gives an image: the number that its file is named after, or else the name itself."""
    stem = Path(name).stem
    return int(stem) if stem.isascii() and stem.isdecimal() and len(stem) <= 15 else name


def coco_image_ids(names: Iterable[str]) -> dict[str, int | str]:
    """The ids of the images of one run: as `coco_image_id`, but the name itself of those that would share a number."""
    ids = {name: coco_image_id(name) for name in names}
    times = Counter(ids.values())
    return {name: id if times[id] == 1 else name for name, id in ids.items()}


def coco_entry(
    image_id: int | str,
    label: int,
    box_xywh: Sequence[float],
    score: float,
    rle: Mapping[str, Any] | None,
    *,
    labels: LabelSet,
) -> dict[str, Any]:
    """One object.

    Args:
        image_id: of the image, see `coco_image_ids`.
        label: class id.
        box_xywh: x y width height, pixels.
        score: in [0, 1].
        rle: its mask, compressed; None where there is no mask.
        labels: whose ids on disk are the category ids.
    """
    entry: dict[str, Any] = {"image_id": image_id, "category_id": labels.native_ids[label]}
    entry |= {"bbox": [round(value, 2) for value in box_xywh], "score": round(score, 5)}
    return entry if rle is None else {**entry, "segmentation": dict(rle)}


def entries_of_instances(image_id: int | str, instances: Instances, labels: LabelSet) -> Iterator[dict[str, Any]]:
    """The objects that were found in an image."""
    instances = instances.to("cpu")
    runs = [None] * len(instances) if instances.masks is None else instances.masks.to_coco()
    for index, label in enumerate(instances.labels.tolist()):
        x1, y1, x2, y2 = instances.boxes[index].double().tolist()
        score = 1.0 if instances.scores is None else float(instances.scores[index])
        yield coco_entry(image_id, label, (x1, y1, x2 - x1, y2 - y1), score, runs[index], labels=labels)


def entries_of_record(record: Mapping[str, Any], labels: LabelSet, *, image_id: int | str) -> Iterator[dict[str, Any]]:
    """The objects of a line of `results.jsonl`."""
    for segment in record["segments"]:
        x1, y1, x2, y2 = segment["box"]
        box = (x1, y1, x2 - x1, y2 - y1)
        yield coco_entry(image_id, segment["label"], box, segment["score"], segment["rle"], labels=labels)


def panoptic_entry_of_record(
    record: Mapping[str, Any], picture: str, labels: LabelSet, *, image_id: int | str
) -> dict[str, Any]:
    """The segments of a line of `results.jsonl`.

    Args:
        record: the line.
        picture: the PNG with their ids, relative to the folder of the results.
        labels: whose ids on disk are the category ids.
        image_id: of the image.
    """
    segments: list[dict[str, Any]] = []
    for segment in record["segments"]:
        x1, y1, x2, y2 = segment["box"]
        info: dict[str, Any] = {"id": segment["id"], "category_id": labels.native_ids[segment["label"]]}
        info |= {"area": segment["area"], "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0}
        segments.append(info if segment["score"] is None else {**info, "score": segment["score"]})
    return {"image_id": image_id, "file_name": picture, "segments_info": segments}


class CocoResults:
    """The file, written entry by entry, so that few are held; it is there whole, once it is closed, or not at all.

    Args:
        path: of the file.
        categories: of panoptic results, which are an object with the list as its `annotations`.

    Raises:
        OSError: the place cannot be written; so may every method.
    """

    def __init__(self, path: Path, *, categories: Sequence[Mapping[str, Any]] | None = None) -> None:
        self.path = path
        head = "" if categories is None else f'{{"categories": {json.dumps(list(categories))},\n"annotations": '
        self._opening, self._closing = f"{head}[", "]\n" if categories is None else "]}\n"
        self._temporary = path.with_name(f".{path.name}.tmp")
        self._file = self._temporary.open("w", encoding="utf-8")
        self._separator = self._opening

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._file.write(f"{self._opening if self._separator == self._opening else ''}{self._closing}")
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
