"""Heads that run on boxes of a feature map: pooling, classes and boxes, masks.

Sources: Girshick, "Fast R-CNN", ICCV 2015; He et al., "Mask R-CNN", ICCV 2017, section 3; for the choice of a level
Lin et al., FPN, CVPR 2017, equation 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torchvision.ops import batched_nms, roi_align, roi_pool

from pixelwise.nn.convolution import convolution
from pixelwise.nn.rpn import split_crowds
from pixelwise.ops.boxes import (
    RCNN_WEIGHTS,
    are_large_enough,
    box_areas,
    clip_boxes,
    decode_boxes,
    encode_boxes,
    pairwise_coverage,
    pairwise_iou,
)
from pixelwise.ops.matching import match_boxes, sample_balanced, without_crowds
from pixelwise.ops.precision import at_least_float32
from pixelwise.ops.roi_align import sampled_roi_align
from pixelwise.types import Instances

Pooling = Literal["align", "pool"]
"""RoIAlign, or RoIPool of Fast R-CNN, which rounds boxes to cells (the ablation of Mask R-CNN, table 2c and d)."""

CANONICAL_SIZE = 224
"""Side in pixels of a box that is pooled from stride 16, the size of ImageNet's images."""


class RoIPooling(nn.Module):
    """Pool features of a fixed size from the inside of each box, on the level that fits its size.

    RoIAlign and RoIPool are torchvision's; on the CPU without gradients RoIAlign is that of `ops.roi_align`.

    Args:
        strides: of the levels, from the finest, each twice the one before; with one level all boxes are pooled from it.
        size: side of the result in cells.
        kind: see Pooling.
        sampling_ratio: RoIAlign's samples along each side of a cell; 0 takes as many as the cell has pixels.
        is_aligned: pixels' centres lie at half coordinates, as in detectron2; otherwise boxes are shifted by half a
            pixel.
        inclusive_boxes: boxes are pooled from x1 y1 to x2 - 1, y2 - 1, as in codes whose x2 and y2 are the last pixels
            and whose boxes are x2 - x1 + 1 wide (UPSNet's).
    """

    def __init__(
        self,
        strides: Sequence[int],
        *,
        size: int,
        kind: Pooling = "align",
        sampling_ratio: int = 2,
        is_aligned: bool = False,
        inclusive_boxes: bool = False,
    ) -> None:
        super().__init__()
        self.strides, self.size, self.kind = tuple(strides), size, kind
        self.sampling_ratio, self.is_aligned = sampling_ratio, is_aligned
        self.inclusive_boxes = inclusive_boxes

    def forward(
        self, levels: Sequence[Float[Tensor, "B C _ _"]], boxes: Sequence[Float[Tensor, "_ 4"]]
    ) -> Float[Tensor, "R C s s"]:
        """Features of all boxes, image after image.

        Args:
            levels: one for each stride; further ones are not used.
            boxes: of each image.
        """
        every = torch.cat([*boxes]).to(at_least_float32(levels[0]).dtype)
        counts = torch.tensor([len(one) for one in boxes], device=every.device)
        image = torch.arange(len(boxes), device=every.device).repeat_interleave(counts)
        corners = every - every.new_tensor([0, 0, 1, 1]) if self.inclusive_boxes else every
        rois = torch.cat([image[:, None].to(every.dtype), corners], dim=1)
        if len(self.strides) == 1:
            return self._pool(levels[0], rois, self.strides[0])
        level = self.levels_of(every)
        result = every.new_empty(len(every), self.size, self.size, levels[0].shape[1]).permute(0, 3, 1, 2)
        for number, (x, stride) in enumerate(zip(levels, self.strides, strict=False)):
            part = (level == number).nonzero().flatten()
            result[part] = self._pool(x, rois[part], stride)
        return result

    def levels_of(self, boxes: Float[Tensor, "R 4"]) -> Int64[Tensor, " R"]:
        """The index of the level of each box: ⌊4 + log2(√area / 224)⌋, where stride 2^k is level k."""
        finest = self.strides[0].bit_length() - 1
        # torchvision's constant against rounding: a box of exactly 112 pixels belongs to the coarser level
        levels = (4 + torch.log2(box_areas(boxes).sqrt() / CANONICAL_SIZE) + 1e-6).floor()
        return (levels.clamp(finest, finest + len(self.strides) - 1) - finest).long()

    def _pool(self, x: Float[Tensor, "B C h w"], rois: Float[Tensor, "R 5"], stride: int) -> Float[Tensor, "R C s s"]:
        x = at_least_float32(x)
        if self.kind == "pool":
            return roi_pool(x, rois, self.size, 1 / stride)
        learns = torch.is_grad_enabled() and (x.requires_grad or rois.requires_grad)
        if self.sampling_ratio > 0 and x.device.type == "cpu" and not learns:
            return sampled_roi_align(
                x, rois, self.size, 1 / stride, sampling_ratio=self.sampling_ratio, is_aligned=self.is_aligned
            )
        return roi_align(x, rois, self.size, 1 / stride, self.sampling_ratio, self.is_aligned)


