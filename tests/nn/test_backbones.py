"""Backbones against the classifiers they come from, and dilation against the identity that defines it."""

from __future__ import annotations

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from pixelwise.errors import CheckpointError, RecipeError
from pixelwise.nn.backbones import build_backbone, load_backbone


def perturb_batch_norm(network: nn.Module, seed: int = 0) -> None:
    """Statistics and weights far from identity, so that a forgotten or misplaced layer shows."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.7, 1.5),
                (module.weight.data, 0.7, 1.3),
                (module.bias.data, -0.3, 0.3),
            ):
                assert tensor is not None
                tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))


def pair(name: str, output_stride: int, **options) -> tuple[nn.Module, nn.Module]:
    """The same weights at stride 32 and dilated."""
    plain = build_backbone(name, output_stride=32).eval()
    perturb_batch_norm(plain)
    dilated = build_backbone(name, output_stride=output_stride, **options).eval()
    dilated.load_state_dict(plain.state_dict())
    return plain, dilated


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2"])
@torch.no_grad()
def test_a_dilated_map_holds_the_strided_one(name: str, output_stride: int) -> None:
    """À trous: with the first block at the former dilation, every (32 / stride)-th place is the strided network's."""
    plain, dilated = pair(name, output_stride)
    images = torch.randn(1, 3, 128, 160)
    for full, thin, stride in zip(dilated(images), plain(images), plain.strides, strict=True):
        step = max(1, stride // output_stride)
        assert (full[:, :, ::step, ::step] - thin).abs().max() <= 1e-5 * max(1, thin.abs().max())
        assert full.shape[2] == 128 // min(stride, output_stride)


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
    ("name", "output_stride", "expected"),
    [
        # layer3 has 6 blocks, layer4 3; the first dilated block keeps the former dilation, 1 in the first dilated stage
        ("resnet50", 16, {2: 2}),
        ("resnet50", 8, {2: 5 + 1, 4: 2}),
        ("resnet101", 8, {2: 22 + 1, 4: 2}),
        # stride-16 blocks 7-13, stride-32 blocks 14-17, one depthwise convolution each
        ("mobilenet_v2", 16, {2: 3}),
        ("mobilenet_v2", 8, {2: 6 + 1, 4: 3}),
    ],
)
def test_dilated_convolutions_are_counted(name: str, output_stride: int, expected: dict[int, int]) -> None:
    counts: dict[int, int] = {}
    for conv in dilated_convolutions(build_backbone(name, output_stride=output_stride)):
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
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_backbone(build_backbone("resnet18"), "resnet18", tmp_path / "torn.safetensors")


def test_unknown_names_and_strides_are_refused() -> None:
    with pytest.raises(RecipeError, match="each of the last stage's 2 blocks"):
        build_backbone("resnet18", multi_grid=(1, 2, 4))
    with pytest.raises(RecipeError, match="one of resnet18"):
        build_backbone("resnet51")
    with pytest.raises(RecipeError, match="8, 16 or 32"):
        build_backbone("resnet18", output_stride=4)
