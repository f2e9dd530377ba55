"""Padding of the images of a batch."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def zero_beyond(images: Float[Tensor, "B C H W"], sizes: Int64[Tensor, "B 2"] | None) -> Float[Tensor, "B C H W"]:
    """Set normalised images to zero beyond their valid height and width; without sizes nothing is padding."""
    if sizes is None:
        return images
    sizes = sizes.to(images.device)
    rows = torch.arange(images.shape[2], device=images.device) < sizes[:, :1]
    columns = torch.arange(images.shape[3], device=images.device) < sizes[:, 1:]
    return images.masked_fill(~(rows[:, None, :, None] & columns[:, None, None, :]), 0)
