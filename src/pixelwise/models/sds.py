"""SDS: Hariharan, Arbeláez, Girshick, Malik, "Simultaneous Detection and Segmentation", ECCV 2014.

Class-agnostic regions, each a set of superpixels, are described by two towers: one takes the region's box, the other
the same crop with everything but the region at the mean colour (section 3.2). Linear SVMs on the concatenated features
classify the regions (section 3.3). A region is suppressed if it shares a superpixel with a higher-scoring one of its
class. For each class 10×10 logistic regressors predict where in the box the instance lies, and a last one predicts
which superpixels belong to it (section 3.4).

It is trained in several stages: the towers by gradient descent, one alone, then the other, which begins as a copy of
it, then both (the paper's B, then C: `learns`); then the SVMs and the regressors, which are solved exactly. Their
solutions are buffers of the module. Before the SVMs are fitted, the towers' own classifier scores regions; before the
regressors are fitted, regions are not refined.

With `detects="boxes"` it is the paper's box detector (section 5): SVMs whose negatives are selected by box IoU, without
the latent pass, and NMS of boxes at an IoU of 0.3. With `pastes` the prediction has a class for each pixel too: the
highest-scoring regions are pasted one over another (section 5; `ops.semantic_pasting`).

Differences from the paper and the authors' code:
- The proposals are not MCG's: superpixels merged by similarity (`ops.superpixels`), or those that the data bring
  (`data.proposals` reads files). Other proposals change the AP.
- `caffenet` has the layers of the published network, with our mean and standard deviation in RGB. Other towers are
  backbones whose deepest map is averaged, with two hidden layers after it, of 512 channels; their crops have 96 pixels.
- Regions of one batch are sampled image by image, a quarter of them positive; the authors sample them from all images.
- The predicted scores are the logistic function of the SVMs' margins, which keeps their order.
- In the latent pass an instance that no candidate overlaps enough keeps its own region; in the code it is skipped.
- Regressors are fitted by L-BFGS, all cells of a class at once, with a penalty of our choice. The candidate's mask is
  sampled at the cells' centres; the authors' resizing averages.
- A region without superpixels after the refinement stays unrefined.
- The threshold of the pasting is fitted on the training images, so that a prediction needs one image alone; the authors
  fit it on the images that they predict. Before the SVMs are fitted it is a probability of one half.
- The recipe is for small data sets on a small machine; the paper's numbers stand beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int32, Int64, UInt8
from torch import Tensor, nn
from torchvision.ops import nms

from pixelwise.contracts import (
    Augmentation,
    ClassRows,
    Optimizer,
    Recipe,
    Sizes,
    SolverProgress,
    Stage,
    Term,
    Thresholds,
    Traits,
)
from pixelwise.errors import RecipeError
from pixelwise.losses.detection import training_instances, training_output
from pixelwise.nn.backbone import Backbone, Normalize
from pixelwise.nn.backbones import build_backbone
from pixelwise.nn.caffenet import CaffeNetBackbone
from pixelwise.nn.region_solvers import AnnotatedImages, Detects, fit_refiners, fit_svms
from pixelwise.nn.rpn import split_crowds
from pixelwise.ops.boxes import pairwise_coverage, pairwise_iou
from pixelwise.ops.matching import draw_at_most
from pixelwise.ops.precision import at_least_float32
from pixelwise.ops.region_crops import crop_regions
from pixelwise.ops.region_refinement import CELLS, coarse_mask, padded_box, superpixel_means
from pixelwise.ops.resize_rule import ResizeRule
from pixelwise.ops.semantic_pasting import paste_order
from pixelwise.ops.superpixels import (
    STRATEGIES,
    Regions,
    as_stored,
    propose_at,
    region_overlaps,
    regions_of_masks,
    suppress_shared,
)
from pixelwise.ops.thing_channels import channels_of, class_ids_of, things_of
from pixelwise.types import Annotation, Batch, Instances, Masks

TASK = "instance"
TRAITS = Traits(takes_proposals=True)

FOREGROUND_IOU = 0.5
"""Smallest IoU of a positive region with an instance; in the box tower's stage, of their boxes."""
CROPS_AT_ONCE = 64

