"""List image files from files, folders and patterns, and name their results."""

from __future__ import annotations

import glob
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from tempfile import NamedTemporaryFile

from pixelwise.errors import DataError
from pixelwise.files.images import IMAGE_SUFFIXES, describe_passed_over, passed_over
from pixelwise.predictions.coco_objects import COCO_RESULTS_NAME
from pixelwise.predictions.coco_segments import PANOPTIC_RESULTS_NAME
from pixelwise.predictions.lines import RESULTS_NAME
from pixelwise.predictions.pictures import RESULT_SUFFIXES

VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".qt", ".mkv", ".webm", ".avi", ".divx", ".wmv", ".asf", ".flv", ".f4v")
) | frozenset((".mpg", ".mpeg", ".m2v", ".vob", ".mts", ".m2ts", ".ts", ".ogv", ".3gp", ".3g2", ".mxf", ".y4m"))
"""Suffixes, in lower case, of the files that count as videos when a folder is listed; a .ts by its content too."""

VIDEO_OVERLAY_SUFFIX = ".overlay.mp4"
"""Suffix of videos in a folder of results."""

LINES_SUFFIX = ".jsonl"
"""Suffix of the files of lines of videos in a folder of results."""

_WRITTEN = (*RESULT_SUFFIXES, VIDEO_OVERLAY_SUFFIX, LINES_SUFFIX)
_COMMON = (RESULTS_NAME, COCO_RESULTS_NAME, PANOPTIC_RESULTS_NAME)
"""The files of a folder of results that belong to no single image or video."""

TS_PACKET = 188
"""Bytes of a packet of an MPEG transport stream; each begins with the letter G (ISO/IEC 13818-1, 2.4.3)."""


@dataclass(frozen=True)
class ImageFile:
    """An image, or a video, to predict.

    Attributes:
        path: as the user named it, or the folder it was found in.
        stem: name of its results, relative to the folder of results: the sub-folders below the input, and the name
            without its suffix; with the suffix, or a number, where two images would share a name.
    """

    path: Path
    stem: Path


@dataclass(frozen=True)
class FoundFiles:
    """The files of a list of inputs.

    Attributes:
        files: the images and videos, each once, in the order of the inputs and by name within a folder.
        passed_over: number of skipped files in folders, by suffixes of neither images nor videos.
        results: number of skipped files in folders that have names of results.
    """

    files: tuple[ImageFile, ...]
    passed_over: Counter[str]
    results: int


def find_image_files(inputs: Sequence[str], *, out: Path, videos: bool = False) -> FoundFiles:
    """List the images of the inputs.

    Args:
        inputs: files, with any suffix; folders, which are searched recursively for the suffixes of images; and patterns
            (`*`, `?`, `[…]`, `**` for any folders). In folders and patterns, names that begin with a dot and results
            are skipped.
        out: the folder of results; files in it are always skipped.
        videos: list videos too.

    Returns:
        the files, whose stems differ by more than capitals and Unicode forms and stay below the folder of results.

    Raises:
        DataError: an input does not exist, or there is no image.
    """
    found: dict[Path, tuple[Path, Path]] = {}
    suffixes = IMAGE_SUFFIXES | VIDEO_SUFFIXES if videos else IMAGE_SUFFIXES
    others: dict[Path, Path] = {}
    for text in inputs:
        for path, relative in _meant(text, suffixes, others):
            if not (_is_result_name(path.name) and _lies_within(path, out)):
                found.setdefault(Path(os.path.abspath(path)), (path, relative))
    results = [path for path in others.values() if _is_result_name(path.name)]
    counts = passed_over((path for path in others.values() if not _is_result_name(path.name)), frozenset())
    if not found:
        there = describe_passed_over(counts)
        raise DataError(
            f"{', '.join(inputs)}: no images there{', nor videos' if videos else ''}, sub-folders included"
            + (f"; {there}" if there else "")
        )
    relatives = _told_apart(list(found), [relative for _, relative in found.values()])
    paths = [path for path, _ in found.values()]
    files = [ImageFile(path, stem) for path, stem in zip(paths, _unique_stems(relatives, out), strict=True)]
    return FoundFiles(tuple(files), counts, sum(not _lies_within(path, out) for path in results))


def _meant(text: str, suffixes: Set[str], others: dict[Path, Path]) -> Iterator[tuple[Path, Path]]:
    """The files of one input, each with its path below the input; other files of folders go to `others`."""
    path = Path(text)
    if path.is_dir():
        yield from ((file, file.relative_to(path)) for file in _below(path, suffixes, others))
    elif path.exists():
        yield path, Path(path.name)
    elif glob.has_magic(text):
        root = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
        for match in sorted(Path(name) for name in glob.glob(text, recursive=True)):
            files = _below(match, suffixes, others) if match.is_dir() else _chosen([match], suffixes, others)
            yield from ((file, _inside(file, root)) for file in files)
    else:
        raise DataError(f"{text}: no such file or folder")


def _inside(file: Path, root: Path) -> Path:
    """The path of a file that was found below `root`, without steps up, which would lead out of any folder."""
    parts = Path(os.path.normpath(file.relative_to(root))).parts
    return Path(*(part for part in parts if part != os.pardir))


