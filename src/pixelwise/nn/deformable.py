"""Deformable convolution with modulation: Zhu, Hu, Lin, Dai, "Deformable ConvNets v2: More Deformable, Better Results",
CVPR 2019, section 3.2."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck
from torchvision.ops import deform_conv2d

from pixelwise.errors import RecipeError
from pixelwise.nn.backbones import ResNetBackbone


class DeformableConv2d(nn.Module):
    """A convolution whose taps are moved and weighted by what another convolution sees at the same place.

    Each tap reads bilinearly at its place plus an offset in pixels of the map, times a factor in (0, 1). Both come from
    a convolution that begins at zero, so that a new layer is an ordinary convolution times a half.

    Args:
        in_channels: of the map.
        out_channels: of the result.
        kernel: side, odd.
        stride: of both convolutions.
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.taps, self.stride, self.padding = kernel**2, (stride, stride), (kernel // 2, kernel // 2)
        bound = 1 / math.sqrt(in_channels * self.taps)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel, kernel).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        # of each tap the offset down and to the right, then of each tap the factor before the sigmoid
        self.conv_offset_mask = nn.Conv2d(in_channels, 3 * self.taps, kernel, stride=stride, padding=self.padding)
        nn.init.zeros_(self.conv_offset_mask.weight)
        nn.init.zeros_(self.conv_offset_mask.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """The convolution at the moved places."""
        # torchvision's operator takes all its tensors in one precision, which autocast would mix
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.weight.dtype)
            moved = self.conv_offset_mask(x)
            offset, mask = moved[:, : 2 * self.taps], moved[:, 2 * self.taps :].sigmoid()
            return deform_conv2d(x, offset, self.weight, self.bias, stride=self.stride, padding=self.padding, mask=mask)


def deform(backbone: ResNetBackbone, *, interval: int = 1) -> None:
    """Make 3×3 convolutions of a ResNet's second to fourth stage deformable, with the weights that they have.

    Args:
        backbone: of bottlenecks, not dilated.
        interval: of each stage the first block, and every one whose number is a multiple of this; YOLACT++ has 3 in
            its ResNet-101, so that it costs less time (TPAMI 2020, section 5.1).

    Raises:
        RecipeError: the blocks are others.
    """
    for number in (2, 3, 4):
        for index, block in enumerate(getattr(backbone, f"layer{number}")):
            if index % interval:
                continue
            old = getattr(block, "conv2", None)
            if not isinstance(block, Bottleneck) or not isinstance(old, nn.Conv2d) or old.dilation != (1, 1):
                raise RecipeError(
                    "deformable convolutions: only in an undilated ResNet of bottlenecks, from resnet50 on"
                )
            new = DeformableConv2d(old.in_channels, old.out_channels, stride=old.stride[0])
            new.weight = nn.Parameter(old.weight)
            setattr(block, "conv2", new)  # noqa: B010 (of another type)
            names = (name for name, _ in new.named_parameters() if name != "weight")
            backbone.added |= {f"layer{number}.{index}.conv2.{name}" for name in names}
