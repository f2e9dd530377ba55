"""Deformable convolution, whose taps sample bilinearly at displaced positions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torchvision.ops import deform_conv2d


def convolve_deformed(
    x: Float[Tensor, "B C H W"],
    offset: Float[Tensor, "B T2 h w"],
    weight: Float[Tensor, "D C k k"],
    bias: Float[Tensor, " D"] | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    factor: Float[Tensor, "B T h w"] | None = None,
) -> Float[Tensor, "B D h w"]:
    """The convolution; values outside the map are zero, with a linear transition within one pixel.

    Source: Dai et al., "Deformable Convolutional Networks", ICCV 2017, section 2.1; with factors Zhu et al.,
    "Deformable ConvNets v2", CVPR 2019, section 3.2.

    Args:
        x: the map.
        offset: displacement of each of the T = k·k taps, row by row, down and to the right, in pixels.
        weight: of the taps.
        bias: of the convolution.
        stride: pixels between two positions.
        padding: pixels of zero padding on each side.
        factor: of each tap; None for ones.
    """
    if x.device.type != "cpu":
        sides = (stride, stride), (padding, padding)
        return deform_conv2d(x, offset, weight, bias, sides[0], sides[1], mask=factor)
    # torchvision's kernel for CPUs takes 2 to 3 times as long, and its gradient 4 to 7 times (one core). The sampled
    # values have nine times the map's size and are computed again for the gradient, as there
    if torch.is_grad_enabled():
        result = checkpoint(
            _by_sampling, x, offset, weight, stride, padding, factor, use_reentrant=False, preserve_rng_state=False
        )
        assert isinstance(result, Tensor)
    else:
        result = _by_sampling(x, offset, weight, stride, padding, factor)
    return result if bias is None else result + bias[:, None, None]


def _by_sampling(
    x: Float[Tensor, "B C H W"],
    offset: Float[Tensor, "B T2 h w"],
    weight: Float[Tensor, "D C k k"],
    stride: int,
    padding: int,
    factor: Float[Tensor, "B T h w"] | None,
) -> Float[Tensor, "B D h w"]:
    """Sample the values of all taps, then multiply by the weights in one matrix product."""
    height, width = x.shape[2:]
    rows, columns = offset.shape[2:]
    side = weight.shape[3]
    taps = torch.arange(side, dtype=x.dtype) - padding
    moved = offset.unflatten(1, (-1, 2))
    down = moved[:, :, 0] + taps.repeat_interleave(side)[:, None, None] + (stride * torch.arange(rows))[:, None]
    right = moved[:, :, 1] + taps.repeat(side)[:, None, None] + stride * torch.arange(columns)
    # from -1 to 1 between the outer edges of the outermost pixels, see `ops.warp.warp`
    grid = torch.stack([(2 * right + 1) / width - 1, (2 * down + 1) / height - 1], dim=-1)
    read = F.grid_sample(x, grid.flatten(1, 2), mode="bilinear", padding_mode="zeros", align_corners=False)
    read = read.unflatten(2, (-1, rows))
    if factor is not None:
        read = read * factor[:, None]
    return (weight.flatten(1) @ read.flatten(3).flatten(1, 2)).unflatten(2, (rows, columns))
