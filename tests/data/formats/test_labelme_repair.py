"""Repaired copies of LabelMe sets: photographs that EXIF turns are annotated in one frame or the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pixelwise.data.spec import DataSpec
from pixelwise.data.tools.check import check_dataset
from pixelwise.data.tools.repair import repair_dataset
from tests.data import drawing
from tests.data.formats import labelme_set

UPRIGHT = [[5, 30], [35, 30], [35, 58], [5, 58]]
STORED = [[30, 5], [58, 5], [58, 35], [30, 35]]
BOTH = [[1, 2], [11, 2], [11, 32], [1, 32]]


def repaired(root: Path, shapes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Photographs stored as 40×60, shown as 60×40, with the stored size in their files: what was done, the points."""
    for seed, (name, points) in enumerate(shapes.items()):
        labelme_set.labelme_file(
            root / "a" / "train",
            name,
            [labelme_set.shape("crate", points)],
            imagePath=f"{name}.jpg",
            imageHeight=40,
            imageWidth=60,
        )
        (root / "a" / "train" / f"{name}.png").unlink()
        drawing.write_turned(root / "a" / "train" / f"{name}.jpg", stored_hw=(40, 60), seed=seed)
    repairs = repair_dataset(DataSpec.parse(f"labelme:{root / 'a'}"), root / "b")
    assert repairs.remaining == check_dataset(DataSpec.parse(repairs.opens_as[0])).faults() == ()
    content = {name: json.loads((root / "b" / "train" / f"{name}.json").read_text()) for name in shapes}
    assert {(one["imageHeight"], one["imageWidth"]) for one in content.values()} == {(60, 40)}
    return dict(repairs.done), {name: one["shapes"][0]["points"] for name, one in content.items()}


def test_upright_shapes_stay(tmp_path: Path) -> None:
    assert repaired(tmp_path, {"x": UPRIGHT}) == ({"sizes": 1}, {"x": UPRIGHT})


def test_stored_shapes_are_turned(tmp_path: Path) -> None:
    done, points = repaired(tmp_path, {"x": STORED})
    assert done == {"sizes": 1, "turned_annotations": 1}
    assert points["x"] == [[35, 30], [35, 58], [5, 58], [5, 30]]


@pytest.mark.parametrize("telling", [UPRIGHT, STORED])
def test_a_file_that_fits_both_goes_with_the_others(tmp_path: Path, telling: Any) -> None:
    _, points = repaired(tmp_path, {"x": telling, "y": BOTH})
    assert (points["y"] == BOTH) == (telling == UPRIGHT)


def test_where_nothing_tells_it_is_said(tmp_path: Path) -> None:
    done, _ = repaired(tmp_path, {"x": BOTH})
    assert done == {"frames_by_size": 1, "sizes": 1, "turned_annotations": 1}
