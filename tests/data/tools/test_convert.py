"""Ids of a converted set are unique across its splits, and a split that fails does not stop the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pixelwise.data.spec import DataSpec
from pixelwise.data.tools.convert import Conversion, convert_dataset
from tests.data.formats import camvid_set, coco_set, voc_set


def converted(source: str, target: str) -> Conversion:
    return convert_dataset(DataSpec.parse(source), DataSpec.parse(target))


def ids(root: Path, name: str, key: str) -> list[Any]:
    files = sorted((root / "annotations").glob("*.json"))
    return [one[key] for file in files for one in json.loads(file.read_text())[name]]


@pytest.mark.parametrize("format", ["coco", "coco-panoptic"])
def test_images_of_one_name_in_two_splits(format: str, tmp_path: Path) -> None:
    camvid_set.camvid(tmp_path / "a", {"train": "ab", "val": "bc"})
    converted(f"camvid:{tmp_path / 'a'}", f"{format}:{tmp_path / 'b'}")
    found = ids(tmp_path / "b", "images", "id")
    assert len(found) == len(set(found)) == 4


def test_images_and_annotations_that_every_split_numbers_from_one(tmp_path: Path) -> None:
    for split in ("train", "val"):
        image = {"id": 1, "file_name": f"{split}.png", "height": 8, "width": 8}
        coco_set.coco(tmp_path / "a", [coco_set.annotation(1, 1, 3, (1, 1, 6, 5))], split=split, images=[image])
    converted(f"coco:{tmp_path / 'a'}", f"coco:{tmp_path / 'b'}")
    for name in ("images", "annotations"):
        found = ids(tmp_path / "b", name, "id")
        assert sorted(found) == [1, 2]
    assert sorted(ids(tmp_path / "b", "annotations", "image_id")) == [1, 2]


def test_a_split_that_cannot_be_opened_does_not_stop_the_others(tmp_path: Path) -> None:
    voc_set.voc(tmp_path / "a", {"train": "ab", "val": "cd"})
    (tmp_path / "a" / "JPEGImages" / "d.jpg").unlink()
    conversion = converted(f"voc:{tmp_path / 'a'}", f"masks:{tmp_path / 'b'}")
    assert dict(conversion.images) == {"train": 2}
    (failure,) = conversion.failures
    assert "no image for 'd'" in failure
