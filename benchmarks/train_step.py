"""Speed of a training step beside segmentation_models_pytorch's: the same task, batch and crop, in one run, in turn.

    python benchmarks/train_step.py [--pairs 15] [--batch-size 8] [--crop-size 320]

Both are DeepLab v3+ on MobileNet V2 with separable convolutions, 21 classes, AdamW. Theirs is trained as their examples
do it (float32, eager); ours as `pixelwise train` does it, from images and ground truth in memory to the moved weights.
Before the timing, the loss of both is shown to fall on one batch. Ends with 1 if a step of ours takes longer than
theirs.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from results import add_option, report

from pixelwise.contracts import Optimizer
from pixelwise.data.loading.collate import collate
from pixelwise.losses.cross_entropy import stack_semantic
from pixelwise.models.deeplab_v3_plus import build
from pixelwise.training.allocator import keep_freed_memory
from pixelwise.training.fit import make_gradients
from pixelwise.training.optimizer import build_optimizer
from pixelwise.training.processes import new_accelerator
from pixelwise.training.run.run import computes_bfloat16
from pixelwise.types import Annotation, Batch, Sample

THEIRS, OURS, OURS_FLOAT32 = "segmentation_models_pytorch", "pixelwise", "pixelwise in float32"
LIMIT, AIM = 1.0, 0.8
"""Largest time of a step of ours, as a fraction of theirs: what is required, and what is aimed at."""


def random_batch(batch_size: int, crop_size: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    size = (crop_size, crop_size)
    return collate(
        [
            Sample(
                torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator),
                Annotation(semantic=torch.randint(0, 21, size, generator=generator).to(torch.uint8)),
                str(number),
                size,
            )
            for number in range(batch_size)
        ]
    )


def their_step(batch: Batch) -> Callable[[], float]:
    network = smp.DeepLabV3Plus("mobilenet_v2", encoder_weights=None, classes=21).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-4)
    truth = stack_semantic(batch.truth).long()

    def step() -> float:
        loss = F.cross_entropy(network(batch.images), truth, ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def our_step(batch: Batch, precision: str) -> Callable[[], float]:
    system = build(num_classes=21, backbone="mobilenet_v2").train().to(memory_format=torch.channels_last)
    optimizer = build_optimizer(system, Optimizer(name="adamw", lr=3e-4, weight_decay=1e-2))
    accelerator = new_accelerator("cpu", precision)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        terms = make_gradients(system, system, [batch], accelerator)
        optimizer.step()
        return terms["loss"]

    return step


def serve(kind: str, batch_size: int, crop_size: int, pipe: Connection) -> None:
    """Answer each number of steps with losses and seconds; in a process of its own, whose allocator it sets."""
    torch.manual_seed(0)
    batch = random_batch(batch_size, crop_size)
    if kind != THEIRS:
        keep_freed_memory()
    step = their_step(batch) if kind == THEIRS else our_step(batch, "bfloat16" if kind == OURS else "float32")
    while count := pipe.recv():
        started = time.perf_counter()
        losses = [step() for _ in range(count)]
        pipe.send((losses, time.perf_counter() - started))


def verdict(ratio: float) -> str:
    """What the ratio of ours to theirs means."""
    reached = "aim reached" if ratio <= AIM else "within the limit, not the aim" if ratio <= LIMIT else "too slow"
    return f"{reached}: {ratio:.2f} of their time (limit {LIMIT}, aim {AIM})"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--crop-size", type=int, default=320)
    add_option(parser)
    options = parser.parse_args()
    kinds = [THEIRS, OURS, OURS_FLOAT32] if computes_bfloat16() else [THEIRS, OURS_FLOAT32]
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for kind in kinds:
        pipes[kind], theirs = context.Pipe()
        context.Process(target=serve, args=(kind, options.batch_size, options.crop_size, theirs), daemon=True).start()

    def make_steps(kind: str, count: int) -> tuple[list[float], float]:
        pipes[kind].send(count)
        return pipes[kind].recv()

    for kind in kinds:
        losses, _ = make_steps(kind, 4)
        print(f"{kind}: loss {losses[0]:.3f} → {losses[-1]:.3f} in four steps on one batch")
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(options.pairs):
        for kind in kinds:
            times[kind].append(make_steps(kind, 1)[1])
    for pipe in pipes.values():
        pipe.send(0)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, medians of {options.pairs} in turn")
    for kind, values in times.items():
        ratios = [value / other for value, other in zip(values, times[THEIRS], strict=True)]
        report(
            f"training step of DeepLab v3+ on MobileNet V2, {kind}",
            f"{options.batch_size / statistics.median(values):.2f} images/s, "
            f"time ratio to theirs {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})",
        )
    used = kinds[1]  # what precision=auto takes here
    ratio = statistics.median(ours / theirs for ours, theirs in zip(times[used], times[THEIRS], strict=True))
    print(verdict(ratio))
    return int(ratio > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
