"""Anchors in three conventions."""

from __future__ import annotations

from itertools import product
from math import sqrt

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from pixelwise.ops.anchors import base_anchors, centred_anchors, grid_anchors, inclusive_anchors


def test_rounded_anchors_are_those_of_the_papers_sizes() -> None:
    assert base_anchors([32], [0.5, 1, 2], is_rounded=True).tolist() == [
        [-23, -11, 23, 11],
        [-16, -16, 16, 16],
        [-11, -23, 11, 23],
    ]


def test_exact_anchors_have_all_the_same_area() -> None:
    anchors = base_anchors([32, 64], [0.5, 1, 2], is_rounded=False)
    sides = anchors[:, 2:] - anchors[:, :2]
    assert sides.prod(dim=1).tolist() == pytest.approx([1024] * 3 + [4096] * 3, rel=1e-5)
    assert (sides[:, 1] / sides[:, 0]).tolist() == pytest.approx([0.5, 1, 2] * 2, rel=1e-5)


def test_a_grid_by_hand() -> None:
    base = torch.tensor([[-1.0, -2.0, 1.0, 2.0], [-3.0, -3.0, 3.0, 3.0]])
    assert grid_anchors(base, (2, 2), (10, 20)).tolist() == [
        [-1, -2, 1, 2],
        [-3, -3, 3, 3],
        [19, -2, 21, 2],
        [17, -3, 23, 3],
        [-1, 8, 1, 12],
        [-3, 7, 3, 13],
        [19, 8, 21, 12],
        [17, 7, 23, 13],
    ]
    assert grid_anchors(base[:1], (1, 2), (10, 20), offset=0.5).tolist() == [[9, 3, 11, 7], [29, 3, 31, 7]]


@pytest.mark.parametrize("sizes", [((32,), (64,)), ((32, 64, 128), (16, 8))])
def test_they_are_torchvisions(sizes: tuple[tuple[int, ...], ...]) -> None:
    ratios = (0.5, 1.0, 2.0)
    generator = AnchorGenerator(sizes, (ratios,) * len(sizes))
    image, maps = torch.zeros(1, 3, 96, 160), [torch.zeros(1, 1, 24, 40), torch.zeros(1, 1, 7, 11)]
    expected = generator(ImageList(image, [(96, 160)]), maps)[0]
    found = [
        grid_anchors(base_anchors(size, ratios, is_rounded=True), (h, w), (96 // h, 160 // w))
        for size, (h, w) in zip(sizes, ((24, 40), (7, 11)), strict=True)
    ]
    assert torch.equal(torch.cat(found), expected)


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_they_are_detectron2s(offset: float) -> None:
    """Against its loops (`modeling/anchor_generator.py`), written out."""
    sizes, ratios, stride, grid = (32.0, 64.0), (0.5, 1.0, 2.0), 16, (3, 4)
    expected = []
    for row, column in product(range(grid[0]), range(grid[1])):
        shift_x, shift_y = (column + offset) * stride, (row + offset) * stride
        for size in sizes:
            for ratio in ratios:
                width = sqrt(size**2 / ratio)
                height = ratio * width
                expected.append([shift_x - width / 2, shift_y - height / 2, shift_x + width / 2, shift_y + height / 2])
    found = grid_anchors(base_anchors(sizes, ratios, is_rounded=False), grid, (stride, stride), offset=offset)
    assert torch.allclose(found, torch.tensor(expected), atol=1e-4)


@pytest.mark.parametrize("is_square", [False, True])
def test_they_are_yolacts(is_square: bool) -> None:
    """Against the loops of `PredictionModule.make_priors`, which count in fractions of the image."""
    rows, columns, side = 3, 5, 550
    expected = []
    for j, i in product(range(rows), range(columns)):
        x, y = (i + 0.5) / columns, (j + 0.5) / rows
        for scale in (24, 30):
            for ratio in (1, 1 / 2, 2):
                width, height = scale * sqrt(ratio) / side, scale / sqrt(ratio) / side
                height = width if is_square else height
                expected.append([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    found = centred_anchors((rows, columns), (side, side), sizes=(24, 30), ratios=(1, 1 / 2, 2), is_square=is_square)
    assert torch.allclose(found / side, torch.tensor(expected), atol=1e-6)
    if is_square:
        assert (found[:3, 2] - found[:3, 0]).tolist() == pytest.approx([24, 16.97, 33.94], abs=0.01)


def test_inclusive_anchors_are_detectrons() -> None:
    """Detectron's for stride 16: x1 y1 x2 y2 with x2 and y2 the last pixels, around the middle of the first cell."""
    detectron = torch.tensor([[-84.0, -40, 99, 55], [-56, -56, 71, 71], [-36, -80, 51, 95]])
    found = inclusive_anchors((128,), (0.5, 1, 2), 16) + 8
    found[:, 2:] -= 1
    assert torch.equal(found, detectron)
