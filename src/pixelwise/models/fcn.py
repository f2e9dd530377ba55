"""FCN: Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015; Shelhamer, Long,
Darrell, PAMI 2017.

The classifier's hidden layers become convolutions (section 3.1). A 1×1 convolution predicts logits on the deepest map
and on those of earlier poolings. They are added from coarse to fine (section 4.2, figure 3) and enlarged by learnable
deconvolutions that are initialised as bilinear interpolation (section 3.3).

Differences from the paper:
- The loss is the mean over pixels; the authors' rates of 1e-10 to 1e-14 belong to sums.
- VGG-16 takes torchvision's weights (RGB, mean and deviation); the authors' come from Caffe (BGR, mean alone).
- As in the paper, the last deconvolution stays bilinear and the others are trained; the released networks fix them all
  (`learn_upsampling`).
- Other backbones than VGG-16 are padded as they are and have no hidden layers; images are filled up at the far sides to
  multiples of 32 pixels, and the logits cropped there.
- The recipe is for small data sets on a small machine; the paper's numbers stand beside it.
- `skips="none"` is torchvision's FCN: a dilated backbone, a head of two convolutions, plain bilinear enlargement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
import torchvision
from jaxtyping import Float, Int64
from torch import Tensor, nn

from pixelwise.contracts import Augmentation, ClassRows, Optimizer, Recipe, Stage, Term, Traits
from pixelwise.errors import RecipeError
from pixelwise.losses.cross_entropy import stack_semantic
from pixelwise.nn.backbone import Backbone
from pixelwise.nn.backbones import VGGBackbone, build_backbone
from pixelwise.nn.dense import DenseSystem
from pixelwise.nn.dilation import FirstBlock
from pixelwise.nn.heads import FCNHead
from pixelwise.types import Annotation, Batch

TASK = "semantic"
TRAITS = Traits()

Skips = Literal["32s", "16s", "8s", "8s-at-once", "none"]
SKIP_STRIDES: dict[str, tuple[int, ...]] = {"32s": (), "16s": (16,), "8s": (16, 8), "8s-at-once": (16, 8)}
"""Strides of the earlier maps whose logits are added."""

VGG_PADDING = 100
VGG_SKIP_OFFSETS = {16: 5, 8: 9}
"""Offset of the coarser logits in those of an earlier map, given the padding of the first convolution."""
VGG_OUTPUT_OFFSETS = {32: 19, 16: 27, 8: 31}
"""Offset of the image in the enlarged logits, by the stride of the last enlargement."""
AT_ONCE_SCALES = {16: 0.01, 8: 0.0001}
"""Factors on the earlier maps before their 1×1 convolution, for training in one stage."""


class Output(NamedTuple):
    """Logits.

    Attributes:
        logits: one channel for each class, at the size of the images; in torchvision's form at the output stride.
        aux_logits: those of torchvision's auxiliary classifier, or None.
    """

    logits: Float[Tensor, "B K h w"]
    aux_logits: Float[Tensor, "B K h w"] | None


class Deconvolution(nn.ConvTranspose2d):
    """Enlarges logits by an integer factor; initialised as bilinear interpolation of each class (section 3.3).

    Args:
        classes: channels.
        factor: of the enlargement; the kernel is twice as wide.
        padding: cropped from every side of the result.
        learn: whether the weights change in training.
    """

    def __init__(self, classes: int, factor: int, *, padding: int, learn: bool) -> None:
        super().__init__(classes, classes, 2 * factor, stride=factor, padding=padding, bias=False)
        with torch.no_grad():
            self.weight.zero_()
            self.weight[range(classes), range(classes)] = bilinear_kernel(2 * factor)
        self.weight.requires_grad_(learn)


def bilinear_kernel(size: int) -> Float[Tensor, "size size"]:
    """Weights of a deconvolution that interpolates bilinearly."""
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 else factor - 0.5
    triangle = 1 - (torch.arange(size) - centre).abs() / factor
    return triangle[:, None] * triangle[None, :]


class FCN(DenseSystem):
    """Logits of several maps, added from coarse to fine.

    Args:
        backbone: with maps of stride 32 and of `skip_strides`.
        num_classes: channels of the logits, background included.
        skip_strides: of the earlier maps that get a classifier, coarse to fine.
        skip_scales: factors on these maps before the classifier.
        skip_offsets: row and column in each of them at which the coarser logits begin.
        output_offset: row and column in the enlarged logits at which the image begins.
        padded: whether images are filled up to multiples of 32 pixels, so that the backbone covers all of them, and
            deconvolutions crop half their factor, so that logits are aligned with their pixels; without, the offsets
            align them.
        learn_upsampling: see `build`.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        num_classes: int,
        skip_strides: Sequence[int],
        skip_scales: Sequence[float],
        skip_offsets: Sequence[int],
        output_offset: int,
        padded: bool,
        learn_upsampling: str = "intermediate",
    ) -> None:
        super().__init__(backbone, TRAITS, num_classes=num_classes)
        self.skip_maps = tuple(backbone.deepest(stride) for stride in skip_strides)
        self.skip_scales, self.skip_offsets = tuple(skip_scales), tuple(skip_offsets)
        self.output_offset, self.padded = output_offset, padded
        self.score = _score(backbone.channels[-1], num_classes)
        self.score_skips = nn.ModuleList(_score(backbone.channels[index], num_classes) for index in self.skip_maps)
        learns = learn_upsampling != "none"
        self.enlarge = nn.ModuleList(
            Deconvolution(num_classes, 2, padding=1 if padded else 0, learn=learns) for _ in skip_strides
        )
        last = skip_strides[-1] if skip_strides else 32
        self.score_layers = ("score", *(f"score_skips.{number}" for number in range(len(self.skip_maps))))
        self.enlarge_last = Deconvolution(
            num_classes, last, padding=last // 2 if padded else 0, learn=learn_upsampling == "all"
        )

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        sizes: Int64[Tensor, "B 2"] | None = None,  # noqa: ARG002 (dense: only equal sizes are batched)
        truth: tuple[Annotation, ...] | None = None,  # noqa: ARG002
        memory: Any = None,  # noqa: ARG002
    ) -> Output:
        """Logits of every class for every pixel."""
        top, (height, width) = self.output_offset, images.shape[2:]
        images = self.normalize(images)
        if self.padded:
            images = F.pad(images, (0, -width % 32, 0, -height % 32))
        maps = self.backbone(images)
        x = self.score(maps[-1])
        skips = zip(self.enlarge, self.score_skips, self.skip_maps, self.skip_scales, self.skip_offsets, strict=True)
        for enlarge, score, index, scale, offset in skips:
            x = _add(enlarge(x), score(maps[index] * scale), offset)
        x = self.enlarge_last(x)
        return Output(x[:, :, top : top + height, top : top + width], None)

    def class_rows(self) -> tuple[ClassRows, ...]:
        """See `contracts.System`."""
        names = ("enlarge_last", *(f"enlarge.{number}" for number in range(len(self.enlarge))))
        every = tuple(range(self.num_classes))
        return (*super().class_rows(), *(ClassRows(name, every, axes=(0, 1)) for name in names))

    def loss(self, output: Output, batch: Batch) -> dict[str, Term]:
        """Cross-entropy of the logits."""
        return {"main": self.pixel_loss(output.logits, stack_semantic(batch.truth))}


