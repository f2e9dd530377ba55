"""Hypercolumns: Hariharan, Arbeláez, Girshick, Malik, "Hypercolumns for Object Segmentation and Fine-grained
Localization", CVPR 2015; the system of the authors' release, on Fast R-CNN (Girshick, ICCV 2015) with VGG-16.

A pixel is described by the activations of several layers above it, its hypercolumn. Its appearance depends on its place
in the box, so K×K classifiers divide the box among them, and their probabilities are interpolated (section 3.1). The
classifiers are linear, so each layer's activations are classified at their own size, and the logits, not the features,
are enlarged and added (section 3.3). The result is averaged over superpixels (section 4).

The boxes come from the system itself: superpixels are merged to class-agnostic proposals (`ops.superpixels`), which
Fast R-CNN's head classifies and regresses. In training the ground truth boxes are among the proposals. The masks are
trained on boxes whose IoU with an instance's box is at least 0.7.

Differences from the paper and the authors' release:
- The proposals are not MCG's; other proposals change the AP. They are computed on an image of at most `proposal_side`
  pixels.
- The detector is trained with the masks at first, on a small machine; in the release it is fixed (`learns="masks"`).
- The log-loss is divided by the 2,500 pixels of a box, so that its scale fits the detector's losses; the release sums.
  The fully connected classifier's rate is that of the others, where the release has a tenth.
- Up to five boxes of each instance are sampled per image; the release samples a class first, then an image of it.
- An instance of which no superpixel reaches the threshold keeps the pixels that do.
- The box head has no dropout.
- `caffenet` is the CVPR paper's smaller network with its three layers: the second pooling, the fourth convolution and
  fc7. The paper enlarges each box to 227×227 pixels and runs the network on it; here the layers are maps of the whole
  image, in which boxes are pooled to 6×6 cells, as in Fast R-CNN's CaffeNet. The location classifiers are trained
  jointly, where the paper's are trained one by one and combined at test time. The second classification of the
  segmented regions, which the paper has with VGG-16, is missing.
- Other backbones: a ResNet up to its stage of stride 16, others dilated to stride 16; boxes are pooled by RoIAlign, as
  RoIPool makes boxes of few cells equal. The activations of the maps are scaled with VGG-16 alone.
- The recipe is for small data sets on a small machine; the release's numbers stand beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
import torchvision
from jaxtyping import Bool, Float, Int32, Int64, UInt8
from torch import Tensor, nn

from pixelwise.contracts import Augmentation, ClassRows, Optimizer, Recipe, Sizes, Stage, Term, Thresholds, Traits
from pixelwise.errors import RecipeError
from pixelwise.losses.detection import training_instances, training_output
from pixelwise.nn.backbone import Backbone, Normalize
from pixelwise.nn.backbones import RESNETS, VGGBackbone, build_backbone
from pixelwise.nn.caffenet import CaffeNetBackbone
from pixelwise.nn.roi_heads import (
    BoxHead,
    BoxPredictor,
    Detections,
    Pooling,
    RoIPooling,
    sample_rois,
    select_detections,
)
from pixelwise.nn.rpn import split_crowds
from pixelwise.ops.boxes import box_areas, clip_boxes, pairwise_iou, scale_boxes
from pixelwise.ops.padding import zero_beyond
from pixelwise.ops.paste import paste_masks
from pixelwise.ops.precision import at_least_float32
from pixelwise.ops.superpixels import (
    STRATEGIES,
    Regions,
    as_stored,
    mean_in_superpixels,
    propose_at,
    superpixels_of,
)
from pixelwise.ops.thing_channels import channels_of, class_ids_of, things_of
from pixelwise.types import Annotation, Batch, Instances, Masks

TASK = "instance"
TRAITS = Traits()

MASK_IOU = 0.7
"""Smallest IoU with an instance's box of a box on which a mask is trained."""
BOXES_PER_OBJECT = 5
PROJECTION_THRESHOLD = 0.4
"""Smallest mean probability of a superpixel that belongs to the instance."""
FULL_WEIGHT_AREA = 224**2
"""Area in pixels from which on a box's mask has the full loss weight."""
VGG_SCALES = (0.0027, 0.063)
"""Factors on VGG-16's activations after the third and the fourth pooling, which would otherwise dominate those of the
box.
"""

