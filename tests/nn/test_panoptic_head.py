"""The panoptic head beside its formulas, pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pixelwise.nn import panoptic_head
from pixelwise.nn.panoptic_head import (
    IGNORED,
    panoptic_logits,
    panoptic_segments,
    panoptic_targets,
    places_of,
    uncovered,
)
from pixelwise.types import Masks, Panoptic

CLASSES = 6
THINGS = (1, 4, 5)
STUFF = (0, 2, 3)


def objects(count: int, size: tuple[int, int], *, seed: int, side: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes in pixels with fractions, labels, and masks before the sigmoid."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * torch.tensor([size[1] * 0.7, size[0] * 0.7])
    sides = 2 + torch.rand(count, 2, generator=generator) * torch.tensor([size[1] * 0.5, size[0] * 0.5])
    boxes = torch.cat([corners, torch.minimum(corners + sides, torch.tensor([size[1], size[0]]))], dim=1)
    labels = torch.tensor(THINGS)[torch.randint(0, len(THINGS), (count,), generator=generator)]
    return boxes.double(), labels, torch.randn(count, side, side, generator=generator).double()


def mask_at(mask: Tensor, x: int, y: int, box: list[float], stride: float) -> float:
    """The mask enlarged bilinearly to the whole cells of its box, 0 outside: section 8 of the papers file."""
    left, top = int(box[0] / stride), int(box[1] / stride)
    width = max(int((box[2] - 1) / stride) + 1 - left, 1)
    height = max(int((box[3] - 1) / stride) + 1 - top, 1)
    if not (left <= x < left + width and top <= y < top + height):
        return 0.0
    side = mask.shape[0]
    u = min(max((x - left + 0.5) * side / width - 0.5, 0), side - 1)
    v = min(max((y - top + 0.5) * side / height - 0.5, 0), side - 1)
    value = 0.0
    for row, share_y in ((int(v), 1 - v % 1), (int(v) + 1, v % 1)):
        for column, share_x in ((int(u), 1 - u % 1), (int(u) + 1, u % 1)):
            if share_x and share_y:
                value += share_x * share_y * float(mask[row, column])
    return value


def scores_at(
    semantic: Tensor, x: int, y: int, boxes: Tensor, labels: Tensor, masks: Tensor, stride: float
) -> tuple[list[float], list[float], float]:
    """Of one cell: the scores of stuff, of each object, and of what is unknown."""
    terms: list[float] = []
    found: list[float] = []
    for box, label, mask in zip(boxes.tolist(), labels.tolist(), masks, strict=True):
        left, top = int(box[0] / stride), int(box[1] / stride)
        right = max(round((box[2] - 1) / stride) + 1, left + 1)
        bottom = max(round((box[3] - 1) / stride) + 1, top + 1)
        inside = left <= x < right and top <= y < bottom
        terms.append(float(semantic[label, y, x]) if inside else 0.0)  # zero, not minus infinity
        found.append(terms[-1] + mask_at(mask, x, y, box, stride))
    unknown = max(float(semantic[thing, y, x]) for thing in THINGS) - max(terms, default=0.0)
    return [float(semantic[number, y, x]) for number in STUFF], found, unknown


@pytest.mark.parametrize("count", [0, 1, 6])
def test_logits_in_training_are_those_of_the_formula(count: int) -> None:
    height, width = 9, 13
    semantic = torch.randn(CLASSES, height, width, generator=torch.Generator().manual_seed(1)).double()
    boxes, labels, masks = objects(count, (4 * height, 4 * width), seed=count)
    found = panoptic_logits(semantic, boxes, labels, masks, things=THINGS, stride=4)
    assert found.shape == (len(STUFF) + count + 1, height, width)
    for y in range(height):
        for x in range(width):
            stuff, of_objects, unknown = scores_at(semantic, x, y, boxes, labels, masks, 4)
            expected = torch.tensor([*stuff, *of_objects, unknown]).double()
            assert torch.allclose(found[:, y, x], expected, atol=1e-9), (x, y)
    without = panoptic_logits(semantic, boxes, labels, masks, things=THINGS, stride=4, has_unknown=False)
    assert torch.equal(without, found[:-1])


def test_by_hand() -> None:
    """One object of class 1 in the left half of 2×4 cells; its mask is 3 everywhere."""
    semantic = torch.tensor([[[-1.0, -1, -1, -1]] * 2, [[2.0, 2, 5, 5]] * 2])
    found = panoptic_logits(
        semantic, torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([1]), torch.full((1, 2, 2), 3.0), things=(1,)
    )
    assert found[0].tolist() == [[-1, -1, -1, -1]] * 2
    assert found[1].tolist() == [[5, 5, 0, 0]] * 2
    assert found[2].tolist() == [[0, 0, 5, 5]] * 2, "outside shows a thing that nobody found"
    panoptic = panoptic_segments(
        semantic,
        torch.tensor([[0.0, 0, 2, 2]]),
        torch.tensor([1]),
        torch.full((1, 2, 2), 3.0),
        torch.tensor([0.75]),
        (2, 4),
        things=(1,),
        covered=(2.0, 4.0),
        smallest_stuff=0,
    )
    assert panoptic.ids.tolist() == [[3, 3, 0, 0]] * 2
    assert panoptic.segment_ids.tolist() == [3]
    assert panoptic.scores is not None
    assert panoptic.scores.tolist() == [0.75]


def test_gradients_reach_scores_and_masks() -> None:
    semantic = torch.randn(CLASSES, 9, 13, requires_grad=True)
    boxes, labels, masks = objects(3, (36, 52), seed=0)
    masks = masks.float().requires_grad_()
    panoptic_logits(semantic, boxes.float(), labels, masks, things=THINGS, stride=4).square().sum().backward()
    assert semantic.grad is not None
    assert semantic.grad.any(dim=(1, 2)).all()
    assert masks.grad is not None
    assert masks.grad.any(dim=(1, 2)).all()


def test_targets_of_cells() -> None:
    """Read at every fourth pixel: stuff in its order, two objects, and pixels of things without an object."""
    semantic = torch.full((8, 12), 3)
    semantic[:, 4:] = 1
    semantic[4:, 8:] = 255
    masks = torch.zeros(2, 8, 12, dtype=torch.bool)
    masks[0, :, 4:6] = True
    masks[1, 3:5, 7:10] = True
    packed = Masks.from_dense(masks)
    targets = panoptic_targets(semantic, packed, num_classes=CLASSES, things=THINGS, stride=4, size=(3, 4))
    unknown = len(STUFF) + 2
    assert targets.tolist() == [
        [2, 3, unknown, IGNORED],
        [2, 3, 4, IGNORED],
        [IGNORED] * 4,
    ]
    none = packed[torch.zeros(0, dtype=torch.int64)]
    targets = panoptic_targets(
        semantic, none, num_classes=CLASSES, things=THINGS, stride=4, size=(2, 3), has_unknown=False
    )
    assert targets.tolist() == [[2, IGNORED, IGNORED]] * 2


def test_targets_are_the_masks_of_a_quarter() -> None:
    """Against dense masks, cut by strides."""
    generator = np.random.default_rng(0)
    dense = torch.zeros(5, 30, 41, dtype=torch.bool)
    for mask in dense:
        y, x = int(generator.integers(0, 26)), int(generator.integers(0, 36))
        mask[y : y + int(generator.integers(1, 20)), x : x + int(generator.integers(1, 25))] = True
    semantic = torch.from_numpy(generator.integers(0, CLASSES, (30, 41)))
    targets = panoptic_targets(
        semantic, Masks.from_dense(dense), num_classes=CLASSES, things=THINGS, stride=4, size=(8, 12)
    )
    for row in range(8):
        for column in range(12):
            expected = IGNORED
            if 4 * row < 30 and 4 * column < 41:
                label = int(semantic[4 * row, 4 * column])
                expected = STUFF.index(label) if label in STUFF else len(STUFF) + 5
                for number in range(5):
                    if dense[number, 4 * row, 4 * column]:
                        expected = len(STUFF) + number
            assert targets[row, column] == expected


def test_what_higher_scoring_ones_of_the_same_class_cover_is_skipped() -> None:
    """Boxes of 10×10 whose masks are full: the second lies over 4 of 10 columns of the first, the others do not."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [6, 0, 16, 10], [6, 0, 16, 10], [7, 0, 17, 10], [0, 12, 10, 20]])
    labels = torch.tensor([1, 1, 4, 1, 1])
    masks = torch.ones(5, 4, 4)
    masks[4] = -1  # without pixels
    assert uncovered(boxes, labels, masks, (20, 20)).tolist() == [0, 2, 3]
    assert uncovered(boxes, labels, masks, (20, 20), largest_coverage=0.4).tolist() == [0, 1, 2]
    assert uncovered(boxes[:0], labels[:0], masks[:0], (20, 20)).tolist() == []


