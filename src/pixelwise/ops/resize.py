"""Resize images to a network's input size and its logits to the image."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int32, Int64, UInt8
from torch import Tensor

FAR = 1e38
"""Factor that makes every difference of logits larger than the number of classes."""

LOG2_E = math.log2(math.e)

SLAB_BYTES = 2 * 2**20
"""Bytes of the enlarged logits that are held at once, few enough for a processor's cache."""


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
    logits: Float[Tensor, "K h w"],
    size_hw: tuple[int, int],
    *,
    align_corners: bool = False,
    covered: tuple[float, float] | None = None,
) -> tuple[UInt8[Tensor, "H W"] | Int32[Tensor, "H W"], Float[Tensor, "H W"]]:
    """Enlarge logits bilinearly and reduce them to class ids, by slabs of rows.

    The result equals `interpolate(logits, size, align_corners=align_corners).softmax(0).max(0)` to rounding; of the
    enlarged logits only SLAB_BYTES are held at once.

    Args:
        logits: of one image.
        size_hw: height and width of the result.
        align_corners: whether the centres of the corner pixels are aligned, or the pixels' outer corners.
        covered: see `enlarge_rows`.

    Returns:
        ids u8 (i32 where K > 255), and the probability of that class.
    """
    classes, (height, width) = logits.shape[0], size_hw
    ids = torch.empty(height, width, dtype=torch.uint8 if classes <= 255 else torch.int32, device=logits.device)
    confidence = torch.empty(height, width, device=logits.device)
    source = logits.float().contiguous()
    rows = max(1, SLAB_BYTES // (4 * classes * max(width, logits.shape[2])))
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        slab = enlarge_rows(source, start, stop, size_hw, align_corners=align_corners, covered=covered)
        slab.sub_(slab.amax(dim=0))
        ids[start:stop] = first_zero(slab)
        # 1 / Σ exp(logit - largest) is the probability of the largest logit; powers of 2 are three times as fast
        confidence[start:stop] = slab.mul_(LOG2_E).exp2_().sum(dim=0).reciprocal_()
    return ids, confidence


def first_zero(slab: Float[Tensor, "K H W"]) -> Float[Tensor, "H W"]:
    """The first index along the first axis with the value 0, of values of at most 0; in their dtype.

    For logits minus their maximum it is the argmax, for which torch takes twenty times as long.
    """
    places = torch.arange(len(slab), 0, -1, device=slab.device, dtype=slab.dtype)[:, None, None]
    return (len(slab) - torch.add(places, slab, alpha=FAR).amax(dim=0)).clamp_(max=len(slab) - 1)


def enlarge_rows(
    source: Float[Tensor, "K h w"],
    start: int,
    stop: int,
    size_hw: tuple[int, int],
    *,
    align_corners: bool = False,
    covered: tuple[float, float] | None = None,
) -> Float[Tensor, "K rows W"]:
    """Rows start…stop-1 of `interpolate(source, size_hw, align_corners=align_corners)`; the caller may modify them.

    Args:
        source: the map to enlarge.
        start: the first row.
        stop: after the last.
        size_hw: height and width of the result.
        align_corners: whether the centres of the corner pixels are aligned.
        covered: pixels of the result, downwards and to the right, that the source covers, if these are more: for logits
            of a padded image. Not with `align_corners`.
    """
    height, width = size_hw
    h, w = source.shape[1:]
    if align_corners:
        target = torch.arange(start, stop, device=source.device, dtype=torch.float32)
        y = target * ((h - 1) / (height - 1) if height > 1 else 0.0)
        above, below, weight = _between(y, h)
    else:
        above, below, weight = _neighbours(start, stop, h, height if covered is None else covered[0], source)
    # the few rows of the source are widened first, then interpolated to many
    first = int(above[0])
    lines = source[:, first : int(below[-1]) + 1]
    if covered is not None and covered[1] != width:
        left, right, share = _neighbours(0, width, w, covered[1], source)
        lines = lines.index_select(2, left).lerp_(lines.index_select(2, right), share.to(source.dtype))
    elif w != width:
        size = (lines.shape[1], width)
        lines = F.interpolate(lines[None], size=size, mode="bilinear", align_corners=align_corners)[0]
    weight = weight[:, None].to(source.dtype)
    return lines.index_select(1, above - first).lerp_(lines.index_select(1, below - first), weight)


def _neighbours(
    start: int, stop: int, cells: int, pixels: float, source: Tensor
) -> tuple[Int64[Tensor, " P"], Int64[Tensor, " P"], Float[Tensor, " P"]]:
    """The cells between whose centres each pixel's centre lies, and the weight of the second."""
    target = torch.arange(start, stop, device=source.device, dtype=torch.float32)
    return _between(((target + 0.5) * (cells / pixels) - 0.5).clamp(0, cells - 1), cells)


def _between(
    place: Float[Tensor, " P"], cells: int
) -> tuple[Int64[Tensor, " P"], Int64[Tensor, " P"], Float[Tensor, " P"]]:
    before = place.floor().long().clamp(max=cells - 1)
    return before, (before + 1).clamp(max=cells - 1), place - before
