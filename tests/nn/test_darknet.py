"""DarkNet-53 against timm's, whose layers are other modules in the same order."""

from __future__ import annotations

import timm
import torch
from torch import nn

from pixelwise.nn.backbones import build_backbone
from tests.models.weights import copy_weights, relative_error


@torch.no_grad()
def test_the_maps_are_those_of_timms_network() -> None:
    torch.manual_seed(0)
    theirs = timm.create_model("darknet53", pretrained=False, features_only=True).eval()
    for module in theirs.modules():
        if isinstance(module, nn.LeakyReLU):
            module.negative_slope = 0.1  # as in the authors' C code; timm has 0.01
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    ours = build_backbone("darknet53", output_stride=32).eval()
    images = torch.rand(2, 3, 64, 96)
    copy_weights(theirs, ours, images)
    found, wanted = ours(images), theirs(images)[-5:]
    assert ours.strides == (2, 4, 8, 16, 32)
    assert ours.channels == tuple(x.shape[1] for x in found) == (64, 128, 256, 512, 1024)
    for one, other in zip(found, wanted, strict=True):
        assert relative_error(one, other) <= 1e-5


def test_it_has_stages_and_takes_images_as_they_are() -> None:
    with torch.device("meta"):
        backbone = build_backbone("darknet53", output_stride=32)
    assert (backbone.mean, backbone.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    # the 52 convolutions of table 1 without the classifier
    assert sum(isinstance(module, nn.Conv2d) for module in backbone.modules()) == 52
    stages = backbone.stages()
    assert sum(len(list(module.parameters())) for stage in stages for module in stage) == len(
        list(backbone.parameters())
    )
    backbone.shorten(4)
    assert backbone.channels == (64, 128, 256, 512)
