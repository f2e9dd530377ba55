"""AP^r and AP^r_vol: average precision of detections whose overlap with the ground truth is that of regions, not of
boxes.

Hariharan, Arbeláez, Girshick, Malik, "Simultaneous Detection and Segmentation", ECCV 2014, section 5. The detections of
a class in all images are sorted by score; one is a true positive if its region's IoU with an instance exceeds a
threshold and no higher-scoring detection matched the instance. AP is the area under the interpolated curve of precision
over recall, at all its points, and AP^r_vol the mean of AP^r over the thresholds 0.1, 0.2, …, 0.9.

The two published codes differ in the instance that a detection is compared with:

- `region` (2014): the one that it overlaps most among those not yet matched; true positive if the IoU is larger than
  the threshold.
- `region-2015` (hypercolumns): the one that it overlaps most of all; true positive if the IoU is at least the threshold
  and the instance is not yet matched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from pixelwise.errors import DataError, count
from pixelwise.metrics.per_image import PerImage, Place, mean, require_size
from pixelwise.metrics.shared_pixels import shared_pixels
from pixelwise.types import Annotation, Instances

DEFINITIONS: dict[str, str] = {
    "region": "AP^r by the definition of SDS: a detection is right if its mask's IoU with the best instance that is "
    "not yet matched exceeds the threshold; all points of the curve; the mean over 0.1 to 0.9 is AP^r_vol",
    "region-2015": "AP^r as hypercolumns' code counts it: a detection is right if its mask's IoU with the best "
    "instance of all is at least the threshold and the instance is not yet matched; all points of the curve",
}
"""One line for each definition, shown beside the numbers."""

EVALUATED_SCORE = 0.5
"""Lowest score of the detections that count in an image's own result."""

THRESHOLDS = tuple(step / 10 for step in range(1, 10))
"""Thresholds of the IoU in AP^r_vol."""

REPORTED = {"region_ap_50": (0.5,), "region_ap_70": (0.7,), "region_ap_vol": THRESHOLDS}
"""Names of the results: AP^r at 0.5 and at 0.7, and AP^r_vol."""


class Detection(NamedTuple):
    """One matched detection.

    Attributes:
        label: class id.
        score: of the detection.
        right: a bit for each threshold, the first lowest: whether it is a true positive.
        void: likewise, whether it lies on a crowd and is ignored.
    """

    label: int
    score: float
    right: int
    void: int


class ImageMatches(NamedTuple):
    """The stored data of an image.

    Attributes:
        objects: number of instances of each class.
        detections: highest score first.
    """

    objects: tuple[int, ...]
    detections: tuple[Detection, ...]

    @property
    def f1(self) -> float | None:
        """F1 of the detections with a score of at least one half, at an IoU of 0.5; None without any instance."""
        bit = THRESHOLDS.index(0.5)
        claimed = [one for one in self.detections if one.score >= EVALUATED_SCORE and not one.void >> bit & 1]
        evaluated = sum(self.objects) + len(claimed)
        return 2 * sum(one.right >> bit & 1 for one in claimed) / evaluated if evaluated else None

    @property
    def badness(self) -> tuple[bool, float, float]:
        """Sort key: worst image first, then more instances first; an image without any comes last."""
        return (True, 0.0, 0.0) if self.f1 is None else (False, self.f1, -float(sum(self.objects)))

    def caption(self) -> str:
        """Caption in a sheet of images."""
        found = sum(one.score >= EVALUATED_SCORE for one in self.detections)
        instances = f"{count(sum(self.objects), 'instance')}, {found} detected with a score from {EVALUATED_SCORE}"
        return f"F1 {self.f1 or 0:.3f} · {instances}"

    def row(self) -> dict[str, Any]:
        """Fields in `images.jsonl`."""
        return {"f1": self.f1, "objects": sum(self.objects), "detections": len(self.detections)}


