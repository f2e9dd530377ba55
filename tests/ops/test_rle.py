"""COCO's runs and polygons: equal to pycocotools, and refused where they are broken."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as pycoco

from pixelwise.errors import DataError
from pixelwise.ops import rle
from tests.shared_data import require

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools


@pytest.mark.parametrize("seed", range(6))
def test_runs_are_those_of_pycocotools(seed: int) -> None:
    generator = np.random.default_rng(seed)
    mask = generator.random(generator.integers(1, 40, 2)) < generator.random()
    encoded = rle.encode(mask)
    theirs = pycoco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert encoded == {"size": list(mask.shape), "counts": theirs["counts"].decode()}
    assert np.array_equal(rle.decode(encoded), mask)
    assert np.array_equal(rle.decode({**encoded, "counts": theirs["counts"]}), mask)
    assert np.array_equal(pycoco.decode({**encoded, "counts": encoded["counts"].encode()}), mask)


@pytest.mark.parametrize("value", [1, 2, 255, -1, 0.5])
def test_whatever_is_not_zero_is_one(value: float) -> None:
    mask = np.array([[0, value], [value, 0], [0, 0]])
    assert rle.encode(mask) == rle.encode(mask != 0)
    assert rle.decode(rle.encode(mask)).tolist() == [[0, 1], [1, 0], [0, 0]]


def test_runs_go_down_the_columns() -> None:
    assert rle.decode({"size": [2, 3], "counts": [1, 1, 1, 2, 1]}).tolist() == [[0, 0, 1], [1, 1, 0]]


@pytest.mark.parametrize(
    "counts",
    [
        [3, 5],  # too few
        [3, 5, 9],  # too many
        [16, 16],
        [20, -4],
        [3, 5, 7.5, 0.5],
        [2**70],
        ["3", 13],
        [None],
        "35",  # the text of [3, 5]
        "3MO5",  # differences that lead below zero
        "3" + "o" * 40,  # a number without end
        "3o",
        "é",
        "\ud800",
        b"\xff\xfe",
        "\x00",
        "",
        16,
        None,
        {"3": 5},
    ],
)
def test_runs_that_do_not_fill_the_size_are_refused_unread(counts: Any) -> None:
    with pytest.raises(DataError, match=r"^annotation 7: the runs do not make a mask of 4×4 \(.+\)$"):
        rle.decode({"size": [4, 4], "counts": counts}, source="annotation 7")


@pytest.mark.parametrize("seed", range(200))
def test_text_of_any_kind_is_decoded_or_refused(seed: int) -> None:
    generator = np.random.default_rng(seed)
    text = bytes(generator.integers(40, 120, generator.integers(0, 12), dtype=np.uint8)).decode("ascii")
    try:
        mask = rle.decode({"size": [4, 4], "counts": text})
    except DataError:
        return
    assert mask.shape == (4, 4)
    assert set(np.unique(mask)) <= {0, 1}


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"size": [4, 4]},
        {"counts": [16]},
        {"size": [4], "counts": [4]},
        {"size": 16, "counts": [16]},
        {"size": ["4", "4"], "counts": [16]},
        {"size": [4.0, 4.0], "counts": [16]},
    ],
)
def test_an_rle_without_size_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="expected an RLE with size"):
        rle.decode(broken)


@pytest.mark.parametrize("size", [[0, 4], [-4, -4]])
def test_an_rle_without_pixels_is_refused(size: list[int]) -> None:
    with pytest.raises(DataError, match="has no pixels"):
        rle.decode({"size": size, "counts": [16]})


@pytest.mark.parametrize("side", [2**20, 2**31, 2**40])
def test_an_rle_larger_than_memory_is_refused(side: int) -> None:
    with pytest.raises(DataError, match="do not make a mask"):
        rle.decode({"size": [side, side], "counts": [side * side]})


def test_an_rle_of_another_size_is_refused_before_it_is_decoded() -> None:
    huge = {"size": [2**15, 2**16], "counts": [2**31]}
    with pytest.raises(DataError, match=r"^x: the RLE is 32768×65536, the image 4×5"):
        rle.decode(huge, size=(4, 5), source="x")


def test_polygons_worked_by_hand() -> None:
    square = [1.0, 1.0, 3.0, 1.0, 3.0, 3.0, 1.0, 3.0]
    assert rle.from_polygons([square], (4, 4)).tolist() == [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    beside = [value + 1 for value in square]
    assert rle.from_polygons([square, beside], (4, 4)).sum() == 4 + 4 - 1
    assert rle.from_polygons([], (2, 3)).tolist() == [[0, 0, 0]] * 2


def test_polygons_are_cut_off_at_the_border() -> None:
    around = [-9.0, -9.0, 50.0, -9.0, 50.0, 50.0, -9.0, 50.0]
    assert rle.from_polygons([around], (3, 4)).all()


@pytest.mark.parametrize(
    ("polygon", "text"),
    [
        ([1, 1, 2, 2], "a polygon of 4 numbers"),
        ([1, 1, 2, 2, 3, 3, 4], "a polygon of 7 numbers"),
        ([], "a polygon of 0 numbers"),
        ([0, 0, float("nan"), 0, 4, 4], "coordinate nan"),
        ([0, 0, float("inf"), 0, 4, 4], "coordinate inf"),
        ([0, 0, 1e9, 0, 4, 4], "coordinate 1000000000.0"),
        ([0, -1e9, 1, 0, 4, 4], "coordinate -1000000000.0"),
    ],
)
def test_polygons_that_are_none_are_refused(polygon: list[float], text: str) -> None:
    with pytest.raises(DataError, match=f"^image 3: .*{text}"):
        rle.from_polygons([[0.0, 0, 1, 0, 1, 1], polygon], (4, 4), source="image 3")


@pytest.mark.parametrize("seed", range(20))
def test_a_crop_is_encoded_as_the_whole_mask(seed: int) -> None:
    generator = np.random.default_rng(seed)
    height, width = (int(side) for side in generator.integers(1, 9, 2))
    top, left = int(generator.integers(0, height)), int(generator.integers(0, width))
    mask = np.zeros((height, width), dtype=np.uint8)
    bottom, right = int(generator.integers(top, height + 1)), int(generator.integers(left, width + 1))
    crop = mask[top:bottom, left:right]
    crop[:] = generator.random(crop.shape) < generator.choice([0.2, 0.9, 1.0])
    assert rle.encode_crop(crop, (left, top, right, bottom), (height, width)) == rle.encode(mask)


# ---- masks inside their boxes


def whole(crop: np.ndarray, box: rle.Box, size: tuple[int, int]) -> np.ndarray:
    """The mask at the image's size; the box must be tight."""
    x1, y1, x2, y2 = box
    assert crop.shape == (y2 - y1, x2 - x1)
    assert not crop.size or all(side.any() for side in (crop[0], crop[-1], crop[:, 0], crop[:, -1]))
    mask = np.zeros(size, dtype=np.uint8)
    mask[y1:y2, x1:x2] = crop
    return mask


