"""Boxes: overlap, coding, cutting."""

from __future__ import annotations

import math

import pytest
import torch
from torchvision.models.detection._utils import BoxCoder

from pixelwise.ops.boxes import (
    LARGEST_LOG_SCALE,
    RCNN_WEIGHTS,
    are_large_enough,
    box_areas,
    clip_boxes,
    decode_boxes,
    encode_boxes,
    inside_boxes,
    pairwise_coverage,
    pairwise_iou,
    scale_boxes,
)
from tests.random_boxes import random_boxes


def test_overlaps_by_hand() -> None:
    square = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    others = torch.tensor([[2.0, 2.0, 6.0, 6.0], [0, 0, 4, 4], [4, 0, 8, 4], [1, 1, 1, 3]])
    assert pairwise_iou(square, others).flatten().tolist() == pytest.approx([4 / 28, 1, 0, 0])
    assert pairwise_coverage(square, others).flatten().tolist() == pytest.approx([4 / 16, 1, 0, 0])
    assert box_areas(others).tolist() == [16, 16, 16, 0]
    nothing = torch.tensor([[3.0, 3.0, 3.0, 3.0]])
    assert pairwise_iou(nothing, nothing).tolist() == [[0]]
    assert pairwise_coverage(square, nothing).tolist() == [[0]]


def test_coding_by_hand() -> None:
    anchor = torch.tensor([10.0, 20.0, 30.0, 60.0])  # centre 20 40, 20 wide, 40 high
    box = torch.tensor([20.0, 30.0, 60.0, 50.0])  # centre 40 40, 40 wide, 20 high
    deltas = encode_boxes(box, anchor, weights=RCNN_WEIGHTS)
    assert deltas.tolist() == pytest.approx([10.0, 0.0, 5 * math.log(2), -5 * math.log(2)])
    # SSD's formula with the variances of its release
    ssd = [(40 - 20) / (0.1 * 20), (40 - 40) / (0.1 * 40), math.log(40 / 20) / 0.2, math.log(20 / 40) / 0.2]
    assert deltas.tolist() == pytest.approx(ssd)
    assert decode_boxes(deltas, anchor, weights=RCNN_WEIGHTS).tolist() == pytest.approx(box.tolist())


def test_growth_is_limited_unless_it_shall_not_be() -> None:
    anchor, deltas = torch.tensor([0.0, 0.0, 16.0, 16.0]), torch.tensor([0.0, 0.0, 50.0, 5.0])
    limited = decode_boxes(deltas, anchor)
    assert float(limited[2] - limited[0]) == pytest.approx(1000, rel=1e-5)
    assert float(limited[3] - limited[1]) == pytest.approx(16 * math.exp(min(5, LARGEST_LOG_SCALE)), rel=1e-5)
    free = decode_boxes(deltas, anchor, largest_log_scale=None)
    assert float(free[3] - free[1]) == pytest.approx(16 * math.exp(5), rel=1e-5)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), RCNN_WEIGHTS])
def test_coding_is_torchvisions(weights: tuple[float, float, float, float]) -> None:
    boxes, references = random_boxes(50, 0), random_boxes(50, 1)
    coder = BoxCoder(weights)
    expected = coder.encode_single(boxes, references)
    assert torch.allclose(encode_boxes(boxes, references, weights=weights), expected, atol=1e-6)
    deltas = torch.randn(50, 12, generator=torch.Generator().manual_seed(2)) * 3
    found = decode_boxes(deltas.view(50, 3, 4), references[:, None], weights=weights)
    assert torch.equal(found, coder.decode_single(deltas, references).view(50, 3, 4))


def test_boxes_are_clipped_scaled_and_compared() -> None:
    boxes = torch.tensor([[-3.0, 2.0, 50.0, 9.0], [30.0, 5.0, 31.0, 5.5]])
    assert clip_boxes(boxes, (8, 20)).tolist() == [[0, 2, 20, 8], [20, 5, 20, 5.5]]
    assert scale_boxes(boxes, (10, 100), (20, 50)).tolist() == [[-1.5, 4, 25, 18], [15, 10, 15.5, 11]]
    assert are_large_enough(boxes, 0.6).tolist() == [True, False]
    assert are_large_enough(boxes, 0.5).tolist() == [True, True]


def test_a_pixel_stays_of_a_box_beyond_the_border() -> None:
    boxes = torch.tensor([[-9.0, 2, -5, 3], [20.0, 30, 40, 50]])
    assert clip_boxes(boxes, (10, 12)).tolist() == [[0, 2, 0, 3], [12, 10, 12, 10]]
    assert clip_boxes(boxes, (10, 12), least=1.0).tolist() == [[0, 2, 1, 3], [11, 9, 12, 10]]


def test_a_crop_has_a_margin_of_one_cell() -> None:
    # 8×8 cells of 10 pixels; 25…45 is 2.5…4.5 cells: from 1.5 up to but not including 5.5
    inside = inside_boxes(torch.tensor([[25.0, 25, 45, 30], [75, -20, 500, 5]]), (80, 80), (8, 8))
    assert inside[0].any(dim=0).nonzero().flatten().tolist() == [2, 3, 4, 5]
    assert inside[0].any(dim=1).nonzero().flatten().tolist() == [2, 3]
    assert inside[1].any(dim=0).nonzero().flatten().tolist() == [7]
    assert inside[1].any(dim=1).nonzero().flatten().tolist() == [0, 1]
