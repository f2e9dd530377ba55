"""Labelled video out of labelled stills: real objects, cut out by their masks, move over real photographs.

A clip has a background, which is a crop of one photograph that pans and zooms, and objects from other photographs, each
of which moves, grows or shrinks and turns a little. The nearer object covers the farther one. Objects that the
background itself has stay in the ground truth, and move with the camera. All motions are smooth functions of time, so
that masks, identities and the optical flow between any two frames are known exactly, and no frame needs another one.

What is not imitated: shadows, blur of motion, parallax within a layer, objects that change their form.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int32, UInt8
from torch import Tensor
from torch.nn import functional

from pixelwise.data.dataset import Dataset
from pixelwise.data.truth.segments import annotation_of
from pixelwise.data.truth.segments_of import segments_of
from pixelwise.errors import DataError
from pixelwise.labels import LabelSet
from pixelwise.types import Annotation, Panoptic, Sample

BACKGROUND_VIEW = (0.65, 0.95)
"""Largest side of the camera's window, as a fraction of the largest crop that fits into a photograph."""

OBJECT_EXTENT = (0.15, 0.45)
"""Square root of an object's area in a frame, as a fraction of that of the frame."""

LARGEST_SIDE = 0.8
"""No object's box is longer than this fraction of the shorter side of a frame, in the middle of a clip."""

LARGEST_SCALE = 1.25
"""No object is enlarged by more, since it would be blurred."""

FASTEST = 0.04
"""Largest speed of the camera and of objects per frame, in lengths of the frame's diagonal."""

GROWTH = 0.03
"""Largest change of scale per frame."""

TURN = math.radians(2)
"""Largest turn of an object per frame."""

_SMALLEST_AREA, _SMALLEST_SIDE = 200, 12
"""Pixels of a mask, and of the sides of its box, below which an object is not cut out."""

_ROUNDING = 1e-6
"""Pixels by which a computed place may lie outside of a frame."""

_TRIALS = 12
"""Number of photographs that are tried for an object that the border does not cut."""


class Motion(NamedTuple):
    """Where a layer is at each time; τ is the time from the middle of the clip, in frames.

    A pixel p of the frame shows q = anchor + pan·τ + M·R(−angle − turn·τ)·(p − centre(τ)) / (scale·exp(growth·τ)) of
    the layer, where centre(τ) = middle + velocity·τ + sway·sin(rate·τ + phase) and M mirrors x.

    Attributes:
        anchor: x y of the layer that `middle` shows, pixels.
        middle: x y of the frame, pixels.
        pan: pixels of the layer per frame.
        velocity: pixels of the frame per frame.
        sway: amplitude of the motion around the straight path, pixels.
        rate: of the sway, radians per frame.
        phase: of the sway, radians.
        scale: pixels of the frame for one of the layer.
        growth: of the logarithm of the scale, per frame.
        angle: clockwise on the screen, radians.
        turn: of the angle, per frame.
        mirrored: whether left and right are exchanged.
    """

    anchor: tuple[float, float]
    middle: tuple[float, float]
    pan: tuple[float, float] = (0.0, 0.0)
    velocity: tuple[float, float] = (0.0, 0.0)
    sway: tuple[float, float] = (0.0, 0.0)
    rate: float = 0.0
    phase: float = 0.0
    scale: float = 1.0
    growth: float = 0.0
    angle: float = 0.0
    turn: float = 0.0
    mirrored: bool = False

    def to_layer(self, time: float) -> Float64[np.ndarray, "2 3"]:
        """The affine map from x y 1 of the frame to x y of the layer, pixels with centres at whole numbers."""
        angle, scale = -(self.angle + self.turn * time), self.scale * math.exp(self.growth * time)
        turned = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        linear = turned * [[-1.0 if self.mirrored else 1.0], [1.0]] / scale
        swayed = np.array(self.sway) * math.sin(self.rate * time + self.phase)
        centre = np.array(self.middle) + np.array(self.velocity) * time + swayed
        shift = np.array(self.anchor) + np.array(self.pan) * time - linear @ centre
        return np.concatenate([linear, shift[:, None]], axis=1)


@dataclass(frozen=True, eq=False)
class Layer:
    """A photograph, or an object that was cut out of one, and its motion.

    Attributes:
        image: its colours, 0-255.
        ids: the segment of each pixel. The background covers all of its image, an object what is not 0.
        motion: see Motion.
    """

    image: UInt8[Tensor, "3 h w"]
    ids: Int32[np.ndarray, "h w"]
    motion: Motion


