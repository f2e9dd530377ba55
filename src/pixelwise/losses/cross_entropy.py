"""Cross-entropy of every labelled pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from pixelwise.contracts import Term
from pixelwise.errors import DataError
from pixelwise.types import Annotation


def stack_semantic(truth: Sequence[Annotation]) -> Int64[Tensor, "B H W"]:
    """The class maps of a batch of equal sizes. Raises DataError when an annotation has none."""
    maps = [annotation.semantic for annotation in truth if annotation.semantic is not None]
    if len(maps) < len(truth):
        raise DataError(f"{len(truth) - len(maps)} of {len(truth)} images have no class map to train on")
    return torch.stack(maps).long()


@dataclass(frozen=True)
class PixelLoss:
    """Cross-entropy of the pixels that are not ignored; `fit` replaces a system's `pixel_loss` by that of the stage.

    Attributes:
        ignore_id: class id of ignored pixels in the ground truth.
        class_weights: factor on the pixels of each class, or None for 1; see `median_frequency_weights`.
        ohem: fraction of an image's pixels that count, those of the largest (weighted) loss (OHEM, online hard example
            mining). They are selected image by image, so that the number of processes changes nothing. Source:
            `top_k_percent_pixels` of the authors' code of DeepLab v3+, which selects from the whole batch.
        align_corners: enlarge with the corners' centres aligned, as the authors of DeepLab and PSPNet do.
    """

    ignore_id: int = 255
    class_weights: tuple[float, ...] | None = None
    ohem: float = 1.0
    align_corners: bool = False

    def __call__(self, logits: Float[Tensor, "B K h w"], truth: Int64[Tensor, "B H W"], *, weight: float = 1.0) -> Term:
        """Enlarge the logits bilinearly to the ground truth's size and sum the cross-entropy of the pixels that count.

        The logits are enlarged and the labels kept full-size, so that no label is lost (Chen et al., DeepLab v3,
        section 4.1). Half precision is summed in float32.

        Args:
            logits: at any size.
            truth: class ids.
            weight: of the term in the total.

        Returns:
            the sum in nats, each pixel's times its class's weight, and the number of pixels that count, or the sum of
            their weights with class weights; 0 and 0 if all pixels are ignored.
        """
        logits = logits if logits.dtype == torch.float64 else logits.float()
        if logits.shape[2:] != truth.shape[1:]:
            logits = F.interpolate(logits, size=truth.shape[1:], mode="bilinear", align_corners=self.align_corners)
        class_weights = None
        if self.class_weights is not None:
            class_weights = torch.tensor(self.class_weights, dtype=logits.dtype, device=logits.device)
        evaluated = truth != self.ignore_id
        if self.ohem < 1:
            return self._hardest(logits, truth, evaluated, class_weights, weight)
        total = F.cross_entropy(logits, truth, class_weights, ignore_index=self.ignore_id, reduction="sum")
        count = evaluated.sum() if class_weights is None else class_weights[truth[evaluated]].sum()
        return Term(total, count, weight)

    def _hardest(
        self,
        logits: Float[Tensor, "B K H W"],
        truth: Int64[Tensor, "B H W"],
        evaluated: Bool[Tensor, "B H W"],
        class_weights: Float[Tensor, " K"] | None,
        weight: float,
    ) -> Term:
        losses = F.cross_entropy(logits, truth, class_weights, ignore_index=self.ignore_id, reduction="none")
        totals: list[Tensor] = []
        counts: list[Tensor] = []
        for image_losses, image_truth, image_evaluated in zip(losses, truth, evaluated, strict=True):
            candidates = image_losses[image_evaluated]
            largest, places = candidates.topk(math.ceil(self.ohem * len(candidates)), sorted=False)
            totals.append(largest.sum())
            if class_weights is None:
                counts.append(largest.new_tensor(len(largest)))
            else:
                counts.append(class_weights[image_truth[image_evaluated][places]].sum())
        return Term(torch.stack(totals).sum(), torch.stack(counts).sum(), weight)


@runtime_checkable
class HasPixelLoss(Protocol):
    """A system that is trained on the class of every pixel; `fit` gives its loss the stage's settings."""

    pixel_loss: PixelLoss


def median_frequency_weights(class_pixels: Sequence[int], image_pixels: Sequence[int]) -> tuple[float, ...]:
    """Weights that balance rare classes: the median of all frequencies divided by the class's own.

    A frequency is the share of a class in the images that contain it. Source: Eigen & Fergus, "Predicting Depth,
    Surface Normals and Semantic Labels with a Common Multi-Scale Convolutional Architecture", ICCV 2015, section 6.3.2;
    SegNet (Badrinarayanan et al., 2017, section 4) uses it for CamVid.

    Args:
        class_pixels: of each class, pixels in all images.
        image_pixels: of each class, the evaluated pixels of all images that contain it.

    Returns:
        one weight for each class; a class that no image contains has weight 1 and does not count in the median.
    """
    frequencies = [pixels / seen if pixels else None for pixels, seen in zip(class_pixels, image_pixels, strict=True)]
    present = [frequency for frequency in frequencies if frequency]
    middle = median(present) if present else 1.0
    return tuple(middle / frequency if frequency else 1.0 for frequency in frequencies)
