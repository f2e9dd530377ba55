"""After every repair the copy is checked again: what remains is told, and an emptied set is an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.data.spec import DataSpec, format_named, format_names
from pixelwise.data.tools.check import check_dataset
from pixelwise.data.tools.repair import repair_dataset
from pixelwise.errors import DataError
from tests.data.formats import coco_set, kitti_step_set
from tests.data.sets import write_tiny_set

REPAIRABLE = [name for name in format_names() if not format_named(name).synthetic]


@pytest.mark.parametrize("format", REPAIRABLE)
def test_a_copy_of_a_sound_set_is_sound(format: str, tmp_path: Path) -> None:
    write_tiny_set(format, tmp_path / "a")
    repairs = repair_dataset(DataSpec.parse(f"{format}:{tmp_path / 'a'}"), tmp_path / "b")
    assert repairs.remaining == ()
    before, after = (
        [len(split.ids) for text in specs for split in check_dataset(DataSpec.parse(text)).splits]
        for specs in ([f"{format}:{tmp_path / 'a'}"], repairs.opens_as)
    )
    assert sum(after) == sum(before) == repairs.images


def test_a_fault_that_only_the_user_can_repair_remains(tmp_path: Path) -> None:
    same = [coco_set.annotation(1, 7, 3, (0, 0, 2, 2)), coco_set.annotation(2, 7, 9, (0, 0, 2, 2))]
    coco_set.coco(tmp_path / "a", same)
    repairs = repair_dataset(DataSpec.parse(f"coco:{tmp_path / 'a'}@train"), tmp_path / "b.json")
    assert [fault.kind for fault in repairs.remaining] == ["object in two classes"]


def test_a_set_that_a_repair_empties_is_an_error_and_no_copy(tmp_path: Path) -> None:
    kitti_step_set.kitti_step(tmp_path / "a")
    for path in (tmp_path / "a" / "panoptic_maps").rglob("*.png"):
        Image.fromarray(np.full((4, 6, 3), (77, 0, 0), dtype=np.uint8)).save(path)
    with pytest.raises(DataError, match="no ground truth is left after the repair") as caught:
        repair_dataset(DataSpec.parse(f"kitti-step:{tmp_path / 'a'}"), tmp_path / "b")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "b").exists()