class DilatedFCN(DenseSystem):
    """torchvision's FCN: a head of two convolutions on a dilated map, and an auxiliary head on an earlier one.

    Args:
        backbone: with a dilated deepest map.
        num_classes: channels of the logits, background included.
        auxiliary: whether the last map but one gets an auxiliary head.
        auxiliary_weight: of its term in the loss.
    """

    def __init__(
        self, backbone: Backbone, *, num_classes: int, auxiliary: bool = True, auxiliary_weight: float = 0.5
    ) -> None:
        super().__init__(backbone, TRAITS, num_classes=num_classes)
        self.classifier = FCNHead(backbone.channels[-1], num_classes)
        self.auxiliary = FCNHead(backbone.channels[-2], num_classes) if auxiliary else None
        self.auxiliary_weight = auxiliary_weight
        self.score_layers = ("classifier.4", *(["auxiliary.4"] if self.auxiliary else []))

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        sizes: Int64[Tensor, "B 2"] | None = None,  # noqa: ARG002 (dense: only equal sizes are batched)
        truth: tuple[Annotation, ...] | None = None,  # noqa: ARG002
        memory: Any = None,  # noqa: ARG002
    ) -> Output:
        """Logits of every class at the output stride."""
        *_, earlier, deepest = self.backbone(self.normalize(images))
        return Output(self.classifier(deepest), None if self.auxiliary is None else self.auxiliary(earlier))

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
    backbone: str = "vgg16",
    skips: Skips = "8s",
    learn_upsampling: Literal["none", "intermediate", "all"] = "intermediate",
    output_stride: int = 8,
    first_block: FirstBlock = "previous",
    auxiliary: bool = False,
) -> FCN | DilatedFCN:
    """FCN with random weights and zero logits.

    Args:
        num_classes: background included.
        backbone: `vgg16` is the paper's; any other of `nn.backbones.build_backbone` with strides 8, 16 and 32.
        skips: `32s` predicts from the deepest map alone, `16s` adds that of stride 16, `8s` that of stride 8 too;
            `8s-at-once` scales them so that all can be trained in one stage; `none` is torchvision's form.
        learn_upsampling: which deconvolutions are trained: `none`, the `intermediate` ones but not the last, or `all`.
        output_stride: of torchvision's form.
        first_block: see `nn.dilation.FirstBlock`; for torchvision's form.
        auxiliary: give torchvision's form its auxiliary classifier.

    Raises:
        RecipeError: arguments that do not fit together.
    """
    if skips == "none":
        network = build_backbone(backbone, output_stride=output_stride, first_block=first_block)
        return DilatedFCN(network, num_classes=num_classes, auxiliary=auxiliary)
    if skips not in SKIP_STRIDES:
        raise RecipeError(f"skips '{skips}': {', '.join(SKIP_STRIDES)} or none")
    if learn_upsampling not in ("none", "intermediate", "all"):
        raise RecipeError(f"learn_upsampling '{learn_upsampling}': none, intermediate or all")
    if auxiliary:
        raise RecipeError(f"auxiliary: with skips=none alone, not with {skips}")
    strides = SKIP_STRIDES[skips]
    last = strides[-1] if strides else 32
    published = backbone == "vgg16"
    if published:
        network = VGGBackbone(
            torchvision.models.vgg16(weights=None),
            first_padding=VGG_PADDING,
            ceil_mode=True,
            fully_convolutional=True,
        )
    else:
        network = build_backbone(backbone, output_stride=32)
        network.deepest(32)
    return FCN(
        network,
        num_classes=num_classes,
        skip_strides=strides,
        skip_scales=[AT_ONCE_SCALES[stride] if skips == "8s-at-once" else 1.0 for stride in strides],
        skip_offsets=[VGG_SKIP_OFFSETS[stride] if published else 0 for stride in strides],
        output_offset=VGG_OUTPUT_OFFSETS[last] if published else 0,
        padded=not published,
        learn_upsampling=learn_upsampling,
    )


