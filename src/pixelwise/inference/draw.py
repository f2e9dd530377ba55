"""An annotation drawn over its image: colours, outlines, and a legend that never hides the picture.

Truth and prediction are drawn alike. The picture stands at the top left, pixel for pixel; the legend is added to the
right of it or beneath it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pixelwise.labels import Colour, LabelSet
from pixelwise.types import Annotation

OPACITY = 0.55
"""Of a class's colour over the image."""

VOID_GREY = 190
"""Of the lines that hatch pixels nobody judged."""

SLAB_PIXELS = 4 * 2**20
"""How many pixels are blended at once."""

PANEL_COLOUR, TEXT_COLOUR, FRAME_COLOUR = (250, 250, 250), (20, 20, 20), (120, 120, 120)


@dataclass(frozen=True)
class LegendRow:
    """One line of the legend: a colour (None for hatching) and a text."""

    colour: Colour | None
    text: str


def draw(
    image: UInt8[Tensor, "3 H W"], annotation: Annotation, labels: LabelSet, *, legend: bool = True
) -> Image.Image:
    """Draw the parts that the annotation has.

    Args:
        image: RGB, 0-255.
        annotation: of the image's size.
        labels: names and colours; the class `background` is left as it is.
        legend: add the classes that occur, with the share of the pixels that each has.

    Returns:
        RGB; the picture at its own size at the top left, larger than that only by the legend.
    """
    picture = np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy()).copy()
    rows: list[LegendRow] = []
    if annotation.semantic is not None:
        semantic = annotation.semantic.cpu().numpy()
        paint_semantic(picture, semantic, labels)
        rows += semantic_legend(semantic, labels)
    drawn = Image.fromarray(picture)
    return add_legend(drawn, rows) if legend and rows else drawn


def paint_semantic(picture: UInt8[np.ndarray, "H W 3"], semantic: np.ndarray, labels: LabelSet) -> None:
    """Colour each pixel by its class, in place: the edges of a class in its full colour, void hatched in grey."""
    height, width = semantic.shape
    colours = np.array([*labels.palette, (VOID_GREY,) * 3], dtype=np.float32)
    line = max(1, round(max(height, width) / 1000))
    hatch = 6 * line
    slab = max(1, SLAB_PIXELS // width)
    edges = _edges(semantic, line)
    for start in range(0, height, slab):
        rows = slice(start, min(start + slab, height))
        ids = semantic[rows].astype(np.int64)
        is_void = ids == labels.ignore_id
        y, x = np.ogrid[rows.start : rows.stop, 0:width]
        painted = ~is_void | ((x + y) % hatch < 2 * line)
        if labels.background_id is not None:
            painted &= ids != labels.background_id
        opacity = np.where(edges[rows] & ~is_void, np.float32(1), np.float32(OPACITY)) * painted
        colour = colours[np.where(is_void, len(labels), ids)]
        blended = picture[rows] + (colour - picture[rows]) * opacity[:, :, None]
        picture[rows] = np.rint(blended).astype(np.uint8)


def semantic_legend(semantic: np.ndarray, labels: LabelSet) -> list[LegendRow]:
    """The classes that occur, the largest first, then what nobody judged; background is left out."""
    ids, counts = np.unique(semantic, return_counts=True)
    shares = {int(index): count / semantic.size for index, count in zip(ids, counts, strict=True)}
    void = shares.pop(labels.ignore_id, None)
    rows = [
        LegendRow(labels.palette[index], f"{labels.names[index]} {_percent(share)}")
        for index, share in sorted(shares.items(), key=lambda item: -item[1])
        if index != labels.background_id
    ]
    return rows if void is None else [*rows, LegendRow(None, f"not judged {_percent(void)}")]


def add_legend(picture: Image.Image, rows: list[LegendRow]) -> Image.Image:
    """Put a panel to the right of the picture or beneath it, whichever makes the smaller whole."""
    width, height = picture.size
    font_size = max(12, round(max(width, height) / 50))
    font = ImageFont.load_default(font_size)
    line = round(1.6 * font_size)
    cell = math.ceil(max(font.getlength(row.text) for row in rows) + 2.5 * line)
    beside = _grid(len(rows), lines=max(1, height // line))
    beneath = _grid(len(rows), lines=math.ceil(len(rows) / max(1, width // cell)))
    beside_size = (width + beside[0] * cell, max(height, beside[1] * line))
    beneath_size = (max(width, beneath[0] * cell), height + beneath[1] * line)
    is_beside = math.prod(beside_size) <= math.prod(beneath_size)

    canvas = Image.new("RGB", beside_size if is_beside else beneath_size, PANEL_COLOUR)
    canvas.paste(picture, (0, 0))
    pen = ImageDraw.Draw(canvas)
    left, top = (width, 0) if is_beside else (0, height)
    lines = beside[1] if is_beside else beneath[1]
    for index, row in enumerate(rows):
        corner = (left + index // lines * cell, top + index % lines * line)
        _draw_row(pen, row, corner, line=line, font=font)
    return canvas


def _grid(count: int, *, lines: int) -> tuple[int, int]:
    """Columns and lines of a table that is filled column by column with at most so many lines."""
    lines = min(count, lines)
    return math.ceil(count / lines), lines


def _draw_row(
    pen: ImageDraw.ImageDraw,
    row: LegendRow,
    corner: tuple[int, int],
    *,
    line: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    x, y = corner
    margin = line // 4
    box = (x + 2 * margin, y + margin, x + 2 * margin + 5 * margin, y + line - margin)
    pen.rectangle(box, fill=row.colour, outline=FRAME_COLOUR, width=max(1, line // 20))
    if row.colour is None:
        pen.line((box[0], box[3], box[2], box[1]), fill=FRAME_COLOUR, width=max(1, line // 10))
    pen.text((box[2] + 2 * margin, y + line / 2), row.text, fill=TEXT_COLOUR, font=font, anchor="lm")


def _edges(semantic: np.ndarray, thickness: int) -> np.ndarray:
    """Pixels at most `thickness` away, in x and y, from a pixel of another class."""
    edges = np.zeros(semantic.shape, dtype=bool)
    for axis in (0, 1):
        before, after = _neighbours(axis, 1)
        differ = semantic[before] != semantic[after]
        edges[before] |= differ
        edges[after] |= differ
    reach = 1
    while reach < thickness:
        step = min(reach, thickness - reach)
        for axis in (0, 1):
            before, after = _neighbours(axis, step)
            grown = edges.copy()
            grown[before] |= edges[after]
            grown[after] |= edges[before]
            edges = grown
        reach += step
    return edges


def _neighbours(axis: int, distance: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Two views of a map that pair each pixel with the one `distance` further along the axis."""
    everything = slice(None)
    before, after = slice(None, -distance), slice(distance, None)
    return ((before, everything), (after, everything)) if axis == 0 else ((everything, before), (everything, after))


def _percent(share: float) -> str:
    return "<1 %" if share < 0.01 else f"{share:.0%}".replace("%", " %")
