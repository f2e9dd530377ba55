"""Augmentation: one geometry is drawn for an image and applied to picture and ground truth alike.

Pixels are squares: the picture is resampled with weights over the source pixels that a target pixel covers, the ids
are read at the target pixel's centre, so a marked pixel lands in the same place in both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor

from pixelwise.contracts import Augmentation
from pixelwise.data.loading.window import MEAN_RGB, drawn_window
from pixelwise.errors import DataError
from pixelwise.ops.resize_rule import ResizeRule
from pixelwise.ops.superpixels import Regions
from pixelwise.types import Annotation, Instances, Masks, Sample


@dataclass(frozen=True)
class Geometry:
    """Where a training crop comes from.

    Attributes:
        source_box: x1 y1 x2 y2 in the image, fractions of a pixel allowed.
        filled_hw: height and width of the part of the crop that the source box fills, at its top left.
        crop_hw: height and width of the crop; beyond `filled_hw` it holds the mean colour and void.
        flip: whether the crop is mirrored afterwards, padding included.
        degrees: by which the image is turned about its centre before, counter-clockwise; what comes in from outside
            holds the mean colour and void too.
    """

    source_box: tuple[float, float, float, float]
    filled_hw: tuple[int, int]
    crop_hw: tuple[int, int]
    flip: bool
    degrees: float = 0.0

    def cut(self, image: UInt8[Tensor, "3 H W"]) -> Image.Image:
        """The picture of the source box at the size it fills."""
        picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        x1, y1, x2, y2 = self.source_box
        height, width = self.filled_hw
        if not self.degrees:
            return picture.resize((width, height), Image.Resampling.BILINEAR, box=self.source_box)
        # scaled first, with weights over all the pixels that a smaller one covers, and turned then
        size = round(picture.width * width / (x2 - x1)), round(picture.height * height / (y2 - y1))
        size = max(1, size[0]), max(1, size[1])
        to_scaled = np.diag((size[0] / picture.width, size[1] / picture.height))
        matrix = (to_scaled @ self._turned((picture.height, picture.width))).ravel().tolist()
        return picture.resize(size, Image.Resampling.BILINEAR).transform(
            (width, height),
            Image.Transform.AFFINE,
            matrix,
            Image.Resampling.BILINEAR,
            fillcolor=MEAN_RGB,
        )

    def place(self, picture: Image.Image) -> UInt8[Tensor, "3 h w"]:
        """The crop with that picture in its place and the mean colour around it."""
        height, width = self.filled_hw
        crop = np.empty((*self.crop_hw, 3), dtype=np.uint8)
        crop[:] = MEAN_RGB
        crop[:height, :width] = np.asarray(picture)
        return self._mirrored(crop.transpose(2, 0, 1))

    def apply_ids(self, ids: Tensor, fill: float) -> Tensor:
        """The crop of a map of ids [H, W], each read at the centre of its pixel; `fill` outside."""
        source = ids.numpy()
        crop = np.full(self.crop_hw, fill, dtype=source.dtype)
        height, width = self.filled_hw
        crop[:height, :width] = self._turned_ids(source, fill) if self.degrees else self._upright_ids(source)
        return self._mirrored(crop)

    def apply_flow(self, flow: Float[Tensor, "2 H W"]) -> Float[Tensor, "2 h w"]:
        """The crop of an optical flow to an image that is cropped alike; NaN outside."""
        x, y = (self.apply_ids(along, float("nan")) for along in flow)
        (xx, xy), (yx, yy) = np.linalg.inv(self._turned((flow.shape[1], flow.shape[2]))[:, :2]).tolist()
        right = xx * x + xy * y
        return torch.stack([-right if self.flip else right, yx * x + yy * y])

    def apply_masks(self, masks: Masks) -> Masks:
        """The crop of each mask, object by object, each pixel read as `apply_ids` reads it; some may be empty."""
        place = self._turned_masks if self.degrees else self._upright_masks
        width = self.crop_hw[1]
        crops: list[Tensor] = []
        boxes: list[tuple[int, int, int, int]] = []
        for (x1, y1), crop in place(masks):
            rows, columns = np.flatnonzero(crop.any(axis=1)), np.flatnonzero(crop.any(axis=0))
            if not rows.size:
                crops.append(torch.zeros(0, 0, dtype=torch.uint8))
                boxes.append((0, 0, 0, 0))
                continue
            tight = crop[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            left, top = x1 + int(columns[0]), y1 + int(rows[0])
            left = width - left - tight.shape[1] if self.flip else left
            crops.append(self._mirrored(tight))
            boxes.append((left, top, left + tight.shape[1], top + tight.shape[0]))
        return Masks.from_crops(crops, boxes, self.crop_hw)

    def _upright_masks(self, masks: Masks) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
        """Where the part of each mask lies in the crop, and that part."""
        rows, columns = self._upright_places(masks.size)
        for index, (x1, y1, x2, y2) in enumerate(masks.boxes.tolist()):
            top, bottom = np.searchsorted(rows, (y1, y2)).tolist()
            left, right = np.searchsorted(columns, (x1, x2)).tolist()
            crop = masks.crop(index).numpy()
            yield (left, top), crop[rows[top:bottom, None] - y1, columns[None, left:right] - x1]

    def _turned_masks(self, masks: Masks) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
        rows, columns = self._turned_places(masks.size)
        for index, (x1, y1, x2, y2) in enumerate(masks.boxes.tolist()):
            inside = (rows >= y1) & (rows < y2) & (columns >= x1) & (columns < x2)
            crop = masks.crop(index).numpy()
            if not crop.size:
                yield (0, 0), crop
                continue
            yield (0, 0), crop[np.where(inside, rows - y1, 0), np.where(inside, columns - x1, 0)] * inside

    def _upright_ids(self, source: np.ndarray) -> np.ndarray:
        rows, columns = self._upright_places(source.shape)
        return source[rows[:, None], columns[None, :]]

    def _upright_places(self, size_hw: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """The row and the column of the image in which each row and column of the filled part has its centre."""
        x1, y1, x2, y2 = self.source_box
        height, width = self.filled_hw
        rows = np.minimum(y1 + (np.arange(height) + 0.5) * ((y2 - y1) / height), size_hw[0] - 0.5)
        columns = np.minimum(x1 + (np.arange(width) + 0.5) * ((x2 - x1) / width), size_hw[1] - 0.5)
        return rows.astype(np.int64), columns.astype(np.int64)

    def _turned_ids(self, source: np.ndarray, fill: float) -> np.ndarray:
        rows, columns = self._turned_places(source.shape)
        inside = (rows >= 0) & (rows < source.shape[0]) & (columns >= 0) & (columns < source.shape[1])
        found = source[np.where(inside, rows, 0), np.where(inside, columns, 0)]
        return np.where(inside, found, source.dtype.type(fill))

    def _turned_places(self, size_hw: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """The same for each pixel of the filled part of a turned crop; may lie outside of the image."""
        height, width = self.filled_hw
        (xx, xy, x0), (yx, yy, y0) = self._turned(size_hw)
        u, v = np.arange(width)[None, :] + 0.5, np.arange(height)[:, None] + 0.5
        columns, rows = (np.floor(along).astype(np.int64) for along in (xx * u + xy * v + x0, yx * u + yy * v + y0))
        return rows, columns

    def _turned(self, size_hw: tuple[int, ...]) -> np.ndarray:
        """The 2 × 3 matrix from x y 1 in the crop to x y in the image, both with pixel centres at halves."""
        x1, y1, x2, y2 = self.source_box
        height, width = self.filled_hw
        upright = np.array(((x2 - x1) / width, 0, x1, 0, (y2 - y1) / height, y1)).reshape(2, 3)
        cos, sin = np.cos(np.radians(self.degrees)), np.sin(np.radians(self.degrees))
        turn = np.array(((cos, -sin), (sin, cos)))
        centre = np.array((size_hw[1] / 2, size_hw[0] / 2))
        matrix = turn @ upright
        matrix[:, 2] += centre - turn @ centre
        return matrix

    def _mirrored(self, crop: np.ndarray) -> Tensor:
        """The crop [..., H, W], in the mirror if so drawn."""
        crop = crop[..., ::-1] if self.flip else crop
        return torch.from_numpy(crop.copy())  # numpy calls one mirrored column contiguous, torch refuses its stride


def draw_geometry(
    generator: np.random.Generator,
    size_hw: tuple[int, int],
    *,
    augmentation: Augmentation,
    crop_size: int | tuple[int, int],
    resize: ResizeRule,
) -> Geometry:
    """Draw scale, turn, place and mirror of one crop.

    Args:
        generator: the sample's own.
        size_hw: of the image.
        augmentation: see there for how the size is drawn.
        crop_size: side of the crop in pixels, or its height and width; 0 for the whole image.
        resize: to which size images are brought where they are evaluated.
    """
    height, width = drawn_size(generator, size_hw, augmentation=augmentation, resize=resize)
    degrees = 0.0
    if augmentation.rotate and generator.random() < 0.5:
        degrees = float(generator.uniform(-augmentation.rotate, augmentation.rotate))
    crop_hw = (crop_size, crop_size) if isinstance(crop_size, int) else crop_size
    if not crop_size:
        crop_hw = (height, width)
    top = int(generator.integers(0, max(0, height - crop_hw[0]) + 1))
    left = int(generator.integers(0, max(0, width - crop_hw[1]) + 1))
    filled_hw = (min(crop_hw[0], height), min(crop_hw[1], width))
    to_source_y, to_source_x = size_hw[0] / height, size_hw[1] / width
    return Geometry(
        source_box=(
            left * to_source_x,
            top * to_source_y,
            min((left + filled_hw[1]) * to_source_x, float(size_hw[1])),
            min((top + filled_hw[0]) * to_source_y, float(size_hw[0])),
        ),
        filled_hw=filled_hw,
        crop_hw=crop_hw,
        flip=bool(generator.random() < augmentation.flip),
        degrees=degrees,
    )


def drawn_size(
    generator: np.random.Generator,
    size_hw: tuple[int, int],
    *,
    augmentation: Augmentation,
    resize: ResizeRule,
) -> tuple[int, int]:
    """Height and width to which an image is scaled; see `draw_geometry`."""
    step, least = augmentation.scale_step, augmentation.scale_min
    if step:
        steps = round((augmentation.scale_max - least) / step, 6)
        scale = least + step * int(generator.integers(int(steps) + 1))
    else:
        scale = generator.uniform(least, augmentation.scale_max)
    if augmentation.short_sides:
        side = augmentation.short_sides[int(generator.integers(len(augmentation.short_sides)))]
        return replace(resize, side="short", length=side).size_of(size_hw, scale)
    if augmentation.scale_around == "image":
        return max(1, round(size_hw[0] * scale)), max(1, round(size_hw[1] * scale))
    return resize.size_of(size_hw, scale)


def blurred(picture: Image.Image) -> Image.Image:
    """The picture under a 5×5 Gaussian of standard deviation 1.1, mirrored at its edges.

    The width is what OpenCV takes for five pixels, as in the authors' training code of PSPNet (Zhao et al., 2017).
    """
    wide = np.pad(np.asarray(picture), ((2, 2), (2, 2), (0, 0)), mode="reflect")
    line = np.exp(-0.5 * (np.arange(-2, 3) / 1.1) ** 2)
    weights = np.outer(line, line) / line.sum() ** 2
    whole = Image.fromarray(wide).filter(ImageFilter.Kernel((5, 5), weights.ravel().tolist(), scale=1.0))
    return whole.crop((2, 2, wide.shape[1] - 2, wide.shape[0] - 2))


def change_colours(picture: Image.Image, generator: np.random.Generator, augmentation: Augmentation) -> Image.Image:
    """Draw and apply brightness, contrast, saturation and hue, in this order; those of size 0 are skipped.

    Works on Pillow images, whose integer arithmetic gives the same result with any number of threads.
    """
    for size, enhancer in (
        (augmentation.brightness, ImageEnhance.Brightness),
        (augmentation.contrast, ImageEnhance.Contrast),
        (augmentation.saturation, ImageEnhance.Color),
    ):
        if size and _is_drawn(generator, augmentation.colour_probability):
            picture = enhancer(picture).enhance(float(generator.uniform(max(0.0, 1 - size), 1 + size)))
    if augmentation.hue and _is_drawn(generator, augmentation.colour_probability):
        turn = round(float(generator.uniform(-augmentation.hue, augmentation.hue)) * 256)
        hue, saturation, value = picture.convert("HSV").split()
        turned = hue.point([(level + turn) % 256 for level in range(256)])
        picture = Image.merge("HSV", (turned, saturation, value)).convert("RGB")
    return picture


def _is_drawn(generator: np.random.Generator, probability: float) -> bool:
    """Nothing is drawn for what is certain."""
    return probability == 1 or generator.random() < probability


@dataclass(frozen=True)
class TrainingCrop:
    """Window, scale, turn, blur, mirror, crop and colour change of a training sample, in SSD's and PSPNet's order.

    The mirror follows the crop and the blur ends at the crop's edge, which changes nothing but where padding lies.

    Attributes:
        augmentation: how far each may go.
        crop_size: side of the crop in pixels, or its height and width; 0 for the whole image.
        resize: see `draw_geometry`; pixels of all rules are weighed by Pillow.
        ignore_id: what the ground truth holds outside the image.
    """

    augmentation: Augmentation
    crop_size: int | tuple[int, int]
    resize: ResizeRule
    ignore_id: int

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """The augmented sample; everything random comes from `generator`."""
        if self.augmentation.expand or self.augmentation.sample_crop:
            sample = drawn_window(sample, generator, self.augmentation, ignore_id=self.ignore_id)
        geometry = draw_geometry(
            generator,
            (sample.image.shape[1], sample.image.shape[2]),
            augmentation=self.augmentation,
            crop_size=self.crop_size,
            resize=self.resize,
        )
        picture = geometry.cut(sample.image)
        if self.augmentation.blur and generator.random() < self.augmentation.blur:
            picture = blurred(picture)
        image = geometry.place(change_colours(picture, generator, self.augmentation))
        semantic, instances, flow = sample.truth.semantic, sample.truth.instances, sample.truth.flow
        proposals = None if sample.proposals is None else cropped_regions(sample.proposals, geometry)
        truth = Annotation(
            semantic=None if semantic is None else geometry.apply_ids(semantic, self.ignore_id),
            instances=None if instances is None else cropped_instances(instances, geometry),
            flow=None if flow is None else geometry.apply_flow(flow),
        )
        return replace(sample, image=image, truth=truth, proposals=proposals)


def cropped_regions(regions: Regions, geometry: Geometry) -> Regions:
    """The regions of which the crop shows a pixel; what lies outside of the image is one more superpixel, of none."""
    outside = regions.members.shape[1]
    members = F.pad(regions.members, (0, 1))
    cropped = Regions(geometry.apply_ids(regions.superpixels, outside), members)
    return cropped._replace(members=members[(members & (cropped.areas() > 0)).any(dim=1)])


def cropped_instances(instances: Instances, geometry: Geometry) -> Instances:
    """The objects of which the crop shows a pixel, in tight boxes. Raises DataError for objects without masks."""
    if instances.masks is None:
        raise DataError("instances without masks; expected masks to train on")
    masks = geometry.apply_masks(instances.masks)
    shown = (masks.areas() > 0).nonzero().flatten()
    masks = masks[shown]
    return replace(instances[shown], boxes=masks.boxes.float(), masks=masks, areas=None)
