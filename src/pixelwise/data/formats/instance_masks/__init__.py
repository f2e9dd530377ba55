"""One's own images with masks of objects, one number for each object and 0 for none, paired by name.

    PATH/
    ├── labels.txt                 not needed for one class
    ├── classes.json               only where ?divisor= does not tell the classes
    ├── images/train/0001.jpg      or images/0001.jpg, or train/0001.jpg
    └── masks/train/0001.png       0 is none, 1, 2, … are objects

The layouts are those of the format masks: `images/SPLIT/` and `masks/SPLIT/`; `images/` and `masks/` without splits;
`SPLIT/` and `SPLITannot/`. `?images=PNGImages&masks=PedMasks&suffix=_mask` reads Penn-Fudan.

Without a label file all objects are of one class, `object`; a `labels.txt` with one name (`background` may stand before
it) gives it another. With several classes, `?divisor=1000` says that a number is class · 1000 + count, or a file
`classes.json` holds the class of each number; see `classes`. `?void=255` names one that means "ignored".

The ground truth of an image is its objects and the class of each pixel, `background` where no object is.
"""

from pixelwise.data.formats.instance_masks.reader import OPTIONS, list_split, writer
from pixelwise.data.kinds.pair_layout import splits
from pixelwise.data.spec import Format

FORMAT = Format(OPTIONS, splits, list_split, writer, takes=tuple(OPTIONS))
