"""Video panoptic quality (VPQ) and STQ.

The frames of a window of a clip are taken as one image in which a segment is a tube: all pixels of its id. Tubes match
as segments do in PQ. The window slides over the clip by one labelled frame; counts are pooled over the windows of all
clips, PQ is averaged over classes, and VPQ is the mean over windows of several lengths.

The length of a window is given by k, the number of frames of the video between its first and its last frame. In
Cityscapes-VPS every fifth frame is labelled, so that k = 0, 5, 10, 15 are windows of 1, 2, 3 and 4 labelled frames.
Windows consist of labelled frames alone. A clip with fewer frames than a window has no window of that length.

Source: Kim et al., "Video Panoptic Segmentation", CVPR 2020, section 4, and the code of its authors. As there, the
class of a tube is that of its id in the first frame of the window that has it. Their code changes the stored areas of
frames while it adds them up, and later windows use them again; here areas are counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pixelwise.errors import DataError, RecipeError
from pixelwise.labels import LabelSet
from pixelwise.metrics.panoptic_quality import (
    ClassCounts,
    ImageSegments,
    SegmentOverlaps,
    class_counts,
    class_quality,
    pooled,
    qualities,
    segment_overlaps,
)
from pixelwise.metrics.per_image import PerImage, Place, mean, stored
from pixelwise.metrics.segmentation_tracking_quality import segmentation_tracking_quality
from pixelwise.types import Annotation

DEFINITIONS: dict[str, str] = {
    "video-panoptic": "VPQ: PQ of tubes over windows of 1 to 4 labelled frames (k = 0, 5, 10, 15 where every fifth "
    "frame is labelled), and its mean; STQ = √(AQ · SQ), AQ the quality of tracks, whatever their class, SQ the "
    "mean IoU",
}
"""One line for each definition, shown beside the numbers."""

SPACING = 5
"""Frames of the video from one labelled frame to the next, in Cityscapes-VPS."""


def ks_of(windows: Sequence[int]) -> tuple[int, ...]:
    """The k of windows, given in labelled frames. Raises RecipeError for a window without a frame."""
    if not windows or min(windows) < 1:
        raise RecipeError(f"windows {list(windows)}: expected numbers of labelled frames, at least 1 each")
    return tuple((length - 1) * SPACING for length in windows)


class FrameSegments(NamedTuple):
    """The stored data of a frame.

    Attributes:
        clip: its clip; a single image is a clip of its own.
        frame: its index in the clip.
        overlaps: shared pixels of its segments.
    """

    clip: str
    frame: int
    overlaps: SegmentOverlaps

    @property
    def alone(self) -> ImageSegments:
        """The counts of the frame alone."""
        return ImageSegments(class_counts(self.overlaps))

    @property
    def badness(self) -> tuple[bool, float, float]:
        """Sort key: worst frame first, by its own PQ; one with nothing to evaluate comes last."""
        return self.alone.badness

    def caption(self) -> str:
        """Caption in a sheet of images."""
        return self.alone.caption()

    def row(self) -> dict[str, Any]:
        """Fields in `images.jsonl`."""
        return self.alone.row()


class VideoPanopticQuality(PerImage[FrameSegments]):
    """Stores the joint histogram of each frame, not its pixels; windows are made in `compute`.

    Frames may come in any order, clips mixed.

    Args:
        labels: the classes.
        definition: `video-panoptic`.
        k: the lengths of windows, in frames of the video.
        spacing: frames of the video from one labelled frame to the next.

    Raises:
        RecipeError: an unknown definition, or a k that is no multiple of the spacing.
    """

    definitions = DEFINITIONS
    order = "windows need"

    def __init__(
        self,
        labels: LabelSet,
        definition: str = "video-panoptic",
        *,
        k: Sequence[int] = (0, 5, 10, 15),
        spacing: int = SPACING,
    ) -> None:
        super().__init__(labels, definition)
        if spacing < 1 or not k or any(length < 0 or length % spacing for length in k):
            raise RecipeError(f"k {list(k)}: expected multiples of the spacing of labelled frames, {spacing}")
        self.k = tuple(dict.fromkeys(k))
        self.spacing = spacing

    def compare(self, predicted: Annotation, truth: Annotation, at: Place) -> FrameSegments:
        """Count the shared pixels of one frame's segments. See PerImage."""
        overlaps = segment_overlaps(predicted, truth, self.labels, id=at.key)
        return FrameSegments(at.key if at.clip is None else at.clip, at.frame, overlaps)

    def merge(self, other: Any) -> None:
        """Add the frames of another one.

        Raises DataError for a frame in both, other classes, or other windows.
        """
        if (self.k, self.spacing) != (other.k, other.spacing):
            raise DataError(
                f"one part has windows of k = {list(self.k)} with labels every {self.spacing} frames, another of "
                f"k = {list(other.k)} every {other.spacing}"
            )
        super().merge(other)

    def state(self) -> dict[str, Any]:
        """The frames as lists and numbers that JSON keeps exactly; `from_state` restores them."""
        return {
            "k": list(self.k),
            "spacing": self.spacing,
            "images": {
                id: [one.clip, one.frame, *(table.tolist() for table in one.overlaps)]
                for id, one in self.images.items()
            },
        }

    @classmethod
    def from_state(cls, labels: LabelSet, definition: str, state: Mapping[str, Any]) -> VideoPanopticQuality:
        """Restore a metric from its state. Raises DataError for an impossible state."""
        k, spacing = stored(list[int], state, "k"), stored(int, state, "spacing")
        metric = cls(labels, definition, k=k, spacing=spacing)
        for id, (clip, frame, *rows) in stored(dict[str, _Frame], state, "images").items():
            tables = [
                np.array(table, dtype=np.int64).reshape(-1, width) for table, width in zip(rows, (3, 3, 2), strict=True)
            ]
            overlaps = SegmentOverlaps(*tables)
            _require_sound(overlaps, len(labels), name=f"state.images.{id}")
            metric.images[id] = FrameSegments(clip, frame, overlaps)
        return metric

    def compute(self) -> dict[str, Any]:
        """`vpq`, `vpq_k0`, `vpq_k5` …, the same with `_things` and `_stuff`, `stq`, `stq_sq`, `aq`, and `per_class`.

        Fractions of 1; None where there is nothing to evaluate: a k for which all clips are too short does not count in
        the mean. `stq_sq` is the mean IoU, not the SQ of PQ. `per_class` has `vpq`, `vpq_k0` … and `iou`.
        """
        clips = self._clips()
        per_class: dict[str, dict[str, Any]] = {name: {"vpq": None} for name in self.labels.names}
        found: dict[str, dict[str, float | None]] = {}
        for k in self.k:
            counts = pooled(
                one
                for frames in clips
                for window in _windows(frames, k // self.spacing + 1)
                for one in class_counts(window)
            )
            found[f"vpq_k{k}"] = qualities(counts, self.labels)
            for label, name in enumerate(self.labels.names):
                one = counts.get(label, ClassCounts(label, 0, 0, 0, 0.0))
                per_class[name][f"vpq_k{k}"] = class_quality(one).pq
        for values in per_class.values():
            values["vpq"] = mean(values[f"vpq_k{k}"] for k in self.k)
        means: dict[str, Any] = {}
        for group in ("", "_things", "_stuff"):
            means[f"vpq{group}"] = mean(one[f"pq{group}"] for one in found.values())
        means |= {f"{name}{group}": found[name][f"pq{group}"] for group in ("", "_things", "_stuff") for name in found}
        tracking = segmentation_tracking_quality(clips, self.labels)
        means |= {"stq": tracking.stq, "stq_sq": tracking.sq, "aq": tracking.aq}
        for name, iou in zip(self.labels.names, tracking.ious, strict=True):
            per_class[name]["iou"] = iou
        return {**means, "per_class": per_class}

    def _clips(self) -> list[list[SegmentOverlaps]]:
        """The frames of each clip in their order."""
        clips: dict[str, list[tuple[int, str]]] = {}
        for id, one in self.images.items():
            clips.setdefault(one.clip, []).append((one.frame, id))
        return [[self.images[id].overlaps for _, id in sorted(frames)] for _, frames in sorted(clips.items())]


def _windows(frames: Sequence[SegmentOverlaps], length: int) -> Iterator[SegmentOverlaps]:
    """Each window of `length` successive frames, joined."""
    for start in range(len(frames) - length + 1):
        window = frames[start : start + length]
        yield window[0] if length == 1 else _joined(window)


def _joined(frames: Sequence[SegmentOverlaps]) -> SegmentOverlaps:
    """The overlaps of tubes: sums of the pixels of the same ids; the class is that of the first frame."""
    pairs, *tables = (np.concatenate(parts) for parts in zip(*frames, strict=True))
    unique, place = np.unique(pairs[:, 0] << 32 | pairs[:, 1], return_inverse=True)
    # sums of integers below 2^53 are exact in double
    pixels = np.bincount(place, weights=pairs[:, 2], minlength=len(unique)).astype(np.int64)
    summed = np.stack([unique >> 32, unique & 2**32 - 1, pixels], axis=1)
    truth, found = (table[np.unique(table[:, 0], return_index=True)[1]] for table in tables)
    return SegmentOverlaps(summed, truth, found)


_Frame = tuple[str, int, list[tuple[int, int, int]], list[tuple[int, int, int]], list[tuple[int, int]]]
"""A frame in the state."""


def _require_sound(overlaps: SegmentOverlaps, classes: int, *, name: str) -> None:
    """Raise DataError unless ids are sorted, the pairs' ids are those of the segments, and classes are known."""
    pairs, *tables = overlaps
    for side, table in enumerate(tables):
        ids = np.unique(pairs[:, side])
        if not np.array_equal(table[:, 0], ids[ids != 0]) or bool((pairs < 0).any()):
            raise DataError(f"{name}: pairs of ids that are not those of its segments, each once and sorted")
        if bool(((table[:, 1] < 0) | (table[:, 1] >= classes)).any()):
            raise DataError(f"{name}: a class that is not one of {classes}")
