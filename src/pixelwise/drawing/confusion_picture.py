"""A confusion matrix as an image."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pixelwise.drawing.draw import FRAME_COLOUR, PANEL_COLOUR, TEXT_COLOUR
from pixelwise.labels import Colour, LabelSet

MATRIX_SIDE = 1500
"""Pixels that many classes share; few have cells of the largest size."""

SMALLEST_CELL, LARGEST_CELL = 13, 46
SMALLEST_NUMBERED_CELL = 26
LONGEST_NAME = 190
MARGIN = 14

RIGHT_COLOUR: Colour = (13, 71, 161)
WRONG_COLOUR: Colour = (183, 28, 28)
ABSENT_COLOUR: Colour = (226, 226, 226)
LINE_COLOUR: Colour = (208, 208, 208)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw_confusion(confusion: Int64[Tensor, "K K1"], labels: LabelSet) -> Image.Image:
    """Draw the predicted classes of the pixels of each ground truth class.

    A row is a true class, a column a prediction; a cell holds the share of the class's pixels. Colours follow the
    square root of the share, so that rare mistakes are seen: right answers are blue, wrong ones red. Classes without
    ground truth have a grey row.

    Args:
        confusion: pixels, rows by ground truth, columns by prediction, the last one void.
        labels: the classes.

    Returns:
        RGB; the sides grow with the classes, from some hundred pixels to about two thousand for 150.
    """
    counts = confusion.cpu().numpy().astype(np.float64)
    answers = list(labels.names)
    if counts[:, -1].any():
        answers.append("(void)")
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)[:, : len(answers)]

    cell = min(LARGEST_CELL, max(SMALLEST_CELL, MATRIX_SIDE // len(answers)))
    font = ImageFont.load_default(max(11, min(15, cell - 2)))
    rows, columns = [_shortened(name, font) for name in labels.names], [_shortened(name, font) for name in answers]
    names = 8 + int(max(font.getlength(name) for name in (*rows, *columns)))
    is_large = len(answers) > MATRIX_SIDE // LARGEST_CELL
    title = "rows: ground truth · columns: prediction · colour: share of the pixels of the ground truth class"
    title += ", in per cent" if cell >= SMALLEST_NUMBERED_CELL else ""

    title_font = ImageFont.load_default(15)
    left, top = MARGIN + names, MARGIN + 30 + names
    right, bottom = left + cell * len(columns), top + cell * len(rows)
    after = names if is_large else 0
    width = max(right + after, MARGIN + 160 + int(title_font.getlength(title))) + MARGIN
    picture = Image.new("RGB", (width, bottom + after + MARGIN), PANEL_COLOUR)
    pen = ImageDraw.Draw(picture)
    pen.text((MARGIN, MARGIN + 8), title, fill=TEXT_COLOUR, font=title_font, anchor="lm")
    _draw_scale(pen, (MARGIN + int(title_font.getlength(title)) + 16, MARGIN))

    for row in range(len(rows)):
        for column in range(len(columns)):
            box = (left + column * cell, top + row * cell, left + (column + 1) * cell, top + (row + 1) * cell)
            is_absent = not totals[row, 0]
            fill = ABSENT_COLOUR if is_absent else _colour(shares[row, column], is_right=row == column)
            pen.rectangle(box, fill=fill, outline=LINE_COLOUR)
            if cell >= SMALLEST_NUMBERED_CELL and not is_absent:
                _draw_share(pen, box, shares[row, column])
    pen.rectangle((left, top, right, bottom), outline=FRAME_COLOUR)

    for index, name in enumerate(rows):
        y = top + (index + 0.5) * cell
        pen.text((left - 5, y), name, fill=TEXT_COLOUR, font=font, anchor="rm")
        if is_large:
            pen.text((right + 5, y), name, fill=TEXT_COLOUR, font=font, anchor="lm")
    for index, name in enumerate(columns):
        x = left + index * cell
        picture.paste(_upright(name, (cell - 1, names - 5), font, at_end=False), (x + 1, top - names))
        if is_large:
            picture.paste(_upright(name, (cell - 1, names - 5), font, at_end=True), (x + 1, bottom + 5))
    return picture


def _colour(share: float, *, is_right: bool) -> Colour:
    strength = share**0.5
    red, green, blue = (round(255 + (end - 255) * strength) for end in (RIGHT_COLOUR if is_right else WRONG_COLOUR))
    return red, green, blue


def _draw_share(pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], share: float) -> None:
    """The share in per cent, unless it rounds to nothing."""
    if share < 0.005:
        return
    colour = (255, 255, 255) if share > 0.3 else TEXT_COLOUR
    font = ImageFont.load_default(max(10, (box[2] - box[0]) // 3))
    pen.text(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), f"{share:.0%}"[:-1], fill=colour, font=font, anchor="mm")


def _draw_scale(pen: ImageDraw.ImageDraw, corner: tuple[int, int]) -> None:
    """What the colours mean: 0, 5, 25, 50 and 100 per cent, right above wrong."""
    font = ImageFont.load_default(10)
    for place, share in enumerate((0.0, 0.05, 0.25, 0.5, 1.0)):
        x, y = corner[0] + place * 26, corner[1] - 6
        pen.rectangle((x, y, x + 25, y + 9), fill=_colour(share, is_right=True), outline=LINE_COLOUR)
        pen.rectangle((x, y + 9, x + 25, y + 18), fill=_colour(share, is_right=False), outline=LINE_COLOUR)
        pen.text((x + 13, y + 25), f"{share:.0%}", fill=TEXT_COLOUR, font=font, anchor="mm")


def _upright(text: str, size: tuple[int, int], font: Font, *, at_end: bool) -> Image.Image:
    """Text that reads from below, at the lower end of a strip of so many pixels' width and height, or at the upper."""
    width, height = size
    lying = Image.new("RGB", (height, width), PANEL_COLOUR)
    place, anchor = (height, "rm") if at_end else (0, "lm")
    ImageDraw.Draw(lying).text((place, width / 2), text, fill=TEXT_COLOUR, font=font, anchor=anchor)
    return lying.transpose(Image.Transpose.ROTATE_90)


def _shortened(text: str, font: Font) -> str:
    """The beginning of a name, as far as there is room."""
    shown = text
    while len(shown) > 2 and font.getlength(shown) > LONGEST_NAME:
        shown = shown[:-2] + "…"
    return shown
