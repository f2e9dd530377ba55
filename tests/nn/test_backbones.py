"""Backbones against the classifiers they come from, and dilation against the identity that defines it."""

from __future__ import annotations

from inspect import unwrap
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from pixelwise.errors import CheckpointError, RecipeError
from pixelwise.nn import backbones
from pixelwise.nn.backbone import Backbone
from pixelwise.nn.backbones import (
    EFFICIENTNET_LITES,
    MobileNetV3Backbone,
    VGGBackbone,
    build_backbone,
    freeze_batch_norm,
    freeze_stages,
    load_backbone,
)
from tests.perturbed import perturb_batch_norm


def pair(name: str, output_stride: int, **options) -> tuple[nn.Module, nn.Module]:
    """The same weights at stride 32 and dilated."""
    plain = build_backbone(name, output_stride=32).eval()
    perturb_batch_norm(plain)
    dilated = build_backbone(name, output_stride=output_stride, **options).eval()
    dilated.load_state_dict(plain.state_dict())
    return plain, dilated


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50", "resnet50_deep_stem", "resnet50_stride_in_1x1", "mobilenet_v2"]
)
@torch.no_grad()
def test_a_dilated_map_holds_the_strided_one(name: str, output_stride: int) -> None:
    """À trous: with the first block at the former dilation, every (32 / stride)-th place is the strided network's."""
    plain, dilated = pair(name, output_stride)
    images = torch.randn(1, 3, 128, 160)
    for full, thin, stride in zip(dilated(images), plain(images), plain.strides, strict=True):
        step = max(1, stride // output_stride)
        assert (full[:, :, ::step, ::step] - thin).abs().max() <= 1e-5 * max(1, thin.abs().max())
        assert full.shape[2] == 128 // min(stride, output_stride)


@pytest.mark.parametrize("name", EFFICIENTNET_LITES)
@torch.no_grad()
def test_efficientnet_lite_is_timms_at_every_size(name: str) -> None:
    """Sides that halve evenly, oddly and both: TensorFlow pads each differently."""
    ours = build_backbone(name, output_stride=32).eval()
    perturb_batch_norm(ours)
    theirs = timm.create_model(f"tf_{name}", features_only=True).eval()
    theirs.load_state_dict(ours.state_dict())
    assert ours.mean == ours.std == tuple(timm.get_pretrained_cfg(f"tf_{name}").mean) == (0.5, 0.5, 0.5)
    for height, width in ((64, 96), (65, 33), (50, 75)):
        images = torch.randn(2, 3, height, width)
        maps = ours(images)
        assert tuple(x.shape[1] for x in maps) == ours.channels
        for found, wanted in zip(maps, theirs(images), strict=True):
            torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize(("height", "width", "places"), [(65, 97, "first"), (64, 96, "last")])
@torch.no_grad()
def test_a_dilated_map_of_efficientnet_lite_holds_the_strided_one(
    height: int, width: int, places: str, output_stride: int
) -> None:
    """Strided convolutions pad odd sides evenly and lie on the first place of each stride; on the last of even ones."""
    plain, dilated = pair("efficientnet_lite0", output_stride)
    images = torch.randn(1, 3, height, width)
    for full, thin, stride in zip(dilated(images), plain(images), plain.strides, strict=True):
        step = max(1, stride // output_stride)
        first = 0 if places == "first" else step - 1
        torch.testing.assert_close(full[:, :, first::step, first::step], thin, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("count", [1, 3, 5])
@torch.no_grad()
def test_the_first_stages_of_efficientnet_lite_run_alone(count: int) -> None:
    backbone = build_backbone("efficientnet_lite0", output_stride=32).eval()
    images = torch.randn(1, 3, 64, 64)
    maps = backbone(images)
    first = backbone.first_maps(images, count)
    in_stages = {id(part) for stage in backbone.stages() for module in stage for part in module.parameters()}
    assert in_stages == {id(part) for part in backbone.parameters()}
    backbone.shorten(count)
    assert len(backbone.stages()) == len(backbone.strides) == len(backbone.channels) == count
    for found, alone, wanted in zip(first, backbone(images), maps, strict=False):
        assert torch.equal(found, wanted)
        assert torch.equal(alone, wanted)


@torch.no_grad()
def test_full_dilation_of_the_first_block_is_another_network() -> None:
    _, previous = pair("resnet50", 8)
    _, full = pair("resnet50", 8, first_block="full")
    images = torch.randn(1, 3, 96, 96)
    assert (previous(images)[-1] - full(images)[-1]).abs().max() > 1e-2
    assert [conv.dilation[0] for conv in dilated_convolutions(full.layer4)] == [4, 4, 4]
    assert [conv.dilation[0] for conv in dilated_convolutions(previous.layer4)] == [2, 4, 4]


def dilated_convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d) and module.dilation != (1, 1)]


@pytest.mark.parametrize(
    ("name", "first_block", "output_stride", "expected"),
    [
        # layer3 has 6 blocks, layer4 3; the first dilated block keeps the former dilation, 1 in the first dilated stage
        ("resnet50", "previous", 16, {2: 2}),
        ("resnet50", "previous", 8, {2: 5 + 1, 4: 2}),
        ("resnet101", "previous", 8, {2: 22 + 1, 4: 2}),
        ("resnet50", "full", 16, {2: 3}),
        ("resnet50", "full", 8, {2: 6, 4: 3}),
        ("resnet50_deep_stem", "full", 8, {2: 6, 4: 3}),
        # blocks of two 3×3 convolutions; the first of the first stands before the stride
        ("resnet18", "previous", 8, {2: 3 + 1, 4: 3}),
        ("resnet18", "full", 8, {2: 4, 4: 4}),
        # here the 3×3 convolution stands after the stride, and never has the former dilation
        ("resnet50_stride_in_1x1", "previous", 8, {2: 6, 4: 3}),
        # stride-16 blocks 7-13, stride-32 blocks 14-17, one depthwise convolution each
        ("mobilenet_v2", "previous", 16, {2: 3}),
        ("mobilenet_v2", "previous", 8, {2: 6 + 1, 4: 3}),
        ("mobilenet_v2_1280", "full", 16, {2: 4}),
        ("mobilenet_v2_1280", "full", 8, {2: 7, 4: 4}),
        # the three blocks of 160 channels; before them, six of 80 and 112
        ("mobilenet_v3_large", "previous", 16, {2: 2}),
        ("mobilenet_v3_large", "full", 16, {2: 3}),
        ("mobilenet_v3_large", "full", 8, {2: 6, 4: 3}),
        ("mobilenet_v3_small", "full", 16, {2: 3}),
    ],
)
def test_dilated_convolutions_are_counted(
    name: str, first_block: Any, output_stride: int, expected: dict[int, int]
) -> None:
    counts: dict[int, int] = {}
    with torch.device("meta"):
        backbone = build_backbone(name, output_stride=output_stride, first_block=first_block)
        maps = backbone(torch.empty(1, 3, 129, 193, device="meta"))
    assert [x.shape[1:] for x in maps] == [
        (width, 128 // stride + 1, 192 // stride + 1)
        for width, stride in zip(backbone.channels, backbone.strides, strict=True)
    ]
    assert backbone.strides[-1] == output_stride
    for conv in dilated_convolutions(backbone):
        counts[conv.dilation[0]] = counts.get(conv.dilation[0], 0) + 1
    # blocks 7-9 of MobileNet V2 (64 channels) and 10-13 (96) share stride 16, so its first dilated stage has 7 blocks
    assert counts == expected


@pytest.mark.parametrize(("output_stride", "rates"), [(16, [1, 4, 8]), (8, [2, 8, 16])])
def test_multi_grid_multiplies_the_last_stage(output_stride: int, rates: list[int]) -> None:
    """Rates of the three 3×3 convolutions of layer4: base × (1, 2, 4), the first block at the former base."""
    backbone = build_backbone("resnet50", output_stride=output_stride, multi_grid=(1, 2, 4))
    found = [
        module.dilation[0]
        for module in backbone.layer4.modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
    ]
    assert found == rates


@pytest.mark.parametrize(("output_stride", "replace"), [(16, (False, False, True)), (8, (False, True, True))])
@torch.no_grad()
def test_resnet_equals_torchvision_dilated(output_stride: int, replace: tuple[bool, bool, bool]) -> None:
    theirs = torchvision.models.resnet50(weights=None, replace_stride_with_dilation=list(replace)).eval()
    perturb_batch_norm(theirs)
    ours = build_backbone("resnet50", output_stride=output_stride).eval()
    ours.load_state_dict({key: value for key, value in theirs.state_dict().items() if not key.startswith("fc.")})
    images = torch.randn(1, 3, 65, 97)
    x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(images))))
    for stage, found in zip(("layer1", "layer2", "layer3", "layer4"), ours(images), strict=True):
        x = getattr(theirs, stage)(x)
        assert (found - x).abs().max() <= 1e-5 * max(1, x.abs().max())


