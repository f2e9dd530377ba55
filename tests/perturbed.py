"""Networks whose batch norms do not stand near the identity."""

from __future__ import annotations

import torch
from torch import nn


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
