"""semseg's PSPNet, read aloud from its keys, and ours with the same weights give the same scores."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pixelwise.errors import CheckpointError
from pixelwise.importers.semseg import convert
from pixelwise.models import pspnet
from tests.importers.foreign_networks import normalized, ours, require_equal
from tests.perturbed import perturb_batch_norm

THEIR_STEM = {"conv1": "0", "bn1": "1", "conv2": "3", "bn2": "4", "conv3": "6", "bn3": "7"}


def their_key(key: str) -> str:
    """The key that semseg has for one of ours."""
    if match := re.match(r"backbone\.(conv\d|bn\d)\.(.*)", key):
        return f"layer0.{THEIR_STEM[match[1]]}.{match[2]}"
    if match := re.match(r"pyramid\.reduce\.(\d)\.([01])\.(.*)", key):
        return f"ppm.features.{match[1]}.{int(match[2]) + 1}.{match[3]}"
    if key.startswith("classifier."):
        return key.replace("classifier.", "cls.4.")
    return key.replace("backbone.", "").replace("refine.", "cls.").replace("auxiliary.", "aux.")


def their_forward(weights: dict[str, Tensor], images: Tensor, blocks: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """`model/pspnet.py` in evaluation mode, zoom factor 8, as plain function calls."""

    def norm(x: Tensor, key: str) -> Tensor:
        parts = (weights[f"{key}.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts)

    def conv(x: Tensor, key: str, **options: int) -> Tensor:
        return F.conv2d(x, weights[f"{key}.weight"], weights.get(f"{key}.bias"), **options)

    x = images
    for number, stride in ((0, 2), (3, 1), (6, 1)):
        x = F.relu(norm(conv(x, f"layer0.{number}", stride=stride, padding=1), f"layer0.{number + 1}"))
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    maps = []
    for layer, count in enumerate(blocks, start=1):
        dilation = {1: 1, 2: 1, 3: 2, 4: 4}[layer]
        for block in range(count):
            key = f"layer{layer}.{block}"
            stride = 2 if layer == 2 and block == 0 else 1
            y = F.relu(norm(conv(x, f"{key}.conv1"), f"{key}.bn1"))
            y = conv(y, f"{key}.conv2", stride=stride, padding=dilation, dilation=dilation)
            y = norm(conv(F.relu(norm(y, f"{key}.bn2")), f"{key}.conv3"), f"{key}.bn3")
            if block == 0:
                x = norm(conv(x, f"{key}.downsample.0", stride=stride), f"{key}.downsample.1")
            x = F.relu(x + y)
        maps.append(x)
    size = x.shape[2:]
    pyramid = [x]
    for index, cells in enumerate((1, 2, 3, 6)):
        y = F.relu(norm(conv(F.adaptive_avg_pool2d(x, cells), f"ppm.features.{index}.1"), f"ppm.features.{index}.2"))
        pyramid.append(F.interpolate(y, size, mode="bilinear", align_corners=True))
    x = F.relu(norm(conv(torch.cat(pyramid, 1), "cls.0", padding=1), "cls.1"))
    main = conv(x, "cls.4")
    aux = conv(F.relu(norm(conv(maps[2], "aux.0", padding=1), "aux.1")), "aux.4")
    height, width = images.shape[2:]
    out = ((height - 1) // 8 * 8 + 1, (width - 1) // 8 * 8 + 1)
    main, aux = (F.interpolate(y, out, mode="bilinear", align_corners=True) for y in (main, aux))
    return main, aux


@torch.no_grad()
def test_scores_are_theirs() -> None:
    torch.manual_seed(0)
    source = pspnet.build(num_classes=6, backbone="resnet50_deep_stem").eval()
    perturb_batch_norm(source)
    theirs = {their_key(key): value for key, value in source.state_dict().items() if "num_batches" not in key}
    assert {"layer0.0.weight", "ppm.features.3.2.running_var", "cls.4.bias", "aux.4.weight"} <= set(theirs)
    network = ours(convert("pspnet50", {f"{key}": value for key, value in theirs.items()}))
    images = torch.rand(1, 3, 97, 89)
    main, aux = their_forward(theirs, normalized(images), (3, 4, 6, 3))
    output = network(images)
    for found, expected in ((output.logits, main), (output.aux_logits, aux)):
        require_equal(F.interpolate(found, size=(97, 89), mode="bilinear", align_corners=True), expected)


def test_without_auxiliary_weights_there_is_no_auxiliary_classifier() -> None:
    source = pspnet.build(num_classes=6, backbone="resnet101_deep_stem", auxiliary=False)
    network = ours(convert("pspnet101", {their_key(key): value for key, value in source.state_dict().items()}))
    assert network.auxiliary is None
    with pytest.raises(CheckpointError, match="'psanet50' here; there are pspnet50"):
        convert("psanet50", {})
