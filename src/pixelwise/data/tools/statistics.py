"""What a data set is made of: sizes, classes, objects and colours, counted exactly, image by image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from pixelwise.data.dataset import Dataset
from pixelwise.errors import DataError
from pixelwise.files.parallel import Progress, apply, silent
from pixelwise.types import Instances

SIZE_LIMITS_PX = (32**2, 96**2)
"""Objects of fewer pixels than the first are small, of fewer than the second medium, by COCO's evaluation."""

SIZES = ("small", "medium", "large")


@dataclass(frozen=True)
class Measurement:
    """One image.

    Attributes:
        size: height and width, pixels.
        class_pixels: of each class, K numbers, and of void, the last.
        colour_sum: of R, G and B, values 0-255.
        colour_square_sum: of their squares.
        objects: of each class, how many are small, medium, large, and crowds, [K, 4]; None where the ground truth has
            none.
        clip: that it is a frame of, or None.
        tracks: class id and track id of each of its objects that is no crowd; None where the ground truth has no track
            ids.
        failure: why the image could not be read, or None.
    """

    size: tuple[int, int] = (0, 0)
    class_pixels: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    colour_sum: np.ndarray = field(default_factory=lambda: np.zeros(3, dtype=np.int64))
    colour_square_sum: np.ndarray = field(default_factory=lambda: np.zeros(3, dtype=np.int64))
    objects: np.ndarray | None = None
    clip: str | None = None
    tracks: tuple[tuple[int, int], ...] | None = None
    failure: str | None = None


@dataclass(frozen=True)
class ObjectCounts:
    """Objects of one class or of all.

    Attributes:
        small: of fewer than 32² pixels.
        medium: of fewer than 96² pixels.
        large: of more.
        crowds: regions of many objects, which are in none of the three.
        images: that contain one of them, a crowd or not.
    """

    small: int
    medium: int
    large: int
    crowds: int
    images: int

    @property
    def objects(self) -> int:
        """All that are no crowds."""
        return self.small + self.medium + self.large

    def to_json(self) -> dict[str, int]:
        """The numbers under their names."""
        return {"objects": self.objects, **{size: getattr(self, size) for size in SIZES}, "crowds": self.crowds}


@dataclass(frozen=True)
class ClassShare:
    """One class.

    Attributes:
        name: of the class.
        pixels: of it in all images.
        share: of all pixels, void included.
        images: that contain it.
        objects: of it, or None where the ground truth has no objects.
        tracks: objects in all clips, each counted once; None where the images are no frames of clips.
    """

    name: str
    pixels: int
    share: float
    images: int
    objects: ObjectCounts | None = None
    tracks: int | None = None


