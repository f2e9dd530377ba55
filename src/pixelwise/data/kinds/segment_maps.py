"""The two ways in which a PNG holds the segments of an image.

COCO's: id = R + 256·G + 65536·B, 0 = void; what an id is, a list beside the PNG says. With 2 channels (Kirillov et al.,
CVPR 2019, section 3): R is the id of the class on disk, G the number of the object, counted from 0 within its class and
image as in the samples of panopticapi; stuff has the number 0, and `CROWD` is a region of many objects.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int32, UInt8
from PIL import Image

from pixelwise.data.kinds.coco_json import is_finite
from pixelwise.data.listing import Fault
from pixelwise.data.truth.segments import IdRegions, panoptic_of, regions_of_ids, with_ids
from pixelwise.errors import DataError
from pixelwise.files.images import read_channels
from pixelwise.labels import LabelSet
from pixelwise.ops.panoptic import ids_to_rgb, rgb_to_ids
from pixelwise.types import Panoptic

CROWD = 255
"""The number, in 2 channels, of a region of many objects."""


class Channels(NamedTuple):
    """A file of 2 channels.

    Attributes:
        ids: i32 [H, W], 256 · (class on disk + 1) + number, in void too.
        regions: of these ids.
        dataset_ids: the class on disk of each region.
        numbers: the number of each region.
    """

    ids: Int32[np.ndarray, "H W"]
    regions: IdRegions
    dataset_ids: np.ndarray
    numbers: np.ndarray


def read_segment_ids(path: Path) -> Int32[np.ndarray, "H W"]:
    """The ids of a PNG of COCO's. Raises DataError for a file that is unreadable or has not three channels."""
    return rgb_to_ids(read_channels(path))


def read_two_channels(path: Path) -> Channels:
    """A PNG of 2 channels. Raises DataError for a file that is unreadable or has not three channels."""
    channels = read_channels(path)
    ids = ((channels[..., 0].astype(np.int32) + 1) << 8) + channels[..., 1]
    regions = regions_of_ids(ids)
    return Channels(ids, regions, (regions.ids >> 8) - 1, regions.ids & 255)


def segments_of_channels(channels: Channels, labels: LabelSet, *, source: Path) -> Panoptic:
    """The segments of a file of 2 channels; void is what is void in the label set.

    Raises DataError, beginning with `source`, for a class that is in neither.
    """
    class_of = {dataset_id: index for index, dataset_id in enumerate(labels.dataset_ids)}
    found: list[tuple[int, int, bool]] = []
    void: list[int] = []
    for id, dataset_id, number in zip(channels.regions.ids, channels.dataset_ids, channels.numbers, strict=True):
        class_id = class_of.get(int(dataset_id))
        if class_id is not None:
            found.append((int(id), class_id, bool(labels.is_thing[class_id] and number == CROWD)))
        elif int(dataset_id) in labels.void_ids:
            void.append(int(id))
        else:
            raise DataError(
                f"{source}: class {dataset_id} of channel 1 is not in '{labels.name}' ({labels.describe_ids()}); "
                "pixelwise data check lists all such faults"
            )
    ids = np.where(np.isin(channels.ids, void), 0, channels.ids) if void else channels.ids
    return panoptic_of(ids, *zip(*found, strict=True)) if found else panoptic_of(ids, (), (), ())


class Listed(NamedTuple):
    """A segment as the list beside a PNG has it; `area` and `bbox` are None where it says nothing of them."""

    id: int
    area: Any = None
    bbox: Any = None


def listing_faults(
    regions: IdRegions, segments: Iterable[Listed], *, source: str, named: Collection[int] = ()
) -> Iterator[Fault]:
    """What is wrong between a PNG and the list of its segments.

    Args:
        regions: of the PNG's ids.
        segments: of the list, with ids that differ.
        source: the PNG, for the faults.
        named: further ids that stand in the list, of segments that are wrong in another way.
    """
    place = {id: number for number, id in enumerate(regions.ids.tolist())}
    segments = [*segments]
    for id in place.keys() - {0, *named, *(one.id for one in segments)}:
        text = f"{regions.areas[place[id]]:,} pixels have this id, the list no such segment"
        yield Fault("id without segment", f"{source}: id {id}", text)
    for one in segments:
        where, number = f"{source}: segment {one.id}", place.get(one.id)
        if number is None:
            yield Fault("segment without pixels", where, "no pixel of the PNG has its id")
            continue
        area, box = int(regions.areas[number]), box_of(regions.boxes[number])
        if one.area is not None and one.area != area:
            yield Fault("wrong area", where, f"{one.area} by the list, {area:,} pixels in the PNG")
        if one.bbox is not None and is_other_box(one.bbox, box):
            yield Fault("wrong box", where, f"{one.bbox} (x,y,width,height) by the list, {box} in the PNG")


