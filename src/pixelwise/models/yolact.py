"""YOLACT: Bolya, Zhou, Xiao, Lee, "YOLACT: Real-time Instance Segmentation", ICCV 2019; and "YOLACT++: Better Real-time
Instance Segmentation", TPAMI 2020.

One network predicts prototype masks for the whole image, and for each anchor a class, a box and one coefficient for
each prototype. An instance's mask is the sigmoid of the sum of prototypes times coefficients, cropped to its box
(section 3). In Fast NMS suppressed boxes suppress others too, so that it is one comparison of matrices (section 3.4).
YOLACT++ adds deformable convolutions, three times as many anchors, and fast mask re-scoring, a small network that
predicts the IoU of each mask.

Differences from the paper, and from the authors' code where it says more:
- The image is stretched to a square, as in the paper; sides other than 550 are allowed, and anchors then keep their
  share of the image, as in the authors' configurations for 400 and 700 pixels (which round them; `anchor_sizes` takes
  theirs).
- Ground truth boxes below 4/550 of a side are skipped, as in the authors' augmentation; the mask loss skips instances
  without a mask. An image without instances has no anchor losses.
- The mask loss is computed from logits inside the crop, so that saturated wrong pixels keep their gradient. Pixels of
  the ground truth outside the crop, which has a margin of one pixel, do not count; the authors add a constant for them.
- Mask-IoU: grids below 63 cells are padded with zeros, as its five unpadded convolutions need. The rescored value is
  the one score of an instance; the authors evaluate boxes by the class score and masks by the rescored one.
- Boxes keep their fractions; the authors cut them to whole pixels for boxes, not for masks. Traditional NMS, an option,
  is torchvision's, without the added pixel of the authors' Cython, and keeps as many candidates of a class as Fast NMS.
- The recipe is for small data sets on a small machine; the paper's numbers stand beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from pixelwise.contracts import (
    Augmentation,
    ClassRows,
    Optimizer,
    Recipe,
    Sizes,
    Stage,
    Term,
    Thresholds,
    Traits,
    flat_arguments,
)
from pixelwise.errors import RecipeError
from pixelwise.losses.detection import training_instances, training_output
from pixelwise.nn.backbone import Backbone, Normalize
from pixelwise.nn.backbones import ResNetBackbone, build_backbone
from pixelwise.nn.convolution import convolution
from pixelwise.nn.deformable import deform
from pixelwise.nn.fpn import FPN, pyramid_maps
from pixelwise.ops.anchors import centred_anchors
from pixelwise.ops.boxes import (
    RCNN_WEIGHTS,
    are_large_enough,
    box_areas,
    clip_boxes,
    decode_boxes,
    encode_boxes,
    inside_boxes,
    scale_boxes,
)
from pixelwise.ops.matching import draw_at_most, hard_negatives, match_anchors
from pixelwise.ops.nms import fast_nms, traditional_nms
from pixelwise.ops.padding import zero_beyond
from pixelwise.ops.paste import enlarge_masks
from pixelwise.ops.precision import at_least_float32
from pixelwise.ops.thing_channels import channels_of, class_ids_of, things_of
from pixelwise.types import Annotation, Batch, Instances, Masks

TASK = "instance"
TRAITS = Traits(stretches_input=True)

MEAN = tuple(value / 255 for value in (123.68, 116.78, 103.94))
STD = tuple(value / 255 for value in (58.40, 57.12, 57.38))
"""Mean and standard deviation of RGB values for the authors' ResNets; their code has them in the order BGR."""

ANCHOR_RATIOS = (1.0, 0.5, 2.0)
"""Width over height (section 3.3)."""
TOP_K = 200
"""Number of the highest-scoring candidates of each class that go into NMS."""
SMALLEST_SIDE = 4 / 550
"""Instances below this fraction of the image's sides are skipped."""
SMALLEST_MASK = 25
"""Mask re-scoring is trained on instances of more cells."""
NOT_IN_LOSS = -1
"""Target of an anchor that the class loss skips."""

