"""Tracking for models that run on each frame by itself: instances of two frames are matched by mask and class.

The state between two frames is a value, so that a run can be resumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from pydantic import BaseModel, Field, ValidationError
from torch import Tensor

from pixelwise.data.truth.segments import masks_of_ids, with_ids
from pixelwise.errors import DataError
from pixelwise.ops import rle
from pixelwise.ops.panoptic import thing_segment_ids
from pixelwise.types import Annotation, Masks

SAME_OBJECT = 0.3
"""Smallest IoU of masks of one class in two frames that may be one instance."""

NO_IDENTITY = -1
"""Track id of an instance that is not tracked."""

KEPT_FRAMES = 10
"""Number of frames for which an undetected instance is remembered."""


class Track(NamedTuple):
    """A track of a clip.

    Attributes:
        number: its id from 0 on, unique within the clip.
        label: its class id.
        rle: its last mask, compressed, at the size of the frame.
        box: of that mask, x1 y1 x2 y2 in pixels, x2 y2 exclusive.
        motion: x and y, pixels per frame: motion of the centre of its box between its last two detections.
        unseen: frames since its last detection, 0 if in the last one.
    """

    number: int
    label: int
    rle: Mapping[str, Any]
    box: tuple[int, int, int, int]
    motion: tuple[float, float] = (0.0, 0.0)
    unseen: int = 0


@dataclass(frozen=True)
class TrackingMemory:
    """The tracker's memory of a clip.

    It holds the instances of the last `kept_frames` + 1 frames at most, as compressed RLE.

    Attributes:
        size_hw: of the frames.
        tracks: that may be detected again.
        next_number: id of the next new track.
    """

    size_hw: tuple[int, int]
    tracks: tuple[Track, ...]
    next_number: int

    def to_json(self) -> dict[str, Any]:
        """JSON values from which `from_json` makes the same memory."""
        return {
            "size": list(self.size_hw),
            "next_number": self.next_number,
            "tracks": [
                {**one._asdict(), "rle": dict(one.rle), "box": list(one.box), "motion": list(one.motion)}
                for one in self.tracks
            ],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> TrackingMemory:
        """The inverse of `to_json`. Raises DataError where a field is missing or not what it should be."""
        try:
            stored = _StoredMemory.model_validate(content)
        except ValidationError as error:
            fault = error.errors()[0]
            place = ".".join(str(part) for part in fault["loc"])
            raise DataError(f"tracking memory: {place}: {fault['msg']}; begin the clip anew") from None
        for index, one in enumerate(stored.tracks):
            rle.crop(one.rle, size=stored.size, source=f"tracking memory: track {index}")
        return cls(stored.size, tuple(Track(**dict(one)) for one in stored.tracks), stored.next_number)


class _StoredTrack(BaseModel):
    number: int = Field(ge=0)
    label: int
    rle: dict[str, Any]
    box: tuple[int, int, int, int]
    motion: tuple[float, float]
    unseen: int = Field(ge=0)


class _StoredMemory(BaseModel):
    size: tuple[int, int]
    next_number: int = Field(ge=0)
    tracks: tuple[_StoredTrack, ...]


class _Seen(NamedTuple):
    """An instance of the frame."""

    label: int
    score: float
    rle: Mapping[str, Any]
    box: tuple[int, int, int, int]


def track(
    annotation: Annotation,
    memory: TrackingMemory | None,
    *,
    num_classes: int,
    min_score: float = 0.0,
    min_overlap: float = SAME_OBJECT,
    kept_frames: int = KEPT_FRAMES,
    follows_motion: bool = True,
) -> tuple[Annotation, TrackingMemory]:
    """Match the instances of a frame to the tracks of the frames before.

    An instance is matched to the track of its class with the largest mask IoU, at the track's last place or, with
    `follows_motion`, at its place after constant motion. Pairs are made in the order of IoU times score, so that a
    low-scoring instance takes no track from a high-scoring one. An unmatched instance begins a new track.

    Args:
        annotation: prediction for the frame, on the CPU: its segments or, without any, its instances with masks.
            Segments of stuff have ids up to `num_classes` and keep them.
        memory: what the call for the frame before returned; None begins a clip.
        num_classes: of the model's labels.
        min_score: instances with a lower score are not tracked; segments always are.
        min_overlap: smallest IoU of masks of one track.
        kept_frames: tracks without detection for more frames are forgotten.
        follows_motion: see above.

    Returns:
        the annotation with `track_ids` from 0 on (NO_IDENTITY for none), or with segment ids `num_classes` + 1 + track
        number, and the memory for the next frame.

    Raises:
        DataError: there are neither segments nor instances with masks, the frame has another size than the one before,
            or a clip has more tracks than segment ids.
    """
    panoptic, instances = annotation.panoptic, annotation.instances
    if panoptic is not None:
        is_thing = panoptic.segment_ids > num_classes
        things = masks_of_ids(panoptic.ids.numpy(), panoptic.segment_ids[is_thing].tolist())
        scores = None if panoptic.scores is None else panoptic.scores[is_thing]
        seen, size = _seen(things, panoptic.labels[is_thing], scores), things.size
        numbers, memory = _go_on(seen, size, memory, min_overlap, kept_frames, follows_motion=follows_motion)
        ids = panoptic.segment_ids.clone()
        ids[is_thing] = thing_segment_ids(torch.tensor(numbers, dtype=torch.int64), num_classes)
        return replace(annotation, panoptic=replace(panoptic, ids=with_ids(panoptic, ids), segment_ids=ids)), memory
    if instances is not None and instances.masks is not None:
        is_sure = torch.ones(len(instances), dtype=torch.bool)
        if instances.scores is not None:
            is_sure = instances.scores >= min_score
        sure = instances[is_sure]
        assert sure.masks is not None
        seen, size = _seen(sure.masks, sure.labels, sure.scores), instances.masks.size
        numbers, memory = _go_on(seen, size, memory, min_overlap, kept_frames, follows_motion=follows_motion)
        track_ids = torch.full((len(instances),), NO_IDENTITY)
        track_ids[is_sure] = torch.tensor(numbers, dtype=torch.int64)
        return replace(annotation, instances=replace(instances, track_ids=track_ids)), memory
    raise DataError("tracking compares masks of instances or segments, and the model has neither; leave --track out")


def _seen(masks: Masks, labels: Int64[Tensor, " N"], scores: Float[Tensor, " N"] | None) -> list[_Seen]:
    sure = [1.0] * len(masks) if scores is None else scores.tolist()
    boxes: list[list[int]] = masks.boxes.tolist()
    parts = zip(labels.tolist(), sure, masks.to_coco(), boxes, strict=True)
    return [_Seen(label, score, runs, (box[0], box[1], box[2], box[3])) for label, score, runs, box in parts]


def _go_on(
    seen: Sequence[_Seen],
    size_hw: tuple[int, int],
    memory: TrackingMemory | None,
    min_overlap: float,
    kept_frames: int,
    *,
    follows_motion: bool,
) -> tuple[list[int], TrackingMemory]:
    """The track id of each instance, and the memory after the frame."""
    known = memory or TrackingMemory(size_hw, (), 0)
    if known.size_hw != size_hw:
        (height, width), before = size_hw, known.size_hw
        raise DataError(
            f"a frame of {height}×{width} after one of {before[0]}×{before[1]}; the frames of a clip have one size: "
            "begin a clip with memory=None"
        )
    partners = _partners(seen, known.tracks, size_hw, min_overlap, follows_motion=follows_motion)
    numbers: list[int] = []
    tracks: list[Track] = []
    number = known.next_number
    for one, partner in zip(seen, partners, strict=True):
        if partner is None:
            numbers.append(number)
            number += 1
            before, motion = None, (0.0, 0.0)
        else:
            before = known.tracks[partner]
            numbers.append(before.number)
            motion = _motion(before, one.box)
        if one.box[0] < one.box[2]:  # an empty mask is never matched again
            tracks.append(Track(numbers[-1], one.label, one.rle, one.box, motion))
    found = set(partners)
    hidden = [one for index, one in enumerate(known.tracks) if index not in found]
    tracks += [one._replace(unseen=one.unseen + 1) for one in hidden if one.unseen < kept_frames]
    return numbers, TrackingMemory(size_hw, tuple(tracks), number)


def _partners(
    seen: Sequence[_Seen],
    tracks: Sequence[Track],
    size_hw: tuple[int, int],
    min_overlap: float,
    *,
    follows_motion: bool,
) -> list[int | None]:
    """For each instance the index of its track, or None. The best pairs are made first."""
    partners: list[int | None] = [None] * len(seen)
    if not seen or not tracks:
        return partners
    masks = [one.rle for one in seen]
    overlaps = rle.ious(masks, [one.rle for one in tracks])
    if follows_motion:
        overlaps = np.maximum(overlaps, rle.ious(masks, [_expected_mask(one, size_hw) for one in tracks]))
    same_class = np.array([one.label for one in seen])[:, None] == np.array([one.label for one in tracks])
    rows, columns = np.nonzero(same_class & (overlaps >= min_overlap))
    affinity = overlaps[rows, columns] * np.array([one.score for one in seen])[rows]
    unseen = np.array([one.unseen for one in tracks])[columns]
    taken: set[int] = set()
    for place in np.lexsort((columns, rows, unseen, -affinity)).tolist():
        row, column = int(rows[place]), int(columns[place])
        if partners[row] is None and column not in taken:
            partners[row] = column
            taken.add(column)
    return partners


def _expected_mask(one: Track, size_hw: tuple[int, int]) -> Mapping[str, Any]:
    """The last mask of a track, moved by its motion and clipped to the frame."""
    frames = one.unseen + 1
    right, down = (round(frames * pixels) for pixels in one.motion)
    if not (right or down):
        return one.rle
    height, width = size_hw
    crop, (x1, y1, _, _) = rle.crop(one.rle)
    left, top = max(0, x1 + right), max(0, y1 + down)
    inside = crop[top - y1 - down : height - y1 - down, left - x1 - right : width - x1 - right]
    if left >= width or top >= height or not inside.size:
        return rle.encode_crop(crop[:0, :0], (0, 0, 0, 0), size_hw)
    return rle.encode_crop(inside, (left, top, left + inside.shape[1], top + inside.shape[0]), size_hw)


def _motion(before: Track, box: Sequence[int]) -> tuple[float, float]:
    """Motion per frame of the centre of a box since the track's last detection."""
    frames = 2 * (before.unseen + 1)
    x1, y1, x2, y2 = (now - then for now, then in zip(box, before.box, strict=True))
    return (x1 + x2) / frames, (y1 + y2) / frames
