"""LabelMe: every kind of shape, groups, label files, and each fault by its file and place."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pixelwise.data.kinds.object_lists import DrawnObjects
from pixelwise.data.listing import Fault
from pixelwise.data.spec import DataSpec, open_dataset, splits_of
from pixelwise.data.tools.check import check_dataset
from pixelwise.data.tools.convert import convert_dataset
from pixelwise.errors import DataError
from pixelwise.types import Instances
from tests.data import trees

SQUARE = [(1, 1), (4, 1), (4, 4), (1, 4)]


def opened(root: Path, split: str = "train", query: str = "") -> DrawnObjects:
    dataset = open_dataset(f"labelme:{root}@{split}{query}", default_split="train")
    assert isinstance(dataset, DrawnObjects)
    return dataset


def instances(dataset: DrawnObjects, index: int = 0) -> Instances:
    found = dataset[index].truth.instances
    assert found is not None
    return found


def faults(root: Path) -> list[Fault]:
    return [*check_dataset(DataSpec.parse(f"labelme:{root}")).faults()]


def one_file(root: Path, *shapes: dict[str, Any], **fields: Any) -> Path:
    trees.labelme_file(root / "train", "a", shapes, **fields)
    return root


def png(mask: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray((mask * 255).astype(np.uint8)).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


class TestShapes:
    def test_polygon_rectangle_and_mask(self, tmp_path: Path) -> None:
        mask = np.array([[1, 0, 1], [1, 1, 1]])
        shapes = (
            trees.shape("a", SQUARE),
            trees.shape("b", [(4, 4), (1, 1)], "rectangle"),
            trees.shape("c", [(5, 6), (7, 7)], "mask", mask=png(mask)),
            trees.shape("d", [(7, 7), (9, 8)], "mask", mask=png(mask)),
        )
        found = instances(opened(one_file(tmp_path, *shapes)))
        assert found.masks is not None
        square = np.zeros((8, 8), dtype=bool)
        square[1:4, 1:4] = True
        picture = np.zeros((8, 8), dtype=bool)
        picture[6:8, 5:8] = mask
        cut = np.zeros((8, 8), dtype=bool)
        cut[7, 7] = True
        for number, wanted in enumerate((square, square, picture, cut)):
            assert np.array_equal(found.masks.dense_one(number).numpy(), wanted)
        assert found.boxes[:3].tolist() == [[1, 1, 4, 4], [1, 1, 4, 4], [5, 6, 8, 8]]
        assert found.labels.tolist() == [1, 2, 3, 4]

    def test_a_circle(self, tmp_path: Path) -> None:
        trees.labelme_file(
            tmp_path / "train", "a", [trees.shape("a", [(50, 50), (50, 80)], "circle")], imageHeight=100, imageWidth=100
        )
        trees.write_image(tmp_path / "train" / "a.png", size_hw=(100, 100))
        masks = instances(opened(tmp_path)).masks
        assert masks is not None
        y, x = np.mgrid[:100, :100] + 0.5
        inside = (x - 50) ** 2 + (y - 50) ** 2 < 30**2
        assert (masks.dense_one(0).numpy() != inside).sum() < 0.05 * inside.sum()
        assert abs(int(masks.areas()[0]) - np.pi * 30**2) < 0.02 * np.pi * 30**2

    def test_a_group_is_one_object(self, tmp_path: Path) -> None:
        shapes = (
            trees.shape("a", [(0, 0), (2, 2)], "rectangle", group_id=3),
            trees.shape("b", [(0, 4), (2, 6)], "rectangle", group_id=3),
            trees.shape("a", [(4, 0), (6, 2)], "rectangle", group_id=3),
            trees.shape("a", [(4, 4), (6, 6)], "rectangle", group_id=4, flags={"crowd": True}),
        )
        dataset = opened(one_file(tmp_path, *shapes))
        found = instances(dataset)
        assert found.boxes.tolist() == [[0, 0, 6, 2], [0, 4, 2, 6], [4, 4, 6, 6]]
        assert found.masks is not None
        assert found.masks.areas().tolist() == [8, 4, 4]
        assert found.crowd is not None
        assert found.crowd.tolist() == [False, False, True]

    def test_what_has_no_area_is_left_out_and_counted(self, tmp_path: Path) -> None:
        shapes = (
            trees.shape("a", [(1, 1)], "point"),
            trees.shape("a", [(1, 1), (2, 2)], "line"),
            trees.shape("a", [(1, 1), (2, 2)]),
            trees.shape("__ignore__", SQUARE),
            trees.shape("_background_", SQUARE),
            trees.shape("a", SQUARE),
        )
        dataset = opened(one_file(tmp_path, *shapes))
        assert len(instances(dataset)) == 1
        assert dataset.labels.names == ("background", "a")
        assert dataset.note == (
            "left out: 2 annotations without area, 1 annotation without extent, 1 annotation called __ignore__, "
            "see pixelwise data check"
        )


class TestFiles:
    def test_one_folder_without_splits(self, tmp_path: Path) -> None:
        for seed, name in enumerate("abcde"):
            trees.labelme_file(tmp_path, name, [trees.shape("x", SQUARE)], seed=seed)
        assert splits_of(f"labelme:{tmp_path}") == ("train", "val")
        assert opened(tmp_path, "val").ids == ("e",)
        assert "every fifth" in str(opened(tmp_path, "val").note)

    def test_names_of_all_splits_are_the_classes_of_each(self, tmp_path: Path) -> None:
        trees.labelme_file(tmp_path / "train", "a", [trees.shape("b", SQUARE)])
        trees.labelme_file(tmp_path / "val", "c", [trees.shape("a", SQUARE)])
        assert (
            opened(tmp_path, "train").labels.names == opened(tmp_path, "val").labels.names == ("background", "a", "b")
        )

    def test_label_files(self, tmp_path: Path) -> None:
        one_file(tmp_path, trees.shape("b", SQUARE))
        (tmp_path / "labels.txt").write_text("__ignore__\n_background_\nb\na\n")
        assert opened(tmp_path).labels.names == ("background", "b", "a")
        (tmp_path / "labels.txt").write_text("a\n")
        with pytest.raises(DataError, match=r"a\.json: shape 1: label 'b' is not in the label set"):
            opened(tmp_path)
        assert [fault.kind for fault in faults(tmp_path)] == ["unknown category"]

    def test_images_elsewhere_and_names_of_windows(self, tmp_path: Path) -> None:
        one_file(tmp_path, trees.shape("b", SQUARE), imagePath="..\\photos\\a.png")
        (tmp_path / "photos").mkdir()
        (tmp_path / "train" / "a.png").rename(tmp_path / "photos" / "a.png")
        assert opened(tmp_path).image_path(0).resolve() == (tmp_path / "photos" / "a.png").resolve()
        (tmp_path / "photos").rename(tmp_path / "pictures")
        with pytest.raises(DataError, match=r"a\.json: no image '\.\./photos/a\.png'; 1 of 1 are missing"):
            opened(tmp_path)
        assert opened(tmp_path, query="?images=pictures").ids == ("a",)
        (tmp_path / "boxes").mkdir()
        (tmp_path / "train").rename(tmp_path / "boxes" / "train")
        assert opened(tmp_path, query="?images=pictures&annotations=boxes").ids == ("a",)

    def test_a_file_without_the_size_of_its_image(self, tmp_path: Path) -> None:
        one_file(tmp_path, trees.shape("b", SQUARE), imageHeight=None, imageWidth=None)
        assert opened(tmp_path).size_of(0) == (8, 8)

    def test_no_files(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no JSON files in it or in its sub-folders"):
            opened(tmp_path)


class TestFaults:
    @pytest.mark.parametrize(
        ("shape", "kind", "text"),
        [
            (trees.shape("a", SQUARE[:2]), "polygon without extent", "the polygon has 2 points, not 3"),
            (trees.shape("a", [(1, 1)], "rectangle"), "polygon without extent", "the rectangle has 1 points, not 2"),
            (trees.shape("a", SQUARE, "linestrip"), "shape without area", "a linestrip of 'a' covers no pixel"),
            (
                trees.shape("a", [(9, 9), (12, 9), (12, 12)]),
                "object without pixels",
                "its segmentation covers no pixel of the image",
            ),
            (trees.shape("a", [(1,)]), "shape", "its points are not a list of pairs x, y"),
            (trees.shape("", SQUARE), "shape", "a shape needs a label and points"),
            (trees.shape("a", SQUARE, group_id="x"), "shape", "its group_id is 'x', a whole number or null is wanted"),
            (
                trees.shape("a", SQUARE[:2], "mask", mask="no"),
                "shape",
                "the mask of 'a' needs two corners and a picture in base64",
            ),
            (
                trees.shape("z", SQUARE, "spline"),
                "unknown shape",
                "a spline; polygons, rectangles, circles and masks are read",
            ),
        ],
    )  # fmt: skip
    def test_each_with_its_file_and_place(self, tmp_path: Path, shape: dict[str, Any], kind: str, text: str) -> None:
        one_file(tmp_path, trees.shape("a", SQUARE), shape)
        assert faults(tmp_path) == [Fault(kind, f"{tmp_path}/train/a.json: shape 2", text)]
        if kind == "shape":
            with pytest.raises(DataError, match=r"a\.json: shape 2: .*; pixelwise data check lists all such faults"):
                opened(tmp_path)

    def test_repeated_objects_and_objects_in_two_classes(self, tmp_path: Path) -> None:
        one_file(tmp_path, trees.shape("a", SQUARE), trees.shape("a", SQUARE), trees.shape("b", SQUARE))
        assert [(fault.kind, fault.where, fault.text) for fault in faults(tmp_path)] == [
            ("repeated annotation", f"{tmp_path}/train/a.json: shape 2",
             "shape 1 has the same class and the same pixels"),
            ("object in two classes", f"{tmp_path}/train/a.json: shape 3",
             "shape 1 of class 'a' has the same pixels, this is 'b'"),
        ]  # fmt: skip

    def test_files_and_images(self, tmp_path: Path) -> None:
        one_file(tmp_path, trees.shape("a", SQUARE))
        trees.labelme_file(tmp_path / "train", "b", [], imageHeight=9)
        trees.labelme_file(tmp_path / "train", "c", [])
        trees.labelme_file(tmp_path / "train", "d", [])
        trees.labelme_file(tmp_path / "train", "e", [], imageHeight="x", seed=5)
        (tmp_path / "train" / "c.png").unlink()
        (tmp_path / "train" / "d.json").write_text("[]")
        trees.write_image(tmp_path / "train" / "b.png", seed=7, size_hw=(8, 8))
        trees.write_image(tmp_path / "train" / "d.png", seed=8, size_hw=(8, 8))
        folder = tmp_path / "train"
        assert [(fault.kind, fault.where) for fault in faults(tmp_path)] == [
            ("missing image", f"{folder}/c.json"),
            ("unreadable annotations", f"{folder}/d.json"),
            ("image entry", f"{folder}/e.json"),
            ("size mismatch", "image b 'b.png'"),
        ]


def test_what_is_written_is_a_file_of_labelme(tmp_path: Path) -> None:
    objects = [trees.annotation(1, 7, 3, (0, 0, 2, 2)), trees.annotation(2, 7, 9, (3, 3, 8, 8), iscrowd=1)]
    objects[0]["segmentation"] = [trees.rectangle(0, 0, 2, 2), trees.rectangle(4, 0, 6, 1)]
    objects[0]["bbox"] = [0, 0, 8, 2]
    trees.coco(tmp_path / "a", objects)
    made = convert_dataset(DataSpec.parse(f"coco:{tmp_path / 'a'}"), DataSpec.parse(f"labelme:{tmp_path / 'b'}"))
    assert made.losses == {"loose_boxes": 1}
    content = json.loads((tmp_path / "b" / "train" / "a.json").read_text())
    assert (content["imagePath"], content["imageHeight"], content["imageWidth"]) == ("a.png", 8, 8)
    assert content["imageData"] is None
    assert [(one["label"], one["group_id"], one["flags"], one["points"]) for one in content["shapes"]] == [
        ("crate", 1, {}, [[0, 0], [2, 0], [2, 2], [0, 2]]),
        ("crate", 1, {}, [[4, 0], [6, 0], [6, 1], [4, 1]]),
        ("truck", None, {"crowd": True}, [[3, 3], [8, 3], [8, 8], [3, 8]]),
    ]
    crowd = instances(opened(tmp_path / "b")).crowd
    assert crowd is not None
    assert crowd.tolist() == [False, True]
