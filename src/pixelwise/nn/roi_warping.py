"""RoI warping: a box of the feature map resampled to a fixed grid, differentiable in the box's coordinates too.

Dai, He, Sun, "Instance-aware Semantic Segmentation via Multi-task Network Cascades", CVPR 2016, section 3.1, with the
details of the authors' code (roi_warping_layer.cu and its use with 28×28 samples and a 2×2 max pooling).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

ROIS_AT_ONCE = 64
"""Boxes that are sampled at a time before pooling, which bounds memory where no gradient is kept."""


def warp_rois(
    features: Float[Tensor, "B C h w"],
    boxes: Float[Tensor, "R 4"],
    image_index: Int64[Tensor, " R"],
    *,
    stride: int,
    size: int = 14,
    samples: int = 2,
    round_corners: bool = True,
) -> Float[Tensor, "R C size size"]:
    """Sample every box bilinearly at `size · samples` positions a side, then max-pool by `samples` × `samples`.

    The samples lie at the corners of their bins, `start + p · bin` for p = 0, 1, …, not at the centres. Samples more
    than half a cell outside the map are zero; within that half cell they take the border's value.

    Args:
        features: one map for each image.
        boxes: x1 y1 x2 y2 in pixels of the images. Gradients flow into them.
        image_index: the image of each box.
        stride: pixels of the image for each cell.
        size: height and width of the result.
        samples: along each side of a bin; 1 samples directly to `size`, as the first release did in its second phase.
        round_corners: round the corners to whole cells first, as the authors' code does; gradients pass straight
            through the rounding.

    Returns:
        float32 (float64 where the features are), one row for each box.
    """
    if features.dtype != torch.float64:
        features = features.float()  # bfloat16 does not resolve the positions of neighbouring samples
    cells = boxes.to(features.dtype) / stride
    if round_corners:
        cells = cells + ((cells + 0.5).floor() - cells).detach()
    parts: list[Tensor] = []
    places: list[Tensor] = []
    for index in range(features.shape[0]):
        chosen = (image_index == index).nonzero().flatten()
        for some in chosen.split(ROIS_AT_ONCE) if len(chosen) else ():
            parts.append(_warp(features[index], cells[some], size=size, samples=samples))
            places.append(some)
    if not parts:
        # keeps the graph, so that a loss over no boxes still has a gradient of zero
        return features.new_zeros(0, features.shape[1], size, size) + 0 * features.sum()
    return torch.cat(parts)[torch.cat(places).argsort()]


def _warp(
    features: Float[Tensor, "C h w"], cells: Float[Tensor, "R 4"], *, size: int, samples: int
) -> Float[Tensor, "R C size size"]:
    """Boxes of one image, in cells of its map: a product of matrices, rows × map × columns (equation 4)."""
    channels, height, width = features.shape
    side = size * samples
    rows = _weights(cells[:, 1], cells[:, 3], side, height)
    columns = _weights(cells[:, 0], cells[:, 2], side, width)
    # channels last from here on: torch pools so several times faster on a CPU
    read = rows.flatten(0, 1) @ features.permute(1, 2, 0).reshape(height, width * channels)
    read = (columns[:, None] @ read.view(len(cells), side, width, channels)).permute(0, 3, 1, 2)
    return F.max_pool2d(read, samples) if samples > 1 else read


def _weights(
    start: Float[Tensor, " R"], end: Float[Tensor, " R"], samples: int, cells: int
) -> Float[Tensor, "R samples cells"]:
    """Weight of each cell along a side of the map in each sample.

    A sample at a cell's centre has the gradient towards the next cell.
    """
    steps = torch.arange(samples, device=start.device, dtype=start.dtype) / samples
    place = start[:, None] + (end - start).clamp(min=0)[:, None] * steps
    inside = (place >= -0.5) & (place <= cells - 0.5)
    place = place.clamp(0, cells - 1)
    first = place.detach().floor().long()
    fraction = place - first
    weights = torch.zeros(len(start), samples, cells, dtype=start.dtype, device=start.device)
    weights = weights.scatter(2, first[:, :, None], (1 - fraction)[:, :, None])
    weights = weights.scatter_add(2, (first + 1).clamp(max=cells - 1)[:, :, None], fraction[:, :, None])
    return weights * inside[:, :, None]


class _LimitedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, limit: float) -> Tensor:
        ctx.limit = limit
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0].clamp(-ctx.limit, ctx.limit), None


_limit: Callable[[Tensor, float], Tensor] = _LimitedGradient.apply  # pyright: ignore[reportAssignmentType]


def limit_gradient(x: Float[Tensor, "*S"], limit: float) -> Float[Tensor, "*S"]:
    """Return the same values; clamp each element of their gradient to [-limit, limit].

    MNC's authors do so with 1/512 where the gradient of warped features enters the regressed boxes.
    """
    return _limit(x, limit)
