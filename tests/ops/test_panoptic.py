"""Segment ids of predictions, and COCO's panoptic colours."""

from __future__ import annotations

import numpy as np
import pytest

from pixelwise.errors import DataError
from pixelwise.ops import panoptic
from pixelwise.ops.panoptic import ids_to_rgb, rgb_to_ids, segment_places


def test_red_is_the_lowest_byte() -> None:
    ids = np.array([[0, 1, 255], [256, 65536, 26 + 256 * 3 + 65536 * 200]], dtype=np.int32)
    rgb = ids_to_rgb(ids)
    assert rgb.dtype == np.uint8
    assert rgb.tolist() == [[[0, 0, 0], [1, 0, 0], [255, 0, 0]], [[0, 1, 0], [0, 0, 1], [26, 3, 200]]]


def test_every_id_survives() -> None:
    ids = np.random.default_rng(0).integers(0, 2**24, (50, 60), dtype=np.int32)
    ids[0, :2] = 0, 2**24 - 1
    survived = rgb_to_ids(ids_to_rgb(ids))
    assert survived.dtype == np.int32
    assert np.array_equal(survived, ids)


@pytest.mark.parametrize("id", [-1, 2**24])
def test_ids_that_three_bytes_do_not_hold_are_refused(id: int) -> None:
    with pytest.raises(DataError, match="holds 0 to 16,777,215"):
        ids_to_rgb(np.array([[0, id]], dtype=np.int32))


@pytest.mark.parametrize("slab", [1, 3, 1000])
@pytest.mark.parametrize("largest", [7, 2**20 - 1, 2**20, 2**31 - 1])
def test_the_place_of_each_pixels_segment(monkeypatch: pytest.MonkeyPatch, slab: int, largest: int) -> None:
    monkeypatch.setattr(panoptic, "SLAB_PIXELS", slab)
    segment_ids = np.array([5, largest, 2], dtype=np.int32)
    ids = np.array([[0, 2, 5, largest], [3, largest - 1, 1, 2]], dtype=np.int32)
    places = segment_places(ids, segment_ids)
    assert places.dtype == np.int32
    assert places.tolist() == [[-1, 2, 0, 1], [-1, -1, -1, 2]]
    assert segment_places(ids, segment_ids[:1]).tolist() == [[-1, -1, 0, -1], [-1, -1, -1, -1]]
    assert segment_places(ids, segment_ids[:0]).tolist() == [[-1] * 4] * 2
