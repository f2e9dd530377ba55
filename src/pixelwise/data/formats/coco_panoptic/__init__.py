"""COCO panoptic: annotations/panoptic_SPLIT*.json, annotations/panoptic_SPLIT*/ with PNGs, SPLIT*/ with images.

    PATH/
    ├── annotations/
    │   ├── panoptic_train2017.json
    │   └── panoptic_train2017/000000000009.png    id = R + 256·G + 65536·B
    └── train2017/000000000009.jpg

In a PNG id = R + 256·G + 65536·B is the segment of a pixel, 0 = void; the JSON lists the segments of each image with
their categories. `?encoding=2channel` reads PNGs that hold the class in R and the number of the object in G (see
`data.kinds.segment_maps`); then the JSON need only have images and categories.

`?json=FILE`, `?masks=FOLDER` and `?images=FOLDER` name what lies elsewhere: a JSON `examples.json` has its PNGs in
`examples/`, if `masks` does not say otherwise. Where the categories are those of COCO 2018 or of Cityscapes, the label
set is the published one; else it is made from them. Images without annotation are skipped, and a note counts them.
"""

from pixelwise.data.formats.coco_panoptic.reader import OPTIONS, list_split, splits, writer
from pixelwise.data.spec import Format

FORMAT = Format(
    OPTIONS, splits, list_split, writer, takes=("encoding", "labels"), numbered_ids=True, copies_are_lists=True
)
