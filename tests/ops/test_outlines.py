"""Polygons around masks: by COCO's rule they cover the pixels they came from, and no others."""

from __future__ import annotations

import numpy as np
import pytest

from pixelwise.ops import rle
from pixelwise.ops.outlines import polygon_of, polygons_of


def test_a_rectangle_by_hand() -> None:
    assert polygons_of(np.ones((2, 3), dtype=np.uint8), (4, 5, 7, 7)) == [[4, 5, 7, 5, 7, 7, 4, 7]]


def test_pixels_that_meet_at_a_corner_are_two_parts() -> None:
    mask = np.eye(2, dtype=np.uint8)
    assert polygons_of(mask, (0, 0, 2, 2)) == [[0, 0, 1, 0, 1, 1, 0, 1], [1, 1, 2, 1, 2, 2, 1, 2]]
    assert rle.from_polygons([polygon_of(mask, (0, 0, 2, 2))], (2, 2)).tolist() == [[1, 0], [0, 1]]


def test_a_ring_is_one_polygon_and_its_island_another() -> None:
    mask = np.ones((5, 5), dtype=np.uint8)
    mask[1:4, 1:4] = 0
    mask[2, 2] = 1
    polygons = polygons_of(mask, (0, 0, 5, 5))
    assert len(polygons) == 2
    assert rle.from_polygons(polygons, (5, 5)).tolist() == mask.tolist()
    assert rle.from_polygons([polygon_of(mask, (0, 0, 5, 5))], (5, 5)).tolist() == mask.tolist()


def test_nothing_has_no_outline() -> None:
    assert polygons_of(np.zeros((3, 3), dtype=np.uint8), (0, 0, 3, 3)) == []


@pytest.mark.parametrize("seed", range(60))
def test_any_mask_comes_back(seed: int) -> None:
    generator = np.random.default_rng(seed)
    height, width = (int(side) for side in generator.integers(1, 14, 2))
    crop = (generator.random((height, width)) < generator.random()).astype(np.uint8)
    crop[generator.integers(height), generator.integers(width)] = 1
    box, size = (3, 5, 3 + width, 5 + height), (height + 9, width + 7)
    mask = np.zeros(size, dtype=np.uint8)
    mask[5 : 5 + height, 3 : 3 + width] = crop
    joined = polygon_of(crop, box)
    fractions = [round(value / size[1 - place % 2], 9) for place, value in enumerate(joined)]
    for polygons in (
        polygons_of(crop, box),
        [joined],
        [[value * size[1 - place % 2] for place, value in enumerate(fractions)]],
    ):
        assert np.array_equal(rle.from_polygons(polygons, size), mask)
