"""Drawings with exact ground truth: discs, squares and triangles on noise, in colours that do not tell the class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw

from pixelwise.labels import LabelSet
from pixelwise.types import Annotation, Instances, Masks, Panoptic, Sample

LABELS = replace(
    LabelSet.from_names("drawn", ["background", "disc", "square", "triangle"]), is_thing=(False, True, True, True)
)


def draw_scene(seed: int, size_hw: tuple[int, int] = (96, 96)) -> tuple[np.ndarray, np.ndarray]:
    """One picture u8 [H, W, 3] and its class ids u8 [H, W]; later objects hide earlier ones."""
    picture, truth, _ = draw_objects(seed, size_hw)
    return picture, truth


class Shape(NamedTuple):
    """A disc (1), square (2) or triangle (3)."""

    kind: int
    radius: int
    x: int
    y: int
    colour: tuple[int, ...]


def drawn_shapes(seed: int, size_hw: tuple[int, int] = (96, 96), *, frame: int = 0) -> tuple[np.ndarray, list[Shape]]:
    """The coarse ground u8 [h, w, 3] and the objects on it, from far to near; each moves on its line."""
    generator = np.random.default_rng(seed)
    motions = np.random.default_rng((seed, 1))
    height, width = size_hw
    coarse = generator.integers(30, 130, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    shapes: list[Shape] = []
    for _ in range(int(generator.integers(1, 4))):
        kind = int(generator.integers(1, 4))
        radius = int(generator.integers(min(size_hw) // 8, min(size_hw) // 4))
        x, y = int(generator.integers(radius, width - radius)), int(generator.integers(radius, height - radius))
        x, y = (
            bounced(start + frame * int(motions.integers(-4, 5)), radius, side - radius - 1)
            for start, side in ((x, width), (y, height))
        )
        shapes.append(Shape(kind, radius, x, y, tuple(int(value) for value in generator.integers(120, 256, 3))))
    return coarse, shapes


def draw_objects(
    seed: int, size_hw: tuple[int, int] = (96, 96), *, frame: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same, and the number of the object, from 1 on, of each pixel; in later frames each has moved on its line."""
    height, width = size_hw
    coarse, shapes = drawn_shapes(seed, size_hw, frame=frame)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    truth, numbers = Image.new("L", (width, height), 0), Image.new("L", (width, height), 0)
    for number, (kind, radius, x, y, colour) in enumerate(shapes, start=1):
        for canvas, paint in ((picture, colour), (truth, kind), (numbers, number)):
            draw = ImageDraw.Draw(canvas)
            if kind == 1:
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=paint)
            elif kind == 2:
                draw.rectangle((x - radius, y - radius, x + radius, y + radius), fill=paint)
            else:
                draw.polygon(((x, y - radius), (x - radius, y + radius), (x + radius, y + radius)), fill=paint)
    noise = np.random.default_rng((seed, 2, frame)).integers(-12, 13, (height, width, 3))
    noisy = np.asarray(picture).astype(np.int16) + noise
    return noisy.clip(0, 255).astype(np.uint8), np.asarray(truth), np.asarray(numbers)


def drawn_flow(seed: int, size_hw: tuple[int, int], *, frame: int, reference: int) -> torch.Tensor:
    """Where each pixel of a frame is in another one, minus its own place; NaN where it is hidden there."""
    places, others = (
        np.array([(0, 0), *((shape.x, shape.y) for shape in drawn_shapes(seed, size_hw, frame=when)[1])])
        for when in (frame, reference)
    )
    numbers, there = (draw_objects(seed, size_hw, frame=when)[2] for when in (frame, reference))
    x, y = (others - places)[numbers].transpose(2, 0, 1)
    rows, columns = np.indices(size_hw)
    seen = there[rows + y, columns + x] == numbers  # walls keep all objects inside
    return torch.from_numpy(np.where(seen, [x, y], np.nan).astype(np.float32))