@dataclass(frozen=True)
class Statistics:
    """A data set.

    Attributes:
        images: that could be read.
        failures: one line for each that could not.
        heights: smallest, median and largest, pixels.
        widths: smallest, median and largest, pixels.
        pixels: of all images.
        classes: in the order of the label set.
        void_share: of all pixels.
        mean_rgb: of all pixels, as fractions of 255.
        std_rgb: of all pixels around the mean, as fractions of 255.
        objects: of all classes, or None where the ground truth of an image has no objects.
        clips: whose frames the images are; 0 where they are no frames.
    """

    images: int
    failures: tuple[str, ...]
    heights: tuple[int, float, int]
    widths: tuple[int, float, int]
    pixels: int
    classes: tuple[ClassShare, ...]
    void_share: float
    mean_rgb: tuple[float, float, float]
    std_rgb: tuple[float, float, float]
    objects: ObjectCounts | None = None
    clips: int = 0

    @property
    def tracks(self) -> int | None:
        """Objects in all clips, each counted once; None where the images are no frames, or have no track ids."""
        counts = [one.tracks for one in self.classes]
        return None if None in counts else sum(one or 0 for one in counts)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, lists and texts under the names of the fields; `per_class` by the name of the class."""
        all_objects = (
            {} if self.objects is None else {"objects": {**self.objects.to_json(), "images": self.objects.images}}
        )
        of_clips = {"clips": self.clips} | ({} if self.tracks is None else {"tracks": self.tracks})
        return {
            "images": self.images,
            **(of_clips if self.clips else {}),
            "failures": list(self.failures),
            "size": {
                side: dict(zip(("min", "median", "max"), values, strict=True))
                for side, values in (("height", self.heights), ("width", self.widths))
            },
            "pixels": self.pixels,
            "void_share": self.void_share,
            "mean_rgb": list(self.mean_rgb),
            "std_rgb": list(self.std_rgb),
            **all_objects,
            "per_class": {
                one.name: {"pixels": one.pixels, "share": one.share, "images": one.images}
                | ({} if one.objects is None else one.objects.to_json())
                | ({} if one.tracks is None else {"tracks": one.tracks})
                for one in self.classes
            },
        }


def statistics_of(dataset: Dataset, *, workers: int = 0, progress: Progress = silent) -> Statistics:
    """Read every image of a set with semantic ground truth and count.

    Args:
        dataset: one split.
        workers: processes that read; 0 reads in this one.
        progress: called for each image.

    Raises:
        DataError: not one image could be read.
    """
    read = apply(partial(measure, dataset=dataset), range(len(dataset)), workers=workers)
    found = list(progress(read, total=len(dataset), what=dataset.name))
    whole = [measurement for measurement in found if measurement.failure is None]
    failures = tuple(measurement.failure for measurement in found if measurement.failure is not None)
    if not whole:
        raise DataError(f"{dataset.name}: none of {len(dataset)} images could be read; the first: {failures[0]}")
    return _summed(whole, failures, dataset.labels.names)


def measure(index: int, *, dataset: Dataset) -> Measurement:
    """Read and count one image; a DataError becomes its `failure`."""
    try:
        sample = dataset[index]
    except DataError as error:
        return Measurement(failure=str(error))
    if sample.truth.semantic is None:
        return Measurement(failure=f"image '{sample.id}': its ground truth has no class for each pixel to count")
    classes = len(dataset.labels)
    semantic = sample.truth.semantic.numpy().astype(np.int64).ravel()
    class_pixels = np.bincount(np.where(semantic == dataset.labels.ignore_id, classes, semantic), minlength=classes + 1)
    values = np.arange(256, dtype=np.int64)
    histograms = [np.bincount(channel.numpy().ravel(), minlength=256) for channel in sample.image]
    return Measurement(
        size=(sample.image.shape[1], sample.image.shape[2]),
        class_pixels=class_pixels,
        colour_sum=np.array([histogram @ values for histogram in histograms]),
        colour_square_sum=np.array([histogram @ values**2 for histogram in histograms]),
        objects=_objects(sample.truth.instances, classes),
        clip=sample.clip,
        tracks=_tracks(sample.truth.instances),
    )


def _objects(instances: Instances | None, classes: int) -> np.ndarray | None:
    """Number of small, medium and large instances, and of crowds, of each class, [K, 4]."""
    if instances is None or instances.masks is None:
        return None
    kinds = np.searchsorted(SIZE_LIMITS_PX, instances.masks.areas().numpy(), side="right")
    kinds = np.where(instances.crowds.numpy(), len(SIZES), kinds)
    counts = np.zeros((classes, len(SIZES) + 1), dtype=np.int64)
    np.add.at(counts, (instances.labels.numpy(), kinds), 1)
    return counts


def _tracks(instances: Instances | None) -> tuple[tuple[int, int], ...] | None:
    if instances is None or instances.track_ids is None:
        return None
    found = zip(instances.labels.tolist(), instances.track_ids.tolist(), instances.crowds.tolist(), strict=True)
    return tuple((class_id, track) for class_id, track, is_crowd in found if not is_crowd)


def _tracks_of_classes(whole: Sequence[Measurement], classes: int) -> list[int | None]:
    """Number of tracks of each class in all clips; None where an image has no track ids."""
    if any(one.clip is None or one.tracks is None for one in whole):
        return [None] * classes
    found = {(one.clip, class_id, track) for one in whole for class_id, track in one.tracks or ()}
    counted = Counter(class_id for _, class_id, _ in found)
    return [counted[index] for index in range(classes)]


def _summed(whole: Sequence[Measurement], failures: tuple[str, ...], names: Sequence[str]) -> Statistics:
    sizes = np.array([measurement.size for measurement in whole])
    pixels = int(sizes.prod(axis=1).sum())
    class_pixels = np.stack([measurement.class_pixels for measurement in whole])
    totals, images = class_pixels.sum(axis=0), (class_pixels > 0).sum(axis=0)
    mean = np.sum([measurement.colour_sum for measurement in whole], axis=0) / pixels
    square_mean = np.sum([measurement.colour_square_sum for measurement in whole], axis=0) / pixels
    std = np.sqrt(np.maximum(square_mean - mean**2, 0))
    counted = [measurement.objects for measurement in whole if measurement.objects is not None]
    objects = np.stack(counted) if len(counted) == len(whole) else None  # [images, K, 4]
    tracks = _tracks_of_classes(whole, len(names))
    return Statistics(
        images=len(whole),
        failures=failures,
        heights=_spread(sizes[:, 0]),
        widths=_spread(sizes[:, 1]),
        pixels=pixels,
        classes=tuple(
            ClassShare(
                name,
                int(totals[index]),
                float(totals[index] / pixels),
                int(images[index]),
                None if objects is None else _counts(objects[:, index]),
                tracks[index],
            )
            for index, name in enumerate(names)
        ),
        void_share=float(totals[-1] / pixels),
        mean_rgb=_fractions(mean),
        std_rgb=_fractions(std),
        objects=None if objects is None else _counts(objects.sum(axis=1)),
        clips=len({one.clip for one in whole if one.clip is not None}),
    )


def _counts(objects: np.ndarray) -> ObjectCounts:
    """The sum over images of counts [images, 4]."""
    small, medium, large, crowds = (int(number) for number in objects.sum(axis=0))
    return ObjectCounts(small, medium, large, crowds, images=int((objects.sum(axis=1) > 0).sum()))


def _spread(lengths: np.ndarray) -> tuple[int, float, int]:
    return int(lengths.min()), float(np.median(lengths)), int(lengths.max())


def _fractions(values: np.ndarray) -> tuple[float, float, float]:
    red, green, blue = (float(value) / 255 for value in values)
    return red, green, blue
