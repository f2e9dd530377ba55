"""SDS: Hariharan, Arbeláez, Girshick, Malik, "Simultaneous Detection and Segmentation", ECCV 2014.

Class-agnostic regions, each a set of superpixels, are described by two towers: one sees the region's box, the other
the same crop with everything but the region at the mean colour (section 3.2). Linear SVMs on the joined features say
what a region shows (section 3.3); regions that share a superpixel with a better one of the class are suppressed; for
each class 10×10 logistic regressors guess where in the box the object is, and a last one says which superpixels belong
to it (section 3.4).

Learnt in several stages: the towers by gradients, one alone, then the other, which begins as a copy of it, then both
(the paper's B, then C: `learns`); then the SVMs and the regressors, which are solved exactly. Their solutions are
buffers of the module. Until there are SVMs, the towers' own classifier scores regions; until there are regressors,
regions stay as they are.

Differences from the paper and the authors' code:
- The proposals are not MCG's: superpixels merged by likeness (`ops.superpixels`), or `given_proposals`, which a caller
  sets before a call (`data.proposals` reads files). Other proposals change the AP.
- `caffenet` has the layers of the published network, with our mean and deviation in RGB. Other towers are backbones
  whose deepest map is averaged, with two hidden layers after it, of 512 channels; their crops have 96 pixels.
- Windows of one batch are drawn image by image, a quarter of them objects; the authors draw them from all images.
- The answer's scores are the logistic function of the SVMs' margins, which keeps their order.
- Regressors are fitted by L-BFGS, all cells of a class at once, with a penalty of our choice (`PENALTY`). Superpixels
  are cut along the objects in training, so that each is wholly an object's or not at all.
- A region without superpixels after the refinement keeps what it was.
- The box detector (SVMs without the latent pass, suppression at 0.3) and the pasting to class maps are not built.
- The recipe is one for small data on a small machine; the paper's numbers stand beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int32, Int64, UInt8
from torch import Tensor, nn

from pixelwise.contracts import Augmentation, Optimizer, Recipe, SolverProgress, Stage, Term
from pixelwise.errors import RecipeError
from pixelwise.losses.detection import objects_to_learn
from pixelwise.nn.backbones import Backbone, Normalize, build_backbone
from pixelwise.nn.rpn import split_crowds
from pixelwise.ops.boxes import pairwise_coverage, pairwise_iou
from pixelwise.ops.precision import at_least_float32
from pixelwise.ops.resize import long_side_size, resize_image
from pixelwise.ops.superpixels import (
    Regions,
    mean_in_superpixels,
    propose_regions,
    region_overlaps,
    regions_of_masks,
    superpixels_of,
    suppress_shared,
)
from pixelwise.ops.thing_channels import channels_of, class_ids_of, things_of
from pixelwise.types import Annotation, Batch, Instances, Masks, Sample

TASK = "instance"

CONTEXT = 16 / 227
"""Part of a crop on each side that lies outside the region's box (section 3.2; R-CNN)."""
FOREGROUND_IOU = 0.5
"""Of a region with an object's, or in the box tower's stage of their boxes."""
CROPS_AT_ONCE = 64

FEATURE_NORM = 20.0
"""Mean length that features are brought to before the SVMs."""
SVM_COST = 1e-3
SVM_POSITIVE_WEIGHT = 2.0
SVM_BIAS = 10.0
NEGATIVE_IOU = 0.2
"""Regions that overlap each object of a class by less are its negatives."""
MINE_ABOVE = -1.0001
EVICT_BELOW = -1.2
RETRAIN_AFTER = 2000
LATENT_IOU = 0.5
"""A positive may become a candidate that overlaps its object by more."""

CELLS = 10
"""Of the refinement's grid, along each side."""
REFINEMENT_PADDING = 16 / 195
"""By which a box is enlarged on each side before the refinement, in parts of its own side."""
REFINEMENT_IOU = 0.7
REFINEMENT_THRESHOLD = 0.5
PENALTY = 1e-3
"""Half of it times the squared weights is added to the regressors' mean loss."""

Learns = Literal["box", "region", "joint"]
"""Which tower changes in training, with a classifier of its own: one of them, or both with one classifier for both."""


