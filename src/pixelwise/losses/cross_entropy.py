"""Cross-entropy of every labelled pixel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from pixelwise.contracts import Term
from pixelwise.errors import DataError
from pixelwise.types import Annotation


def stack_semantic(truth: Sequence[Annotation]) -> Int64[Tensor, "B H W"]:
    """The class maps of a batch of equal sizes. Raises DataError when an annotation has none."""
    maps = [annotation.semantic for annotation in truth if annotation.semantic is not None]
    if len(maps) < len(truth):
        raise DataError(f"{len(truth) - len(maps)} of {len(truth)} images have no class for each pixel to learn from")
    return torch.stack(maps).long()


def pixel_cross_entropy(
    logits: Float[Tensor, "B K h w"], truth: Int64[Tensor, "B H W"], *, ignore_id: int, weight: float = 1.0
) -> Term:
    """Enlarge the scores bilinearly to the truth's size and sum the cross-entropy of all pixels but the ignored.

    The scores are enlarged and the labels kept full-size, so that no label is lost (Chen et al., DeepLab v3,
    section 4.1). Scores of any precision are summed in float32.

    Args:
        logits: before the softmax, at any size.
        truth: class ids.
        ignore_id: stands in `truth` where nobody judges.
        weight: of the term in the total.

    Returns:
        nats in all, and the number of judged pixels; both are 0 where nothing is judged.
    """
    logits = F.interpolate(logits.float(), size=truth.shape[1:], mode="bilinear", align_corners=False)
    total = F.cross_entropy(logits, truth, ignore_index=ignore_id, reduction="sum")
    return Term(total, (truth != ignore_id).sum(), weight)
