"""Warping by flow, and correlation, against loops over pixels."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Tensor

from pixelwise.ops.correlation import correlate
from pixelwise.ops.warp import warp


def pixel(image: Tensor, y: int, x: int, outside: str) -> Tensor:
    """What is read at whole coordinates."""
    height, width = image.shape[1:]
    if outside == "border":
        return image[:, min(max(y, 0), height - 1), min(max(x, 0), width - 1)]
    return image[:, y, x] if 0 <= y < height and 0 <= x < width else torch.zeros_like(image[:, 0, 0])


def slow_warp(x: Tensor, flow: Tensor, outside: str) -> Tensor:
    result = torch.zeros_like(x)
    for index, (image, moves) in enumerate(zip(x, flow, strict=True)):
        for row in range(x.shape[2]):
            for column in range(x.shape[3]):
                at_x, at_y = column + float(moves[0, row, column]), row + float(moves[1, row, column])
                left, top = math.floor(at_x), math.floor(at_y)
                for y, weight_y in ((top, 1 - (at_y - top)), (top + 1, at_y - top)):
                    for z, weight_x in ((left, 1 - (at_x - left)), (left + 1, at_x - left)):
                        result[index, :, row, column] += weight_y * weight_x * pixel(image, y, z, outside)
    return result


@pytest.mark.parametrize("outside", ["zeros", "border"])
@pytest.mark.parametrize("size", [(6, 9), (1, 5), (4, 1)])
def test_each_place_is_read_bilinearly_at_its_flow(size: tuple[int, int], outside: Literal["zeros", "border"]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, *size, generator=generator, dtype=torch.float64)
    flow = 4 * torch.randn(2, 2, *size, generator=generator, dtype=torch.float64)  # many leave the map
    torch.testing.assert_close(warp(x, flow, outside=outside), slow_warp(x, flow, outside))


def test_flow_of_zero_changes_nothing_and_whole_pixels_move_exactly() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    torch.testing.assert_close(warp(x, torch.zeros(1, 2, 4, 4)), x, rtol=0, atol=1e-5)
    right = torch.zeros(1, 2, 4, 4)
    right[:, 0] = 1  # what is shown is to be found one pixel to the right
    expected = torch.tensor([[1.0, 2, 3, 0], [5, 6, 7, 0], [9, 10, 11, 0], [13, 14, 15, 0]])
    torch.testing.assert_close(warp(x, right)[0, 0], expected, rtol=0, atol=1e-5)
    down = right.flip(1)
    expected = torch.tensor([[4.0, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15], [12, 13, 14, 15]])
    torch.testing.assert_close(warp(x, down, outside="border")[0, 0], expected, rtol=0, atol=1e-5)


def test_the_gradient_reaches_map_and_flow() -> None:
    x = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    flow = (torch.rand(1, 2, 5, 6, dtype=torch.float64) * 0.8 + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(warp, (x, flow))


def test_half_precision_is_read_in_float32() -> None:
    x = torch.rand(1, 2, 8, 300).bfloat16()
    flow = torch.full((1, 2, 8, 300), 0.5)
    flow[:, 1] = 0
    expected = (x[..., :-1].float() + x[..., 1:].float()) / 2
    torch.testing.assert_close(warp(x, flow)[..., :-1], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("radius", [1, 4])
def test_correlation_is_the_mean_product_row_by_row(radius: int) -> None:
    generator = torch.Generator().manual_seed(1)
    one, other = torch.randn(2, 2, 3, 5, 6, generator=generator, dtype=torch.float64)
    found = correlate(one, other, radius=radius)
    side = 2 * radius + 1
    expected = torch.zeros(2, side * side, 5, 6, dtype=torch.float64)
    for index in range(2):
        for dy in range(-radius, radius + 1):
            for dx in range(-radius, radius + 1):
                for y in range(5):
                    for x in range(6):
                        near = pixel(other[index], y + dy, x + dx, "zeros")
                        channel = (dy + radius) * side + dx + radius
                        expected[index, channel, y, x] = (one[index, :, y, x] * near).sum() / 3
    torch.testing.assert_close(found, expected)