Learns = Literal["all", "boxes", "masks"]
"""Which parts are trained: all, the detector with the backbone, or the location classifiers."""


class ComparedBoxes(NamedTuple):
    """What the losses of Fast R-CNN compare.

    Attributes:
        logits: of the sampled proposals of all images; channel 0 is background.
        labels: their target channels.
        deltas: of the positive proposals, for their channel.
        delta_targets: their regression targets.
    """

    logits: Float[Tensor, "R K"]
    labels: Int64[Tensor, " R"]
    deltas: Float[Tensor, "P 4"]
    delta_targets: Float[Tensor, "P 4"]


class ComparedMasks(NamedTuple):
    """What the loss of the location classifiers compares.

    Attributes:
        probabilities: of the boxes on which masks are trained.
        targets: 0 or 1.
        weights: of each such box.
    """

    probabilities: Float[Tensor, "M s s"]
    targets: Float[Tensor, "M s s"]
    weights: Float[Tensor, " M"]


class TrainingOutput(NamedTuple):
    """What the losses compare.

    Attributes:
        boxes: None where the masks alone are trained.
        masks: None where the detector alone is trained.
    """

    boxes: ComparedBoxes | None
    masks: ComparedMasks | None


class Output(NamedTuple):
    """What is found, one entry for each image.

    Attributes:
        detections: of each image.
        masks: probabilities in each detection's box.
        superpixels: at the network's input size without padding; None where masks are not averaged over them.
    """

    detections: tuple[Detections, ...]
    masks: tuple[Float[Tensor, "N s s"], ...]
    superpixels: tuple[Int32[Tensor, "_h _w"], ...] | None


class LocationClassifiers(nn.Module):
    """K×K classifiers for each class, on the activations of two maps and of the box (sections 3.1 to 3.3).

    Args:
        channels: of the finer map, the coarser map, and the box's vector.
        things: classes.
        strides: of the two maps.
        scales: factors on the two maps.
        grid: K.
        size: height and width of the result.
    """

    weights: Tensor

    def __init__(
        self,
        channels: tuple[int, int, int],
        things: int,
        *,
        strides: tuple[int, int] = (8, 16),
        scales: tuple[float, float] = (1.0, 1.0),
        grid: int = 5,
        size: int = 50,
    ) -> None:
        super().__init__()
        self.things, self.cells, self.size = things, grid * grid, size
        self.strides, self.scales = strides, scales
        outputs = things * self.cells
        self.fine = nn.Conv2d(channels[0], outputs, 3, padding=1)
        self.coarse = nn.Conv2d(channels[1], outputs, 1)
        self.box = nn.Linear(channels[2], outputs)
        for layer in (self.fine, self.coarse, self.box):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        self.register_buffer("weights", location_weights(grid, size), persistent=False)

    def forward(
        self,
        maps: tuple[Float[Tensor, "B C1 h1 w1"], Float[Tensor, "B C2 h2 w2"]],
        vectors: Float[Tensor, "R C3"],
        boxes: Float[Tensor, "R 4"],
        image_index: Int64[Tensor, " R"],
        channels: Int64[Tensor, " R"],
    ) -> Float[Tensor, "R s s"]:
        """Probability that each cell of a box belongs to its instance.

        Args:
            maps: the finer one, the coarser one.
            vectors: of the boxes.
            boxes: x1 y1 x2 y2 in pixels.
            image_index: the image of each.
            channels: of the instances in them, from 1 on.
        """
        things, cells, rows = self.things, self.cells, torch.arange(len(boxes), device=boxes.device)
        scores = at_least_float32(self.box(vectors)).view(-1, things, cells)[rows, channels - 1, :, None, None]
        layers = zip(maps, (self.fine, self.coarse), self.strides, self.scales, strict=True)
        for x, classify, stride, scale in layers:
            # only the map of a box's own class is enlarged
            x = at_least_float32(classify(x * scale)).unflatten(1, (things, cells))[image_index, channels - 1]
            scores = scores + enlarge_boxes(x, boxes.to(x.dtype) / stride, self.size)
        return (scores.sigmoid() * self.weights.to(scores.dtype)).sum(dim=1)


