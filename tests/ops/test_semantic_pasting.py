"""What is pasted to a class map, by hand and against the loop of the published code."""

from __future__ import annotations

import pytest
import torch

from pixelwise.ops.semantic_pasting import best_of_regions, paste_order, raised_threshold


def test_a_region_is_pasted_once_and_ten_at_most() -> None:
    scores = torch.tensor([0.5, 0.9, 0.7, 0.6])
    regions = torch.tensor([3, 1, 3, 2])
    assert best_of_regions(scores, regions).tolist() == [1, 2, 3]
    assert paste_order(scores, regions, threshold=0.6).tolist() == [2, 1]  # 0.6 itself is not above
    assert paste_order(scores, regions, threshold=0.95).tolist() == []
    many = torch.arange(15.0)
    assert best_of_regions(many, torch.arange(15)).tolist() == list(range(14, 4, -1))
    assert best_of_regions(many[:0], torch.arange(0)).tolist() == []


def test_the_threshold_rises_by_hundredths() -> None:
    # two images, so four segments at most: of 5 above -1 one has to go, the lowest of which is at -0.955
    candidates = [torch.tensor([0.3, -0.2, -0.955]), torch.tensor([0.25, 0.4, -1.3])]
    assert raised_threshold(candidates) == pytest.approx(-0.95)
    assert raised_threshold(candidates, mean=3.0) == -1.0
    assert raised_threshold(candidates, mean=1.0) == pytest.approx(0.25)  # 0.25 is not above 0.25
    assert raised_threshold([torch.zeros(0)]) == -1.0


def test_the_threshold_is_that_of_the_published_loop() -> None:
    generator = torch.Generator().manual_seed(5)
    for _ in range(20):
        candidates = [torch.randn(10, generator=generator) for _ in range(7)]
        threshold, per_image = -1.0, float("inf")
        while per_image > 2:
            per_image = sum(int((one > threshold).sum()) for one in candidates) / len(candidates)
            threshold += 0.01
        assert raised_threshold(candidates) == pytest.approx(threshold - 0.01, abs=1e-6)
