"""Mean intersection over union and its companions, by PASCAL VOC's definition.

One confusion matrix over all pixels of all images. IoU = tp / (truth + predicted - tp); the mean is over all classes,
background included. Pixels whose truth is void are not counted, so what is predicted there costs nothing; predicting
void where there is truth is an error. A class that neither truth nor predictions have is left out of the means, as the
Cityscapes and FCN tools do; the ADE20K tool counts it as 0.
Source: Everingham et al., the VOC 2012 development kit; companions: Long et al., FCN (2015), section 5.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from pixelwise.errors import DataError
from pixelwise.labels import LabelSet
from pixelwise.types import Annotation

DEFINITION = (
    "mean IoU by PASCAL VOC's definition: one confusion matrix, void not judged, background included; "
    "predicted void is an error, a class that neither truth nor predictions have does not count"
)
"""One line for people who compare numbers."""

SLAB_PIXELS = 2**22
"""How many pixels are counted at once: 8 bytes each, several times."""


class MeanIoU:
    """Counts class pairs pixel by pixel; the state is K × (K + 1) integers and two for each image.

    Args:
        labels: the classes.
    """

    def __init__(self, labels: LabelSet) -> None:
        self.labels = labels
        # rows: truth; columns: prediction, the last one void
        self.confusion: Int64[Tensor, "K K1"] = torch.zeros(len(labels), len(labels) + 1, dtype=torch.int64)
        self.images: dict[str, tuple[int, int]] = {}
        """Right and judged pixels of each image, by id."""

    def update(
        self,
        predicted: Annotation,
        truth: Annotation,
        *,
        id: str,
        clip: str | None = None,
        frame: int | None = None,
    ) -> None:
        """Count the pixels of one image. Raises DataError for a second time, another size, or a class out of range."""
        id = "/".join(str(part) for part in (clip, frame, id) if part is not None)
        if id in self.images:
            raise DataError(f"image '{id}' was evaluated before; each id is counted once")
        if predicted.semantic is None or truth.semantic is None:
            which = "prediction" if predicted.semantic is None else "truth"
            raise DataError(f"image '{id}': the {which} says no class for each pixel; semantic annotations are wanted")
        if predicted.semantic.shape != truth.semantic.shape:
            raise DataError(
                f"image '{id}': the prediction is {_size(predicted.semantic)}, the truth {_size(truth.semantic)}; "
                "predictions must have the truth's size"
            )
        answer = predicted.semantic.flatten()
        expected = truth.semantic.to(answer.device).flatten()
        confusion = torch.zeros_like(self.confusion)
        for slab in zip(expected.split(SLAB_PIXELS), answer.split(SLAB_PIXELS), strict=True):
            confusion += self._pairs(*slab, id=id).cpu()
        self.confusion += confusion
        self.images[id] = (int(confusion.diagonal().sum()), int(confusion.sum()))

    def _pairs(self, expected: Shaped[Tensor, " P"], answer: Shaped[Tensor, " P"], *, id: str) -> Int64[Tensor, "K K1"]:
        """How often each class of the truth is answered by each class, or by void."""
        classes, ignore_id = len(self.labels), self.labels.ignore_id
        expected, answer = expected.long(), answer.long()
        for name, values in (("truth", expected), ("prediction", answer)):
            strange = values[((values < 0) | (values >= classes)) & (values != ignore_id)]
            if len(strange):
                raise DataError(
                    f"image '{id}': class {int(strange[0])} in the {name} is not one of the {classes} "
                    f"of '{self.labels.name}'"
                )
        judged = expected != ignore_id
        answer = torch.where(answer == ignore_id, classes, answer)
        pairs = expected[judged] * (classes + 1) + answer[judged]
        return pairs.bincount(minlength=classes * (classes + 1)).view(classes, classes + 1)

    def merge(self, other: MeanIoU) -> None:
        """Add what another one counted over other images. Raises DataError for an image in both."""
        self.labels.require_same(other.labels, mine="this metric", theirs="the other")
        both = sorted(set(self.images) & set(other.images))
        if both:
            raise DataError(f"image '{both[0]}' is in both parts ({len(both)} such images); each id is counted once")
        self.confusion += other.confusion
        self.images |= other.images

    def compute(self) -> dict[str, Any]:
        """`mean_iou`, `pixel_accuracy`, `mean_class_accuracy`, `frequency_weighted_iou`, all fractions of 1.

        A class that neither truth nor predictions contain has no IoU (None) and is left out of the means; so has a
        class without truth no accuracy. With no judged pixel at all every value is None.
        """
        counts = self.confusion.double()
        right = counts.diagonal()
        truth = counts.sum(dim=1)
        predicted = counts[:, :-1].sum(dim=0)
        iou = right / (truth + predicted - right)
        accuracy = right / truth
        return {
            "mean_iou": _number(iou.nanmean()),
            "pixel_accuracy": _number(right.sum() / truth.sum()),
            "mean_class_accuracy": _number(accuracy.nanmean()),
            "frequency_weighted_iou": _number((truth * iou).nansum() / truth.sum()),
            "per_class": {
                name: {"iou": _number(iou[index]), "accuracy": _number(accuracy[index]), "pixels": int(truth[index])}
                for index, name in enumerate(self.labels.names)
            },
        }


def _number(value: Tensor) -> float | None:
    return None if bool(value.isnan()) else float(value)


def _size(ids: Tensor) -> str:
    return f"{ids.shape[0]}×{ids.shape[1]}"
