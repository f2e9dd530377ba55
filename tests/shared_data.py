"""The slices of public data sets that may lie beside the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[1].parent / "shared" / "data"


def require(folder: str) -> Path:
    """The folder of that name in the shared data; skips the test, naming it, where it is missing."""
    path = SHARED / folder
    if not path.is_dir():
        pytest.skip(f"no folder {path}")
    return path
