"""Speed and memory of objects with masks, beside torchvision's Mask R-CNN with the same weights.

    python benchmarks/instances.py [network|memory|all] [--pairs 15] [--threads N] [--version 1|2]
    python benchmarks/instances.py network --image photo.jpg [--short-side 800]
    python benchmarks/instances.py memory [--megapixels 12]

`network`: torchvision's network as its users run it (`eval()`, inference mode, float32), from the image to the masks
cut at 1/2 at the image's size, and ours with the same weights through a whole call of `Predictor`, from the image's
bytes to packed masks. The image is brought to the short side before, so that neither resizes it. Times are taken in
turn, after what was found was compared.

`memory`: the largest resident memory of a process of its own for each, for a photograph of so many megapixels in which
100 objects are found; both look at it with that short side.

Weights are random, spread so that 100 objects of all sizes are found.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from results import add_option, report
from torch import Tensor, nn
from torchvision.models import detection

from pixelwise.importers.torchvision import convert
from pixelwise.inference.model_folder import ModelCard
from pixelwise.inference.predictor import Predictor
from pixelwise.inference.systems import system_module
from pixelwise.labels import LabelSet
from pixelwise.ops.resize_rule import ResizeRule
from pixelwise.types import Instances

CLASSES = 21
NAMES = {1: "maskrcnn_resnet50_fpn", 2: "maskrcnn_resnet50_fpn_v2"}
TIME_LIMIT = 0.75
MEMORY_LIMIT = 0.25
SHORT_SIDE = 800
SAME_SHARE = 0.95
"""Of the objects, so many are found by both: the fused network's rounding moves few across a threshold."""
SPREADS = {
    "cls_logits": 2.0,
    "rpn.head.bbox_pred": 0.2,
    "cls_score": 2.0,
    "predictor.bbox_pred": 0.7,
    "mask_fcn_logits": 2.0,
}
"""Deviation that the outputs of each layer shall have."""


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Blobs of colour with a little noise, as a photograph has it."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    image = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    noise = generator.integers(0, 16, (256, 256, 3), dtype=np.uint8)
    tiled = np.tile(noise, (-(-height // 256), -(-width // 256), 1))[:height, :width]
    return image // 16 * 15 + tiled


def their_input(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


@torch.no_grad()
def their_network(version: int, **options: Any) -> nn.Module:
    """torchvision's, with random weights whose detections in a photograph are many and of every size and class."""
    torch.manual_seed(0)
    build = getattr(detection, NAMES[version])
    theirs = build(weights=None, weights_backbone=None, num_classes=CLASSES, **options).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.1)

    def spread(layer: Any, inputs: tuple[Tensor], answer: Tensor, deviation: float) -> Tensor:
        dims = [dim for dim in range(answer.ndim) if dim != 1]
        mean, factor = answer.mean(dim=dims), deviation / answer.std(dim=dims)
        layer.weight.mul_(factor.view(-1, *[1] * (layer.weight.ndim - 1)))
        layer.bias.copy_((layer.bias - mean) * factor)
        hooks.pop(layer).remove()
        return layer(*inputs)

    hooks = {
        layer: layer.register_forward_hook(partial(spread, deviation=deviation))
        for name, layer in theirs.named_modules()
        for ending, deviation in SPREADS.items()
        if name.endswith(ending)
    }
    theirs([their_input(photograph(480, 640))])
    return theirs


def our_predictor(theirs: nn.Module, version: int, long_side: int) -> Predictor:
    imported = convert(NAMES[version], theirs.state_dict())
    module = system_module(imported.system).build(num_classes=CLASSES, **imported.arguments)
    missing, unexpected = module.load_state_dict(imported.weights, strict=False)
    if unexpected or any(not key.endswith("num_batches_tracked") for key in missing):
        raise SystemExit(f"weights do not fit: {missing[:3]} {unexpected[:3]}")
    labels = LabelSet.from_names("benchmark", [f"class {number}" for number in range(CLASSES)])
    card = ModelCard(
        "instance", imported.system, labels, arguments=dict(imported.arguments), resize=ResizeRule(length=long_side)
    )
    return Predictor(module, card, device="cpu")


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def share_of_same(found: Instances, expected: dict[str, Tensor]) -> tuple[float, float]:
    """Which part of theirs we found too (class, boxes within half a pixel), and the masks' differing part in those."""
    assert found.masks is not None
    same = differing = pixels = 0
    free = set(range(len(found)))
    for box, label, mask in zip(*(expected[key] for key in ("boxes", "labels", "masks")), strict=True):
        match = next(
            (i for i in free if found.labels[i] == label and float((found.boxes[i] - box).abs().max()) <= 0.5), None
        )
        if match is not None:
            free.remove(match)
            same += 1
            theirs = mask[0] >= 0.5
            differing += int((found.masks.dense_one(match) != theirs).sum())
            pixels += int(theirs.sum())
    return same / max(1, len(expected["boxes"])), differing / max(1, pixels)


def network(*, pairs: int, version: int, image_path: Path | None, short_side: int) -> bool:
    """Print times and differences; whether the limit is kept."""
    if image_path is None:
        image = photograph(short_side, short_side * 4 // 3)
    else:
        with Image.open(image_path) as opened:
            factor = short_side / min(opened.size)
            size = (round(opened.width * factor), round(opened.height * factor))
            image = np.asarray(opened.convert("RGB").resize(size, Image.Resampling.BILINEAR))
    height, width = image.shape[:2]
    theirs = their_network(version, min_size=min(height, width), max_size=max(height, width))
    ours = our_predictor(theirs, version, max(height, width))
    pixels = their_input(image)

    @torch.inference_mode()
    def their_answer() -> dict[str, Tensor]:
        answer = theirs([pixels])[0]
        answer["masks"] = answer["masks"] >= 0.5
        return answer

    expected = their_answer()
    found = ours(image).annotation.instances
    assert found is not None
    share, difference = share_of_same(found, expected)
    times = [(seconds(their_answer), seconds(lambda: ours(image))) for _ in range(pairs)]
    ratio = statistics.median(our / their for their, our in times)
    their_median, our_median = (statistics.median(column) for column in zip(*times, strict=True))
    kept = ratio <= TIME_LIMIT and share >= SAME_SHARE
    report(
        f"torchvision {NAMES[version]} at {width}×{height}",
        f"theirs {their_median:.2f} s, ours {our_median:.2f} s, "
        f"ratio {ratio:.2f} (limit {TIME_LIMIT:.2f}); {len(expected['boxes'])} and {len(found)} objects, {share:.0%} "
        f"the same, their masks differ in {difference:.2%} of their pixels: {'ok' if kept else 'MISSED'}",
    )
    return kept


def memory_of(side: str, *, version: int, megapixels: float, short_side: int) -> None:
    """Look for objects in one photograph and print how many there are; run in a process of its own."""
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    width = height * 4 // 3
    long_side = round(short_side * width / height)
    theirs = their_network(version, min_size=short_side, max_size=long_side)
    image = photograph(height, width)
    if side == "theirs":
        with torch.inference_mode():
            answer = theirs([their_input(image)])[0]
        count, size = len(answer["boxes"]), tuple(answer["masks"].shape[2:])
    else:
        predictor = our_predictor(theirs, version, long_side)
        del theirs
        instances = predictor(image).annotation.instances
        assert instances is not None
        assert instances.masks is not None
        count, size = len(instances), instances.masks.size
    print(json.dumps({"objects": count, "size": size}))


def memory(*, version: int, megapixels: float, short_side: int) -> bool:
    """Print both peaks; whether the limit is kept."""
    peaks: dict[str, float] = {}
    counts: dict[str, int] = {}
    for side in ("theirs", "ours"):
        command = [sys.executable, __file__, "memory", "--side", side]
        command += ["--version", str(version), "--megapixels", str(megapixels), "--short-side", str(short_side)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        text = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        if os.waitstatus_to_exitcode(status):
            raise SystemExit(f"{side}: exit code {os.waitstatus_to_exitcode(status)}")
        counts[side] = json.loads(text)["objects"]
        peaks[side] = usage.ru_maxrss / 2**20
    ratio = peaks["ours"] / peaks["theirs"]
    kept = ratio <= MEMORY_LIMIT and min(counts.values()) >= 100
    report(
        f"peak memory, torchvision {NAMES[version]}, {megapixels:g} megapixels",
        f"{counts['theirs']} and {counts['ours']} objects, theirs {peaks['theirs']:.2f} GiB, "
        f"ours {peaks['ours']:.2f} GiB, ratio {ratio:.2f} "
        f"(limit {MEMORY_LIMIT:.2f}): {'ok' if kept else 'MISSED'}",
    )
    return kept


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("part", nargs="?", choices=("network", "memory", "all"), default="all")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--version", type=int, choices=(1, 2), default=1)
    parser.add_argument("--image", type=Path)
    parser.add_argument("--short-side", type=int, default=SHORT_SIDE)
    parser.add_argument("--megapixels", type=float, default=12.0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--side", choices=("theirs", "ours"), help=argparse.SUPPRESS)
    add_option(parser)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.side:
        memory_of(options.side, version=options.version, megapixels=options.megapixels, short_side=options.short_side)
        return 0
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    kept: list[bool] = []
    if options.part in ("network", "all"):
        kept.append(
            network(
                pairs=options.pairs, version=options.version, image_path=options.image, short_side=options.short_side
            )
        )
    if options.part in ("memory", "all"):
        kept.append(memory(version=options.version, megapixels=options.megapixels, short_side=options.short_side))
    return int(not all(kept))


if __name__ == "__main__":
    sys.exit(main())
