"""An annotation drawn over its image: colours, outlines, and a legend that never hides the picture.

Ground truth and prediction are drawn alike. The picture stands at the top left, pixel for pixel; the legend is added
to the right of it or beneath it.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pixelwise.labels import Colour, LabelSet
from pixelwise.ops.panoptic import segment_places
from pixelwise.types import Annotation, Instances, Panoptic

OPACITY = 140 / 255
"""Of a class's colour over the image."""

DRAWN_SCORE = 0.5
"""Instances with a lower score are in the files, but not drawn."""

LEGEND_OBJECTS = 24
"""Largest number of instances in the legend."""

NAMED_SIDE = 100
"""A picture with a shorter side is too small for names in it."""

LISTED_SHARE = 0.01
"""A class with a smaller share of the pixels is not named in the picture itself."""

SHADE_HUES = 0.16
"""Part of the colour circle over which the shades of a class lie."""

VOID_GREY = 190
"""Spacing of the hatching of ignored pixels."""

SLAB_PIXELS = 4 * 2**20
"""How many pixels are blended at once."""

PANEL_COLOUR, TEXT_COLOUR, FRAME_COLOUR = (250, 250, 250), (20, 20, 20), (120, 120, 120)


@dataclass(frozen=True)
class LegendRow:
    """One line of the legend: a colour (None for hatching) and a text."""

    colour: Colour | None
    text: str


def draw(
    image: UInt8[Tensor, "3 H W"],
    annotation: Annotation,
    labels: LabelSet,
    *,
    legend: bool = True,
    names: bool = False,
) -> Image.Image:
    """Draw the annotation: its segments, or else its instances, or else its classes.

    Of objects with scores those from DRAWN_SCORE on are drawn, each in a colour of its own. Segments have the colour of
    their class, those of things in shades. The colour of an object or a segment depends on its class and its number or
    id alone, so that it is the same in all frames of a clip.

    Args:
        image: RGB, 0-255.
        annotation: of the image's size.
        labels: names and colours; the class `background` is left as it is.
        legend: add the objects with their scores, and the classes that occur with the share of the pixels of each.
        names: write the classes into the picture, where there is no room beside it: those of things at the things, with
            their numbers in a clip, the others in a list at the lower left, in the order of the label set. Nothing is
            written into pictures with a side below NAMED_SIDE.

    Returns:
        RGB; the picture at its own size at the top left, larger than that only by the legend.
    """
    names = names and min(image.shape[1:]) >= NAMED_SIDE
    rows: list[LegendRow] = []
    planes = image.cpu().numpy()
    if annotation.panoptic is not None:
        panoptic = annotation.panoptic.to("cpu")
        places = segment_places(panoptic.ids.numpy(), panoptic.segment_ids.numpy())
        drawn = paint_panoptic(planes, panoptic, places, labels)
        if names:
            stuff = ~np.array([labels.is_thing[label] for label in panoptic.labels.tolist()], dtype=bool)
            areas = _counts(places, len(panoptic) + 1)[:-1] * stuff
            classes = np.bincount(panoptic.labels.numpy(), weights=areas, minlength=len(labels))
            _write_classes(drawn, classes, labels)
            _write_names(drawn, _thing_names(panoptic, places, labels))
        rows += panoptic_legend(panoptic, places, labels)
    elif annotation.instances is not None and annotation.instances.masks is not None:
        shown = shown_objects(annotation.instances)
        drawn = paint_objects(planes, shown)
        if names:
            _write_names(drawn, _object_names(shown, labels))
        rows += object_legend(shown, labels)
    elif annotation.semantic is None:
        drawn = _picture(planes)
    else:
        semantic = annotation.semantic.cpu().numpy()
        drawn = paint_semantic(planes, semantic, labels)
        if names:
            _write_classes(drawn, _counts(semantic, max(256, len(labels) + 1))[: len(labels)], labels)
        rows += semantic_legend(semantic, labels)
    return add_legend(drawn, rows) if legend and rows else drawn


def shown_objects(instances: Instances) -> Instances:
    """The drawn instances, the highest-scoring first; without scores the largest first."""
    instances = instances.to("cpu")
    if instances.scores is not None:
        instances = instances[instances.scores >= DRAWN_SCORE]
    assert instances.masks is not None
    key = instances.masks.areas() if instances.scores is None else instances.scores
    return instances[key.argsort(descending=True, stable=True)]


