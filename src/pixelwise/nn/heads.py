"""From features to scores, and from scores to the labels of the original image."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.ops.resize import argmax_resized
from pixelwise.types import Annotation, Batch


class FCNHead(nn.Sequential):
    """A 3×3 convolution with batch norm and ReLU, dropout, and a 1×1 convolution to the scores.

    The auxiliary classifier of PSPNet (section 3.3), and the whole head of torchvision's FCN.

    Args:
        in_channels: of the features.
        num_classes: channels of the scores.
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


def semantic_annotations(
    logits: Float[Tensor, "B K h w"], batch: Batch, *, align_corners: bool = False
) -> list[Annotation]:
    """The likeliest class of each pixel of each original image, and its probability.

    Args:
        logits: of the images of `batch`.
        batch: says the original sizes.
        align_corners: how the scores are enlarged.
    """
    annotations: list[Annotation] = []
    for scores, size in zip(logits, batch.original_sizes.tolist(), strict=True):
        semantic, confidence = argmax_resized(scores, (size[0], size[1]), align_corners=align_corners)
        annotations.append(Annotation(semantic=semantic, confidence=confidence))
    return annotations