@torch.no_grad()
def test_mobilenet_equals_torchvision_at_stride_32(tmp_path) -> None:
    theirs = torchvision.models.mobilenet_v2(weights=None).eval()
    perturb_batch_norm(theirs)
    save_file(theirs.state_dict(), tmp_path / "weights.safetensors")
    ours = build_backbone("mobilenet_v2", output_stride=32).eval()
    loaded = load_backbone(ours, "mobilenet_v2", tmp_path / "weights.safetensors")
    assert loaded == len(ours.state_dict())
    images = torch.randn(1, 3, 64, 96)
    torch.testing.assert_close(ours(images)[-1], theirs.features[:18](images))


def geometry(network: nn.Module) -> dict[str, tuple]:
    return {
        name: (module.weight.shape, module.stride, module.padding, module.dilation)
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d)
    }


def test_the_caffe_form_moves_the_stride_into_the_first_convolution_and_changes_nothing_else() -> None:
    with torch.device("meta"):
        plain, moved = (
            geometry(build_backbone(name, output_stride=32)) for name in ("resnet50", "resnet50_stride_in_1x1")
        )
    assert plain.keys() == moved.keys()
    changed = {name for name in plain if plain[name] != moved[name]}
    assert changed == {f"layer{stage}.0.conv{number}" for stage in (2, 3, 4) for number in (1, 2)}
    for stage in (2, 3, 4):
        assert [moved[f"layer{stage}.0.conv{number}"][1] for number in (1, 2)] == [(2, 2), (1, 1)]
        assert moved[f"layer{stage}.0.downsample.0"][1] == (2, 2)


