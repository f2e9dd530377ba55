from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pixelwise.data.proposals import ProposalFiles
from pixelwise.data.spec import DataSpec, open_dataset
from pixelwise.data.tools.check import check_dataset
from pixelwise.errors import DataError
from pixelwise.ops import rle
from tests.data import drawing
from tests.data.formats import masks_set


def test_npz_files_hold_superpixels_and_members(tmp_path: Path) -> None:
    superpixels = np.array([[7, 7, 9], [7, 12, 9]])  # numbers with gaps
    members = np.array([[1, 0, 0], [0, 1, 1], [1, 1, 1]])
    np.savez(tmp_path / "cat.npz", superpixels=superpixels, members=members)
    regions = ProposalFiles(tmp_path, count=2).regions("cat", (2, 3))
    assert regions.superpixels.tolist() == [[0, 0, 1], [0, 2, 1]]
    assert regions.mask(0).int().tolist() == [[1, 1, 0], [1, 0, 0]]
    assert regions.mask(1).int().tolist() == [[0, 0, 1], [0, 1, 1]]
    assert len(regions.members) == 2


def test_json_holds_masks_and_boxes(tmp_path: Path) -> None:
    mask = np.array([[0, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    entries = [
        {"image_id": 5, "segmentation": rle.encode(mask), "score": 0.9},
        {"image_id": 6, "bbox": [0, 0, 1, 1]},
        {"image_id": 5, "bbox": [1, 1, 9, 2]},
    ]
    (tmp_path / "proposals.json").write_text(json.dumps(entries), encoding="utf-8")
    regions = ProposalFiles(tmp_path / "proposals.json").regions("5", (3, 4))
    assert torch.equal(regions.mask(0), torch.from_numpy(mask).bool())
    assert regions.mask(1).int().tolist() == [[0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 1, 1]]
    assert len(regions.members) == 2


def test_what_is_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.json: no such file or directory; expected a folder"):
        ProposalFiles(tmp_path / "nothing.json")
    file = tmp_path / "proposals.json"
    file.write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match="a list of proposals"):
        ProposalFiles(file)
    file.write_text(json.dumps([{"image_id": "a", "bbox": [1]}]), encoding="utf-8")
    with pytest.raises(DataError, match="no proposals for image 'b'"):
        ProposalFiles(file).regions("b", (2, 2))
    for one in ({"bbox": [1]}, {"bbox": [0, 0, float("nan"), 1]}, {"bbox": [0, 1e999, 1, 1]}, {"bbox": "abcd"}):
        file.write_text(json.dumps([{"image_id": "a", **one}]), encoding="utf-8")
        with pytest.raises(DataError, match="image 'a', proposal 0: expected a segmentation"):
            ProposalFiles(file).regions("a", (2, 2))
    file.write_text(json.dumps([{"image_id": "a", "segmentation": [[0, 0, 1, 1, 0, 1]]}]), encoding="utf-8")
    with pytest.raises(DataError, match="image 'a', proposal 0: its segmentation is no RLE"):
        ProposalFiles(file).regions("a", (2, 2))
    file.write_text(json.dumps([{"image_id": "a", "segmentation": {"size": [3, 2], "counts": [6]}}]), encoding="utf-8")
    with pytest.raises(DataError, match=r"image 'a', proposal 0.*3×2"):
        ProposalFiles(file).regions("a", (2, 2))
    folder = ProposalFiles(tmp_path)
    with pytest.raises(DataError, match=r"a\.npz: expected superpixels and members"):
        folder.regions("a", (2, 2))
    (tmp_path / "a.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"a\.npz"):
        folder.regions("a", (2, 2))
    np.savez(tmp_path / "a.npz", superpixels=np.zeros((2, 3), dtype=int), members=np.ones((1, 2)))
    with pytest.raises(DataError, match=r"2×3, the image is 2×2"):
        folder.regions("a", (2, 2))
    with pytest.raises(DataError, match=r"members of 1×2 for 1 superpixels"):
        folder.regions("a", (2, 3))


def test_any_set_brings_proposals(tmp_path: Path) -> None:
    masks_set.masks(tmp_path / "set", ["cat"])
    height, width = drawing.SIZE_HW
    entries = [{"image_id": "cat", "bbox": [1, 0, 2, 3]}]
    (tmp_path / "set" / "of_train.json").write_text(json.dumps(entries), encoding="utf-8")
    sample = open_dataset(f"masks:{tmp_path}/set@train?proposals=of_{{split}}.json", default_split="val")[0]
    assert sample.proposals is not None
    assert sample.proposals.mask(0).shape == (height, width)
    assert sample.proposals.boxes().tolist() == [[1, 0, 3, 3]]
    assert open_dataset(f"masks:{tmp_path}/set@train", default_split="val")[0].proposals is None
    spec = DataSpec.parse(f"masks:{tmp_path}/set@train?proposals=of_{{split}}.json")
    assert check_dataset(spec).faults() == ()
    (tmp_path / "set" / "of_train.json").write_text("[]", encoding="utf-8")
    (fault,) = check_dataset(spec).splits[0].faults
    assert (fault.kind, fault.where) == ("unusable proposals", "image 'cat'")
    with pytest.raises(DataError, match=r"of_val.json: no such file or directory; expected a folder"):
        open_dataset(f"masks:{tmp_path}/set@train?proposals=of_val.json", default_split="val")
