"""The private copy of a network: the same outputs, and those of the weights as they are now."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any, NamedTuple

import pytest
import torch
import torchvision
from torch import Tensor, nn

from pixelwise.contracts import Traits
from pixelwise.inference import fusion
from pixelwise.inference.fusion import FusedConv, fused_copy
from pixelwise.inference.predictor import Predictor
from pixelwise.inference.systems import system_module, system_names
from pixelwise.models import deeplab_v3_plus
from pixelwise.ops.resize_rule import ResizeRule
from tests.inference.simple_models import noise, pointwise_card


class Output(NamedTuple):
    logits: Tensor


class Network(nn.Module):
    """Any layers as a system."""

    traits = Traits()

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Output:
        return Output(self.layers(images))

    def features(self, images: Tensor) -> tuple[Tensor]:
        return (self(images).logits,)


def lively(network: nn.Module) -> nn.Module:
    """With batch norms that do something."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.2, 3)
            if module.affine:
                nn.init.uniform_(module.weight, -2, 2)
                nn.init.normal_(module.bias)
    return network.eval()


def require_same(network: nn.Module, fused: nn.Module | None, images: Tensor) -> None:
    assert fused is not None
    with torch.inference_mode():
        pairs = zip(network.features(images), fused.features(images), strict=True)
        for wanted, found in pairs:
            assert wanted.std() > 0
            torch.testing.assert_close(found, wanted, rtol=0, atol=5e-5 * float(wanted.abs().max()))


def kinds(network: nn.Module | None, kind: type[nn.Module]) -> int:
    assert network is not None
    return sum(isinstance(module, kind) for module in network.modules())


SMALL = ("mobilenet_v2", "resnet18", "resnet50", "efficientnet_lite0")


@pytest.mark.parametrize("backbone", SMALL)
@pytest.mark.parametrize("name", system_names())
def test_every_system_has_a_faster_copy(name: str, backbone: str):
    build = system_module(name).build
    if "backbone" not in inspect.signature(build).parameters:
        pytest.skip(f"{name} has no backbone to choose")
    if system_module(name).TASK != "semantic" and backbone != SMALL[0]:
        pytest.skip("objects are looked for with one backbone; the others are tested with classes")
    network = lively(build(num_classes=5, backbone=backbone))
    for part in network.modules():  # FCN's scores begin at zero
        if isinstance(part, nn.Conv2d) and part.out_channels == 5:
            nn.init.normal_(part.weight)
    fused = fused_copy(network)
    require_same(network, fused, torch.rand(1, 3, 96, 64))
    assert kinds(fused, FusedConv) >= 10


def test_efficientnet_lite_is_fused_wholly():
    network = lively(deeplab_v3_plus.build(num_classes=3, backbone="efficientnet_lite0", channels=16))
    fused = fused_copy(network)
    require_same(network, fused, torch.rand(1, 3, 75, 64))
    assert kinds(fused, nn.BatchNorm2d) == kinds(fused, nn.Conv2d) == 0


def test_channels_last_and_maps_large_enough_for_winograd(monkeypatch: pytest.MonkeyPatch):
    used = []
    original = fusion.winograd_convolution
    monkeypatch.setattr(fusion, "winograd_convolution", lambda *a, **b: used.append(1) or original(*a, **b))
    layers = [nn.Conv2d(3, 128, 1), nn.Conv2d(128, 130, 3, padding=2, dilation=2, bias=False), nn.BatchNorm2d(130)]
    network = lively(Network(*layers, nn.ReLU(), nn.Conv2d(130, 4, 3, padding=1)))
    images = torch.rand(2, 3, 40, 37).contiguous(memory_format=torch.channels_last)
    require_same(network, fused_copy(network), images)
    assert used


@pytest.mark.parametrize(
    ("layers", "norms"),
    [
        ([nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU()], 0),
        ([nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)], 1),
        ([nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)], 1),
        ([nn.Conv2d(3, 4, 3, padding=1), nn.Dropout(), nn.BatchNorm2d(4)], 1),
        ([nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.ReLU6()], 1),
        ([nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4, affine=False)], 0),
        ([nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4, track_running_stats=False)], 1),
        ([nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(4)], 1),
        ([nn.Conv2d(3, 4, 3, padding="same", dilation=2), nn.BatchNorm2d(4), nn.Hardswish()], 0),
        ([nn.Conv2d(3, 6, 3, groups=3, stride=2), nn.BatchNorm2d(6), nn.LeakyReLU()], 0),
        ([nn.ConvTranspose2d(3, 4, 3), nn.BatchNorm2d(4)], 1),
        ([nn.Sequential(nn.Conv2d(3, 4, 1)), nn.BatchNorm2d(4)], 1),
        ([nn.Sequential(nn.Conv2d(3, 4, (1, 3), padding=(0, 1)), nn.BatchNorm2d(4), nn.Sigmoid())], 0),
    ],
)
def test_batch_norm_goes_into_the_convolution_right_before_it_alone(layers: list[nn.Module], norms: int):
    network = lively(Network(*layers))
    fused = fused_copy(network)
    require_same(network, fused, torch.rand(1, 3, 20, 30))
    assert kinds(fused, nn.BatchNorm2d) == norms


