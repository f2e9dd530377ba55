"""Formats whose objects are numbers in a mask: VOC, Cityscapes and instance-masks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.data.dataset import Dataset
from pixelwise.data.listing import Fault
from pixelwise.data.spec import DataSpec, open_dataset
from pixelwise.data.tools.check import check_dataset
from pixelwise.data.tools.convert import convert_dataset
from pixelwise.data.tools.repair import repair_dataset
from pixelwise.errors import DataError
from pixelwise.types import Instances
from tests.data import drawing
from tests.data.formats import cityscapes_set, instance_masks_set, voc_set


def opened(spec: str) -> Dataset:
    return open_dataset(spec, default_split="train")


def instances(dataset: Dataset, index: int = 0) -> Instances:
    found = dataset[index].truth.instances
    assert found is not None
    return found


def classes(dataset: Dataset, index: int = 0) -> list[list[int]]:
    semantic = dataset[index].truth.semantic
    assert semantic is not None
    return semantic.tolist()


def names(dataset: Dataset, index: int = 0) -> list[str]:
    return [dataset.labels.names[label] for label in instances(dataset, index).labels]


def faults(spec: str) -> list[Fault]:
    return [*check_dataset(DataSpec.parse(spec)).faults()]


class TestVoc:
    def test_regions_of_a_class_are_objects_where_asked_for(self, tmp_path: Path) -> None:
        voc_set.voc(tmp_path, {"train": "a"})
        mask = np.zeros((20, 40), dtype=np.uint8)
        mask[:12, :12] = 15  # two people with a border of void between them
        mask[:12, 12] = 255
        mask[:12, 13:27] = 15
        mask[12:, 27:] = 15  # touches the second at a corner alone, and is the third
        mask[15:17, :5] = 8  # ten pixels of a cat
        Image.fromarray(mask).save(tmp_path / "SegmentationClass" / "a.png")
        Image.new("RGB", (40, 20)).save(tmp_path / "JPEGImages" / "a.jpg")
        found = instances(opened(f"voc:{tmp_path}@train?instances=regions"))
        assert found.labels.tolist() == [15, 15, 15, 8]
        assert found.crowd is not None
        assert found.crowd.tolist() == [False, False, False, True]
        assert found.boxes.tolist() == [[0, 0, 12, 12], [13, 0, 27, 12], [27, 12, 40, 20], [0, 15, 5, 17]]
        assert found.masks is not None
        assert found.masks.areas().tolist() == [144, 168, 104, 10]
        assert opened(f"voc:{tmp_path}@train")[0].truth.instances is None

    def tree(self, root: Path, semantic: list[int], numbers: list[int]) -> str:
        voc_set.voc(root, {"train": "a"})
        drawing.write_mask(root / "SegmentationClass" / "a.png", [semantic] * 4)
        drawing.write_mask(root / "SegmentationObject" / "a.png", [numbers] * 4)
        return f"voc:{root}@train"

    def test_the_class_mask_tells_the_class(self, tmp_path: Path) -> None:
        dataset = opened(self.tree(tmp_path, [0, 255, 5, 5, 9, 9], [0, 255, 1, 2, 7, 7]))
        assert names(dataset) == ["bottle", "bottle", "chair"]
        found = instances(dataset)
        assert found.boxes.tolist() == [[2, 0, 3, 4], [3, 0, 4, 4], [4, 0, 6, 4]]
        assert found.crowd is not None
        assert not found.crowd.any()
        assert classes(dataset) == [[0, 255, 5, 5, 9, 9]] * 4
        assert faults(f"voc:{tmp_path}") == []

    def test_an_object_in_several_classes_has_most_of_its_pixels(self, tmp_path: Path) -> None:
        spec = self.tree(tmp_path, [0, 0, 5, 9, 9, 255], [0, 0, 1, 1, 1, 1])
        assert names(opened(spec)) == ["chair"]
        (fault,) = faults(spec)
        file = tmp_path / "SegmentationObject" / "a.png"
        assert fault == Fault(
            "object in several classes",
            f"{file}: object 1",
            "the class mask says bottle (4 pixels), chair (8 pixels)",
        )

    def test_an_object_of_background_is_none(self, tmp_path: Path) -> None:
        spec = self.tree(tmp_path, [0, 0, 5, 5, 255, 255], [3, 0, 1, 1, 2, 2])
        assert names(opened(spec)) == ["bottle"]
        assert [(fault.kind, fault.text) for fault in faults(spec)] == [
            ("object of no class", "the class mask says void at all of its pixels"),
            ("object of no class", "the class mask says background (4 pixels) at all of its pixels"),
        ]

    def test_classes_that_belong_to_no_object(self, tmp_path: Path) -> None:
        (fault,) = faults(self.tree(tmp_path, [0, 5, 5, 5, 0, 0], [0, 1, 1, 0, 0, 0]))
        assert fault.kind == "class without object"
        assert fault.where == str(tmp_path / "SegmentationClass" / "a.png")
        assert fault.text == "4 pixels of class 'bottle' belong to no object of a.png"

    def test_objects_of_another_size(self, tmp_path: Path) -> None:
        spec = self.tree(tmp_path, [0] * 6, [0] * 6)
        file = drawing.write_mask(tmp_path / "SegmentationObject" / "a.png", np.zeros((3, 3)))
        with pytest.raises(DataError, match=r"SegmentationObject/a\.png: 3×3 pixels, its image 4×6 \(image 'a'\)"):
            opened(spec)[0]
        assert faults(spec) == [Fault("unreadable objects", str(file), "3×3 pixels, its image 4×6")]

    def test_some_files_are_missing(self, tmp_path: Path) -> None:
        voc_set.voc(tmp_path, {"train": "ab", "val": "c"}, objects=True)
        (tmp_path / "SegmentationObject" / "b.png").unlink()
        dataset = opened(f"voc:{tmp_path}@train")
        assert dataset[0].truth.instances is None
        assert dataset.note == "objects are skipped: 1 image has no file of them, such as b"
        assert len(instances(opened(f"voc:{tmp_path}@val"))) == 2
        assert [fault.kind for fault in faults(f"voc:{tmp_path}@train")] == ["missing objects"]
        with pytest.raises(DataError, match=r"b\.png: no file of object ids beside it"):
            opened(f"voc:{tmp_path}@train?instances=true")
        assert opened(f"voc:{tmp_path}@val?instances=false")[0].truth.instances is None
        with pytest.raises(DataError, match="instances=1; expected true or false"):
            opened(f"voc:{tmp_path}@val?instances=1")

    def test_a_repaired_copy_keeps_its_objects(self, tmp_path: Path) -> None:
        voc_set.voc(tmp_path / "a", {"train": "abc"}, objects=True)
        folder = tmp_path / "a"
        drawing.write_mask(folder / "SegmentationClass" / "a.png", [[5, 0, 5, 9, 9, 255]] * 4)
        drawing.write_mask(folder / "SegmentationObject" / "a.png", [[0, 4, 1, 1, 1, 1]] * 4)
        (folder / "SegmentationObject" / "b.png").write_bytes(b"")
        repairs = repair_dataset(DataSpec.parse(f"voc:{folder}"), tmp_path / "b")
        assert repairs.done == {
            "missing_objects": 1, "object_classes": 1, "objects_without_class": 1, "pixels_without_object": 4,
        }  # fmt: skip
        assert faults(repairs.opens_as[0]) == []
        dataset = opened(repairs.opens_as[0])
        assert dataset.ids == ("a", "c")
        assert names(dataset) == ["chair"]
        assert classes(dataset) == [[255, 0, 9, 9, 9, 255]] * 4
        assert len(instances(dataset, 1)) == 2


class TestCityscapes:
    def test_what_the_two_files_contradict(self, tmp_path: Path) -> None:
        cityscapes_set.cityscapes(tmp_path, {"val": ("jena_3_4",)})
        file = tmp_path / "gtFine" / "val" / "jena" / "jena_3_4_gtFine_instanceIds.png"
        # by the class mask: void, road, road, sidewalk, car, car
        Image.fromarray(np.array([[3, 7, 7001, 8, 26000, 24001]] * 4, dtype=np.uint16)).save(file)
        assert faults(f"cityscapes:{tmp_path}") == [
            Fault("object of stuff", f"{file}: object 7001", "labelId 7 is no thing"),
            Fault("object of another class", f"{file}: object 24001", "a person; the class mask says car (4 pixels)"),
        ]

    def test_crowds_and_objects_are_written_and_read_back(self, tmp_path: Path) -> None:
        cityscapes_set.cityscapes(tmp_path / "a", {"val": ("jena_3_4",)})
        file = tmp_path / "a" / "gtFine" / "val" / "jena" / "jena_3_4_gtFine_instanceIds.png"
        ids = np.array([[3, 7, 7, 8, 26, 26003]] * 4, dtype=np.uint16)
        Image.fromarray(ids).save(file)
        for source, target in (("a", "b"), ("b", "c")):
            spec = "coco" if target == "b" else "cityscapes"
            made = convert_dataset(
                DataSpec.parse(f"{'cityscapes' if source == 'a' else 'coco'}:{tmp_path / source}"),
                DataSpec.parse(f"{spec}:{tmp_path / target}"),
            )
            assert not made.failures
            # in coco, a crowd has no class for its pixels
            assert made.losses == ({"crowd_pixels": 4} if target == "b" else {})
        written = tmp_path / "c" / "gtFine" / "val" / "all" / "jena_3_4_gtFine_instanceIds.png"
        again = np.asarray(Image.open(written))
        assert again.tolist() == [[0, 7, 7, 8, 26, 26000]] * 4
        found = instances(open_dataset(f"cityscapes:{tmp_path / 'c'}", default_split="val"))
        assert found.crowd is not None
        assert found.crowd.tolist() == [False, True]


class TestInstanceMasks:
    def test_one_class_without_a_label_file(self, tmp_path: Path) -> None:
        dataset = opened(f"instance-masks:{instance_masks_set.instance_masks(tmp_path, 'abcdef')}")
        assert dataset.labels.names == ("background", "object")
        assert dataset.labels.is_thing == (False, True)
        assert len(instances(dataset, 0)) == 0
        assert instances(dataset, 1).labels.tolist() == [1, 1]
        assert instances(dataset, 1).boxes.tolist() == [[1, 0, 3, 4], [4, 0, 6, 4]]
        assert classes(dataset, 1) == [[0, 1, 1, 0, 1, 1]] * 4
        assert dataset.note == "the set has no splits: every fifth pair by name is val, the others are train"

    def test_penn_fudan(self, tmp_path: Path) -> None:
        instance_masks_set.instance_masks(tmp_path, ["FudanPed00001", "FudanPed00002"])
        (tmp_path / "images").rename(tmp_path / "PNGImages")
        (tmp_path / "masks").rename(tmp_path / "PedMasks")
        for file in (tmp_path / "PedMasks").iterdir():
            file.rename(file.with_name(f"{file.stem}_mask.png"))
        (tmp_path / "labels.txt").write_text("pedestrian\n")
        spec = f"instance-masks:{tmp_path}@train?images=PNGImages&masks=PedMasks&suffix=_mask"
        dataset = opened(spec)
        assert dataset.ids == ("FudanPed00001", "FudanPed00002")
        assert dataset.labels.names == ("background", "pedestrian")
        assert names(dataset, 1) == ["pedestrian"] * 2
        assert faults(spec) == []

    def test_a_divisor_tells_the_class(self, tmp_path: Path) -> None:
        instance_masks_set.instance_masks(tmp_path, "a")
        (tmp_path / "labels.txt").write_text("cat\ndog\n")
        ids = np.array([[0, 1001, 1002, 2001, 2, 7]] * 4, dtype=np.uint16)
        Image.fromarray(ids).save(tmp_path / "masks" / "a.png")
        with pytest.raises(DataError, match=r"2 classes of objects, and nothing says .* add \?divisor=1000"):
            opened(f"instance-masks:{tmp_path}@train")
        dataset = opened(f"instance-masks:{tmp_path}@train?divisor=1000&void=7")
        assert names(dataset) == ["cat", "cat", "dog", "dog"]
        crowd = instances(dataset).crowd
        assert crowd is not None
        assert crowd.tolist() == [False, False, False, True]
        assert classes(dataset) == [[0, 1, 1, 2, 255, 255]] * 4
        with pytest.raises(DataError, match=r"masks/a\.png: object 7 is of no class by divisor 1,000; 1 such"):
            opened(f"instance-masks:{tmp_path}@train?divisor=1000")[0]
        assert faults(f"instance-masks:{tmp_path}@train?divisor=1000") == [
            Fault("object of no class", f"{tmp_path}/masks/a.png: object 7", "divisor 1,000 does not give its class")
        ]

    def test_a_table_tells_the_class(self, tmp_path: Path) -> None:
        instance_masks_set.instance_masks(tmp_path, "ab")
        table = {"b": {"1": "dog", "7": {"class": "cat", "crowd": True}}}
        (tmp_path / "classes.json").write_text(json.dumps(table))
        dataset = opened(f"instance-masks:{tmp_path}@train")
        assert dataset.labels.names == ("background", "cat", "dog")
        assert names(dataset, 1) == ["dog", "cat"]
        assert classes(dataset, 1) == [[0, 2, 2, 0, 255, 255]] * 4
        (tmp_path / "classes.json").write_text(json.dumps({"train/b": {"1": "dog", "9": "cat"}}))
        file = f"{tmp_path}/classes.json"
        assert faults(f"instance-masks:{tmp_path}@train") == [
            Fault("object of no class", f"{tmp_path}/masks/b.png: object 7", f"{file} does not give its class"),
            Fault(
                "object without pixels",
                f"{file}: image 'b', object 9",
                f"no pixel of {tmp_path}/masks/b.png has this number",
            ),
        ]

    @pytest.mark.parametrize(
        ("table", "why"),
        [
            ("[]", r'"IMAGE": \{"1": "CLASS"'),
            ("{", "not JSON"),
            ('{"a": 3}', "image 'a': "),
            ('{"a": {"x": "cat"}}', "image 'a', object 'x': "),
            ('{"a": {"1": {"crowd": true}}}', "image 'a', object '1': "),
            ('{"a": {"1": "bird"}}', r"class 'bird' is not in LabelSet .* \(background, cat, dog\)"),
        ],
    )
    def test_faulty_tables(self, tmp_path: Path, table: str, why: str) -> None:
        instance_masks_set.instance_masks(tmp_path, "a")
        (tmp_path / "labels.txt").write_text("cat\ndog\n")
        (tmp_path / "classes.json").write_text(table)
        with pytest.raises(DataError, match=rf"classes\.json: .*{why}"):
            opened(f"instance-masks:{tmp_path}@train")

    @pytest.mark.parametrize(
        ("query", "why"),
        [
            ("divisor=x", "a whole number above 1"),
            ("divisor=1", "a whole number above 1"),
            ("void=0", "a number above 0"),
            ("classes=none.json", "no such file"),
        ],
    )
    def test_options_that_cannot_be(self, tmp_path: Path, query: str, why: str) -> None:
        instance_masks_set.instance_masks(tmp_path, "a")
        with pytest.raises(DataError, match=why):
            opened(f"instance-masks:{tmp_path}@train?{query}")

    def test_own_label_files(self, tmp_path: Path) -> None:
        instance_masks_set.instance_masks(tmp_path, "a")
        spec = f"instance-masks:{tmp_path}@train"
        (tmp_path / "labels.txt").write_text("background\nnut\n")
        assert opened(spec).labels.dataset_ids == (0, 1)
        (tmp_path / "labels.toml").write_text('[[class]]\nname = "bolt"\nid = 4\nthing = true\n')
        assert opened(spec).labels.names == ("background", "bolt")
        assert opened(spec).labels.dataset_ids == (0, 4)
        (tmp_path / "labels.toml").write_text('[[class]]\nname = "background"\n[[class]]\nname = "bolt"\n')
        assert opened(spec).labels.is_thing == (False, True)

    def test_a_mask_of_another_size(self, tmp_path: Path) -> None:
        instance_masks_set.instance_masks(tmp_path, "a")
        drawing.write_mask(tmp_path / "masks" / "a.png", np.zeros((3, 3)))
        with pytest.raises(DataError, match=r"a\.png: the mask is 3×3, its image .*a\.png 4×6 \(image 'a'\)"):
            opened(f"instance-masks:{tmp_path}@train")[0]
        assert [fault.kind for fault in faults(f"instance-masks:{tmp_path}@train")] == ["size mismatch"]

    def test_many_objects_take_16_bits(self, tmp_path: Path) -> None:
        instance_masks_set.instance_masks(tmp_path / "a", "x")
        drawing.write_image(tmp_path / "a" / "images" / "x.png", size_hw=(20, 20))
        Image.fromarray(np.arange(400).reshape(20, 20).astype(np.uint16)).save(tmp_path / "a" / "masks" / "x.png")
        target = f"instance-masks:{tmp_path / 'b'}"
        made = convert_dataset(DataSpec.parse(f"instance-masks:{tmp_path / 'a'}"), DataSpec.parse(target))
        assert made.losses == {}
        assert len(instances(opened(f"{target}@train"))) == 399
