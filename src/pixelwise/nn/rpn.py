"""Region proposal network: class-agnostic proposals of boxes.

Source: Ren, He, Girshick, Sun, "Faster R-CNN", NIPS 2015, section 3; on
pyramids Lin et al., FPN, CVPR 2017, section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torchvision.ops import batched_nms

from pixelwise.nn.convolution import convolution
from pixelwise.ops.anchors import grid_anchors
from pixelwise.ops.boxes import (
    are_large_enough,
    clip_boxes,
    decode_boxes,
    encode_boxes,
    pairwise_coverage,
    pairwise_iou,
)
from pixelwise.ops.matching import BACKGROUND, NEUTRAL, match_boxes, sample_balanced, without_crowds
from pixelwise.ops.precision import at_least_float32
from pixelwise.types import Instances


class Proposals(NamedTuple):
    """Proposals of each image, highest score first, without gradients.

    Attributes:
        boxes: inside the image.
        scores: objectness probabilities.
        places: index of each proposal's anchor among all anchors, level by level.
    """

    boxes: tuple[Float[Tensor, "N 4"], ...]
    scores: tuple[Float[Tensor, " N"], ...]
    places: tuple[Int64[Tensor, " N"], ...]


class AnchorSamples(NamedTuple):
    """Inputs of the RPN's losses, of each image.

    Attributes:
        logits: of the sampled anchors, positives first.
        is_object: whether each is positive.
        deltas: predicted for the positives.
        targets: their regression targets.
    """

    logits: tuple[Float[Tensor, " S"], ...]
    is_object: tuple[Bool[Tensor, " S"], ...]
    deltas: tuple[Float[Tensor, "P 4"], ...]
    targets: tuple[Float[Tensor, "P 4"], ...]


class RPNPredictions(NamedTuple):
    """Predictions of the head for each level.

    Attributes:
        logits: objectness, in the order of `ops.anchors.grid_anchors`.
        deltas: of the anchors.
        anchors: the same for all images.
    """

    logits: tuple[Float[Tensor, "B _"], ...]
    deltas: tuple[Float[Tensor, "B _ 4"], ...]
    anchors: tuple[Float[Tensor, "_ 4"], ...]


class RPN(nn.Module):
    """One small head for all levels, its proposals, and the sampling of anchors for training.

    Args:
        in_channels: of every level.
        base_anchors: of each level, see `ops.anchors.base_anchors`; the same number on every level.
        strides: of each level in pixels; None divides the image's sides by the map's, rounded down, as torchvision
            does, which differs where the padded image is no multiple of a stride.
        anchor_offset: of the anchors' centres in their cells, see `ops.anchors.grid_anchors`.
        channels: of the hidden convolutions; those of the levels if not given.
        convolutions: 3×3 ones before the two 1×1; two in torchvision's second version.
        pre_nms_topk: proposals of each level before NMS, in training and otherwise.
        post_nms_topk: proposals of each image after NMS, in training and otherwise.
        nms_threshold: IoU from which a proposal suppresses one of its level with a lower score.
        smallest_side: of a proposal in pixels.
        least_side: smallest side of a clipped proposal, see `ops.boxes.clip_boxes`.
        samples: anchors per image that are trained on.
        positive_fraction: largest fraction of positives.
        positive_overlap: smallest IoU of a positive anchor; the anchors of largest IoU with an instance are always
            positive.
        negative_overlap: IoU below which an anchor is background.
        allowed_border: pixels by which an anchor that is trained on may cross the border of the image; 0 skips all that
            cross it (Faster R-CNN, section 3.3), None skips none.
        min_pos_iou: see `ops.matching.match_boxes`.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        base_anchors: Sequence[Float[Tensor, "A 4"]],
        strides: Sequence[int] | None,
        anchor_offset: float = 0.0,
        channels: int | None = None,
        convolutions: int = 1,
        pre_nms_topk: tuple[int, int] = (2000, 1000),
        post_nms_topk: tuple[int, int] = (2000, 1000),
        nms_threshold: float = 0.7,
        smallest_side: float = 1e-3,
        least_side: float = 0.0,
        samples: int = 256,
        positive_fraction: float = 0.5,
        positive_overlap: float = 0.7,
        negative_overlap: float = 0.3,
        allowed_border: float | None = None,
        min_pos_iou: float | None = None,
    ) -> None:
        super().__init__()
        channels = channels or in_channels
        widths = (in_channels, *(channels,) * (convolutions - 1))
        self.convolutions = nn.Sequential(*(convolution(width, channels, has_activation=True) for width in widths))
        count = len(base_anchors[0])
        self.objectness = nn.Conv2d(channels, count, 1)
        self.deltas = nn.Conv2d(channels, 4 * count, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for level, anchors in enumerate(base_anchors):
            self.register_buffer(f"base_anchors_{level}", anchors, persistent=False)
        self.levels = len(base_anchors)
        self.strides = None if strides is None else tuple(strides)
        self.anchor_offset = anchor_offset
        self.pre_nms_topk, self.post_nms_topk = pre_nms_topk, post_nms_topk
        self.nms_threshold, self.smallest_side, self.least_side = nms_threshold, smallest_side, least_side
        self.samples, self.positive_fraction = samples, positive_fraction
        self.positive_overlap, self.negative_overlap = positive_overlap, negative_overlap
        self.allowed_border, self.min_pos_iou = allowed_border, min_pos_iou

    def forward(self, levels: Sequence[Float[Tensor, "B _ _ _"]], image_size: tuple[int, int]) -> RPNPredictions:
        """Predictions for all anchors.

        Args:
            levels: of the pyramid.
            image_size: height and width of the padded images.
        """
        logits: list[Tensor] = []
        deltas: list[Tensor] = []
        anchors: list[Tensor] = []
        for number, x in enumerate(levels):
            x, grid = self.convolutions(x), (x.shape[2], x.shape[3])
            logits.append(_by_anchor(self.objectness(x), 1).flatten(1))
            deltas.append(_by_anchor(self.deltas(x), 4))
            stride = (image_size[0] // grid[0], image_size[1] // grid[1])
            if self.strides is not None:
                stride = (self.strides[number], self.strides[number])
            base = getattr(self, f"base_anchors_{number}").to(deltas[-1].dtype)
            anchors.append(grid_anchors(base, grid, stride, offset=self.anchor_offset))
        return RPNPredictions(tuple(logits), tuple(deltas), tuple(anchors))

    @torch.no_grad()
    def propose(self, predictions: RPNPredictions, sizes: Sequence[Sequence[int]]) -> Proposals:
        """The highest-scoring boxes of each level, clipped to the image, after NMS.

        Args:
            predictions: of `forward`.
            sizes: valid height and width of each image.
        """
        pre_nms_topk, post_nms_topk = self.pre_nms_topk[not self.training], self.post_nms_topk[not self.training]
        boxes: list[Tensor] = []
        logits: list[Tensor] = []
        numbers: list[Tensor] = []
        anchor_places: list[Tensor] = []
        first = 0
        for number, (level_logits, deltas, anchors) in enumerate(zip(*predictions, strict=True)):
            best, places = level_logits.topk(min(pre_nms_topk, level_logits.shape[1]), dim=1)
            chosen = deltas.gather(1, places[:, :, None].expand(-1, -1, 4))
            boxes.append(decode_boxes(chosen, anchors[places]))
            logits.append(best)
            numbers.append(torch.full((best.shape[1],), number, device=best.device))
            anchor_places.append(first + places)
            first += len(anchors)
        level = torch.cat(numbers)
        images = zip(torch.cat(boxes, 1), torch.cat(logits, 1), torch.cat(anchor_places, 1), sizes, strict=True)
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for image_boxes, image_logits, image_places, size in images:
            image_boxes, scores = clip_boxes(image_boxes, size, least=self.least_side), image_logits.sigmoid()
            usable = are_large_enough(image_boxes, self.smallest_side)
            image_boxes, scores, image_places = image_boxes[usable], scores[usable], image_places[usable]
            best = batched_nms(image_boxes, scores, level[usable], self.nms_threshold)[:post_nms_topk]
            found.append((image_boxes[best], scores[best], image_places[best]))
        return Proposals(*(tuple(parts) for parts in zip(*found, strict=True)))

    def sample(
        self,
        predictions: RPNPredictions,
        sizes: Sequence[Sequence[int]],
        truth: Sequence[Instances],
        *,
        labelled: Sequence[Int64[Tensor, " N"]] | None = None,
    ) -> AnchorSamples:
        """Sample anchors to train on, with torch's generator; background inside a crowd is not sampled.

        Args:
            predictions: of `forward`.
            sizes: valid height and width of each image.
            truth: the instances of each image, with the crowds.
            labelled: matches of further anchors of each image that are trained on beside the sampled ones: the index of
                an instance that is no crowd, or BACKGROUND; NEUTRAL leaves the anchor to the sampling.
        """
        anchors = torch.cat(predictions.anchors)
        all_logits, all_deltas = torch.cat(predictions.logits, dim=1), torch.cat(predictions.deltas, dim=1)
        samples: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        images = zip(all_logits, all_deltas, sizes, truth, strict=True)
        for index, (logits, deltas, size, instances) in enumerate(images):
            objects, crowds = split_crowds(instances)
            places = self._usable(anchors, size)
            usable = anchors[places]
            matched = match_boxes(
                pairwise_iou(objects, usable),
                positive=self.positive_overlap,
                negative=self.negative_overlap,
                best_for_each=True,
                min_pos_iou=self.min_pos_iou,
            )
            matches = torch.full(anchors.shape[:1], NEUTRAL, device=anchors.device)
            matches[places] = without_crowds(matched, pairwise_coverage(crowds, usable))
            positives, negatives = sample_balanced(
                matches, count=self.samples, positive_fraction=self.positive_fraction
            )
            if labelled is not None:
                drawn = torch.full_like(matches, NEUTRAL)
                drawn[positives], drawn[negatives] = matches[positives], BACKGROUND
                matches = torch.where(labelled[index] == NEUTRAL, drawn, labelled[index])
                positives, negatives = (matches >= 0).nonzero().flatten(), (matches == BACKGROUND).nonzero().flatten()
            chosen = torch.cat([positives, negatives])
            is_object = torch.arange(len(chosen), device=chosen.device) < len(positives)
            targets = encode_boxes(objects[matches[positives]], anchors[positives])
            samples.append((logits[chosen], is_object, deltas[positives], targets))
        return AnchorSamples(*(tuple(parts) for parts in zip(*samples, strict=True)))

    def _usable(self, anchors: Float[Tensor, "N 4"], size: Sequence[int]) -> Int64[Tensor, " M"]:
        """The numbers of the anchors that may be trained on in an image of that size."""
        if self.allowed_border is None:
            return torch.arange(len(anchors), device=anchors.device)
        border, (height, width) = self.allowed_border, size
        is_inside = (anchors[:, :2] >= -border).all(dim=1)
        is_inside &= (anchors[:, 2:] <= anchors.new_tensor([width + border, height + border])).all(dim=1)
        return is_inside.nonzero().flatten()


def split_crowds(instances: Instances) -> tuple[Float[Tensor, "T 4"], Float[Tensor, "R 4"]]:
    """The boxes of the instances and those of the crowds."""
    if instances.crowd is None:
        return instances.boxes, instances.boxes[:0]
    return instances.boxes[~instances.crowd], instances.boxes[instances.crowd]


def _by_anchor(x: Float[Tensor, "B AC h w"], channels: int) -> Float[Tensor, "B N C"]:
    """Predictions cell by cell and within a cell anchor by anchor, at least in float32."""
    return at_least_float32(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, channels)