BOX_NMS_IOU = 0.3
"""IoU from which a box suppresses one of its class with a lower score."""

REFINEMENT_THRESHOLD = 0.5
Learns = Literal["box", "region", "joint"]
"""Which tower is trained: one of them with a classifier of its own, or both with one classifier for both."""


class TrainingOutput(NamedTuple):
    """Inputs of the loss, of the sampled regions of all images.

    Attributes:
        logits: channel 0 is background.
        labels: their target channels.
    """

    logits: Float[Tensor, "R K"]
    labels: Int64[Tensor, " R"]


class Output(NamedTuple):
    """The detections, one entry for each image.

    Attributes:
        scores: in [0, 1], highest first.
        channels: of their classes, from 1 on.
        regions: index of the proposal of each detection.
        superpixels: at the network's input size without padding.
        members: 1 for the superpixels of each detection.
        paste_above: score above which a detection is pasted; None where none is.
    """

    scores: tuple[Float[Tensor, " N"], ...]
    channels: tuple[Int64[Tensor, " N"], ...]
    regions: tuple[Int64[Tensor, " N"], ...]
    superpixels: tuple[Int32[Tensor, "_h _w"], ...]
    members: tuple[UInt8[Tensor, "N S"], ...]
    paste_above: Float[Tensor, ""] | None


class Tower(nn.Module):
    """Maps crops to feature vectors: a backbone and two hidden layers.

    Args:
        backbone: whose deepest map is used.
        width: of the hidden layers and the features.
        cells: of that map along each side, after averaging.
        dropout: after each hidden layer.
    """

    def __init__(self, backbone: Backbone, *, width: int, cells: int, dropout: float) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = nn.AdaptiveAvgPool2d(cells)
        self.fc6 = nn.Linear(backbone.channels[-1] * cells * cells, width)
        self.fc7 = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        for layer in (self.fc6, self.fc7):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def forward(self, crops: Float[Tensor, "R 3 s s"]) -> Float[Tensor, "R D"]:
        """Features after the last ReLU."""
        x = self.pooling(self.backbone(crops)[-1]).flatten(1)
        x = self.dropout(F.relu(self.fc6(x)))
        return self.dropout(F.relu(self.fc7(x)))


