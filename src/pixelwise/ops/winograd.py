"""Convolution with 3×3 kernels in a quarter of the multiplications.

Source: Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4.3: F(4×4, 3×3). Tiles of
6×6 pixels and the kernels are transformed, multiplied element by element and summed over channels, and transformed back
to 4×4 pixels. The transforms cost more than they save where channels are few.

With a dilation of d the pixels of equal remainders of row and column by d make d² maps of their own, undilated.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

INPUT_TRANSFORM = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
KERNEL_TRANSFORM = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
OUTPUT_TRANSFORM = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)
"""B, G and A transposed, as the paper has them."""


def tile_count(height: int, width: int, *, dilation: int = 1) -> int:
    """Tiles of 4×4 pixels that cover a map; without waste a sixteenth of its pixels."""
    return dilation**2 * -(-height // (4 * dilation)) * -(-width // (4 * dilation))


def transform_kernels(weight: Float[Tensor, "D C 3 3"]) -> Float[Tensor, "36 C D"]:
    """The kernels as `winograd_convolution` takes them: four times as much memory."""
    transform = weight.new_tensor(KERNEL_TRANSFORM)
    return torch.einsum("ai,dcij,bj->abcd", transform, weight, transform).flatten(0, 1).contiguous()


def winograd_convolution(
    x: Float[Tensor, "B C h w"], kernels: Float[Tensor, "36 C D"], *, dilation: int = 1
) -> Float[Tensor, "B D h w"]:
    """`conv2d(x, weight, padding=dilation, dilation=dilation)` to rounding: in float32 1e-5 of the largest value.

    Args:
        x: best laid out with channels last, as the result is.
        kernels: from `transform_kernels`.
        dilation: between the taps.
    """
    batch, channels, height, width = x.shape
    rows, columns = (-(-side // (4 * dilation)) for side in (height, width))
    beyond_x, beyond_y = 4 * dilation * columns - width, 4 * dilation * rows - height
    padding = (0, 0, dilation, beyond_x + dilation, dilation, beyond_y + dilation)
    padded = F.pad(x.permute(0, 2, 3, 1), padding)
    to_image, to_row, to_column, to_channel = padded.stride()
    tiles = padded.as_strided(
        (6, 6, batch, dilation, dilation, rows, columns, channels),
        (
            to_row * dilation,
            to_column * dilation,
            to_image,
            to_row,
            to_column,
            to_row * 4 * dilation,
            to_column * 4 * dilation,
            to_channel,
        ),
    )
    count = batch * dilation**2 * rows * columns
    transformed = _on_both_sides(x.new_tensor(INPUT_TRANSFORM)) @ tiles.reshape(36, count * channels)
    products = torch.bmm(transformed.view(36, count, channels), kernels)
    result = _on_both_sides(x.new_tensor(OUTPUT_TRANSFORM)) @ products.view(36, -1)
    # tile row and column, image, remainders of row and column, place of the tile, channel: back to places in the image
    pixels = result.view(4, 4, batch, dilation, dilation, rows, columns, -1).permute(2, 5, 0, 3, 6, 1, 4, 7)
    pixels = pixels.reshape(batch, 4 * dilation * rows, 4 * dilation * columns, -1)
    return pixels[:, :height, :width].permute(0, 3, 1, 2)


def _on_both_sides(transform: Float[Tensor, "n 6"]) -> Float[Tensor, "m 36"]:
    """The matrix that transforms the rows and the columns of a flattened 6×6 tile."""
    return torch.kron(transform, transform)
