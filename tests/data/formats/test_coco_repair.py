"""Repaired copies of COCO JSON files: no sound ground truth is lost, and what was converted is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixelwise.data.spec import DataSpec, open_dataset
from pixelwise.data.tools.check import check_dataset
from pixelwise.data.tools.repair import Repairs, repair_dataset
from pixelwise.errors import DataError
from pixelwise.ops import rle
from pixelwise.types import Instances
from tests.data import drawing
from tests.data.formats import coco_set

CRATE, TRUCK = 3, 9


def fixed(root: Path) -> tuple[dict[str, Any], Repairs]:
    """The content of the copy, in which no fault is left, and what was done."""
    out = root.with_suffix(".json")
    repairs = repair_dataset(DataSpec.parse(f"coco:{root}"), out)
    assert check_dataset(DataSpec.parse(repairs.opens_as[0])).faults() == ()
    return json.loads(out.read_text()), repairs


def instances(repairs: Repairs) -> Instances:
    found = open_dataset(repairs.opens_as[0], default_split="all")[0].truth.instances
    assert found is not None
    return found


class TestTypes:
    @pytest.mark.parametrize(("in_images", "in_annotations"), [("7", 7), (7, "7"), ("7", 7.0)])
    def test_image_ids_that_are_text_in_one_place(self, tmp_path: Path, in_images: Any, in_annotations: Any) -> None:
        images = [{"id": in_images, "file_name": "a.png", "height": 8, "width": 8}]
        coco_set.coco(tmp_path / "a", [coco_set.annotation(1, in_annotations, CRATE, (0, 0, 2, 2))], images=images)
        content, repairs = fixed(tmp_path / "a")
        assert repairs.done == {"ids_as_numbers": 1}
        assert "1 id in text becomes a number, as in other places" in [*repairs.lines()]
        assert (
            [one["image_id"] for one in content["annotations"]] == [image["id"] for image in content["images"]] == [7]
        )

    def test_numbers_for_ids_that_are_no_numbers(self, tmp_path: Path) -> None:
        images = [{"id": id, "file_name": f"{id}.png", "height": 8, "width": 8} for id in ("12", "x")]
        objects = [coco_set.annotation(1, 12, CRATE, (0, 0, 2, 2)), coco_set.annotation(2, "x", CRATE, (0, 0, 2, 2))]  # pyright: ignore[reportArgumentType]
        content, repairs = fixed(coco_set.coco(tmp_path / "a", objects, images=images))
        assert repairs.done == {"ids_as_text": 1}
        assert [one["image_id"] for one in content["annotations"]] == ["12", "x"]

    @pytest.mark.parametrize(("in_list", "in_annotations"), [("3", 3), (3, "3")])
    def test_category_ids_that_are_text_in_one_place(self, tmp_path: Path, in_list: Any, in_annotations: Any) -> None:
        categories = [{"id": in_list, "name": "crate"}]
        objects = [coco_set.annotation(number, 7, in_annotations, (number, 0, 2 + number, 2)) for number in (1, 2)]
        content, repairs = fixed(coco_set.coco(tmp_path / "a", objects, categories=categories))
        assert repairs.done == {"ids_as_numbers": 1 if in_list == "3" else 2}
        assert [one["category_id"] for one in content["annotations"]] == [3, 3]

    def test_numbers_written_as_text(self, tmp_path: Path) -> None:
        images = [
            {"id": 7, "file_name": "a.png", "height": "8", "width": 8.0},
            {"id": 8, "file_name": "b.png", "height": 8.0, "width": 8.0},
        ]
        corners = [str(value) for value in drawing.rectangle(0, 0, 2, 2)]
        objects = [
            coco_set.annotation(1, 7, CRATE, (0, 0, 2, 2), iscrowd="0", area="4", bbox=["0", "0", "2", "2"]),
            coco_set.annotation(2, 8, CRATE, (0, 0, 2, 2), iscrowd="true", segmentation=[corners]),
        ]
        coco_set.coco(tmp_path / "a", objects, images=images)
        for seed, name in enumerate("ab"):
            drawing.write_image(tmp_path / "a" / "train" / f"{name}.png", seed=seed, size_hw=(8, 8))
        content, repairs = fixed(tmp_path / "a")
        assert repairs.done == {"numbers": 6}
        assert [(image["height"], image["width"]) for image in content["images"]] == [(8, 8)] * 2
        assert [one["iscrowd"] for one in content["annotations"]] == [0, 1]
        assert content["annotations"][0]["area"] == 4
        assert content["annotations"][0]["bbox"] == [0, 0, 2, 2]

    def test_no_set_is_emptied(self, tmp_path: Path) -> None:
        coco_set.coco(tmp_path / "a", [coco_set.annotation(1, 99, CRATE, (0, 0, 2, 2))])
        with pytest.raises(DataError, match="no ground truth is left after the repair"):
            repair_dataset(DataSpec.parse(f"coco:{tmp_path / 'a'}"), tmp_path / "b.json")
        assert not (tmp_path / "b.json").exists()

    def test_categories_of_one_name_are_joined(self, tmp_path: Path) -> None:
        categories = [{"id": 3, "name": "crate"}, {"id": 4, "name": "crate"}]
        objects = [coco_set.annotation(1, 7, 3, (0, 0, 2, 2)), coco_set.annotation(2, 7, 4, (4, 0, 6, 2))]
        content, repairs = fixed(coco_set.coco(tmp_path / "a", objects, categories=categories))
        assert repairs.done == {"joined_categories": 1}
        assert [one["category_id"] for one in content["annotations"]] == [3, 3]
        assert content["categories"] == categories[:1]


class TestShapes:
    @pytest.mark.parametrize("box", [[4, 4, -3, -2], [1, 2, -3, 2], [0, 0, 0, 0], None, []])
    def test_a_box_is_drawn_anew(self, tmp_path: Path, box: Any) -> None:
        coco_set.coco(tmp_path / "a", [coco_set.annotation(1, 7, CRATE, (1, 2, 4, 4), bbox=box)])
        content, repairs = fixed(tmp_path / "a")
        assert repairs.done == {"boxes": 1}
        assert content["annotations"][0]["bbox"] == [1, 2, 3, 2]

    def test_a_box_of_negative_sides_alone(self, tmp_path: Path) -> None:
        objects = [
            coco_set.annotation(1, 7, CRATE, (0, 0, 2, 2)),
            coco_set.annotation(2, 7, CRATE, (0, 0, 2, 2), bbox=[7, 8, -3, -4], segmentation=[]),
        ]
        content, repairs = fixed(coco_set.coco(tmp_path / "a", objects))
        assert repairs.done == {"boxes": 1, "regions_of_boxes": 1}
        assert content["annotations"][1]["bbox"] == [4, 4, 3, 4]
        assert content["annotations"][1]["iscrowd"] == 1

    @pytest.mark.parametrize(
        "flat",
        [drawing.rectangle(1, 2, 4, 4), [[1, 2], [4, 2], [4, 4], [1, 4]], ["1", "2", "4", "2", "4", "4", "1", "4"]],
    )
    def test_a_flat_list_is_one_polygon(self, tmp_path: Path, flat: Any) -> None:
        coco_set.coco(tmp_path / "a", [coco_set.annotation(1, 7, CRATE, (1, 2, 4, 4), segmentation=flat)])
        content, repairs = fixed(tmp_path / "a")
        assert repairs.done["wrapped_polygons"] == 1
        assert content["annotations"][0]["segmentation"] == [drawing.rectangle(1, 2, 4, 4)]
        assert not content["annotations"][0]["iscrowd"]

    @pytest.mark.parametrize(
        "segmentation",
        [[0, 1, 2, 3, 200, 5, 120, 0], [0, 1, 2, 3, 200, 5, 120], "x", [[]], [[1, 2, 4, 4]], {"size": 3}],
    )
    def test_what_is_no_polygon_leaves_its_box_as_void(self, tmp_path: Path, segmentation: Any) -> None:
        objects = [
            coco_set.annotation(1, 7, CRATE, (0, 0, 1, 1)),
            coco_set.annotation(2, 7, CRATE, (1, 2, 4, 4), segmentation=segmentation),
        ]
        content, repairs = fixed(coco_set.coco(tmp_path / "a", objects))
        assert repairs.done["regions_of_boxes"] == 1
        assert content["annotations"][1]["iscrowd"] == 1
        assert content["annotations"][1]["segmentation"] == [drawing.rectangle(1, 2, 4, 4)]

    def test_areas_of_nothing(self, tmp_path: Path) -> None:
        objects = [
            coco_set.annotation(1, 7, CRATE, (0, 0, 2, 2), area=-1),
            coco_set.annotation(2, 7, CRATE, (4, 4, 8, 8), area=0),
        ]
        content, repairs = fixed(coco_set.coco(tmp_path / "a", objects))
        assert repairs.done == {"areas": 2}
        assert [one["area"] for one in content["annotations"]] == [4, 16]


def portraits(root: Path, boxes: dict[str, tuple[float, float, float, float]], **fields: Any) -> Path:
    """Photographs stored as 40×60 and shown as 60×40, each with one object and the size of the stored one."""
    images = [{"id": place, "file_name": f"{name}.jpg", "height": 40, "width": 60} for place, name in enumerate(boxes)]
    objects = [coco_set.annotation(place, place, CRATE, box, **fields) for place, box in enumerate(boxes.values())]
    coco_set.coco(root, objects, images=images)
    for seed, name in enumerate(boxes):
        drawing.write_turned(root / "train" / f"{name}.jpg", stored_hw=(40, 60), seed=seed)
    return root


class TestPortraits:
    def test_upright_polygons_stay(self, tmp_path: Path) -> None:
        content, repairs = fixed(portraits(tmp_path / "a", {"x": (5, 30, 35, 58)}))
        assert repairs.done == {"sizes": 1}
        assert (content["images"][0]["height"], content["images"][0]["width"]) == (60, 40)
        assert content["annotations"][0]["bbox"] == [5, 30, 30, 28]
        assert instances(repairs).boxes.tolist() == [[5, 30, 35, 58]]

    def test_stored_polygons_are_turned(self, tmp_path: Path) -> None:
        _, repairs = fixed(portraits(tmp_path / "a", {"x": (30, 5, 58, 35)}))
        assert repairs.done == {"sizes": 1, "turned_annotations": 1}
        assert instances(repairs).boxes.tolist() == [[5, 30, 35, 58]]

    @pytest.mark.parametrize("telling", [(5, 30, 35, 58), (30, 5, 58, 35)])
    def test_one_that_fits_both_goes_with_the_others(
        self, tmp_path: Path, telling: tuple[float, float, float, float]
    ) -> None:
        content, repairs = fixed(portraits(tmp_path / "a", {"x": telling, "y": (1, 2, 11, 32)}))
        is_upright = telling == (5, 30, 35, 58)
        assert repairs.done == ({"sizes": 2} if is_upright else {"sizes": 2, "turned_annotations": 2})
        assert content["annotations"][1]["bbox"] == ([1, 2, 10, 30] if is_upright else [8, 1, 30, 10])

    def test_where_nothing_tells_it_is_said(self, tmp_path: Path) -> None:
        content, repairs = fixed(portraits(tmp_path / "a", {"x": (1, 2, 11, 32)}))
        assert repairs.done == {"frames_by_size": 1, "sizes": 1, "turned_annotations": 1}
        assert "the stated size alone says" in "".join(repairs.lines())
        assert content["annotations"][0]["bbox"] == [8, 1, 30, 10]

    def test_run_lengths_tell_by_their_size(self, tmp_path: Path) -> None:
        mask = np.zeros((60, 40), dtype=np.uint8)
        mask[2:32, 1:11] = 1
        content, repairs = fixed(portraits(tmp_path / "a", {"x": (1, 2, 11, 32)}, segmentation=rle.encode(mask)))
        assert repairs.done == {"sizes": 1}
        assert content["annotations"][0]["bbox"] == [1, 2, 10, 30]


def test_names_become_those_of_the_files(tmp_path: Path) -> None:
    images = [{"id": 7, "file_name": "C:\\data\\a.png", "height": 8.0, "width": 8}]
    coco_set.coco(tmp_path / "a", [coco_set.annotation(1, 7, CRATE, (0, 0, 2, 2))], images=images)
    drawing.write_image(tmp_path / "a" / "train" / "a.png", size_hw=(8, 8))
    content, repairs = fixed(tmp_path / "a")
    assert repairs.done == {"file_names": 1}
    assert content["images"][0]["file_name"] == "a.png"
