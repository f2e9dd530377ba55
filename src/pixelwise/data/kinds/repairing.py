"""Repaired images, written by the format's own writer: what it writes is sound."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from pixelwise.data.dataset import is_there
from pixelwise.data.kinds.writing import Original, Writer
from pixelwise.data.listing import Item, Repaired, Size, UnusableError, Written, sides
from pixelwise.errors import DataError
from pixelwise.files.images import ColourMaskError, exif_orientation, read_colours, read_ids, read_image, turned_upright
from pixelwise.labels import LabelSet
from pixelwise.types import Annotation


class RepairedTruth(NamedTuple):
    """The usable ground truth of an image, and the repairs; see `Repaired`."""

    truth: Annotation
    done: Mapping[str, int]


ReadRepaired = Callable[[Item, LabelSet, Size, int], RepairedTruth]
"""Reads the ground truth of an image that is upright, of that size, and was turned by that EXIF orientation; a function
of a module, or a partial of one. Raises UnusableError, or DataError for a file that cannot be read."""


class Upright(NamedTuple):
    """An image that is upright, and the EXIF orientation that turned it."""

    pixels: UInt8[np.ndarray, "H W 3"]
    orientation: int


@dataclass(frozen=True)
class WriterRepairer:
    """Reads each image as far as it can be used, and writes it as a new set is written. See Repairer.

    Attributes:
        read: reads the ground truth.
        labels: what the ids on disk mean.
        writer: of the format.
    """

    read: ReadRepaired
    labels: LabelSet
    writer: Writer

    def repair(self, item: Item, *, root: Path, split: str, id: str) -> Repaired:
        """Read one image and write it. See Repairer."""
        pixels, orientation = read_upright(item)
        repaired = read_repaired(item, self.labels, (pixels.shape[0], pixels.shape[1]), orientation, read=self.read)
        assert item.image is not None
        original = Original(
            split=split,
            name=id.replace("/", "_"),
            id=id,
            image=item.image,
            pixels=pixels,
            truth=repaired.truth,
            upright=orientation != 1,
        )
        written = self.writer.write(root, original)
        return Repaired(written, {**repaired.done, "upright_images": int(orientation != 1)})

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> Mapping[str, int] | None:
        """As the writer."""
        return self.writer.finish(root, split=split, written=written)

    def finish_set(self, root: Path) -> None:
        """As the writer."""
        self.writer.finish_set(root)

    def measure(self, item: Item) -> Size:
        """The size of an image that can be used. Raises UnusableError for others."""
        pixels, orientation = read_upright(item)
        size = (pixels.shape[0], pixels.shape[1])
        read_repaired(item, self.labels, size, orientation, read=self.read)
        return size


def read_upright(item: Item, *, needs_truth: bool = True) -> Upright:
    """The image of an item. Raises UnusableError where it, or its ground truth, is missing or cannot be read."""
    if item.image is None or not is_there(item.image):
        raise UnusableError("missing_images")
    if needs_truth and (item.truth is None or not is_there(item.truth)):
        raise UnusableError("missing_masks")
    try:
        pixels = read_image(item.image).permute(1, 2, 0).contiguous().numpy()
        return Upright(pixels, exif_orientation(item.image))
    except DataError as error:
        raise UnusableError("unreadable_images", str(error)) from None


def read_repaired(item: Item, labels: LabelSet, size: Size, orientation: int, *, read: ReadRepaired) -> RepairedTruth:
    """What `read` gives. Raises UnusableError."""
    try:
        return read(item, labels, size, orientation)
    except UnusableError:
        raise
    except DataError as error:
        raise UnusableError("unreadable_masks", str(error)) from None


def turned_to_fit(ids: np.ndarray, size: Size, orientation: int, *, source: Path | None) -> np.ndarray:
    """A map [H, W, …], turned as EXIF turns its image if that makes it fit. Raises UnusableError if nothing does."""
    shape = (ids.shape[0], ids.shape[1])
    if shape == size:
        return ids
    if orientation >= 5 and shape == size[::-1]:
        return turned_upright(ids, orientation)
    raise UnusableError("size_mismatches", f"{source}: the map is {sides(shape)}, its image {sides(size)}")


class UsableMask(NamedTuple):
    """A mask, ids [H, W] or colours [H, W, 3], that fits its image, and what was done to it."""

    mask: np.ndarray
    done: dict[str, int]


def usable_mask(item: Item, size: Size, orientation: int, *, colours: bool = False) -> UsableMask:
    """The mask of an image, of ids or of colours, turned as EXIF turned the image if only that makes it fit.

    Raises UnusableError for one that cannot be read, that holds colours in place of ids, or of another size.
    """
    assert item.truth is not None
    is_grey = False
    try:
        stored = read_colours(item.truth) if colours else read_ids(item.truth)
    except ColourMaskError:
        try:
            stored = read_colours(item.truth)
        except DataError as error:
            raise UnusableError("unreadable_masks", str(error)) from None
        is_grey = bool((stored == stored[:, :, :1]).all())
        if not is_grey:
            raise UnusableError("colour_masks") from None
        stored = stored[:, :, 0]
    mask = turned_to_fit(stored, size, orientation, source=item.truth)
    return UsableMask(mask, {"grey_masks": int(is_grey), "turned_masks": int(mask is not stored)})