class Output(NamedTuple):
    """In training with truth what the loss compares; otherwise what was found in each image, one entry for each.

    Attributes:
        logits: of the sampled regions of all images; channel 0 is no object.
        labels: their channels.
        scores: of each image's answers, in [0, 1], best first.
        channels: of their classes, from 1 on.
        superpixels: at the network's size without padding.
        members: 1 for the superpixels of each answer.
    """

    logits: Float[Tensor, "R K"] | None
    labels: Int64[Tensor, " R"] | None
    scores: tuple[Float[Tensor, " N"], ...] | None
    channels: tuple[Int64[Tensor, " N"], ...] | None
    superpixels: tuple[Int32[Tensor, "_h _w"], ...] | None
    members: tuple[UInt8[Tensor, "N S"], ...] | None


@runtime_checkable
class Samples(Protocol):
    """Images with their truth."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...


@runtime_checkable
class StoredProposals(Protocol):
    """Regions found before, as `data.proposals.ProposalFiles` reads them."""

    def regions(self, id: str, size: tuple[int, int]) -> Regions:
        """Those of the image of that id, and of that height and width."""
        ...


class CaffeNetBackbone(Backbone):
    """Krizhevsky's network as Caffe's reference model has it: pooling comes before the local normalisation.

    For crops of 227×227 pixels its last map has 6×6 cells.
    """

    def __init__(self) -> None:
        super().__init__()
        normalization = {"size": 5, "alpha": 1e-4, "beta": 0.75}
        self.layers = nn.Sequential(
            nn.Conv2d(3, 96, 11, stride=4),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.LocalResponseNorm(**normalization),
            nn.Conv2d(96, 256, 5, padding=2, groups=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.LocalResponseNorm(**normalization),
            nn.Conv2d(256, 384, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 384, 3, padding=1, groups=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1, groups=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, ceil_mode=True),
        )
        self.strides, self.channels = (32,), (256,)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B C h w"], ...]:
        """The map after the fifth convolution's pooling."""
        return (self.layers(images),)

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """All layers as one stage."""
        return (tuple(self.layers),)


