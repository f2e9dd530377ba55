"""DeepLab v3+: Chen, Zhu, Papandreou, Schroff, Adam, "Encoder-Decoder with Atrous Separable Convolution for Semantic
Image Segmentation", ECCV 2018.

The encoder is DeepLab v3: a dilated backbone and ASPP. The decoder enlarges its features to stride 4, joins them with a
thin projection of an early map, and refines them with two 3×3 convolutions (section 3.1, tables 1 and 2).

Differences from the paper:
- Backbones are torchvision's ResNets and MobileNet V2; the aligned Xception is missing.
- Bilinear enlargement uses half-pixel centres by default; the authors' code aligns corners, with crops of 8n + 1 pixels
  (`align_corners`).
- The rates of a ResNet's last stage: see `deeplab_v3`.
- MobileNet V2: the early map is the 24-channel output of its stride-4 stage, and the 1280-channel classifier layer is
  skipped.
- `layout="smp"` is the network of segmentation_models_pytorch: another convolution after ASPP, one in the decoder in
  place of two, no batch norm inside separable convolutions, corners aligned.
- Batch norm keeps torchvision's momentum 0.1 and eps 1e-5; the paper's decay is 0.9997.
- The recipe is for small data sets on a small machine; the paper's numbers stand beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from pixelwise.contracts import Augmentation, Optimizer, Recipe, Stage, Term, Traits
from pixelwise.errors import RecipeError
from pixelwise.losses.cross_entropy import stack_semantic
from pixelwise.nn.aspp import ASPP, ConvNormRelu
from pixelwise.nn.backbone import Backbone
from pixelwise.nn.backbones import BOTTLENECK_RESNETS, build_backbone
from pixelwise.nn.dense import DenseSystem
from pixelwise.nn.dilation import FirstBlock
from pixelwise.types import Annotation, Batch

TASK = "semantic"
TRAITS = Traits()


class Output(NamedTuple):
    """Logits at stride 4.

    Attributes:
        logits: one channel for each class.
    """

    logits: Float[Tensor, "B K h w"]


class Decoder(nn.Module):
    """Joins deep features with an early map of higher resolution (section 3.1, figure 2).

    Args:
        low_level_channels: of the early map.
        channels: of the encoder's features, and of the result.
        projected: channels that the early map is reduced to; 48 is best in table 1.
        convolutions: 3×3 ones after the joining; two are best in table 2.
        separable: factorise them (section 4.3).
        depthwise_norm: see ConvNormRelu.
        align_corners: how the encoder's features are enlarged.
    """

    def __init__(
        self,
        low_level_channels: int,
        *,
        channels: int = 256,
        projected: int = 48,
        convolutions: int = 2,
        separable: bool,
        depthwise_norm: bool = True,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.project = ConvNormRelu(low_level_channels, projected, kernel=1)
        widths = (channels + projected, *(channels,) * (convolutions - 1))
        self.refine = nn.Sequential(
            *(ConvNormRelu(width, channels, separable=separable, depthwise_norm=depthwise_norm) for width in widths)
        )

    def forward(self, deep: Float[Tensor, "B C h w"], low_level: Float[Tensor, "B D H W"]) -> Float[Tensor, "B C H W"]:
        """Features at the early map's size."""
        deep = F.interpolate(deep, size=low_level.shape[2:], mode="bilinear", align_corners=self.align_corners)
        return self.refine(torch.cat([deep, self.project(low_level)], dim=1))


