"""Confusion matrix of classes for panoptic predictions, whose metric does not count it."""

from __future__ import annotations

from jaxtyping import Int64
from torch import Tensor

from pixelwise.labels import LabelSet
from pixelwise.metrics.mean_iou import MeanIoU
from pixelwise.types import Annotation, Sample


class ClassConfusion:
    """Counts the classes of the pixels of segments. Call it with every evaluated sample."""

    def __init__(self, labels: LabelSet) -> None:
        self._metric = MeanIoU(labels)

    def __call__(self, sample: Sample, predicted: Annotation) -> None:
        """Count one image, if both its ground truth and its prediction have a class map."""
        if predicted.panoptic is None or sample.truth.semantic is None:
            return
        semantic = predicted.panoptic.to("cpu").to_semantic(self._metric.labels.ignore_id)
        self._metric.update(
            Annotation(semantic=semantic), sample.truth, id=sample.id, clip=sample.clip, frame=sample.frame
        )

    @property
    def counts(self) -> Int64[Tensor, "K K1"] | None:
        """Pixels of each ground truth class by predicted class, void last; None where nothing was counted."""
        return self._metric.confusion if self._metric.images else None
