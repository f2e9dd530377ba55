"""Atrous spatial pyramid pooling with image-level features.

Source: Chen, Papandreou, Schroff, Adam, "Rethinking Atrous Convolution" (DeepLab v3, 2017), section 3.3; the separable
form is that of DeepLab v3+ (ECCV 2018), section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.errors import RecipeError
from pixelwise.nn.convolution import DepthwiseConv2d


class ConvNormRelu(nn.Sequential):
    """Convolution without bias, batch norm, ReLU; padded so that the size is kept.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel: side of the kernel.
        dilation: between its taps.
        separable: factorise into a depthwise and a pointwise convolution.
        depthwise_norm: give the depthwise one batch norm and ReLU too, as the DeepLab v3+ paper does and smp does not.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int = 3,
        dilation: int = 1,
        separable: bool = False,
        depthwise_norm: bool = True,
    ) -> None:
        padding = dilation * (kernel - 1) // 2
        layers: list[nn.Module] = []
        if separable:
            layers += [DepthwiseConv2d(in_channels, kernel, padding=padding, dilation=dilation)]
            if depthwise_norm:
                layers += [nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True)]
            kernel, padding, dilation = 1, 0, 1
        layers += [
            nn.Conv2d(in_channels, out_channels, kernel, padding=padding, dilation=dilation, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        ]
        super().__init__(*layers)


class ImagePooling(nn.Module):
    """Global average pooling and a 1×1 convolution, broadcast over the map."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = ConvNormRelu(in_channels, out_channels, kernel=1)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D h w"]:
        """One vector for each image, repeated at every position."""
        pooled = self.conv(x.mean(dim=(2, 3), keepdim=True))
        return pooled.expand(-1, -1, *x.shape[2:])


class ASPP(nn.Module):
    """One 1×1 and several dilated 3×3 convolutions and image pooling in parallel, concatenated and projected by a 1×1
    convolution.

    Args:
        in_channels: of the backbone's deepest map.
        rates: dilations of the 3×3 branches; the paper's 6, 12, 18 belong to output stride 16 and double at 8. Without
            rates the 1×1 branch and image pooling remain: the form for mobile networks (Sandler et al., MobileNetV2,
            2018, section 6.3).
        channels: of each branch and of the result.
        separable: factorise the 3×3 branches.
        depthwise_norm: see ConvNormRelu.
        image_pooling: whether there is the image pooling branch.
        dropout: probability, after the projection.

    Raises:
        RecipeError: a rate below 1.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        rates: Sequence[int],
        channels: int = 256,
        separable: bool = False,
        depthwise_norm: bool = True,
        image_pooling: bool = True,
        dropout: float = 0.1,
    ) -> None:
        if min(rates, default=1) < 1:
            raise RecipeError(f"rates {list(rates)}: at least 1 each")
        super().__init__()
        self.branches = nn.ModuleList([ConvNormRelu(in_channels, channels, kernel=1)])
        for rate in rates:
            self.branches.append(
                ConvNormRelu(in_channels, channels, dilation=rate, separable=separable, depthwise_norm=depthwise_norm)
            )
        if image_pooling:
            self.branches.append(ImagePooling(in_channels, channels))
        self.project = ConvNormRelu(channels * len(self.branches), channels, kernel=1)
        self.dropout = dropout

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D h w"]:
        """Features of several scales."""
        x = self.project(torch.cat([branch(x) for branch in self.branches], dim=1))
        return F.dropout(x, self.dropout, self.training)
