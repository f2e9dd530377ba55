"""Writing labelled clips whose frames have a list of objects: DAVIS, YouTube-VIS and MOTS.

Frames are written one by one, perhaps by several processes; the numbers that an object keeps in its whole clip are
given when all are there, in `finish`. What stands before the last `/` in the id of a frame is its clip.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pixelwise.data.kinds.frames import number_of
from pixelwise.data.kinds.writing import Original, Writer, Written
from pixelwise.data.truth.track_ids import Track
from pixelwise.errors import DataError
from pixelwise.files.text import read_lines
from pixelwise.labels import LabelSet
from pixelwise.types import Annotation, Instances, Masks


def clip_and_frame(id: str, *, source: Path) -> tuple[str, str]:
    """The clip and the name of a frame, without `/`, and without the clip with which some formats begin it.

    Raises DataError, beginning with `source`, for a frame of no clip.
    """
    clip, _, frame = id.rpartition("/")
    if not clip:
        raise DataError(f"{source}: '{id}' belongs to no clip; a format of clips holds frames of clips alone")
    frame = frame.removeprefix(f"{clip}_") or frame
    clip = clip.replace("/", "_")
    return clip.replace(".", "_") if not clip.strip(".") else clip, frame  # `..` is the folder around


def by_clip(written: Sequence[Written]) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """The clips in the order in which they come, with the entries of their frames."""
    clips: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for one in written:
        clips[one.entry["clip"]].append(one.entry)
    yield from clips.items()


def free_clip(lists: Path, clip: str, split: str) -> tuple[str, bool]:
    """The name of a clip where all splits lie in one place, and whether it is another since an earlier split has it.

    Args:
        lists: the folder of the lists that were written so far, SPLIT.txt.
        clip: its name in the source.
        split: that is being written.
    """
    taken: set[str] = set()
    for file in lists.glob("*.txt"):
        if file.stem != split:
            taken.update(read_lines(file))
    return (clip, False) if clip not in taken else (f"{clip}-{split}", True)


def tracked_objects(truth: Annotation, *, source: Path) -> tuple[Instances, Masks, list[int]]:
    """Objects, their masks and their track ids. Raises DataError, beginning with `source`, where one is missing."""
    instances = truth.instances
    if instances is None or instances.masks is None or instances.track_ids is None:
        raise DataError(f"{source}: its ground truth has no objects with masks and track ids")
    return instances, instances.masks, instances.track_ids.tolist()


def object_entries(truth: Annotation, *, source: Path) -> Iterator[dict[str, Any]]:
    """The objects as entries of a JSON."""
    instances, masks, tracks = tracked_objects(truth, source=source)
    crowd = instances.crowds.tolist()
    runs, areas = masks.to_coco(), masks.areas().tolist()
    for number, (x1, y1, x2, y2) in enumerate(masks.boxes.tolist()):
        if areas[number]:
            yield {
                "track": tracks[number],
                "class_id": int(instances.labels[number]),
                "crowd": crowd[number],
                "segmentations": runs[number],
                "bboxes": [x1, y1, x2 - x1, y2 - y1],
                "areas": areas[number],
            }


@dataclass(frozen=True)
class ObjectClipsWriter(Writer):
    """A format whose clips have a list of objects. See Writer for the attributes."""

    def place(self, original: Original, clip: str, frame: str) -> str:
        """Where the image of a frame goes, without suffix. Raises DataError for a frame that the format cannot hold."""
        raise NotImplementedError

    def write(self, root: Path, original: Original) -> Written:
        """Write one frame; its objects go into the entry, for `finish`. See Writer."""
        clip, frame = clip_and_frame(original.id, source=original.image)
        file, losses = original.write_image(root, self.place(original, clip, frame))
        entry = {
            "clip": clip,
            "number": number_of(frame),
            "file_name": f"{clip}/{Path(file).name}",
            "size": (original.pixels.shape[0], original.pixels.shape[1]),
            "objects": [*object_entries(original.truth, source=original.image)],
        }
        lost = Counter(stuff_pixels=stuff_pixels(original.truth, self.labels))
        lost += Counter(void_pixels_as_class=_void_pixels(original.truth, self.labels))
        return Written(original.name, file, Counter(losses) + lost, entry)


def whole_tracks(entry: Mapping[str, Any]) -> Iterator[Track]:
    """The objects of a frame that are no crowds."""
    return ((one["track"], one["class_id"]) for one in entry["objects"] if not one["crowd"])


def _covered(truth: Annotation) -> torch.Tensor:
    """The pixels of any object or crowd, bool [H, W]."""
    assert truth.instances is not None
    assert truth.instances.masks is not None
    return truth.instances.masks.union()


def stuff_pixels(truth: Annotation, labels: LabelSet) -> int:
    """Pixels of a class that is neither background nor an object's."""
    if truth.semantic is None:
        return 0
    semantic = truth.semantic
    none = semantic == labels.ignore_id
    if labels.background_id is not None:
        none |= semantic == labels.background_id
    return int((~none & ~_covered(truth)).sum())


def _void_pixels(truth: Annotation, labels: LabelSet) -> int:
    """Pixels that are ignored, and that no crowd covers."""
    return 0 if truth.semantic is None else int(((truth.semantic == labels.ignore_id) & ~_covered(truth)).sum())
