"""Which image files are meant by a list of files, folders and patterns, and how their results are called."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pixelwise.data.images import IMAGE_SUFFIXES
from pixelwise.errors import DataError
from pixelwise.inference.scene import RESULT_SUFFIXES


@dataclass(frozen=True)
class ImageFile:
    """An image to look at.

    Attributes:
        path: as the user named it, or the folder it was found in.
        stem: how its results are called, relative to the folder of results: the sub-folders below the input, and the
            name without its suffix; with the suffix where two images would share a stem.
    """

    path: Path
    stem: Path


def find_image_files(inputs: Sequence[str], *, out: Path) -> list[ImageFile]:
    """List the images that are meant, each once, in the order of the inputs and by name within a folder.

    Args:
        inputs: files, which are taken whatever their suffix; folders, searched with all below them for the suffixes of
            images; and patterns (`*`, `?`, `[…]`, `**` for any folders). Names that begin with a dot are left out.
        out: the folder of results. What lies in it is left out where it lies within an input, and results are never
            taken for images.

    Raises:
        DataError: an input is not there, or none of them holds an image.
    """
    found: dict[Path, tuple[Path, Path]] = {}
    for text in inputs:
        for path, relative in _meant(text, out=out):
            if not _is_result(path, out):
                found.setdefault(Path(os.path.abspath(path)), (path, relative))
    if not found:
        raise DataError(
            f"{', '.join(inputs)}: no images there; looked for {' '.join(sorted(IMAGE_SUFFIXES))}, sub-folders included"
        )
    relatives = _told_apart(list(found), [relative for _, relative in found.values()])
    paths = [path for path, _ in found.values()]
    return [ImageFile(path, stem) for path, stem in zip(paths, _unique_stems(relatives), strict=True)]


def _meant(text: str, *, out: Path) -> Iterator[tuple[Path, Path]]:
    """The files that one input means, each with its path below the input."""
    path = Path(text)
    if path.is_dir():
        yield from ((file, file.relative_to(path)) for file in _below(path, out=out))
    elif path.exists():
        yield path, Path(path.name)
    elif glob.has_magic(text):
        yield from _matching(text, out=out)
    else:
        raise DataError(f"{text}: no such file or folder")


def _matching(pattern: str, *, out: Path) -> Iterator[tuple[Path, Path]]:
    parts = Path(pattern).parts
    fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed])
    for match in sorted(Path(name) for name in glob.glob(pattern, recursive=True)):
        if match.is_dir():
            files = _below(match, out=out) if not _lies_within(match, out) else iter(())
        else:
            files = iter([match] if _is_image_name(match.name) else [])
        for file in files:
            if not (_lies_within(out, root) and _lies_within(file, out)):
                yield file, file.relative_to(root)


def _below(folder: Path, *, out: Path) -> Iterator[Path]:
    """The images in a folder and below it, without those in a folder of results that lies below it."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and not _is_same(Path(place, name), out)
        )
        yield from (Path(place, name) for name in sorted(files) if _is_image_name(name))


def _is_image_name(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES


def _is_result(path: Path, out: Path) -> bool:
    return path.name.endswith(RESULT_SUFFIXES) and _lies_within(path.parent / "x", out)


def _is_same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _lies_within(path: Path, folder: Path) -> bool:
    """Whether `path` lies below `folder`; a folder does not lie within itself."""
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
