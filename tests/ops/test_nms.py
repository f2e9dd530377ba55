"""Fast and traditional NMS against loops over single boxes."""

from __future__ import annotations

import pytest
import torch

from pixelwise.ops.nms import fast_nms, traditional_nms
from tests.models.small_yolact import suppressed_by_loops


def test_fast_nms_lets_the_suppressed_suppress() -> None:
    # each overlaps the next by 6/14 of the union, the first and the third by 2/18
    boxes = torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]])
    scores = torch.tensor([[0.9], [0.8], [0.7]])
    fast, _ = fast_nms(boxes, scores, threshold=0.4, per_class=200)
    ordinary, _ = traditional_nms(boxes, scores, threshold=0.4, per_class=200, smallest_score=0.05)
    assert fast.tolist() == [0]
    assert ordinary.tolist() == [0, 2]


@pytest.mark.parametrize("fast", [True, False])
def test_suppression_follows_the_definition(fast: bool) -> None:
    generator = torch.Generator().manual_seed(5)
    corners = torch.rand(60, 2, generator=generator) * 40
    boxes = torch.cat([corners, corners + 10 + 20 * torch.rand(60, 2, generator=generator)], dim=1)
    scores = torch.rand(60, 4, generator=generator)
    if fast:
        found = fast_nms(boxes, scores, threshold=0.5, per_class=25)
    else:
        found = traditional_nms(boxes, scores, threshold=0.5, per_class=25, smallest_score=0.3)
    wanted = suppressed_by_loops(boxes.tolist(), scores.tolist(), per_class=25, fast=fast)
    assert [(index, number) for _, index, number in wanted] == list(
        zip(*(part.tolist() for part in found), strict=True)
    )
    none = torch.zeros(0, 4)
    assert not len(fast_nms(none, none, threshold=0.5, per_class=25)[0])
