"""COCO instances: annotations/instances_SPLIT*.json and the folder SPLIT*/ of images.

The truth of an image is its objects and, painted from them, the class of each pixel: the largest object first, so that
small ones stay on top; what no object covers is `background`; a crowd region that no object covers is void.

Where the JSON's categories are those of COCO 2017, the label set is the published one; else it is made from the
categories, in the order of their ids, after `background`. Of an annotation without segmentation nobody knows the
pixels: its box becomes a crowd region, in which nothing is learned and no prediction is wrong. One without extent (a
box without width or height, no polygon of three points) is left out. The set's note counts both; other faults are
refused, and so is a file in which no annotation has a segmentation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pixelwise.data.dataset import require_unique
from pixelwise.data.formats.coco import layout as coco_layout
from pixelwise.data.formats.coco.json import (
    annotation_problems,
    has_extent,
    has_segmentation,
    labels_of,
    repeated_annotations,
)
from pixelwise.data.formats.coco.writer import CocoWriter, coco_labels, things_alone
from pixelwise.data.kinds.coco_json import Entry, Problem, image_problems, is_finite, read_json
from pixelwise.data.kinds.faults import Fault, SplitReport, count
from pixelwise.data.kinds.object_lists import DrawnObjects, Objects, Shape, inspect_images, left_out
from pixelwise.errors import DataError
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
    labels, class_of = labels_of(content.categories, source=file, stored=content.label_set)
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
    return _packed(annotations, images, class_of, name=name, labels=labels, file=file, files=files)


def check_split(path: Path, split: str, options: Mapping[str, str], *, workers: int, progress: Progress) -> SplitReport:
    """Look at every entry of the JSON file, read every image and rasterise every object; report every fault.

    Raises DataError where the file as a whole is unusable, or there is no folder of images.
    """
    file = annotation_file(path, split, options)
    content = read_json(file)
    images, annotations = content.images, content.annotations
    labels, class_of = labels_of(content.categories, source=file, stored=content.label_set)
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
            count(len(class_of), "category", "categories"),
        ),
        ids=dataset.ids,
        images=dataset.images,
        faults=tuple(faults),
        notes=tuple(notes),
    )


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
    return tuple(folder / image["file_name"] for image in images)


def writer(options: Mapping[str, str], source: LabelSet) -> CocoWriter:
    """Writes a set of this format; see `data.formats.coco.writer`."""
    strange = next((name for name in options if name != "classes"), None)
    if strange is not None:
        raise DataError(f"coco: a new set takes no option {strange}; it takes classes=things")
    if options and options["classes"] != "things":
        raise DataError(f"coco: classes={options['classes']}; things is wanted, or nothing")
    return CocoWriter(coco_labels(things_alone(source) if options else source))


def image_folder(path: Path, split: str, options: Mapping[str, str], images: Sequence[Entry]) -> Path:
    """The folder that the names of the entries start from. Raises DataError when there is none."""
    names = [image["file_name"] for image in images[:1]]
    year = annotation_file(path, split, options).stem.removeprefix(_PREFIX)
    return coco_layout.image_folder(path, split, year, wanted=options.get("images"), names=names)


def _packed(
    annotations: Sequence[Entry],
    images: Sequence[Entry],
    class_of: Mapping[int, int],
    *,
    name: str,
    labels: LabelSet,
    file: Path,
    files: tuple[Path, ...],
) -> DrawnObjects:
    """The data set of sound entries; annotations without extent or image are left out."""
    number_of = {image["id"]: number for number, image in enumerate(images)}
    known = [annotation for annotation in annotations if annotation["image_id"] in number_of]
    whole = [annotation for annotation in known if has_extent(annotation)]
    boxes = sum(not has_segmentation(annotation) for annotation in whole)
    lost = left_out({"without extent": len(annotations) - len(whole)})
    unknown = f"neither learned nor evaluated: the boxes of {count(boxes, 'annotation')} without segmentation"
    notes = [note for note in (lost, f"{unknown}, see pixelwise data check" if boxes else None) if note]
    return DrawnObjects(
        name=name,
        format="coco",
        labels=labels,
        ids=tuple(str(image["id"]) for image in images),
        images=files,
        truth_files=(file,) * len(images),
        objects=Objects.from_shapes(
            [_shape(annotation, number_of[annotation["image_id"]], class_of) for annotation in whole], len(images)
        ),
        noun="annotation",
        sizes=tuple((image["height"], image["width"]) for image in images),
        note="; ".join(notes) or None,
    )


def _shape(annotation: Entry, image: int, class_of: Mapping[int, int]) -> Shape:
    """A sound annotation, without its polygons of less than three points; its box, where it has no segmentation."""
    x, y, width, height = annotation["bbox"]
    is_drawn = has_segmentation(annotation)
    area: Any = annotation.get("area")
    outline = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    segmentation = annotation["segmentation"] if is_drawn else outline
    has_runs = isinstance(segmentation, dict)
    return Shape(
        image=image,
        id=annotation["id"],
        class_id=class_of[annotation["category_id"]],
        polygons=() if has_runs else [polygon for polygon in segmentation if len(polygon) >= 6],
        runs=segmentation if has_runs else None,
        crowd=bool(annotation.get("iscrowd", 0)) or not is_drawn,
        box=(x, y, x + width, y + height),
        area=area if is_finite(area) else None,
        boxed=not is_drawn and not annotation.get("iscrowd", 0),
    )


def _all_annotation_problems(
    annotations: Sequence[Entry], images: Sequence[Entry], class_of: Mapping[int, int]
) -> Iterator[Problem]:
    image_of = {image["id"]: image for image in images if isinstance(image.get("id"), int | str)}
    for annotation in annotations:
        yield from annotation_problems(annotation, image_of, class_of)
    yield from repeated_annotations(annotations, image_of)


def _refuse(problems: Iterable[Problem], *, source: Path) -> None:
    problem = next((problem for problem in problems if problem.fatal), None)
    if problem is not None:
        raise DataError(f"{source}: {problem.where}: {problem.text}; pixelwise data check lists all such faults")
