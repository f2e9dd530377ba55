"""COCO instances: `reader` lists and reads, `layout` knows the layouts of other tools, `repair` writes sound copies."""

from pixelwise.data.formats.coco.reader import OPTIONS, list_split, splits, writer
from pixelwise.data.spec import Format

FORMAT = Format(OPTIONS, splits, list_split, writer, takes=("classes",), numbered_ids=True, copies_are_lists=True)
