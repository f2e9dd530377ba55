"""Average precision equals pycocotools' on a real set with perturbed ground truth, and on cases by hand."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from typing import Any

import faster_coco_eval
import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pixelwise.data.spec import open_dataset
from pixelwise.errors import DataError, RecipeError
from pixelwise.labels import published
from pixelwise.metrics.average_precision import AveragePrecision
from pixelwise.types import Annotation, Instances, Masks
from tests.drawn_scenes import LABELS
from tests.shared_data import require

NUMBERS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
NUMBERS += ("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large")


def boxed(boxes: list[list[int]], labels: list[int], scores: list[float] | None = None, **more: Any) -> Annotation:
    """Objects that fill their boxes in an image of 40×60."""
    masks = Masks.from_crops([torch.ones(y2 - y1, x2 - x1) for x1, y1, x2, y2 in boxes], boxes, (40, 60))
    return Annotation(
        instances=Instances(
            masks.boxes.float(),
            torch.tensor(labels, dtype=torch.int64),
            masks=masks,
            scores=None if scores is None else torch.tensor(scores),
            **more,
        )
    )


def perturbed(instances: Instances, generator: np.random.Generator) -> Instances:
    """Predictions: masks that are shifted and cut, wrong classes, missing and doubled objects, few different scores."""
    assert instances.masks is not None
    height, width = instances.masks.size
    chosen = [index for index in range(len(instances)) for _ in range(int(generator.choice([0, 1, 1, 1, 2])))]
    crops, boxes, labels = [], [], []
    for index in chosen:
        x1, y1, x2, y2 = instances.masks.boxes[index].tolist()
        crop = instances.masks.crop(index)
        if crop.numel() < 4:
            continue
        dx, dy = (int(value) for value in generator.integers(-4, 5, 2))
        cut = int(generator.integers(0, max(1, (x2 - x1) // 4)))
        left, top, right, bottom = x1 + dx + cut, y1 + dy, x2 + dx, y2 + dy
        rows = slice(max(0, -top), crop.shape[0] - max(0, bottom - height))
        columns = slice(cut + max(0, -left), crop.shape[1] - max(0, right - width))
        inner = crop[rows, columns]
        left, top = max(0, left), max(0, top)
        if not inner.numel() or not inner.any():
            continue
        crops.append(inner)
        boxes.append([left, top, left + inner.shape[1], top + inner.shape[0]])
        wrong = generator.random() < 0.1
        labels.append(int(generator.integers(1, 81)) if wrong else int(instances.labels[index]))
    masks = Masks.from_crops(crops, boxes, (height, width))
    scores = torch.from_numpy(np.round(generator.random(len(crops)), 1))  # eleven values: many ties
    return Instances(masks.boxes.float() + 0.25, torch.tensor(labels, dtype=torch.int64), masks=masks, scores=scores)


def official(pairs: dict[str, tuple[Instances, Instances]], kind: str) -> np.ndarray:
    """pycocotools' twelve numbers, of masks written out whole."""
    images, annotations, results = [], [], []
    for number, (id, (truth, found)) in enumerate(sorted(pairs.items(), key=lambda item: int(item[0])), start=1):
        assert truth.masks is not None and found.masks is not None, id  # noqa: PT018
        images.append({"id": number, "height": truth.masks.size[0], "width": truth.masks.size[1]})
        for side, target in ((truth, annotations), (found, results)):
            assert side.masks is not None
            for index, runs in enumerate(side.masks.to_coco()):
                x1, y1, x2, y2 = side.boxes[index].double().tolist()
                entry: dict[str, Any] = {"image_id": number, "category_id": int(side.labels[index])}
                entry |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": runs}
                if side is truth:
                    crowd = int(side.crowd[index]) if side.crowd is not None else 0
                    assert side.areas is not None
                    entry |= {"iscrowd": crowd, "area": float(side.areas[index]), "id": len(target) + 1}
                else:
                    assert side.scores is not None
                    entry["score"] = float(side.scores[index])
                target.append(entry)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        categories = [{"id": index, "name": str(index)} for index in range(1, 81)]
        coco.dataset = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
        coco.createIndex()
        evaluating = COCOeval(coco, coco.loadRes(results), kind)
        evaluating.evaluate()
        evaluating.accumulate()
        evaluating.summarize()
    return evaluating.stats


