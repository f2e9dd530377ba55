"""DeepLab v3+: Chen, Zhu, Papandreou, Schroff, Adam, "Encoder-Decoder with Atrous Separable Convolution for Semantic
Image Segmentation", ECCV 2018.

The encoder is DeepLab v3: a dilated classifier and ASPP. The decoder enlarges its features to stride 4, joins them
with a thin projection of an early map, and refines them with two 3×3 convolutions (section 3.1, tables 1 and 2).

Differences from the paper:
- Backbones are torchvision's ResNets and MobileNet V2; the aligned Xception is not built here.
- Bilinear enlargement uses half-pixel centres; the authors' code aligns corners, with crops of 8n + 1 pixels.
- MobileNet V2: the early map is the 24-channel output of its stride-4 stage, and the 1280-channel classifier layer is
  left out.
- Batch norm keeps torchvision's momentum 0.1 and eps 1e-5; the paper's decay is 0.9997.
- The recipe is one for small data on a small machine; the paper's numbers stand beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from pixelwise.contracts import Augmentation, Optimizer, Recipe, Stage, Term
from pixelwise.errors import RecipeError
from pixelwise.losses.cross_entropy import pixel_cross_entropy, stack_semantic
from pixelwise.nn.aspp import ASPP, ConvNormRelu
from pixelwise.nn.backbones import Backbone, FirstBlock, Normalize, build_backbone
from pixelwise.ops.resize import argmax_resized
from pixelwise.types import Annotation, Batch

TASK = "semantic"
IGNORE_ID = 255


class Output(NamedTuple):
    """Scores before the softmax, at stride 4.

    Attributes:
        logits: one map for each class.
    """

    logits: Float[Tensor, "B K h w"]


class Decoder(nn.Module):
    """Joins what is deep with what is sharp (section 3.1, figure 2).

    Args:
        low_level_channels: of the early map.
        channels: of the encoder's features, and of the result.
        projected: channels that the early map is reduced to; 48 is best in table 1.
        separable: factorise the two 3×3 convolutions (section 4.3).
    """

    def __init__(self, low_level_channels: int, *, channels: int = 256, projected: int = 48, separable: bool) -> None:
        super().__init__()
        self.project = ConvNormRelu(low_level_channels, projected, kernel=1)
        self.refine = nn.Sequential(
            ConvNormRelu(channels + projected, channels, separable=separable),
            ConvNormRelu(channels, channels, separable=separable),
        )

    def forward(self, deep: Float[Tensor, "B C h w"], low_level: Float[Tensor, "B D H W"]) -> Float[Tensor, "B C H W"]:
        """Features at the early map's size."""
        deep = F.interpolate(deep, size=low_level.shape[2:], mode="bilinear", align_corners=False)
        return self.refine(torch.cat([deep, self.project(low_level)], dim=1))


class DeepLabV3Plus(nn.Module):
    """Encoder, ASPP, decoder, classifier.

    Args:
        backbone: with a map of stride 4 and a dilated deepest map.
        num_classes: channels of the scores, background included.
        rates: dilations of ASPP.
        channels: of ASPP and decoder.
        separable: factorise the 3×3 convolutions of ASPP and decoder.
        dropout: after ASPP.
    """

    task = TASK

    def __init__(
        self,
        backbone: Backbone,
        *,
        num_classes: int,
        rates: Sequence[int],
        channels: int = 256,
        separable: bool = False,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.normalize = Normalize()
        self.backbone = backbone
        self.low_level = backbone.strides.index(4)
        self.aspp = ASPP(backbone.channels[-1], rates=rates, channels=channels, separable=separable, dropout=dropout)
        self.decoder = Decoder(backbone.channels[self.low_level], channels=channels, separable=separable)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        sizes: Int64[Tensor, "B 2"] | None = None,  # noqa: ARG002 (dense: only equal sizes are batched)
        truth: tuple[Annotation, ...] | None = None,  # noqa: ARG002
        memory: Any = None,  # noqa: ARG002
    ) -> Output:
        """Scores of every class at stride 4."""
        maps = self.backbone(self.normalize(images))
        return Output(self.classifier(self.decoder(self.aspp(maps[-1]), maps[self.low_level])))

    def loss(self, output: Output, batch: Batch) -> dict[str, Term]:
        """Cross-entropy of the enlarged scores."""
        return {"main": pixel_cross_entropy(output.logits, stack_semantic(batch.truth), ignore_id=IGNORE_ID)}

    def decode(self, output: Output, batch: Batch) -> list[Annotation]:
        """The likeliest class of each pixel of the original image, and its probability."""
        annotations: list[Annotation] = []
        for logits, size in zip(output.logits, batch.original_sizes.tolist(), strict=True):
            semantic, confidence = argmax_resized(logits, (size[0], size[1]))
            annotations.append(Annotation(semantic=semantic, confidence=confidence))
        return annotations


