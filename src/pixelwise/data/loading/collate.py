"""Samples joined to a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelwise.types import Annotation, Batch, Sample


def collate(samples: Sequence[Sample], *, clip_frames: int = 1, ignore_id: int = 255) -> Batch:
    """Join samples to one batch, padded on the right and at the bottom with zeros to the largest size.

    Args:
        samples: where there are clips, the frames of each one after the other.
        clip_frames: frames of each clip.
        ignore_id: of the classes in the padding.
    """
    sizes = torch.tensor([sample.image.shape[1:] for sample in samples])
    height, width = (int(side) for side in sizes.amax(dim=0))
    images = torch.stack(
        [
            F.pad(sample.image, (0, width - sample.image.shape[2], 0, height - sample.image.shape[1]))
            for sample in samples
        ]
    )
    return Batch(
        images=images.float().div_(255),
        valid_sizes=sizes,
        original_sizes=torch.tensor([sample.original_size for sample in samples]),
        truth=tuple(_padded(sample.truth, (height, width), ignore_id) for sample in samples),
        ids=tuple(sample.id for sample in samples),
        clip_index=torch.arange(len(samples)) // clip_frames,
        frame_index=torch.tensor([sample.frame or 0 for sample in samples]),
        proposals=tuple(sample.proposals for sample in samples),
    )


def _padded(truth: Annotation, size: tuple[int, int], ignore_id: int) -> Annotation:
    """The ground truth on a canvas of that size, nothing in its padding."""
    semantic, instances, flow = truth.semantic, truth.instances, truth.flow
    if semantic is not None:
        semantic = _padded_map(semantic, size, ignore_id)
    if instances is not None and instances.masks is not None:
        instances = replace(instances, masks=replace(instances.masks, size=size))
    if flow is not None:
        flow = _padded_map(flow, size, float("nan"))
    return replace(truth, semantic=semantic, instances=instances, flow=flow)


def _padded_map(values: Tensor, size: tuple[int, int], fill: float) -> Tensor:
    return F.pad(values, (0, size[1] - values.shape[-1], 0, size[0] - values.shape[-2]), value=fill)
