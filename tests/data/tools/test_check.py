"""The search for faults: each kind planted in a tiny set, and found with its file, its value and its repair."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pixelwise.data.listing import Fault
from pixelwise.data.spec import DataSpec
from pixelwise.data.tools.check import Report, check_dataset
from pixelwise.errors import DataError
from pixelwise.files.parallel import Item
from tests.data import drawing
from tests.data.formats import camvid_set, coco_set, kitti_step_set, masks_set, voc_set


def checked(spec: str, *, workers: int = 0) -> Report:
    return check_dataset(DataSpec.parse(spec), workers=workers)


def only(report: Report) -> Fault:
    faults = report.faults()
    assert len(faults) == 1, faults
    return faults[0]


def kinds(report: Report) -> list[str]:
    return [fault.kind for fault in report.faults()]


class TestCleanSets:
    def test_camvid(self, tmp_path: Path) -> None:
        report = checked(f"camvid:{camvid_set.camvid(tmp_path)}")
        assert report.faults() == ()
        assert [split.title for split in report.splits] == ["train", "val"]
        assert report.splits[0].counts == ("3 images", "11 classes")
        assert report.splits[0].notes[0].startswith("9 classes never occur: pole, road")

    def test_voc(self, tmp_path: Path) -> None:
        spec = f"voc:{voc_set.voc(tmp_path, {'train': 'ab', 'val': 'cd', 'trainval': 'abcd'})}"
        report = checked(spec)
        assert report.faults() == ()
        assert [len(split.ids) for split in report.splits] == [2, 2, 4]

    def test_masks(self, tmp_path: Path) -> None:
        report = checked(f"masks:{masks_set.masks(tmp_path, 'abcde')}")
        assert report.faults() == ()
        for split in report.splits:
            assert split.notes == ("the set has no splits: every fifth pair by name is val, the others are train",)

    def test_coco(self, tmp_path: Path) -> None:
        annotations = [coco_set.annotation(1, 7, 3, (0, 0, 2, 2)), coco_set.annotation(2, 7, 9, (3, 3, 8, 8))]
        split = checked(f"coco:{coco_set.coco(tmp_path, annotations)}").splits[0]
        assert split.faults == split.notes == ()
        assert split.title == str(tmp_path / "annotations" / "instances_train.json")
        assert split.counts == ("1 image", "2 annotations", "2 categories")

    def test_one_split(self, tmp_path: Path) -> None:
        camvid_set.camvid(tmp_path)
        (tmp_path / "train" / "a.png").write_bytes(b"")
        assert checked(f"camvid:{tmp_path}@val").faults() == ()
        assert kinds(checked(f"camvid:{tmp_path}@train")) == ["unreadable image"]

    def test_progress_is_told_of_every_image(self, tmp_path: Path) -> None:
        told: list[tuple[str, int, int]] = []

        def progress(items: Iterable[Item], *, total: int, what: str) -> Iterable[Item]:
            passed = list(items)
            told.append((what, total, len(passed)))
            return passed

        check_dataset(DataSpec.parse(f"camvid:{camvid_set.camvid(tmp_path)}"), progress=progress)
        assert told == [("train", 3, 3), ("val", 2, 2)]


class TestFaultsOfPairs:
    """Each plants one fault in image or mask `b` of train."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return camvid_set.camvid(tmp_path)

    def only(self, root: Path) -> Fault:
        return only(checked(f"camvid:{root}"))

    def test_empty_image(self, root: Path) -> None:
        image = root / "train" / "b.png"
        image.write_bytes(b"")
        assert self.only(root) == Fault("unreadable image", str(image), "the file is empty")

    def test_truncated_image(self, root: Path) -> None:
        image = root / "train" / "b.png"
        image.write_bytes(image.read_bytes()[:80])
        assert self.only(root) == Fault("unreadable image", str(image), "truncated PNG, the file ends after 80 bytes")

    def test_unreadable_mask(self, root: Path) -> None:
        mask = root / "trainannot" / "b.png"
        mask.write_text("no picture")
        fault = self.only(root)
        assert (fault.kind, fault.where) == ("unreadable mask", str(mask))

    def test_missing_mask(self, root: Path) -> None:
        (root / "trainannot" / "b.png").unlink()
        image = root / "train" / "b.png"
        assert self.only(root) == Fault("missing mask", str(image), "no mask of 'b'; add it, or take its image away")

    def test_missing_image(self, root: Path) -> None:
        (root / "train" / "b.png").unlink()
        mask = root / "trainannot" / "b.png"
        assert self.only(root) == Fault("missing image", str(mask), "no image of 'b'; add it, or take its mask away")

    def test_size_mismatch(self, root: Path) -> None:
        drawing.write_mask(root / "trainannot" / "b.png", np.zeros((4, 5)))
        fault = self.only(root)
        assert fault.kind == "size mismatch"
        assert fault.where == str(root / "train" / "b.png")
        assert fault.text == "the image is 4×6 (height×width), the mask b.png 4×5"

    def test_mask_on_its_side_without_a_rotation(self, root: Path) -> None:
        drawing.write_mask(root / "trainannot" / "b.png", np.zeros((6, 4)))
        assert self.only(root).kind == "size mismatch"

    def test_turned_image_with_the_mask_of_the_stored_one(self, root: Path) -> None:
        (root / "train" / "b.png").unlink()
        drawing.write_turned(root / "train" / "b.jpg", orientation=8)
        fault = self.only(root)
        assert fault.kind == "rotated image"
        assert fault.text.startswith("EXIF rotation 270°, stored 4×6, upright 6×4 (height×width); the mask b.png has")

    def test_a_turned_image_with_an_upright_mask_is_only_a_note(self, root: Path) -> None:
        (root / "train" / "b.png").unlink()
        drawing.write_turned(root / "train" / "b.jpg")
        drawing.write_mask(root / "trainannot" / "b.png", np.ones((6, 4)))
        report = checked(f"camvid:{root}")
        assert report.faults() == ()
        assert "1 image with an EXIF rotation, which is applied" in report.splits[0].notes

    def test_unknown_ids(self, root: Path) -> None:
        drawing.write_mask(root / "trainannot" / "b.png", [[0, 1, 37, 37, 200, 11]] * 4)
        fault = self.only(root)
        assert (fault.kind, fault.where) == ("unknown ids", str(root / "trainannot" / "b.png"))
        assert fault.text.startswith("value 37 (8 pixels) is not in LabelSet 'camvid' (0-10, 11 = void)")
        assert "2 unknown values" in fault.text

    def test_colour_mask(self, root: Path) -> None:
        mask = root / "trainannot" / "b.png"
        drawing.write_image(mask)
        fault = self.only(root)
        assert (fault.kind, fault.where) == ("colour mask", str(mask))
        assert "turn its colours into ids" in fault.text

    def test_only_void(self, root: Path) -> None:
        mask = drawing.write_mask(root / "trainannot" / "b.png", np.full((4, 6), 11))
        fault = self.only(root)
        assert (fault.kind, fault.where) == ("only void", str(mask))

    def test_two_files_of_one_name(self, root: Path) -> None:
        rival = drawing.write_mask(root / "trainannot" / "b.tif")
        fault = self.only(root)
        assert (fault.kind, fault.where) == ("two files of one name", str(rival))

    def test_one_image_twice(self, root: Path) -> None:
        shutil.copy(root / "train" / "a.png", root / "train" / "b.png")
        fault = self.only(root)
        assert (fault.kind, fault.where) == ("image twice", str(root / "train" / "b.png"))
        assert fault.text == f"byte for byte the same as {root / 'train' / 'a.png'}"

    def test_frames_of_one_clip_may_be_equal(self, tmp_path: Path) -> None:
        images = kitti_step_set.kitti_step(tmp_path) / "images" / "train"
        shutil.copy(images / "0001" / "000000.png", images / "0001" / "000001.png")
        assert check_dataset(DataSpec.parse(f"kitti-step:{tmp_path}")).faults() == ()
        shutil.copy(images / "0001" / "000000.png", images / "0002" / "000000.png")
        (fault,) = check_dataset(DataSpec.parse(f"kitti-step:{tmp_path}")).faults()
        assert (fault.kind, fault.where) == ("image twice", str(images / "0002" / "000000.png"))

    def test_one_image_in_two_splits(self, root: Path) -> None:
        shutil.copy(root / "train" / "b.png", root / "val" / "d.png")
        fault = self.only(root)
        assert (fault.kind, fault.where) == ("image in two splits", str(root / "val" / "d.png"))
        assert str(root / "train" / "b.png") in fault.text

    def test_one_name_for_two_images_is_only_a_note(self, root: Path) -> None:
        drawing.write_image(root / "val" / "b.png", seed=99)
        drawing.write_mask(root / "valannot" / "b.png")
        report = checked(f"camvid:{root}")
        assert report.faults() == ()
        assert report.notes == ("1 id of val stands in train too, for another file, such as 'b'",)

    def test_empty_split(self, root: Path) -> None:
        for folder in ("night", "nightannot"):
            (root / folder).mkdir()
        fault = self.only(root)
        assert (fault.kind, fault.where) == ("empty split", str(root / "night"))

    @pytest.mark.parametrize("workers", [0, 2])
    def test_no_fault_stops_the_search_or_hides_another(self, root: Path, workers: int) -> None:
        (root / "train" / "a.png").write_bytes(b"")
        drawing.write_mask(root / "trainannot" / "a.png", np.full((4, 6), 99))
        drawing.write_mask(root / "trainannot" / "b.png", np.full((3, 3), 98))
        (root / "trainannot" / "c.png").unlink()
        drawing.write_image(root / "valannot" / "e.png")
        assert kinds(checked(f"camvid:{root}", workers=workers)) == [
            "unreadable image",
            "unknown ids",
            "size mismatch",
            "unknown ids",
            "missing mask",
            "colour mask",
        ]