class Tower(nn.Module):
    """From crops to feature vectors: a backbone, and two hidden layers.

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
        things: class ids of the objects, ascending.
        width: of each tower's features.
        crop_size: pixels.
        learns: see Learns.
        proposal_side: longest side in pixels of the image in which proposals are found.
        proposals: most of an image.
        rois_per_image: regions that are learnt from.
        foreground_fraction: of them that show objects, at most.
        score_threshold: of what is answered.
        max_detections: of an image.

    Attributes:
        given_proposals: the regions of each image of the next calls, at any size; None lets them be found.
    """

    task = TASK
    svm_weight: Tensor
    svm_bias: Tensor
    feature_scale: Tensor
    has_svms: Tensor
    cell_weight: Tensor
    superpixel_weight: Tensor
    has_refiner: Tensor

    def __init__(
        self,
        towers: tuple[Tower, Tower],
        *,
        things: tuple[int, ...],
        width: int,
        crop_size: int = 227,
        learns: Learns = "joint",
        proposal_side: int = 320,
        proposals: int = 2000,
        rois_per_image: int = 32,
        foreground_fraction: float = 0.25,
        score_threshold: float = 0.05,
        max_detections: int = 100,
    ) -> None:
        super().__init__()
        self.box_tower, self.region_tower = towers
        self.normalize = Normalize(self.backbone.mean, self.backbone.std)
        self.things, self.crop_size = things, crop_size
        self.learns: Learns = learns
        self.box_score = nn.Linear(width, len(things) + 1)
        self.region_score = nn.Linear(width, len(things) + 1)
        self.joint_score = nn.Linear(2 * width, len(things) + 1)
        self.proposal_side, self.proposals = proposal_side, proposals
        self.rois_per_image, self.foreground_fraction = rois_per_image, foreground_fraction
        self.score_threshold, self.max_detections = score_threshold, max_detections
        self.given_proposals: tuple[Regions, ...] | None = None
        self.register_buffer("svm_weight", torch.zeros(len(things), 2 * width))
        self.register_buffer("svm_bias", torch.zeros(len(things)))
        self.register_buffer("feature_scale", torch.ones(()))
        self.register_buffer("has_svms", torch.zeros(len(things), dtype=torch.bool))
        # the last column is the constant's
        self.register_buffer("cell_weight", torch.zeros(len(things), CELLS**2, 2 * width + CELLS**2 + 1))
        self.register_buffer("superpixel_weight", torch.zeros(len(things), 3))
        self.register_buffer("has_refiner", torch.zeros(len(things), dtype=torch.bool))
        unused = {
            "box": (self.region_tower, self.region_score, self.joint_score),
            "region": (self.box_tower, self.box_score, self.joint_score),
            "joint": (self.box_score, self.region_score),
        }
        for part in unused[learns]:
            part.requires_grad_(False)

    @property
    def backbone(self) -> Backbone:
        """That of the tower that learns alone, or of the box tower; pretrained weights go there."""
        return (self.region_tower if getattr(self, "learns", "") == "region" else self.box_tower).backbone

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
    ) -> Output:
        """Scores of sampled regions where there is truth, otherwise the answers."""
        valid = [list(images.shape[2:])] * len(images) if sizes is None else sizes.tolist()
        normalized = self.normalize(images)
        parts = [image[None, :, :height, :width] for image, (height, width) in zip(normalized, valid, strict=True)]
        candidates = [
            self._candidates(image, size, index) for index, (image, size) in enumerate(zip(images, valid, strict=True))
        ]
        if self.training and truth is not None:
            return self._learn(parts, candidates, objects_to_learn(truth))
        found = [self._answer(image, regions) for image, regions in zip(parts, candidates, strict=True)]
        scores, channels, members = zip(*found, strict=True)
        return Output(
            logits=None,
            labels=None,
            scores=scores,
            channels=channels,
            superpixels=tuple(regions.superpixels for regions in candidates),
            members=members,
        )

    def loss(self, output: Output, batch: Batch) -> dict[str, Term]:  # noqa: ARG002
        """Cross-entropy of the sampled regions."""
        if output.logits is None or output.labels is None:
            raise ValueError("loss needs what forward gives in training with truth")
        total = F.cross_entropy(output.logits, output.labels, reduction="sum")
        return {"class": Term(total, torch.tensor(len(output.labels), device=total.device))}

    def decode(self, output: Output, batch: Batch) -> list[Annotation]:
        """The regions at the original size of their image, best first."""
        if output.scores is None or output.channels is None or output.superpixels is None or output.members is None:
            raise ValueError("decode needs what forward gives without truth")
        annotations: list[Annotation] = []
        for index, (height, width) in enumerate(batch.original_sizes.tolist()):
            regions = Regions(output.superpixels[index], output.members[index].bool().cpu()).resized((height, width))
            boxes = regions.boxes()
            # superpixels of a pixel or two may vanish in a smaller original
            seen = (boxes[:, 2] > boxes[:, 0]).nonzero().flatten()
            places = boxes[seen].long().tolist()
            ids = regions.superpixels.long()
            crops = [
                regions.members[one][ids[y1:y2, x1:x2]]
                for one, (x1, y1, x2, y2) in zip(seen.tolist(), places, strict=True)
            ]
            instances = Instances(
                boxes=boxes[seen],
                labels=class_ids_of(output.channels[index].cpu()[seen], self.things),
                masks=Masks.from_crops(crops, places, (height, width)),
                scores=output.scores[index].cpu()[seen].float(),
            )
            annotations.append(Annotation(instances=instances))
        return annotations

    def region_features(
        self, image: Float[Tensor, "1 3 h w"], regions: Regions, *, towers: Learns = "joint"
    ) -> Float[Tensor, "R D"]:
        """What the towers say of each region; of both, box first, or of one.

        Args:
            image: normalised.
            regions: of it.
            towers: which are asked.
        """
        boxes = regions.boxes().to(image)
        outputs: list[Tensor] = []
        for some in torch.arange(len(boxes)).split(CROPS_AT_ONCE) if len(boxes) else ():
            crops, masks = crop_regions(image, regions, boxes, some, size=self.crop_size)
            asked: list[Tensor] = []
            if towers != "region":
                asked.append(self.box_tower(crops))
            if towers != "box":
                asked.append(self.region_tower(crops * masks[:, None]))
            outputs.append(at_least_float32(torch.cat(asked, dim=1)))
        if not outputs:
            width = self.joint_score.in_features // (2 if towers != "joint" else 1)
            return image.new_zeros(0, width)
        return torch.cat(outputs)

    def logits(self, features: Float[Tensor, "R D"]) -> Float[Tensor, "R K"]:
        """Of the classifier of the towers that learn."""
        scores = {"box": self.box_score, "region": self.region_score, "joint": self.joint_score}
        return at_least_float32(scores[self.learns](features))

    def margins(self, features: Float[Tensor, "R D"]) -> Float[Tensor, "R T"]:
        """Of the SVMs; those without one answer as those that are sure there is nothing."""
        margins = (features * self.feature_scale) @ self.svm_weight.T + self.svm_bias
        return torch.where(self.has_svms, margins, -1e3)

    def refine(self, regions: Regions, which: int, features: Float[Tensor, " D"], thing: int) -> Bool[Tensor, " S"]:
        """The superpixels of a region after the refinement for a class (section 3.4).

        Args:
            regions: with the region.
            which: its number.
            features: of it.
            thing: number of the class, from 0 on.
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

    def _candidates(self, image: Float[Tensor, "3 H W"], size: Sequence[int], index: int) -> Regions:
        """The regions of one image at the size of its valid part."""
        valid = (int(size[0]), int(size[1]))
        if self.given_proposals is not None:
            return self.given_proposals[index].resized(valid)
        picture = (image[:, : valid[0], : valid[1]].detach().cpu() * 255).round().clamp(0, 255).to(torch.uint8)
        return self.propose(picture.contiguous()).resized(valid)

    def propose(self, picture: UInt8[Tensor, "3 h w"]) -> Regions:
        """Regions of merged superpixels, found in an image of at most `proposal_side` pixels."""
        small = long_side_size((picture.shape[1], picture.shape[2]), min(self.proposal_side, max(picture.shape[1:])))
        resized = resize_image(picture, small)
        # the published 50 pixels belong to images of about 500 pixels
        superpixels = superpixels_of(resized, smallest=max(10, round(50 * (max(small) / 500) ** 2)))
        return propose_regions(resized, superpixels=superpixels, count=self.proposals)

    def _learn(
        self, images: Sequence[Float[Tensor, "1 3 h w"]], candidates: Sequence[Regions], truths: Sequence[Instances]
    ) -> Output:
        features: list[Tensor] = []
        labels: list[Tensor] = []
        for image, regions, truth in zip(images, candidates, truths, strict=True):
            regions, objects, crowds = with_truth(regions, truth)
            channels = channels_of(objects.labels.cpu(), self.things)
            chosen, found = draw_regions(
                regions,
                objects.boxes.cpu(),
                channels,
                crowds.cpu(),
                count=self.rois_per_image,
                foreground_fraction=self.foreground_fraction,
                by_box=self.learns == "box",
            )
            sampled = regions._replace(members=regions.members[chosen])
            features.append(self.region_features(image, sampled, towers=self.learns))
            labels.append(found.to(image.device))
        return Output(self.logits(torch.cat(features)), torch.cat(labels), None, None, None, None)

    def _answer(
        self, image: Float[Tensor, "1 3 h w"], regions: Regions
    ) -> tuple[Float[Tensor, " N"], Int64[Tensor, " N"], UInt8[Tensor, "N S"]]:
        """Scores, channels and superpixels of what one image shows."""
        both = bool(self.has_svms.any())
        features = self.region_features(image, regions, towers="joint" if both else self.learns)
        scores = self.margins(features).sigmoid() if both else self.logits(features).softmax(dim=1)[:, 1:]
        scores = scores.detach()
        found: list[tuple[float, int, int]] = []
        for thing in range(len(self.things)):
            usable = (scores[:, thing] >= self.score_threshold).nonzero().flatten()
            kept = usable[suppress_shared(regions.members.to(usable.device)[usable], scores[usable, thing])]
            found += [(float(scores[one, thing]), thing, one) for one in kept.tolist()]
        found = sorted(found, key=lambda row: -row[0])[: self.max_detections]
        members = [
            self.refine(regions, one, features[one], thing) if both else regions.members[one] for _, thing, one in found
        ]
        rows = torch.tensor([one for _, _, one in found], dtype=torch.int64, device=scores.device)
        things = torch.tensor([thing for _, thing, _ in found], dtype=torch.int64, device=scores.device)
        stacked = torch.stack(members) if members else regions.members[:0]
        return scores[rows, things], things + 1, stacked.to(torch.uint8)


def crop_regions(
    image: Float[Tensor, "1 3 h w"],
    regions: Regions,
    boxes: Float[Tensor, "R 4"],
    which: Int64[Tensor, " M"],
    *,
    size: int,
) -> tuple[Float[Tensor, "M 3 s s"], Float[Tensor, "M s s"]]:
    """The crops of regions, stretched to a square, and which of their pixels are the region's.

    Each box is enlarged so that a border of CONTEXT lies around it. The picture is read bilinearly, the mask at the
    nearest pixel; both are zero outside the image, which in a normalised image is the mean colour.
    """
    height, width = image.shape[2:]
    x1, y1, x2, y2 = boxes[which].unbind(dim=1)
    # the enlarged box: its inner 1 - 2 · CONTEXT is the region's
    margin_x = (x2 - x1) * (CONTEXT / (1 - 2 * CONTEXT))
    margin_y = (y2 - y1) * (CONTEXT / (1 - 2 * CONTEXT))
    steps = (torch.arange(size, device=boxes.device, dtype=boxes.dtype) + 0.5) / size
    x = (x1 - margin_x)[:, None] + (x2 - x1 + 2 * margin_x)[:, None] * steps
    y = (y1 - margin_y)[:, None] + (y2 - y1 + 2 * margin_y)[:, None] * steps
    inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
    count = len(which)
    grid = torch.stack(
        [
            (2 * x / width - 1)[:, None, :].expand(count, size, size),
            (2 * y / height - 1)[:, :, None].expand(count, size, size),
        ],
        dim=-1,
    )
    grid = grid.reshape(1, count * size, size, 2)
    read = F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)
    crops = read.view(3, count, size, size).transpose(0, 1) * inside[:, None]
    rows, columns = y.long().clamp(0, height - 1).cpu(), x.long().clamp(0, width - 1).cpu()
    ids = regions.superpixels.long()[rows[:, :, None], columns[:, None, :]]
    masks = regions.members[which.cpu()].gather(1, ids.flatten(1)).view_as(ids)
    return crops, masks.to(crops) * inside


def with_truth(regions: Regions, truth: Instances) -> tuple[Regions, Instances, Float[Tensor, "C 4"]]:
    """Proposals cut along the objects, which are appended in order; the objects; the crowds' boxes.

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
    """Regions to learn from and their channels, drawn with torch's generator.

    Args:
        regions: the last ones are the objects', in order.
        objects: their boxes.
        channels: their classes.
        crowds: boxes in which background is not drawn.
        count: regions.
        foreground_fraction: of the count, at most.
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
    foreground = _drawn(is_object, int(count * foreground_fraction))
    background = _drawn(~is_object & ~in_crowd, count - len(foreground))
    found = torch.cat([channels[owners[foreground]], torch.zeros(len(background), dtype=torch.int64)])
    return torch.cat([foreground, background]), found


# ---- what is solved, not learnt step by step


class Described(NamedTuple):
    """One training image for the solvers.

    Attributes:
        regions: proposals, then the objects in order.
        features: of each region.
        objects: the last ones' channels.
        overlaps: of each region with each object.
    """

    regions: Regions
    features: Float[Tensor, "R D"]
    objects: Int64[Tensor, " T"]
    overlaps: Float[Tensor, "R T"]


def copy_box_tower(
    system: SDS,
    samples: Samples,  # noqa: ARG001
    *,
    input_size: int,  # noqa: ARG001
    proposals: StoredProposals | None = None,  # noqa: ARG001
) -> Iterator[SolverProgress]:
    """Let the region tower begin where the box tower stands, as the paper's network A."""
    system.region_tower.load_state_dict(system.box_tower.state_dict())
    yield SolverProgress("copy_box_tower", 1, 1)


