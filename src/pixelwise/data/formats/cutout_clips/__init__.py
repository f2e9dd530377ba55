"""Clips that are made of labelled stills: objects cut out by their masks move over photographs; see `synthesis`.

    PATH/                          a set of another format, such as coco
    ├── annotations/instances_train2017.json
    └── train2017/000000000009.jpg

PATH is a set of another format, `?source=coco` unless another is named, whose ground truth has objects with masks; its
split is the split here, so that clips of `train` and `val` have nothing in common. Nothing is written to the disk.
"""

from pixelwise.data.formats.cutout_clips.reader import OPTIONS, list_split, splits
from pixelwise.data.spec import Format

FORMAT = Format(OPTIONS, splits, list_split, synthetic=True)
