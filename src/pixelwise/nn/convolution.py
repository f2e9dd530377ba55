"""A convolution with what usually follows it."""

from __future__ import annotations

from torch import nn


def convolution(
    in_channels: int, out_channels: int, kernel: int = 3, *, has_norm: bool = False, has_activation: bool = False
) -> nn.Sequential:
    """A convolution that keeps the size, then batch norm and ReLU where they are asked for; biased without batch norm.

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