@pytest.fixture(scope="module")
def real_pairs() -> dict[str, tuple[Instances, Instances]]:
    dataset = open_dataset(f"coco:{require('coco')}@val", default_split="val")
    generator = np.random.default_rng(0)
    pairs = {}
    for index in range(len(dataset)):
        sample = dataset[index]
        assert sample.truth.instances is not None
        pairs[sample.id] = (sample.truth.instances, perturbed(sample.truth.instances, generator))
    assert any(truth.crowd is not None and truth.crowd.any() for truth, _ in pairs.values())
    return pairs


def counted(pairs: dict[str, tuple[Instances, Instances]], definition: str = "coco") -> AveragePrecision:
    metric = AveragePrecision(published("coco"), definition)
    for id, (truth, found) in pairs.items():
        metric.update(Annotation(instances=found), Annotation(instances=truth), id=id)
    return metric


@pytest.mark.parametrize(("kind", "name"), [("segm", "mask"), ("bbox", "box")])
def test_all_twelve_numbers_are_pycocotools(real_pairs, kind: str, name: str) -> None:
    values = counted(real_pairs).compute()
    expected = official(real_pairs, kind)
    assert 0.05 < expected[0] < 0.95
    for heading, value in zip(NUMBERS, expected, strict=True):
        assert values[f"{name}_{heading}"] == pytest.approx(value, abs=1e-12), heading


def test_parts_join_to_the_whole_in_any_order_and_through_json(real_pairs) -> None:
    whole = counted(real_pairs).compute()
    ids = list(real_pairs)
    parts = [counted({id: real_pairs[id] for id in ids[start::3]}) for start in (2, 0, 1)]
    stored = [json.loads(json.dumps(part.state())) for part in parts]
    first, *others = (AveragePrecision.from_state(published("coco"), "coco", state) for state in stored)
    for other in others:
        first.merge(other)
    assert first.compute() == whole
    assert first.images.keys() == real_pairs.keys()
    with pytest.raises(DataError, match="is in both parts"):
        first.merge(others[0])


def test_ground_truth_against_itself_is_perfect(real_pairs) -> None:
    pairs = {
        id: (truth, replace(truth, scores=torch.ones(len(truth)), crowd=None))
        for id, (truth, _) in real_pairs.items()
        if truth.crowd is None or not truth.crowd.any()
    }
    values = counted(pairs, "boundary").compute()
    assert values["mask_ap"] == values["box_ap"] == values["boundary_ap"] == 1.0
    assert {image.f1 for image in counted(pairs).images.values()} <= {1.0, None}


def test_boundary_iou_is_below_mask_iou_for_a_large_object_that_is_shifted() -> None:
    metric = AveragePrecision(LABELS, "boundary")
    metric.update(boxed([[4, 2, 50, 36]], [1], [0.9]), boxed([[5, 2, 51, 36]], [1]), id="1")
    values = metric.compute()
    # mask IoU 45 / 47; the boundary is one pixel wide: 2 % of the diagonal of 72
    assert values["mask_ap"] == pytest.approx(1.0)
    inner = 2 * 45 + 0
    union = 2 * (2 * 46 + 2 * 32) - inner
    reached = sum(inner / union >= threshold for threshold in np.linspace(0.5, 0.95, 10)) / 10
    assert values["boundary_ap"] == pytest.approx(reached)


def test_a_case_by_hand() -> None:
    metric = AveragePrecision(LABELS)
    truth = boxed([[0, 0, 20, 20], [30, 0, 50, 20]], [1, 1])
    # the best detection is right, the second is a double of it, the third finds the other at IoU 0.8
    found = boxed([[0, 0, 20, 20], [0, 1, 20, 20], [30, 0, 50, 16]], [1, 1, 1], [0.9, 0.8, 0.7])
    metric.update(found, truth, id="a")
    values = metric.compute()
    # recall 1/2 at precision 1, recall 1 at 2/3, up to IoU 0.80; beyond the second is missed
    both, half = (51 + 50 * 2 / 3) / 101, 51 / 101
    assert values["mask_ap50"] == pytest.approx(both)
    assert values["mask_ap"] == pytest.approx((7 * both + 3 * half) / 10)
    assert values["mask_ar1"] == pytest.approx(0.5)
    assert values["per_class"]["disc"]["mask_ap50"] == pytest.approx(both)
    assert values["per_class"]["disc"]["objects"] == 2
    assert values["per_class"]["square"]["mask_ap"] is None
    assert metric.images["a"].f1 == pytest.approx(4 / 5)


