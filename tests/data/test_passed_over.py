"""What lies in the folders of a set and is not read is counted and named."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from pixelwise.data.spec import DataSpec, format_names, open_dataset, splits_of
from pixelwise.data.tools.check import check_dataset
from tests.data.formats import masks_set
from tests.data.sets import write_tiny_set


@pytest.mark.parametrize("format", format_names())
def test_files_of_other_suffixes_are_counted_in_every_format(format: str, tmp_path: Path) -> None:
    write_tiny_set(format, tmp_path / "set")
    spec = f"{format}:{tmp_path / 'set'}"
    split = splits_of(spec)[0]
    data = open_dataset(spec, default_split=split)
    assert "by their suffix" not in (data.note or "")
    folder = data.image_path(0).parent
    for name in ("a.TS", "b.ts", "c.psd", "notes.txt", ".hidden.ts"):
        (folder / name).write_bytes(b"x")
    (folder / "folder.ts").mkdir()
    expected = "3 files skipped by their suffix: 2 .ts, 1 .psd"
    assert expected in (open_dataset(spec, default_split=split).note or "")
    assert expected in check_dataset(DataSpec.parse(f"{spec}@{split}")).splits[0].notes


def test_a_set_of_one_passed_over_image_says_so(tmp_path: Path) -> None:
    masks_set.masks(tmp_path / "set", ["a", "b"])
    (tmp_path / "set" / "images" / "a.png").rename(tmp_path / "set" / "images" / "a.pcd")
    data = open_dataset(f"masks:{tmp_path / 'set'}", default_split="train")
    assert data.ids == ("b",)
    assert data.note is not None
    assert data.note.endswith("1 file skipped by its suffix: 1 .pcd")


@pytest.mark.parametrize("suffix", [".gif", ".apng"])
def test_further_frames_are_counted(suffix: str, tmp_path: Path) -> None:
    root = masks_set.masks(tmp_path / "set", ["a", "b", "c"])
    frames = [Image.new("RGB", (9, 7), colour) for colour in ("red", "blue", "white")]
    for name in ("a", "b"):
        (root / "images" / f"{name}.png").unlink()
        kind = suffix[1:].replace("apng", "png")
        frames[0].save(root / "images" / f"{name}{suffix}", kind, save_all=True, append_images=frames[1:])
    expected = f"first frame alone taken, the others skipped: a{suffix} has 3, and 1 other image has several"
    data = open_dataset(f"masks:{root}", default_split="train")
    assert expected in (data.note or "")
    assert expected in check_dataset(DataSpec.parse(f"masks:{root}@train")).splits[0].notes


def test_pages_of_a_tiff_are_counted_by_a_check(tmp_path: Path) -> None:
    root = masks_set.masks(tmp_path / "set", ["a", "b"])
    pages = [Image.new("RGB", (9, 7), colour) for colour in ("red", "blue")]
    (root / "images" / "a.png").unlink()
    pages[0].save(root / "images" / "a.tif", save_all=True, append_images=pages[1:])
    (report,) = check_dataset(DataSpec.parse(f"masks:{root}@train")).splits
    assert "first frame alone taken, the others skipped: a.tif has 2" in report.notes