class Hypercolumns(nn.Module):
    """Fast R-CNN on merged superpixels, and location classifiers in its boxes.

    Args:
        backbone: with maps of stride 8 or 16.
        things: class ids of the things, ascending.
        levels: indices of the backbone's maps that the location classifiers take, the finer first, and of the one, of
            stride 16, that boxes are pooled from.
        hidden: channels of the box head.
        pooling: of its features.
        cells: of a pooled box along each side.
        scales: see LocationClassifiers.
        learns: see Learns.
        proposal_side: longest side in pixels of the image on which proposals are computed.
        proposals: at most so many per image.
        samples: proposals per image that the detector is trained on.
        projects: average masks over superpixels.
        score_threshold: lowest score of a detection.
        max_detections: per image.
        nms_threshold: IoU from which a box suppresses another of its class.
    """

    task = TASK
    traits = TRAITS

    def __init__(
        self,
        backbone: Backbone,
        *,
        things: tuple[int, ...],
        levels: tuple[int, int, int],
        hidden: int = 4096,
        pooling: Pooling = "pool",
        cells: int = 7,
        scales: tuple[float, float] = (1.0, 1.0),
        learns: Learns = "all",
        proposal_side: int = 240,
        proposals: int = 2000,
        samples: int = 64,
        projects: bool = True,
        score_threshold: float = 0.05,
        max_detections: int = 100,
        nms_threshold: float = 0.3,
    ) -> None:
        super().__init__()
        self.normalize = Normalize(backbone.mean, backbone.std)
        self.backbone = backbone
        self.levels = levels
        fine, coarse, deep = (backbone.channels[level] for level in levels)
        self.things = things
        self.pooling = RoIPooling([16], size=cells, kind=pooling, is_aligned=True)
        self.box_head = BoxHead(deep, size=cells, width=hidden)
        self.box_predictor = BoxPredictor(hidden, len(things))
        self.mask_classifiers = LocationClassifiers(
            (fine, coarse, hidden),
            len(things),
            strides=(backbone.strides[levels[0]], backbone.strides[levels[1]]),
            scales=scales,
        )
        self.learns = learns
        self.proposal_side, self.proposals = proposal_side, proposals
        self.samples, self.projects = samples, projects
        self.thresholds = Thresholds(score_threshold, max_detections)
        self.nms_threshold = nms_threshold
        if learns == "masks":
            for part in (self.backbone, self.box_head, self.box_predictor):
                part.requires_grad_(False)
        if learns == "boxes":
            self.mask_classifiers.requires_grad_(False)

    def features(
        self, images: Float[Tensor, "B 3 H W"], sizes: Int64[Tensor, "B 2"] | None = None
    ) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """The two maps that the location classifiers take, and the one that boxes are pooled from."""
        images = zero_beyond(self.normalize(images), sizes)
        maps = self.backbone(images)
        return tuple(maps[level] for level in self.levels)

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        sizes: Int64[Tensor, "B 2"] | None = None,
        truth: tuple[Annotation, ...] | None = None,
        memory: Any = None,  # noqa: ARG002
    ) -> Output | TrainingOutput:
        """Boxes and the masks in them; in training with ground truth those of sampled proposals, with their targets."""
        valid = [list(images.shape[2:])] * len(images) if sizes is None else sizes.tolist()
        maps = self.features(images, sizes)
        pictures = [as_stored(image, size) for image, size in zip(images, valid, strict=True)]
        # half precision does not resolve neighbouring pixels
        found = [self._propose(picture).to(images.device) for picture in pictures]
        if self.training and truth is not None:
            return self._learn(maps, found, training_instances(truth))
        boxes, rows = torch.cat(found), [len(one) for one in found]
        logits, deltas = self.box_predictor(self._vectors(maps, found))
        parts = zip(logits.split(rows), deltas.split(rows), found, valid, strict=True)
        detections = tuple(
            select_detections(
                image_logits,
                image_deltas,
                image_boxes,
                size,
                score_threshold=self.thresholds.score,
                nms_threshold=self.nms_threshold,
                max_detections=self.thresholds.max_detections,
            )
            for image_logits, image_deltas, image_boxes, size in parts
        )
        boxes = [one.boxes for one in detections]
        masks = self._masks(maps, boxes, torch.cat([one.channels for one in detections]))
        return Output(
            detections=detections,
            masks=masks.split([len(one) for one in boxes]),
            superpixels=tuple(superpixels_of(picture) for picture in pictures) if self.projects else None,
        )

    def class_rows(self) -> tuple[ClassRows, ...]:
        """See `contracts.System`."""
        cells = self.mask_classifiers.cells
        return (
            ClassRows("box_predictor.classes", self.things, first=1),
            ClassRows("box_predictor.deltas", self.things, each=4),
            *(ClassRows(f"mask_classifiers.{name}", self.things, each=cells) for name in ("fine", "coarse", "box")),
        )

    def loss(self, output: Output | TrainingOutput, batch: Batch) -> dict[str, Term]:  # noqa: ARG002
        """Fast R-CNN's two losses, and the log-loss of the masks' cells, averaged over boxes.

        Raises:
            DataError: `output` is none of training with ground truth.
        """
        output = training_output(output, TrainingOutput)
        terms: dict[str, Term] = {}
        if output.boxes is not None:
            compared = output.boxes
            count = torch.tensor(len(compared.logits), device=compared.logits.device)
            boxes = F.smooth_l1_loss(compared.deltas, compared.delta_targets, reduction="sum")
            terms["class"] = Term(F.cross_entropy(compared.logits, compared.labels, reduction="sum"), count)
            terms["box"] = Term(boxes, count)
        if output.masks is not None:
            probabilities, targets, weights = output.masks
            # the interpolation's weights add up to 1 but for rounding
            losses = F.binary_cross_entropy(probabilities.clamp(0, 1), targets, reduction="none")
            count = torch.tensor(len(probabilities), device=probabilities.device)
            cells = self.mask_classifiers.size**2
            terms["mask"] = Term((losses.sum(dim=(1, 2)) * weights).sum(), count, weight=1 / cells)
        return terms

    def decode(self, output: Output, sizes: Sizes, thresholds: Thresholds | None = None) -> list[Annotation]:
        """The instances at the original size of their image, highest score first."""
        annotations: list[Annotation] = []
        for index, (valid, (height, width)) in enumerate(zip(sizes.valid, sizes.original, strict=True)):
            kept = (thresholds or self.thresholds).places(output.detections[index].scores)
            found = Detections(*(part[kept] for part in output.detections[index]))
            masks = output.masks[index][kept]
            boxes = clip_boxes(scale_boxes(found.boxes, valid, (height, width)), (height, width))
            if output.superpixels is None:
                pasted = paste_masks(
                    masks, boxes, (height, width), convention="detectron2", threshold=PROJECTION_THRESHOLD
                )
                packed = Masks(*pasted, size=(height, width))
            else:
                packed = _project(masks, found.boxes, output.superpixels[index], (height, width))
            instances = Instances(
                boxes=boxes.float(),
                labels=class_ids_of(found.channels, self.things),
                masks=packed,
                scores=found.scores.float(),
            )
            annotations.append(Annotation(instances=instances))
        return annotations

    @torch.no_grad()
    def _propose(self, picture: UInt8[Tensor, "3 h w"]) -> Float[Tensor, "N 4"]:
        """The boxes of merged superpixels, in pixels of the image."""
        strategies = STRATEGIES[:1] if self.training else STRATEGIES
        regions = propose_at(picture, side=self.proposal_side, count=self.proposals, strategies=strategies)
        boxes = regions.boxes().unique(dim=0)
        return scale_boxes(boxes, tuple(regions.superpixels.shape), (picture.shape[1], picture.shape[2]))

    def _vectors(
        self, maps: Sequence[Float[Tensor, "B _ _ _"]], boxes: Sequence[Float[Tensor, "_ 4"]]
    ) -> Float[Tensor, "R C"]:
        return self.box_head(self.pooling([maps[-1]], boxes))

    def _masks(
        self,
        maps: Sequence[Float[Tensor, "B _ _ _"]],
        boxes: Sequence[Float[Tensor, "_ 4"]],
        channels: Int64[Tensor, " R"],
    ) -> Float[Tensor, "R s s"]:
        counts = torch.tensor([len(one) for one in boxes], device=channels.device)
        image_index = torch.arange(len(boxes), device=channels.device).repeat_interleave(counts)
        vectors = self._vectors(maps, boxes)
        return self.mask_classifiers((maps[0], maps[1]), vectors, torch.cat([*boxes]), image_index, channels)

    def _learn(
        self,
        maps: Sequence[Float[Tensor, "B _ _ _"]],
        proposals: Sequence[Float[Tensor, "_ 4"]],
        truths: Sequence[Instances],
    ) -> TrainingOutput:
        compared_boxes: ComparedBoxes | None = None
        compared_masks: ComparedMasks | None = None
        channels = [channels_of(truth.labels, self.things) for truth in truths]
        if self.learns != "masks":
            drawn = sample_rois(proposals, truths, channels, samples=self.samples)
            logits, deltas = self.box_predictor(self._vectors(maps, drawn.boxes))
            labels = torch.cat(drawn.channels)
            positive = labels > 0
            compared_boxes = ComparedBoxes(
                logits=logits,
                labels=labels,
                deltas=deltas[positive, labels[positive] - 1],
                delta_targets=torch.cat(drawn.targets),
            )
        if self.learns != "boxes":
            boxes: list[Tensor] = []
            targets: list[Tensor] = []
            labels_of_boxes: list[Tensor] = []
            side = self.mask_classifiers.size
            for image_proposals, truth, labels in zip(proposals, truths, channels, strict=True):
                image_boxes, objects = draw_mask_boxes(image_proposals, truth)
                assert truth.masks is not None
                boxes.append(image_boxes)
                targets.append((truth.masks[objects].sample(image_boxes, (side, side)) >= 0.5).to(image_boxes.dtype))
                labels_of_boxes.append(labels[objects])
            weights = (box_areas(torch.cat(boxes)) / FULL_WEIGHT_AREA).clamp(max=1)
            compared_masks = ComparedMasks(
                probabilities=self._masks(maps, boxes, torch.cat(labels_of_boxes)),
                targets=torch.cat(targets),
                weights=weights,
            )
        return TrainingOutput(compared_boxes, compared_masks)


