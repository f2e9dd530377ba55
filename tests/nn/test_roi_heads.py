"""Heads of boxes: pooling, sampling, detections and losses against torchvision's."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection import roi_heads as theirs
from torchvision.ops import MultiScaleRoIAlign, roi_pool

from pixelwise.losses.detection import box_term, class_term, mask_term
from pixelwise.nn.roi_heads import (
    BoxHead,
    BoxPredictor,
    MaskHead,
    RoIPooling,
    sample_rois,
    select_detections,
)
from pixelwise.ops.boxes import RCNN_WEIGHTS, encode_boxes, pairwise_iou
from pixelwise.types import Instances, Masks
from tests.random_boxes import random_boxes

STRIDES = (4, 8, 16, 32)


def some_levels(count: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(count, 5, 512 // stride, 640 // stride, generator=generator) for stride in STRIDES]


def boxes_of_all_sizes(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    sides = 2 ** (torch.linspace(3, 8.9, count)[:, None] + torch.rand(count, 2, generator=generator) * 0.1)
    corners = torch.rand(count, 2, generator=generator) * (torch.tensor([640.0, 512.0]) - sides)
    return torch.cat([corners, corners + sides], dim=1)


def test_levels_follow_equation_1() -> None:
    pooling = RoIPooling(STRIDES, size=7)
    sides = torch.tensor([20.0, 111.9, 112.0, 223.9, 224.0, 447.9, 448.0, 1000.0])
    boxes = torch.stack([torch.zeros(8), torch.zeros(8), sides, sides], dim=1)
    assert pooling.levels_of(boxes).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    coarse = RoIPooling(STRIDES[1:], size=7)
    assert coarse.levels_of(boxes).tolist() == [0, 0, 0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("sampling_ratio", [2, 0])
def test_pooling_is_torchvisions(sampling_ratio: int) -> None:
    levels, boxes = some_levels(), [boxes_of_all_sizes(20, 0), boxes_of_all_sizes(11, 1)]
    ours = RoIPooling(STRIDES, size=7, sampling_ratio=sampling_ratio)
    assert set(ours.levels_of(torch.cat(boxes)).tolist()) == {0, 1, 2, 3}
    align = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, sampling_ratio)
    expected = align({str(number): x for number, x in enumerate(levels)}, boxes, [(512, 640)] * 2)
    extra = torch.zeros(2, 5, 8, 10)  # the RPN's own level
    assert torch.allclose(ours([*levels, extra], boxes), expected, atol=1e-5)
    learning = ours([x.requires_grad_() for x in levels], boxes)
    assert torch.equal(learning, expected)
    assert learning.requires_grad


def test_aligned_pooling_is_moved_by_half_a_cell() -> None:
    x = torch.arange(12.0).view(1, 1, 1, 12).expand(1, 1, 12, 12)  # the value is the column
    box = [torch.tensor([[8.0, 8.0, 32.0, 32.0]])]  # columns 2 to 8 of stride 4
    legacy, aligned = (
        RoIPooling((4,), size=2, sampling_ratio=2, is_aligned=is_aligned)([x], box) for is_aligned in (False, True)
    )
    # the middles of the two halves lie at 3.5 and 6.5 cells, of which the centre of cell i is at i + 0.5
    assert aligned[0, 0, 0].tolist() == pytest.approx([3.0, 6.0])
    assert legacy[0, 0, 0].tolist() == pytest.approx([3.5, 6.5])


@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_aligned_pooling_is_detectron2s_formula(sampling_ratio: int) -> None:
    """`ROIAlign` with `aligned=True`, sample by sample.

    With a ratio of 0 each cell has as many samples as pixels, rounded up. A sample more than a pixel beyond the map is
    0, a nearer one takes the pixel at the border.
    """
    generator = torch.Generator().manual_seed(0)
    x, stride, size = torch.randn(1, 1, 9, 11, generator=generator), 4, 3
    boxes = torch.tensor([[3.0, 5.0, 30.0, 17.5], [0.0, 0.0, 44.0, 36.0], [-9.0, 20.0, 13.0, 60.0]])

    def read(y: float, x_: float) -> float:
        height, width = x.shape[2:]
        if not (-1 <= y <= height and -1 <= x_ <= width):
            return 0.0
        y, x_ = min(max(y, 0.0), height - 1), min(max(x_, 0.0), width - 1)
        top, left = min(int(y), height - 2), min(int(x_), width - 2)
        dy, dx = y - top, x_ - left
        (a, b), (c, d) = x[0, 0, top : top + 2, left : left + 2].tolist()
        return (1 - dy) * ((1 - dx) * a + dx * b) + dy * ((1 - dx) * c + dx * d)

    found = RoIPooling((stride,), size=size, sampling_ratio=sampling_ratio, is_aligned=True)([x], [boxes])
    for index, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        top, left = y1 / stride - 0.5, x1 / stride - 0.5
        height, width = (y2 - y1) / stride / size, (x2 - x1) / stride / size
        rows, columns = sampling_ratio or math.ceil(height), sampling_ratio or math.ceil(width)
        for row, column in itertools.product(range(size), repeat=2):
            samples = [
                read(top + (row + (i + 0.5) / rows) * height, left + (column + (j + 0.5) / columns) * width)
                for i, j in itertools.product(range(rows), range(columns))
            ]
            assert float(found[index, 0, row, column]) == pytest.approx(sum(samples) / len(samples), abs=1e-5)


def test_roi_pool_takes_the_same_levels() -> None:
    levels, boxes = some_levels(), [boxes_of_all_sizes(9, 0), boxes_of_all_sizes(5, 1)]
    ours = RoIPooling(STRIDES, size=7, kind="pool")
    found, level = ours(levels, boxes), ours.levels_of(torch.cat(boxes))
    images = torch.tensor([0] * 9 + [1] * 5)
    for index, box in enumerate(torch.cat(boxes)):
        number = int(level[index])
        roi = torch.cat([images[index : index + 1].float(), box])[None]
        assert torch.equal(found[index], roi_pool(levels[number], roi, 7, 1 / STRIDES[number])[0])


def test_no_boxes_give_no_features_but_a_gradient_path() -> None:
    levels = [x.requires_grad_() for x in some_levels()]
    pooled = RoIPooling(STRIDES, size=7)(levels, [torch.zeros(0, 4)] * 2)
    assert pooled.shape == (0, 5, 7, 7)
    head = MaskHead(5, 3, convolutions=1, has_norm=True, channels=4).train()
    masks = head(pooled, torch.zeros(0, dtype=torch.int64))
    assert masks.shape == (0, 14, 14)
    mask_term(masks, torch.zeros(0, 14, 14)).sum.backward()
    assert head.predictor.weight.grad is not None
    assert not head.predictor.weight.grad.any()


def test_the_mask_of_the_class_is_one_of_all() -> None:
    torch.manual_seed(0)
    head = MaskHead(5, 3, convolutions=2, channels=4)
    torch.nn.init.normal_(head.predictor.weight)
    torch.nn.init.normal_(head.predictor.bias)
    x, channels = torch.randn(6, 5, 14, 14), torch.tensor([1, 3, 2, 3, 1, 2])
    hidden = F.relu(head.enlargement(head.convolutions(x)))
    every = F.conv2d(hidden, head.predictor.weight[:, :, None, None], head.predictor.bias)
    assert torch.allclose(head(x, channels), every[torch.arange(6), channels - 1], atol=1e-6)


def test_shapes_of_the_box_head() -> None:
    for head in (BoxHead(5, width=8), BoxHead(5, convolutions=4, has_norm=True, hidden=1, width=8)):
        logits, deltas = BoxPredictor(head.width, 3)(head(torch.randn(6, 5, 7, 7)))
        assert logits.shape == (6, 4)
        assert deltas.shape == (6, 3, 4)


def their_heads(limit: int) -> theirs.RoIHeads:
    nothing: Any = None
    return theirs.RoIHeads(
        nothing, nothing, nothing, 0.5, 0.5, 512, 0.25, None, 0.05, 0.5, limit, nothing, nothing, nothing
    )


@pytest.mark.parametrize("limit", [100, 7])
@torch.no_grad()
def test_suppression_and_choice_are_torchvisions_on_the_same_numbers(limit: int) -> None:
    generator = torch.Generator().manual_seed(0)
    counts, sizes, classes = [150, 0, 90], [(90, 120), (80, 80), (100, 60)], 5
    proposals = [random_boxes(count, seed, size=70.0) for seed, count in enumerate(counts)]
    logits = torch.randn(sum(counts), classes, generator=generator) * 2
    logits = (logits * 4).round() / 4  # so that there are ties
    deltas = torch.randn(sum(counts), 4 * classes, generator=generator)
    expected = their_heads(limit).postprocess_detections(logits, deltas, proposals, sizes)
    found = [
        select_detections(image_logits, image_deltas[:, 1:], boxes, size, max_detections=limit)
        for image_logits, image_deltas, boxes, size in zip(
            logits.split(counts), deltas.unflatten(1, (classes, 4)).split(counts), proposals, sizes, strict=True
        )
    ]
    for one, boxes, scores, labels in zip(found, *expected, strict=True):
        assert torch.equal(one.boxes, boxes)
        assert torch.equal(one.channels, labels)
        assert torch.allclose(one.scores, scores)
    assert [len(one.boxes) for one in found] == [limit, 0, limit] if limit == 7 else len(found[0].boxes) > 20


def truth_of(boxes: Tensor, crowd: list[bool] | None = None) -> Instances:
    return Instances(
        boxes=boxes,
        labels=torch.arange(len(boxes)) + 1,
        crowd=None if crowd is None else torch.tensor(crowd),
    )


def test_samples_of_proposals() -> None:
    truth = torch.tensor([[0.0, 0, 10, 10], [50, 50, 90, 90], [20, 20, 30, 40]])
    proposals = torch.tensor([[1.0, 0, 10, 10], [20, 20, 30, 39], [70, 0, 80, 9], [52, 52, 88, 88], [51, 49, 60, 60]])
    instances, channels = truth_of(truth, [False, True, False]), torch.tensor([4, 2, 1])
    samples = sample_rois([proposals], [instances], [channels], samples=50, positive_fraction=1.0)
    boxes, classes, objects, targets = (part[0] for part in samples)
    # two proposals and the two true boxes that are no crowd; one background, the two others lie in the crowd
    assert classes.tolist() == [4, 1, 4, 1, 0]
    assert objects.tolist() == [0, 2, 0, 2]
    assert boxes.tolist() == [*proposals[:2].tolist(), truth[0].tolist(), truth[2].tolist(), proposals[2].tolist()]
    assert torch.equal(targets, encode_boxes(truth[objects], boxes[:4], weights=RCNN_WEIGHTS))
    few = sample_rois([proposals], [instances], [channels], samples=4, positive_fraction=0.25)
    assert [int((part > 0).sum()) for part in few.channels] == [1]


def test_without_objects_all_is_background() -> None:
    nothing = truth_of(torch.zeros(0, 4))
    samples = sample_rois([random_boxes(9, 0)], [nothing], [nothing.labels], samples=5)
    assert samples.channels[0].tolist() == [0] * 5
    assert len(samples.objects[0]) == len(samples.targets[0]) == 0


def test_losses_are_torchvisions_on_the_same_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    truth = [random_boxes(4, 0), random_boxes(3, 1)]
    proposals = [boxes.repeat(12, 1) + torch.randn(12 * len(boxes), 4) * 8 for boxes in truth]
    proposals = [
        torch.cat([boxes[:, :2], boxes[:, :2] + (boxes[:, 2:] - boxes[:, :2]).clamp(min=3)], 1) for boxes in proposals
    ]
    channels = [torch.randint(1, 5, (len(boxes),)) for boxes in truth]
    samples = sample_rois(proposals, [truth_of(boxes) for boxes in truth], channels, samples=40, positive_fraction=0.5)
    classes = torch.cat(samples.channels)
    positives = classes > 0
    assert 5 < positives.sum() < len(classes)
    logits, deltas = torch.randn(len(classes), 5), torch.randn(len(classes), 5, 4)

    # all their targets, also of background, which is not used
    targets = [torch.zeros(len(boxes), 4) for boxes in samples.boxes]
    for target, part in zip(targets, samples.targets, strict=True):
        target[: len(part)] = part
    expected = theirs.fastrcnn_loss(logits, deltas.flatten(1), [*samples.channels], targets)
    found = class_term(logits, classes)
    assert float(found.sum / found.count) == pytest.approx(float(expected[0]), rel=1e-5)
    found = box_term(deltas[positives, classes[positives]], torch.cat(samples.targets), count=len(classes), beta=1 / 9)
    assert float(found.sum / found.count) == pytest.approx(float(expected[1]), rel=1e-5)

    # their targets are read half a pixel beside ours; ours are given to both
    side = 28
    mask_targets = [(torch.rand(len(part), side, side) > 0.5).float() for part in samples.objects]
    given = iter(mask_targets)
    monkeypatch.setattr(theirs, "project_masks_on_boxes", lambda *_: next(given))
    mask_logits = torch.randn(int(positives.sum()), 5, side, side)
    found_boxes = [boxes[: len(part)] for boxes, part in zip(samples.boxes, samples.objects, strict=True)]
    masks = [torch.zeros(len(boxes), 1, 1) for boxes in truth]
    expected_mask = theirs.maskrcnn_loss(mask_logits, found_boxes, masks, channels, [*samples.objects])
    matched = mask_logits[torch.arange(len(mask_logits)), classes[positives]]
    found = mask_term(matched, torch.cat(mask_targets))
    assert float(found.sum / found.count) == pytest.approx(float(expected_mask), rel=1e-5)


def test_what_is_positive_overlaps_by_a_half() -> None:
    truth, proposals = random_boxes(5, 3), random_boxes(300, 4)
    samples = sample_rois([proposals], [truth_of(truth)], [torch.arange(5) + 1], samples=10**6)
    best = pairwise_iou(truth, samples.boxes[0]).max(dim=0).values
    assert torch.equal(best >= 0.5, samples.channels[0] > 0)
    assert len(best) == 305


def test_mask_targets_read_at_the_centres_of_cells() -> None:
    """As detectron2's `crop_and_resize`: RoIAlign with half-pixel centres, of one sample for each cell."""
    from torchvision.ops import roi_align

    generator = torch.Generator().manual_seed(0)
    dense = F.interpolate(torch.rand(1, 3, 6, 6, generator=generator), size=(60, 60), mode="bilinear")[0] > 0.5
    boxes = torch.tensor([[5.0, 7.5, 40.2, 50.0], [10, 10, 59, 58], [0.3, 20, 30, 44]])
    rois = torch.cat([torch.arange(3.0)[:, None], boxes], dim=1)
    expected = roi_align(dense[:, None].float(), rois, 28, sampling_ratio=1, aligned=True)[:, 0]
    assert torch.allclose(Masks.from_dense(dense).sample(boxes, (28, 28)), expected, atol=1e-5)
