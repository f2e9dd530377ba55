"""VPSNet: Kim, Woo, Lee, Kweon, "Video Panoptic Segmentation", CVPR 2020.

UPSNet on the frames of a clip, with two parts that use the frame before (section 4.2). "Fuse" gathers the pyramid of
each frame into one map, warps the reference's to the target by optical flow, which a small network refines, joins both
by attention over frames and positions, and adds the result to every level of the target. "Track" embeds each instance
as a vector; its products with those of the instances tracked so far, with IoU and class, decide its identity. The state
of a clip is a value, `Memory`, that `forward` takes and returns with each frame.

Differences from the paper:
- The conventions of coordinates, the losses' counts and the size at which segments are computed are those of
  `models.upsnet`.
- As in the public code there is no channel for unknown pixels, and the semantic head has three deformable layers, each
  with group norm; the paper has UPSNet's.
- The flow is that of `nn.flow`, DIS by default; the paper's is FlowNet2. Train the layers of "Fuse" with the flow that
  prediction uses.
- Warping samples each cell exactly at its position plus the flow. The public code makes its grid for aligned corners
  but samples it by torch's default, which has changed since: then a flow of zero is not the identity.
- Proposals whose instance has no annotated identity are not counted in the loss of "Track"; in Cityscapes-VPS all have
  one. Otherwise it is that of the public code: the mean over the positive proposals, times 0.5.
- A track never changes its class: a detection that is matched to a track of another class gets a new one. In the public
  code it keeps the number and overwrites the track's features and box, though not its class; segments are identified
  there by class and number.
- The public code remembers all tracks of a clip, here their number is bounded: those not detected for longest are
  forgotten. It remembers their features, here their vectors, which is the same.
- The recipe is for small data sets on a small machine; the paper's numbers stand beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from pixelwise.contracts import Augmentation, Optimizer, Recipe, Sizes, Stage, Term, Thresholds, Traits, flat_arguments
from pixelwise.errors import DataError, RecipeError
from pixelwise.losses.detection import training_instances, training_output
from pixelwise.models import mask_rcnn, upsnet
from pixelwise.nn.convolution import convolution
from pixelwise.nn.flow import build_flow
from pixelwise.nn.tracker import MATCH_WEIGHTS, UNKNOWN, TrackHead, Tracks, match_logits, match_targets, track
from pixelwise.ops.correlation import correlate
from pixelwise.ops.precision import at_least_float32
from pixelwise.ops.warp import warp
from pixelwise.types import Annotation, Batch, Instances

TASK = "panoptic"
TRAITS = Traits(uses_memory=True, gives_identities=True, clip_frames=2)

DETECTOR = replace(upsnet.DETECTOR, min_pos_iou=0.3)
"""UPSNet's, with mmdetection's matching of anchors."""

SLOPE = 0.1
"""Slope of the leaky ReLUs below zero."""


class Memory(NamedTuple):
    """The state of one clip.

    Attributes:
        tracks: so far, see `nn.tracker`; without the track head none is remembered.
        image: the last frame, padded, RGB in [0, 1]; empty without "Fuse".
        gathered: its gathered pyramid, before fusion.
    """

    tracks: Tracks
    image: Float[Tensor, "1 3 H W"]
    gathered: Float[Tensor, "1 C h w"]


class TrainingOutput(NamedTuple):
    """Inputs of the losses, of the target frames.

    Attributes:
        segments: of UPSNet.
        match_logits: of the positive proposals of each target: first for a new track, then for each of the reference's
            instances; none without the track head.
        match_targets: the right column, or UNKNOWN.
    """

    segments: upsnet.TrainingOutput
    match_logits: tuple[Float[Tensor, "_ _"], ...]
    match_targets: tuple[Int64[Tensor, " _"], ...]


class Output(NamedTuple):
    """The detections in each frame.

    Attributes:
        segments: of UPSNet.
        track_ids: of the detections.
        memory: for the next frame; None for several images.
    """

    segments: upsnet.Output
    track_ids: tuple[Int64[Tensor, " _"], ...]
    memory: Memory | None


class FlowRefinement(nn.Module):
    """Predicts a correction of the flow from the correlation of target and warped reference around each position.

    Args:
        channels: of both maps.
        radius: of the neighbourhood, in cells.
    """

    def __init__(self, channels: int, *, radius: int = 4) -> None:
        super().__init__()
        self.radius = radius
        widths = (channels + (2 * radius + 1) ** 2 + 2, 64, 64, 32)
        layers: list[nn.Module] = []
        for width, out in pairwise(widths):
            layers += [nn.Conv2d(width, out, 3, padding=1), nn.LeakyReLU(SLOPE, inplace=True)]
        self.convolutions = nn.Sequential(*layers, nn.Conv2d(widths[-1], 2, 3, padding=1))

    def forward(
        self, target: Float[Tensor, "B C h w"], warped: Float[Tensor, "B C h w"], flow: Float[Tensor, "B 2 h w"]
    ) -> Float[Tensor, "B 2 h w"]:
        """The correction for each position of the target, in cells."""
        alike = correlate(target, warped, radius=self.radius)
        return at_least_float32(self.convolutions(torch.cat([target, alike, flow], dim=1)))


class SpaceTimeAttention(nn.Module):
    """Joins the maps of frames: each frame is weighted, at each position, by its similarity to the target, and the
    positions of the joint map are weighted by their neighbourhood.

    Source: the public code, after Wang et al., "EDVR", CVPR workshops 2019, section 3.3 (temporal and spatial
    attention), with one level of the latter's pyramid.

    Args:
        channels: of each map.
        frames: number of maps, the target's first.
    """

    def __init__(self, channels: int, *, frames: int = 2) -> None:
        super().__init__()
        self.target_embedding = nn.Conv2d(channels, channels, 3, padding=1)
        self.embedding = nn.Conv2d(channels, channels, 3, padding=1)
        self.fusion = nn.Conv2d(frames * channels, channels, 1)
        self.joint = nn.Conv2d(frames * channels, channels, 1)
        self.pooled = nn.Conv2d(2 * channels, channels, 1)
        self.context = nn.Conv2d(channels, channels, 3, padding=1)
        self.factor = nn.Conv2d(channels, channels, 3, padding=1)
        self.summand = nn.Sequential(
            nn.Conv2d(channels, channels, 1), nn.LeakyReLU(SLOPE), nn.Conv2d(channels, channels, 1)
        )

    def forward(self, maps: Sequence[Float[Tensor, "B C h w"]]) -> Float[Tensor, "B C h w"]:
        """One map of all; the first is the target's."""
        target = self.target_embedding(maps[0])
        agreements = [torch.sigmoid((self.embedding(x) * target).sum(dim=1, keepdim=True)) for x in maps]
        weighted = torch.cat([x * agreement for x, agreement in zip(maps, agreements, strict=True)], dim=1)
        joined = F.leaky_relu(self.fusion(weighted), SLOPE)
        x = F.leaky_relu(self.joint(weighted), SLOPE)
        pooled = [F.max_pool2d(x, 3, stride=2, padding=1), F.avg_pool2d(x, 3, stride=2, padding=1)]
        x = F.leaky_relu(self.pooled(torch.cat(pooled, dim=1)), SLOPE)
        x = F.leaky_relu(self.context(x), SLOPE)
        x = self.factor(F.interpolate(x, size=joined.shape[2:], mode="bilinear", align_corners=False))
        return joined * torch.sigmoid(x) * 2 + self.summand(x)


