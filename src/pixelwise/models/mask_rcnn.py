"""Mask R-CNN: He, Gkioxari, Dollár, Girshick, "Mask R-CNN", ICCV 2017.

A region proposal network (RPN) proposes boxes. For each proposal a head predicts the class and a refined box, and a
small convolutional head predicts its mask, one for each class, so that classes do not compete for pixels (section 3).
All heads take features by RoIAlign, which does not round coordinates. The features are a pyramid of all stages ("FPN"),
or those of the fourth stage, with the fifth as the head of each box ("C4", figure 4).

Differences from the paper:
- The conventions of coordinates are detectron2's by default: half-pixel centres (`is_aligned`), anchors of exact sides,
  masks pasted by continuous coordinates. torchvision's, and with them Detectron's legacy, are arguments of `build`.
- RoIAlign takes 2×2 samples of each cell (as torchvision and Detectron); detectron2's adaptive number is
  `sampling_ratio=0`.
- Boxes have no "+1" in their widths (as torchvision and detectron2; Detectron has).
- Mask targets are the ground truth mask sampled at the cells' centres inside the proposal, with a threshold of 1/2;
  Detectron rasterises polygons, torchvision keeps values between 0 and 1.
- The losses are sums divided by counts over the whole batch and all processes, where the paper and torchvision take
  means over the samples of an image or a process: objectness and RPN boxes by the sampled anchors, classes and boxes
  by the sampled proposals, masks by the cells of the positives. detectron2 divides the RPN's by 256 for each image,
  however many were sampled.
- Batch norm is plain; recipes freeze it (`freeze_batch_norm`), as the paper does.
- Images whose sides are no multiples of 32 are padded with zeros (as all public codes do).
- The recipe is for small data sets on a small machine; the paper's numbers stand beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
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
from pixelwise.losses.detection import (
    box_term,
    class_term,
    mask_term,
    objectness_term,
    training_instances,
    training_output,
)
from pixelwise.nn.backbone import Backbone, Normalize
from pixelwise.nn.backbones import ResNetBackbone, build_backbone
from pixelwise.nn.fpn import FPN, pyramid_maps
from pixelwise.nn.roi_heads import (
    BoxHead,
    BoxPredictor,
    MaskHead,
    Pooling,
    RoIPooling,
    sample_rois,
    select_detections,
)
from pixelwise.nn.rpn import RPN
from pixelwise.ops.anchors import base_anchors, inclusive_anchors
from pixelwise.ops.boxes import clip_boxes, scale_boxes
from pixelwise.ops.padding import zero_beyond
from pixelwise.ops.paste import Convention, paste_masks
from pixelwise.ops.thing_channels import channels_of, class_ids_of, things_of
from pixelwise.types import Annotation, Batch, Instances, Masks

TASK = "instance"
TRAITS = Traits()

ANCHOR_SIZES = (32, 64, 128, 256, 512)
"""Sides in pixels: one for each level of the pyramid, or all of them on the one map of C4."""
ANCHOR_RATIOS = (0.5, 1.0, 2.0)
"""Height over width."""

MASKS_AT_A_TIME = 16


class TrainingOutput(NamedTuple):
    """Inputs of the losses; each a tuple with one entry per image.

    Attributes:
        anchor_logits: objectness of the sampled anchors.
        anchor_is_object: whether each of them is positive.
        anchor_deltas: predicted deltas of the positive ones.
        anchor_targets: their regression targets.
        class_logits: of the sampled proposals, background first.
        channels: their ground truth class, 0 for background.
        box_deltas: predicted deltas of the positive proposals, for their ground truth class.
        box_targets: their regression targets.
        mask_logits: of the positive proposals, for their ground truth class.
        mask_targets: 0 or 1, the ground truth masks inside the proposals.
        positive_boxes: the positive proposals.
        positive_objects: index of the ground truth instance that each of them is matched to.
    """

    anchor_logits: tuple[Float[Tensor, " _"], ...]
    anchor_is_object: tuple[Bool[Tensor, " _"], ...]
    anchor_deltas: tuple[Float[Tensor, "_ 4"], ...]
    anchor_targets: tuple[Float[Tensor, "_ 4"], ...]
    class_logits: tuple[Float[Tensor, "_ K"], ...]
    channels: tuple[Int64[Tensor, " _"], ...]
    box_deltas: tuple[Float[Tensor, "_ 4"], ...]
    box_targets: tuple[Float[Tensor, "_ 4"], ...]
    mask_logits: tuple[Float[Tensor, "_ M M"], ...]
    mask_targets: tuple[Float[Tensor, "_ M M"], ...]
    positive_boxes: tuple[Float[Tensor, "_ 4"], ...]
    positive_objects: tuple[Int64[Tensor, " _"], ...]


class Output(NamedTuple):
    """The detections; each a tuple with one entry per image.

    Attributes:
        boxes: in pixels of the network's input, highest score first.
        channels: the class of each, from 1 on.
        scores: probabilities of their classes.
        mask_probabilities: of their masks, inside the boxes.
    """

    boxes: tuple[Float[Tensor, "_ 4"], ...]
    channels: tuple[Int64[Tensor, " _"], ...]
    scores: tuple[Float[Tensor, " _"], ...]
    mask_probabilities: tuple[Float[Tensor, "_ M M"], ...]


@dataclass(frozen=True, eq=False, slots=True)
class Parts:
    """The parts of a detector; systems that extend Mask R-CNN take them from one that `build` made.

    Attributes:
        backbone: gives the maps of the pyramid, or with C4 the map of its first three stages.
        things: class ids of the things, ascending.
        fpn: the pyramid; None for C4, where the backbone's last stage is the head of each box.
        maps: indices of the backbone's maps that the pyramid takes.
        rpn: proposes boxes from the levels.
        box_pooling: for the box head.
        mask_pooling: for the mask head.
        box_head: maps a box's features to a vector; None for C4, which takes their mean.
        box_predictor: predicts classes and boxes.
        mask_head: predicts masks.
        normalize: normalises the images.
        size_divisor: images are padded to multiples of this.
        samples: proposals per image that the heads are trained on.
        positive_fraction: of the samples, at most.
        rpn_beta: beta of the RPN's smooth L1 loss.
        box_beta: beta of the box head's smooth L1 loss.
        paste: how masks are pasted into the image, see `ops.paste.Convention`.
        nms_threshold: IoU from which a detection suppresses one of its class with a lower score.
        thresholds: detections have a greater score.
    """

    backbone: Backbone
    things: tuple[int, ...]
    fpn: FPN | None
    maps: tuple[int, ...]
    rpn: RPN
    box_pooling: RoIPooling
    mask_pooling: RoIPooling
    box_head: BoxHead | None
    box_predictor: BoxPredictor
    mask_head: MaskHead
    normalize: Normalize
    size_divisor: int
    samples: int
    positive_fraction: float
    rpn_beta: float
    box_beta: float
    paste: Convention
    nms_threshold: float
    thresholds: Thresholds


class MaskRCNN(nn.Module):
    """Backbone, pyramid, proposals, a head for classes and boxes, a head for masks.

    Args:
        parts: see Parts; each becomes an attribute.

    Attributes:
        thresholds: detections have a greater score; may be set, as `nms_threshold`.
        nms_threshold: IoU from which a detection suppresses one of its class with a lower score.
    """

    task = TASK
    traits = TRAITS
    suppresses_across_classes = False
    """Whether a detection suppresses those of other classes too."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.normalize = parts.normalize
        self.backbone = parts.backbone
        self.things, self.maps, self.size_divisor = parts.things, parts.maps, parts.size_divisor
        self.fpn, self.rpn = parts.fpn, parts.rpn
        self.box_pooling, self.mask_pooling = parts.box_pooling, parts.mask_pooling
        self.box_head, self.box_predictor, self.mask_head = parts.box_head, parts.box_predictor, parts.mask_head
        self.samples, self.positive_fraction = parts.samples, parts.positive_fraction
        self.rpn_beta, self.box_beta = parts.rpn_beta, parts.box_beta
        self.paste: Convention = parts.paste
        self.nms_threshold, self.thresholds = parts.nms_threshold, parts.thresholds

    @property
    def parts(self) -> Parts:
        """The parts, for a system that extends this one."""
        return Parts(**{field.name: getattr(self, field.name) for field in fields(Parts)})

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        sizes: Int64[Tensor, "B 2"] | None = None,
        truth: tuple[Annotation, ...] | None = None,
        memory: Any = None,  # noqa: ARG002
    ) -> Output | TrainingOutput:
        """With ground truth the inputs of the losses, else the detections.

        Raises:
            DataError: the ground truth has no boxes and masks.
        """
        valid = [(images.shape[2], images.shape[3])] * len(images) if sizes is None else sizes.tolist()
        x = self._prepared(images, sizes)
        levels, padded_size = self._levels(x), (x.shape[2], x.shape[3])
        if truth is None:
            return self._detect(levels, padded_size, valid)
        return self._train(levels, padded_size, valid, truth)

    def class_rows(self) -> tuple[ClassRows, ...]:
        """See `contracts.System`."""
        return (
            ClassRows("box_predictor.classes", self.things, first=1),
            ClassRows("box_predictor.deltas", self.things, each=4),
            ClassRows("mask_head.predictor", self.things),
        )

    def loss(self, output: Output | TrainingOutput, batch: Batch) -> dict[str, Term]:  # noqa: ARG002
        """The five terms, all of weight 1: objectness and boxes of anchors; classes, boxes and masks of proposals.

        Raises:
            DataError: forward was called without ground truth.
        """
        output = training_output(output, TrainingOutput)
        anchor_logits, channels = torch.cat(output.anchor_logits), torch.cat(output.channels)
        return {
            "rpn_objectness": objectness_term(anchor_logits, torch.cat(output.anchor_is_object)),
            "rpn_box": box_term(
                torch.cat(output.anchor_deltas),
                torch.cat(output.anchor_targets),
                count=len(anchor_logits),
                beta=self.rpn_beta,
            ),
            "class": class_term(torch.cat(output.class_logits), channels),
            "box": box_term(
                torch.cat(output.box_deltas), torch.cat(output.box_targets), count=len(channels), beta=self.box_beta
            ),
            "mask": mask_term(torch.cat(output.mask_logits), torch.cat(output.mask_targets)),
        }

    def decode(self, output: Output, sizes: Sizes, thresholds: Thresholds | None = None) -> list[Annotation]:
        """The detections with masks at the original size, highest score first."""
        annotations: list[Annotation] = []
        for index, (valid, size) in enumerate(zip(sizes.valid, sizes.original, strict=True)):
            kept = (thresholds or self.thresholds).places(output.scores[index])
            boxes = clip_boxes(scale_boxes(output.boxes[index][kept], valid, size), size)
            pasted = paste_masks(output.mask_probabilities[index][kept], boxes, size, convention=self.paste)
            instances = Instances(
                boxes=boxes,
                labels=class_ids_of(output.channels[index][kept], self.things),
                masks=Masks(pasted.crops, pasted.offsets, pasted.boxes, size),
                scores=output.scores[index][kept],
            )
            annotations.append(Annotation(instances=instances))
        return annotations

    def features(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "*_"], ...]:
        """All maps before detections are sorted and selected; the heads run on one box, the whole image."""
        size = (images.shape[2], images.shape[3])
        x = self._prepared(images, None)
        levels = self._levels(x)
        predictions = self.rpn(levels, (x.shape[2], x.shape[3]))
        whole = [images.new_tensor([[0.0, 0.0, size[1], size[0]]])] * len(images)
        vectors, features = self._box_features(levels, whole)
        logits, deltas = self.box_predictor(vectors)
        features = self.mask_pooling(levels, whole) if features is None else features
        masks = self.mask_head(features, torch.ones(len(images), dtype=torch.int64, device=images.device))
        return (*levels, *predictions.logits, *predictions.deltas, logits, deltas, masks)

    def _prepared(
        self, images: Float[Tensor, "B 3 H W"], sizes: Int64[Tensor, "B 2"] | None
    ) -> Float[Tensor, "B 3 H2 W2"]:
        """Normalised, zero beyond the valid sizes, padded to multiples of `size_divisor`."""
        height, width = images.shape[2], images.shape[3]
        x = zero_beyond(self.normalize(images), sizes)
        return F.pad(x, (0, -width % self.size_divisor, 0, -height % self.size_divisor))

    def _levels(self, x: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """The pyramid, or the one map of C4."""
        if self.fpn is None:
            assert isinstance(self.backbone, ResNetBackbone)
            return self.backbone.first_maps(x, self.maps[-1] + 1)[-1:]
        maps = self.backbone(x)
        return self.fpn([maps[number] for number in self.maps])

    def _train(
        self,
        levels: Sequence[Float[Tensor, "B _ _ _"]],
        padded_size: tuple[int, int],
        sizes: Sequence[Sequence[int]],
        truth: tuple[Annotation, ...],
    ) -> TrainingOutput:
        """Inputs of the losses of the RPN and the heads.

        Args:
            levels: of the pyramid.
            padded_size: height and width of the padded images.
            sizes: valid height and width of each image.
            truth: of each image.
        """
        predictions = self.rpn(levels, padded_size)
        proposals = self.rpn.propose(predictions, sizes)
        instances = training_instances(truth)
        anchors = self.rpn.sample(predictions, sizes, instances)
        rois = sample_rois(
            proposals.boxes,
            instances,
            [channels_of(one.labels, self.things) for one in instances],
            samples=self.samples,
            positive_fraction=self.positive_fraction,
        )
        vectors, features = self._box_features(levels, rois.boxes)
        logits, deltas = self.box_predictor(vectors)
        channels = torch.cat(rois.channels)
        positives = (channels > 0).nonzero().flatten()
        positive_boxes = [boxes[: len(objects)] for boxes, objects in zip(rois.boxes, rois.objects, strict=True)]
        features = self.mask_pooling(levels, positive_boxes) if features is None else features[positives]
        masks = self.mask_head(features, channels[positives])
        side = masks.shape[1]
        targets = [
            _mask_targets(one.masks, objects, boxes, side)
            for one, objects, boxes in zip(instances, rois.objects, positive_boxes, strict=True)
            if one.masks is not None
        ]
        samples, found = [len(boxes) for boxes in rois.boxes], [len(objects) for objects in rois.objects]
        return TrainingOutput(
            anchor_logits=anchors.logits,
            anchor_is_object=anchors.is_object,
            anchor_deltas=anchors.deltas,
            anchor_targets=anchors.targets,
            class_logits=logits.split(samples),
            channels=rois.channels,
            box_deltas=deltas[positives, channels[positives] - 1].split(found),
            box_targets=rois.targets,
            mask_logits=masks.split(found),
            mask_targets=tuple(targets),
            positive_boxes=tuple(positive_boxes),
            positive_objects=rois.objects,
        )

    def _detect(
        self, levels: Sequence[Float[Tensor, "B _ _ _"]], padded_size: tuple[int, int], sizes: Sequence[Sequence[int]]
    ) -> Output:
        """The detections; the arguments are those of `_train`."""
        boxes, channels, scores = self._detected_boxes(levels, padded_size, sizes)
        masks = self._mask_logits(levels, boxes, channels).sigmoid().split([len(one) for one in boxes])
        return Output(boxes=boxes, channels=channels, scores=scores, mask_probabilities=masks)

    def _box_features(
        self, levels: Sequence[Float[Tensor, "B _ _ _"]], boxes: Sequence[Float[Tensor, "_ 4"]]
    ) -> tuple[Float[Tensor, "R D"], Float[Tensor, "R _ _ _"] | None]:
        """A vector for each box, and with C4 the features that the mask head shares."""
        x = self.box_pooling(levels, boxes)
        if self.box_head is not None:
            return self.box_head(x), None
        assert isinstance(self.backbone, ResNetBackbone)
        x = self.backbone.layer4(x)
        return x.mean(dim=(2, 3)), x

    def _detected_boxes(
        self, levels: Sequence[Float[Tensor, "B _ _ _"]], padded_size: tuple[int, int], sizes: Sequence[Sequence[int]]
    ) -> tuple[tuple[Float[Tensor, "_ 4"], ...], tuple[Int64[Tensor, " _"], ...], tuple[Float[Tensor, " _"], ...]]:
        """The final boxes of each image, their channels and their scores."""
        proposals = self.rpn.propose(self.rpn(levels, padded_size), sizes).boxes
        counts = [len(boxes) for boxes in proposals]
        logits, deltas = self.box_predictor(self._box_features(levels, proposals)[0])
        parts = zip(logits.split(counts), deltas.split(counts), proposals, sizes, strict=True)
        detections = [
            select_detections(
                image_logits,
                image_deltas,
                boxes,
                size,
                score_threshold=self.thresholds.score,
                nms_threshold=self.nms_threshold,
                max_detections=self.thresholds.max_detections,
                least_side=self.rpn.least_side,
                across_classes=self.suppresses_across_classes,
            )
            for image_logits, image_deltas, boxes, size in parts
        ]
        boxes, channels, scores = (tuple(part) for part in zip(*detections, strict=True))
        return boxes, channels, scores

    def _mask_logits(
        self,
        levels: Sequence[Float[Tensor, "B _ _ _"]],
        boxes: Sequence[Float[Tensor, "_ 4"]],
        channels: Sequence[Int64[Tensor, " _"]],
    ) -> Float[Tensor, "R M M"]:
        """Mask logits of the boxes of each image, each for its channel."""
        if self.box_head is None:
            _, features = self._box_features(levels, boxes)
            assert features is not None
        else:
            features = self.mask_pooling(levels, boxes)
        # some boxes at a time, so that their features stay in the cache
        parts = zip(features.split(MASKS_AT_A_TIME), torch.cat([*channels]).split(MASKS_AT_A_TIME), strict=True)
        return torch.cat([self.mask_head(part, classes) for part, classes in parts])


@dataclass(frozen=True, kw_only=True)
class DetectorArguments:
    """Arguments of `build` that Mask R-CNN shares with the systems that extend it; there, instances are the things.

    Attributes:
        thing_ids: class ids of the things; all but 0 if not given.
        backbone: see `nn.backbones.build_backbone`; with maps of the strides 4, 8, 16 and 32, and for C4 a ResNet.
        channels: of the pyramid's levels, and of the mask head.
        box_width: of the box head's hidden layers.
        sampling_ratio: RoIAlign's samples along each side of a cell; 0 for as many as there are pixels (detectron2).
        is_aligned: RoIAlign with half-pixel centres; torchvision, Detectron and UPSNet's code are without.
        inclusive_boxes: x2 and y2 are the last pixels and a width is x2 - x1 + 1, as in Detectron and UPSNet's code:
            RoIAlign ends a pixel before the box does, anchors have whole sides and lie in the middle of their cells,
            and a pixel remains of boxes beyond the border.
        pre_nms_topk: proposals of each level before NMS, in training and otherwise; 2000 and 1000, with C4 12000 and
            6000.
        post_nms_topk: proposals of each image after NMS, likewise; 2000 and 1000, with C4 2000 and 300 (section 3.1).
        allowed_border: pixels by which an anchor that is trained on may cross the border of the image; none is skipped
            if not given, as in torchvision and detectron2. 0 in Detectron and in UPSNet's and VPSNet's code.
        min_pos_iou: see `ops.matching.match_boxes`; 0.3 in VPSNet's code.
        samples: proposals per image that are trained on; 512, with C4 64 (section 3.1).
        positive_fraction: of the samples, at most.
        rpn_beta: see `losses.detection.box_term`; Detectron has 1/9 and 1, torchvision twice 1/9, detectron2 twice 0.
        box_beta: likewise.
        pixel_mean: of the RGB values in [0, 1]; the backbone's if not given.
        pixel_std: their deviation; the backbone's if not given.
        score_threshold: detections have a greater score.
        nms_threshold: IoU from which a detection suppresses one with a lower score, of its class or, in UPSNet, of any.
        max_detections: per image.
    """

    thing_ids: Sequence[int] | None = None
    backbone: str = "resnet50"
    channels: int = 256
    box_width: int = 1024
    sampling_ratio: int = 2
    is_aligned: bool = True
    inclusive_boxes: bool = False
    pre_nms_topk: Sequence[int] | None = None
    post_nms_topk: Sequence[int] | None = None
    allowed_border: float | None = None
    min_pos_iou: float | None = None
    samples: int | None = None
    positive_fraction: float = 0.25
    rpn_beta: float = 1 / 9
    box_beta: float = 1.0
    pixel_mean: Sequence[float] | None = None
    pixel_std: Sequence[float] | None = None
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    max_detections: int = 100


@flat_arguments
def build(
    *,
    num_classes: int,
    detector: DetectorArguments = DetectorArguments(),
    layout: Literal["fpn", "c4"] = "fpn",
    rpn_convolutions: int = 1,
    box_convolutions: int = 0,
    has_norm: bool = False,
    roi_pooling: Pooling = "align",
    rounded_anchors: bool = False,
    grid_strides: bool = False,
    paste: Convention = "detectron2",
    batch_norm_eps: float | None = None,
) -> MaskRCNN:
    """Mask R-CNN with random weights.

    Args:
        num_classes: of the label set, background included.
        detector: its fields are arguments of their own.
        layout: `fpn`, or `c4`, whose box and mask heads are the backbone's last stage (figure 4, left).
        rpn_convolutions: convolutions of the RPN's head; torchvision's second version has two.
        box_convolutions: of the box head; that version has four, and one hidden layer in place of two.
        has_norm: batch norm in the pyramid and the heads, as that version has.
        roi_pooling: `align`, or `pool` for the paper's ablation.
        rounded_anchors: anchors with corners at whole pixels, as torchvision's.
        grid_strides: distances of anchors from the sizes of image and map, as torchvision's; else the maps' strides.
        paste: how masks are pasted into the image, see `ops.paste.Convention`.
        batch_norm_eps: of the backbone's batch norms; torchvision's weights of 2019 were made with 0.

    Raises:
        RecipeError: arguments that do not fit together.
    """
    if layout not in ("fpn", "c4"):
        raise RecipeError(f"layout '{layout}': fpn or c4")
    if roi_pooling not in ("align", "pool"):
        raise RecipeError(f"roi_pooling '{roi_pooling}': align or pool")
    if paste not in ("torchvision", "detectron2"):
        raise RecipeError(f"paste '{paste}': torchvision or detectron2")
    try:
        things = things_of(num_classes, detector.thing_ids)
    except ValueError as error:
        raise RecipeError(str(error)) from None
    is_pyramid = layout == "fpn"
    network = build_backbone(detector.backbone, output_stride=32)
    if not is_pyramid and not (isinstance(network, ResNetBackbone) and len(network.strides) == 4):
        raise RecipeError(f"backbone '{detector.backbone}': layout c4 takes a ResNet, whose last stage is the head")
    if batch_norm_eps is not None:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = batch_norm_eps
    maps = pyramid_maps(network, (4, 8, 16, 32) if is_pyramid else (16,))
    strides = (4, 8, 16, 32) if is_pyramid else (16,)
    fpn = (
        FPN([network.channels[number] for number in maps], channels=detector.channels, has_norm=has_norm)
        if is_pyramid
        else None
    )
    width = detector.channels if is_pyramid else network.channels[maps[-1]]
    sizes = [(size,) for size in ANCHOR_SIZES] if is_pyramid else [ANCHOR_SIZES]
    anchors = [base_anchors(size, ANCHOR_RATIOS, is_rounded=rounded_anchors) for size in sizes]
    if detector.inclusive_boxes:
        anchors = [inclusive_anchors(size, ANCHOR_RATIOS, strides[0] * 2**level) for level, size in enumerate(sizes)]
    rpn = RPN(
        width,
        base_anchors=anchors,
        anchor_offset=0.5 if detector.inclusive_boxes else 0.0,
        least_side=1.0 if detector.inclusive_boxes else 0.0,
        strides=None if grid_strides else (*strides, 64) if is_pyramid else strides,
        convolutions=rpn_convolutions,
        pre_nms_topk=_pair(detector.pre_nms_topk, (2000, 1000) if is_pyramid else (12_000, 6000), "pre_nms_topk"),
        post_nms_topk=_pair(detector.post_nms_topk, (2000, 1000) if is_pyramid else (2000, 300), "post_nms_topk"),
        allowed_border=detector.allowed_border,
        min_pos_iou=detector.min_pos_iou,
    )

    def pooling(size: int) -> RoIPooling:
        return RoIPooling(
            strides,
            size=size,
            kind=roi_pooling,
            sampling_ratio=detector.sampling_ratio,
            is_aligned=detector.is_aligned,
            inclusive_boxes=detector.inclusive_boxes,
        )

    box_head = None
    if is_pyramid:
        box_head = BoxHead(
            width,
            convolutions=box_convolutions,
            has_norm=has_norm,
            hidden=1 if box_convolutions else 2,
            width=detector.box_width,
        )
    vector = network.channels[-1] if box_head is None else box_head.width
    parts = Parts(
        backbone=network,
        things=things,
        fpn=fpn,
        maps=maps,
        rpn=rpn,
        box_pooling=pooling(7 if is_pyramid else 14),
        mask_pooling=pooling(14),
        box_head=box_head,
        box_predictor=BoxPredictor(vector, len(things)),
        mask_head=MaskHead(
            width if is_pyramid else vector,
            len(things),
            convolutions=4 if is_pyramid else 0,
            has_norm=has_norm,
            channels=detector.channels,
        ),
        normalize=Normalize(detector.pixel_mean or network.mean, detector.pixel_std or network.std),
        size_divisor=32 if is_pyramid else 1,
        samples=(512 if is_pyramid else 64) if detector.samples is None else detector.samples,
        positive_fraction=detector.positive_fraction,
        rpn_beta=detector.rpn_beta,
        box_beta=detector.box_beta,
        paste=paste,
        nms_threshold=detector.nms_threshold,
        thresholds=Thresholds(detector.score_threshold, detector.max_detections),
    )
    return MaskRCNN(parts)


def _mask_targets(
    masks: Masks, objects: Int64[Tensor, " P"], boxes: Float[Tensor, "P 4"], side: int
) -> Float[Tensor, "P M M"]:
    """The part of the matched mask in each proposal: 0 or 1 for each cell. Proposals of an instance share its crop."""
    chosen = Masks(masks.crops, masks.offsets[objects], masks.boxes[objects], masks.size)
    return (chosen.sample(boxes, (side, side)) >= 0.5).to(boxes.dtype)


def _pair(values: Sequence[int] | None, default: tuple[int, int], name: str) -> tuple[int, int]:
    values = default if values is None else values
    if len(values) != 2 or min(values) < 1:
        raise RecipeError(f"{name} {list(values)}: expected two numbers from 1 on, for training and otherwise")
    return values[0], values[1]


VARIANTS = {
    "mask_rcnn_resnet50_fpn": {"backbone": "resnet50"},
    "mask_rcnn_resnet101_fpn": {"backbone": "resnet101"},
    "mask_rcnn_resnet50_fpn_v2": {
        "backbone": "resnet50",
        "rpn_convolutions": 2,
        "box_convolutions": 4,
        "has_norm": True,
    },
    "mask_rcnn_resnet50_c4": {"backbone": "resnet50", "layout": "c4"},
    "mask_rcnn_mobilenet_v2_fpn": {"backbone": "mobilenet_v2"},
}

DETECTOR_STAGE = Stage(
    steps=6_000,
    batch_size=4,
    crop_size=416,
    optimizer=Optimizer(
        name="adamw", lr=1e-4, head_lr_multiplier=2.0, weight_decay=1e-2, norm_weight_decay=0.0, clip_norm=5.0
    ),
    augmentation=Augmentation(scale_min=0.4, scale_max=1.6, brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05),
    poly_power=0.9,
    warmup_steps=200,
    freeze_batch_norm=True,
    frozen_stages=1,
    ema_decay=0.998,
    arguments={"samples": 128},
)
"""The stage of all systems that extend Mask R-CNN."""

RECIPE = Recipe(
    stages=(replace(DETECTOR_STAGE, augmentation=replace(DETECTOR_STAGE.augmentation, copy_paste=0.5)),),
    paper={
        "steps": "90,000 in Detectron's 1x, 160,000 in the paper",
        "milestones": "60,000 and 80,000 in Detectron's 1x, 120,000 in the paper",
    },
)
RECIPES: dict[str, Recipe] = {
    "mask_rcnn_resnet50_c4": replace(RECIPE, stages=(replace(RECIPE.stages[0], arguments={}),)),
}

PUBLISHED_STAGE = Stage(
    steps=90_000,
    batch_size=16,
    crop_size=0,
    optimizer=Optimizer(
        lr=0.02,
        bias_lr_multiplier=2.0,
        head_bias_lr_multiplier=2.0,
        weight_decay=1e-4,
        norm_weight_decay=0.0,
        momentum=0.9,
    ),
    augmentation=Augmentation(scale_min=1.0, scale_max=1.0, short_sides=(800,)),
    schedule="step",
    milestones=(60_000, 80_000),
    warmup_steps=500,
    warmup_factor=1 / 3,
    freeze_batch_norm=True,
    frozen_stages=1,
    arguments={"samples": 512},
)
"""Detectron's 1x, of `e2e_mask_rcnn_R-50-FPN_1x.yaml`; section 3.1 has 160,000 steps with a drop at 120,000."""

DETECTRON2_STAGE = replace(
    PUBLISHED_STAGE,
    optimizer=Optimizer(lr=0.02, weight_decay=1e-4, norm_weight_decay=1e-4, momentum=0.9),
    augmentation=replace(PUBLISHED_STAGE.augmentation, short_sides=(640, 672, 704, 736, 768, 800)),
    warmup_steps=1_000,
    warmup_factor=1 / 1_000,
    arguments={
        **PUBLISHED_STAGE.arguments,
        "post_nms_topk": (1_000, 1_000),
        "sampling_ratio": 0,
        "rpn_beta": 0.0,
        "box_beta": 0.0,
    },
)
"""detectron2's 1x, of `Base-RCNN-FPN.yaml`; its biases are decayed as weights are."""

THREE_TIMES = {"steps": 270_000, "milestones": (210_000, 250_000)}
"""What detectron2 and UPSNet call 3x."""

PUBLISHED_RECIPE = Recipe(stages=(PUBLISHED_STAGE,), input_size=800, input_side="short", input_limit=1333)
"""Detectron's, detectron2's and UPSNet's size of images on COCO."""

_LONG = replace(DETECTRON2_STAGE, **THREE_TIMES)
PUBLISHED = {
    name: {
        **dict.fromkeys(("mask_rcnn", *VARIANTS), replace(PUBLISHED_RECIPE, stages=(stage,))),
        "mask_rcnn_resnet50_c4": replace(
            PUBLISHED_RECIPE, stages=(replace(stage, arguments={**stage.arguments, **of_c4}),)
        ),
    }
    for name, stage, of_c4 in (
        ("paper", PUBLISHED_STAGE, {"samples": 64}),
        ("paper_3x", _LONG, {"post_nms_topk": (2_000, 1_000)}),
    )
}
"""`paper` as the authors' Detectron, `paper_3x` as detectron2's `mask_rcnn_R_50_FPN_3x.yaml` and `…_C4_3x.yaml`."""
