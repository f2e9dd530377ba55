"""Deformable convolution: Dai et al., "Deformable Convolutional Networks", ICCV 2017, section 2.1; with modulation:
Zhu, Hu, Lin, Dai, "Deformable ConvNets v2: More Deformable, Better Results", CVPR 2019, section 3.2."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from pixelwise.errors import RecipeError
from pixelwise.nn.backbones import ResNetBackbone
from pixelwise.ops.deformable_convolution import convolve_deformed


class DeformableConv2d(nn.Module):
    """A convolution whose taps another convolution at the same position displaces and weights.

    Each tap samples bilinearly at its position plus an offset in pixels of the map, times a factor in (0, 1) if it is
    modulated. Both come from a convolution that is initialised as zero, so that a new layer is an ordinary convolution,
    times one half if it is modulated.

    Args:
        in_channels: of the map.
        out_channels: of the result.
        kernel: side, odd.
        stride: of both convolutions.
        is_modulated: whether taps have factors (version 2), or offsets alone (version 1).
        has_bias: whether a bias is added.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        is_modulated: bool = True,
        has_bias: bool = True,
    ) -> None:
        super().__init__()
        self.taps, self.stride, self.padding = kernel**2, stride, kernel // 2
        self.is_modulated = is_modulated
        bound = 1 / math.sqrt(in_channels * self.taps)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel, kernel).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if has_bias else None
        # the offsets down and to the right of each tap, then the logit of the factor of each tap
        values = (3 if is_modulated else 2) * self.taps
        moving = nn.Conv2d(in_channels, values, kernel, stride=stride, padding=self.padding)
        for parameter in moving.parameters():
            nn.init.zeros_(parameter)
        if is_modulated:
            self.conv_offset_mask = moving
        else:
            self.conv_offset = moving

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """The convolution at the displaced positions."""
        # the operator needs all tensors in one precision, which autocast would mix
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.weight.dtype)
            moved = (self.conv_offset_mask if self.is_modulated else self.conv_offset)(x)
            offset = moved[:, : 2 * self.taps]
            mask = moved[:, 2 * self.taps :].sigmoid() if self.is_modulated else None
            return convolve_deformed(
                x, offset, self.weight, self.bias, stride=self.stride, padding=self.padding, factor=mask
            )


def deform(backbone: ResNetBackbone, *, interval: int = 1, is_modulated: bool = True, has_bias: bool = True) -> None:
    """Make 3×3 convolutions of a ResNet's second to fourth stage deformable, with the weights that they have.

    Args:
        backbone: of bottlenecks, not dilated.
        interval: of each stage the first block, and every one whose number is a multiple of this; YOLACT++ has 3 in
            its ResNet-101, so that it costs less time (TPAMI 2020, section 5.1).
        is_modulated: see DeformableConv2d.
        has_bias: likewise; YOLACT++ has one beside the batch norm, UPSNet none.

    Raises:
        RecipeError: other blocks than bottlenecks, or dilated ones.
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
            new = DeformableConv2d(
                old.in_channels,
                old.out_channels,
                stride=old.stride[0],
                is_modulated=is_modulated,
                has_bias=has_bias,
            )
            new.weight = nn.Parameter(old.weight)
            setattr(block, "conv2", new)  # noqa: B010 (of another type)
            names = (name for name, _ in new.named_parameters() if name != "weight")
            backbone.added |= {f"layer{number}.{index}.conv2.{name}" for name in names}
