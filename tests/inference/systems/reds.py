"""An instance system for tests: all pixels that are more red than not are one object of the first thing."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pixelwise.contracts import ClassRows, Sizes, Thresholds, Traits
from pixelwise.ops.resize import resize_image
from pixelwise.ops.thing_channels import things_of
from pixelwise.types import Annotation, Instances, Masks


class Output(NamedTuple):
    red: Tensor


class Reds(nn.Module):
    task = "instance"
    traits = Traits()
    backbone = None

    def __init__(self, *, num_classes: int, thing_ids: Sequence[int] | None = None) -> None:
        super().__init__()
        self.things = things_of(num_classes, thing_ids)
        self.score = nn.Parameter(torch.tensor(0.75))
        self.thresholds = Thresholds(0.05, 100)

    def forward(self, images: Tensor, sizes: Tensor | None = None, truth: Any = None, memory: Any = None) -> Output:
        return Output(images[:, 0])

    def features(self, images: Tensor) -> tuple[Tensor, ...]:
        return (images[:, 0] * self.score,)

    def class_rows(self) -> tuple[ClassRows, ...]:
        return ()

    def decode(self, output: Output, sizes: Sizes, thresholds: Thresholds | None = None) -> list[Annotation]:
        thresholds = thresholds or self.thresholds
        annotations = []
        for red, size in zip(output.red, sizes.original, strict=True):
            found = resize_image((red[None] * 255).byte(), size) > 127
            found = found[: int(found.any() and self.score >= thresholds.score)]
            masks = Masks.from_dense(found)
            instances = Instances(
                masks.boxes.float(),
                torch.tensor(self.things[:1] * len(found)).long(),
                masks,
                self.score[None][: len(found)],
            )
            annotations.append(Annotation(instances=instances))
        return annotations


def build(*, num_classes: int, thing_ids: Sequence[int] | None = None) -> Reds:
    return Reds(num_classes=num_classes, thing_ids=thing_ids)
