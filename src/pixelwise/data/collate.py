"""Samples joined to a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pixelwise.ops.resize import paste_top_left
from pixelwise.types import Batch, Sample


def collate(samples: Sequence[Sample]) -> Batch:
    """Join samples to one batch, padded on the right and at the bottom with zeros to the largest size."""
    sizes = torch.tensor([sample.image.shape[1:] for sample in samples])
    height, width = (int(side) for side in sizes.amax(dim=0))
    images = torch.stack([paste_top_left(sample.image, (height, width), 0) for sample in samples])
    return Batch(
        images=images.float().div_(255),
        valid_sizes=sizes,
        original_sizes=torch.tensor([sample.original_size for sample in samples]),
        truth=tuple(sample.truth for sample in samples),
        ids=tuple(sample.id for sample in samples),
        clip_index=torch.arange(len(samples)),
        frame_index=torch.tensor([sample.frame or 0 for sample in samples]),
    )