def _score(channels: int, classes: int) -> nn.Conv2d:
    """A 1×1 convolution that begins at zero (section 4.2)."""
    score = nn.Conv2d(channels, classes, 1)
    nn.init.zeros_(score.weight)
    nn.init.zeros_(score.bias)  # pyright: ignore[reportArgumentType]
    return score


def _add(coarse: Tensor, fine: Tensor, offset: int) -> Tensor:
    """The sum where both overlap: `coarse` begins at row and column `offset` of `fine`."""
    height = min(coarse.shape[2], fine.shape[2] - offset)
    width = min(coarse.shape[3], fine.shape[3] - offset)
    return coarse[:, :, :height, :width] + fine[:, :, offset : offset + height, offset : offset + width]


VARIANTS = {
    "fcn_32s": {"skips": "32s"},
    "fcn_16s": {"skips": "16s"},
    "fcn_8s": {"skips": "8s"},
    "fcn_8s_at_once": {"skips": "8s-at-once"},
    "fcn_resnet50": {"skips": "none", "backbone": "resnet50"},
    "fcn_resnet101": {"skips": "none", "backbone": "resnet101"},
}


def _stage(name: str, steps: int, lr: float) -> Stage:
    return Stage(
        name=name,
        steps=steps,
        batch_size=8,
        crop_size=320,
        optimizer=Optimizer(
            name="adamw", lr=lr, head_lr_multiplier=3.3, weight_decay=1e-2, norm_weight_decay=0.0, clip_norm=0.0
        ),
        augmentation=Augmentation(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05),
        poly_power=0.9,
        warmup_steps=100,
        ema_decay=0.998,
    )


