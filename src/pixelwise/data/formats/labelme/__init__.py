"""LabelMe: a JSON file for each image, beside it or in a folder of its own.

    PATH/
    ├── labels.txt         may be missing
    ├── train/
    │   ├── 0001.jpg
    │   └── 0001.json      shapes: label, points, shape_type
    └── val/

See `reader` for the layouts, and `json` for what counts as an object.
"""

from pixelwise.data.formats.labelme.reader import OPTIONS, list_split, splits, writer
from pixelwise.data.spec import Format

FORMAT = Format(OPTIONS, splits, list_split, writer, takes=("labels",))
