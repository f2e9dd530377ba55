"""DeepLab v3: Chen, Papandreou, Schroff, Adam, "Rethinking Atrous Convolution for Semantic Image Segmentation",
2017.

Dilation keeps the feature maps of a classification network dense. On its last map follows either atrous spatial pyramid
pooling (ASPP) with several dilation rates (section 3.3), or a cascade of copies of its last block with growing dilation
(section 3.2).

Differences from the paper:
- Batch norm keeps torchvision's momentum 0.1 and eps 1e-5; the paper's decay is 0.9997.
- torchvision's ResNets are strided in the first block of a stage, the authors' in the last block of the stage before.
  With `first_block="previous"` the 3×3 convolutions of the last stage have the rates 1, 4, 8 at output stride 16 (2, 8,
  16 at 8) for the paper's 2, 4, 8 (4, 8, 16), which `full` gives.
- Bilinear enlargement uses half-pixel centres; the authors' code aligns corners.
- The recipe is for small data sets on a small machine; `deeplab_v3_resnet101` has the paper's two phases in its shape:
  batch norm trained at output stride 16, then frozen at 8.
- `head_convolution` and `auxiliary` are torchvision's additions: a 3×3 convolution before the classifier, and an
  auxiliary classifier on an earlier map, used in training alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torchvision
from jaxtyping import Float, Int64
from torch import Tensor, nn

from pixelwise.contracts import Augmentation, Optimizer, Recipe, Stage, Term, Traits
from pixelwise.errors import RecipeError
from pixelwise.losses.cross_entropy import stack_semantic
from pixelwise.nn.aspp import ASPP, ConvNormRelu
from pixelwise.nn.backbone import Backbone
from pixelwise.nn.backbones import BOTTLENECK_RESNETS, ResNetBackbone, build_backbone
from pixelwise.nn.dense import DenseSystem
from pixelwise.nn.dilation import FirstBlock, dilate_block
from pixelwise.nn.heads import FCNHead
from pixelwise.types import Annotation, Batch

TASK = "semantic"
TRAITS = Traits()


class Output(NamedTuple):
    """Logits at the output stride.

    Attributes:
        logits: one channel for each class.
        aux_logits: those of the auxiliary classifier, or None where there is none.
    """

    logits: Float[Tensor, "B K h w"]
    aux_logits: Float[Tensor, "B K h w"] | None


class Cascade(nn.Sequential):
    """Copies of a ResNet's last block, each dilated twice as much as the one before (section 3.2.1, figure 3 b).

    Args:
        blocks: number of copies; three are the paper's blocks 5 to 7.
        output_stride: of their input, which they keep.
        multi_grid: factors on the dilations of each block's three units.
    """

    def __init__(self, blocks: int, *, output_stride: int, multi_grid: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for number in range(blocks):
            # block 4 has stride 32 in the classifier, block 5 would have 64
            dilation = 64 * 2**number // output_stride
            for factor in multi_grid:
                unit = torchvision.models.resnet.Bottleneck(2048, 512)
                dilate_block(unit, dilation * factor, dilation * factor)
                layers.append(unit)
        super().__init__(*layers)


class DeepLabV3(DenseSystem):
    """Dilated backbone, ASPP or cascade, classifier.

    Args:
        backbone: with a dilated deepest map.
        num_classes: channels of the logits, background included.
        context: what the deepest map goes through: ASPP or a cascade.
        channels: of the context's output.
        head_convolution: a 3×3 convolution of as many channels before the classifier.
        auxiliary: index of the backbone's map that the auxiliary classifier takes, or None for no auxiliary classifier.
        auxiliary_weight: of its term in the loss.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        num_classes: int,
        context: nn.Module,
        channels: int,
        head_convolution: bool = False,
        auxiliary: int | None = None,
        auxiliary_weight: float = 0.5,
    ) -> None:
        super().__init__(backbone, TRAITS, num_classes=num_classes)
        self.context = context
        self.refine = ConvNormRelu(channels, channels) if head_convolution else nn.Identity()
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        self.auxiliary_map = auxiliary
        self.auxiliary = None if auxiliary is None else FCNHead(backbone.channels[auxiliary], num_classes)
        self.auxiliary_weight = auxiliary_weight
        self.score_layers = ("classifier", *(["auxiliary.4"] if self.auxiliary else []))

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        sizes: Int64[Tensor, "B 2"] | None = None,  # noqa: ARG002 (dense: only equal sizes are batched)
        truth: tuple[Annotation, ...] | None = None,  # noqa: ARG002
        memory: Any = None,  # noqa: ARG002
    ) -> Output:
        """Logits of every class at the output stride."""
        maps = self.backbone(self.normalize(images))
        logits = self.classifier(self.refine(self.context(maps[-1])))
        if self.auxiliary is None or self.auxiliary_map is None:
            return Output(logits, None)
        return Output(logits, self.auxiliary(maps[self.auxiliary_map]))

    def loss(self, output: Output, batch: Batch) -> dict[str, Term]:
        """Cross-entropy of the enlarged logits and of the auxiliary logits."""
        truth = stack_semantic(batch.truth)
        terms = {"main": self.pixel_loss(output.logits, truth)}
        if output.aux_logits is not None:
            terms["aux"] = self.pixel_loss(output.aux_logits, truth, weight=self.auxiliary_weight)
        return terms


