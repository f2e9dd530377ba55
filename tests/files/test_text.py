"""Files of text, JSON, TOML and YAML: what is read, and that all else is one line that names the file."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path

import pytest

from pixelwise.errors import CheckpointError, DataError
from pixelwise.files.text import parse_json, read_json, read_lines, read_text, read_toml, read_yaml


def written(folder: Path, content: bytes, name: str = "file") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_of_other_systems_is_read(tmp_path: Path, encoding: str):
    path = written(tmp_path, "schön\r\na\u2028b\rletzte\n".encode(encoding))
    assert read_text(path) == "schön\na\u2028b\nletzte\n"
    assert read_lines(path) == ["schön", "a\u2028b", "letzte"]
    assert read_json(written(tmp_path, '{"ä": [1]}'.encode(encoding))) == {"ä": [1]}


def test_lines_of_short_files(tmp_path: Path):
    assert read_lines(written(tmp_path, b"")) == [""]
    assert read_lines(written(tmp_path, b"a\n\nb")) == ["a", "", "b"]


@pytest.mark.parametrize("reader", [read_text, read_json, read_toml, read_yaml])
def test_what_cannot_be_read_is_one_line_that_names_the_file(tmp_path: Path, reader):
    cases = [
        (tmp_path / "none", "no such file or directory"),
        (tmp_path, "is a directory"),
        (tmp_path / "a\0b", "not the name of a file"),
        (Path(os.devnull), "a device, not a file"),
    ]
    if reader is not read_json:
        cases.append((written(tmp_path, b"a: \xe4"), r"not a readable text file \(no UTF-8: byte 0xe4 at 3\)"))
        cases.append((written(tmp_path, b"\xff\xfea", "wide"), r"not a readable text file \(no UTF-16"))
    for path, why in cases:
        with pytest.raises(DataError, match=why) as caught:
            reader(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_a_file_that_is_too_long_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = written(tmp_path, b"[1, 2, 3]")
    monkeypatch.setattr("pixelwise.files.text.MAX_BYTES", 8)
    with pytest.raises(DataError, match="file: 9 bytes; at most 8 are read"):
        read_json(path)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b'{"a": ', "EOF while parsing"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 300 + b"1" + b"}" * 300, "nested too deeply"),
        (b'["\\udc00", ' + b"[" * 300 + b"]" * 300 + b"]", "nested too deeply"),
        (b"9" * 5000, "number out of range"),
        (b'{"a": "\xff"}', "invalid unicode"),
        (b"PK\x03\x04", "expected value"),
        (b"{'a': 1}", "key must be a string"),
    ],
)
def test_what_is_no_json_is_refused(tmp_path: Path, content: bytes, why: str):
    path = written(tmp_path, content)
    with pytest.raises(CheckpointError, match=why) as caught:
        read_json(path, expected="a model card", error=CheckpointError)
    assert str(caught.value).startswith(f"{path}: not JSON (")
    assert str(caught.value).endswith("); expected a model card")


def test_values_are_those_that_python_reads():
    text = '{"a": [0.1, 1e-320, -0.0, 1e400, 12345678901234567890, true, "\\u00e4\\n", "\\udcff", "\\\\ud800"]}'
    assert parse_json(text, source="line 1") == json.loads(text)
    assert math.isnan(parse_json("NaN", source="line 1"))
    assert parse_json('{"a": 1, "a": 2}', source="line 1") == {"a": 2}
    assert len(parse_json("[" * 150 + "]" * 150, source="line 1")) == 1


def test_toml_and_yaml_that_would_swell_or_nest_are_refused(tmp_path: Path):
    deep = "[" * sys.getrecursionlimit() * 2
    swelling = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"
    for reader, text, why in (
        (read_toml, f"a = {deep}", "TOML file"),
        (read_toml, "a = 1979-13-01", "TOML file"),
        (read_yaml, f"a: {deep}", "YAML file"),
        (read_yaml, swelling, "aliases"),
        (read_yaml, "a: !!bool 3", "YAML file"),
        (read_yaml, "a: !!int ''", "YAML file"),
        (read_yaml, "a: !!timestamp x", "YAML file"),
        (read_yaml, "a: 2020-99-99", "YAML file"),
        (read_yaml, "? [a]\n: 1", "YAML file"),
        (read_yaml, "a: !!python/object/apply:os.system [ls]", "YAML file"),
        (read_yaml, "a: '\x07'", "YAML file"),
    ):
        path = written(tmp_path, text.encode())
        with pytest.raises(DataError, match=why) as caught:
            reader(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
    assert read_yaml(written(tmp_path, b"names: {0: a, 1: b}")) == {"names": {0: "a", 1: "b"}}
    assert read_toml(written(tmp_path, b"a = [1]")) == {"a": [1]}
