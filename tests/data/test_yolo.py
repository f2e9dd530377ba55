"""YOLO's polygons: layouts, class numbers, and each fault by its file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pixelwise.data.kinds.object_lists import DrawnObjects
from pixelwise.data.listing import Fault
from pixelwise.data.spec import DataSpec, open_dataset, splits_of
from pixelwise.data.tools.check import check_dataset
from pixelwise.data.tools.convert import convert_dataset
from pixelwise.errors import DataError
from pixelwise.types import Instances
from tests.data import trees

SQUARE = "0 0 0 0.5 0 0.5 0.5 0 0.5"


def opened(root: Path, split: str = "train", query: str = "") -> DrawnObjects:
    dataset = open_dataset(f"yolo:{root}@{split}{query}", default_split="train")
    assert isinstance(dataset, DrawnObjects)
    return dataset


def instances(dataset: DrawnObjects, index: int = 0) -> Instances:
    found = dataset[index].truth.instances
    assert found is not None
    return found


def faults(root: Path) -> list[Fault]:
    return [*check_dataset(DataSpec.parse(f"yolo:{root}")).faults()]


def one_file(root: Path, *lines: str) -> Path:
    trees.yolo(root, {"train": "a"})
    (root / "labels" / "train" / "a.txt").write_text("".join(f"{line}\n" for line in lines))
    return root


def test_by_hand(tmp_path: Path) -> None:
    dataset = opened(trees.yolo(tmp_path))
    assert dataset.labels.names == ("background", "crate", "truck")
    assert instances(dataset).boxes.tolist() == [[0, 0, 2, 2], [4, 2, 8, 8]]
    assert instances(dataset).labels.tolist() == [1, 2]
    semantic = dataset[0].truth.semantic
    assert semantic is not None
    assert semantic[:3].tolist() == [[1, 1, 0, 0, 0, 0, 0, 0]] * 2 + [[0, 0, 0, 0, 2, 2, 2, 2]]
    assert len(instances(dataset, 2)) == 0


class TestLayouts:
    def test_an_image_without_a_file_has_no_objects(self, tmp_path: Path) -> None:
        trees.yolo(tmp_path)
        (tmp_path / "labels" / "train" / "a.txt").unlink()
        assert len(instances(opened(tmp_path))) == 0
        assert faults(tmp_path) == []

    def test_folders_without_data_yaml(self, tmp_path: Path) -> None:
        trees.yolo(tmp_path)
        (tmp_path / "data.yaml").unlink()
        with pytest.raises(DataError, match=r"no names in data\.yaml, and no labels\.txt or classes\.txt"):
            opened(tmp_path)
        (tmp_path / "classes.txt").write_text("crate\ntruck\n")
        assert splits_of(f"yolo:{tmp_path}") == ("train", "val")
        assert len(instances(opened(tmp_path))) == 2

    def test_as_roboflow_writes_it(self, tmp_path: Path) -> None:
        trees.yolo(tmp_path, {"train": "ab", "valid": "c"})
        for split in ("train", "valid"):
            (tmp_path / split).mkdir()
            for kind in ("images", "labels"):
                (tmp_path / kind / split).rename(tmp_path / split / kind)
        text = "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['crate', 'truck']\n"
        (tmp_path / "data.yaml").write_text(text)
        assert splits_of(f"yolo:{tmp_path}") == ("train", "val")
        assert opened(tmp_path, "val").ids == ("c",)
        assert len(instances(opened(tmp_path))) == 2
        (tmp_path / "data.yaml").write_text("names: {0: crate, 1: truck}\n")
        assert opened(tmp_path).ids == ("a", "b")

    def test_one_folder_without_splits(self, tmp_path: Path) -> None:
        trees.yolo(tmp_path, {".": "abcde"})
        (tmp_path / "data.yaml").write_text("names: [crate, truck]\n")
        assert splits_of(f"yolo:{tmp_path}") == ("train", "val")
        assert opened(tmp_path, "val").ids == ("e",)
        assert "every fifth" in str(opened(tmp_path).note)

    def test_a_list_of_images(self, tmp_path: Path) -> None:
        trees.yolo(tmp_path)
        (tmp_path / "few.txt").write_text("./images/train/b.png\nimages/val/d.png\n")
        (tmp_path / "data.yaml").write_text("train: few.txt\nnames: [crate, truck]\n")
        assert opened(tmp_path).ids == ("b", "d")
        assert len(instances(opened(tmp_path), 1)) == 2

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("- x", "train, val and names are wanted"),
            ("a: [", "not a readable YAML file"),
            ("train: nowhere\nnames: [a]", "no folder nowhere"),
            ("train: images/train\nnames: 3", "names is 3"),
            ("train: images/train\nnames: [a, a]", "a name stands more than once"),
        ],
    )
    def test_another_data_yaml(self, tmp_path: Path, text: str, why: str) -> None:
        trees.yolo(tmp_path)
        (tmp_path / "data.yaml").write_text(text)
        with pytest.raises(DataError, match=why) as caught:
            opened(tmp_path)
        assert "\n" not in str(caught.value)

    def test_numbers_with_gaps(self, tmp_path: Path) -> None:
        one_file(tmp_path, SQUARE.replace("0 ", "7 ", 1))
        (tmp_path / "data.yaml").write_text("train: images/train\nnames: {2: crate, 7: truck}\n")
        assert instances(opened(tmp_path)).labels.tolist() == [2]


class TestFaults:
    @pytest.mark.parametrize(
        ("line", "kind", "text"),
        [
            ("0 0.5 0.5 0.2 0.2", "no segmentation", "no polygon; a box alone does not say which pixels"),
            ("0 0.1 0.1", "polygon without extent", "the polygon has 1 points, not three"),
            ("2 0 0 0.5 0 0.5 0.7", "unknown category", "class 2 is not in the label set"),
            ("0 0 0 0.5 0 0.5", "line", "5 coordinates; pairs x y are wanted"),
            ("0 a b c d e f", "line", "a class and numbers x1 y1 x2 y2 … are wanted"),
            ("0.5 0 0 0.5 0 0.5 0.5", "line", "a class (a whole number) and numbers x1 y1 x2 y2 … are wanted"),
            ("0 nan 0 0.5 0 0.5 0.5", "line", "a class (a whole number) and numbers x1 y1 x2 y2 … are wanted"),
            ("0 0 0 640 0 640 480", "line",
             "a coordinate 639 outside of 0 to 1; fractions of width and height are wanted, no pixels"),
            ("0 0.5 0.5 1.2 0.5 1.2 1", "polygon outside", "a corner lies 0.2 of the image outside of it"),
            ("0 0 0 0.01 0 0.01 0.01", "object without pixels", "its segmentation covers no pixel of the image"),
            (SQUARE, "repeated annotation", "line 1 has the same class and the same pixels"),
            (SQUARE.replace("0 ", "1 ", 1), "object in two classes",
             "line 1 of class 'crate' has the same pixels, this is 'truck'"),
        ],
    )  # fmt: skip
    def test_each_with_its_file_and_line(self, tmp_path: Path, line: str, kind: str, text: str) -> None:
        one_file(tmp_path, SQUARE, line)
        assert faults(tmp_path) == [Fault(kind, f"{tmp_path}/labels/train/a.txt: line 2", text)]
        if kind in ("line", "unknown category"):
            with pytest.raises(DataError, match=r"a\.txt: line 2: .*; pixelwise data check lists all such faults"):
                opened(tmp_path)
        else:
            assert len(instances(opened(tmp_path))) >= 1

    def test_the_same_box_twice(self, tmp_path: Path) -> None:
        one_file(tmp_path, SQUARE, "0 0.5 0.5 0.2 0.2", "0 0.5  0.5 0.2 0.2")
        assert [(fault.kind, fault.where[-6:]) for fault in faults(tmp_path)] == [
            ("no segmentation", "line 2"), ("no segmentation", "line 3"), ("repeated annotation", "line 3"),
        ]  # fmt: skip
        assert opened(tmp_path).note == "left out: 2 annotations without segmentation, see pixelwise data check"

    def test_boxes_alone_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="all 1 lines are boxes; boxes alone do not say which pixels"):
            opened(one_file(tmp_path, "0 0.5 0.5 0.2 0.2"))

    def test_a_file_that_is_no_text(self, tmp_path: Path) -> None:
        one_file(tmp_path, SQUARE)
        (tmp_path / "labels" / "train" / "a.txt").write_bytes(b"\xff\xfe\xfa")
        assert [fault.kind for fault in faults(tmp_path)] == ["unreadable annotations"]


def test_what_is_written_is_a_set_of_yolo(tmp_path: Path) -> None:
    objects = [trees.annotation(1, 7, 3, (0, 0, 2, 2)), trees.annotation(2, 7, 9, (4, 2, 8, 8), iscrowd=1)]
    trees.coco(tmp_path / "a", [*objects, trees.annotation(3, 7, 9, (4, 2, 8, 8))])
    made = convert_dataset(DataSpec.parse(f"coco:{tmp_path / 'a'}"), DataSpec.parse(f"yolo:{tmp_path / 'b'}"))
    assert made.losses == {"left_out_crowds": 1}
    assert (tmp_path / "b" / "labels" / "train" / "a.txt").read_text().splitlines() == [
        "0 0 0 0.25 0 0.25 0.25 0 0.25",
        "1 0.5 0.25 1 0.25 1 1 0.5 1",
    ]
    content = yaml.safe_load((tmp_path / "b" / "data.yaml").read_text())
    assert content == {"train": "images/train", "names": {0: "crate", 1: "truck"}}
