"""Clips cut out of labelled stills; see `reader`."""

from pixelwise.data.formats.cutout_clips.reader import OPTIONS, check_split, open_split, splits

__all__ = ["OPTIONS", "check_split", "open_split", "splits"]