def box_of(region: np.ndarray) -> list[int]:
    """x, y, width, height of a box x1 y1 x2 y2."""
    x1, y1, x2, y2 = region.tolist()
    return [x1, y1, x2 - x1, y2 - y1]


def segment_infos(panoptic: Panoptic, labels: LabelSet) -> Iterator[dict[str, Any]]:
    """The segments that have pixels, as a JSON of COCO's family lists them, with scores where there are."""
    regions = regions_of_ids(panoptic.ids.numpy())
    place = {id: number for number, id in enumerate(regions.ids.tolist())}
    scores = [None] * len(panoptic) if panoptic.scores is None else panoptic.scores.tolist()
    columns = (panoptic.segment_ids.tolist(), panoptic.labels.tolist(), panoptic.crowd.tolist(), scores)
    for id, class_id, crowd, score in zip(*columns, strict=True):
        if id in place:
            area, box = int(regions.areas[place[id]]), box_of(regions.boxes[place[id]])
            info = {"id": id, "category_id": labels.dataset_ids[class_id], "iscrowd": int(crowd)}
            info |= {"area": area, "bbox": box}
            yield info if score is None else {**info, "score": score}


def is_other_box(stated: Any, box: Sequence[int]) -> bool:
    """Whether a stated box is no box, or more than a pixel off, which tools that count pixels otherwise are."""
    if not isinstance(stated, list) or len(stated) != 4 or not all(map(is_finite, stated)):
        return True
    return max(abs(one - two) for one, two in zip(stated, box, strict=True)) > 1


def write_segment_ids(path: Path, ids: Int32[np.ndarray, "H W"]) -> None:
    """Write a PNG of COCO's. Raises DataError for an id that 24 bits do not hold."""
    Image.fromarray(ids_to_rgb(ids)).save(path)


def two_channels(panoptic: Panoptic, labels: LabelSet) -> tuple[UInt8[np.ndarray, "H W 3"], dict[str, int]]:
    """The three channels of a file of 2, and what it cannot hold, by the keys of `conversion.LOSSES`.

    Raises:
        DataError: a class whose id on disk 8 bits do not hold, or more objects of a class than there are numbers.
    """
    values = np.zeros((len(panoptic) + 1, 3), dtype=np.uint8)
    void = next((id for id in labels.void_ids if 0 <= id <= 255), None)
    if void is None:
        raise DataError(f"label set '{labels.name}': no void id from 0 to 255, which 2 channels need")
    values[0, 0] = void
    counted: dict[int, int] = {}
    whole: set[tuple[int, int]] = set()
    joined = 0
    order = panoptic.segment_ids.argsort()
    seen = panoptic.areas() > 0
    for place in order[seen[order]].tolist():
        class_id = int(panoptic.labels[place])
        dataset_id, name = labels.dataset_ids[class_id], labels.names[class_id]
        if not 0 <= dataset_id <= 255:
            raise DataError(f"class '{name}' has the id {dataset_id} on disk; 2 channels hold 0 to 255")
        if not labels.is_thing[class_id] or panoptic.crowd[place]:
            number = CROWD if labels.is_thing[class_id] else 0
            joined += (dataset_id, number) in whole
        else:
            number = counted[class_id] = counted.get(class_id, -1) + 1
            if number == CROWD:
                raise DataError(f"more than {CROWD} objects of class '{name}' in one image; 2 channels hold no more")
        whole.add((dataset_id, number))
        values[place + 1, :2] = dataset_id, number
    places = with_ids(panoptic, torch.arange(1, len(panoptic) + 1, dtype=torch.int32))  # 0 is void, the first value
    return values[places.numpy()], {"joined_segments": joined, "renumbered_segments": int(seen.sum())}
