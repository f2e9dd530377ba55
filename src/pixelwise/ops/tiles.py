"""Sliding windows over a large image, and their logits joined in little memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float, Int32, UInt8
from torch import Tensor

from pixelwise.ops.resize import SLAB_BYTES, enlarge_rows


def window_starts(length: int, window: int) -> list[int]:
    """Starts of the windows of `window` pixels along a side of `length` pixels.

    Neighbours overlap by a third; the last window ends with the side. A side no longer than a window has one, at 0.
    """
    if length <= window:
        return [0]
    stride = math.ceil(2 * window / 3)
    return [*range(0, length - window, stride), length - window]


def join_windows(
    rows: Iterable[Sequence[Float[Tensor, "K h w"]]],
    *,
    size_hw: tuple[int, int],
    window: int,
    align_corners: bool = False,
) -> tuple[UInt8[Tensor, "H W"] | Int32[Tensor, "H W"], Float[Tensor, "H W"]]:
    """Average the probabilities of overlapping windows and reduce them to ids.

    Some rows at a time, logits are enlarged bilinearly to the window's size, passed through the softmax and averaged.
    K×H×W is never held.

    Args:
        rows: for each row of windows, from above, the logits of its windows from the left; starts are those of
            `window_starts`; consumed one row after the other.
        size_hw: of the image.
        window: side of the windows in pixels; shorter where the image is shorter.
        align_corners: how logits are enlarged, see `argmax_resized`.

    Returns:
        ids u8 (i32 where K > 255), and the averaged probability of that class.
    """
    height, width = size_hw
    tops, side = window_starts(height, window), min(window, height)
    reaching: list[tuple[int, Sequence[Tensor]]] = []
    ids, confidence = torch.empty(0), torch.empty(0)
    for top, next_top, row in zip(tops, [*tops[1:], height], rows, strict=True):
        reaching = [(other, scores) for other, scores in reaching if other + side > top] + [(top, row)]
        classes = row[0].shape[0]
        if not top:
            ids = torch.empty(size_hw, dtype=torch.uint8 if classes <= 255 else torch.int32, device=row[0].device)
            confidence = torch.empty(size_hw, device=row[0].device)
        slab = max(1, SLAB_BYTES // (4 * classes * width))
        for start in range(top, next_top, slab):
            stop = min(start + slab, next_top)
            best = _mean_probabilities(
                reaching, start, stop, size_hw=size_hw, window=window, align_corners=align_corners
            ).max(dim=0)
            ids[start:stop], confidence[start:stop] = best.indices, best.values
    return ids, confidence


def _mean_probabilities(
    reaching: list[tuple[int, Sequence[Float[Tensor, "K h w"]]]],
    start: int,
    stop: int,
    *,
    size_hw: tuple[int, int],
    window: int,
    align_corners: bool,
) -> Float[Tensor, "K rows W"]:
    """Rows start…stop-1 of the image, averaged over the windows that cover each pixel."""
    side_y, side_x = min(window, size_hw[0]), min(window, size_hw[1])
    scores = reaching[0][1][0]
    total = torch.zeros(scores.shape[0], stop - start, size_hw[1], device=scores.device)
    count = torch.zeros(stop - start, size_hw[1], device=scores.device)
    for top, row in reaching:
        end = min(stop, top + side_y)
        if end <= start:
            continue
        for left, coarse in zip(window_starts(size_hw[1], window), row, strict=True):
            enlarged = enlarge_rows(
                coarse.float(), start - top, end - top, (side_y, side_x), align_corners=align_corners
            )
            total[:, : end - start, left : left + side_x] += enlarged.softmax(dim=0)
            count[: end - start, left : left + side_x] += 1
    return total.div_(count)
