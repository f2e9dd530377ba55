"""A repaired copy of a set of clips: each frame read as far as it can be used, and written by the format's own target.

What a target writes is sound: areas are those of the pixels, and an id keeps its class in the whole clip. Frames that
cannot be used are left out; where that leaves a gap, or the size of the images changes, the clip is cut in two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import count, groupby
from pathlib import Path
from typing import Any, NamedTuple, cast

from pixelwise.data.kinds.clips import Frame, FramesToRepair, MisfitError, ReadRepaired, unbroken
from pixelwise.data.kinds.folders import UNIONS, content_keys, is_there
from pixelwise.data.kinds.repair_images import Repaired
from pixelwise.data.kinds.writing import Original, Writer
from pixelwise.errors import DataError
from pixelwise.files.atomic import replace_folder
from pixelwise.files.images import exif_orientation, read_image
from pixelwise.files.parallel import Progress, apply
from pixelwise.labels import LabelSet

Size = tuple[int, int]


class ClipCopy(NamedTuple):
    """What was done, by the keys of `repair.REPAIRS`; how many frames are left; the options with which it opens."""

    done: Mapping[str, int]
    images: int
    query: Mapping[str, str]


def copy_clips(
    out: Path,
    format: Any,
    path: Path,
    splits: Sequence[str],
    options: Mapping[str, str],
    *,
    name: str,
    workers: int,
    progress: Progress,
) -> ClipCopy:
    """Write a repaired copy of the clips of a set.

    Args:
        out: the folder of the copy.
        format: the module of the format.
        path: the folder of the set.
        splits: in the order in which they keep images that several have.
        options: of the specification.
        name: of the set.
        workers: processes that read and write; 0 does both in this one.
        progress: is told of each frame, twice: what can be used is known before anything is written.

    Raises:
        DataError: no split can be read, or nothing usable is left; or the disk is full.
        OSError: the folder cannot be written.
    """
    done: Counter[str] = Counter()
    query = {key: value for key, value in options.items() if key == "resolution"}
    images = 0

    def fill(folder: Path) -> None:
        nonlocal images
        target: Writer | None = None
        seen: set[Any] = set()
        for split, to_repair in _sets(format, path, splits, options, done).items():
            target = _target(format, to_repair, query)
            used = seen if split not in UNIONS else set[Any]()
            kept = _usable(to_repair, used, done, split=split, workers=workers, progress=progress)
            named = [*_named(kept, done)]
            job = partial(
                _written, read=to_repair.read, target=target, labels=to_repair.labels, root=folder, split=split
            )
            outcomes = list(progress(apply(job, named, workers=workers), total=len(named), what=f"repair {split}"))
            for outcome in outcomes:
                if outcome.unwritable is not None:
                    raise DataError(f"--fix {out}: cannot be written ({outcome.unwritable})")
                done.update(outcome.done)
            written = [outcome.written for outcome in outcomes if outcome.written]
            images += len(written)
            if written:
                done.update(target.finish(folder, split=split, written=written) or {})
            else:
                done["empty_splits"] += 1
        if target is None or not images:
            raise DataError(f"{name}: nothing usable is left, no copy was written")
        target.finish_set(folder)

    replace_folder(out, fill)
    return ClipCopy(done, images, query)


def _sets(
    format: Any, path: Path, splits: Sequence[str], options: Mapping[str, str], done: Counter[str]
) -> dict[str, FramesToRepair]:
    """What can be read of each split. Raises DataError where nothing can."""
    found: dict[str, FramesToRepair] = {}
    errors: list[DataError] = []
    for split in splits:
        try:
            found[split] = format.frames_to_repair(path, split, options)
            done.update(found[split].done)
        except DataError as error:
            errors.append(error)
    if not found:
        raise errors[0]
    done["unusable_splits"] += len(errors)
    return found


def _target(format: Any, to_repair: FramesToRepair, query: Mapping[str, str]) -> Writer:
    """What writes the set, with images of any kind."""
    target = replace(format.writer(query, to_repair.labels), numbered_by=to_repair.numbered_by)
    return cast(Writer, replace(target, suffixes=()) if hasattr(target, "suffixes") else target)


def _usable(
    to_repair: FramesToRepair, seen: set[Any], done: Counter[str], *, split: str, workers: int, progress: Progress
) -> list[tuple[Frame, Size]]:
    """The frames that can be written, each once, with their sizes."""
    once: list[Frame] = []
    ids: set[str] = set()
    keys = content_keys(frame.image for frame in to_repair.frames if frame.image)
    clip_of: dict[Any, str] = {}
    for frame in to_repair.frames:
        key = keys.get(frame.image) if frame.image else None
        # frames of one clip may be equal: its camera may stand still
        if frame.id in ids or (key is not None and (key in seen or clip_of.setdefault(key, frame.clip) != frame.clip)):
            done["repeated_images"] += 1
            continue
        ids.add(frame.id)
        once.append(frame)
    look = partial(_size, labels=to_repair.labels, read=to_repair.read)
    sizes = list(progress(apply(look, once, workers=workers), total=len(once), what=f"read {split}"))
    kept: list[tuple[Frame, Size]] = []
    for frame, size in zip(once, sizes, strict=True):
        if isinstance(size, str):
            done[size] += 1
        else:
            kept.append((frame, size))
            seen.add(keys.get(frame.image) if frame.image else None)
    return kept


def _size(frame: Frame, *, labels: LabelSet, read: ReadRepaired) -> Size | str:
    """Height and width of a frame that can be used; of another why it cannot, a key of `repair.REPAIRS`."""
    if frame.image is None or not is_there(frame.image):
        return "missing_images"
    if frame.truth is None or not is_there(frame.truth):
        return "missing_masks"
    try:
        _, height, width = read_image(frame.image).shape
        orientation = exif_orientation(frame.image)
    except DataError:
        return "unreadable_images"
    try:
        read(frame, labels, (height, width), orientation)
    except MisfitError:
        return "size_mismatches"
    except DataError:
        return "unreadable_masks"
    return height, width


def _named(frames: Sequence[tuple[Frame, Size]], done: Counter[str]) -> list[tuple[Frame, str]]:
    """Each frame with its id in the copy, where parts of a clip that is cut have names of their own."""
    clips = {frame.clip for frame, _ in frames}
    named: list[tuple[Frame, str]] = []
    for clip, group in groupby(frames, key=lambda pair: pair[0].clip):
        first, *others = unbroken([*group])
        named += ((frame, frame.id) for frame in first)
        done["cut_clips"] += len(others)
        free = (name for number in count(2) if (name := f"{clip}-{number}") not in clips)
        for part in others:
            name = next(free)
            named += ((frame, f"{name}/{frame.name}") for frame in part)
    return named


def _written(
    item: tuple[Frame, str], *, read: ReadRepaired, target: Writer, labels: LabelSet, root: Path, split: str
) -> Repaired:
    """Read one frame and write it."""
    frame, id = item
    assert frame.image is not None
    pixels = read_image(frame.image)
    orientation = exif_orientation(frame.image)
    repaired = read(frame, labels, (pixels.shape[1], pixels.shape[2]), orientation)
    try:
        written = target.write(
            root,
            Original(
                split=split,
                name=id.replace("/", "_"),
                id=id,
                image=frame.image,
                pixels=pixels.permute(1, 2, 0).contiguous().numpy(),
                truth=repaired.truth,
                upright=orientation != 1,
            ),
        )
    except OSError as error:
        return Repaired(None, unwritable=error.strerror or str(error))
    return Repaired(written, {**repaired.done, "upright_images": int(orientation != 1)})
