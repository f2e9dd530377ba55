"""From format to format and back: the same classes, pixel by pixel, and every loss counted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pixelwise.data.kinds import class_masks_writer
from pixelwise.data.kinds.folders import labels_toml
from pixelwise.data.spec import DataSpec, format_named, open_dataset, splits_of
from pixelwise.data.tools.check import check_dataset
from pixelwise.data.tools.convert import LOSSES, Conversion, convert_dataset, writable_formats
from pixelwise.errors import DataError
from pixelwise.labels import LabelMap, LabelSet
from pixelwise.ops import rle
from pixelwise.types import Sample
from tests.data import drawing
from tests.data.formats import camvid_set, cityscapes_set, coco_set, masks_set, voc_set
from tests.data.sets import formats_without, write_tiny_set

FORMATS = [name for name in formats_without("segments", "clips") if name in writable_formats()]

LABELLED = [name for name in FORMATS if "labels" in format_named(name).options]
"""The formats whose new sets take a label set."""


def converted(source: str, target: str, *, overwrite: bool = False, names: bool = False) -> Conversion:
    return convert_dataset(
        DataSpec.parse(source),
        DataSpec.parse(target),
        overwrite=overwrite,
        map_labels=LabelMap.by_names if names else None,
    )


def samples(spec: str) -> dict[str, list[Sample]]:
    sets = {split: open_dataset(spec, default_split=split) for split in splits_of(spec)}
    return {split: [dataset[index] for index in range(len(dataset))] for split, dataset in sets.items()}


def labels_of(spec: str) -> LabelSet:
    return open_dataset(spec, default_split=splits_of(spec)[0]).labels


def semantic(sample: Sample) -> np.ndarray:
    assert sample.truth.semantic is not None
    return sample.truth.semantic.numpy()


def require_same_truth(one: dict[str, list[Sample]], other: dict[str, list[Sample]]) -> None:
    assert one.keys() == other.keys()
    for split, of_split in one.items():
        assert len(of_split) == len(other[split]) > 0
        for first, second in zip(of_split, other[split], strict=True):
            assert np.array_equal(semantic(first), semantic(second))
            assert first.image.shape == second.image.shape


def pairs() -> Sequence[tuple[str, str]]:
    """Two formats of which the second can hold the label set of the first; every format comes from and goes to COCO."""
    hubs = ("coco", "masks", "voc")
    others = [(a, b) for a in FORMATS for b in FORMATS if b != "cityscapes" or a == "cityscapes"]
    return [(a, b) for a, b in others if a == b or a in hubs or b in hubs]


def test_every_format_of_classes_can_be_written() -> None:
    assert set(FORMATS) <= set(writable_formats())


@pytest.mark.parametrize(("source", "target"), pairs())
def test_there_and_back_again(tmp_path: Path, source: str, target: str) -> None:
    write_tiny_set(source, tmp_path / "a")
    file = tmp_path / "labels.toml"
    file.write_text(labels_toml(labels_of(f"{source}:{tmp_path / 'a'}")))
    there = f"{target}:{tmp_path / 'b'}" + (f"?labels={file}" if target in LABELLED else "")
    back = f"{source}:{tmp_path / 'c'}" + (f"?labels={file}" if source in LABELLED else "")
    forth = converted(f"{source}:{tmp_path / 'a'}", there)
    again = converted(f"{target}:{tmp_path / 'b'}", back)
    assert not forth.failures
    assert not again.failures
    assert set(forth.losses) | set(again.losses) <= {"joined_regions", "reencoded_images", "flattened_objects",
                                                     "overlapping_pixels"}  # fmt: skip
    first, second, third = (f"{format}:{tmp_path / folder}" for format, folder in ((source, "a"), (target, "b"),
                                                                                   (source, "c")))  # fmt: skip
    assert labels_of(first).names == labels_of(second).names == labels_of(third).names
    require_same_truth(samples(first), samples(second))
    require_same_truth(samples(first), samples(third))


def test_label_ids_become_train_ids_and_back(tmp_path: Path) -> None:
    cityscapes_set.cityscapes(tmp_path / "a")
    converted(f"cityscapes:{tmp_path / 'a'}", f"cityscapes:{tmp_path / 'b'}?ids=trainIds")
    mask = tmp_path / "b" / "gtFine" / "val" / "all" / "jena_3_4_gtFine_labelTrainIds.png"
    assert np.asarray(Image.open(mask)).tolist() == [[255, 0, 0, 1, 13, 13]] * 4
    converted(f"cityscapes:{tmp_path / 'b'}", f"cityscapes:{tmp_path / 'c'}")
    mask = tmp_path / "c" / "gtFine" / "val" / "all" / "jena_3_4_gtFine_labelIds.png"
    assert np.asarray(Image.open(mask)).tolist() == [[0, 7, 7, 8, 26, 26]] * 4
    assert (tmp_path / "c" / "leftImg8bit" / "val" / "all" / "jena_3_4_leftImg8bit.png").is_file()


class TestObjects:
    """Objects stay objects from format to format, and every loss is counted."""

    def scene(self, root: Path) -> None:
        """A crate with a hole and a part aside, a truck over its corner, and a crowd."""
        holed = np.zeros((8, 8), dtype=np.uint8)
        holed[0:4, 0:4] = 1
        holed[1, 1] = 0
        holed[6, 0] = 1
        crowd = np.zeros((8, 8), dtype=np.uint8)
        crowd[7, 4:] = 1
        objects = [
            coco_set.annotation(1, 7, 3, (0, 0, 4, 7), segmentation=rle.encode(holed)),
            coco_set.annotation(2, 7, 9, (3, 3, 5, 5)),
            coco_set.annotation(3, 7, 9, (4, 7, 8, 8), iscrowd=1, segmentation=rle.encode(crowd)),
        ]
        coco_set.coco(root, objects)

    def dense(self, spec: str) -> dict[tuple[str, bool], list[list[int]]]:
        (sample,) = samples(spec)["train"]
        found, names = sample.truth.instances, labels_of(spec).names
        assert found is not None
        assert found.masks is not None
        assert found.crowd is not None
        labels = [names[label] for label in found.labels]
        masks = found.masks.dense().int().tolist()
        return dict(zip(zip(labels, found.crowd.tolist(), strict=True), masks, strict=True))

    @pytest.mark.parametrize("target", ["coco", "labelme", "yolo", "instance-masks", "voc"])
    def test_every_format_of_objects(self, tmp_path: Path, target: str) -> None:
        self.scene(tmp_path / "a")
        file = tmp_path / "labels.toml"
        file.write_text(labels_toml(labels_of(f"coco:{tmp_path / 'a'}")))
        options = f"?labels={file}" if target in LABELLED else ""
        made = converted(f"coco:{tmp_path / 'a'}", f"{target}:{tmp_path / 'b'}{options}")
        losses = {
            "voc": {"overlapping_pixels": 1, "crowd_regions": 1, "reencoded_images": 1},
            "instance-masks": {"overlapping_pixels": 1},
            "yolo": {"left_out_crowds": 1},
        }
        assert made.losses == losses.get(target, {})
        before = self.dense(f"coco:{tmp_path / 'a'}")
        after = self.dense(f"{target}:{tmp_path / 'b'}" + (options if target == "voc" else ""))
        if target in ("voc", "yolo"):
            del before["truck", True]
        if target in ("voc", "instance-masks"):
            before["crate", False][3][3] = 0  # the smaller one keeps it
        assert after == before
        assert not check_dataset(DataSpec.parse(f"{target}:{tmp_path / 'b'}")).faults()

    def test_an_object_below_another_vanishes_and_is_counted(self, tmp_path: Path) -> None:
        below = coco_set.annotation(1, 7, 3, (0, 0, 4, 4))
        coco_set.coco(tmp_path / "a", [below, *(coco_set.annotation(2 + x, 7, 9, (x, 0, x + 1, 4)) for x in range(4))])
        made = converted(f"coco:{tmp_path / 'a'}", f"instance-masks:{tmp_path / 'b'}")
        assert made.losses == {"overlapping_pixels": 16, "hidden_objects": 1}
        assert not check_dataset(DataSpec.parse(f"instance-masks:{tmp_path / 'b'}")).faults()


class TestFiles:
    def test_bytes_are_copied_where_the_suffix_is_allowed(self, tmp_path: Path) -> None:
        voc_set.voc(tmp_path / "a", {"train": "ab", "val": "c"})
        for target in ("masks", "coco", "voc", "ade20k", "cityscapes", "camvid"):
            made = converted(f"voc:{tmp_path / 'a'}@val", f"{target}:{tmp_path / target}", names=True)
            assert made.losses.get("reencoded_images") is None
            image = open_dataset(f"{target}:{tmp_path / target}@val", default_split="val").image_path(0)
            assert image.read_bytes() == (tmp_path / "a" / "JPEGImages" / "c.jpg").read_bytes()

    def test_other_kinds_of_file_are_encoded_anew_and_counted(self, tmp_path: Path) -> None:
        camvid_set.camvid(tmp_path / "a")
        made = converted(f"camvid:{tmp_path / 'a'}", f"voc:{tmp_path / 'b'}?labels=camvid")
        assert made.losses == {"reencoded_images": 5}
        with Image.open(tmp_path / "b" / "JPEGImages" / "a.jpg") as image:
            assert (image.format, image.size) == ("JPEG", (6, 4))

    def test_voc_masks_show_the_colours(self, tmp_path: Path) -> None:
        camvid_set.camvid(tmp_path / "a")
        converted(f"camvid:{tmp_path / 'a'}", f"voc:{tmp_path / 'b'}?labels=camvid")
        with Image.open(tmp_path / "b" / "SegmentationClass" / "a.png") as mask:
            assert mask.mode == "P"
            assert mask.convert("RGB").getpixel((0, 0)) == (128, 128, 128)

    def test_a_turned_image_keeps_its_bytes_and_agrees_with_its_mask(self, tmp_path: Path) -> None:
        masks_set.masks(tmp_path / "a", ["x"])
        (tmp_path / "a" / "images" / "x.png").unlink()
        image = drawing.write_turned(tmp_path / "a" / "images" / "x.jpg", orientation=6)
        ids = np.arange(24).reshape(6, 4) % 2
        drawing.write_mask(tmp_path / "a" / "masks" / "x.png", ids)
        for target in ("masks", "coco"):
            made = converted(f"masks:{tmp_path / 'a'}", f"{target}:{tmp_path / target}")
            assert made.losses["turned_images"] == 1
            dataset = open_dataset(f"{target}:{tmp_path / target}@train", default_split="train")
            assert dataset.image_path(0).read_bytes() == image.read_bytes()
            assert dataset[0].original_size == (6, 4)
            assert np.array_equal(semantic(dataset[0]), ids)

    def test_a_turned_image_encoded_anew_is_upright(self, tmp_path: Path) -> None:
        masks_set.masks(tmp_path / "a", ["x"])
        (tmp_path / "a" / "images" / "x.png").unlink()
        drawing.write_turned(tmp_path / "a" / "images" / "x.tif", orientation=6)
        drawing.write_mask(tmp_path / "a" / "masks" / "x.png", np.zeros((6, 4)))
        (tmp_path / "labels.txt").write_text("floor\nwall\n")
        made = converted(f"masks:{tmp_path / 'a'}", f"voc:{tmp_path / 'b'}?labels={tmp_path / 'labels.txt'}")
        assert made.losses == {"reencoded_images": 1}
        with Image.open(tmp_path / "b" / "JPEGImages" / "x.jpg") as image:
            assert image.size == (4, 6)
            assert not image.getexif()

    def test_more_than_256_classes_take_16_bits(self, tmp_path: Path) -> None:
        masks_set.masks(tmp_path / "a", ["x"], labels="".join(f"class {index}\n" for index in range(300)))
        ids = np.arange(24).reshape(4, 6) * 12
        ids[0, 0] = 65535
        Image.fromarray(ids.astype(np.uint16)).save(tmp_path / "a" / "masks" / "x.png")
        for number, target in enumerate(("masks", "coco", "masks")):
            source = f"masks:{tmp_path / 'a'}" if number < 2 else f"coco:{tmp_path / 'coco1'}"
            converted(source, f"{target}:{tmp_path / target}{number}")
            made = open_dataset(f"{target}:{tmp_path / target}{number}@train", default_split="train")
            assert made[0].truth.semantic is not None
            assert made[0].truth.semantic.tolist() == np.where(ids == 65535, -1, ids).tolist()


class TestCoco:
    def test_each_class_of_an_image_is_one_annotation(self, tmp_path: Path) -> None:
        camvid_set.camvid(tmp_path / "a")
        ids = np.array([[0, 0, 3, 3, 8, 8], [0, 11, 3, 3, 3, 8], [8, 8, 3, 3, 3, 3], [8, 8, 3, 3, 3, 3]])
        drawing.write_mask(tmp_path / "a" / "valannot" / "d.png", ids)
        made = converted(f"camvid:{tmp_path / 'a'}", f"coco:{tmp_path / 'b'}")
        assert made.images == {"train": 3, "val": 2}
        assert made.losses == {"joined_regions": 1}
        content = json.loads((tmp_path / "b" / "annotations" / "instances_val.json").read_text())
        assert [image["file_name"] for image in content["images"]] == ["d.png", "e.png"]
        of_first = [one for one in content["annotations"] if one["image_id"] == content["images"][0]["id"]]
        names = {category["id"]: category["name"] for category in content["categories"]}
        assert [names[one["category_id"]] for one in of_first] == ["sky", "road", "car"]
        assert [one["area"] for one in of_first] == [3, 13, 7]
        assert [one["bbox"] for one in of_first] == [[0, 0, 2, 2], [2, 0, 4, 4], [0, 0, 6, 4]]
        assert {one["iscrowd"] for one in content["annotations"]} == {0}
        assert len({one["id"] for one in content["annotations"]}) == len(content["annotations"])
        assert min(names) == 1  # many tools take 0 for background

    def test_pycocotools_reads_the_same_masks(self, tmp_path: Path) -> None:
        coco = pytest.importorskip("pycocotools.coco")
        camvid_set.camvid(tmp_path / "a")
        converted(f"camvid:{tmp_path / 'a'}", f"coco:{tmp_path / 'b'}")
        api = coco.COCO(str(tmp_path / "b" / "annotations" / "instances_val.json"))
        painted = np.full((4, 6), 255)
        for one in api.loadAnns(api.getAnnIds(imgIds=api.getImgIds())):
            painted[api.annToMask(one).astype(bool)] = one["category_id"] - 1
        assert painted.tolist() == [[0, 0, 0, 1, 1, 1]] * 4

    def test_void_beside_a_background_is_lost_and_counted(self, tmp_path: Path) -> None:
        voc_set.voc(tmp_path / "a", {"train": "a"})
        drawing.write_mask(tmp_path / "a" / "SegmentationClass" / "a.png", [[0, 0, 255, 255, 5, 5]] * 4)
        made = converted(f"voc:{tmp_path / 'a'}", f"coco:{tmp_path / 'b'}")
        assert made.losses == {"void_pixels_as_class": 8, "joined_regions": 1}
        assert semantic(samples(f"coco:{tmp_path / 'b'}")["train"][0]).tolist() == [[0, 0, 0, 0, 5, 5]] * 4

    def test_void_without_a_background_stays(self, tmp_path: Path) -> None:
        camvid_set.camvid(tmp_path / "a")
        drawing.write_mask(tmp_path / "a" / "trainannot" / "a.png", [[0, 11, 11, 11, 5, 5]] * 4)
        converted(f"camvid:{tmp_path / 'a'}", f"coco:{tmp_path / 'b'}")
        assert semantic(samples(f"coco:{tmp_path / 'b'}")["train"][0]).tolist() == [[0, 255, 255, 255, 5, 5]] * 4

    def test_objects_stay_objects(self, tmp_path: Path) -> None:
        boxes = [(0, 0, 5, 5), (3, 3, 8, 8), (6, 0, 8, 2)]
        objects = [coco_set.annotation(number, 7, 3, box) for number, box in enumerate(boxes, start=1)]
        runs = {"size": [8, 8], "counts": [0, 16, 48]}
        objects.append(coco_set.annotation(9, 7, 9, (0, 0, 2, 8), iscrowd=1, segmentation=runs))
        coco_set.coco(tmp_path / "a", objects)
        made = converted(f"coco:{tmp_path / 'a'}", f"coco:{tmp_path / 'b'}")
        assert made.losses == {}
        before, after = (samples(f"coco:{tmp_path / folder}")["train"][0] for folder in "ab")
        assert before.truth.instances is not None
        assert after.truth.instances is not None
        assert before.id == after.id == "7"
        for name in ("boxes", "labels", "crowd"):
            assert torch.equal(getattr(before.truth.instances, name), getattr(after.truth.instances, name))
        assert before.truth.instances.masks is not None
        assert after.truth.instances.masks is not None
        assert torch.equal(before.truth.instances.masks.dense(), after.truth.instances.masks.dense())
        assert np.array_equal(semantic(before), semantic(after))

    def test_objects_and_stuff_of_cityscapes(self, tmp_path: Path) -> None:
        cityscapes_set.cityscapes(tmp_path / "a", {"val": ("jena_3_4",)})
        file = tmp_path / "a" / "gtFine" / "val" / "jena" / "jena_3_4_gtFine_instanceIds.png"
        Image.fromarray(np.array([[3, 7, 7, 8, 26001, 26002]] * 4, dtype=np.uint16)).save(file)
        made = converted(f"cityscapes:{tmp_path / 'a'}?instances=true", f"coco:{tmp_path / 'b'}")
        assert made.losses == {}
        after = samples(f"coco:{tmp_path / 'b'}")["val"][0]
        names = labels_of(f"coco:{tmp_path / 'b'}").names
        assert after.truth.instances is not None
        assert [names[label] for label in after.truth.instances.labels] == ["car", "car", "road", "sidewalk"]
        assert semantic(after).tolist() == [[255, 0, 0, 1, 13, 13]] * 4

    def test_objects_become_classes_and_are_counted(self, tmp_path: Path) -> None:
        objects = [coco_set.annotation(1, 7, 3, (0, 0, 6, 6)), coco_set.annotation(2, 7, 3, (4, 4, 8, 8))]
        crowd = {"size": [8, 8], "counts": [56, 8]}
        objects.append(coco_set.annotation(3, 7, 9, (7, 0, 8, 8), iscrowd=1, segmentation=crowd))
        coco_set.coco(tmp_path / "a", objects)
        made = converted(f"coco:{tmp_path / 'a'}", f"masks:{tmp_path / 'b'}")
        assert made.losses == {"flattened_objects": 2, "overlapping_pixels": 4, "crowd_regions": 1}
        assert list(made.lines()) == [
            "2 objects become the class of their pixels; where one ends and the next begins is lost",
            "4 pixels belong to several objects; the smallest of these keeps them",
            "1 crowd region becomes void where no object covers it",
        ]

    def test_names_of_coco_get_the_ids_of_coco(self, tmp_path: Path) -> None:
        masks_set.masks(tmp_path / "a", "x", labels=None)
        drawing.write_mask(tmp_path / "a" / "masks" / "x.png", [[0, 0, 255, 0, 0, 90]] * 4)  # 90 is toothbrush
        converted(f"masks:{tmp_path / 'a'}?labels=coco", f"coco:{tmp_path / 'b'}")
        content = json.loads((tmp_path / "b" / "annotations" / "instances_train.json").read_text())
        assert [one["category_id"] for one in content["annotations"]] == [90]

    def test_images_of_one_name_in_two_folders(self, tmp_path: Path) -> None:
        images = [
            {"id": id, "file_name": f"{folder}/a.png", "height": 8, "width": 8}
            for id, folder in ((1, "day"), (2, "night"))
        ]
        for folder in ("day", "night"):
            (tmp_path / "a" / "train" / folder).mkdir(parents=True)
        coco_set.coco(tmp_path / "a", [], images=images)
        made = converted(f"coco:{tmp_path / 'a'}", f"masks:{tmp_path / 'b'}")
        assert made.losses == {"renamed_images": 2}
        assert [sample.id for sample in samples(f"masks:{tmp_path / 'b'}")["train"]] == ["a_1", "a_2"]


class TestSplits:
    def test_one_split_under_another_name(self, tmp_path: Path) -> None:
        camvid_set.camvid(tmp_path / "a")
        made = converted(f"camvid:{tmp_path / 'a'}@val", f"masks:{tmp_path / 'b'}@test")
        assert made.images == {"test": 2}
        assert splits_of(f"masks:{tmp_path / 'b'}") == ("test",)
        with pytest.raises(DataError, match="has the splits train, val; only one can become @test"):
            converted(f"camvid:{tmp_path / 'a'}", f"masks:{tmp_path / 'c'}@test")

    def test_lists_that_share_images(self, tmp_path: Path) -> None:
        voc_set.voc(tmp_path / "a", {"train": "ab", "val": "c", "trainval": "abc"})
        made = converted(f"voc:{tmp_path / 'a'}", f"masks:{tmp_path / 'b'}")
        assert made.images == {"train": 2, "val": 1}
        assert made.notes == ("split trainval is skipped, its images are in train, val",)
        (tmp_path / "a" / "ImageSets" / "Segmentation" / "val.txt").unlink()
        made = converted(f"voc:{tmp_path / 'a'}", f"voc:{tmp_path / 'c'}")
        assert made.images == {"train": 2, "trainval": 3}
        made = converted(f"voc:{tmp_path / 'a'}", f"masks:{tmp_path / 'd'}")
        assert made.images == {"train": 2, "trainval": 3}  # c is in no other split
        assert len(list((tmp_path / "c" / "JPEGImages").iterdir())) == 3

    def test_one_name_for_two_images(self, tmp_path: Path) -> None:
        camvid_set.camvid(tmp_path / "a", {"train": "ab", "val": "bc"})
        made = converted(f"camvid:{tmp_path / 'a'}", f"voc:{tmp_path / 'b'}?labels=camvid")
        assert made.losses == {"reencoded_images": 4, "renamed_images": 1}
        assert open_dataset(f"voc:{tmp_path / 'b'}@val", default_split="val").ids == ("b_val", "c")

    def test_a_set_without_splits_gets_them(self, tmp_path: Path) -> None:
        masks_set.masks(tmp_path / "a", "abcdefg")
        made = converted(f"masks:{tmp_path / 'a'}", f"coco:{tmp_path / 'b'}")
        assert made.images == {"train": 6, "val": 1}
        assert made.notes == ("the set has no splits: every fifth pair by name is val, the others are train",)


class TestLabels:
    def test_other_labels_are_refused_with_both_lists(self, tmp_path: Path) -> None:
        masks_set.masks(tmp_path / "a", "abc")
        with pytest.raises(DataError, match=r"label sets differ: target voc.*21: .*data masks.*floor, wall.*--map"):
            converted(f"masks:{tmp_path / 'a'}", f"voc:{tmp_path / 'b'}")
        assert not (tmp_path / "b").exists()

    def test_a_map_and_what_it_loses(self, tmp_path: Path) -> None:
        cityscapes_set.cityscapes(tmp_path / "a", {"val": ("jena_3_4",)})
        made = converted(f"cityscapes:{tmp_path / 'a'}", f"camvid:{tmp_path / 'b'}", names=True)
        assert made.losses == {"unmapped_pixels": 4}  # the sidewalk
        assert made.label_map is not None
        assert semantic(samples(f"camvid:{tmp_path / 'b'}")["val"][0]).tolist() == [[255, 3, 3, 255, 8, 8]] * 4

    def test_objects_without_a_class_are_counted(self, tmp_path: Path) -> None:
        coco_set.coco(
            tmp_path / "a", [coco_set.annotation(1, 7, 3, (0, 0, 2, 2)), coco_set.annotation(2, 7, 9, (2, 2, 4, 4))]
        )
        (tmp_path / "labels.txt").write_text("background\ntruck\n")
        made = converted(
            f"coco:{tmp_path / 'a'}", f"masks:{tmp_path / 'b'}?labels={tmp_path / 'labels.txt'}", names=True
        )
        assert made.losses == {"unmapped_pixels": 4, "unmapped_objects": 1, "flattened_objects": 1}

    def test_splits_of_other_labels(self, tmp_path: Path) -> None:
        coco_set.coco(tmp_path / "a", [])
        coco_set.coco(tmp_path / "a", [], split="val", categories=[{"id": 1, "name": "tree"}])
        with pytest.raises(DataError, match="label sets differ"):
            converted(f"coco:{tmp_path / 'a'}", f"masks:{tmp_path / 'b'}")


class TestFailures:
    def test_a_broken_image_is_named_and_skipped(self, tmp_path: Path) -> None:
        camvid_set.camvid(tmp_path / "a")
        (tmp_path / "a" / "train" / "b.png").write_bytes(b"")
        made = converted(f"camvid:{tmp_path / 'a'}", f"voc:{tmp_path / 'b'}?labels=camvid")
        assert made.failures == (f"{tmp_path / 'a'}/train/b.png: the file is empty (image 'b')",)
        assert (tmp_path / "b" / "ImageSets" / "Segmentation" / "train.txt").read_text() == "a\nc\n"

    def test_nothing_is_written_where_nothing_can_be_read(self, tmp_path: Path) -> None:
        camvid_set.camvid(tmp_path / "a", {"val": "a"})
        (tmp_path / "a" / "val" / "a.png").write_bytes(b"")
        made = converted(f"camvid:{tmp_path / 'a'}", f"masks:{tmp_path / 'b'}")
        assert made.images == {}
        assert len(made.failures) == 1
        assert [path.name for path in tmp_path.iterdir()] == ["a"]

    def test_a_target_that_is_not_empty(self, tmp_path: Path) -> None:
        camvid_set.camvid(tmp_path / "a")
        masks_set.masks(tmp_path / "b", "xy")
        before = sorted(path.name for path in (tmp_path / "b").rglob("*"))
        with pytest.raises(DataError, match="is not empty; choose another folder, or add --overwrite"):
            converted(f"camvid:{tmp_path / 'a'}", f"masks:{tmp_path / 'b'}")
        assert sorted(path.name for path in (tmp_path / "b").rglob("*")) == before
        converted(f"camvid:{tmp_path / 'a'}", f"masks:{tmp_path / 'b'}", overwrite=True)
        assert splits_of(f"masks:{tmp_path / 'b'}") == ("train", "val")
        assert not list(tmp_path.glob(".*"))

    def test_overwrite_does_not_touch_other_folders(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        camvid_set.camvid(tmp_path / "home" / "a")
        (tmp_path / "home" / "thesis.txt").write_text("years of work")
        masks_set.masks(tmp_path / "here", "xy")
        monkeypatch.chdir(tmp_path / "here")
        (tmp_path / "papers").mkdir()
        (tmp_path / "papers" / "thesis.txt").write_text("years of work")
        for folder, why in (
            ("home/a", "holds what is to be converted"),
            ("home", "holds what is to be converted"),
            ("here", "is the folder you are in"),
            ("here/..", "is the folder you are in"),
            ("papers", "replaces only a set of the same format"),
        ):
            with pytest.raises(DataError, match=why):
                converted(f"camvid:{tmp_path}/home/a", f"masks:{tmp_path / folder}", overwrite=True)
        assert (tmp_path / "home" / "thesis.txt").exists()
        assert (tmp_path / "papers" / "thesis.txt").exists()

    def test_the_folder_you_are_in_is_never_replaced(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        camvid_set.camvid(tmp_path / "a")
        (tmp_path / "empty").mkdir()
        monkeypatch.chdir(tmp_path / "empty")
        with pytest.raises(DataError, match="is the folder you are in, or one around it"):
            converted(f"camvid:{tmp_path}/a", "masks:.")

    def test_a_full_disk_leaves_nothing_behind(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        camvid_set.camvid(tmp_path / "a")
        masks_set.masks(tmp_path / "b", "xy")

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(class_masks_writer, "write_ids", full)
        with pytest.raises(DataError, match=r"cannot be written \(No space left on device\); nothing was changed"):
            converted(f"camvid:{tmp_path / 'a'}", f"masks:{tmp_path / 'b'}", overwrite=True)
        assert len(samples(f"masks:{tmp_path / 'b'}")["train"]) == 2
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]

    @pytest.mark.parametrize(
        ("target", "why"),
        [
            ("masks:{}?palette=labels", "masks of colours are read, not written"),
            ("masks:{}?images=/tmp", "names of folders in the new set"),
            ("masks:{}?masks=images", "need a suffix"),
            ("coco:{}?images=x", "takes no option images"),
            ("cityscapes:{}?instances=x", "expected true or false"),
            ("instance-masks:{}?divisor=1000", "takes no option divisor"),
            ("labelme:{}?images=x", "takes no option images"),
            ("yolo:{}?data=x", "takes no option data"),
            ("cityscapes:{}?ids=x", "expected labelIds or trainIds"),
            ("masks:{}?labels=nosuch", "no such label file"),
        ],
    )
    def test_options_of_a_target_that_cannot_be(self, tmp_path: Path, target: str, why: str) -> None:
        camvid_set.camvid(tmp_path / "a")
        with pytest.raises(DataError, match=why):
            converted(f"camvid:{tmp_path / 'a'}", target.format(tmp_path / "b"))
        assert not (tmp_path / "b").exists()

    def test_folders_and_suffix_of_the_target(self, tmp_path: Path) -> None:
        camvid_set.camvid(tmp_path / "a")
        options = "?images=photos&masks=photos&suffix=_mask"
        converted(f"camvid:{tmp_path / 'a'}", f"masks:{tmp_path / 'b'}{options}")
        assert (tmp_path / "b" / "photos" / "train" / "a_mask.png").is_file()
        require_same_truth(samples(f"camvid:{tmp_path / 'a'}"), samples(f"masks:{tmp_path / 'b'}{options}"))


def test_processes_write_the_same(tmp_path: Path) -> None:
    camvid_set.camvid(tmp_path / "a")
    for workers in (0, 2):
        convert = partial(convert_dataset, DataSpec.parse(f"camvid:{tmp_path / 'a'}"), workers=workers)
        convert(DataSpec.parse(f"coco:{tmp_path / str(workers)}"))
    files = sorted(path.relative_to(tmp_path / "0") for path in (tmp_path / "0").rglob("*") if path.is_file())
    assert len(files) == 7
    for file in files:
        assert (tmp_path / "0" / file).read_bytes() == (tmp_path / "2" / file).read_bytes()


def test_every_loss_has_a_line_with_one_number() -> None:
    for text in LOSSES.values():
        assert text.count("{}") == 1
    conversion = Conversion("a", "b", {}, losses=dict.fromkeys(LOSSES, 1234))
    assert all("1,234" in line for line in conversion.lines())
    assert len(list(conversion.lines())) == len(LOSSES)


def test_colour_masks_become_ids(tmp_path: Path) -> None:
    masks_set.masks(tmp_path / "a", "xy", labels=None)
    # sky, road, car and the black of void, in CamVid's colours
    colours = np.array([(128, 128, 128), (128, 64, 128), (64, 0, 128), (0, 0, 0)], dtype=np.uint8)
    pixels = colours[[0, 1, 1, 2, 2, 3]][None].repeat(4, axis=0)
    for name in "xy":
        Image.fromarray(pixels).save(tmp_path / "a" / "masks" / f"{name}.png")
    pixels[0, 0] = (1, 2, 3)
    Image.fromarray(pixels).save(tmp_path / "a" / "masks" / "y.png")
    made = converted(f"masks:{tmp_path / 'a'}?labels=camvid&palette=labels", f"camvid:{tmp_path / 'b'}")
    assert made.images == {"train": 1}
    (failure,) = made.failures
    assert failure.startswith(
        f"{tmp_path}/a/masks/y.png: colour (1, 2, 3) (1 pixels) is not in the palette of LabelSet"
    )
    with Image.open(tmp_path / "b" / "trainannot" / "x.png") as mask:
        assert np.asarray(mask).tolist() == [[0, 3, 3, 8, 8, 11]] * 4
