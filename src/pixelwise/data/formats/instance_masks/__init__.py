"""Masks of objects; see `reader`."""

from pixelwise.data.formats.instance_masks.reader import OPTIONS, check_split, open_split, writer
from pixelwise.data.kinds.pair_layout import splits

__all__ = ["OPTIONS", "check_split", "open_split", "splits", "writer"]
