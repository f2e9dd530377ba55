"""What lies in the folders of a split and is not read: files of other suffixes, and further frames of images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence, Set
from contextlib import suppress
from pathlib import Path

from pixelwise.data.listing import Item
from pixelwise.errors import count
from pixelwise.files.images import IMAGE_SUFFIXES, describe_passed_over, frame_count, passed_over

EXPECTED = (
    frozenset(("", ".txt", ".json", ".jsonl", ".toml", ".yaml", ".yml", ".xml", ".csv", ".md", ".html", ".data"))
    | frozenset((".names", ".seqmap", ".npz", ".cache"))
    | frozenset((".db", ".ini", ".zip", ".tar", ".gz", ".py"))
)
"""Suffixes of labels, lists and descriptions, and of what file managers, archives and scripts leave beside images."""

ANIMATED = frozenset((".gif", ".apng", ".avifs", ".mpo"))
"""Suffixes of images that most often have several frames."""


def passed_over_notes(items: Sequence[Item], source: Path | str, *, may_move: Set[str] = ANIMATED) -> Iterator[str]:
    """One line for the files of a split's folders that are passed over, and one for images with further frames.

    Args:
        items: the split; the folders of its images and masks are looked into.
        source: what lists it; where that is a folder, it is looked into as well.
        may_move: suffixes of the images whose headers are asked for further frames.
    """
    folders = {path.parent for item in items for path in (item.image, item.truth, *item.rivals) if path is not None}
    others = passed_over(_files_in({*folders, Path(source)}), IMAGE_SUFFIXES | EXPECTED)
    if others:
        yield describe_passed_over(others)
    images = dict.fromkeys(item.image for item in items if item.image and item.image.suffix.lower() in may_move)
    several = {image: frames for image in images if (frames := frame_count(image)) > 1}
    if several:
        (first, frames), *others = several.items()
        more = f", and {count(len(others), 'other image has', 'other images have')} several" if others else ""
        yield f"first frame alone taken, the others skipped: {first.name} has {frames:,}{more}"


def _files_in(folders: Set[Path]) -> Iterator[Path]:
    for folder in sorted(folders):
        with suppress(OSError), os.scandir(folder) as entries:
            yield from (Path(entry.name) for entry in entries if entry.is_file())