def nasty_polygons(generator: np.random.Generator, size: tuple[int, int]) -> list[list[float]]:
    """Outside, below a pixel, crossing themselves, on whole pixels, on tenths (where COCO's rounding has ties)."""
    height, width = size
    polygons = []
    for _ in range(generator.integers(1, 4)):
        count = 2 * int(generator.integers(3, 9))
        points = {
            0: lambda count: generator.uniform(-10, max(size) + 10, count),
            1: lambda count: generator.uniform(-5, width + 5, count).round(1),
            2: lambda count: generator.integers(-2, max(size) + 2, count).astype(float),
            3: lambda count: generator.uniform(0, 1, count) + generator.integers(0, height),
        }[int(generator.integers(4))](count)
        polygons.append(points.tolist())
    return polygons


@pytest.mark.parametrize("seed", range(20))
def test_nasty_polygons_cover_what_they_cover_in_pycocotools(seed: int) -> None:
    generator = np.random.default_rng(seed)
    for _ in range(40):
        size = (int(generator.integers(1, 60)), int(generator.integers(1, 60)))
        polygons = nasty_polygons(generator, size)
        theirs = pycoco.decode(pycoco.merge(pycoco.frPyObjects(polygons, *size)))
        crop, box = rle.crop_polygons(polygons, size)
        assert np.array_equal(whole(crop, box, size), theirs)
        assert rle.encode_crop(crop, box, size) == rle.encode(theirs)


@pytest.mark.parametrize("seed", range(20))
def test_runs_inside_their_box(seed: int) -> None:
    """Also runs of length 0 wherever they may stand."""
    generator = np.random.default_rng(seed)
    for _ in range(40):
        size = (int(generator.integers(1, 9)), int(generator.integers(1, 9)))
        cuts = np.sort(generator.integers(0, size[0] * size[1] + 1, generator.integers(0, 12)))
        runs = {"size": list(size), "counts": np.diff([0, *cuts, size[0] * size[1]]).tolist()}
        mask = rle.decode(runs)
        for form in (runs, rle.encode(mask)):
            crop, box = rle.crop(form, size=size)
            assert np.array_equal(whole(crop, box, size), mask)
        assert rle.encode_crop(crop, box, size) == rle.encode(mask)


@pytest.mark.parametrize(
    "counts", [[3, 5], [16, 16], [20, -4], "35", "3MO5", "3" + "o" * 40, "é", b"\xff", "", 16, None]
)
def test_broken_runs_have_no_crop(counts: Any) -> None:
    with pytest.raises(DataError, match=r"^annotation 7: the runs do not make a mask of 4×4 \(.+\)$"):
        rle.crop({"size": [4, 4], "counts": counts}, source="annotation 7")


@pytest.mark.parametrize("seed", range(100))
def test_text_of_any_kind_has_a_crop_where_it_has_a_mask(seed: int) -> None:
    generator = np.random.default_rng(seed)
    text = bytes(generator.integers(40, 120, generator.integers(0, 12), dtype=np.uint8)).decode("ascii")
    try:
        mask = rle.decode({"size": [4, 4], "counts": text})
    except DataError:
        with pytest.raises(DataError):
            rle.crop({"size": [4, 4], "counts": text})
        return
    assert np.array_equal(whole(*rle.crop({"size": [4, 4], "counts": text}), (4, 4)), mask)


def test_every_annotation_of_coco_is_that_of_pycocotools() -> None:
    content = json.loads((require("coco") / "annotations" / "instances_val2017.json").read_bytes())
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    kinds = set()
    for annotation in content["annotations"]:
        segmentation, size = annotation["segmentation"], sizes[annotation["image_id"]]
        theirs = pycoco.frPyObjects(segmentation, *size)
        if isinstance(segmentation, dict):
            crop, box = rle.crop(segmentation, size=size)
        else:
            theirs = pycoco.merge(theirs)
            crop, box = rle.crop_polygons(segmentation, size)
        kinds.add(type(segmentation))
        assert np.array_equal(whole(crop, box, size), pycoco.decode(theirs))
    assert kinds == {dict, list}
