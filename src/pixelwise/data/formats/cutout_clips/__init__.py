"""Clips that are made of labelled stills: objects cut out by their masks move over photographs; see `synthesis`.

PATH is a set of another format, `?source=coco` unless another is named, whose truth has objects with masks; its split
is the split here, so that clips of `train` and `val` have nothing in common. Nothing is written to the disk.
"""

from pixelwise.data.formats.cutout_clips.reader import OPTIONS, check_split, open_split, splits

__all__ = ["OPTIONS", "check_split", "open_split", "splits"]