def enlarge_boxes(
    x: Float[Tensor, "R C h w"], boxes: Float[Tensor, "R 4"], size: int
) -> Float[Tensor, "R C size size"]:
    """The inside of one box of each map, sampled bilinearly at the centres of its cells; the border is repeated.

    RoIAlign with one sample for each cell, as two products of matrices. Measured beside torchvision's operator on one
    core, with the gradient, 25 channels and 50×50 samples: 0.14 of its time on maps of 12×12 cells, 0.42 on 40×40, 1.2
    on 75×125.

    Args:
        x: one map for each box.
        boxes: x1 y1 x2 y2 in cells of the map.
        size: height and width of the result.
    """
    channels, height, width = x.shape[1:]
    steps = (torch.arange(size, device=x.device, dtype=x.dtype) + 0.5) / size
    weights: list[Tensor] = []
    for low, high, length in ((boxes[:, 1], boxes[:, 3], height), (boxes[:, 0], boxes[:, 2], width)):
        place = (low[:, None] + (high - low)[:, None] * steps - 0.5).clamp(0, length - 1)
        number = torch.arange(length, device=x.device, dtype=x.dtype)
        weights.append((1 - (place[:, :, None] - number).abs()).clamp(min=0))
    rows, columns = weights
    with torch.autocast(x.device.type, enabled=False):
        read = rows @ x.transpose(1, 2).reshape(-1, height, channels * width)
        read = read.reshape(-1, size * channels, width) @ columns.transpose(1, 2)
    return read.view(-1, size, channels, size).transpose(1, 2)


