"""What a call of the predictor returns: an image and what the model says of it, to look at or to store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int32, UInt8, UInt16
from PIL import Image
from torch import Tensor

from pixelwise.errors import PixelwiseError
from pixelwise.inference.draw import draw
from pixelwise.inference.png import write_png
from pixelwise.labels import LabelSet, voc_colour
from pixelwise.ops import rle
from pixelwise.ops.panoptic import VOID_ID, ids_to_rgb
from pixelwise.types import Annotation, Instances, Panoptic

VOID_COLOUR = voc_colour(255)
"""Colour of pixels that nobody judged in palette files, as PASCAL VOC has it."""

OVERLAY_SUFFIX = ".overlay.png"
SEMANTIC_SUFFIX = ".semantic.png"
INSTANCES_SUFFIX = ".instances.png"
PANOPTIC_SUFFIX = ".panoptic.png"
RESULT_SUFFIXES = (OVERLAY_SUFFIX, SEMANTIC_SUFFIX, INSTANCES_SUFFIX, PANOPTIC_SUFFIX)
"""What the names of the pictures that `save` writes end with."""


SLAB_PIXELS = 4 * 2**20
"""How many pixels are counted at once."""


class MissingPartError(PixelwiseError, AttributeError):
    """The model's task does not give that part. Names the parts it gives."""


@dataclass(frozen=True, eq=False)
class Scene:
    """An image and what a model says of it, at the image's own size and on the CPU.

    Asking for a part that the task does not give raises MissingPartError.

    Attributes:
        image: RGB, 0-255.
        annotation: what the model says.
        labels: the classes.
        seconds: what the answer took, without reading and writing.
        model: the model's name.
        name: the image's name, such as its path; None for an image that came without one.
        is_tracked: whether the ids of segments are those of a clip, so that a thing has the same one in all frames.
    """

    image: UInt8[Tensor, "3 H W"]
    annotation: Annotation
    labels: LabelSet
    seconds: float
    model: str
    name: str | None = None
    is_tracked: bool = False

    @property
    def semantic(self) -> UInt8[Tensor, "H W"] | Int32[Tensor, "H W"]:
        """Class id of each pixel, `labels.ignore_id` where the model does not say."""
        return self._part("semantic")

    @property
    def confidence(self) -> Float[Tensor, "H W"]:
        """Probability of that class, in [0, 1]."""
        return self._part("confidence")

    @property
    def instances(self) -> Instances:
        """The objects."""
        return self._part("instances")

    @property
    def panoptic(self) -> Panoptic:
        """The segments."""
        return self._part("panoptic")

    @property
    def saliency(self) -> Float[Tensor, "H W"]:
        """How much each pixel catches the eye, in [0, 1]."""
        return self._part("saliency")

    @property
    def captions(self) -> tuple[tuple[str, float], ...]:
        """(text, log-probability) pairs, best first."""
        return self._part("captions")

    def draw(self, *, legend: bool = True) -> Image.Image:
        """The image in the colours of its classes, with outlines and, beside or beneath it, a legend."""
        return draw(self.image, self.annotation, self.labels, legend=legend)

    def save(self, stem: str | Path) -> list[Path]:
        """Write the overlay and the parts that the task gives.

        Args:
            stem: path without suffix: `out/photo` gives `out/photo.overlay.png`, `out/photo.semantic.png`. Folders on
                the way are made.

        Returns:
            the files, the overlay first. Each is there whole or not at all.

        Raises:
            OSError: the place cannot be written.
        """
        overlay = Path(f"{stem}{OVERLAY_SUFFIX}")
        overlay.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(overlay, lambda path: write_png(path, self.draw()))
        files = [overlay]
        if self.annotation.semantic is not None:
            files.append(Path(f"{stem}{SEMANTIC_SUFFIX}"))
            picture = ids_picture(self.annotation.semantic.numpy(), self.labels)
            _write_whole(files[-1], lambda path: picture.save(path, format="PNG"))
        if self.annotation.instances is not None:
            files.append(Path(f"{stem}{INSTANCES_SUFFIX}"))
            objects = Image.fromarray(object_numbers(self.annotation.instances.by_score(), self.image.shape[1:]))
            _write_whole(files[-1], lambda path: objects.save(path, format="PNG"))
        if self.annotation.panoptic is not None:
            files.append(Path(f"{stem}{PANOPTIC_SUFFIX}"))
            segments = segment_picture(self.annotation.panoptic)
            _write_whole(files[-1], lambda path: segments.save(path, format="PNG"))
        return files

    def record(self) -> dict[str, Any]:
        """The scene as JSON values: the line of `results.jsonl`.

        A semantic scene has one segment for each class that occurs, background left out; its `id` is the class id,
        its `score` the mean probability, its `box` x1 y1 x2 y2 with x2 y2 exclusive. A scene of objects has one for
        each, the surest first; its `id` is its number in `photo.instances.png`, and classes pasted from the objects are
        in `photo.semantic.png` alone. A panoptic scene has one for each segment, in the order of their ids; its `id` is
        that in `photo.panoptic.png`, and things of a tracked scene have their number within the clip as `track_id`.
        """
        if self.annotation.panoptic is not None:
            segments = _panoptic_segments(self.annotation.panoptic, self.labels, is_tracked=self.is_tracked)
        elif self.annotation.instances is not None:
            segments = _object_segments(self.annotation.instances, self.labels)
        else:
            segments = _semantic_segments(self.annotation, self.labels)
        return {
            "image": self.name,
            "size": [self.image.shape[1], self.image.shape[2]],
            "model": self.model,
            "labels": list(self.labels.names),
            "segments": segments,
            "seconds": round(self.seconds, 4),
        }

    def _part(self, name: str) -> Any:
        part = getattr(self.annotation, name)
        if part is None:
            given = [field.name for field in fields(Annotation) if getattr(self.annotation, field.name) is not None]
            raise MissingPartError(f"{self.model} gives no {name}; it gives {', '.join(given) or 'nothing'}")
        return part