def object_colour(number: int) -> Colour:
    """A colour for an instance by its number or track id; neighbouring numbers are far apart on the colour circle."""
    hue = (number * 0.618034) % 1  # the golden section
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.55 + 0.4 * (number % 2), 1 - 0.25 * (number // 2 % 2))
    return round(255 * red), round(255 * green), round(255 * blue)


def _colour_of(instances: Instances, index: int) -> Colour:
    return object_colour(index if instances.track_ids is None else int(instances.track_ids[index]))


def paint_objects(planes: UInt8[np.ndarray, "3 H W"], instances: Instances) -> Image.Image:
    """The image, each instance in its colour with full edges; smaller instances cover larger ones.

    Regions of crowds are hatched in grey.
    """
    assert instances.masks is not None
    masks = instances.masks
    image, drawn = _picture(planes), _picture(planes)
    line = max(1, round(max(drawn.size) / 1000))
    for index in masks.areas().argsort(descending=True, stable=True).tolist():
        x1, y1, x2, y2 = masks.boxes[index].tolist()
        mask = masks.crop(index).numpy().astype(bool)
        if not mask.size:
            continue
        colour = _colour_of(instances, index)
        where = mask
        if instances.crowd is not None and bool(instances.crowd[index]):
            colour = (VOID_GREY,) * 3
            y, x = np.ogrid[y1:y2, x1:x2]
            where = mask & ((x + y) % (6 * line) < 2 * line)
        seen = image.crop((x1, y1, x2, y2))
        edges = mask & _edges(np.pad(mask, line), line)[line:-line, line:-line]
        seen = Image.blend(seen, Image.new("RGB", seen.size, colour), OPACITY)
        seen.paste(colour, mask=Image.fromarray(edges & where))
        drawn.paste(seen, (x1, y1), Image.fromarray(where))
    return drawn


def object_legend(instances: Instances, labels: LabelSet) -> list[LegendRow]:
    """The instances in the order of drawing, at most LEGEND_OBJECTS, then the number of others."""
    rows: list[LegendRow] = []
    for index in range(min(len(instances), LEGEND_OBJECTS)):
        is_crowd = instances.crowd is not None and bool(instances.crowd[index])
        score = "" if instances.scores is None else f" {float(instances.scores[index]):.2f}"
        text = f"{labels.names[int(instances.labels[index])]}{score}{' (crowd)' if is_crowd else ''}"
        rows.append(LegendRow(None if is_crowd else _colour_of(instances, index), text))
    more = len(instances) - len(rows)
    return [*rows, LegendRow(PANEL_COLOUR, f"and {more} more")] if more else rows


def paint_semantic(planes: UInt8[np.ndarray, "3 H W"], semantic: np.ndarray, labels: LabelSet) -> Image.Image:
    """The image, each pixel coloured by its class: the edges of a class in its full colour, void hatched in grey."""
    # the last entry is for void, which is 255 or -1
    colours = np.full((max(256, len(labels) + 1), 3), VOID_GREY, dtype=np.uint8)
    colours[: len(labels)] = labels.palette
    opacities = np.full(len(colours), round(255 * OPACITY), dtype=np.uint8)
    if labels.background_id is not None:
        opacities[labels.background_id] = 0
    hatched = np.zeros(len(colours), dtype=bool)
    hatched[-1] = True
    return _paint_regions(planes, semantic, colours, opacities, hatched)


def segment_colour(class_colour: Colour, number: int) -> Colour:
    """The colour of a thing: its class's own for the first, shades of it for the others.

    Args:
        class_colour: of its class.
        number: of the thing, 0 for the first.
    """
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in class_colour))
    step = (number * 0.618034 + 0.5) % 1 - 0.5  # the golden section: neighbours in number lie far apart
    red, green, blue = colorsys.hsv_to_rgb((hue + SHADE_HUES * step) % 1, saturation, value)
    # every third as it is, lighter and darker; dark classes lighter and still lighter
    mixed, share = ((0, 0.0), (1, 0.5), (0, 0.45) if value > 0.6 else (1, 0.25))[number % 3]
    red, green, blue = (round(255 * (channel + share * (mixed - channel))) for channel in (red, green, blue))
    return red, green, blue


def _segment_colours(panoptic: Panoptic, labels: LabelSet) -> list[Colour]:
    return [
        segment_colour(labels.palette[label], id - len(labels) - 1) if labels.is_thing[label] else labels.palette[label]
        for id, label in zip(panoptic.segment_ids.tolist(), panoptic.labels.tolist(), strict=True)
    ]


def paint_panoptic(
    planes: UInt8[np.ndarray, "3 H W"], panoptic: Panoptic, places: Int32[np.ndarray, "H W"], labels: LabelSet
) -> Image.Image:
    """The image, each segment in its colour, its edges in full; void and regions of crowds are hatched in grey."""
    # the last entry is for void
    colours = np.full((len(panoptic) + 1, 3), VOID_GREY, dtype=np.uint8)
    colours[:-1] = np.array(_segment_colours(panoptic, labels), dtype=np.uint8).reshape(-1, 3)
    opacities = np.full(len(colours), round(255 * OPACITY), dtype=np.uint8)
    if labels.background_id is not None:
        opacities[:-1][panoptic.labels.numpy() == labels.background_id] = 0
    hatched = np.append(panoptic.crowd.numpy(), True)
    colours[hatched] = VOID_GREY
    return _paint_regions(planes, places, colours, opacities, hatched)


