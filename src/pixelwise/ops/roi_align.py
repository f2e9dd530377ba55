"""RoIAlign without gradients, on the CPU, for maps laid out with channels last.

Every cell is a weighted sum of few pixels, and a pixel's channels lie next to each other: a sum of rows of a table, for
which torch has `embedding_bag`. Measured beside torchvision's operator on one core, 256 channels: 1,000 boxes of 7×7
cells in 0.06 s (0.62), 100 boxes of 14×14 in 0.01 s (0.21).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor


def sampled_roi_align(
    x: Float[Tensor, "B C h w"],
    rois: Float[Tensor, "R 5"],
    size: int,
    scale: float,
    *,
    sampling_ratio: int,
    is_aligned: bool,
) -> Float[Tensor, "R C s s"]:
    """As `torchvision.ops.roi_align`, up to rounding; boxes get no gradient.

    Args:
        x: best laid out with channels last, as the result is.
        rois: index of the image, x1 y1 x2 y2 in its pixels.
        size: side of the result in cells.
        scale: cells of the map for each pixel of the image.
        sampling_ratio: samples along each side of a cell, at least 1.
        is_aligned: whether pixels' centres lie at half coordinates.
    """
    channels, height, width = x.shape[1:]
    table = x.permute(0, 2, 3, 1).reshape(-1, channels)
    shift = 0.5 if is_aligned else 0.0
    low, high = rois[:, 1:3] * scale - shift, rois[:, 3:5] * scale - shift
    sides = high - low if is_aligned else (high - low).clamp(min=1.0)
    column, weight_x = _neighbours(low[:, 0], sides[:, 0], size, sampling_ratio, width)
    row, weight_y = _neighbours(low[:, 1], sides[:, 1], size, sampling_ratio, height)
    first = (rois[:, 0].long() * height)[:, None, None]
    # box, row and column of the cell, then the pixels that are summed
    place = ((first + row) * width)[:, :, None, :, None] + column[:, None, :, None, :]
    weight = weight_y[:, :, None, :, None] * weight_x[:, None, :, None, :]
    pixels = (2 * sampling_ratio) ** 2
    cells = F.embedding_bag(place.reshape(-1, pixels), table, per_sample_weights=weight.reshape(-1, pixels), mode="sum")
    return cells.view(len(rois), size, size, channels).permute(0, 3, 1, 2)


def _neighbours(
    low: Float[Tensor, " R"], side: Float[Tensor, " R"], size: int, samples: int, length: int
) -> tuple[Int64[Tensor, "R s p"], Float[Tensor, "R s p"]]:
    """For each cell along a side the pixels between which its samples lie, and their weights.

    Samples more than a pixel outside are zero, others outside take the border's pixel.
    """
    number = torch.arange(size * samples, device=low.device, dtype=low.dtype)
    step = side[:, None] / size
    cell, sample = number.div(samples, rounding_mode="floor"), number % samples
    place = low[:, None] + cell * step + (sample + 0.5) * step / samples
    is_inside = (place >= -1) & (place <= length)
    place = place.clamp(0, length - 1)
    before = place.floor()
    fraction = place - before
    shares = torch.stack([1 - fraction, fraction], dim=2) * (is_inside / samples)[:, :, None]
    pixels = torch.stack([before, (before + 1).clamp(max=length - 1)], dim=2).long()
    return pixels.view(len(low), size, 2 * samples), shares.view(len(low), size, 2 * samples)
