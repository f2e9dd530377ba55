"""Class ids of things as channels of a detector's logits: channel 0 is background, channel i the i-th thing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor


def things_of(num_classes: int, thing_ids: Sequence[int] | None) -> tuple[int, ...]:
    """The class ids of a detector's things, ascending; by default all but class 0, the background.

    Raises:
        ValueError: no class id, one twice, or one out of range.
    """
    things = tuple(range(1, num_classes)) if thing_ids is None else tuple(sorted(thing_ids))
    if not things or len(set(things)) < len(things) or things[0] < 0 or things[-1] >= num_classes:
        raise ValueError(f"thing_ids {list(things)}: expected different class ids below {num_classes}, at least one")
    return things


def channels_of(class_ids: Int64[Tensor, " N"], things: Sequence[int]) -> Int64[Tensor, " N"]:
    """The channel of each instance, from 1 on. The class ids are things."""
    return torch.searchsorted(torch.tensor(things, device=class_ids.device), class_ids) + 1


def class_ids_of(channels: Int64[Tensor, " N"], things: Sequence[int]) -> Int64[Tensor, " N"]:
    """The class id of each channel from 1 on."""
    return torch.tensor(things, device=channels.device)[channels - 1]
