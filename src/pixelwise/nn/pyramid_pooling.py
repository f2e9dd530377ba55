"""Pyramid pooling: means of a map over grids of several sizes, enlarged again and concatenated with the map.

Source: Zhao, Shi, Qi, Wang, Jia, "Pyramid Scene Parsing Network", CVPR 2017, section 3.2 and figure 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.errors import RecipeError

Pooling = Literal["average", "max"]


class PyramidPooling(nn.Module):
    """The map and its poolings, concatenated.

    Args:
        in_channels: of the map.
        bins: cells along each side of each grid; they tile the map, and neighbours share a row where its size is not
            divisible.
        pooling: average or maximum of the pixels of a cell.
        reduced_channels: of each pooled grid after its 1×1 convolution; None skips the convolutions ("DR" in
            table 1).
        align_corners: how the grids are enlarged.
        norm_of_one_bin: whether the grid of one cell has batch norm, which cannot train on a batch of one image;
            without, its convolution has a bias.
        map_first: whether the map comes before its poolings in the result.

    Attributes:
        out_channels: of the result.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        bins: Sequence[int] = (1, 2, 3, 6),
        pooling: Pooling = "average",
        reduced_channels: int | None = 512,
        align_corners: bool = True,
        norm_of_one_bin: bool = True,
        map_first: bool = True,
    ) -> None:
        super().__init__()
        if pooling not in ("average", "max"):
            raise RecipeError(f"pooling '{pooling}': average or max")
        if not bins or min(bins) < 1:
            raise RecipeError(f"bins {tuple(bins)}: one or more grids, each of 1 cell a side or more")
        self.bins, self.pooling = tuple(bins), pooling
        self.align_corners, self.map_first = align_corners, map_first
        self.reduce = nn.ModuleList(
            nn.Identity()
            if reduced_channels is None
            else _reduction(in_channels, reduced_channels, norm=cells > 1 or norm_of_one_bin)
            for cells in self.bins
        )
        self.out_channels = in_channels + len(self.bins) * (reduced_channels or in_channels)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D h w"]:
        """The map and one enlarged map for each grid."""
        pool = F.adaptive_avg_pool2d if self.pooling == "average" else F.adaptive_max_pool2d
        grids = [
            F.interpolate(reduce(pool(x, cells)), size=x.shape[2:], mode="bilinear", align_corners=self.align_corners)
            for cells, reduce in zip(self.bins, self.reduce, strict=True)
        ]
        return torch.cat([x, *grids] if self.map_first else [*grids, x], dim=1)


def _reduction(in_channels: int, out_channels: int, *, norm: bool) -> nn.Sequential:
    if not norm:
        return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1), nn.ReLU(inplace=True))
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)
    )
