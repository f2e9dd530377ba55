"""Average precision of synthetic detections: ours against pycocotools, in turns, with equal numbers.

    python benchmarks/average_precision.py [--images 5000] [--pairs 3]

Ours is fed with packed masks, one image after the other, as `evaluate` feeds it, and counts masks and boxes at once;
pycocotools is given the same objects as run lengths, which is what it expects, and counts masks and then boxes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import time
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from results import add_option, report

from pixelwise.labels import published
from pixelwise.metrics.average_precision import AveragePrecision
from pixelwise.types import Annotation, Instances, Masks

SIZE = (480, 640)
NUMBERS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
NUMBERS += ("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large")


def ellipses(boxes: np.ndarray) -> Masks:
    """Masks that are ellipses in their boxes."""
    crops = []
    for x1, y1, x2, y2 in boxes.tolist():
        y, x = np.ogrid[-1 : 1 : (y2 - y1) * 1j, -1 : 1 : (x2 - x1) * 1j]
        crops.append(torch.from_numpy((x**2 + y**2 <= 1.2).astype(np.uint8)))
    return Masks.from_crops(crops, boxes.tolist(), SIZE)


def image_objects(generator: np.random.Generator) -> tuple[Instances, Instances]:
    """About 7 objects of a few of 80 classes, and about 40 detections: the objects shifted, and noise."""
    count = int(generator.integers(1, 14))
    centres = generator.random((count, 2)) * (SIZE[1], SIZE[0])
    sides = np.exp(generator.normal(4, 0.9, (count, 2)))
    classes = generator.choice(generator.integers(1, 81, 4), count)

    def objects(centres: np.ndarray, sides: np.ndarray, labels: np.ndarray) -> tuple[Masks, np.ndarray]:
        corners = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1).round().astype(int)
        corners = corners.clip(0, (SIZE[1], SIZE[0], SIZE[1], SIZE[0]))
        kept = (corners[:, 2] - corners[:, 0] >= 3) & (corners[:, 3] - corners[:, 1] >= 3)
        return ellipses(corners[kept]), labels[kept]

    masks, labels = objects(centres, sides, classes)
    truth = Instances(masks.boxes.float(), torch.from_numpy(labels), masks=masks)
    again = np.repeat(np.arange(count), 3)
    noise = int(generator.integers(10, 30))
    found_centres = np.concatenate(
        [centres[again] + generator.normal(0, 0.08, (len(again), 2)) * sides[again], generator.random((noise, 2)) * 500]
    )
    found_sides = np.concatenate(
        [sides[again] * np.exp(generator.normal(0, 0.1, (len(again), 2))), generator.random((noise, 2)) * 120 + 10]
    )
    found_classes = np.concatenate([classes[again], generator.integers(1, 81, noise)])
    masks, labels = objects(found_centres, found_sides, found_classes)
    scores = torch.from_numpy(generator.random(len(masks)).round(3)).sort(descending=True).values
    return truth, Instances(masks.boxes.float(), torch.from_numpy(labels), masks=masks, scores=scores)


def ours(pairs: list[tuple[Instances, Instances]]) -> dict[str, Any]:
    metric = AveragePrecision(published("coco"))
    for number, (truth, found) in enumerate(pairs, start=1):
        metric.update(Annotation(instances=found), Annotation(instances=truth), id=str(number))
    return metric.compute()


def entries(pairs: list[tuple[Instances, Instances]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The objects as pycocotools takes them."""
    annotations, results = [], []
    for number, pair in enumerate(pairs, start=1):
        for side, target in zip(pair, (annotations, results), strict=True):
            assert side.masks is not None
            areas = side.masks.areas().tolist()
            for index, runs in enumerate(side.masks.to_coco()):
                x1, y1, x2, y2 = side.boxes[index].tolist()
                entry = {"image_id": number, "category_id": int(side.labels[index]), "segmentation": runs}
                entry |= {"bbox": [x1, y1, x2 - x1, y2 - y1]}
                if side.scores is None:
                    entry |= {"id": len(target) + 1, "iscrowd": 0, "area": areas[index]}
                else:
                    entry |= {"score": float(side.scores[index])}
                target.append(entry)
    return annotations, results


def pycocotools(images: int, annotations: list[dict[str, Any]], results: list[dict[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        coco: Any = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": number, "height": SIZE[0], "width": SIZE[1]} for number in range(1, images + 1)],
            "annotations": [dict(entry) for entry in annotations],
            "categories": [{"id": index, "name": str(index)} for index in range(1, 81)],
        }
        coco.createIndex()
        for kind, name in (("segm", "mask"), ("bbox", "box")):
            given = [dict(entry) for entry in results]  # loadRes fills the entries in
            evaluating: Any = COCOeval(coco, coco.loadRes(given), kind)  # pyright: ignore[reportArgumentType] (any string)
            evaluating.evaluate()
            evaluating.accumulate()
            evaluating.summarize()
            values |= {f"{name}_{heading}": value for heading, value in zip(NUMBERS, evaluating.stats, strict=True)}
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--pairs", type=int, default=3)
    add_option(parser)
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    pairs = [image_objects(generator) for _ in range(options.images)]
    annotations, results = entries(pairs)
    print(f"{options.images:,} images, {len(annotations):,} objects, {len(results):,} detections")
    ratios: list[float] = []
    found: dict[str, Any] = {}
    for turn in range(options.pairs):
        begin = time.perf_counter()
        found = ours(pairs)
        middle = time.perf_counter()
        expected = pycocotools(options.images, annotations, results)
        end = time.perf_counter()
        difference = max(abs(found[name] - value) for name, value in expected.items() if value >= 0)
        ratios.append((middle - begin) / (end - middle))
        print(
            f"pair {turn + 1}: ours {middle - begin:.1f} s, pycocotools {end - middle:.1f} s, difference {difference:g}"
        )
    report(
        f"AP and AR of synthetic detections in {options.images:,} images",
        f"{statistics.median(ratios):.3f} of pycocotools' time, median of {options.pairs}; "
        f"mask AP {found['mask_ap']:.4f}",
    )


if __name__ == "__main__":
    main()
