"""Lines of JSON: `results.jsonl` with one for each image, and the lines of a clip with one for each frame.

Lines of images are appended as images are finished; a second run resumes from them, and `merge` reads them. Lines of a
clip are read by `evaluate --predictions`.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError

from pixelwise.errors import DataError
from pixelwise.files.atomic import write_file
from pixelwise.files.text import parse_json
from pixelwise.labels import LabelSet
from pixelwise.predictions.coco_objects import Number, coco_image_ids, entries_of_record, first_fault
from pixelwise.predictions.coco_segments import panoptic_entry_of_record
from pixelwise.predictions.pictures import PANOPTIC_SUFFIX, RESULT_SUFFIXES

RESULTS_NAME = "results.jsonl"

IDENTITY_FIELDS = ("image", "file", "model", "weights", "options")
"""The fields of a line that identify the image and its prediction. An image is done where all agree."""


# ---- the content of a line


def _text(value: Any) -> str:
    """Any text; pydantic's own type refuses file names that are not valid Unicode."""
    if not isinstance(value, str):
        raise ValueError("expected text")
    return value


Text = Annotated[str, PlainValidator(_text)]


class Segment(BaseModel):
    """One segment of a line; see `predictions.record`."""

    model_config = ConfigDict(strict=True)
    id: int
    label: Annotated[int, Field(ge=0)]
    area: int | None
    box: Annotated[list[Number], Field(min_length=4, max_length=4)]
    score: Number | None
    track_id: int | None = None
    rle: dict[str, Any] | None


class _Line(BaseModel):
    model_config = ConfigDict(strict=True)
    labels: list[str] = []
    segments: list[Segment] = []

    def fault(self) -> str | None:
        """The fault of a line of the right types, or None."""
        strange = next((one.label for one in self.segments if self.labels and one.label >= len(self.labels)), None)
        return None if strange is None else f"a segment of class {strange} among {len(self.labels)} labels"


class ImageLine(_Line):
    """The line of an image."""

    image: Text
    files: list[Text] = []


class FrameLine(_Line):
    """The line of a frame of a clip."""

    frame: Annotated[int, Field(ge=0)]
    size: Annotated[list[int], Field(min_length=2, max_length=2)]


