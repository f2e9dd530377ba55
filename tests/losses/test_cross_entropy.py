"""The pixel loss against a sum over pixels, one by one."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from pixelwise.errors import DataError
from pixelwise.losses.cross_entropy import PixelLoss, median_frequency_weights, stack_semantic
from pixelwise.types import Annotation

VOID = 255


def test_it_sums_the_surprise_of_every_pixel_that_is_not_ignored() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 5, 6, generator=generator)
    truth = torch.randint(0, 4, (2, 5, 6), generator=generator)
    truth[0, :2] = VOID
    term = PixelLoss()(logits, truth, weight=0.4)
    total = 0.0
    for image in range(2):
        for row in range(5):
            for column in range(6):
                if truth[image, row, column] != VOID:
                    scores = logits[image, :, row, column].tolist()
                    total -= scores[int(truth[image, row, column])] - math.log(sum(map(math.exp, scores)))
    assert float(term.sum) == pytest.approx(total, rel=1e-5)
    assert (int(term.count), term.weight) == (2 * 5 * 6 - 2 * 6, 0.4)


def test_scores_are_enlarged_and_labels_are_not_touched() -> None:
    logits = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    truth = torch.full((1, 16, 16), VOID)
    truth[0, 5, 7] = 2  # a label of one pixel, which shrinking would lose
    term = PixelLoss()(logits, truth)
    large = F.interpolate(logits, size=(16, 16), mode="bilinear", align_corners=False)
    assert float(term.sum) == pytest.approx(-float(large.log_softmax(dim=1)[0, 2, 5, 7]), rel=1e-5)
    assert int(term.count) == 1


def test_everything_ignored_gives_zero_and_a_gradient_without_nan() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    term = PixelLoss()(logits, torch.full((1, 4, 4), VOID))
    assert (float(term.sum.detach()), int(term.count)) == (0, 0)
    term.sum.backward()
    assert logits.grad is not None
    assert not logits.grad.any()


def test_scores_of_half_precision_are_summed_in_full() -> None:
    logits = torch.zeros(1, 2, 64, 64, dtype=torch.bfloat16)
    term = PixelLoss()(logits, torch.zeros(1, 64, 64, dtype=torch.int64))
    assert term.sum.dtype == torch.float32
    assert float(term.sum) == pytest.approx(64 * 64 * math.log(2), rel=1e-5)


def test_ground_truth_is_stacked_and_a_missing_one_refused() -> None:
    one = Annotation(semantic=torch.tensor([[0, VOID]], dtype=torch.uint8))
    stacked = stack_semantic((one, one))
    assert (stacked.dtype, stacked.tolist()) == (torch.int64, [[[0, VOID]], [[0, VOID]]])
    with pytest.raises(DataError, match="1 of 2 images have no class map"):
        stack_semantic((one, Annotation()))


def two_images() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 3, 7, 9, generator=generator, dtype=torch.float64)
    truth = torch.randint(0, 3, (2, 7, 9), generator=generator)
    truth[0, :3], truth[1, 5] = VOID, VOID
    return logits, truth


def test_class_weights_give_the_weighted_mean_of_torch() -> None:
    logits, truth = two_images()
    weights = (0.1, 2.5, 0.02)
    term = PixelLoss(class_weights=weights)(logits, truth)
    expected = F.cross_entropy(logits, truth, torch.tensor(weights, dtype=torch.float64), ignore_index=VOID)
    assert float(term.sum / term.count) == pytest.approx(float(expected), rel=1e-12)
    assert term.sum.dtype == torch.float64
    nothing = PixelLoss(class_weights=weights)(logits, torch.full_like(truth, VOID))
    assert (float(nothing.sum), float(nothing.count)) == (0, 0)


@pytest.mark.parametrize("weights", [None, (1.0, 0.2, 3.0)])
def test_the_hardest_pixels_of_each_image_are_those_of_a_sorted_list(weights: tuple[float, ...] | None) -> None:
    logits, truth = two_images()
    term = PixelLoss(class_weights=weights, ohem=0.3)(logits, truth, weight=0.4)
    total = count = 0.0
    for image in range(2):
        losses: list[tuple[float, float]] = []
        for row in range(7):
            for column in range(9):
                label = int(truth[image, row, column])
                if label != VOID:
                    scores = logits[image, :, row, column].tolist()
                    factor = weights[label] if weights else 1.0
                    losses.append((factor * (math.log(sum(map(math.exp, scores))) - scores[label]), factor))
        chosen = sorted(losses, reverse=True)[: math.ceil(0.3 * len(losses))]
        total += sum(loss for loss, _ in chosen)
        count += sum(factor for _, factor in chosen)
    assert float(term.sum) == pytest.approx(total, rel=1e-9)
    assert float(term.count) == pytest.approx(count, rel=1e-9)
    assert term.weight == 0.4


def test_a_hard_pixel_alone_has_a_gradient() -> None:
    logits = torch.tensor([[[[4.0, -1.0]], [[0.0, 0.0]]]], requires_grad=True)  # sure and right; unsure and wrong
    term = PixelLoss(ohem=0.5)(logits, torch.zeros(1, 1, 2, dtype=torch.int64))
    assert (float(term.sum.detach()), float(term.count)) == (pytest.approx(math.log(1 + math.e)), 1)
    term.sum.backward()
    assert logits.grad is not None
    assert not logits.grad[..., 0].any()
    assert logits.grad[..., 1].all()


def test_hard_pixels_are_chosen_image_by_image_so_that_two_processes_choose_what_one_would() -> None:
    logits, truth = two_images()
    loss = PixelLoss(ohem=0.2)
    joint = loss(logits, truth)
    parts = [loss(logits[index : index + 1], truth[index : index + 1]) for index in range(2)]
    assert float(joint.sum) == pytest.approx(sum(float(part.sum) for part in parts), rel=1e-12)
    assert float(joint.count) == sum(float(part.count) for part in parts)
    nothing = loss(logits, torch.full_like(truth, VOID))
    assert (float(nothing.sum), float(nothing.count)) == (0, 0)


def test_corners_are_aligned_where_the_authors_align_them() -> None:
    logits = torch.randn(1, 3, 3, 3, generator=torch.Generator().manual_seed(2))
    truth = torch.full((1, 5, 5), VOID)
    truth[0, 4, 4] = 1  # with aligned corners the last pixel is the last score itself
    term = PixelLoss(align_corners=True)(logits, truth)
    assert float(term.sum) == pytest.approx(-float(logits.log_softmax(dim=1)[0, 1, 2, 2]), rel=1e-5)


def test_weights_of_the_median_frequency_worked_by_hand() -> None:
    # two images of 100 and 50 evaluated pixels; the first holds 80 of class 0 and 20 of class 1, the second 45 of
    # class 0 and 5 of class 2; class 3 is in neither. Frequencies 125/150, 20/100, 5/50: their median is 0.2
    weights = median_frequency_weights([125, 20, 5, 0], [150, 100, 50, 0])
    assert weights == pytest.approx((0.2 / (125 / 150), 1.0, 2.0, 1.0))
