"""Which image files are meant by a list of files, folders and patterns, and how their results are called."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from pixelwise.errors import DataError
from pixelwise.files.images import IMAGE_SUFFIXES
from pixelwise.predictions.pictures import RESULT_SUFFIXES

VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".m2ts", ".wmv", ".flv", ".ogv", ".3gp")
)
"""Suffixes, in lower case, of the files that count as videos when a folder is listed."""

VIDEO_OVERLAY_SUFFIX = ".overlay.mp4"
"""What the names of videos that are written into a folder of results end with."""


@dataclass(frozen=True)
class ImageFile:
    """An image, or a video, to look at.

    Attributes:
        path: as the user named it, or the folder it was found in.
        stem: how its results are called, relative to the folder of results: the sub-folders below the input, and the
            name without its suffix; with the suffix where two images would share a stem.
    """

    path: Path
    stem: Path


def find_image_files(inputs: Sequence[str], *, out: Path, videos: bool = False) -> list[ImageFile]:
    """List the images that are meant, each once, in the order of the inputs and by name within a folder.

    Args:
        inputs: files, which are taken whatever their suffix; folders, searched with all below them for the suffixes of
            images; and patterns (`*`, `?`, `[…]`, `**` for any folders). Folders and patterns never give names that
            begin with a dot, nor pictures that are results.
        out: the folder of results; those in it are left out even where they are named.
        videos: list videos too.

    Raises:
        DataError: an input is not there, or none of them holds an image.
    """
    found: dict[Path, tuple[Path, Path]] = {}
    suffixes = IMAGE_SUFFIXES | VIDEO_SUFFIXES if videos else IMAGE_SUFFIXES
    for text in inputs:
        for path, relative in _meant(text, suffixes):
            if not (_is_result_name(path.name) and _lies_within(path, out)):
                found.setdefault(Path(os.path.abspath(path)), (path, relative))
    if not found:
        raise DataError(
            f"{', '.join(inputs)}: no images there{', nor videos' if videos else ''}; looked for "
            f"{' '.join(sorted(suffixes))}, sub-folders included"
        )
    relatives = _told_apart(list(found), [relative for _, relative in found.values()])
    paths = [path for path, _ in found.values()]
    return [ImageFile(path, stem) for path, stem in zip(paths, _unique_stems(relatives), strict=True)]


def _meant(text: str, suffixes: Set[str]) -> Iterator[tuple[Path, Path]]:
    """The files that one input means, each with its path below the input."""
    path = Path(text)
    if path.is_dir():
        yield from ((file, file.relative_to(path)) for file in _below(path, suffixes))
    elif path.exists():
        yield path, Path(path.name)
    elif glob.has_magic(text):
        root = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
        for match in sorted(Path(name) for name in glob.glob(text, recursive=True)):
            files = _below(match, suffixes) if match.is_dir() else [match] if _is_meant(match.name, suffixes) else []
            yield from ((file, file.relative_to(root)) for file in files)
    else:
        raise DataError(f"{text}: no such file or folder")


def frames_in(folder: Path) -> list[Path]:
    """The images that lie in a folder itself, by name."""
    return sorted(path for path in folder.iterdir() if _is_meant(path.name, IMAGE_SUFFIXES) and path.is_file())


def _below(folder: Path, suffixes: Set[str]) -> Iterator[Path]:
    """The files of these suffixes in a folder and below it."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in sorted(files) if _is_meant(name, suffixes))


def _is_meant(name: str, suffixes: Set[str]) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in suffixes and not _is_result_name(name)


def _is_result_name(name: str) -> bool:
    return name.endswith((*RESULT_SUFFIXES, VIDEO_OVERLAY_SUFFIX))


def _lies_within(path: Path, folder: Path) -> bool:
    return Path(os.path.realpath(folder)) in Path(os.path.realpath(path)).parents


def _told_apart(absolutes: Sequence[Path], relatives: Sequence[Path]) -> list[Path]:
    """Lengthen equal relative paths by the folders above until they differ."""
    lengths = [len(relative.parts) for relative in relatives]
    names = list(relatives)
    while repeated := _repeated(names):
        longer = [
            min(length + (_key(name) in repeated), len(absolute.parts) - 1)
            for length, name, absolute in zip(lengths, names, absolutes, strict=True)
        ]
        if longer == lengths:
            break
        lengths = longer
        names = [Path(*path.parts[-length:]) for path, length in zip(absolutes, lengths, strict=True)]
    return names


def _unique_stems(relatives: Sequence[Path]) -> list[Path]:
    stems = [relative.with_suffix("") for relative in relatives]
    while repeated := _repeated(stems):
        kept = [relative if _key(stem) in repeated else stem for stem, relative in zip(stems, relatives, strict=True)]
        if kept == stems:
            break
        stems = kept
    return stems


def _repeated(paths: Sequence[Path]) -> set[str]:
    return {key for key, count in Counter(map(_key, paths)).items() if count > 1}


def _key(path: Path) -> str:
    """Equal for names that a file system may take for the same, however it treats capitals."""
    return str(path).casefold()
