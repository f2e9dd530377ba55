"""What tests of importers share: a network of ours with foreign weights, and when two outputs are equal."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixelwise.importers.foreign import ImportedModel, require_fit
from pixelwise.inference.systems import system_module
from pixelwise.nn.backbone import IMAGENET_MEAN, IMAGENET_STD


def normalized(images: Tensor) -> Tensor:
    """As ImageNet's classifiers take them."""
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    return (images - mean[:, None, None]) / std[:, None, None]


def ours(model: ImportedModel) -> nn.Module:
    """Our network with the weights, which have to fit it."""
    network = system_module(model.system).build(num_classes=model.num_classes, **model.arguments).eval()
    require_fit(model.weights, network.state_dict(), source="theirs", expected="ours")
    network.load_state_dict(model.weights, strict=False)
    return network


def require_equal(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Within the tolerance of the largest value, which is small in random networks."""
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())
