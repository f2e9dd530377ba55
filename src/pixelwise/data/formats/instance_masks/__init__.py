"""Masks of objects; see `reader`."""

from pixelwise.data.formats.instance_masks.reader import OPTIONS, list_split, writer
from pixelwise.data.kinds.pair_layout import splits
from pixelwise.data.spec import Format

FORMAT = Format(OPTIONS, splits, list_split, writer)
