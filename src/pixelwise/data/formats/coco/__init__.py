"""COCO instances: annotations/instances_SPLIT*.json and the folder SPLIT*/ of images, or the layout of another tool.

    PATH/
    ├── annotations/
    │   ├── instances_train2017.json
    │   └── instances_val2017.json
    ├── train2017/000000000009.jpg
    └── val2017/000000000139.jpg

`?annotations=FILE` and `?images=FOLDER` name what lies elsewhere. See `reader` for what is read, `layout` for the
layouts of other tools, and `repair` for what a repaired copy holds.
"""

from pixelwise.data.formats.coco.reader import OPTIONS, list_split, splits, writer
from pixelwise.data.spec import Format

FORMAT = Format(OPTIONS, splits, list_split, writer, numbered_ids=True, copies_are_lists=True)
