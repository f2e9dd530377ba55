"""Predictions for clips by any tool: folders of PNGs, and the lines of tracked videos.

PNGs are paired with a data set by clip and name, as class masks are (`predictions.id_masks`). A PNG of three channels
is read as in KITTI-STEP: R is the class on disk of the data set, and G · 256 + B the track id, 0 for stuff. Where the
objects of the set have no classes, a PNG is read as the ground truth of the set, by object ids.

The lines are those that `pixelwise predict` writes beside a video, one for each frame. `NAME.jsonl` and
`NAME.labelled.jsonl` belong to the clip NAME, or to the only clip.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from pixelwise.data.dataset import Dataset, FileDataset, Merged, Wrapped
from pixelwise.data.kinds.frames import frame_item, in_time
from pixelwise.data.listing import ReadTruth
from pixelwise.data.truth.segments import panoptic_of, regions_of_ids
from pixelwise.errors import DataError
from pixelwise.files.images import IMAGE_SUFFIXES, read_channels
from pixelwise.labels import LabelMap, LabelSet
from pixelwise.predictions.id_masks import StoredMasks
from pixelwise.predictions.lines import RESULTS_NAME, FrameLine, Segment, read_frame_lines
from pixelwise.types import Annotation, Instances, Masks, Panoptic, Sample

_NUMBERS = 65_536
"""Limit of track ids in maps of three channels."""

ReadFrame = Callable[[Path, LabelSet, tuple[int, int]], Annotation]
"""Reads the annotation of a frame of that height and width from a file."""


# ---- folders of PNGs


@dataclass(frozen=True)
class StoredFrames:
    """Predictions with the file of each frame.

    Attributes:
        paired: the file of each frame; see `id_masks.find_masks`.
        read: reads a file.
    """

    paired: StoredMasks
    read: ReadFrame

    def __call__(self, sample: Sample) -> Annotation:
        """Read the frame's file. Raises DataError when it cannot be read, or has another size."""
        path = self.paired.files[self.paired.ids[sample.id]]
        height, width = sample.image.shape[1:]
        try:
            return self.read(path, self.paired.labels, (height, width))
        except DataError as error:
            raise DataError(f"{error} (frame '{sample.id}')") from None


def has_colours(path: Path) -> bool:
    """Whether a file has three channels, by its header; False of one that cannot be read."""
    try:
        with Image.open(path) as image:
            return image.mode in ("RGB", "RGBA")
    except (OSError, UnidentifiedImageError):
        return False


