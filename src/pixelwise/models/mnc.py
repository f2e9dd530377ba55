"""MNC: Dai, He, Sun, "Instance-aware Semantic Segmentation via Multi-task Network Cascades", CVPR 2016.

Three tasks, each on the prediction of the one before: proposals (stage 1, a region proposal network), the mask in each
box (stage 2), the class of each mask (stage 3) from the features of the box and from those inside the mask. Stages 4
and 5 are stages 2 and 3 again, with the same weights, on the boxes that stage 3 regressed (section 3.4). The features
of a box are warped so that the loss of a later stage has a gradient in the box's coordinates, and so in the weights of
the stage that predicted it (section 3.1). At the end overlapping masks are merged by mask voting (section 3.5).

Differences from the paper, and choices where paper and authors' code differ:
- A mask has 21×21 cells, as in the authors' code (`mask_size`); the paper says 28×28.
- Boxes are warped to 28×28 and max-pooled to 14×14 in both phases, in training and in prediction. One of the authors'
  releases warps directly to 14×14 in places (`warp_samples=1` does so everywhere).
- Anchors are centred in their cells and not rounded; those that cross the border of the image are trained on too. An
  anchor whose proposal is sampled is trained on that proposal's instance; the authors take the one that the anchor
  overlaps most.
- The IoU of a predicted mask with its instance, which decides the target of the mask class, is computed on the mask's
  own cells in the box, with the instance's whole area in the union; the authors enlarge the mask first.
- A batch may hold several images, whose losses are averaged; the authors have one, and average the gradients of eight.
- Masks are voted on at the original size of the image and stay there; the authors resize the result to 21×21. The votes
  are binary as in their CPU code; their GPU code averages probabilities.
- Other backbones than VGG-16: a ResNet up to its stage of stride 16, others dilated to stride 16; the hidden layers of
  their class stage, which no classifier's weights can fill, have 1,024 channels (`hidden`).
- The recipe is for small data sets on a small machine; the paper's numbers stand beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import torchvision
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from pixelwise.contracts import Augmentation, ClassRows, Optimizer, Recipe, Sizes, Stage, Term, Thresholds, Traits
from pixelwise.losses.detection import training_instances, training_output
from pixelwise.nn.backbone import Backbone, Normalize
from pixelwise.nn.backbones import RESNETS, VGGBackbone, build_backbone
from pixelwise.nn.roi_warping import limit_gradient, warp_rois
from pixelwise.nn.rpn import RPN, RPNPredictions, split_crowds
from pixelwise.ops.anchors import base_anchors
from pixelwise.ops.boxes import (
    RCNN_WEIGHTS,
    box_areas,
    clip_boxes,
    decode_boxes,
    encode_boxes,
    pairwise_coverage,
    pairwise_iou,
    scale_boxes,
)
from pixelwise.ops.mask_voting import vote_masks
from pixelwise.ops.matching import BACKGROUND, NEUTRAL, draw_at_most, match_boxes, without_crowds
from pixelwise.ops.padding import zero_beyond
from pixelwise.ops.precision import at_least_float32
from pixelwise.ops.thing_channels import channels_of, class_ids_of, things_of
from pixelwise.types import Annotation, Batch, Instances, Masks

TASK = "instance"
TRAITS = Traits()

FOREGROUND_IOU = 0.5
"""Smallest IoU of a positive box with an instance's box, and of a positive mask with an instance's mask."""
MASK_THRESHOLD = 0.4
"""Probability from which a cell belongs to the mask."""
GRADIENT_LIMIT = 1 / 512
"""Limit on each box delta's gradient from the later stages, divided by the number of images in the batch."""


class RPNSample(NamedTuple):
    """Inputs of the RPN's losses, of all images.

    Attributes:
        logits: of the sampled anchors.
        is_object: their targets.
        deltas: of the positive anchors.
        targets: their regression targets.
    """

    logits: Float[Tensor, " S"]
    is_object: Bool[Tensor, " S"]
    deltas: Float[Tensor, "P 4"]
    targets: Float[Tensor, "P 4"]


