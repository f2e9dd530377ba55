"""PSPNet: Zhao, Shi, Qi, Wang, Jia, "Pyramid Scene Parsing Network", CVPR 2017.

A dilated ResNet's last map is joined with its means over grids of 1, 2, 3 and 6 cells (section 3.2), so that each cell
has context from the whole image. An auxiliary classifier on an earlier stage supports the training (section 3.3).

Differences from the paper:
- The authors' Caffe release joins the pyramid in the order 6, 3, 2, 1, strides the first 1×1 convolution of a block and
  compares with labels at 1/8 of the size; as in their PyTorch code (semseg), it is 1, 2, 3, 6 here, the 3×3 convolution
  is strided (`backbone="resnet50_deep_stem"`), and the logits are enlarged to the full-size labels.
- Images may have any size; the authors' sides are 8n + 1.
- Dropout drops whole channels, as in semseg; synchronised batch norm is an option of the recipe.
- The recipe is for small data sets on a small machine; the paper's numbers stand beside it.
- `layout="smp"` is the PSPNet of segmentation_models_pytorch: a shallow encoder and other convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from jaxtyping import Float, Int64
from torch import Tensor, nn

from pixelwise.contracts import Augmentation, Optimizer, Recipe, Stage, Term, Traits
from pixelwise.errors import RecipeError
from pixelwise.losses.cross_entropy import stack_semantic
from pixelwise.nn.aspp import ConvNormRelu
from pixelwise.nn.backbone import Backbone
from pixelwise.nn.backbones import build_backbone
from pixelwise.nn.dense import DenseSystem
from pixelwise.nn.dilation import FirstBlock
from pixelwise.nn.heads import FCNHead
from pixelwise.nn.pyramid_pooling import Pooling, PyramidPooling
from pixelwise.types import Annotation, Batch

TASK = "semantic"
TRAITS = Traits(align_corners=True)


class Output(NamedTuple):
    """Logits at stride 8.

    Attributes:
        logits: one channel for each class.
        aux_logits: those of the auxiliary classifier, or None where there is none.
    """

    logits: Float[Tensor, "B K h w"]
    aux_logits: Float[Tensor, "B K h w"] | None


class PSPNet(DenseSystem):
    """Dilated backbone, pyramid pooling, classifier.

    Args:
        backbone: its map of stride `output_stride` is pooled.
        num_classes: channels of the logits, background included.
        pooled_map: index of the backbone's map that is pooled.
        pyramid: the pyramid pooling.
        channels: between the pyramid and the classifier.
        kernels: sides of the convolution after the pyramid and of the classifier.
        dropout: of whole channels, before the classifier.
        auxiliary_map: index of the backbone's map that the auxiliary classifier takes, or None for no auxiliary
            classifier.
        auxiliary_weight: of its term in the loss; 0.4 is best in table 2.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        num_classes: int,
        pooled_map: int,
        pyramid: PyramidPooling,
        channels: int = 512,
        kernels: tuple[int, int] = (3, 1),
        dropout: float = 0.1,
        auxiliary_map: int | None = None,
        auxiliary_weight: float = 0.4,
    ) -> None:
        super().__init__(backbone, TRAITS, num_classes=num_classes)
        self.pooled_map, self.auxiliary_map = pooled_map, auxiliary_map
        self.pyramid = pyramid
        self.refine = ConvNormRelu(pyramid.out_channels, channels, kernel=kernels[0])
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, kernels[1], padding=kernels[1] // 2)
        self.auxiliary = (
            None
            if auxiliary_map is None
            else FCNHead(
                backbone.channels[auxiliary_map],
                num_classes,
                dropout=dropout,
                dropout_of_channels=True,
            )
        )
        self.auxiliary_weight = auxiliary_weight
        self.score_layers = ("classifier", *(["auxiliary.4"] if self.auxiliary else []))

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        sizes: Int64[Tensor, "B 2"] | None = None,  # noqa: ARG002 (dense: only equal sizes are batched)
        truth: tuple[Annotation, ...] | None = None,  # noqa: ARG002
        memory: Any = None,  # noqa: ARG002
    ) -> Output:
        """Logits of every class at the stride of the pooled map."""
        maps = self.backbone(self.normalize(images))
        logits = self.classifier(self.dropout(self.refine(self.pyramid(maps[self.pooled_map]))))
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
    backbone: str = "resnet50_deep_stem",
    output_stride: int = 8,
    first_block: FirstBlock = "full",
    bins: Sequence[int] = (1, 2, 3, 6),
    pooling: Pooling = "average",
    reduce: bool = True,
    channels: int | None = None,
    auxiliary: bool = True,
    auxiliary_weight: float = 0.4,
    layout: Literal["paper", "smp"] = "paper",
    dropout: float = 0.1,
) -> PSPNet:
    """PSPNet with random weights.

    Args:
        num_classes: background included.
        backbone: see `nn.backbones.build_backbone`.
        output_stride: of the map that is pooled, 8 or 16.
        first_block: see `nn.dilation.FirstBlock`; the authors dilate every block alike.
        bins: cells along each side of the grids ("B1236" in table 1).
        pooling: `average` or `max` ("AVE", "MAX").
        reduce: bring the grids' channels down to their share of the map's ("DR").
        channels: between the pyramid and the classifier; by default a quarter of the map's, at least 256.
        auxiliary: add an auxiliary classifier on an earlier map: the ResNets' third stage, else the last map but one.
        auxiliary_weight: of its term in the loss.
        layout: `smp` pools the map of stride 8 of an undilated backbone; its grid of one cell has no batch norm, the
            map is concatenated after its grids, the convolution after them is 1×1 of 512 channels, the classifier is
            3×3, and there is no auxiliary classifier.
        dropout: smp has 0.2.

    Raises:
        RecipeError: arguments that do not fit together.
    """
    if layout not in ("paper", "smp"):
        raise RecipeError(f"layout '{layout}': paper or smp")
    if output_stride not in (8, 16):
        raise RecipeError(f"output_stride {output_stride}: pspnet has 8 or 16")
    smp = layout == "smp"
    network = build_backbone(backbone, output_stride=32 if smp else output_stride, first_block=first_block)
    pooled_map = network.deepest(8) if smp else len(network.channels) - 1
    if smp:
        network.shorten(pooled_map + 1)  # later stages are not used
    width = network.channels[pooled_map]
    pyramid = PyramidPooling(
        width,
        bins=bins,
        pooling=pooling,
        reduced_channels=max(1, width // max(1, len(bins))) if reduce else None,
        norm_of_one_bin=not smp,
        map_first=not smp,
    )
    return PSPNet(
        network,
        num_classes=num_classes,
        pooled_map=pooled_map,
        pyramid=pyramid,
        channels=channels or (512 if smp else max(256, width // 4)),
        kernels=(1, 3) if smp else (3, 1),
        dropout=dropout,
        auxiliary_map=pooled_map - 1 if auxiliary and not smp else None,
        auxiliary_weight=auxiliary_weight,
    )


VARIANTS = {
    "pspnet_resnet50": {"backbone": "resnet50_deep_stem"},
    "pspnet_resnet101": {"backbone": "resnet101_deep_stem"},
    "pspnet_resnet152": {"backbone": "resnet152_deep_stem"},
    "pspnet_mobilenet_v2": {"backbone": "mobilenet_v2"},
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
        "steps": "150,000 (ADE20K), 30,000 (VOC), 90,000 (Cityscapes)",
        "crop_size": "473 (ADE20K, VOC), 713 (Cityscapes)",
        "input_size": "512, 2048 (Cityscapes)",
    },
)
RECIPES: dict[str, Recipe] = {}

_PUBLISHED = Recipe(
    stages=(
        Stage(
            steps=150_000,
            batch_size=16,
            crop_size=473,
            optimizer=Optimizer(
                lr=0.01,
                head_lr_multiplier=10.0,
                head_bias_lr_multiplier=20.0,
                weight_decay=1e-4,
                norm_weight_decay=0.0,
                momentum=0.9,
            ),
            augmentation=Augmentation(scale_around="image", rotate=10.0, blur=0.5),
            poly_power=0.9,
            sync_batch_norm=True,
        ),
    ),
    input_size=513,
    paper={"input_size": "512, in windows of 473"},
)
"""ADE20K's; section 5.1, and the authors' prototxt for the rate of the classifiers' biases and for what is decayed."""

PUBLISHED = {"paper": dict.fromkeys(("pspnet", *VARIANTS), _PUBLISHED)}
