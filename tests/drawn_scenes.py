"""Fresh drawings with exact truth: discs, squares and triangles on noise, in colours that do not tell the class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from pixelwise.labels import LabelSet
from pixelwise.types import Annotation, Instances, Masks, Sample

LABELS = replace(
    LabelSet.from_names("drawn", ["background", "disc", "square", "triangle"]), is_thing=(False, True, True, True)
)


def draw_scene(seed: int, size_hw: tuple[int, int] = (96, 96)) -> tuple[np.ndarray, np.ndarray]:
    """One picture u8 [H, W, 3] and its class ids u8 [H, W]; later objects hide earlier ones."""
    picture, truth, _ = draw_objects(seed, size_hw)
    return picture, truth


def draw_objects(seed: int, size_hw: tuple[int, int] = (96, 96)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same, and the number of the object, from 1 on, of each pixel."""
    generator = np.random.default_rng(seed)
    height, width = size_hw
    coarse = generator.integers(30, 130, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    truth, numbers = Image.new("L", (width, height), 0), Image.new("L", (width, height), 0)
    for number in range(1, 1 + int(generator.integers(1, 4))):
        kind = int(generator.integers(1, 4))
        radius = int(generator.integers(min(size_hw) // 8, min(size_hw) // 4))
        x, y = int(generator.integers(radius, width - radius)), int(generator.integers(radius, height - radius))
        colour = tuple(int(value) for value in generator.integers(120, 256, 3))
        for canvas, paint in ((picture, colour), (truth, kind), (numbers, number)):
            draw = ImageDraw.Draw(canvas)
            if kind == 1:
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=paint)
            elif kind == 2:
                draw.rectangle((x - radius, y - radius, x + radius, y + radius), fill=paint)
            else:
                draw.polygon(((x, y - radius), (x - radius, y + radius), (x + radius, y + radius)), fill=paint)
    noisy = np.asarray(picture).astype(np.int16) + generator.integers(-12, 13, (height, width, 3))
    return noisy.clip(0, 255).astype(np.uint8), np.asarray(truth), np.asarray(numbers)


def objects_of(truth: np.ndarray, numbers: np.ndarray) -> Instances:
    """What is seen of each object."""
    seen = [number for number in range(1, int(numbers.max()) + 1) if (numbers == number).any()]
    masks = Masks.from_arrays((numbers == number for number in seen), (truth.shape[0], truth.shape[1]))
    labels = torch.tensor([int(truth[numbers == number][0]) for number in seen], dtype=torch.int64)
    return Instances(boxes=masks.boxes.float(), labels=labels, masks=masks)


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
        picture, truth, numbers = draw_objects(self.first_seed + index, self.size_hw)
        return Sample(
            image=torch.from_numpy(picture.transpose(2, 0, 1).copy()),
            truth=Annotation(semantic=torch.from_numpy(truth.copy()), instances=objects_of(truth, numbers)),
            id=f"drawing {self.first_seed + index}",
            original_size=self.size_hw,
        )


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