class Picture(NamedTuple):
    """One frame: its colours, the segment of each pixel, and the layer that it shows, 0 for the background."""

    image: UInt8[Tensor, "3 H W"]
    ids: Int32[np.ndarray, "H W"]
    owner: np.ndarray


class ClipParts(NamedTuple):
    """The parts of a clip.

    Attributes:
        layers: the background, then objects from far to near.
        classes: segment id → class id.
        crowds: the segments that are regions of many objects.
    """

    layers: tuple[Layer, ...]
    classes: Mapping[int, int]
    crowds: frozenset[int]


@dataclass(frozen=True, eq=False)
class CutoutClips:
    """Clips of moving objects, all a function of (seed, number of the clip). See Dataset for the attributes.

    The ground truth has all three parts: segments, the class of each pixel, and objects with track ids. What the
    source tells of its background (classes, objects, crowds) is told here too; what it does not is void. Where objects
    of the source overlap, each pixel has one, as in `data.formats.coco_panoptic.writer.segments_of`.

    Attributes:
        dataset: where photographs and objects come from; its ground truth has objects with masks.
        frames: in each clip.
        count: how many clips.
        size_hw: of the frames, pixels.
        objects: the most that are pasted into a clip; at least one is.
        seed: of everything that is drawn.
    """

    dataset: Dataset
    frames: int = 6
    count: int = 100
    size_hw: tuple[int, int] = (256, 320)
    objects: int = 4
    seed: int = 0
    name: str = "cutout clips"
    format: str = "cutout-clips"
    _scenes: dict[int, ClipParts] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for what, value in (("frames", self.frames), ("clips", self.count), ("objects", self.objects)):
            if value < 1:
                raise DataError(f"{self.name}: {what}={value}; expected at least 1")
        if min(self.size_hw) < 8:
            raise DataError(f"{self.name}: frames of {self.size_hw[0]}×{self.size_hw[1]}; expected at least 8×8")
        if not len(self.dataset):
            raise DataError(f"{self.name}: no images in {self.dataset.name}")

    @property
    def labels(self) -> LabelSet:
        """Of the source."""
        return self.dataset.labels

    @property
    def note(self) -> str | None:
        """What the clips are made of, and the note of the source."""
        made = f"{self.count:,} clips of {self.frames} frames are made of {len(self.dataset):,} images"
        return f"{made}; {self.dataset.note}" if self.dataset.note else made

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The clip and the frame, `000002/000005`."""
        return tuple(f"{clip}/{frame:06d}" for clip in self._names for frame in range(self.frames))

    @cached_property
    def clips(self) -> tuple[str, ...]:
        """The clip of each frame."""
        return tuple(clip for clip in self._names for _ in range(self.frames))

    @property
    def numbered_by(self) -> None:
        """Ids are the numbers of the objects."""

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(f"{clip:06d}" for clip in range(self.count))

    def __len__(self) -> int:
        return self.count * self.frames

    def __getitem__(self, index: int) -> Sample:
        """Draw one frame. Raises DataError with the file of a photograph that cannot be read."""
        index = range(len(self))[index]
        clip, frame = divmod(index, self.frames)
        try:
            scene = self.scene(clip)
        except DataError as error:
            raise DataError(f"{error} (frame '{self.ids[index]}')") from None
        picture = drawn(scene.layers, self.size_hw, self._time(frame))
        truth = self._truth(picture.ids, scene)
        return Sample(picture.image, truth, self.ids[index], self.size_hw, clip=self.clips[index], frame=frame)

    def flow(self, index: int, *, reference: int | None = None) -> Float[Tensor, "2 H W"]:
        """Where each pixel of a frame was in another frame of its clip.

        Args:
            index: of the target frame.
            reference: the other frame's place in the clip; None takes the one before.

        Returns:
            x and y of the reference minus those of the target, in pixels; NaN where the point is hidden or outside of
            the reference, and everywhere in the first frame of a clip, which has none before.
        """
        clip, frame = divmod(range(len(self))[index], self.frames)
        reference = frame - 1 if reference is None else reference
        if not 0 <= reference < self.frames:
            return torch.full((2, *self.size_hw), torch.nan)
        return flow_between(self.scene(clip).layers, self.size_hw, self._time(frame), self._time(reference))

    def size_of(self, index: int) -> tuple[int, int]:  # noqa: ARG002
        """Height and width of the frames."""
        return self.size_hw

    def image_path(self, index: int) -> Path:
        """The file of the photograph that is the background."""
        return self.dataset.image_path(self._background(index))

    def truth_path(self, index: int) -> Path:
        """The file that holds the ground truth of the background."""
        return self.dataset.truth_path(self._background(index))

    def scene(self, clip: int) -> ClipParts:
        """The parts of a clip; the last one is cached, since its frames are read one after the other."""
        if clip not in self._scenes:
            made = self._made(clip)
            self._scenes.clear()
            self._scenes[clip] = made
        return self._scenes[clip]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_scenes": {}}

    def _background(self, index: int) -> int:
        clip = range(len(self))[index] // self.frames
        return int(self._generator(clip).integers(len(self.dataset)))

    def _generator(self, clip: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, clip))

    def _time(self, frame: int) -> float:
        return frame - (self.frames - 1) / 2

    def _made(self, clip: int) -> ClipParts:
        generator = self._generator(clip)
        below = self.dataset[int(generator.integers(len(self.dataset)))]
        require_objects(below, source=self.dataset.name)
        panoptic, _ = segments_of(below.truth, self.labels, source=self.image_path(clip * self.frames))
        camera = _camera(below.image, self.size_hw, self.frames, generator)
        layers = [_reduced(Layer(below.image, panoptic.ids.numpy(), camera))]
        classes = dict(zip(panoptic.segment_ids.tolist(), panoptic.labels.tolist(), strict=True))
        crowds = frozenset(panoptic.segment_ids[panoptic.crowd].tolist())
        first = max(len(self.labels), *classes, 0) + 1
        for number in range(int(generator.integers(1, self.objects + 1))):
            found = self._drawn_object(generator, first + number)
            if found is not None:
                layer, classes[first + number] = found
                layers.append(layer)
        return ClipParts(tuple(layers), classes, crowds)

    def _drawn_object(self, generator: np.random.Generator, id: int) -> tuple[Layer, int] | None:
        """An object in motion, and its class; rather one that its photograph does not cut off. None where no object."""
        rest: tuple[Sample, int] | None = None
        for _ in range(_TRIALS):
            sample = self.dataset[int(generator.integers(len(self.dataset)))]
            whole, cut_off = _objects_of(sample)
            chosen = whole or cut_off
            if not chosen:
                continue
            areas = np.sqrt([area for _, area in chosen])
            number = chosen[int(generator.choice(len(chosen), p=areas / areas.sum()))][0]
            if whole:
                return self._cut_out(sample, number, generator, id)
            rest = rest or (sample, number)
        return self._cut_out(*rest, generator, id) if rest else None

    def _cut_out(self, sample: Sample, number: int, generator: np.random.Generator, id: int) -> tuple[Layer, int]:
        instances = sample.truth.instances
        assert instances is not None
        assert instances.masks is not None
        x1, y1, x2, y2 = instances.masks.boxes[number].tolist()
        height, width = instances.masks.size
        top, left, bottom, right = max(y1 - 1, 0), max(x1 - 1, 0), min(y2 + 1, height), min(x2 + 1, width)
        # with a border of one pixel, since colours are read between pixels
        ids = np.zeros((bottom - top, right - left), dtype=np.int32)
        ids[y1 - top : y2 - top, x1 - left : x2 - left][instances.masks.crop(number).numpy() != 0] = id
        motion = _object_motion(ids != 0, self.size_hw, self.frames, generator)
        layer = Layer(sample.image[:, top:bottom, left:right].clone(), ids, motion)
        return _reduced(layer), int(instances.labels[number])

    def _truth(self, ids: np.ndarray, scene: ClipParts) -> Annotation:
        present = [id for id in np.unique(ids).tolist() if id]
        panoptic = Panoptic(
            ids=torch.from_numpy(ids),
            segment_ids=torch.tensor(present, dtype=torch.int32),
            labels=torch.tensor([scene.classes[id] for id in present], dtype=torch.int64),
            crowd=torch.tensor([id in scene.crowds for id in present], dtype=torch.bool),
        )
        return annotation_of(panoptic, self.labels, clip=True)


def require_objects(sample: Sample, *, source: str) -> None:
    """Raise DataError, beginning with `source`, where the ground truth of a still has no objects with masks."""
    if sample.truth.instances is None or sample.truth.instances.masks is None:
        raise DataError(
            f"{source}: it has no objects with masks to cut out (image '{sample.id}'); expected a set with "
            "instances, such as coco"
        )


def drawn(layers: tuple[Layer, ...], size_hw: tuple[int, int], time: float) -> Picture:
    """One frame: colours read bilinearly, segments from the nearest pixel, nearer layers on top."""
    owner, places = _owners(layers, size_hw, time)
    ids = np.zeros(size_hw, dtype=np.int32)
    pixels = torch.zeros(3, *size_hw, dtype=torch.uint8)
    for number, layer in enumerate(layers):
        rows, columns = np.nonzero(owner == number)
        if not len(rows):
            continue
        x, y = (along[rows, columns] for along in places[number])
        ids[rows, columns] = layer.ids[_nearest(y, layer.ids.shape[0]), _nearest(x, layer.ids.shape[1])]
        pixels[:, rows, columns] = _bilinear(layer.image, x, y)
    return Picture(pixels, ids, owner)


def flow_between(
    layers: tuple[Layer, ...], size_hw: tuple[int, int], time: float, reference: float
) -> Float[Tensor, "2 H W"]:
    """Where each pixel of the frame at `time` is at the time `reference`; see `CutoutClips.flow`."""
    owner, places = _owners(layers, size_hw, time)
    other, _ = _owners(layers, size_hw, reference)
    height, width = size_hw
    flow = np.full((2, height, width), np.nan, dtype=np.float32)
    for number, layer in enumerate(layers):
        rows, columns = np.nonzero(owner == number)
        affine = layer.motion.to_layer(reference)
        there = np.stack([along[rows, columns] for along in places[number]]) - affine[:, 2:]
        x, y = np.linalg.solve(affine[:, :2], there)
        column, row = np.floor(x + 0.5).astype(np.int64), np.floor(y + 0.5).astype(np.int64)
        inside = (x >= -_ROUNDING) & (x <= width - 1 + _ROUNDING) & (y >= -_ROUNDING) & (y <= height - 1 + _ROUNDING)
        seen = np.zeros_like(inside)
        seen[inside] = other[row[inside], column[inside]] == number
        flow[0, rows[seen], columns[seen]] = (x - columns)[seen]
        flow[1, rows[seen], columns[seen]] = (y - rows)[seen]
    return torch.from_numpy(flow)


def _objects_of(sample: Sample) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The objects of a still that are large enough, number and area: those that are whole, and those cut off."""
    instances = sample.truth.instances
    if instances is None or instances.masks is None:
        return [], []
    height, width = instances.masks.size
    whole: list[tuple[int, int]] = []
    cut_off: list[tuple[int, int]] = []
    areas, crowd = instances.masks.areas().tolist(), instances.crowds.tolist()
    for number, (x1, y1, x2, y2) in enumerate(instances.masks.boxes.tolist()):
        large = areas[number] >= _SMALLEST_AREA and min(x2 - x1, y2 - y1) >= _SMALLEST_SIDE
        if large and not crowd[number]:
            inside = x1 > 1 and y1 > 1 and x2 < width - 1 and y2 < height - 1
            (whole if inside else cut_off).append((number, areas[number]))
    return whole, cut_off