def fit_svms(
    system: SDS, samples: Samples, *, input_size: int, proposals: StoredProposals | None = None
) -> Iterator[SolverProgress]:
    """Fit one linear SVM for each class on the joined features, with hard negatives and one latent pass.

    Positives are the objects' own regions; after a first round over the images each becomes the candidate of the
    largest margin that overlaps it by more than LATENT_IOU, and a second round follows.

    Args:
        system: whose buffers are set.
        samples: images with object masks.
        input_size: long side in pixels at which the network looks.
        proposals: of the images; the system finds its own if not given.

    Raises:
        DataError: an image has no object masks, or no stored proposals.
    """
    things = len(system.things)
    rounds = 2
    lengths: list[float] = []
    for index in range(len(samples)):
        lengths += (
            describe(system, samples[index], input_size=input_size, proposals=proposals).features.norm(dim=1).tolist()
        )
        yield SolverProgress("fit_svms", index + 1, (rounds + 1) * len(samples))
    scale = FEATURE_NORM / max(float(np.mean(lengths)) if lengths else 1.0, 1e-12)
    system.feature_scale.fill_(scale)
    for round_number in range(1, rounds + 1):
        positives: list[list[np.ndarray]] = [[] for _ in range(things)]
        negatives: list[list[np.ndarray]] = [[] for _ in range(things)]
        added = [0] * things
        latent = round_number > 1
        for index in range(len(samples)):
            image = describe(system, samples[index], input_size=input_size, proposals=proposals)
            margins = system.margins(image.features)
            scaled = (image.features * scale).cpu().double().numpy()
            first = len(scaled) - len(image.objects)
            for thing in range(things):
                mine = (image.objects == thing + 1).nonzero().flatten().tolist()
                for one in mine:
                    chosen = first + one
                    if latent:
                        near = (image.overlaps[:, one] > LATENT_IOU).nonzero().flatten()
                        chosen = int(near[margins[near, thing].argmax()])
                    positives[thing].append(scaled[chosen][None])
                far = torch.ones(len(scaled), dtype=torch.bool)
                if mine:
                    far = image.overlaps[:, mine].amax(dim=1) < NEGATIVE_IOU
                far[first:] = image.objects != thing + 1  # objects of other classes, however they overlap
                hard = far.cpu()
                if system.has_svms[thing]:
                    hard = hard & (margins[:, thing].cpu() >= MINE_ABOVE)
                negatives[thing].append(scaled[hard.numpy()])
                added[thing] += int(hard.sum())
            for thing in range(things):
                # without a machine all negatives count as hard, so the first one is made early
                if positives[thing] and added[thing] >= RETRAIN_AFTER:
                    negatives[thing] = [_fit_svm(system, thing, positives[thing], negatives[thing])]
                    added[thing] = 0
            yield SolverProgress("fit_svms", round_number * len(samples) + index + 1, (rounds + 1) * len(samples))
        for thing in range(things):
            if positives[thing] and sum(map(len, negatives[thing])):
                _fit_svm(system, thing, positives[thing], negatives[thing])


