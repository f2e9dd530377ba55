"""Which objects boxes stand for, and which boxes are trained on."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, Matcher

from pixelwise.ops.boxes import pairwise_iou
from pixelwise.ops.matching import (
    BACKGROUND,
    NEUTRAL,
    hard_negatives,
    match_best_for_each,
    match_boxes,
    sample_balanced,
    without_crowds,
)
from tests.random_boxes import random_boxes

OVERLAPS = torch.tensor(
    [
        [0.8, 0.4, 0.1, 0.0, 0.2],
        [0.1, 0.3, 0.3, 0.0, 0.3],
    ]
)


def test_thresholds_by_hand() -> None:
    assert match_boxes(OVERLAPS, positive=0.7, negative=0.3).tolist() == [0, NEUTRAL, NEUTRAL, BACKGROUND, NEUTRAL]
    assert match_boxes(OVERLAPS, positive=0.4, negative=0.4).tolist() == [0, 0, BACKGROUND, BACKGROUND, BACKGROUND]


def test_the_best_for_each_counts_with_its_ties() -> None:
    # the second object is overlapped most by the boxes 1, 2 and 4; box 1 itself overlaps the first one more
    assert match_boxes(OVERLAPS, positive=0.7, negative=0.35, best_for_each=True).tolist() == [0, 0, 1, BACKGROUND, 1]


def test_without_objects_all_is_background() -> None:
    assert match_boxes(OVERLAPS[:0], positive=0.7, negative=0.3, best_for_each=True).tolist() == [BACKGROUND] * 5
    assert match_boxes(OVERLAPS[:, :0], positive=0.7, negative=0.3, best_for_each=True).tolist() == []


def test_an_object_that_nothing_overlaps_makes_nothing_positive() -> None:
    overlaps = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.9, 0.0]])
    found = match_boxes(overlaps, positive=0.7, negative=0.3, best_for_each=True)
    assert found.tolist() == [BACKGROUND, 1, BACKGROUND]


@pytest.mark.parametrize("best_for_each", [False, True])
def test_it_matches_as_torchvision_does(best_for_each: bool) -> None:
    overlaps = pairwise_iou(random_boxes(7, 0), random_boxes(400, 1))
    overlaps = (overlaps * 20).round() / 20  # so that there are ties
    expected = Matcher(0.6, 0.3, allow_low_quality_matches=best_for_each)(overlaps)
    assert {BACKGROUND, NEUTRAL} < set(expected.tolist())
    assert torch.equal(match_boxes(overlaps, positive=0.6, negative=0.3, best_for_each=best_for_each), expected)


def test_with_a_smallest_overlap_it_matches_as_mmdetections_assigner() -> None:
    """The four steps of MaxIoUAssigner; some objects have no box that overlaps them by 0.3."""
    overlaps = pairwise_iou(random_boxes(9, 0), random_boxes(60, 1))
    overlaps = (overlaps * 10).round() / 10  # so that there are ties
    rows = overlaps.tolist()
    expected = []
    for column in zip(*rows, strict=True):
        largest = max(column)
        one = BACKGROUND if largest < 0.3 else NEUTRAL if largest < 0.7 else column.index(largest)
        for number, (row, overlap) in enumerate(zip(rows, column, strict=True)):
            if max(row) >= 0.3 and overlap == max(row):
                one = number
        expected.append(one)
    found = match_boxes(overlaps, positive=0.7, negative=0.3, best_for_each=True, min_pos_iou=0.3)
    assert found.tolist() == expected
    assert any(0 < max(row) < 0.3 for row in rows)
    without = match_boxes(overlaps, positive=0.7, negative=0.3, best_for_each=True)
    assert (without >= 0).sum() > (found >= 0).sum() > 5


def test_pairs_are_forced_in_the_order_of_their_overlap() -> None:
    overlaps = torch.tensor([[0.9, 0.8, 0.1], [0.95, 0.2, 0.1]])
    # box 0 goes to the second object, so that the first takes its next best
    assert match_best_for_each(overlaps).tolist() == [1, 0, NEUTRAL]
    assert match_best_for_each(overlaps.T).tolist() == [1, 0]
    assert match_best_for_each(overlaps[:0]).tolist() == [NEUTRAL] * 3


def test_background_inside_a_crowd_is_neutral() -> None:
    matches = torch.tensor([0, BACKGROUND, BACKGROUND, NEUTRAL])
    coverage = torch.tensor([[1.0, 0.69, 0.1, 1.0], [0.0, 0.0, 0.71, 0.0]])
    assert without_crowds(matches, coverage).tolist() == [0, BACKGROUND, NEUTRAL, NEUTRAL]
    assert without_crowds(matches, coverage[:0]).tolist() == matches.tolist()


def test_samples_are_balanced_and_repeatable() -> None:
    matches = torch.tensor([0] * 30 + [BACKGROUND] * 100 + [NEUTRAL] * 20 + [3] * 5)
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        positives, negatives = sample_balanced(matches, count=40, positive_fraction=0.25)
        assert (len(positives), len(negatives)) == (10, 30)
        assert (matches[positives] >= 0).all()
        assert (matches[negatives] == BACKGROUND).all()
        assert (positives.diff() > 0).all()
        assert (negatives.diff() > 0).all()
        draws.append(positives.tolist())
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize(("positives", "negatives"), [(3, 200), (200, 3), (0, 50), (40, 40)])
def test_as_many_are_drawn_as_by_torchvision(positives: int, negatives: int) -> None:
    matches = torch.tensor([2] * positives + [BACKGROUND] * negatives)
    found = sample_balanced(matches, count=64, positive_fraction=0.5)
    expected = BalancedPositiveNegativeSampler(64, 0.5)([(matches >= 0).long()])
    assert [len(part) for part in found] == [int(part[0].sum()) for part in expected]


def test_every_positive_is_drawn_as_often() -> None:
    matches = torch.tensor([0] * 8)
    torch.manual_seed(0)
    counts = torch.zeros(8)
    for _ in range(400):
        counts[sample_balanced(matches, count=4, positive_fraction=0.5)[0]] += 1
    assert counts.sum() == 800
    assert 60 < counts.min() <= counts.max() < 140


def test_three_negatives_for_each_object_are_the_hardest() -> None:
    objects = torch.tensor([0, -1, -1, -2, -1, -1, -1, -1])
    background = torch.tensor([0.0, 5, 1, -9, 3, 2, 4, -1])
    logits = torch.stack([background, torch.zeros(8), torch.zeros(8)], dim=1)
    # those that are least of background: scores -1, 1 and 2; the neutral -9 does not count
    assert hard_negatives(logits, objects).nonzero().flatten().tolist() == [2, 5, 7]
    assert not hard_negatives(logits, torch.full((8,), -1)).any()
    assert hard_negatives(logits, torch.tensor([0, 1, 2, 3, 4, 5, -2, -1])).nonzero().flatten().tolist() == [7]