Anchors = Literal["square", "ratios"]
"""Shape of the anchors of ratios 1/2 and 2.

- `square`: the height is the width, by a mistake in the release of YOLACT with which its weights were trained.
- `ratios`: as the paper says, and as in YOLACT++; 0.2 mAP better by the authors' measurement.
"""


class Predictions(NamedTuple):
    """Predictions for P anchors with C prototypes.

    Attributes:
        logits: of each class; channel 0 is background.
        deltas: of the boxes, in SSD's encoding.
        coefficients: in (-1, 1), one for each prototype.
        prototypes: at least 0, at twice the size of the largest feature map.
        anchors: x1 y1 x2 y2 in pixels of the network's input, the same for all images.
        image_sizes: height and width of the network's input, padding included, the same for all.
    """

    logits: Float[Tensor, "B P K"]
    deltas: Float[Tensor, "B P 4"]
    coefficients: Float[Tensor, "B P C"]
    prototypes: Float[Tensor, "B C h w"]
    anchors: Float[Tensor, "B P 4"]
    image_sizes: Int64[Tensor, "B 2"]


class TrainingOutput(NamedTuple):
    """Inputs of the losses for P anchors.

    Attributes:
        predictions: for all anchors.
        objects: index of the ground truth instance that an anchor is matched to, or BACKGROUND, or NEUTRAL.
        targets: target channel of the class loss, or NOT_IN_LOSS for neither a positive nor a hard negative.
        masked: of each image the anchors whose masks enter the mask loss.
        mask_logits: of these anchors.
        mask_ious: of these anchors, predicted from their masks for the ground truth class; None without
            mask re-scoring.
        semantic_logits: of each class at each cell of the largest feature map.
    """

    predictions: Predictions
    objects: Int64[Tensor, "B P"]
    targets: Int64[Tensor, "B P"]
    masked: tuple[Int64[Tensor, " _"], ...]
    mask_logits: tuple[Float[Tensor, "_ h w"], ...]
    mask_ious: tuple[Float[Tensor, " _"], ...] | None
    semantic_logits: Float[Tensor, "B T h3 w3"]


class Detections(NamedTuple):
    """The detections in one image, highest score first.

    Attributes:
        boxes: x1 y1 x2 y2 in pixels of the network's input, may exceed it.
        scores: in [0, 1].
        channels: of the class, from 1 on.
        masks: in [0, 1] on the prototypes' grid, which covers the image; zero beyond the box.
    """

    boxes: Float[Tensor, "N 4"]
    scores: Float[Tensor, " N"]
    channels: Int64[Tensor, " N"]
    masks: Float[Tensor, "N h w"]


class Output(NamedTuple):
    """The detections, and what they are made of.

    Attributes:
        predictions: for all anchors.
        detections: in each image.
    """

    predictions: Predictions
    detections: tuple[Detections, ...]


@dataclass(frozen=True, kw_only=True)
class DetectorArguments:
    """Arguments of `build` that YOLACT shares with YolactEdge.

    Attributes:
        thing_ids: class ids of the things; all but 0 if not given.
        backbone: see `nn.backbones.build_backbone`.
        channels: of the feature pyramid.
        prototypes: 32 in the paper (table 2b).
        anchors: see Anchors.
        anchor_sizes: the smallest side at each level of the pyramid, from stride 8 on, in pixels of an image of
            `anchor_image_side`.
        anchor_scales: sizes at each level, by which it is divided into equal ratios up to twice the size; 3 in
            YOLACT++.
        anchor_image_side: see `anchor_sizes`; in images of other sides, anchors have the same share of each.
        masks_to_train: largest number per image, the loss of the sampled ones is scaled to all; the authors have 300 at
            700 pixels.
        nms: `fast`, or `ordinary` within each class.
        candidate_threshold: anchors whose highest class score does not exceed it are dropped before NMS.
        nms_threshold: largest IoU of two detections of a class.
        score_threshold: lowest score of a detection. At 0, as the authors evaluate, all are kept, with Fast NMS also
            classes of a candidate that score less than `candidate_threshold`.
        max_detections: per image.
    """

    thing_ids: Sequence[int] | None = None
    backbone: str = "resnet101"
    channels: int = 256
    prototypes: int = 32
    anchors: Anchors = "square"
    anchor_sizes: Sequence[float] = (24, 48, 96, 192, 384)
    anchor_scales: int = 1
    anchor_image_side: int = 550
    masks_to_train: int = 100
    nms: Literal["fast", "ordinary"] = "fast"
    candidate_threshold: float = 0.05
    nms_threshold: float = 0.5
    score_threshold: float = 0.0
    max_detections: int = 100


