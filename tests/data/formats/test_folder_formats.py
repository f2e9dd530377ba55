"""voc, camvid, ade20k, cityscapes and masks: the layouts they read, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.data.dataset import FileDataset
from pixelwise.data.kinds.folders import published_names
from pixelwise.data.spec import open_dataset, splits_of
from pixelwise.errors import DataError
from pixelwise.labels import published
from tests.data import drawing
from tests.data.formats import ade20k_set, camvid_set, cityscapes_set, masks_set, voc_set


def opened(spec: str) -> FileDataset:
    dataset = open_dataset(spec, default_split="train")
    assert isinstance(dataset, FileDataset)
    return dataset


def test_published_label_sets_are_listed() -> None:
    assert {"ade20k", "camvid", "cityscapes", "coco", "voc"} <= set(published_names())
    for name in published_names():
        assert published(name).name == name


class TestVoc:
    def test_ids_come_in_the_order_of_the_list(self, tmp_path: Path) -> None:
        voc_set.voc(tmp_path, {"train": ["2007_2", "2007_1"], "val": ["2007_3"]})
        dataset = opened(f"voc:{tmp_path}@train")
        assert dataset.ids == ("2007_2", "2007_1")
        assert dataset.image_path(0) == tmp_path / "JPEGImages" / "2007_2.jpg"
        assert dataset.truth_path(0) == tmp_path / "SegmentationClass" / "2007_2.png"
        assert dataset.labels == published("voc")
        assert dataset[1].id == "2007_1"

    @pytest.mark.parametrize("below", ["", "VOCdevkit"])
    def test_a_folder_around_one_year(self, tmp_path: Path, below: str) -> None:
        voc_set.voc(tmp_path / below / "VOC2012", {"val": ["a"]})
        assert opened(f"voc:{tmp_path}@val").ids == ("a",)

    def test_a_folder_around_two_years(self, tmp_path: Path) -> None:
        for year in ("VOC2007", "VOC2012"):
            voc_set.voc(tmp_path / year, {"val": ["a"]})
        with pytest.raises(DataError, match="several years in it \\(VOC2007, VOC2012\\)"):
            opened(f"voc:{tmp_path}@val")

    def test_missing_folders_are_named(self, tmp_path: Path) -> None:
        (tmp_path / "JPEGImages").mkdir()
        with pytest.raises(DataError, match="SegmentationClass/, ImageSets/Segmentation/ is missing"):
            opened(f"voc:{tmp_path}@val")

    def test_no_lists(self, tmp_path: Path) -> None:
        voc_set.voc(tmp_path, {})
        for folder in ("JPEGImages", "SegmentationClass"):
            (tmp_path / folder).mkdir()
        with pytest.raises(DataError, match="no list in it"):
            splits_of(f"voc:{tmp_path}")

    def test_listed_ids_without_files_are_counted(self, tmp_path: Path) -> None:
        voc_set.voc(tmp_path, {"train": ["a", "b", "c"]})
        (tmp_path / "SegmentationClass" / "b.png").unlink()
        with pytest.raises(DataError, match="no mask for 'b'; 1 of 3 are missing"):
            opened(f"voc:{tmp_path}@train")
        (tmp_path / "JPEGImages" / "c.jpg").unlink()
        with pytest.raises(DataError, match="no image for 'c'; 1 of 3 are missing"):
            opened(f"voc:{tmp_path}@train")

    def test_repeated_ids_are_refused(self, tmp_path: Path) -> None:
        voc_set.voc(tmp_path, {"train": ["a", "b", "a"]})
        with pytest.raises(DataError, match="'a' occurs more than once"):
            opened(f"voc:{tmp_path}@train")

    def test_an_empty_list_is_refused(self, tmp_path: Path) -> None:
        voc_set.voc(tmp_path, {"train": ["a"], "val": []})
        with pytest.raises(DataError, match="no images in this split"):
            opened(f"voc:{tmp_path}@val")

    def test_own_classes(self, tmp_path: Path) -> None:
        voc_set.voc(tmp_path, {"train": ["a"]})
        (tmp_path / "labels.txt").write_text("floor\nwall\n")
        assert opened(f"voc:{tmp_path}@train").labels.names == ("floor", "wall")


class TestCamvid:
    def test_pairs_by_name(self, tmp_path: Path) -> None:
        camvid_set.camvid(tmp_path)
        drawing.write_turned(tmp_path / "train" / "extra.jpg", orientation=1)
        drawing.write_mask(tmp_path / "trainannot" / "extra.png")
        dataset = opened(f"camvid:{tmp_path}")
        assert dataset.ids == ("a", "b", "c", "extra")
        assert dataset.image_path(3).name == "extra.jpg"
        assert dataset.labels == published("camvid")
        assert [dataset[index].id for index in range(4)] == list(dataset.ids)

    def test_splits_are_those_with_masks(self, tmp_path: Path) -> None:
        camvid_set.camvid(tmp_path, {"val": ["a"], "train": ["b"], "test": ["c"], "night": ["d"]})
        (tmp_path / "videos").mkdir()
        assert splits_of(f"camvid:{tmp_path}") == ("train", "val", "test", "night")

    def test_an_image_without_mask_is_refused(self, tmp_path: Path) -> None:
        camvid_set.camvid(tmp_path)
        drawing.write_image(tmp_path / "train" / "aa.png")
        with pytest.raises(DataError, match="no mask for 'aa'; 1 of 4"):
            opened(f"camvid:{tmp_path}")

    def test_two_images_of_one_name_are_refused(self, tmp_path: Path) -> None:
        camvid_set.camvid(tmp_path)
        drawing.write_turned(tmp_path / "train" / "a.jpg")
        with pytest.raises(DataError, match=r"a\.png: another file has the name 'a' too"):
            opened(f"camvid:{tmp_path}")

    def test_hidden_and_other_files_are_passed_over(self, tmp_path: Path) -> None:
        camvid_set.camvid(tmp_path)
        (tmp_path / "train" / ".a.png").touch()
        (tmp_path / "train" / "Thumbs.db").touch()
        assert opened(f"camvid:{tmp_path}").ids == ("a", "b", "c")


class TestAde20k:
    def test_zero_is_void_and_the_first_class_is_one(self, tmp_path: Path) -> None:
        dataset = opened(f"ade20k:{ade20k_set.ade20k(tmp_path)}@val")
        semantic = dataset[0].truth.semantic
        assert semantic is not None
        assert semantic.tolist() == [[255, 0, 0, 1, 1, 1]] * 4
        assert dataset.labels.names[:2] == ("wall", "building")
        assert len(dataset.labels) == 150

    @pytest.mark.parametrize(("split", "ids"), [("train", "abc"), ("training", "abc"), ("val", "de")])
    def test_both_spellings_of_a_split(self, tmp_path: Path, split: str, ids: str) -> None:
        ade20k_set.ade20k(tmp_path / "ADEChallengeData2016")
        assert splits_of(f"ade20k:{tmp_path}") == ("train", "val")
        assert opened(f"ade20k:{tmp_path}@{split}").ids == tuple(ids)

    def test_folders_named_like_the_splits(self, tmp_path: Path) -> None:
        ade20k_set.ade20k(tmp_path, {"train": "ab", "val": "c"})
        assert opened(f"ade20k:{tmp_path}@training").ids == ("a", "b")

    def test_names_tell_the_split_where_no_folder_does(self, tmp_path: Path) -> None:
        ade20k_set.ade20k(tmp_path, {".": ("ADE_train_1", "ADE_val_1", "ADE_val_2")})
        assert splits_of(f"ade20k:{tmp_path}") == ("train", "val")
        dataset = opened(f"ade20k:{tmp_path}@val")
        assert dataset.ids == ("ADE_val_1", "ADE_val_2")
        assert dataset.note is None

    def test_without_any_split_every_fifth_is_val(self, tmp_path: Path) -> None:
        ade20k_set.ade20k(tmp_path, {".": "abcde"})
        dataset = opened(f"ade20k:{tmp_path}@val")
        assert dataset.ids == ("e",)
        assert dataset.note is not None
        assert "every fifth" in dataset.note

    def test_an_image_without_mask_is_refused(self, tmp_path: Path) -> None:
        ade20k_set.ade20k(tmp_path)
        (tmp_path / "annotations" / "training" / "b.png").unlink()
        with pytest.raises(DataError, match="no mask for 'b'; 1 of 3"):
            opened(f"ade20k:{tmp_path}")


class TestCityscapes:
    def test_label_ids_become_the_nineteen_classes(self, tmp_path: Path) -> None:
        dataset = opened(f"cityscapes:{cityscapes_set.cityscapes(tmp_path)}@train")
        assert dataset.ids == ("bonn_0_1", "ulm_0_1", "ulm_0_2")
        assert len(dataset.labels) == 19
        semantic = dataset[0].truth.semantic
        assert semantic is not None
        assert semantic.tolist() == [[255, 0, 0, 1, 13, 13]] * 4

    def test_every_id_of_the_benchmark_is_a_class_or_void(self) -> None:
        labels = published("cityscapes")
        train_ids = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12}
        train_ids |= {26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18}
        dataset_id = np.arange(-1, 34)
        wanted = [train_ids.get(id, 255) for id in dataset_id.tolist()]
        assert labels.class_ids(dataset_id, source="ids").tolist() == wanted
        assert [name for name, thing in zip(labels.names, labels.is_thing, strict=True) if thing] == [
            "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
        ]  # fmt: skip

    def test_train_ids_where_only_they_are_there(self, tmp_path: Path) -> None:
        cityscapes_set.cityscapes(tmp_path, ids="labelTrainIds")
        for spec in (f"cityscapes:{tmp_path}@val", f"cityscapes:{tmp_path}@val?ids=trainIds"):
            dataset = opened(spec)
            assert dataset.truth_path(0).name == "jena_3_4_gtFine_labelTrainIds.png"
            semantic = dataset[0].truth.semantic
            assert semantic is not None
            assert semantic.tolist() == [[255, 0, 0, 1, 13, 13]] * 4

    def test_label_ids_go_before_train_ids(self, tmp_path: Path) -> None:
        for ids in ("labelIds", "labelTrainIds"):
            cityscapes_set.cityscapes(tmp_path, ids=ids)
        assert opened(f"cityscapes:{tmp_path}@val").truth_path(0).stem.endswith("labelIds")
        assert opened(f"cityscapes:{tmp_path}@val?ids=trainIds").truth_path(0).stem.endswith("labelTrainIds")

    def test_coarse_annotations(self, tmp_path: Path) -> None:
        cityscapes_set.cityscapes(tmp_path)
        cityscapes_set.cityscapes(tmp_path, {"train_extra": ("nice_1_1",)}, annotations="gtCoarse")
        assert splits_of(f"cityscapes:{tmp_path}?annotations=gtCoarse") == ("train_extra",)
        assert opened(f"cityscapes:{tmp_path}@train_extra?annotations=gtCoarse").ids == ("nice_1_1",)

    @pytest.mark.parametrize(
        ("query", "why"),
        [
            ("ids=colour", "expected labelIds or trainIds"),
            ("annotations=gtBest", "expected gtFine or gtCoarse"),
            ("annotations=gtCoarse", "gtCoarse/ is missing"),
            ("instances=yes", "expected true or false"),
            ("instances=true", "jena_3_4_gtFine_labelIds.png: no file of object ids beside it"),
        ],
    )
    def test_options_that_cannot_be(self, tmp_path: Path, query: str, why: str) -> None:
        cityscapes_set.cityscapes(tmp_path)
        with pytest.raises(DataError, match=why):
            open_dataset(f"cityscapes:{tmp_path}@val?{query}", default_split="val")

    def test_objects_and_crowds_where_their_files_are_there(self, tmp_path: Path) -> None:
        cityscapes_set.cityscapes(tmp_path)
        assert opened(f"cityscapes:{tmp_path}@val")[0].truth.instances is None
        file = tmp_path / "gtFine" / "val" / "jena" / "jena_3_4_gtFine_instanceIds.png"
        # stuff, a group of cars, a caravan (no class), two cars and a bicycle
        ids = np.array([[7, 26, 29000, 26000, 26001, 33002]] * 4, dtype=np.uint16)
        Image.fromarray(ids).save(file)
        assert opened(f"cityscapes:{tmp_path}@val?instances=false")[0].truth.instances is None
        spec = f"cityscapes:{tmp_path}@val"
        dataset = open_dataset(spec, default_split="val")
        assert dataset.name == spec
        found = dataset[0].truth.instances
        assert found is not None
        assert found.masks is not None
        assert [dataset.labels.names[label] for label in found.labels] == ["car", "car", "bicycle", "car"]
        assert found.boxes.tolist() == [[3, 0, 4, 4], [4, 0, 5, 4], [5, 0, 6, 4], [1, 0, 2, 4]]
        assert found.crowd is not None
        assert found.crowd.tolist() == [False, False, False, True]
        assert np.array_equal(found.masks.dense_one(1).numpy(), ids == 26001)

    def test_a_file_of_objects_of_another_size(self, tmp_path: Path) -> None:
        cityscapes_set.cityscapes(tmp_path)
        file = tmp_path / "gtFine" / "val" / "jena" / "jena_3_4_gtFine_instanceIds.png"
        Image.fromarray(np.zeros((3, 3), dtype=np.uint16)).save(file)
        dataset = open_dataset(f"cityscapes:{tmp_path}@val?instances=true", default_split="val")
        with pytest.raises(DataError, match=r"instanceIds\.png: 3×3 pixels, its image 4×6"):
            dataset[0]


class TestMasks:
    def test_every_fifth_pair_is_val(self, tmp_path: Path) -> None:
        names = [f"{number:02}" for number in range(1, 13)]
        masks_set.masks(tmp_path, names)
        train, val = (opened(f"masks:{tmp_path}@{split}") for split in ("train", "val"))
        assert val.ids == ("05", "10")
        assert train.ids == tuple(name for name in names if name not in val.ids)
        for dataset in (train, val):
            assert dataset.note == "the set has no splits: every fifth pair by name is val, the others are train"

    def test_four_pairs_make_no_val(self, tmp_path: Path) -> None:
        masks_set.masks(tmp_path, "abcd")
        assert opened(f"masks:{tmp_path}@train").ids == ("a", "b", "c", "d")
        assert splits_of(f"masks:{tmp_path}") == ("train",)
        with pytest.raises(DataError, match="no image of this split has a mask; 0 names were compared"):
            opened(f"masks:{tmp_path}@val")

    def test_classes_by_line(self, tmp_path: Path) -> None:
        masks_set.masks(tmp_path, "a")
        drawing.write_mask(tmp_path / "masks" / "a.png", [[0, 1, 255, 0, 1, 255]] * 4)
        dataset = opened(f"masks:{tmp_path}")
        assert dataset.labels.names == ("floor", "wall")
        semantic = dataset[0].truth.semantic
        assert semantic is not None
        assert semantic.tolist() == [[0, 1, 255, 0, 1, 255]] * 4

    def test_images_without_mask_are_skipped_and_counted(self, tmp_path: Path) -> None:
        masks_set.masks(tmp_path, "abc")
        drawing.write_image(tmp_path / "images" / "x.png")
        drawing.write_image(tmp_path / "images" / "y.png")
        drawing.write_mask(tmp_path / "masks" / "z.png")
        dataset = opened(f"masks:{tmp_path}@train")
        assert dataset.ids == ("a", "b", "c")
        assert dataset.note is not None
        assert dataset.note.endswith("skipped: 2 images without a mask, 1 masks without an image")

    def test_no_pair_at_all(self, tmp_path: Path) -> None:
        masks_set.masks(tmp_path, "a")
        (tmp_path / "masks" / "a.png").rename(tmp_path / "masks" / "a_mask.png")
        with pytest.raises(DataError, match=r"no image has a mask; 1 masks end with .*add .suffix=_mask"):
            opened(f"masks:{tmp_path}@train")
        assert opened(f"masks:{tmp_path}@train?suffix=_mask").ids == ("a",)

    def test_sub_folders_are_splits(self, tmp_path: Path) -> None:
        for split, name in (("train", "a"), ("val", "b"), ("night", "c")):
            drawing.write_image(tmp_path / "images" / split / f"{name}.png")
            drawing.write_mask(tmp_path / "masks" / split / f"{name}.png")
        (tmp_path / "labels.txt").write_text("floor\nwall")
        assert splits_of(f"masks:{tmp_path}") == ("train", "val", "night")
        dataset = opened(f"masks:{tmp_path}@night")
        assert dataset.ids == ("c",)
        assert dataset.note is None

    def test_folders_side_by_side(self, tmp_path: Path) -> None:
        camvid_set.camvid(tmp_path)
        (tmp_path / "labels.txt").write_text("floor\nwall")
        dataset = opened(f"masks:{tmp_path}@val")
        assert dataset.ids == ("d", "e")
        assert dataset.note is None

    def test_named_folders(self, tmp_path: Path) -> None:
        drawing.write_image(tmp_path / "photos" / "a.png")
        drawing.write_mask(tmp_path / "truth" / "ids" / "a.png")
        (tmp_path / "labels.txt").write_text("floor\nwall")
        assert opened(f"masks:{tmp_path}@train?images=photos&masks=truth/ids").ids == ("a",)

    def test_one_folder_and_a_suffix(self, tmp_path: Path) -> None:
        drawing.write_image(tmp_path / "a.png")
        drawing.write_mask(tmp_path / "a_mask.png")
        (tmp_path / "labels.txt").write_text("floor\nwall")
        dataset = opened(f"masks:{tmp_path}@train?images=.&masks=.&suffix=_mask")
        assert dataset.ids == ("a",)
        assert dataset.truth_path(0) == tmp_path / "a_mask.png"
        assert dataset.note is not None
        assert "skipped" not in dataset.note

    def test_two_masks_of_one_name_are_refused(self, tmp_path: Path) -> None:
        masks_set.masks(tmp_path, "a")
        drawing.write_mask(tmp_path / "masks" / "a.tif")
        with pytest.raises(DataError, match=r"a\.tif: another file has the name 'a' too"):
            opened(f"masks:{tmp_path}@train")


class TestLabelFiles:
    def labels_error(self, root: Path, query: str = "") -> str:
        with pytest.raises(DataError) as caught:
            opened(f"masks:{root}@train{query}")
        return str(caught.value)

    def test_none(self, tmp_path: Path) -> None:
        masks_set.masks(tmp_path, "a", labels=None)
        message = self.labels_error(tmp_path)
        assert "no labels.txt and no labels.toml" in message
        assert "one class name a line" in message
        assert "?labels=ade20k|camvid|cityscapes|coco|" in message

    def test_published(self, tmp_path: Path) -> None:
        masks_set.masks(tmp_path, "a", labels=None)
        assert opened(f"masks:{tmp_path}@train?labels=voc").labels == published("voc")

    def test_published_goes_before_the_file(self, tmp_path: Path) -> None:
        masks_set.masks(tmp_path, "a")
        assert opened(f"masks:{tmp_path}@train?labels=voc").labels == published("voc")

    def test_toml_goes_before_text(self, tmp_path: Path) -> None:
        masks_set.masks(tmp_path, "a")
        (tmp_path / "labels.toml").write_text('void_ids = [1]\n[[class]]\nname = "roof"\nid = 0\n')
        dataset = opened(f"masks:{tmp_path}@train")
        assert dataset.labels.names == ("roof",)
        semantic = dataset[0].truth.semantic
        assert semantic is not None
        assert semantic.tolist() == [[0, 0, 0, 255, 255, 255]] * 4

    def test_named_file(self, tmp_path: Path) -> None:
        masks_set.masks(tmp_path, "a", labels=None)
        (tmp_path / "classes.txt").write_text("x\ny\n")
        assert opened(f"masks:{tmp_path}@train?labels=classes.txt").labels.names == ("x", "y")

    def test_unknown_name(self, tmp_path: Path) -> None:
        masks_set.masks(tmp_path, "a")
        assert "no such label file; published label sets are ade20k, camvid, cityscapes" in self.labels_error(
            tmp_path, "?labels=vox"
        )

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            ("", "no class names in it"),
            ("floor\n\nwall\n", "line 2 is empty"),
            ("floor\nwall\nfloor\n", "floor occurs more than once"),
        ],
    )
    def test_faulty_text(self, tmp_path: Path, content: str, why: str) -> None:
        masks_set.masks(tmp_path, "a", labels=content)
        message = self.labels_error(tmp_path)
        assert message.startswith(f"{tmp_path / 'labels.txt'}: ")
        assert why in message

    def test_text_of_another_editor(self, tmp_path: Path) -> None:
        masks_set.masks(tmp_path, "a", labels=None)
        (tmp_path / "labels.txt").write_bytes("\ufeffstraße\r\nhaus \r\n\r\n".encode())
        assert opened(f"masks:{tmp_path}@train").labels.names == ("straße", "haus")

    def test_text_of_another_encoding(self, tmp_path: Path) -> None:
        masks_set.masks(tmp_path, "a", labels=None)
        (tmp_path / "labels.txt").write_bytes("straße".encode("latin-1"))
        assert "not a readable text file" in self.labels_error(tmp_path)
