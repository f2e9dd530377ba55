"""The refinement of regions in SDS: a coarse map over a region's box and its mean in each superpixel.

Hariharan, Arbeláez, Girshick, Malik, "Simultaneous Detection and Segmentation", ECCV 2014, section 3.4, with the
numbers of the authors' code. The weights are fitted in `nn.region_solvers`.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pixelwise.ops.superpixels import Regions, mean_in_superpixels

CELLS = 10
"""Cells along each side of the grid."""
PADDING = 16 / 195
"""Enlargement of a box on each side, as a fraction of its own side."""


def padded_box(box: Float[Tensor, " 4"]) -> Float[Tensor, " 4"]:
    """The enlarged box of the refinement."""
    x1, y1, x2, y2 = box.unbind()
    dx, dy = (x2 - x1) * PADDING, (y2 - y1) * PADDING
    return torch.stack([x1 - dx, y1 - dy, x2 + dx, y2 + dy])


def coarse_mask(regions: Regions, which: int, box: Float[Tensor, " 4"]) -> Float[Tensor, " cells"]:
    """0 or 1 for each of 10×10 cells of a box: whether the pixel at its centre is the region's."""
    height, width = regions.superpixels.shape
    x1, y1, x2, y2 = box.tolist()
    steps = (torch.arange(CELLS) + 0.5) / CELLS
    x, y = (x1 + (x2 - x1) * steps).floor().long(), (y1 + (y2 - y1) * steps).floor().long()
    inside = ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))[None, :]
    ids = regions.superpixels[y.clamp(0, height - 1)][:, x.clamp(0, width - 1)].long()
    return (regions.members[which][ids] & inside).float().flatten()


def superpixel_means(
    coarse: Float[Tensor, "10 10"], box: Float[Tensor, " 4"], regions: Regions
) -> tuple[Float[Tensor, " S"], Bool[Tensor, " S"]]:
    """Mean over each superpixel of a 10×10 map that fills a box, zero outside; which superpixels touch the box."""
    height, width = regions.superpixels.shape
    x1, y1, x2, y2 = box.tolist()
    rows = ((torch.arange(height) + 0.5 - y1) * CELLS / max(y2 - y1, 1e-6)).floor().long()
    columns = ((torch.arange(width) + 0.5 - x1) * CELLS / max(x2 - x1, 1e-6)).floor().long()
    is_inside = ((rows >= 0) & (rows < CELLS))[:, None] & ((columns >= 0) & (columns < CELLS))[None, :]
    pasted = coarse[rows.clamp(0, CELLS - 1)][:, columns.clamp(0, CELLS - 1)] * is_inside
    count = regions.members.shape[1]
    means = mean_in_superpixels(pasted, regions.superpixels, count)
    return means, mean_in_superpixels(is_inside.float(), regions.superpixels, count) > 0
