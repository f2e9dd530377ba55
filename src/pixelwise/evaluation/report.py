"""The report of an evaluation, and its folder: numbers, a row for each image, and two images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Int64
from PIL import Image
from torch import Tensor

from pixelwise.drawing.confusion_picture import draw_confusion
from pixelwise.errors import DataError
from pixelwise.files.atomic import require_writable, write_file
from pixelwise.metrics.choice import TaskMetric
from pixelwise.metrics.mean_iou import MeanIoU

REPORT_NAME, ROWS_NAME, CONFUSION_NAME, WORST_NAME = "evaluation.json", "images.jsonl", "confusion.png", "worst.png"


@dataclass(frozen=True)
class Evaluation:
    """The report of an evaluation.

    Attributes:
        model: the name of the model, or the folder of masks.
        data: the specification of the data.
        metric: what was counted.
        failures: why images could not be evaluated, one line each.
        missing: the ids of images without a prediction.
        total: how many images there were.
        seconds: how long it took.
        protocol: under which the model ran, see `protocols.Protocol.to_json`; None for that of `pixelwise predict`.
    """

    model: str
    data: str
    metric: TaskMetric
    failures: tuple[str, ...]
    missing: tuple[str, ...]
    total: int
    seconds: float
    protocol: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The object that `evaluate --json` prints."""
        values = self.metric.compute()
        return {
            "model": self.model,
            "data": self.data,
            "images": len(self.metric.images),
            "labels": list(self.metric.labels.names),
            "definition": self.metric.definition,
            **({} if self.protocol is None else {"protocol": dict(self.protocol)}),
            "metrics": {name: value for name, value in values.items() if not isinstance(value, dict)},
            **{name: value for name, value in values.items() if isinstance(value, dict)},
            "seconds": round(self.seconds, 3),
        }

    def rows(self) -> list[dict[str, Any]]:
        """The result of each image, the worst first; images with nothing to evaluate last."""
        scores = self.metric.images.items()
        return [{"id": id, **score.row()} for id, score in sorted(scores, key=lambda item: (*item[1].badness, item[0]))]


def make_report_folder(folder: Path) -> None:
    """Make the folder before the evaluation. Raises DataError if it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        require_writable(folder / REPORT_NAME)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror or error}); choose another --out") from None


def write_report(
    folder: Path,
    evaluation: Evaluation,
    content: dict[str, Any],
    worst: Image.Image | None,
    *,
    confusion: Int64[Tensor, "K K1"] | None = None,
) -> None:
    """Write `evaluation.json`, `images.jsonl`, `confusion.png` and `worst.png`, each whole or not at all.

    Objects have no confusion matrix.

    Args:
        folder: is there; other files in it are left alone.
        evaluation: what came.
        content: of `evaluation.json`.
        worst: the sheet of the worst images; without one, an older one is removed.
        confusion: pixels of each true class by the predicted one, where the metric has not counted them itself.

    Raises:
        DataError: a file cannot be written.
    """
    rows = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in evaluation.rows())
    metric = evaluation.metric
    counts = metric.confusion if isinstance(metric, MeanIoU) else confusion
    matrix = None if counts is None else draw_confusion(counts, metric.labels)
    try:
        write_file(folder / REPORT_NAME, json.dumps(content, ensure_ascii=False) + "\n")
        write_file(folder / ROWS_NAME, rows)
        _write_picture(folder / CONFUSION_NAME, matrix)
        _write_picture(folder / WORST_NAME, worst)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror or error}); choose another --out") from None


def _write_picture(path: Path, picture: Image.Image | None) -> None:
    """Write it; without one, an older one is removed."""
    if picture is None:
        path.unlink(missing_ok=True)
    else:
        write_file(path, lambda new: picture.save(new, "PNG"))