def panoptic_legend(panoptic: Panoptic, places: Int32[np.ndarray, "H W"], labels: LabelSet) -> list[LegendRow]:
    """The things, at most LEGEND_OBJECTS, then the classes of stuff with their shares; each the largest first.

    Then what nobody evaluated; background is skipped.
    """
    areas = _counts(places, len(panoptic) + 1)
    colours = _segment_colours(panoptic, labels)
    classes, crowd = panoptic.labels.tolist(), panoptic.crowd.tolist()
    by_area = [place for place in np.argsort(-areas[:-1], kind="stable").tolist() if areas[place]]
    things, stuff = [], []
    for place in by_area:
        name = labels.names[classes[place]]
        if labels.is_thing[classes[place]]:
            score = "" if panoptic.scores is None else f" {float(panoptic.scores[place]):.2f}"
            text = f"{name}{score}{' (crowd)' if crowd[place] else ''}"
            things.append(LegendRow(None if crowd[place] else colours[place], text))
        elif classes[place] != labels.background_id:
            stuff.append(LegendRow(colours[place], f"{name} {_percent(int(areas[place]) / places.size)}"))
    more = len(things) - LEGEND_OBJECTS
    if more > 0:
        things = [*things[:LEGEND_OBJECTS], LegendRow(PANEL_COLOUR, f"and {more} more")]
    void = [LegendRow(None, f"void {_percent(int(areas[-1]) / places.size)}")] if areas[-1] else []
    return [*things, *stuff, *void]


