"""LabelMe; see `reader`."""

from pixelwise.data.formats.labelme.reader import OPTIONS, check_split, labels_of, open_split, splits, writer

__all__ = ["OPTIONS", "check_split", "labels_of", "open_split", "splits", "writer"]
