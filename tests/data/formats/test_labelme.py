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

from pixelwise.data.dataset import FileDataset
from pixelwise.data.listing import Fault
from pixelwise.data.spec import DataSpec, open_dataset, splits_of
from pixelwise.data.tools.check import check_dataset
from pixelwise.data.tools.convert import convert_dataset
from pixelwise.data.tools.repair import repair_dataset
from pixelwise.errors import DataError
from pixelwise.types import Instances
from tests.data import drawing
from tests.data.formats import coco_set, labelme_set

SQUARE = [(1, 1), (4, 1), (4, 4), (1, 4)]


def opened(root: Path, split: str = "train", query: str = "") -> FileDataset:
    dataset = open_dataset(f"labelme:{root}@{split}{query}", default_split="train")
    assert isinstance(dataset, FileDataset)
    return dataset


def instances(dataset: FileDataset, index: int = 0) -> Instances:
    found = dataset[index].truth.instances
    assert found is not None
    return found


def faults(root: Path) -> list[Fault]:
    return [*check_dataset(DataSpec.parse(f"labelme:{root}")).faults()]


def one_file(root: Path, *shapes: dict[str, Any], **fields: Any) -> Path:
    labelme_set.labelme_file(root / "train", "a", shapes, **fields)
    return root


def png(mask: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray((mask * 255).astype(np.uint8)).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


class TestShapes:
    def test_polygon_rectangle_and_mask(self, tmp_path: Path) -> None:
        mask = np.array([[1, 0, 1], [1, 1, 1]])
        shapes = (
            labelme_set.shape("a", SQUARE),
            labelme_set.shape("b", [(4, 4), (1, 1)], "rectangle"),
            labelme_set.shape("c", [(5, 6), (7, 7)], "mask", mask=png(mask)),
            labelme_set.shape("d", [(7, 7), (9, 8)], "mask", mask=png(mask)),
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
        labelme_set.labelme_file(
            tmp_path / "train",
            "a",
            [labelme_set.shape("a", [(50, 50), (50, 80)], "circle")],
            imageHeight=100,
            imageWidth=100,
        )
        drawing.write_image(tmp_path / "train" / "a.png", size_hw=(100, 100))
        masks = instances(opened(tmp_path)).masks
        assert masks is not None
        y, x = np.mgrid[:100, :100] + 0.5
        inside = (x - 50) ** 2 + (y - 50) ** 2 < 30**2
        assert (masks.dense_one(0).numpy() != inside).sum() < 0.05 * inside.sum()
        assert abs(int(masks.areas()[0]) - np.pi * 30**2) < 0.02 * np.pi * 30**2

    def test_a_group_is_one_object(self, tmp_path: Path) -> None:
        shapes = (
            labelme_set.shape("a", [(0, 0), (2, 2)], "rectangle", group_id=3),
            labelme_set.shape("b", [(0, 4), (2, 6)], "rectangle", group_id=3),
            labelme_set.shape("a", [(4, 0), (6, 2)], "rectangle", group_id=3),
            labelme_set.shape("a", [(4, 4), (6, 6)], "rectangle", group_id=4, flags={"crowd": True}),
        )
        dataset = opened(one_file(tmp_path, *shapes))
        found = instances(dataset)
        assert found.boxes.tolist() == [[0, 0, 6, 2], [0, 4, 2, 6], [4, 4, 6, 6]]
        assert found.masks is not None
        assert found.masks.areas().tolist() == [8, 4, 4]
        assert found.crowd is not None
        assert found.crowd.tolist() == [False, False, True]

    def test_what_has_no_area_is_skipped_and_counted(self, tmp_path: Path) -> None:
        shapes = (
            labelme_set.shape("a", [(1, 1)], "point"),
            labelme_set.shape("a", [(1, 1), (2, 2)], "line"),
            labelme_set.shape("a", [(1, 1), (1, 2)]),
            labelme_set.shape("__ignore__", SQUARE),
            labelme_set.shape("_background_", SQUARE),
            labelme_set.shape("a", SQUARE),
        )
        dataset = opened(one_file(tmp_path, *shapes))
        assert instances(dataset).boxes.tolist() == [[1, 1, 4, 4]] * 2  # what is ignored, and the object
        assert dataset.labels.names == ("background", "a")
        assert dataset.note == (
            "skipped: 2 annotations without area, 1 annotation without extent, see pixelwise data check"
        )


class TestRegions:
    """Shapes that mark no object, or tell no outline."""

    def semantic(self, dataset: FileDataset) -> list[list[int]]:
        found = dataset[0].truth.semantic
        assert found is not None
        return found.tolist()

    def test_what_is_ignored_is_void_over_what_was_drawn_before(self, tmp_path: Path) -> None:
        shapes = (
            labelme_set.shape("a", [(0, 0), (4, 8)], "rectangle"),
            labelme_set.shape("__ignore__", [(2, 0), (6, 8)], "rectangle"),
            labelme_set.shape("b", [(5, 0), (8, 8)], "rectangle"),
        )
        dataset = opened(one_file(tmp_path, *shapes))
        assert dataset.labels.names == ("background", "a", "b")
        assert self.semantic(dataset)[0] == [1, 1, 255, 255, 255, 2, 2, 2]
        found = instances(dataset)
        assert found.crowd is not None
        assert found.boxes[~found.crowd].tolist() == [[0, 0, 2, 8], [5, 0, 8, 8]]
        assert found.labels[found.crowd].tolist() == [1, 2]  # nothing of any class is evaluated there
        assert found.boxes[found.crowd].tolist() == [[2, 0, 6, 8]] * 2
        assert [fault for fault in faults(tmp_path) if fault.kind != "no ground truth"] == []

    @pytest.mark.parametrize("name", ["_background_", "background"])
    def test_the_background_is_a_hole(self, tmp_path: Path, name: str) -> None:
        shapes = (
            labelme_set.shape("a", [(0, 0), (8, 8)], "rectangle"),
            labelme_set.shape(name, [(2, 0), (4, 8)], "rectangle"),
            labelme_set.shape("a", [(3, 0), (4, 1)], "rectangle"),
        )
        dataset = opened(one_file(tmp_path, *shapes))
        assert self.semantic(dataset)[:2] == [[1, 1, 0, 1, 1, 1, 1, 1], [1, 1, 0, 0, 1, 1, 1, 1]]
        masks = instances(dataset).masks
        assert masks is not None
        assert masks.areas().tolist() == [48, 1]

    def test_a_later_shape_is_on_top(self, tmp_path: Path) -> None:
        small, large = labelme_set.shape("a", SQUARE), labelme_set.shape("b", [(0, 0), (8, 8)], "rectangle")
        assert self.semantic(opened(one_file(tmp_path / "x", small, large)))[1][1] == 2
        assert self.semantic(opened(one_file(tmp_path / "y", large, small)))[1][1] == 1

    @pytest.mark.parametrize("kind", ["rotation", "oriented_rectangle", "quadrilateral"])
    def test_four_corners(self, tmp_path: Path, kind: str) -> None:
        dataset = opened(one_file(tmp_path, labelme_set.shape("a", SQUARE, kind, direction=0.5)))
        assert instances(dataset).boxes.tolist() == [[1, 1, 4, 4]]
        assert dataset.note is None

    @pytest.mark.parametrize("kind", ["polygon", "spline", "cuboid"])
    def test_of_other_shapes_the_box_is_void(self, tmp_path: Path, kind: str) -> None:
        shapes = (labelme_set.shape("a", SQUARE), labelme_set.shape("a", [(5, 5), (8, 8)], kind))
        dataset = opened(one_file(tmp_path, *shapes))
        assert self.semantic(dataset)[5] == [0, 0, 0, 0, 0, 255, 255, 255]
        assert dataset.note == "ignored in training and evaluation: the boxes of 1 shape without outline"

    @pytest.mark.parametrize(("crowd", "is_crowd"), [("false", False), ("True", True), (0, False), (None, False)])
    def test_crowds_by_text(self, tmp_path: Path, crowd: Any, is_crowd: bool) -> None:
        found = instances(opened(one_file(tmp_path, labelme_set.shape("a", SQUARE, flags={"crowd": crowd}))))
        assert found.crowd is not None
        assert found.crowd.tolist() == [is_crowd]

    @pytest.mark.parametrize("group", [1, "1", 1.0, "left"])
    def test_groups_by_any_name(self, tmp_path: Path, group: Any) -> None:
        shapes = [labelme_set.shape("a", [(x, 0), (x + 2, 2)], "rectangle", group_id=group) for x in (0, 4)]
        assert instances(opened(one_file(tmp_path, *shapes))).boxes.tolist() == [[0, 0, 6, 2]]
        assert faults(tmp_path) == []

    def test_a_mask_in_a_group(self, tmp_path: Path) -> None:
        mask = np.array([[1, 0], [1, 1]])
        shapes = (
            labelme_set.shape("a", [(5, 5), (6, 6)], "mask", mask=png(mask), group_id=2),
            labelme_set.shape("a", [(0, 0), (2, 2)], "rectangle", group_id=2),
        )
        found = instances(opened(one_file(tmp_path, *shapes)))
        assert found.boxes.tolist() == [[0, 0, 7, 7]]
        assert found.masks is not None
        assert found.masks.areas().tolist() == [7]


class TestFiles:
    def test_images_without_file_are_counted(self, tmp_path: Path) -> None:
        one_file(tmp_path, labelme_set.shape("b", SQUARE))
        for seed, name in enumerate("xy", start=5):
            drawing.write_image(tmp_path / "train" / f"{name}.png", seed=seed)
        note = "2 images without JSON file, such as x.png: skipped"
        assert note in str(opened(tmp_path).note)
        assert note in check_dataset(DataSpec.parse(f"labelme:{tmp_path}")).splits[0].notes

    def test_an_image_in_the_file_itself(self, tmp_path: Path) -> None:
        file = labelme_set.labelme_file(tmp_path / "a" / "train", "a", [labelme_set.shape("b", SQUARE)])
        image = file.with_suffix(".png")
        content = json.loads(file.read_text()) | {"imageData": base64.b64encode(image.read_bytes()).decode()}
        file.write_text(json.dumps(content))
        pixels = opened(tmp_path / "a")[0].image
        image.unlink()
        with pytest.raises(DataError, match=r"no image 'a\.png'; the file holds it \(imageData\), .* --fix writes"):
            opened(tmp_path / "a")
        repairs = repair_dataset(DataSpec.parse(f"labelme:{tmp_path / 'a'}"), tmp_path / "b")
        assert repairs.done == {"embedded_images": 1}
        assert opened(tmp_path / "b")[0].image.equal(pixels)
        assert json.loads((tmp_path / "b" / "train" / "a.json").read_text())["imageData"] is None

    def test_another_encoding_is_refused(self, tmp_path: Path) -> None:
        file = labelme_set.labelme_file(tmp_path / "train", "a", [labelme_set.shape("b", SQUARE)])
        labelme_set.labelme_file(tmp_path / "train", "b", [labelme_set.shape("b", SQUARE)], seed=2)
        file.write_bytes(file.read_text().replace('"b"', '"零件"').encode("gbk"))
        assert [(fault.kind, fault.where) for fault in faults(tmp_path)] == [("unreadable annotations", str(file))]

    def test_whole_sizes(self, tmp_path: Path) -> None:
        one_file(tmp_path, labelme_set.shape("b", SQUARE), imageHeight=8.0, imageWidth=8.0)
        assert opened(tmp_path).size_of(0) == (8, 8)
        assert faults(tmp_path) == []

    def test_names_that_look_the_same(self, tmp_path: Path) -> None:
        one_file(tmp_path, labelme_set.shape("part ", SQUARE), labelme_set.shape("Part", [(5, 5), (8, 8)], "rectangle"))
        assert "differ in spaces or capitals alone" in str(opened(tmp_path).note)

    def test_one_folder_without_splits(self, tmp_path: Path) -> None:
        for seed, name in enumerate("abcde"):
            labelme_set.labelme_file(tmp_path, name, [labelme_set.shape("x", SQUARE)], seed=seed)
        assert splits_of(f"labelme:{tmp_path}") == ("train", "val")
        assert opened(tmp_path, "val").ids == ("e",)
        assert "every fifth" in str(opened(tmp_path, "val").note)

    def test_names_of_all_splits_are_the_classes_of_each(self, tmp_path: Path) -> None:
        labelme_set.labelme_file(tmp_path / "train", "a", [labelme_set.shape("b", SQUARE)])
        labelme_set.labelme_file(tmp_path / "val", "c", [labelme_set.shape("a", SQUARE)])
        assert (
            opened(tmp_path, "train").labels.names == opened(tmp_path, "val").labels.names == ("background", "a", "b")
        )

    def test_label_files(self, tmp_path: Path) -> None:
        one_file(tmp_path, labelme_set.shape("b", SQUARE))
        (tmp_path / "labels.txt").write_text("__ignore__\n_background_\nb\na\n")
        assert opened(tmp_path).labels.names == ("background", "b", "a")
        (tmp_path / "labels.txt").write_text("a\n")
        with pytest.raises(DataError, match=r"a\.json: shape 1: label 'b' is not in the label set"):
            opened(tmp_path)
        assert [fault.kind for fault in faults(tmp_path)] == ["unknown category", "no ground truth"]

    def test_images_elsewhere_and_names_of_windows(self, tmp_path: Path) -> None:
        one_file(tmp_path, labelme_set.shape("b", SQUARE), imagePath="..\\photos\\a.png")
        (tmp_path / "photos").mkdir()
        (tmp_path / "train" / "a.png").rename(tmp_path / "photos" / "a.png")
        assert opened(tmp_path).image_path(0).resolve() == (tmp_path / "photos" / "a.png").resolve()
        (tmp_path / "photos").rename(tmp_path / "pictures")
        with pytest.raises(DataError, match=r"a\.json: no image '\.\./photos/a\.png'; pixelwise data check lists"):
            opened(tmp_path)
        assert opened(tmp_path, query="?images=pictures").ids == ("a",)
        (tmp_path / "boxes").mkdir()
        (tmp_path / "train").rename(tmp_path / "boxes" / "train")
        assert opened(tmp_path, query="?images=pictures&annotations=boxes").ids == ("a",)

    def test_a_file_without_the_size_of_its_image(self, tmp_path: Path) -> None:
        one_file(tmp_path, labelme_set.shape("b", SQUARE), imageHeight=None, imageWidth=None)
        assert opened(tmp_path).size_of(0) == (8, 8)

    def test_no_files(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no JSON files in it or in its sub-folders"):
            opened(tmp_path)


class TestFaults:
    @pytest.mark.parametrize(
        ("shape", "kind", "text"),
        [
            (labelme_set.shape("a", SQUARE[:2]), "polygon without extent", "the polygon has 2 points, not 3"),
            (
                labelme_set.shape("a", [(1, 1)], "rectangle"),
                "polygon without extent", "the rectangle has 1 points, not 2",
            ),
            (labelme_set.shape("a", SQUARE, "linestrip"), "shape without area", "a linestrip of 'a' covers no pixel"),
            (
                labelme_set.shape("a", [(9, 9), (12, 9), (12, 12)]),
                "object without pixels",
                "its segmentation covers no pixel of the image",
            ),
            (labelme_set.shape("a", [(1,)]), "shape", "its points are not a list of pairs x, y"),
            (labelme_set.shape("", SQUARE), "shape", "a shape needs a label and points"),
            (
                labelme_set.shape("a", SQUARE, group_id=[1]),
                "shape", "its group_id is [1]; expected a number, text or null",
            ),
            (
                labelme_set.shape("a", SQUARE, flags={"crowd": 2}),
                "shape", "its flag crowd is 2; expected true or false",
            ),
            (
                labelme_set.shape("a", SQUARE[:2], "mask", mask="no"),
                "shape",
                "the mask of 'a' needs two corners and a picture in base64",
            ),
            (
                labelme_set.shape("z", SQUARE, "spline"),
                "unknown shape",
                "a spline; polygons, rectangles, circles and masks are read",
            ),
        ],
    )  # fmt: skip
    def test_each_with_its_file_and_place(self, tmp_path: Path, shape: dict[str, Any], kind: str, text: str) -> None:
        one_file(tmp_path, labelme_set.shape("a", SQUARE), shape)
        assert faults(tmp_path) == [Fault(kind, f"{tmp_path}/train/a.json: shape 2", text)]
        if kind == "shape":
            with pytest.raises(DataError, match=r"a\.json: shape 2: .*; pixelwise data check lists all such faults"):
                opened(tmp_path)

    def test_repeated_objects_and_objects_in_two_classes(self, tmp_path: Path) -> None:
        one_file(
            tmp_path, labelme_set.shape("a", SQUARE), labelme_set.shape("a", SQUARE), labelme_set.shape("b", SQUARE)
        )
        assert [(fault.kind, fault.where, fault.text) for fault in faults(tmp_path)] == [
            ("repeated annotation", f"{tmp_path}/train/a.json: shape 2",
             "shape 1 has the same class and the same pixels"),
            ("object in two classes", f"{tmp_path}/train/a.json: shape 3",
             "shape 1 of class 'a' has the same pixels, this is 'b'"),
        ]  # fmt: skip

    def test_files_and_images(self, tmp_path: Path) -> None:
        one_file(tmp_path, labelme_set.shape("a", SQUARE))
        labelme_set.labelme_file(tmp_path / "train", "b", [], imageHeight=9)
        labelme_set.labelme_file(tmp_path / "train", "c", [])
        labelme_set.labelme_file(tmp_path / "train", "d", [])
        labelme_set.labelme_file(tmp_path / "train", "e", [], imageHeight="x", seed=5)
        (tmp_path / "train" / "c.png").unlink()
        (tmp_path / "train" / "d.json").write_text("[]")
        drawing.write_image(tmp_path / "train" / "b.png", seed=7, size_hw=(8, 8))
        drawing.write_image(tmp_path / "train" / "d.png", seed=8, size_hw=(8, 8))
        folder = tmp_path / "train"
        assert [(fault.kind, fault.where) for fault in faults(tmp_path)] == [
            ("missing image", f"{folder}/c.json"),
            ("unreadable annotations", f"{folder}/d.json"),
            ("image entry", f"{folder}/e.json"),
            ("size mismatch", f"{folder}/b.png"),
        ]


def test_what_is_written_is_a_file_of_labelme(tmp_path: Path) -> None:
    objects = [coco_set.annotation(1, 7, 3, (0, 0, 2, 2)), coco_set.annotation(2, 7, 9, (3, 3, 8, 8), iscrowd=1)]
    objects[0]["segmentation"] = [drawing.rectangle(0, 0, 2, 2), drawing.rectangle(4, 0, 6, 1)]
    objects[0]["bbox"] = [0, 0, 8, 2]
    coco_set.coco(tmp_path / "a", objects)
    made = convert_dataset(DataSpec.parse(f"coco:{tmp_path / 'a'}"), DataSpec.parse(f"labelme:{tmp_path / 'b'}"))
    assert made.losses == {"loose_boxes": 1}
    content = json.loads((tmp_path / "b" / "train" / "a.json").read_text())
    assert (content["imagePath"], content["imageHeight"], content["imageWidth"]) == ("a.png", 8, 8)
    assert content["imageData"] is None
    assert [(one["label"], one["group_id"], one["flags"], one["points"]) for one in content["shapes"]] == [
        ("truck", None, {"crowd": True}, [[3, 3], [8, 3], [8, 8], [3, 8]]),
        ("crate", 2, {}, [[0, 0], [2, 0], [2, 2], [0, 2]]),
        ("crate", 2, {}, [[4, 0], [6, 0], [6, 1], [4, 1]]),
    ]
    crowd = instances(opened(tmp_path / "b")).crowd
    assert crowd is not None
    assert crowd.tolist() == [True, False]
