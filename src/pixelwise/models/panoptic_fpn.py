"""Panoptic FPN: Kirillov, Girshick, He, Dollár, "Panoptic Feature Pyramid Networks", CVPR 2019.

Mask R-CNN on a pyramid, with a second, light branch on the same pyramid that predicts a class of stuff for every pixel:
each level is enlarged step by step to a quarter of the image, by convolutions with group norm, and a 1×1 convolution on
their sum gives the logits (section 3, figure 3). These have one more channel, for all things. Instances and stuff are
merged by a heuristic (`nn.panoptic_merge`).

Differences from the paper:
- Those of `models.mask_rcnn`.
- The semantic branch is trained with the weight 0.5 by default; the paper chooses it for each data set (section 4.1).
- The recipe is for small data sets on a small machine; the paper's numbers stand beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from pixelwise.contracts import ClassRows, Recipe, Sizes, Term, Thresholds, Traits, flat_arguments
from pixelwise.errors import RecipeError
from pixelwise.losses.cross_entropy import PixelLoss, stack_semantic
from pixelwise.losses.detection import training_output
from pixelwise.models import mask_rcnn
from pixelwise.nn.convolution import group_norm
from pixelwise.nn.panoptic_merge import LARGEST_OVERLAP, SCORE_THRESHOLD, SMALLEST_STUFF, merge_segments
from pixelwise.ops.precision import at_least_float32
from pixelwise.ops.resize import argmax_resized
from pixelwise.types import Annotation, Batch

TASK = "panoptic"
TRAITS = Traits()

STRIDE = 4
"""Stride of the semantic logits in pixels of the image."""

DETECTOR = mask_rcnn.DetectorArguments(score_threshold=SCORE_THRESHOLD)
"""Instances that are merged have a greater score."""

THINGS = 0
"""The channel of all things."""


class TrainingOutput(NamedTuple):
    """Inputs of the losses.

    Attributes:
        logits: see Output.
        objects: of Mask R-CNN.
    """

    logits: Float[Tensor, "B S h w"]
    objects: mask_rcnn.TrainingOutput


class Output(NamedTuple):
    """Semantic logits and detections.

    Attributes:
        logits: all things first, then each class of stuff in the order of the ids, at a quarter of the padded images'
            size.
        objects: of Mask R-CNN.
    """

    logits: Float[Tensor, "B S h w"]
    objects: mask_rcnn.Output


class SemanticBranch(nn.Module):
    """Enlarges every level to a quarter of the image, by repeated 3×3 convolution, group norm, ReLU and doubling; a 1×1
    convolution on their sum gives the logits.

    Args:
        in_channels: of the levels.
        scores: channels of the logits.
        channels: of the branch.
        levels: of the pyramid, of the strides 4, 8, …
    """

    def __init__(self, in_channels: int, scores: int, *, channels: int = 128, levels: int = 4) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.ModuleList(
                nn.Sequential(
                    nn.Conv2d(channels if step else in_channels, channels, 3, padding=1, bias=False),
                    group_norm(channels),
                    nn.ReLU(inplace=True),
                )
                for step in range(max(number, 1))
            )
            for number in range(levels)
        )
        self.score = nn.Conv2d(channels, scores, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.score.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, levels: Sequence[Float[Tensor, "B C _ _"]]) -> Float[Tensor, "B S h w"]:
        """Logits at the size of the finest level.

        Args:
            levels: from the finest; those beyond the last are not used.
        """
        maps: list[Tensor] = []
        for number, (steps, x) in enumerate(zip(self.levels, levels, strict=False)):
            assert isinstance(steps, nn.ModuleList)
            for step in steps:
                x = step(x)
                if number:
                    x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            maps.append(x)
        return self.score(torch.stack(maps).sum(dim=0))


class PanopticFPN(mask_rcnn.MaskRCNN):
    """Mask R-CNN and the semantic branch.

    Args:
        parts: of the detector.
        num_classes: of the label set.
        semantic_branch: on its pyramid.
        semantic_weight: of its term in the loss.
        largest_overlap: see `nn.panoptic_merge.merge_segments`.
        smallest_stuff: likewise, in pixels of the original image.

    """

    task = TASK

    def __init__(
        self,
        parts: mask_rcnn.Parts,
        *,
        num_classes: int,
        semantic_branch: SemanticBranch,
        semantic_weight: float,
        largest_overlap: float,
        smallest_stuff: int,
    ) -> None:
        super().__init__(parts)
        self.num_classes, self.semantic_branch = num_classes, semantic_branch
        self.semantic_weight = semantic_weight
        self.largest_overlap, self.smallest_stuff = largest_overlap, smallest_stuff

    @property
    def stuff(self) -> tuple[int, ...]:
        """Class ids of stuff, in the order of the channels from 1 on."""
        return _stuff_of(self.num_classes, self.things)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        images: Float[Tensor, "B 3 H W"],
        sizes: Int64[Tensor, "B 2"] | None = None,
        truth: tuple[Annotation, ...] | None = None,
        memory: Any = None,  # noqa: ARG002
    ) -> Output | TrainingOutput:
        """With ground truth the inputs of the losses, else the detections.

        Raises:
            DataError: the ground truth has no instances with masks.
        """
        valid = [(images.shape[2], images.shape[3])] * len(images) if sizes is None else sizes.tolist()
        x = self._prepared(images, sizes)
        levels, padded_size = self._levels(x), (x.shape[2], x.shape[3])
        logits = self.semantic_branch(levels)
        if truth is None:
            return Output(logits, self._detect(levels, padded_size, valid))
        return TrainingOutput(logits, self._train(levels, padded_size, valid, truth))

    def class_rows(self) -> tuple[ClassRows, ...]:
        """See `contracts.System`."""
        return (*super().class_rows(), ClassRows("semantic_branch.score", self.stuff, first=1))

    def loss(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, output: Output | TrainingOutput, batch: Batch
    ) -> dict[str, Term]:
        """Mask R-CNN's five terms, and the cross-entropy of every pixel's class of stuff.

        Raises:
            DataError: forward was called without ground truth, or the ground truth has no class for each pixel.
        """
        output = training_output(output, TrainingOutput)
        terms = super().loss(output.objects, batch)
        truth = stack_semantic(batch.truth)
        height, width = truth.shape[1:]
        logits = F.interpolate(
            at_least_float32(output.logits), scale_factor=STRIDE, mode="bilinear", align_corners=False
        )
        # by class id; the last is ignored
        nothing = PixelLoss.ignore_id
        channels = torch.full((self.num_classes + 1,), THINGS, device=truth.device)
        channels[list(self.stuff)] = torch.arange(1, len(self.stuff) + 1, device=truth.device)
        channels[-1] = nothing
        known = (truth >= 0) & (truth < self.num_classes)
        targets = channels[torch.where(known, truth, self.num_classes)]
        terms["semantic"] = PixelLoss(ignore_id=nothing)(
            logits[:, :, :height, :width], targets, weight=self.semantic_weight
        )
        return terms

    def decode(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, output: Output, sizes: Sizes, thresholds: Thresholds | None = None
    ) -> list[Annotation]:
        """Instances and stuff at the original size, merged."""
        annotations: list[Annotation] = []
        height, width = (STRIDE * side for side in output.logits.shape[2:])
        thresholds = thresholds or self.thresholds
        objects = super().decode(output.objects, sizes, thresholds)
        class_ids = torch.tensor([self.num_classes, *self.stuff], device=output.logits.device, dtype=torch.int32)
        for logits, found, valid, original in zip(output.logits, objects, sizes.valid, sizes.original, strict=True):
            covered = (height * original[0] / valid[0], width * original[1] / valid[1])
            channels, confidence = argmax_resized(logits, original, covered=covered)
            assert found.instances is not None
            panoptic = merge_segments(
                class_ids[channels.int()],
                found.instances,
                num_classes=self.num_classes,
                things=self.things,
                confidence=confidence,
                score_threshold=thresholds.score,
                largest_overlap=self.largest_overlap,
                smallest_stuff=self.smallest_stuff,
            )
            annotations.append(Annotation(panoptic=panoptic))
        return annotations

    def features(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "*_"], ...]:
        """All maps before detections are sorted and selected."""
        return (*super().features(images), self.semantic_branch(self._levels(self._prepared(images, None))))


@flat_arguments
def build(
    *,
    num_classes: int,
    detector: mask_rcnn.DetectorArguments = DETECTOR,
    semantic_channels: int = 128,
    semantic_weight: float = 0.5,
    largest_overlap: float = LARGEST_OVERLAP,
    smallest_stuff: int = SMALLEST_STUFF,
) -> PanopticFPN:
    """Panoptic FPN with random weights.

    Args:
        num_classes: of the label set, things and stuff.
        detector: its fields are arguments of their own.
        semantic_channels: of the semantic branch.
        semantic_weight: of its term in the loss.
        largest_overlap: an instance is skipped if a larger fraction of it is covered by higher-scoring ones.
        smallest_stuff: smallest area of a class of stuff, in pixels of the original image; less becomes void.

    Raises:
        RecipeError: arguments that do not fit together.
    """
    if semantic_channels < 1:
        raise RecipeError(f"semantic_channels={semantic_channels}: at least 1")
    parts = mask_rcnn.build(num_classes=num_classes, detector=detector).parts
    scores = 1 + len(_stuff_of(num_classes, parts.things))
    return PanopticFPN(
        parts,
        num_classes=num_classes,
        semantic_branch=SemanticBranch(detector.channels, scores, channels=semantic_channels),
        semantic_weight=semantic_weight,
        largest_overlap=largest_overlap,
        smallest_stuff=smallest_stuff,
    )


def _stuff_of(num_classes: int, things: Sequence[int]) -> tuple[int, ...]:
    return tuple(number for number in range(num_classes) if number not in things)


VARIANTS = {
    "panoptic_fpn_resnet50": {"backbone": "resnet50"},
    "panoptic_fpn_resnet101": {"backbone": "resnet101"},
    "panoptic_fpn_mobilenet_v2": {"backbone": "mobilenet_v2"},
}

RECIPE = Recipe(
    stages=(mask_rcnn.DETECTOR_STAGE,),
    paper={
        "steps": "90,000 on COCO, 65,000 on Cityscapes",
        "milestones": "60,000 and 80,000 on COCO, 40,000 and 55,000 on Cityscapes",
        "batch_size": "16 on COCO, 32 on Cityscapes",
        "optimizer.lr": "0.02 on COCO, 0.01 on Cityscapes",
        "crop_size": "whole images; on Cityscapes 512×1024",
    },
)
RECIPES: dict[str, Recipe] = {}

PUBLISHED = {
    name: dict.fromkeys(("panoptic_fpn", *VARIANTS), replace(mask_rcnn.PUBLISHED_RECIPE, stages=(stage,)))
    for name, stage in (
        ("paper", mask_rcnn.DETECTRON2_STAGE),
        ("paper_3x", replace(mask_rcnn.DETECTRON2_STAGE, **mask_rcnn.THREE_TIMES)),
    )
}
"""The authors' `panoptic_fpn_R_50_1x.yaml` and `panoptic_fpn_R_50_3x.yaml` in detectron2, of COCO."""
