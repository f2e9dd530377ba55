"""UPSNet: Xiong, Liao, Zhao, Hu, Bai, Yumer, Urtasun, "UPSNet: A Unified Panoptic Segmentation Network", CVPR 2019.

Mask R-CNN on a pyramid detects instances, and a semantic head on the same pyramid predicts the class of every pixel: a
few deformable convolutions on each level, enlarged to the finest one and concatenated (section 3.1). A panoptic head
without parameters combines both into one logit for each segment and one for "unknown", so that a pixel belongs to
exactly one segment or to none (`nn.panoptic_head`). In training, three of ten instances are skipped at random, and
their pixels are unknown.

Differences from the paper:
- The conventions of coordinates are those of `models.mask_rcnn` by default; those of the public code, without
  half-pixel centres and with boxes whose x2 and y2 are the last pixels, are arguments of `build` (`is_aligned`,
  `inclusive_boxes`).
- Batches may hold several images; the public code takes one in each process. The mean of the deepest map
  (`global_context`) is then that of the padded image.
- The RoI loss pools the logits of the boxes where the paper pools features and then classifies them: both steps are
  linear, so the results agree, and there are fewer logits than features. Its target is the ground truth class at whole
  pixels.
- The losses are sums divided by counts over the whole batch, as those of `models.mask_rcnn`; the public code counts
  ignored cells in the mean of the RoI loss and of the panoptic loss.
- Pixels of crowds are unknown, as those of skipped instances; the public code skips images without instances, which
  here have unknown pixels alone.
- Segments are computed at the size of the original image, where the public code enlarges those of the network's size;
  without detections, no empty instance takes part.
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

from pixelwise.contracts import ClassRows, Recipe, Sizes, Term, Thresholds, Traits, flat_arguments
from pixelwise.errors import RecipeError
from pixelwise.losses.cross_entropy import PixelLoss, stack_semantic
from pixelwise.losses.detection import training_instances, training_output
from pixelwise.models import mask_rcnn
from pixelwise.nn.backbones import ResNetBackbone
from pixelwise.nn.convolution import group_norm
from pixelwise.nn.deformable import DeformableConv2d, deform
from pixelwise.nn.fpn import FPN
from pixelwise.nn.panoptic_head import IGNORED, panoptic_logits, panoptic_segments, panoptic_targets, uncovered
from pixelwise.nn.roi_heads import RoIPooling
from pixelwise.ops.boxes import clip_boxes, scale_boxes
from pixelwise.ops.precision import at_least_float32
from pixelwise.ops.thing_channels import channels_of, class_ids_of
from pixelwise.types import Annotation, Batch, Instances, Panoptic

TASK = "panoptic"
TRAITS = Traits()

STRIDE = 4
"""Stride of the semantic logits in pixels of the image."""

DETECTOR = mask_rcnn.DetectorArguments(score_threshold=0.6, allowed_border=0)
"""Instances of the panoptic head have a greater score; anchors that cross the border are not trained on."""

ROI_SIDE = 28
"""Cells along each side of a box in the RoI loss, as of a mask."""


class TrainingOutput(NamedTuple):
    """Inputs of the losses.

    Attributes:
        logits: of every class, at a quarter of the padded images' size.
        objects: of Mask R-CNN's heads.
        roi_logits: logits of the classes inside all ground truth boxes of each image; none without the RoI loss.
        roi_targets: their ground truth classes.
        panoptic_logits: of each image, see `nn.panoptic_head.panoptic_logits`.
        panoptic_targets: see `nn.panoptic_head.panoptic_targets`.
    """

    logits: Float[Tensor, "B K h w"]
    objects: mask_rcnn.TrainingOutput
    roi_logits: tuple[Float[Tensor, "_ K M M"], ...]
    roi_targets: tuple[Int64[Tensor, "_ M M"], ...]
    panoptic_logits: tuple[Float[Tensor, "_ h w"], ...]
    panoptic_targets: tuple[Int64[Tensor, "h w"], ...]


class Output(NamedTuple):
    """Semantic logits, and the detections of each image.

    Attributes:
        logits: of every class, at a quarter of the padded images' size.
        boxes: in pixels of the network's input, highest score first.
        channels: the class of each, from 1 on.
        scores: probabilities of their classes.
        mask_logits: of their masks, inside the boxes.
    """

    logits: Float[Tensor, "B K h w"]
    boxes: tuple[Float[Tensor, "_ 4"], ...]
    channels: tuple[Int64[Tensor, " _"], ...]
    scores: tuple[Float[Tensor, " _"], ...]
    mask_logits: tuple[Float[Tensor, "_ M M"], ...]


class SemanticHead(nn.Module):
    """The same deformable convolutions on four levels, enlarged to the finest and concatenated, then a classifier.

    Args:
        in_channels: of the levels.
        num_classes: channels of the logits.
        channels: of each level, after its last two convolutions.
        layers: convolutions, at least two; three on COCO, two on Cityscapes.
        norm: after each convolution: `none`, or `group` for group norm as in VPSNet.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        channels: int = 128,
        layers: int = 3,
        norm: Literal["none", "group"] = "none",
    ) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for number in range(layers):
            width = channels if number >= layers - 2 else in_channels
            before = channels if number > layers - 2 else in_channels
            convolution = DeformableConv2d(before, width, is_modulated=False)
            nn.init.kaiming_normal_(convolution.weight)
            parts += [convolution, *([group_norm(width)] if norm == "group" else [])]
            parts.append(nn.ReLU(inplace=True))
        self.subnet = nn.Sequential(*parts)
        self.score = nn.Conv2d(4 * channels, num_classes, 1)
        nn.init.normal_(self.score.weight, std=0.01)
        nn.init.zeros_(self.score.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, levels: Sequence[Float[Tensor, "B C _ _"]]) -> Float[Tensor, "B K h w"]:
        """Logits at the size of the finest level.

        Args:
            levels: from the finest; those beyond the fourth are not used.
        """
        size = levels[0].shape[2:]
        maps = [self.subnet(x) for x in levels[:4]]
        maps = [maps[0], *(F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in maps[1:])]
        return self.score(torch.cat(maps, dim=1))