class SDS(nn.Module):
    """Two towers, SVMs and regressors over proposed regions.

    Args:
        towers: for the box and for the region.
        things: class ids of the things, ascending.
        width: of each tower's features.
        crop_size: pixels.
        learns: see Learns.
        detects: see Detects.
        pastes: predict a class for each pixel, too.
        proposal_side: longest side in pixels of the image on which proposals are computed.
        proposals: at most so many per image.
        box_batch_size_per_image: regions that are trained on.
        foreground_fraction: largest fraction of positives among them.
        score_threshold: lowest score of a detection.
        max_detections: per image.
    """

    task = TASK
    traits = TRAITS
    svm_weight: Tensor
    svm_bias: Tensor
    feature_scale: Tensor
    has_svms: Tensor
    cell_weight: Tensor
    superpixel_weight: Tensor
    has_refiner: Tensor
    paste_threshold: Tensor

    def __init__(
        self,
        towers: tuple[Tower, Tower],
        *,
        things: tuple[int, ...],
        width: int,
        crop_size: int = 227,
        learns: Learns = "joint",
        detects: Detects = "regions",
        pastes: bool = False,
        proposal_side: int = 320,
        proposals: int = 2000,
        box_batch_size_per_image: int = 32,
        foreground_fraction: float = 0.25,
        score_threshold: float = 0.05,
        max_detections: int = 100,
    ) -> None:
        super().__init__()
        self.learns: Learns = learns
        self.box_tower, self.region_tower = towers
        self.normalize = Normalize(self.backbone.mean, self.backbone.std)
        self.things, self.crop_size = things, crop_size
        self.detects: Detects = detects
        self.pastes = pastes
        self.box_score = nn.Linear(width, len(things) + 1)
        self.region_score = nn.Linear(width, len(things) + 1)
        self.joint_score = nn.Linear(2 * width, len(things) + 1)
        self.proposal_side, self.proposals = proposal_side, proposals
        self.box_batch_size_per_image, self.foreground_fraction = box_batch_size_per_image, foreground_fraction
        self.thresholds = Thresholds(score_threshold, max_detections)
        self.register_buffer("svm_weight", torch.zeros(len(things), 2 * width))
        self.register_buffer("svm_bias", torch.zeros(len(things)))
        self.register_buffer("feature_scale", torch.ones(()))
        self.register_buffer("has_svms", torch.zeros(len(things), dtype=torch.bool))
        # the last column is the intercept
        self.register_buffer("cell_weight", torch.zeros(len(things), CELLS**2, 2 * width + CELLS**2 + 1))
        self.register_buffer("superpixel_weight", torch.zeros(len(things), 3))
        self.register_buffer("has_refiner", torch.zeros(len(things), dtype=torch.bool))
        self.register_buffer("paste_threshold", torch.zeros(()))
        unused = {
            "box": (self.region_tower, self.region_score, self.joint_score),
            "region": (self.box_tower, self.box_score, self.joint_score),
            "joint": (self.box_score, self.region_score),
        }
        for part in unused[learns]:
            part.requires_grad_(False)

    @property
    def backbone(self) -> Backbone:
        """The backbone of the one tower that is trained, or of the box tower; pretrained weights are loaded there."""
        return (self.region_tower if self.learns == "region" else self.box_tower).backbone

    def features(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """The deepest maps of both towers, as if the images were crops."""
        x = self.normalize(images)
        return self.box_tower.backbone(x)[-1], self.region_tower.backbone(x)[-1]

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        sizes: Int64[Tensor, "B 2"] | None = None,
        truth: tuple[Annotation, ...] | None = None,
        memory: Any = None,  # noqa: ARG002
        proposals: Sequence[Regions | None] | None = None,
    ) -> Output | TrainingOutput:
        """The detections; in training with ground truth the logits of sampled regions.

        Args:
            images: RGB in [0, 1].
            sizes: valid height and width of each.
            truth: of each, for training.
            memory: not used.
            proposals: the regions of each, at any size; None computes them here.
        """
        given = [None] * len(images) if proposals is None else proposals
        valid = [list(images.shape[2:])] * len(images) if sizes is None else sizes.tolist()
        normalized = self.normalize(images)
        parts = [image[None, :, :height, :width] for image, (height, width) in zip(normalized, valid, strict=True)]
        candidates = [
            self._candidates(image, size, regions) for image, size, regions in zip(images, valid, given, strict=True)
        ]
        if self.training and truth is not None:
            return self._learn(parts, candidates, training_instances(truth))
        found = [self._predict(image, regions) for image, regions in zip(parts, candidates, strict=True)]
        scores, channels, numbers, members = zip(*found, strict=True)
        return Output(
            scores=scores,
            channels=channels,
            regions=numbers,
            superpixels=tuple(regions.superpixels for regions in candidates),
            members=members,
            paste_above=self.paste_threshold.sigmoid() if self.pastes else None,
        )

    def class_rows(self) -> tuple[ClassRows, ...]:
        """See `contracts.System`."""
        layers = ("box_score", "region_score", "joint_score")
        tensors = ("svm_weight", "svm_bias", "has_svms", "cell_weight", "superpixel_weight", "has_refiner")
        return (
            *(ClassRows(name, self.things, first=1) for name in layers),
            *(ClassRows(name, self.things) for name in tensors),
        )

    def loss(self, output: Output | TrainingOutput, batch: Batch) -> dict[str, Term]:  # noqa: ARG002
        """Cross-entropy of the sampled regions. Raises DataError for an output of prediction."""
        output = training_output(output, TrainingOutput)
        total = F.cross_entropy(output.logits, output.labels, reduction="sum")
        return {"class": Term(total, torch.tensor(len(output.labels), device=total.device))}

    def decode(self, output: Output, sizes: Sizes, thresholds: Thresholds | None = None) -> list[Annotation]:
        """The regions at the original size of their image, highest score first."""
        annotations: list[Annotation] = []
        for index, (height, width) in enumerate(sizes.original):
            kept = (thresholds or self.thresholds).places(output.scores[index])
            members = output.members[index][kept.to(output.members[index].device)].bool().cpu()
            regions = Regions(output.superpixels[index], members).resized((height, width))
            scores, boxes = output.scores[index][kept].cpu().float(), regions.boxes()
            labels = class_ids_of(output.channels[index][kept].cpu(), self.things)
            # superpixels of a pixel or two may vanish where the original is smaller
            seen = (boxes[:, 2] > boxes[:, 0]).nonzero().flatten()
            places = boxes.long().tolist()
            ids = regions.superpixels.long()

            def crop(
                answer: int, regions: Regions = regions, ids: Tensor = ids, places: list[list[int]] = places
            ) -> Tensor:
                x1, y1, x2, y2 = places[answer]
                return regions.members[answer][ids[y1:y2, x1:x2]]

            instances = Instances(
                boxes=boxes[seen],
                labels=labels[seen],
                masks=Masks.from_crops(
                    [crop(answer) for answer in seen.tolist()],
                    [places[answer] for answer in seen.tolist()],
                    (height, width),
                ),
                scores=scores[seen],
            )
            semantic = None
            if output.paste_above is not None:
                semantic = torch.zeros(height, width, dtype=torch.uint8 if max(self.things) < 256 else torch.int32)
                order = paste_order(scores, output.regions[index][kept].cpu(), threshold=float(output.paste_above))
                for answer in order.tolist():
                    x1, y1, x2, y2 = places[answer]
                    semantic[y1:y2, x1:x2].masked_fill_(crop(answer), int(labels[answer]))
            annotations.append(Annotation(instances=instances, semantic=semantic))
        return annotations

    def region_features(
        self, image: Float[Tensor, "1 3 h w"], regions: Regions, *, towers: Learns = "joint"
    ) -> Float[Tensor, "R D"]:
        """Features of each region by both towers, box first, or by one.

        Args:
            image: normalised.
            regions: of it.
            towers: which ones run.
        """
        boxes = regions.boxes().to(image)
        parts = torch.arange(len(boxes)).split(CROPS_AT_ONCE) if len(boxes) else ()
        outputs = [
            self._tower_features(*crop_regions(image, regions, boxes, some, size=self.crop_size), towers=towers)
            for some in parts
        ]
        return torch.cat(outputs) if outputs else image.new_zeros(0, self._width(towers))

    def _width(self, towers: Learns) -> int:
        return self.joint_score.in_features // (1 if towers == "joint" else 2)

    def _tower_features(
        self, crops: Float[Tensor, "R 3 s s"], masks: Float[Tensor, "R s s"], *, towers: Learns
    ) -> Float[Tensor, "R D"]:
        asked: list[Tensor] = []
        if towers != "region":
            asked.append(self.box_tower(crops))
        if towers != "box":
            asked.append(self.region_tower(crops * masks[:, None]))
        return at_least_float32(torch.cat(asked, dim=1))

    def logits(self, features: Float[Tensor, "R D"]) -> Float[Tensor, "R K"]:
        """Logits of the classifier of the towers that are trained."""
        scores = {"box": self.box_score, "region": self.region_score, "joint": self.joint_score}
        return at_least_float32(scores[self.learns](features))

    def margins(self, features: Float[Tensor, "R D"]) -> Float[Tensor, "R T"]:
        """Margins of the SVMs; a class without an SVM has a very low one."""
        margins = (features * self.feature_scale) @ self.svm_weight.T + self.svm_bias
        return torch.where(self.has_svms, margins, -1e3)

    def refine(self, regions: Regions, which: int, features: Float[Tensor, " D"], thing: int) -> Bool[Tensor, " S"]:
        """The superpixels of a region after the refinement for a class (section 3.4).

        Args:
            regions: with the region.
            which: its index.
            features: of it.
            thing: index of the class among the things, from 0 on.
        """
        original = regions.members[which]
        if not self.has_refiner[thing]:
            return original
        box = padded_box(regions.boxes()[which])
        x = torch.cat(
            [features * self.feature_scale, coarse_mask(regions, which, box).to(features), features.new_ones(1)]
        )
        coarse = (self.cell_weight[thing] @ x).sigmoid().view(CELLS, CELLS)
        means, inside = superpixel_means(coarse.cpu(), box, regions)
        z = torch.stack([means, original.float(), torch.ones_like(means)], dim=1)
        chosen = ((z @ self.superpixel_weight[thing].cpu().to(z)).sigmoid() >= REFINEMENT_THRESHOLD) & inside
        return chosen if chosen.any() else original

    def _candidates(self, image: Float[Tensor, "3 H W"], size: Sequence[int], given: Regions | None) -> Regions:
        """The regions of one image at the size of its valid part."""
        valid = (int(size[0]), int(size[1]))
        if given is None:
            return self.propose(as_stored(image, valid)).resized(valid)
        return Regions(given.superpixels.cpu(), given.members.cpu()).resized(valid)

    def propose(self, picture: UInt8[Tensor, "3 h w"]) -> Regions:
        """Regions of merged superpixels, computed on an image of at most `proposal_side` pixels; fewer in training."""
        strategies = STRATEGIES[:1] if self.training else STRATEGIES
        return propose_at(picture, side=self.proposal_side, count=self.proposals, strategies=strategies)

    def _learn(
        self, images: Sequence[Float[Tensor, "1 3 h w"]], candidates: Sequence[Regions], truths: Sequence[Instances]
    ) -> TrainingOutput:
        crops: list[Tensor] = []
        masks: list[Tensor] = []
        labels: list[Tensor] = []
        for image, regions, truth in zip(images, candidates, truths, strict=True):
            regions, objects, crowds = with_truth(regions, truth)
            channels = channels_of(objects.labels.cpu(), self.things)
            chosen, found = draw_regions(
                regions,
                objects.boxes.cpu(),
                channels,
                crowds.cpu(),
                count=self.box_batch_size_per_image,
                foreground_fraction=self.foreground_fraction,
                by_box=self.learns == "box",
            )
            labels.append(found.to(image.device))
            if len(chosen):
                boxes = regions.boxes().to(image)
                crop, mask = crop_regions(image, regions, boxes, chosen, size=self.crop_size)
                crops.append(crop)
                masks.append(mask)
        if sum(map(len, labels)):
            # the crops of all images in one batch, for the batch norms' statistics
            features = self._tower_features(torch.cat(crops), torch.cat(masks), towers=self.learns)
        else:
            features = images[0].new_zeros(0, self._width(self.learns))
        return TrainingOutput(logits=self.logits(features), labels=torch.cat(labels))

    def _predict(
        self, image: Float[Tensor, "1 3 h w"], regions: Regions
    ) -> tuple[Float[Tensor, " N"], Int64[Tensor, " N"], Int64[Tensor, " N"], UInt8[Tensor, "N S"]]:
        """Scores, channels, indices of the proposals and superpixels of the detections in one image."""
        both = bool(self.has_svms.any())
        features = self.region_features(image, regions, towers="joint" if both else self.learns)
        scores = self.margins(features).sigmoid() if both else self.logits(features).softmax(dim=1)[:, 1:]
        scores = scores.detach()
        found: list[tuple[float, int, int]] = []
        for thing in range(len(self.things)):
            usable = (scores[:, thing] >= self.thresholds.score).nonzero().flatten()
            kept = usable[self.survivors(regions, usable, scores[usable, thing])]
            found += [(float(scores[one, thing]), thing, one) for one in kept.tolist()]
        found = sorted(found, key=lambda row: -row[0])[: self.thresholds.max_detections]
        refines = both and self.detects == "regions"
        members = [
            self.refine(regions, one, features[one], thing) if refines else regions.members[one]
            for _, thing, one in found
        ]
        rows = torch.tensor([one for _, _, one in found], dtype=torch.int64, device=scores.device)
        things = torch.tensor([thing for _, thing, _ in found], dtype=torch.int64, device=scores.device)
        stacked = torch.stack(members) if members else regions.members[:0]
        return scores[rows, things], things + 1, rows, stacked.to(torch.uint8)

    def survivors(self, regions: Regions, usable: Int64[Tensor, " U"], scores: Float[Tensor, " U"]) -> Tensor:
        """Indices of the regions that survive NMS within one class, highest score first."""
        if self.detects == "boxes":
            # torchvision suppresses above the threshold, the authors from it on
            return nms(regions.boxes().to(scores)[usable], scores, BOX_NMS_IOU - 1e-6)
        return suppress_shared(regions.members.to(usable.device)[usable], scores)


