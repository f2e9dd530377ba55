"""When two outputs of a network are equal."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def require_equal(one: Any, other: Any) -> None:
    """All tensors of nested tuples, to the last bit."""
    assert type(one) is type(other)
    if isinstance(one, Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, tuple):
        for pair in zip(one, other, strict=True):
            require_equal(*pair)
    else:
        assert one == other
