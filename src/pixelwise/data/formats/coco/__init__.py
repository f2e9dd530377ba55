"""COCO instances; see `reader`."""

from pixelwise.data.formats.coco.reader import OPTIONS, check_split, open_split, splits, writer

__all__ = ["OPTIONS", "check_split", "open_split", "splits", "writer"]
