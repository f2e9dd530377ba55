"""Names in lists of clips and panoptic files: separators of Windows, and both forms in which Unicode writes accents."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from pixelwise.data.spec import DataSpec, splits_of
from pixelwise.data.tools.check import check_dataset
from tests.data.formats import davis_set
from tests.data.sets import formats_with, write_tiny_set

LISTED = (*formats_with("json"), "coco-panoptic")


def changed(content: Any, change: Any) -> Any:
    """The content with every file name changed."""
    if isinstance(content, dict):
        return {
            key: [change(name) for name in value] if key == "file_names" else change(value) if key == "file_name" else
            changed(value, change)
            for key, value in content.items()
        }  # fmt: skip
    return [changed(one, change) for one in content] if isinstance(content, list) else content


def faults(spec: str) -> list[str]:
    return [fault.text for fault in check_dataset(DataSpec.parse(spec)).faults()]


@pytest.mark.parametrize("format", LISTED)
def test_separators_of_windows(format: str, tmp_path: Path) -> None:
    write_tiny_set(format, tmp_path)
    for file in tmp_path.rglob("*.json"):
        content = changed(json.loads(file.read_text()), lambda name: name.replace("/", "\\"))
        file.write_text(json.dumps(content))
    assert splits_of(f"{format}:{tmp_path}") == ("train", "val")
    assert faults(f"{format}:{tmp_path}") == []


@pytest.mark.parametrize("format", LISTED)
@pytest.mark.parametrize(("on_disk", "in_list"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_forms_of_unicode(format: str, on_disk: str, in_list: str, tmp_path: Path) -> None:
    write_tiny_set(format, tmp_path)
    for file in [*tmp_path.rglob("*.jpg"), *tmp_path.rglob("*.png")]:
        file.rename(file.with_name(unicodedata.normalize(on_disk, f"ä{file.name}")))

    def named(name: str) -> str:
        folder, slash, base = name.rpartition("/")
        return unicodedata.normalize(in_list, f"{folder}{slash}ä{base}")

    for file in tmp_path.rglob("*.json"):
        file.write_text(json.dumps(changed(json.loads(file.read_text()), named)))
    assert faults(f"{format}:{tmp_path}") == []


def test_lists_of_davis_2016_from_windows(tmp_path: Path) -> None:
    davis_set.davis(tmp_path)
    for file in (tmp_path / "ImageSets" / "2017").glob("*.txt"):
        clips = file.read_text().split()
        target = tmp_path / "ImageSets" / "480p" / file.name
        target.parent.mkdir(exist_ok=True, parents=True)
        lines = [f"\\JPEGImages\\480p\\{clip}\\00000.jpg \\Annotations\\480p\\{clip}\\00000.png\n" for clip in clips]
        target.write_text("".join(lines))
    assert faults(f"davis:{tmp_path}?year=2016") == []
