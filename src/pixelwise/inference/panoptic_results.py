"""Segments of many images as COCO's panoptic results: a JSON, and a PNG of ids for each in the folder of its name.

`evaluate --predictions` reads them again, and so does panopticapi.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pixelwise.data.panoptic_maps import box_of
from pixelwise.data.segments import regions_of_ids
from pixelwise.errors import DataError
from pixelwise.inference.coco_results import CocoResults, coco_image_ids, panoptic_categories
from pixelwise.inference.scene import segment_picture
from pixelwise.labels import LabelSet
from pixelwise.types import Panoptic


class PanopticResults:
    """The results, written image by image; the JSON is there whole, once it is closed, or not at all.

    Args:
        json: the file; the PNGs lie in the folder of its name without suffix, under the ids of the images.
        ids: of all images that may come.
        labels: whose ids on disk are the category ids.

    Raises:
        DataError: the place cannot be written; so may every method.
    """

    def __init__(self, json: Path, ids: Sequence[str], labels: LabelSet) -> None:
        self.maps, self.labels = json.with_suffix(""), labels
        self._image_ids = coco_image_ids(ids)
        self._names = _file_names(ids)
        try:
            self._results = CocoResults(json, categories=panoptic_categories(labels))
        except OSError as error:
            raise _unwritable(json, error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: Any) -> None:
        try:
            self._results.__exit__(*raised)
        except OSError as error:
            raise _unwritable(self._results.path, error) from None

    def add(self, id: str, panoptic: Panoptic) -> None:
        """Write the segments of one image that have pixels. Raises DataError for ids that 24 bits do not hold."""
        panoptic = panoptic.to("cpu")
        path = self.maps / self._names[id]
        try:
            picture = segment_picture(panoptic)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
            entry = {"image_id": self._image_ids[id], "file_name": self._names[id]}
            self._results.add([{**entry, "segments_info": self._infos(panoptic)}])
        except OSError as error:
            raise _unwritable(path, error) from None

    def _infos(self, panoptic: Panoptic) -> list[dict[str, Any]]:
        regions = regions_of_ids(panoptic.ids.numpy())
        place = {id: number for number, id in enumerate(regions.ids.tolist())}
        scores = [None] * len(panoptic) if panoptic.scores is None else panoptic.scores.tolist()
        infos: list[dict[str, Any]] = []
        for id, label, score in zip(panoptic.segment_ids.tolist(), panoptic.labels.tolist(), scores, strict=True):
            if id not in place:
                continue
            number = place[id]
            info: dict[str, Any] = {"id": id, "category_id": self.labels.native_ids[label], "iscrowd": 0}
            info |= {"area": int(regions.areas[number]), "bbox": box_of(regions.boxes[number])}
            infos.append(info if score is None else {**info, "score": round(score, 5)})
        return infos


def _file_names(ids: Sequence[str]) -> dict[str, str]:
    """The PNG of each image, below the folder: its id with the folders in it, and a number where two would be one."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for id in ids:
        stem = "/".join(part for part in id.split("/") if part not in ("", ".", "..")) or "image"
        name, number = stem, 1
        while name.lower() in taken:
            name = f"{stem}_{(number := number + 1)}"
        taken.add(name.lower())
        names[id] = f"{name}.png"
    return names


def _unwritable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be written ({error.strerror or error}); free some room or choose another --out")
