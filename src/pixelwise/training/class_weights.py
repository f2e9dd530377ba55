"""Class weights computed from the training images."""

from __future__ import annotations

from functools import partial

import numpy as np

from pixelwise.data.dataset import Dataset
from pixelwise.data.tools.statistics import measure
from pixelwise.errors import DataError
from pixelwise.files.parallel import Progress, apply, silent
from pixelwise.losses.cross_entropy import median_frequency_weights


def balanced_weights(dataset: Dataset, *, workers: int = 0, progress: Progress = silent) -> tuple[float, ...]:
    """Median-frequency weights of a set, to six digits; reads every image.

    Args:
        dataset: the training set.
        workers: processes that read; 0 reads in this one.
        progress: called for each image.

    Raises:
        DataError: an image cannot be read, or its ground truth has no classes of pixels.
    """
    classes = len(dataset.labels)
    class_pixels, image_pixels = np.zeros(classes, dtype=np.int64), np.zeros(classes, dtype=np.int64)
    read = apply(partial(measure, dataset=dataset), range(len(dataset)), workers=workers)
    for measurement in progress(read, total=len(dataset), what="counting classes"):
        if measurement.failure is not None:
            raise DataError(f"{measurement.failure}; repair it, or give class_weights as numbers")
        pixels = measurement.class_pixels[:classes]
        class_pixels += pixels
        image_pixels += np.where(pixels > 0, pixels.sum(), 0)
    weights = median_frequency_weights(class_pixels.tolist(), image_pixels.tolist())
    return tuple(float(f"{weight:.6g}") for weight in weights)
