"""The tiny set of each format, found as the format is: tests/data/formats/FORMAT_set.py."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from pixelwise.data.spec import format_names


def set_module(format: str) -> ModuleType:
    """The module that draws tiny sets of a format."""
    return importlib.import_module(f"tests.data.formats.{format.replace('-', '_')}_set")


def write_tiny_set(format: str, root: Path) -> Path:
    """A faultless set of a few images with a train and a val split."""
    return set_module(format).tiny_set(root)


def formats_with(*parts: str) -> tuple[str, ...]:
    """The formats whose tiny sets have objects, segments, clips or JSON files."""
    return tuple(name for name in format_names() if set(parts) <= set_module(name).HAS)


def formats_without(*parts: str) -> tuple[str, ...]:
    """The formats whose tiny sets have none of these."""
    return tuple(name for name in format_names() if not set(parts) & set_module(name).HAS)