def frames_in(folder: Path) -> list[Path]:
    """The images that lie in a folder itself, by name."""
    return sorted(path for path in _chosen(folder.iterdir(), IMAGE_SUFFIXES, {}) if path.is_file())


def _below(folder: Path, suffixes: Set[str], others: dict[Path, Path]) -> Iterator[Path]:
    """The files of these suffixes in a folder and below it."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from _chosen((Path(place, name) for name in sorted(files)), suffixes, others)


def _chosen(paths: Iterable[Path], suffixes: Set[str], others: dict[Path, Path]) -> Iterator[Path]:
    """Those that are no results and have one of the suffixes; the others that are not hidden go to `others`."""
    for path in paths:
        if path.name.startswith("."):
            continue
        suffix = path.suffix.lower()
        if suffix in suffixes and not _is_result_name(path.name) and (suffix != ".ts" or _is_transport_stream(path)):
            yield path
        else:
            others[Path(os.path.abspath(path))] = path


def _is_transport_stream(path: Path) -> bool:
    """Whether a .ts is a video, and not a program in TypeScript."""
    try:
        with path.open("rb") as file:
            content = file.read(TS_PACKET + 1)
    except OSError:
        return True  # opening it raises the error
    return content[:1] == b"G" and content[TS_PACKET:] in (b"G", b"")


def _is_result_name(name: str) -> bool:
    return name.lower().endswith((*RESULT_SUFFIXES, VIDEO_OVERLAY_SUFFIX))


def _lies_within(path: Path, folder: Path) -> bool:
    return Path(os.path.realpath(folder)) in Path(os.path.realpath(path)).parents


def _told_apart(absolutes: Sequence[Path], relatives: Sequence[Path]) -> list[Path]:
    """Extend equal relative paths by parent folders until they differ, where the parents differ."""
    names = list(relatives)
    lengths = [len(name.parts) for name in names]
    while True:
        places: dict[str, set[str]] = {}  # the folders of files with the same name
        for name, absolute in zip(names, absolutes, strict=True):
            places.setdefault(_key(name), set()).add(_key(absolute))
        longer = [
            min(length + (len(places[_key(name)]) > 1), len(absolute.parts) - 1)
            for name, length, absolute in zip(names, lengths, absolutes, strict=True)
        ]
        if longer == lengths:
            return names
        names = [
            name if length == before else Path(*absolute.parts[-length:])
            for name, before, length, absolute in zip(names, lengths, longer, absolutes, strict=True)
        ]
        lengths = longer


def _unique_stems(relatives: Sequence[Path], out: Path) -> list[Path]:
    """Names for results: without suffix, else with it, else with a number. No file of one is a folder of another."""
    relatives = [_beside_common(relative) for relative in relatives]
    stems = [relative.with_suffix("") for relative in relatives]
    while clashing := _clashing(stems, relatives):
        kept = [relatives[index] if index in clashing else stem for index, stem in enumerate(stems)]
        if kept == stems:
            break
        stems = kept
    if not clashing:
        return stems
    folders, key = _folders(stems), _key if is_blind_to_capitals(out) else _composed
    taken: set[str] = set()
    for index, stem in enumerate(stems):
        numbers = count(2)
        while key(stem) in taken or _is_in_the_way(stem, relatives[index], folders):
            stem = stems[index].with_name(f"{stems[index].name}~{next(numbers)}")
        taken.add(key(stem))
        stems[index] = stem
    return stems


def is_blind_to_capitals(folder: Path) -> bool:
    """Whether files in a folder, or where it will be made, cannot differ by capitals alone."""
    place = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.is_dir())
    try:
        with NamedTemporaryFile(dir=place, prefix=".pixelwise-") as file:
            return place.joinpath(Path(file.name).name.upper()).exists()
    except OSError:  # writing the results raises the error
        return False


def _clashing(stems: Sequence[Path], relatives: Sequence[Path]) -> set[int]:
    counts, folders = Counter(map(_key, stems)), _folders(stems)
    return {
        index
        for index, (stem, relative) in enumerate(zip(stems, relatives, strict=True))
        if counts[_key(stem)] > 1 or _is_in_the_way(stem, relative, folders)
    }


def _is_in_the_way(stem: Path, relative: Path, folders: Set[str]) -> bool:
    """Whether a result of that stem would have the path of another's folder or, for a video, of the lines of all
    images.
    """
    written = {_key(stem.with_name(f"{stem.name}{suffix}")) for suffix in _WRITTEN}
    is_image = relative.suffix.lower() in IMAGE_SUFFIXES
    return bool(written & folders) or (not is_image and _key(Path(RESULTS_NAME)) in written)


def _folders(stems: Iterable[Path]) -> set[str]:
    return {_key(folder) for stem in stems for folder in stem.parents if folder.name}


def _beside_common(relative: Path) -> Path:
    """The path with its first folder renamed where it has the name of a common file of results."""
    first, *rest = relative.parts
    return Path(f"{first}~2", *rest) if rest and _key(Path(first)) in _COMMON else relative


def _key(path: Path) -> str:
    """A key that is equal for names that a file system may not distinguish, by capitals or Unicode forms."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path.as_posix()).casefold())


def _composed(path: Path) -> str:
    """A key that is equal for names that differ by their Unicode forms alone."""
    return unicodedata.normalize("NFC", path.as_posix())