def _fit_svm(system: SDS, thing: int, positives: Sequence[np.ndarray], negatives: Sequence[np.ndarray]) -> np.ndarray:
    """Fit one class; returns the negatives that are worth keeping."""
    from sklearn.svm import LinearSVC

    wrong = np.concatenate(list(negatives))
    x = np.concatenate([*positives, wrong])
    y = np.concatenate([np.ones(len(x) - len(wrong)), -np.ones(len(wrong))])
    machine: Any = LinearSVC(
        loss="hinge",
        C=SVM_COST,
        class_weight={1: SVM_POSITIVE_WEIGHT},
        intercept_scaling=SVM_BIAS,  # pyright: ignore[reportArgumentType]
        dual=True,  # pyright: ignore[reportArgumentType]
        random_state=0,
        max_iter=10_000,
    )
    machine.fit(x, y)
    system.svm_weight[thing] = torch.from_numpy(machine.coef_[0]).to(system.svm_weight)
    system.svm_bias[thing] = float(machine.intercept_[0])
    system.has_svms[thing] = True
    return wrong[machine.decision_function(wrong) > EVICT_BELOW]


def fit_refiners(
    system: SDS, samples: Samples, *, input_size: int, proposals: StoredProposals | None = None
) -> Iterator[SolverProgress]:
    """Fit the regressors of each class: where in the box the object is, then which superpixels are its own.

    Learnt from the regions that overlap an object of the class by REFINEMENT_IOU; a class without them has none.

    Args:
        system: with SVMs; whose buffers are set.
        samples: images with object masks.
        input_size: long side in pixels at which the network looks.
        proposals: of the images; the system finds its own if not given.

    Raises:
        DataError: an image has no object masks, or no stored proposals.
    """
    things = len(system.things)
    total = len(samples) + 2 * things
    rows: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(things)]
    places: list[list[tuple[Regions, int, int]]] = [[] for _ in range(things)]
    for index in range(len(samples)):
        image = describe(system, samples[index], input_size=input_size, proposals=proposals)
        first = len(image.features) - len(image.objects)
        boxes = image.regions.boxes()
        for region in range(len(image.features)):
            for one in (image.overlaps[region] >= REFINEMENT_IOU).nonzero().flatten().tolist():
                thing = int(image.objects[one]) - 1
                box = padded_box(boxes[region])
                x = torch.cat(
                    [
                        (image.features[region] * system.feature_scale).cpu(),
                        coarse_mask(image.regions, region, box),
                        torch.ones(1),
                    ]
                )
                rows[thing].append((x, coarse_mask(image.regions, first + one, box)))
                places[thing].append((image.regions, region, first + one))
        yield SolverProgress("fit_refiners", index + 1, total)
    for thing in range(things):
        if rows[thing]:
            x = torch.stack([row for row, _ in rows[thing]]).double()
            y = torch.stack([target for _, target in rows[thing]]).double()
            weight = fit_logistic(x, y)
            system.cell_weight[thing] = weight.to(system.cell_weight)
            inputs: list[Tensor] = []
            targets: list[Tensor] = []
            for (regions, region, truth), row in zip(places[thing], x, strict=True):
                coarse = (weight @ row).sigmoid().view(CELLS, CELLS).float()
                means, inside = superpixel_means(coarse, padded_box(regions.boxes()[region]), regions)
                z = torch.stack([means, regions.members[region].float(), torch.ones_like(means)], dim=1)
                inputs.append(z[inside])
                targets.append(regions.members[truth][inside].float())
            solved = fit_logistic(torch.cat(inputs).double(), torch.cat(targets).double()[:, None])
            system.superpixel_weight[thing] = solved[0].to(system.superpixel_weight)
            system.has_refiner[thing] = True
        yield SolverProgress("fit_refiners", len(samples) + 2 * (thing + 1), total)