@torch.no_grad()
def test_the_deep_stem_has_three_convolutions() -> None:
    """PSPNet's authors: 3×3 of 64 (strided), 64 and 128 channels; the first stage takes 128."""
    torch.manual_seed(0)
    backbone = build_backbone("resnet50_deep_stem", output_stride=32).eval()
    perturb_batch_norm(backbone)
    with torch.device("meta"):
        plain = geometry(build_backbone("resnet50", output_stride=32))
    found = geometry(backbone)
    assert {name for name in found if found[name] != plain.get(name)} == {
        "conv1",
        "conv2",
        "conv3",
        "layer1.0.conv1",
        "layer1.0.downsample.0",
    }
    assert found["conv1"] == ((64, 3, 3, 3), (2, 2), (1, 1), (1, 1))
    assert found["conv2"] == ((64, 64, 3, 3), (1, 1), (1, 1), (1, 1))
    assert found["conv3"] == ((128, 64, 3, 3), (1, 1), (1, 1), (1, 1))
    assert found["layer1.0.conv1"][0] == (64, 128, 1, 1)
    assert found["layer1.0.downsample.0"][0] == (256, 128, 1, 1)
    x = images = torch.randn(1, 3, 65, 97)
    for number, stride in ((1, 2), (2, 1), (3, 1)):
        norm = getattr(backbone, f"bn{number}")
        x = nn.functional.conv2d(x, getattr(backbone, f"conv{number}").weight, stride=stride, padding=1)
        x = nn.functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias).relu()
    expected = backbone.layer1(nn.functional.max_pool2d(x, 3, 2, 1))
    torch.testing.assert_close(backbone(images)[0], expected)


@torch.no_grad()
def test_mobilenet_v2_goes_on_to_the_classifiers_layer() -> None:
    theirs = torchvision.models.mobilenet_v2(weights=None).eval()
    perturb_batch_norm(theirs)
    ours = build_backbone("mobilenet_v2_1280", output_stride=32).eval()
    ours.load_state_dict({key: value for key, value in theirs.state_dict().items() if key.startswith("features.")})
    images = torch.randn(1, 3, 64, 96)
    *_, deepest = ours(images)
    assert deepest.shape == (1, 1280, 2, 3)
    torch.testing.assert_close(deepest, theirs.features(images))


