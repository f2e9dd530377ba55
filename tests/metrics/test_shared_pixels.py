"""Pixels that masks share, beside the dense masks."""

from __future__ import annotations

import torch

from pixelwise.metrics.shared_pixels import shared_pixels
from pixelwise.types import Masks


def test_shared_pixels_are_those_of_the_dense_masks() -> None:
    generator = torch.Generator().manual_seed(0)
    # of every density, small and large, one empty
    chances = torch.tensor([0.0, 0.01, 0.1, 0.5, 1.0])[:, None, None]
    some, others = (torch.rand(5, 12, 17, generator=generator) < chances for _ in range(2))
    others[:, :, 9:] = False  # boxes that miss those of some
    expected = (some[:, None] & others[None]).sum(dim=(2, 3))
    assert 0 < (expected == 0).sum() < expected.numel()
    packed, other_packed = Masks.from_dense(some), Masks.from_dense(others)
    assert shared_pixels(packed, other_packed).equal(expected)
    evaluated = torch.eye(5, dtype=torch.bool)
    assert shared_pixels(packed, other_packed, evaluated).equal(expected * evaluated)


def test_nothing_shares_nothing() -> None:
    nothing, one = Masks.from_crops([], [], (4, 4)), Masks.from_crops([torch.ones(2, 2)], [[1, 1, 3, 3]], (4, 4))
    assert shared_pixels(nothing, one).shape == (0, 1)
    assert shared_pixels(one, nothing).shape == (1, 0)
    assert shared_pixels(one, one).tolist() == [[4]]
