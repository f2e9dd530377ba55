"""A network's weights are found among the tensors of a file, and what stands beside them is skipped by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from pixelwise.errors import CheckpointError
from pixelwise.importers import semseg
from pixelwise.importers import torchvision as torchvision_family
from pixelwise.importers.backbones import convert_backbone
from pixelwise.importers.fit import fit, model_of
from pixelwise.importers.foreign import ImportedModel
from pixelwise.importers.smp import convert
from pixelwise.importers.weights_file import ForeignWeights
from tests.importers.foreign_networks import normalized, ours, require_equal
from tests.perturbed import perturb_batch_norm

NAME = "smp DeepLabV3Plus"
Weights = dict[str, Tensor]


def perturbed(network: nn.Module) -> nn.Module:
    perturb_batch_norm(network)
    return network.eval()


@pytest.fixture(scope="module")
def weights() -> Weights:
    """Of the smallest network of smp that is known here."""
    torch.manual_seed(0)
    return perturbed(smp.DeepLabV3Plus("mobilenet_v2", encoder_weights=None, classes=3)).state_dict()


def under(*beginnings: str) -> Callable[[Weights], Weights]:
    return lambda weights: {f"{beginning}{key}": tensor for beginning in beginnings for key, tensor in weights.items()}


def inside(word: str) -> Callable[[Weights], Weights]:
    """As where the encoder alone was compiled or made parallel."""
    return lambda weights: {key.replace("encoder.", f"encoder.{word}.", 1): tensor for key, tensor in weights.items()}


def imported(tensors: Weights, **options) -> ImportedModel:
    return fit(partial(model_of, partial(convert, "DeepLabV3Plus"), expected=NAME), ForeignWeights(tensors, **options))


@pytest.mark.parametrize(
    "change",
    [
        under(""),
        *(
            under(beginning)
            for beginning in (
                "module.",
                "model.",
                "net.",
                "_orig_mod.",
                "_orig_mod.module.",
                "module._orig_mod.",
                "model._orig_mod.",
                "state_dict.model.",
                "state_dict.model.net._orig_mod.",
                "ema.module.module.segmenter.",
                "_forward_module._orig_mod.",
                "_fsdp_wrapped_module.model.",
                "any.thing.at.all.",
            )
        ),
        inside("_orig_mod"),
        inside("module"),
        inside("_fsdp_wrapped_module"),
        lambda weights: under("module.")(inside("module")(weights)),
    ],
)
def test_weights_are_found_under_any_names(weights: Weights, change: Callable[[Weights], Weights]) -> None:
    model = imported(change(weights))
    assert not model.skipped
    expected = imported(weights)
    assert list(model.weights) == list(expected.weights)
    assert all(torch.equal(tensor, expected.weights[key]) for key, tensor in model.weights.items())


def test_what_stands_beside_them_is_skipped_by_name(weights: Weights) -> None:
    beside = {
        "mean": torch.zeros(3),
        "std": torch.ones(3),
        "criterion.weight": torch.ones(3),
        "n_averaged": torch.tensor(3),
        "train_iou.tp": torch.zeros(3, dtype=torch.long),
    }
    model = imported({**beside, **under("model.")(weights)})
    assert model.skipped == tuple(beside)
    assert model.notes == ("the tensors under 'model' are taken",)


def test_counters_and_heads_that_are_not_used_are_skipped(weights: Weights) -> None:
    counted = {"total_ops": torch.zeros(1), "encoder.features.0.0.total_params": torch.zeros(1)}
    heads = {"classification_head.3.weight": torch.zeros(4, 1280), "classification_head.3.bias": torch.zeros(4)}
    model = imported({**weights, **counted, **heads})
    assert len(model.skipped) == 4
    assert len(model.weights) == len(weights)


def test_of_several_copies_the_first_is_taken_and_averages_come_last(weights: Weights) -> None:
    average = {key: tensor * 2 if tensor.is_floating_point() else tensor for key, tensor in weights.items()}
    tensors = {**under("model_ema.")(average), **under("model.")(weights)}
    model = imported(tensors)
    key = "classifier.bias"
    assert torch.equal(model.weights[key], imported(weights).weights[key])
    assert len(model.skipped) == len(weights)
    assert "those under 'model_ema' have the same names; --part model_ema takes them" in model.notes


def test_further_entries_of_a_flat_dict_are_named(weights: Weights) -> None:
    model = imported(weights, keys=(*weights, "epoch", "arch"), others=("epoch", "arch"))
    assert model.notes == ("skipped beside the tensors: epoch, arch",)


def test_what_fits_nowhere_is_told_of_the_closest_part_and_with_the_keys_of_the_file(weights: Weights) -> None:
    key = "decoder.block1.0.weight"
    lacking = {name: tensor for name, tensor in weights.items() if name != key}
    tensors = {**under("D.")({"a.weight": torch.zeros(1)}), **under("G.net.")(lacking)}
    with pytest.raises(CheckpointError) as caught:
        imported(tensors, keys=("D", "G", "epoch"))
    assert str(caught.value) == (
        f"not the weights of {NAME}: 1 missing (decoder.project.0.weight), in our names; the file holds D, G, epoch"
    )


def test_too_many_tensors_inside_of_the_network_are_another_network() -> None:
    """A deeper ResNet has all tensors of a shallower one."""
    network = torchvision.models.segmentation.fcn_resnet101(weights=None, weights_backbone=None, num_classes=3)
    family = partial(torchvision_family.convert, "fcn_resnet50")
    with pytest.raises(CheckpointError, match=r"not the weights of fcn: \d+ unexpected \(backbone\.layer3\.6\.conv1"):
        fit(partial(model_of, family, expected="fcn"), ForeignWeights(network.state_dict()))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("key", ["encoder.features.1.conv.0.1.running_var", "segmentation_head.0.weight"])
def test_weights_that_are_not_finite_are_refused_by_their_name(weights: Weights, key: str, value: float) -> None:
    broken = weights[key].clone()
    broken.view(-1)[3] = value
    count = rf"\(1 of {broken.numel()}"
    with pytest.raises(CheckpointError, match=rf"^'model\.{key}' holds NaN or infinite numbers {count}"):
        imported(under("model.")({**weights, key: broken}))
    wide = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    wide[key].view(-1)[3] = 1e300
    with pytest.raises(CheckpointError, match="holds NaN or infinite numbers"):
        imported(wide)
    assert imported({**weights, "criterion.weight": torch.tensor([value])}).skipped == ("criterion.weight",)


def one_channel(name: str) -> tuple[nn.Module, ImportedModel, bool]:
    """A foreign network with one channel and ours, and whether its maps are enlarged with aligned corners."""
    torch.manual_seed(1)
    if name.startswith("smp"):
        architecture = name.removeprefix("smp ")
        theirs = perturbed(getattr(smp, architecture)("resnet18", encoder_weights=None, classes=1))
        last = theirs.segmentation_head[0]
        family = partial(convert, architecture)
    else:
        build = getattr(torchvision.models.segmentation, name)
        theirs = perturbed(build(weights=None, weights_backbone=None, num_classes=1, aux_loss=True))
        last = theirs.classifier[-1]
        family = partial(torchvision_family.convert, name)
    # so that both classes occur
    with torch.no_grad():
        output = theirs(normalized(torch.rand(2, 3, 96, 128)))
        last.bias -= (output if isinstance(output, Tensor) else output["out"]).median()
    model = fit(partial(model_of, family, expected=name), ForeignWeights(theirs.state_dict()))
    return theirs, model, name.startswith("smp")


@pytest.mark.parametrize("name", ["smp DeepLabV3Plus", "smp PSPNet", "fcn_resnet50", "deeplabv3_mobilenet_v3_large"])
@torch.no_grad()
def test_one_channel_with_a_sigmoid_becomes_background_and_foreground(name: str) -> None:
    theirs, model, aligned = one_channel(name)
    assert model.is_sigmoid
    assert model.num_classes == 2
    images = torch.rand(2, 3, 96, 128)
    output = theirs(normalized(images))
    expected = output if aligned else output["out"]
    logits = ours(model)(images).logits
    found = F.interpolate(logits, size=(96, 128), mode="bilinear", align_corners=aligned)
    require_equal(found[:, 1:], expected)
    # softmax of (0, x) is (1 - sigmoid(x), sigmoid(x)); the class is the foreground exactly where sigmoid(x) > 0.5
    assert torch.equal(found[:, 0], torch.zeros_like(found[:, 0]))
    probability = 1 / (1 + torch.exp(-found[:, 1].double()))
    torch.testing.assert_close(found.double().softmax(1)[:, 1], probability, rtol=0, atol=1e-12)
    foreground = found.argmax(1).bool()
    assert torch.equal(foreground, probability > 0.5)
    assert 0 < foreground.sum() < foreground.numel(), "one class everywhere proves nothing"


def test_the_threshold_itself_is_background() -> None:
    logits = torch.tensor([[0.0, -0.0, 1e-3, -1e-3]])
    two = torch.stack([torch.zeros_like(logits), logits], dim=1)
    assert two.argmax(1).tolist() == [[0, 0, 1, 0]]
    assert (logits.sigmoid() > 0.5).tolist() == [[False, False, True, False]]


@pytest.mark.parametrize("name", ["fcn_resnet50", "deeplabv3_mobilenet_v3_large"])
def test_an_auxiliary_classifier_of_other_classes_is_skipped(name: str) -> None:
    build = partial(getattr(torchvision.models.segmentation, name), weights=None, weights_backbone=None, aux_loss=True)
    tensors = build(num_classes=2).state_dict()
    kept = {key: value for key, value in build(num_classes=21).state_dict().items() if key.startswith("aux_")}
    family = partial(torchvision_family.convert, name)
    model = fit(partial(model_of, family, expected=name), ForeignWeights({**tensors, **kept}))
    assert model.num_classes == 2
    assert model.arguments["auxiliary"] is False
    assert len(model.skipped) == len(kept)
    assert "the auxiliary classifier does not fit the main one and is skipped" in model.notes
    ours(model)


def test_so_is_that_of_semseg() -> None:
    tensors = {
        "layer0.0.weight": torch.zeros(64, 3, 3, 3),
        "cls.4.weight": torch.zeros(2, 512, 1, 1),
        "aux.4.weight": torch.zeros(150, 256, 1, 1),
    }
    with pytest.raises(CheckpointError) as caught:
        fit(partial(model_of, partial(semseg.convert, "pspnet50"), expected="x"), ForeignWeights(tensors))
    assert "auxiliary" not in str(caught.value)


@pytest.mark.parametrize("beginning", ["", "module.", "model.net.", "state_dict.model.encoder._orig_mod."])
def test_backbones_are_found_alike(beginning: str) -> None:
    classifier = torchvision.models.resnet18(weights=None).state_dict()
    tensors = {**under(beginning)(classifier), "hparams": torch.zeros(1)}
    found = fit(partial(convert_backbone, "resnet18"), ForeignWeights(tensors))
    assert sorted(found.skipped) == ["fc.bias", "fc.weight", "hparams"]
    assert torch.equal(found.weights["layer4.1.bn2.bias"], classifier["layer4.1.bn2.bias"])


@pytest.mark.parametrize("shape", [(), (0,), (3,), (1, 1), (2, 3, 4, 5, 6)])
@pytest.mark.parametrize("key", ["segmentation_head.0.weight", "encoder.layer1.0.conv3.weight", "encoder.conv1.weight"])
def test_tensors_of_any_shape_end_in_one_line(key: str, shape: tuple[int, ...]) -> None:
    tensors = smp.DeepLabV3Plus("resnet18", encoder_weights=None, classes=3).state_dict()
    with pytest.raises(CheckpointError, match=r"not the weights|not known here"):
        imported({**tensors, key: torch.zeros(shape)})