def with_truth(regions: Regions, truth: Instances) -> tuple[Regions, Instances, Float[Tensor, "C 4"]]:
    """Proposals cut along the instances, which are appended in order; the instances; the crowds' boxes.

    Args:
        regions: of an image.
        truth: with masks that cover at least that image.
    """
    height, width = regions.superpixels.shape
    objects = truth if truth.crowd is None else truth[~truth.crowd]
    assert objects.masks is not None
    masks = objects.masks
    dense = (masks.dense_one(index)[:height, :width] for index in range(len(objects)))
    return regions_of_masks(dense, (height, width), within=regions), objects, split_crowds(truth)[1]


@torch.no_grad()
def draw_regions(
    regions: Regions,
    objects: Float[Tensor, "T 4"],
    channels: Int64[Tensor, " T"],
    crowds: Float[Tensor, "C 4"],
    *,
    count: int,
    foreground_fraction: float,
    by_box: bool,
) -> tuple[Int64[Tensor, " S"], Int64[Tensor, " S"]]:
    """Sample regions to train on, and their channels, with torch's generator.

    Args:
        regions: the last ones are the instances, in order.
        objects: their boxes.
        channels: their classes.
        crowds: boxes in which no background is sampled.
        count: regions.
        foreground_fraction: largest fraction of positives.
        by_box: compare boxes, not regions.
    """
    total, boxes = len(objects), regions.boxes()
    best = torch.zeros(len(boxes))
    owners = torch.zeros(len(boxes), dtype=torch.int64)
    if total:
        overlaps = (
            pairwise_iou(boxes, objects.to(boxes))
            if by_box
            else region_overlaps(regions.members, regions.members[-total:], regions.areas())
        )
        best, owners = overlaps.max(dim=1)
    is_object = best >= FOREGROUND_IOU
    in_crowd = (
        (pairwise_coverage(crowds, boxes) >= 0.7).any(dim=0)
        if len(crowds)
        else torch.zeros(len(boxes), dtype=torch.bool)
    )
    foreground = draw_at_most(is_object.nonzero().flatten(), int(count * foreground_fraction))
    background = draw_at_most((~is_object & ~in_crowd).nonzero().flatten(), count - len(foreground))
    found = torch.cat([channels[owners[foreground]], torch.zeros(len(background), dtype=torch.int64)])
    return torch.cat([foreground, background]), found


