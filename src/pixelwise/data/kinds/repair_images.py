"""The writing of a repaired copy that is a folder: each image once, repaired by what knows its format, or left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import UInt8

from pixelwise.data.kinds.folders import UNIONS, Entry, content_keys
from pixelwise.data.kinds.writing import Written
from pixelwise.errors import DataError
from pixelwise.files.atomic import replace_folder
from pixelwise.files.images import ColourMaskError, exif_orientation, read_colours, read_ids, read_image, turned_upright
from pixelwise.files.parallel import Progress, apply


@dataclass(frozen=True)
class Repaired:
    """One image.

    Attributes:
        written: what was written; None where it is left out.
        done: key of `repair.REPAIRS` → how often.
        unwritable: why the disk refused.
    """

    written: Written | None
    done: Mapping[str, int] = field(default_factory=dict)
    unwritable: str | None = None


class Repairer(Protocol):
    """Writes the images of one set into a copy. Can be pickled, so that other processes may write."""

    def repair(self, entry: Entry, *, root: Path, split: str) -> Repaired:
        """Read an image and its truth, and write them if they can be made to fit. Raises OSError."""
        ...

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> None:
        """Write what tells of a whole split."""
        ...

    def finish_set(self, root: Path) -> None:
        """Write what tells of all splits."""
        ...


class FolderCopy(NamedTuple):
    """What a copy is made of.

    Attributes:
        entries: split → its images, as they stand in the set.
        repairer: writes them.
        query: the options with which the copy opens.
    """

    entries: Mapping[str, Sequence[Entry]]
    repairer: Repairer
    query: Mapping[str, str]


class Pair(NamedTuple):
    """An image and its mask.

    Attributes:
        pixels: of the upright image.
        mask: ids [H, W] or colours [H, W, 3] of the same size.
        orientation: by which EXIF turned the image.
    """

    pixels: UInt8[np.ndarray, "H W 3"]
    mask: np.ndarray
    orientation: int


def write_copy(out: Path, copy: FolderCopy, *, name: str, workers: int, progress: Progress) -> tuple[Counter[str], int]:
    """Write all images once; returns what was done, by the keys of `repair.REPAIRS`, and how many images are left.

    Raises:
        DataError: nothing usable is left, or the disk is full.
        OSError: the folder cannot be written.
    """
    done: Counter[str] = Counter()
    written: dict[str, list[Written]] = {}

    def fill(folder: Path) -> None:
        keys = content_keys(entry.image for of_split in copy.entries.values() for entry in of_split if entry.image)
        seen: set[Any] = set()
        for split, of_split in copy.entries.items():
            once = _once(of_split, keys, seen if split not in UNIONS else set(), done)
            job = partial(_repaired, repairer=copy.repairer, root=folder, split=split)
            outcomes = list(progress(apply(job, once, workers=workers), total=len(once), what=f"repair {split}"))
            for entry, outcome in zip(once, outcomes, strict=True):
                if outcome.unwritable is not None:
                    raise DataError(f"--fix {out}: cannot be written ({outcome.unwritable})")
                done.update(outcome.done)
                if outcome.written and entry.image and split not in UNIONS:
                    seen.add(keys.get(entry.image))
            written[split] = [outcome.written for outcome in outcomes if outcome.written]
            if written[split]:
                copy.repairer.finish(folder, split=split, written=written[split])
        copy.repairer.finish_set(folder)
        if not any(written.values()):
            raise DataError(f"{name}: nothing usable is left, no copy was written")

    replace_folder(out, fill)
    return done, sum(len(of_split) for of_split in written.values())


def read_pair(entry: Entry, done: Counter[str], *, colours: bool = False) -> Pair | None:
    """An image and its mask, turned as EXIF turns the image where that makes it fit; None where they are unusable.

    Args:
        entry: names the files.
        done: is told what was done, or why there is nothing.
        colours: whether the mask holds colours, instead of ids.
    """
    if entry.image is None or entry.mask is None:
        done["missing_masks" if entry.image else "missing_images"] += 1
        return None
    try:
        pixels = read_image(entry.image).permute(1, 2, 0).contiguous().numpy()
        orientation = exif_orientation(entry.image)
    except DataError:
        done["unreadable_images"] += 1
        return None
    mask = _read_mask(entry.mask, done, colours=colours)
    if mask is None:
        return None
    if mask.shape[:2] != pixels.shape[:2]:
        if orientation < 5 or mask.shape[:2] != pixels.shape[1::-1]:
            done["size_mismatches"] += 1
            return None
        mask = turned_upright(mask, orientation)
        done["turned_masks"] += 1
    return Pair(pixels, mask, orientation)


def _repaired(entry: Entry, *, repairer: Repairer, root: Path, split: str) -> Repaired:
    try:
        return repairer.repair(entry, root=root, split=split)
    except OSError as error:
        return Repaired(None, unwritable=error.strerror or str(error))


def _once(entries: Iterable[Entry], keys: Mapping[Path, Any], seen: set[Any], done: Counter[str]) -> list[Entry]:
    """The entries without those whose id or image came before."""
    kept: list[Entry] = []
    ids: set[str] = set()
    here: set[Any] = set()
    for entry in entries:
        done["rival_files"] += len(entry.rivals)
        key = keys.get(entry.image) if entry.image else None
        if entry.id in ids or (key is not None and key in seen | here):
            done["repeated_images"] += 1
            continue
        ids.add(entry.id)
        here.add(key)
        kept.append(entry)
    return kept


def _read_mask(path: Path, done: Counter[str], *, colours: bool) -> np.ndarray | None:
    """Ids [H, W], or colours [H, W, 3]; None where there are none."""
    try:
        return read_colours(path) if colours else read_ids(path)
    except ColourMaskError:
        try:
            pixels = read_colours(path)
        except DataError:
            done["unreadable_masks"] += 1
            return None
        if (pixels == pixels[:, :, :1]).all():
            done["grey_masks"] += 1
            return pixels[:, :, 0]
        done["colour_masks"] += 1
    except DataError:
        done["unreadable_masks"] += 1
    return None