DETECTOR = DetectorArguments()
"""As in the paper, of 550 pixels."""


class Protonet(nn.Sequential):
    """The prototypes (figure 3), after a ReLU, so that none is negative.

    Args:
        channels: of the map.
        prototypes: their number.
    """

    def __init__(self, channels: int, prototypes: int) -> None:
        super().__init__(
            *(part for _ in range(3) for part in convolution(channels, channels, has_activation=True)),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            nn.ReLU(inplace=True),
            *convolution(channels, channels, has_activation=True),
            *convolution(channels, prototypes, 1, has_activation=True),
        )


class Head(nn.Module):
    """Class, box and coefficients of each anchor, with the same weights for all maps (figure 4).

    Args:
        channels: of the maps.
        anchors: of each cell.
        classes: channels of the logits.
        prototypes: number of coefficients.
    """

    def __init__(self, channels: int, *, anchors: int, classes: int, prototypes: int) -> None:
        super().__init__()
        self.tower = convolution(channels, channels, has_activation=True)
        self.boxes = nn.Conv2d(channels, anchors * 4, 3, padding=1)
        self.classes = nn.Conv2d(channels, anchors * classes, 3, padding=1)
        self.coefficients = nn.Conv2d(channels, anchors * prototypes, 3, padding=1)
        self.anchors = anchors

    def forward(
        self, x: Float[Tensor, "B D h w"]
    ) -> tuple[Float[Tensor, "B N K"], Float[Tensor, "B N 4"], Float[Tensor, "B N C"]]:
        """Logits, deltas and coefficients, anchor after anchor in each cell."""
        x = self.tower(x)
        logits, deltas, coefficients = (
            layer(x).permute(0, 2, 3, 1).reshape(len(x), x.shape[2] * x.shape[3] * self.anchors, -1)
            for layer in (self.classes, self.boxes, self.coefficients)
        )
        return logits, deltas, coefficients.tanh()


class MaskIoUNet(nn.Module):
    """Fast mask re-scoring: predicts the IoU of a mask with its instance from the mask alone, for each class (YOLACT++,
    section 5.3).

    Args:
        things: classes.
    """

    SMALLEST = 63
    """Side in cells that five unpadded convolutions reduce to one."""

    def __init__(self, things: int) -> None:
        super().__init__()
        widths = (1, 8, 16, 32, 64, 128)
        self.convolutions = nn.Sequential(
            *(
                layer
                for width, wider in pairwise(widths)
                for layer in (nn.Conv2d(width, wider, 3, stride=2), nn.ReLU(inplace=True))
            ),
            nn.Conv2d(widths[-1], things, 1),
            nn.ReLU(inplace=True),
        )

    def forward(self, masks: Float[Tensor, "N h w"]) -> Float[Tensor, "N T"]:
        """IoUs of at least 0; they may exceed 1."""
        below, beyond = (max(0, self.SMALLEST - side) for side in masks.shape[1:])
        return self.convolutions(F.pad(masks[:, None], (0, beyond, 0, below))).amax(dim=(2, 3))


