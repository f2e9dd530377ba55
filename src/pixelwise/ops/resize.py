"""Bringing images to a network's scale and its scores back."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int32, UInt8
from torch import Tensor

FAR = 1e38
"""Makes every difference of scores larger than any number of classes."""

LOG2_E = math.log2(math.e)

SLAB_BYTES = 2 * 2**20
"""How much of the enlarged scores is held at once: little enough for a processor's cache."""


def long_side_size(size_hw: tuple[int, int], long_side: int) -> tuple[int, int]:
    """Height and width of an image of `size_hw` whose long side becomes `long_side`; at least one pixel each."""
    height, width = size_hw
    scale = long_side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize_image(image: UInt8[Tensor, "C H W"], size_hw: tuple[int, int]) -> UInt8[Tensor, "C h w"]:
    """Resize with bilinear weights over the source pixels that a target pixel covers (no aliasing when shrinking)."""
    if tuple(image.shape[1:]) == tuple(size_hw):
        return image
    return F.interpolate(image[None], size=size_hw, mode="bilinear", align_corners=False, antialias=True)[0]


def argmax_resized(
    logits: Float[Tensor, "K h w"], size_hw: tuple[int, int], *, align_corners: bool = False
) -> tuple[UInt8[Tensor, "H W"] | Int32[Tensor, "H W"], Float[Tensor, "H W"]]:
    """Enlarge scores bilinearly and reduce them to ids, slab of rows by slab of rows.

    The result equals `interpolate(logits, size, align_corners=align_corners).softmax(0).max(0)` to rounding; of the
    enlarged scores only SLAB_BYTES are held at once.

    Args:
        logits: scores before the softmax.
        size_hw: height and width of the result.
        align_corners: whether the centres of the corner pixels lie on each other, or the pixels' outer corners.

    Returns:
        ids u8 (i32 where K > 255), and the probability of that class.
    """
    classes, (height, width) = logits.shape[0], size_hw
    ids = torch.empty(height, width, dtype=torch.uint8 if classes <= 255 else torch.int32, device=logits.device)
    confidence = torch.empty(height, width, device=logits.device)
    places = torch.arange(classes, 0, -1, device=logits.device, dtype=torch.float32)[:, None, None]
    source = logits.float().contiguous()
    rows = max(1, SLAB_BYTES // (4 * classes * max(width, logits.shape[2])))
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        slab = enlarge_rows(source, start, stop, size_hw, align_corners=align_corners)
        slab.sub_(slab.amax(dim=0))
        # the first class that has the top score, where 0 is left; torch's argmax takes twenty times as long
        ids[start:stop] = (classes - torch.add(places, slab, alpha=FAR).amax(dim=0)).clamp_(max=classes - 1)
        # 1 / Σ exp(score - top) is the probability of the top score; powers of 2 are three times as fast
        confidence[start:stop] = slab.mul_(LOG2_E).exp2_().sum(dim=0).reciprocal_()
    return ids, confidence


def enlarge_rows(
    source: Float[Tensor, "K h w"], start: int, stop: int, size_hw: tuple[int, int], *, align_corners: bool = False
) -> Float[Tensor, "K rows W"]:
    """Rows start…stop-1 of `interpolate(source, size_hw, align_corners=align_corners)`; the caller may change them."""
    height, width = size_hw
    h, w = source.shape[1:]
    target = torch.arange(start, stop, device=source.device, dtype=torch.float32)
    if align_corners:
        y = target * ((h - 1) / (height - 1) if height > 1 else 0.0)
    else:
        y = ((target + 0.5) * (h / height) - 0.5).clamp(0, h - 1)
    above = y.floor().long().clamp(max=h - 1)
    below = (above + 1).clamp(max=h - 1)
    weight = y - above
    # the few rows of the source are widened first, and then mixed to many
    first = int(above[0])
    lines = source[:, first : int(below[-1]) + 1]
    if w != width:
        size = (lines.shape[1], width)
        lines = F.interpolate(lines[None], size=size, mode="bilinear", align_corners=align_corners)[0]
    return lines.index_select(1, above - first).lerp_(lines.index_select(1, below - first), weight[:, None])
