"""Pairs whose masks have a suffix that nobody said."""

from __future__ import annotations

from pathlib import Path

import pytest

from pixelwise.data.spec import DataSpec, open_dataset
from pixelwise.data.tools.check import check_dataset
from pixelwise.errors import DataError
from tests.data.drawing import write_image, write_mask


@pytest.mark.parametrize("format", ["masks", "instance-masks"])
def test_a_suffix_that_nobody_said_is_named_once(format: str, tmp_path: Path) -> None:
    for seed in range(6):
        write_image(tmp_path / "images" / "train" / f"{seed}0.png", seed=seed)
        write_mask(tmp_path / "masks" / "train" / f"{seed}0_mask.png")
    if format == "masks":
        (tmp_path / "labels.txt").write_text("floor\nwall\n")
    for look in (lambda: open_dataset(f"{format}:{tmp_path}", default_split="train"),
                 lambda: check_dataset(DataSpec.parse(f"{format}:{tmp_path}"))):  # fmt: skip
        with pytest.raises(DataError, match=r"6 of 6 have '_mask' behind it: add \?suffix=_mask to the specification"):
            look()
    assert check_dataset(DataSpec.parse(f"{format}:{tmp_path}?suffix=_mask")).faults() == ()
