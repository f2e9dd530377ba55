"""Specifications of data sets: taken apart, put together, and refused with what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from pixelwise.data.spec import DataSpec, format_names, format_of, open_dataset, splits_of
from pixelwise.errors import DataError
from tests.data.formats import camvid_set
from tests.data.sets import write_tiny_set


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("voc:./VOC2012", DataSpec("voc", "./VOC2012")),
        ("voc:./VOC2012@val", DataSpec("voc", "./VOC2012", "val")),
        ("voc:.", DataSpec("voc", ".")),
        ("voc:/", DataSpec("voc", "/")),
        ("voc:/data/VOC2012/", DataSpec("voc", "/data/VOC2012")),
        ("masks:a b@train?suffix=_mask", DataSpec("masks", "a b", "train", (("suffix", "_mask"),))),
        (
            "masks:scans?images=photos&masks=ids",
            DataSpec("masks", "scans", None, (("images", "photos"), ("masks", "ids"))),
        ),
        ("masks:a?suffix=x%26y%25", DataSpec("masks", "a", None, (("suffix", "x&y%"),))),
        ("masks:a?suffix=b=c", DataSpec("masks", "a", None, (("suffix", "b=c"),))),
        ("voc:./me@home/VOC", DataSpec("voc", "./me@home/VOC")),
        ("voc:./me@home/VOC@val", DataSpec("voc", "./me@home/VOC", "val")),
        ("voc:./photos@2x/", DataSpec("voc", "./photos@2x")),
        ("voc:./photos@2x@val", DataSpec("voc", "./photos@2x", "val")),
        ("masks:a?suffix=", DataSpec("masks", "a", None, (("suffix", ""),))),
        ("voc:C:odd", DataSpec("voc", "C:odd")),
        ("masks:a?images=x@y", DataSpec("masks", "a", None, (("images", "x@y"),))),
    ],
)
def test_parts(text: str, expected: DataSpec) -> None:
    spec = DataSpec.parse(text)
    assert spec == expected
    assert DataSpec.parse(str(spec)) == spec


@pytest.mark.parametrize("text", ["voc:./VOC2012@val", "masks:a?images=x&masks=y", "voc:./photos@2x/"])
def test_text_stays_the_same(text: str) -> None:
    assert str(DataSpec.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("./VOC2012", "is not a data set; expected FORMAT:PATH"),
        ("voc:", "is not a data set"),
        (":./VOC2012", "is not a data set"),
        ("voc:@val", "no folder"),
        ("voc:./VOC2012@", "nothing follows the @"),
        ("masks:a?", "expected option=value"),
        ("masks:a?suffix", "stands 'suffix'; expected option=value"),
        ("masks:a?suffix=b&suffix=c", "'suffix' occurs more than once"),
    ],
)
def test_other_texts_are_refused(text: str, why: str) -> None:
    with pytest.raises(DataError) as caught:
        DataSpec.parse(text)
    assert why in str(caught.value)


def test_unknown_format_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'vok' is not known; there are ade20k, camvid, cityscapes, cityscapes-dvps"):
        open_dataset(f"vok:{tmp_path}", default_split="val")


def test_unknown_option_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        open_dataset(f"masks:{tmp_path}?sufix=_mask", default_split="val")
    assert "masks has no option 'sufix'" in str(caught.value)
    for option in ("images", "masks", "suffix", "labels"):
        assert f"{option} (" in str(caught.value)


def test_missing_folder_tells_how_far_the_path_goes(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        splits_of(f"voc:{tmp_path}/there/not@val")
    assert f"no folder {tmp_path}/there/not; of its path {tmp_path} is there" in str(caught.value)


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.json").touch()
    with pytest.raises(DataError, match="is a file; expected the folder of the data set"):
        splits_of(f"coco:{tmp_path}/a.json")


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    camvid_set.camvid(tmp_path / "CamVid")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert splits_of("camvid:~/CamVid") == ("train", "val")


def test_default_split_becomes_part_of_the_name(tmp_path: Path) -> None:
    camvid_set.camvid(tmp_path)
    dataset = open_dataset(f"camvid:{tmp_path}", default_split="val")
    assert dataset.name == f"camvid:{tmp_path}@val"
    assert dataset.ids == ("d", "e")
    assert open_dataset(f"camvid:{tmp_path}@train", default_split="val").ids == ("a", "b", "c")


@pytest.mark.parametrize("name", format_names())
class TestEveryFormat:
    def test_offers_what_a_format_offers(self, name: str) -> None:
        format = format_of(DataSpec(name, "."))
        assert all(option and meaning for option, meaning in format.options.items())

    def test_refuses_an_empty_folder_by_name(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=str(tmp_path)):
            splits_of(f"{name}:{tmp_path}")
        with pytest.raises(DataError, match=str(tmp_path)):
            open_dataset(f"{name}:{tmp_path}@train", default_split="train")

    def test_refuses_an_unknown_split_with_those_there_are(self, name: str, tmp_path: Path) -> None:
        write_tiny_set(name, tmp_path)
        assert splits_of(f"{name}:{tmp_path}") == ("train", "val")
        with pytest.raises(DataError, match="no split 'test'; there are train, val"):
            open_dataset(f"{name}:{tmp_path}@test", default_split="train")