class Fuse(nn.Module):
    """Adds features of the frame before, warped to the same positions, to the pyramid of a frame (section 4.2, "Fuse").

    Args:
        channels: of each level.
        radius: of the correlation, in cells of the finest level.
    """

    def __init__(self, channels: int, *, radius: int = 4) -> None:
        super().__init__()
        self.flow_refinement = FlowRefinement(channels, radius=radius)
        self.attention = SpaceTimeAttention(channels)
        self.refinement = convolution(channels, channels, has_activation=True)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def gather(self, levels: Sequence[Float[Tensor, "B C _ _"]]) -> Float[Tensor, "B C h w"]:
        """The mean of all levels at the size of the finest."""
        size = levels[0].shape[2:]
        return torch.stack([F.interpolate(x, size=size, mode="nearest") for x in levels]).mean(dim=0)

    def forward(
        self,
        levels: Sequence[Float[Tensor, "B C _ _"]],
        gathered: Float[Tensor, "B C h w"],
        reference: Float[Tensor, "B C h w"],
        flow: Float[Tensor, "B 2 H W"],
    ) -> tuple[Float[Tensor, "B C _ _"], ...]:
        """The fused levels.

        Args:
            levels: of the target.
            gathered: `gather` of the target's levels.
            reference: `gather` of the reference's levels, before fusion.
            flow: from the target to the reference, in pixels of the images.
        """
        flow = reduce_flow(flow, (gathered.shape[2], gathered.shape[3]))
        warped = warp(reference, flow)
        warped = warp(warped, self.flow_refinement(gathered, warped, flow))
        x = self.refinement(self.attention([gathered, warped]))
        # on the finest level, of the size of x, the pooling is the identity
        return tuple(
            level + F.adaptive_max_pool2d(x, (level.shape[2], level.shape[3])) if number else level + x
            for number, level in enumerate(levels)
        )