def copy_box_tower(
    system: SDS,
    samples: AnnotatedImages,  # noqa: ARG001
    *,
    resize: ResizeRule,  # noqa: ARG001
) -> Iterator[SolverProgress]:
    """Initialise the region tower with the box tower's weights, as in the paper's network A."""
    system.region_tower.load_state_dict(system.box_tower.state_dict())
    yield SolverProgress("copy_box_tower", 1, 1)


def build(
    *,
    num_classes: int,
    thing_ids: Sequence[int] | None = None,
    backbone: str = "caffenet",
    width: int | None = None,
    crop_size: int | None = None,
    learns: Learns = "joint",
    detects: Detects = "regions",
    pastes: bool = False,
    proposal_side: int = 320,
    proposals: int = 2000,
    box_batch_size_per_image: int = 32,
    score_threshold: float = 0.05,
    max_detections: int = 100,
) -> SDS:
    """SDS with random weights, without SVMs and regressors.

    Args:
        num_classes: background included.
        thing_ids: class ids of the things; all but 0 if not given.
        backbone: of both towers: `caffenet` is the paper's; any other of `nn.backbones.build_backbone`.
        width: of each tower's features; 4,096 with caffenet, else 512, if not given.
        crop_size: pixels; 227 with caffenet, else 96, if not given.
        learns: `box`, `region` or `joint`: which towers are trained; each stage of the recipe sets it.
        detects: `regions`, or `boxes` for the paper's box detector.
        pastes: predict a class for each pixel, too; class 0 where no region lies.
        proposal_side: longest side in pixels of the image on which proposals are computed.
        proposals: at most so many per image.
        box_batch_size_per_image: regions that are trained on.
        score_threshold: lowest score of a detection.
        max_detections: per image.

    Raises:
        RecipeError: an unknown backbone, `learns` or `detects`.
    """
    if learns not in ("box", "region", "joint"):
        raise RecipeError(f"learns '{learns}': box, region or joint")
    if detects not in ("regions", "boxes"):
        raise RecipeError(f"detects '{detects}': regions or boxes")
    published = backbone == "caffenet"
    width = width or (4096 if published else 512)

    def tower() -> Tower:
        network = CaffeNetBackbone() if published else build_backbone(backbone, output_stride=32)
        return Tower(network, width=width, cells=6 if published else 1, dropout=0.5 if published else 0.0)

    return SDS(
        (tower(), tower()),
        things=things_of(num_classes, thing_ids),
        width=width,
        crop_size=crop_size or (227 if published else 96),
        learns=learns,
        detects=detects,
        pastes=pastes,
        proposal_side=proposal_side,
        proposals=proposals,
        box_batch_size_per_image=box_batch_size_per_image,
        score_threshold=score_threshold,
        max_detections=max_detections,
    )


