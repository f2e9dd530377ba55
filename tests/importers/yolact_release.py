"""The tensors of YOLACT's release: their names, shapes, and random values that make a network of them."""

from __future__ import annotations

import re

import torch
from torch import Tensor

STAGES = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
DARKNET_BLOCKS = (1, 2, 8, 8, 4)


def norm_keys(prefix: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}.{name}": (channels,) for name in ("weight", "bias", "running_mean", "running_var")}


def resnet_keys(blocks: tuple[int, ...], deformable: list[set[int]]) -> dict[str, tuple[int, ...]]:
    keys: dict[str, tuple[int, ...]] = {"backbone.conv1.weight": (64, 3, 7, 7), **norm_keys("backbone.bn1", 64)}
    before = 64
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        for block in range(count):
            prefix = f"backbone.layers.{stage}.{block}"
            keys[f"{prefix}.conv1.weight"] = (width, before, 1, 1)
            keys[f"{prefix}.conv2.weight"] = (width, width, 3, 3)
            if block in deformable[stage]:
                keys[f"{prefix}.conv2.bias"] = (width,)
                keys[f"{prefix}.conv2.conv_offset_mask.weight"] = (27, width, 3, 3)
                keys[f"{prefix}.conv2.conv_offset_mask.bias"] = (27,)
            keys[f"{prefix}.conv3.weight"] = (4 * width, width, 1, 1)
            for number, channels in ((1, width), (2, width), (3, 4 * width)):
                keys |= norm_keys(f"{prefix}.bn{number}", channels)
            if block == 0:
                keys[f"{prefix}.downsample.0.weight"] = (4 * width, before, 1, 1)
                keys |= norm_keys(f"{prefix}.downsample.1", 4 * width)
            before = 4 * width
    return keys


def darknet_keys() -> dict[str, tuple[int, ...]]:
    keys: dict[str, tuple[int, ...]] = {}

    def convolution(prefix: str, before: int, after: int, kernel: int) -> None:
        keys[f"{prefix}.0.weight"] = (after, before, kernel, kernel)
        keys.update(norm_keys(f"{prefix}.1", after))

    convolution("backbone._preconv", 3, 32, 3)
    for stage, count in enumerate(DARKNET_BLOCKS):
        width = 64 * 2**stage
        convolution(f"backbone.layers.{stage}.0", width // 2, width, 3)
        for block in range(1, count + 1):
            convolution(f"backbone.layers.{stage}.{block}.conv1", width, width // 2, 1)
            convolution(f"backbone.layers.{stage}.{block}.conv2", width // 2, width, 3)
    return keys


def their_keys(name: str, classes: int = 80) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the released tensors, without the counters of batches."""
    plus = "plus" in name
    depth = "resnet50" if "resnet50" in name else "resnet101"
    if name == "yolact_darknet53":
        keys, widths = darknet_keys(), (256, 512, 1024)
    else:
        blocks, widths = STAGES[depth], (512, 1024, 2048)
        interval = 1 if depth == "resnet50" else 3
        deformable = [set(range(0, count, interval)) if plus and stage else set() for stage, count in enumerate(blocks)]
        keys = resnet_keys(blocks, deformable)

    def convolution(prefix: str, before: int, after: int, kernel: int) -> None:
        keys[f"{prefix}.weight"] = (after, before, kernel, kernel)
        keys[f"{prefix}.bias"] = (after,)

    for place, width in enumerate(reversed(widths)):
        convolution(f"fpn.lat_layers.{place}", width, 256, 1)
        convolution(f"fpn.pred_layers.{place}", 256, 256, 3)
    for place in range(2):
        convolution(f"fpn.downsample_layers.{place}", 256, 256, 3)
    for place in (0, 2, 4, 8):
        convolution(f"proto_net.{place}", 256, 256, 3)
    convolution("proto_net.10", 256, 32, 1)
    anchors = 9 if plus else 3
    convolution("prediction_layers.0.upfeature.0", 256, 256, 3)
    convolution("prediction_layers.0.bbox_layer", 256, anchors * 4, 3)
    convolution("prediction_layers.0.conf_layer", 256, anchors * (classes + 1), 3)
    convolution("prediction_layers.0.mask_layer", 256, anchors * 32, 3)
    convolution("semantic_seg_conv", 256, classes, 1)
    if plus:
        chain = (1, 8, 16, 32, 64, 128)
        for place in range(5):
            convolution(f"maskiou_net.maskiou_net.{2 * place}", chain[place], chain[place + 1], 3)
        convolution("maskiou_net.maskiou_net.10", 128, classes, 1)
    return keys


def random_weights(name: str) -> dict[str, Tensor]:
    """Of a scale at which maps neither vanish nor grow much, and coefficients keep away from 1."""
    generator = torch.Generator().manual_seed(0)
    weights: dict[str, Tensor] = {}
    for key, shape in their_keys(name).items():
        noise = torch.randn(shape, generator=generator)
        if len(shape) == 4:
            weights[key] = noise * (2 / (shape[1] * shape[2] * shape[3])) ** 0.5
        elif key.endswith("running_var") or re.search(r"(bn\d|downsample\.1|\.1)\.weight$", key):
            weights[key] = 1 + 0.2 * noise.clamp(-2, 2)
        else:
            weights[key] = 0.1 * noise
        if key.endswith("bn3.weight"):
            weights[key] *= 0.3
        if key == "prediction_layers.0.mask_layer.weight":
            weights[key] *= 0.02
    return weights