def reduce_flow(flow: Float[Tensor, "B 2 H W"], size: tuple[int, int]) -> Float[Tensor, "B 2 h w"]:
    """The flow between smaller maps of the same frames, resized and scaled to cells."""
    scale = flow.new_tensor([size[1] / flow.shape[3], size[0] / flow.shape[2]]).view(1, 2, 1, 1)
    return F.interpolate(flow, size=size, mode="bilinear", align_corners=False) * scale


class VPSNet(upsnet.UPSNet):
    """UPSNet with "Fuse" and "Track", or one of them.

    Args:
        base: its parts and settings are taken.
        flow: see `nn.flow`; None without "Fuse".
        fuse: None for "VPSNet-Track".
        track_head: None for "VPSNet-Fuse", whose instances are new in each frame.
        track_weight: of the track term in the loss.
        match_weights: see `nn.tracker.match_scores`.
        max_known: largest number of tracks remembered of a clip.
    """

    task = TASK

    def __init__(
        self,
        base: upsnet.UPSNet,
        *,
        flow: nn.Module | None,
        fuse: Fuse | None,
        track_head: TrackHead | None,
        track_weight: float,
        match_weights: Sequence[float],
        max_known: int,
    ) -> None:
        super().__init__(
            base.parts,
            semantic_head=base.semantic_head,
            roi_pooling=base.roi_pooling,
            semantic_weight=base.semantic_weight,
            roi_weight=base.roi_weight,
            panoptic_weight=base.panoptic_weight,
            kept_objects=base.kept_objects,
            has_unknown=base.has_unknown,
            smallest_stuff=base.smallest_stuff,
        )
        self.flow, self.fuse, self.track_head = flow, fuse, track_head
        # without the track head instances are new in each frame
        self.traits = replace(TRAITS, gives_identities=track_head is not None)
        self.track_weight, self.match_weights, self.max_known = track_weight, tuple(match_weights), max_known

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        images: Float[Tensor, "B 3 H W"],
        sizes: Int64[Tensor, "B 2"] | None = None,
        truth: tuple[Annotation, ...] | None = None,
        memory: Memory | None = None,
    ) -> Output | TrainingOutput:
        """With ground truth the inputs of the losses, else the detections in the next frame, or the first, of a clip.

        Args:
            images: with ground truth pairs, the reference and then the target of each; else one frame, or the first
                frames of several clips.
            sizes: valid height and width of each.
            truth: of each; of the references instances and track ids alone are used.
            memory: of the frame before; None for the first.

        Raises:
            DataError: no pairs; a frame of another size than the one before; several frames with one memory; the ground
                truth has no instances with masks, or no class for each pixel.
        """
        valid = [(images.shape[2], images.shape[3])] * len(images) if sizes is None else sizes.tolist()
        x = self._prepared(images, sizes)
        frames = F.pad(images, (0, x.shape[3] - images.shape[3], 0, x.shape[2] - images.shape[2]))
        if truth is not None:
            return self._train_pairs(self._levels(x), frames, valid, truth)
        if memory is not None and len(images) > 1:
            raise DataError(f"{len(images)} frames with the memory of one clip; give them one by one")
        if memory is not None and self.fuse is not None and memory.image.shape != frames.shape:
            height, width = memory.image.shape[2:]
            raise DataError(
                f"a frame of {frames.shape[2]}×{frames.shape[3]} after one of {height}×{width} (padded); the frames of "
                "a clip have one size: begin a clip with memory=None"
            )
        return self._predict_frames(self._levels(x), frames, valid, memory)

    def loss(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, output: Output | TrainingOutput, batch: Batch
    ) -> dict[str, Term]:
        """UPSNet's terms of the targets, and the cross-entropy of the positive proposals' identities, in nats.

        Raises:
            DataError: forward was called without ground truth.
        """
        output = training_output(output, TrainingOutput)
        terms = super().loss(output.segments, _targets_of(batch))  # pyright: ignore[reportArgumentType]
        if not output.match_logits:
            return terms
        sums = [
            F.cross_entropy(logits, targets, ignore_index=UNKNOWN, reduction="sum")
            for logits, targets in zip(output.match_logits, output.match_targets, strict=True)
        ]
        count = (torch.cat(output.match_targets) != UNKNOWN).sum()
        return {**terms, "track": Term(torch.stack(sums).sum(), count, self.track_weight)}

    def decode(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, output: Output, sizes: Sizes, thresholds: Thresholds | None = None
    ) -> list[Annotation]:
        """The segments at the original size; ids of things follow their tracks.

        Raises:
            DataError: forward was called with ground truth.
        """
        thresholds = thresholds or self.thresholds
        return [
            Annotation(panoptic=self._panoptic(output.segments, sizes, index, thresholds, tracks))
            for index, tracks in enumerate(output.track_ids)
        ]

    def features(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "*_"], ...]:
        """Everything that is computed before anything is sorted or chosen, of a frame whose reference is itself."""
        levels = self._levels(self._prepared(images, None))
        found = list(super().features(images))
        if self.fuse is not None:
            gathered = self.fuse.gather(levels)
            found += self.fuse(levels, gathered, gathered, torch.zeros_like(images[:, :2]))
        if self.track_head is not None:
            whole = images.new_tensor([[0.0, 0.0, images.shape[3], images.shape[2]]])
            found.append(self.track_head(self.box_pooling(levels, [whole] * len(images))))
        return tuple(found)

    def _train_pairs(
        self,
        levels: Sequence[Float[Tensor, "B _ _ _"]],
        frames: Float[Tensor, "B 3 H W"],
        sizes: Sequence[Sequence[int]],
        truth: tuple[Annotation, ...],
    ) -> TrainingOutput:
        if len(frames) % 2:
            raise DataError(f"{len(frames)} images to train on; expected pairs of a reference and a target")
        references, targets = [x[0::2] for x in levels], [x[1::2] for x in levels]
        fused = tuple(targets)
        if self.fuse is not None and self.flow is not None:
            flow = self.flow(frames[1::2], frames[0::2])
            fused = self.fuse(targets, self.fuse.gather(targets), self.fuse.gather(references), flow)
        segments = self._train_segments(fused, (frames.shape[2], frames.shape[3]), sizes[1::2], truth[1::2])
        if self.track_head is None:
            return TrainingOutput(segments, match_logits=(), match_targets=())
        boxes, objects = segments.objects.positive_boxes, segments.objects.positive_objects
        known = [_identified(one) for one in training_instances(truth[0::2])]
        vectors = self.track_head(self.box_pooling(fused, boxes)).split([len(one) for one in boxes])
        others = self.track_head(self.box_pooling(references, [one.boxes for one in known]))
        others = others.split([len(one) for one in known])
        columns = [match_targets(*parts) for parts in zip(training_instances(truth[1::2]), objects, known, strict=True)]
        logits = tuple(match_logits(*pair) for pair in zip(vectors, others, strict=True))
        return TrainingOutput(segments, match_logits=logits, match_targets=tuple(columns))

    def _predict_frames(
        self,
        levels: Sequence[Float[Tensor, "B _ _ _"]],
        frames: Float[Tensor, "B 3 H W"],
        sizes: Sequence[Sequence[int]],
        memory: Memory | None,
    ) -> Output:
        image, gathered = frames.new_zeros(1, 3, 0, 0), frames.new_zeros(1, 0, 0, 0)
        if self.fuse is not None and self.flow is not None:
            gathered = self.fuse.gather(levels)
            # the first frame is its own reference
            flow = torch.zeros_like(frames[:, :2]) if memory is None else self.flow(frames, memory.image)
            levels = self.fuse(levels, gathered, gathered if memory is None else memory.gathered, flow)
            image = frames
        segments = self._detect_segments(levels, (frames.shape[2], frames.shape[3]), sizes)
        boxes, channels, scores = segments.boxes, segments.channels, segments.scores
        every = torch.cat(boxes)
        vectors, max_known = every.new_zeros(len(every), 0), 0
        if self.track_head is not None:
            vectors, max_known = self.track_head(self.box_pooling(levels, boxes)), self.max_known
        known = Tracks.none(vectors) if memory is None else memory.tracks
        ids, tracks = zip(
            *(
                track(known, *parts, max_known=max_known, weights=self.match_weights)
                for parts in zip(vectors.split([len(one) for one in boxes]), boxes, channels, scores, strict=True)
            ),
            strict=True,
        )
        after = Memory(tracks[0], image.detach(), gathered.detach()) if len(frames) == 1 else None
        return Output(segments, track_ids=ids, memory=after)


