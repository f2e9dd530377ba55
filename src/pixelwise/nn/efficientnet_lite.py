"""EfficientNet-Lite: EfficientNet (Tan & Le, 2019) without squeeze-and-excitation and with ReLU6, as Google released it
for small devices; a published network of TensorFlow, of which timm's `tf_efficientnet_lite0` and so on are the form in
torch.

Strided convolutions are padded as TensorFlow pads ("SAME"): evenly, and where that is not possible, more to the right
and below. So an even side's maps lie at its odd places, and an odd side's at its even ones; maps and image are best
aligned by their corners, on sides of 16n + 1 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.nn.backbone import Backbone
from pixelwise.nn.convolution import DepthwiseConv2d
from pixelwise.nn.dilation import FirstBlock, dilate_stages

NAMES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
TIMM_PREFIX = "tf_"
"""Before a name of NAMES, timm's for the same network; timm's without it are networks of other padding."""
_STAGES = ((0,), (1,), (2,), (3, 4), (5, 6))
"""Timm's groups of blocks whose maps have one stride: 2, 4, 8, 16, 32."""


class SameDepthwiseConv2d(DepthwiseConv2d):
    """A depthwise convolution that is padded as TensorFlow pads where it is strided."""

    def forward(self, input: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
        """The convolution."""
        if self.stride != (1, 1):
            input = _pad_same(input, self.kernel_size, self.stride)
        return super().forward(input)


class EfficientNetLiteBackbone(Backbone):
    """EfficientNet-Lite up to the last inverted residual, with timm's keys.

    Args:
        name: one of NAMES.
        output_stride: 8, 16 or 32.
        first_block: see FirstBlock.
    """

    mean = std = (0.5, 0.5, 0.5)

    def __init__(self, name: str, *, output_stride: int, first_block: FirstBlock = "previous") -> None:
        import timm

        super().__init__()
        network: Any = timm.create_model(f"{TIMM_PREFIX}{name}", pretrained=False)
        _quicken(network.blocks)
        self.conv_stem, self.bn1, self.blocks = network.conv_stem, network.bn1, network.blocks
        groups = [[block for part in parts for block in self.blocks[part]] for parts in _STAGES]
        self.strides = dilate_stages(groups, (2, 4, 8, 16, 32), output_stride, first_block=first_block)
        infos = network.feature_info
        self.channels = tuple(info["num_chs"] for info in infos)

    def first_maps(self, images: Float[Tensor, "B 3 H W"], count: int) -> tuple[Float[Tensor, "B C h w"], ...]:
        """The maps after so many first stages."""
        x = self.bn1(self.conv_stem(images))  # with the activation
        maps: list[Tensor] = []
        for parts in _STAGES[:count]:
            for part in parts:
                x = self.blocks[part](x)
            maps.append(x)
        return tuple(maps)

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """The stem with the first stage, and the others."""
        first, *others = (tuple(self.blocks[part] for part in parts) for parts in _STAGES[: len(self.strides)])
        return ((self.conv_stem, self.bn1, *first), *others)

    def shorten(self, maps: int) -> None:
        """Keep so many first stages."""
        self.blocks = self.blocks[: _STAGES[maps - 1][-1] + 1]
        self.strides, self.channels = self.strides[:maps], self.channels[:maps]


def _quicken(blocks: nn.Module) -> None:
    """Replace timm's depthwise convolutions in place by those of `nn.convolution`."""
    for parent in list(blocks.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d) and child.groups > 1:
                made = SameDepthwiseConv2d if child.stride != (1, 1) else DepthwiseConv2d
                side = child.kernel_size[0]
                own = made(child.groups, side, stride=child.stride[0], padding=int(child.padding[0]))
                own.weight = child.weight
                setattr(parent, name, own)


def _pad_same(
    x: Float[Tensor, "B C H W"], kernel: tuple[int, ...], stride: tuple[int, ...]
) -> Float[Tensor, "B C h w"]:
    """Zeros around a map, so that a strided convolution has a place for each stride begun."""
    margins: list[int] = []
    for side, taps, step in zip(x.shape[:1:-1], kernel[::-1], stride[::-1], strict=True):
        zeros = max((-(-side // step) - 1) * step + taps - side, 0)
        margins += [zeros // 2, zeros - zeros // 2]
    return F.pad(x, margins)
