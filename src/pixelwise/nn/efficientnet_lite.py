"""EfficientNet-Lite: EfficientNet (Tan & Le, 2019) without squeeze-and-excitation and with ReLU6, as Google released it
for small devices; a published network of TensorFlow, of which timm's `tf_efficientnet_lite0` and so on are the form in
torch.

Strided convolutions are padded as TensorFlow pads ("SAME"): evenly, and where that is not possible, more to the right
and below. So an even side's maps lie at its odd places, and an odd side's at its even ones; maps and image are best
aligned by their corners, on sides of 16n + 1 pixels.
"""

from __future__ import annotations

from collections import OrderedDict
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


class SamePadding(nn.Module):
    """Zeros around a map, as TensorFlow pads for a convolution that follows without padding of its own.

    Args:
        kernel: side of the convolution's kernel.
        stride: of the convolution.
    """

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
        """The larger map, with a place for each stride begun."""
        margins: list[int] = []
        for side in (x.shape[3], x.shape[2]):
            zeros = max((-(-side // self.stride) - 1) * self.stride + self.kernel - side, 0)
            margins += [zeros // 2, zeros - zeros // 2]
        return F.pad(x, margins)


class ResidualBlock(nn.Sequential):
    """An inverted residual that is added to its input."""

    def forward(self, input: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """The sum of both."""
        return input + super().forward(input)


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
        self.pad_stem = SamePadding(3, 2)
        self.conv_stem = nn.Conv2d(3, network.conv_stem.out_channels, 3, stride=2, bias=False)
        self.conv_stem.weight = network.conv_stem.weight
        self.bn1, self.act1 = _plain_norm(network.bn1), nn.ReLU6(inplace=True)
        blocks = [[_own_block(block) for block in part] for part in network.blocks]
        self.blocks = nn.Sequential(*(nn.Sequential(*part) for part in blocks))
        groups = [[block for part in parts for block in blocks[part]] for parts in _STAGES]
        self.strides = dilate_stages(groups, (2, 4, 8, 16, 32), output_stride, first_block=first_block)
        for block in (block for group in groups for block in group):
            if hasattr(block, "pad") and block.conv_dw.stride == (1, 1):
                block.pad = nn.Identity()  # dilated, it is padded evenly
        self.channels = tuple(info["num_chs"] for info in network.feature_info)

    def first_maps(self, images: Float[Tensor, "B 3 H W"], count: int) -> tuple[Float[Tensor, "B C h w"], ...]:
        """The maps after so many first stages."""
        x = self.act1(self.bn1(self.conv_stem(self.pad_stem(images))))
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


def _own_block(block: Any) -> nn.Sequential:
    """Timm's block as a plain sequence with the same names, which `inference.fusion` knows how to fuse."""
    layers: dict[str, nn.Module] = {}
    for name, child in block.named_children():
        number = name.removeprefix("bn")
        if isinstance(child, nn.BatchNorm2d):
            layers[name] = _plain_norm(child)
            if isinstance(child.act, nn.ReLU6):
                layers[f"act{number}"] = nn.ReLU6(inplace=True)
        elif name == "conv_dw":
            (stride, _), (side, _) = child.stride, child.kernel_size
            if stride > 1:
                layers["pad"] = SamePadding(side, stride)
            padding = 0 if stride > 1 else (side - 1) // 2
            layers[name] = DepthwiseConv2d(child.groups, side, stride=stride, padding=padding)
            layers[name].weight = child.weight
        elif isinstance(child, nn.Conv2d):
            layers[name] = child
    return (ResidualBlock if block.has_skip else nn.Sequential)(OrderedDict(layers))


def _plain_norm(norm: Any) -> nn.BatchNorm2d:
    """A batch norm of timm's without the activation in it."""
    plain = nn.BatchNorm2d(norm.num_features, eps=norm.eps, momentum=norm.momentum)
    plain.load_state_dict(norm.state_dict())
    return plain
