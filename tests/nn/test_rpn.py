"""The region proposal network against torchvision's with the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from pixelwise.losses.detection import box_term, objectness_term
from pixelwise.nn.rpn import RPN, AnchorSamples, RPNPredictions, split_crowds
from pixelwise.ops.anchors import base_anchors
from pixelwise.ops.boxes import clip_boxes, decode_boxes
from pixelwise.types import Instances

CHANNELS = 6
SIZES = ((16,), (32,), (64,))
RATIOS = (0.5, 1.0, 2.0)
IMAGE = (96, 128)
VALID = ((96, 128), (90, 70))
EVERY = 10**6


def our_rpn(convolutions: int = 1, **options: object) -> RPN:
    base = [base_anchors(size, RATIOS, is_rounded=True) for size in SIZES]
    return RPN(CHANNELS, base_anchors=base, strides=None, convolutions=convolutions, **options)  # pyright: ignore[reportArgumentType]


def their_rpn(ours: RPN, convolutions: int) -> RegionProposalNetwork:
    head = RPNHead(CHANNELS, 3, convolutions)
    names = {"convolutions.": "conv.", "objectness.": "cls_logits.", "deltas.": "bbox_pred."}
    weights = {}
    for key, tensor in ours.state_dict().items():
        old = next(name for name in names if key.startswith(name))
        weights[key.replace(old, names[old], 1)] = tensor
    head.load_state_dict(weights)
    generator = AnchorGenerator(SIZES, (RATIOS,) * len(SIZES))
    numbers = {"training": 60, "testing": 40}, {"training": 50, "testing": 30}
    theirs = RegionProposalNetwork(generator, head, 0.7, 0.3, EVERY, 0.5, *numbers, 0.7)
    return theirs.eval()


@pytest.fixture
def levels() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    # the last map is not the image over a whole number, as torchvision rounds its stride down
    return [torch.randn(2, CHANNELS, *size, generator=generator) for size in ((24, 32), (12, 16), (5, 7))]


def lively(rpn: RPN) -> RPN:
    torch.manual_seed(0)
    for parameter in rpn.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return rpn.eval()


def objects_of(*boxes: list[float], crowd: list[bool] | None = None) -> Instances:
    return Instances(
        boxes=torch.tensor(boxes).reshape(-1, 4),
        labels=torch.ones(len(boxes), dtype=torch.int64),
        crowd=None if crowd is None else torch.tensor(crowd),
    )


TRUTH = (
    objects_of([10.0, 10, 40, 50], [60, 5, 70, 14], [20, 30, 100, 90]),
    objects_of([5.0, 5, 60, 80]),
)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("convolutions", [1, 2])
@torch.no_grad()
def test_proposals_are_torchvisions(levels: list[Tensor], convolutions: int, training: bool) -> None:
    ours = lively(our_rpn(convolutions, pre_nms_topk=(60, 40), post_nms_topk=(50, 30)))
    theirs = their_rpn(ours, convolutions)
    ours.train(training)
    theirs.training = training
    images = ImageList(torch.zeros(2, 3, *IMAGE), [*VALID])
    truth = [{"boxes": one.boxes} for one in TRUTH]
    expected, _ = theirs(images, {str(number): x for number, x in enumerate(levels)}, truth)
    predictions = ours(levels, IMAGE)
    proposals = ours.propose(predictions, VALID)
    for image, their_boxes in enumerate(expected):
        boxes, scores, places = (part[image] for part in proposals)
        assert len(boxes) == len(their_boxes) > 20
        assert torch.allclose(boxes, their_boxes, atol=1e-3)
        assert (scores.diff() <= 0).all()
        deltas, anchors = torch.cat(predictions.deltas, dim=1)[image], torch.cat(predictions.anchors)
        assert torch.equal(boxes, clip_boxes(decode_boxes(deltas, anchors), VALID[image])[places])


def samples_of(rpn: RPN, levels: list[Tensor], truth: tuple[Instances, ...]) -> tuple[RPNPredictions, AnchorSamples]:
    predictions = rpn(levels, IMAGE)
    return predictions, rpn.sample(predictions, VALID, truth)


def test_losses_are_torchvisions_on_all_anchors(levels: list[Tensor]) -> None:
    ours = lively(our_rpn(samples=EVERY, positive_fraction=0.5))
    theirs: Any = their_rpn(ours, 1).train()
    _, samples = samples_of(ours, levels, TRUTH)
    images = ImageList(torch.zeros(2, 3, *IMAGE), [*VALID])
    truth = [{"boxes": one.boxes} for one in TRUTH]
    _, expected = theirs(images, {str(number): x for number, x in enumerate(levels)}, truth)
    objectness = objectness_term(torch.cat(samples.logits), torch.cat(samples.is_object))
    box = box_term(
        torch.cat(samples.deltas), torch.cat(samples.targets), count=len(torch.cat(samples.logits)), beta=1 / 9
    )
    assert torch.cat(samples.is_object).sum() >= 4
    assert float((objectness.sum / objectness.count).detach()) == pytest.approx(
        expected["loss_objectness"].item(), rel=1e-5
    )
    assert float((box.sum / box.count).detach()) == pytest.approx(expected["loss_rpn_box_reg"].item(), rel=1e-5)
    (objectness.sum / objectness.count + box.sum / box.count).backward()
    torch.stack([*expected.values()]).sum().backward()
    for one, other in ((ours.deltas, theirs.head.bbox_pred), (ours.objectness, theirs.head.cls_logits)):
        assert one.weight.grad is not None
        assert one.weight.grad.any()
        assert torch.allclose(one.weight.grad, other.weight.grad, atol=1e-6)


def test_so_many_are_sampled_and_every_object_has_an_anchor(levels: list[Tensor]) -> None:
    torch.manual_seed(0)
    _, samples = samples_of(our_rpn(samples=64), levels, TRUTH)
    for logits, is_object, deltas, targets in zip(*samples, strict=True):
        assert len(logits) == len(is_object) == 64
        positives = int(is_object.sum())
        assert is_object.tolist() == [True] * positives + [False] * (64 - positives)
        assert len(deltas) == len(targets) == positives > 0


def test_background_in_a_crowd_is_ignored(levels: list[Tensor]) -> None:
    crowd = objects_of([0.0, 0, 128, 96], crowd=[True])
    _, samples = samples_of(our_rpn(samples=EVERY), levels, (crowd, objects_of()))
    # whatever lies in the crowd by 70 % is skipped; without objects all anchors are background
    total = sum(level.shape[2] * level.shape[3] * 3 for level in levels)
    assert len(samples.logits[1]) == total
    assert 0 < len(samples.logits[0]) < total // 4
    assert not samples.is_object[0].any()
    assert [len(part) for part in split_crowds(crowd)] == [0, 1]
    term = box_term(samples.deltas[1], samples.targets[1], count=total, beta=1.0)
    term.sum.backward()
    assert float(term.sum.detach()) == 0


@pytest.mark.parametrize("border", [0, 7])
def test_anchors_that_cross_the_border_are_not_learnt_from(levels: list[Tensor], border: int) -> None:
    """All that is drawn lies in the valid part of its image, so far as it may; and all of that is drawn."""
    rpn = lively(our_rpn(samples=EVERY, positive_fraction=1.0, allowed_border=border, negative_overlap=0.7))
    predictions, samples = samples_of(rpn, levels, TRUTH)
    every, anchors = torch.cat(predictions.logits, dim=1), torch.cat(predictions.anchors).tolist()
    for index, (height, width) in enumerate(VALID):
        usable = [
            number
            for number, (x1, y1, x2, y2) in enumerate(anchors)
            if min(x1, y1) >= -border and x2 <= width + border and y2 <= height + border
        ]
        assert len(usable) < len(anchors) * 0.9
        assert sorted(samples.logits[index].tolist()) == sorted(every[index, usable].tolist())
        assert samples.is_object[index].any()


def test_the_best_anchors_are_those_inside(levels: list[Tensor]) -> None:
    """An object in the corner has the best of the anchors that do not cross the border, if it overlaps it enough."""
    truth = (objects_of([0.0, 0, 9, 9]), objects_of([0.0, 0, 9, 9]))
    for smallest, found in ((None, True), (0.1, True), (0.6, False)):
        rpn = lively(our_rpn(samples=EVERY, allowed_border=0, min_pos_iou=smallest))
        _, samples = samples_of(rpn, levels, truth)
        assert [bool(one.any()) for one in samples.is_object] == [found] * 2


def test_anchors_of_nominal_strides_do_not_depend_on_the_image() -> None:
    base = [base_anchors((32,), (1.0,), is_rounded=False)]
    rpn = RPN(CHANNELS, base_anchors=base, strides=[16], anchor_offset=0.5)
    predictions = rpn([torch.zeros(1, CHANNELS, 2, 3)], (40, 48))
    centres = (predictions.anchors[0][:, :2] + predictions.anchors[0][:, 2:]) / 2
    assert centres.tolist() == [[8, 8], [24, 8], [40, 8], [8, 24], [24, 24], [40, 24]]
