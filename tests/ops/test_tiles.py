import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from pixelwise.ops import tiles
from pixelwise.ops.tiles import join_windows, window_starts


def test_starts_worked_by_hand():
    assert window_starts(5, 6) == [0]
    assert window_starts(6, 6) == [0]
    assert window_starts(7, 6) == [0, 1]
    assert window_starts(10, 6) == [0, 4]
    assert window_starts(11, 6) == [0, 4, 5]
    assert window_starts(20, 6) == [0, 4, 8, 12, 14]
    assert window_starts(3, 1) == [0, 1, 2]


@pytest.mark.parametrize("window", [1, 2, 3, 7, 10, 64])
def test_windows_cover_a_side_with_at_least_a_third_in_common(window: int):
    for length in range(1, 150):
        starts = window_starts(length, window)
        side = min(window, length)
        assert starts[0] == 0
        assert starts[-1] + side == length
        for before, after in pairwise(starts):
            assert 0 < after - before <= math.ceil(2 * window / 3)


def by_hand(scores: dict[tuple[int, int], torch.Tensor], size: tuple[int, int], window: int, align_corners: bool):
    """The slow formula: everything at full size."""
    classes = next(iter(scores.values())).shape[0]
    total, count = torch.zeros(classes, *size), torch.zeros(size)
    height, width = min(window, size[0]), min(window, size[1])
    for (top, left), coarse in scores.items():
        full = F.interpolate(coarse[None], size=(height, width), mode="bilinear", align_corners=align_corners)[0]
        full = full.softmax(0)
        total[:, top : top + height, left : left + width] += full
        count[top : top + height, left : left + width] += 1
    confidence, ids = (total / count).max(0)
    return ids, confidence, count


@pytest.mark.parametrize("size", [(20, 31), (31, 20), (4, 50), (50, 4), (11, 11), (6, 6), (1, 1), (23, 22)])
@pytest.mark.parametrize("slab_bytes", [1, 4 * 5 * 31 * 3, 2**26])
@pytest.mark.parametrize("align_corners", [False, True])
def test_joined_windows_equal_the_slow_formula(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], slab_bytes: int, align_corners: bool
):
    monkeypatch.setattr(tiles, "SLAB_BYTES", slab_bytes)
    window = 11
    generator = torch.Generator().manual_seed(0)
    grid = (math.ceil(min(window, size[0]) / 4), math.ceil(min(window, size[1]) / 4))
    scores = {
        (top, left): torch.randn(5, *grid, generator=generator)
        for top in window_starts(size[0], window)
        for left in window_starts(size[1], window)
    }
    rows = ([scores[top, left] for left in window_starts(size[1], window)] for top in window_starts(size[0], window))
    ids, confidence = join_windows(rows, size_hw=size, window=window, align_corners=align_corners)
    wanted_ids, wanted_confidence, _ = by_hand(scores, size, window, align_corners)
    assert ids.dtype == torch.uint8
    assert torch.allclose(confidence, wanted_confidence, atol=1e-6)
    assert (ids == wanted_ids).float().mean() > 0.999


def test_the_mean_in_an_overlap_worked_by_hand():
    """1×5 pixels in windows of 3, which begin at 0 and 2: the pixel in the middle lies in both."""
    assert window_starts(5, 3) == [0, 2]

    def window(probability: float) -> torch.Tensor:
        return torch.tensor([1 - probability, probability]).log().view(2, 1, 1)

    ids, confidence = join_windows([[window(0.9), window(0.3)]], size_hw=(1, 5), window=3)
    assert ids.tolist() == [[1, 1, 1, 0, 0]]
    assert torch.allclose(confidence, torch.tensor([[0.9, 0.9, 0.6, 0.7, 0.7]]))


def test_many_classes_need_wider_ids():
    scores = torch.zeros(300, 1, 1)
    scores[299] = 5
    ids, _ = join_windows([[scores]], size_hw=(2, 2), window=4)
    assert ids.dtype == torch.int32
    assert (ids == 299).all()
