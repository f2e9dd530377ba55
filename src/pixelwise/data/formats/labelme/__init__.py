"""LabelMe: `reader` lists and reads, `json` knows what counts as an object, `repair` writes sound copies."""

from pixelwise.data.formats.labelme.reader import OPTIONS, list_split, splits, writer
from pixelwise.data.spec import Format

FORMAT = Format(OPTIONS, splits, list_split, writer, takes=("labels",))
