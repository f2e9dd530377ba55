"""Convert all accepted image inputs of a predictor to one tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from pixelwise.errors import DataError
from pixelwise.files.images import read_image, rgb_tensor

ImageInput = str | Path | Image.Image | np.ndarray | Tensor
"""A path; a Pillow image; an array u8[H,W,3] or u8[H,W]; a tensor u8[3,H,W], or f32[3,H,W] in [0, 1]. Colours: RGB."""


def image_tensor(image: ImageInput) -> UInt8[Tensor, "3 H W"]:
    """The image as RGB on the CPU, upright by its EXIF tag.

    Raises:
        DataError: the file cannot be read, or the value is of another type, shape or range.
    """
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, Image.Image):
        return rgb_tensor(ImageOps.exif_transpose(image), source="image")
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if isinstance(image, Tensor):
        return _from_tensor(image)
    raise DataError(
        f"an image is a path, a Pillow image, an array u8[H,W,3] or a tensor [3,H,W], not a {type(image).__name__}"
    )


def _from_array(array: np.ndarray) -> UInt8[Tensor, "3 H W"]:
    is_grey = array.ndim == 2
    if array.dtype != np.uint8 or not (is_grey or (array.ndim == 3 and array.shape[2] == 3)) or not array.size:
        raise DataError(
            f"an array must be u8[H,W,3] (RGB) or u8[H,W] (grey), this one is {array.dtype}{list(array.shape)}; "
            "convert values to 0-255, drop transparency, give the images of a stack as a list"
        )
    colours = np.repeat(array[:, :, None], 3, axis=2) if is_grey else array
    return torch.from_numpy(np.ascontiguousarray(colours.transpose(2, 0, 1)))


def _from_tensor(tensor: Tensor) -> UInt8[Tensor, "3 H W"]:
    is_float = tensor.is_floating_point()
    if tensor.ndim != 3 or tensor.shape[0] != 3 or not tensor.numel() or not (is_float or tensor.dtype == torch.uint8):
        kind = str(tensor.dtype).removeprefix("torch.")
        raise DataError(
            f"a tensor must be u8[3,H,W], or float[3,H,W] in [0, 1], this one is {kind}{list(tensor.shape)}; "
            "give the images of a batch as a list"
        )
    tensor = tensor.detach().cpu()
    if not is_float:
        return tensor.contiguous()
    low, high = float(tensor.min()), float(tensor.max())
    if not (low >= 0 and high <= 1):  # NaN fails, too
        raise DataError(
            f"a float tensor must lie in [0, 1], this one has {low:g} to {high:g}; "
            "give it unnormalised, the model normalises it itself"
        )
    return tensor.float().mul(255).round().to(torch.uint8).contiguous()