class DeepLabV3Plus(DenseSystem):
    """Encoder, ASPP, decoder, classifier.

    Args:
        backbone: with a map of stride 4 and a dilated deepest map.
        num_classes: channels of the logits, background included.
        rates: dilations of ASPP.
        channels: of ASPP and decoder.
        separable: factorise the 3×3 convolutions of ASPP and decoder.
        smp: see `layout` of `build`.
        align_corners: how feature maps and logits are enlarged.
        dropout: after ASPP.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        num_classes: int,
        rates: Sequence[int],
        channels: int = 256,
        separable: bool = False,
        smp: bool = False,
        align_corners: bool = False,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(backbone, replace(TRAITS, align_corners=align_corners), num_classes=num_classes)
        self.low_level = backbone.deepest(4)
        self.aspp = ASPP(
            backbone.channels[-1],
            rates=rates,
            channels=channels,
            separable=separable,
            depthwise_norm=not smp,
            dropout=dropout,
        )
        self.after_aspp = (
            ConvNormRelu(channels, channels, separable=True, depthwise_norm=False) if smp else nn.Identity()
        )
        self.decoder = Decoder(
            backbone.channels[self.low_level],
            channels=channels,
            convolutions=1 if smp else 2,
            separable=separable,
            depthwise_norm=not smp,
            align_corners=align_corners,
        )
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        sizes: Int64[Tensor, "B 2"] | None = None,  # noqa: ARG002 (dense: only equal sizes are batched)
        truth: tuple[Annotation, ...] | None = None,  # noqa: ARG002
        memory: Any = None,  # noqa: ARG002
    ) -> Output:
        """Logits of every class at stride 4."""
        maps = self.backbone(self.normalize(images))
        encoded = self.after_aspp(self.aspp(maps[-1]))
        return Output(self.classifier(self.decoder(encoded, maps[self.low_level])))

    def loss(self, output: Output, batch: Batch) -> dict[str, Term]:
        """Cross-entropy of the enlarged logits."""
        return {"main": self.pixel_loss(output.logits, stack_semantic(batch.truth))}


def build(
    *,
    num_classes: int,
    backbone: str = "resnet101",
    output_stride: int = 16,
    multi_grid: Sequence[int] | None = None,
    first_block: FirstBlock = "previous",
    rates: Sequence[int] = (6, 12, 18),
    channels: int = 256,
    separable: bool | None = None,
    layout: Literal["paper", "smp"] = "paper",
    align_corners: bool | None = None,
    dropout: float = 0.1,
) -> DeepLabV3Plus:
    """DeepLab v3+ with random weights.

    Args:
        num_classes: background included.
        backbone: see `nn.backbones.build_backbone`.
        output_stride: of the encoder, 8 or 16.
        multi_grid: factors on the dilations of a ResNet's last stage; by default 1, 2, 4 for the ResNets whose last
            stage has three blocks of three convolutions (DeepLab v3, table 5).
        first_block: see `nn.dilation.FirstBlock`.
        rates: of ASPP's 3×3 branches at output stride 16; they double at 8.
        channels: of ASPP and decoder.
        separable: factorise their 3×3 convolutions; by default with MobileNets, EfficientNet-Lite and in smp's
            layout alone.
        layout: `smp` for the network of segmentation_models_pytorch; its backbones are `full` in `first_block`, have no
            multi-grid, and its MobileNet V2 is `mobilenet_v2_1280`.
        align_corners: how feature maps and logits are enlarged; by default True in smp's layout alone.
        dropout: probability, after ASPP; the authors have 0.1, smp 0.5.

    Raises:
        RecipeError: arguments that do not fit together.
    """
    if layout not in ("paper", "smp"):
        raise RecipeError(f"layout '{layout}': paper or smp")
    smp = layout == "smp"
    if output_stride not in (8, 16):
        raise RecipeError(f"output_stride {output_stride}: deeplab_v3_plus has 8 or 16")
    if multi_grid is None and backbone in BOTTLENECK_RESNETS and not smp:
        multi_grid = (1, 2, 4)
    return DeepLabV3Plus(
        build_backbone(backbone, output_stride=output_stride, multi_grid=multi_grid, first_block=first_block),
        num_classes=num_classes,
        rates=tuple(rate * 16 // output_stride for rate in rates),
        channels=channels,
        separable=smp or backbone.startswith(("mobilenet", "efficientnet_lite")) if separable is None else separable,
        smp=smp,
        align_corners=smp if align_corners is None else align_corners,
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
        "optimizer.weight_decay": "4e-5 (Xception), 1e-4 (ResNet)",
    },
)
RECIPES: dict[str, Recipe] = {}

_PUBLISHED = Recipe(
    stages=(
        Stage(
            steps=30_000,
            batch_size=16,
            crop_size=513,
            optimizer=Optimizer(lr=0.007, weight_decay=1e-4, norm_weight_decay=0.0, momentum=0.9),
            augmentation=Augmentation(scale_step=0.25, scale_around="image"),
            poly_power=0.9,
            batch_norm_momentum=0.0003,
        ),
    ),
    input_size=513,
)
"""Section 4, which takes the protocol of DeepLab v3; the decay is that of the authors' code for ResNets."""

PUBLISHED = {"paper": dict.fromkeys(("deeplab_v3_plus", *VARIANTS), _PUBLISHED)}
