"""Paste the small masks of boxes into an image, packed as in `types.Masks`.

Bilinear enlargement is a product of three matrices, rows × mask × columns, of which only the pixels of the box are
computed, some rows at a time: never N×H×W, nor a box in floating point.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int32, Int64, UInt8
from torch import Tensor

Convention = Literal["torchvision", "detectron2"]
"""Position of a mask of M×M cells in its box.

- `torchvision`, as Detectron: with a border of one cell of zeros, in a box that is larger by (M + 2) / M, whose corners
  are rounded down and whose last pixels are included.
- `detectron2`: the cells divide the box evenly, and a pixel takes the value at its centre; zero outside.
"""

SLAB_PIXELS = 2**20
"""Pixels that are held in floating point at a time."""


class Pasted(NamedTuple):
    """N masks as `types.Masks` holds them.

    Attributes:
        crops: 0 or 1, row by row.
        offsets: where in `crops` each begins.
        boxes: x1 y1 x2 y2 of the crops, inside the image; 0 0 0 0 of a box that has no pixel of it.
    """

    crops: UInt8[Tensor, " P"]
    offsets: Int64[Tensor, " N"]
    boxes: Int32[Tensor, "N 4"]


def paste_masks(
    masks: Float[Tensor, "N M M"],
    boxes: Float[Tensor, "N 4"],
    size: tuple[int, int],
    *,
    convention: Convention = "torchvision",
    threshold: float = 0.5,
) -> Pasted:
    """Enlarge each mask to its box and threshold it.

    Source: `paste_masks_in_image` of torchvision (`models/detection/roi_heads.py`) and of detectron2
    (`layers/mask_ops.py`), without their images of the full size.

    Args:
        masks: probabilities.
        boxes: of each, in pixels of the image.
        size: height and width of the image.
        convention: see Convention.
        threshold: smallest probability inside a mask.
    """
    height, width = size
    padded = F.pad(masks, (1, 1, 1, 1))
    if convention == "torchvision":
        places = _torchvision_boxes(boxes, masks.shape[1])
    else:
        places = _detectron2_boxes(boxes, masks.shape[1], threshold)
    inside = places.clamp(min=0).minimum(places.new_tensor([width, height, width, height]))
    is_empty = (inside[:, 2:] <= inside[:, :2]).any(dim=1, keepdim=True)
    inside = inside.masked_fill(is_empty, 0)
    areas = (inside[:, 2] - inside[:, 0]) * (inside[:, 3] - inside[:, 1])
    offsets = areas.cumsum(0) - areas
    crops = torch.empty(int(areas.sum()), dtype=torch.bool, device=masks.device)
    # the corners between which the cells lie: whole ones of torchvision's, the box itself of detectron2's
    corners = places.to(boxes.dtype) if convention == "torchvision" else boxes
    rows = zip(padded, corners.tolist(), inside.tolist(), offsets.tolist(), strict=True)
    for mask, (left, top, right, bottom), (x1, y1, x2, y2), start in rows:
        if x1 == x2:
            continue
        columns = _weights(x1, x2, left, right, mask, convention=convention).T
        step = max(1, SLAB_PIXELS // (x2 - x1))
        for y in range(y1, y2, step):
            end = min(y + step, y2)
            values = _weights(y, end, top, bottom, mask, convention=convention) @ mask @ columns
            first = start + (y - y1) * (x2 - x1)
            torch.ge(values, threshold, out=crops[first : first + values.numel()].view_as(values))
    return Pasted(crops.view(torch.uint8), offsets, inside.int())


def enlarge_masks(
    masks: Float[Tensor, "N h w"],
    size: tuple[int, int],
    *,
    covered: tuple[float, float],
    threshold: float = 0.5,
) -> Pasted:
    """Enlarge masks on a grid over the whole image and threshold them: `interpolate(…) > threshold`.

    Only pixels near cells other than zero are computed, and the crops are tight.

    Args:
        masks: probabilities, mostly zero.
        size: height and width of the image.
        covered: pixels downwards and to the right that the grid covers: the image's, and more if it was padded.
        threshold: pixels inside a mask have a greater probability.
    """
    crops: list[Tensor] = []
    boxes: list[tuple[int, int, int, int]] = []
    for mask in masks:
        y1, y2 = _reached(mask.amax(dim=1), size[0], covered[0])
        x1, x2 = _reached(mask.amax(dim=0), size[1], covered[1])
        columns = _weights(x1, x2, 0.0, covered[1], mask.T, convention="torchvision").T
        lines = mask @ columns
        crop = torch.zeros(y2 - y1, x2 - x1, dtype=torch.bool, device=mask.device)
        step = max(1, SLAB_PIXELS // max(1, x2 - x1))
        for y in range(y1, y2, step):
            end = min(y + step, y2)
            weights = _weights(y, end, 0.0, covered[0], mask, convention="torchvision")
            used = weights.any(dim=0).nonzero().flatten()
            cells = slice(int(used[0]), int(used[-1]) + 1)
            torch.gt(weights[:, cells] @ lines[cells], threshold, out=crop[y - y1 : end - y1])
        rows, columns = (crop.any(dim=along).nonzero().flatten() for along in (1, 0))
        if not len(rows):
            boxes.append((0, 0, 0, 0))
            continue
        top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
        crops.append(crop[top:bottom, left:right].reshape(-1))
        boxes.append((x1 + left, y1 + top, x1 + right, y1 + bottom))
    places = torch.tensor(boxes, dtype=torch.int32, device=masks.device).reshape(-1, 4)
    areas = ((places[:, 2] - places[:, 0]) * (places[:, 3] - places[:, 1])).long()
    empty = torch.zeros(0, dtype=torch.bool, device=masks.device)
    return Pasted(torch.cat([empty, *crops]).view(torch.uint8), areas.cumsum(0) - areas, places)


def enlarged_part(mask: Float[Tensor, "M M2"], corners: Sequence[int], part: Sequence[int]) -> Float[Tensor, "h w"]:
    """A part of a mask that is enlarged to whole corners: `interpolate(mask, (y2 - y1, x2 - x1))`, without the rest.

    Args:
        mask: any values, without a border.
        corners: x1 y1 x2 y2 of the whole mask; may exceed the image.
        part: x1 y1 x2 y2 of the pixels to compute, inside the corners.
    """
    left, top, right, bottom = corners
    x1, y1, x2, y2 = part
    rows = _weights(y1, y2, top, bottom, mask, convention="torchvision")
    columns = _weights(x1, x2, left, right, mask.T, convention="torchvision")
    return rows @ mask @ columns.T


def _reached(cells: Float[Tensor, " h"], pixels: int, covered: float) -> tuple[int, int]:
    """The first pixel of a side, and the one after the last, whose value depends on a cell above zero."""
    above = (cells > 0).nonzero().flatten()
    if not len(above):
        return 0, 0
    per_cell = covered / len(cells)
    first, last = int(above[0]), int(above[-1])
    # a cell contributes up to the centres of its neighbours, those at the border up to it
    low = 0 if first == 0 else math.floor((first - 0.5) * per_cell - 0.5)
    high = pixels if last == len(cells) - 1 else math.ceil((last + 1.5) * per_cell + 0.5)
    return min(max(low, 0), pixels), min(high, pixels)


def _torchvision_boxes(boxes: Float[Tensor, "N 4"], cells: int) -> Int64[Tensor, "N 4"]:
    """The pixels of the enlarged boxes, x2 and y2 exclusive."""
    half = (boxes[:, 2:] - boxes[:, :2]) * 0.5 * ((cells + 2) / cells)
    centre = (boxes[:, 2:] + boxes[:, :2]) * 0.5
    corners = torch.cat([centre - half, centre + half], dim=1).long()
    # at least one pixel; the last one is counted
    return torch.cat([corners[:, :2], torch.maximum(corners[:, 2:], corners[:, :2]) + 1], dim=1)


def _detectron2_boxes(boxes: Float[Tensor, "N 4"], cells: int, threshold: float) -> Int64[Tensor, "N 4"]:
    """The pixels that can reach the threshold: outside the box values fall from 1/2 to 0 over half a cell."""
    margin = (boxes[:, 2:] - boxes[:, :2]) * (max(0.0, 0.5 - threshold) / cells)
    first, last = (boxes[:, :2] - margin - 0.5).ceil(), (boxes[:, 2:] + margin - 0.5).floor()
    return torch.cat([first, last + 1], dim=1).long()


def _weights(
    start: int, end: int, low: float, high: float, mask: Float[Tensor, "M2 _"], *, convention: Convention
) -> Float[Tensor, "p M2"]:
    """Weight of each cell along the first side of a padded mask in each pixel from `start` to `end`.

    Args:
        start: the first pixel.
        end: after the last.
        low: start of the cells in pixels: of the padded ones in torchvision's convention, else of the others.
        high: end of the cells.
        mask: with its border of zeros; for its size, dtype and device.
        convention: see Convention.
    """
    cells = mask.shape[0]
    pixels = torch.arange(start, end, dtype=mask.dtype, device=mask.device)
    if convention == "torchvision":
        # the arithmetic of torch's interpolate, in the same order
        scale = mask.new_tensor(cells) / mask.new_tensor(high - low)
        place = (scale * (pixels - low + 0.5) - 0.5).clamp(min=0)
    else:
        place = (pixels + 0.5 - low) / (high - low) * (cells - 2) + 0.5
        place = place.nan_to_num(0.0).clamp(0, cells - 1)  # the border and everything beyond are zero
    first = place.floor().clamp(max=cells - 1)
    fraction = place - first
    index = first.long()[:, None]
    weights = torch.zeros(end - start, cells, dtype=mask.dtype, device=mask.device)
    weights.scatter_(1, index, 1 - fraction[:, None])
    return weights.scatter_add_(1, (index + 1).clamp(max=cells - 1), fraction[:, None])