class UPSNet(mask_rcnn.MaskRCNN):
    """Mask R-CNN, the semantic head, and the panoptic head.

    A system that extends this one may change the levels between `_levels` and `_train_segments` or `_detect_segments`.

    Args:
        parts: of the detector.
        semantic_head: on its pyramid.
        roi_pooling: of the logits in the RoI loss; None for no such loss.
        semantic_weight: of the semantic head's term in the loss.
        roi_weight: of the RoI loss's.
        panoptic_weight: of the panoptic head's.
        kept_objects: fraction of an image's instances, at least one of them, that the panoptic head gets in training.
        has_unknown: whether there is a channel for unknown pixels.
        smallest_stuff: smallest area of a class of stuff, in pixels of the original image; less becomes void.

    Attributes:
        pixel_loss: of the semantic head.
    """

    task = TASK
    suppresses_across_classes = True

    def __init__(
        self,
        parts: mask_rcnn.Parts,
        *,
        semantic_head: SemanticHead,
        roi_pooling: RoIPooling | None,
        semantic_weight: float,
        roi_weight: float,
        panoptic_weight: float,
        kept_objects: float,
        has_unknown: bool,
        smallest_stuff: int,
    ) -> None:
        super().__init__(parts)
        self.semantic_head, self.roi_pooling = semantic_head, roi_pooling
        self.semantic_weight, self.roi_weight = semantic_weight, roi_weight
        self.panoptic_weight, self.kept_objects = panoptic_weight, kept_objects
        self.has_unknown, self.smallest_stuff = has_unknown, smallest_stuff
        self.pixel_loss = PixelLoss()

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        images: Float[Tensor, "B 3 H W"],
        sizes: Int64[Tensor, "B 2"] | None = None,
        truth: tuple[Annotation, ...] | None = None,
        memory: Any = None,  # noqa: ARG002
    ) -> Output | TrainingOutput:
        """With ground truth the inputs of the losses, else the detections.

        Raises:
            DataError: the ground truth has no instances with masks, or no class for each pixel.
        """
        valid = [(images.shape[2], images.shape[3])] * len(images) if sizes is None else sizes.tolist()
        x = self._prepared(images, sizes)
        levels, padded_size = self._levels(x), (x.shape[2], x.shape[3])
        if truth is None:
            return self._detect_segments(levels, padded_size, valid)
        return self._train_segments(levels, padded_size, valid, truth)

    def class_rows(self) -> tuple[ClassRows, ...]:
        """See `contracts.System`."""
        every = tuple(range(self.semantic_head.score.out_channels))
        return (*super().class_rows(), ClassRows("semantic_head.score", every))

    def loss(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, output: Output | TrainingOutput, batch: Batch
    ) -> dict[str, Term]:
        """Mask R-CNN's five terms, and those of the semantic head, of its boxes and of the panoptic head.

        Raises:
            DataError: forward was called without ground truth.
        """
        output = training_output(output, TrainingOutput)
        terms = super().loss(output.objects, batch)
        height, width = batch.images.shape[2:]
        logits = F.interpolate(
            at_least_float32(output.logits), scale_factor=STRIDE, mode="bilinear", align_corners=False
        )
        truth = stack_semantic(batch.truth)
        terms["semantic"] = self.pixel_loss(logits[:, :, :height, :width], truth, weight=self.semantic_weight)
        if output.roi_logits:
            terms["roi"] = _segment_term(output.roi_logits, output.roi_targets, self.roi_weight)
        logits, targets = ([one[None] for one in part] for part in (output.panoptic_logits, output.panoptic_targets))
        terms["panoptic"] = _segment_term(logits, targets, self.panoptic_weight)
        return terms

    def decode(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, output: Output, sizes: Sizes, thresholds: Thresholds | None = None
    ) -> list[Annotation]:
        """The segments at the original size."""
        thresholds = thresholds or self.thresholds
        images = range(len(sizes.original))
        return [Annotation(panoptic=self._panoptic(output, sizes, index, thresholds)) for index in images]

    def features(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "*_"], ...]:
        """All maps before detections are sorted and selected."""
        return (*super().features(images), self.semantic_head(self._levels(self._prepared(images, None))))

    def _train_segments(
        self,
        levels: Sequence[Float[Tensor, "B _ _ _"]],
        padded_size: tuple[int, int],
        sizes: Sequence[Sequence[int]],
        truth: tuple[Annotation, ...],
    ) -> TrainingOutput:
        """Inputs of the losses of all heads; the arguments are those of `_train`."""
        semantic_logits = self.semantic_head(levels)
        detector = self._train(levels, padded_size, sizes, truth)
        instances = [_without_crowds(one) for one in training_instances(truth)]
        semantic = stack_semantic(truth)
        roi_logits: tuple[Tensor, ...] = ()
        roi_targets: tuple[Tensor, ...] = ()
        if self.roi_pooling is not None:
            boxes = [one.boxes for one in instances]
            roi_logits = self.roi_pooling([semantic_logits], boxes).split([len(one) for one in boxes])
            roi_targets = tuple(_inside_boxes(*pair) for pair in zip(semantic, boxes, strict=True))
        kept = [_some_of(one, self.kept_objects) for one in instances] if self.has_unknown else instances
        boxes, channels = [one.boxes for one in kept], [channels_of(one.labels, self.things) for one in kept]
        masks = self._mask_logits(levels, boxes, channels).split([len(one) for one in kept])
        logits: list[Tensor] = []
        targets: list[Tensor] = []
        for scores, objects, mask, classes in zip(semantic_logits, kept, masks, semantic, strict=True):
            assert objects.masks is not None
            logits.append(
                panoptic_logits(
                    scores,
                    objects.boxes,
                    objects.labels,
                    mask,
                    things=self.things,
                    stride=STRIDE,
                    has_unknown=self.has_unknown,
                )
            )
            targets.append(
                panoptic_targets(
                    classes,
                    objects.masks,
                    num_classes=len(scores),
                    things=self.things,
                    stride=STRIDE,
                    size=(scores.shape[1], scores.shape[2]),
                    has_unknown=self.has_unknown,
                )
            )
        return TrainingOutput(
            logits=semantic_logits,
            objects=detector,
            roi_logits=roi_logits,
            roi_targets=roi_targets,
            panoptic_logits=tuple(logits),
            panoptic_targets=tuple(targets),
        )

    def _detect_segments(
        self, levels: Sequence[Float[Tensor, "B _ _ _"]], padded_size: tuple[int, int], sizes: Sequence[Sequence[int]]
    ) -> Output:
        """Semantic logits and detections; the arguments are those of `_train`."""
        logits = self.semantic_head(levels)
        boxes, channels, scores = self._detected_boxes(levels, padded_size, sizes)
        masks = self._mask_logits(levels, boxes, channels).split([len(one) for one in boxes])
        return Output(logits, boxes, channels, scores, masks)

    def _panoptic(
        self,
        output: Output,
        sizes: Sizes,
        index: int,
        thresholds: Thresholds,
        numbers: Int64[Tensor, " N"] | None = None,
    ) -> Panoptic:
        """The segments of one image.

        Args:
            output: of forward.
            sizes: of all images.
            index: of the image.
            thresholds: of its detections.
            numbers: track ids of its detections, which the segments get; else they are counted.
        """
        valid, size = sizes.valid[index], sizes.original[index]
        logits, chosen = output.logits[index], thresholds.places(output.scores[index])
        height, width = (STRIDE * side for side in logits.shape[1:])
        covered = (height * size[0] / valid[0], width * size[1] / valid[1])
        boxes = clip_boxes(scale_boxes(output.boxes[index][chosen], valid, size), size)
        labels, masks = class_ids_of(output.channels[index][chosen], self.things), output.mask_logits[index][chosen]
        scores = output.scores[index][chosen]
        numbers = None if numbers is None else numbers[chosen]
        kept = uncovered(boxes, labels, masks, size)
        return panoptic_segments(
            logits,
            boxes[kept],
            labels[kept],
            masks[kept],
            scores[kept],
            size,
            things=self.things,
            covered=covered,
            smallest_stuff=self.smallest_stuff,
            has_unknown=self.has_unknown,
            numbers=None if numbers is None else numbers[kept],
        )


