"""A semantic system for tests: a 1×1 convolution, so that every pixel's scores depend on that pixel alone."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pixelwise.contracts import ClassRows, Sizes, Term, Thresholds, Traits
from pixelwise.ops.resize import argmax_resized
from pixelwise.types import Annotation, Batch


class Output(NamedTuple):
    logits: Tensor
    aux_logits: Tensor | None = None


class Pointwise(nn.Module):
    task = "semantic"
    traits, thresholds = Traits(), Thresholds()
    backbone = None

    def __init__(self, *, num_classes: int, stride: int = 1, minimum: int = 1) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(3, num_classes, 1)
        self.stride = stride
        self.minimum = minimum

    def forward(self, images: Tensor, sizes: Tensor | None = None, truth: Any = None, memory: Any = None) -> Output:
        if min(images.shape[2:]) < self.minimum:
            raise RuntimeError(f"a side below {self.minimum}")
        return Output(self.classifier(images[:, :, :: self.stride, :: self.stride]))

    def loss(self, output: Output, batch: Batch) -> dict[str, Term]:
        return {"main": Term(output.logits.sum(), torch.tensor(1.0))}

    def features(self, images: Tensor) -> tuple[Tensor, ...]:
        return (self(images).logits,)

    def class_rows(self) -> tuple[ClassRows, ...]:
        return ()

    def decode(self, output: Output, sizes: Sizes, thresholds: Thresholds | None = None) -> list[Annotation]:
        return [
            Annotation(*argmax_resized(logits, size))
            for logits, size in zip(output.logits, sizes.original, strict=True)
        ]


def build(*, num_classes: int, stride: int = 1, minimum: int = 1) -> Pointwise:
    return Pointwise(num_classes=num_classes, stride=stride, minimum=minimum)