@torch.no_grad()
def describe(system: SDS, sample: Sample, *, input_size: int, proposals: StoredProposals | None = None) -> Described:
    """The regions of a training image and what the towers say of them."""
    (truth,) = objects_to_learn([sample.truth])
    objects = truth if truth.crowd is None else truth[~truth.crowd]
    whole_size = (sample.image.shape[1], sample.image.shape[2])
    size = long_side_size(whole_size, input_size)
    picture = resize_image(sample.image, size)
    regions = system.propose(picture) if proposals is None else proposals.regions(sample.id, whole_size)
    regions = regions.resized(size)
    whole = torch.tensor([[0.0, 0.0, sample.image.shape[2], sample.image.shape[1]]]).expand(len(objects), 4)
    assert objects.masks is not None
    dense = (objects.masks[[index]].sample(whole[:1], size)[0] >= 0.5 for index in range(len(objects)))
    regions = regions_of_masks(dense, size, within=regions)
    system.eval()
    parameter = next(system.parameters())
    image = system.normalize(picture.to(parameter.device).to(parameter.dtype).div(255)[None])
    members = regions.members[len(regions.members) - len(objects) :]
    return Described(
        regions=regions,
        features=system.region_features(image, regions),
        objects=channels_of(objects.labels, system.things),
        overlaps=region_overlaps(regions.members, members, regions.areas()),
    )


