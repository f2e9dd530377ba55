"""torchvision's Mask R-CNNs with random weights, and when the same objects are detected as by them."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import detection

from pixelwise.types import Annotation
from tests.perturbed import perturb_batch_norm

SPREADS = {
    "cls_logits": 2.0,
    "rpn.head.bbox_pred": 0.3,
    "cls_score": 2.0,
    "predictor.bbox_pred": 1.0,
    "fcn_logits": 2.0,
}
"""Deviation that the predictions of each layer shall have."""


def their_model(name: str, images: list[Tensor], **options: Any) -> nn.Module:
    """With random weights, whose predictions to the images are many and of every size and class."""
    torch.manual_seed(1)
    build_theirs = getattr(detection, name)
    theirs = build_theirs(weights=None, weights_backbone=None, num_classes=7, **options).eval()
    perturb_batch_norm(theirs)
    for parameter in theirs.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)

    def spread(layer: Any, inputs: tuple[Tensor], answer: Tensor, deviation: float) -> Tensor:
        dims = [dim for dim in range(answer.ndim) if dim != 1]
        mean, factor = answer.mean(dim=dims), deviation / answer.std(dim=dims)
        layer.weight.mul_(factor.view(-1, *[1] * (layer.weight.ndim - 1)))
        layer.bias.copy_((layer.bias - mean) * factor)
        hooks.pop(layer).remove()
        return layer(*inputs)

    hooks = {
        layer: layer.register_forward_hook(partial(spread, deviation=deviation))
        for key, layer in theirs.named_modules()
        for ending, deviation in SPREADS.items()
        if key.endswith(ending)
    }
    assert len(hooks) == len(SPREADS)
    theirs(images)
    return theirs


def require_same_objects(
    found: Annotation, expected: dict[str, Tensor], *, at_least: int, pixels_at_least: int = 1000
) -> None:
    """As matched sets: boxes within 0.05 px, scores within 1e-4, labels equal, masks but for 0.1 % of their pixels."""
    instances = found.instances
    assert instances is not None
    assert instances.masks is not None
    assert instances.scores is not None
    assert len(instances) == len(expected["boxes"]) >= at_least
    assert (instances.scores.diff() <= 0).all()
    free = set(range(len(instances)))
    differing = pixels = 0
    for box, label, score, mask in zip(*(expected[key] for key in ("boxes", "labels", "scores", "masks")), strict=True):
        same = [
            index
            for index in free
            if instances.labels[index] == label
            and (instances.boxes[index] - box).abs().max() <= 0.05
            and abs(float(instances.scores[index] - score)) <= 1e-4
        ]
        assert same, f"nothing like {box.tolist()}, {int(label)}, {float(score)}"
        free.remove(same[0])
        theirs = mask[0] >= 0.5
        differing += int((instances.masks.dense_one(same[0]) != theirs).sum())
        pixels += int(theirs.sum())
    assert pixels >= pixels_at_least
    assert differing <= pixels // 1000
