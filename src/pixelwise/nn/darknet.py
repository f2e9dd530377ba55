"""DarkNet-53: Redmon & Farhadi, "YOLOv3: An Incremental Improvement", 2018, table 1, without its classifier."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.nn.backbone import Backbone

BLOCKS = (1, 2, 8, 8, 4)
"""Residual blocks of each stage."""
LEAK = 0.1
"""Slope of the activation below zero, as in the authors' C code."""


class DarkNetBackbone(Backbone):
    """Five stages, each a strided convolution and residual blocks of 1×1 and 3×3; takes RGB in [0, 1] without
    normalisation.

    The parts of a stage have the keys that YOLACT's release gives them (`layers.0.1.conv1.0.weight`).
    """

    mean = (0.0, 0.0, 0.0)
    std = (1.0, 1.0, 1.0)

    def __init__(self) -> None:
        super().__init__()
        self.stem = _convolution(3, 32, kernel=3)
        self.channels = tuple(64 * 2**number for number in range(len(BLOCKS)))
        self.strides = tuple(2 ** (number + 1) for number in range(len(BLOCKS)))
        self.layers = nn.ModuleList(
            nn.Sequential(
                _convolution(width // 2, width, kernel=3, stride=2), *(_Residual(width) for _ in range(blocks))
            )
            for width, blocks in zip(self.channels, BLOCKS, strict=True)
        )

    def first_maps(self, images: Float[Tensor, "B 3 H W"], count: int) -> tuple[Float[Tensor, "B C h w"], ...]:
        """The maps after the first `count` stages."""
        x = self.stem(images)
        maps: list[Tensor] = []
        for layer in islice(self.layers, count):
            x = layer(x)
            maps.append(x)
        return tuple(maps)

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """The stem with the first stage, and the others."""
        first, *others = self.layers
        return ((self.stem, first), *((layer,) for layer in others))

    def shorten(self, maps: int) -> None:
        """Keep the first `maps` stages."""
        self.layers = self.layers[:maps]
        self.strides, self.channels = self.strides[:maps], self.channels[:maps]


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _convolution(channels, channels // 2, kernel=1)
        self.conv2 = _convolution(channels // 2, channels, kernel=3)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        return x + self.conv2(self.conv1(x))


def _convolution(in_channels: int, channels: int, *, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels),
        nn.LeakyReLU(LEAK, inplace=True),
    )
