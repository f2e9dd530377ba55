"""Correlation of two maps at neighbouring positions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pixelwise.ops.precision import at_least_float32


def correlate(
    one: Float[Tensor, "B C H W"], other: Float[Tensor, "B C H W"], *, radius: int
) -> Float[Tensor, "B D H W"]:
    """Products of the features at each position with those of the other map around it, averaged over the channels.

    Source: Dosovitskiy et al., "FlowNet", ICCV 2015, section 3.2, with patches of one pixel.

    Args:
        one: gives the positions of the result.
        other: is zero outside.
        radius: of the square neighbourhood.

    Returns:
        (2·radius + 1)² channels: the other's rows from -radius on, in each its columns from -radius on.
    """
    one, other = at_least_float32(one), at_least_float32(other)
    height, width = one.shape[2:]
    other = F.pad(other, (radius, radius, radius, radius))
    steps = range(2 * radius + 1)
    # one displacement at a time, to save memory
    return torch.stack(
        [(one * other[:, :, y : y + height, x : x + width]).mean(dim=1) for y in steps for x in steps], dim=1
    )