def bounced(place: int, low: int, high: int) -> int:
    """Where something that goes to and fro between two walls is."""
    turn = (place - low) % (2 * (high - low))
    return low + min(turn, 2 * (high - low) - turn)


def objects_of(truth: np.ndarray, numbers: np.ndarray) -> Instances:
    """What is visible of each object, its number as identity."""
    seen = [number for number in range(1, int(numbers.max()) + 1) if (numbers == number).any()]
    masks = Masks.from_arrays((numbers == number for number in seen), (truth.shape[0], truth.shape[1]))
    labels = torch.tensor([int(truth[numbers == number][0]) for number in seen], dtype=torch.int64)
    return Instances(
        boxes=masks.boxes.float(), labels=labels, masks=masks, track_ids=torch.tensor(seen, dtype=torch.int64)
    )


def drawn_sample(seed: int, size_hw: tuple[int, int], *, clip: str | None = None, frame: int = 0) -> Sample:
    """One drawing with its classes, objects and segments: 100 is the ground, then the numbers of the objects."""
    picture, truth, numbers = draw_objects(seed, size_hw, frame=frame)
    objects = objects_of(truth, numbers)
    assert objects.track_ids is not None
    panoptic = Panoptic(
        ids=torch.from_numpy(np.where(numbers == 0, 100, numbers).astype(np.int32)),
        segment_ids=torch.cat([torch.tensor([100]), objects.track_ids]).int(),
        labels=torch.cat([torch.tensor([0]), objects.labels]),
        crowd=torch.zeros(1 + len(objects), dtype=torch.bool),
    )
    return Sample(
        image=torch.from_numpy(picture.transpose(2, 0, 1).copy()),
        truth=Annotation(semantic=torch.from_numpy(truth.copy()), instances=objects, panoptic=panoptic),
        id=f"drawing {seed}" if clip is None else f"{clip}/{frame}",
        original_size=size_hw,
        clip=clip,
        frame=None if clip is None else frame,
    )


class DrawnScenes:
    """Drawings as a data set: number and place of the seeds make them new.

    Args:
        count: how many.
        first_seed: of the first; the others follow.
        size_hw: of each.
    """

    def __init__(self, count: int, *, first_seed: int, size_hw: tuple[int, int] = (96, 96)) -> None:
        self.count, self.first_seed, self.size_hw = count, first_seed, size_hw

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        return drawn_sample(self.first_seed + index, self.size_hw)


class DrawnClips:
    """The same as clips, in which the objects move.

    Args:
        count: how many clips.
        first_seed: of the first.
        frames: of each.
        size_hw: of each frame.
    """

    def __init__(self, count: int, *, first_seed: int, frames: int = 6, size_hw: tuple[int, int] = (96, 96)) -> None:
        self.first_seed, self.frames, self.size_hw = first_seed, frames, size_hw
        self.clips = tuple(f"clip {first_seed + number}" for number in range(count) for _ in range(frames))

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Sample:
        number, frame = divmod(index, self.frames)
        return drawn_sample(self.first_seed + number, self.size_hw, clip=self.clips[index], frame=frame)

    def flow(self, index: int, *, reference: int) -> torch.Tensor:
        """From a frame to another of its clip."""
        number, frame = divmod(index, self.frames)
        return drawn_flow(self.first_seed + number, self.size_hw, frame=frame, reference=reference)


def write_masks_tree(folder: Path, *, train: int, val: int, size_hw: tuple[int, int] = (64, 80)) -> Path:
    """Drawings on disk as a `masks:` set with train and val; returns the folder."""
    seed = 0
    for split, count in (("train", train), ("val", val)):
        for name in (split, f"{split}annot"):
            (folder / name).mkdir(parents=True)
        for _ in range(count):
            picture, truth = draw_scene(seed, size_hw)
            Image.fromarray(picture).save(folder / split / f"{seed:03}.png")
            Image.fromarray(truth).save(folder / f"{split}annot" / f"{seed:03}.png")
            seed += 1
    (folder / "labels.txt").write_text("\n".join(LABELS.names) + "\n", encoding="utf-8")
    return folder
