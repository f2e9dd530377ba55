"""COCO instances: annotations/instances_SPLIT*.json and the folder SPLIT*/ of images, or the layout of another tool.

    PATH/
    ├── annotations/
    │   ├── instances_train2017.json
    │   └── instances_val2017.json
    ├── train2017/000000000009.jpg
    └── val2017/000000000139.jpg

`?annotations=FILE` and `?images=FOLDER` name what lies elsewhere.

The ground truth of an image is its objects and, painted from them, the class of each pixel: the largest object first,
so that small ones stay on top; what no object covers is `background`; a crowd region that no object covers is void.

Where the JSON's categories are those of COCO 2017, the label set is the published one; else it is made from the
categories, in the order of their ids, after `background`. Of an annotation without segmentation (none, an empty one,
polygons of less than three points) nobody knows the pixels: its box becomes a crowd region, in which nothing is learned
and no prediction is wrong. A box without width or height is replaced by that of the segmentation; an annotation with
neither is skipped. The set's note counts them; other faults are refused, and so is a file in which no annotation has a
segmentation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pixelwise.data.formats.coco import layout
from pixelwise.data.formats.coco.json import (
    DRAWN_BACKGROUND,
    annotation_problems,
    category_problems,
    has_box,
    has_segmentation,
    labels_in,
    repeated_annotations,
    skipped_categories,
    used_in,
)
from pixelwise.data.formats.coco.places import PREFIX, annotation_file, image_files
from pixelwise.data.formats.coco.repair import repair_of
from pixelwise.data.formats.coco.writer import CocoWriter, coco_labels, things_alone
from pixelwise.data.kinds.coco_json import (
    CocoJson,
    Entry,
    image_problems,
    is_finite,
    is_id,
    is_integer,
    number_of_text,
    read_json,
    truth_value,
)
from pixelwise.data.kinds.object_lists import (
    LARGEST_ID,
    Objects,
    Shape,
    inspect_objects,
    joined,
    read_objects,
    similar_names,
    skipped,
)
from pixelwise.data.listing import Fault, Item, Listing
from pixelwise.errors import DataError, count
from pixelwise.labels import LabelSet

OPTIONS: Mapping[str, str] = {
    "annotations": "a JSON file in the folder, instead of annotations/instances_SPLIT*.json",
    "images": "the folder of images, instead of SPLIT*/",
    "classes": "things, of a set that is written: its other classes become background",
}

_NOUN = "annotation"


def splits(path: Path, options: Mapping[str, str]) -> tuple[str, ...]:
    """What stands between `instances_` and `.json`, without the year where that leaves it clear."""
    if "annotations" in options:
        return ("all",)
    return layout.splits(path, PREFIX)


def list_split(path: Path, split: str, options: Mapping[str, str]) -> Listing:
    """The images of one JSON file with their objects.

    Raises:
        DataError: the file as a whole is unusable, or there is no folder of images.
    """
    file = annotation_file(path, split, options)
    content = read_json(file)
    images, annotations = content.images, content.annotations
    labels, class_of = labels_in(content, source=file)
    faults = [
        *category_problems(content.categories, used_in(annotations)),
        *image_problems(images),
        *_all_annotation_problems(annotations, images, class_of),
    ]
    if annotations and not any(map(has_segmentation, annotations)):
        text = (
            f"none of its {len(annotations):,} annotations has a segmentation; boxes alone do not say which pixels are "
            "the object's"
        )
        faults.append(Fault("boxes alone", str(file), text))
    broken = {id(fault.entry) for fault in faults if fault.fatal}
    sound = [image for image in images if id(image) not in broken]
    usable = [annotation for annotation in annotations if id(annotation) not in broken]
    objects = _packed(usable, sound, class_of, labels)
    files = image_files(path, split, options, sound)
    items = tuple(
        Item(str(image["id"]), of_image, file, size_hw=(image["height"], image["width"]), extra=number)
        for number, (image, of_image) in enumerate(zip(sound, files, strict=True))
    )
    return Listing(
        items,
        labels,
        read=partial(read_objects, objects=objects, noun=_NOUN),
        inspect=partial(inspect_objects, objects=objects, noun=_NOUN, by_id=True),
        source=file,
        faults=tuple(faults),
        notes=tuple(_notes(content, labels)),
        skipped=joined(*_losses(usable)),
        truths=f"in {file}",
        noun="JSON file",
        parts=("annotation", "annotations"),
        title=str(file),
        one_file=True,
        counts=(
            count(len(images), "image"),
            count(len(annotations), "annotation"),
            count(len(set(class_of.values())), "category", "categories"),
        ),
        repair=partial(repair_of, path, split, options, file),
    )


def writer(options: Mapping[str, str], source: LabelSet) -> CocoWriter:
    """Writes a set of this format; see `data.formats.coco.writer`."""
    if options and options["classes"] != "things":
        raise DataError(f"coco: classes={options['classes']}; expected things")
    return CocoWriter(coco_labels(things_alone(source) if options else source))


def _packed(
    annotations: Sequence[Entry], images: Sequence[Entry], class_of: Mapping[Any, int], labels: LabelSet
) -> Objects:
    """The objects of sound entries; annotations without extent or image, and those of the background, are skipped."""
    number_of = {image["id"]: number for number, image in enumerate(images)}
    drawn = [
        annotation
        for annotation in annotations
        if annotation["image_id"] in number_of
        and (has_segmentation(annotation) or has_box(annotation))
        and class_of[annotation["category_id"]] != labels.background_id
    ]
    shapes = [
        _shape(annotation, place, number_of[annotation["image_id"]], class_of)
        for place, annotation in enumerate(drawn, start=1)
    ]
    return Objects.from_shapes(shapes, len(images))


def _shape(annotation: Entry, place: int, image: int, class_of: Mapping[Any, int]) -> Shape:
    """A sound annotation, without its polygons of less than three points; its box, where it has no segmentation."""
    is_drawn = has_segmentation(annotation)
    segmentation: Any = annotation.get("segmentation")
    box = None
    if has_box(annotation):
        x, y, width, height = annotation["bbox"]
        box = (x, y, x + width, y + height)
        segmentation = segmentation if is_drawn else [[x, y, x + width, y, x + width, y + height, x, y + height]]
    has_runs = isinstance(segmentation, dict)
    stated: Any = annotation["id"]
    area: Any = annotation.get("area")
    number = stated if is_integer(stated) else number_of_text(stated)
    id = number if isinstance(number, int) and abs(number) <= LARGEST_ID else place
    return Shape(
        image=image,
        id=id,
        class_id=class_of[annotation["category_id"]],
        polygons=() if has_runs else [polygon for polygon in segmentation if len(polygon) >= 6],
        runs=segmentation if has_runs else None,
        crowd=bool(truth_value(annotation.get("iscrowd"))) or not is_drawn,
        box=box,
        area=area if is_finite(area) and area >= 0 else None,
        boxed=not is_drawn and not truth_value(annotation.get("iscrowd")),
        name=None if stated == id else str(stated),
    )


def _losses(annotations: Sequence[Entry]) -> Iterator[str]:
    """What a set does not hold of its annotations, or holds otherwise than they state it."""
    flat = sum(not has_segmentation(one) and not has_box(one) for one in annotations)
    boxes = sum(not has_segmentation(one) and has_box(one) for one in annotations)
    redrawn = sum(has_segmentation(one) and not has_box(one) for one in annotations)
    lost = skipped({"without extent": flat})
    if lost:
        yield lost
    if boxes:
        yield (
            f"ignored in training and evaluation: the boxes of {count(boxes, 'annotation')} without segmentation, see "
            "pixelwise data check"
        )
    if redrawn:
        yield f"given the box of their segmentation: {count(redrawn, 'annotation')} without a box of any extent"


def _notes(content: CocoJson, labels: LabelSet) -> Iterator[str]:
    """Notes on a file that are no faults."""
    annotations = content.annotations
    if annotations and all(truth_value(one.get("iscrowd")) for one in annotations):
        yield (
            f"all {count(len(annotations), 'annotation')} are crowds (iscrowd 1), which are ignored in training and "
            "evaluated; iscrowd 0 marks objects"
        )
    grounds = {one.get("id") for one in content.categories if one.get("name") in ("background", DRAWN_BACKGROUND)}
    background = sum(one.get("category_id") in grounds for one in annotations if is_id(one.get("category_id")))
    if background:
        yield f"{count(background, 'annotation')} of the background, no objects"
    flat = sum(is_finite(one.get("area")) and one["area"] == 0 for one in annotations)
    if flat:
        yield f"{count(flat, 'annotation')} with area 0: AP by size takes the stated area, as pycocotools does"
    if any(is_finite(one.get("id")) and one["id"] == 0 for one in annotations):
        yield "annotation id 0: pycocotools never counts that object as found, so its AP is lower; number from 1"
    others = skipped_categories(content.categories, used_in(annotations))
    for kind, text in (
        ("root", "category '{}' is none of the classes: no annotation has it, and all others lie under it"),
        ("twin", "one of two categories called '{}' is no class: no annotation has it"),
    ):
        yield from (text.format(one.get("name")) for one in others[kind])
    yield from similar_names(labels)


def _all_annotation_problems(
    annotations: Sequence[Entry], images: Sequence[Entry], class_of: Mapping[Any, int]
) -> Iterator[Fault]:
    image_of = {image["id"]: image for image in images if is_id(image.get("id"))}
    for annotation in annotations:
        yield from annotation_problems(annotation, image_of, class_of)
    yield from repeated_annotations(annotations, image_of)
