"""Conversion from half precision, where sums or coordinates need more."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def at_least_float32(x: Float[Tensor, "*_"]) -> Float[Tensor, "*_"]:
    """The same values, in float32 where they are of half precision."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