def _camera(
    image: UInt8[Tensor, "3 h w"], size_hw: tuple[int, int], frames: int, generator: np.random.Generator
) -> Motion:
    """A crop that never leaves the photograph."""
    frame_sides = np.array([size_hw[1] - 1, size_hw[0] - 1], dtype=np.float64)
    sides = np.array([image.shape[2] - 1, image.shape[1] - 1], dtype=np.float64)
    growth = float(generator.uniform(-GROWTH, GROWTH)) / 2
    last = (frames - 1) / 2
    widest = float((sides / frame_sides).min()) * float(generator.uniform(*BACKGROUND_VIEW))
    step = widest * math.exp(-abs(growth) * last)  # pixels of the photograph for one of the frame, in the middle
    low, high = frame_sides / 2 * widest, sides - frame_sides / 2 * widest
    anchor = low + (high - low) * generator.random(2)
    room = np.minimum(anchor - low, high - anchor) / max(last, 1.0)
    fastest = FASTEST * math.hypot(*frame_sides) * step
    pan = np.clip(generator.uniform(-fastest, fastest, 2), -room, room)
    return Motion(_pair(anchor), _pair(frame_sides / 2), pan=_pair(pan), scale=1 / step, growth=growth)


def _object_motion(mask: np.ndarray, size_hw: tuple[int, int], frames: int, generator: np.random.Generator) -> Motion:
    """The motion of an object that is somewhere in the frame in the middle of the clip."""
    height, width = size_hw
    extent = math.exp(generator.uniform(*np.log(OBJECT_EXTENT))) * math.sqrt(height * width)
    largest = LARGEST_SIDE * min(size_hw) / max(mask.shape)
    scale = min(extent / math.sqrt(np.count_nonzero(mask)), largest, LARGEST_SCALE)
    speed = FASTEST * math.hypot(height, width) * math.sqrt(generator.random())
    direction = generator.uniform(0, 2 * math.pi)
    sway = generator.uniform(-0.01, 0.01, 2) * math.hypot(height, width)
    return Motion(
        anchor=((mask.shape[1] - 1) / 2, (mask.shape[0] - 1) / 2),
        middle=_pair(generator.uniform(0.15, 0.85, 2) * [width - 1, height - 1]),
        velocity=(speed * math.cos(direction), speed * math.sin(direction)),
        sway=_pair(sway),
        rate=float(generator.uniform(0.3, 0.9)),
        phase=float(generator.uniform(0, 2 * math.pi)),
        scale=scale,
        growth=float(generator.uniform(-GROWTH, GROWTH)),
        angle=float(generator.uniform(-0.15, 0.15)),
        turn=float(generator.uniform(-TURN, TURN)) * min(1.0, 12 / frames),
        mirrored=bool(generator.random() < 0.5),
    )


