"""One's own images with masks of class ids, paired by name.

Layouts, the first that fits: `images/SPLIT/` and `masks/SPLIT/`; `images/` and `masks/` without splits; `SPLIT/` and
`SPLITannot/`. `?images=` and `?masks=` give other names than `images` and `masks`, `?suffix=_mask` what a mask's name
has after its image's. A `labels.txt` (one name a line, from id 0; 255 is void) or a `labels.toml` says what the ids
mean, or `?labels=voc` takes a published label set. With `?palette=labels` the masks hold the colours of that label set
instead of ids; see `data.truth.colours`.

Without splits every fifth pair by name goes to `val`, the others to `train`, and the set's note says so. Images
without a mask and masks without an image are left out, and the note counts them: a half-labelled folder is a common
thing. `check_split` reports them as faults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pixelwise.data.kinds.class_masks import SemanticPairs
from pixelwise.data.kinds.class_masks_writer import PairWriter, writable_labels
from pixelwise.data.kinds.faults import SplitReport, check_pairs
from pixelwise.data.kinds.folders import labels_for, pairs_dataset
from pixelwise.data.kinds.pair_layout import (
    list_entries,
    pairs_note,
    places_of,
    require_pairs,
    source_of,
    split_note,
)
from pixelwise.data.kinds.pair_layout import splits as splits
from pixelwise.data.kinds.writing import contiguous
from pixelwise.data.truth.colours import require_distinct
from pixelwise.errors import DataError
from pixelwise.files.parallel import Progress
from pixelwise.labels import LabelSet

OPTIONS: Mapping[str, str] = {
    "images": "the folder of images",
    "masks": "the folder of masks",
    "suffix": "what a mask's name has after its image's, such as _mask",
    "labels": "a published label set, or a .txt or .toml file in the folder",
    "palette": "labels: the masks are pictures in the colours of the label set",
}


def open_split(path: Path, split: str, options: Mapping[str, str], *, name: str) -> SemanticPairs:
    """The pairs of one split. Raises DataError when there are none, or the labels are not said."""
    entries = list_entries(path, split, options)
    require_pairs(path, entries, options, name=name)
    return pairs_dataset(
        entries,
        labels_of(path, options),
        name=name,
        format="masks",
        note=pairs_note(path, entries, options),
        colours=has_colours(options),
    )


def check_split(path: Path, split: str, options: Mapping[str, str], *, workers: int, progress: Progress) -> SplitReport:
    """Read every image and every mask and report every fault. Raises DataError when the labels are not said."""
    report = check_pairs(
        list_entries(path, split, options),
        labels_of(path, options),
        colours=has_colours(options),
        split=split,
        source=source_of(path, split, options),
        workers=workers,
        progress=progress,
    )
    note = split_note(path, options)
    return replace(report, notes=(note, *report.notes)) if note else report


def labels_of(path: Path, options: Mapping[str, str]) -> LabelSet:
    """What the label file or the option says; with a palette, no two classes may share a colour."""
    labels = labels_for(path, options)
    if has_colours(options):
        require_distinct(labels)
    return labels


def has_colours(options: Mapping[str, str]) -> bool:
    """Whether the masks hold colours. Raises DataError for an option that is not `labels`."""
    wanted = options.get("palette")
    if wanted not in (None, "labels"):
        raise DataError(f"masks: palette={wanted}; labels is wanted, the colours are those of the label set")
    return wanted is not None


def writer(options: Mapping[str, str], source: LabelSet) -> PairWriter:
    """Writes images/SPLIT/ and masks/SPLIT/ (or the names in the options), greyscale masks, and labels.toml."""
    if "palette" in options:
        raise DataError("masks: masks of colours are read, not written; leave out the option palette")
    image, mask = places_of(options, format="masks")
    return PairWriter(
        format="masks",
        labels=contiguous(writable_labels(options, source=source, default=None)),
        image=image,
        mask=mask,
    )
