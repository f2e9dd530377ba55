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


def test_it_sums_the_surprise_of_every_judged_pixel() -> None:
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


def test_nothing_judged_gives_zero_and_a_gradient_without_nan() -> None:
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


def test_truth_is_stacked_and_missing_truth_refused() -> None:
    one = Annotation(semantic=torch.tensor([[0, VOID]], dtype=torch.uint8))
    stacked = stack_semantic((one, one))
    assert (stacked.dtype, stacked.tolist()) == (torch.int64, [[[0, VOID]], [[0, VOID]]])
    with pytest.raises(DataError, match="1 of 2 images have no class for each pixel"):
        stack_semantic((one, Annotation()))