def ids_picture(semantic: np.ndarray, labels: LabelSet) -> Image.Image:
    """A mask as a picture of the label set's ids on disk, void as its first void id.

    For VOC, and every set whose ids on disk are 0…K-1, these are the class ids. The picture has the set's palette;
    where an id needs more than 8 bits it is grey of 16 bits.
    """
    # a table of what each id becomes; the last entry is for void, which is 255 or -1
    table = labels.native_of(np.arange(max(256, len(labels) + 1)))
    table[table < 0] = 255  # sets such as Cityscapes call a void class -1
    native = np.empty(semantic.shape, dtype=np.uint8 if table.max() <= 255 else np.uint16)
    rows = max(1, SLAB_PIXELS // semantic.shape[1])
    for start in range(0, len(semantic), rows):  # numpy makes 8 bytes of every id to look it up
        native[start : start + rows] = table.take(semantic[start : start + rows], mode="wrap")
    picture = Image.fromarray(native)
    if native.dtype == np.uint16:
        return picture
    palette = [VOID_COLOUR] * 256
    for native_id, colour in zip(labels.native_ids, labels.palette, strict=True):
        palette[native_id] = colour
    picture.putpalette([channel for colour in palette for channel in colour])  # makes it a palette picture
    return picture


def object_numbers(instances: Instances, size: Sequence[int]) -> UInt16[np.ndarray, "H W"]:
    """Which object each pixel shows, from 1 in their order; 0 for none. Those that come first lie on top."""
    numbers = np.zeros(tuple(size), dtype=np.uint16)
    masks = instances.masks
    for index in reversed(range(0 if masks is None else len(masks))):
        x1, y1, x2, y2 = masks.boxes[index].tolist()  # pyright: ignore[reportOptionalMemberAccess]
        numbers[y1:y2, x1:x2][masks.crop(index).numpy() != 0] = index + 1  # pyright: ignore[reportOptionalMemberAccess]
    return numbers


def segment_picture(panoptic: Panoptic) -> Image.Image:
    """The segment ids as colours, as COCO's panoptic PNGs have them. Raises DataError for ids over 24 bits."""
    ids = panoptic.ids.numpy()
    colours = np.empty((*ids.shape, 3), dtype=np.uint8)
    rows = max(1, SLAB_PIXELS // max(1, ids.shape[1]))
    for start in range(0, len(ids), rows):  # four bytes of every id while it is taken apart
        colours[start : start + rows] = ids_to_rgb(ids[start : start + rows])
    return Image.fromarray(colours)


def _object_segments(instances: Instances | None, labels: LabelSet) -> list[dict[str, Any]]:
    if instances is None:
        return []
    instances = instances.by_score()
    masks = instances.masks
    runs = [None] * len(instances) if masks is None else masks.to_coco()
    areas = [None] * len(instances) if masks is None else masks.areas().tolist()
    return [
        {
            "id": index + 1,
            "label": label,
            "name": labels.names[label],
            "area": areas[index],
            "box": [round(value, 2) for value in instances.boxes[index].tolist()],
            "score": None if instances.scores is None else round(float(instances.scores[index]), 4),
            "track_id": None if instances.track_ids is None else int(instances.track_ids[index]),
            "rle": runs[index],
        }
        for index, label in enumerate(instances.labels.tolist())
    ]


def _semantic_segments(annotation: Annotation, labels: LabelSet) -> list[dict[str, Any]]:
    if annotation.semantic is None:
        return []
    semantic = annotation.semantic.numpy()
    scores = None if annotation.confidence is None else _score_sums(semantic, annotation.confidence.numpy())
    return [
        {
            "id": region.id,
            "label": region.id,
            "name": labels.names[region.id],
            "area": region.area,
            "box": region.box,
            "score": None if scores is None else round(float(scores[region.id]) / region.area, 4),
            "track_id": None,
            "rle": region.rle,
        }
        for region in _regions(semantic, without=(labels.ignore_id, labels.background_id))
    ]


def _panoptic_segments(panoptic: Panoptic, labels: LabelSet, *, is_tracked: bool) -> list[dict[str, Any]]:
    places = {id: place for place, id in enumerate(panoptic.segment_ids.tolist())}
    classes = panoptic.labels.tolist()
    segments: list[dict[str, Any]] = []
    for region in _regions(panoptic.ids.numpy(), without=(VOID_ID,)):
        place = places.get(region.id)
        if place is None:  # without an entry it is void
            continue
        number = region.id - len(labels) - 1  # below 0 for stuff
        segments.append(
            {
                "id": region.id,
                "label": classes[place],
                "name": labels.names[classes[place]],
                "area": region.area,
                "box": region.box,
                "score": None if panoptic.scores is None else round(float(panoptic.scores[place]), 4),
                "track_id": number if is_tracked and number >= 0 else None,
                "rle": region.rle,
            }
        )
    return segments


class _Region(NamedTuple):
    """The pixels of one id; the box is x1 y1 x2 y2."""

    id: int
    area: int
    box: list[int]
    rle: dict[str, Any]


def _regions(ids_of_pixels: np.ndarray, *, without: Sequence[int | None]) -> Iterator[_Region]:
    """The regions of a map of ids, in the order of the ids."""
    height, width = ids_of_pixels.shape
    starts, stops, ids = _runs(ids_of_pixels)
    order = np.argsort(ids, kind="stable")  # by id, then down the columns
    starts, stops, ids = starts[order], stops[order], ids[order]
    first = np.flatnonzero(np.append(True, ids[1:] != ids[:-1]))
    for begin_at, end_at in zip(first.tolist(), [*first[1:].tolist(), len(ids)], strict=True):
        id = int(ids[begin_at])
        if id in without:
            continue
        begin, end = starts[begin_at:end_at], stops[begin_at:end_at]
        top, left = begin % height, begin // height
        bottom, right = (end - 1) % height, (end - 1) // height
        if (left != right).any():  # a run that goes on at the top of the next column
            top, bottom = np.array([0]), np.array([height - 1])
        box = [int(left.min()), int(top.min()), int(right.max()) + 1, int(bottom.max()) + 1]
        yield _Region(id, int((end - begin).sum()), box, rle.from_runs(begin, end, (height, width)))


def _runs(semantic: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs of equal ids down the columns, as RLE counts them: where they begin and end, and their ids."""
    height, width = semantic.shape
    slab = max(1, SLAB_PIXELS // height)
    starts: list[np.ndarray] = [np.array([0])]
    ids: list[np.ndarray] = [semantic[:1, 0]]
    for left in range(0, width, slab):
        first = max(0, left - 1)  # the column before, to see whether its last run goes on
        column_by_column = semantic[:, first : left + slab].T.ravel()
        changes = np.flatnonzero(column_by_column[1:] != column_by_column[:-1]) + 1
        changes = changes[changes >= (left - first) * height]
        starts.append(changes + first * height)
        ids.append(column_by_column[changes])
    begin = np.concatenate(starts)
    return begin, np.append(begin[1:], height * width), np.concatenate(ids)


def _score_sums(semantic: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """The sum of the confidence over the pixels of each id; that of void is the last."""
    length = 256 if semantic.dtype == np.uint8 else max(0, int(semantic.max())) + 2
    sums = np.zeros(length)
    slab = max(1, SLAB_PIXELS // semantic.shape[1])
    for start in range(0, len(semantic), slab):
        ids = semantic[start : start + slab].ravel()
        ids = ids if ids.dtype == np.uint8 else ids % length
        sums += np.bincount(ids, weights=confidence[start : start + slab].ravel(), minlength=length)
    return sums


def _write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Write beside the file and rename, so that a kill leaves no half one."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
