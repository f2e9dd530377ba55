"""What the weights that ship score on the published sets that lie beside the checkout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pixelwise
from pixelwise.data.label_maps import with_labels
from pixelwise.data.spec import open_dataset
from pixelwise.evaluation.evaluate import evaluate, model_predictions
from pixelwise.inference.load import WEIGHTS_FOLDER
from pixelwise.metrics.average_precision import AveragePrecision
from pixelwise.metrics.mean_iou import MeanIoU
from tests.shared_data import require

SEMANTIC_FOLDER = WEIGHTS_FOLDER / "default"
INSTANCE_FOLDER = WEIGHTS_FOLDER / "default_instance"


def card_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "model.json").read_text(encoding="utf-8"))


def semantic_scores(every: int = 1) -> dict[str, Any]:
    """Of the semantic default on VOC's validation set, of which every N-th image is taken."""
    dataset = open_dataset(f"voc:{require('VOCdevkit') / 'VOC2012'}", default_split="val")
    metric = MeanIoU(dataset.labels)
    predictions = model_predictions(pixelwise.load("default", device="cpu"))
    for _ in evaluate(predictions, dataset, metric, indices=range(0, len(dataset), every)):
        pass
    return metric.compute()


def instance_scores(every: int = 1) -> dict[str, Any]:
    """Of the instance default on COCO's validation set in VOC's classes, of which every N-th image is taken."""
    predictor = pixelwise.load("default", task="instance", device="cpu")
    dataset = with_labels(open_dataset(f"coco:{require('coco')}", default_split="val"), predictor.labels, "coco_to_voc")
    metric = AveragePrecision(predictor.labels)
    for _ in evaluate(model_predictions(predictor), dataset, metric, indices=range(0, len(dataset), every)):
        pass
    return metric.compute()
