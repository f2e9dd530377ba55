"""The smallest YOLACT, objects for it, and its losses written out as loops over single numbers."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelwise.models import yolact
from pixelwise.types import Annotation, Batch, Instances, Masks

SIZE = (96, 128)
CLASSES = 6


def small_yolact(**arguments: Any) -> yolact.YOLACT:
    """The smallest, whose scores are spread out so that some become detections."""
    torch.manual_seed(0)
    system = yolact.build(num_classes=CLASSES, backbone="mobilenet_v2", channels=32, prototypes=8, **arguments)
    for module in system.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        output = system.train()(torch.rand(2, 3, *SIZE))
        system.head.classes.weight *= 1.5 / output.predictions.logits.std()
        system.head.coefficients.weight *= 4
    return system.eval()


def ellipses(seed: int, count: int, *, crowds: int = 0, size: tuple[int, int] = SIZE) -> Annotation:
    """Objects in tight boxes."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    masks: list[Tensor] = []
    for number in range(count + crowds):
        radius = 10 + torch.rand(2, generator=generator) * (14 if number < count else 30)
        centre = torch.rand(2, generator=generator) * torch.tensor(size)
        masks.append(((y - centre[0]) / radius[0]) ** 2 + ((x - centre[1]) / radius[1]) ** 2 < 1)
    packed = Masks.from_dense(torch.stack(masks) if masks else torch.zeros(0, *size, dtype=torch.bool))
    return Annotation(
        instances=Instances(
            boxes=packed.boxes.float(),
            labels=torch.randint(1, CLASSES, (count + crowds,), generator=generator),
            masks=packed,
            crowd=torch.arange(count + crowds) >= count,
        )
    )


def batch_of(*truth: Annotation, original: tuple[int, int] = SIZE, valid: tuple[int, int] = SIZE) -> Batch:
    count = len(truth)
    return Batch(
        images=torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(3)),
        valid_sizes=torch.tensor([valid] * count),
        original_sizes=torch.tensor([original] * count),
        truth=truth,
        ids=tuple(f"image {index}" for index in range(count)),
        clip_index=torch.arange(count),
        frame_index=torch.zeros(count, dtype=torch.int64),
    )


