"""How images are brought to the size at which a network runs on them: a rule of each model, stored in its card.

Public codes differ in which side is given, in how sizes are rounded, and in the weights of the pixels; each of these
has a name here, so that the weights of others run on the pixels that they were evaluated on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from pixelwise.errors import RecipeError
from pixelwise.ops.resize import resize_image

Side = Literal["long", "short", "square", "none"]
Rounding = Literal["nearest", "torchvision", "torchvision_detection", "detectron2"]
Filter = Literal["antialiased", "pillow", "bilinear", "opencv"]

_FORMS = "expected the long side in pixels, or short:SIDE, short:SIDE:LIMIT, square:SIDE, none"


@dataclass(frozen=True, slots=True)
class ResizeRule:
    """Which size an image gets, and the values of its pixels.

    Attributes:
        side: `long`, `short`: this side gets `length`, the other follows in proportion; `square`: both do, without
            regard to the image's shape; `none`: images stay as they are.
        length: pixels of the side; 0 for `none`.
        limit: most pixels of the long side where the short one is given: where it would be longer, it gets these; 0 for
            no limit.
        rounding: of sides that are no whole numbers. `nearest`: to the nearest, halves to the even one, as semseg,
            Detectron and UPSNet; `torchvision`: down, as `torchvision.transforms`; `torchvision_detection`: down, the
            product of each side with one factor, as its detectors (where a side may miss `length` by a pixel);
            `detectron2`: to the nearest, halves up.
        filter: `antialiased`: weights over all pixels that a target pixel covers, rounded to whole values, by torch;
            `pillow`: the same by Pillow, whose rounding is another; `bilinear`: the four nearest pixels alone, not
            rounded, as torchvision's detectors, YOLACT and semseg; `opencv`: the same at distances of the factor
            instead of the quotient of the sizes, as `cv2.resize(image, None, fx=…, fy=…)` of UPSNet.
    """

    side: Side = "long"
    length: int = 512
    limit: int = 0
    rounding: Rounding = "nearest"
    filter: Filter = "antialiased"

    def __post_init__(self) -> None:
        if (self.length < 1) != (self.side == "none"):
            raise RecipeError(f"input size {self.length}: expected at least 1 pixel, and 0 with side none alone")
        if self.limit and (self.side != "short" or self.limit < self.length):
            raise RecipeError(
                f"input size {self.side}:{self.length}:{self.limit}: expected a limit of at least the short side, and "
                "of no other"
            )

    def __str__(self) -> str:
        """In words, such as `short side 800, long side at most 1333, not antialiased`."""
        size = {
            "long": f"long side {self.length}",
            "short": f"short side {self.length}",
            "square": f"{self.length}×{self.length}",
            "none": "as it is",
        }[self.side]
        limit = f", long side at most {self.limit}" if self.limit else ""
        return f"{size}{limit}{'' if self.is_antialiased or self.side == 'none' else ', not antialiased'}"

    @property
    def is_antialiased(self) -> bool:
        """Whether a smaller picture averages all pixels that it stands for."""
        return self.filter in ("antialiased", "pillow")

    @property
    def input_size(self) -> int | str:
        """The rule as `changed` takes it, without rounding and filter: 512, short:800:1333, square:550, none."""
        if self.side == "long":
            return self.length
        return ":".join(str(part) for part in (self.side, self.length, self.limit) if part)

    def changed(self, input_size: int | str | None) -> ResizeRule:
        """The rule for another size, with this one's rounding and filter.

        Args:
            input_size: the long side in pixels, or `short:SIDE`, `short:SIDE:LIMIT`, `square:SIDE`, `none`; None
                changes nothing.

        Raises:
            RecipeError: none of these.
        """
        if input_size is None:
            return self
        side, *numbers = str(input_size).split(":")
        if side not in get_args(Side):
            side, numbers = "long", [side, *numbers]
        most = {"short": (1, 2), "none": (0, 0)}.get(side, (1, 1))
        if not most[0] <= len(numbers) <= most[1] or not all(one.isascii() and one.isdigit() for one in numbers):
            raise RecipeError(f"input size {input_size}: {_FORMS}")
        length, limit = [*(int(one) for one in numbers), 0, 0][:2]
        return replace(self, side=side, length=length, limit=limit)

    def as_square(self) -> ResizeRule:
        """The rule of a network that runs on squares alone."""
        if self.side == "none":
            raise RecipeError("input size none: the model runs on squares; expected their side in pixels")
        return replace(self, side="square", limit=0)

    def size_of(self, size_hw: tuple[int, int], scale: float = 1.0) -> tuple[int, int]:
        """Height and width at which a network runs on an image, at least one pixel each.

        Args:
            size_hw: of the image.
            scale: factor on the given side.
        """
        length = max(1, round(scale * (self.length or max(size_hw))))
        if self.side == "square":
            return length, length
        height, width = size_hw
        if self.side == "none" and scale == 1:
            return height, width
        limit = max(1, round(scale * self.limit))
        found = self._sides(height, width, length, limit if self.limit else math.inf)
        return max(1, found[0]), max(1, found[1])

    def _sides(self, height: int, width: int, length: int, limit: float) -> tuple[int, int]:
        given, long = (min if self.side == "short" else max)(height, width), max(height, width)
        if self.rounding == "torchvision":
            if int(length * long / given) > limit:
                length, given = int(limit), long
            return int(length * height / given), int(length * width / given)
        if self.rounding == "torchvision_detection":
            factor = min(length / given, limit / long)
            return math.floor(height * factor), math.floor(width * factor)
        factor = length / given
        if self.rounding == "detectron2":
            sides = [length if side == given else factor * side for side in (height, width)]
            if max(sides) > limit:
                shorter = limit / max(sides)
                sides = [shorter * side for side in sides]
            return int(sides[0] + 0.5), int(sides[1] + 0.5)
        factor = self._factor(given, long, length, limit)
        return round(height * factor), round(width * factor)

    @staticmethod
    def _factor(given: int, long: int, length: int, limit: float) -> float:
        factor = length / given
        return limit / long if round(factor * long) > limit else factor

    def resized(self, image: UInt8[Tensor, "3 H W"], scale: float = 1.0) -> Tensor:
        """The pixels that a network sees.

        Args:
            image: as it is, on the CPU.
            scale: see `size_of`.

        Returns:
            [3, h, w] from 0 to 255, u8 where the filter rounds (or nothing is resized), else f32.
        """
        size = self.size_of((image.shape[1], image.shape[2]), scale)
        if size == tuple(image.shape[1:]):
            return image
        if self.filter == "antialiased":
            return resize_image(image, size)
        if self.filter == "pillow":
            picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
            smaller = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
            return torch.from_numpy(np.array(smaller)).permute(2, 0, 1)
        if self.filter == "opencv" and self.side in ("long", "short"):
            return self._by_factor(image, size, scale)
        return F.interpolate(image[None].float(), size=size, mode="bilinear", align_corners=False)[0]

    def _by_factor(self, image: UInt8[Tensor, "3 H W"], size: tuple[int, int], scale: float) -> Float[Tensor, "3 h w"]:
        height, width = image.shape[1:]
        given = (min if self.side == "short" else max)(height, width)
        limit = round(scale * self.limit) if self.limit else math.inf
        factor = self._factor(given, max(height, width), max(1, round(scale * self.length)), limit)
        pixels = image.permute(1, 2, 0).float().numpy()
        if (round(height * factor), round(width * factor)) != size:  # a side below one pixel
            found = cv2.resize(pixels, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
        else:
            found = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
        return torch.from_numpy(found).permute(2, 0, 1)