@flat_arguments
def build(
    *,
    num_classes: int,
    detector: mask_rcnn.DetectorArguments = DETECTOR,
    has_fuse: bool = True,
    has_track: bool = True,
    flow: str = "dis",
    semantic_weight: float = 1.0,
    panoptic_weight: float = 0.5,
    track_weight: float = 0.5,
    match_weights: Sequence[float] = MATCH_WEIGHTS,
    max_known: int = 256,
    smallest_stuff: int = 2048,
) -> VPSNet:
    """VPSNet with random weights.

    Args:
        num_classes: of the label set, things and stuff.
        detector: its fields are arguments of their own; the semantic head has half of its channels, the track head its
            `box_width`.
        has_fuse: add features of the frame before; without it, the paper's "VPSNet-Track".
        has_track: track instances; without it, "VPSNet-Fuse", whose instances are new in each frame.
        flow: `dis`, `raft_small`, `raft_large` (with weights, see `nn.flow`) or `zero`, for ablation.
        semantic_weight: of the semantic term in the loss.
        panoptic_weight: of the panoptic term.
        track_weight: of the track term.
        match_weights: of log score, IoU and class, beside the log-probability, in tracking.
        max_known: largest number of tracks remembered of a clip; those not detected for longest are forgotten.
        smallest_stuff: smallest area of a class of stuff, in pixels of the original image; less becomes void.

    Raises:
        RecipeError: arguments that do not fit together.
    """
    if not has_fuse and not has_track:
        raise RecipeError("has_fuse and has_track are both false: that is upsnet, for single images")
    if len(match_weights) != len(MATCH_WEIGHTS):
        raise RecipeError(f"match_weights {list(match_weights)}: three numbers, of log score, IoU and class")
    if max_known < 1:
        raise RecipeError(f"max_known={max_known}: at least 1")
    base = upsnet.build(
        num_classes=num_classes,
        detector=detector,
        global_context=False,
        semantic_layers=3,
        semantic_norm="group",
        semantic_weight=semantic_weight,
        roi_weight=0.0,
        panoptic_weight=panoptic_weight,
        kept_objects=1.0,
        has_unknown=False,
        smallest_stuff=smallest_stuff,
    )
    return VPSNet(
        base,
        flow=build_flow(flow) if has_fuse else None,
        fuse=Fuse(detector.channels) if has_fuse else None,
        track_head=TrackHead(detector.channels, width=detector.box_width) if has_track else None,
        track_weight=track_weight,
        match_weights=match_weights,
        max_known=max_known,
    )


