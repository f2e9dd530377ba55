"""Two-scale net: no paper; an example of a system outside pixelwise.

Two small stacks of convolutions run on the image and on its half. Their maps are joined at stride 4, and a 1×1
convolution scores the classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from pixelwise.contracts import Augmentation, Optimizer, Recipe, Stage, Term, Traits
from pixelwise.losses.cross_entropy import stack_semantic
from pixelwise.nn.dense import DenseSystem
from pixelwise.types import Annotation, Batch

TASK = "semantic"
TRAITS = Traits()


class Output(NamedTuple):
    """What `forward` returns.

    Attributes:
        logits: of every class, at stride 4.
    """

    logits: Float[Tensor, "B K h w"]


def _stack(channels: int) -> nn.Sequential:
    """Three 3×3 convolutions with batch norm and ReLU, the first two strided: stride 4 in all."""
    layers: list[nn.Module] = []
    for inputs, stride in ((3, 2), (channels, 2), (channels, 1)):
        layers += [nn.Conv2d(inputs, channels, 3, stride, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*layers)


class TwoScale(DenseSystem):
    """Two stacks and a classifier.

    Args:
        num_classes: channels of the logits, background included.
        channels: of each stack.
    """

    def __init__(self, *, num_classes: int, channels: int) -> None:
        super().__init__(None, TRAITS, num_classes=num_classes)
        self.fine, self.coarse = _stack(channels), _stack(channels)
        self.classifier = nn.Conv2d(2 * channels, num_classes, 1)

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        sizes: Int64[Tensor, "B 2"] | None = None,
        truth: tuple[Annotation, ...] | None = None,
        memory: Any = None,
    ) -> Output:
        """The logits of every class."""
        centered = images * 2 - 1
        fine = self.fine(centered)
        coarse = self.coarse(F.avg_pool2d(centered, 2, ceil_mode=True))
        coarse = F.interpolate(coarse, size=fine.shape[2:], mode="bilinear", align_corners=False)
        return Output(self.classifier(torch.cat([fine, coarse], dim=1)))

    def features(self, images: Float[Tensor, "B 3 H W"]) -> Sequence[Tensor]:
        """The logits."""
        return (self(images).logits,)

    def loss(self, output: Output, batch: Batch) -> dict[str, Term]:
        """Cross-entropy of the enlarged logits."""
        return {"main": self.pixel_loss(output.logits, stack_semantic(batch.truth))}


def build(*, num_classes: int, channels: int = 32) -> TwoScale:
    """The network with random weights.

    Args:
        num_classes: background included.
        channels: of each stack.
    """
    return TwoScale(num_classes=num_classes, channels=channels)


VARIANTS = {"two_scale_wide": {"channels": 64}}

RECIPE = Recipe(
    stages=(
        Stage(
            steps=2_000,
            batch_size=8,
            crop_size=256,
            optimizer=Optimizer(name="adamw", lr=2e-3, weight_decay=1e-2, norm_weight_decay=0.0),
            augmentation=Augmentation(brightness=0.2, contrast=0.2),
            warmup_steps=20,
        ),
    ),
)
RECIPES: dict[str, Recipe] = {}
PUBLISHED: dict[str, dict[str, Recipe]] = {}