def read_numbered_frame(path: Path, labels: LabelSet, size: tuple[int, int]) -> Annotation:
    """Read the segments of a map of three channels; track ids of stuff are ignored.

    The segment id is (class on disk + 1) · 65536 + number: a track that changes its class becomes another. Raises
    DataError for an unreadable file, one of another size, or a class that is not in the label set.
    """
    channels = read_channels(path).astype(np.int32)
    if channels.shape[:2] != size:
        raise DataError(
            f"{path}: the map is {channels.shape[0]}×{channels.shape[1]}, its frame {size[0]}×{size[1]} "
            "(height×width); predictions must have the frame's size"
        )
    class_ids = labels.class_ids(channels[..., 0], source=str(path))
    evaluated = class_ids != labels.ignore_id
    is_thing = np.array([*labels.is_thing, False])[np.where(evaluated, class_ids, len(labels))]
    numbers = np.where(is_thing, channels[..., 1] * 256 + channels[..., 2], 0)
    ids = np.where(evaluated, (channels[..., 0] + 1) * _NUMBERS + numbers, 0).astype(np.int32)
    found = [id for id in regions_of_ids(ids).ids.tolist() if id]
    class_of = {dataset_id: index for index, dataset_id in enumerate(labels.dataset_ids)}
    return Annotation(
        panoptic=panoptic_of(ids, found, [class_of[id // _NUMBERS - 1] for id in found], [False] * len(found))
    )


def object_reader(dataset: Dataset) -> ReadFrame:
    """A reader of objects in a PNG as in the set's ground truth."""
    read = _truth_reader(dataset)

    def read_frame(path: Path, labels: LabelSet, size: tuple[int, int]) -> Annotation:
        return Annotation(instances=read(frame_item(path.parent.name, path.stem, None, path), labels, size).instances)

    return read_frame


def _truth_reader(dataset: Dataset) -> ReadTruth:
    while not isinstance(dataset, FileDataset):
        if not isinstance(dataset, Merged | Wrapped):
            raise DataError(
                f"{dataset.name}: the ground truth is not in files of frames; give predictions as JSON lines"
            )
        dataset = dataset.parts[0] if isinstance(dataset, Merged) else dataset.dataset
    return dataset.read


# ---- lines of tracked videos


@dataclass(frozen=True)
class TrackedFrames:
    """Predictions with the line of each frame.

    Attributes:
        lines: the file and the line of each frame, by the id of the sample.
        table: the class of the data set for each class of the lines.
        task: `instance` or `panoptic`.
    """

    lines: Mapping[str, tuple[Path, FrameLine]]
    table: LabelMap
    task: str

    def __call__(self, sample: Sample) -> Annotation:
        """The instances or the segments of a frame. Raises DataError for unreadable masks or masks of another size."""
        path, line = self.lines[sample.id]
        size = (sample.image.shape[1], sample.image.shape[2])
        source = f"{path}: frame {line.frame}"
        kept = [one for one in line.segments if self.table.table[one.label] != self.table.target.ignore_id]
        classes = [self.table.table[one.label] for one in kept]
        if any(one.rle is None for one in kept):
            raise DataError(f"{source}: segments without masks; boxes alone cannot be evaluated here")
        masks = Masks.from_coco([one.rle for one in kept], size, source=f"{source}, segment")
        return (_objects if self.task == "instance" else _segments)(kept, classes, masks)


def _objects(kept: Sequence[Segment], classes: Sequence[int], masks: Masks) -> Annotation:
    return Annotation(
        instances=Instances(
            boxes=torch.tensor([one.box for one in kept], dtype=torch.float64).reshape(-1, 4),
            labels=torch.tensor(classes, dtype=torch.int64),
            masks=masks,
            scores=torch.tensor([1.0 if one.score is None else one.score for one in kept], dtype=torch.float64),
            track_ids=torch.tensor([one.track_id for one in kept], dtype=torch.int64),
        )
    )


def _segments(kept: Sequence[Segment], classes: Sequence[int], masks: Masks) -> Annotation:
    ids = torch.zeros(masks.size, dtype=torch.int32)
    for index, one in enumerate(kept):
        x1, y1, x2, y2 = masks.boxes[index].tolist()
        ids[y1:y2, x1:x2][masks.crop(index).bool()] = one.id
    return Annotation(
        panoptic=Panoptic(
            ids=ids,
            segment_ids=torch.tensor([one.id for one in kept], dtype=torch.int32),
            labels=torch.tensor(classes, dtype=torch.int64),
            crowd=torch.zeros(len(kept), dtype=torch.bool),
        )
    )


def line_files(path: Path) -> list[Path]:
    """The files of frames' lines of a path or in a folder without images; may be none.

    Raises DataError for the lines of images.
    """
    if path.name == RESULTS_NAME:
        raise DataError(f"{path}: lines of images; name the folder with the masks, or the coco_results.json beside it")
    if not path.is_dir():
        return [path] if path.suffix == ".jsonl" else []
    if any(file.suffix.lower() in IMAGE_SUFFIXES for file in path.iterdir()):
        return []
    return sorted(file for file in path.glob("*.jsonl") if file.name != RESULTS_NAME)


def pair_lines(files: Sequence[Path], dataset: Dataset) -> TrackedFrames:
    """Pair the lines of tracked videos with the frames of a data set.

    Raises:
        DataError: no set of clips, an unknown clip, another number of frames, other classes, or instances without track
            ids.
    """
    clips = dataset.clips
    if clips is None:
        raise DataError(f"{files[0]}: lines of a video; {dataset.name} has no clips")
    places: dict[str, list[int]] = {}
    for index, clip in enumerate(clips):
        places.setdefault(clip, []).append(index)
    lines: dict[str, tuple[Path, FrameLine]] = {}
    names: list[str] = []
    owner: dict[str, Path] = {}
    for path in files:
        clip = _clip_of(path, tuple(places), alone=len(files) == 1)
        if clip in owner:
            raise DataError(f"{path}: of the clip '{clip}', as {owner[clip]}")
        owner[clip] = path
        frames = read_frame_lines(path)
        if not frames:
            raise DataError(f"{path}: no lines in it")
        found = next(iter(frames.values())).labels
        if names and found != names:
            raise DataError(f"{path}: other labels than in {files[0]}; predict all clips with one model")
        names = found
        for index, number in zip(places[clip], _frame_numbers(path, frames, dataset, places[clip]), strict=True):
            if number in frames:
                lines[dataset.ids[index]] = (path, frames[number])
    segments = [one for _, line in lines.values() for one in line.segments]
    labels = LabelSet.from_names("predicted", names)
    if segments and all(one.track_id is None for one in segments):
        raise DataError(f"{files[0]}: no instance has a track id; predict with --track")
    # a panoptic map has stuff, and things with track ids in their ids; instances are numbered in each frame
    is_map = any(one.track_id is None or one.id == len(labels) + 1 + one.track_id for one in segments)
    try:
        table = LabelMap.by_names_or_objects(labels, dataset.labels)
    except DataError as error:
        raise DataError(f"{files[0]}: {error}") from None
    return TrackedFrames(lines, table, "panoptic" if is_map else "instance")


def _clip_of(path: Path, clips: Sequence[str], *, alone: bool) -> str:
    """The clip of a file of lines: that of its name, or the only one."""
    stem = path.name.removesuffix(".jsonl")
    for clip in clips:
        if stem in (clip, f"{clip}.labelled", f"{clip}.overlay", clip.rpartition("/")[2]):
            return clip
    name = stem.partition(".")[0]
    if name in clips:
        return name
    if alone and len(clips) == 1:
        return clips[0]
    shown = ", ".join(clips[:8]) + (", …" if len(clips) > 8 else "")
    raise DataError(f"{path}: expected the name of a clip, CLIP.jsonl or CLIP.labelled.jsonl; there are {shown}")


def _frame_numbers(
    path: Path, frames: Mapping[int, FrameLine], dataset: Dataset, indices: Sequence[int]
) -> Sequence[int]:
    """The index within the video of each labelled frame of a clip."""
    count = max(frames) + 1
    if count == len(indices):
        return range(count)
    files = [dataset.image_path(index) for index in indices]
    there = sorted(
        (one for one in files[0].parent.iterdir() if one.suffix.lower() in IMAGE_SUFFIXES),
        key=lambda one: in_time(one.stem),
    )
    if count != len(there):
        raise DataError(
            f"{path}: {count:,} frames; the clip has {len(indices):,} labelled ones and {len(there):,} images in "
            f"{files[0].parent}"
        )
    return [there.index(file) for file in files]
