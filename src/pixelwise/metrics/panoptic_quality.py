"""Panoptic quality: PQ = SQ · RQ, of all classes, of things, of stuff, and of each class.

A predicted segment matches a ground truth segment of its class if their IoU is larger than 0.5, so matches are unique.
For a class with TP matches, FP unmatched predicted segments and FN unmatched ground truth segments, SQ is the mean IoU
of the matches, RQ = TP / (TP + FP/2 + FN/2), and PQ is their product. Counts are pooled over all images; classes
without any segment do not count in the means.

- Pixels whose ground truth is void are removed from a predicted segment before its IoU is computed. Id 0 is void, and
  so is a segment without entry or without a class.
- A ground truth crowd is ignored. An unmatched predicted segment is ignored if more than half of it lies on void and on
  crowds of its class.

Source: Kirillov et al., "Panoptic Segmentation", CVPR 2019, section 4, and the COCO panoptic API, which differs in two
    points: it has one crowd for each class and image, and uses the areas in the file instead of counting pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from pixelwise.errors import DataError, count
from pixelwise.labels import LabelSet
from pixelwise.metrics.per_image import PerImage, Place, require_size
from pixelwise.ops.joint_counts import joint_counts
from pixelwise.types import Annotation, Panoptic

DEFINITIONS: dict[str, str] = {
    "panoptic": "PQ by COCO's definition: segments match at an IoU above 0.5 outside of void, counts pooled over all "
    "images, crowds ignored; the mean is over classes that ground truth or predictions have",
}
"""One line for each definition, shown beside the numbers."""


class SegmentOverlaps(NamedTuple):
    """Shared pixels of ground truth and predicted segments, in one image or in several frames.

    Attributes:
        pairs: ground truth id, predicted id and number of shared pixels, sorted; id 0 is void.
        truth: id, class id and 1 for a crowd, of each ground truth segment that has pixels, sorted.
        found: id and class id of each predicted one that has pixels, sorted.
    """

    pairs: Int64[np.ndarray, "R 3"]
    truth: Int64[np.ndarray, "S 3"]
    found: Int64[np.ndarray, "S2 2"]


class ClassCounts(NamedTuple):
    """The counts of a class.

    Attributes:
        label: class id.
        tp: matched segments.
        fp: unmatched predicted segments.
        fn: unmatched ground truth segments.
        iou: sum over the matches.
    """

    label: int
    tp: int
    fp: int
    fn: int
    iou: float


class Quality(NamedTuple):
    """PQ, SQ and RQ, fractions of 1; None where there is nothing to evaluate."""

    pq: float | None
    sq: float | None
    rq: float | None


class ImageSegments(NamedTuple):
    """The counts of an image.

    Attributes:
        classes: counts of its classes, by class id.
    """

    classes: tuple[ClassCounts, ...]

    @property
    def badness(self) -> tuple[bool, float, float]:
        """Sort key: worst image first, then more segments first; an image without any comes last."""
        pq = self.quality.pq
        return (True, 0.0, 0.0) if pq is None else (False, pq, -float(sum(one.tp + one.fn for one in self.classes)))

    @property
    def quality(self) -> Quality:
        """Quality of this image."""
        return mean_quality(class_quality(one) for one in self.classes)

    def caption(self) -> str:
        """Caption in a sheet of images."""
        tp, fp, fn = (sum(getattr(one, name) for one in self.classes) for name in ("tp", "fp", "fn"))
        matched = f"{tp} of {count(tp + fn, 'segment')} matched"
        return f"PQ {self.quality.pq or 0:.3f} · {matched}, {count(fp, 'false positive')}"

    def row(self) -> dict[str, Any]:
        """Fields in `images.jsonl`."""
        counts = {name: sum(getattr(one, name) for one in self.classes) for name in ("tp", "fp", "fn")}
        return {**self.quality._asdict(), **counts}


class PanopticQuality(PerImage[ImageSegments]):
    """Matches the segments of each image; the state is a row of counts for each image and class."""

    definitions = DEFINITIONS
    result = ImageSegments

    def compare(self, predicted: Annotation, truth: Annotation, at: Place) -> ImageSegments:
        """Match the segments of one image. See PerImage."""
        return ImageSegments(class_counts(segment_overlaps(predicted, truth, self.labels, id=at.key)))

    def fault(self, result: ImageSegments) -> str | None:
        """The fault of a stored result of the right types, or None."""
        for one in result.classes:
            if not 0 <= one.label < len(self.labels) or min(one[:4]) < 0 or not 0.5 * one.tp <= one.iou <= one.tp:
                return f"an impossible class or counts: {list(one)}"
        return None

    def compute(self) -> dict[str, Any]:
        """`pq`, `sq`, `rq`, the same with `_things` and `_stuff`, and `per_class` with `tp`, `fp` and `fn`.

        Fractions of 1. A class that neither ground truth nor predictions have has none (None) and does not count in
        the means.
        """
        counts = pooled(one for image in self.images.values() for one in image.classes)
        values: dict[str, Any] = qualities(counts, self.labels)
        per_class = {}
        for label, name in enumerate(self.labels.names):
            one = counts.get(label, ClassCounts(label, 0, 0, 0, 0.0))
            per_class[name] = {**class_quality(one)._asdict(), "tp": one.tp, "fp": one.fp, "fn": one.fn}
        return {**values, "per_class": per_class}


def segment_overlaps(predicted: Annotation, truth: Annotation, labels: LabelSet, *, id: str) -> SegmentOverlaps:
    """Count the pixels that the segments of one image share.

    Raises DataError for annotations without segments, other sizes, an unknown class, or invalid ids.
    """
    if predicted.panoptic is None or truth.panoptic is None:
        which = "prediction" if predicted.panoptic is None else "ground truth"
        raise DataError(f"image '{id}': the {which} has no segments; expected panoptic annotations")
    require_size(predicted.panoptic.ids.shape, truth.panoptic.ids.shape, id=id)
    expected = _entries(truth.panoptic, labels, name=f"image '{id}': the ground truth")
    found = _entries(predicted.panoptic, labels, name=f"image '{id}': the prediction")[:, :2]
    maps = [side.panoptic.ids.cpu().numpy() for side in (truth, predicted) if side.panoptic is not None]
    pairs = joint_counts(maps[0], maps[1], expected[:, 0], found[:, 0])
    seen, found_seen = (np.unique(pairs[pairs[:, side] > 0, side]) - 1 for side in (0, 1))
    for side, entries in enumerate((expected, found)):
        pairs[:, side] = np.concatenate([[0], entries[:, 0]])[pairs[:, side]]
    return SegmentOverlaps(pairs, expected[seen], found[found_seen])


def _entries(panoptic: Panoptic, labels: LabelSet, *, name: str) -> Int64[np.ndarray, "S 3"]:
    """Id, class id and crowd of the segments that have a class, by id."""
    columns = (panoptic.segment_ids, panoptic.labels, panoptic.crowd)
    entries = np.stack([column.cpu().numpy().astype(np.int64) for column in columns], axis=1)
    entries = entries[np.argsort(entries[:, 0], kind="stable")]
    ids, classes = entries[:, 0], entries[:, 1]
    if len(ids) and (ids[0] <= 0 or bool((ids[1:] == ids[:-1]).any())):
        wrong = ids[0] if ids[0] <= 0 else ids[1:][ids[1:] == ids[:-1]][0]
        raise DataError(f"{name} has a segment of the id {wrong}{' twice' if wrong > 0 else ''}; ids count from 1")
    strange = ((classes < 0) | (classes >= len(labels))) & (classes != labels.ignore_id)
    if strange.any():
        raise DataError(
            f"{name} has a segment {ids[strange][0]} of class {classes[strange][0]}, "
            f"which is not one of the {len(labels)} of '{labels.name}'"
        )
    return entries[classes != labels.ignore_id]


def class_counts(overlaps: SegmentOverlaps) -> tuple[ClassCounts, ...]:
    """Match segments, or tubes of segments, and count for each class that either side has."""
    pairs, truth, found = overlaps
    labels, crowd, found_labels = truth[:, 1], truth[:, 2].astype(bool), found[:, 1]
    row, column = np.searchsorted(truth[:, 0], pairs[:, 0]), np.searchsorted(found[:, 0], pairs[:, 1])
    pixels = pairs[:, 2]
    true_void, found_void = pairs[:, 0] == 0, pairs[:, 1] == 0
    area = _sums(row[~true_void], pixels[~true_void], len(truth))
    found_area = _sums(column[~found_void], pixels[~found_void], len(found))
    in_void = _sums(column[true_void & ~found_void], pixels[true_void & ~found_void], len(found))

    both = ~true_void & ~found_void
    row, column, pixels = row[both], column[both], pixels[both]
    same = labels[row] == found_labels[column]
    union = area[row] + found_area[column] - pixels - in_void[column]
    match = same & ~crowd[row] & (2 * pixels > union)
    on_crowd = same & crowd[row]
    ignored = in_void + _sums(column[on_crowd], pixels[on_crowd], len(found))

    missed, wrong = ~crowd, 2 * ignored <= found_area
    missed[row[match]] = False
    wrong[column[match]] = False
    ious, right = pixels[match] / union[match], labels[row[match]]
    counts = []
    for label in np.unique(np.concatenate([right, found_labels[wrong], labels[missed]])).tolist():
        mine = ious[right == label]
        fp, fn = (int(np.count_nonzero(side == label)) for side in (found_labels[wrong], labels[missed]))
        counts.append(ClassCounts(label, len(mine), fp, fn, math.fsum(mine.tolist())))
    return tuple(counts)


def _sums(places: Int64[np.ndarray, " R"], pixels: Int64[np.ndarray, " R"], size: int) -> Int64[np.ndarray, " S"]:
    # sums of integers below 2^53 are exact in double
    return np.bincount(places, weights=pixels, minlength=size).astype(np.int64)


def pooled(counts: Iterable[ClassCounts]) -> dict[int, ClassCounts]:
    """Sums of the counts of each class, to the same bits in any order."""
    grouped: dict[int, list[ClassCounts]] = {}
    for one in counts:
        grouped.setdefault(one.label, []).append(one)
    return {
        label: ClassCounts(
            label,
            sum(one.tp for one in mine),
            sum(one.fp for one in mine),
            sum(one.fn for one in mine),
            math.fsum(one.iou for one in mine),
        )
        for label, mine in grouped.items()
    }


def class_quality(counts: ClassCounts) -> Quality:
    """PQ, SQ and RQ of one class."""
    evaluated = counts.tp + counts.fp / 2 + counts.fn / 2
    if not evaluated:
        return Quality(None, None, None)
    return Quality(counts.iou / evaluated, counts.iou / counts.tp if counts.tp else 0.0, counts.tp / evaluated)


def mean_quality(each: Iterable[Quality]) -> Quality:
    """The mean over the classes that have one."""
    known = [one for one in each if one.pq is not None]
    if not known:
        return Quality(None, None, None)
    return Quality(*(math.fsum(values) / len(known) for values in zip(*known, strict=True)))


def qualities(counts: Mapping[int, ClassCounts], labels: LabelSet) -> dict[str, float | None]:
    """The means over all classes, over things (`_things`) and over stuff (`_stuff`)."""
    groups: dict[str, Sequence[int]] = {
        "": range(len(labels)),
        "_things": [label for label, thing in enumerate(labels.is_thing) if thing],
        "_stuff": [label for label, thing in enumerate(labels.is_thing) if not thing],
    }
    return {
        f"{name}{suffix}": value
        for suffix, members in groups.items()
        for name, value in mean_quality(class_quality(counts[label]) for label in members if label in counts)
        ._asdict()
        .items()
    }
