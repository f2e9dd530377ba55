"""What tests of detectors and of the panoptic systems over them share: small parts, batches, and the sum of losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pixelwise.types import Batch
from tests.contract.annotations import random_batch

SIZE = (64, 96)
SMALL: dict[str, Any] = {
    "num_classes": 5,
    "backbone": "mobilenet_v2",
    "channels": 16,
    "box_width": 32,
    "samples": 32,
    "post_nms_topk": (60, 30),
    "max_detections": 12,
}


def objects_batch(
    thing_ids: Sequence[int], original_sizes: Sequence[tuple[int, int]] = ((50, 71), (130, 33)), **arguments: Any
) -> Batch:
    """Noise with rectangles, of which only the things are objects, numbered in their order."""
    batch = random_batch(SIZE, original_sizes, **arguments)
    truth = []
    for one in batch.truth:
        assert one.instances is not None
        is_thing = torch.isin(one.instances.labels, torch.tensor(thing_ids))
        truth.append(replace(one, instances=one.instances[is_thing]))
    return replace(batch, truth=tuple(truth))


def learned(network: nn.Module, batch: Batch, seed: int = 0) -> Any:
    """The output in training, whose samples are drawn by the seed."""
    torch.manual_seed(seed)
    return network.train()(batch.images, batch.valid_sizes, batch.truth)


def total(network: nn.Module, output: Any, batch: Batch) -> Tensor:
    """The loss as `fit` joins its terms in one process."""
    terms = network.loss(output, batch).values()
    return torch.stack([term.weight * term.sum / term.count.clamp(min=1) for term in terms]).sum()
