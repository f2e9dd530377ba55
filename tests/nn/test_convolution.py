"""Group norm's number of groups, and halving of maps that are one pixel wide."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pixelwise.nn.convolution import StridedConv2d, group_norm


@pytest.mark.parametrize(
    ("channels", "groups"), [(256, 32), (128, 32), (96, 32), (64, 32), (40, 8), (32, 16), (25, 1), (3, 1), (1, 1)]
)
def test_groups_divide_the_channels_and_have_several(channels: int, groups: int) -> None:
    norm = group_norm(channels)
    assert (norm.num_groups, norm.num_channels) == (groups, channels)


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (3, 1), (1, 2), (5, 4)])
def test_a_strided_convolution_is_torchs_and_trains_in_half_precision(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    halving = StridedConv2d(16, 16)
    reference = nn.Conv2d(16, 16, 3, stride=2, padding=1)
    reference.load_state_dict(halving.state_dict())
    x = torch.randn(2, 16, *size).contiguous(memory_format=torch.channels_last)
    expected = reference(x)
    assert torch.allclose(halving(x), expected, atol=1e-5)
    expected.pow(2).sum().backward()
    for _ in range(5):
        torch.full((16, 16, 40, 40), torch.nan)  # what the memory holds before
        halving.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = halving(x)
        found.float().pow(2).sum().backward()
        for ours, theirs in zip(halving.parameters(), reference.parameters(), strict=True):
            assert ours.grad is not None
            assert theirs.grad is not None
            assert (ours.grad - theirs.grad).abs().max() < 0.05 * theirs.grad.abs().max()
