"""The weights of another library's network in ours, without a list of keys: layers are paired as they run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def layers_as_they_run(network: nn.Module, images: Tensor) -> list[nn.Module]:
    """The convolutions, batch norms and linear layers that these images pass, in that order."""
    layers: list[nn.Module] = []
    handles = [
        module.register_forward_hook(lambda module, *_: layers.append(module))
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d | nn.Linear)
    ]
    network(images)
    for handle in handles:
        handle.remove()
    return layers


@torch.no_grad()
def copy_weights(theirs: nn.Module, ours: nn.Module, images: Tensor) -> None:
    """Give `ours` the weights of `theirs`; both run the same layers in the same order, each once."""
    for one, other in zip(layers_as_they_run(ours, images), layers_as_they_run(theirs, images), strict=True):
        one.load_state_dict(other.state_dict())


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Largest difference, in shares of the largest expected value."""
    assert found.shape == expected.shape
    largest = expected.abs().max()
    assert expected.std() > 1e-3 * largest, "a flat answer proves nothing"
    return float((found - expected).abs().max() / largest)


def normalized(images: Tensor) -> Tensor:
    """As torchvision's and smp's networks want their images."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (images - mean[:, None, None]) / std[:, None, None]


def convolve(x: Tensor, layers: Any, *, dilation: int = 1, stride: int = 1) -> Tensor:
    """A convolution, batch norm with stored statistics and ReLU, by functional calls with the weights of `layers`."""
    weight, norm = layers[0].weight, layers[1]
    x = nn.functional.conv2d(x, weight, stride=stride, padding=dilation * (weight.shape[2] - 1) // 2, dilation=dilation)
    x = nn.functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    return x.clamp(min=0)
