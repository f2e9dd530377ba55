"""Samples joined to a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from pixelwise.types import Batch, Sample


def collate(samples: Sequence[Sample], *, clip_frames: int = 1) -> Batch:
    """Join samples to one batch, padded on the right and at the bottom with zeros to the largest size.

    Args:
        samples: where there are clips, the frames of each one after the other.
        clip_frames: frames of each clip.
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
        truth=tuple(sample.truth for sample in samples),
        ids=tuple(sample.id for sample in samples),
        clip_index=torch.arange(len(samples)) // clip_frames,
        frame_index=torch.tensor([sample.frame or 0 for sample in samples]),
        proposals=tuple(sample.proposals for sample in samples),
    )
