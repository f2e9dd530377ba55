"""Feature pyramid network: maps of one width at several strides, each combined with the deeper ones.

Source: Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.nn.backbone import Backbone
from pixelwise.nn.convolution import StridedConv2d, convolution

Extra = Literal["none", "pool", "convolutions"]
"""Extra levels after the deepest: none; every second pixel of it (P6 of Mask R-CNN); or levels by successive 3×3
convolutions of stride 2 without activation (P6 and P7 of YOLACT).
"""


class FPN(nn.Module):
    """1×1 convolutions to one width, sums from the deepest map upwards, and a 3×3 convolution of each sum.

    Args:
        in_channels: of each map, from the finest.
        channels: of each level.
        upsampling: how a deeper sum is enlarged to the size of the next finer one: `nearest`, or `bilinear` as in
            YOLACT.
        has_norm: batch norm after every convolution, which then has no bias, as in torchvision's second version.
        has_activation: ReLU after the 3×3 convolutions, as in YOLACT.
        extra: see Extra.
        extra_levels: their number.
        global_context: add a linear projection of the mean of the deepest map to every cell of the deepest sum, as
            UPSNet does on COCO.

    Attributes:
        channels: of each level.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        *,
        channels: int = 256,
        upsampling: Literal["nearest", "bilinear"] = "nearest",
        has_norm: bool = False,
        has_activation: bool = False,
        extra: Extra = "pool",
        extra_levels: int = 1,
        global_context: bool = False,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.upsampling = upsampling
        self.extra_pools = extra_levels if extra == "pool" else 0
        self.lateral = nn.ModuleList(convolution(width, channels, 1, has_norm=has_norm) for width in in_channels)
        self.output = nn.ModuleList(
            convolution(channels, channels, 3, has_norm=has_norm, has_activation=has_activation) for _ in in_channels
        )
        self.extra = nn.ModuleList(
            StridedConv2d(channels, channels) for _ in range(extra_levels if extra == "convolutions" else 0)
        )
        self.context = nn.Linear(in_channels[-1], channels) if global_context else None
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Float[Tensor, "B _ _ _"]]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """The levels, from the finest, the extra ones last.

        Args:
            maps: of the backbone, from the finest.
        """
        return self.refine(self.join(maps))

    def join(self, maps: Sequence[Float[Tensor, "B _ _ _"]]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """The sums: each map at the common width, plus the enlarged sum of the next deeper one."""
        return self.add(self.widen(maps))

    def widen(self, maps: Sequence[Float[Tensor, "B _ _ _"]]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """Each map at the common width."""
        widened = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        if self.context is not None:
            widened[-1] = widened[-1] + self.context(maps[-1].mean(dim=(2, 3)))[:, :, None, None]
        return tuple(widened)

    def add(self, maps: Sequence[Float[Tensor, "B _ _ _"]]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """Each map of the common width, from the finest, plus the enlarged sum of the next deeper one."""
        sums: list[Tensor] = []
        for x in reversed(maps):
            if sums:
                align_corners = None if self.upsampling == "nearest" else False
                x = x + F.interpolate(sums[-1], size=x.shape[2:], mode=self.upsampling, align_corners=align_corners)
            sums.append(x)
        return tuple(reversed(sums))

    def refine(self, sums: Sequence[Float[Tensor, "B _ _ _"]]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """The levels of the sums, and the extra ones."""
        levels = [output(x) for output, x in zip(self.output, sums, strict=True)]
        for _ in range(self.extra_pools):
            levels.append(levels[-1][:, :, ::2, ::2])
        for reduction in self.extra:
            levels.append(reduction(levels[-1]))
        return tuple(levels)


def pyramid_maps(backbone: Backbone, strides: Sequence[int] = (4, 8, 16, 32)) -> tuple[int, ...]:
    """The indices of the backbone's deepest maps of the strides. Raises RecipeError if one is missing."""
    return tuple(backbone.deepest(stride) for stride in strides)
