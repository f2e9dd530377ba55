"""Augmentation: one geometry is drawn for an image and applied to picture and truth alike.

Pixels are squares: the picture is resampled with weights over the source pixels that a target pixel covers, the ids
are read at the target pixel's centre, so a marked pixel lands in the same place in both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageEnhance
from torch import Tensor

from pixelwise.contracts import Augmentation
from pixelwise.ops.resize import long_side_size
from pixelwise.types import Annotation, Sample

MEAN_RGB = (124, 116, 104)
"""ImageNet's mean colour, which fills what lies outside the image."""


@dataclass(frozen=True)
class Geometry:
    """Where a training crop comes from.

    Attributes:
        source_box: x1 y1 x2 y2 in the image, fractions of a pixel allowed.
        filled_hw: height and width of the part of the crop that the source box fills, at its top left.
        crop_hw: height and width of the crop; beyond `filled_hw` it holds the mean colour and void.
        flip: whether the crop is mirrored afterwards, padding included.
    """

    source_box: tuple[float, float, float, float]
    filled_hw: tuple[int, int]
    crop_hw: tuple[int, int]
    flip: bool

    def cut(self, image: UInt8[Tensor, "3 H W"]) -> Image.Image:
        """The picture of the source box at the size it fills."""
        picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        height, width = self.filled_hw
        return picture.resize((width, height), Image.Resampling.BILINEAR, box=self.source_box)

    def place(self, picture: Image.Image) -> UInt8[Tensor, "3 h w"]:
        """The crop with that picture in its place and the mean colour around it."""
        height, width = self.filled_hw
        crop = np.empty((*self.crop_hw, 3), dtype=np.uint8)
        crop[:] = MEAN_RGB
        crop[:height, :width] = np.asarray(picture)
        return torch.from_numpy(np.ascontiguousarray(self._mirrored(crop).transpose(2, 0, 1)))

    def apply_ids(self, ids: Tensor, fill: int) -> Tensor:
        """The crop of a map of ids [H, W], each read at the centre of its pixel; `fill` outside."""
        x1, y1, x2, y2 = self.source_box
        height, width = self.filled_hw
        rows = np.minimum(y1 + (np.arange(height) + 0.5) * ((y2 - y1) / height), ids.shape[0] - 0.5).astype(np.int64)
        columns = np.minimum(x1 + (np.arange(width) + 0.5) * ((x2 - x1) / width), ids.shape[1] - 0.5).astype(np.int64)
        source = ids.numpy()
        crop = np.full(self.crop_hw, fill, dtype=source.dtype)
        crop[:height, :width] = source[rows[:, None], columns[None, :]]
        return torch.from_numpy(np.ascontiguousarray(self._mirrored(crop)))

    def _mirrored(self, crop: np.ndarray) -> np.ndarray:
        return crop[:, ::-1] if self.flip else crop


def draw_geometry(
    generator: np.random.Generator,
    size_hw: tuple[int, int],
    *,
    augmentation: Augmentation,
    crop_size: int,
    input_size: int,
) -> Geometry:
    """Draw scale, place and mirror of one crop.

    Args:
        generator: the sample's own.
        size_hw: of the image.
        augmentation: the scale is uniform between its bounds, times `input_size`, and becomes the image's long side.
        crop_size: side of the crop in pixels.
        input_size: long side at which images are judged.
    """
    scale = generator.uniform(augmentation.scale_min, augmentation.scale_max)
    height, width = long_side_size(size_hw, max(1, round(scale * input_size)))
    top = int(generator.integers(0, max(0, height - crop_size) + 1))
    left = int(generator.integers(0, max(0, width - crop_size) + 1))
    filled_hw = (min(crop_size, height), min(crop_size, width))
    to_source_y, to_source_x = size_hw[0] / height, size_hw[1] / width
    return Geometry(
        source_box=(
            left * to_source_x,
            top * to_source_y,
            min((left + filled_hw[1]) * to_source_x, float(size_hw[1])),
            min((top + filled_hw[0]) * to_source_y, float(size_hw[0])),
        ),
        filled_hw=filled_hw,
        crop_hw=(crop_size, crop_size),
        flip=bool(generator.random() < augmentation.flip),
    )


def change_colours(picture: Image.Image, generator: np.random.Generator, augmentation: Augmentation) -> Image.Image:
    """Draw and apply brightness, contrast, saturation and hue, in this order; those of size 0 are left out.

    Works on Pillow pictures, whose integer arithmetic gives the same answer with any number of threads.
    """
    for size, enhancer in (
        (augmentation.brightness, ImageEnhance.Brightness),
        (augmentation.contrast, ImageEnhance.Contrast),
        (augmentation.saturation, ImageEnhance.Color),
    ):
        if size:
            picture = enhancer(picture).enhance(float(generator.uniform(max(0.0, 1 - size), 1 + size)))
    if augmentation.hue:
        turn = round(float(generator.uniform(-augmentation.hue, augmentation.hue)) * 256)
        hue, saturation, value = picture.convert("HSV").split()
        turned = hue.point([(level + turn) % 256 for level in range(256)])
        picture = Image.merge("HSV", (turned, saturation, value)).convert("RGB")
    return picture


@dataclass(frozen=True)
class TrainingCrop:
    """Scale, crop, mirror and colour change of a training sample.

    Attributes:
        augmentation: how far each may go.
        crop_size: side of the crop in pixels.
        input_size: long side at which images are judged.
        ignore_id: what the truth holds outside the image.
    """

    augmentation: Augmentation
    crop_size: int
    input_size: int
    ignore_id: int

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """The augmented sample; everything random comes from `generator`."""
        geometry = draw_geometry(
            generator,
            (sample.image.shape[1], sample.image.shape[2]),
            augmentation=self.augmentation,
            crop_size=self.crop_size,
            input_size=self.input_size,
        )
        image = geometry.place(change_colours(geometry.cut(sample.image), generator, self.augmentation))
        semantic = sample.truth.semantic
        truth = Annotation(semantic=None if semantic is None else geometry.apply_ids(semantic, self.ignore_id))
        return replace(sample, image=image, truth=truth)
