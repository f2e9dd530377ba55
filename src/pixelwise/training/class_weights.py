"""Weights of classes, and of images, computed from the training images."""

from __future__ import annotations

from functools import partial

import numpy as np
from jaxtyping import Bool

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


def repeat_factors(dataset: Dataset, *, workers: int = 0, progress: Progress = silent) -> tuple[float, ...]:
    """How often each image is drawn in relation to the others, so that rare classes come more often; reads every image.

    An image counts as much as its rarest class: the root of the median frequency of all classes over that class's own,
    at least 1. A frequency is the share of images that contain a class. Source: Gupta, Dollár, Girshick, "LVIS", CVPR
    2019, section 5 (repeat factor sampling), whose threshold is here the median.

    Args:
        dataset: the training set, with classes of pixels or instances.
        workers: processes that read; 0 reads in this one.
        progress: called for each image.

    Raises:
        DataError: an image cannot be read.
    """
    read = apply(partial(_classes_in, dataset=dataset), range(len(dataset)), workers=workers)
    found: list[Bool[np.ndarray, " K"]] = []
    for present in progress(read, total=len(dataset), what="finding classes"):
        if isinstance(present, DataError):
            raise present
        found.append(present)
    contains = np.stack(found)
    frequencies = contains.mean(axis=0)
    occurring = frequencies > 0
    if not occurring.any():
        return (1.0,) * len(dataset)
    middle = np.median(frequencies[occurring])
    factors = np.sqrt(middle / np.where(occurring, frequencies, middle)).clip(min=1)
    return tuple(np.where(contains, factors, 1).max(axis=1).tolist())


def _classes_in(index: int, *, dataset: Dataset) -> Bool[np.ndarray, " K"] | DataError:
    """The classes that an image contains."""
    try:
        truth = dataset[index].truth
    except DataError as error:
        return error
    ids: list[int] = [] if truth.semantic is None else truth.semantic.unique().tolist()
    if truth.instances is not None:
        ids += truth.instances.labels.tolist()
    present = np.zeros(len(dataset.labels), dtype=np.bool_)
    present[[class_id for class_id in ids if class_id < len(present)]] = True
    return present
