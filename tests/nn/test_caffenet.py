"""CaffeNet's maps against the layers written out one by one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pixelwise.nn.backbones import freeze_stages
from pixelwise.nn.caffenet import CaffeNetBackbone


@pytest.mark.parametrize("padded", [False, True])
@torch.no_grad()
def test_the_maps_are_those_of_the_layers_one_by_one(padded: bool) -> None:
    torch.manual_seed(1)
    network = CaffeNetBackbone(is_padded=padded).eval()
    weights = [(layer.weight, layer.bias) for layer in network.layers if isinstance(layer, torch.nn.Conv2d)]
    images, edge = torch.randn(1, 3, 131, 99), 1 if padded else 0
    x = F.max_pool2d(F.conv2d(images, *weights[0], stride=4, padding=5 * edge).relu(), 3, 2, edge, ceil_mode=True)
    pool1 = x
    x = F.local_response_norm(x, 5, alpha=1e-4, beta=0.75)  # pooling first, then the normalisation
    x = F.max_pool2d(F.conv2d(x, *weights[1], padding=2, groups=2).relu(), 3, 2, edge, ceil_mode=True)
    pool2 = x
    x = F.conv2d(F.local_response_norm(x, 5, alpha=1e-4, beta=0.75), *weights[2], padding=1).relu()
    conv4 = F.conv2d(x, *weights[3], padding=1, groups=2).relu()
    conv5 = F.conv2d(conv4, *weights[4], padding=1, groups=2).relu()
    wanted = (pool1, pool2, conv4, conv5, F.max_pool2d(conv5, 3, 2, ceil_mode=True))
    for ours, theirs, channels in zip(network(images), wanted, network.channels, strict=True):
        assert torch.equal(ours, theirs)
        assert ours.shape[1] == channels
    if padded:
        assert conv5.shape[2:] == (9, 7)  # one cell for each 16 pixels, and one at the end
    short = CaffeNetBackbone(is_padded=padded, last_pooling=False)
    assert short.strides == (8, 16, 16, 16)
    assert [tuple(one.shape) for one in short(images)] == [tuple(one.shape) for one in wanted[:4]]


def test_first_stages_can_be_frozen() -> None:
    network = CaffeNetBackbone()
    freeze_stages(network, 2)
    learns = [layer.weight.requires_grad for layer in network.layers if isinstance(layer, torch.nn.Conv2d)]
    assert learns == [False, False, True, True, True]
