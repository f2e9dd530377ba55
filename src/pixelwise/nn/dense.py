"""The shared part of systems that predict a class for every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.contracts import ClassRows, Sizes, Thresholds, Traits
from pixelwise.losses.cross_entropy import PixelLoss
from pixelwise.nn.backbone import Backbone, Normalize
from pixelwise.ops.resize import argmax_resized
from pixelwise.types import Annotation


class DenseSystem(nn.Module):
    """A semantic system: its output has `logits`, which are enlarged to the image; the class is their argmax.

    Args:
        backbone: of the system, or None for a system without pretrained parts.
        traits: of the system.
        num_classes: channels of its logits.

    Attributes:
        normalize: normalises images for the backbone.
        auxiliary: a classifier that is used in training alone, or None; a system that has one sets it.
        score_layers: names of the layers with a channel for each class.
        pixel_loss: `fit` gives it the stage's settings.
    """

    task = "semantic"

    def __init__(self, backbone: Backbone | None, traits: Traits, *, num_classes: int) -> None:
        super().__init__()
        self.normalize = nn.Identity() if backbone is None else Normalize(backbone.mean, backbone.std)
        self.backbone: Any = backbone
        self.traits = traits
        self.num_classes = num_classes
        self.score_layers: tuple[str, ...] = ("classifier",)
        self.thresholds = Thresholds()
        self.auxiliary: nn.Module | None = None
        self.pixel_loss = PixelLoss(align_corners=traits.align_corners)

    def features(self, images: Float[Tensor, "B 3 H W"]) -> Sequence[Tensor]:
        """The logits."""
        return (self(images).logits,)

    def class_rows(self) -> tuple[ClassRows, ...]:
        """See `contracts.System`."""
        return tuple(ClassRows(name, tuple(range(self.num_classes))) for name in self.score_layers)

    def decode(self, output: Any, sizes: Sizes, thresholds: Thresholds | None = None) -> list[Annotation]:  # noqa: ARG002
        """The most probable class of each pixel of the original image, and its probability."""
        annotations: list[Annotation] = []
        for logits, size in zip(output.logits, sizes.original, strict=True):
            semantic, confidence = argmax_resized(logits, size, align_corners=self.traits.align_corners)
            annotations.append(Annotation(semantic=semantic, confidence=confidence))
        return annotations
