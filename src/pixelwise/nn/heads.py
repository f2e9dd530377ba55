"""Heads that map features to logits."""

from __future__ import annotations

from torch import nn


class FCNHead(nn.Sequential):
    """A 3×3 convolution with batch norm and ReLU, dropout, and a 1×1 convolution to the logits.

    The auxiliary classifier of PSPNet (section 3.3), and the whole head of torchvision's FCN.

    Args:
        in_channels: of the features.
        num_classes: channels of the logits.
        channels: between the two convolutions; a quarter of `in_channels` if not given.
        dropout: probability.
        dropout_of_channels: drop whole channels, not single values.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        channels: int | None = None,
        dropout: float = 0.1,
        dropout_of_channels: bool = False,
    ) -> None:
        channels = channels or in_channels // 4
        super().__init__(
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Dropout2d(dropout) if dropout_of_channels else nn.Dropout(dropout),
            nn.Conv2d(channels, num_classes, 1),
        )
