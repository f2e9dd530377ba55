"""COCO panoptic and Cityscapes panoptic: reading, faults, repairs, and the way from and to other formats."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pixelwise.data.dataset import Dataset
from pixelwise.data.listing import Fault
from pixelwise.data.spec import DataSpec, open_dataset, splits_of
from pixelwise.data.tools.check import check_dataset
from pixelwise.data.tools.convert import Conversion, convert_dataset
from pixelwise.data.tools.repair import REPAIRS, repair_dataset
from pixelwise.data.tools.statistics import statistics_of
from pixelwise.errors import DataError
from pixelwise.labels import LabelMap, LabelSet, published
from pixelwise.types import Panoptic
from tests.data import drawing
from tests.data.formats import cityscapes_panoptic_set, cityscapes_set, coco_panoptic_set, coco_set
from tests.shared_data import require


def opened(spec: str) -> Dataset:
    return open_dataset(spec, default_split="train")


def segments(dataset: Dataset, index: int = 0) -> Panoptic:
    found = dataset[index].truth.panoptic
    assert found is not None
    return found


def by_id(panoptic: Panoptic, labels: LabelSet) -> dict[int, tuple[str, bool, int]]:
    """Segment id → name of its class, crowd, pixels."""
    parts = zip(panoptic.segment_ids.tolist(), panoptic.labels.tolist(), panoptic.crowd.tolist(),
                panoptic.areas().tolist(), strict=True)  # fmt: skip
    return {id: (labels.names[label], crowd, area) for id, label, crowd, area in parts}


def faults(spec: str) -> list[Fault]:
    return [*check_dataset(DataSpec.parse(spec)).faults()]


def kinds(spec: str) -> list[str]:
    return [fault.kind for fault in faults(spec)]


def converted(source: str, target: str, **options: Any) -> Conversion:
    return convert_dataset(DataSpec.parse(source), DataSpec.parse(target), **options)


def change(file: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


class TestReading:
    def test_all_parts_of_an_image(self, tmp_path: Path) -> None:
        dataset = opened(f"coco-panoptic:{coco_panoptic_set.coco_panoptic(tmp_path)}")
        assert dataset.labels.names == ("road", "car", "person")
        assert dataset.labels.dataset_ids == (7, 26, 30)
        assert dataset.labels.is_thing == (False, True, True)
        assert dataset.labels.palette[:2] == ((128, 64, 128), (0, 0, 142))
        assert dataset.labels.palette[2] != (0, 0, 0)  # has no colour in the file
        assert dataset.labels.void_ids == (0,)
        truth = dataset[0].truth
        assert truth.panoptic is not None
        assert truth.panoptic.ids.tolist() == coco_panoptic_set.SEGMENT_IDS
        assert by_id(truth.panoptic, dataset.labels) == {
            1: ("road", False, 10),
            300: ("car", False, 4),
            70000: ("person", False, 2),
            9: ("person", True, 4),
        }
        assert truth.semantic is not None
        assert truth.semantic.tolist() == [[0, 0, 1, 1, 2, 255]] * 2 + [[0, 0, 0, 2, 2, 255]] * 2
        assert truth.instances is not None
        assert truth.instances.labels.tolist() == [2, 1, 2]
        assert truth.instances.boxes.tolist() == [[3, 2, 5, 4], [2, 0, 4, 2], [4, 0, 5, 2]]
        assert truth.instances.crowd is not None
        assert truth.instances.crowd.tolist() == [True, False, False]

    def test_an_image_without_segments(self, tmp_path: Path) -> None:
        dataset = opened(f"coco-panoptic:{coco_panoptic_set.coco_panoptic(tmp_path)}")
        truth = dataset[2].truth
        assert truth.panoptic is not None
        assert len(truth.panoptic) == 0
        assert truth.semantic is not None
        assert (truth.semantic == 255).all()
        notes = check_dataset(DataSpec.parse(f"coco-panoptic:{tmp_path}@train")).splits[0].notes
        assert "1 image has no segment" in notes

    def test_splits_with_and_without_their_year(self, tmp_path: Path) -> None:
        coco_panoptic_set.coco_panoptic(tmp_path)
        assert splits_of(f"coco-panoptic:{tmp_path}") == ("train", "val")
        assert len(opened(f"coco-panoptic:{tmp_path}@val2017")) == 2
        with pytest.raises(DataError, match="no split 'test'; there are train, val"):
            opened(f"coco-panoptic:{tmp_path}@test")

    def test_pngs_beside_the_folder_of_annotations(self, tmp_path: Path) -> None:
        coco_panoptic_set.coco_panoptic(tmp_path)
        (tmp_path / "annotations" / "panoptic_train2017").rename(tmp_path / "panoptic_train2017")
        assert len(opened(f"coco-panoptic:{tmp_path}")) == 3
        (tmp_path / "panoptic_train2017").rename(tmp_path / "elsewhere")
        with pytest.raises(DataError, match=r"no such folder with the PNGs of panoptic_train2017\.json; name it by"):
            opened(f"coco-panoptic:{tmp_path}")
        assert len(opened(f"coco-panoptic:{tmp_path}?masks=elsewhere")) == 3

    def test_images_without_annotation_are_skipped(self, tmp_path: Path) -> None:
        coco_panoptic_set.coco_panoptic(tmp_path)
        change(tmp_path / "annotations" / "panoptic_train2017.json", lambda content: content["annotations"].pop(1))
        dataset = opened(f"coco-panoptic:{tmp_path}")
        assert dataset.ids == ("1", "3")
        assert dataset.note == "skipped: 1 image without annotation"
        assert kinds(f"coco-panoptic:{tmp_path}@train") == ["missing annotation"]

    def test_the_published_categories_give_the_published_set(self, tmp_path: Path) -> None:
        labels = published("coco_panoptic")
        assert (len(labels), sum(labels.is_thing), labels.background_id, labels.void_ids) == (133, 80, None, (0,))
        stored = [
            {"id": id, "name": name, "isthing": int(is_thing)}  # without colour
            for id, name, is_thing in zip(labels.dataset_ids, labels.names, labels.is_thing, strict=True)
        ]
        infos = [coco_panoptic_set.segment(5, 200), coco_panoptic_set.segment(6, 90)]
        coco_panoptic_set.coco_panoptic(tmp_path, ids=[[5, 5, 6]], segments=infos, categories=stored[::-1])
        dataset = opened(f"coco-panoptic:{tmp_path}")
        assert dataset.labels == labels
        assert by_id(segments(dataset), labels) == {5: ("rug-merged", False, 2), 6: ("toothbrush", False, 1)}

    def test_a_label_set_in_the_place_of_the_categories(self, tmp_path: Path) -> None:
        coco_panoptic_set.coco_panoptic(
            tmp_path, categories=[{"id": 26, "name": "car"}]
        )  # one is missing, none has isthing
        lines = [f'[[class]]\nname = "{name}"\nid = {id}\nthing = {thing}' for name, id, thing in
                 (("person", 30, "true"), ("car", 26, "true"), ("road", 7, "false"))]  # fmt: skip
        (tmp_path / "street.toml").write_text("\n".join(["void_ids = [0]", *lines]))
        dataset = opened(f"coco-panoptic:{tmp_path}?labels=street.toml")
        assert by_id(segments(dataset), dataset.labels)[70000] == ("person", False, 2)
        (tmp_path / "street.toml").write_text((tmp_path / "street.toml").read_text().replace('"car"', '"rider"'))
        with pytest.raises(DataError, match="category 26 is 'car', but 'rider' in"):
            opened(f"coco-panoptic:{tmp_path}?labels=street.toml")

    @pytest.mark.parametrize(
        ("category", "text"),
        [
            ({"id": 7, "name": "road"}, "category 7 'road' has isthing None; expected 1 of classes with instances"),
            ({"id": 26, "name": "road", "isthing": 0}, "2 categories have the id '26'"),
            ({"name": "road", "isthing": 0}, "expected an integer id and a name"),
        ],
    )
    def test_faulty_categories_are_refused(self, tmp_path: Path, category: dict[str, Any], text: str) -> None:
        coco_panoptic_set.coco_panoptic(tmp_path, categories=[category, *coco_panoptic_set.STREET[1:]])
        with pytest.raises(DataError, match=text):
            opened(f"coco-panoptic:{tmp_path}")

    def test_a_png_of_ids_in_one_channel_is_refused(self, tmp_path: Path) -> None:
        coco_panoptic_set.coco_panoptic(tmp_path)
        file = drawing.write_mask(tmp_path / "annotations" / "panoptic_train2017" / "a.png")
        with pytest.raises(DataError, match=r"a\.png: mode L; expected numbers in the three channels.*\(image '1'\)"):
            opened(f"coco-panoptic:{tmp_path}")[0]
        assert [fault.where for fault in faults(f"coco-panoptic:{tmp_path}@train")] == [str(file)]

    def test_palette_files_hold_the_same_colours(self, tmp_path: Path) -> None:
        dataset = opened(f"coco-panoptic:{coco_panoptic_set.coco_panoptic(tmp_path)}")
        before, file = segments(dataset), dataset.truth_path(0)
        with Image.open(file) as picture:
            picture.quantize(8, dither=Image.Dither.NONE).save(file)
        with Image.open(file) as picture:
            assert picture.mode == "P"
        assert torch.equal(segments(dataset).ids, before.ids)


class TestFaults:
    """What `data check` finds, and that the set cannot be opened, or its image not be read, where it matters."""

    def spec(self, root: Path, edit: Callable[[dict[str, Any]], None]) -> str:
        coco_panoptic_set.coco_panoptic(root, {"train": ("a",)})
        change(root / "annotations" / "panoptic_train2017.json", edit)
        return f"coco-panoptic:{root}@train"

    @pytest.mark.parametrize(
        ("field", "value", "kind", "text"),
        [
            ("area", 11, "wrong area", "11 by the list, 10 pixels in the PNG"),
            ("area", "many", "wrong area", "many by the list, 10 pixels"),
            ("bbox", [0, 0, 3, 6], "wrong box", r"[0, 0, 3, 6] (x,y,width,height) by the list, [0, 0, 3, 4] in"),
            ("bbox", [0, 0], "wrong box", "[0, 0] (x,y"),
        ],
    )
    def test_harmless(self, tmp_path: Path, field: str, value: Any, kind: str, text: str) -> None:
        def edit(content: dict[str, Any]) -> None:
            content["annotations"][0]["segments_info"][0][field] = value

        spec = self.spec(tmp_path, edit)
        (found,) = faults(spec)
        assert found.kind == kind
        assert found.where.endswith("a.png: segment 1")
        assert text in found.text
        assert len(segments(opened(spec))) == 4

    def test_boxes_may_count_otherwise_by_a_pixel(self, tmp_path: Path) -> None:
        def edit(content: dict[str, Any]) -> None:
            content["annotations"][0]["segments_info"][0]["bbox"] = [0, 0, 2, 3]

        assert faults(self.spec(tmp_path, edit)) == []

    @pytest.mark.parametrize(
        ("field", "value", "found", "text"),
        [
            ("id", 0, ["segment id", "id without segment"], "0 stands for void in every PNG"),
            ("id", 300, ["repeated segment", "id without segment"], "another segment of the image has the same id"),
            (
                "id",
                2**24,
                ["segment id", "id without segment"],
                "its id is 16777216; expected a whole number from 1 to 16,777",
            ),
            ("category_id", 8, ["unknown category"], "category 8 is not in categories"),
            ("iscrowd", 2, ["segment entry"], "iscrowd is 2; expected 0 or 1"),
        ],
    )
    def test_of_a_segment(self, tmp_path: Path, field: str, value: Any, found: list[str], text: str) -> None:
        def edit(content: dict[str, Any]) -> None:
            infos = content["annotations"][0]["segments_info"]
            infos.append(infos.pop(0) | {field: value})

        spec = self.spec(tmp_path, edit)
        assert kinds(spec) == found
        assert text in faults(spec)[0].text
        assert "image 1 'a.png', segment" in faults(spec)[0].where
        with pytest.raises(DataError, match=f"{text.split(';')[0]}.*pixelwise data check lists all such faults"):
            opened(spec)

    def test_ids_without_segment_and_segments_without_pixels(self, tmp_path: Path) -> None:
        def edit(content: dict[str, Any]) -> None:
            content["annotations"][0]["segments_info"][1]["id"] = 5

        spec = self.spec(tmp_path, edit)
        found = faults(spec)
        assert [(fault.kind, fault.where.rpartition(": ")[2]) for fault in found] == [
            ("id without segment", "id 300"),
            ("segment without pixels", "segment 5"),
        ]
        assert found[0].text == "4 pixels have this id, the list no such segment"
        with pytest.raises(DataError, match=r"a\.png: id 300 \(4 pixels\) has no segment in the JSON; 1 such ids"):
            opened(spec)[0]

    @pytest.mark.parametrize(
        ("edit", "found"),
        [
            (lambda content: content["annotations"].append({"image_id": 9, "file_name": "a.png"}), ["unknown image"]),
            (lambda content: content["annotations"].append(content["annotations"][0]), ["repeated annotation"]),
            (lambda content: content["annotations"][0].pop("file_name"), ["annotation entry"]),
            (lambda content: content["annotations"][0].update(segments_info=7), ["annotation entry"]),
            (lambda content: content["images"][0].pop("height"), ["image entry"]),
            (lambda content: content["images"][0].update(height=9), ["size mismatch"]),
        ],
    )
    def test_of_entries(self, tmp_path: Path, edit: Callable[[dict[str, Any]], None], found: list[str]) -> None:
        spec = self.spec(tmp_path, edit)
        assert kinds(spec) == found
        with pytest.raises(DataError, match="pixels" if found == ["size mismatch"] else "data check"):
            opened(spec)[0]

    def test_of_files(self, tmp_path: Path) -> None:
        coco_panoptic_set.coco_panoptic(tmp_path, {"train": ("a", "b", "c", "d", "e")})
        maps = tmp_path / "annotations" / "panoptic_train2017"
        (maps / "a.png").unlink()
        coco_panoptic_set.write_segments(maps / "b.png", [[*row, 0] for row in coco_panoptic_set.SEGMENT_IDS])
        (maps / "c.png").write_bytes((maps / "c.png").read_bytes()[:50])
        drawing.write_turned(tmp_path / "train2017" / "d.png", stored_hw=(6, 4), orientation=3)
        found = faults(f"coco-panoptic:{tmp_path}")
        assert [fault.kind for fault in found] == [
            "missing map", "size mismatch", "unreadable map", "size mismatch", "size mismatch",
        ]  # fmt: skip
        assert "the image is 4×6 (height×width), the PNG b.png 4×7" in found[1].text
        with pytest.raises(DataError, match=r"no map for '1', .*a\.png; 1 of 5 are missing"):
            opened(f"coco-panoptic:{tmp_path}")


class TestTwoChannels:
    CHANNELS = np.array([[[7, 0], [7, 0], [26, 0], [26, 0], [26, 1], [0, 0]]] * 2
                        + [[[7, 0], [30, 255], [30, 255], [30, 0], [26, 1], [0, 5]]] * 2)  # fmt: skip

    def tree(self, root: Path, channels: np.ndarray | None = None) -> str:
        coco_panoptic_set.coco_panoptic(root, {"train": ("a",)})
        self.write(root, "a", self.CHANNELS if channels is None else channels)
        change(root / "annotations" / "panoptic_train2017.json", lambda content: content.pop("annotations"))
        return f"coco-panoptic:{root}@train?encoding=2channel"

    def write(self, root: Path, name: str, channels: np.ndarray) -> None:
        pixels = np.pad(channels.astype(np.uint8), ((0, 0), (0, 0), (0, 1)))
        Image.fromarray(pixels).save(root / "annotations" / "panoptic_train2017" / f"{name}.png")

    def test_class_and_number(self, tmp_path: Path) -> None:
        spec = self.tree(tmp_path)
        dataset = opened(spec)
        assert faults(spec) == []
        panoptic = segments(dataset)
        assert sorted(by_id(panoptic, dataset.labels).values()) == [
            ("car", False, 4), ("car", False, 4), ("person", False, 2), ("person", True, 4), ("road", False, 6),
        ]  # fmt: skip
        assert panoptic.ids[:, 5].tolist() == [0] * 4
        assert dataset[0].truth.semantic is not None

    def test_things_without_number_where_others_count_from_one(self, tmp_path: Path) -> None:
        from_one = self.CHANNELS.copy()
        from_one[..., 1][from_one[..., 0] == 26] += 1
        found = faults(self.tree(tmp_path, from_one))  # the person has the number 0
        assert [fault.kind for fault in found] == ["thing without instance"]
        assert "person, number 0" in found[0].where
        assert found[0].text == "2 pixels of a thing have no number; numbers count from 1 in a.png (car 1)"

    def test_unknown_classes_and_numbers_of_stuff(self, tmp_path: Path) -> None:
        wrong = self.CHANNELS.copy()
        wrong[0, 0] = 8, 0
        wrong[0, 1] = 7, 3
        spec = self.tree(tmp_path, wrong)
        assert sorted(kinds(spec)) == ["number of stuff", "unknown category"]
        with pytest.raises(DataError, match="class 8 of channel 1 is not in"):
            opened(spec)[0]

    def test_another_encoding_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="encoding=3channel; expected 2channel, or nothing"):
            opened(f"coco-panoptic:{coco_panoptic_set.coco_panoptic(tmp_path)}?encoding=3channel")


class TestRepair:
    def test_areas_boxes_and_segments_without_pixels(self, tmp_path: Path) -> None:
        root = coco_panoptic_set.coco_panoptic(tmp_path / "set", {"train": ("a", "b", "c", "d")})
        file = root / "annotations" / "panoptic_train2017.json"
        before = json.loads(file.read_text())

        def edit(content: dict[str, Any]) -> None:
            infos = content["annotations"][0]["segments_info"]
            infos[0]["area"], infos[1]["bbox"] = 3, [0, 0, 9, 9]
            infos += [
                coco_panoptic_set.segment(77, 26),
                coco_panoptic_set.segment(0, 26),
                coco_panoptic_set.segment(1, 26),
                coco_panoptic_set.segment(5, 99),
            ]
            content["annotations"][1]["segments_info"].pop()  # the PNG of the second has an id that is not listed
            content["images"][2]["height"] = 5
            del content["annotations"][3]

        change(file, edit)
        out = tmp_path / "repaired.json"
        repairs = repair_dataset(DataSpec.parse(f"coco-panoptic:{root}"), out)
        assert repairs.done == {
            "unlisted_ids": 1, "segments": 3, "segments_without_pixels": 1, "areas": 1, "boxes": 1, "images": 1,
            "sizes": 1,
        }  # fmt: skip
        assert set(repairs.done) <= set(REPAIRS)
        assert repairs.images == 2
        (spec,) = repairs.opens_as
        assert faults(spec) == []
        dataset = opened(spec)
        assert dataset.ids == ("1", "3")
        repaired = json.loads(out.read_text())
        assert repaired["annotations"][0]["segments_info"] == before["annotations"][0]["segments_info"]
        assert repaired["categories"] == before["categories"]
        assert by_id(segments(dataset), dataset.labels)[1] == ("road", False, 10)

    def test_all_splits_into_a_folder(self, tmp_path: Path) -> None:
        root = coco_panoptic_set.coco_panoptic(tmp_path / "set")
        repairs = repair_dataset(DataSpec.parse(f"coco-panoptic:{root}"), tmp_path / "out")
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
            "panoptic_train.json",
            "panoptic_val.json",
        ]
        assert [len(opened(spec)) for spec in repairs.opens_as] == [2, 3]

    def test_a_set_of_cityscapes_becomes_one_of_coco(self, tmp_path: Path) -> None:
        root = cityscapes_panoptic_set.cityscapes_panoptic(tmp_path / "set")
        sound = opened(f"cityscapes-panoptic:{root}@train")

        def edit(content: dict[str, Any]) -> None:
            content["annotations"][1]["segments_info"] = [
                {**info, "area": info["area"] + 1} for info in content["annotations"][1]["segments_info"]
            ]

        change(root / "gtFine" / "cityscapes_panoptic_train.json", edit)
        sound.truth_path(0).write_bytes(b"")
        repairs = repair_dataset(DataSpec.parse(f"cityscapes-panoptic:{root}"), tmp_path / "out")
        assert repairs.done == {"unreadable_masks": 1, "areas": 3}
        for spec, split, ids in zip(repairs.opens_as, ("val", "train"), (["jena_3_4"], sound.ids[1:]), strict=True):
            assert faults(spec) == []
            copy, original = opened(spec), opened(f"cityscapes-panoptic:{root}@{split}")
            assert list(copy.ids) == list(ids)
            assert copy.labels == original.labels
            one, other = copy[0], original[list(original.ids).index(copy.ids[0])]
            assert one.image.equal(other.image)
            assert one.truth.panoptic is not None
            assert other.truth.panoptic is not None
            assert by_id(one.truth.panoptic, copy.labels) == by_id(other.truth.panoptic, original.labels)
            assert one.truth.panoptic.ids.equal(other.truth.panoptic.ids)

    def test_two_channels_are_not_repaired(self, tmp_path: Path) -> None:
        spec = TestTwoChannels().tree(tmp_path / "set")
        with pytest.raises(DataError, match="the ground truth stands in the PNGs alone"):
            repair_dataset(DataSpec.parse(spec), tmp_path / "out.json")


class TestConversion:
    def same(self, one: Dataset, other: Dataset) -> None:
        """Ids, classes, crowds and pixels are exactly the same."""
        assert one.ids == other.ids
        assert (one.labels.names, one.labels.is_thing, one.labels.dataset_ids, one.labels.palette) == (
            other.labels.names, other.labels.is_thing, other.labels.dataset_ids, other.labels.palette,
        )  # fmt: skip
        for index in range(len(one)):
            first, second = segments(one, index), segments(other, index)
            assert torch.equal(first.ids, second.ids)
            assert by_id(first, one.labels) == by_id(second, other.labels)
            assert torch.equal(one[index].image, other[index].image)

    def test_a_round_trip_keeps_everything(self, tmp_path: Path) -> None:
        source = f"coco-panoptic:{coco_panoptic_set.coco_panoptic(tmp_path / 'set')}"
        target = f"coco-panoptic:{tmp_path / 'copy'}"
        conversion = converted(source, target)
        assert conversion.losses == {}
        assert conversion.images == {"train": 3, "val": 2}
        assert faults(target) == []
        self.same(opened(source), opened(target))

    def test_two_channels_and_back(self, tmp_path: Path) -> None:
        source = f"coco-panoptic:{coco_panoptic_set.coco_panoptic(tmp_path / 'set')}"
        target = f"coco-panoptic:{tmp_path / 'two'}?encoding=2channel"
        assert converted(source, target).losses == {"renumbered_segments": 12}
        assert faults(target) == []
        with Image.open(tmp_path / "two" / "annotations" / "panoptic_train" / "a.png") as picture:
            channels = np.array(picture)
        assert channels[0].tolist() == [[7, 0, 0]] * 2 + [[26, 0, 0]] * 2 + [[30, 0, 0], [0, 0, 0]]
        assert channels[3].tolist() == [[7, 0, 0]] * 3 + [[30, 255, 0]] * 2 + [[0, 0, 0]]
        back = f"coco-panoptic:{tmp_path / 'back'}"
        assert converted(target, back).losses == {}
        for index in range(3):
            first, second = opened(source)[index].truth, opened(back)[index].truth
            assert first.semantic is not None
            assert second.semantic is not None
            assert torch.equal(first.semantic, second.semantic)
            labels = opened(source).labels
            assert sorted(by_id(segments(opened(source), index), labels).values()) == sorted(
                by_id(segments(opened(back), index), labels).values()
            )

    def test_two_channels_join_stuff_and_crowds(self, tmp_path: Path) -> None:
        infos = [coco_panoptic_set.segment(1, 7), coco_panoptic_set.segment(2, 7)]
        infos += [coco_panoptic_set.segment(3, 26, iscrowd=1), coco_panoptic_set.segment(4, 26, iscrowd=1)]
        root = coco_panoptic_set.coco_panoptic(tmp_path / "set", {"train": ("a",)}, ids=[[1, 2, 3, 4]], segments=infos)
        conversion = converted(f"coco-panoptic:{root}", f"coco-panoptic:{tmp_path / 'two'}?encoding=2channel")
        assert conversion.losses == {"joined_segments": 2, "renumbered_segments": 4}
        assert "2 segments become one with another of their class: stuff, or crowds" in [*conversion.lines()]

    def test_more_objects_than_two_channels_hold(self, tmp_path: Path) -> None:
        ids = np.arange(1, 257)[None]
        infos = [coco_panoptic_set.segment(int(id), 26) for id in ids[0]]
        root = coco_panoptic_set.coco_panoptic(tmp_path / "set", {"train": ("a",)}, ids=ids, segments=infos)
        conversion = converted(f"coco-panoptic:{root}", f"coco-panoptic:{tmp_path / 'two'}?encoding=2channel")
        assert conversion.images == {}
        assert conversion.failures == ("more than 255 objects of class 'car' in one image; 2 channels hold no more",)

    def test_to_objects_and_to_masks(self, tmp_path: Path) -> None:
        source = f"coco-panoptic:{coco_panoptic_set.coco_panoptic(tmp_path / 'set')}@val"
        assert converted(source, f"masks:{tmp_path / 'masks'}").losses == {
            "flattened_objects": 2, "joined_segments": 1,
        }  # fmt: skip
        one, other = opened(source), opened(f"masks:{tmp_path / 'masks'}@val")
        assert torch.equal(one[0].truth.semantic, other[0].truth.semantic)  # pyright: ignore[reportArgumentType]
        conversion = converted(source, f"coco:{tmp_path / 'coco'}")
        assert conversion.losses == {"crowd_pixels": 4}
        found = opened(f"coco:{tmp_path / 'coco'}@val")[0].truth.instances
        assert found is not None
        assert found.crowd is not None
        assert sorted(zip(found.labels.tolist(), found.crowd.tolist(), strict=True)) == [
            (0, False), (1, False), (2, False), (2, True),
        ]  # fmt: skip

    def test_to_things_alone(self, tmp_path: Path) -> None:
        source = f"coco-panoptic:{coco_panoptic_set.coco_panoptic(tmp_path / 'set')}@val"
        conversion = converted(source, f"coco:{tmp_path / 'coco'}?classes=things")
        assert conversion.label_map is not None
        assert conversion.label_map.rows() == [("road", "background"), ("car", "car"), ("person", "person")]
        assert conversion.losses == {"void_pixels_as_class": 4 + 24, "crowd_pixels": 4}
        dataset = opened(f"coco:{tmp_path / 'coco'}@val")
        assert dataset.labels.names == ("background", "car", "person")
        assert dataset.labels.dataset_ids == (0, 26, 30)
        found = dataset[0].truth.instances
        assert found is not None
        assert found.crowd is not None
        assert sorted(zip(found.labels.tolist(), found.crowd.tolist(), strict=True)) == [
            (1, False),
            (2, False),
            (2, True),
        ]
        with pytest.raises(DataError, match="classes=things; it is an option of a set that is written"):
            opened(f"coco:{tmp_path / 'coco'}@val?classes=things")
        with pytest.raises(DataError, match="classes=stuff; expected things"):
            converted(source, f"coco:{tmp_path / 'other'}?classes=stuff")

    def test_from_objects_and_classes(self, tmp_path: Path) -> None:
        """Two boxes and a crowd: the small box lies on the large one, and background is stuff."""
        objects = [
            coco_set.annotation(1, 7, 3, (0, 0, 6, 6)),
            coco_set.annotation(2, 7, 9, (2, 2, 4, 4)),
            coco_set.annotation(3, 7, 9, (5, 5, 8, 8), iscrowd=1),
        ]
        source = f"coco:{coco_set.coco(tmp_path / 'set', objects)}"
        target = f"coco-panoptic:{tmp_path / 'out'}"
        conversion = converted(source, target)
        assert conversion.losses == {"overlapping_pixels": 4}
        assert faults(target) == []
        dataset = opened(target)
        assert dataset.labels.names == ("background", "crate", "truck")
        assert dataset.labels.is_thing == (False, True, True)
        assert sorted(by_id(segments(dataset), dataset.labels).values()) == [
            ("background", False, 64 - 36 - 8), ("crate", False, 32), ("truck", False, 4), ("truck", True, 8),
        ]  # fmt: skip

    def test_from_classes_alone(self, tmp_path: Path) -> None:
        """What is of a class of things and of no object is a crowd."""
        cityscapes_set.cityscapes(tmp_path / "set")
        target = f"coco-panoptic:{tmp_path / 'out'}"
        conversion = converted(f"cityscapes:{tmp_path / 'set'}@train", target)
        assert conversion.losses == {"crowds_of_classes": 3}
        assert faults(target) == []
        dataset = opened(target)
        assert dataset.labels == LabelSet(
            "cityscapes", *(getattr(published("cityscapes"), name) for name in ("names", "is_thing", "palette",
                                                                                "dataset_ids")), void_ids=(0,)
        )  # fmt: skip
        assert by_id(segments(dataset), dataset.labels) == {
            1: ("road", False, 8), 2: ("sidewalk", False, 4), 20: ("car", True, 8),
        }  # fmt: skip
        assert segments(dataset).ids[0].tolist() == [0, 1, 1, 2, 20, 20]

    def test_ids_above_24_bits_are_numbered_anew(self, tmp_path: Path) -> None:
        (tmp_path / "ground.txt").write_text("ground\n")

        def everything(source: LabelSet, target: LabelSet) -> LabelMap:
            return LabelMap.by_names(source, target, default="ground")

        source = f"coco-panoptic:{coco_panoptic_set.coco_panoptic(tmp_path / 'set')}@val"
        labels = f"?labels={tmp_path / 'ground.txt'}"
        conversion = converted(source, f"coco-panoptic:{tmp_path / 'out'}{labels}", map_labels=everything)
        assert conversion.losses["renumbered_segments"] == 1
        dataset = opened(f"coco-panoptic:{tmp_path / 'out'}@val")
        assert by_id(segments(dataset), dataset.labels) == {1: ("ground", False, 20)}


class TestCityscapes:
    def test_the_official_json(self, tmp_path: Path) -> None:
        cityscapes_panoptic_set.cityscapes_panoptic(tmp_path)
        dataset = opened(f"cityscapes-panoptic:{tmp_path}")
        assert dataset.labels == published("cityscapes")
        assert dataset.ids == ("ulm_0_1", "ulm_0_2", "bonn_0_1")
        assert dataset.image_path(2) == tmp_path / "leftImg8bit" / "train" / "bonn" / "bonn_0_1_leftImg8bit.png"
        assert by_id(segments(dataset), dataset.labels) == {
            7: ("road", False, 8), 26: ("car", True, 4), 26001: ("car", False, 8),
        }  # fmt: skip
        with pytest.raises(DataError, match=r"no gtFine/cityscapes_panoptic_SPLIT\.json in it"):
            opened(f"cityscapes-panoptic:{tmp_path / 'leftImg8bit'}")

    def test_instance_ids_give_the_same_segments(self, tmp_path: Path) -> None:
        cityscapes_panoptic_set.cityscapes_panoptic(tmp_path)
        for name in ("ulm_0_1", "ulm_0_2", "bonn_0_1"):
            folder = tmp_path / "gtFine" / "train" / name.partition("_")[0]
            drawing.write_mask(folder / f"{name}_gtFine_labelIds.png", [[4, 7, 7, 26, 26, 26]] * 4)
            file = folder / f"{name}_gtFine_instanceIds.png"
            Image.fromarray(np.array([[4, 7, 7, 26, 26001, 26001]] * 4, dtype=np.uint16)).save(file)
        of_json, of_ids = (opened(f"{format}:{tmp_path}@train") for format in ("cityscapes-panoptic", "cityscapes"))
        for one, other in ((of_json, of_ids),):
            first, second = segments(one), segments(other)
            assert torch.equal(first.ids, second.ids)
            assert by_id(first, one.labels) == by_id(second, other.labels)
        truth = of_ids[0].truth
        assert truth.semantic is not None
        assert torch.equal(segments(of_ids).to_semantic(255), truth.semantic)
        assert opened(f"cityscapes:{tmp_path}@train?instances=false")[0].truth.panoptic is None


class TestRealData:
    SAMPLE = "json=panoptic_examples.json&images=input_images"
    TWO = "json=images_info_examples.json&masks=panoptic_examples_2ch_format&images=input_images&encoding=2channel"

    def test_the_sample_is_sound_in_both_encodings(self) -> None:
        root = require("coco_panoptic_sample")
        listed, two = (opened(f"coco-panoptic:{root}?{options}") for options in (self.SAMPLE, self.TWO))
        for dataset, options in ((listed, self.SAMPLE), (two, self.TWO)):
            assert dataset.labels == published("coco_panoptic")
            assert faults(f"coco-panoptic:{root}?{options}") == []
        for index in range(2):
            first, second = listed[index].truth, two[index].truth
            assert torch.equal(first.semantic, second.semantic)  # pyright: ignore[reportArgumentType]
            assert sorted(by_id(segments(listed, index), listed.labels).values()) == sorted(
                by_id(segments(two, index), two.labels).values()
            )

    def test_our_two_channels_are_the_samples_but_for_the_order_of_numbers(self, tmp_path: Path) -> None:
        root = require("coco_panoptic_sample")
        converted(f"coco-panoptic:{root}?{self.SAMPLE}", f"coco-panoptic:{tmp_path / 'two'}?encoding=2channel")
        for name in ("000000142238.png", "000000439180.png"):
            with (
                Image.open(tmp_path / "two" / "annotations" / "panoptic_all" / name) as mine,
                Image.open(root / "panoptic_examples_2ch_format" / name) as theirs,
            ):
                one, other = np.array(mine).astype(np.int64), np.array(theirs).astype(np.int64)
            assert np.array_equal(one[..., 0], other[..., 0])
            assert np.array_equal(one[..., 1] == 255, other[..., 1] == 255)
            pairs = np.unique(np.stack([one @ [256, 1, 0], other @ [256, 1, 0]], axis=-1).reshape(-1, 2), axis=0)
            assert len(np.unique(pairs[:, 0])) == len(np.unique(pairs[:, 1])) == len(pairs)  # one to one
            assert sorted(pairs[:, 0]) == sorted(pairs[:, 1])

    def test_the_detection_form_has_the_same_things(self) -> None:
        root = require("coco_panoptic_sample")
        form = "annotations=panoptic_coco_detection_format.json&images=input_images"
        detections = opened(f"coco:{root}?{form}")
        listed = opened(f"coco-panoptic:{root}?{self.SAMPLE}")
        for index in range(2):
            found = detections[index].truth.instances
            assert found is not None
            assert found.masks is not None
            named = [(detections.labels.names[label], bool(crowd), area) for label, crowd, area in
                     zip(found.labels, found.crowd, found.masks.areas().tolist(), strict=True)]  # fmt: skip # pyright: ignore
            assert sorted(named) == sorted(by_id(segments(listed, index), listed.labels).values())

    def test_statistics_count_segments_as_objects_and_classes(self) -> None:
        root = require("coco_panoptic_sample")
        statistics = statistics_of(opened(f"coco-panoptic:{root}?{self.SAMPLE}"))
        assert statistics.objects is not None
        assert (statistics.objects.objects, statistics.objects.crowds) == (40, 3)
        assert {one.name: one.images for one in statistics.classes}["grass-merged"] == 2
