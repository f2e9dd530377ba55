"""Warping of maps by optical flow."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pixelwise.ops.precision import at_least_float32


def warp(
    x: Float[Tensor, "B C H W"], flow: Float[Tensor, "B 2 H W"], *, outside: Literal["zeros", "border"] = "zeros"
) -> Float[Tensor, "B C H W"]:
    """Sample the map bilinearly at each position plus the flow there: result(x, y) = map(x + flow_x, y + flow_y).

    With the flow from a target frame to a reference frame, the reference is warped to the target. A flow of zero is the
    identity. Source: Jaderberg et al., "Spatial Transformer Networks", NIPS 2015.

    Args:
        x: the map.
        flow: to the right and down, in pixels of this map; resize the flow of images that are four times as large, and
            divide its values by four.
        outside: values beyond the outermost pixels' centres: zeros, with a linear transition within one pixel, or the
            nearest pixel.
    """
    x = at_least_float32(x)
    height, width = x.shape[2:]
    rows = torch.arange(height, dtype=x.dtype, device=x.device)[:, None]
    columns = torch.arange(width, dtype=x.dtype, device=x.device)
    flow = flow.to(x.dtype)
    # without aligned corners grid_sample's -1 to 1 span the outer edges of the outermost pixels, so that a map of a
    # single row has a scale too; the grid must be made for the same convention
    grid = torch.stack(
        [(2 * (columns + flow[:, 0]) + 1) / width - 1, (2 * (rows + flow[:, 1]) + 1) / height - 1], dim=-1
    )
    return F.grid_sample(x, grid, mode="bilinear", padding_mode=outside, align_corners=False)
