"""Find files by names from another program, another system or another folder.

Annotation files name their images with the separators of Windows, in another Unicode form (macOS stores `ä` as two
characters), in other capitals, with folders that were never copied, or without those that were added since.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath


def posix_name(name: str) -> str:
    """A name with slashes, where it has the separators of Windows."""
    return PureWindowsPath(name).as_posix() if "\\" in name else name


def find_file(name: str, folders: Sequence[Path]) -> Path | None:
    """The file of a name, or None. See `find_files`, which also knows what other names mean."""
    return _exact(name, folders) or _similar(name, folders, Folders())


def find_files(names: Sequence[str], folders: Sequence[Path], *, below: Path | None = None) -> list[Path | None]:
    """The file of each name, or None where there is none or several could be meant.

    A name is tried as it stands, then with slashes, in another Unicode form or in other capitals, then without its
    leading folders, and last anywhere in a folder. What is found that way counts only if no other name means it.

    Args:
        names: relative to one of the folders, or absolute.
        folders: tried in this order.
        below: a folder in whose sub-folders names are searched too, if they are nowhere else.
    """
    found = [_exact(name, folders) for name in names]
    missing = [place for place, file in enumerate(found) if file is None]
    if not missing:
        return found
    taken, known = {os.path.normpath(file) for file in found if file}, Folders()
    guesses: dict[int, Path] = {}
    search = _search_below(below) if below is not None else None
    for place in missing:
        file = _similar(names[place], folders, known) or (search(names[place]) if search else None)
        if file is not None and os.path.normpath(file) not in taken:
            guesses[place] = file
    times = Counter(os.path.normpath(file) for file in guesses.values())
    for place, file in guesses.items():
        if (
            times[os.path.normpath(file)] == 1
            or len({names[other] for other in guesses if guesses[other] == file}) == 1
        ):
            found[place] = file
    return found


def find_place(name: str, folders: Sequence[Path]) -> Path | None:
    """The folder or file of a name that may have the separators of Windows, and folders before it that are not here.

    The last part alone means a file, never a folder: `images` is not what `test/images` was.
    """
    for place, parts in enumerate(_shorter(name)):
        for folder in folders:
            path = folder / PurePosixPath(*parts)
            if path.exists() and (place == 0 or len(parts) > 1 or path.is_file()):
                return path
    return None


def same_key(name: str) -> str:
    """What two names have in common that differ in their Unicode form or their capitals alone."""
    return unicodedata.normalize("NFC", name).casefold()


class Folders:
    """What is in folders, each listed once."""

    def __init__(self) -> None:
        self.listed: dict[Path, dict[str, list[str]]] = {}

    def path(self, folder: Path, parts: Sequence[str]) -> Path | None:
        """What lies below the folder under these names, one below the other. See `entry`."""
        place: Path | None = folder
        for part in parts:
            place = self.entry(place, part) if place is not None else None
        return place

    def entry(self, folder: Path, name: str) -> Path | None:
        """What the folder has under a name: exactly, else in another Unicode form, else in other capitals."""
        if folder not in self.listed:
            entries: dict[str, list[str]] = {}
            for entry in _names_in(folder):
                entries.setdefault(same_key(entry), []).append(entry)
            self.listed[folder] = entries
        candidates = self.listed[folder].get(same_key(name), [])
        normal = unicodedata.normalize("NFC", name)
        for fits in (
            [entry for entry in candidates if entry == name],
            [entry for entry in candidates if unicodedata.normalize("NFC", entry) == normal],
            candidates,
        ):
            if len(fits) == 1:
                return folder / fits[0]
        return None


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _exact(name: str, folders: Sequence[Path]) -> Path | None:
    for one in (name, posix_name(name)) if "\\" in name else (name,):
        for folder in folders:
            if os.path.isfile(folder / one):
                return folder / one
    return None


def _similar(name: str, folders: Sequence[Path], known: Folders) -> Path | None:
    for parts in _shorter(name):
        for folder in folders:
            place = known.path(folder, parts)
            if place is not None and os.path.isfile(place):
                return place
    return None


def _shorter(name: str) -> Iterator[tuple[str, ...]]:
    """The parts of a name, then without the first, the first two, … down to the last."""
    path = PureWindowsPath(name) if "\\" in name or name[1:2] == ":" else PurePosixPath(name)
    parts = [part for part in path.parts if part not in (path.anchor, "..", ".")]
    for start in range(len(parts)):
        yield tuple(parts[start:])


def _search_below(folder: Path) -> Callable[[str], Path | None]:
    """A search for names that stand in any sub-folder: the one file whose path ends with the whole name."""
    index: dict[str, list[Path]] = {}
    for place, _, names in os.walk(folder):
        for name in names:
            index.setdefault(same_key(name), []).append(Path(place, name))

    def search(name: str) -> Path | None:
        parts = next(_shorter(name), ())
        if not parts:
            return None
        name_parts = [same_key(part) for part in parts]
        fits = [path for path in index.get(name_parts[-1], []) if _keys(path.parts[-len(name_parts) :]) == name_parts]
        return fits[0] if len(fits) == 1 else None

    return search


def _keys(parts: Iterable[str]) -> list[str]:
    return [same_key(part) for part in parts]