@flat_arguments
def build(
    *,
    num_classes: int,
    detector: mask_rcnn.DetectorArguments = DETECTOR,
    deformable_backbone: bool = False,
    global_context: bool = True,
    semantic_layers: int = 3,
    semantic_norm: Literal["none", "group"] = "none",
    semantic_weight: float = 0.2,
    roi_weight: float = 0.04,
    panoptic_weight: float = 0.1,
    kept_objects: float = 0.7,
    has_unknown: bool = True,
    smallest_stuff: int = 4096,
) -> UPSNet:
    """UPSNet with random weights, in its COCO setting.

    Args:
        num_classes: of the label set, things and stuff.
        detector: its fields are arguments of their own; the semantic head has half of its channels.
        deformable_backbone: deformable convolutions in the second to fourth stage of a ResNet, as in the paper's
            ResNet-101-DCN.
        global_context: see `nn.fpn.FPN`; on COCO, not on Cityscapes.
        semantic_layers: of the semantic head; 3 on COCO, 2 on Cityscapes.
        semantic_norm: see SemanticHead.
        semantic_weight: of the semantic term; 0.2 on COCO, 1 on Cityscapes.
        roi_weight: of the RoI term; 0.04 on COCO; 0 for none, as on Cityscapes.
        panoptic_weight: of the panoptic term; 0.1 on COCO, 0.5 on Cityscapes.
        kept_objects: fraction of the ground truth instances that the panoptic head gets; the pixels of the others are
            unknown.
        has_unknown: whether the panoptic head has a channel for unknown pixels.
        smallest_stuff: smallest area of a class of stuff, in pixels of the original image; less becomes void; 2048 on
            Cityscapes.

    Raises:
        RecipeError: arguments that do not fit together.
    """
    if detector.channels < 2:
        raise RecipeError(f"channels={detector.channels}: at least 2, of which the semantic head has half")
    if semantic_layers < 2:
        raise RecipeError(f"semantic_layers={semantic_layers}: expected at least 2")
    if semantic_norm not in ("none", "group"):
        raise RecipeError(f"semantic_norm '{semantic_norm}': none or group")
    if not 0 < kept_objects <= 1:
        raise RecipeError(f"kept_objects={kept_objects}: a fraction above 0, at most 1")
    parts = mask_rcnn.build(num_classes=num_classes, detector=detector).parts
    if deformable_backbone:
        if not isinstance(parts.backbone, ResNetBackbone):
            raise RecipeError(f"backbone '{detector.backbone}': deformable_backbone takes a ResNet")
        deform(parts.backbone, is_modulated=False, has_bias=False)
    if global_context:
        widths = [parts.backbone.channels[number] for number in parts.maps]
        parts = replace(parts, fpn=FPN(widths, channels=detector.channels, global_context=True))
    roi_pooling = RoIPooling(
        (STRIDE,),
        size=ROI_SIDE,
        sampling_ratio=detector.sampling_ratio,
        is_aligned=detector.is_aligned,
        inclusive_boxes=detector.inclusive_boxes,
    )
    return UPSNet(
        parts,
        semantic_head=SemanticHead(
            detector.channels, num_classes, channels=detector.channels // 2, layers=semantic_layers, norm=semantic_norm
        ),
        roi_pooling=roi_pooling if roi_weight else None,
        semantic_weight=semantic_weight,
        roi_weight=roi_weight,
        panoptic_weight=panoptic_weight,
        kept_objects=kept_objects,
        has_unknown=has_unknown,
        smallest_stuff=smallest_stuff,
    )


