"""Features in files come back as they were; a folder without room is told in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pixelwise.errors import DataError
from pixelwise.nn.stored_features import StoredFeatures
from pixelwise.ops.superpixels import Regions


def test_features_and_regions_come_back(tmp_path: Path) -> None:
    regions = Regions(torch.tensor([[0, 0, 1]], dtype=torch.int32), torch.tensor([[True, False], [True, True]]))
    features, overlaps = torch.rand(2, 5), torch.tensor([[0.5], [1.0]])
    stored = StoredFeatures(tmp_path)
    stored.write(3, features, regions, objects=torch.tensor([7]), overlaps=overlaps)
    image, again = stored.read(3), stored.read_regions(3)
    assert torch.equal(torch.from_numpy(image.features), features)
    assert image.objects.tolist() == [7]
    assert torch.equal(torch.from_numpy(image.overlaps), overlaps)
    assert torch.equal(again.superpixels, regions.superpixels)
    assert torch.equal(again.members, regions.members)
    with pytest.raises(DataError, match="set TMPDIR to a folder with more room"):
        StoredFeatures(tmp_path / "gone").write(0, features, regions, objects=torch.tensor([7]), overlaps=overlaps)