class Phase(NamedTuple):
    """Predictions of a mask stage and a class stage for the sampled boxes of all images, and their targets.

    Attributes:
        mask_logits: of the positive boxes.
        mask_targets: 0 or 1.
        class_logits: of the boxes; channel 0 is background.
        box_labels: target channels, by the boxes' IoU with instances.
        mask_class_logits: of the masks in the boxes.
        mask_labels: target channels, by the masks' IoU with instances too.
        deltas: of the positive boxes, for their channel.
        delta_targets: their regression targets.
    """

    mask_logits: Float[Tensor, "P m m"]
    mask_targets: Float[Tensor, "P m m"]
    class_logits: Float[Tensor, "R K"]
    box_labels: Int64[Tensor, " R"]
    mask_class_logits: Float[Tensor, "R K"]
    mask_labels: Int64[Tensor, " R"]
    deltas: Float[Tensor, "P 4"]
    delta_targets: Float[Tensor, "P 4"]


class TrainingOutput(NamedTuple):
    """Inputs of the losses.

    Attributes:
        rpn: stage 1.
        phases: stages 2 and 3, and stages 4 and 5.
    """

    rpn: RPNSample
    phases: tuple[Phase, ...]


class Output(NamedTuple):
    """The predictions, one entry for each image.

    Attributes:
        boxes: of both phases, x1 y1 x2 y2 in pixels of the network's input.
        masks: probabilities in each box.
        scores: of each mask's class; channel 0 is background.
    """

    boxes: tuple[Float[Tensor, "R 4"], ...]
    masks: tuple[Float[Tensor, "R m m"], ...]
    scores: tuple[Float[Tensor, "R K"], ...]


class Rois(NamedTuple):
    """Boxes of all images, concatenated.

    Attributes:
        boxes: x1 y1 x2 y2 in pixels; gradients flow through them.
        image_index: the image of each.
    """

    boxes: Float[Tensor, "R 4"]
    image_index: Int64[Tensor, " R"]


class MaskStage(nn.Module):
    """Stage 2: the mask in a box, by two fully connected layers (section 3.2).

    Args:
        channels: of the warped features.
        size: their height and width.
        mask_size: of the mask.
        hidden: channels between the layers.
    """

    def __init__(self, channels: int, *, size: int = 14, mask_size: int = 21, hidden: int = 256) -> None:
        super().__init__()
        self.mask_size = mask_size
        self.fc6 = nn.Linear(channels * size * size, hidden)
        self.mask = nn.Linear(hidden, mask_size * mask_size)
        for layer in (self.fc6, self.mask):
            nn.init.normal_(layer.weight, std=0.001)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Float[Tensor, "R C s s"]) -> Float[Tensor, "R m m"]:
        """Logits of each cell."""
        x = F.relu(self.fc6(features.flatten(1)))
        return self.mask(x).view(-1, self.mask_size, self.mask_size)


