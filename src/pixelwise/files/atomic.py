"""Replace a file or a folder atomically: a kill or a power cut leaves the old one or the new one, complete.

A folder cannot be renamed onto another that is not empty, so a swap takes two renames. Beside `NAME` lie, for a while,
`.NAME.new` (being written; complete and on the disk before the swap begins) and `.NAME.old` (the former content).
Between the two renames `NAME` is missing and both others are there, which is how an interrupted swap is recognised.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def write_file(path: Path, content: str | bytes | Callable[[Path], object], *, sync: bool = True) -> None:
    """Write a file beside its place and rename it, so that the old or the complete new one exists.

    Args:
        path: the file; its folder is there.
        content: text (written as UTF-8, line ends as they are), bytes, or what writes a file of the name it is given,
            which ends with `.new`.
        sync: wait until the file is on the disk. Without it a power cut, though no kill, may leave an empty file: for
            files that are many and can be made again.

    Raises:
        OSError: the disk is full or the place cannot be written; the old file is untouched.
    """
    new = _new(path)
    try:
        if isinstance(content, str):
            new.write_text(content, encoding="utf-8", newline="")
        elif isinstance(content, bytes):
            new.write_bytes(content)
        else:
            content(new)
        if sync:
            _sync(new)
        os.replace(new, path)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise
    if sync:
        _sync(path.parent)


def require_writable(path: Path) -> None:
    """Make a file where `write_file` would, and remove it. Raises OSError where that cannot be."""
    new = _new(path)
    new.touch()
    new.unlink()


def replace_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Write a folder, replacing an existing one.

    Args:
        folder: the folder; its parents are made.
        fill: writes the files into the empty folder it is given, and may make sub-folders.

    Raises:
        OSError: the disk is full or the place cannot be written; the old folder is untouched.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    recover_folder(folder)
    new, old = _new(folder), _old(folder)
    try:
        new.mkdir()
        fill(new)
        _sync_tree(new)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    _sync(folder.parent)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    _sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover_folder(folder: Path) -> None:
    """Finish an interrupted swap, and remove the rest of an interrupted write.

    For the one process that writes the folder; readers call `current_folder`, which changes nothing.
    """
    new, old = _new(folder), _old(folder)
    if _is_between_renames(folder):
        new.rename(folder)
    for rest in (new, old):
        if rest.exists():
            shutil.rmtree(rest)


def current_folder(folder: Path) -> Path | None:
    """Where the complete content of `folder` lies: itself, or the new one of an interrupted swap; None for neither."""
    if folder.is_dir():
        return folder
    return _new(folder) if _is_between_renames(folder) else None


def _is_between_renames(folder: Path) -> bool:
    return not folder.exists() and _old(folder).is_dir() and _new(folder).is_dir()


def _new(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.new")


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _sync_tree(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        _sync(path)


def _sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    if os.name == "nt" and path.is_dir():  # Windows has no such call for folders
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
