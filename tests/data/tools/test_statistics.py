"""Counts worked by hand on two small images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.data.spec import open_dataset
from pixelwise.data.tools.statistics import Statistics, statistics_of
from pixelwise.errors import DataError
from tests.data import drawing
from tests.data.formats import coco_set, masks_set


def two_images(root: Path) -> Path:
    """A red image of 2×2 and a black one of 2×4; ids 0 floor, 1 wall, 255 void."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    Image.new("RGB", (2, 2), (255, 0, 51)).save(root / "images" / "a.png")
    Image.new("RGB", (4, 2), (0, 0, 51)).save(root / "images" / "b.png")
    drawing.write_mask(root / "masks" / "a.png", [[0, 0], [0, 255]])
    drawing.write_mask(root / "masks" / "b.png", [[0, 0, 1, 1], [1, 1, 1, 1]])
    (root / "labels.txt").write_text("floor\nwall\nlamp\n")
    return root


def counted(root: Path, *, workers: int = 0) -> Statistics:
    return statistics_of(open_dataset(f"masks:{root}@train", default_split="train"), workers=workers)


@pytest.mark.parametrize("workers", [0, 2])
def test_by_hand(tmp_path: Path, workers: int) -> None:
    found = counted(two_images(tmp_path), workers=workers)
    assert found.images == 2
    assert found.failures == ()
    assert found.pixels == 12
    assert found.heights == (2, 2.0, 2)
    assert found.widths == (2, 3.0, 4)
    assert [(one.name, one.pixels, one.images) for one in found.classes] == [
        ("floor", 5, 2),
        ("wall", 6, 1),
        ("lamp", 0, 0),
    ]
    assert [one.share for one in found.classes] == pytest.approx([5 / 12, 6 / 12, 0])
    assert found.void_share == pytest.approx(1 / 12)
    # red: 4 pixels of 1 and 8 of 0, mean 1/3, variance 1/3·2/3
    assert found.mean_rgb == pytest.approx((1 / 3, 0, 0.2))
    assert found.std_rgb == pytest.approx((np.sqrt(2 / 9), 0, 0), abs=1e-9)


def test_mean_and_deviation_of_noise_by_a_second_formula(tmp_path: Path) -> None:
    masks_set.masks(tmp_path, "abc")
    pixels = np.concatenate(
        [np.asarray(Image.open(tmp_path / "images" / f"{name}.png")).reshape(-1, 3) for name in "abc"]
    )
    found = counted(tmp_path)
    assert found.mean_rgb == pytest.approx(tuple(pixels.mean(axis=0) / 255), rel=1e-12)
    assert found.std_rgb == pytest.approx(tuple(pixels.std(axis=0) / 255), rel=1e-12)


def test_json(tmp_path: Path) -> None:
    content = counted(two_images(tmp_path)).to_json()
    assert content["size"] == {"height": {"min": 2, "median": 2, "max": 2}, "width": {"min": 2, "median": 3, "max": 4}}
    assert content["per_class"]["wall"] == {"pixels": 6, "share": 0.5, "images": 1}


def test_objects_by_class_and_size(tmp_path: Path) -> None:
    """31·33 and 32·32 pixels, 95·97 and 96·96, and a crowd."""
    sides = {1: (31, 33), 2: (32, 32), 3: (95, 97), 4: (96, 96)}
    objects = [
        coco_set.annotation(number, 7, 3 if number < 4 else 9, (0, 0, width, height))
        for number, (height, width) in sides.items()
    ]
    runs = {"size": [120, 120], "counts": [0, 120, 120 * 119]}
    objects.append(coco_set.annotation(5, 7, 9, (0, 0, 1, 120), iscrowd=1, segmentation=runs))
    images = [{"id": id, "file_name": f"{id}.png", "height": 120, "width": 120} for id in (7, 8)]
    coco_set.coco(tmp_path, objects, images=images)
    found = statistics_of(open_dataset(f"coco:{tmp_path}", default_split="train"))
    assert found.objects is not None
    assert (found.objects.small, found.objects.medium, found.objects.large) == (1, 2, 1)
    assert (found.objects.objects, found.objects.crowds, found.objects.images) == (4, 1, 1)
    content = found.to_json()
    assert content["objects"] == {"objects": 4, "small": 1, "medium": 2, "large": 1, "crowds": 1, "images": 1}
    truck = content["per_class"]["truck"]
    assert {key: truck[key] for key in ("objects", "small", "medium", "large", "crowds")} == {
        "objects": 1, "small": 0, "medium": 0, "large": 1, "crowds": 1,
    }  # fmt: skip


def test_images_that_cannot_be_read_are_named_and_skipped(tmp_path: Path) -> None:
    two_images(tmp_path)
    (tmp_path / "images" / "a.png").write_bytes(b"")
    found = counted(tmp_path)
    assert found.images == 1
    assert len(found.failures) == 1
    assert "a.png: the file is empty (image 'a')" in found.failures[0]
    (tmp_path / "images" / "b.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of 2 images could be read; the first: .*a\.png: the file is empty"):
        counted(tmp_path)
