"""YOLO's polygons: `reader` lists and reads, `layout` finds files, `text` reads lines, `repair` writes sound copies."""

from pixelwise.data.formats.yolo.reader import OPTIONS, list_split, splits, writer
from pixelwise.data.spec import Format

FORMAT = Format(OPTIONS, splits, list_split, writer, takes=("labels",))
