"""A contact sheet: images with their truth drawn over them, in rows, under them what the colours mean."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from pixelwise.errors import DataError
from pixelwise.inference.draw import PANEL_COLOUR, TEXT_COLOUR, add_legend, draw, semantic_legend
from pixelwise.labels import LabelSet
from pixelwise.ops.resize import resize_image
from pixelwise.types import Annotation, Sample

CELL_HW = (240, 320)
"""Height and width, in pixels, into which each picture is fitted."""

CAPTION_HEIGHT = 18
MARGIN = 6


def contact_sheet(samples: Iterable[Sample], labels: LabelSet) -> Image.Image:
    """Draw samples with semantic truth in as many columns as rows, each with its id under it, and one legend."""
    small = [fitted(sample, CELL_HW) for sample in samples]
    if not small:
        raise DataError("no image to draw")
    columns = math.ceil(math.sqrt(len(small)))
    height, width = CELL_HW[0] + CAPTION_HEIGHT + MARGIN, CELL_HW[1] + MARGIN
    size = (columns * width + MARGIN, math.ceil(len(small) / columns) * height + MARGIN)
    sheet = Image.new("RGB", size, PANEL_COLOUR)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for number, sample in enumerate(small):
        row, column = divmod(number, columns)
        left, top = MARGIN + column * width, MARGIN + row * height
        sheet.paste(draw(sample.image, sample.truth, labels, legend=False), (left, top))
        caption = _shortened(sample.id, font, CELL_HW[1])
        pen.text((left, top + CELL_HW[0] + CAPTION_HEIGHT / 2), caption, fill=TEXT_COLOUR, font=font, anchor="lm")
    everything = np.concatenate([_semantic(sample).numpy().ravel() for sample in small])
    rows = semantic_legend(everything[None], labels)
    return add_legend(sheet, rows) if rows else sheet


def fitted(sample: Sample, cell_hw: tuple[int, int]) -> Sample:
    """The sample at the largest size that fits into a cell, the ids read at the pixels' centres."""
    height, width = sample.image.shape[1:]
    scale = min(cell_hw[0] / height, cell_hw[1] / width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    rows = ((torch.arange(size[0]) + 0.5) * (height / size[0])).long()
    columns = ((torch.arange(size[1]) + 0.5) * (width / size[1])).long()
    semantic = _semantic(sample)[rows[:, None], columns[None, :]]
    return Sample(resize_image(sample.image, size), Annotation(semantic=semantic), sample.id, sample.original_size)


def _semantic(sample: Sample) -> torch.Tensor:
    if sample.truth.semantic is None:
        raise DataError(f"image '{sample.id}' has no class for each pixel to draw")
    return sample.truth.semantic


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The end of a text, which tells ids apart, as far as it fits into `width` pixels."""
    shown = text
    while len(shown) > 1 and font.getlength(shown) > width:
        shown = "…" + shown[2:]
    return shown