class TestFaultsOfLists:
    def test_an_id_in_two_lists(self, tmp_path: Path) -> None:
        voc_set.voc(tmp_path, {"train": "abc", "val": "cd"})
        fault = only(checked(f"voc:{tmp_path}"))
        assert fault.kind == "image in two splits"
        assert fault.where == str(tmp_path / "JPEGImages" / "c.jpg")
        assert fault.text == "'c' is in train and in val; take it out of one of them"

    def test_an_id_twice_in_a_list(self, tmp_path: Path) -> None:
        voc_set.voc(tmp_path, {"train": "abca"})
        fault = only(checked(f"voc:{tmp_path}"))
        list_file = tmp_path / "ImageSets" / "Segmentation" / "train.txt"
        assert fault == Fault("repeated id", str(list_file), "'a' stands 2 times in it")

    def test_an_id_without_any_file(self, tmp_path: Path) -> None:
        voc_set.voc(tmp_path, {"train": "ab"})
        (tmp_path / "JPEGImages" / "b.jpg").unlink()
        (tmp_path / "SegmentationClass" / "b.png").unlink()
        assert checked(f"voc:{tmp_path}").faults() == (
            Fault("missing image", "id 'b'", "no image of 'b'; add it, or take its mask away"),
            Fault("missing mask", "id 'b'", "no mask of 'b'; add it, or take its image away"),
        )

    def test_an_empty_list(self, tmp_path: Path) -> None:
        voc_set.voc(tmp_path, {"train": "ab", "val": ""})
        assert kinds(checked(f"voc:{tmp_path}")) == ["empty split"]

    def test_a_list_that_is_no_text(self, tmp_path: Path) -> None:
        voc_set.voc(tmp_path, {"train": "ab", "val": "c"})
        (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_bytes(b"\xff\xfe\xfa")
        fault = only(checked(f"voc:{tmp_path}"))
        assert (fault.kind, fault.where) == ("unusable split", "val")
        assert "not a readable text file" in fault.text


class TestNothingToLookAt:
    def test_no_labels(self, tmp_path: Path) -> None:
        masks_set.masks(tmp_path, "abcde", labels=None)
        with pytest.raises(DataError, match=r"no labels\.txt"):
            checked(f"masks:{tmp_path}")

    def test_unknown_split(self, tmp_path: Path) -> None:
        camvid_set.camvid(tmp_path)
        with pytest.raises(DataError, match="no split 'test'; there are train, val"):
            checked(f"camvid:{tmp_path}@test")


class TestFaultsOfCoco:
    def report(self, root: Path, *annotations: dict[str, Any], **options: Any) -> Report:
        return checked(f"coco:{coco_set.coco(root, annotations, **options)}")

    def only(self, root: Path, **fields: Any) -> Fault:
        whole = coco_set.annotation(1, 7, 3, (0, 0, 2, 2))
        faulty = {**coco_set.annotation(5521, 7, 9, (3, 3, 8, 8)), **fields}
        return only(self.report(root, whole, faulty))

    def test_box_without_width(self, tmp_path: Path) -> None:
        fault = self.only(tmp_path, bbox=[12, 40, 0, 31])
        assert fault == Fault(
            "box without extent", "annotation 5521 (image 7, 'a.png')", "box [12,40,0,31] has no width"
        )

    @pytest.mark.parametrize(
        ("fields", "kind", "text"),
        [
            ({"segmentation": []}, "no segmentation", "no segmentation; a box alone does not say which pixels"),
            ({"segmentation": [[1, 1, 2, 2]]}, "polygon without extent", "polygon 1 has 2 points, not three"),
            ({"category_id": 99}, "unknown category", "category 99 is not in categories"),
            ({"id": 1}, "repeated id", "another annotation has the same id"),
            ({"id": None}, "annotation entry", "its id is None; expected a whole number or text"),
            ({"id": 1.5}, "annotation entry", "its id is 1.5; expected a whole number or text"),
            (
                {"segmentation": [drawing.rectangle(20, 20, 30, 30)]},
                "object without pixels",
                "its segmentation covers no pixel of the image",
            ),
            (
                {"bbox": [3, 3, 9, 5]},
                "box outside",
                "box [3,3,12,8] (x1,y1,x2,y2) leaves the image of 8×8 (height×width)",
            ),
        ],
    )
    def test_annotation(self, tmp_path: Path, fields: dict[str, Any], kind: str, text: str) -> None:
        fault = self.only(tmp_path, **fields)
        assert (fault.kind, fault.text) == (kind, text)
        assert fault.where == f"annotation {fields.get('id', 5521)} (image 7, 'a.png')"

    def test_an_id_of_text_is_no_fault_and_names_the_annotation(self, tmp_path: Path) -> None:
        outside = drawing.rectangle(20, 20, 30, 30)
        fault = self.only(tmp_path, id="x", segmentation=[outside])
        assert (fault.kind, fault.where) == ("object without pixels", "annotation x (image 7, 'a.png')")
        whole = coco_set.annotation("x", 7, 3, (0, 0, 2, 2))
        fault = only(self.report(tmp_path, whole, {**whole, "id": "y"}))
        assert fault.where == "annotation y (image 7, 'a.png')"
        assert fault.text == "annotation x has the same class and the same pixels"

    @pytest.mark.parametrize("id", [10**20, str(10**20)])
    def test_an_id_above_64_bits_is_no_fault_and_names_the_annotation(self, tmp_path: Path, id: int | str) -> None:
        fault = self.only(tmp_path, id=id, segmentation=[drawing.rectangle(20, 20, 30, 30)])
        assert (fault.kind, fault.where) == ("object without pixels", f"annotation {10**20} (image 7, 'a.png')")

    @pytest.mark.parametrize(
        ("fields", "kind"),
        [
            ({"area": 10**400}, "area"),
            ({"bbox": [0, 0, 10**400, 2]}, "box"),
            ({"segmentation": [[0, 0, 10**400, 2, 2, 2]]}, "segmentation"),
        ],
    )
    def test_a_number_that_no_float_holds(self, tmp_path: Path, fields: dict[str, Any], kind: str) -> None:
        fault = self.only(tmp_path, **fields)
        assert (fault.kind, fault.where) == (kind, "annotation 5521 (image 7, 'a.png')")

    def test_box_with_corners_instead_of_a_size(self, tmp_path: Path) -> None:
        corners = coco_set.annotation(5521, 7, 9, (30, 30, 50, 40), bbox=[30, 30, 50, 40])
        images = [{"id": 7, "file_name": "a.png", "height": 99, "width": 99}]
        fault = only(self.report(tmp_path, corners, images=images))
        assert fault.kind == "box elsewhere"
        assert fault.text == (
            "box [30,30,80,70] (x1,y1,x2,y2) is not that of its segmentation, [30,30,50,40]; "
            "COCO has x, y, width, height"
        )

    def test_a_box_a_few_pixels_off_is_no_fault(self, tmp_path: Path) -> None:
        images = [{"id": 7, "file_name": "a.png", "height": 99, "width": 99}]
        loose = coco_set.annotation(1, 7, 9, (30, 30, 50, 40), bbox=[27, 28, 25, 14])
        crowd = coco_set.annotation(2, 7, 3, (30, 30, 50, 40), bbox=[0, 0, 99, 99], iscrowd=1)
        assert self.report(tmp_path, loose, crowd, images=images).faults() == ()

    def test_the_same_object_twice(self, tmp_path: Path) -> None:
        runs = {"size": [8, 8], "counts": [0, 2, 6, 2, 54]}
        fault = self.only(tmp_path, category_id=3, segmentation=runs, bbox=[0, 0, 2.5, 2])
        assert fault == Fault(
            "repeated annotation",
            "annotation 5521 (image 7, 'a.png')",
            "annotation 1 has the same class and the same pixels",
        )

    def test_an_object_in_two_classes(self, tmp_path: Path) -> None:
        fault = self.only(tmp_path, segmentation=[drawing.rectangle(0, 0, 2, 2)], bbox=[0, 0, 2, 2])
        assert fault == Fault(
            "object in two classes",
            "annotation 5521 (image 7, 'a.png')",
            "annotation 1 of class 'crate' has the same pixels, this is 'truck'",
        )

    def test_the_same_box_twice_without_segmentation(self, tmp_path: Path) -> None:
        boxes = [coco_set.annotation(number, 7, 9, (3, 3, 8, 8), segmentation=None) for number in (2, 5521)]
        report = self.report(tmp_path, coco_set.annotation(1, 7, 3, (0, 0, 2, 2)), *boxes)
        assert [(fault.kind, fault.where[:15]) for fault in report.faults()] == [
            ("no segmentation", "annotation 2 (i"),
            ("no segmentation", "annotation 5521"),
            ("repeated annotation", "annotation 5521"),
        ]
        assert report.faults()[2].text == "annotation 2 has the same class and the same pixels"

    def test_an_rle_of_another_size(self, tmp_path: Path) -> None:
        fault = self.only(tmp_path, segmentation={"size": [4, 16], "counts": [3, 61]})
        assert fault == Fault(
            "segmentation",
            "annotation 5521 (image 7, 'a.png')",
            "the RLE is 4×16, the image 8×8 (height×width)",
        )

    def test_unknown_image(self, tmp_path: Path) -> None:
        fault = self.only(tmp_path, image_id=88)
        assert fault == Fault("unknown image", "annotation 5521 (image 88)", "image 88 is not in images")

    def test_runs_that_do_not_fill_the_image(self, tmp_path: Path) -> None:
        fault = self.only(tmp_path, segmentation={"size": [8, 8], "counts": [3, 4]})
        assert (fault.kind, fault.where) == ("segmentation", "annotation 5521 (image 7, 'a.png')")
        assert not fault.text.startswith("object")

    def test_turned_image(self, tmp_path: Path) -> None:
        images = [{"id": 301, "file_name": "b.jpg", "height": 8, "width": 12}]
        coco_set.coco(tmp_path, [coco_set.annotation(1, 301, 3, (0, 0, 2, 2))], images=images)
        drawing.write_turned(tmp_path / "train" / "b.jpg", stored_hw=(8, 12))
        fault = only(checked(f"coco:{tmp_path}"))
        assert (fault.kind, fault.where) == ("rotated image", f"{tmp_path}/train/b.jpg (image 301)")
        assert fault.text.startswith("EXIF rotation 90°, stored 8×12, upright 12×8")

    def test_wrong_size(self, tmp_path: Path) -> None:
        coco_set.coco(tmp_path, [coco_set.annotation(1, 7, 3, (0, 0, 2, 2))])
        drawing.write_image(tmp_path / "train" / "a.png", size_hw=(8, 9))
        fault = only(checked(f"coco:{tmp_path}"))
        text = "the image is 8×9 (height×width), the instances_train.json 8×8"
        assert fault == Fault("size mismatch", f"{tmp_path}/train/a.png (image 7)", text)

    def test_missing_image(self, tmp_path: Path) -> None:
        coco_set.coco(tmp_path, [coco_set.annotation(1, 7, 3, (0, 0, 2, 2))])
        (tmp_path / "train" / "a.png").unlink()
        fault = only(checked(f"coco:{tmp_path}"))
        text = "no such file; add it, or take its entry out of instances_train.json"
        assert fault == Fault("missing image", f"{tmp_path}/train/a.png (image 7)", text)

    def test_faulty_entries_do_not_hide_others(self, tmp_path: Path) -> None:
        images = [
            {"id": 7, "file_name": "a.png", "height": 8, "width": 8},
            {"id": 8},
            {"id": 7, "file_name": "b.png", "height": 8, "width": 8},
            {"id": 9, "file_name": "c.png", "height": "8", "width": 8},
        ]
        report = self.report(tmp_path, coco_set.annotation(1, 7, 3, (0, 0, 2, 2), bbox=[0, 0, 0, 2]), images=images)
        assert kinds(report) == ["image entry", "repeated id", "image entry", "box without extent"]

    def test_a_category_that_never_occurs(self, tmp_path: Path) -> None:
        report = self.report(tmp_path, coco_set.annotation(1, 7, 3, (0, 0, 2, 2)))
        assert report.splits[0].notes == ("1 class never occurs: truck",)

    def test_image_in_two_splits(self, tmp_path: Path) -> None:
        for split in ("train", "val"):
            coco_set.coco(tmp_path, [coco_set.annotation(1, 7, 3, (0, 0, 2, 2))], split=split)
        assert kinds(checked(f"coco:{tmp_path}")) == ["image in two splits"]

    def test_one_broken_file_of_two(self, tmp_path: Path) -> None:
        for split in ("train", "val"):
            coco_set.coco(tmp_path, [coco_set.annotation(1, 7, 3, (0, 0, 2, 2))], split=split)
        (tmp_path / "annotations" / "instances_val.json").write_text("{")
        fault = only(checked(f"coco:{tmp_path}"))
        assert (fault.kind, fault.where) == ("unusable split", "val")


def test_animated_and_deep_images_are_no_faults(tmp_path: Path) -> None:
    masks_set.masks(tmp_path, "abcde")
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "blue")]
    (tmp_path / "images" / "a.png").unlink()
    frames[0].save(tmp_path / "images" / "a.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(np.full((4, 6), 30000, dtype=np.uint16)).save(tmp_path / "images" / "b.png")
    assert checked(f"masks:{tmp_path}").faults() == ()
