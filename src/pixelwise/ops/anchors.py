"""Anchors: reference boxes around each cell of a feature map. Boxes are x1 y1 x2 y2 in pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def base_anchors(sizes: Sequence[float], ratios: Sequence[float], *, is_rounded: bool) -> Float[Tensor, "A 4"]:
    """The anchors of one cell, centred at 0: of each size and ratio, with the area size².

    Args:
        sizes: in pixels.
        ratios: height over width.
        is_rounded: torchvision's: corners at whole pixels, all sizes of a ratio follow each other. Otherwise
            detectron2's: exact, all ratios of a size follow each other.
    """
    size, root = torch.tensor([*sizes], dtype=torch.float32), torch.tensor([*ratios], dtype=torch.float32).sqrt()
    if is_rounded:
        widths, heights = (1 / root)[:, None] * size, root[:, None] * size
    else:
        widths, heights = size[:, None] / root, size[:, None] * root
    widths, heights = widths.flatten(), heights.flatten()
    anchors = torch.stack([-widths, -heights, widths, heights], dim=1) / 2
    return anchors.round() if is_rounded else anchors


def inclusive_anchors(sizes: Sequence[float], ratios: Sequence[float], stride: float) -> Float[Tensor, "A 4"]:
    """The anchors of one cell in Detectron's convention, centred at 0: anchors of the stride's area have integer sides
    and are scaled to each size. All sizes of a ratio follow each other.

    Args:
        sizes: in pixels.
        ratios: height over width.
        stride: of the map.
    """
    widths = [round((stride * stride / ratio) ** 0.5) for ratio in ratios]
    heights = [round(width * ratio) for width, ratio in zip(widths, ratios, strict=True)]
    sides = zip(widths, heights, strict=True)
    half = torch.tensor([[width * size / stride, height * size / stride] for width, height in sides for size in sizes])
    return torch.cat([-half, half], dim=1) / 2


def grid_anchors(
    base: Float[Tensor, "A 4"], grid: tuple[int, int], stride: tuple[float, float], *, offset: float = 0.0
) -> Float[Tensor, "N 4"]:
    """The anchors of all cells of a feature map: cell by cell, row by row, and within a cell in the order of `base`.

    Args:
        base: of one cell, centred at 0.
        grid: height and width of the map.
        stride: pixels of the image from cell to cell, downwards and to the right.
        offset: position of an anchor's centre in its cell, in fractions of the stride: 0 at the upper left corner, as
            in torchvision and by default in detectron2; 0.5 in the middle.
    """
    y = (torch.arange(grid[0], dtype=base.dtype, device=base.device) + offset) * stride[0]
    x = (torch.arange(grid[1], dtype=base.dtype, device=base.device) + offset) * stride[1]
    return _at_centres(base, y, x)


def centred_anchors(
    grid: tuple[int, int],
    image_size: tuple[int, int],
    *,
    sizes: Sequence[float],
    ratios: Sequence[float],
    is_square: bool = False,
) -> Float[Tensor, "N 4"]:
    """The anchors of SSD and YOLACT: around the centre of each cell, where the cells divide the image evenly.

    The order is that of `grid_anchors`; within a cell all ratios of a size follow each other.

    Args:
        grid: height and width of the map.
        image_size: height and width of the image in pixels.
        sizes: in pixels; the area is size².
        ratios: width over height.
        is_square: set the height to the width, as YOLACT's release does by mistake, with which its weights were trained
            (sides 24, 16.97 and 33.94 for the ratios 1, 1/2 and 2).
    """
    widths = torch.tensor([size * ratio**0.5 for size in sizes for ratio in ratios])
    heights = widths if is_square else torch.tensor([size / ratio**0.5 for size in sizes for ratio in ratios])
    base = torch.stack([-widths, -heights, widths, heights], dim=1) / 2
    y, x = ((torch.arange(cells) + 0.5) / cells * pixels for cells, pixels in zip(grid, image_size, strict=True))
    return _at_centres(base, y, x)


def _at_centres(base: Float[Tensor, "A 4"], y: Float[Tensor, " h"], x: Float[Tensor, " w"]) -> Float[Tensor, "N 4"]:
    y, x = torch.meshgrid(y, x, indexing="ij")
    centres = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
    return (centres + base).reshape(-1, 4)
