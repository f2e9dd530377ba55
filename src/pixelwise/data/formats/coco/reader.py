"""COCO instances: annotations/instances_SPLIT*.json and the folder SPLIT*/ of images, or the layout of another tool.

    PATH/
    ├── annotations/
    │   ├── instances_train2017.json
    │   └── instances_val2017.json
    ├── train2017/000000000009.jpg
    └── val2017/000000000139.jpg

The truth of an image is its objects and, painted from them, the class of each pixel: the largest object first, so that
small ones stay on top; what no object covers is `background`; a crowd region that no object covers is void.

Where the JSON's categories are those of COCO 2017, the label set is the published one; else it is made from the
categories, in the order of their ids, after `background`. Of an annotation without segmentation (none, an empty one,
polygons of less than three points) nobody knows the pixels: its box becomes a crowd region, in which nothing is learned
and no prediction is wrong. A box without width or height is replaced by that of the segmentation; an annotation with
neither is skipped. The set's note counts them; other faults are refused, and so is a file in which no annotation has a
segmentation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pixelwise.data.dataset import require_unique
from pixelwise.data.formats.coco import layout as coco_layout
from pixelwise.data.formats.coco.json import (
    DRAWN_BACKGROUND,
    annotation_problems,
    has_box,
    has_segmentation,
    labels_of,
    repeated_annotations,
    skipped_categories,
)
from pixelwise.data.formats.coco.writer import CocoWriter, coco_labels, things_alone
from pixelwise.data.kinds.coco_json import (
    CocoJson,
    Entry,
    Problem,
    image_name,
    image_problems,
    is_finite,
    is_id,
    is_integer,
    number_of_text,
    read_json,
    truth_value,
)
from pixelwise.data.kinds.faults import Fault, SplitReport, count
from pixelwise.data.kinds.object_lists import (
    DrawnObjects,
    Objects,
    Shape,
    inspect_images,
    left_out,
    similar_names,
)
from pixelwise.errors import DataError
from pixelwise.files.lookup import find_files, posix_name
from pixelwise.files.parallel import Progress
from pixelwise.labels import LabelSet

OPTIONS: Mapping[str, str] = {
    "annotations": "a JSON file in the folder, instead of annotations/instances_SPLIT*.json",
    "images": "the folder of images, instead of SPLIT*/",
    "classes": "things, of a set that is written: its other classes become background",
}

_PREFIX = "instances_"
"""What the names of the JSON files begin with."""


def splits(path: Path, options: Mapping[str, str]) -> tuple[str, ...]:
    """What stands between `instances_` and `.json`, without the year where that leaves it clear."""
    if "annotations" in options:
        return ("all",)
    return coco_layout.splits(path, _PREFIX)


def open_split(path: Path, split: str, options: Mapping[str, str], *, name: str) -> DrawnObjects:
    """The images of one JSON file. Raises DataError for a malformed file, an unusable annotation, a missing image."""
    file = annotation_file(path, split, options)
    content = read_json(file)
    images, annotations = content.images, content.annotations
    if not images:
        raise DataError(f"{file}: no images in it")
    labels, class_of = labels_in(content, source=file)
    _refuse(image_problems(images), source=file)
    require_unique([str(image["id"]) for image in images], source=str(file))
    _refuse(_all_annotation_problems(annotations, images, class_of), source=file)
    if annotations and not any(map(has_segmentation, annotations)):
        raise DataError(
            f"{file}: none of its {len(annotations):,} annotations has a segmentation; boxes alone do not say which "
            "pixels are the object's"
        )
    files = image_files(path, split, options, images)
    missing = [image for image in files if not image.is_file()]
    if missing:
        raise DataError(f"{missing[0]}: no such file; {len(missing)} of the {len(files)} images of {name} are missing")
    note = "; ".join((*_losses(annotations), *_notes(content, labels))) or None
    return _packed(annotations, images, class_of, name=name, labels=labels, file=file, files=files, note=note)


def check_split(path: Path, split: str, options: Mapping[str, str], *, workers: int, progress: Progress) -> SplitReport:
    """Look at every entry of the JSON file, read every image and rasterise every object; report every fault.

    Raises DataError where the file as a whole is unusable, or there is no folder of images.
    """
    file = annotation_file(path, split, options)
    content = read_json(file)
    images, annotations = content.images, content.annotations
    labels, class_of = labels_in(content, source=file)
    problems = [*image_problems(images), *_all_annotation_problems(annotations, images, class_of)]
    broken = {id(problem.entry) for problem in problems if problem.fatal}
    sound = [image for image in images if id(image) not in broken]
    dataset = _packed(
        [annotation for annotation in annotations if id(annotation) not in broken],
        sound,
        class_of,
        name=split,
        labels=labels,
        file=file,
        files=image_files(path, split, options, sound),
        note=None,
    )
    faults = [Fault(problem.kind, problem.where, problem.text) for problem in problems]
    if not images:
        faults.append(Fault("empty split", str(file), "no images in it"))
    found, notes = inspect_images(dataset, split=split, workers=workers, progress=progress)
    faults += found
    return SplitReport(
        split=split,
        title=str(file),
        counts=(
            count(len(images), "image"),
            count(len(annotations), "annotation"),
            count(len(set(class_of.values())), "category", "categories"),
        ),
        ids=dataset.ids,
        images=dataset.images,
        faults=tuple(faults),
        notes=(*_notes(content, labels), *notes),
    )


def labels_in(content: CocoJson, *, source: Path) -> tuple[LabelSet, dict[Any, int]]:
    """The label set of a file, and category id → class id. Raises DataError for unusable categories."""
    used = _used(content.annotations)
    return labels_of(content.categories, source=source, stored=content.label_set, used=used)


def annotation_file(path: Path, split: str, options: Mapping[str, str]) -> Path:
    """The JSON file of a split. Raises DataError when there is none, or more than one that it could be."""
    if "classes" in options:
        raise DataError(f"coco: classes={options['classes']}; it is an option of a set that is written")
    if "annotations" in options:
        return path / options["annotations"]
    return coco_layout.json_file(path, split, _PREFIX)


def image_files(path: Path, split: str, options: Mapping[str, str], images: Sequence[Entry]) -> tuple[Path, ...]:
    """The files that the entries name, in the folder of the split. Raises DataError when there is no such folder."""
    folder = image_folder(path, split, options, images)
    names = [image_name(image) or "" for image in images]
    found = find_files(names, [folder, path], below=None if folder == path else folder)
    return tuple(file or folder / posix_name(name) for name, file in zip(names, found, strict=True))


def writer(options: Mapping[str, str], source: LabelSet) -> CocoWriter:
    """Writes a set of this format; see `data.formats.coco.writer`."""
    strange = next((name for name in options if name != "classes"), None)
    if strange is not None:
        raise DataError(f"coco: a new set takes no option {strange}; it takes classes=things")
    if options and options["classes"] != "things":
        raise DataError(f"coco: classes={options['classes']}; expected things")
    return CocoWriter(coco_labels(things_alone(source) if options else source))


def image_folder(path: Path, split: str, options: Mapping[str, str], images: Sequence[Entry]) -> Path:
    """The folder that the names of the entries start from. Raises DataError when there is none."""
    names = [image_name(image) or "" for image in images]
    file = annotation_file(path, split, options)
    year = file.stem.removeprefix(_PREFIX)
    return coco_layout.image_folder(path, split, year, wanted=options.get("images"), names=names, file=file)


def _packed(
    annotations: Sequence[Entry],
    images: Sequence[Entry],
    class_of: Mapping[Any, int],
    *,
    name: str,
    labels: LabelSet,
    file: Path,
    files: tuple[Path, ...],
    note: str | None,
) -> DrawnObjects:
    """The data set of sound entries; annotations without extent, image or class are left out."""
    number_of = {image["id"]: number for number, image in enumerate(images)}
    drawn = [
        annotation
        for annotation in annotations
        if annotation["image_id"] in number_of
        and (has_segmentation(annotation) or has_box(annotation))
        and class_of[annotation["category_id"]] != labels.background_id
    ]
    return DrawnObjects(
        name=name,
        format="coco",
        labels=labels,
        ids=tuple(str(image["id"]) for image in images),
        images=files,
        truth_files=(file,) * len(images),
        objects=Objects.from_shapes(
            [
                _shape(annotation, place, number_of[annotation["image_id"]], class_of)
                for place, annotation in enumerate(drawn, start=1)
            ],
            len(images),
        ),
        noun="annotation",
        sizes=tuple((image["height"], image["width"]) for image in images),
        note=note,
    )


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
    id, area = number_of_text(annotation["id"]), annotation.get("area")
    id = annotation["id"] if is_integer(annotation["id"]) else id if is_integer(id) else place
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
    )


def _losses(annotations: Sequence[Entry]) -> Iterator[str]:
    """What a set does not hold of its annotations, or holds otherwise than they state it."""
    flat = sum(not has_segmentation(one) and not has_box(one) for one in annotations)
    boxes = sum(not has_segmentation(one) and has_box(one) for one in annotations)
    redrawn = sum(has_segmentation(one) and not has_box(one) for one in annotations)
    lost = left_out({"without extent": flat})
    if lost:
        yield lost
    if boxes:
        yield (
            f"neither learned nor evaluated: the boxes of {count(boxes, 'annotation')} without segmentation, see "
            "pixelwise data check"
        )
    if redrawn:
        yield f"given the box of their segmentation: {count(redrawn, 'annotation')} without a box of any extent"


def _notes(content: CocoJson, labels: LabelSet) -> Iterator[str]:
    """What is no fault of a file, but good to know."""
    annotations = content.annotations
    if content.images and not annotations:
        yield "no annotations in it: nothing can be learned from it"
    elif annotations and all(truth_value(one.get("iscrowd")) for one in annotations):
        yield (
            f"all {count(len(annotations), 'annotation')} are crowds (iscrowd 1), in which nothing is learned or "
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
    skipped = skipped_categories(content.categories, _used(annotations))
    for kind, text in (
        ("root", "category '{}' is none of the classes: no annotation has it, and all others lie under it"),
        ("twin", "one of two categories called '{}' is no class: no annotation has it"),
    ):
        yield from (text.format(one.get("name")) for one in skipped[kind])
    yield from similar_names(labels)


def _used(annotations: Sequence[Entry]) -> set[Any]:
    """The category ids of the annotations."""
    return {one["category_id"] for one in annotations if is_id(one.get("category_id"))}


def _all_annotation_problems(
    annotations: Sequence[Entry], images: Sequence[Entry], class_of: Mapping[Any, int]
) -> Iterator[Problem]:
    image_of = {image["id"]: image for image in images if is_id(image.get("id"))}
    for annotation in annotations:
        yield from annotation_problems(annotation, image_of, class_of)
    yield from repeated_annotations(annotations, image_of)


def _refuse(problems: Iterable[Problem], *, source: Path) -> None:
    problem = next((problem for problem in problems if problem.fatal), None)
    if problem is not None:
        raise DataError(f"{source}: {problem.where}: {problem.text}; pixelwise data check lists all such faults")
