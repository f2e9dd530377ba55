"""RoIAlign as a sum of rows against torchvision's operator."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import roi_align

from pixelwise.ops.roi_align import sampled_roi_align


@pytest.mark.parametrize("is_aligned", [False, True])
@pytest.mark.parametrize(("size", "sampling_ratio"), [(7, 2), (14, 2), (3, 1), (5, 4)])
def test_it_is_torchvisions(size: int, sampling_ratio: int, is_aligned: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, 23, 31, generator=generator)
    # some leave the map on every side, some are thinner than a cell, some lie wholly outside
    corners = torch.rand(80, 2, generator=generator) * torch.tensor([300.0, 240.0]) - 60
    sides = torch.rand(80, 2, generator=generator) ** 3 * 200
    image = torch.randint(0, 2, (80, 1), generator=generator).float()
    rois = torch.cat([image, corners, corners + sides], dim=1)
    expected = roi_align(x, rois, size, 1 / 8, sampling_ratio, is_aligned)
    for layout in (torch.contiguous_format, torch.channels_last):
        found = sampled_roi_align(
            x.contiguous(memory_format=layout), rois, size, 1 / 8, sampling_ratio=sampling_ratio, is_aligned=is_aligned
        )
        assert torch.allclose(found, expected, atol=1e-5)
    assert (expected == 0).any()
    assert sampled_roi_align(x, rois[:0], size, 0.5, sampling_ratio=2, is_aligned=is_aligned).shape == (
        0,
        6,
        size,
        size,
    )
