"""Reading COCO panoptic; see the package."""

from pixelwise.data.formats.coco_panoptic.reader import OPTIONS, list_split, splits, writer
from pixelwise.data.spec import Format

FORMAT = Format(OPTIONS, splits, list_split, writer, numbered_ids=True, copies_are_lists=True)