def location_weights(grid: int, size: int) -> Float[Tensor, "cells size size"]:
    """Weight of each of K×K classifiers in each cell of a box: bilinear between the classifiers' centres."""
    cells = grid * grid
    return F.interpolate(torch.eye(cells).view(cells, 1, grid, grid), size=(size, size), mode="bilinear")[:, 0]


@torch.no_grad()
def draw_mask_boxes(
    proposals: Float[Tensor, "R 4"], truth: Instances
) -> tuple[Float[Tensor, "M 4"], Int64[Tensor, " M"]]:
    """Sample boxes on which masks are trained, and their instances, with torch's generator.

    For each instance its ground truth box, and up to four proposals that overlap it by MASK_IOU and no other instance
    more.
    """
    objects, _ = split_crowds(truth)
    numbers = torch.arange(len(truth), device=objects.device)
    numbers = numbers if truth.crowd is None else numbers[~truth.crowd]
    boxes, owners = [objects.to(proposals.dtype)], [torch.arange(len(objects), device=objects.device)]
    if len(objects) and len(proposals):
        overlaps, best = pairwise_iou(objects.to(proposals.dtype), proposals).max(dim=0)
        for owner in range(len(objects)):
            near = ((best == owner) & (overlaps >= MASK_IOU)).nonzero().flatten()
            chosen = near[torch.randperm(len(near), device=near.device)[: BOXES_PER_OBJECT - 1]]
            boxes.append(proposals[chosen])
            owners.append(torch.full((len(chosen),), owner, device=objects.device))
    return torch.cat(boxes), numbers[torch.cat(owners)]


