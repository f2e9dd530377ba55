"""Boxes at random places."""

from __future__ import annotations

import torch
from torch import Tensor


def random_boxes(count: int, seed: int, *, size: float = 100.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * size
    return torch.cat([corners, corners + 1 + torch.rand(count, 2, generator=generator) * size], dim=1)
