"""`pixelwise data check`, `show`, `stats` and `convert` on damaged sets of clips: lines that name it, no traceback."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pixelwise.cli.app import main
from pixelwise.data.spec import format_named, open_dataset
from pixelwise.ops import rle
from tests.data.sets import formats_with, write_tiny_set
from tests.shared_data import require

Run = Callable[..., tuple[int, str, str]]

FORMATS = [name for name in formats_with("clips") if not format_named(name).synthetic]

WITH_JSON = formats_with("json")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command of `pixelwise data` in this process: exit code, stdout, stderr."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pixelwise", "data", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return run


def second(root: Path, format: str, *, truth: bool) -> Path:
    data = open_dataset(f"{format}:{root}", default_split="val")
    return data.truth_path(1) if truth else data.image_path(1)


def cut_in_half(path: Path) -> str:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 + 3])
    return path.name


def half_an_image(root: Path, format: str) -> str:
    return cut_in_half(second(root, format, truth=False))


def half_of_the_truth(root: Path, format: str) -> str:
    return cut_in_half(second(root, format, truth=True))


def no_image(root: Path, format: str) -> str:
    path = second(root, format, truth=False)
    path.unlink()
    return path.stem.removesuffix("_leftImg8bit").removesuffix("_newImg8bit")


def empty_folders(root: Path, format: str) -> str:
    for path in root.rglob("*"):
        if path.is_file():
            path.unlink()
    return root.name


def only_a_folder(root: Path, format: str) -> str:
    shutil.rmtree(root)
    root.mkdir()
    return root.name


def forbidden(root: Path, format: str) -> str:
    """A loop of links stands for a file that cannot be opened, since root, who may run tests, may open every other."""
    path = second(root, format, truth=False)
    path.unlink()
    path.symlink_to(path.name)
    return path.name


def nested_too_deep(root: Path, format: str) -> str:
    path = next(root.glob("*val*.json"))
    path.write_text("[" * 100_000)
    return path.name


def entries(content: dict[str, Any]) -> list[dict[str, Any]]:
    found = content["annotations"]
    return [one for group in found for one in group["annotations"]] if "annotations" in found[0] else found


def strange_entries(root: Path, format: str) -> str:
    if format == "mots":
        with (root / "val" / "0003" / "gt" / "gt.txt").open("a") as file:
            file.write(f"1 {10**30} 1 4 6 {rle.encode(np.ones((4, 6), bool))['counts']}\n1 2\n")
        return "line 7"
    path = next(root.glob("*val*.json"))
    content = json.loads(path.read_text())
    if format == "youtube-vis":
        content["annotations"][0]["segmentations"][1] = [None]
        content["annotations"][0]["iscrowd"] = [2]
    else:
        first, third, *_ = entries(content)
        first["segments_info"][0]["area"] = ["many"]
        third["image_id"] = [2]
    path.write_text(json.dumps(content))
    return path.name if format == "youtube-vis" else "many"


def other_category(root: Path, format: str) -> str:
    path = next(root.glob("*val*.json"))
    content = json.loads(path.read_text())
    one = entries(content)[0]
    (one if format == "youtube-vis" else one["segments_info"][0])["category_id"] = 99
    path.write_text(json.dumps(content))
    return "category 99"


CASES = [
    *((half_of_the_truth, format) for format in FORMATS),
    *((half_an_image, format) for format in ("kitti-step", "youtube-vis")),
    *((no_image, format) for format in ("cityscapes-dvps", "mots")),
    *((empty_folders, format) for format in ("cityscapes-vps", "davis")),
    *((only_a_folder, format) for format in ("kitti-step", "youtube-vis", "mots")),
    *((forbidden, format) for format in ("vipseg", "davis")),
    *((nested_too_deep, format) for format in WITH_JSON),
    *((strange_entries, format) for format in (*WITH_JSON, "mots")),
    *((other_category, format) for format in ("vipseg", "youtube-vis")),
]


@pytest.mark.parametrize(("damage", "format"), CASES, ids=lambda one: getattr(one, "__name__", one))
def test_damage_is_told_in_lines_that_name_it(
    damage: Callable[[Path, str], str], format: str, run: Run, tmp_path: Path
) -> None:
    root = write_tiny_set(format, tmp_path / "set")
    named = damage(root, format)
    spec, other = f"{format}:{root}", "vipseg" if format == "kitti-step" else "kitti-step"
    code, out, err = run("check", spec, "--fix", tmp_path / "copy", "--workers", "0")
    assert code in (1, 2)
    assert named in out + err
    assert len(err.strip().splitlines()) == (code == 2)
    if code == 1 and "opens as" in out:
        assert run("check", out.split("opens as ")[1].strip(), "--workers", "0", "--quiet")[0] == 0
    for command in (
        ("show", f"{spec}@val", "--out", tmp_path / "sheet.png"),
        ("stats", f"{spec}@val", "--workers", "0"),
        ("convert", spec, f"{other}:{tmp_path / 'other'}", "--workers", "0"),
    ):
        code, _, err = run(*command)
        assert code in (0, 1, 2)
        assert "Traceback" not in err
        if code == 2:
            assert len(err.strip().splitlines()) == 1, err
        if code:
            assert str(root) in err or "of 3 failed" in err or "of 8 failed" in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_what_must_not_be_read_is_told(run: Run, tmp_path: Path) -> None:
    root = write_tiny_set("kitti-step", tmp_path / "set")
    path = second(root, "kitti-step", truth=True)
    path.chmod(0)
    code, out, _ = run("check", f"kitti-step:{root}", "--workers", "0")
    assert code == 1
    assert f"{path}: permission denied" in out


def test_damaged_copies_of_real_clips(run: Run, tmp_path: Path) -> None:
    """Of each clip a few frames: one cut in half, one painted over, one taken away."""
    for format, folder in (("kitti-step", "kitti_step"), ("davis", "davis2016")):
        root = tmp_path / format
        for source in sorted(require(folder).rglob("*")):
            if source.suffix in (".png", ".jpg") and int(source.stem) < 5:
                place = root / source.relative_to(require(folder))
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, place)
        maps = sorted((root / ("panoptic_maps" if format == "kitti-step" else "Annotations")).rglob("*.png"))
        cut_in_half(maps[0])
        channels = np.array(Image.open(maps[1]))
        channels[:20, :20] = (1, 0, 5) if format == "kitti-step" else 5  # a pavement with a number; an object of 2017
        Image.fromarray(channels).save(maps[1])
        images = sorted((root / ("images" if format == "kitti-step" else "JPEGImages")).rglob("00000[23].*"))
        images += sorted(root.rglob("JPEGImages/*/*/00002.jpg"))
        images[0].unlink()
        code, out, _ = run("check", f"{format}:{root}", "--fix", tmp_path / f"{format} copy", "--json")
        assert code == 1
        report = json.loads(out)
        assert report["repaired"]["done"]["unreadable_masks"] == 1
        assert report["repaired"]["done"]["missing_images"] == 1
        code, out, _ = run("check", report["repaired"]["opens_as"][0])
        assert (code, out.splitlines()[-1]) == (0, "no faults")
        assert run("stats", report["repaired"]["opens_as"][0], "--json")[0] == 0
