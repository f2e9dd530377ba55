"""YOLO's polygons: layouts, class numbers, and each fault by its file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pixelwise.data.dataset import FileDataset
from pixelwise.data.listing import Fault
from pixelwise.data.spec import DataSpec, open_dataset, splits_of
from pixelwise.data.tools.check import check_dataset
from pixelwise.data.tools.convert import convert_dataset
from pixelwise.data.tools.repair import repair_dataset
from pixelwise.errors import DataError
from pixelwise.types import Instances
from tests.data.formats import coco_set, yolo_set

SQUARE = "0 0 0 0.5 0 0.5 0.5 0 0.5"


def opened(root: Path, split: str = "train", query: str = "") -> FileDataset:
    dataset = open_dataset(f"yolo:{root}@{split}{query}", default_split="train")
    assert isinstance(dataset, FileDataset)
    return dataset


def instances(dataset: FileDataset, index: int = 0) -> Instances:
    found = dataset[index].truth.instances
    assert found is not None
    return found


def faults(root: Path) -> list[Fault]:
    return [*check_dataset(DataSpec.parse(f"yolo:{root}")).faults()]


def one_file(root: Path, *lines: str) -> Path:
    yolo_set.yolo(root, {"train": "a"})
    (root / "labels" / "train" / "a.txt").write_text("".join(f"{line}\n" for line in lines))
    return root


def test_by_hand(tmp_path: Path) -> None:
    dataset = opened(yolo_set.yolo(tmp_path))
    assert dataset.labels.names == ("background", "crate", "truck")
    assert instances(dataset).boxes.tolist() == [[0, 0, 2, 2], [4, 2, 8, 8]]
    assert instances(dataset).labels.tolist() == [1, 2]
    semantic = dataset[0].truth.semantic
    assert semantic is not None
    assert semantic[:3].tolist() == [[1, 1, 0, 0, 0, 0, 0, 0]] * 2 + [[0, 0, 0, 0, 2, 2, 2, 2]]
    assert len(instances(dataset, 2)) == 0


class TestLayouts:
    def test_an_image_without_a_file_has_no_objects(self, tmp_path: Path) -> None:
        yolo_set.yolo(tmp_path)
        (tmp_path / "labels" / "train" / "a.txt").unlink()
        assert len(instances(opened(tmp_path))) == 0
        assert faults(tmp_path) == []

    def test_folders_without_data_yaml(self, tmp_path: Path) -> None:
        yolo_set.yolo(tmp_path)
        (tmp_path / "data.yaml").unlink()
        with pytest.raises(DataError, match=r"no data\.yaml, and no labels\.txt or classes\.txt"):
            opened(tmp_path)
        (tmp_path / "classes.txt").write_text("crate\ntruck\n")
        assert splits_of(f"yolo:{tmp_path}") == ("train", "val")
        assert len(instances(opened(tmp_path))) == 2

    def test_as_roboflow_writes_it(self, tmp_path: Path) -> None:
        yolo_set.yolo(tmp_path, {"train": "ab", "valid": "c"})
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
        yolo_set.yolo(tmp_path, {".": "abcde"})
        (tmp_path / "data.yaml").write_text("names: [crate, truck]\n")
        assert splits_of(f"yolo:{tmp_path}") == ("train", "val")
        assert opened(tmp_path, "val").ids == ("e",)
        assert "every fifth" in str(opened(tmp_path).note)

    def test_a_list_of_images(self, tmp_path: Path) -> None:
        yolo_set.yolo(tmp_path)
        (tmp_path / "few.txt").write_text("./images/train/b.png\nimages/val/d.png\n")
        (tmp_path / "data.yaml").write_text("train: few.txt\nnames: [crate, truck]\n")
        assert opened(tmp_path).ids == ("b", "d")
        assert len(instances(opened(tmp_path), 1)) == 2

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("- x", "expected train, val and names"),
            ("a: [", "not a readable YAML file"),
            ("train: nowhere\nnames: [a]", "no folder nowhere"),
            ("train: images/train\nnames: 3", "names is '3'"),
            ("train: images/train\nnames: [a, a]", "a name occurs more than once"),
        ],
    )
    def test_another_data_yaml(self, tmp_path: Path, text: str, why: str) -> None:
        yolo_set.yolo(tmp_path)
        (tmp_path / "data.yaml").write_text(text)
        with pytest.raises(DataError, match=why) as caught:
            opened(tmp_path)
        assert "\n" not in str(caught.value)

    def test_numbers_with_gaps(self, tmp_path: Path) -> None:
        one_file(tmp_path, SQUARE.replace("0 ", "7 ", 1))
        (tmp_path / "data.yaml").write_text("train: images/train\nnames: {2: crate, 7: truck}\n")
        assert instances(opened(tmp_path)).labels.tolist() == [2]


def moved(root: Path, *pairs: tuple[str, str]) -> Path:
    """A set of two images, whose files are moved."""
    yolo_set.yolo(root, {"train": "ab"})
    for one, other in pairs:
        (root / other).parent.mkdir(parents=True, exist_ok=True)
        (root / one).rename(root / other)
    return root


def config(root: Path, text: str, name: str = "data.yaml") -> None:
    (root / name).write_text(text)


class TestPlaces:
    @pytest.mark.parametrize(
        ("pairs", "text"),
        [
            ([(f"labels/train/{one}.txt", f"images/train/{one}.txt") for one in "ab"], "images/train"),
            ([("images", "Images"), ("labels", "LABELS")], "Images/train"),
            ([(f"labels/train/{one}.txt", f"labels/train/{one}.TXT") for one in "ab"], "images/train"),
            ([("images/train", "images/t/sub/x"), ("labels/train", "labels/t/sub/x")], "images/t"),
            ([("images/train", "photos"), ("labels/train", "photos/labels")], "photos"),
            ([("images/train", "photos"), ("labels/train", "labels/photos")], "photos"),
            ([], "images\\\\train"),
            ([], "C:\\\\data\\\\set\\\\images\\\\train"),
        ],
    )
    def test_label_files_are_found(self, tmp_path: Path, pairs: list[tuple[str, str]], text: str) -> None:
        root = moved(tmp_path / "images" / "set", *pairs)  # a parent folder is called images too
        config(root, f"train: {text}\nnames: [crate, truck]\n".replace("\\\\", "\\"))
        dataset = opened(root)
        assert [len(instances(dataset, index)) for index in range(2)] == [2, 2]
        assert faults(root) == []

    def test_suffixes_of_images(self, tmp_path: Path) -> None:
        root = moved(tmp_path, ("images/train/a.png", "images/train/a.jfif"))
        assert len(instances(opened(root))) == 2

    def test_lists_of_other_systems(self, tmp_path: Path) -> None:
        for name in ("images\\train\\a.png", "data/images/train/a.png", "C:\\x\\images\\train\\a.png"):
            root = moved(tmp_path / str(len(name)))
            (root / "train.txt").write_text(f"{name}\n")
            config(root, "path: .\ntrain: train.txt\nnames: [crate, truck]\n")
            assert opened(root).ids == ("a",)
            assert len(instances(opened(root))) == 2

    def test_a_missing_split_blocks_no_other(self, tmp_path: Path) -> None:
        root = moved(tmp_path)
        config(root, "train: images/train\nval:\ntest: ../test/images\nnc: 2\nnames: [crate, truck]\n")
        assert splits_of(f"yolo:{root}") == ("train",)
        assert f"no split 'test': {root}/data.yaml names ../test/images" in str(opened(root).note)
        with pytest.raises(DataError, match=r"data\.yaml: split 'test': no folder \.\./test/images"):
            opened(root, "test")
        assert faults(root) == []

    def test_what_darknet_and_cvat_write(self, tmp_path: Path) -> None:
        pairs = [(f"{kind}/train/{one}.{kind_suffix}", f"obj_train_data/{one}.{kind_suffix}")
                 for one in "ab" for kind, kind_suffix in (("images", "png"), ("labels", "txt"))]  # fmt: skip
        root = moved(tmp_path, *pairs)
        (root / "data.yaml").unlink()
        config(root, "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n", "obj.data")
        (root / "obj.names").write_text("crate\ntruck\n")
        (root / "train.txt").write_text("data/obj_train_data/a.png\ndata/obj_train_data/b.png\n")
        dataset = opened(root)
        assert (dataset.ids, dataset.labels.names) == (("a", "b"), ("background", "crate", "truck"))
        assert len(instances(dataset)) == 2

    def test_images_of_one_name_in_sub_folders(self, tmp_path: Path) -> None:
        root = moved(
            tmp_path, ("images/train/b.png", "images/train/x/a.png"), ("labels/train/b.txt", "labels/train/x/a.txt")
        )
        assert opened(root).ids == ("a", "x/a")
        made = convert_dataset(DataSpec.parse(f"yolo:{root}"), DataSpec.parse(f"yolo:{tmp_path / 'b'}"))
        assert made.images == {"train": 2}
        assert faults(root) == []


class TestConfig:
    @pytest.mark.parametrize("name", ["data.yml", "dataset.yaml", "mine.yaml"])
    def test_other_names(self, tmp_path: Path, name: str) -> None:
        yolo_set.yolo(tmp_path)
        (tmp_path / "data.yaml").rename(tmp_path / name)
        assert opened(tmp_path).labels.names == ("background", "crate", "truck")

    def test_several_files(self, tmp_path: Path) -> None:
        yolo_set.yolo(tmp_path)
        (tmp_path / "data.yaml").rename(tmp_path / "a.yaml")
        config(tmp_path, "names: [x, y]", "b.yaml")
        with pytest.raises(DataError, match=r"no data\.yaml, but a\.yaml, b\.yaml; write .* \?data=a\.yaml"):
            opened(tmp_path)
        assert opened(tmp_path, query="?data=a.yaml").labels.names == ("background", "crate", "truck")

    @pytest.mark.parametrize(
        ("names", "found"),
        [
            ("[off, on]", ("off", "on")),
            ("[No, 1]", ("No", "1")),
            ("{'0': crate, '1': truck}", ("crate", "truck")),
            ("{0: 2024-01-01, 1: null}", ("2024-01-01", "null")),
        ],
    )
    def test_names_are_text(self, tmp_path: Path, names: str, found: tuple[str, ...]) -> None:
        yolo_set.yolo(tmp_path)
        config(tmp_path, f"train: images/train\nnames: {names}\n")
        assert opened(tmp_path).labels.names == ("background", *found)

    def test_another_number_of_classes_is_said(self, tmp_path: Path) -> None:
        yolo_set.yolo(tmp_path)
        config(tmp_path, "train: images/train\nnc: 3\nnames: [crate, truck]\n")
        assert "nc is 3, and there are 2 names" in str(opened(tmp_path).note)
        assert "nc is 3, and there are 2 names" in str(
            check_dataset(DataSpec.parse(f"yolo:{tmp_path}")).splits[0].notes
        )

    def test_poses_are_refused(self, tmp_path: Path) -> None:
        yolo_set.yolo(tmp_path)
        config(tmp_path, "train: images/train\nkpt_shape: [2, 3]\nnames: [crate, truck]\n")
        for use in (opened, faults):
            with pytest.raises(DataError, match="kpt_shape: a set of poses"):
                use(tmp_path)


class TestLabelFiles:
    def test_names_with_the_suffix_of_the_image(self, tmp_path: Path) -> None:
        root = moved(tmp_path / "a", ("labels/train/a.txt", "labels/train/a.png.txt"))
        assert [(fault.kind, fault.text) for fault in faults(root)] == [
            ("misnamed labels", "the labels of a.png? Call the file a.txt")
        ]
        with pytest.raises(DataError, match=r"a\.png\.txt: the labels of a\.png\? Call the file a\.txt"):
            opened(root)
        repairs = repair_dataset(DataSpec.parse(f"yolo:{root}"), tmp_path / "b")
        assert faults(tmp_path / "b") == []
        assert len(instances(opened(tmp_path / "b"))) == 2
        assert repairs.done == {"label_names": 1}

    def test_labels_without_image(self, tmp_path: Path) -> None:
        root = yolo_set.yolo(tmp_path)
        for name in ("train/other.txt", "train/sub/more.txt", "val/z.txt"):
            (root / "labels" / name).parent.mkdir(exist_ok=True)
            (root / "labels" / name).write_text(SQUARE)
        (root / "labels" / "train" / "classes.txt").write_text("crate\n")
        (root / "labels" / "train" / "README.txt").write_text("exported today\n")
        assert [(fault.kind, fault.where) for fault in faults(root)] == [
            ("labels without image", f"{root}/labels/{name}")
            for name in ("train/other.txt", "train/sub/more.txt", "val/z.txt")
        ]

    def test_label_files_of_other_splits_are_theirs(self, tmp_path: Path) -> None:
        root = yolo_set.yolo(tmp_path, {"train": "ab"})
        for name in "ab":
            (root / f"{name}.txt").write_text(f"images/train/{name}.png\n")
        config(root, "train: a.txt\nval: b.txt\nnames: [crate, truck]\n")
        assert faults(root) == []
        (root / "labels" / "train" / "c.txt").write_text(SQUARE)
        assert [fault.kind for fault in faults(root)] == ["labels without image"]

    def test_a_set_without_labels_is_at_fault(self, tmp_path: Path) -> None:
        root = moved(tmp_path, ("labels/train", "annotations"))
        assert [(fault.kind, fault.text) for fault in faults(root)] == [
            (
                "no ground truth",
                f"none of 2 images has a label file; looked for in {root}/labels/train/*.txt and beside the images",
            )
        ]
        with pytest.raises(DataError, match=r"none of 2 images has a label file; looked for in .*labels/train/\*\.txt"):
            opened(root)


class TestFaults:
    @pytest.mark.parametrize(
        ("line", "kind", "text"),
        [
            ("0 0.5 0.5 0.2 0.2", "no segmentation", "no polygon; a box alone does not say which pixels"),
            ("0 0.1 0.1", "polygon without extent", "the polygon has 1 points, not three"),
            ("2 0 0 0.5 0 0.5 0.7", "unknown category", "class 2 is not in the label set"),
            ("0 0 0 0.5 0 0.5", "line", "5 coordinates; expected pairs x y"),
            ("0 a b c d e f", "line", "expected a class and numbers x1 y1 x2 y2 …"),
            ("0.5 0 0 0.5 0 0.5 0.5", "line", "expected a class (a whole number) and numbers x1 y1 x2 y2 …"),
            ("0 nan 0 0.5 0 0.5 0.5", "line", "expected a class (a whole number) and numbers x1 y1 x2 y2 …"),
            ("0 0 0 640 0 640 480", "line",
             "a coordinate 639 outside of 0 to 1; expected fractions of width and height, no pixels"),
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
        assert opened(tmp_path).note == "ignored in training and evaluation: 2 lines without polygon, boxes alone"

    def test_a_box_is_void(self, tmp_path: Path) -> None:
        dataset = opened(one_file(tmp_path, SQUARE, "1 0.75 0.75 0.5 0.5"))
        semantic = dataset[0].truth.semantic
        assert semantic is not None
        assert semantic.tolist() == [[1] * 4 + [0] * 4] * 4 + [[0] * 4 + [255] * 4] * 4
        assert instances(dataset).crowd is not None
        assert instances(dataset).crowd.tolist() == [False, True]  # pyright: ignore[reportOptionalMemberAccess]

    def test_a_box_of_no_class(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"line 2: class 7 is not in the label set"):
            opened(one_file(tmp_path, SQUARE, "7 0.5 0.5 0.2 0.2"))

    def test_boxes_alone_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="all 1 lines are boxes; boxes alone do not say which pixels"):
            opened(one_file(tmp_path, "0 0.5 0.5 0.2 0.2"))

    def test_a_file_that_is_no_text(self, tmp_path: Path) -> None:
        one_file(tmp_path, SQUARE)
        (tmp_path / "labels" / "train" / "a.txt").write_bytes(b"\xff\xfe\xfa")
        assert [fault.kind for fault in faults(tmp_path)] == ["unreadable annotations", "no ground truth"]


def test_what_is_written_is_a_set_of_yolo(tmp_path: Path) -> None:
    objects = [coco_set.annotation(1, 7, 3, (0, 0, 2, 2)), coco_set.annotation(2, 7, 9, (4, 2, 8, 8), iscrowd=1)]
    coco_set.coco(tmp_path / "a", [*objects, coco_set.annotation(3, 7, 9, (4, 2, 8, 8))])
    made = convert_dataset(DataSpec.parse(f"coco:{tmp_path / 'a'}"), DataSpec.parse(f"yolo:{tmp_path / 'b'}"))
    assert made.losses == {"left_out_crowds": 1}
    assert (tmp_path / "b" / "labels" / "train" / "a.txt").read_text().splitlines() == [
        "0 0 0 0.25 0 0.25 0.25 0 0.25",
        "1 0.5 0.25 1 0.25 1 1 0.5 1",
    ]
    content = yaml.safe_load((tmp_path / "b" / "data.yaml").read_text())
    assert content == {"train": "images/train", "names": {0: "crate", 1: "truck"}}
