"""The image files of a prediction, and their names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt16
from PIL import Image

from pixelwise.labels import LabelSet, voc_colour
from pixelwise.ops.panoptic import ids_to_rgb
from pixelwise.predictions.record import SLAB_PIXELS
from pixelwise.types import Instances, Panoptic

VOID_COLOUR = voc_colour(255)
"""Colour of ignored pixels in palette files, as in PASCAL VOC."""

OVERLAY_SUFFIX = ".overlay.png"
SEMANTIC_SUFFIX = ".semantic.png"
INSTANCES_SUFFIX = ".instances.png"
PANOPTIC_SUFFIX = ".panoptic.png"
RESULT_SUFFIXES = (OVERLAY_SUFFIX, SEMANTIC_SUFFIX, INSTANCES_SUFFIX, PANOPTIC_SUFFIX)
"""Suffixes of the files that `save` writes."""


def ids_picture(semantic: np.ndarray, labels: LabelSet) -> Image.Image:
    """A mask as an image of the label set's ids on disk, void as its first void id.

    For VOC, and every set whose ids on disk are 0…K-1, these are the class ids. The picture has the set's palette;
    where an id needs more than 8 bits it is grey of 16 bits.
    """
    # a table of what each id becomes; the last entry is for void, which is 255 or -1
    table = labels.dataset_ids_of(np.arange(max(256, len(labels) + 1)))
    table[table < 0] = 255  # sets such as Cityscapes call a void class -1
    dataset_id = np.empty(semantic.shape, dtype=np.uint8 if table.max() <= 255 else np.uint16)
    rows = max(1, SLAB_PIXELS // semantic.shape[1])
    for start in range(0, len(semantic), rows):  # numpy makes 8 bytes of every id to look it up
        dataset_id[start : start + rows] = table.take(semantic[start : start + rows], mode="wrap")
    picture = Image.fromarray(dataset_id)
    if dataset_id.dtype == np.uint16:
        return picture
    palette = [VOID_COLOUR] * 256
    for dataset_id, colour in zip(labels.dataset_ids, labels.palette, strict=True):
        palette[dataset_id] = colour
    picture.putpalette([channel for colour in palette for channel in colour])  # makes it a palette picture
    return picture


def instance_ids(instances: Instances, size: Sequence[int]) -> UInt16[np.ndarray, "H W"]:
    """The instance id of each pixel, from 1 in their order; 0 for none. Earlier instances cover later ones."""
    numbers = np.zeros(tuple(size), dtype=np.uint16)
    masks = instances.masks
    for index in reversed(range(0 if masks is None else len(masks))):
        x1, y1, x2, y2 = masks.boxes[index].tolist()  # pyright: ignore[reportOptionalMemberAccess]
        numbers[y1:y2, x1:x2][masks.crop(index).numpy() != 0] = index + 1  # pyright: ignore[reportOptionalMemberAccess]
    return numbers


def segment_picture(panoptic: Panoptic) -> Image.Image:
    """The segment ids as colours, as in COCO's panoptic PNGs. Raises DataError for ids over 24 bits."""
    ids = panoptic.ids.numpy()
    colours = np.empty((*ids.shape, 3), dtype=np.uint8)
    rows = max(1, SLAB_PIXELS // max(1, ids.shape[1]))
    for start in range(0, len(ids), rows):  # four bytes of every id while it is taken apart
        colours[start : start + rows] = ids_to_rgb(ids[start : start + rows])
    return Image.fromarray(colours)
