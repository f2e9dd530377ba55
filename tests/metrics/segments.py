"""Segments for tests: maps of ids as annotations, and PQ, pixel by pixel and pair by pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from pixelwise.labels import LabelSet
from pixelwise.types import Annotation, Panoptic

LABELS = LabelSet("three", ("sky", "cat", "dog"), (False, True, True), ((0, 0, 0),) * 3, (0, 1, 2))
"""One class of stuff, two of things."""


def segments(
    ids: Sequence[Sequence[int]] | np.ndarray, classes: Mapping[int, int], crowd: Sequence[int] = ()
) -> Annotation:
    """An annotation of a map of ids, with the class of each id."""
    return Annotation(
        panoptic=Panoptic(
            ids=torch.tensor(np.asarray(ids), dtype=torch.int32),
            segment_ids=torch.tensor(list(classes), dtype=torch.int32),
            labels=torch.tensor(list(classes.values()), dtype=torch.int64),
            crowd=torch.tensor([id in crowd for id in classes], dtype=torch.bool),
        )
    )


def random_segments(
    generator: np.random.Generator, size: tuple[int, int], *, names: Sequence[int], classes: int, crowd: bool = False
) -> Annotation:
    """A map of rectangles on void, each with one of the names (some never), and a class for each name."""
    ids = np.zeros(size, dtype=np.int32)
    for _ in range(12):
        y, x = (int(generator.integers(0, side)) for side in size)
        height, width = (int(generator.integers(1, 1 + side)) for side in size)
        ids[y : y + height, x : x + width] = generator.choice([0, *names])
    crowds = [name for name in names if crowd and generator.random() < 0.3]
    return segments(ids, {name: int(generator.integers(0, classes)) for name in names}, crowds)


def moved(annotation: Annotation, generator: np.random.Generator, names: Sequence[int]) -> Annotation:
    """The same segments under other names, some pixels given to others."""
    panoptic = annotation.panoptic
    table = dict(zip(panoptic.segment_ids.tolist(), names, strict=True))
    ids = np.vectorize(lambda id: table.get(id, 0))(panoptic.ids.numpy())
    noise = generator.choice([0, *names], ids.shape)
    ids = np.where(generator.random(ids.shape) < 0.25, noise, ids)
    classes = {
        table[id]: label for id, label in zip(panoptic.segment_ids.tolist(), panoptic.labels.tolist(), strict=True)
    }
    return segments(ids, classes)


Pixels = dict[int, set[tuple[int, ...]]]


def pixels_of(annotations: Sequence[Annotation]) -> tuple[Pixels, dict[int, int], set[int]]:
    """The pixels of each segment over some frames, its class in the first frame that has it, and which are crowds."""
    pixels: Pixels = {}
    classes: dict[int, int] = {}
    crowds: set[int] = set()
    for frame, annotation in enumerate(annotations):
        panoptic = annotation.panoptic
        known = dict(zip(panoptic.segment_ids.tolist(), panoptic.labels.tolist(), strict=True))
        many = dict(zip(panoptic.segment_ids.tolist(), panoptic.crowd.tolist(), strict=True))
        for (row, column), id in np.ndenumerate(panoptic.ids.numpy()):
            name = int(id) if int(id) in known else 0
            pixels.setdefault(name, set()).add((frame, row, column))
            if name and name not in classes:
                classes[name] = known[name]
                if many[name]:
                    crowds.add(name)
    return pixels, classes, crowds


def slow_counts(predicted: Sequence[Annotation], truth: Sequence[Annotation]) -> dict[int, list[float]]:
    """TP, FP, FN and the sum of IoUs of each class, over sets of pixels; some frames are one volume."""
    true_pixels, true_class, crowds = pixels_of(truth)
    found_pixels, found_class, _ = pixels_of(predicted)
    void = true_pixels.get(0, set())
    counts: dict[int, list[float]] = {}
    found_right: set[int] = set()
    for wanted, label in true_class.items():
        if wanted in crowds:
            continue
        partners = []
        for found, other in found_class.items():
            evaluated = found_pixels[found] - void
            iou = len(evaluated & true_pixels[wanted]) / len(evaluated | true_pixels[wanted])
            if other == label and iou > 0.5:
                partners.append((found, iou))
        assert len(partners) <= 1
        row = counts.setdefault(label, [0, 0, 0, 0.0])
        row[2] += not partners
        for found, iou in partners:
            row[0] += 1
            row[3] += iou
            found_right.add(found)
    for found, label in found_class.items():
        if found in found_right:
            continue
        ignored = set(void)
        for crowd in crowds:
            if true_class[crowd] == label:
                ignored |= true_pixels[crowd]
        if len(found_pixels[found] & ignored) <= len(found_pixels[found]) / 2:
            counts.setdefault(label, [0, 0, 0, 0.0])[1] += 1
    return counts


def slow_quality(counts: Mapping[int, Sequence[float]], members: Sequence[int]) -> dict[str, float | None]:
    """PQ, SQ and RQ averaged over those of some classes that were counted."""
    rows = [counts[label] for label in members if label in counts and sum(counts[label][:3])]
    if not rows:
        return {"pq": None, "sq": None, "rq": None}
    return {
        "pq": sum(iou / (tp + 0.5 * fp + 0.5 * fn) for tp, fp, fn, iou in rows) / len(rows),
        "sq": sum(iou / tp if tp else 0 for tp, _, _, iou in rows) / len(rows),
        "rq": sum(tp / (tp + 0.5 * fp + 0.5 * fn) for tp, fp, fn, _ in rows) / len(rows),
    }