class ClassStage(nn.Module):
    """Stage 3: class of the box, class of the mask and a better box, from two paths (section 3.3, equation 8).

    One path takes the features of the box, the other the same multiplied by the mask.

    Args:
        channels: of the warped features.
        size: their height and width, halved by a max pooling.
        hidden: channels of the two layers of each path.
        classes: channels of the logits, background included.
    """

    def __init__(self, channels: int, *, size: int = 14, hidden: int = 4096, classes: int) -> None:
        super().__init__()
        self.size = size
        inputs = channels * (size // 2) ** 2
        self.box_path = _path(inputs, hidden)
        self.mask_path = _path(inputs, hidden)
        self.box_class = nn.Linear(2 * hidden, classes)
        self.mask_class = nn.Linear(2 * hidden, classes)
        self.deltas = nn.Linear(2 * hidden, 4 * classes)
        for layer, std in ((self.box_class, 0.01), (self.mask_class, 0.01), (self.deltas, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(
        self, features: Float[Tensor, "R C s s"], masks: Float[Tensor, "R m m"]
    ) -> tuple[Float[Tensor, "R K"], Float[Tensor, "R K"], Float[Tensor, "R K 4"]]:
        """Logits of the box's class and of the mask's class, and for each class the deltas of a box.

        Args:
            features: of each box.
            masks: probabilities.
        """
        corners = corner_resizing(masks.shape[1], self.size).to(masks)
        gated = features * (corners @ masks @ corners.T)[:, None]
        boxed = self.box_path(F.max_pool2d(features, 2).flatten(1))
        masked = self.mask_path(F.max_pool2d(gated, 2).flatten(1))
        joined = torch.cat([masked, boxed], dim=1)
        return self.box_class(joined), self.mask_class(joined), self.deltas(joined).unflatten(1, (-1, 4))


class MNC(nn.Module):
    """Backbone, proposals, mask stage and class stage; the last two run twice.

    Args:
        backbone: whose deepest map of stride 16 is used.
        things: class ids of the things, ascending.
        anchor_sizes: roots of the anchors' areas, in pixels.
        hidden: see ClassStage.
        mask_size: see MaskStage.
        warp_samples: samples along each side of a bin, see `nn.roi_warping`.
        box_batch_size_per_image: boxes that stage 3 is trained on.
        foreground_fraction: largest fraction of positives among them.
        smallest_proposal: smallest side of a proposal in pixels.
        pre_nms_topk: proposals before NMS, in training and in prediction.
        post_nms_topk: proposals after NMS; in prediction the boxes of both phases vote, twice as many.
        score_threshold: lowest score of a detection.
        max_detections: per image.
        nms_threshold: IoU above which a box suppresses another of its class before mask voting.
    """

    task = TASK
    traits = TRAITS

    def __init__(
        self,
        backbone: Backbone,
        *,
        things: tuple[int, ...],
        anchor_sizes: Sequence[float] = (128, 256, 512),
        hidden: int = 4096,
        mask_size: int = 21,
        warp_samples: int = 2,
        box_batch_size_per_image: int = 64,
        foreground_fraction: float = 0.3,
        smallest_proposal: float = 16,
        pre_nms_topk: Sequence[int] = (12_000, 6_000),
        post_nms_topk: Sequence[int] = (300, 300),
        score_threshold: float = 0.0,
        max_detections: int = 100,
        nms_threshold: float = 0.3,
    ) -> None:
        super().__init__()
        self.normalize = Normalize(backbone.mean, backbone.std)
        self.backbone = backbone
        self.level = backbone.deepest(16)
        self.things = things
        channels = backbone.channels[self.level]
        self.rpn = RPN(
            channels,
            base_anchors=[base_anchors(anchor_sizes, (0.5, 1.0, 2.0), is_rounded=False)],
            strides=[16],
            anchor_offset=0.5,
            channels=512,
            pre_nms_topk=(pre_nms_topk[0], pre_nms_topk[1]),
            post_nms_topk=(post_nms_topk[0], post_nms_topk[1]),
            smallest_side=smallest_proposal,
        )
        self.mask_stage = MaskStage(channels, mask_size=mask_size)
        self.class_stage = ClassStage(channels, hidden=hidden, classes=len(things) + 1)
        self.warp_samples = warp_samples
        self.box_batch_size_per_image, self.foreground_fraction = box_batch_size_per_image, foreground_fraction
        self.thresholds = Thresholds(score_threshold, max_detections)
        self.nms_threshold = nms_threshold

    def features(
        self, images: Float[Tensor, "B 3 H W"], sizes: Int64[Tensor, "B 2"] | None = None
    ) -> tuple[Float[Tensor, "B C h w"], ...]:
        """The one feature map, of stride 16."""
        images = zero_beyond(self.normalize(images), sizes)
        return (self.backbone(images)[self.level],)

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        sizes: Int64[Tensor, "B 2"] | None = None,
        truth: tuple[Annotation, ...] | None = None,
        memory: Any = None,  # noqa: ARG002
    ) -> Output | TrainingOutput:
        """Both phases of the cascade; in training with ground truth on sampled boxes."""
        valid = [list(images.shape[2:])] * len(images) if sizes is None else sizes.tolist()
        maps = self.features(images, sizes)
        predictions = self.rpn(maps, (images.shape[2], images.shape[3]))
        if self.training and truth is not None:
            return self._learn(maps[0], predictions, valid, training_instances(truth))
        boxes = self.rpn.propose(predictions, valid).boxes
        rois = _joined(boxes)
        masks, logits, deltas = self._predict(maps[0], rois)
        # where background scores highest, the box is moved by that channel's deltas, which are not trained
        better = decode_boxes(_of_channel(deltas, logits.argmax(dim=1)), rois.boxes, weights=RCNN_WEIGHTS)
        better = _clipped(better, rois.image_index, valid)
        second_masks, second_logits, _ = self._predict(maps[0], Rois(better, rois.image_index))
        counts = [len(one) for one in boxes]
        return Output(
            boxes=_both(rois.boxes, better, counts),
            masks=_both(masks, second_masks, counts),
            scores=_both(logits.softmax(dim=1), second_logits.softmax(dim=1), counts),
        )

    def class_rows(self) -> tuple[ClassRows, ...]:
        """See `contracts.System`."""
        return (
            ClassRows("class_stage.box_class", self.things, first=1),
            ClassRows("class_stage.mask_class", self.things, first=1),
            ClassRows("class_stage.deltas", self.things, first=4, each=4),
        )

    def loss(self, output: Output | TrainingOutput, batch: Batch) -> dict[str, Term]:  # noqa: ARG002
        """The losses of all five stages, of weight 1, but 2 for the masks as in the authors' code.

        Raises:
            DataError: an output of prediction.
        """
        output = training_output(output, TrainingOutput)
        rpn = output.rpn
        samples = torch.tensor(len(rpn.logits), device=rpn.logits.device)
        terms = {
            "proposal_objectness": Term(
                F.binary_cross_entropy_with_logits(rpn.logits, rpn.is_object.to(rpn.logits), reduction="sum"), samples
            ),
            # Fast R-CNN's sigma 3 is a beta of 1/9
            "proposal_boxes": Term(
                F.smooth_l1_loss(rpn.deltas, rpn.targets, reduction="sum", beta=1 / 9),
                samples,
            ),
        }
        for number, phase in enumerate(output.phases, start=1):
            rois = torch.tensor(len(phase.class_logits), device=rpn.logits.device)
            mask = F.binary_cross_entropy_with_logits(phase.mask_logits, phase.mask_targets, reduction="sum")
            cells = torch.tensor(phase.mask_logits.numel(), device=rpn.logits.device)
            terms |= {
                f"mask_{number}": Term(mask, cells, weight=2.0),
                f"class_{number}": Term(F.cross_entropy(phase.class_logits, phase.box_labels, reduction="sum"), rois),
                f"mask_class_{number}": Term(
                    F.cross_entropy(phase.mask_class_logits, phase.mask_labels, reduction="sum"), rois
                ),
                f"boxes_{number}": Term(F.smooth_l1_loss(phase.deltas, phase.delta_targets, reduction="sum"), rois),
            }
        return terms

    def decode(self, output: Output, sizes: Sizes, thresholds: Thresholds | None = None) -> list[Annotation]:
        """The voted masks of the boxes of both phases, at the original size of their image, highest score first."""
        thresholds = thresholds or self.thresholds
        annotations: list[Annotation] = []
        images = zip(output.boxes, output.masks, output.scores, sizes.valid, sizes.original, strict=True)
        for boxes, masks, scores, valid, (height, width) in images:
            voted = vote_masks(
                clip_boxes(scale_boxes(boxes, valid, (height, width)), (height, width)),
                masks,
                scores,
                (height, width),
                score_threshold=thresholds.score,
                max_detections=thresholds.max_detections,
                nms_threshold=self.nms_threshold,
                mask_threshold=MASK_THRESHOLD,
            )
            instances = Instances(
                boxes=voted.boxes.float(),
                labels=class_ids_of(voted.channels, self.things),
                masks=Masks.from_crops(voted.crops, voted.boxes.tolist(), (height, width)),
                scores=voted.scores.float(),
            )
            annotations.append(Annotation(instances=instances))
        return annotations

    def _warp(self, features: Float[Tensor, "B C h w"], rois: Rois) -> Float[Tensor, "R C s s"]:
        return warp_rois(features, rois.boxes, rois.image_index, stride=16, samples=self.warp_samples)

    def _predict(
        self, features: Float[Tensor, "B C h w"], rois: Rois
    ) -> tuple[Float[Tensor, "R m m"], Float[Tensor, "R K"], Float[Tensor, "R K 4"]]:
        """Mask probabilities, the logits of the masks' classes, and deltas of each box."""
        warped = self._warp(features, rois)
        masks = at_least_float32(self.mask_stage(warped)).sigmoid()
        _, logits, deltas = self.class_stage(warped, masks)
        return masks, at_least_float32(logits), at_least_float32(deltas)

    def _learn(
        self,
        features: Float[Tensor, "B C h w"],
        predictions: RPNPredictions,
        valid: Sequence[Sequence[int]],
        truths: Sequence[Instances],
    ) -> TrainingOutput:
        """All five stages on sampled anchors and boxes.

        The anchors of the sampled proposals are trained on beside those that the RPN samples (MIX_INDEX of the authors'
        code): otherwise the later stages' gradients alone would move their boxes.
        """
        limit = GRADIENT_LIMIT / len(valid)
        objects = [truth if truth.crowd is None else truth[~truth.crowd] for truth in truths]
        crowds = [split_crowds(truth)[1] for truth in truths]
        anchors = self.rpn.propose(predictions, valid).places
        images = zip(anchors, self._proposals(predictions, anchors, valid, limit=limit), objects, crowds, strict=True)
        boxes: list[Tensor] = []
        matches: list[Tensor] = []
        labelled: list[Tensor] = []
        for anchor, proposals, truth, crowd in images:
            candidates = torch.cat([proposals, truth.boxes])
            places, found = draw_rois(
                candidates.detach(),
                truth.boxes,
                crowd,
                count=self.box_batch_size_per_image,
                foreground_fraction=self.foreground_fraction,
            )
            boxes.append(candidates[places])
            matches.append(found)
            proposed = places < len(proposals)
            labels = torch.full_like(predictions.logits[0][0], NEUTRAL, dtype=torch.int64)
            labels[anchor[places[proposed]]] = found[proposed]
            labelled.append(labels)
        sample = RPNSample(
            *(torch.cat(part) for part in self.rpn.sample(predictions, valid, truths, labelled=labelled))
        )
        rois = _joined(boxes)
        first, deltas = self._phase(features, rois, matches, objects)
        # of the highest-scoring thing's channel, even where background scores higher
        channels = first.mask_class_logits[:, 1:].argmax(dim=1) + 1
        chosen = limit_gradient(_of_channel(deltas, channels), limit)
        better = _clipped(decode_boxes(chosen, rois.boxes, weights=RCNN_WEIGHTS), rois.image_index, valid)
        boxes, matches = [], []
        for index, (truth, crowd) in enumerate(zip(objects, crowds, strict=True)):
            candidates = torch.cat([better[rois.image_index == index], truth.boxes])
            found = match_rois(candidates.detach(), truth.boxes, crowd)
            boxes.append(candidates[found != NEUTRAL])
            matches.append(found[found != NEUTRAL])
        second, _ = self._phase(features, _joined(boxes), matches, objects)
        return TrainingOutput(rpn=sample, phases=(first, second))

    def _proposals(
        self,
        predictions: RPNPredictions,
        anchors: Sequence[Int64[Tensor, " _"]],
        valid: Sequence[Sequence[int]],
        *,
        limit: float,
    ) -> list[Float[Tensor, "_ 4"]]:
        """The boxes of these anchors of each image; the gradient into their deltas is limited.

        It is zero where the anchor or its box crosses the border of the image.
        """
        deltas, everywhere = torch.cat(predictions.deltas, dim=1), torch.cat(predictions.anchors)
        found: list[Tensor] = []
        for one, places, size in zip(deltas, anchors, valid, strict=True):
            chosen = everywhere[places]
            is_inside = (chosen == clip_boxes(chosen, size)).all(dim=1, keepdim=True)
            moved = torch.where(is_inside, one[places], one[places].detach())
            image_index = torch.zeros(len(places), dtype=torch.int64, device=places.device)
            found.append(_clipped(decode_boxes(limit_gradient(moved, limit), chosen), image_index, [size]))
        return found

    def _phase(
        self,
        features: Float[Tensor, "B C h w"],
        rois: Rois,
        matches: Sequence[Int64[Tensor, " _"]],
        objects: Sequence[Instances],
    ) -> tuple[Phase, Float[Tensor, "R K 4"]]:
        """A mask stage and a class stage with their targets; also the deltas of all channels.

        Args:
            features: of the images.
            rois: image after image.
            matches: of each image, the instance that each box is matched to, or BACKGROUND.
            objects: of each image.
        """
        boxes, matched = rois.boxes.detach(), torch.cat(list(matches))
        positive = matched >= 0
        labels = torch.zeros_like(matched)
        labels[positive] = torch.cat(
            [
                channels_of(truth.labels[found[found >= 0]], self.things)
                for found, truth in zip(matches, objects, strict=True)
            ]
        )
        side = self.mask_stage.mask_size
        targets, references, areas = _mask_targets(rois._replace(boxes=boxes), matches, objects, side=side)
        warped = self._warp(features, rois)
        mask_logits = at_least_float32(self.mask_stage(warped))
        masks = mask_logits.sigmoid()
        fits = torch.zeros_like(positive)
        fits[positive] = mask_overlaps(masks[positive].detach(), targets, boxes[positive], areas) >= FOREGROUND_IOU
        # as in the authors' code, a mask that matches no instance is trained by its own loss alone
        gates = torch.where(fits[:, None, None], masks, masks.detach())
        class_logits, mask_class_logits, deltas = (at_least_float32(x) for x in self.class_stage(warped, gates))
        phase = Phase(
            mask_logits=mask_logits[positive],
            mask_targets=targets,
            class_logits=class_logits,
            box_labels=labels,
            mask_class_logits=mask_class_logits,
            mask_labels=torch.where(fits, labels, 0),
            deltas=_of_channel(deltas, labels)[positive],
            delta_targets=encode_boxes(references, boxes[positive], weights=RCNN_WEIGHTS),
        )
        return phase, deltas


def match_rois(
    boxes: Float[Tensor, "R 4"], objects: Float[Tensor, "T 4"], crowds: Float[Tensor, "C 4"]
) -> Int64[Tensor, " R"]:
    """The instance that each box is matched to, BACKGROUND, or NEUTRAL for background inside a crowd."""
    matches = match_boxes(pairwise_iou(objects, boxes), positive=FOREGROUND_IOU, negative=FOREGROUND_IOU)
    return without_crowds(matches, pairwise_coverage(crowds, boxes))


def draw_rois(
    boxes: Float[Tensor, "R 4"],
    objects: Float[Tensor, "T 4"],
    crowds: Float[Tensor, "C 4"],
    *,
    count: int = 64,
    foreground_fraction: float = 0.3,
) -> tuple[Int64[Tensor, " S"], Int64[Tensor, " S"]]:
    """Sample boxes to train on, and the instance that each is matched to or BACKGROUND, with torch's generator.

    Of the places in `count` that positives leave, 85 % are for background that overlaps an instance by at least 0.1, 15
    % for other background; neither fills the other's places (proposal_target_layer.py of the authors' code).
    """
    matches = match_rois(boxes, objects, crowds)
    overlaps = pairwise_iou(objects, boxes).amax(dim=0) if len(objects) else boxes.new_zeros(len(boxes))
    foreground = draw_at_most((matches >= 0).nonzero().flatten(), round(count * foreground_fraction))
    rest = count - len(foreground)
    background, is_near = matches == BACKGROUND, overlaps >= 0.1
    near = draw_at_most((background & is_near).nonzero().flatten(), round(rest * 0.85))
    far = draw_at_most((background & ~is_near).nonzero().flatten(), round(rest * 0.15))
    places = torch.cat([foreground, near, far])
    return places, matches[places]


def mask_overlaps(
    masks: Float[Tensor, "P m m"],
    targets: Float[Tensor, "P m m"],
    boxes: Float[Tensor, "P 4"],
    areas: Int64[Tensor, " P"],
) -> Float[Tensor, " P"]:
    """Intersection over union of predicted masks with their instances.

    Args:
        masks: probabilities in each box; cells from MASK_THRESHOLD on belong to the mask.
        targets: 0 or 1, the instance's part in the box.
        boxes: of the masks.
        areas: pixels of the whole instances.
    """
    predicted = (masks >= MASK_THRESHOLD).to(targets.dtype)
    cell = box_areas(boxes) / (masks.shape[1] * masks.shape[2])
    common = (predicted * targets).sum(dim=(1, 2)) * cell
    return common / (predicted.sum(dim=(1, 2)) * cell + areas - common).clamp(min=1e-6)


def corner_resizing(cells: int, size: int) -> Float[Tensor, "size cells"]:
    """Weights that read `size` values at the corners of even bins of a row of `cells`, linearly between the cells.

    The authors' mask resizing (mask_resize_layer.cu), whose bins are those of RoI warping.
    """
    place = torch.arange(size) * (cells / size)
    first = place.floor().clamp(max=cells - 1)
    weights = torch.zeros(size, cells)
    rows = torch.arange(size)
    weights[rows, first.long()] = 1 - (place - first)
    weights[rows, (first.long() + 1).clamp(max=cells - 1)] += place - first
    return weights


def _mask_targets(
    rois: Rois, matches: Sequence[Int64[Tensor, " _"]], objects: Sequence[Instances], *, side: int
) -> tuple[Float[Tensor, "P m m"], Float[Tensor, "P 4"], Int64[Tensor, " P"]]:
    """Of the positive boxes: the instances' masks in them, the instances' boxes, the masks' areas."""
    targets = [rois.boxes.new_zeros(0, side, side)]
    references = [rois.boxes.new_zeros(0, 4)]
    areas = [torch.zeros(0, dtype=torch.int64, device=rois.boxes.device)]
    for index, (found, truth) in enumerate(zip(matches, objects, strict=True)):
        which = found[found >= 0]
        assert truth.masks is not None
        masks = truth.masks[which]
        boxes = rois.boxes[rois.image_index == index][found >= 0]
        targets.append((masks.sample(boxes, (side, side)) >= MASK_THRESHOLD).to(boxes.dtype))
        references.append(truth.boxes[which].to(boxes.dtype))
        areas.append(masks.areas())
    return torch.cat(targets), torch.cat(references), torch.cat(areas)


def _path(inputs: int, hidden: int) -> nn.Sequential:
    layers = [nn.Linear(inputs, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, hidden), nn.ReLU(inplace=True)]
    for layer in layers[::2]:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # pyright: ignore[reportArgumentType]
        nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]
    return nn.Sequential(*layers)


def _joined(boxes: Sequence[Float[Tensor, "_ 4"]]) -> Rois:
    counts = torch.tensor([len(one) for one in boxes], device=boxes[0].device)
    return Rois(torch.cat(list(boxes)), torch.arange(len(boxes), device=counts.device).repeat_interleave(counts))


def _of_channel(deltas: Float[Tensor, "R K 4"], channels: Int64[Tensor, " R"]) -> Float[Tensor, "R 4"]:
    return deltas[torch.arange(len(deltas), device=deltas.device), channels]


def _clipped(
    boxes: Float[Tensor, "R 4"], image_index: Int64[Tensor, " R"], valid: Sequence[Sequence[int]]
) -> Float[Tensor, "R 4"]:
    """Boxes clipped to their images; clipped coordinates get no gradient."""
    limits = boxes.new_tensor([[width, height, width, height] for height, width in valid])
    cut = boxes.clamp(min=0).minimum(limits[image_index])
    return torch.where((cut == boxes).all(dim=1, keepdim=True), boxes, cut.detach())


def _both(
    first: Float[Tensor, "R ..."], second: Float[Tensor, "R ..."], counts: Sequence[int]
) -> tuple[Float[Tensor, "R2 ..."], ...]:
    """For each image the results of the first phase, then those of the second."""
    pairs = zip(first.split(list(counts)), second.split(list(counts)), strict=True)
    return tuple(torch.cat(pair) for pair in pairs)


def build(
    *,
    num_classes: int,
    thing_ids: Sequence[int] | None = None,
    backbone: str = "vgg16",
    anchor_sizes: Sequence[float] = (128, 256, 512),
    hidden: int | None = None,
    mask_size: int = 21,
    warp_samples: int = 2,
    box_batch_size_per_image: int = 64,
    smallest_proposal: float = 16,
    pre_nms_topk: Sequence[int] = (12_000, 6_000),
    post_nms_topk: Sequence[int] = (300, 300),
    score_threshold: float = 0.05,
    max_detections: int = 100,
    nms_threshold: float = 0.3,
) -> MNC:
    """MNC with random weights.

    Args:
        num_classes: background included.
        thing_ids: class ids of the things; all but 0 if not given.
        backbone: `vgg16` is the paper's; any other of `nn.backbones.build_backbone`.
        anchor_sizes: roots of the anchors' areas in pixels; with three ratios each.
        hidden: channels of the class stage's layers; 4,096 with VGG-16, else 1,024, if not given.
        mask_size: height and width of masks.
        warp_samples: see `nn.roi_warping.warp_rois`.
        box_batch_size_per_image: boxes that the class stage is trained on.
        smallest_proposal: smallest side of a proposal in pixels.
        pre_nms_topk: proposals before NMS, in training and in prediction.
        post_nms_topk: proposals after NMS, likewise.
        score_threshold: lowest score of a detection; the authors keep all.
        max_detections: per image.
        nms_threshold: see `ops.mask_voting.vote_masks`.

    Raises:
        RecipeError: an unknown backbone, or one without a map of stride 16.
    """
    if backbone == "vgg16":
        network: Backbone = VGGBackbone(torchvision.models.vgg16(weights=None), last_pooling=False)
    elif backbone.startswith(RESNETS):
        network = build_backbone(backbone, output_stride=32)
        network.shorten(network.deepest(16) + 1)
    else:
        network = build_backbone(backbone, output_stride=16)
    return MNC(
        network,
        things=things_of(num_classes, thing_ids),
        anchor_sizes=anchor_sizes,
        hidden=hidden or (4096 if backbone == "vgg16" else 1024),
        mask_size=mask_size,
        warp_samples=warp_samples,
        box_batch_size_per_image=box_batch_size_per_image,
        smallest_proposal=smallest_proposal,
        pre_nms_topk=pre_nms_topk,
        post_nms_topk=post_nms_topk,
        score_threshold=score_threshold,
        max_detections=max_detections,
        nms_threshold=nms_threshold,
    )


VARIANTS = {
    "mnc_vgg16": {"backbone": "vgg16"},
    "mnc_resnet50": {"backbone": "resnet50"},
    "mnc_mobilenet_v2": {"backbone": "mobilenet_v2", "anchor_sizes": (64, 128, 256)},
}

RECIPE = Recipe(
    stages=(
        Stage(
            steps=4_000,
            batch_size=4,
            crop_size=320,
            optimizer=Optimizer(
                name="adamw", lr=1e-4, head_lr_multiplier=2.0, weight_decay=1e-2, norm_weight_decay=0.0, clip_norm=10.0
            ),
            augmentation=Augmentation(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05),
            poly_power=0.9,
            warmup_steps=100,
            freeze_batch_norm=True,
            frozen_stages=2,
        ),
    ),
    input_size=320,
)
RECIPES: dict[str, Recipe] = {}

_PUBLISHED = Recipe(
    stages=(
        Stage(
            steps=25_000,
            batch_size=1,
            accumulate=8,
            crop_size=0,
            optimizer=Optimizer(
                lr=0.001,
                bias_lr_multiplier=2.0,
                head_bias_lr_multiplier=2.0,
                weight_decay=5e-4,
                norm_weight_decay=0.0,
                momentum=0.9,
            ),
            augmentation=Augmentation(scale_min=1.0, scale_max=1.0, short_sides=(600,)),
            schedule="step",
            milestones=(20_000,),
            freeze_batch_norm=True,
            frozen_stages=2,
        ),
    ),
    input_size=600,
    input_side="short",
    input_limit=1000,
)
"""Of the authors' `models/VGG16/mnc_5stage/solver.prototxt` and its training script."""

PUBLISHED = {"paper": dict.fromkeys(("mnc", *VARIANTS), _PUBLISHED)}
