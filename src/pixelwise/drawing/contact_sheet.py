"""Contact sheets: images with their annotations in rows, and a legend."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from pixelwise.data.loading.crop import Geometry
from pixelwise.drawing.draw import PANEL_COLOUR, TEXT_COLOUR, LegendRow, add_legend, draw, semantic_legend
from pixelwise.errors import DataError
from pixelwise.labels import LabelSet
from pixelwise.ops.resize import resize_image
from pixelwise.types import Annotation, Sample

CELL_HW = (240, 320)
"""Height and width, in pixels, into which each picture is fitted."""

CAPTION_HEIGHT = 18
MARGIN = 6
GROUP_GAP = 24
LEGEND_FONT = 18

COMPARED = ("image", "truth", "prediction")

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Compared:
    """An image with two annotations of it, fitted into a cell.

    Attributes:
        sample: the image with its truth.
        predicted: what a model says of it.
        caption: the id, and what is said of the prediction.
    """

    sample: Sample
    predicted: Annotation
    caption: tuple[str, str]


def contact_sheet(samples: Iterable[Sample], labels: LabelSet) -> Image.Image:
    """Draw samples in as many columns as rows, each with its id under it, and one legend of the classes."""
    small = [fitted(sample) for sample in samples]
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
        has_objects = sample.truth.panoptic is None and sample.truth.instances is not None
        sheet.paste(draw(sample.image, sample.truth, labels, legend=False, names=has_objects), (left, top))
        caption = _shortened(sample.id, font, CELL_HW[1])
        pen.text((left, top + CELL_HW[0] + CAPTION_HEIGHT / 2), caption, fill=TEXT_COLOUR, font=font, anchor="lm")
    rows: list[LegendRow] = []  # instances have colours of their own, independent of their class
    if not any(sample.truth.instances is not None for sample in small):
        everything = np.concatenate([_classes(sample, labels).numpy().ravel() for sample in small])
        rows = semantic_legend(everything[None], labels)
    return add_legend(sheet, rows, font_size=LEGEND_FONT) if rows else sheet


def comparison_sheet(compared: Sequence[Compared], labels: LabelSet) -> Image.Image:
    """Draw images, each beside its ground truth and its prediction, a caption above, and one legend; row by row."""
    columns = 1 if len(compared) <= 3 else 2
    heading, font = CAPTION_HEIGHT + MARGIN, ImageFont.load_default(14)
    cell = CELL_HW[1] + MARGIN
    group = len(COMPARED) * cell - MARGIN + GROUP_GAP
    line = CAPTION_HEIGHT + CELL_HW[0] + 2 * MARGIN
    rows = math.ceil(len(compared) / columns)
    sheet = Image.new("RGB", (columns * group - GROUP_GAP + 2 * MARGIN, heading + rows * line + MARGIN), PANEL_COLOUR)
    pen = ImageDraw.Draw(sheet)
    for column in range(columns):
        for place, text in enumerate(COMPARED):
            corner = (MARGIN + column * group + place * cell, MARGIN + CAPTION_HEIGHT / 2)
            pen.text(corner, text, fill=TEXT_COLOUR, font=ImageFont.load_default(16), anchor="lm")
    for number, one in enumerate(compared):
        row, column = divmod(number, columns)
        left, top = MARGIN + column * group, heading + row * line + MARGIN
        id, said = one.caption
        room = group - GROUP_GAP - font.getlength(f" · {said}")
        caption = f"{_shortened(id, font, room)} · {said}"
        pen.text((left, top + CAPTION_HEIGHT / 2), caption, fill=TEXT_COLOUR, font=font, anchor="lm")
        for place, annotation in enumerate((Annotation(), one.sample.truth, one.predicted)):
            has_objects = annotation.panoptic is None and annotation.instances is not None
            picture = draw(one.sample.image, annotation, labels, legend=False, names=has_objects)
            sheet.paste(picture, (left + place * cell, top + CAPTION_HEIGHT))
    if any(one.predicted.instances is not None for one in compared):
        return sheet
    seen = [_classes(sample, labels).numpy() for one in compared for sample in (one.sample, _predicted(one))]
    present = np.unique(np.concatenate([ids.ravel() for ids in seen])).tolist()
    legend = [
        LegendRow(labels.palette[index], labels.names[index])
        for index in present
        if index not in (labels.ignore_id, labels.background_id)
    ]
    legend += [LegendRow(None, "void")] if labels.ignore_id in present else []
    return add_legend(sheet, legend, font_size=LEGEND_FONT) if legend else sheet


def fitted(sample: Sample, annotation: Annotation | None = None) -> Sample:
    """The sample at the largest size that fits into a cell, the ids read at the pixels' centres.

    Args:
        sample: with segments, objects or classes.
        annotation: of the sample's size, to stand in the place of the truth.
    """
    sample = sample if annotation is None else replace(sample, truth=annotation)
    height, width = sample.image.shape[1:]
    scale = min(CELL_HW[0] / height, CELL_HW[1] / width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    rows = ((torch.arange(size[0]) + 0.5) * (height / size[0])).long()
    columns = ((torch.arange(size[1]) + 0.5) * (width / size[1])).long()
    instances, panoptic = sample.truth.instances, sample.truth.panoptic
    if panoptic is not None:
        truth = Annotation(panoptic=replace(panoptic, ids=panoptic.ids[rows[:, None], columns[None, :]]))
    elif instances is not None and instances.masks is not None:
        whole = Geometry((0, 0, float(width), float(height)), size, size, flip=False)
        truth = Annotation(instances=replace(instances, masks=whole.apply_masks(instances.masks)))
    elif instances is not None and sample.truth.semantic is None:
        truth = Annotation(instances=instances)  # boxes alone, which are not drawn
    else:
        semantic = _semantic(sample)
        truth = Annotation(semantic=semantic[rows[:, None], columns[None, :]])
    return Sample(resize_image(sample.image, size), truth, sample.id, sample.original_size)


def _predicted(one: Compared) -> Sample:
    return replace(one.sample, truth=one.predicted)


def _classes(sample: Sample, labels: LabelSet) -> torch.Tensor:
    """The class of each pixel, by the segments where there are some."""
    panoptic = sample.truth.panoptic
    return _semantic(sample) if panoptic is None else panoptic.to_semantic(labels.ignore_id)


def _semantic(sample: Sample) -> torch.Tensor:
    if sample.truth.semantic is None:
        raise DataError(f"image '{sample.id}' has no class map to draw")
    return sample.truth.semantic


def _shortened(text: str, font: Font, width: float) -> str:
    """The end of a text, which tells ids apart, as far as it fits into `width` pixels."""
    shown = text
    while len(shown) > 1 and font.getlength(shown) > width:
        shown = "…" + shown[2:]
    return shown
