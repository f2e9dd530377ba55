"""Label files that other tools write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.data.kinds.folders import names_colours, read_labels
from pixelwise.data.spec import DataSpec, open_dataset
from pixelwise.data.tools.check import check_dataset
from pixelwise.errors import DataError
from tests.data.formats import voc_set

LABELMAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nleaf:48,112,32::\nstem:176,112,32::\n"


def test_labelmap_of_cvat_tells_names_and_colours(tmp_path: Path) -> None:
    file = tmp_path / "labelmap.txt"
    file.write_text(LABELMAP)
    labels = read_labels(file)
    assert labels.names == ("background", "leaf", "stem")
    assert labels.palette == ((0, 0, 0), (48, 112, 32), (176, 112, 32))
    assert names_colours(tmp_path, {})
    assert not names_colours(tmp_path, {"labels": "voc"})


def test_masks_of_cvat_hold_its_colours(tmp_path: Path) -> None:
    voc_set.voc(tmp_path, {"train": "ab"})
    (tmp_path / "labelmap.txt").write_text(LABELMAP)
    for name in "ab":
        pixels = np.array([[(0, 0, 0)] * 2 + [(48, 112, 32)] * 2 + [(176, 112, 32)] * 2] * 4, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "SegmentationClass" / f"{name}.png")
    dataset = open_dataset(f"voc:{tmp_path}", default_split="train")
    semantic = dataset[0].truth.semantic
    assert semantic is not None
    assert semantic[0].tolist() == [0, 0, 1, 1, 2, 2]
    assert check_dataset(DataSpec.parse(f"voc:{tmp_path}")).faults() == ()


def test_ids_of_roboflow(tmp_path: Path) -> None:
    file = tmp_path / "_classes.csv"
    file.write_text("Pixel Value, Class\n0, background\n7, leaf\n")
    labels = read_labels(file)
    assert (labels.names, labels.dataset_ids) == (("background", "leaf"), (0, 7))
    file.write_text("Pixel Value, Class\nleaf\n")
    with pytest.raises(DataError, match=r"_classes\.csv: expected a line 'Pixel Value, Class'"):
        read_labels(file)