def iou(one: list[float], other: list[float]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (sum(areas) - width * height)


def matched_by_loops(anchors: list[list[float]], truth: Instances, size: tuple[int, int]) -> list[int]:
    """The object, -1 for background, -2 for neutral."""
    boxes, crowd = truth.boxes.tolist(), truth.crowd.tolist()
    limits = (4 / 550 * size[1], 4 / 550 * size[0])
    wanted = [
        index
        for index, (x1, y1, x2, y2) in enumerate(boxes)
        if not crowd[index] and x2 - x1 >= limits[0] and y2 - y1 >= limits[1]
    ]
    overlaps = {index: [iou(boxes[index], anchor) for anchor in anchors] for index in wanted}
    result = []
    for place in range(len(anchors)):
        best = max(wanted, key=lambda index: overlaps[index][place], default=None)
        value = 0.0 if best is None else overlaps[best][place]
        result.append(best if value >= 0.5 else -2 if value >= 0.4 else -1)
    free = [*wanted]
    taken: set[int] = set()
    while free:
        pairs = [(overlaps[index][place], -index, -place) for index in free for place in range(len(anchors))]
        _, index, place = max(pair for pair in pairs if -pair[2] not in taken)
        result[-place] = -index
        free.remove(-index)
        taken.add(-place)
    for place, (x1, y1, x2, y2) in enumerate(anchors):
        for region in (box for box, is_crowd in zip(boxes, crowd, strict=True) if is_crowd):
            width, height = min(x2, region[2]) - max(x1, region[0]), min(y2, region[3]) - max(y1, region[1])
            covered = max(0, width) * max(0, height) / ((x2 - x1) * (y2 - y1))
            if covered > 0.7 and result[place] < 0:
                result[place] = -2
    return result


def suppressed_by_loops(
    boxes: list[list[float]], scores: list[list[float]], *, per_class: int, fast: bool
) -> list[tuple[float, int, int]]:
    """Score, box and class of those that stay, best first."""
    kept = []
    for number in range(len(scores[0])):
        order = sorted(range(len(boxes)), key=lambda index: -scores[index][number])[:per_class]
        if not fast:
            order = [index for index in order if scores[index][number] > 0.3]
        stays: list[int] = []
        for rank, index in enumerate(order):
            rivals = order[:rank] if fast else stays
            if all(iou(boxes[index], boxes[rival]) <= 0.5 for rival in rivals):
                stays.append(index)
        kept += [(scores[index][number], index, number) for index in stays]
    return sorted(kept, reverse=True)


def smooth_l1(value: float) -> float:
    return 0.5 * value * value if abs(value) < 1 else abs(value) - 0.5


def on_grid(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    return F.interpolate(mask[None, None].double(), grid, mode="bilinear", align_corners=False)[0, 0] > 0.5


def losses_by_loops(output: Any, truths: list[Instances], *, mask_iou: nn.Module | None) -> dict[str, float]:
    """Before the weights, divided by the anchors that stand for objects (the semantic one by the images)."""
    totals = {"class": 0.0, "box": 0.0, "mask": 0.0, "semantic": 0.0, "mask_iou": 0.0}
    count = 0
    predictions = output.predictions
    for index, truth in enumerate(truths):
        matches = matched_by_loops(predictions.anchors[index].tolist(), truth, SIZE)
        assert output.objects[index].tolist() == matches
        log_odds = predictions.logits[index].log_softmax(dim=1)
        positives = [place for place, match in enumerate(matches) if match >= 0]
        background = [place for place, match in enumerate(matches) if match == -1]
        hardest = sorted(background, key=lambda place: float(log_odds[place, 0]))[: 3 * len(positives)]
        count += len(positives)
        totals["class"] -= sum(float(log_odds[place, 0]) for place in hardest)
        rows, columns = predictions.prototypes.shape[2:]
        dense = truth.masks.dense()
        drawn = output.masked[index].tolist()
        assert set(drawn) <= set(positives)
        for place in positives:
            match = matches[place]
            totals["class"] -= float(log_odds[place, truth.labels[match]])
            x1, y1, x2, y2 = truth.boxes[match].tolist()
            a1, b1, a2, b2 = predictions.anchors[index, place].tolist()
            coded = (
                ((x1 + x2) / 2 - (a1 + a2) / 2) / (a2 - a1) / 0.1,
                ((y1 + y2) / 2 - (b1 + b2) / 2) / (b2 - b1) / 0.1,
                math.log((x2 - x1) / (a2 - a1)) / 0.2,
                math.log((y2 - y1) / (b2 - b1)) / 0.2,
            )
            deltas = predictions.deltas[index, place].tolist()
            totals["box"] += sum(smooth_l1(one - other) for one, other in zip(deltas, coded, strict=True))
            if place not in drawn:
                continue
            mask = torch.einsum(
                "c,chw->hw", predictions.coefficients[index, place], predictions.prototypes[index]
            ).sigmoid()
            left, right = max(x1 / SIZE[1] * columns - 1, 0), min(x2 / SIZE[1] * columns + 1, columns)
            top, bottom = max(y1 / SIZE[0] * rows - 1, 0), min(y2 / SIZE[0] * rows + 1, rows)
            across, down = torch.arange(columns), torch.arange(rows)
            crop = ((down >= top) & (down < bottom))[:, None] & ((across >= left) & (across < right))[None, :]
            wanted = on_grid(dense[match], (rows, columns))
            total = F.binary_cross_entropy(mask * crop, wanted.double(), reduction="sum")
            cells = (x2 - x1) / SIZE[1] * columns * (y2 - y1) / SIZE[0] * rows
            totals["mask"] += float(total) / cells * len(positives) / len(drawn)
            if mask_iou is not None and wanted.sum() > 25:
                seen = (mask * crop) > 0.5
                overlap = float((seen & wanted).sum() / (seen | wanted).sum())
                guess = mask_iou((mask * crop)[None])[0, truth.labels[match] - 1]
                totals["mask_iou"] += smooth_l1(float(guess) - overlap)
        logits = output.semantic_logits[index]
        classes = torch.zeros_like(logits)
        for label, mask, is_crowd in zip(truth.labels, dense, truth.crowd, strict=True):
            if not is_crowd:
                classes[label - 1][on_grid(mask, logits.shape[1:])] = 1
        total = F.binary_cross_entropy(logits.sigmoid(), classes, reduction="sum")
        totals["semantic"] += float(total) / (logits.shape[1] * logits.shape[2])
    return {name: total / (len(truths) if name == "semantic" else count) for name, total in totals.items()}