def _without_crowds(instances: Instances) -> Instances:
    return instances if instances.crowd is None else instances[~instances.crowd]


def _some_of(instances: Instances, fraction: float) -> Instances:
    """A fraction of the instances, at least one, sampled with torch's generator; in their order."""
    count = len(instances)
    drawn = torch.randperm(count, device=instances.labels.device)[: max(int(count * fraction), 1)]
    return instances[drawn.sort().values]


def _inside_boxes(semantic: Int64[Tensor, "H W"], boxes: Float[Tensor, "N 4"]) -> Int64[Tensor, "N M M"]:
    """The ground truth classes inside each box, at the nearest pixels above and left; corners are rounded."""
    height, width = semantic.shape
    corners = boxes.round().long()
    steps = torch.arange(ROI_SIDE, device=boxes.device)
    sides = (corners[:, 2:] - corners[:, :2]).clamp(min=1)
    x = (corners[:, :1] + steps * sides[:, :1] // ROI_SIDE).clamp(0, width - 1)
    y = (corners[:, 1:2] + steps * sides[:, 1:] // ROI_SIDE).clamp(0, height - 1)
    return semantic[y[:, :, None], x[:, None, :]]


def _segment_term(
    logits: Sequence[Float[Tensor, "_ _ h w"]], targets: Sequence[Int64[Tensor, "_ h w"]], weight: float
) -> Term:
    """Cross-entropy of all cells that are not ignored, in nats, and their number."""
    sums: list[Tensor] = []
    counts: list[Tensor] = []
    for scores, target in zip(logits, targets, strict=True):
        scores = at_least_float32(scores)
        target = torch.where(target < scores.shape[1], target, IGNORED)  # ids of void may be larger, or negative
        target = target.clamp(min=IGNORED)
        sums.append(F.cross_entropy(scores, target, ignore_index=IGNORED, reduction="sum"))
        counts.append((target != IGNORED).sum())
    return Term(torch.stack(sums).sum(), torch.stack(counts).sum(), weight)


VARIANTS = {
    "upsnet_coco_resnet50": {"backbone": "resnet50"},
    "upsnet_coco_resnet101_deformable": {"backbone": "resnet101", "deformable_backbone": True},
    "upsnet_coco_mobilenet_v2": {"backbone": "mobilenet_v2"},
    "upsnet_cityscapes_resnet50": {
        "backbone": "resnet50",
        "global_context": False,
        "semantic_layers": 2,
        "semantic_weight": 1.0,
        "roi_weight": 0.0,
        "panoptic_weight": 0.5,
        "smallest_stuff": 2048,
    },
}

RECIPE = Recipe(
    stages=(mask_rcnn.DETECTOR_STAGE,),
)
RECIPES: dict[str, Recipe] = {}

_COCO = replace(mask_rcnn.PUBLISHED_STAGE, warmup_steps=1_500, warmup_factor=0.1)
_LONG = replace(
    _COCO,
    augmentation=replace(_COCO.augmentation, short_sides=(640, 672, 704, 736, 768, 800, 832)),
    **mask_rcnn.THREE_TIMES,
)
_CITYSCAPES = replace(
    _COCO,
    steps=12_000,
    milestones=(9_000,),
    augmentation=replace(_COCO.augmentation, short_sides=(800, 832, 864, 896, 928, 960, 992, 1024)),
)
PUBLISHED = {
    "paper": {
        **dict.fromkeys(("upsnet", *VARIANTS), replace(mask_rcnn.PUBLISHED_RECIPE, stages=(_COCO,))),
        "upsnet_coco_resnet101_deformable": replace(mask_rcnn.PUBLISHED_RECIPE, stages=(_LONG,)),
        "upsnet_cityscapes_resnet50": Recipe(
            stages=(_CITYSCAPES,), input_size=1024, input_side="short", input_limit=2048
        ),
    }
}
"""Of the authors' `upsnet_resnet50_coco_16gpu.yaml` and its neighbours; the warm-up's start is that of their code."""
