"""DAVIS 2016 and 2017: JPEGImages/480p/CLIP/*.jpg, Annotations/480p/CLIP/*.png and the lists in ImageSets/.

    PATH/
    ├── ImageSets/2017/train.txt              one clip a line
    ├── JPEGImages/480p/bear/00000.jpg
    └── Annotations/480p/bear/00000.png       numbers of objects, with a palette

A mask holds the numbers of the objects, which last for the clip. Where it is greyscale and holds 0 and 255 alone, as in
2016, 255 is the one object, number 1; else 255 is void. All objects are of one class, `object`, on `background`.

The lists of 2017 (`ImageSets/2017/SPLIT.txt`, or 2016/) name clips, those of 2016 (`ImageSets/480p/SPLIT.txt`) files.
Those of 2017 are taken if they are there, unless `?year=2016` asks for the others. Without lists every folder belongs
to the one split `all`, which may also be called `train` or `val`. `?resolution=1080p` reads another folder than 480p.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from pixelwise.data.kinds.folders import in_reading_order, require_split
from pixelwise.data.kinds.frames import clip_listing, clip_repair, folders_in, pair_clip
from pixelwise.data.kinds.track_clips_writer import (
    by_clip,
    clip_and_frame,
    free_clip,
    stuff_pixels,
    tracked_objects,
)
from pixelwise.data.kinds.track_frames import ObjectMap, inspect_numbers, repaired_numbers, truth_of_numbers
from pixelwise.data.kinds.writing import Original, Writer, Written, write_ids
from pixelwise.data.listing import Fault, Item, Listing
from pixelwise.data.spec import Format
from pixelwise.data.truth.object_ids import object_colours, painted_ids
from pixelwise.data.truth.track_ids import former_numbers, kept_numbers, tracks_of
from pixelwise.errors import DataError
from pixelwise.files.images import read_ids
from pixelwise.files.lookup import posix_name
from pixelwise.files.text import read_lines
from pixelwise.labels import LabelSet, voc_colour

OPTIONS: Mapping[str, str] = {
    "resolution": "the folder in JPEGImages/ and Annotations/, instead of 480p",
    "year": "2016 or 2017, of lists that are in the folder",
}

ONE_SPLIT = ("all", "train", "val")
"""What the split of a folder without lists may be called."""

_VOID = 255
"""Value of ignored pixels in a mask; ids of objects are below it."""


def splits(path: Path, options: Mapping[str, str]) -> tuple[str, ...]:
    """The names of the lists; `all` where there are none."""
    _require_folders(path, options)
    lists = _lists(path, options)
    return in_reading_order(lists) if lists else ("all",)


def list_split(path: Path, split: str, options: Mapping[str, str]) -> Listing:
    """The frames of one split, also those without mask or image."""
    _require_folders(path, options)
    items, labels = list_frames(path, split, options), object_labels()
    source = path / "Annotations" / _resolution(options)
    there = set(folders_in(source))
    empty = [clip for clip in _clips(path, split, options) if clip not in there]
    text = f"listed in {split}, no folder of masks"
    return clip_listing(
        items,
        labels,
        read=partial(truth_of_numbers, read=read_numbers),
        inspect=partial(inspect_numbers, read=read_numbers),
        source=source,
        faults=[Fault("missing clip", f"clip '{clip}'", text, fatal=False) for clip in empty],
        notes=() if _lists(path, options) else ("the set has no lists: every clip is in every split",),
        halves=True,
        repair=partial(
            clip_repair,
            [item for item in items if item.clip in there],
            labels,
            partial(repaired_numbers, read=read_numbers),
            writer,
            options={key: options[key] for key in ("resolution",) if key in options},
            done={"missing_clips": len(empty)},
        ),
    )


def list_frames(path: Path, split: str, options: Mapping[str, str]) -> tuple[Item, ...]:
    """The images and masks of the clips of a split, also those without partner."""
    images, masks = (path / folder / _resolution(options) for folder in ("JPEGImages", "Annotations"))
    clips = _clips(path, split, options)
    return tuple(frame for clip in clips for frame in pair_clip(clip, images / clip, masks / clip))


def writer(options: Mapping[str, str], source: LabelSet) -> DavisWriter:
    """Writes a set of this format, with lists as in 2017; all classes become one."""
    return DavisWriter(labels=source, resolution=_resolution(options))


@cache
def object_labels() -> LabelSet:
    """`background` and `object`, which is a thing."""
    return LabelSet(
        name="davis",
        names=("background", "object"),
        is_thing=(False, True),
        palette=(voc_colour(0), voc_colour(1)),
        dataset_ids=(0, 1),
        void_ids=(_VOID,),
    )


def read_numbers(frame: Item) -> ObjectMap:
    """The numbers of the objects in a mask. Raises DataError for an unreadable file."""
    assert frame.truth is not None
    numbers = read_ids(frame.truth)
    with Image.open(frame.truth) as header:
        has_palette = header.mode == "P"
    if not has_palette and set(np.unique(numbers).tolist()) <= {0, _VOID}:
        return ObjectMap((numbers == _VOID).astype(np.uint8))
    return ObjectMap(numbers, (_VOID,))


def _clips(path: Path, split: str, options: Mapping[str, str]) -> tuple[str, ...]:
    lists = _lists(path, options)
    if not lists:
        require_split(split, ONE_SPLIT, source=path)
        return folders_in(path / "Annotations" / _resolution(options))
    require_split(split, in_reading_order(lists), source=path)
    lines = read_lines(lists[split], expected="one clip a line")
    named = [line.split()[0] for line in lines if line.strip()]
    named = [posix_name(name) for name in named]
    return tuple(dict.fromkeys(Path(name).parent.name if "/" in name else name for name in named))


def _lists(path: Path, options: Mapping[str, str]) -> Mapping[str, Path]:
    """The list of each split, of the given year or of the latest. Raises DataError where it has none."""
    year, earlier = options.get("year"), ("2016", _resolution(options))
    if year not in (None, "2016", "2017"):
        raise DataError(f"davis: year={year}; expected 2016 or 2017")
    names = {None: ("2017", *earlier), "2016": earlier, "2017": ("2017",)}[year]
    for name in names:
        files = sorted((path / "ImageSets" / name).glob("*.txt"))
        if files:
            return {file.stem: file for file in files}
    if year is not None:
        raise DataError(f"{path}: no ImageSets/{year}/ with lists in it")
    return {}


def _resolution(options: Mapping[str, str]) -> str:
    return options.get("resolution", "480p")


def _require_folders(path: Path, options: Mapping[str, str]) -> None:
    folders = [f"{name}/{_resolution(options)}/" for name in ("JPEGImages", "Annotations")]
    missing = [folder for folder in folders if not (path / folder).is_dir()]
    if missing:
        raise DataError(f"{path}: not a DAVIS folder: {', '.join(missing)} is missing")


@dataclass(frozen=True)
class DavisWriter(Writer):
    """The format davis, with lists as in 2017. See Writer for the attributes; `labels` are those of the source.

    Attributes:
        resolution: the folder in JPEGImages/ and Annotations/.
    """

    resolution: str = "480p"
    suffixes: tuple[str, ...] = (".jpg",)
    format: str = "davis"
    shares_images: bool = True

    def write(self, root: Path, original: Original) -> Written:
        """Write one frame and its mask of places, which `finish` makes one of numbers. See Writer.

        Pixels of crowds, and those that are ignored, are void.
        """
        clip, frame = clip_and_frame(original.id, source=original.image)
        clip, renamed = free_clip(root / "ImageSets" / "2017", clip, original.split)
        place = f"JPEGImages/{self.resolution}/{clip}/{frame}"
        file, losses = original.write_image(root, place, suffixes=self.suffixes)
        instances, masks, tracks = tracked_objects(original.truth, source=original.image)
        places = [*range(1, len(instances) + 1)]
        ids, lost = painted_ids(instances, places, np.zeros(masks.size, dtype=np.int32), crowds=False)
        void = masks[instances.crowds].union().numpy()
        if original.truth.semantic is not None:
            void |= original.truth.semantic.numpy() == self.labels.ignore_id
        ids[void & (ids == 0)] = len(instances) + 1
        path = root / "Annotations" / self.resolution / clip / f"{frame}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_ids(path, ids, None)
        found = [place for place, crowd in zip(places, instances.crowds.tolist(), strict=True) if not crowd]
        classes = sum(is_thing for is_thing in self.labels.is_thing)
        lost = Counter(lost) + Counter(classless_objects=len(found) if classes > 1 else 0)
        lost += Counter(stuff_pixels=stuff_pixels(original.truth, self.labels), renamed_images=renamed)
        entry = {"clip": clip, "map": path.name, "tracks": [(place, tracks[place - 1]) for place in found]}
        entry["void"] = len(instances) + 1
        return Written(original.name, file, Counter(losses) + lost, entry)

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> Mapping[str, int]:
        """Number the objects of each clip, write its masks anew, and the list.

        Raises DataError for more than 254 objects in a clip.
        """
        names: list[str] = []
        renumbered = 0
        for clip, entries in by_clip(written):
            names.append(clip)
            tracks = tracks_of([(id, 0) for _, id in entry["tracks"]] for entry in entries)
            former = former_numbers(tracks, divisor=self.numbered_by)
            numbers, others = kept_numbers(former, largest=_VOID - 1, clip=clip, format=self.format)
            renumbered += others
            for entry in entries:
                path = root / "Annotations" / self.resolution / clip / entry["map"]
                table = np.zeros(entry["void"] + 1, dtype=np.uint8)
                table[-1] = _VOID
                for place, id in entry["tracks"]:
                    table[place] = numbers[id, 0]
                write_ids(path, table[read_ids(path)], object_colours())
        path = root / "ImageSets" / "2017" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        return {"renumbered_objects": renumbered}

    def finish_set(self, root: Path) -> None:
        """Take away the list of a set without splits, whose clips all folders tell."""
        lists = sorted((root / "ImageSets" / "2017").glob("*.txt"))
        if [file.stem for file in lists] == ["all"]:
            lists[0].unlink()


FORMAT = Format(OPTIONS, splits, list_split, writer, takes=("resolution",))
