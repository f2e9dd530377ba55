"""One format is one module or package of data/formats: no other file of the package knows it by name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pixelwise
from pixelwise.data.kinds.folders import published_names
from pixelwise.data.spec import format_names
from pixelwise.metrics.choice import DEFINITIONS

SOURCE = Path(pixelwise.__file__).parent
FORMATS = SOURCE / "data" / "formats"

SHARED = {"masks", *published_names(), *(name.replace("_", "-") for name in published_names())}
"""Names of formats that name something else too: label sets, and the word."""


@cache
def nodes_outside() -> list[tuple[str, ast.AST]]:
    """The constants, comparisons and imports of all files outside of the formats, with their places."""
    kinds = (ast.Compare, ast.Constant, ast.Import, ast.ImportFrom)
    return [
        (f"{path.relative_to(SOURCE)}:{getattr(node, 'lineno', 0)}", node)
        for path in SOURCE.rglob("*.py")
        if not path.is_relative_to(FORMATS)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, kinds)
    ]


def names_in(node: ast.AST) -> set[str]:
    return {one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)}


def known_by(name: str) -> Iterator[str]:
    """The places outside of its module that know a format."""
    module = f"pixelwise.data.formats.{name.replace('-', '_')}"
    for place, node in nodes_outside():
        if (
            (isinstance(node, ast.Compare) and name in names_in(node) and "format" in ast.unparse(node))
            or (isinstance(node, ast.Constant) and node.value == name and name not in SHARED | set(DEFINITIONS))
            or (isinstance(node, ast.Import) and any(alias.name.startswith(module) for alias in node.names))
        ):
            yield place
        elif isinstance(node, ast.ImportFrom) and node.module:
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            if any(f"{one}.".startswith(f"{module}.") for one in full):
                yield place


def test_no_other_file_knows_a_format() -> None:
    found = {name: [*known_by(name)] for name in format_names()}
    assert {name: places for name, places in found.items() if places} == {}


def test_nothing_is_looked_up_on_formats_or_data_sets_by_name() -> None:
    for path in (SOURCE / "data").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("getattr", "hasattr")
            ):
                subject = ast.unparse(node.args[0])
                assert "format" not in subject, f"{path}: {ast.unparse(node)}"
                assert "dataset" not in subject, f"{path}: {ast.unparse(node)}"


def test_every_format_has_its_tiny_set_beside_its_tests() -> None:
    here = Path(__file__).parent
    assert {f"{name.replace('-', '_')}_set.py" for name in format_names()} == {
        file.name for file in here.glob("*_set.py")
    }