@pytest.mark.parametrize("output_stride", [16, 32])
@pytest.mark.parametrize("name", ["mobilenet_v3_large", "mobilenet_v3_small"])
@torch.no_grad()
def test_mobilenet_v3_equals_torchvision(name: str, output_stride: int) -> None:
    """Those blocks that torchvision's segmentation models take their maps from, dilated as theirs are."""
    theirs = torchvision.models.get_model(name, weights=None, dilated=output_stride == 16).eval().features
    perturb_batch_norm(theirs)
    ours = build_backbone(name, output_stride=output_stride, first_block="full").eval()
    ours.load_state_dict({f"features.{key}": value for key, value in theirs.state_dict().items()})
    # as in torchvision.models.segmentation, which ends at the last and has an auxiliary loss at the fourth from it
    strided = [index for index, block in enumerate(theirs) if getattr(block, "_is_cn", False)]
    assert isinstance(ours, MobileNetV3Backbone)
    assert ours.ends == (0, *strided[:-1], len(theirs) - 1)
    images = torch.randn(1, 3, 97, 161)
    x, expected = images, []
    for index, block in enumerate(theirs):
        x = block(x)
        if index in ours.ends:
            expected.append(x)
    for found, wanted, stride in zip(ours(images), expected, ours.strides, strict=True):
        assert found.shape[2:] == (96 // stride + 1, 160 // stride + 1)
        torch.testing.assert_close(found, wanted)


@torch.no_grad()
def test_vgg_gives_the_map_after_each_pooling() -> None:
    torch.manual_seed(0)
    ours = build_backbone("vgg16_bn", output_stride=32).eval()
    perturb_batch_norm(ours)
    assert isinstance(ours, VGGBackbone)
    x = images = torch.randn(1, 3, 65, 97)
    expected = []
    layers = [layer for layer in ours.features if not isinstance(layer, nn.ReLU)]
    for layer in layers:
        if isinstance(layer, nn.MaxPool2d):
            x = nn.functional.max_pool2d(x, 2, 2)
            expected.append(x)
        elif isinstance(layer, nn.BatchNorm2d):
            x = layer(x).relu()
        else:
            x = nn.functional.conv2d(x, layer.weight, layer.bias, padding=1)
    maps = ours(images)
    assert [x.shape[1:] for x in maps] == [(64, 32, 48), (128, 16, 24), (256, 8, 12), (512, 4, 6), (512, 2, 3)]
    for found, wanted in zip(maps, expected, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.slow
@torch.no_grad()
def test_the_classifiers_layers_become_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    """On an image of the classifier's size they give its 4096 numbers; torchvision's own weights are taken."""
    with torch.device("meta"):
        theirs = torchvision.models.vgg16(weights=None, init_weights=False)
        network = torchvision.models.vgg16(weights=None, init_weights=False)
    generator = torch.Generator().manual_seed(0)
    theirs.to_empty(device="cpu").eval()
    for parameter in theirs.parameters():
        spread = 0.05 if parameter.ndim == 1 else (6 / parameter[0].numel()) ** 0.5
        parameter.uniform_(-spread, spread, generator=generator)
    asked: list[tuple[str, str]] = []

    def download(name: str, *, weights: str) -> nn.Module:
        asked.append((name, weights))
        return theirs

    monkeypatch.setattr(backbones.torchvision.models, "get_model", download)
    with torch.device("meta"):
        ours = VGGBackbone(network, fully_convolutional=True)
    ours = ours.to_empty(device="cpu").eval()
    assert load_backbone(ours, "vgg16", "torchvision") == 2 * (13 + 2)
    assert asked == [("vgg16", "DEFAULT")]
    images = torch.rand(1, 3, 224, 224, generator=generator)
    expected = theirs.classifier[:6](theirs.features(images).flatten(1))
    found = ours(images)[-1]
    assert found.shape == (1, 4096, 1, 1)
    assert expected.std() > 0.01
    torch.testing.assert_close(found.flatten(1), expected, rtol=1e-4, atol=1e-5)


# ---- timm


@pytest.mark.parametrize(
    ("name", "output_stride", "strides"),
    [
        ("timm/resnet18", 16, (2, 4, 8, 16, 16)),
        ("timm/regnetx_002", 8, (2, 4, 8, 8, 8)),
        ("efficientnet_b0", 16, (2, 4, 8, 16, 16)),  # the prefix may be skipped
        ("timm/convnext_atto", 8, (4, 8, 8, 8)),
        ("timm/swin_tiny_patch4_window7_224", 32, (4, 8, 16, 32)),
    ],
)
@torch.no_grad()
def test_timms_maps_are_timms(name: str, output_stride: int, strides: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    bare = name.removeprefix("timm/")
    options = {} if output_stride == 32 else {"output_stride": output_stride}
    theirs = timm.create_model(bare, pretrained=False, features_only=True, **options).eval()
    perturb_batch_norm(theirs)
    ours = build_backbone(name, output_stride=output_stride).eval()
    ours.load_state_dict({f"network.{key}": value for key, value in theirs.state_dict().items()})
    images = torch.randn(1, 3, 224, 224)
    maps, expected = ours(images), theirs(images)
    assert ours.strides == strides
    assert [x.shape[1:] for x in maps] == [
        (width, 224 // stride, 224 // stride) for width, stride in zip(ours.channels, strides, strict=True)
    ]
    for found, wanted in zip(maps, expected, strict=True):
        last = found.shape[1] != wanted.shape[1]
        torch.testing.assert_close(found, wanted.permute(0, 3, 1, 2) if last else wanted)


def test_images_are_normalized_as_the_network_was_trained() -> None:
    """timm's configuration says it; ConvNeXt's is ImageNet's, the first Inception-like ResNetV2's is not."""
    with torch.device("meta"):
        assert build_backbone("timm/convnext_atto", output_stride=32).mean == (0.485, 0.456, 0.406)
        found = build_backbone("timm/resnetv2_50x1_bit", output_stride=32)
    assert found.mean == tuple(timm.get_pretrained_cfg("resnetv2_50x1_bit").mean) == (0.5, 0.5, 0.5)
    assert found.std == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("name", ["regnetx_002", "convnext_atto", "densenet121", "resnetv2_50"])
@torch.no_grad()
def test_a_whole_classifier_of_timm_fills_its_backbone(name: str, tmp_path: Path) -> None:
    """`features_only` takes leading sequences apart: `stages.0.…` becomes `stages_0.…`, `stem.conv.…` `stem_conv.…`."""
    torch.manual_seed(0)
    theirs = timm.create_model(name, pretrained=False).eval()
    perturb_batch_norm(theirs)
    save_file(theirs.state_dict(), tmp_path / "weights.safetensors")
    ours = build_backbone(f"timm/{name}", output_stride=32).eval()
    assert load_backbone(ours, f"timm/{name}", tmp_path / "weights.safetensors") == len(ours.state_dict())
    images = torch.randn(1, 3, 64, 96)
    expected = theirs.forward_intermediates(images, intermediates_only=True)
    *_, found = ours(images)
    torch.testing.assert_close(found, expected[-1])


# ---- stages

EVERY_KIND = [
    "resnet18",
    "resnet50_deep_stem",
    "mobilenet_v2",
    "mobilenet_v2_1280",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "vgg16_bn",
    "timm/regnetx_002",
    "timm/efficientnet_b0",
    "timm/convnext_atto",
    "timm/swin_tiny_patch4_window7_224",
]


def any_backbone(name: str) -> Backbone:
    with torch.device("meta"):
        return build_backbone(name, output_stride=32)


@pytest.mark.parametrize("name", EVERY_KIND)
def test_stages_hold_every_parameter_once(name: str) -> None:
    backbone = any_backbone(name)
    stages = backbone.stages()
    assert len(stages) == len(backbone.strides) == len(backbone.channels)
    found = [id(parameter) for stage in stages for part in stage for parameter in part.parameters()]
    assert sorted(found) == sorted(id(parameter) for parameter in backbone.parameters())


@pytest.mark.parametrize(
    "name",
    ["resnet50_deep_stem", "mobilenet_v2", "mobilenet_v3_small", "vgg16", "timm/regnetx_002", "timm/convnext_atto"],
)
def test_a_map_is_made_by_its_stages_and_those_before(name: str) -> None:
    """With so many stages frozen, their maps have nothing left to train, and all later ones do."""
    backbone = any_backbone(name)
    for count in range(len(backbone.strides) + 1):
        freeze_stages(backbone, count)
        frozen = [part for stage in backbone.stages()[:count] for part in stage]
        assert not any(module.training for part in frozen for module in part.modules())
        maps = backbone(torch.empty(2, 3, 64, 64, device="meta"))
        assert [x.requires_grad for x in maps] == [number >= count for number in range(len(maps))]
        if count < len(maps):
            assert all(module.training for part in backbone.stages()[count] for module in part.modules())
        backbone.train()
    with pytest.raises(RecipeError, match=f"frozen_stages={count + 1}: the backbone has {count}$"):
        freeze_stages(backbone, count + 1)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "mobilenet_v3_small", "timm/regnetx_002"])
@torch.no_grad()
def test_a_shortened_backbone_keeps_the_first_maps(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name, output_stride=32).eval()
    perturb_batch_norm(backbone)
    images = torch.randn(1, 3, 64, 96)
    whole, state, count = backbone(images), backbone.state_dict(), sum(x.numel() for x in backbone.parameters())
    strides, channels = backbone.strides, backbone.channels
    backbone.shorten(2)
    backbone.eval().load_state_dict({key: state[key] for key in backbone.state_dict()})
    assert (backbone.strides, backbone.channels) == (strides[:2], channels[:2])
    assert len(backbone.stages()) == 2
    assert sum(x.numel() for x in backbone.parameters()) < count / 4
    for found, wanted in zip(backbone(images), whole[:2], strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "mobilenet_v3_small", "vgg16", "darknet53"])
@torch.no_grad()
def test_the_first_maps_come_without_the_work_of_the_others(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name, output_stride=32).eval()
    images = torch.randn(1, 3, 64, 64)
    whole = backbone(images)
    for count in (1, 3, len(whole)):
        called: list[int] = []
        handles = [
            module.register_forward_hook(lambda *_, number=number, called=called: called.append(number))
            for number, stage in enumerate(backbone.stages())
            for module in stage
        ]
        maps = backbone.first_maps(images, count)
        for handle in handles:
            handle.remove()
        assert set(called) == set(range(count))
        assert len(maps) == count
        assert all(torch.equal(one, other) for one, other in zip(maps, whole, strict=False))


def test_timms_networks_run_as_a_whole() -> None:
    backbone = build_backbone("timm/resnet18", output_stride=32)
    with pytest.raises(RecipeError, match="TimmBackbone: runs only as a whole, not its first 2 stages"):
        backbone.first_maps(torch.zeros(1, 3, 64, 64), 2)


def test_a_vgg_without_its_last_pooling_ends_with_the_last_convolution() -> None:
    ours = VGGBackbone(torchvision.models.vgg16(weights=None, init_weights=False), last_pooling=False).eval()
    assert ours.strides == (2, 4, 8, 16, 16)
    assert ours.deepest(16) == 4
    whole = build_backbone("vgg16", output_stride=32).eval()
    whole.load_state_dict(ours.state_dict())
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        maps, wanted = ours(images), whole(images)
    assert [tuple(x.shape[1:]) for x in maps] == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 4, 4)]
    assert torch.equal(torch.nn.functional.max_pool2d(maps[-1], 2), wanted[-1])
    assert torch.equal(maps[-2], wanted[-2])


