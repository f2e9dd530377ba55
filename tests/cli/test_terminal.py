"""Names from outside cannot drive a terminal: not in errors, notes, tables or lists of files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.cli.terminal import LONGEST_LINE, print, printable

EVIL = "a\x1b[31m\x9b2J\u202eb"
SHOWN = "a\\u001b[31m\\u009b2J\\u202eb"


def require_harmless(text: str) -> None:
    assert not set(text) & {"\x1b", "\x9b", "\u202e", "\x07", "\r"}


def test_control_characters_are_written_as_json_does():
    assert printable(EVIL) == SHOWN
    assert printable("schöne Grüße ü 图 \\u001b") == "schöne Grüße ü 图 \\u001b"
    assert printable("a\nb\tc\x7f\u2028\udcff") == "a\\u000ab\\u0009c\\u007f\\u2028\\udcff"
    line = json.dumps({EVIL: EVIL}, ensure_ascii=False)
    assert json.loads(printable(line)) == {EVIL: EVIL}


def test_long_lines_are_cut_and_counted(capsys: pytest.CaptureFixture[str]):
    print("x" * LONGEST_LINE)
    print("x" * (LONGEST_LINE + 1234))
    print("x" * (LONGEST_LINE + 1), whole=True)
    first, second, third = capsys.readouterr().out.splitlines()
    assert (len(first), len(third)) == (LONGEST_LINE, LONGEST_LINE + 1)
    assert second == "x" * LONGEST_LINE + "… (1,234 more characters)"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two images of two classes, with the name of a class and of an image as nobody should choose them."""
    folder = tmp_path / "set"
    for kind in ("images", "masks"):
        (folder / kind / "val").mkdir(parents=True)
    for name in ("good", EVIL):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "images" / "val" / f"{name}.png")
        Image.fromarray(np.ones((8, 8), np.uint8)).save(folder / "masks" / "val" / f"{name}.png")
    content = "".join(f"[[class]]\nname = {json.dumps(name)}\nid = {id}\n" for id, name in enumerate(("sky", EVIL)))
    (folder / "labels.toml").write_text(content)
    return folder


def test_a_table_of_classes(run, data: Path):
    code, out, err = run("data", "stats", f"masks:{data}@val", "--workers", 0)
    assert (code, err) == (0, "")
    assert SHOWN in out
    require_harmless(out)
    code, out, err = run("data", "stats", f"masks:{data}@val", "--workers", 0, "--json")
    assert EVIL in json.dumps(json.loads(out), ensure_ascii=False).replace("\\u001b", "\x1b")
    require_harmless(out)


def test_faults_and_failures(run, data: Path):
    (data / "masks" / "val" / f"{EVIL}.png").write_bytes(b"no picture")
    code, out, err = run("data", "check", f"masks:{data}", "--workers", 0)
    assert code == 1
    assert SHOWN in out
    require_harmless(out + err)
    code, out, err = run("data", "stats", f"masks:{data}@val", "--workers", 0)
    assert code == 1
    assert SHOWN in err
    require_harmless(out + err)


def test_an_error(run, tmp_path: Path):
    code, out, err = run("predict", tmp_path / f"{EVIL}\n.png")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert SHOWN in err
    require_harmless(err)


def test_a_sheet_of_images_that_cannot_be_read_names_one(run, data: Path):
    for path in (data / "masks" / "val").iterdir():
        path.write_bytes(b"no picture")
    code, out, err = run("data", "show", f"masks:{data}@val", "--out", data / "sheet.png")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "none of 2 images could be read; the first: " in err
    assert "good.png" in err or SHOWN in err
    assert not (data / "sheet.png").exists()
