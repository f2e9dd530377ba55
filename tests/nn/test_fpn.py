"""The feature pyramid against torchvision's, and against sums written out."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from pixelwise.errors import RecipeError
from pixelwise.nn.backbones import build_backbone
from pixelwise.nn.fpn import FPN, pyramid_maps
from tests.perturbed import perturb_batch_norm

WIDTHS = (6, 10, 14)
SIZES = ((25, 33), (13, 17), (7, 9))
"""Odd ones, so that no map is exactly half of another."""


def some_maps() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, width, *size, generator=generator) for width, size in zip(WIDTHS, SIZES, strict=True)]


@pytest.mark.parametrize("has_norm", [False, True])
@torch.no_grad()
def test_it_is_torchvisions(has_norm: bool) -> None:
    torch.manual_seed(0)
    theirs = FeaturePyramidNetwork(
        [*WIDTHS], 8, extra_blocks=LastLevelMaxPool(), norm_layer=nn.BatchNorm2d if has_norm else None
    ).eval()
    perturb_batch_norm(theirs)
    ours = FPN(WIDTHS, channels=8, has_norm=has_norm).eval()
    ours.load_state_dict(
        {
            key.replace("inner_blocks", "lateral").replace("layer_blocks", "output"): tensor
            for key, tensor in theirs.state_dict().items()
        }
    )
    maps = some_maps()
    expected = list(theirs(OrderedDict((str(number), x) for number, x in enumerate(maps))).values())
    found = ours(maps)
    assert len(found) == len(expected) == 4
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@torch.no_grad()
def test_yolacts_pyramid_written_out() -> None:
    torch.manual_seed(0)
    fpn = FPN(WIDTHS, channels=8, upsampling="bilinear", has_activation=True, extra="convolutions", extra_levels=2)
    maps = some_maps()
    deep = fpn.lateral[2](maps[2])
    middle = fpn.lateral[1](maps[1]) + F.interpolate(deep, size=(13, 17), mode="bilinear")
    fine = fpn.lateral[0](maps[0]) + F.interpolate(middle, size=(25, 33), mode="bilinear")
    sums = (fine, middle, deep)
    for one, other in zip(fpn.join(maps), sums, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    levels = fpn(maps)
    assert [tuple(level.shape[2:]) for level in levels] == [*SIZES, (4, 5), (2, 3)]
    for level, x, output in zip(levels, sums, fpn.output, strict=False):
        convolution: Any = next(output.children())
        expected = F.conv2d(x, convolution.weight, convolution.bias, padding=1).relu()
        assert torch.allclose(level, expected, atol=1e-5)
    assert levels[0].min() == 0
    assert levels[3].min() < 0, "the extra levels have no activation"
    assert torch.equal(levels[4], fpn.extra[1](levels[3]))


def test_grids_of_yolacts_image() -> None:
    fpn = FPN((3, 3, 3), channels=2, extra="convolutions", extra_levels=2)
    maps = [torch.zeros(1, 3, side, side) for side in (69, 35, 18)]
    assert [level.shape[2] for level in fpn(maps)] == [69, 35, 18, 9, 5]


@pytest.mark.parametrize(
    ("name", "numbers"), [("resnet18", (0, 1, 2, 3)), ("mobilenet_v2", (1, 2, 3, 4)), ("timm/resnet18", (1, 2, 3, 4))]
)
@torch.no_grad()
def test_every_backbone_has_four_maps_for_it(name: str, numbers: tuple[int, ...]) -> None:
    backbone = build_backbone(name, output_stride=32).eval()
    assert pyramid_maps(backbone) == numbers
    maps = backbone(torch.zeros(1, 3, 64, 96))
    levels = FPN([backbone.channels[number] for number in numbers], channels=4)([maps[number] for number in numbers])
    assert [tuple(level.shape[2:]) for level in levels] == [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]


def test_a_dilated_backbone_has_none() -> None:
    with pytest.raises(RecipeError, match="no map of stride 16"):
        pyramid_maps(build_backbone("resnet18", output_stride=8))
