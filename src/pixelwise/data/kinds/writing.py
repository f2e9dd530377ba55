"""Writing a data set whose ground truth is a mask file for each image: where the files go, and what they may be."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pixelwise.data.kinds.folders import labels_toml
from pixelwise.data.listing import Written
from pixelwise.errors import DataError
from pixelwise.files.images import IMAGE_SUFFIXES
from pixelwise.labels import LabelSet
from pixelwise.types import Annotation

JPEG_QUALITY = 95

_ENCODED = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm"))
"""Suffixes under which an image that is encoded anew may be stored."""


@dataclass(frozen=True)
class Original:
    """One image with its ground truth, to be written into a new set.

    Attributes:
        split: of the new set.
        name: of its files there, without suffix.
        id: what the source calls it.
        image: the file that it comes from, copied byte for byte where the format allows its suffix.
        pixels: the same image, decoded and upright.
        truth: at the size of `pixels`, in the classes of the target.
        upright: store `pixels` instead of the file, so that no EXIF rotation is left.
    """

    split: str
    name: str
    id: str
    image: Path
    pixels: UInt8[np.ndarray, "H W 3"]
    truth: Annotation
    upright: bool = False

    def write_image(self, root: Path, place: str, *, suffixes: Sequence[str] = ()) -> tuple[str, dict[str, int]]:
        """Write the image alone; see `write_image`."""
        return write_image(root, place, self.image, self.pixels, suffixes=suffixes, upright=self.upright)


@dataclass(frozen=True)
class Writer:
    """A format that can be written, for one set. Can be pickled, so that other processes may write images.

    Attributes:
        labels: what the ids in the new set mean; its names are those of the ground truth that is written.
        format: as in a specification.
        suffixes: that images may have; the first is that of images encoded anew. Empty: any.
        shares_images: whether all splits have their images in one place, so that one may stand in several splits.
        numbered_by: of clips, the divisor in the ids of the ground truth; see `data.truth.track_ids`.
        label_file: where the label set is stored in the folder of the set; None where lists hold it.
        default: the label set that needs no label file, or None.
    """

    labels: LabelSet
    format: str = ""
    suffixes: tuple[str, ...] = ()
    shares_images: bool = False
    numbered_by: int | None = None
    label_file: str | None = None
    default: LabelSet | None = None

    def write(self, root: Path, original: Original) -> Written:
        """Write one image and what belongs to it alone into the folder of the new set."""
        raise NotImplementedError

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> Mapping[str, int] | None:
        """Write what belongs to a whole split, such as its list; gives what it cannot hold, as `Written.losses`."""

    def finish_set(self, root: Path) -> None:
        """Write what belongs to all splits, such as the label file."""
        if self.label_file is not None and self.labels != self.default:
            (root / self.label_file).write_text(labels_toml(self.labels), encoding="utf-8")


MakeWriter = Callable[[Mapping[str, str], LabelSet], Writer]
"""Makes the writer of a format, by the options of a new set and the classes of its source."""


def contiguous(labels: LabelSet) -> LabelSet:
    """The same classes with the ids 0…K-1 on disk; void is 255, or 65535 where 255 is needed for a class."""
    plain = LabelSet.from_names(labels.name, labels.names)
    return replace(labels, dataset_ids=plain.dataset_ids, void_ids=plain.void_ids)


def write_image(
    root: Path,
    place: str,
    image: Path,
    pixels: UInt8[np.ndarray, "H W 3"],
    *,
    suffixes: Sequence[str] = (),
    upright: bool = False,
) -> tuple[str, dict[str, int]]:
    """Write an image, its bytes if they may stay as they are.

    Args:
        root: the folder of the new set.
        place: of the image in it, without suffix.
        image: the file.
        pixels: the same, decoded and upright.
        suffixes: that the file may have; empty for any.
        upright: encode `pixels`, whatever the file is.

    Returns:
        the file relative to `root`, and what was lost.
    """
    suffix = image.suffix.lower()
    if suffix == ".jpeg" and ".jpg" in suffixes:
        suffix = ".jpg"
    allowed = suffix in (suffixes or IMAGE_SUFFIXES)
    if not allowed or (upright and suffix not in _ENCODED):
        suffix = suffixes[0] if suffixes else ".png"
    file = f"{place}{suffix}"
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    if allowed and not upright:
        shutil.copyfile(image, path)
        return file, {}
    picture = Image.fromarray(pixels)
    if suffix in (".jpg", ".jpeg"):
        picture.save(path, quality=JPEG_QUALITY, subsampling=0)
    elif suffix == ".webp":
        picture.save(path, lossless=True)
    else:
        picture.save(path)
    return file, {"reencoded_images": 1}


def write_ids(path: Path, ids: np.ndarray, colours: LabelSet | None) -> None:
    """Write ids on disk as a PNG of 8 bits, or of 16 where one is above 255.

    Args:
        path: the file.
        ids: i32 [H, W].
        colours: the label set whose colours the file is to show, or None for greyscale; not with 16 bits.

    Raises:
        DataError: an id is negative or above 65535.
    """
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high > 65535:
        raise DataError(f"{path.name}: id {low if low < 0 else high}; a PNG holds ids from 0 to 65535")
    picture = Image.fromarray(ids.astype(np.uint8 if high <= 255 else np.uint16))
    if colours is not None and high <= 255:
        table = np.full((256, 3), (224, 224, 192), dtype=np.uint8)
        for id, colour in zip(colours.dataset_ids, colours.palette, strict=True):
            if 0 <= id <= 255:
                table[id] = colour
        picture.putpalette(table.ravel().tolist())
    picture.save(path)
