"""One's own images with masks of class ids, paired by name.

    PATH/
    ├── labels.txt                 one name a line, from id 0
    ├── images/train/0001.jpg      or images/0001.jpg, or train/0001.jpg
    └── masks/train/0001.png       or masks/0001.png, or trainannot/0001.png

Layouts, the first that fits: `images/SPLIT/` and `masks/SPLIT/`; `images/` and `masks/` without splits; `SPLIT/` and
`SPLITannot/`. `?images=` and `?masks=` give other names than `images` and `masks`, `?suffix=_mask` what a mask's name
has after its image's. A `labels.txt` (one name a line, from id 0; 255 is void) or a `labels.toml` says what the ids
mean, or `?labels=voc` takes a published label set. With `?palette=labels` the masks hold the colours of that label set
instead of ids; see `data.truth.colours`.

Without splits every fifth pair by name goes to `val`, the others to `train`, and the set's note says so. Images
without a mask and masks without an image are skipped, and the note counts them: a half-labelled folder is a common
thing. A check reports them as faults.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pixelwise.data.kinds.class_masks import mask_listing
from pixelwise.data.kinds.class_masks_writer import PairWriter, writable_labels
from pixelwise.data.kinds.folders import labels_for, names_colours
from pixelwise.data.kinds.pair_layout import (
    list_items,
    places_of,
    source_of,
    split_notes,
)
from pixelwise.data.kinds.pair_layout import splits as splits
from pixelwise.data.kinds.writing import contiguous
from pixelwise.data.listing import Listing
from pixelwise.data.spec import Format
from pixelwise.data.truth.colours import require_distinct
from pixelwise.errors import DataError
from pixelwise.labels import LabelSet

OPTIONS: Mapping[str, str] = {
    "images": "the folder of images",
    "masks": "the folder of masks",
    "suffix": "what a mask's name has after its image's, such as _mask",
    "labels": "a published label set, or a .txt or .toml file in the folder",
    "palette": "labels: the masks are pictures in the colours of the label set",
}


def list_split(path: Path, split: str, options: Mapping[str, str]) -> Listing:
    """The images and masks of one split, also those without partner. Raises DataError when the labels are not said."""
    items = list_items(path, split, options)
    return mask_listing(
        items,
        labels_of(path, options),
        source=source_of(path, split, options),
        writer=writer,
        notes=split_notes(path, options),
        colours=has_colours(options) or names_colours(path, options),
        halves=True,
    )


def labels_of(path: Path, options: Mapping[str, str]) -> LabelSet:
    """What the label file or the option says; with a palette, no two classes may share a colour."""
    labels = labels_for(path, options)
    if has_colours(options) or names_colours(path, options):
        require_distinct(labels)
    return labels


def has_colours(options: Mapping[str, str]) -> bool:
    """Whether the masks hold colours. Raises DataError for an option that is not `labels`."""
    palette = options.get("palette")
    if palette not in (None, "labels"):
        raise DataError(f"masks: palette={palette}; expected labels, the colours are those of the label set")
    return palette is not None


def writer(options: Mapping[str, str], source: LabelSet) -> PairWriter:
    """Writes images/SPLIT/ and masks/SPLIT/ (or the names in the options), greyscale masks, and labels.toml."""
    if "palette" in options:
        raise DataError("masks: masks of colours are read, not written; remove the option palette")
    image, mask = places_of(options, format="masks")
    return PairWriter(
        format="masks",
        labels=contiguous(writable_labels(options, source=source, default=None)),
        image=image,
        mask=mask,
    )


FORMAT = Format(OPTIONS, splits, list_split, writer, takes=tuple(OPTIONS))
