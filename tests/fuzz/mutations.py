"""Damage to files: of their bytes, of the values in JSON, YAML, TOML and lists, of pictures and arrays, of names."""

from __future__ import annotations

import io
import json
import os
import random
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

CONTROL = "a\x1b[2J\x07\x9b\u202eb"

NASTY_TEXTS = [
    "", " ", CONTROL, "../../outside", "/", "..", "\\", "C:\\a\\b.png", "a\nb", "a\0b", "\ud800", "ä",
    "a" * 300, "a" * 5000,
    "null", "NaN", "1", "-1", "1e999", "[]", "{}", "%s{}%d", "?x=1", "@train", "__proto__", "coco",
]  # fmt: skip
NASTY_NUMBERS = [
    0, -1, 1, 2, 255, 256, 65_535, 65_536, 2**24, 2**31, 2**32, 2**53, 2**63, 2**64, 10**30, -(2**31), -(2**63),
    0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), float("-inf"),
]  # fmt: skip


def nasty_value(rng: random.Random) -> Any:
    """A value of any type that JSON has."""
    kind = rng.randrange(9)
    if kind < 3:
        return rng.choice(NASTY_NUMBERS)
    if kind < 5:
        return rng.choice(NASTY_TEXTS)
    if kind == 5:
        return rng.choice([True, False, None])
    if kind == 6:
        return rng.choice([[], {}, [[]], [{}], {"": None}, [None] * 3])
    if kind == 7:
        return {rng.choice(NASTY_TEXTS): nasty_value(rng) for _ in range(rng.randrange(1, 3))}
    return [nasty_value(rng) for _ in range(rng.randrange(1, 4))]


def damage(path: Path, rng: random.Random) -> None:
    """Damage one file or link, in a way that may suit its kind."""
    ways: list[Callable[[Path, random.Random], None]] = [_bytes, _replace_whole, _file_itself]
    suffix = path.suffix.lower()
    structured = {
        ".json": _json, ".jsonl": _json_lines, ".state": _safetensors, ".yaml": _yaml, ".yml": _yaml, ".toml": _tokens,
        ".txt": _tokens, ".png": _picture, ".jpg": _picture, ".tif": _picture, ".npz": _arrays, ".pth": _pickle,
        ".safetensors": _safetensors,
    }.get(suffix)  # fmt: skip
    way = structured if structured and rng.random() < 0.7 else rng.choice(ways)
    try:
        way(path, rng)
    except Exception:
        _bytes(path, rng)  # what was damaged before is no file of its kind any more


def _bytes(path: Path, rng: random.Random) -> None:
    if not path.is_file():
        return
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 1, 2, 8])):
        size = len(content)
        start = rng.randrange(min(size, 200) if rng.random() < 0.5 and size else size or 1)
        length = rng.randrange(1, 40)
        way = rng.randrange(6)
        if way == 0 and size:
            content[start] ^= 1 << rng.randrange(8)
        elif way == 1:
            del content[start:]
        elif way == 2:
            del content[start : start + length]
        elif way == 3:
            content[start:start] = content[start : start + length]
        elif way == 4:
            content[start : start + length] = rng.randbytes(length)
        else:
            content[start:start] = rng.choice(
                [b"\xff", b"\0", CONTROL.encode(), b"\xe4", b"1e999", b"-", b'"', b"[" * 5000]
            )
    path.write_bytes(content)


def _replace_whole(path: Path, rng: random.Random) -> None:
    if path.is_dir():
        return
    others = [one for one in sorted(path.parent.rglob("*")) if one.is_file()]
    contents: list[Callable[[], bytes]] = [
        lambda: b"",
        lambda: b"\n",
        lambda: rng.randbytes(200),
        lambda: b"[" * 50_000,
        lambda: b'{"a":' * 150 + b"1" + b"}" * 150,
        lambda: b"<!DOCTYPE html><html></html>",
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        lambda: "ä,ö\n".encode("utf-16"),
        lambda: json.dumps(nasty_value(rng)).encode(),
        lambda: rng.choice(others).read_bytes(),
    ]
    path.write_bytes(rng.choice(contents)())


def _file_itself(path: Path, rng: random.Random) -> None:
    way = rng.randrange(6)
    if way == 0:
        path.unlink()
    elif way == 1:
        path.unlink()
        path.mkdir()
    elif way == 2:
        path.unlink()
        os.symlink(path.name, path)
    elif way == 3:
        path.rename(path.with_name(f"{CONTROL}{path.suffix}"))
    elif way == 4:
        path.rename(path.with_suffix(path.suffix.upper()))
    else:
        shutil.copyfile(path, path.with_name(f"{path.name}{path.suffix}"))


