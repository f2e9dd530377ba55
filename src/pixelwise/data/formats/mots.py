"""MOTS: a text file for each clip, of lines `frame id class height width RLE`. MOTSChallenge and KITTI MOTS.

    PATH/                                    MOTSChallenge
    └── train/MOTS20-02/
        ├── img1/000001.jpg
        └── gt/gt.txt

    PATH/                                    KITTI MOTS
    ├── instances_txt/0000.txt
    └── training/image_02/0000/000000.png

- `SPLIT/CLIP/gt/gt.txt` with images in `SPLIT/CLIP/img1/`, as MOTSChallenge has;
- `SPLIT/instances_txt/CLIP.txt` with images in `SPLIT/images/CLIP/` (or image_02/);
- `instances_txt/CLIP.txt` with images in `training/image_02/CLIP/` (or image_02/, images/), as KITTI MOTS has; `val` is
  made of the clips 2, 6, 7, 8, 10, 13, 14, 16 and 18, as in its publication, unless `train.seqmap` and `val.seqmap`
  say otherwise.

The frame is the number in the name of the image; every image of a clip counts as labelled. Ids hold in the whole clip,
and are class · 1000 + number as published; 1 is a car, 2 a pedestrian. The id 10000 (class 10) is a region that nobody
evaluates: it is void, and a crowd of both.

Voigtlaender et al., "MOTS: Multi-Object Tracking and Segmentation", CVPR 2019.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from pixelwise.data.dataset import is_there
from pixelwise.data.kinds.folders import by_stem, in_reading_order, labels_for, require_split
from pixelwise.data.kinds.frames import (
    LARGEST_TRACK_ID,
    FramePart,
    clip_listing,
    clip_repair,
    folders_in,
    frame_item,
    in_time,
    number_of,
)
from pixelwise.data.kinds.track_clips_writer import ObjectClipsWriter, by_clip, whole_tracks
from pixelwise.data.kinds.track_frames import inspect_parts, repaired_parts, truth_of_parts
from pixelwise.data.kinds.writing import Original, Written
from pixelwise.data.listing import Fault, Item, Listing, Repair
from pixelwise.data.spec import Format
from pixelwise.data.truth.track_ids import former_numbers, kept_numbers, tracks_of
from pixelwise.errors import DataError
from pixelwise.files.text import read_lines
from pixelwise.labels import LabelSet, voc_colour

OPTIONS: Mapping[str, str] = {"labels": "a .toml file in the folder with other classes"}

IGNORED_CLASS, IGNORED_ID = 10, 10_000

_VAL = frozenset(("0002", "0006", "0007", "0008", "0010", "0013", "0014", "0016", "0018"))


class _Clip(NamedTuple):
    """A clip: its name, the folder of its images, and its text."""

    name: str
    images: Path
    text: Path


class _Lines(NamedTuple):
    """What a text says.

    Attributes:
        shapes: the objects by the number of the frame.
        sizes: of each frame, by its first line.
        faults: of lines that are unusable.
        misfits: the objects of lines that state another size than the first of the frame.
        is_text: False of a file that cannot be read.
    """

    shapes: Mapping[int, Sequence[FramePart]]
    sizes: Mapping[int, tuple[int, int]]
    faults: tuple[Fault, ...]
    misfits: Mapping[int, Sequence[FramePart]] = {}
    is_text: bool = True


def splits(path: Path, options: Mapping[str, str]) -> tuple[str, ...]:  # noqa: ARG001
    """The folders with clips, or `train` and `val` where all texts are in one folder."""
    found = _found(path)
    if not found:
        raise DataError(
            f"{path}: not a MOTS folder: no SPLIT/CLIP/gt/gt.txt, no SPLIT/instances_txt/ and no instances_txt/ in it"
        )
    return in_reading_order(found)


def list_split(path: Path, split: str, options: Mapping[str, str]) -> Listing:
    """The frames of one split, also those without image."""
    require_split(split, splits(path, options), source=path)
    labels = labels_of(path, options)
    frames: list[Item] = []
    faults: list[Fault] = []
    for clip in _found(path)[split]:
        lines = _read_lines(clip.text, labels)
        faults += lines.faults
        frames += _frames_of(clip, lines)
    return clip_listing(
        frames,
        labels,
        read=truth_of_parts,
        inspect=inspect_parts,
        source=path / split,
        faults=faults,
        numbered_by=_divisor(frames),
        repair=partial(_repair, path, split, labels),
    )


def _repair(path: Path, split: str, labels: LabelSet) -> Repair:
    """What of the lines of a split can be used."""
    frames: list[Item] = []
    done: Counter[str] = Counter()
    for clip in _found(path)[split]:
        lines = _read_lines(clip.text, labels)
        done["shapes"] += sum(fault.kind == "unusable line" for fault in lines.faults)
        for frame in _frames_of(clip, lines):
            done["unreadable_annotations"] += not lines.is_text
            misfits = lines.misfits.get(number_of(frame.name) or 0, ())
            frames += [frame._replace(extra=(*frame.extra, *misfits))] if lines.is_text else []
    return clip_repair(frames, labels, repaired_parts, writer, done=done)


def labels_of(path: Path, options: Mapping[str, str]) -> LabelSet:
    """`background`, `car` and `pedestrian`, unless a file names others."""
    return labels_for(path, options) if "labels" in options or (path / "labels.toml").is_file() else mots_labels()


@cache
def mots_labels() -> LabelSet:
    """`background`, `car` and `pedestrian`."""
    return LabelSet(
        name="mots",
        names=("background", "car", "pedestrian"),
        is_thing=(False, True, True),
        palette=tuple(voc_colour(index) for index in range(3)),
        dataset_ids=(0, 1, 2),
        void_ids=(IGNORED_CLASS,),
    )


def writer(options: Mapping[str, str], source: LabelSet) -> MotsWriter:  # noqa: ARG001
    """Writes a set of this format: SPLIT/images/CLIP/ and SPLIT/instances_txt/CLIP.txt.

    A set whose classes are not car and pedestrian gets a labels.toml.
    """
    own = mots_labels()
    if source.names == own.names:
        return MotsWriter(labels=own, default=own)
    # class 10 is taken, and 0 is no object's
    things = [index for index in range(len(source)) if index != source.background_id]
    free = [id for id in range(1, len(source) + 2) if id != IGNORED_CLASS]
    dataset_id = dict(zip(things, free, strict=False))
    ids = tuple(dataset_id.get(index, 0) for index in range(len(source)))
    return MotsWriter(labels=replace(source, dataset_ids=ids, void_ids=(IGNORED_CLASS,)), default=own)


def _found(path: Path) -> dict[str, tuple[_Clip, ...]]:
    """The clips of each split."""
    found: dict[str, tuple[_Clip, ...]] = {}
    for split in folders_in(path):
        root = path / split
        clips = tuple(
            _Clip(name, root / name / "img1", text)
            for name in folders_in(root)
            if is_there(text := root / name / "gt" / "gt.txt")
        )
        if not clips and (root / "instances_txt").is_dir():
            clips = _texts(root / "instances_txt", [root / "images", root / "image_02"])
        if clips:
            found[split] = clips
    if found or not (path / "instances_txt").is_dir():
        return found
    clips = _texts(path / "instances_txt", [path / "training" / "image_02", path / "image_02", path / "images"])
    val = _seqmap(path / "val.seqmap") or _VAL
    train = _seqmap(path / "train.seqmap") or {clip.name for clip in clips} - val
    parts = {"train": train, "val": val}
    return {
        split: of_split for split, names in parts.items() if (of_split := tuple(c for c in clips if c.name in names))
    }


def _divisor(frames: Sequence[Item]) -> int | None:
    """1000 where every id is class · 1000 + number, as published; see `data.truth.track_ids`."""
    whole = (one for frame in frames for one in frame.extra if not one.crowd)
    return MOTS_DIVISOR if all(one.id // MOTS_DIVISOR == one.dataset_id for one in whole) else None


def _texts(folder: Path, images: Sequence[Path]) -> tuple[_Clip, ...]:
    place = next((place for place in images if place.is_dir()), images[0])
    return tuple(_Clip(text.stem, place / text.stem, text) for text in sorted(folder.glob("*.txt")))


def _seqmap(file: Path) -> frozenset[str]:
    if not file.is_file():
        return frozenset()
    return frozenset(line.split()[0] for line in read_lines(file) if line.strip())


def _frames_of(clip: _Clip, lines: _Lines) -> Iterator[Item]:
    """The images of a clip with their objects, and the objects without image, in the order of time."""
    images = by_stem(clip.images) if clip.images.is_dir() else {}
    numbers = {number: name for name in images if (number := number_of(name)) is not None}
    named = {**numbers, **{number: f"{number:06d}" for number in lines.shapes if number not in numbers}}
    for number, name in sorted(named.items(), key=lambda pair: (pair[0], in_time(pair[1]))):
        image = images[name][0] if name in images else None
        shapes = tuple(lines.shapes.get(number, ()))
        yield frame_item(clip.name, name, image, clip.text, size_hw=lines.sizes.get(number), extra=shapes)


def _read_lines(text: Path, labels: LabelSet) -> _Lines:
    try:
        content = read_lines(text)
    except DataError as error:
        fault = Fault("unreadable text", str(text), str(error).removeprefix(f"{text}: "))
        return _Lines({}, {}, (fault,), is_text=False)
    shapes: defaultdict[int, list[FramePart]] = defaultdict(list)
    misfits: defaultdict[int, list[FramePart]] = defaultdict(list)
    sizes: dict[int, tuple[int, int]] = {}
    faults: list[Fault] = []
    things = [dataset_id for dataset_id, is_thing in zip(labels.dataset_ids, labels.is_thing, strict=True) if is_thing]
    for place, line in enumerate(content, start=1):
        fields = line.split()
        if not fields:
            continue
        numbers = [int(field) for field in fields[:5] if field.isascii() and field.isdecimal()]
        if len(fields) != 6 or len(numbers) != 5:
            expected = "expected frame, id, class, height, width and RLE"
            faults.append(Fault("unusable line", f"{text}: line {place}", f"{expected}, separated by blanks"))
            continue
        frame, id, dataset_id, height, width = numbers
        if max(numbers) > LARGEST_TRACK_ID:
            text_of_id = f"{max(numbers):,} is no number of a frame, an object, a class or a side"
            faults.append(Fault("unusable line", f"{text}: line {place}", text_of_id))
            continue
        runs = {"size": [height, width], "counts": fields[5]}
        if id == IGNORED_ID or dataset_id == IGNORED_CLASS:
            found = [FramePart(IGNORED_ID + thing, thing, crowd=True, segmentation=runs) for thing in things]
        else:
            found = [FramePart(id, dataset_id, segmentation=runs)]
        if sizes.setdefault(frame, (height, width)) != (height, width):
            before = "×".join(str(side) for side in sizes[frame])
            other = f"{height}×{width}, a line before says {before} (height×width)"
            faults.append(Fault("size mismatch", f"{text}: line {place} (frame {frame}, object {id})", other))
            misfits[frame] += found
            continue
        shapes[frame] += found
    return _Lines(shapes, sizes, tuple(faults), misfits)


MOTS_DIVISOR = 1000
"""Numbers of objects in MOTS are below it; an id is class · 1000 + number."""


@dataclass(frozen=True)
class MotsWriter(ObjectClipsWriter):
    """The format mots. See Writer for the attributes."""

    format: str = "mots"
    label_file: str | None = "labels.toml"

    def place(self, original: Original, clip: str, frame: str) -> str:
        """See ObjectClipsWriter."""
        if number_of(frame) is None:
            raise DataError(f"{original.image}: frame '{original.id}' has no number in its name; mots needs one")
        return f"{original.split}/images/{clip}/{frame}"

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> Mapping[str, int]:
        """Write the text of each clip; an id is class · 1000 + number.

        Raises DataError for two frames of one number, or more than 999 objects of a class in a clip.
        """
        renumbered = 0
        for clip, entries in by_clip(written):
            tracks = tracks_of(whole_tracks(entry) for entry in entries)
            former = former_numbers(tracks, divisor=self.numbered_by, own=self._own)
            groups = {track: track[1] for track in tracks}
            ids, others = kept_numbers(
                former, smallest=0, largest=MOTS_DIVISOR - 1, groups=groups, clip=clip, format=self.format
            )
            renumbered += others
            lines: list[str] = []
            numbers = Counter(entry["number"] for entry in entries)
            if max(numbers.values()) > 1:
                raise DataError(
                    f"clip '{clip}': two frames have the number {numbers.most_common(1)[0][0]}, by which mots tells "
                    "them apart; rename one of them"
                )
            for entry in sorted(entries, key=lambda entry: entry["number"]):
                sides = " ".join(str(side) for side in entry["size"])
                crowds: set[str] = set()
                for one in entry["objects"]:
                    dataset_id, runs = self.labels.dataset_ids[one["class_id"]], one["segmentations"]["counts"]
                    if one["crowd"]:
                        crowds.add(runs)
                        continue
                    id = dataset_id * MOTS_DIVISOR + ids[one["track"], one["class_id"]]
                    lines.append(f"{entry['number']} {id} {dataset_id} {sides} {runs}\n")
                lines += (f"{entry['number']} {IGNORED_ID} {IGNORED_CLASS} {sides} {runs}\n" for runs in sorted(crowds))
            path = root / split / "instances_txt" / f"{clip}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(lines), encoding="utf-8")
        return {"renumbered_objects": renumbered}

    def _own(self, id: int, class_id: int) -> int | None:
        """The number in an id that this format makes, None in another."""
        dataset_id, number = divmod(id, MOTS_DIVISOR)
        return number if dataset_id == self.labels.dataset_ids[class_id] else None


FORMAT = Format(OPTIONS, splits, list_split, writer)
