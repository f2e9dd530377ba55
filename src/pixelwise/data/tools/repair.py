"""Repaired copies of faulty data sets: what `pixelwise data check --fix` writes, beside the set and never into it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, groupby
from pathlib import Path
from typing import Any, NamedTuple

from pixelwise.data.kinds.folders import UNIONS, content_keys, in_reading_order
from pixelwise.data.kinds.frames import unbroken
from pixelwise.data.listing import Fault, Item, Repair, Repaired, Repairer, Size, UnusableError, Written
from pixelwise.data.spec import DataSpec, Format, folder_of, format_of
from pixelwise.data.tools.check import check_dataset
from pixelwise.data.tools.check_split import NO_TRUTH
from pixelwise.errors import DataError, in_words
from pixelwise.files.atomic import replace_folder
from pixelwise.files.parallel import Progress, apply, silent

REPAIRS: Mapping[str, str] = {
    "missing_images": "{} [image|images] skipped, [its|their] file is missing",
    "missing_masks": "{} [image|images] skipped, [its|their] mask is missing",
    "unreadable_images": "{} [image|images] skipped, [it|they] cannot be read",
    "unreadable_masks": "{} [image|images] skipped, [its|their] mask cannot be read",
    "colour_masks": "{} [image|images] skipped, [its|their] mask holds colours; see pixelwise data convert and "
    "?palette=labels",
    "size_mismatches": "{} [image|images] skipped, [its|their] mask has another size",
    "only_void": "{} [image|images] skipped, every pixel is void",
    "unreadable_annotations": "{} [image|images] skipped, [its|their] file of objects cannot be read",
    "repeated_images": "{} [image|images] skipped, the same image is in the set already (of two splits the later "
    "keeps it)",
    "rival_files": "{} [file|files] skipped, another has the same name",
    "grey_masks": "{} colour [mask|masks] with equal channels stored as ids",
    "turned_masks": "{} [mask|masks] turned as EXIF turns [its|their] image",
    "upright_images": "{} [image|images] stored upright, without EXIF rotation, encoded anew",
    "missing_objects": "{} [image|images] skipped, [its|their] file of object ids is missing or cannot be read",
    "missing_clips": "{} [clip|clips] skipped, there is no folder of [its|their] masks",
    "unusable_splits": "{} [split|splits] skipped, [its|their] list or JSON cannot be read",
    "empty_splits": "{} [split|splits] skipped, no frame of [it|them] can be used",
    "cut_clips": "{} [time|times] a clip cut in two: frames are missing, or the size changes; the rest is a clip of "
    "its own",
    "renumbered_objects": "{} [object|objects] of clips numbered anew, an object of another class or clip has "
    "[its|their] number",
    "unknown_regions": "{} [region|regions] of unknown classes [becomes|become] void",
    "unlisted_regions": "{} [region|regions] [becomes|become] void, no frame of [its|their] clip lists a segment of "
    "[its|their] id",
    "given_segments": "{} [region|regions] given the segment that other frames of [its|their] clip list under "
    "[its|their] id",
    "numbers_of_stuff": "{} [region|regions] of classes without instances [loses|lose] [its|their] number",
    "things_without_number": "{} [region|regions] of things without number [becomes|become] an object each",
    "images_without_annotation": "{} [image|images] skipped, no annotation is of [it|them]",
    "entries": "{} [annotation|annotations] of images removed: no image or no PNG, no segments, or a second one",
    "videos": "{} [video|videos] removed, with [its|their] annotations: no usable id, file_names or size, or the id "
    "of another",
    "lengths": "{} [length|lengths] of videos corrected to [its|their] file_names",
    "tracks": "{} [annotation|annotations] of objects removed: no video, no category, or not one segmentation for "
    "each frame",
    "runs": "{} [RLE|RLEs] given the size of [its|their] frame, which [its|their] runs fill",
    "joined_masks": "{} [mask|masks] joined with another of the same object in the frame",
    "object_classes": "{} [object|objects] made one of the class that most of [its|their] pixels have, or that "
    "[its|their] id tells",
    "objects_without_class": "{} [object|objects] removed, none of [its|their] pixels has a class of objects",
    "pixels_without_object": "{} [pixel|pixels] of classes [becomes|become] void, [it belongs|they belong] to no "
    "object",
    "table_numbers": "{} [number|numbers] of objects removed from the table of classes, no pixel has [it|them]",
    "unknown_pixels": "{} [pixel|pixels] of unknown ids or colours [becomes|become] void",
    "images": "{} [image|images] removed, with [its|their] annotations: unreadable, missing or without id and "
    "file_name",
    "merged_images": "{} [entry|entries] of images removed, another has the same file or id",
    "file_names": "{} file [name|names] corrected to where the files lie",
    "numbers": "{} [number|numbers] written as text [becomes a number|become numbers]",
    "ids_as_numbers": "{} [id|ids] in text [becomes a number|become numbers], as in other places",
    "ids_as_text": "{} [id|ids] in numbers [becomes|become] text, as in other places",
    "joined_categories": "{} [category|categories] joined with another of the same name",
    "wrapped_polygons": "{} [segmentation|segmentations] of one flat list [becomes|become] a list of polygons",
    "frames_by_size": "{} [image|images] turned by EXIF: [its|their] coordinates fit the stored frame and the "
    "upright one, and the "
    "stated size alone says that the stored one is meant; see them by pixelwise data show",
    "embedded_images": "{} [image|images] written out of the JSON files that hold [it|them]",
    "sizes": "{} [height or width|heights and widths] corrected to those of the upright image",
    "turned_annotations": "{} [annotation|annotations] turned as EXIF turns [its|their] image",
    "annotations": "{} [annotation|annotations] removed: no image, no category, or no segmentation that covers a pixel",
    "regions_of_boxes": "{} [box|boxes] without segmentation made [a crowd region|crowd regions], ignored in "
    "training and evaluation",
    "repeated_annotations": "{} [annotation|annotations] removed, another has [its|their] class and [its|their] pixels",
    "two_classes": "{} [annotation|annotations] [stays|stay] though one of another class has the same pixels; decide "
    "which is right",
    "shapes": "{} [shape or line|shapes or lines] removed: malformed, of no known class, or without a pixel of the "
    "image",
    "label_names": "{} label [file|files] given the name of [its|their] image",
    "lonely_labels": "{} label [file|files] skipped, no image has [its|their] name",
    "boxes_alone": "{} [line|lines] with a box alone [stays|stay], [it is|they are] ignored in training and "
    "evaluation; draw what is in them",
    "cut_polygons": "{} [polygon|polygons] cut at the border of the image",
    "polygons": "{} [polygon|polygons] removed, malformed or with fewer than three points",
    "unlisted_ids": "{} [image|images] skipped, [its|their] PNG has ids of which the JSON knows no segment",
    "segments": "{} [segment|segments] removed: no category, the id 0, or that of another of the image",
    "segments_without_pixels": "{} [segment|segments] removed, no pixel of the PNG has [its|their] id",
    "areas": "{} [area|areas] corrected to the pixels",
    "boxes": "{} [box|boxes] cut at the border of the image, or drawn around the segmentation",
    "ids": "{} [annotation|annotations] numbered anew, [its|their] id was taken or no whole number",
}
"""The repairs: key → its line; see `errors.in_words`."""


@dataclass(frozen=True)
class Repairs:
    """What was done.

    Attributes:
        path: the file or the folder that was written.
        done: key of REPAIRS → how often.
        images: how many are left.
        opens_as: the specifications under which the copy opens.
        remaining: the faults that the copy still has.
    """

    path: Path
    done: Mapping[str, int]
    images: int
    opens_as: tuple[str, ...] = ()
    remaining: tuple[Fault, ...] = ()

    def lines(self) -> Iterator[str]:
        """What was done, one line each."""
        for key, text in REPAIRS.items():
            if self.done.get(key):
                yield in_words(text, self.done[key])


class _Outcome(NamedTuple):
    """One image: what was written, or the key of REPAIRS that tells why nothing was, or why the disk refused."""

    repaired: Repaired | None = None
    key: str = ""
    unwritable: str | None = None


def require_repairable(spec: DataSpec, out: Path) -> None:
    """Raise DataError unless a repaired copy of the set may be written to that place."""
    format = format_of(spec)
    if format.synthetic:
        raise DataError(f"{spec}: sets of the format {spec.format} cannot be repaired")
    if Path.cwd().is_relative_to(out.resolve()):
        raise DataError(f"--fix {out}: the folder you are in, or one around it; choose another name")
    if out.is_dir() and any(out.iterdir()):
        raise DataError(f"--fix {out}: the folder is not empty, and nothing is repaired in place; choose another name")
    if out.is_file():
        raise DataError(f"--fix {out}: the file is there already, nothing is repaired in place; choose another name")
    if not out.absolute().parent.is_dir():
        raise DataError(f"--fix {out}: no folder {out.parent} to write it to")
    splits = (spec.split,) if spec.split else format.splits(folder_of(spec), dict(spec.options))
    if format.copies_are_lists and out.suffix == ".json" and len(splits) > 1:
        raise DataError(
            f"--fix {out}: one file for the splits {', '.join(splits)}; write one of them after the folder, such as "
            f"@{splits[0]}, or give --fix a folder"
        )


def repair_dataset(spec: DataSpec, out: Path, *, workers: int = 0, progress: Progress = silent) -> Repairs:
    """Write a repaired copy of one split of a set or, where the specification names none, of all; and check it.

    A set with a file of ground truth for each image, or of clips, becomes a folder of the same format; of formats in
    which one file lists all images only that list is written, a file, or a folder of files where `out` does not end
    with `.json`.

    Raises:
        DataError: see `require_repairable`; nothing usable is left; no image of the copy has ground truth; or the disk
            is full.
    """
    require_repairable(spec, out)
    format, path, options = format_of(spec), folder_of(spec), dict(spec.options)
    splits = (spec.split,) if spec.split else format.splits(path, options)
    # of an image in two splits the later split keeps it: what is measured on is worth more than what is trained on
    ordered = sorted(splits, key=lambda split: (split in UNIONS, -in_reading_order(splits).index(split)))
    try:
        done: Counter[str] = Counter()
        repairs = _listed(format, path, ordered, options, done)
        images, opens_as = _write_copy(out, spec, repairs, done, workers=workers, progress=progress)
    except OSError as error:
        raise DataError(f"--fix {out}: cannot be written ({error.strerror or error})") from None
    remaining = _remaining(opens_as, out, workers=workers, progress=progress)
    return Repairs(out, {key: done[key] for key in REPAIRS if done[key]}, images, opens_as, remaining)


def _remaining(opens_as: Sequence[str], out: Path, *, workers: int, progress: Progress) -> tuple[Fault, ...]:
    """The faults that the copy still has. Raises DataError, and removes it, where it has no ground truth."""
    reports = [check_dataset(DataSpec.parse(text), workers=workers, progress=progress) for text in opens_as]
    splits = [split for report in reports for split in report.splits]
    empty = [fault for split in splits for fault in split.faults if fault.kind == NO_TRUTH]
    if len(empty) == len(splits):
        if out.is_dir():
            shutil.rmtree(out)
        else:
            out.unlink()
        raise DataError(f"--fix {out}: no ground truth is left after the repair ({empty[0].text}); no copy was written")
    return tuple(fault for report in reports for fault in report.faults())


def _listed(
    format: Format, path: Path, splits: Sequence[str], options: Mapping[str, str], done: Counter[str]
) -> dict[str, Repair]:
    """How each split that can be read is repaired. Raises DataError where none can."""
    found: dict[str, Repair] = {}
    errors: list[DataError] = []
    for split in splits:
        try:
            repair = format.list_split(path, split, options).repair
            assert repair is not None
            found[split] = repair()
            done.update(found[split].done)
        except DataError as error:
            errors.append(error)
    if not found:
        raise errors[0]
    done["unusable_splits"] += len(errors)
    return found


def _write_copy(
    out: Path, spec: DataSpec, repairs: Mapping[str, Repair], done: Counter[str], *, workers: int, progress: Progress
) -> tuple[int, tuple[str, ...]]:
    """Write all images once; how many are left, and the specifications under which the copy opens."""
    images: dict[str, int] = {}
    first = next(iter(repairs.values()))

    def fill(folder: Path) -> None:
        seen: set[Any] = set()
        keys = content_keys(item.image for repair in repairs.values() for item in repair.items if item.image)
        for split, repair in repairs.items():
            used = seen if split not in UNIONS else set[Any]()
            written = _write_split(folder, split, repair, keys, used, done, out=out, workers=workers, progress=progress)
            images[split] = len(written)
            if written:
                done.update(repair.repairer.finish(folder, split=split, written=written) or {})
            else:
                done["empty_splits"] += 1
        first.repairer.finish_set(folder)
        if not any(images.values()):
            raise DataError(f"{spec}: nothing usable is left, no copy was written")

    if first.lists is None:
        replace_folder(out, fill)
        return sum(images.values()), (str(DataSpec(spec.format, str(out), spec.split, tuple(first.options.items()))),)
    files = {split: f"{repair.list_name}{split}.json" for split, repair in repairs.items()}
    if out.suffix == ".json":
        (file,) = files.values()
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.absolute().parent) as folder:
            fill(Path(folder))
            os.replace(Path(folder) / file, out)
        return sum(images.values()), (first.lists(out),)
    replace_folder(out, fill)
    opened = [repair.lists(out / files[split]) for split, repair in repairs.items() if repair.lists and images[split]]
    return sum(images.values()), tuple(opened)


def _write_split(
    folder: Path,
    split: str,
    repair: Repair,
    keys: Mapping[Path, Any],
    seen: set[Any],
    done: Counter[str],
    *,
    out: Path,
    workers: int,
    progress: Progress,
) -> list[Written]:
    """Write the images of a split.

    `keys` tells the contents of all images; `seen` has those that other splits keep, and is told of these.
    """
    named = [(item, item.id) for item in _once(repair.items, keys, seen, done)]
    if repair.measure is not None:
        named = _named(
            _usable(repair, [item for item, _ in named], done, split, workers=workers, progress=progress), done
        )
    job = partial(_repaired, repairer=repair.repairer, root=folder, split=split)
    outcomes = list(progress(apply(job, named, workers=workers), total=len(named), what=f"repair {split}"))
    written: list[Written] = []
    for (item, _), outcome in zip(named, outcomes, strict=True):
        if outcome.unwritable is not None:
            raise DataError(f"--fix {out}: cannot be written ({outcome.unwritable})")
        if outcome.repaired is None:
            done[outcome.key] += 1
            continue
        done.update(outcome.repaired.done)
        written.append(outcome.repaired.written)
        if item.image:
            seen.add(keys.get(item.image))
    return written


def _repaired(named: tuple[Item, str], *, repairer: Repairer, root: Path, split: str) -> _Outcome:
    try:
        return _Outcome(repairer.repair(named[0], root=root, split=split, id=named[1]))
    except UnusableError as error:
        return _Outcome(key=error.key)
    except OSError as error:  # as text, since not every exception survives the way to another process
        return _Outcome(unwritable=error.strerror or str(error))


def _once(items: Iterable[Item], keys: Mapping[Path, Any], seen: set[Any], done: Counter[str]) -> Iterator[Item]:
    """The items without those whose id or image came before; frames of one clip may be equal: its camera may stand."""
    ids: set[str] = set()
    here: dict[Any, str | None] = {}
    for item in items:
        done["rival_files"] += len(item.rivals)
        key = keys.get(item.image) if item.image else None
        is_other = key in here and (item.clip is None or here[key] != item.clip)
        if item.id in ids or (key is not None and (key in seen or is_other)):
            done["repeated_images"] += 1
            continue
        ids.add(item.id)
        here[key] = item.clip
        yield item


def _usable(
    repair: Repair, items: Sequence[Item], done: Counter[str], split: str, *, workers: int, progress: Progress
) -> list[tuple[Item, Size]]:
    """The frames that can be written, with their sizes."""
    look = partial(_size, repair=repair._replace(items=()))
    sizes = list(progress(apply(look, items, workers=workers), total=len(items), what=f"read {split}"))
    kept: list[tuple[Item, Size]] = []
    for item, size in zip(items, sizes, strict=True):
        if isinstance(size, str):
            done[size] += 1
        else:
            kept.append((item, size))
    return kept


def _size(item: Item, *, repair: Repair) -> Size | str:
    assert repair.measure is not None
    try:
        return repair.measure(item)
    except UnusableError as error:
        return error.key


def _named(frames: Sequence[tuple[Item, Size]], done: Counter[str]) -> list[tuple[Item, str]]:
    """Each frame with its id in the copy, where parts of a clip that is cut have names of their own."""
    clips = {item.clip for item, _ in frames}
    named: list[tuple[Item, str]] = []
    for clip, group in groupby(frames, key=lambda pair: pair[0].clip):
        first, *others = unbroken([*group])
        named += ((item, item.id) for item in first)
        done["cut_clips"] += len(others)
        free = (name for number in count(2) if (name := f"{clip}-{number}") not in clips)
        for part in others:
            name = next(free)
            named += ((item, f"{name}/{item.name}") for item in part)
    return named
