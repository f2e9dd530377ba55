"""Classifiers of torchvision and timm as backbones: the same maps, and nothing taken for what it is not."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision

from pixelwise.errors import CheckpointError
from pixelwise.importers.backbones import convert_backbone
from pixelwise.importers.torchvision import BACKBONES
from pixelwise.nn.backbones import build_backbone
from tests.importers.foreign_networks import require_equal
from tests.perturbed import perturb_batch_norm


@pytest.mark.parametrize("name", [name for name in BACKBONES if name not in ("resnet101", "resnet152", "vgg16_bn")])
@torch.no_grad()
def test_backbones_take_the_classifiers_weights(name: str) -> None:
    theirs = torchvision.models.get_model(name, weights=None).eval()
    perturb_batch_norm(theirs)
    found = convert_backbone(name, theirs.state_dict())
    assert len(found.skipped) == len(theirs.state_dict()) - len(found.weights) > 0
    backbone = build_backbone(name, output_stride=32).eval()
    backbone.load_state_dict(found.weights)
    images = torch.randn(1, 3, 64, 96)
    if name.startswith("resnet"):
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(images))))
        expected = theirs.layer4(theirs.layer3(theirs.layer2(theirs.layer1(x))))
    else:
        expected = theirs.features[: len(backbone.features)](images)
    require_equal(backbone(images)[-1], expected, 1e-5)


@pytest.mark.parametrize("name", ["resnet18", "regnetx_002", "convnext_atto", "efficientnet_b0"])
@torch.no_grad()
def test_backbones_of_timm_take_its_classifiers_weights(name: str) -> None:
    theirs = timm.create_model(name, pretrained=False).eval()
    perturb_batch_norm(theirs)
    weights = convert_backbone(f"timm/{name}", theirs.state_dict())
    assert {key.removeprefix("network.") for key in weights.weights}.isdisjoint(weights.skipped)
    assert len(weights.skipped) == len(theirs.state_dict()) - len(weights.weights)
    backbone = build_backbone(f"timm/{name}", output_stride=32).eval()
    backbone.load_state_dict(weights.weights)
    images = torch.randn(1, 3, 64, 96)
    expected = theirs.forward_intermediates(images, intermediates_only=True)
    for found, map in zip(backbone(images), expected, strict=True):
        require_equal(found, map, 1e-5)


def test_other_weights_are_refused_by_their_first_tensors() -> None:
    with pytest.raises(CheckpointError, match="backbone 'timm/nothing': one of"):
        convert_backbone("timm/nothing", {})
    with pytest.raises(CheckpointError, match=r"not the weights of resnet18: .* missing \(conv1.weight"):
        convert_backbone("resnet18", {})


@pytest.mark.parametrize(
    ("name", "deeper"), [("resnet50", "resnet101"), ("timm/resnet14t", "resnet26t"), ("resnet18", "resnet34")]
)
def test_a_deeper_classifier_is_none_of_the_shallower_one(name: str, deeper: str) -> None:
    """It has all tensors of the shallower one, of the same shapes, and more."""
    weights = timm.create_model(deeper, pretrained=False).state_dict()
    with pytest.raises(CheckpointError, match=rf"not the weights of {name}: \d+ unexpected \(layer"):
        convert_backbone(name, weights)


def test_heads_of_ones_own_and_counters_are_skipped() -> None:
    weights = torchvision.models.resnet18(weights=None).state_dict()
    del weights["fc.weight"], weights["fc.bias"]
    beside = {"head.0.weight": torch.zeros(7), "total_ops": torch.zeros(1), "layer1.0.total_params": torch.zeros(1)}
    assert convert_backbone("resnet18", {**weights, **beside}).skipped == tuple(beside)