def literal_uncovered(boxes: Tensor, labels: Tensor, masks: Tensor, size: tuple[int, int]) -> list[int]:
    taken = np.zeros((CLASSES, *size), dtype=bool)
    kept = []
    for number, (box, label) in enumerate(zip(boxes.tolist(), labels.tolist(), strict=True)):
        shown = np.array([[mask_at(masks[number], x, y, box, 1) > 0 for x in range(size[1])] for y in range(size[0])])
        if not shown.any() or (shown & taken[label]).sum() / shown.sum() > 0.3:
            continue
        taken[label] |= shown
        kept.append(number)
    return kept


def test_pruning_is_that_of_dense_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panoptic_head, "SLAB_BYTES", 200)  # several slabs
    for seed in range(4):
        boxes, labels, masks = objects(9, (20, 26), seed=seed)
        assert uncovered(boxes, labels, masks, (20, 26)).tolist() == literal_uncovered(boxes, labels, masks, (20, 26))


def literal_segments(
    semantic: Tensor,
    boxes: Tensor,
    labels: Tensor,
    masks: Tensor,
    size: tuple[int, int],
    *,
    covered: tuple[float, float],
    smallest_stuff: int,
    has_unknown: bool,
) -> tuple[np.ndarray, dict[int, float]]:
    """Ids and the scores of stuff: enlarge all, score all, take the top, then majority and smallest area."""
    height, width = size
    full = torch.zeros(CLASSES, height, width).double()
    h, w = semantic.shape[1:]
    for y in range(height):
        v = min(max((y + 0.5) * h / covered[0] - 0.5, 0), h - 1)
        for x in range(width):
            u = min(max((x + 0.5) * w / covered[1] - 0.5, 0), w - 1)
            for row, share_y in ((int(v), 1 - v % 1), (min(int(v) + 1, h - 1), v % 1)):
                for column, share_x in ((int(u), 1 - u % 1), (min(int(u) + 1, w - 1), u % 1)):
                    full[:, y, x] += share_y * share_x * semantic[:, row, column]
    top = np.zeros(size, dtype=int)
    for y in range(height):
        for x in range(width):
            stuff, found, unknown = scores_at(full, x, y, boxes, labels, masks, 1)
            every = [*stuff, *found, unknown if has_unknown else -math.inf]
            top[y, x] = every.index(max(every))
    likeliest, probabilities = full.argmax(dim=0).numpy(), full.softmax(dim=0).numpy()
    classes = np.full(size, -1)
    for number, label in enumerate(STUFF):
        classes[top == number] = label
    ids = np.zeros(size, dtype=int)
    kept = 0
    for number in range(len(boxes)):
        region = top == len(STUFF) + number
        if not region.any():
            continue
        counts = np.bincount(likeliest[region], minlength=CLASSES)
        majority = int(counts.argmax())
        if majority in STUFF and counts[majority] / region.sum() >= 0.5:
            classes[region] = majority
        else:
            ids[region] = CLASSES + 1 + kept
            kept += 1
    scores: dict[int, float] = {}
    for label in STUFF:
        region = classes == label
        if region.any() and region.sum() >= smallest_stuff:
            ids[region] = label + 1
            scores[label + 1] = float(probabilities[label][region & ((top < len(STUFF)) | (likeliest == label))].mean())
    return ids, scores