class RegionAveragePrecision(PerImage[ImageMatches]):
    """Matches the detections of each image; the state is a row for each image and detection.

    Crowds are not counted, and detections that lie on a crowd of their class are ignored.
    """

    definitions = DEFINITIONS
    result = ImageMatches

    def compare(self, predicted: Annotation, truth: Annotation, at: Place) -> ImageMatches:
        """Match the detections of one image. See PerImage."""
        id = at.key
        found, objects = predicted.instances, truth.instances
        if found is None or objects is None or found.masks is None or objects.masks is None:
            which = "prediction" if found is None or found.masks is None else "ground truth"
            raise DataError(f"image '{id}': the {which} has no instance masks; expected instance annotations")
        if found.scores is None:
            raise DataError(f"image '{id}': the prediction has no scores; detections cannot be sorted")
        require_size(found.masks.size, objects.masks.size, id=id)
        for side, one in (("ground truth", objects), ("prediction", found)):
            self.require_classes(one.labels.tolist(), id=id, side=side)
        return self._match(found.to("cpu"), objects.to("cpu"))

    def _match(self, found: Instances, objects: Instances) -> ImageMatches:
        crowd = objects.crowds
        counts = [0] * len(self.labels)
        detections: list[Detection] = []
        for label in range(len(self.labels)):
            mine = objects.labels == label
            counts[label] = int((mine & ~crowd).sum())
            single, crowds = (mine & ~crowd).nonzero().flatten(), (mine & crowd).nonzero().flatten()
            assert found.scores is not None
            mine = (found.labels == label).nonzero().flatten()
            mine = mine[found.scores[mine].argsort(descending=True, stable=True)]
            assert found.masks is not None
            assert objects.masks is not None
            masks, true_masks = found.masks[mine], objects.masks[torch.cat([single, crowds])]
            shared, areas, true_areas = shared_pixels(masks, true_masks), masks.areas(), true_masks.areas()
            union = areas[:, None] + true_areas - shared
            overlap = (shared.double() / union.clamp(min=1))[:, : len(single)]
            on_crowds = (shared.double() / areas[:, None].clamp(min=1))[:, len(single) :]
            right, void = [0] * len(mine), [0] * len(mine)
            for bit, threshold in enumerate(THRESHOLDS):
                flags = _right(overlap, threshold, free_only=self.definition == "region")
                covered = (on_crowds >= threshold).any(dim=1).tolist()
                for index, flag in enumerate(flags):
                    right[index] |= flag << bit
                    void[index] |= (covered[index] and not flag) << bit
            scores = found.scores[mine].double().tolist()
            detections += [Detection(label, *row) for row in zip(scores, right, void, strict=True)]
        detections.sort(key=lambda detection: -detection.score)
        return ImageMatches(tuple(counts), tuple(detections))

    def fault(self, result: ImageMatches) -> str | None:
        """The fault of a stored result of the right types, or None."""
        if len(result.objects) != len(self.labels):
            return f"expected {len(self.labels)} counts of instances, not {len(result.objects)}"
        strange = next((one.label for one in result.detections if not 0 <= one.label < len(self.labels)), None)
        return None if strange is None else f"an unknown class {strange}"

    def compute(self) -> dict[str, Any]:
        """`region_ap_50`, `region_ap_70` and `region_ap_vol`, and the same in `per_class` with the number of `objects`.

        A class without instances has None and does not count in the means; without any instance all are None.
        """
        # ties between images are broken by their ids, so that the order of evaluation changes nothing
        rows = [(row, id) for id in sorted(self.images) for row in self.images[id].detections]
        rows.sort(key=lambda pair: -pair[0].score)
        per_class: dict[str, dict[str, Any]] = {}
        for label, name in enumerate(self.labels.names):
            objects = sum(image.objects[label] for image in self.images.values())
            mine = [row for row, _ in rows if row.label == label]
            precisions = {
                threshold: average_precision(
                    [bool(row.right >> bit & 1) for row in mine if not row.void >> bit & 1], objects
                )
                for bit, threshold in enumerate(THRESHOLDS)
            }
            per_class[name] = {
                result: mean([precisions[threshold] for threshold in thresholds])
                for result, thresholds in REPORTED.items()
            } | {"objects": objects}
        means = {result: mean([entry[result] for entry in per_class.values()]) for result in REPORTED}
        return {**means, "per_class": per_class}


def average_precision(right: Sequence[bool], objects: int) -> float | None:
    """Area under precision over recall, where each precision is the largest at that recall or beyond.

    Args:
        right: of the detections, highest score first.
        objects: number of ground truth instances; None is returned without any.
    """
    if not objects:
        return None
    hits = torch.tensor(right, dtype=torch.float64).cumsum(0)
    precision = hits / torch.arange(1, len(right) + 1, dtype=torch.float64)
    envelope = precision.flip(0).cummax(0).values.flip(0) if len(right) else precision
    # recall rises by one instance at each true positive
    return float(envelope[torch.tensor(right, dtype=torch.bool)].sum() / objects)


def _right(overlap: Float64[Tensor, "D N"], threshold: float, *, free_only: bool) -> list[bool]:
    """Flags of the true positives of one class and image, highest score first."""
    found: set[int] = set()
    flags: list[bool] = []
    for row in overlap.tolist():
        candidates = [index for index in range(len(row)) if not free_only or index not in found]
        best = max(candidates, key=row.__getitem__, default=None)
        enough = best is not None and (row[best] > threshold if free_only else row[best] >= threshold)
        is_right = enough and best not in found
        flags.append(is_right)
        if is_right and best is not None:
            found.add(best)
    return flags
