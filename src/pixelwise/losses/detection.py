"""Training targets and losses of detectors, as sums and counts; half precision is summed in float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from pixelwise.contracts import Term
from pixelwise.errors import DataError
from pixelwise.ops.precision import at_least_float32
from pixelwise.types import Annotation, Instances

Compared = TypeVar("Compared")


def training_instances(truth: Sequence[Annotation]) -> list[Instances]:
    """The instances of each image, which may be none. Raises DataError for annotations without instances or masks."""
    instances = [one.instances for one in truth if one.instances is not None and one.instances.masks is not None]
    if len(instances) < len(truth):
        raise DataError(f"{len(truth) - len(instances)} of {len(truth)} images have no instance masks to train on")
    return instances


def training_output(output: object, kind: type[Compared]) -> Compared:
    """The output as what the losses of its system compare. Raises DataError for one of prediction."""
    if not isinstance(output, kind):
        raise DataError("no training targets: forward was called without ground truth, or in evaluation mode")
    return output


def objectness_term(logits: Float[Tensor, " N"], is_object: Bool[Tensor, " N"], *, weight: float = 1.0) -> Term:
    """Binary cross-entropy of sampled anchors, in nats, and their number."""
    logits = at_least_float32(logits)
    total = F.binary_cross_entropy_with_logits(logits, is_object.to(logits.dtype), reduction="sum")
    return Term(total, _number(logits), weight)


def class_term(logits: Float[Tensor, "N K"], classes: Int64[Tensor, " N"], *, weight: float = 1.0) -> Term:
    """Cross-entropy of sampled boxes, in nats, and their number."""
    logits = at_least_float32(logits)
    return Term(F.cross_entropy(logits, classes, reduction="sum"), _number(classes), weight)


def box_term(
    deltas: Float[Tensor, "P 4"],
    targets: Float[Tensor, "P 4"],
    *,
    count: Shaped[Tensor, ""] | int,
    beta: float,
    weight: float = 1.0,
) -> Term:
    """Smooth L1 loss of the deltas: d² / (2·beta) up to `beta`, then |d| - beta / 2.

    Source: Girshick, Fast R-CNN (2015), section 2.3, with beta 1.

    Args:
        deltas: predicted, of the positives alone.
        targets: regression targets.
        count: divisor of the sum: in R-CNNs the number of all samples, not of the positives.
        beta: end of the quadratic part; 0 for plain L1.
        weight: of the term in the total.
    """
    deltas = at_least_float32(deltas)
    total = F.smooth_l1_loss(deltas, targets.to(deltas.dtype), reduction="sum", beta=beta)
    return Term(total, torch.as_tensor(count, device=deltas.device), weight)


def mask_term(logits: Float[Tensor, "P h w"], targets: Float[Tensor, "P h w"], *, weight: float = 1.0) -> Term:
    """Binary cross-entropy of every cell of the masks, in nats, and the number of cells.

    Source: He et al., Mask R-CNN (2017), section 3: of the ground truth class's mask alone, so that classes do not
        compete.
    """
    logits = at_least_float32(logits)
    total = F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="sum")
    return Term(total, _number(logits), weight)


def _number(values: Shaped[Tensor, "*_"]) -> Int64[Tensor, ""]:
    return torch.tensor(values.numel(), device=values.device)
