"""Time of YolactEdge's partial frames, as a share of that of its key frames.

    python benchmarks/yolact_edge.py [resnet50 resnet101 …] [--side 550] [--interval 5] [--pairs 15] [--threads N]

Both go through the network that `Predictor` uses (`fused`) and through the stored one (`stored`), in inference mode and
float32, from the pixels to what was found. A key frame and the partial frame after it are timed in turn, and the median
of the pairs' ratios is printed, with what follows for the mean of all frames.

Weights are random, and nothing is found: what prototypes, heads and suppression cost is the same for both kinds of
frames.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from results import add_option, report
from torch import Tensor, nn

from pixelwise.inference.model_folder import ModelCard
from pixelwise.inference.predictor import Predictor
from pixelwise.labels import LabelSet
from pixelwise.models import yolact_edge
from pixelwise.ops.resize_rule import ResizeRule

CLASSES = 41


def two_frames(side: int) -> tuple[Tensor, Tensor]:
    """Blobs of colour, and the same a little to the right."""
    noise = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    wide = F.interpolate(noise, (side, side + 8), mode="bicubic").clamp(0, 1)
    return wide[..., 8:].contiguous(), wide[..., :-8].contiguous()


@torch.no_grad()
def settle(system: yolact_edge.YolactEdge, frame: Tensor) -> None:
    """Batch-norm statistics of the frame, without which random weights enlarge every rounding."""
    for module in system.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    system.backbone.train()
    system.backbone(system.normalize(frame[:, :, :256, :256]))


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def measure(backbone: str, *, side: int, interval: int, pairs: int) -> None:
    """Print the times of one backbone."""
    torch.manual_seed(0)
    system = yolact_edge.build(num_classes=CLASSES, backbone=backbone)
    first, second = (frame.contiguous(memory_format=torch.channels_last) for frame in two_frames(side))
    settle(system, first)
    labels = LabelSet.from_names("benchmark", [f"class {number}" for number in range(CLASSES)])
    predictor = Predictor(
        system, ModelCard("instance", "yolact_edge", labels, resize=ResizeRule(length=side)), device="cpu"
    )
    fused = predictor.network()
    if fused is system:
        raise SystemExit(f"{backbone}: the faster copy does not give the network's output")
    for name, network in (("fused", fused), ("stored", system)):
        report(*describe(backbone, name, network, (first, second), interval=interval, pairs=pairs))


@torch.inference_mode()
def describe(
    backbone: str, name: str, network: nn.Module, frames: tuple[Tensor, Tensor], *, interval: int, pairs: int
) -> tuple[str, str]:
    """What was measured, and the times of a network with what follows from them."""
    memory = network(frames[0]).memory
    output = network(frames[1], memory=memory)
    assert output.memory.age.tolist() == [1], "the second frame is a partial one"
    times = [
        (seconds(lambda: network(frames[0])), seconds(lambda: network(frames[1], memory=memory))) for _ in range(pairs)
    ]
    key, partial = (statistics.median(column) for column in zip(*times, strict=True))
    ratios = sorted(one / other for other, one in times)
    ratio = statistics.median(ratios)
    mean = (1 + (interval - 1) * ratio) / interval
    return (
        f"yolact_edge_{backbone} at {frames[0].shape[2]} pixels, {name}",
        f"key frame {key:.3f} s, partial frame {partial:.3f} s, ratio {ratio:.2f} "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f} in {pairs} pairs); with a key frame "
        f"in {interval}, {1 / mean:.2f} times as many frames in the same time",
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("backbones", nargs="*", default=["resnet50", "resnet101"])
    parser.add_argument("--side", type=int, default=550)
    parser.add_argument("--interval", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--threads", type=int)
    add_option(parser)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for backbone in options.backbones:
        measure(backbone, side=options.side, interval=options.interval, pairs=options.pairs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
