"""The heuristic that merges objects and stuff."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixelwise.errors import DataError
from pixelwise.nn import panoptic_merge
from pixelwise.nn.panoptic_merge import merge_segments
from pixelwise.types import Instances, Masks

SIZE = (4, 4)


def instances(masks: torch.Tensor, labels: list[int], scores: list[float]) -> Instances:
    packed = Masks.from_dense(masks)
    label = torch.tensor(labels, dtype=torch.int64)
    return Instances(packed.boxes.float(), label, packed, torch.tensor(scores))


def rectangles(*boxes: tuple[int, int, int, int]) -> torch.Tensor:
    dense = torch.zeros(len(boxes), *SIZE, dtype=torch.bool)
    for number, (x1, y1, x2, y2) in enumerate(boxes):
        dense[number, y1:y2, x1:x2] = True
    return dense


def test_by_hand() -> None:
    """The surer of two objects lies on top; one hidden by half stays, by more goes; stuff of one pixel goes."""
    semantic = torch.tensor([[0, 0, 0, 0], [0, 2, 2, 0], [255, 2, 2, 3], [255, 2, 2, 0]], dtype=torch.uint8)
    found = instances(
        rectangles((0, 0, 2, 2), (1, 0, 3, 2), (0, 0, 3, 1), (0, 0, 4, 4)), [1, 2, 1, 2], [0.7, 0.9, 0.6, 0.4]
    )
    confidence = torch.full(SIZE, 0.5)
    confidence[3, 3] = 0.25
    panoptic = merge_segments(
        semantic, found, num_classes=4, things=(1, 2), confidence=confidence, smallest_stuff=2
    )  # fmt: skip
    assert panoptic.ids.tolist() == [[6, 5, 5, 1], [6, 5, 5, 1], [0, 0, 0, 0], [0, 0, 0, 1]]
    assert panoptic.segment_ids.tolist() == [1, 5, 6]
    assert panoptic.labels.tolist() == [0, 2, 1]
    assert panoptic.scores is not None
    assert panoptic.scores.tolist() == pytest.approx([(0.5 + 0.5 + 0.25) / 3, 0.9, 0.7])
    assert not panoptic.crowd.any()


def test_equal_halves_stay() -> None:
    """Half is not more than half."""
    found = instances(rectangles((0, 0, 2, 4), (0, 0, 4, 4)), [1, 1], [0.9, 0.8])
    panoptic = merge_segments(torch.zeros(SIZE, dtype=torch.uint8), found, num_classes=2, things=(1,))
    assert panoptic.ids[0].tolist() == [3, 3, 4, 4]
    found = instances(rectangles((0, 0, 3, 4), (0, 0, 4, 4)), [1, 1], [0.9, 0.8])
    panoptic = merge_segments(torch.zeros(SIZE, dtype=torch.uint8), found, num_classes=2, things=(1,))
    assert panoptic.ids[0].tolist() == [3, 3, 3, 0]


def test_a_slow_second_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random masks on random stuff, by dense masks and loops."""
    monkeypatch.setattr(panoptic_merge, "SLAB_PIXELS", 60)
    generator = np.random.default_rng(0)
    for _ in range(5):
        semantic = generator.integers(0, 7, (20, 24)).astype(np.uint8)
        masks = np.zeros((6, 20, 24), dtype=bool)
        for mask in masks:
            y, x = generator.integers(0, 12, 2)
            mask[y : y + 8, x : x + 10] = generator.random((8, 10)) < 0.8
        labels, scores = generator.integers(4, 6, 6), generator.random(6).round(3)
        expected = np.zeros((20, 24), dtype=int)
        kept = 0
        for number in np.argsort(-scores):
            if scores[number] < 0.3 or (masks[number] & (expected > 0)).sum() / masks[number].sum() > 0.5:
                continue
            expected[masks[number] & (expected == 0)] = 7 + 1 + kept
            kept += 1
        for label in (0, 1, 2, 3, 6):
            region = (semantic == label) & (expected == 0)
            if region.sum() >= 50:
                expected[region] = label + 1
        found = instances(torch.from_numpy(masks), labels.tolist(), scores.tolist())
        panoptic = merge_segments(
            torch.from_numpy(semantic), found, num_classes=7, things=(4, 5), score_threshold=0.3, smallest_stuff=50
        )
        assert np.array_equal(panoptic.ids.numpy(), expected)


def test_nothing_at_all() -> None:
    none = instances(torch.zeros(0, *SIZE, dtype=torch.bool), [], [])
    panoptic = merge_segments(torch.full(SIZE, 255, dtype=torch.uint8), none, num_classes=3, things=(1, 2))
    assert len(panoptic) == 0
    assert not panoptic.ids.any()


def test_crowds_and_what_is_no_thing_are_skipped() -> None:
    found = instances(rectangles((0, 0, 2, 4), (2, 0, 4, 4)), [1, 0], [0.9, 0.8])
    crowd = Instances(found.boxes, found.labels, found.masks, found.scores, crowd=torch.tensor([True, False]))
    panoptic = merge_segments(torch.ones(SIZE, dtype=torch.uint8), crowd, num_classes=2, things=(1,))
    assert not panoptic.ids.any()


def test_objects_that_cannot_be_merged_are_named() -> None:
    found = instances(rectangles((0, 0, 2, 2)), [1], [0.9])
    with pytest.raises(DataError, match="semantic map of 5×4, instances of 4×4"):
        merge_segments(torch.zeros(5, 4, dtype=torch.uint8), found, num_classes=2, things=(1,))
    bare = Instances(found.boxes, found.labels, None, found.scores)
    with pytest.raises(DataError, match="have none"):
        merge_segments(torch.zeros(SIZE, dtype=torch.uint8), bare, num_classes=2, things=(1,))