def _paint_regions(
    planes: UInt8[np.ndarray, "3 H W"],
    regions: np.ndarray,
    colours: UInt8[np.ndarray, "L 3"],
    opacities: UInt8[np.ndarray, " L"],
    hatched: Bool[np.ndarray, " L"],
) -> Image.Image:
    """The image, each pixel in the colour of its region, the edges of regions in full.

    Args:
        planes: the image.
        regions: number of each pixel's region; -1 is the last.
        colours: of each region.
        opacities: of its colour, 0 leaves all of it as it is.
        hatched: whether its colour stands in oblique lines, and not at its edges.
    """
    height, width = regions.shape
    line = max(1, round(max(height, width) / 1000))
    slab = max(1, SLAB_PIXELS // width)
    drawn = Image.new("RGB", (width, height))
    for start in range(0, height, slab):
        stop = min(start + slab, height)
        part = regions[start:stop]
        opacity = opacities.take(part, mode="wrap")
        is_hatched = hatched.take(part, mode="wrap")
        above = min(start, line)  # rows for edges alone
        edges = _edges(regions[start - above : stop + line], line)[above : above + stop - start]
        opacity[edges & (opacity > 0) & ~is_hatched] = 255
        if is_hatched.any():
            y, x = np.ogrid[start:stop, 0:width]
            opacity[is_hatched & ((x + y) % (6 * line) >= 2 * line)] = 0
        slab_picture = _picture(planes[:, start:stop])
        slab_picture.paste(Image.fromarray(colours.take(part, axis=0, mode="wrap")), mask=Image.fromarray(opacity))
        drawn.paste(slab_picture, (0, start))
    return drawn


def semantic_legend(semantic: np.ndarray, labels: LabelSet) -> list[LegendRow]:
    """The classes that occur, the largest first, then ignored pixels; background is skipped."""
    counts = _counts(semantic, max(256, len(labels) + 1))
    shares = {index: counts[index] / semantic.size for index in np.flatnonzero(counts).tolist()}
    void = shares.pop(len(counts) - 1, None)
    rows = [
        LegendRow(labels.palette[index], f"{labels.names[index]} {_percent(share)}")
        for index, share in sorted(shares.items(), key=lambda item: -item[1])
        if index != labels.background_id
    ]
    return rows if void is None else [*rows, LegendRow(None, f"void {_percent(void)}")]


def _counts(regions: np.ndarray, length: int) -> Int64[np.ndarray, " length"]:
    """The pixels of each region below `length`; -1 is the last."""
    counts = np.zeros(length, dtype=np.int64)
    slab = max(1, SLAB_PIXELS // regions.shape[1])
    for start in range(0, len(regions), slab):  # bincount makes 8 bytes of every number
        part = regions[start : start + slab].ravel()
        part = part if part.dtype == np.uint8 else part % length
        counts += np.bincount(part, minlength=length)
    return counts


class _Name(NamedTuple):
    """A class name that stands at a box x1 y1 x2 y2 of a picture, on a colour."""

    text: str
    box: Sequence[int]
    colour: Colour


def _object_names(instances: Instances, labels: LabelSet) -> list[_Name]:
    assert instances.masks is not None
    boxes: list[list[int]] = instances.masks.boxes.tolist()
    colours = [_colour_of(instances, index) for index in range(len(instances))]
    numbers: list[int] = [] if instances.track_ids is None else instances.track_ids.tolist()
    return [
        _Name(" ".join([labels.names[label], *map(str, numbers[index : index + 1])]), boxes[index], colours[index])
        for index, label in enumerate(instances.labels.tolist())
        if instances.crowd is None or not bool(instances.crowd[index])
    ]


def _thing_names(panoptic: Panoptic, places: Int32[np.ndarray, "H W"], labels: LabelSet) -> list[_Name]:
    """Of the largest things, at most LEGEND_OBJECTS."""
    areas, colours, classes = _counts(places, len(panoptic) + 1), _segment_colours(panoptic, labels), panoptic.labels
    by_area = np.argsort(-areas[:-1], kind="stable").tolist()
    things = [place for place in by_area if labels.is_thing[int(classes[place])]]
    names: list[_Name] = []
    for place in things[:LEGEND_OBJECTS]:
        if areas[place] and not bool(panoptic.crowd[place]):
            seen = places == place
            rows, columns = np.flatnonzero(seen.any(axis=1)).tolist(), np.flatnonzero(seen.any(axis=0)).tolist()
            box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            names.append(_Name(labels.names[int(classes[place])], box, colours[place]))
    return names


def _write_names(picture: Image.Image, names: Sequence[_Name]) -> None:
    """Write each name at the top of its box, the first first; one that would cover another is skipped."""
    font = ImageFont.load_default(_name_size(picture))
    pen = ImageDraw.Draw(picture)
    width, height = picture.size
    line = round(1.3 * _name_size(picture))
    taken: list[tuple[int, int, int, int]] = []
    for name in names:
        room = math.ceil(font.getlength(name.text)) + 6
        left = max(0, min(name.box[0], width - room))
        top = max(0, min(name.box[1] - line if name.box[1] >= line else name.box[1], height - line))
        place = (left, top, left + room, top + line)
        if any(place[0] < x2 and x1 < place[2] and place[1] < y2 and y1 < place[3] for x1, y1, x2, y2 in taken):
            continue
        taken.append(place)
        red, green, blue = name.colour
        ink = (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else (255, 255, 255)
        pen.rectangle((left, top, left + room - 1, top + line - 1), fill=name.colour)
        pen.text((left + 3, top + line / 2), name.text, fill=ink, font=font, anchor="lm")


def _write_classes(picture: Image.Image, areas: np.ndarray, labels: LabelSet) -> None:
    """List the classes with at least LISTED_SHARE of the pixels over the lower left, in the order of the label set.

    Args:
        picture: changed.
        areas: pixels of each class.
        labels: names and colours.
    """
    width, height = picture.size
    shown = np.flatnonzero(areas >= LISTED_SHARE * width * height).tolist()
    size = _name_size(picture)
    font, line = ImageFont.load_default(size), round(1.6 * size)
    rows = [LegendRow(labels.palette[index], labels.names[index]) for index in shown if index != labels.background_id]
    rows = rows[: max(1, height // 2 // line)]
    if not rows:
        return
    room = min(width, math.ceil(max(font.getlength(row.text) for row in rows) + 2.5 * line))
    box = (0, max(0, height - len(rows) * line), room, height)
    under = picture.crop(box)
    picture.paste(Image.blend(under, Image.new("RGB", under.size, PANEL_COLOUR), 0.7), box)
    pen = ImageDraw.Draw(picture)
    for index, row in enumerate(rows):
        _draw_row(pen, row, (0, box[1] + index * line), line=line, font=font)


def _name_size(picture: Image.Image) -> int:
    return max(11, round(max(picture.size) / 60))


def add_legend(picture: Image.Image, rows: list[LegendRow], *, font_size: int | None = None) -> Image.Image:
    """Put a panel to the right of the picture or beneath it, whichever makes the smaller whole.

    Args:
        picture: RGB.
        rows: at least one.
        font_size: in pixels; None takes one that suits a picture which is looked at as a whole.
    """
    width, height = picture.size
    font_size = font_size or max(12, round(max(width, height) / 50))
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


def _picture(planes: UInt8[np.ndarray, "3 H W"]) -> Image.Image:
    return Image.merge("RGB", [Image.fromarray(plane) for plane in planes])


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