def padded_box(box: Float[Tensor, " 4"]) -> Float[Tensor, " 4"]:
    """The box that the refinement looks at."""
    x1, y1, x2, y2 = box.unbind()
    dx, dy = (x2 - x1) * REFINEMENT_PADDING, (y2 - y1) * REFINEMENT_PADDING
    return torch.stack([x1 - dx, y1 - dy, x2 + dx, y2 + dy])


def coarse_mask(regions: Regions, which: int, box: Float[Tensor, " 4"]) -> Float[Tensor, " cells"]:
    """0 or 1 for each of 10×10 cells of a box: whether the pixel at its centre is the region's."""
    height, width = regions.superpixels.shape
    x1, y1, x2, y2 = box.tolist()
    steps = (torch.arange(CELLS) + 0.5) / CELLS
    x, y = (x1 + (x2 - x1) * steps).floor().long(), (y1 + (y2 - y1) * steps).floor().long()
    inside = ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))[None, :]
    ids = regions.superpixels[y.clamp(0, height - 1)][:, x.clamp(0, width - 1)].long()
    return (regions.members[which][ids] & inside).float().flatten()


def superpixel_means(
    coarse: Float[Tensor, "10 10"], box: Float[Tensor, " 4"], regions: Regions
) -> tuple[Float[Tensor, " S"], Bool[Tensor, " S"]]:
    """Mean over each superpixel of a 10×10 map that fills a box, zero outside; which superpixels touch the box."""
    height, width = regions.superpixels.shape
    x1, y1, x2, y2 = box.tolist()
    rows = ((torch.arange(height) + 0.5 - y1) * CELLS / max(y2 - y1, 1e-6)).floor().long()
    columns = ((torch.arange(width) + 0.5 - x1) * CELLS / max(x2 - x1, 1e-6)).floor().long()
    is_inside = ((rows >= 0) & (rows < CELLS))[:, None] & ((columns >= 0) & (columns < CELLS))[None, :]
    pasted = coarse[rows.clamp(0, CELLS - 1)][:, columns.clamp(0, CELLS - 1)] * is_inside
    count = regions.members.shape[1]
    means = mean_in_superpixels(pasted, regions.superpixels, count)
    return means, mean_in_superpixels(is_inside.float(), regions.superpixels, count) > 0


