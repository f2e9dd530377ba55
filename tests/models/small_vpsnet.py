"""The smallest VPSNet, and clips for it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelwise.models.vpsnet import (
    VPSNet,
    build,
)
from tests.models.small_detectors import SIZE, SMALL
from tests.perturbed import perturb_batch_norm

WITH_STUFF = {**SMALL, "thing_ids": (2, 3, 4), "score_threshold": 0.0, "smallest_stuff": 1}


def random_parameters(part: nn.Module, *, scale: float = 0.15) -> None:
    """Also where a layer begins at zero."""
    for parameter in part.parameters():
        nn.init.normal_(parameter, std=scale)


def small_vpsnet(**changes: Any) -> VPSNet:
    """Layers that begin at zero, or nearly, get weights, as they hide errors."""
    torch.manual_seed(0)
    network = build(**{**WITH_STUFF, **changes})
    perturb_batch_norm(network)
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    for parameter in (network.box_predictor.classes.weight, network.box_predictor.deltas.weight):
        nn.init.normal_(parameter, std=0.1)
    nn.init.normal_(network.mask_head.predictor.weight, std=0.3)
    assert network.semantic_head.score.bias is not None
    with torch.no_grad():  # so that some objects win their pixels
        network.semantic_head.score.bias[2:] += 1
    if network.track_head is not None:
        random_parameters(network.track_head, scale=0.03)
    return network.eval()


def gliding_squares(count: int, seed: int = 0) -> list[Tensor]:
    """Squares that glide over smooth noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, SIZE[0] // 8, SIZE[1] // 8, generator=generator)
    background = F.interpolate(coarse, size=SIZE, mode="bilinear")
    result = []
    for number in range(count):
        frame = background.clone()
        frame[:, 0, 10:30, 10 + 3 * number : 30 + 3 * number] = 1
        frame[:, 2, 40:60, 60 - 2 * number : 80 - 2 * number] = 1
        result.append(frame)
    return result
