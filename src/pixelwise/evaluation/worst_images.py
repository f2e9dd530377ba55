"""The images with the worst results, kept at drawing size."""

from __future__ import annotations

import bisect
from dataclasses import replace

from PIL import Image

from pixelwise.drawing.contact_sheet import Compared, comparison_sheet, fitted
from pixelwise.metrics.choice import TaskMetric
from pixelwise.metrics.per_image import image_key
from pixelwise.types import Annotation, Sample

WORST_COUNT = 12


class WorstImages:
    """Keeps the `count` worst images, at the size at which they will be drawn.

    Call it with every evaluated sample, after the metric has counted it.

    Args:
        metric: knows what each image alone would get.
        count: how many are kept.
    """

    def __init__(self, metric: TaskMetric, count: int = WORST_COUNT) -> None:
        self.metric, self.count = metric, count
        self.kept: list[Compared] = []
        self._keys: list[tuple[tuple[bool, float, float], str]] = []

    def __call__(self, sample: Sample, predicted: Annotation) -> None:
        """Keep the sample if it is one of the worst so far."""
        id = image_key(sample.id, sample.clip, sample.frame)
        score = self.metric.images[id]
        key = (score.badness, id)
        place = bisect.bisect(self._keys, key)
        nothing_to_evaluate, *_ = score.badness
        if place >= self.count or nothing_to_evaluate:
            return
        if predicted.instances is None:  # then the classes are compared, whatever else the ground truth has
            sample = replace(sample, truth=replace(sample.truth, instances=None))
        self._keys.insert(place, key)
        self.kept.insert(
            place, Compared(fitted(sample), fitted(sample, predicted.to("cpu")).truth, (id, score.caption()))
        )
        del self._keys[self.count :], self.kept[self.count :]

    def sheet(self) -> Image.Image | None:
        """The kept images with ground truth and prediction, the worst first; None if nothing was evaluated."""
        return comparison_sheet(self.kept, self.metric.labels) if self.kept else None
