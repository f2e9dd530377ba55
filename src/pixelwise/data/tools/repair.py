"""Repaired copies of faulty data sets: what `pixelwise data check --fix` writes, beside the set and never into it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pixelwise.data.formats.coco.repair import repair_json
from pixelwise.data.formats.coco_panoptic.repair import repair_panoptic_json
from pixelwise.data.formats.instance_masks import repair as object_masks_repair
from pixelwise.data.formats.labelme.repair import labelme_copy
from pixelwise.data.formats.yolo.repair import yolo_copy
from pixelwise.data.kinds.class_masks_repair import _pair_copy
from pixelwise.data.kinds.folders import UNIONS, in_reading_order
from pixelwise.data.kinds.repair_clips import copy_clips
from pixelwise.data.kinds.repair_images import FolderCopy, write_copy
from pixelwise.data.spec import DataSpec, folder_of, format_of
from pixelwise.errors import DataError
from pixelwise.files.parallel import Progress, silent

REPAIRS: Mapping[str, str] = {
    "missing_images": "{} left out, their image is missing",
    "missing_masks": "{} images left out, their mask is missing",
    "unreadable_images": "{} images left out, they cannot be read",
    "unreadable_masks": "{} images left out, their mask cannot be read",
    "colour_masks": "{} images left out, their mask holds colours; see pixelwise data convert and ?palette=labels",
    "size_mismatches": "{} images left out, their mask has another size",
    "only_void": "{} images left out, every pixel is void",
    "unreadable_annotations": "{} images left out, their file of objects cannot be read",
    "repeated_images": "{} images left out, the same image is in the set already (of two splits the later keeps it)",
    "rival_files": "{} files passed over, another has the same name",
    "grey_masks": "{} colour masks with equal channels stored as ids",
    "turned_masks": "{} masks turned as EXIF turns their image",
    "upright_images": "{} images stored upright, without EXIF rotation, encoded anew",
    "missing_objects": "{} images left out, their file of object ids is missing or cannot be read",
    "missing_clips": "{} clips left out, there is no folder of their masks",
    "unusable_splits": "{} splits left out, their list or JSON cannot be read",
    "empty_splits": "{} splits left out, no frame of them can be used",
    "cut_clips": "{} times a clip cut in two: frames are missing, or the size changes; the rest is a clip of its own",
    "renumbered_objects": "{} objects of clips numbered anew, an object of another class or clip has their number",
    "unknown_regions": "{} regions of unknown classes become void",
    "unlisted_regions": "{} regions become void, no frame of their clip lists a segment of their id",
    "given_segments": "{} regions given the segment that other frames of their clip list under their id",
    "numbers_of_stuff": "{} regions of classes whose objects are not told apart lose their number",
    "things_without_number": "{} regions of things without number become an object each",
    "images_without_annotation": "{} images left out, no annotation is of them",
    "entries": "{} annotations of images removed: no image or no PNG of theirs, no segments, or a second one",
    "videos": "{} videos removed, with their annotations: no usable id, file_names or size, or the id of another",
    "lengths": "{} lengths of videos corrected to their file_names",
    "tracks": "{} annotations of objects removed: no video, no category, or not one segmentation for each frame",
    "runs": "{} RLEs given the size of their frame, which their runs fill",
    "joined_masks": "{} masks joined with another of the same object in the frame",
    "object_classes": "{} objects made one of the class that most of their pixels have, or that their id tells",
    "objects_without_class": "{} objects removed, none of their pixels has a class of objects",
    "pixels_without_object": "{} pixels of classes become void, they belong to no object",
    "table_numbers": "{} numbers of objects removed from the table of classes, no pixel has them",
    "unknown_pixels": "{} pixels of unknown ids or colours become void",
    "images": "{} images removed, with their annotations: unreadable, missing or without id and file_name",
    "merged_images": "{} entries of images removed, another has the same file or id",
    "file_names": "{} file names corrected to where the files lie",
    "numbers": "{} numbers written as text become numbers",
    "ids_as_numbers": "{} ids that are text become numbers, which they are in other places",
    "ids_as_text": "{} ids that are numbers become text, which they are in other places",
    "joined_categories": "{} categories joined with another of the same name",
    "wrapped_polygons": "{} segmentations of one flat list become a list of polygons",
    "frames_by_size": "{} images turned by EXIF: their coordinates fit the stored frame and the upright one, and the "
    "stated size alone says that the stored one is meant; look at them with pixelwise data show",
    "sizes": "{} heights and widths corrected to those of the upright image",
    "turned_annotations": "{} annotations turned as EXIF turns their image",
    "annotations": "{} annotations removed: no image, no category, or no segmentation that covers a pixel",
    "regions_of_boxes": "{} boxes without segmentation made regions (iscrowd) in which nothing is learned or evaluated",
    "repeated_annotations": "{} annotations removed, another has their class and their pixels",
    "two_classes": "{} annotations stay though one of another class has the same pixels; which is right only you know",
    "shapes": "{} shapes or lines removed: malformed, of no known class, or without a pixel of the image",
    "boxes_alone": "{} lines that are boxes stay, nothing is learned or evaluated in them; draw what is in them",
    "cut_polygons": "{} polygons cut at the border of the image",
    "polygons": "{} polygons removed, they are malformed or have no three points",
    "unlisted_ids": "{} images left out, their PNG has ids of which the JSON knows no segment",
    "segments": "{} segments removed: no category, the id 0, or that of another of the image",
    "segments_without_pixels": "{} segments removed, no pixel of the PNG has their id",
    "areas": "{} areas corrected to the pixels",
    "boxes": "{} boxes cut at the border of the image, or drawn around the segmentation",
    "ids": "{} annotations numbered anew, their id was taken or no whole number",
}
"""What can be done: key → the line that says it, {} for the number."""

_JSON_REPAIRS = {
    "coco": ("instances_", repair_json),
    "coco-panoptic": ("panoptic_", repair_panoptic_json),
    "cityscapes-panoptic": ("panoptic_", partial(repair_panoptic_json, format="cityscapes-panoptic")),
}
"""What the repaired files of a format of one JSON are called, and what writes them."""

_COPIES: Mapping[str, Callable[[Path, Sequence[str], Mapping[str, str]], FolderCopy]] = {
    "instance-masks": object_masks_repair.copy_of,
    "labelme": labelme_copy,
    "yolo": yolo_copy,
}
"""How the copies of formats are made that hold objects in a file for each image."""


@dataclass(frozen=True)
class Repairs:
    """What was done.

    Attributes:
        path: the file or the folder that was written.
        done: key of REPAIRS → how often.
        images: how many are left.
        opens_as: the specifications under which the copy opens.
    """

    path: Path
    done: Mapping[str, int]
    images: int
    opens_as: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """What was done, one line each."""
        for key, text in REPAIRS.items():
            if self.done.get(key):
                yield text.format(f"{self.done[key]:,}")


def require_repairable(spec: DataSpec, out: Path) -> None:
    """Raise DataError unless a repaired copy of the set may be written to that place."""
    format = format_of(spec)
    has_clips = hasattr(format, "frames_to_repair")
    if not (has_clips or hasattr(format, "list_entries") or spec.format in _JSON_REPAIRS or spec.format in _COPIES):
        raise DataError(f"{spec}: sets of the format {spec.format} cannot be repaired")
    if Path.cwd().is_relative_to(out.resolve()):
        raise DataError(f"--fix {out}: the folder you are in, or one around it; choose another name")
    if out.is_dir() and any(out.iterdir()):
        raise DataError(f"--fix {out}: the folder is not empty, and nothing is repaired in place; choose another name")
    if out.is_file():
        raise DataError(f"--fix {out}: the file is there already, nothing is repaired in place; choose another name")
    if not out.absolute().parent.is_dir():
        raise DataError(f"--fix {out}: no folder {out.parent} to write it to")
    splits = (spec.split,) if spec.split else format.splits(folder_of(spec), dict(spec.options))
    if spec.format in _JSON_REPAIRS and out.suffix == ".json" and len(splits) > 1:
        raise DataError(
            f"--fix {out}: one file for the splits {', '.join(splits)}; write one of them after the folder, such as "
            f"@{splits[0]}, or give --fix a folder"
        )


def repair_dataset(spec: DataSpec, out: Path, *, workers: int = 0, progress: Progress = silent) -> Repairs:
    """Write a repaired copy of one split of a set or, where the specification names none, of all.

    A set with a file of truth for each image, or of clips, becomes a folder of the same format; of COCO's formats only
    the JSON is written, a file, or a folder of files where `out` does not end with `.json`.

    Raises:
        DataError: see `require_repairable`; nothing usable is left; or the disk is full.
    """
    require_repairable(spec, out)
    format, path, options = format_of(spec), folder_of(spec), dict(spec.options)
    splits = (spec.split,) if spec.split else format.splits(path, options)
    # of an image in two splits the later split keeps it: what is measured on is worth more than what is trained on
    ordered = sorted(splits, key=lambda split: (split in UNIONS, -in_reading_order(splits).index(split)))
    try:
        if hasattr(format, "frames_to_repair"):
            clips = copy_clips(out, format, path, ordered, options, name=str(spec), workers=workers, progress=progress)
            opened = DataSpec(spec.format, str(out), spec.split, tuple(clips.query.items()))
            return Repairs(out, _in_order(clips.done), clips.images, (str(opened),))
        if spec.format not in _JSON_REPAIRS:
            make = _COPIES.get(spec.format, partial(_pair_copy, format))
            copy = make(path, ordered, options)
            done, images = write_copy(out, copy, name=str(spec), workers=workers, progress=progress)
            opened = DataSpec(spec.format, str(out), spec.split, tuple(copy.query.items()))
            return Repairs(out, _in_order(done), images, (str(opened),))
        done = Counter[str]()
        opens_as: list[str] = []
        seen: set[Any] = set()
        images = 0
        for split in ordered:
            prefix, repair = _JSON_REPAIRS[spec.format]
            file = out if out.suffix == ".json" else out / f"{prefix}{split}.json"
            repaired = repair(path, split, options, file, seen=seen, workers=workers, progress=progress)
            done += Counter(repaired.done)
            images += repaired.images
            opens_as.append(repaired.opens_as)
    except OSError as error:
        raise DataError(f"--fix {out}: cannot be written ({error.strerror or error})") from None
    return Repairs(out, _in_order(done), images, tuple(opens_as))


def _in_order(done: Mapping[str, int]) -> dict[str, int]:
    return {key: done[key] for key in REPAIRS if done.get(key)}
