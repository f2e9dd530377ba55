from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from pixelwise.ops import joint_counts as module
from pixelwise.ops.joint_counts import joint_counts


def slow(one: np.ndarray, other: np.ndarray, ids: np.ndarray, other_ids: np.ndarray) -> list[list[int]]:
    places = [{int(id): place for place, id in enumerate(side.tolist(), start=1)} for side in (ids, other_ids)]
    counted = Counter(
        (places[0].get(a, 0), places[1].get(b, 0))
        for a, b in zip(one.ravel().tolist(), other.ravel().tolist(), strict=True)
    )
    return [[*pair, count] for pair, count in sorted(counted.items())]


NAMES = {
    "dense": np.array([3, 1, 2, 7]),
    "sparse": np.array([70_000, 5, 2**24 - 1, 900]),
    "huge": np.array([2**31 - 1, 5, 2**30, 900]),
    "none": np.zeros(0, dtype=np.int64),
}


@pytest.mark.parametrize("other_kind", NAMES)
@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("slab", [1, 7, 2**17])
def test_it_counts_pairs_of_ids(kind: str, other_kind: str, slab: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLAB_PIXELS", slab)
    generator = np.random.default_rng(1)
    ids, other_ids = NAMES[kind], NAMES[other_kind]
    for run in (1, 9):  # noise, and runs long enough to be counted as such
        one, other = (
            np.repeat(generator.choice([0, -3, 2**31 - 2, *side], (4, 5)), run, axis=1).astype(np.int32)
            for side in (ids, other_ids)
        )
        assert joint_counts(one, other, ids, other_ids).tolist() == slow(one, other, ids, other_ids)


def test_more_pairs_of_segments_than_have_bins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_HISTOGRAM", 8)
    monkeypatch.setattr(module, "SLAB_PIXELS", 30)
    generator = np.random.default_rng(2)
    one, other = (generator.integers(0, 5, (9, 11)).astype(np.int32) for _ in range(2))
    one[5:] = np.repeat(one[5:, ::11], 11, axis=1)
    other[5:] = 1
    ids = np.arange(1, 5)
    assert joint_counts(one, other, ids, ids).tolist() == slow(one, other, ids, ids)


def test_ids_for_which_there_is_no_small_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_TABLE", 4)
    generator = np.random.default_rng(3)
    ids = generator.choice(2**24, 20, replace=False)
    one, other = (generator.choice([0, 5, *ids], (9, 11)).astype(np.int32) for _ in range(2))
    assert joint_counts(one, other, ids, ids).tolist() == slow(one, other, ids, ids)


def test_maps_without_pixels_and_views() -> None:
    ids = np.array([1, 2])
    nothing = np.zeros((0, 4), dtype=np.int32)
    assert joint_counts(nothing, nothing, ids, ids).shape == (0, 3)
    whole = np.arange(24, dtype=np.int32).reshape(4, 6) % 3
    view = whole[::2, 1::2]
    assert joint_counts(view, view, ids, ids).tolist() == slow(view, view, ids, ids)