_COARSE, _MIDDLE, _FINE = (
    replace(_stage("32s", 2_000, 3e-4), arguments={"skips": "32s"}),
    replace(_stage("16s", 1_000, 1e-4), arguments={"skips": "16s"}),
    replace(_stage("8s", 1_000, 1e-4), arguments={"skips": "8s"}),
)

RECIPE = Recipe(stages=(_COARSE, _MIDDLE, _FINE))
"""Each stage begins with the weights of the one before (section 4.2)."""

RECIPES = {
    "fcn_32s": Recipe(stages=(_stage("32s", 4_000, 3e-4),)),
    "fcn_16s": Recipe(stages=(_COARSE, _MIDDLE)),
    "fcn_8s": RECIPE,
    "fcn_8s_at_once": Recipe(stages=(_stage("fit", 4_000, 3e-4),)),
    "fcn_resnet50": Recipe(stages=(_stage("fit", 4_000, 3e-4),)),
    "fcn_resnet101": Recipe(stages=(_stage("fit", 4_000, 3e-4),)),
}
"""Of the variants."""

_HEAVY = Stage(
    name="32s",
    steps=100_000,
    batch_size=1,
    crop_size=0,
    optimizer=Optimizer(
        lr=1e-10,
        bias_lr_multiplier=2.0,
        head_bias_lr_multiplier=2.0,
        weight_decay=5e-4,
        norm_weight_decay=0.0,
        momentum=0.99,
    ),
    augmentation=Augmentation(scale_min=1.0, scale_max=1.0, scale_around="image", flip=0.0),
    reduction="sum",
    schedule="fixed",
    freeze_batch_norm=True,
)
"""The authors' release for VOC: images one by one as they are, the loss a sum over pixels. VGG-16 has no batch norm."""

_HEAVY_STAGES = tuple(
    replace(_HEAVY, name=skips, optimizer=replace(_HEAVY.optimizer, lr=lr), arguments={"skips": skips})
    for skips, lr in (("32s", 1e-10), ("16s", 1e-12), ("8s", 1e-14))
)
_AT_ONCE = replace(_HEAVY, name="fit", steps=300_000)

PUBLISHED = {
    "paper": {
        "fcn": Recipe(stages=_HEAVY_STAGES, input_side="none"),
        "fcn_32s": Recipe(stages=_HEAVY_STAGES[:1], input_side="none"),
        "fcn_16s": Recipe(stages=_HEAVY_STAGES[:2], input_side="none"),
        "fcn_8s": Recipe(stages=_HEAVY_STAGES, input_side="none"),
        "fcn_8s_at_once": Recipe(stages=(_AT_ONCE,), input_side="none"),
    }
}
