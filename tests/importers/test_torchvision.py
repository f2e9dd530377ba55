"""torchvision's own networks and ours with the same weights give the same scores."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from pixelwise.errors import CheckpointError
from pixelwise.importers.backbones import convert_backbone
from pixelwise.importers.foreign import ImportedModel, require_fit
from pixelwise.importers.torchvision import BACKBONES, NETWORKS, convert
from pixelwise.inference.systems import system_module
from pixelwise.nn.backbone import IMAGENET_MEAN, IMAGENET_STD
from pixelwise.nn.backbones import build_backbone
from tests.nn.test_backbones import perturb_batch_norm


def normalized(images: Tensor) -> Tensor:
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    return (images - mean[:, None, None]) / std[:, None, None]


def ours(model: ImportedModel) -> nn.Module:
    network = system_module(model.system).build(num_classes=model.num_classes, **model.arguments).eval()
    require_fit(model.weights, network.state_dict(), source="theirs", expected="ours")
    network.load_state_dict(model.weights, strict=False)
    return network


def require_equal(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Within the tolerance of the largest value, which is small in random networks."""
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())


@pytest.mark.parametrize("auxiliary", [True, False])
@pytest.mark.parametrize("name", [name for name, (system, _) in NETWORKS.items() if system != "mask_rcnn"])
@torch.no_grad()
def test_scores_are_theirs(name: str, auxiliary: bool) -> None:
    if "101" in name and not auxiliary:
        pytest.skip("the depth changes nothing about the missing head")
    torch.manual_seed(0)
    build = getattr(torchvision.models.segmentation, name)
    theirs = build(weights=None, weights_backbone=None, num_classes=7, aux_loss=auxiliary).eval()
    perturb_batch_norm(theirs)
    network = ours(convert(name, theirs.state_dict()))
    images = torch.rand(2, 3, 97, 65)
    expected, found = theirs(normalized(images)), network(images)
    for key, logits in (("out", found.logits), ("aux", found.aux_logits)):
        if key not in expected:
            assert logits is None
            continue
        assert float(expected[key].std()) > 1e-3, "a flat answer proves nothing"
        require_equal(F.interpolate(logits, size=(97, 65), mode="bilinear", align_corners=False), expected[key])


def test_another_network_is_named_with_the_first_keys_that_differ() -> None:
    weights = torchvision.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None).state_dict()
    model = convert("deeplabv3_resnet50", weights)
    network = system_module(model.system).build(num_classes=21, **model.arguments)
    with pytest.raises(CheckpointError, match=r"w\.pth: not the weights of .*missing \(context\.branches"):
        require_fit(model.weights, network.state_dict(), source="w.pth", expected="torchvision deeplabv3_resnet50")


@pytest.mark.parametrize("name", [name for name in BACKBONES if name not in ("resnet101", "resnet152", "vgg16_bn")])
@torch.no_grad()
def test_backbones_take_the_classifiers_weights(name: str) -> None:
    theirs = torchvision.models.get_model(name, weights=None).eval()
    perturb_batch_norm(theirs)
    weights, left_out = convert_backbone(name, theirs.state_dict(), source="theirs")
    assert left_out == len(theirs.state_dict()) - len(weights) > 0
    backbone = build_backbone(name, output_stride=32).eval()
    backbone.load_state_dict(weights)
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
    import timm

    theirs = timm.create_model(name, pretrained=False).eval()
    perturb_batch_norm(theirs)
    weights, _ = convert_backbone(f"timm/{name}", theirs.state_dict(), source="theirs")
    backbone = build_backbone(f"timm/{name}", output_stride=32).eval()
    backbone.load_state_dict(weights)
    images = torch.randn(1, 3, 64, 96)
    expected = theirs.forward_intermediates(images, intermediates_only=True)
    for found, map in zip(backbone(images), expected, strict=True):
        require_equal(found, map, 1e-5)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(
        CheckpointError, match=r"no weights of fcn: none of the tensors \(a, …\) gives scores of classes"
    ):
        _ = convert("fcn_resnet50", {"a": torch.zeros(1)}).num_classes
    with pytest.raises(CheckpointError, match="'lraspp' here; there are fcn_resnet50"):
        convert("lraspp", {})
    with pytest.raises(CheckpointError, match="backbone 'timm/nothing': one of"):
        convert_backbone("timm/nothing", {}, source="x")
    with pytest.raises(CheckpointError, match=r"x: not the weights of resnet18: .* missing \(conv1.weight"):
        convert_backbone("resnet18", {}, source="x")


def test_pickles_with_code_are_not_run(tmp_path: Path) -> None:
    from pixelwise.importers.foreign import read_foreign

    marker = tmp_path / "was_run"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            import os

            return os.mkdir, (str(marker),)

    torch.save({"state_dict": {"weight": torch.zeros(1)}, "more": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match=r"evil\.pth: holds more than tensors, which could run code"):
        read_foreign(tmp_path / "evil.pth")
    assert not marker.exists()
    (tmp_path / "torn.pth").write_bytes((tmp_path / "evil.pth").read_bytes()[:200])
    with pytest.raises(CheckpointError, match=r"torn\.pth: "):
        read_foreign(tmp_path / "torn.pth")
    with pytest.raises(CheckpointError, match="no such file"):
        read_foreign(tmp_path / "none.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="a state dict is wanted, tensors by name, not a list"):
        read_foreign(tmp_path / "list.pth")
    torch.save({"state_dict": {"module.a": torch.ones(1), "module.b": torch.ones(2)}}, tmp_path / "wrapped.pth")
    assert list(read_foreign(tmp_path / "wrapped.pth")) == ["a", "b"]