def test_a_shortened_vgg_loses_its_classifier() -> None:
    with torch.device("meta"):
        backbone = VGGBackbone(
            torchvision.models.vgg16(weights=None), first_padding=100, ceil_mode=True, fully_convolutional=True
        )
        assert [x.shape[1] for x in backbone(torch.empty(1, 3, 65, 65))] == [64, 128, 256, 512, 4096]
        backbone.shorten(4)
        assert [x.shape[1] for x in backbone(torch.empty(1, 3, 65, 65))] == [64, 128, 256, 512]


def test_frozen_batch_norm_changes_neither_statistics_nor_weights() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("resnet18").train()
    freeze_batch_norm(backbone)
    before = {key: value.clone() for key, value in backbone.named_buffers()}
    backbone(torch.rand(2, 3, 64, 64))[-1].sum().backward()
    assert all(torch.equal(value, before[key]) for key, value in backbone.named_buffers())
    learns = {name.split(".")[-2] for name, value in backbone.named_parameters() if value.grad is not None}
    assert learns == {"conv1", "conv2", "0"}, "the convolutions alone; 0 is that of the shortcut"


# ---- refusals


def test_other_weights_are_refused_with_the_first_keys(tmp_path) -> None:
    save_file(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.safetensors")
    with pytest.raises(
        CheckpointError, match=r"resnet18\.safetensors: not the weights of torchvision's mobilenet_v2: no 'features"
    ):
        load_backbone(build_backbone("mobilenet_v2"), "mobilenet_v2", tmp_path / "resnet18.safetensors")
    wide = torchvision.models.resnet.ResNet(
        torchvision.models.resnet.BasicBlock, [2, 2, 2, 2], zero_init_residual=False
    )
    wide.conv1 = nn.Conv2d(3, 64, 3)
    save_file(wide.state_dict(), tmp_path / "small_stem.safetensors")
    with pytest.raises(CheckpointError, match=r"'conv1.weight' is \(64, 3, 3, 3\), not \(64, 3, 7, 7\)"):
        load_backbone(build_backbone("resnet18"), "resnet18", tmp_path / "small_stem.safetensors")
    (tmp_path / "torn.safetensors").write_bytes((tmp_path / "resnet18.safetensors").read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load_backbone(build_backbone("resnet18"), "resnet18", tmp_path / "torn.safetensors")


def test_unknown_names_and_strides_are_refused() -> None:
    with pytest.raises(RecipeError, match="each of the last stage's 2 blocks"):
        build_backbone("resnet18", multi_grid=(1, 2, 4))
    with pytest.raises(RecipeError, match="one of resnet18"):
        build_backbone("resnet51")
    with pytest.raises(RecipeError, match="8, 16 or 32"):
        build_backbone("resnet18", output_stride=4)
    with pytest.raises(RecipeError, match=r"^first_block 'half': previous or full$"):
        unwrap(build_backbone)("resnet18", first_block="half")
    with pytest.raises(RecipeError, match=r"^the backbone has no map of stride 2; its strides are \(4, 8, 16, 16\)$"):
        build_backbone("resnet18").deepest(2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vgg16", "backbone 'vgg16': its output stride is 32, not 16"),
        ("timm/resnet51", "backbone 'timm/resnet51': one of resnet18, .*, vgg16_bn, or timm/ and a name of timm's"),
        ("timm/vgg11", "backbone 'timm/vgg11': timm cannot give its maps at output stride 16"),
        (
            "timm/swin_tiny_patch4_window7_224",
            "backbone 'timm/swin_.*224': timm cannot give its maps at output stride 16",
        ),
        ("timm/pvt_v2_b0", "backbone 'timm/pvt_v2_b0': timm cannot give its maps at output stride 16"),
    ],
)
def test_what_cannot_be_dilated_is_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(RecipeError, match=f"^{message}$"):
        build_backbone(name, output_stride=16)


@torch.no_grad()
def test_a_size_that_a_network_does_not_take_is_refused_in_one_line() -> None:
    backbone = build_backbone("timm/swin_tiny_patch4_window7_224", output_stride=32)
    with pytest.raises(
        RecipeError, match=r"^backbone 'timm/swin_.*224': it does not take images of 96×64 pixels \(.+\)$"
    ):
        backbone(torch.rand(1, 3, 96, 64))


def test_weights_that_are_not_offered_are_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        CheckpointError, match=r"^torchvision has no weights of resnet50_deep_stem; give --init a local"
    ):
        load_backbone(build_backbone("resnet18"), "resnet50_deep_stem", "torchvision")

    def offline(*_: Any, **__: Any) -> nn.Module:
        raise OSError("no route to host")

    monkeypatch.setattr(backbones.torchvision.models, "get_model", offline)
    message = (
        r"^torchvision's weights of resnet18 could not be downloaded \(no route to host\); give --init a local file$"
    )
    with pytest.raises(CheckpointError, match=message):
        load_backbone(build_backbone("resnet18"), "resnet18", "torchvision")