def _project(
    masks: Float[Tensor, "N s s"],
    boxes: Float[Tensor, "N 4"],
    superpixels: Int32[Tensor, "h w"],
    size: tuple[int, int],
) -> Masks:
    """Each mask as the superpixels in which its mean reaches the threshold, at another image size.

    Args:
        masks: probabilities in the boxes, pasted by the nearest cell.
        boxes: in pixels of the superpixels' image.
        superpixels: of that image.
        size: height and width of the result.
    """
    height, width = superpixels.shape
    count = int(superpixels.max()) + 1
    enlarged = Regions(superpixels, torch.zeros(0, count, dtype=torch.bool)).resized(size).superpixels.long()
    crops: list[Tensor] = []
    places: list[list[int]] = []
    side = masks.shape[1]
    for mask, box in zip(masks.cpu(), boxes.tolist(), strict=True):
        x1, y1, x2, y2 = box
        rows = ((torch.arange(height) + 0.5 - y1) * side / max(y2 - y1, 1e-6)).floor().long()
        columns = ((torch.arange(width) + 0.5 - x1) * side / max(x2 - x1, 1e-6)).floor().long()
        inside = _within(rows, side)[:, None] & _within(columns, side)[None, :]
        pasted = mask[rows.clamp(0, side - 1)][:, columns.clamp(0, side - 1)] * inside
        chosen = mean_in_superpixels(pasted, superpixels, count) >= PROJECTION_THRESHOLD
        if chosen.any():
            full = chosen[enlarged]
        else:
            alone = pasted >= PROJECTION_THRESHOLD
            full = F.interpolate(alone[None, None].to(torch.uint8), size=size, mode="nearest-exact")[0, 0].bool()
        rows, columns = full.any(dim=1).nonzero().flatten(), full.any(dim=0).nonzero().flatten()
        place = [0, 0, 0, 0]
        if len(rows):
            place = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
        places.append(place)
        crops.append(full[place[1] : place[3], place[0] : place[2]])
    return Masks.from_crops(crops, places, size)


def _within(places: Int64[Tensor, " N"], side: int) -> Bool[Tensor, " N"]:
    return (places >= 0) & (places < side)


