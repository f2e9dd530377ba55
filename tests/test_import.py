"""`import pixelwise` loads nothing heavy, and offers what it says."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pixelwise

LIST_MODULES = "import sys; before = set(sys.modules); import pixelwise; print(sorted(set(sys.modules) - before))"


def modules_loaded_by_import() -> list[str]:
    result = subprocess.run([sys.executable, "-c", LIST_MODULES], capture_output=True, text=True, check=True)
    return ast.literal_eval(result.stdout)


def test_import_loads_the_package_alone() -> None:
    loaded = modules_loaded_by_import()
    assert [name for name in loaded if name.startswith("pixelwise")] == ["pixelwise"]
    foreign = {name.partition(".")[0] for name in loaded} - {"pixelwise"}
    assert foreign <= set(sys.stdlib_module_names)


def test_the_public_names() -> None:
    """Removing one breaks somebody's program; adding one is a promise."""
    assert sorted(pixelwise.__all__) == ["LabelSet", "PixelwiseError", "Predictor", "Scene", "__version__", "load"]
    assert dir(pixelwise) == sorted(pixelwise.__all__)


@pytest.mark.parametrize("name", pixelwise.__all__)
def test_public_names_resolve(name: str) -> None:
    value = getattr(pixelwise, name)
    assert value is not None
    if name != "__version__":
        assert value.__doc__
        assert value.__module__.startswith("pixelwise.")


def test_names_that_are_not_there_are_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'pixelwise' has no attribute 'nothing'"):
        _ = pixelwise.nothing  # pyright: ignore[reportAttributeAccessIssue]


def test_every_module_has_a_docstring_and_a_proper_name() -> None:
    root = Path(pixelwise.__file__).parent
    files = sorted(root.rglob("*.py"))
    assert len(files) > 40
    for file in files:
        assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), f"{file} has no docstring"
        assert file.stem not in {"utils", "common", "helpers", "misc", "base"}