class YOLACT(nn.Module):
    """Backbone, feature pyramid, prototypes and head.

    Args:
        backbone: with maps of stride 8, 16 and 32.
        things: class ids of the things, ascending.
        detector: all but its backbone and its things.
        rescores_masks: predict each mask's IoU, and multiply the class score by it.
    """

    task = TASK
    traits = TRAITS

    def __init__(
        self,
        backbone: Backbone,
        *,
        things: tuple[int, ...],
        detector: DetectorArguments = DETECTOR,
        rescores_masks: bool = False,
    ) -> None:
        super().__init__()
        is_resnet = isinstance(backbone, ResNetBackbone)
        channels, scales = detector.channels, detector.anchor_scales
        self.normalize = Normalize(MEAN if is_resnet else backbone.mean, STD if is_resnet else backbone.std)
        self.backbone = backbone
        self.levels = pyramid_maps(backbone, (8, 16, 32))
        self.things = things
        self.anchor_sizes = tuple(
            tuple(size * 2 ** (scale / scales) for scale in range(scales)) for size in detector.anchor_sizes
        )
        self.anchor_image_side, self.square_anchors = detector.anchor_image_side, detector.anchors == "square"
        self.fpn = FPN(
            [backbone.channels[level] for level in self.levels],
            channels=channels,
            upsampling="bilinear",
            has_activation=True,
            extra="convolutions",
            extra_levels=len(self.anchor_sizes) - len(self.levels),
        )
        self.protonet = Protonet(channels, detector.prototypes)
        self.head = Head(
            channels,
            anchors=scales * len(ANCHOR_RATIOS),
            classes=len(things) + 1,
            prototypes=detector.prototypes,
        )
        self.semantic = nn.Conv2d(channels, len(things), 1)
        self.mask_iou = MaskIoUNet(len(things)) if rescores_masks else None
        self.masks_to_train = detector.masks_to_train
        self.nms, self.nms_threshold = detector.nms, detector.nms_threshold
        self.candidate_threshold = detector.candidate_threshold
        self.thresholds = Thresholds(detector.score_threshold, detector.max_detections)
        for part in (self.fpn, self.protonet, self.head, self.semantic, self.mask_iou):
            _initialise(part)

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        sizes: Int64[Tensor, "B 2"] | None = None,
        truth: tuple[Annotation, ...] | None = None,
        memory: Any = None,  # noqa: ARG002
    ) -> Output | TrainingOutput:
        """The detections; in training with ground truth the inputs of the losses."""
        levels, size = self._pyramid(zero_beyond(self.normalize(images), sizes)), (images.shape[2], images.shape[3])
        if self.training and truth is not None:
            return self.compare(levels, size, truth)
        predictions = self.predict(levels, size)
        return Output(predictions, self.detect(predictions))

    def features(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "_ _ _ *_"], ...]:
        """Maps before detections are sorted, without the coefficients, whose tanh amplifies rounding in untrained
        networks.
        """
        predictions = self.predict(self._pyramid(self.normalize(images)), (images.shape[2], images.shape[3]))
        return predictions.logits, predictions.deltas, predictions.prototypes

    def _pyramid(self, x: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B D _ _"], ...]:
        """The levels of the feature pyramid, P3 first."""
        maps = self.backbone(x)
        return self.fpn([maps[level] for level in self.levels])

    def predict(self, levels: Sequence[Float[Tensor, "B D _ _"]], size: tuple[int, int]) -> Predictions:
        """Run prototypes and head on the levels of the feature pyramid.

        Args:
            levels: from P3 on.
            size: height and width of the network's input.
        """
        prototypes = self.protonet(levels[0])
        parts = [self.head(x) for x in levels]
        count, device = len(prototypes), prototypes.device
        with torch.autocast(device.type, enabled=False):
            logits, deltas, coefficients = (at_least_float32(torch.cat(part, 1)) for part in zip(*parts, strict=True))
            anchors = self.anchors([(x.shape[2], x.shape[3]) for x in levels], size).to(logits)
        return Predictions(
            logits=logits,
            deltas=deltas,
            coefficients=coefficients,
            prototypes=at_least_float32(prototypes),
            anchors=anchors.expand(count, -1, -1),
            image_sizes=torch.tensor([size] * count, device=device),
        )

    def anchors(self, grids: Sequence[tuple[int, int]], size: tuple[int, int]) -> Float[Tensor, "P 4"]:
        """All anchors of an image, level after level, in pixels.

        Args:
            grids: height and width of each level of the pyramid.
            size: of the image.
        """
        side = self.anchor_image_side
        levels = [
            centred_anchors(grid, (side, side), sizes=sizes, ratios=ANCHOR_RATIOS, is_square=self.square_anchors)
            for grid, sizes in zip(grids, self.anchor_sizes, strict=True)
        ]
        return scale_boxes(torch.cat(levels), (side, side), size)

    def detect(self, predictions: Predictions) -> tuple[Detections, ...]:
        """The detections in each image: NMS, mask assembly, crop, and mask re-scoring."""
        with torch.autocast(predictions.logits.device.type, enabled=False):
            return tuple(self._detect(predictions, index) for index in range(len(predictions.logits)))

    def _detect(self, predictions: Predictions, index: int) -> Detections:
        scores = predictions.logits[index].softmax(dim=1)[:, 1:]
        candidates = (scores.amax(dim=1) > self.candidate_threshold).nonzero().flatten()
        boxes = decode_boxes(
            predictions.deltas[index, candidates],
            predictions.anchors[index, candidates],
            weights=RCNN_WEIGHTS,
            largest_log_scale=None,
        )
        scores = scores[candidates]
        if self.nms == "fast":
            chosen, classes = fast_nms(boxes, scores, threshold=self.nms_threshold, per_class=TOP_K)
        else:
            chosen, classes = traditional_nms(
                boxes, scores, threshold=self.nms_threshold, per_class=TOP_K, smallest_score=self.candidate_threshold
            )
        chosen, classes = chosen[: self.thresholds.max_detections], classes[: self.thresholds.max_detections]
        scores, boxes = scores[chosen, classes], boxes[chosen]
        prototypes = predictions.prototypes[index]
        masks = assemble_masks(prototypes, predictions.coefficients[index, candidates[chosen]]).sigmoid()
        masks = masks * inside_boxes(boxes, predictions.image_sizes[index].tolist(), _grid(masks))
        if self.mask_iou is not None and len(masks):
            scores = scores * self.mask_iou(masks).gather(1, classes[:, None])[:, 0]
        best = scores.argsort(descending=True, stable=True)
        if self.thresholds.score > 0:
            best = best[scores[best] > self.thresholds.score]
        return Detections(boxes[best], scores[best], classes[best] + 1, masks[best])

    def decode(self, output: Output, sizes: Sizes, thresholds: Thresholds | None = None) -> list[Annotation]:
        """The instances at the original size of their image, highest score first."""
        annotations: list[Annotation] = []
        image_sizes = output.predictions.image_sizes.tolist()
        images = zip(output.detections, sizes.valid, sizes.original, image_sizes, strict=True)
        for found, valid, original, whole in images:
            kept = (thresholds or self.thresholds).places(found.scores)
            boxes = clip_boxes(scale_boxes(found.boxes, valid, original), original)
            seen = kept[(boxes[kept, 2:] > boxes[kept, :2]).all(dim=1)]
            # the prototypes cover the padding too: the size of the original with such padding
            covered = (original[0] * whole[0] / valid[0], original[1] * whole[1] / valid[1])
            pasted = enlarge_masks(found.masks[seen], original, covered=covered)
            instances = Instances(
                boxes=boxes[seen],
                labels=class_ids_of(found.channels[seen], self.things),
                masks=Masks(*pasted, size=original),
                scores=found.scores[seen].clamp(max=1),
            )
            annotations.append(Annotation(instances=instances))
        return annotations

    def compare(
        self, levels: Sequence[Float[Tensor, "B D _ _"]], size: tuple[int, int], truth: Sequence[Annotation]
    ) -> TrainingOutput:
        """Match the anchors, mine hard negatives, and select the masks for the mask loss.

        Args:
            levels: see `predict`.
            size: see `predict`.
            truth: of each image.
        """
        predictions = self.predict(levels, size)
        semantic_logits = at_least_float32(self.semantic(levels[0]))
        truths = training_instances(truth)
        with torch.autocast(semantic_logits.device.type, enabled=False):
            objects = torch.stack([match_instances(predictions.anchors[0], one, size) for one in truths])
            targets = torch.full_like(objects, NOT_IN_LOSS)
            masked: list[Tensor] = []
            mask_logits: list[Tensor] = []
            mask_ious: list[Tensor] = []
            for index, one in enumerate(truths):
                positive = objects[index] >= 0
                targets[index, hard_negatives(predictions.logits[index], objects[index])] = 0
                targets[index, positive] = channels_of(one.labels[objects[index, positive]], self.things)
                anchors = draw_at_most(_with_masks(objects[index], one), self.masks_to_train)
                logits = assemble_masks(predictions.prototypes[index], predictions.coefficients[index, anchors])
                masked.append(anchors)
                mask_logits.append(logits)
                if self.mask_iou is not None:
                    inside = inside_boxes(one.boxes[objects[index, anchors]], size, _grid(logits))
                    ious: Tensor = self.mask_iou(logits.sigmoid() * inside)
                    mask_ious.append(ious.gather(1, targets[index, anchors, None] - 1)[:, 0])
        return TrainingOutput(
            predictions=predictions,
            objects=objects,
            targets=targets,
            masked=tuple(masked),
            mask_logits=tuple(mask_logits),
            mask_ious=None if self.mask_iou is None else tuple(mask_ious),
            semantic_logits=semantic_logits,
        )

    def loss(self, output: Output | TrainingOutput, batch: Batch) -> dict[str, Term]:
        """The losses of class, box and mask, divided by the number of positive anchors, and the semantic loss.

        Raises:
            DataError: an output of prediction, or instances without masks.
        """
        output = training_output(output, TrainingOutput)
        truths = training_instances(batch.truth)
        logits, targets = output.predictions.logits, output.targets
        count = (output.objects >= 0).sum()
        images = torch.tensor(len(truths), device=count.device)
        evaluated = targets != NOT_IN_LOSS
        terms = {
            "class": Term(F.cross_entropy(logits[evaluated], targets[evaluated], reduction="sum"), count),
            "box": Term(_box_loss(output, truths), count, weight=1.5),
            "mask": Term(_mask_loss(output, truths), count, weight=6.125),
            "semantic": Term(_semantic_loss(output, truths, self.things), images),
        }
        if output.mask_ious is not None:
            terms["mask_iou"] = Term(_mask_iou_loss(output, output.mask_ious, truths), count, weight=25.0)
        return terms

    def class_rows(self) -> tuple[ClassRows, ...]:
        """See `contracts.System`."""
        rows = (
            ClassRows("head.classes", self.things, first=1, groups=self.head.anchors),
            ClassRows("semantic", self.things),
        )
        return rows if self.mask_iou is None else (*rows, ClassRows("mask_iou.convolutions.10", self.things))


def assemble_masks(prototypes: Float[Tensor, "C h w"], coefficients: Float[Tensor, "N C"]) -> Float[Tensor, "N h w"]:
    """Mask logits: the linear combinations of prototypes by coefficients (section 3.2)."""
    return (coefficients @ prototypes.flatten(1)).unflatten(1, prototypes.shape[1:])


def match_instances(anchors: Float[Tensor, "P 4"], truth: Instances, image_size: Sequence[int]) -> Int64[Tensor, " P"]:
    """The index of the instance in `truth` that each anchor is matched to, or BACKGROUND, or NEUTRAL.

    Instances below SMALLEST_SIDE are skipped; see `match_anchors`.
    """
    crowd = torch.zeros_like(truth.labels, dtype=torch.bool) if truth.crowd is None else truth.crowd
    shares = scale_boxes(truth.boxes, image_size, (1, 1))
    return match_anchors(anchors, truth.boxes, crowd=crowd, skipped=~are_large_enough(shares, SMALLEST_SIDE))


def _box_loss(output: TrainingOutput, truths: Sequence[Instances]) -> Float[Tensor, ""]:
    """Smooth L1 loss of the deltas."""
    predictions = output.predictions
    total = predictions.deltas.sum() * 0
    for index, truth in enumerate(truths):
        positive = output.objects[index] >= 0
        boxes = truth.boxes[output.objects[index, positive]].to(predictions.anchors)
        targets = encode_boxes(boxes, predictions.anchors[index, positive], weights=RCNN_WEIGHTS)
        total = total + F.smooth_l1_loss(predictions.deltas[index, positive], targets, reduction="sum")
    return total


def _mask_loss(output: TrainingOutput, truths: Sequence[Instances]) -> Float[Tensor, ""]:
    """Cross-entropy inside the ground truth box, summed and divided by the box's cells (section 3.2)."""
    total = output.predictions.prototypes.sum() * 0
    size = output.predictions.image_sizes[0].tolist()
    for index, (truth, anchors, logits) in enumerate(zip(truths, output.masked, output.mask_logits, strict=True)):
        if not len(anchors):
            continue
        objects, grid = output.objects[index, anchors], _grid(logits)
        boxes = truth.boxes[objects].to(logits)
        targets = _masks_on_grid(truth, size, grid)[objects].to(logits)
        losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * inside_boxes(boxes, size, grid)
        cells = box_areas(scale_boxes(boxes, size, grid))
        # the loss of the sampled ones is scaled to all
        share = len(anchors) / len(_with_masks(output.objects[index], truth))
        total = total + (losses.sum(dim=(1, 2)) / cells).sum() / share
    return total


def _semantic_loss(output: TrainingOutput, truths: Sequence[Instances], things: Sequence[int]) -> Float[Tensor, ""]:
    """Cross-entropy of each class at each cell, divided by the cells: the semantic segmentation loss (section 3.2)."""
    logits, grid = output.semantic_logits, _grid(output.semantic_logits)
    targets = torch.zeros_like(logits)
    for index, truth in enumerate(truths):
        masks = _masks_on_grid(truth, output.predictions.image_sizes[index].tolist(), grid).to(targets)
        for mask, channel in zip(masks, channels_of(truth.labels, things).tolist(), strict=True):
            targets[index, channel - 1] = targets[index, channel - 1].maximum(mask)
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / (grid[0] * grid[1])


def _mask_iou_loss(
    output: TrainingOutput, mask_ious: Sequence[Float[Tensor, " _"]], truths: Sequence[Instances]
) -> Float[Tensor, ""]:
    """Loss of the predicted mask IoUs, for instances of more than SMALLEST_MASK cells (YOLACT++, 5.3)."""
    total = output.predictions.prototypes.sum() * 0
    size = output.predictions.image_sizes[0].tolist()
    parts = zip(truths, output.masked, output.mask_logits, mask_ious, strict=True)
    for index, (truth, anchors, logits, predicted) in enumerate(parts):
        objects, grid = output.objects[index, anchors], _grid(logits)
        targets = _masks_on_grid(truth, size, grid)[objects]
        found = (logits > 0) & inside_boxes(truth.boxes[objects].to(logits), size, grid)
        evaluated = targets.sum(dim=(1, 2)) > SMALLEST_MASK
        ious = (targets & found).sum(dim=(1, 2)) / (targets | found).sum(dim=(1, 2))
        total = total + F.smooth_l1_loss(predicted[evaluated], ious[evaluated].to(predicted), reduction="sum")
    return total


def _grid(maps: Float[Tensor, "*_ h w"]) -> tuple[int, int]:
    return maps.shape[-2], maps.shape[-1]


def _masks_on_grid(truth: Instances, image_size: Sequence[int], grid: tuple[int, int]) -> Bool[Tensor, "N h w"]:
    """The ground truth masks on a grid that covers the network's input; those of crowds are empty."""
    assert truth.masks is not None
    whole = truth.boxes.new_tensor([0, 0, image_size[1], image_size[0]]).expand(len(truth), 4)
    masks = truth.masks.sample(whole, grid) > 0.5
    return masks if truth.crowd is None else masks & ~truth.crowd[:, None, None]


def _with_masks(objects: Int64[Tensor, " P"], truth: Instances) -> Int64[Tensor, " M"]:
    """The anchors that are matched to instances with a mask."""
    positive = (objects >= 0).nonzero().flatten()
    if truth.masks is None:
        return positive
    boxes = truth.masks.boxes
    return positive[(boxes[:, 2] > boxes[:, 0])[objects[positive]]]


def _initialise(part: nn.Module | None) -> None:
    """Initialise with Glorot's weights and zero bias, as in the authors' code."""
    for module in () if part is None else part.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def network_parts(num_classes: int, detector: DetectorArguments) -> tuple[Backbone, tuple[int, ...]]:
    """The backbone of these arguments, and the class ids of the things. Raises RecipeError where they do not fit."""
    sizes, scales = detector.anchor_sizes, detector.anchor_scales
    if detector.anchors not in ("square", "ratios"):
        raise RecipeError(f"anchors '{detector.anchors}': square or ratios")
    if detector.nms not in ("fast", "ordinary"):
        raise RecipeError(f"nms '{detector.nms}': fast or ordinary")
    if len(sizes) < 3 or scales < 1:
        raise RecipeError(f"anchor_sizes {list(sizes)}, anchor_scales {scales}: at least three levels and one scale")
    try:
        things = things_of(num_classes, detector.thing_ids)
    except ValueError as error:
        raise RecipeError(str(error)) from None
    return build_backbone(detector.backbone, output_stride=32), things


@flat_arguments
def build(
    *,
    num_classes: int,
    detector: DetectorArguments = DETECTOR,
    deformable_interval: int = 0,
    rescores_masks: bool = False,
) -> YOLACT:
    """YOLACT with random weights.

    Args:
        num_classes: background included.
        detector: its fields are arguments of their own.
        deformable_interval: make every n-th block of a ResNet's last three stages deformable (YOLACT++); 0 for none.
        rescores_masks: with the fast mask re-scoring network of YOLACT++.

    Raises:
        RecipeError: arguments that do not fit together.
    """
    backbone, things = network_parts(num_classes, detector)
    if deformable_interval:
        if not isinstance(backbone, ResNetBackbone):
            raise RecipeError(f"deformable_interval {deformable_interval}: only with a ResNet, not {detector.backbone}")
        deform(backbone, interval=deformable_interval)
    return YOLACT(backbone, things=things, detector=detector, rescores_masks=rescores_masks)


_PLUS = {"anchors": "ratios", "anchor_scales": 3, "rescores_masks": True}
VARIANTS = {
    "yolact_resnet101": {"backbone": "resnet101"},
    "yolact_resnet50": {"backbone": "resnet50"},
    "yolact_darknet53": {"backbone": "darknet53"},
    "yolact_plus_resnet101": {"backbone": "resnet101", "deformable_interval": 3, **_PLUS},
    "yolact_plus_resnet50": {"backbone": "resnet50", "deformable_interval": 1, **_PLUS},
    "yolact_mobilenet_v2": {"backbone": "mobilenet_v2", "anchors": "ratios"},
}

RECIPE = Recipe(
    stages=(
        Stage(
            steps=4_000,
            batch_size=8,
            crop_size=320,
            optimizer=Optimizer(
                name="adamw", lr=1e-4, head_lr_multiplier=3.0, weight_decay=1e-2, norm_weight_decay=0.0, clip_norm=10.0
            ),
            augmentation=Augmentation(copy_paste=0.5, brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05),
            poly_power=0.9,
            warmup_steps=200,
            freeze_batch_norm=True,
            ema_decay=0.998,
        ),
    ),
    input_size=320,
    input_side="square",
    paper={
        "freeze_batch_norm": "with less than 6 images on a GPU",
    },
)
RECIPES: dict[str, Recipe] = {}

_PUBLISHED = Recipe(
    stages=(
        Stage(
            steps=800_000,
            batch_size=8,
            crop_size=550,
            optimizer=Optimizer(lr=1e-3, weight_decay=5e-4, norm_weight_decay=5e-4, momentum=0.9),
            augmentation=Augmentation(
                scale_min=1.0,
                scale_max=1.0,
                expand=0.5,
                sample_crop=5 / 6,
                brightness=32 / 255,
                contrast=0.5,
                saturation=0.5,
                hue=18 / 360,
                colour_probability=0.5,
            ),
            schedule="step",
            milestones=(280_000, 600_000, 700_000, 750_000),
            warmup_steps=500,
            warmup_factor=0.1,
        ),
    ),
    input_size=550,
    input_side="square",
    paper={"augmentation.brightness": "adds up to 32 of 255 levels"},
)
"""Section 6, and `yolact_base_config` of the authors' code; its crop is SSD's in five of six cases."""

PUBLISHED = {"paper": dict.fromkeys(("yolact", *VARIANTS), _PUBLISHED)}
