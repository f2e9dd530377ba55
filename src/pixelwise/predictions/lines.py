"""`results.jsonl`: one line of JSON for each image, appended as images are done; what a second run resumes from."""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pixelwise.errors import DataError
from pixelwise.files.atomic import write_file
from pixelwise.files.text import parse_json
from pixelwise.labels import LabelSet
from pixelwise.predictions.coco_objects import coco_image_ids, entries_of_record, panoptic_entry_of_record
from pixelwise.predictions.pictures import PANOPTIC_SUFFIX

RESULTS_NAME = "results.jsonl"

IDENTITY_FIELDS = ("image", "file", "model", "weights", "options")
"""The fields of a line that say which image was looked at, and how. A line counts as done where all agree."""


@dataclass(frozen=True)
class _Entry:
    """Where a line stands in the file, and what of it decides whether it is kept."""

    offset: int
    length: int
    identity: dict[str, Any]
    files: tuple[str, ...]


class ResultsFile:
    """The file of results in a folder; made if it is not there.

    A line that a kill cut short is taken for absent, and of two lines for an image the later counts. Lines are written
    by one process at a time, from any of its threads.

    Raises:
        OSError: the folder cannot be made or written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / RESULTS_NAME
        folder.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab", buffering=0)
        self._lock = threading.Lock()
        self._entries = _scan(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def holds(self, identity: Mapping[str, Any], *, files: Collection[str]) -> bool:
        """Whether the image of that identity is done: its line is there and names `files`, and they lie on the disk."""
        entry = self._entries.get(identity["image"])
        return (
            entry is not None
            and entry.identity == {name: identity[name] for name in IDENTITY_FIELDS}
            and set(files) <= set(entry.files)
            and all((self.path.parent / name).is_file() for name in entry.files)
        )

    def files_of(self, image: str) -> tuple[str, ...]:
        """The files that the image's line names."""
        return self._entries[image].files

    def line_of(self, image: str) -> str:
        """The image's line, without its end."""
        entry = self._entries[image]
        with self.path.open("rb") as file:
            file.seek(entry.offset)
            return file.read(entry.length).decode("utf-8")

    def forget(self, images: Collection[str], *, files: Collection[str]) -> None:
        """Remove the lines of images that will be done anew, and those that name files which will be written.

        What was cut short or doubled goes too. A kill leaves the file as it was or as it shall be.
        """

        def is_kept(entry: _Entry) -> bool:
            return entry.identity["image"] not in images and not any(name in files for name in entry.files)

        images, files = set(images), set(files)
        kept = sorted(filter(is_kept, self._entries.values()), key=lambda entry: entry.offset)
        if sum(entry.length + 1 for entry in kept) == self.path.stat().st_size:
            return

        def copy(new: Path) -> None:
            with self.path.open("rb") as source, new.open("wb") as target:
                for entry in kept:
                    source.seek(entry.offset)
                    target.write(source.read(entry.length) + b"\n")

        write_file(self.path, copy)
        self._file.close()
        self._file = self.path.open("ab", buffering=0)
        self._entries = _scan(self.path)

    def coco_entries(self, labels: LabelSet) -> Iterator[dict[str, Any]]:
        """Every object of every line, as an entry of COCO's results; one line is held at a time."""
        ids = coco_image_ids(self._entries)
        for record in self._records():
            yield from entries_of_record(record, labels, image_id=ids[record["image"]])

    def panoptic_entries(self, labels: LabelSet) -> Iterator[dict[str, Any]]:
        """Every line with a panoptic PNG, as an entry of COCO's panoptic results; one line is held at a time."""
        ids = coco_image_ids(self._entries)
        for record in self._records():
            for name in record.get("files", ()):
                if name.endswith(PANOPTIC_SUFFIX):
                    yield panoptic_entry_of_record(record, name, labels, image_id=ids[record["image"]])

    def _records(self) -> Iterator[dict[str, Any]]:
        for entry in sorted(self._entries.values(), key=lambda entry: entry.offset):
            with self.path.open("rb") as file:
                file.seek(entry.offset)
                yield parse_json(file.read(entry.length), source=self.path)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line and hand it to the system."""
        content = as_line(record).encode("utf-8")
        rest = memoryview(content + b"\n")
        with self._lock:
            entry = _entry(record, self._file.tell(), len(content))
            while rest:
                rest = rest[self._file.write(rest) :]
            self._entries[entry.identity["image"]] = entry


def as_line(record: Mapping[str, Any]) -> str:
    """One line of JSON, without its end; escaped where a file's name is not valid Unicode.

    Raises:
        DataError: a number is NaN or infinite, which JSON does not have.
    """
    try:
        line = json.dumps(record, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise DataError("the model's scores or boxes are no numbers (NaN or infinite); check its weights") from None
    return line if _is_unicode(line) else json.dumps(record)


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _scan(path: Path) -> dict[str, _Entry]:
    """The last whole line of each image."""
    return {entry.identity["image"]: entry for entry in _entries(path)}


def _entries(path: Path) -> Iterator[_Entry]:
    offset = 0
    with path.open("rb") as file:
        for line in file:
            content = line.rstrip(b"\r\n")
            try:
                record = parse_json(content, source=path)
                if isinstance(record["image"], str):
                    yield _entry(record, offset, len(content))
            except (DataError, TypeError, KeyError, AttributeError):
                pass  # cut short, or not a line of ours
            offset += len(line)


def _entry(record: Mapping[str, Any], offset: int, length: int) -> _Entry:
    identity = {name: record.get(name) for name in IDENTITY_FIELDS}
    return _Entry(offset, length, identity, tuple(record.get("files", ())))