def _reduced(layer: Layer) -> Layer:
    """The layer in as many pixels as frames can show, so that reading it bilinearly leaves none out."""
    times = int(1 / layer.motion.scale)
    if times < 2:
        return layer
    height, width = (side - side % times for side in layer.ids.shape)
    image = functional.avg_pool2d(layer.image[None, :, :height, :width].float(), times)[0]
    ids = layer.ids[times // 2 : height : times, times // 2 : width : times]
    motion = layer.motion
    anchor = [(place - (times - 1) / 2) / times for place in motion.anchor]
    return Layer(
        image.round().to(torch.uint8),
        np.ascontiguousarray(ids),
        motion._replace(
            anchor=_pair(np.array(anchor)), pan=_pair(np.array(motion.pan) / times), scale=motion.scale * times
        ),
    )


def _owners(
    layers: tuple[Layer, ...], size_hw: tuple[int, int], time: float
) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """The layer that each pixel of a frame shows, and for each layer the place x y of each pixel in it, [H, W]."""
    rows, columns = np.mgrid[: size_hw[0], : size_hw[1]].astype(np.float64)
    owner = np.zeros(size_hw, dtype=np.int64)
    places: list[tuple[np.ndarray, np.ndarray]] = []
    for number, layer in enumerate(layers):
        affine = layer.motion.to_layer(time)
        x, y = (affine[axis, 0] * columns + affine[axis, 1] * rows + affine[axis, 2] for axis in range(2))
        places.append((x, y))
        if number:
            height, width = layer.ids.shape
            inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
            inside[inside] = layer.ids[_nearest(y[inside], height), _nearest(x[inside], width)] != 0
            owner[inside] = number
    return owner, places


def _nearest(along: np.ndarray, length: int) -> np.ndarray:
    return np.floor(along + 0.5).astype(np.int64).clip(0, length - 1)


def _bilinear(image: UInt8[Tensor, "3 h w"], x: np.ndarray, y: np.ndarray) -> UInt8[Tensor, "3 P"]:
    """The colours at places of a layer; beyond its edge those of the edge."""
    height, width = image.shape[1:]
    grid = np.stack([2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1], axis=-1)
    places = torch.from_numpy(grid).float()[None, None]
    found = functional.grid_sample(image[None].float(), places, "bilinear", "border", align_corners=True)
    return found[0, :, 0].round().clamp(0, 255).to(torch.uint8)


def _pair(values: np.ndarray) -> tuple[float, float]:
    return float(values[0]), float(values[1])
