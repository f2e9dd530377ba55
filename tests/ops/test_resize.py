"""Scores brought back to an image's size, against torch's own interpolation of all of them at once."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pixelwise.ops import resize
from pixelwise.ops.resize import enlarge_rows, first_zero


@pytest.fixture(params=[None, 1, 2000], ids=["one slab", "a row each", "some rows"])
def _slabs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param:
        monkeypatch.setattr(resize, "SLAB_BYTES", request.param)


@pytest.mark.usefixtures("_slabs")
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("classes", [2, 21])
@pytest.mark.parametrize(
    ("source", "target"),
    [((5, 7), (33, 40)), ((8, 8), (8, 8)), ((12, 9), (5, 4)), ((1, 1), (3, 4)), ((6, 5), (1, 1)), ((4, 6), (9, 6))],
)
def test_ids_and_probabilities_are_those_of_the_enlarged_scores(
    classes: int, source: tuple[int, int], target: tuple[int, int], align_corners: bool
) -> None:
    logits = 3 * torch.randn(classes, *source, generator=torch.Generator().manual_seed(classes))
    ids, confidence = resize.argmax_resized(logits, target, align_corners=align_corners)
    enlarged = F.interpolate(logits[None], size=target, mode="bilinear", align_corners=align_corners)[0]
    best = enlarged.softmax(dim=0).max(dim=0)
    assert ids.dtype == torch.uint8
    assert torch.equal(ids.long(), best.indices)
    torch.testing.assert_close(confidence, best.values, rtol=0, atol=1e-6)


def test_aligned_corners_are_worked_by_hand() -> None:
    """Three rows and columns from two: the corners keep their scores, the middle is the mean of its neighbours."""
    first = torch.tensor([[0.0, 4.0], [8.0, 16.0]])
    rows = resize.enlarge_rows(torch.stack([first, -first]), 0, 3, (3, 3), align_corners=True)
    expected = torch.tensor([[0.0, 2.0, 4.0], [4.0, 7.0, 10.0], [8.0, 12.0, 16.0]])
    torch.testing.assert_close(rows, torch.stack([expected, -expected]))
    torch.testing.assert_close(
        resize.enlarge_rows(first[None], 1, 2, (3, 3), align_corners=True), expected[None, 1:2], rtol=0, atol=0
    )


def test_more_than_255_classes_give_wide_ids() -> None:
    logits = torch.zeros(300, 1, 1)
    logits[299] = 1
    ids, _ = resize.argmax_resized(logits, (2, 2))
    assert ids.dtype == torch.int32
    assert ids.tolist() == [[299, 299]] * 2


def test_of_equal_scores_the_first_class_has_the_pixel() -> None:
    ids, confidence = resize.argmax_resized(torch.tensor([0.0, 7, 7, 1]).view(4, 1, 1), (2, 3))
    assert (ids == 1).all()
    assert torch.allclose(confidence, torch.tensor([0.0, 7, 7, 1]).softmax(0)[1])


def test_far_apart_and_large_scores_neither_overflow_nor_vanish() -> None:
    """The logarithm of the sum, as the slow formula has it."""
    logits = torch.tensor([[900.0, -900], [899.0, -901], [-900.0, -5000]]).view(3, 1, 2)
    _, confidence = resize.argmax_resized(logits, (1, 2))
    slow = (logits.amax(0) - logits.double().logsumexp(0)).exp().float()
    torch.testing.assert_close(confidence, slow, rtol=1e-6, atol=0)


def test_scores_that_are_no_numbers_give_a_class_all_the_same() -> None:
    ids, _ = resize.argmax_resized(torch.full((3, 2, 2), float("nan")), (4, 4))
    assert (ids < 3).all()


def test_scores_of_half_precision_are_reduced_in_full() -> None:
    logits = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    ids, confidence = resize.argmax_resized(logits, (9, 9))
    expected_ids, expected = resize.argmax_resized(logits.float(), (9, 9))
    assert torch.equal(ids, expected_ids)
    assert torch.equal(confidence, expected)


def test_the_enlarged_scores_are_never_held_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resize, "SLAB_BYTES", 40_000)
    largest = 0
    original = torch.nn.functional.interpolate

    def watched(values: Tensor, **arguments: object) -> Tensor:
        nonlocal largest
        result = original(values, **arguments)  # pyright: ignore[reportArgumentType]
        largest = max(largest, result.numel() * result.element_size(), values.numel() * values.element_size())
        return result

    monkeypatch.setattr(resize.F, "interpolate", watched)
    resize.argmax_resized(torch.randn(10, 50, 60), (400, 500))
    assert 0 < largest <= 2 * 40_000  # the rows of the source around a slab are two more than theirs


@pytest.mark.parametrize(
    ("size", "long_side", "expected"),
    [((360, 480), 240, (180, 240)), ((480, 360), 240, (240, 180)), ((1, 1000), 10, (1, 10)), ((3, 3), 1, (1, 1))],
)
def test_the_long_side_gets_the_given_size(size: tuple[int, int], long_side: int, expected: tuple[int, int]) -> None:
    assert resize.long_side_size(size, long_side) == expected


def test_shrinking_averages_what_a_pixel_covers() -> None:
    """Interpolation alone would read between the second and third of four columns and lose the other two."""
    stripes = torch.zeros(3, 8, 64, dtype=torch.uint8)
    stripes[:, :, ::4] = 200
    small = resize.resize_image(stripes, (2, 16))
    assert small.dtype == torch.uint8
    assert (small[:, :, 2:-2].int() - 50).abs().max() <= 10
    assert resize.resize_image(stripes, (8, 64)) is stripes


@pytest.mark.parametrize("covered", [(20.0, 30.0), (24.0, 36.5), (20.0, 31.0)])
def test_scores_of_a_padded_image_are_enlarged_as_if_the_padding_were_there(covered: tuple[float, float]) -> None:
    """A pixel reads between the cells' centres; the scores cover more pixels than the image has."""
    source = torch.randn(3, 6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = torch.cat(
        [enlarge_rows(source, start, start + 5, (20, 30), covered=covered) for start in range(0, 20, 5)], 1
    )
    for y in range(20):
        for x in range(30):
            v = min(max((y + 0.5) * 6 / covered[0] - 0.5, 0), 5)
            u = min(max((x + 0.5) * 9 / covered[1] - 0.5, 0), 8)
            rows, columns = (int(v), min(int(v) + 1, 5)), (int(u), min(int(u) + 1, 8))
            expected = sum(
                share_y * share_x * source[:, row, column]
                for row, share_y in zip(rows, (1 - v % 1, v % 1), strict=True)
                for column, share_x in zip(columns, (1 - u % 1, u % 1), strict=True)
            )
            assert torch.allclose(found[:, y, x], expected, atol=1e-5)  # pyright: ignore[reportArgumentType]


def test_first_zero() -> None:
    slab = torch.tensor([[-1.0, 0.0, -3.0], [0.0, 0.0, -2.0], [0.0, -1.0, 0.0]])[:, None]
    assert first_zero(slab).tolist() == [[1, 0, 2]]