VARIANTS = {
    "sds_caffenet": {"backbone": "caffenet"},
    "sds_caffenet_boxes": {"backbone": "caffenet", "detects": "boxes"},
    "sds_mobilenet_v2": {"backbone": "mobilenet_v2", "proposals": 300},
}


def _stage(learns: Learns, steps: int) -> Stage:
    return Stage(
        name=learns,
        steps=steps,
        batch_size=4,
        crop_size=320,
        optimizer=Optimizer(
            name="adamw", lr=1e-4, head_lr_multiplier=3.0, weight_decay=1e-2, norm_weight_decay=0.0, clip_norm=10.0
        ),
        augmentation=Augmentation(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05),
        poly_power=0.9,
        warmup_steps=50,
        freeze_batch_norm=True,
        arguments={"learns": learns},
    )


_PAPER_STAGE = {
    "steps": "100,000 at most",
    "batch_size": "128 windows of all images",
    "crop_size": "whole images",
    "optimizer.name": "sgd",
    "optimizer.lr": "0.001, a tenth every 20,000 steps",
    "optimizer.bias_lr_multiplier": "2",
    "optimizer.head_lr_multiplier": "10 (of the classifier)",
    "optimizer.head_bias_lr_multiplier": "20 (of the classifier)",
    "optimizer.weight_decay": "5e-4",
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


def _solver(name: str, solver: Callable[..., Iterator[SolverProgress]]) -> Stage:
    return replace(_stage("joint", 1), name=name, solver=solver.__name__)


RECIPE = Recipe(
    stages=(
        _stage("box", 1_000),
        _solver("copy", copy_box_tower),
        _stage("region", 1_000),
        _stage("joint", 1_000),
        _solver("svms", fit_svms),
        _solver("refiners", fit_refiners),
    ),
    input_size=320,
    paper={
        "input_side": "none: crops come from images as they are",
        **{f"{stage}.{name}": value for stage in ("box", "region", "joint") for name, value in _PAPER_STAGE.items()},
    },
)
"""The towers, then the SVMs and regressors on their features."""

RECIPES = {"sds_caffenet_boxes": replace(RECIPE, stages=RECIPE.stages[:-1])}
"""Of the variants: boxes are not refined."""

PUBLISHED: dict[str, dict[str, Recipe]] = {}