def build(
    *,
    num_classes: int,
    backbone: str = "resnet101",
    output_stride: int = 16,
    multi_grid: Sequence[int] | None = None,
    first_block: FirstBlock = "previous",
    channels: int = 256,
    separable: bool | None = None,
    dropout: float = 0.1,
) -> DeepLabV3Plus:
    """DeepLab v3+ with random weights.

    Args:
        num_classes: background included.
        backbone: see `nn.backbones.NAMES`.
        output_stride: of the encoder, 8 or 16; ASPP's rates 6, 12, 18 double at 8.
        multi_grid: factors on the dilations of a ResNet's last stage; by default 1, 2, 4 for the ResNets whose last
            stage has three blocks of three convolutions (DeepLab v3, table 5).
        first_block: see `nn.backbones.FirstBlock`.
        channels: of ASPP and decoder.
        separable: factorise their 3×3 convolutions; by default with MobileNet V2 alone.
        dropout: after ASPP; the authors keep 0.9.
    """
    if output_stride not in (8, 16):
        raise RecipeError(f"output_stride {output_stride}: deeplab_v3_plus has 8 or 16")
    if multi_grid is None and backbone in ("resnet50", "resnet101", "resnet152"):
        multi_grid = (1, 2, 4)
    return DeepLabV3Plus(
        build_backbone(backbone, output_stride=output_stride, multi_grid=multi_grid, first_block=first_block),
        num_classes=num_classes,
        rates=tuple(rate * 16 // output_stride for rate in (6, 12, 18)),
        channels=channels,
        separable=backbone == "mobilenet_v2" if separable is None else separable,
        dropout=dropout,
    )


VARIANTS = {
    "deeplab_v3_plus_resnet101": {"backbone": "resnet101"},
    "deeplab_v3_plus_resnet50": {"backbone": "resnet50"},
    "deeplab_v3_plus_mobilenet_v2": {"backbone": "mobilenet_v2"},
}

RECIPE = Recipe(
    stages=(
        Stage(
            steps=4_000,
            batch_size=8,
            crop_size=320,
            optimizer=Optimizer(
                name="adamw", lr=3e-4, head_lr_multiplier=3.3, weight_decay=1e-2, norm_weight_decay=0.0, clip_norm=0.0
            ),
            augmentation=Augmentation(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05),
            poly_power=0.9,
            warmup_steps=100,
            ema_decay=0.998,
        ),
    ),
    paper={
        "steps": "30,000",
        "batch_size": "16",
        "crop_size": "513",
        "input_size": "513",
        "optimizer.name": "sgd",
        "optimizer.lr": "0.007",
        "optimizer.head_lr_multiplier": "1",
        "optimizer.weight_decay": "4e-5 (Xception), 1e-4 (ResNet)",
        "warmup_steps": "0",
        "ema_decay": "none",
        "augmentation.brightness": "0",
        "augmentation.contrast": "0",
        "augmentation.saturation": "0",
        "augmentation.hue": "0",
    },
)
