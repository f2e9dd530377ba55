"""Crops of regions: the inside of their box with some context, and the region's mask."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from pixelwise.ops.superpixels import Regions

CONTEXT = 16 / 227
"""Part of a crop on each side that lies outside the region's box (Hariharan et al., "Simultaneous Detection and
Segmentation", ECCV 2014, section 3.2, after R-CNN)."""


def crop_regions(
    image: Float[Tensor, "1 3 h w"],
    regions: Regions,
    boxes: Float[Tensor, "R 4"],
    which: Int64[Tensor, " M"],
    *,
    size: int,
) -> tuple[Float[Tensor, "M 3 s s"], Float[Tensor, "M s s"]]:
    """The crops of regions, stretched to a square, and the regions' masks in them.

    Each box is enlarged so that a border of CONTEXT lies around it. The image is sampled bilinearly, the mask at the
    nearest pixel; both are zero outside the image, which in a normalised image is the mean colour.
    """
    height, width = image.shape[2:]
    x1, y1, x2, y2 = boxes[which].unbind(dim=1)
    # the enlarged box: its inner 1 - 2 · CONTEXT is the region's
    margin_x = (x2 - x1) * (CONTEXT / (1 - 2 * CONTEXT))
    margin_y = (y2 - y1) * (CONTEXT / (1 - 2 * CONTEXT))
    steps = (torch.arange(size, device=boxes.device, dtype=boxes.dtype) + 0.5) / size
    x = (x1 - margin_x)[:, None] + (x2 - x1 + 2 * margin_x)[:, None] * steps
    y = (y1 - margin_y)[:, None] + (y2 - y1 + 2 * margin_y)[:, None] * steps
    inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
    count = len(which)
    grid = torch.stack(
        [
            (2 * x / width - 1)[:, None, :].expand(count, size, size),
            (2 * y / height - 1)[:, :, None].expand(count, size, size),
        ],
        dim=-1,
    )
    grid = grid.reshape(1, count * size, size, 2)
    read = F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)
    crops = read.view(3, count, size, size).transpose(0, 1) * inside[:, None]
    rows, columns = y.long().clamp(0, height - 1).cpu(), x.long().clamp(0, width - 1).cpu()
    ids = regions.superpixels.long()[rows[:, :, None], columns[:, None, :]]
    masks = regions.members[which.cpu()].gather(1, ids.flatten(1)).view_as(ids)
    return crops, masks.to(crops) * inside