@pytest.mark.parametrize(
    "block",
    [
        torchvision.models.resnet.Bottleneck(16, 4),
        torchvision.models.resnet.BasicBlock(16, 16),
        torchvision.models.mobilenetv2.InvertedResidual(16, 16, 1, 6),
        torchvision.models.mobilenetv2.InvertedResidual(16, 16, 1, 1),
        torchvision.models.mobilenetv2.InvertedResidual(16, 24, 1, 6),
    ],
)
def test_residual_blocks(block: nn.Module):
    network = lively(Network(nn.Conv2d(3, 16, 3), block))
    require_same(network, fused_copy(network), torch.rand(1, 3, 20, 30))


def test_a_convolution_in_two_places_keeps_both_norms():
    shared = nn.Conv2d(3, 3, 3, padding=1)
    network = lively(Network(shared, nn.BatchNorm2d(3), nn.Sequential(shared, nn.BatchNorm2d(3), nn.ReLU())))
    require_same(network, fused_copy(network), torch.rand(1, 3, 9, 9))


def test_a_network_that_reaches_into_its_layers_is_left_as_it_is():
    class Reaching(Network):
        def forward(self, images: Tensor) -> Output:
            return Output(torch.nn.functional.conv2d(images, self.layers[0].weight))

    assert fused_copy(Reaching(nn.Conv2d(3, 4, 1)).eval()) is None


def test_another_output_is_noticed(monkeypatch: pytest.MonkeyPatch):
    def wrong(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
        return conv

    monkeypatch.setattr(fusion, "fuse_conv_bn_eval", wrong)
    assert fused_copy(lively(Network(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))) is None


@pytest.fixture
def predictor() -> Predictor:
    torch.manual_seed(0)
    module = lively(deeplab_v3_plus.build(num_classes=3, backbone="mobilenet_v2", channels=16))
    return Predictor(module, pointwise_card(system="deeplab_v3_plus", resize=ResizeRule(length=64)), device="cpu")


IMAGE = noise(64, 48)


def by_the_stored_module(predictor: Predictor) -> Tensor:
    tensor = next(predictor.model.parameters())
    with torch.no_grad():
        return predictor.model(IMAGE[None].to(tensor.dtype) / 255).logits[0].float()


def require_stored_prediction(predictor: Predictor) -> None:
    wanted = by_the_stored_module(predictor)
    torch.testing.assert_close(predictor.logits(IMAGE), wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))


def test_predictions_follow_the_stored_module(predictor: Predictor):
    keys = list(predictor.model.state_dict())
    require_stored_prediction(predictor)
    assert predictor.network() is not predictor.model
    before = predictor.network()
    assert predictor.network() is before
    model: Any = predictor.model
    with torch.no_grad():
        model.classifier.weight.mul_(-2)
    require_stored_prediction(predictor)
    model.load_state_dict({key: tensor * 0.9 for key, tensor in model.state_dict().items()})
    require_stored_prediction(predictor)
    model.decoder.refine[0] = copy.deepcopy(model.decoder.refine[0])
    nn.init.normal_(model.decoder.refine[0][3].weight, std=0.1)
    require_stored_prediction(predictor)
    model.classifier.bias.data = torch.tensor([5.0, 6, 7])
    require_stored_prediction(predictor)
    model.double()
    require_stored_prediction(predictor)
    assert predictor.logits(IMAGE).dtype == torch.float32
    assert list(model.state_dict()) == keys


def test_a_change_that_torch_does_not_count_needs_a_refresh(predictor: Predictor):
    before = predictor.logits(IMAGE)
    model: Any = predictor.model
    model.classifier.bias.data.add_(100)
    predictor.refresh()
    require_stored_prediction(predictor)
    assert (predictor.logits(IMAGE) - before).mean() > 90


def test_hooks_and_training_mode_are_those_of_the_stored_module(predictor: Predictor):
    seen = []
    model: Any = predictor.model
    predictor.logits(IMAGE)
    handle = model.classifier.register_forward_hook(lambda *_: seen.append(1))
    predictor.logits(IMAGE)
    assert seen == [1]
    handle.remove()
    assert predictor.network() is not model
    model.decoder.train()
    assert predictor.network() is model
    model.eval()
    assert predictor.network() is not model


def test_predictors_can_be_copied_and_pickled(predictor: Predictor):
    wanted = predictor.logits(IMAGE)
    for other in (copy.deepcopy(predictor), pickle.loads(pickle.dumps(predictor))):
        assert torch.allclose(other.logits(IMAGE), wanted, atol=1e-5)


def test_the_auxiliary_classifier_is_not_computed():
    build = system_module("deeplab_v3").build
    network = lively(build(num_classes=3, backbone="resnet18", auxiliary=True))
    fused = fused_copy(network)
    require_same(network, fused, torch.rand(1, 3, 64, 64))
    with torch.inference_mode():
        assert network(torch.rand(1, 3, 64, 64)).aux_logits is not None
        assert fused is not None
        assert fused(torch.rand(1, 3, 64, 64)).aux_logits is None
