"""Read text, JSON, TOML and YAML files, or refuse them in one line that names them."""

from __future__ import annotations

import codecs
import json
import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Any

import yaml
from pydantic_core import from_json

from pixelwise.errors import DataError, PixelwiseError

MAX_BYTES = 8 * 2**30
"""Largest size of a file that is read."""

_LONE_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


def read_text(path: Path, *, expected: str = "", error: type[PixelwiseError] = DataError) -> str:
    """Read a file of text: UTF-8, with a byte order mark or without, or UTF-16 with one. Line ends become `\\n`.

    Args:
        path: the file.
        expected: what it should be, such as `one clip a line`; told with every fault.
        error: what is raised.

    Raises:
        PixelwiseError: of that type; the file cannot be read, or is no text.
    """
    text = _decoded(_content(path, expected, error), path, expected, error)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: Path, *, expected: str = "", error: type[PixelwiseError] = DataError) -> list[str]:
    """The lines of a file of text, without their ends. See `read_text`.

    A line ends at `\\n`, `\\r\\n` or `\\r` alone, for names may hold what Unicode calls an end of line.
    """
    return read_text(path, expected=expected, error=error).removesuffix("\n").split("\n")


def read_json(path: Path, *, expected: str = "", error: type[PixelwiseError] = DataError) -> Any:
    """Read a JSON file. See `parse_json` for what is taken.

    Args:
        path: the file.
        expected: what it should be, such as `the JSON that evaluate --shard writes`; told with every fault.
        error: what is raised.

    Raises:
        PixelwiseError: of that type; the file cannot be read, or is no JSON.
    """
    content = _content(path, expected, error)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        content = _decoded(content, path, expected, error).encode()
    return parse_json(content, source=path, expected=expected, error=error)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file. Raises DataError when it is none."""
    try:
        return tomllib.loads(read_text(path))
    except RecursionError:
        raise DataError(f"{path}: not a readable TOML file (nested too deeply)") from None
    except ValueError as fault:
        raise DataError(f"{path}: not a readable TOML file ({fault})") from None


def read_yaml(path: Path, *, as_text: bool = False) -> Any:
    """Read a YAML file of plain values. Raises DataError when it is none, or has aliases, which can swell it.

    Args:
        path: the file.
        as_text: give every value as the text that stands there, so that `on` is no truth value and `1` no number.
    """
    text = read_text(path)
    try:
        return yaml.load(text, Loader=_TextLoader if as_text else _PlainLoader)
    except RecursionError:
        raise DataError(f"{path}: not a readable YAML file (nested too deeply)") from None
    # what PyYAML raises of a value that is not of the type its tag names
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, OverflowError) as fault:
        raise DataError(f"{path}: not a readable YAML file ({' '.join(str(fault).split())})") from None


def _refuse_alias(loader: yaml.SafeLoader | yaml.BaseLoader) -> None:
    if loader.check_event(yaml.AliasEvent):
        raise yaml.YAMLError("it has aliases (*NAME); write the values out")


class _PlainLoader(yaml.SafeLoader):
    """Reads values without references to others."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """A value. Raises YAMLError for an alias."""
        _refuse_alias(self)
        return super().compose_node(parent, index)


class _TextLoader(yaml.BaseLoader):
    """Reads texts without references to others."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """A text. Raises YAMLError for an alias."""
        _refuse_alias(self)
        return super().compose_node(parent, index)


def parse_json(
    content: bytes | str, *, source: object, expected: str = "", error: type[PixelwiseError] = DataError
) -> Any:
    """The value of a JSON text, nested no deeper than 200 levels.

    NaN and infinities are taken, as Python writes them, for those who use a number to refuse it with its place. Of two
    values of one name the later counts.

    Args:
        content: the text, in UTF-8.
        source: what a fault is told of: a file, or a file and a line.
        expected: see `read_json`.
        error: what is raised.

    Raises:
        PixelwiseError: of that type; it is no JSON.
    """
    if isinstance(content, str):
        content = content.encode("utf-8", errors="surrogatepass")
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        if _LONE_SURROGATE.search(content) is None:
            return from_json(content)
        # names of files that are no Unicode, which `json` alone reads; the other for its limits
        from_json(_LONE_SURROGATE.sub(rb"\\u0041", content))
        return json.loads(content)
    except ValueError as fault:
        text = str(fault).replace("recursion limit exceeded", "nested too deeply")
        why = "it is empty" if not content.strip() else text
        raise error(f"{source}: not JSON ({why}){_told(expected)}") from None
    except MemoryError:
        raise error(f"{source}: does not fit into memory") from None


def _content(path: Path, expected: str, error: type[PixelwiseError]) -> bytes:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if stat.S_ISCHR(status.st_mode):
                raise error(f"{path}: a device, not a file")
            if status.st_size > MAX_BYTES:
                raise error(f"{path}: {status.st_size:,} bytes; at most {MAX_BYTES:,} are read")
            return file.read()
    except OSError as fault:
        raise error(f"{path}: {(fault.strerror or str(fault)).lower()}{_told(expected)}") from None
    except ValueError as fault:  # a null character in the name
        raise error(f"{path}: not the name of a file ({fault})") from None
    except MemoryError:
        raise error(f"{path}: does not fit into memory") from None


def _decoded(content: bytes, path: Path, expected: str, error: type[PixelwiseError]) -> str:
    is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_wide else "utf-8-sig")
    except UnicodeDecodeError as fault:
        place = f"byte {content[fault.start]:#04x} at {fault.start:,}"
        told = _told(expected) or "; save it as UTF-8"
        raise error(
            f"{path}: not a readable text file (no {'UTF-16' if is_wide else 'UTF-8'}: {place}){told}"
        ) from None


def _told(expected: str) -> str:
    return f"; expected {expected}" if expected else ""