@pytest.mark.parametrize("has_unknown", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_segments_are_those_of_dense_scores(seed: int, has_unknown: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In slabs of a few rows; scores of a padded image; several objects, of which some become stuff."""
    size = (23, 31)
    monkeypatch.setattr(panoptic_head, "SLAB_BYTES", 4 * CLASSES * size[1] * 3)
    semantic = torch.randn(CLASSES, 7, 9, generator=torch.Generator().manual_seed(seed)).double() * 2
    semantic -= 0.5 if seed % 2 else 0.0  # more zeros outside of boxes win
    boxes, labels, masks = objects(5, size, seed=seed)
    scores = torch.linspace(0.9, 0.7, 5).double()
    covered = (28.0, 35.5)
    panoptic = panoptic_segments(
        semantic,
        boxes,
        labels,
        masks,
        scores,
        size,
        things=THINGS,
        covered=covered,
        smallest_stuff=20,
        has_unknown=has_unknown,
    )
    expected, stuff_scores = literal_segments(
        semantic, boxes, labels, masks, size, covered=covered, smallest_stuff=20, has_unknown=has_unknown
    )
    assert np.mean(panoptic.ids.numpy() == expected) > 0.999, "but for pixels that are nearly equal"
    assert set(panoptic.segment_ids.tolist()) == set(np.unique(panoptic.ids.numpy()).tolist()) - {0}
    assert panoptic.scores is not None
    for id, label, score in zip(
        panoptic.segment_ids.tolist(), panoptic.labels.tolist(), panoptic.scores.tolist(), strict=True
    ):
        assert (id <= CLASSES) == (label in STUFF)
        if id <= CLASSES:
            assert id == label + 1
            assert score == pytest.approx(stuff_scores[id], abs=1e-2)


def whole(label: int, semantic: list[float], *, smallest_stuff: int = 0) -> Panoptic:
    """An object of `label` whose mask wins everywhere, over pixels of these scores."""
    return panoptic_segments(
        torch.tensor(semantic).view(-1, 1, 1).expand(-1, 4, 4),
        torch.tensor([[0.0, 0, 4, 4]]),
        torch.tensor([label]),
        torch.full((1, 2, 2), 50.0),
        torch.tensor([0.9]),
        (4, 4),
        things=(1,),
        covered=(4.0, 4.0),
        smallest_stuff=smallest_stuff,
    )


def test_an_object_becomes_the_stuff_that_its_pixels_are() -> None:
    assert whole(1, [0.0, 1.0, 0.0]).ids.unique().tolist() == [4]
    stuff = whole(1, [0.0, 1.0, 3.0])
    assert stuff.ids.unique().tolist() == [3]
    assert stuff.labels.tolist() == [2]
    assert stuff.scores is not None
    assert float(stuff.scores[0]) == pytest.approx(float(torch.tensor([0.0, 1, 3]).softmax(dim=0)[2]))
    nothing = whole(1, [0.0, 1.0, 3.0], smallest_stuff=17)
    assert len(nothing) == 0
    assert nothing.ids.unique().tolist() == [0]


def test_segments_of_a_clip_are_called_by_their_tracks() -> None:
    semantic = torch.tensor([0.0, 1.0]).view(2, 1, 1).expand(2, 4, 8)
    panoptic = panoptic_segments(
        semantic,
        torch.tensor([[0.0, 0, 4, 4], [4, 0, 8, 4]]),
        torch.tensor([1, 1]),
        torch.ones(2, 2, 2),
        torch.tensor([0.9, 0.8]),
        (4, 8),
        things=(1,),
        covered=(4.0, 8.0),
        smallest_stuff=0,
        numbers=torch.tensor([7, 2]),
    )
    assert panoptic.ids[0].tolist() == [10] * 4 + [5] * 4
    assert dict(zip(panoptic.segment_ids.tolist(), panoptic.labels.tolist(), strict=True)) == {10: 1, 5: 1}


def test_places_of_boxes() -> None:
    places = places_of(torch.tensor([[3.9, 0.0, 12.0, 7.0], [0.0, 0, 1, 1]]), (3, 4), stride=4)
    assert places.semantic.tolist() == [[0, 0, 4, 3], [0, 0, 1, 1]], "2.75 rounds to 3, and one more"
    assert places.mask.tolist() == [[0, 0, 3, 2], [0, 0, 1, 1]]


def test_enlargement_is_torchs() -> None:
    """A check of the formula above."""
    mask = torch.randn(5, 5).double()
    expected = F.interpolate(mask[None, None], size=(7, 11), mode="bilinear", align_corners=False)[0, 0]
    found = [[mask_at(mask, x, y, [0, 0, 11, 7], 1) for x in range(11)] for y in range(7)]
    assert torch.allclose(torch.tensor(found).double(), expected)
