"""Repaired copies: every fault that can be mended is gone from the copy, and the set itself is as it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pixelwise.data.check import check_dataset
from pixelwise.data.images import turned_upright
from pixelwise.data.repair import REPAIRS, Repairs, repair_dataset
from pixelwise.data.spec import DataSpec, open_dataset
from pixelwise.errors import DataError
from pixelwise.ops import rle
from pixelwise.types import Instances, Sample
from tests.contract.test_datasets import write_tiny_set
from tests.data import trees


def kinds(spec: str) -> set[str]:
    return {fault.kind for fault in check_dataset(DataSpec.parse(spec)).faults()}


def repaired(spec: str, out: Path) -> Repairs:
    """Repair, and look whether the copy is sound and the set unchanged."""
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
        root = trees.camvid(tmp_path / "a", {"train": "abcdefghijk", "val": "xyz"})
        (root / "train" / "a.png").write_bytes(b"")
        (root / "trainannot" / "b.png").write_text("no picture")
        (root / "train" / "c.png").unlink()
        (root / "trainannot" / "d.png").unlink()
        trees.write_mask(root / "trainannot" / "e.png", np.zeros((3, 3)))
        trees.write_mask(root / "trainannot" / "f.png", [[0, 1, 37, 37, 200, 11]] * 4)
        trees.write_image(root / "trainannot" / "g.png")
        trees.write_mask(root / "trainannot" / "h.png", np.full((4, 6), 11))
        shutil.copy(root / "val" / "x.png", root / "train" / "i.png")
        shutil.copy(root / "val" / "y.png", root / "val" / "z.png")
        Image.fromarray(np.full((4, 6, 3), 5, dtype=np.uint8)).save(root / "trainannot" / "j.png")
        trees.write_mask(root / "trainannot" / "k.tif")
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
        root = trees.masks(tmp_path / "a", "x")
        (root / "images" / "x.png").unlink()
        ids = np.arange(24).reshape(4, 6) % 2 * (np.arange(24).reshape(4, 6) < 9)
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(np.repeat(ids[:, :, None] * 200, 3, axis=2).astype(np.uint8)).save(
            root / "images" / "x.png", exif=exif
        )
        trees.write_mask(root / "masks" / "x.png", ids)
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
        root = trees.masks(tmp_path / "a", "wx")
        (root / "images" / "x.png").unlink()
        trees.write_turned(root / "images" / "x.jpg")
        trees.write_mask(root / "masks" / "x.png", np.ones((6, 4)))
        (root / "images" / "w.png").write_bytes(b"")
        assert repaired(f"masks:{root}", tmp_path / "b").done == {"unreadable_images": 1, "upright_images": 1}
        with Image.open(tmp_path / "b" / "images" / "train" / "x.jpg") as image:
            assert image.size == (4, 6)
            assert not image.getexif()

    def test_lists(self, tmp_path: Path) -> None:
        root = trees.voc(tmp_path / "a", {"train": "abca", "val": "cd", "trainval": "abcd"})
        assert kinds(f"voc:{root}") == {"repeated id", "image in two splits"}
        repairs = repaired(f"voc:{root}", tmp_path / "b")
        assert repairs.done == {"repeated_images": 2}
        lists = tmp_path / "b" / "ImageSets" / "Segmentation"
        assert [(lists / f"{name}.txt").read_text().split() for name in ("train", "val", "trainval")] == [
            ["a", "b"], ["c", "d"], ["a", "b", "c", "d"],
        ]  # fmt: skip

    def test_own_labels_and_ids_stay(self, tmp_path: Path) -> None:
        root = trees.camvid(tmp_path / "a")
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
        root = trees.cityscapes(tmp_path / "a", ids="labelTrainIds")
        trees.write_mask(
            root / "gtFine" / "val" / "jena" / "jena_3_4_gtFine_labelTrainIds.png", [[0, 1, 2, 77, 5, 6]] * 4
        )
        repairs = repaired(f"cityscapes:{root}", tmp_path / "b")
        assert repairs.done == {"unknown_pixels": 4}
        sample = open_dataset(repairs.opens_as[0], default_split="val")[0]
        assert sample.truth.semantic is not None
        assert sample.truth.semantic.tolist() == [[0, 1, 2, 255, 5, 6]] * 4

    def test_colours_become_ids_and_unknown_ones_void(self, tmp_path: Path) -> None:
        root = trees.masks(tmp_path / "a", "x")
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
        root = trees.masks(tmp_path / "a", "x")
        (root / "images" / "x.png").write_bytes(b"")
        with pytest.raises(DataError, match="nothing usable is left"):
            repair_dataset(DataSpec.parse(f"masks:{root}"), tmp_path / "b")
        assert [path.name for path in tmp_path.iterdir()] == ["a"]

    def test_never_in_place(self, tmp_path: Path) -> None:
        root = trees.camvid(tmp_path / "a")
        for out in (root, root / "train"):
            with pytest.raises(DataError, match="nothing is repaired in place"):
                repair_dataset(DataSpec.parse(f"camvid:{root}"), out)


def faulty_coco(root: Path) -> str:
    """A file with every fault that can be mended, and sound objects."""
    sound = [trees.annotation(1, 7, 3, (0, 0, 4, 4)), trees.annotation(2, 8, 9, (1, 1, 5, 5))]
    faulty = [
        trees.annotation(10, 7, 3, (2, 2, 6, 6), bbox=[2, 2, 0, 4]),
        trees.annotation(11, 7, 3, (1, 2, 6, 6), bbox=[2, 2, 4]),
        trees.annotation(12, 7, 3, (2, 1, 6, 6), bbox=[2, 1, 40, 5]),
        trees.annotation(13, 7, 3, (0, 0, 8, 2), bbox=[7, 7, 1, 1]),
        trees.annotation(14, 7, 3, (2, 2, 6, 6), segmentation=[]),
        trees.annotation(15, 7, 3, (2, 2, 6, 6), segmentation=[[1, 1, 2, 2]]),
        trees.annotation(16, 7, 3, (2, 2, 6, 6), segmentation=[trees.rectangle(3, 2, 6, 6), [1, 1, 2, 2]]),
        trees.annotation(
            17, 7, 3, (2, 2, 6, 6), segmentation=[[1, 1, float("nan"), 2, 3, 3], trees.rectangle(2, 3, 6, 6)]
        ),
        trees.annotation(18, 7, 3, (2, 2, 6, 6), segmentation=[trees.rectangle(90, 90, 95, 95)]),
        trees.annotation(19, 7, 3, (2, 2, 6, 6), segmentation={"size": [8, 8], "counts": [3, 4]}),
        trees.annotation(20, 7, 99, (2, 2, 6, 6)),
        trees.annotation(21, 99, 3, (2, 2, 6, 6)),
        trees.annotation(1, 7, 9, (5, 4, 8, 8)),
        trees.annotation(0, 7, 9, (4, 5, 8, 8)) | {"id": "x"},
        trees.annotation(24, 21, 9, (4, 4, 8, 8)),
        trees.annotation(25, 22, 9, (4, 4, 8, 8)),
        trees.annotation(26, 23, 9, (4, 4, 8, 8)),
        trees.annotation(27, 25, 9, (0, 0, 8, 8)),
        trees.annotation(28, 8, 9, (1, 1, 5, 5), bbox=[1, 1, 4.5, 4]),
        trees.annotation(29, 7, 3, (3, 3, 4, 4), segmentation=None),
        trees.annotation(30, 7, 3, (3, 3, 4, 4), segmentation=None),
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
    trees.coco(root, [*sound, *faulty], images=images)
    (root / "train" / "gone.png").unlink()
    (root / "train" / "broken.png").write_bytes(b"")
    trees.write_image(root / "train" / "a.png", seed=50, size_hw=(8, 8))
    trees.write_image(root / "train" / "d.png", seed=51, size_hw=(6, 7))
    trees.write_image(root / "train" / "e.png", seed=52, size_hw=(6, 7))
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
            "segmentation", "object without pixels", "unknown category", "unknown image", "annotation entry",
            "repeated annotation",
        }  # fmt: skip
        repairs = repaired(spec, tmp_path / "fixed.json")
        assert repairs.done == {
            "images": 3, "merged_images": 2, "sizes": 2, "annotations": 10, "repeated_annotations": 1, "polygons": 3,
            "boxes": 5, "ids": 2,
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
        assert len(boxes) == len(content["annotations"]) == 12
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
            trees.annotation(1, 301, 3, (2, 1, 7, 3)),
            trees.annotation(2, 301, 9, (2, 1, 7, 3), segmentation=rle.encode(stored), iscrowd=1),
        ]
        images = [{"id": 301, "file_name": "b.jpg", "height": 8, "width": 12}]
        trees.coco(tmp_path / "a", objects, images=images)
        trees.write_turned(tmp_path / "a" / "train" / "b.jpg", stored_hw=(8, 12), orientation=orientation)
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
        both = [trees.annotation(number, 7, category, (0, 0, 4, 4)) for number, category in ((1, 3), (2, 9))]
        trees.coco(tmp_path / "a", [*both, trees.annotation(3, 7, 3, (4, 4, 4, 8))])
        repairs = repair_dataset(DataSpec.parse(f"coco:{tmp_path / 'a'}"), tmp_path / "fixed.json")
        assert repairs.done == {"annotations": 1, "two_classes": 1}
        assert "which is right only you know" in "".join(repairs.lines())
        assert kinds(repairs.opens_as[0]) == {"object in two classes"}

    def test_other_fields_stay(self, tmp_path: Path) -> None:
        faulty = trees.annotation(1, 7, 3, (0, 0, 4, 4), attributes={"dented": True}, bbox=[0, 0, 0, 0])
        trees.coco(tmp_path / "a", [faulty])
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
            trees.coco(tmp_path / "a", [trees.annotation(1, 7, 3, (0, 0, 2, 2))], split=split, images=[image])
            other = {"id": 8, "file_name": f"{split}.png", "height": 8, "width": 8}
            file = tmp_path / "a" / "annotations" / f"instances_{split}.json"
            content = json.loads(file.read_text())
            file.write_text(json.dumps(content | {"images": [*content["images"], other]}))
            trees.write_image(tmp_path / "a" / split / f"{split}.png", seed=len(split), size_hw=(8, 8))
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
        spec = f"coco:{trees.coco(tmp_path / 'a', [])}"
        for out in (tmp_path / "a" / "annotations" / "instances_train.json", tmp_path / "a"):
            with pytest.raises(DataError, match="nothing is repaired in place"):
                repair_dataset(DataSpec.parse(spec), out)
        with pytest.raises(DataError, match=r"no folder .*nowhere to write it to"):
            repair_dataset(DataSpec.parse(spec), tmp_path / "nowhere" / "a.json")

    def test_no_image_left(self, tmp_path: Path) -> None:
        trees.coco(tmp_path / "a", [])
        (tmp_path / "a" / "train" / "a.png").unlink()
        with pytest.raises(DataError, match="no usable image is left"):
            repair_dataset(DataSpec.parse(f"coco:{tmp_path / 'a'}"), tmp_path / "fixed.json")
        assert not (tmp_path / "fixed.json").exists()


def test_every_repair_has_a_line_with_one_number() -> None:
    assert all(text.count("{}") == 1 for text in REPAIRS.values())
    repairs = Repairs(Path("x"), dict.fromkeys(REPAIRS, 1234), 1)
    assert len([line for line in repairs.lines() if "1,234" in line]) == len(REPAIRS)
