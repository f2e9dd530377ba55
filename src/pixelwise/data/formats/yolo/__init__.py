"""YOLO's polygons: images/SPLIT/, labels/SPLIT/ with a text file for each image, and data.yaml.

    PATH/
    ├── data.yaml                  train:, val:, names:
    ├── images/train/0001.jpg
    └── labels/train/0001.txt      class x1 y1 x2 y2 x3 y3 …, fractions of the image

See `reader` for what is read, `layout` for where files may lie, and `text` for what stands in them.
"""

from pixelwise.data.formats.yolo.reader import OPTIONS, list_split, splits, writer
from pixelwise.data.spec import Format

FORMAT = Format(OPTIONS, splits, list_split, writer, takes=("labels",))