def build(
    *,
    num_classes: int,
    backbone: str = "resnet101",
    output_stride: int = 16,
    multi_grid: Sequence[int] | None = None,
    first_block: FirstBlock = "previous",
    rates: Sequence[int] = (6, 12, 18),
    image_pooling: bool = True,
    cascade: int = 0,
    channels: int = 256,
    separable: bool = False,
    head_convolution: bool = False,
    auxiliary: bool = False,
    dropout: float = 0.1,
) -> DeepLabV3:
    """DeepLab v3 with random weights.

    Args:
        num_classes: background included.
        backbone: see `nn.backbones.build_backbone`.
        output_stride: 8 or 16.
        multi_grid: factors on the dilations of a ResNet's last stage; by default 1, 2, 4 where that stage has three
            blocks of three convolutions (table 5), and 1, 2, 1 in a cascade (table 4).
        first_block: see `nn.dilation.FirstBlock`.
        rates: of ASPP's 3×3 branches at output stride 16; they double at 8. An empty list gives the variant for mobile
            networks: the 1×1 branch and image pooling alone (MobileNetV2, section 6.3).
        image_pooling: whether ASPP has the image pooling branch.
        cascade: number of copies of a ResNet's last block in place of ASPP.
        channels: of ASPP.
        separable: factorise ASPP's 3×3 convolutions.
        head_convolution: torchvision's 3×3 convolution before the classifier.
        auxiliary: torchvision's auxiliary classifier, on the ResNets' third stage, or else on the map of stride 8.
        dropout: after ASPP; torchvision has 0.5.

    Raises:
        RecipeError: arguments that do not fit together.
    """
    if output_stride not in (8, 16):
        raise RecipeError(f"output_stride {output_stride}: deeplab_v3 has 8 or 16")
    bottlenecks = backbone in BOTTLENECK_RESNETS
    if multi_grid is None and bottlenecks:
        multi_grid = (1, 2, 1) if cascade else (1, 2, 4)
    if cascade < 0:
        raise RecipeError(f"cascade={cascade}: 0 for ASPP, or how many blocks")
    if cascade and not bottlenecks:
        raise RecipeError(
            f"cascade={cascade}: it copies the last block of {', '.join(BOTTLENECK_RESNETS)}; {backbone} has none"
        )
    network = build_backbone(backbone, output_stride=output_stride, multi_grid=multi_grid, first_block=first_block)
    if cascade:
        context: nn.Module = Cascade(cascade, output_stride=output_stride, multi_grid=multi_grid or (1, 1, 1))
        channels = network.channels[-1]
    else:
        context = ASPP(
            network.channels[-1],
            rates=tuple(rate * 16 // output_stride for rate in rates),
            channels=channels,
            separable=separable,
            image_pooling=image_pooling,
            dropout=dropout,
        )
    return DeepLabV3(
        network,
        num_classes=num_classes,
        context=context,
        channels=channels,
        head_convolution=head_convolution,
        auxiliary=_auxiliary_map(network) if auxiliary else None,
    )


def _auxiliary_map(backbone: Backbone) -> int:
    return 2 if isinstance(backbone, ResNetBackbone) else backbone.strides.index(8)


VARIANTS = {
    "deeplab_v3_resnet101": {"backbone": "resnet101"},
    "deeplab_v3_resnet50": {"backbone": "resnet50"},
    "deeplab_v3_cascade_resnet101": {"backbone": "resnet101", "cascade": 3},
    "deeplab_v3_mobilenet_v2": {"backbone": "mobilenet_v2", "rates": ()},
    "deeplab_v3_mobilenet_v3_large": {"backbone": "mobilenet_v3_large", "rates": ()},
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
)

_LEARNT = RECIPE.stages[0]
RECIPES = {
    "deeplab_v3_resnet101": replace(
        RECIPE,
        stages=(
            replace(_LEARNT, name="os16", steps=2_000),
            replace(
                _LEARNT,
                name="os8",
                steps=2_000,
                optimizer=replace(_LEARNT.optimizer, lr=5e-5),
                freeze_batch_norm="all",
                arguments={"output_stride": 8},
            ),
        ),
    )
}
"""Of the variants: batch norm trained at output stride 16, then frozen at 8 (section 4.1)."""

_PAPER_STAGE = Stage(
    steps=30_000,
    batch_size=16,
    crop_size=513,
    optimizer=Optimizer(lr=0.007, weight_decay=1e-4, norm_weight_decay=0.0, momentum=0.9),
    augmentation=Augmentation(scale_step=0.25, scale_around="image"),
    poly_power=0.9,
    batch_norm_momentum=0.0003,
)
"""Section 4; the step of the scales and what is decayed are those of the authors' code."""

_PUBLISHED = Recipe(
    stages=(
        replace(_PAPER_STAGE, name="os16"),
        replace(
            _PAPER_STAGE,
            name="os8",
            optimizer=replace(_PAPER_STAGE.optimizer, lr=0.001),
            freeze_batch_norm="all",
            arguments={"output_stride": 8},
        ),
    ),
    input_size=513,
)

PUBLISHED = {"paper": dict.fromkeys(("deeplab_v3", *VARIANTS), _PUBLISHED)}