def build(
    *,
    num_classes: int,
    thing_ids: Sequence[int] | None = None,
    backbone: str = "vgg16",
    hidden: int | None = None,
    learns: Learns = "all",
    proposal_side: int = 240,
    proposals: int = 2000,
    samples: int = 64,
    projects: bool = True,
    score_threshold: float = 0.05,
    max_detections: int = 100,
    nms_threshold: float = 0.3,
) -> Hypercolumns:
    """Hypercolumns with random weights.

    Args:
        num_classes: background included.
        thing_ids: class ids of the things; all but 0 if not given.
        backbone: `vgg16` is the release's, `caffenet` the CVPR paper's smaller one; any other of
            `nn.backbones.build_backbone`.
        hidden: channels of the box head; 4,096 with these two, else 1,024, if not given.
        learns: what is trained: `all`; `boxes`, the detector alone; or `masks`, with a fixed detector.
        proposal_side: longest side in pixels of the image on which proposals are computed.
        proposals: at most so many per image.
        samples: proposals per image that the detector is trained on.
        projects: average masks over superpixels.
        score_threshold: lowest score of a detection.
        max_detections: per image.
        nms_threshold: IoU from which a box suppresses another of its class.

    Raises:
        RecipeError: an unknown backbone, one without maps of stride 8 and 16, or an unknown `learns`.
    """
    if learns not in ("all", "boxes", "masks"):
        raise RecipeError(f"learns '{learns}': all, boxes or masks")
    published = backbone in ("vgg16", "caffenet")
    network: Backbone
    if backbone == "vgg16":
        network = VGGBackbone(torchvision.models.vgg16(weights=None), last_pooling=False)
    elif backbone == "caffenet":
        network = CaffeNetBackbone(is_padded=True, last_pooling=False)
    elif backbone.startswith(RESNETS):
        network = build_backbone(backbone, output_stride=32)
        network.shorten(network.deepest(16) + 1)
    else:
        network = build_backbone(backbone, output_stride=16)
    is_caffenet = backbone == "caffenet"
    first, last = network.strides.index(16), network.deepest(16)
    levels = (first, first + 1, last) if is_caffenet else (network.deepest(8), first, last)
    return Hypercolumns(
        network,
        things=things_of(num_classes, thing_ids),
        levels=levels,
        hidden=hidden or (4096 if published else 1024),
        pooling="pool" if published else "align",
        cells=6 if is_caffenet else 7,
        scales=VGG_SCALES if backbone == "vgg16" else (1.0, 1.0),
        learns=learns,
        proposal_side=proposal_side,
        proposals=proposals,
        samples=samples,
        projects=projects,
        score_threshold=score_threshold,
        max_detections=max_detections,
        nms_threshold=nms_threshold,
    )


VARIANTS = {
    "hypercolumns_vgg16": {"backbone": "vgg16"},
    "hypercolumns_caffenet": {"backbone": "caffenet"},
    "hypercolumns_resnet50": {"backbone": "resnet50"},
    "hypercolumns_mobilenet_v2": {"backbone": "mobilenet_v2"},
}


def _stage(name: str, steps: int, *, learns: Learns, frozen_stages: int) -> Stage:
    return Stage(
        name=name,
        steps=steps,
        batch_size=4,
        crop_size=320,
        optimizer=Optimizer(
            name="adamw", lr=1e-4, head_lr_multiplier=3.0, weight_decay=1e-2, norm_weight_decay=0.0, clip_norm=10.0
        ),
        augmentation=Augmentation(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05),
        poly_power=0.9,
        warmup_steps=100,
        freeze_batch_norm=True,
        frozen_stages=frozen_stages,
        arguments={"learns": learns},
    )


_PAPER_STAGE = {
    "crop_size": "whole images",
    "optimizer.name": "sgd",
    "optimizer.lr": "0.001",
    "optimizer.head_lr_multiplier": "1",
    "optimizer.clip_norm": "none",
    "poly_power": "0",
    "warmup_steps": "0",
    "augmentation.scale_min": "1",
    "augmentation.scale_max": "1",
    "augmentation.brightness": "0",
    "augmentation.contrast": "0",
    "augmentation.saturation": "0",
    "augmentation.hue": "0",
}

RECIPE = Recipe(
    stages=(
        _stage("all", 3_000, learns="all", frozen_stages=2),
        _stage("masks", 1_000, learns="masks", frozen_stages=0),
    ),
    input_size=320,
    paper={
        "input_size": "600",
        "input_side": "short",
        "input_limit": "1,000",
        **{f"all.{name}": value for name, value in _PAPER_STAGE.items()},
        "all.steps": "40,000 (Fast R-CNN, boxes alone)",
        "all.batch_size": "2",
        "all.optimizer.weight_decay": "5e-4",
        "all.optimizer.bias_lr_multiplier": "2",
        "all.optimizer.head_bias_lr_multiplier": "2",
        **{f"masks.{name}": value for name, value in _PAPER_STAGE.items()},
        "masks.steps": "10,000",
        "masks.batch_size": "20 (one by one, their gradients added)",
        "masks.optimizer.weight_decay": "1e-3",
    },
)
"""The last stage trains the masks on a fixed detector."""

RECIPES = {
    "hypercolumns_caffenet": replace(
        RECIPE, stages=(_stage("all", 3_000, learns="all", frozen_stages=0), *RECIPE.stages[1:])
    )
}
"""Of the variants: no library has weights of CaffeNet, so its first layers are trained too."""

PUBLISHED: dict[str, dict[str, Recipe]] = {}