class BoxHead(nn.Module):
    """Maps the features of a box to one vector: convolutions, then fully connected layers, each with ReLU.

    Args:
        in_channels: of the features.
        size: their side in cells.
        convolutions: 3×3 ones; none in the paper, four in torchvision's second version.
        has_norm: batch norm after each convolution.
        hidden: fully connected layers; two in the paper (FPN, section 4.2).
        width: of the vector.

    Attributes:
        width: of the vector.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        size: int = 7,
        convolutions: int = 0,
        has_norm: bool = False,
        hidden: int = 2,
        width: int = 1024,
    ) -> None:
        super().__init__()
        self.width = width
        self.convolutions = nn.Sequential(
            *(
                convolution(in_channels, in_channels, has_norm=has_norm, has_activation=True)
                for _ in range(convolutions)
            )
        )
        layers: list[nn.Module] = []
        for number in range(hidden):
            layers += [nn.Linear(width if number else in_channels * size**2, width), nn.ReLU(inplace=True)]
        self.hidden = nn.Sequential(*layers)
        _initialise_convolutions(self)

    def forward(self, x: Float[Tensor, "R C s s"]) -> Float[Tensor, "R D"]:
        """One vector for each box."""
        return self.hidden(self.convolutions(x).flatten(1))


class BoxPredictor(nn.Module):
    """Predicts class logits and, for each class, box deltas from the vector of a box.

    Args:
        in_channels: length of the vector.
        things: classes without background.
    """

    def __init__(self, in_channels: int, things: int) -> None:
        super().__init__()
        self.classes = nn.Linear(in_channels, 1 + things)
        self.deltas = nn.Linear(in_channels, 4 * things)
        for layer, deviation in ((self.classes, 0.01), (self.deltas, 0.001)):
            nn.init.normal_(layer.weight, std=deviation)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "R D"]) -> tuple[Float[Tensor, "R K1"], Float[Tensor, "R K 4"]]:
        """The logits, background first, and the box deltas of each thing."""
        logits, deltas = at_least_float32(self.classes(x)), at_least_float32(self.deltas(x))
        return logits, deltas.unflatten(1, (-1, 4))


class MaskHead(nn.Module):
    """Predicts the mask of one class from the features of a box, at twice their resolution (section 3, figure 4).

    The last layer is a 1×1 convolution for each class; only that of the given class is computed.

    Args:
        in_channels: of the features.
        things: classes without background.
        convolutions: 3×3 ones; four on pyramids, none after the residual blocks of a C4 network.
        has_norm: batch norm after each convolution.
        channels: of the hidden layers.
    """

    def __init__(
        self, in_channels: int, things: int, *, convolutions: int = 4, has_norm: bool = False, channels: int = 256
    ) -> None:
        super().__init__()
        widths = (in_channels, *(channels,) * convolutions)
        self.convolutions = nn.Sequential(
            *(convolution(width, channels, has_norm=has_norm, has_activation=True) for width in widths[:-1])
        )
        self.enlargement = nn.ConvTranspose2d(widths[-1], channels, 2, stride=2)
        self.predictor = nn.Linear(channels, things)
        _initialise_convolutions(self)
        nn.init.kaiming_normal_(self.enlargement.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.predictor.weight, std=0.001)
        for layer in (self.enlargement, self.predictor):
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "R C s s"], channels: Int64[Tensor, " R"]) -> Float[Tensor, "R s2 s2"]:
        """The mask logits.

        Args:
            x: features of each box.
            channels: the class of each, from 1 on, see `ops.thing_channels`.
        """
        # a transposed convolution of stride 2 maps each cell to four: as a matrix product it takes half the time, and
        # only the masks, not their features, must be reordered
        x = self.convolutions(x).permute(0, 2, 3, 1)
        count, height, width = x.shape[:3]
        cells = self.enlargement.weight.permute(2, 3, 1, 0).flatten(0, 2)
        x = F.relu(F.linear(x, cells, self.enlargement.bias.repeat(4)))  # pyright: ignore[reportOptionalMemberAccess]
        weight, bias = self.predictor.weight[channels - 1], self.predictor.bias[channels - 1]
        logits = (
            torch.bmm(x.reshape(count, height * width * 4, self.predictor.in_features), weight[:, :, None])
            + bias[:, None, None]
        )
        logits = at_least_float32(logits).view(count, height, width, 2, 2).permute(0, 1, 3, 2, 4)
        return logits.reshape(count, 2 * height, 2 * width)


class RoISamples(NamedTuple):
    """Sampled boxes that the heads are trained on, of each image, positives first.

    Attributes:
        boxes: proposals and ground truth boxes.
        channels: class of each, 0 for background.
        objects: index of the matched instance of each positive.
        targets: regression targets of the positives.
    """

    boxes: tuple[Float[Tensor, "S 4"], ...]
    channels: tuple[Int64[Tensor, " S"], ...]
    objects: tuple[Int64[Tensor, " P"], ...]
    targets: tuple[Float[Tensor, "P 4"], ...]


@torch.no_grad()
def sample_rois(
    proposals: Sequence[Float[Tensor, "_ 4"]],
    truth: Sequence[Instances],
    channels: Sequence[Int64[Tensor, " _"]],
    *,
    samples: int = 512,
    positive_fraction: float = 0.25,
    positive_overlap: float = 0.5,
    weights: Sequence[float] = RCNN_WEIGHTS,
) -> RoISamples:
    """Sample proposals to train on, with torch's generator; background inside a crowd is not sampled.

    Args:
        proposals: of each image; ground truth boxes are added, so that there are positives from the first step on.
        truth: the instances of each image, with the crowds, which are no targets.
        channels: class of each of them, from 1 on.
        samples: number per image.
        positive_fraction: largest fraction of positives.
        positive_overlap: smallest IoU of a positive; all others are background.
        weights: of the box encoding.
    """
    drawn: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for image_proposals, instances, classes in zip(proposals, truth, channels, strict=True):
        objects, crowds = split_crowds(instances)
        numbers = torch.arange(len(instances), device=objects.device)
        numbers = numbers if instances.crowd is None else numbers[~instances.crowd]
        boxes = torch.cat([image_proposals, objects.to(image_proposals.dtype)])
        matches = match_boxes(pairwise_iou(objects, boxes), positive=positive_overlap, negative=positive_overlap)
        matches = without_crowds(matches, pairwise_coverage(crowds, boxes))
        positives, negatives = sample_balanced(matches, count=samples, positive_fraction=positive_fraction)
        matched = matches[positives]
        background = classes.new_zeros(len(negatives))
        drawn.append(
            (
                boxes[torch.cat([positives, negatives])],
                torch.cat([classes[numbers[matched]], background]),
                numbers[matched],
                encode_boxes(objects[matched], boxes[positives], weights=weights),
            )
        )
    return RoISamples(*(tuple(parts) for parts in zip(*drawn, strict=True)))


class Detections(NamedTuple):
    """The detections in one image, highest score first.

    Attributes:
        boxes: inside the image.
        channels: class of each, from 1 on.
        scores: probability of that class.
    """

    boxes: Float[Tensor, "N 4"]
    channels: Int64[Tensor, " N"]
    scores: Float[Tensor, " N"]


def select_detections(
    logits: Float[Tensor, "R K1"],
    deltas: Float[Tensor, "R K 4"],
    proposals: Float[Tensor, "R 4"],
    size: Sequence[int],
    *,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.5,
    max_detections: int = 100,
    smallest_side: float = 1e-2,
    least_side: float = 0.0,
    weights: Sequence[float] = RCNN_WEIGHTS,
    across_classes: bool = False,
) -> Detections:
    """Select the detections of one image: every class of every proposal is a candidate, followed by NMS in each class.

    Args:
        logits: background first.
        deltas: for each class.
        proposals: references of the deltas.
        size: valid height and width of the image.
        score_threshold: candidates have a greater probability.
        nms_threshold: IoU from which a candidate suppresses one of its class with a lower score.
        max_detections: over all classes.
        smallest_side: of a box in pixels.
        least_side: smallest side of a clipped box, see `ops.boxes.clip_boxes`.
        weights: of the box encoding.
        across_classes: run one NMS over all classes.
    """
    probabilities = logits.softmax(dim=1)[:, 1:]
    proposal, channel = (probabilities > score_threshold).nonzero(as_tuple=True)
    scores = probabilities[proposal, channel]
    boxes = decode_boxes(deltas[proposal, channel], proposals[proposal], weights=weights)
    boxes = clip_boxes(boxes, size, least=least_side)
    usable = are_large_enough(boxes, smallest_side)
    boxes, scores, channel = boxes[usable], scores[usable], channel[usable]
    groups = torch.zeros_like(channel) if across_classes else channel
    best = batched_nms(boxes, scores, groups, nms_threshold)[:max_detections]
    return Detections(boxes[best], channel[best] + 1, scores[best])


def _initialise_convolutions(head: nn.Module) -> None:
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
