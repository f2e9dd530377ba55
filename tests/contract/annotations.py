"""Annotations with every part, and batches of them, of random content: what any system or metric may be given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pixelwise.labels import LabelSet
from pixelwise.types import Annotation, Batch, Instances, Masks, Panoptic

CLASSES = 5
LABELS = LabelSet.from_names("five", [f"class {index}" for index in range(CLASSES)])
VOID = LABELS.ignore_id


def random_annotation(size: tuple[int, int], seed: int) -> Annotation:
    """Rectangles of all classes on void, each an object and a segment."""
    generator = np.random.default_rng(seed)
    height, width = size
    semantic = torch.full(size, VOID, dtype=torch.uint8)
    ids = torch.zeros(size, dtype=torch.int32)
    dense = torch.zeros(CLASSES + 2, *size, dtype=torch.bool)
    labels = torch.tensor([*range(CLASSES), 1, 2])
    boxes = []
    for number, label in enumerate(labels.tolist()):
        y1, x1 = int(generator.integers(0, height // 2)), int(generator.integers(0, width // 2))
        y2, x2 = y1 + int(generator.integers(2, height // 2)), x1 + int(generator.integers(2, width // 2))
        semantic[y1:y2, x1:x2] = label
        ids[y1:y2, x1:x2] = number + 1
        dense[number, y1:y2, x1:x2] = True
        boxes.append([x1, y1, x2, y2])
    count = len(labels)
    return Annotation(
        semantic=semantic,
        confidence=torch.ones(size),
        instances=Instances(
            boxes=torch.tensor(boxes, dtype=torch.float32),
            labels=labels,
            masks=Masks.from_dense(dense),
            scores=torch.ones(count),
            track_ids=torch.arange(count),
            crowd=torch.zeros(count, dtype=torch.bool),
            areas=dense.flatten(1).sum(dim=1).double(),
        ),
        panoptic=Panoptic(
            ids=ids,
            segment_ids=torch.arange(1, count + 1, dtype=torch.int32),
            labels=labels,
            crowd=torch.zeros(count, dtype=torch.bool),
            scores=torch.ones(count),
        ),
        saliency=(semantic != VOID).float(),
        classes=torch.ones(CLASSES, dtype=torch.bool),
        class_scores=torch.ones(CLASSES),
        captions=(("rectangles", 0.0),),
        flow=torch.ones(2, *size),
    )


def empty_annotation(size: tuple[int, int]) -> Annotation:
    """Of an image in which nothing was found and every pixel is ignored."""
    nothing = torch.zeros(0, dtype=torch.int64)
    return Annotation(
        semantic=torch.full(size, VOID, dtype=torch.uint8),
        instances=Instances(
            boxes=torch.zeros(0, 4), labels=nothing, masks=Masks.from_crops([], [], size), crowd=nothing.bool()
        ),
        panoptic=Panoptic(torch.zeros(size, dtype=torch.int32), nothing.int(), nothing, nothing.bool()),
        saliency=torch.zeros(size),
        classes=torch.zeros(CLASSES, dtype=torch.bool),
    )


def random_batch(
    size: tuple[int, int],
    original_sizes: Sequence[tuple[int, int]],
    *,
    seed: int = 0,
    truth: Sequence[Annotation] | None = None,
) -> Batch:
    """Noise at one size; its ground truth at that size, unless another is given."""
    count = len(original_sizes)
    images = torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed))
    return Batch(
        images=images,
        valid_sizes=torch.tensor([size] * count),
        original_sizes=torch.tensor(original_sizes),
        truth=tuple(truth or (random_annotation(size, seed + index) for index in range(count))),
        ids=tuple(f"image {index}" for index in range(count)),
        clip_index=torch.arange(count),
        frame_index=torch.zeros(count, dtype=torch.int64),
    )
