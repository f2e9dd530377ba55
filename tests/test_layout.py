"""Tests stand where the rooms stand that they test, and what they share lies in modules that are no tests."""

from __future__ import annotations

import ast
from pathlib import Path

import pixelwise

TESTS = Path(__file__).parent
SOURCE = Path(pixelwise.__file__).parent
OF_THE_WHOLE = {"contract", "docs", "fuzz", "learning", "packaging"}
"""Rooms of tests that go through many rooms of the package, or beyond it."""


def imported_modules(tree: ast.Module) -> set[str]:
    """Names of modules, and of what is taken from them, which may be modules."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module or ''}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "import " in node.value:
            found |= scripts_imports(node.value)
    return found


def scripts_imports(text: str) -> set[str]:
    """Of a script that is kept as a string; prose has none."""
    try:
        return imported_modules(ast.parse(text))
    except SyntaxError:
        return set()


def test_imports_are_found_in_code_and_in_scripts_that_are_strings() -> None:
    tree = ast.parse("from a.b import c\n\ndef f():\n    import d\n\nSCRIPT = 'import e.f; from g import h'")
    assert imported_modules(tree) == {"a.b.c", "d", "e.f", "g.h"}


def is_test_module(name: str) -> bool:
    """Whether `tests.ROOM.test_MODULE`, or something in it."""
    return name.startswith("tests.") and any(
        (TESTS.parent / "/".join(name.split(".")[:count])).with_suffix(".py").exists()
        for count, part in enumerate(name.split("."), start=1)
        if part.startswith("test_")
    )


def test_no_test_module_is_imported() -> None:
    assert is_test_module("tests.test_layout")
    assert is_test_module("tests.test_layout.is_test_module")
    wrong = [
        f"{path.relative_to(TESTS)} imports {module}"
        for path in sorted(TESTS.rglob("*.py"))
        for module in sorted(imported_modules(ast.parse(path.read_text("utf-8"))))
        if is_test_module(module)
    ]
    assert not wrong


def test_rooms_of_tests_are_those_of_the_package() -> None:
    rooms = {str(path.parent.relative_to(TESTS)) for path in TESTS.rglob("test_*.py")}
    assert sorted(room for room in rooms if not (SOURCE / room).is_dir()) == sorted(OF_THE_WHOLE)
