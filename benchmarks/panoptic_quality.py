"""PQ of large maps beside the usual formulation, in turns on one core, with equal results.

    python benchmarks/panoptic_quality.py [--pairs 7] [--height 1024] [--width 2048] [--segments 100]

The usual formulation is that of the COCO panoptic API: areas from the sorted ids of the prediction, the joint histogram
from the sorted pairs of ids as one 64-bit number, and a loop over the pairs. Both are given maps of ids in memory,
dense (1, 2, 3 …) and sparse (24 bits), of large regions, of ragged ones and of noise, and the PNGs of the same. The
kernels that could make the joint histogram are timed by themselves.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from results import add_option, report

from pixelwise.labels import LabelSet
from pixelwise.metrics.panoptic_quality import PanopticQuality
from pixelwise.ops.joint_counts import joint_counts
from pixelwise.ops.panoptic import ids_to_rgb, rgb_to_ids
from pixelwise.types import Annotation, Panoptic

CLASSES = 19
LABELS = LabelSet(
    "city", tuple(map(str, range(CLASSES))), (True,) * CLASSES, ((0, 0, 0),) * CLASSES, (*range(CLASSES),)
)
Counts = dict[int, list[float]]


def regions(generator: np.random.Generator, size: tuple[int, int], segments: int, ragged: float) -> np.ndarray:
    """The number of the nearest of so many points, 1 …; `ragged` is the noise of the place in pixels."""
    y, x = (place.astype(np.float32) for place in np.mgrid[: size[0], : size[1]])
    y += generator.normal(0, ragged, size).astype(np.float32)
    nearest, ids = np.full(size, np.inf, np.float32), np.zeros(size, np.int32)
    for number, (row, column) in enumerate(generator.random((segments, 2)) * size, start=1):
        distance = (y - row) ** 2 + (x - column) ** 2
        ids[distance < nearest] = number
        np.minimum(nearest, distance, out=nearest)
    return ids


def maps(kind: str, size: tuple[int, int], segments: int) -> tuple[np.ndarray, np.ndarray]:
    """Ground truth and a prediction that agrees with most of it; a tenth of the ground truth is void."""
    generator = np.random.default_rng(0)
    if kind == "noise":
        truth = generator.integers(0, segments + 1, size, dtype=np.int32)
        return truth, np.where(generator.random(size) < 0.8, truth, generator.integers(1, segments + 1, size, np.int32))
    truth = regions(generator, size, segments, 0.0 if kind == "regions" else 2.0)
    predicted = np.roll(truth, 6, axis=1)
    predicted[:, : size[1] // 4] = regions(generator, size, segments, 0.0)[:, : size[1] // 4]
    truth[: size[0] // 10] = 0
    return truth, predicted


def annotation(ids: np.ndarray, classes: dict[int, int]) -> Annotation:
    return Annotation(
        panoptic=Panoptic(
            torch.from_numpy(ids),
            torch.tensor(list(classes), dtype=torch.int32),
            torch.tensor(list(classes.values())),
            torch.zeros(len(classes), dtype=torch.bool),
        )
    )


def ours(truth: np.ndarray, predicted: np.ndarray, classes: dict[int, int]) -> Counts:
    metric = PanopticQuality(LABELS)
    metric.update(annotation(predicted, classes), annotation(truth, classes), id="a")
    return {one.label: [one.tp, one.fp, one.fn, one.iou] for one in metric.images["a"].classes}


def usual(truth: np.ndarray, predicted: np.ndarray, classes: dict[int, int]) -> Counts:
    """PQ as it is usually counted; every segment of `classes` may occur in both."""
    areas = {int(id): int(count) for id, count in zip(*np.unique(predicted, return_counts=True), strict=True)}
    joint = truth.astype(np.uint64) * np.uint64(2**24) + predicted.astype(np.uint64)
    shared = {
        (int(pair) >> 24, int(pair) & 2**24 - 1): int(count)
        for pair, count in zip(*np.unique(joint, return_counts=True), strict=True)
    }
    true_areas: dict[int, int] = {}
    for (expected, _), count in shared.items():
        true_areas[expected] = true_areas.get(expected, 0) + count
    counts: Counts = {}
    found_right: set[int] = set()
    found: set[int] = set()
    for (expected, predicted_id), count in shared.items():
        if not expected or not predicted_id or classes[expected] != classes[predicted_id]:
            continue
        iou = count / (areas[predicted_id] + true_areas[expected] - count - shared.get((0, predicted_id), 0))
        if iou > 0.5:
            row = counts.setdefault(classes[expected], [0, 0, 0, 0.0])
            row[0] += 1
            row[3] += iou
            found.add(expected)
            found_right.add(predicted_id)
    for expected in true_areas:
        if expected and expected not in found:
            counts.setdefault(classes[expected], [0, 0, 0, 0.0])[2] += 1
    for predicted_id, area in areas.items():
        if predicted_id and predicted_id not in found_right and shared.get((0, predicted_id), 0) / area <= 0.5:
            counts.setdefault(classes[predicted_id], [0, 0, 0, 0.0])[1] += 1
    return counts


def png(ids: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(ids_to_rgb(ids)).save(file, "PNG")
    return file.getvalue()


def decoded(file: bytes) -> np.ndarray:
    return rgb_to_ids(np.asarray(Image.open(io.BytesIO(file))))


def usually_decoded(file: bytes) -> np.ndarray:
    colours = np.array(Image.open(io.BytesIO(file)), dtype=np.uint32)
    return colours[:, :, 0] + 256 * colours[:, :, 1] + 256 * 256 * colours[:, :, 2]


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    result = run()
    return 1000 * (time.perf_counter() - begin), result


def compare(name: str, one: Callable[[], Counts], other: Callable[[], Counts], pairs: int) -> None:
    """Run both by turns, and print the median of the ratios of their speed."""
    times: list[tuple[float, float]] = []
    for turn in range(pairs + 1):
        if turn % 2:
            (second, expected), (first, found) = timed(other), timed(one)
        else:
            (first, found), (second, expected) = timed(one), timed(other)
        if turn:  # the first round warms up
            times.append((first, second))
        for label in {**found, **expected}:
            assert found[label][:3] == expected[label][:3], (name, label)
            assert abs(found[label][3] - expected[label][3]) < 1e-9, (name, label)
    ratio = statistics.median(second / first for first, second in times)
    mine, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    report(name, f"ours {mine:.2f} ms, the usual formulation {theirs:.2f} ms, {ratio:.2f} times the throughput")


def kernels(truth: np.ndarray, predicted: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Ways to a joint histogram of dense ids."""
    size = int(max(truth.max(), predicted.max())) + 1
    ids = np.arange(1, size)
    first, second = torch.from_numpy(truth).flatten(), torch.from_numpy(predicted).flatten()

    def sorted_pairs() -> Any:
        return np.unique(truth.astype(np.uint64) * np.uint64(size) + predicted.astype(np.uint64), return_counts=True)

    def all_pixels() -> Any:
        return np.bincount((truth.astype(np.int64) * size + predicted).ravel(), minlength=size**2)

    def all_pixels_torch() -> Any:
        return torch.bincount(first * size + second, minlength=size**2)

    def small_integers_torch() -> Any:
        return torch.bincount((first.to(torch.int16) * size + second.to(torch.int16)), minlength=size**2)

    def runs() -> Any:
        return joint_counts(truth, predicted, ids, ids)

    return {
        "np.unique of pairs": sorted_pairs,
        "np.bincount of pixels": all_pixels,
        "torch.bincount of pixels": all_pixels_torch,
        "torch.bincount of i16": small_integers_torch,
        "runs, then np.bincount": runs,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--height", type=int, default=1024)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--segments", type=int, default=100)
    add_option(parser)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    size = (options.height, options.width)
    print(f"{size[0]}×{size[1]}, {options.segments} segments, one core; medians of {options.pairs} interleaved pairs")
    for kind in ("regions", "ragged", "noise"):
        truth, predicted = maps(kind, size, options.segments)
        for density, factor in (("dense", 1), ("sparse", 166_013)):
            names = np.arange(options.segments + 1, dtype=np.int64) * factor % (2**24 - 3)
            sides = names[truth].astype(np.int32), names[predicted].astype(np.int32)
            classes = {int(id): number % CLASSES for number, id in enumerate(names.tolist()) if id}
            compare(
                f"{kind}, {density} ids",
                lambda sides=sides, classes=classes: ours(*sides, classes),
                lambda sides=sides, classes=classes: usual(*sides, classes),
                options.pairs,
            )
            expected, found = png(sides[0]), png(sides[1])
            compare(
                f"{kind}, {density} PNGs",
                lambda one=expected, other=found, classes=classes: ours(decoded(one), decoded(other), classes),
                lambda one=expected, other=found, classes=classes: usual(
                    usually_decoded(one), usually_decoded(other), classes
                ),
                options.pairs,
            )
        for name, kernel in kernels(truth, predicted).items():
            kernel()
            print(f"  {name:26s} {statistics.median(timed(kernel)[0] for _ in range(options.pairs)):7.2f} ms")


if __name__ == "__main__":
    main()