def _mutated(value: Any, rng: random.Random) -> Any:
    """The value with something in it changed."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        way = rng.random()
        if way < 0.12:
            return {name: one for name, one in value.items() if name != key}
        if way < 0.2:
            return {**value, rng.choice(NASTY_TEXTS): value[key]}
        return {**value, key: _mutated(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.randrange(len(value))
        way = rng.random()
        if way < 0.1:
            return value[:place] + value[place + 1 :]
        if way < 0.2:
            return [*value, value[place]]
        return [*value[:place], _mutated(value[place], rng), *value[place + 1 :]]
    way = rng.random()
    if way < 0.15:
        return [value]
    if way < 0.3 and isinstance(value, int | float | str):
        return str(value) if not isinstance(value, str) else rng.choice([value.upper(), f" {value}", value[:-1]])
    if way < 0.35:
        return _nested(value, rng.choice([50, 150]))
    return nasty_value(rng)


def _nested(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = [value]
    return value


def _many(value: Any, rng: random.Random) -> Any:
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        value = _mutated(value, rng)
    return value


def _json(path: Path, rng: random.Random) -> None:
    path.write_text(json.dumps(_many(json.loads(path.read_text()), rng)))


def _json_lines(path: Path, rng: random.Random) -> None:
    lines = path.read_text().splitlines() or [""]
    place = rng.randrange(len(lines))
    lines[place] = json.dumps(_many(json.loads(lines[place]), rng))
    path.write_text("\n".join(lines) + rng.choice(["\n", ""]))


def _yaml(path: Path, rng: random.Random) -> None:
    path.write_text(yaml.safe_dump(_many(yaml.safe_load(path.read_text()), rng)), errors="surrogatepass")


def _tokens(path: Path, rng: random.Random) -> None:
    """Words and numbers of a text, where they stand."""
    text = path.read_text()
    for _ in range(rng.choice([1, 1, 2, 4])):
        found = list(re.finditer(r'"[^"]*"|[^\s",=\[\]]+|[\[\]=]|\n', text))
        if not found:
            return
        one = rng.choice(found)
        value = nasty_value(rng)
        new = rng.choice([json.dumps(value), str(value), "", one[0] * 2, f"{one[0]} {one[0]}", '"'])
        text = text[: one.start()] + new + text[one.end() :]
    path.write_text(text, errors="surrogatepass")


def _picture(path: Path, rng: random.Random) -> None:
    """A sound picture that is another than it should be."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB") if rng.random() < 0.5 else opened.copy()
    way = rng.randrange(5)
    if way == 0:
        size = rng.choice(
            [(1, 1), (1, 50), (picture.width + 1, picture.height), (picture.height, picture.width), (300, 2)]
        )
        picture = picture.resize(size)
    elif way == 1:
        picture = picture.convert(rng.choice(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "F", "I;16"]))
    elif way == 2:
        values = np.asarray(picture).copy()
        values[tuple(rng.randrange(side) for side in values.shape[:2])] = rng.choice([1, 2, 7, 200, 255])
        picture = Image.fromarray(values)
    elif way == 3:
        kind = rng.choice([np.uint8, np.uint16, np.int32, np.float32])
        values = np.full((picture.height, picture.width), rng.choice([0, 1, 200, 255]), dtype=kind)
        picture = Image.fromarray(values)
    else:
        exif = Image.Exif()
        exif[0x0112] = rng.randrange(12)
        exif[0x010E] = CONTROL
        stream = io.BytesIO()
        picture.convert("RGB").save(stream, "JPEG", exif=exif)
        path.write_bytes(stream.getvalue())
        return
    stream = io.BytesIO()
    picture.save(stream, rng.choice(["PNG", "TIFF"]) if picture.mode != "CMYK" else "TIFF")
    path.write_bytes(stream.getvalue())


def _arrays(path: Path, rng: random.Random) -> None:
    with np.load(path) as stored:
        arrays = dict(stored)
    name = rng.choice(list(arrays))
    kind = rng.choice([np.uint8, np.int64, np.float64, np.bool_, "U3", np.complex64])
    shape = rng.choice([(), (0,), (3,), (4, 6), (1, 4, 6), (2, 0), (4, 7)])
    arrays[name] = np.full(shape, rng.choice([0, 1, 5, -3, 10**6]) if kind != np.uint8 else 1).astype(kind)
    np.savez(path, **arrays)


def _pickle(path: Path, rng: random.Random) -> None:
    """What torch reads without running code, but is no dict of tensors."""
    stored = torch.load(path, weights_only=True)
    way = rng.randrange(6)
    if way == 0:
        stored = nasty_value(rng)
    elif way == 1:
        stored = {rng.choice([1, None, (1, 2), CONTROL, 2.5]): value for value in stored.values()}
    elif way == 2:
        stored = {**stored, rng.choice(list(stored)): nasty_value(rng)}
    elif way == 3:
        stored = {rng.choice(["state_dict", "model", "net", CONTROL]): rng.choice([stored, [stored], nasty_value(rng)])}
    elif way == 4:
        name = rng.choice(list(stored))
        odd = [
            torch.zeros(0),
            torch.zeros(()),
            torch.zeros(3, dtype=torch.int64),
            torch.zeros(2, dtype=torch.complex64),
        ]
        odd += [torch.full((2,), float("nan")), torch.zeros(2, 2).to_sparse(), torch.zeros(1).expand(4)]
        stored = {**stored, name: rng.choice(odd)}
    else:
        stored = list(stored.values())
    torch.save(stored, path)


def _safetensors(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    head = json.loads(content[8 : 8 + length])
    memory = head.get("__metadata__", {})
    if memory and rng.random() < 0.7:  # JSON in JSON, as the state of a video has it
        name = rng.choice(list(memory))
        try:
            memory[name] = json.dumps(_many(json.loads(memory[name]), rng))
        except ValueError:
            memory[name] = rng.choice(NASTY_TEXTS)
    else:
        head = _many(head, rng)
    new = json.dumps(head).encode()
    path.write_bytes(struct.pack("<Q", rng.choice([len(new)] * 8 + [0, 2**40])) + new + content[8 + length :])
