from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pixelwise.ops.mask_voting import Voted, vote_masks


def iou(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / area


def resized(mask: Tensor, height: int, width: int) -> list[list[float]]:
    """Bilinear between the centres of the source, the border repeated: how OpenCV resizes."""
    side = mask.shape[0]
    result = [[0.0] * width for _ in range(height)]
    for row in range(height):
        for column in range(width):
            y = min(max((row + 0.5) * side / height - 0.5, 0.0), side - 1.0)
            x = min(max((column + 0.5) * side / width - 0.5, 0.0), side - 1.0)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, side - 1), min(left + 1, side - 1)
            dy, dx = y - top, x - left
            result[row][column] = (
                float(mask[top, left]) * (1 - dy) * (1 - dx)
                + float(mask[top, right]) * (1 - dy) * dx
                + float(mask[bottom, left]) * dy * (1 - dx)
                + float(mask[bottom, right]) * dy * dx
            )
    return result


def slow_vote(boxes: Tensor, masks: Tensor, scores: Tensor, size: tuple[int, int], *, limit: int, binarize: bool):
    """(channel, score, full mask) best first, pixel by pixel."""
    survivors: list[tuple[float, int, int]] = []
    for channel in range(1, scores.shape[1]):
        order = sorted(range(len(boxes)), key=lambda index: -float(scores[index, channel]))
        kept: list[int] = []
        for index in order:
            if all(iou(boxes[index].tolist(), boxes[other].tolist()) <= 0.3 for other in kept):
                kept.append(index)
        survivors += [(float(scores[index, channel]), channel, index) for index in kept]
    survivors = sorted(survivors, key=lambda one: -one[0])[:limit]
    results = []
    for score, channel, index in survivors:
        voters = [one for one in range(len(boxes)) if iou(boxes[one].tolist(), boxes[index].tolist()) >= 0.5]
        total = sum(float(scores[one, channel]) for one in voters)
        votes = torch.zeros(size, dtype=torch.float64)
        for one in voters:
            x1, y1, x2, y2 = (math.floor(value + 0.5) for value in boxes[one].tolist())
            mask = resized(masks[one], y2 - y1, x2 - x1)
            for row in range(y2 - y1):
                for column in range(x2 - x1):
                    vote = float(mask[row][column] >= 0.4) if binarize else mask[row][column]
                    votes[y1 + row, x1 + column] += vote * float(scores[one, channel]) / total
        results.append((channel, score, votes >= 0.4))
    return results


def full(voted: Voted, index: int, size: tuple[int, int]) -> Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    x1, y1, x2, y2 = voted.boxes[index].tolist()
    mask[y1:y2, x1:x2] = voted.crops[index]
    return mask


@pytest.mark.parametrize("binarize", [True, False])
def test_it_is_the_slow_vote(binarize: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    size = (40, 50)
    centres = torch.tensor([[15.0, 15.0], [35.0, 25.0]], dtype=torch.float64)[torch.arange(10) % 2]
    centres = centres + torch.rand(10, 2, generator=generator, dtype=torch.float64) * 6 - 3
    sides = torch.rand(10, 2, generator=generator, dtype=torch.float64) * 6 + 14
    boxes = torch.cat([centres - sides / 2, centres + sides / 2], dim=1)
    masks = torch.rand(10, 7, 7, generator=generator, dtype=torch.float64)
    scores = torch.rand(10, 4, generator=generator, dtype=torch.float64)
    voted = vote_masks(boxes, masks, scores, size, max_detections=5, binarize=binarize)
    wanted = slow_vote(boxes, masks, scores, size, limit=5, binarize=binarize)
    assert voted.channels.tolist() == [channel for channel, _, _ in wanted]
    assert voted.scores.tolist() == [score for _, score, _ in wanted]
    for index, (_, _, mask) in enumerate(wanted):
        assert torch.equal(full(voted, index, size), mask)
        assert voted.crops[index].any(dim=0)[[0, -1]].all()
        assert voted.crops[index].any(dim=1)[[0, -1]].all()


def test_the_heavier_votes_win() -> None:
    boxes = torch.tensor([[2.0, 2.0, 6.0, 6.0]] * 3)
    left, right = torch.zeros(4, 4), torch.zeros(4, 4)
    left[:, :2], right[:, 2:] = 1.0, 1.0
    scores = torch.tensor([[0.0, 0.9], [0.0, 0.3], [0.0, 0.3]])
    voted = vote_masks(boxes, torch.stack([left, right, right]), scores, (8, 8))
    # the left half has 0.9 / 1.5 = 0.6 of the votes, the right half 0.4: as much as is needed
    assert voted.boxes.tolist() == [[2, 2, 6, 6]]
    scores[0, 1] = 0.95
    voted = vote_masks(boxes, torch.stack([left, right, right]), scores, (8, 8))
    assert voted.boxes.tolist() == [[2, 2, 4, 6]]
    assert voted.scores.tolist() == pytest.approx([0.95])


def test_empty_masks_and_low_scores_are_skipped() -> None:
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [4.0, 4.0, 8.0, 8.0], [7.9, 7.9, 8.0, 8.0]])
    masks = torch.stack([torch.zeros(3, 3), torch.ones(3, 3), torch.ones(3, 3)])
    scores = torch.tensor([[0.1, 0.9], [0.2, 0.8], [0.8, 0.2]])
    voted = vote_masks(boxes, masks, scores, (8, 8), score_threshold=0.3)
    assert voted.boxes.tolist() == [[4, 4, 8, 8]]
    voted = vote_masks(boxes, masks, scores, (8, 8))
    assert voted.boxes.tolist() == [[4, 4, 8, 8], [7, 7, 8, 8]]
    nothing = vote_masks(torch.zeros(0, 4), torch.zeros(0, 3, 3), torch.zeros(0, 2), (8, 8))
    assert nothing.boxes.shape == (0, 4)
    assert nothing.crops == []
