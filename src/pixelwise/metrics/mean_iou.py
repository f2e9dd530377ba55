"""Mean intersection over union and related numbers, by the definitions of PASCAL VOC, ADE20K and Cityscapes.

One confusion matrix over all pixels of all images. IoU = tp / (ground truth + predicted - tp); the mean is over all
classes, background included. Pixels whose ground truth is void are ignored; predicting void where there is ground truth
is an error. The definitions agree in this, and differ in:

- `voc`: a class that neither ground truth nor predictions have does not count in the means. So do Cityscapes and FCN's
  tools.
- `ade20k`: such a class counts 0 in the mean IoU; the challenge's score is the mean of mean IoU and pixel accuracy.
- `cityscapes`: as `voc`, and the same over seven categories of classes; where the ground truth has instances, also the
  iIoU, in which each instance counts as much as the average instance of its class, whatever its size. False positives
  belong to no instance and count by their pixels.

Sources: Everingham et al., the VOC 2012 development kit; utils_eval.py of the MIT scene parsing challenge;
evalPixelLevelSemanticLabeling.py of cityscapesScripts, and Cordts et al., Cityscapes (2016), section 4.1; companions:
Long et al., FCN (2015), section 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from pixelwise.errors import DataError, RecipeError
from pixelwise.labels import LabelSet
from pixelwise.metrics.cityscapes import CATEGORIES, INSTANCE_SIZES
from pixelwise.metrics.per_image import PerImage, Place, mean, require_size, stored
from pixelwise.types import Annotation

DEFINITIONS: dict[str, str] = {
    "voc": "mean IoU by PASCAL VOC's definition: one confusion matrix, void ignored, background included; "
    "predicted void is an error, a class that neither ground truth nor predictions have does not count",
    "ade20k": "mean IoU by ADE20K's definition: one confusion matrix, void ignored; predicted void is an error, "
    "a class that neither ground truth nor predictions have counts 0; score = (mean IoU + pixel accuracy) / 2",
    "cityscapes": "mean IoU by Cityscapes' definition: one confusion matrix, void ignored; predicted void is an "
    "error, a class that neither ground truth nor predictions have does not count; in iIoU every instance counts as "
    "the average one of its class",
}
"""One line for each definition, shown beside the numbers."""

SLAB_PIXELS = 2**22
"""Pixels that are counted at once, at several times 8 bytes each."""

SHARE = 2**40
"""A fully detected instance in the state: fractions are integers, so that sums do not depend on order."""


class ImageScore(NamedTuple):
    """The result of one image.

    Attributes:
        right: pixels of the right class.
        evaluated: pixels whose ground truth is not void.
        mean_iou: over the classes in its ground truth or its prediction; None if all pixels are void.
    """

    right: int
    evaluated: int
    mean_iou: float | None

    @property
    def badness(self) -> tuple[bool, float, float]:
        """Sort key: worst image first, by mean IoU, then by pixel accuracy; one with nothing to evaluate comes last."""
        if self.mean_iou is None:
            return True, 0.0, 0.0
        return False, self.mean_iou, self.right / self.evaluated

    def caption(self) -> str:
        """Caption in a sheet of images."""
        return f"mean IoU {self.mean_iou or 0:.3f} · pixel accuracy {self.right / max(1, self.evaluated):.3f}"

    def row(self) -> dict[str, Any]:
        """Fields in `images.jsonl`."""
        accuracy = self.right / self.evaluated if self.evaluated else None
        return {"mean_iou": self.mean_iou, "pixel_accuracy": accuracy, "pixels": self.evaluated}


class MeanIoU(PerImage[ImageScore]):
    """Counts class pairs pixel by pixel; the state is K × (K + 1) integers, and a row for each image.

    Raises RecipeError also for Cityscapes' definition with classes that it does not have.
    """

    definitions = DEFINITIONS
    result = ImageScore

    def __init__(self, labels: LabelSet, definition: str = "voc") -> None:
        super().__init__(labels, definition)
        strange = [name for name in labels.names if name not in CATEGORIES]
        if definition == "cityscapes" and strange:
            raise RecipeError(
                f"definition cityscapes: '{strange[0]}' of '{labels.name}' is not one of Cityscapes' classes "
                f"({', '.join(CATEGORIES)}); choose another --definition, or map the classes"
            )
        # rows: ground truth; columns: prediction, the last one void
        self.confusion: Int64[Tensor, "K K1"] = torch.zeros(len(labels), len(labels) + 1, dtype=torch.int64)
        # instances of each class: their number, the sum of their detected fractions, and of those detected as one of
        # the category
        self.objects: Int64[Tensor, "K 3"] = torch.zeros(len(labels), 3, dtype=torch.int64)
        self.images_without_objects = 0
        """Number of images whose ground truth has no instances; with any of them there is no iIoU."""

    def compare(self, predicted: Annotation, truth: Annotation, at: Place) -> ImageScore:
        """Count the pixels of one image. See PerImage."""
        if predicted.semantic is None or truth.semantic is None:
            which = "prediction" if predicted.semantic is None else "ground truth"
            raise DataError(f"image '{at.key}': the {which} has no class map; expected semantic annotations")
        require_size(predicted.semantic.shape, truth.semantic.shape, id=at.key)
        predicted_ids = predicted.semantic.flatten()
        expected = truth.semantic.to(predicted_ids.device).flatten()
        confusion = torch.zeros_like(self.confusion)
        for slab in zip(expected.split(SLAB_PIXELS), predicted_ids.split(SLAB_PIXELS), strict=True):
            confusion += self._pairs(*slab, id=at.key).cpu()
        if self.definition == "cityscapes":
            self._count_objects(predicted.semantic.cpu(), truth)
        self.confusion += confusion
        right, evaluated = int(confusion.diagonal().sum()), int(confusion.sum())
        return ImageScore(right, evaluated, _number(_ious(confusion).nanmean()) if evaluated else None)

    def _pairs(
        self, expected: Shaped[Tensor, " P"], predicted_ids: Shaped[Tensor, " P"], *, id: str
    ) -> Int64[Tensor, "K K1"]:
        """Confusion matrix of ground truth classes and predicted classes, void last."""
        classes, ignore_id = len(self.labels), self.labels.ignore_id
        expected, predicted_ids = expected.long(), predicted_ids.long()
        for side, values in (("ground truth", expected), ("prediction", predicted_ids)):
            strange = values[((values < 0) | (values >= classes)) & (values != ignore_id)]
            self.require_classes(strange[:1].tolist(), id=id, side=side)
        evaluated = expected != ignore_id
        predicted_ids = torch.where(predicted_ids == ignore_id, classes, predicted_ids)
        pairs = expected[evaluated] * (classes + 1) + predicted_ids[evaluated]
        return pairs.bincount(minlength=classes * (classes + 1)).view(classes, classes + 1)

    def _count_objects(self, semantic: Shaped[Tensor, "H W"], truth: Annotation) -> None:
        """Count the detected fraction of each instance; crowds do not count."""
        instances = truth.instances
        if instances is None or instances.masks is None:
            self.images_without_objects += 1
            return
        masks = instances.masks.to("cpu")
        for index, label in enumerate(instances.labels.tolist()):
            if instances.crowds[index] or self.labels.names[label] not in INSTANCE_SIZES:
                continue
            x1, y1, x2, y2 = masks.boxes[index].tolist()
            predicted_ids = semantic[y1:y2, x1:x2][masks.crop(index).bool()].long()
            if not len(predicted_ids):
                continue
            category = torch.tensor(self._category_of(self.labels.names[label]))
            found = (int((predicted_ids == label).sum()), int(torch.isin(predicted_ids, category).sum()))
            shares = [(2 * SHARE * pixels + len(predicted_ids)) // (2 * len(predicted_ids)) for pixels in found]
            self.objects[label] += torch.tensor([1, *shares])

    def _category_of(self, name: str) -> list[int]:
        """The class ids of the category to which a class belongs."""
        return [index for index, other in enumerate(self.labels.names) if CATEGORIES[other] == CATEGORIES[name]]

    def merge(self, other: Any) -> None:
        """Add the counts of another one over other images.

        Raises DataError for an image in both, other classes, or another definition.
        """
        super().merge(other)
        self.confusion += other.confusion
        self.objects += other.objects
        self.images_without_objects += other.images_without_objects

    def state(self) -> dict[str, Any]:
        """The counts as lists and numbers that JSON keeps exactly; `from_state` restores them."""
        return {
            "confusion": self.confusion.tolist(),
            "objects": self.objects.tolist(),
            "images_without_objects": self.images_without_objects,
            **super().state(),
        }

    @classmethod
    def from_state(cls, labels: LabelSet, definition: str, state: Mapping[str, Any]) -> MeanIoU:
        """Restore a metric from its state. Raises DataError for an impossible state."""
        metric = super().from_state(labels, definition, state)
        metric.confusion = _counts(state, "confusion", like=metric.confusion)
        metric.objects = _counts(state, "objects", like=metric.objects)
        metric.images_without_objects = stored(int, state, "images_without_objects")
        evaluated = sum(score.evaluated for score in metric.images.values())
        if evaluated != int(metric.confusion.sum()):
            raise DataError(
                f"{evaluated:,} pixels in its images, {int(metric.confusion.sum()):,} in its confusion matrix"
            )
        return metric

    def compute(self) -> dict[str, Any]:
        """`mean_iou`, `pixel_accuracy`, `mean_class_accuracy`, `frequency_weighted_iou`, all fractions of 1.

        `ade20k` adds `score`; `cityscapes` adds `mean_category_iou`, `mean_iiou`, `mean_category_iiou`, `iiou` in
        `per_class`, and `per_category`. A class that neither ground truth nor predictions contain has no IoU (None)
        but in `ade20k`, where it is 0, and does not count in the means; so has a class without ground truth no
        accuracy. With no evaluated pixel at all every value is None.
        """
        counts = self.confusion.double()
        truth = counts.sum(dim=1)
        iou = _ious(self.confusion)
        if self.definition == "ade20k" and len(truth.nonzero()):
            iou = iou.nan_to_num(0.0)
        accuracy = counts.diagonal() / truth
        means = {
            "mean_iou": _number(iou.nanmean()),
            "pixel_accuracy": _number(counts.diagonal().sum() / truth.sum()),
            "mean_class_accuracy": _number(accuracy.nanmean()),
            "frequency_weighted_iou": _number((truth * iou).nansum() / truth.sum()),
        }
        per_class: dict[str, dict[str, Any]] = {
            name: {"iou": _number(iou[index]), "accuracy": _number(accuracy[index]), "pixels": int(truth[index])}
            for index, name in enumerate(self.labels.names)
        }
        if self.definition == "ade20k":
            both = (means["mean_iou"], means["pixel_accuracy"])
            means["score"] = None if None in both else mean(both)
        if self.definition != "cityscapes":
            return {**means, "per_class": per_class}
        for index, name in enumerate(self.labels.names):
            per_class[name]["iiou"] = self._iiou([index], found=1)
        per_category = self._per_category()
        means["mean_category_iou"] = mean(entry["iou"] for entry in per_category.values())
        means["mean_iiou"] = mean(entry["iiou"] for entry in per_class.values())
        means["mean_category_iiou"] = mean(entry["iiou"] for entry in per_category.values())
        return {**means, "per_class": per_class, "per_category": per_category}

    def _per_category(self) -> dict[str, dict[str, float | None]]:
        """Cityscapes' categories: a pixel is right if its class belongs to the ground truth category."""
        names = self.labels.names
        scores: dict[str, dict[str, float | None]] = {}
        for category in dict.fromkeys(CATEGORIES[name] for name in names):
            members = [index for index, name in enumerate(names) if CATEGORIES[name] == category]
            truth, predicted = int(self.confusion[members].sum()), int(self.confusion[:, members].sum())
            right = int(self.confusion[members][:, members].sum())
            union = truth + predicted - right
            scores[category] = {"iou": right / union if union else None, "iiou": self._iiou(members, found=2)}
        return scores

    def _iiou(self, members: Sequence[int], *, found: int) -> float | None:
        """Cityscapes' iIoU of several classes; `found` is the column of `objects` with their detected fractions.

        None where there is nothing to evaluate or the ground truth has no instances.
        """
        names = [self.labels.names[index] for index in members]
        if self.images_without_objects or any(name not in INSTANCE_SIZES for name in names):
            return None
        sizes = [INSTANCE_SIZES[name] for name in names]
        right = sum(size * int(self.objects[index, found]) for size, index in zip(sizes, members, strict=True)) / SHARE
        truth = sum(size * int(self.objects[index, 0]) for size, index in zip(sizes, members, strict=True))
        too_much = int(self.confusion[:, members].sum()) - int(self.confusion[members][:, members].sum())
        return right / (truth + too_much) if truth + too_much else None


def published_definition(labels: LabelSet) -> str:
    """The definition by which results on a published label set are reported; `voc` for any other."""
    if labels.name == "ade20k":
        return "ade20k"
    is_cityscapes = labels.name == "cityscapes" and all(name in CATEGORIES for name in labels.names)
    return "cityscapes" if is_cityscapes else "voc"


def _ious(confusion: Int64[Tensor, "K K1"]) -> Float64[Tensor, " K"]:
    """IoU of each class; NaN where neither ground truth nor predictions have it."""
    counts = confusion.double()
    right = counts.diagonal()
    return right / (counts.sum(dim=1) + counts[:, :-1].sum(dim=0) - right)


def _counts(state: Mapping[str, Any], name: str, *, like: Tensor) -> Tensor:
    counts = stored(list[list[int]], state, name)
    rows, columns = like.shape
    if [len(row) for row in counts] != [columns] * rows or any(not 0 <= one < 2**62 for row in counts for one in row):
        raise DataError(f"state.{name}: expected {rows} rows of {columns} counts")
    return torch.tensor(counts, dtype=torch.int64)


def _number(value: Tensor) -> float | None:
    return None if bool(value.isnan()) else float(value)