def fit_logistic(x: Float[Tensor, "N D"], y: Float[Tensor, "N K"], *, penalty: float = PENALTY) -> Float[Tensor, "K D"]:
    """The weights of K logistic regressions that minimise mean log-loss plus half the penalty times squared weights.

    Args:
        x: the last column is the constant, whose weight is not penalised.
        y: 0 or 1.
        penalty: of the squared weights.
    """
    weight = torch.zeros(y.shape[1], x.shape[1], dtype=x.dtype, requires_grad=True)
    solver = torch.optim.LBFGS([weight], max_iter=200, tolerance_grad=1e-5, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        loss = F.binary_cross_entropy_with_logits(x @ weight.T, y, reduction="sum") / len(x)
        # the constant's weight keeps a thousandth of it, so that cells which are always one have an answer
        loss = loss + 0.5 * penalty * (weight[:, :-1].square().sum() + 1e-3 * weight[:, -1].square().sum())
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(closure)  # pyright: ignore[reportArgumentType]
    return weight.detach()


def _drawn(eligible: Bool[Tensor, " N"], count: int) -> Int64[Tensor, " M"]:
    places = eligible.nonzero().flatten()
    return places[torch.randperm(len(places))[:count]]


def build(
    *,
    num_classes: int,
    thing_ids: Sequence[int] | None = None,
    backbone: str = "caffenet",
    width: int | None = None,
    crop_size: int | None = None,
    learns: Learns = "joint",
    proposal_side: int = 320,
    proposals: int = 2000,
    rois_per_image: int = 32,
    score_threshold: float = 0.05,
    max_detections: int = 100,
) -> SDS:
    """SDS with random weights, without SVMs and regressors.

    Args:
        num_classes: background included.
        thing_ids: class ids of the objects; all but 0 if not given.
        backbone: of both towers: `caffenet` is the paper's; any other of `nn.backbones.build_backbone`.
        width: of each tower's features; 4,096 with caffenet, else 512, if not given.
        crop_size: pixels; 227 with caffenet, else 96, if not given.
        learns: `box`, `region` or `joint`: which towers learn; a stage of the recipe has it as argument.
        proposal_side: longest side in pixels of the image in which proposals are found.
        proposals: most of an image.
        rois_per_image: regions that are learnt from.
        score_threshold: of what is answered.
        max_detections: of an image.

    Raises:
        RecipeError: an unknown backbone, or a tower that does not exist.
    """
    if learns not in ("box", "region", "joint"):
        raise RecipeError(f"learns '{learns}': box, region or joint")
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
        proposal_side=proposal_side,
        proposals=proposals,
        rois_per_image=rois_per_image,
        score_threshold=score_threshold,
        max_detections=max_detections,
    )


VARIANTS = {
    "sds_caffenet": {"backbone": "caffenet"},
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
    "optimizer.head_lr_multiplier": "10 (of the classifier; 20 of its bias)",
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


def _solver(name: str, function: str) -> Stage:
    return replace(_stage("joint", 1), name=name, solver=function)


RECIPE = Recipe(
    stages=(
        _stage("box", 1_000),
        _solver("copy", "copy_box_tower"),
        _stage("region", 1_000),
        _stage("joint", 1_000),
        _solver("svms", "fit_svms"),
        _solver("refiners", "fit_refiners"),
    ),
    input_size=320,
    paper={
        "input_size": "none: crops come from images as they are",
        **{f"{stage}.{name}": value for stage in ("box", "region", "joint") for name, value in _PAPER_STAGE.items()},
    },
)
"""The towers, then what is solved exactly on their features."""
