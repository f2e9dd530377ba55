"""A panoptic system for tests: red pixels are one thing of class 1, green ones one of class 2, all else is stuff.

As a video system it counts the frames of a clip: its memory is their number, and things have it as their track.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pixelwise.contracts import ClassRows, Sizes, Thresholds, Traits
from pixelwise.ops.resize import argmax_resized
from pixelwise.types import Annotation, Panoptic


class Memory(NamedTuple):
    frames: Tensor


class Output(NamedTuple):
    logits: Tensor
    frames: Tensor
    memory: Memory | None = None


class Panels(nn.Module):
    task = "panoptic"
    backbone = None

    def __init__(self, *, num_classes: int, uses_memory: bool = False) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(8.0))
        self.num_classes = num_classes
        self.traits = Traits(uses_memory=uses_memory, gives_identities=uses_memory)
        self.thresholds = Thresholds(0.5, 100)

    def forward(self, images: Tensor, sizes: Tensor | None = None, truth: Any = None, memory: Any = None) -> Output:
        scores = torch.stack([torch.full_like(images[:, 0], 0.5), images[:, 0], images[:, 1]], dim=1)
        frames = torch.zeros(1, dtype=torch.int64) if memory is None else memory.frames + 1
        return Output(self.sharpness * scores, frames, Memory(frames) if self.traits.uses_memory else None)

    def features(self, images: Tensor) -> tuple[Tensor, ...]:
        return (self.forward(images).logits,)

    def class_rows(self) -> tuple[ClassRows, ...]:
        return ()

    def decode(self, output: Output, sizes: Sizes, thresholds: Thresholds | None = None) -> list[Annotation]:
        thresholds = thresholds or self.thresholds
        annotations = []
        for logits, size in zip(output.logits, sizes.original, strict=True):
            classes, confidence = argmax_resized(logits, size)
            ids, found = torch.zeros(size, dtype=torch.int32), []
            for class_id in range(3):
                is_class = classes == class_id
                score = float(confidence[is_class].mean()) if is_class.any() else 0.0
                is_thing = class_id > 0
                is_kept = len(found) - (0 in [one[1] for one in found]) < thresholds.max_detections
                if is_class.any() and (not is_thing or (score >= thresholds.score and is_kept)):
                    id = self.num_classes + class_id + 2 * int(output.frames) if is_thing else 1
                    ids[is_class] = id
                    found.append((id, class_id, score))
            annotations.append(
                Annotation(
                    panoptic=Panoptic(
                        ids,
                        torch.tensor([one[0] for one in found], dtype=torch.int32),
                        torch.tensor([one[1] for one in found], dtype=torch.int64),
                        torch.zeros(len(found), dtype=torch.bool),
                        torch.tensor([one[2] for one in found], dtype=torch.float32),
                    )
                )
            )
        return annotations


def build(*, num_classes: int, uses_memory: bool = False) -> Panels:
    return Panels(num_classes=num_classes, uses_memory=uses_memory)