def as_line(record: Mapping[str, Any]) -> str:
    """One line of JSON, without its end; escaped where a file's name is not valid Unicode.

    Raises:
        DataError: a number is NaN or infinite, which JSON does not have.
    """
    try:
        line = json.dumps(record, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise DataError("the model's scores or boxes are NaN or infinite; check its weights") from None
    return line if _is_unicode(line) else json.dumps(record)


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


# ---- the file of a run


@dataclass(frozen=True)
class _Entry:
    """The position of a line in the file, and the fields that decide whether it is kept."""

    offset: int
    length: int
    identity: dict[str, Any]
    files: tuple[str, ...]


class ResultsFile:
    """The file of results in a folder; made if missing.

    Incomplete and foreign lines are ignored, and of two lines for an image the later counts. One process at a time
    writes lines, from any of its threads.

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
        """Whether the image of that identity is done: its line exists and names `files`, which exist."""
        entry = self._entries.get(identity["image"])
        return (
            entry is not None
            and entry.identity == {name: identity[name] for name in IDENTITY_FIELDS}
            and set(files) <= set(entry.files)
            and all(os.path.isfile(self.path.parent / name) for name in entry.files)
        )

    def files_of(self, image: str) -> tuple[str, ...]:
        """The files that the image's line names."""
        return self._entries[image].files

    def line_of(self, image: str) -> str:
        """The image's line, without its end."""
        return self._content(self._entries[image]).decode("utf-8")

    def append(self, record: Mapping[str, Any]) -> None:
        """Write and flush one line."""
        content = as_line(record).encode("utf-8")
        rest = memoryview(content + b"\n")
        with self._lock:
            entry = _entry(record, self._file.tell(), len(content))
            while rest:
                rest = rest[self._file.write(rest) :]
            self._entries[entry.identity["image"]] = entry

    def forget(self, images: Collection[str], *, files: Collection[str]) -> None:
        """Remove the lines of images that will be predicted again, and those that name files which will be written.

        Incomplete and repeated lines are removed too. A kill leaves the old or the new file.
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
        """Every instance of every line of these classes, as an entry of COCO's results; one line is held at a time."""
        ids = coco_image_ids(self._entries)
        for record in self._records(labels):
            yield from entries_of_record(record, labels, image_id=ids[record["image"]])

    def panoptic_entries(self, labels: LabelSet) -> Iterator[dict[str, Any]]:
        """Every line of these classes with a panoptic PNG, as an entry of COCO's panoptic results, one at a time."""
        ids = coco_image_ids(self._entries)
        for record in self._records(labels):
            for name in record.get("files", ()):
                if name.endswith(PANOPTIC_SUFFIX):
                    yield panoptic_entry_of_record(record, name, labels, image_id=ids[record["image"]])

    def _records(self, labels: LabelSet) -> Iterator[dict[str, Any]]:
        for entry in sorted(self._entries.values(), key=lambda entry: entry.offset):
            record = parse_json(self._content(entry), source=self.path)
            if record.get("labels") == list(labels.names):  # there may be lines of another model
                yield record

    def _content(self, entry: _Entry) -> bytes:
        with self.path.open("rb") as file:
            file.seek(entry.offset)
            return file.read(entry.length)


def _scan(path: Path) -> dict[str, _Entry]:
    """The last whole line of each image."""
    return {entry.identity["image"]: entry for entry in _entries(path)}


def _entries(path: Path) -> Iterator[_Entry]:
    offset = 0
    with path.open("rb") as file:
        for line in file:
            content = line.rstrip(b"\r\n")
            try:
                content.decode("utf-8")
                record = parse_json(content, source=path)
                if ImageLine.model_validate(record).fault() is None:
                    yield _entry(record, offset, len(content))
            except (DataError, ValidationError, UnicodeDecodeError):
                pass  # incomplete, or a foreign line
            offset += len(line)


def _entry(record: Mapping[str, Any], offset: int, length: int) -> _Entry:
    identity = {name: record.get(name) for name in IDENTITY_FIELDS}
    return _Entry(offset, length, identity, tuple(record.get("files", ())))


# ---- reading the lines of another run


class StoredLine(NamedTuple):
    """The position of the line of an image.

    Attributes:
        path: the file.
        offset: in bytes.
        length: in bytes.
        image: the path of the image in the line.
        classes: of its segments.
    """

    path: Path
    offset: int
    length: int
    image: str
    classes: frozenset[int]

    def segments(self) -> list[Segment]:
        """The segments of the line."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return ImageLine.model_validate(parse_json(file.read(self.length), source=self.path)).segments


@dataclass(frozen=True)
class StoredLines:
    """A `results.jsonl`.

    Attributes:
        names: of the classes; None of a file without lines.
        lines: by the name of the image's results, the last line of each.
    """

    names: list[str] | None
    lines: Mapping[str, StoredLine]


def read_image_lines(path: Path) -> StoredLines:
    """Find the lines of a `results.jsonl`; an incomplete one at the end is ignored.

    Raises DataError where lines are no results, or have different classes.
    """
    names: list[str] | None = None
    lines: dict[str, StoredLine] = {}
    for number, offset, length, line in _checked(path, ImageLine):
        names = line.labels if names is None else names
        if line.labels != names:
            raise DataError(f"{path}: line {number} has other labels than those before")
        ends = ((one, end) for one in line.files for end in RESULT_SUFFIXES if one.endswith(end))
        name = next((one.removesuffix(end) for one, end in ends), Path(line.image).stem)
        lines[name] = StoredLine(path, offset, length, line.image, frozenset(one.label for one in line.segments))
    return StoredLines(names, lines)


def read_frame_lines(path: Path) -> dict[int, FrameLine]:
    """The lines of a clip by frame index from 0 on. Raises DataError where lines are no results."""
    frames: dict[int, FrameLine] = {}
    for number, _, _, line in _checked(path, FrameLine):
        first = next(iter(frames.values()), line)
        if line.labels != first.labels:
            raise DataError(f"{path}: line {number} has other labels than those before")
        frames[line.frame] = line
    return frames


def _checked(path: Path, form: type[Any]) -> Iterator[tuple[int, int, int, Any]]:
    """Number, place, length and content of each line of a file."""
    offset = 0
    try:
        with path.open("rb") as file:
            for number, content in enumerate(file, start=1):
                is_whole = content.endswith(b"\n")
                try:
                    line = form.model_validate(parse_json(content, source=f"{path}: line {number}"))
                except DataError as error:
                    if is_whole:
                        raise DataError(f"{error}; expected a line of `pixelwise predict`") from None
                    continue  # incomplete after a kill
                except ValidationError as error:
                    raise DataError(
                        f"{path}: line {number}: {first_fault(error)}; expected a line of `pixelwise predict`"
                    ) from None
                fault = line.fault()
                if fault is not None:
                    raise DataError(f"{path}: line {number}: {fault}")
                yield number, offset, len(content), line
                offset += len(content)
    except OSError as error:
        raise DataError(f"{path}: {(error.strerror or str(error)).lower()}") from None
