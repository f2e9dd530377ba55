"""Frames of clips that any tool wrote, as what is evaluated: KITTI-STEP maps, and masks of objects as DAVIS has them.

Both are folders of PNGs paired with a data set by clip and name, as `stored_masks` pairs masks. In a KITTI-STEP map R
is the class on disk of the data set, and G · 256 + B the number of the object in the clip; 0 for stuff. In a mask of
DAVIS a number is an object of the clip, and 255 the one object where nothing else is in a greyscale file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from pixelwise.data.formats import davis
from pixelwise.data.formats.kitti_step import STEP_DIVISOR
from pixelwise.data.kinds.segment_maps import panoptic_of
from pixelwise.data.kinds.track_frames import truth_of_numbers
from pixelwise.data.listing import Item
from pixelwise.data.truth.segments import regions_of_ids
from pixelwise.errors import DataError
from pixelwise.files.images import read_channels
from pixelwise.labels import LabelSet
from pixelwise.predictions.id_masks import StoredMasks
from pixelwise.types import Annotation, Sample

ReadFrame = Callable[[Path, LabelSet, tuple[int, int]], Annotation]
"""Reads what a file says of a frame of that height and width."""


@dataclass(frozen=True)
class StoredFrames:
    """Predictions with the file of each frame.

    Attributes:
        paired: the file of each frame; see `stored_masks.find_masks`.
        read: reads one.
    """

    paired: StoredMasks
    read: ReadFrame

    def __call__(self, sample: Sample) -> Annotation:
        """What the frame's file says. Raises DataError when it cannot be read, or has another size."""
        path = self.paired.files[self.paired.ids[sample.id]]
        height, width = sample.image.shape[1:]
        try:
            return self.read(path, self.paired.labels, (height, width))
        except DataError as error:
            raise DataError(f"{error} (frame '{sample.id}')") from None


def has_colours(path: Path) -> bool:
    """Whether a file has three channels, by its header; False of one that cannot be read."""
    try:
        with Image.open(path) as image:
            return image.mode in ("RGB", "RGBA")
    except (OSError, UnidentifiedImageError):
        return False


def read_step_frame(path: Path, labels: LabelSet, size: tuple[int, int]) -> Annotation:
    """The segments of a KITTI-STEP map; the numbers of stuff, if it has any, say nothing.

    The segment id is (class on disk + 1) · 65536 + number: a track that changes its class becomes another. Raises
    DataError for an unreadable file, one of another size, or a class that is not in the label set.
    """
    channels = read_channels(path).astype(np.int32)
    if channels.shape[:2] != size:
        raise DataError(
            f"{path}: the map is {channels.shape[0]}×{channels.shape[1]}, its frame {size[0]}×{size[1]} "
            "(height×width); predictions must have the frame's size"
        )
    class_ids = labels.class_ids(channels[..., 0], source=str(path))
    evaluated = class_ids != labels.ignore_id
    is_thing = np.array([*labels.is_thing, False])[np.where(evaluated, class_ids, len(labels))]
    numbers = np.where(is_thing, channels[..., 1] * 256 + channels[..., 2], 0)
    ids = np.where(evaluated, (channels[..., 0] + 1) * STEP_DIVISOR + numbers, 0).astype(np.int32)
    found = [id for id in regions_of_ids(ids).ids.tolist() if id]
    class_of = {dataset_id: index for index, dataset_id in enumerate(labels.dataset_ids)}
    return Annotation(
        panoptic=panoptic_of(ids, found, [class_of[id // STEP_DIVISOR - 1] for id in found], [False] * len(found))
    )


def read_object_frame(path: Path, labels: LabelSet, size: tuple[int, int]) -> Annotation:
    """The objects in a mask of numbers. Raises DataError for an unreadable file, or one of another size."""
    frame = Item(path.stem, image=None, truth=path)
    objects = truth_of_numbers(frame, labels, size, read=davis.read_numbers).instances
    assert objects is not None
    return Annotation(instances=objects)
