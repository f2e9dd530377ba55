"""A convolution with norm and activation, a strided and a depthwise convolution, and group norm for any width."""

from __future__ import annotations

import math
from typing import cast

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.ops.depthwise_convolution import depthwise_convolution


def convolution(
    in_channels: int, out_channels: int, kernel: int = 3, *, has_norm: bool = False, has_activation: bool = False
) -> nn.Sequential:
    """A convolution that keeps the size, with optional batch norm and ReLU; it has a bias without batch norm.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel: side of the kernel, odd.
        has_norm: whether batch norm follows.
        has_activation: whether ReLU follows.
    """
    layers: list[nn.Module] = [nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=not has_norm)]
    if has_norm:
        layers.append(nn.BatchNorm2d(out_channels))
    if has_activation:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class StridedConv2d(nn.Conv2d):
    """A 3×3 convolution with stride 2, as `nn.Conv2d`, also over maps that are one pixel wide.

    For these the CPU's kernel of half precision leaves a part of the weight's gradient uninitialised, sometimes NaN. A
    stride along the height alone gives the same map and a right gradient.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, stride=2, padding=1)

    def forward(self, input: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """The convolution."""
        return F.conv2d(input, self.weight, self.bias, (2, 2 if input.shape[3] > 1 else 1), self.padding)


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution without bias, as `nn.Conv2d`, whose gradients are quick on the CPU.

    See `ops.depthwise_convolution`.

    Args:
        channels: of input and output.
        kernel: side of the kernel, odd.
        stride: of the convolution.
        padding: zeros around the input.
        dilation: between the taps.
    """

    def __init__(self, channels: int, kernel: int = 3, *, stride: int = 1, padding: int = 0, dilation: int = 1) -> None:
        super().__init__(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False)

    def forward(self, input: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
        """The convolution."""
        (down, across), (below, beside) = self.stride, self.dilation
        rows, columns = cast("tuple[int, int]", self.padding)
        return depthwise_convolution(
            input, self.weight, stride=(down, across), padding=(rows, columns), dilation=(below, beside)
        )


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm with 32 groups as in the paper, or with as many as divide the channels, each of several channels.

    A group of one channel would remove the mean of the whole image from a narrow layer. Source: Wu, He, "Group
    Normalization", ECCV 2018, section 4.1.
    """
    groups = math.gcd(32, channels)
    return nn.GroupNorm(max(groups // 2, 1) if groups == channels else groups, channels)
