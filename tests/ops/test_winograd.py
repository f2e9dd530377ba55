"""Winograd's convolution against torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pixelwise.ops.winograd import tile_count, transform_kernels, winograd_convolution


@pytest.mark.parametrize("dilation", [1, 2, 5])
@pytest.mark.parametrize("size", [(1, 1), (4, 4), (7, 13), (16, 9)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_result_is_that_of_torch(dilation: int, size: tuple[int, int], channels_last: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, *size, generator=generator)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    weight = torch.randn(7, 5, 3, 3, generator=generator)
    found = winograd_convolution(x, transform_kernels(weight), dilation=dilation)
    wanted = F.conv2d(x.double(), weight.double(), padding=dilation, dilation=dilation)
    assert found.shape == wanted.shape
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=2e-5 * float(wanted.abs().max()))


def test_a_kernel_of_one_tap_moves_the_map() -> None:
    x = torch.arange(30.0).view(1, 1, 5, 6)
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 0, 2] = 1  # what stands above on the right
    found = winograd_convolution(x, transform_kernels(weight))
    wanted = F.pad(x, (0, 1, 1, 0))[:, :, :5, 1:]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


def test_tiles_worked_by_hand() -> None:
    assert tile_count(64, 64) == 256
    assert tile_count(64, 64, dilation=4) == 256
    assert tile_count(5, 4) == 2
    assert tile_count(9, 8, dilation=2) == 8  # four maps of 5×4 or 4×4 pixels, each counted as two tiles