def test_crowds_cost_nothing_and_give_nothing() -> None:
    metric = AveragePrecision(LABELS)
    truth = boxed([[0, 0, 40, 30], [45, 0, 55, 10]], [1, 1], crowd=torch.tensor([True, False]))
    found = boxed([[5, 5, 10, 10], [20, 5, 30, 20], [45, 0, 55, 10]], [1, 1, 1], [0.9, 0.8, 0.7])
    metric.update(found, truth, id="a")
    assert metric.compute()["mask_ap"] == 1.0


def test_what_cannot_be_counted_is_named() -> None:
    metric = AveragePrecision(LABELS)
    truth, found = boxed([[0, 0, 9, 9]], [1]), boxed([[0, 0, 9, 9]], [1], [0.5])
    metric.update(found, truth, id="a")
    with pytest.raises(DataError, match="image 'a' was evaluated before"):
        metric.update(found, truth, id="a")
    with pytest.raises(DataError, match="image 'b': the predicted instances have no scores"):
        metric.update(truth, truth, id="b")
    with pytest.raises(DataError, match="image 'b': the prediction has no instances"):
        metric.update(Annotation(), truth, id="b")
    with pytest.raises(DataError, match="class 7 in the prediction is not one of the 4"):
        metric.update(boxed([[0, 0, 9, 9]], [7], [0.5]), truth, id="b")
    other = Annotation(instances=replace(found.instances, masks=replace(found.instances.masks, size=(41, 60))))  # pyright: ignore
    with pytest.raises(DataError, match="the prediction is 41×60, the ground truth 40×60"):
        metric.update(other, truth, id="b")
    with pytest.raises(RecipeError, match="definition 'voc'"):
        AveragePrecision(LABELS, "voc")
    assert list(metric.images) == ["a"]


def test_nothing_found_and_nothing_there() -> None:
    nothing, empty = boxed([], [], []), boxed([], [])
    metric = AveragePrecision(LABELS)
    metric.update(nothing, empty, id="a")
    assert metric.compute()["mask_ap"] is None
    assert metric.images["a"].f1 is None
    metric.update(nothing, boxed([[0, 0, 9, 9]], [1]), id="b")
    assert metric.compute()["mask_ap"] == 0.0
    assert metric.images["b"].f1 == 0.0
    assert AveragePrecision(LABELS).compute()["mask_ap"] is None


def test_boundary_ap_is_the_librarys_own(real_pairs) -> None:
    pairs = dict(list(real_pairs.items())[:30])
    images, annotations, results = [], [], []
    for number, (id, (truth, found)) in enumerate(sorted(pairs.items(), key=lambda item: int(item[0])), start=1):
        assert truth.masks is not None and found.masks is not None, id  # noqa: PT018
        images.append({"id": number, "height": truth.masks.size[0], "width": truth.masks.size[1]})
        for side, target in ((truth, annotations), (found, results)):
            assert side.masks is not None
            for index, runs in enumerate(side.masks.to_coco()):
                entry: dict[str, Any] = {"image_id": number, "category_id": int(side.labels[index])}
                entry |= {"segmentation": runs, "id": len(target) + 1, "bbox": [0, 0, 1, 1]}
                crowd = int(side.crowd[index]) if side.crowd is not None else 0
                entry |= {"iscrowd": crowd, "area": int(side.masks.areas()[index])}
                target.append(entry if side.scores is None else {**entry, "score": float(side.scores[index])})
    frame = {"info": {}, "images": images, "categories": [{"id": index, "name": str(index)} for index in range(1, 81)]}
    sides = [faster_coco_eval.COCO({**frame, "annotations": side}) for side in (annotations, results)]
    evaluating = faster_coco_eval.COCOeval_faster(*sides, iouType="boundary")
    evaluating.evaluate()
    evaluating.accumulate()
    precision = np.asarray(evaluating.eval["precision"])[..., 0, 2]
    found_values = counted(pairs, "boundary").compute()
    assert found_values["boundary_ap"] == pytest.approx(precision[precision > -1].mean(), abs=1e-9)
    assert found_values["boundary_ap"] < found_values["mask_ap"]
