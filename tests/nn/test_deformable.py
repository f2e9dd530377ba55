"""Deformable convolution against single taps, and where a ResNet has it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from pixelwise.errors import RecipeError
from pixelwise.nn.backbones import build_backbone, load_backbone
from pixelwise.nn.deformable import DeformableConv2d, deform


def read(image: Tensor, y: float, x: float) -> Tensor:
    """The values of all channels at a point, bilinear between pixels, zero outside."""
    total = torch.zeros(image.shape[0], dtype=image.dtype)
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < image.shape[1] and 0 <= column < image.shape[2]:
                total += image[:, row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return total


@pytest.mark.parametrize("stride", [1, 2])
@torch.no_grad()
def test_each_tap_reads_where_it_was_moved_to(stride: int) -> None:
    torch.manual_seed(0)
    layer = DeformableConv2d(3, 2, stride=stride).double()
    layer.bias.normal_()
    layer.conv_offset_mask.weight.normal_(std=0.2)
    layer.conv_offset_mask.bias.normal_()
    images = torch.randn(1, 3, 6, 7, dtype=torch.float64)
    moved = layer.conv_offset_mask(images)[0]
    found = layer(images)[0]
    assert found.shape == (2, -(-6 // stride), -(-7 // stride))
    for row in range(found.shape[1]):
        for column in range(found.shape[2]):
            total = layer.bias.clone()
            for tap in range(9):
                down, right = moved[2 * tap, row, column], moved[2 * tap + 1, row, column]
                y = row * stride - 1 + tap // 3 + float(down)
                x = column * stride - 1 + tap % 3 + float(right)
                factor = moved[18 + tap, row, column].sigmoid()
                total += layer.weight[:, :, tap // 3, tap % 3] @ read(images[0], y, x) * factor
            torch.testing.assert_close(found[:, row, column], total)


@torch.no_grad()
def test_a_new_layer_is_half_a_convolution() -> None:
    layer = DeformableConv2d(4, 5)
    images = torch.randn(2, 4, 9, 8)
    torch.testing.assert_close(layer(images), F.conv2d(images, layer.weight, padding=1) / 2)


def deformed(name: str, interval: int) -> list[str]:
    with torch.device("meta"):
        backbone = build_backbone(name, output_stride=32)
        deform(backbone, interval=interval)
    return [key for key, module in backbone.named_modules() if isinstance(module, DeformableConv2d)]


def test_the_blocks_are_those_of_yolact_plus() -> None:
    every = [*(f"layer2.{n}.conv2" for n in range(4)), *(f"layer3.{n}.conv2" for n in range(6))]
    assert deformed("resnet50", 1) == [*every, *(f"layer4.{n}.conv2" for n in range(3))]
    third = ["layer2.0.conv2", "layer2.3.conv2", *(f"layer3.{n}.conv2" for n in range(0, 23, 3)), "layer4.0.conv2"]
    assert deformed("resnet101", 3) == third
    with pytest.raises(RecipeError, match="from resnet50 on"):
        deformed("resnet34", 1)


def test_a_classifiers_weights_fill_all_but_the_offsets(tmp_path: Path) -> None:
    classifier = torchvision.models.resnet50(weights=None)
    save_file(classifier.state_dict(), tmp_path / "resnet50.safetensors")
    backbone = build_backbone("resnet50", output_stride=32)
    deform(backbone)
    load_backbone(backbone, "resnet50", tmp_path / "resnet50.safetensors")
    block = backbone.layer3[2]
    assert torch.equal(block.conv2.weight, classifier.layer3[2].conv2.weight)
    assert not block.conv2.conv_offset_mask.weight.any()
    assert isinstance(block.conv2.weight, torch.nn.Parameter)


@torch.no_grad()
def test_without_modulation_taps_are_moved_alone() -> None:
    torch.manual_seed(0)
    layer = DeformableConv2d(4, 6, is_modulated=False, has_bias=False).double()
    x = torch.randn(2, 4, 7, 9).double()
    assert torch.allclose(layer(x), F.conv2d(x, layer.weight, padding=1)), "a new layer is an ordinary convolution"
    moving = layer.conv_offset
    assert isinstance(moving, nn.Conv2d)
    assert moving.out_channels == 18
    nn.init.normal_(moving.weight, std=0.2)
    expected = deform_conv2d(x, moving(x), layer.weight, None, padding=1)
    assert torch.allclose(layer(x), expected)
    assert set(layer.state_dict()) == {"weight", "conv_offset.weight", "conv_offset.bias"}