def _identified(instances: Instances) -> Instances:
    """The instances whose identity is annotated, without crowds."""
    keep = torch.ones_like(instances.labels, dtype=torch.bool)
    if instances.crowd is not None:
        keep &= ~instances.crowd
    if instances.track_ids is not None:
        keep &= instances.track_ids > UNKNOWN
    return instances[keep]


def _targets_of(batch: Batch) -> Batch:
    """The second image of each pair."""
    return replace(
        batch,
        images=batch.images[1::2],
        valid_sizes=batch.valid_sizes[1::2],
        original_sizes=batch.original_sizes[1::2],
        truth=batch.truth[1::2],
        ids=batch.ids[1::2],
        clip_index=batch.clip_index[1::2],
        frame_index=batch.frame_index[1::2],
    )


VARIANTS = {
    "vpsnet_resnet50": {"backbone": "resnet50"},
    "vpsnet_track_resnet50": {"backbone": "resnet50", "has_fuse": False},
    "vpsnet_fuse_resnet50": {"backbone": "resnet50", "has_track": False},
    "vpsnet_mobilenet_v2": {"backbone": "mobilenet_v2"},
}

RECIPE = Recipe(
    stages=(replace(upsnet.RECIPE.stages[0], batch_size=2),),
    paper={
        "batch_size": "8 pairs, one in each process",
    },
)
RECIPES: dict[str, Recipe] = {}

EPOCH = 2_400
"""Steps of eight pairs, in eight repetitions of Cityscapes-VPS's 2,400 training frames."""

_PUBLISHED = Recipe(
    stages=(
        Stage(
            steps=12 * EPOCH,
            batch_size=8,
            crop_size=(800, 1600),
            optimizer=Optimizer(lr=0.005, weight_decay=1e-4, norm_weight_decay=1e-4, momentum=0.9, clip_norm=35.0),
            augmentation=Augmentation(scale_min=0.8, scale_max=1.5),
            schedule="step",
            milestones=(8 * EPOCH, 11 * EPOCH),
            warmup_steps=500,
            warmup_factor=1 / 3,
            freeze_batch_norm=True,
            frozen_stages=1,
            arguments={"samples": 512},
        ),
    ),
    input_size=2048,
)
"""Of the authors' `configs/cityscapes/fusetrack.py`."""

PUBLISHED = {"paper": dict.fromkeys(("vpsnet", *VARIANTS), _PUBLISHED)}
