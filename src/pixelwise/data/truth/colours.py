"""Colour masks: the class of a pixel is given by its colour in the label set's palette.

Void is every colour of `VOID_COLOURS` that no class has. Any other colour is unknown, and refused: it is most often the
blur of a picture that was scaled or saved as JPEG.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8

from pixelwise.errors import DataError
from pixelwise.labels import Colour, LabelSet

VOID_COLOURS: tuple[Colour, ...] = ((0, 0, 0), (224, 224, 192))
"""Black (CamVid, Cityscapes), and the border of PASCAL VOC's objects."""


def ids_of_colours(pixels: UInt8[np.ndarray, "H W 3"], labels: LabelSet, *, source: str) -> np.ndarray:
    """Class ids [H, W] of a picture in the palette of `labels`. Raises DataError, beginning with `source`."""
    ids, unknown = match_colours(pixels, labels)
    if unknown:
        raise DataError(f"{source}: {describe_unknown(unknown, labels)}")
    return ids


def match_colours(pixels: UInt8[np.ndarray, "H W 3"], labels: LabelSet) -> tuple[np.ndarray, Mapping[Colour, int]]:
    """Class ids [H, W], unknown colours as `ignore_id`, and those colours with the number of pixels of each."""
    table = dict.fromkeys(VOID_COLOURS, labels.ignore_id) | {
        colour: index for index, colour in enumerate(labels.palette)
    }
    codes = pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.int32)
    found, places, counts = np.unique(codes.ravel(), return_inverse=True, return_counts=True)
    colours = [(int(code) >> 16, int(code) >> 8 & 255, int(code) & 255) for code in found]
    dtype = np.uint8 if len(labels) <= 255 else np.int32
    ids = np.array([table.get(colour, labels.ignore_id) for colour in colours], dtype=dtype)
    unknown = {colour: int(count) for colour, count in zip(colours, counts, strict=True) if colour not in table}
    return ids[places].reshape(codes.shape), unknown


def describe_unknown(unknown: Mapping[Colour, int], labels: LabelSet) -> str:
    """One line that names the commonest of some unknown colours and counts them all."""
    colour = max(unknown, key=lambda one: unknown[one])
    return (
        f"colour {colour} ({unknown[colour]:,} pixels) is not in the palette of LabelSet '{labels.name}'; "
        f"{len(unknown):,} unknown colour(s) with {sum(unknown.values()):,} pixels in all"
    )


def require_distinct(labels: LabelSet) -> None:
    """Raise DataError with the classes unless every class has a colour of its own."""
    names: defaultdict[Colour, list[str]] = defaultdict(list)
    for name, colour in zip(labels.names, labels.palette, strict=True):
        names[colour].append(name)
    shared = next(((colour, of_one) for colour, of_one in names.items() if len(of_one) > 1), None)
    if shared is not None:
        raise DataError(
            f"label set '{labels.name}': {' and '.join(shared[1])} have the same colour {shared[0]}; "
            "colours cannot tell them apart"
        )
