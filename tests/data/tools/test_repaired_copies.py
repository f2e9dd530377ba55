"""Repaired copies: every fault that can be repaired is gone from the copy, and the set itself is as it was."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pixelwise.data.formats.yolo import reader as yolo
from pixelwise.data.spec import DataSpec, open_dataset
from pixelwise.data.tools.check import check_dataset
from pixelwise.data.tools.repair import REPAIRS, Repairs, repair_dataset
from pixelwise.errors import DataError
from pixelwise.files.images import turned_upright
from pixelwise.ops import rle
from pixelwise.types import Instances, Sample
from tests.data import drawing
from tests.data.formats import (
    camvid_set,
    cityscapes_set,
    coco_set,
    instance_masks_set,
    labelme_set,
    masks_set,
    voc_set,
    yolo_set,
)
from tests.data.sets import write_tiny_set


def png(mask: np.ndarray) -> str:
    """A picture in base64, as LabelMe stores a mask."""
    stream = io.BytesIO()
    Image.fromarray((mask * 255).astype(np.uint8)).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def kinds(spec: str) -> set[str]:
    return {fault.kind for fault in check_dataset(DataSpec.parse(spec)).faults()}


def repaired(spec: str, out: Path) -> Repairs:
    """Repair, and check whether the copy is sound and the set unchanged."""
    root = Path(DataSpec.parse(spec).path)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    repairs = repair_dataset(DataSpec.parse(spec), out)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    for copy in repairs.opens_as:
        assert check_dataset(DataSpec.parse(copy)).faults() == ()
    return repairs


def sample_of(spec: str, id: str) -> Sample:
    dataset = open_dataset(spec, default_split="train")
    return dataset[dataset.ids.index(id)]


class TestFolders:
    def test_every_fault_of_a_set(self, tmp_path: Path) -> None:
        root = camvid_set.camvid(tmp_path / "a", {"train": "abcdefghijk", "val": "xyz"})
        (root / "train" / "a.png").write_bytes(b"")
        (root / "trainannot" / "b.png").write_text("no picture")
        (root / "train" / "c.png").unlink()
        (root / "trainannot" / "d.png").unlink()
        drawing.write_mask(root / "trainannot" / "e.png", np.zeros((3, 3)))
        drawing.write_mask(root / "trainannot" / "f.png", [[0, 1, 37, 37, 200, 11]] * 4)
        drawing.write_image(root / "trainannot" / "g.png")
        drawing.write_mask(root / "trainannot" / "h.png", np.full((4, 6), 11))
        shutil.copy(root / "val" / "x.png", root / "train" / "i.png")
        shutil.copy(root / "val" / "y.png", root / "val" / "z.png")
        Image.fromarray(np.full((4, 6, 3), 5, dtype=np.uint8)).save(root / "trainannot" / "j.png")
        drawing.write_mask(root / "trainannot" / "k.tif")
        assert kinds(f"camvid:{root}") == {
            "unreadable image", "unreadable mask", "missing image", "missing mask", "size mismatch", "unknown ids",
            "colour mask", "only void", "image twice", "image in two splits", "two files of one name",
        }  # fmt: skip
        repairs = repaired(f"camvid:{root}", tmp_path / "b")
        assert repairs.done == {
            "unreadable_images": 1, "unreadable_masks": 1, "missing_images": 1, "missing_masks": 1,
            "size_mismatches": 1, "unknown_pixels": 12, "colour_masks": 1, "only_void": 1, "repeated_images": 2,
            "grey_masks": 1, "rival_files": 1,
        }  # fmt: skip
        train, val = (open_dataset(f"camvid:{tmp_path / 'b'}", default_split=split) for split in ("train", "val"))
        assert train.ids == ("f", "j", "k")
        assert val.ids == ("x", "y")  # of an image in two splits the later keeps it
        assert repairs.images == 5
        semantic = train[0].truth.semantic
        assert semantic is not None
        assert semantic.tolist() == [[0, 1, 255, 255, 255, 255]] * 4
        assert np.asarray(Image.open(tmp_path / "b" / "trainannot" / "f.png")).tolist() == [[0, 1, 11, 11, 11, 11]] * 4
        assert (tmp_path / "b" / "train" / "f.png").read_bytes() == (root / "train" / "f.png").read_bytes()

    @pytest.mark.parametrize("orientation", [5, 6, 7, 8])
    def test_a_mask_is_turned_like_its_image(self, tmp_path: Path, orientation: int) -> None:
        root = masks_set.masks(tmp_path / "a", "x")
        (root / "images" / "x.png").unlink()
        ids = np.arange(24).reshape(4, 6) % 2 * (np.arange(24).reshape(4, 6) < 9)
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(np.repeat(ids[:, :, None] * 200, 3, axis=2).astype(np.uint8)).save(
            root / "images" / "x.png", exif=exif
        )
        drawing.write_mask(root / "masks" / "x.png", ids)
        assert kinds(f"masks:{root}") == {"rotated image"}
        repairs = repaired(f"masks:{root}", tmp_path / "b")
        assert repairs.done == {"turned_masks": 1, "upright_images": 1}
        sample = sample_of(repairs.opens_as[0], "x")
        assert sample.truth.semantic is not None
        assert sample.truth.semantic.tolist() == turned_upright(ids, orientation).tolist()
        assert sample.image[0].tolist() == (turned_upright(ids, orientation) * 200).tolist()
        with Image.open(tmp_path / "b" / "images" / "train" / "x.png") as image:
            assert not image.getexif()

    def test_a_turned_image_with_an_upright_mask_loses_its_tag(self, tmp_path: Path) -> None:
        root = masks_set.masks(tmp_path / "a", "wx")
        (root / "images" / "x.png").unlink()
        drawing.write_turned(root / "images" / "x.jpg")
        drawing.write_mask(root / "masks" / "x.png", np.ones((6, 4)))
        (root / "images" / "w.png").write_bytes(b"")
        assert repaired(f"masks:{root}", tmp_path / "b").done == {"unreadable_images": 1, "upright_images": 1}
        with Image.open(tmp_path / "b" / "images" / "train" / "x.jpg") as image:
            assert image.size == (4, 6)
            assert not image.getexif()

    def test_lists(self, tmp_path: Path) -> None:
        root = voc_set.voc(tmp_path / "a", {"train": "abca", "val": "cd", "trainval": "abcd"})
        assert kinds(f"voc:{root}") == {"repeated id", "image in two splits"}
        repairs = repaired(f"voc:{root}", tmp_path / "b")
        assert repairs.done == {"repeated_images": 2}
        lists = tmp_path / "b" / "ImageSets" / "Segmentation"
        assert [(lists / f"{name}.txt").read_text().split() for name in ("train", "val", "trainval")] == [
            ["a", "b"], ["c", "d"], ["a", "b", "c", "d"],
        ]  # fmt: skip

    def test_own_labels_and_ids_stay(self, tmp_path: Path) -> None:
        root = camvid_set.camvid(tmp_path / "a")
        (root / "labels.toml").write_text(
            'name = "own"\nvoid_ids = [9]\n[[class]]\nname = "floor"\nid = 0\n[[class]]\nname = "wall"\nid = 1\n'
        )
        (root / "train" / "a.png").write_bytes(b"")
        repairs = repaired(f"camvid:{root}", tmp_path / "b")
        first, second = (
            open_dataset(spec, default_split="val").labels for spec in (f"camvid:{root}", *repairs.opens_as)
        )
        assert first == second

    def test_train_ids_of_cityscapes(self, tmp_path: Path) -> None:
        root = cityscapes_set.cityscapes(tmp_path / "a", ids="labelTrainIds")
        drawing.write_mask(
            root / "gtFine" / "val" / "jena" / "jena_3_4_gtFine_labelTrainIds.png", [[0, 1, 2, 77, 5, 6]] * 4
        )
        repairs = repaired(f"cityscapes:{root}", tmp_path / "b")
        assert repairs.done == {"unknown_pixels": 4}
        sample = open_dataset(repairs.opens_as[0], default_split="val")[0]
        assert sample.truth.semantic is not None
        assert sample.truth.semantic.tolist() == [[0, 1, 2, 255, 5, 6]] * 4

    def test_colours_become_ids_and_unknown_ones_void(self, tmp_path: Path) -> None:
        root = masks_set.masks(tmp_path / "a", "x")
        pixels = np.array([(0, 0, 0), (128, 0, 0), (1, 1, 1)] * 2, dtype=np.uint8)[None].repeat(4, axis=0)
        Image.fromarray(pixels).save(root / "masks" / "x.png")
        repairs = repaired(f"masks:{root}?palette=labels", tmp_path / "b")
        assert repairs.done == {"unknown_pixels": 8}
        sample = sample_of(repairs.opens_as[0], "x")
        assert sample.truth.semantic is not None
        assert sample.truth.semantic.tolist() == [[0, 1, 255] * 2] * 4

    @pytest.mark.parametrize("format", ["ade20k", "camvid", "cityscapes", "masks", "voc"])
    def test_a_broken_image_in_every_format(self, tmp_path: Path, format: str) -> None:
        write_tiny_set(format, tmp_path / "a")
        dataset = open_dataset(f"{format}:{tmp_path / 'a'}", default_split="train")
        dataset.image_path(0).write_bytes(b"")
        repairs = repaired(f"{format}:{tmp_path / 'a'}", tmp_path / "b")
        assert repairs.done == {"unreadable_images": 1}
        again = open_dataset(repairs.opens_as[0], default_split="train")
        assert again.ids == dataset.ids[1:]
        assert again.labels == dataset.labels

    def test_nothing_left(self, tmp_path: Path) -> None:
        root = masks_set.masks(tmp_path / "a", "x")
        (root / "images" / "x.png").write_bytes(b"")
        with pytest.raises(DataError, match="nothing usable is left"):
            repair_dataset(DataSpec.parse(f"masks:{root}"), tmp_path / "b")
        assert [path.name for path in tmp_path.iterdir()] == ["a"]

    def test_never_in_place(self, tmp_path: Path) -> None:
        root = camvid_set.camvid(tmp_path / "a")
        for out in (root, root / "train"):
            with pytest.raises(DataError, match="nothing is repaired in place"):
                repair_dataset(DataSpec.parse(f"camvid:{root}"), out)


def faulty_coco(root: Path) -> str:
    """A file with every fault that can be repaired, and sound objects."""
    sound = [coco_set.annotation(1, 7, 3, (0, 0, 4, 4)), coco_set.annotation(2, 8, 9, (1, 1, 5, 5))]
    faulty = [
        coco_set.annotation(10, 7, 3, (2, 2, 6, 6), bbox=[2, 2, 0, 4]),
        coco_set.annotation(11, 7, 3, (1, 2, 6, 6), bbox=[2, 2, 4]),
        coco_set.annotation(12, 7, 3, (2, 1, 6, 6), bbox=[2, 1, 40, 5]),
        coco_set.annotation(13, 7, 3, (0, 0, 8, 2), bbox=[7, 7, 1, 1]),
        coco_set.annotation(14, 7, 3, (2, 2, 6, 6), segmentation=[]),
        coco_set.annotation(15, 7, 3, (2, 2, 6, 6), segmentation=[[1, 1, 2, 2]]),
        coco_set.annotation(16, 7, 3, (2, 2, 6, 6), segmentation=[drawing.rectangle(3, 2, 6, 6), [1, 1, 2, 2]]),
        coco_set.annotation(
            17, 7, 3, (2, 2, 6, 6), segmentation=[[1, 1, float("nan"), 2, 3, 3], drawing.rectangle(2, 3, 6, 6)]
        ),
        coco_set.annotation(18, 7, 3, (2, 2, 6, 6), segmentation=[drawing.rectangle(90, 90, 95, 95)]),
        coco_set.annotation(19, 7, 3, (2, 2, 6, 6), segmentation={"size": [8, 8], "counts": [3, 4]}),
        coco_set.annotation(20, 7, 99, (2, 2, 6, 6)),
        coco_set.annotation(21, 99, 3, (2, 2, 6, 6)),
        coco_set.annotation(1, 7, 9, (5, 4, 8, 8)),
        coco_set.annotation(0, 7, 9, (4, 5, 8, 8)) | {"id": None},
        coco_set.annotation(24, 21, 9, (4, 4, 8, 8)),
        coco_set.annotation(25, 22, 9, (4, 4, 8, 8)),
        coco_set.annotation(26, 23, 9, (4, 4, 8, 8)),
        coco_set.annotation(27, 25, 9, (0, 0, 8, 8)),
        coco_set.annotation(28, 8, 9, (1, 1, 5, 5), bbox=[1, 1, 4.5, 4]),
        coco_set.annotation(29, 7, 3, (3, 3, 4, 4), segmentation=None),
        coco_set.annotation(30, 7, 3, (3, 3, 4, 4), segmentation=None),
    ]
    images: list[dict[str, Any]] = [
        {"id": 7, "file_name": "a.png", "height": 8, "width": 8},
        {"id": 8, "file_name": "b.png", "height": 8, "width": 8},
        {"id": 21, "file_name": "gone.png", "height": 8, "width": 8},
        {"id": 22, "file_name": "broken.png", "height": 8, "width": 8},
        {"id": 23, "file_name": "a.png", "height": 8, "width": 8},
        {"id": 7, "file_name": "c.png", "height": 8, "width": 8},
        {"id": 24},
        {"id": 25, "file_name": "d.png", "height": 8, "width": 8},
        {"id": 26, "file_name": "e.png", "height": "8", "width": 8},
    ]
    coco_set.coco(root, [*sound, *faulty], images=images)
    (root / "train" / "gone.png").unlink()
    (root / "train" / "broken.png").write_bytes(b"")
    drawing.write_image(root / "train" / "a.png", seed=50, size_hw=(8, 8))
    drawing.write_image(root / "train" / "d.png", seed=51, size_hw=(6, 7))
    drawing.write_image(root / "train" / "e.png", seed=52, size_hw=(6, 7))
    return f"coco:{root}"


class TestCoco:
    def instances(self, spec: str, id: str) -> Instances:
        found = sample_of(spec, id).truth.instances
        assert found is not None
        return found

    def test_every_fault_of_a_file(self, tmp_path: Path) -> None:
        spec = faulty_coco(tmp_path / "a")
        assert kinds(spec) == {
            "image entry", "repeated id", "repeated file", "unreadable image", "size mismatch", "box",
            "box without extent", "box outside", "box elsewhere", "no segmentation", "polygon without extent",
            "missing image", "segmentation", "object without pixels", "unknown category", "unknown image",
            "annotation entry", "repeated annotation",
        }  # fmt: skip
        repairs = repaired(spec, tmp_path / "fixed.json")
        assert repairs.done == {
            "images": 1, "missing_images": 1, "unreadable_images": 1, "merged_images": 2, "sizes": 2,
            "annotations": 2, "repeated_annotations": 5,
            "regions_of_boxes": 6, "polygons": 3, "boxes": 5, "ids": 2, "numbers": 1,
        }  # fmt: skip
        content = json.loads((tmp_path / "fixed.json").read_text())
        assert [image["id"] for image in content["images"]] == [7, 8, 25, 26]
        boxes = {one["id"]: one["bbox"] for one in content["annotations"]}
        assert {id: boxes[id] for id in (1, 10, 11, 12, 13, 16, 17, 27)} == {
            1: [0, 0, 4, 4],
            10: [2, 2, 4, 4],
            11: [1, 2, 5, 4],
            12: [2, 1, 6, 5],  # cut at the border
            13: [0, 0, 8, 2],
            16: [2, 2, 4, 4],
            17: [2, 2, 4, 4],
            27: [0, 0, 7, 6],
        }
        assert len(boxes) == len(content["annotations"]) == 14
        assert [one["id"] for one in content["annotations"] if one.get("iscrowd")] == [14, 29]
        assert next(one for one in content["annotations"] if one["id"] == 26)["image_id"] == 7  # the same file
        assert (
            content["categories"]
            == json.loads((tmp_path / "a" / "annotations" / "instances_train.json").read_text())["categories"]
        )

    @pytest.mark.parametrize("orientation", [5, 6, 7, 8])
    def test_annotations_are_turned_like_their_image(self, tmp_path: Path, orientation: int) -> None:
        stored = np.zeros((8, 12), dtype=np.uint8)
        stored[1:3, 2:7] = 1
        objects = [
            coco_set.annotation(1, 301, 3, (2, 1, 7, 3)),
            coco_set.annotation(2, 301, 9, (2, 1, 7, 3), segmentation=rle.encode(stored), iscrowd=1),
        ]
        images = [{"id": 301, "file_name": "b.jpg", "height": 8, "width": 12}]
        coco_set.coco(tmp_path / "a", objects, images=images)
        drawing.write_turned(tmp_path / "a" / "train" / "b.jpg", stored_hw=(8, 12), orientation=orientation)
        assert kinds(f"coco:{tmp_path / 'a'}") == {"rotated image"}
        repairs = repaired(f"coco:{tmp_path / 'a'}", tmp_path / "fixed.json")
        assert repairs.done == {"sizes": 1, "turned_annotations": 2}
        found = self.instances(repairs.opens_as[0], "301")
        wanted = turned_upright(stored, orientation)
        assert found.masks is not None
        rows, columns = np.nonzero(wanted)
        for number in range(2):
            assert np.array_equal(found.masks.dense_one(number).numpy(), wanted)
            assert found.boxes[number].tolist() == [
                columns.min(), rows.min(), columns.max() + 1, rows.max() + 1,
            ]  # fmt: skip

    def test_an_object_in_two_classes_is_left_to_the_user(self, tmp_path: Path) -> None:
        both = [coco_set.annotation(number, 7, category, (0, 0, 4, 4)) for number, category in ((1, 3), (2, 9))]
        coco_set.coco(tmp_path / "a", [*both, coco_set.annotation(3, 7, 3, (4, 4, 4, 8))])
        repairs = repair_dataset(DataSpec.parse(f"coco:{tmp_path / 'a'}"), tmp_path / "fixed.json")
        assert repairs.done == {"annotations": 1, "two_classes": 1}
        assert "decide which is right" in "".join(repairs.lines())
        assert kinds(repairs.opens_as[0]) == {"object in two classes"}

    def test_other_fields_stay(self, tmp_path: Path) -> None:
        faulty = coco_set.annotation(1, 7, 3, (0, 0, 4, 4), attributes={"dented": True}, bbox=[0, 0, 0, 0])
        coco_set.coco(tmp_path / "a", [faulty])
        file = tmp_path / "a" / "annotations" / "instances_train.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"licenses": [{"id": 4}], "info": {"year": 2012}}))
        repaired(f"coco:{tmp_path / 'a'}", tmp_path / "fixed.json")
        content = json.loads((tmp_path / "fixed.json").read_text())
        assert content["licenses"] == [{"id": 4}]
        assert content["info"] == {"year": 2012}
        assert content["annotations"][0]["attributes"] == {"dented": True}

    def test_a_folder_for_several_splits(self, tmp_path: Path) -> None:
        for split in ("train", "val"):
            image = {"id": 7, "file_name": "a.png", "height": 8, "width": 8}
            coco_set.coco(tmp_path / "a", [coco_set.annotation(1, 7, 3, (0, 0, 2, 2))], split=split, images=[image])
            other = {"id": 8, "file_name": f"{split}.png", "height": 8, "width": 8}
            file = tmp_path / "a" / "annotations" / f"instances_{split}.json"
            content = json.loads(file.read_text())
            objects = [*content["annotations"], coco_set.annotation(2, 8, 3, (0, 0, 2, 2))]
            file.write_text(json.dumps(content | {"images": [*content["images"], other], "annotations": objects}))
            drawing.write_image(tmp_path / "a" / split / f"{split}.png", seed=len(split), size_hw=(8, 8))
        spec = f"coco:{tmp_path / 'a'}"
        assert kinds(spec) == {"image in two splits"}
        with pytest.raises(DataError, match="one file for the splits train, val; write one of them"):
            repair_dataset(DataSpec.parse(spec), tmp_path / "fixed.json")
        repairs = repaired(spec, tmp_path / "fixed")
        assert repairs.done["repeated_images"] == 1
        images = {}
        for split in ("train", "val"):
            content = json.loads((tmp_path / "fixed" / f"instances_{split}.json").read_text())
            images[split] = [one["file_name"] for one in content["images"]]
        assert images == {"train": ["train.png"], "val": ["a.png", "val.png"]}

    def test_an_existing_file_is_not_replaced(self, tmp_path: Path) -> None:
        spec = f"coco:{coco_set.coco(tmp_path / 'a', [])}"
        for out in (tmp_path / "a" / "annotations" / "instances_train.json", tmp_path / "a"):
            with pytest.raises(DataError, match="nothing is repaired in place"):
                repair_dataset(DataSpec.parse(spec), out)
        with pytest.raises(DataError, match=r"no folder .*nowhere to write it to"):
            repair_dataset(DataSpec.parse(spec), tmp_path / "nowhere" / "a.json")

    def test_no_image_left(self, tmp_path: Path) -> None:
        coco_set.coco(tmp_path / "a", [])
        (tmp_path / "a" / "train" / "a.png").unlink()
        with pytest.raises(DataError, match="nothing usable is left"):
            repair_dataset(DataSpec.parse(f"coco:{tmp_path / 'a'}"), tmp_path / "fixed.json")
        assert not (tmp_path / "fixed.json").exists()


class TestObjectMasks:
    def test_every_fault_of_a_table(self, tmp_path: Path) -> None:
        root = tmp_path / "a"
        for split, names in (("train", "abcdef"), ("val", "xy")):
            for name in names:
                drawing.write_image(root / "images" / split / f"{name}.png", seed=ord(name))
                drawing.write_mask(root / "masks" / split / f"{name}.png", [[0, 1, 1, 0, 7, 7]] * 4)
        meanings = {"1": "crate", "7": {"class": "truck", "crowd": True}}
        table = dict.fromkeys("abcdefxy", meanings) | {"b": {**meanings, "9": "crate"}, "c": {"1": "crate"}}
        (root / "classes.json").write_text(json.dumps(table))
        (root / "images" / "train" / "d.png").write_bytes(b"")
        (root / "masks" / "train" / "e.png").unlink()
        shutil.copy(root / "images" / "val" / "x.png", root / "images" / "train" / "f.png")
        assert kinds(f"instance-masks:{root}") == {
            "object without pixels", "object of no class", "unreadable image", "missing mask", "image in two splits",
        }  # fmt: skip
        repairs = repaired(f"instance-masks:{root}", tmp_path / "b")
        assert repairs.done == {
            "unreadable_images": 1, "missing_masks": 1, "repeated_images": 1, "table_numbers": 1, "unknown_pixels": 8,
        }  # fmt: skip
        assert repairs.images == 5
        before, after = (
            open_dataset(f"{spec}", default_split="train") for spec in (f"instance-masks:{root}", repairs.opens_as[0])
        )
        assert after.ids == ("a", "b", "c")
        assert after.labels == before.labels
        whole, same = before[0].truth, after[0].truth
        assert whole.semantic is not None
        assert same.semantic is not None
        assert same.semantic.equal(whole.semantic)
        assert whole.instances is not None
        assert same.instances is not None
        assert same.instances.crowd is not None
        assert same.instances.labels.tolist() == whole.instances.labels.tolist() == [1, 2]
        assert same.instances.crowd.tolist() == [False, True]
        semantic = after[2].truth.semantic  # class 7 is unknown
        assert semantic is not None
        assert semantic.tolist() == [[0, 1, 1, 0, 255, 255]] * 4
        kept = np.asarray(Image.open(tmp_path / "b" / "masks" / "train" / "a.png"))
        assert kept.tolist() == [[0, 1, 1, 0, 7, 7]] * 4

    def test_numbers_that_tell_their_class(self, tmp_path: Path) -> None:
        root = instance_masks_set.instance_masks(tmp_path / "a", "abcdef")
        (root / "labels.txt").write_text("crate\ntruck\n")
        for name in "abcdef":
            numbers = np.array([[0, 1001, 1002, 2001, 9001, 250]] * 4, dtype=np.uint16)
            Image.fromarray(numbers).save(root / "masks" / f"{name}.png")
        repairs = repaired(f"instance-masks:{root}?divisor=1000&void=250", tmp_path / "b")
        assert repairs.done == {"unknown_pixels": 24}
        assert repairs.opens_as == (f"instance-masks:{tmp_path / 'b'}?divisor=1000&void=250",)
        semantic = sample_of(repairs.opens_as[0], "b").truth.semantic
        assert semantic is not None
        assert semantic.tolist() == [[0, 1, 1, 2, 255, 255]] * 4

    def test_one_class_and_a_turned_image(self, tmp_path: Path) -> None:
        root = instance_masks_set.instance_masks(tmp_path / "a", "ab")
        (root / "images" / "b.png").unlink()
        drawing.write_turned(root / "images" / "b.jpg", stored_hw=(4, 6), orientation=6)
        stored = np.array([[0, 1, 1, 0, 7, 7]] * 2 + [[0] * 6] * 2)
        drawing.write_mask(root / "masks" / "b.png", stored)
        assert kinds(f"instance-masks:{root}") == {"rotated image"}
        repairs = repaired(f"instance-masks:{root}", tmp_path / "b")
        assert repairs.done == {"turned_masks": 1, "upright_images": 1}
        found = sample_of(repairs.opens_as[0], "b").truth.instances
        assert found is not None
        assert found.masks is not None
        for number, id in enumerate((1, 7)):
            assert np.array_equal(found.masks.dense_one(number).numpy(), turned_upright(stored == id, 6))


class TestLabelme:
    def test_every_fault_of_a_file(self, tmp_path: Path) -> None:
        root = tmp_path / "a"
        square = [(1, 1), (4, 1), (4, 4), (1, 4)]
        shapes = [
            labelme_set.shape("crate", square, description="kept"),
            labelme_set.shape("crate", square),
            labelme_set.shape("truck", square),
            labelme_set.shape("crate", [(1, 1)], "point"),
            labelme_set.shape("crate", [(1, 1), (2, 2)]),
            labelme_set.shape("crate", [(1, 1), (6, 6)], "ellipse"),
            labelme_set.shape("crate", [(90, 90), (95, 95)], "rectangle"),
            labelme_set.shape("crate", square, group_id="one"),
            labelme_set.shape("ship", square),
            labelme_set.shape("", square),
            labelme_set.shape("__ignore__", [(5, 5), (8, 5), (8, 8), (5, 8)]),
            labelme_set.shape("crate", [(5, 0), (8, 3)], "rectangle"),
        ]
        labelme_set.labelme_file(root / "train", "a", shapes, seed=1, flags={"night": True})
        labelme_set.labelme_file(root / "train", "b", shapes[:1], seed=2, imageHeight=9, imageWidth="8")
        labelme_set.labelme_file(root / "train", "c", shapes[:1], seed=3)
        (root / "train" / "c.png").unlink()
        labelme_set.labelme_file(root / "train", "d", shapes[:1], seed=4)
        (root / "train" / "d.png").write_bytes(b"")
        labelme_set.labelme_file(root / "train", "e", shapes[:1], seed=5).write_text("{}")
        (root / "labels.txt").write_text("__ignore__\ncrate\ntruck\n")
        spec = f"labelme:{root}"
        assert kinds(spec) == {
            "shape without area", "polygon without extent", "unknown shape", "object without pixels", "shape",
            "unknown category", "repeated annotation", "object in two classes", "image entry", "missing image",
            "unreadable image", "unreadable annotations",
        }  # fmt: skip
        repairs = repair_dataset(DataSpec.parse(spec), tmp_path / "b")
        assert repairs.done == {
            "missing_images": 1, "unreadable_images": 1, "unreadable_annotations": 1, "sizes": 1, "shapes": 4,
            "repeated_annotations": 2, "two_classes": 1, "regions_of_boxes": 2,
        }  # fmt: skip
        assert kinds(repairs.opens_as[0]) == {"object in two classes"}  # which is right only the annotator knows
        content = json.loads((tmp_path / "b" / "train" / "a.json").read_text())
        kept = content["shapes"]
        assert [*kept[:2], *kept[4:]] == json.loads(json.dumps([shapes[0], shapes[2], shapes[10], shapes[11]]))
        assert [(one["points"], one["flags"]) for one in kept[2:4]] == [
            ([[1, 1], [2, 2]], {"crowd": True}), ([[1, 1], [6, 6]], {"crowd": True}),
        ]  # fmt: skip
        assert content["flags"] == {"night": True}
        assert open_dataset(repairs.opens_as[0], default_split="train").ids == ("a", "b")
        found = sample_of(repairs.opens_as[0], "a").truth.instances
        assert found is not None
        assert found.crowd is not None
        assert found.boxes[~found.crowd].tolist() == [[1, 1, 4, 4], [1, 1, 4, 4], [5, 0, 8, 3]]
        assert sample_of(repairs.opens_as[0], "b").truth.semantic is not None

    @pytest.mark.parametrize("orientation", [5, 6, 7, 8])
    def test_shapes_are_turned_like_their_image(self, tmp_path: Path, orientation: int) -> None:
        stored = np.zeros((8, 12), dtype=np.uint8)
        stored[1:3, 2:7] = 1
        picture = np.array([[1, 0, 1], [1, 1, 1]])
        masked = np.zeros((8, 12), dtype=np.uint8)
        masked[4:6, 3:6] = picture
        shapes = [
            labelme_set.shape("crate", [(2, 1), (7, 1), (7, 3), (2, 3)]),
            labelme_set.shape("crate", [(3, 4), (5, 5)], "mask", mask=png(picture)),
        ]
        root = tmp_path / "a" / "train"
        labelme_set.labelme_file(root, "b", shapes, imageHeight=8, imageWidth=12, imagePath="b.jpg")
        (root / "b.png").unlink()
        drawing.write_turned(root / "b.jpg", stored_hw=(8, 12), orientation=orientation)
        assert kinds(f"labelme:{tmp_path / 'a'}") == {"rotated image"}
        repairs = repaired(f"labelme:{tmp_path / 'a'}", tmp_path / "b")
        assert repairs.done == {"frames_by_size": 1, "sizes": 1, "turned_annotations": 2}
        found = sample_of(repairs.opens_as[0], "b").truth.instances
        assert found is not None
        assert found.masks is not None
        for number, wanted in enumerate((stored, masked)):
            assert np.array_equal(found.masks.dense_one(number).numpy(), turned_upright(wanted, orientation))
        assert (tmp_path / "b" / "train" / "b.jpg").read_bytes() == (root / "b.jpg").read_bytes()


class TestYolo:
    def test_every_fault_of_a_file(self, tmp_path: Path) -> None:
        root = yolo_set.yolo(tmp_path / "a", {"train": "abcde", "val": "x"})
        sound = ["0 0 0 0.25 0 0.25 0.25 0 0.25", "1 0.5 0.25 1 0.25 1 1 0.5 1"]
        lines = [
            sound[0],
            sound[0],
            "1 0 0 0.25 0 0.25 0.25 0 0.25",
            "0 0.5 0.5 0.2 0.2",
            "0 0.1 0.1 0.2 0.2",
            "7 0 0 0.25 0 0.25 0.25",
            "0 0 0 200 0 200 200",
            "0 a b",
            "0 0.51 0.51 0.52 0.51 0.52 0.52",
            "1 0.5 0.5 1.25 0.5 1.25 1 0.5 1",
            "",
            sound[1],
        ]
        (root / "labels" / "train" / "a.txt").write_text("\n".join(lines))
        (root / "labels" / "train" / "b.txt").write_bytes(b"\xff\xfe\x00")
        (root / "labels" / "train" / "c.txt").unlink()
        (root / "images" / "train" / "d.png").write_bytes(b"")
        shutil.copy(root / "images" / "val" / "x.png", root / "images" / "train" / "e.png")
        spec = f"yolo:{root}"
        assert kinds(spec) == {
            "repeated annotation", "object in two classes", "no segmentation", "unknown category", "line",
            "object without pixels", "polygon outside", "unreadable annotations", "unreadable image",
            "image in two splits",
        }  # fmt: skip
        repairs = repair_dataset(DataSpec.parse(spec), tmp_path / "b")
        assert repairs.done == {
            "unreadable_images": 1, "unreadable_annotations": 1, "repeated_images": 1, "shapes": 4, "cut_polygons": 1,
            "repeated_annotations": 1, "two_classes": 1, "boxes_alone": 2,
        }  # fmt: skip
        assert kinds(repairs.opens_as[0]) == {"object in two classes", "no segmentation"}
        kept = (tmp_path / "b" / "labels" / "train" / "a.txt").read_text().splitlines()
        assert [*kept[:4], kept[5]] == [lines[0], lines[2], lines[3], lines[4], lines[11]]
        after = open_dataset(repairs.opens_as[0], default_split="train")
        assert after.ids == ("a", "c")
        assert after.labels == yolo.labels_of(root, {})
        found = sample_of(repairs.opens_as[0], "a").truth.instances
        assert found is not None
        assert found.boxes[:4].tolist() == [[0, 0, 2, 2], [0, 0, 2, 2], [4, 4, 8, 8], [4, 2, 8, 8]]
        assert found.labels[:4].tolist() == [1, 2, 2, 2]
        assert found.crowd is not None
        assert found.crowd.tolist() == [False] * 4 + [True] * 2

    def test_boxes_alone_are_no_objects(self, tmp_path: Path) -> None:
        root = yolo_set.yolo(tmp_path / "a", {"train": "a"})
        (root / "labels" / "train" / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
        with pytest.raises(DataError, match="all 1 lines are boxes"):
            repair_dataset(DataSpec.parse(f"yolo:{root}"), tmp_path / "b")
        assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("format", ["instance-masks", "labelme", "yolo"])
def test_a_copy_of_a_sound_set_has_the_same_ground_truth(tmp_path: Path, format: str) -> None:
    write_tiny_set(format, tmp_path / "a")
    repairs = repaired(f"{format}:{tmp_path / 'a'}", tmp_path / "b")
    assert repairs.done == {}
    for split in ("train", "val"):
        before, after = (
            open_dataset(spec, default_split=split) for spec in (f"{format}:{tmp_path / 'a'}", repairs.opens_as[0])
        )
        assert (after.ids, after.labels) == (before.ids, before.labels)
        for index in range(len(before)):
            one, other = before[index], after[index]
            assert one.image.equal(other.image)
            assert one.truth.semantic is not None
            assert other.truth.semantic is not None
            assert one.truth.semantic.equal(other.truth.semantic)
            assert one.truth.instances is not None
            assert other.truth.instances is not None
            assert one.truth.instances.labels.tolist() == other.truth.instances.labels.tolist()
            assert one.truth.instances.boxes.tolist() == other.truth.instances.boxes.tolist()


def test_every_repair_has_a_line_with_one_number() -> None:
    assert all(text.count("{}") == 1 for text in REPAIRS.values())
    repairs = Repairs(Path("x"), dict.fromkeys(REPAIRS, 1234), 1)
    assert len([line for line in repairs.lines() if "1,234" in line]) == len(REPAIRS)
