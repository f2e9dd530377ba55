"""COCO instances: annotations/instances_SPLIT*.json and the folder SPLIT*/ of images.

The truth of an image is its objects and, painted from them, the class of each pixel: the largest object first, so that
small ones stay on top; what no object covers is `background`; a crowd region that no object covers is void.

Where the JSON's categories are those of COCO 2017, the label set is the published one; else it is made from the
categories, in the order of their ids, after `background`. An annotation without segmentation, or without extent (a box
without width or height, no polygon of three points), is left out, and the set's remark counts them; other faults are
refused, and so is a file in which no annotation has a segmentation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pixelwise.data.coco_json import (
    Entry,
    Problem,
    annotation_problems,
    has_extent,
    has_segmentation,
    image_problems,
    labels_of,
    read_json,
    repeated_annotations,
)
from pixelwise.data.coco_target import CocoTarget, coco_labels
from pixelwise.data.dataset import require_unique
from pixelwise.data.faults import Fault, SplitReport, count
from pixelwise.data.folders import in_reading_order
from pixelwise.data.objects import DrawnObjects, Objects, Shape, inspect_images, left_out
from pixelwise.data.parallel import Progress
from pixelwise.errors import DataError
from pixelwise.labels import LabelSet

OPTIONS: Mapping[str, str] = {
    "annotations": "a JSON file in the folder, instead of annotations/instances_SPLIT*.json",
    "images": "the folder of images, instead of SPLIT*/",
}


def splits(path: Path, options: Mapping[str, str]) -> tuple[str, ...]:
    """What stands between `instances_` and `.json`, without the year where that leaves it clear."""
    if "annotations" in options:
        return ("all",)
    full = [file.stem.removeprefix("instances_") for file in path.glob("annotations/instances_*.json")]
    if not full:
        raise DataError(f"{path}: no annotations/instances_SPLIT.json in it, such as instances_train2017.json")
    short = [re.sub(r"(?<=.)\d{4}$", "", name) for name in full]
    return in_reading_order(
        name if short.count(name) == 1 else longer for name, longer in zip(short, full, strict=True)
    )


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
        remarks=tuple(notes),
    )


def annotation_file(path: Path, split: str, options: Mapping[str, str]) -> Path:
    """The JSON file of a split. Raises DataError when there is none, or more than one that it could be."""
    if "annotations" in options:
        return path / options["annotations"]
    exact = path / "annotations" / f"instances_{split}.json"
    if exact.is_file():
        return exact
    found = sorted(path.glob(f"annotations/instances_{split}*.json"))
    with_year = [file for file in found if re.fullmatch(r"\d{4}", file.stem.removeprefix(f"instances_{split}"))]
    found = with_year or found
    if len(found) > 1:
        names = ", ".join(f"@{file.stem.removeprefix('instances_')}" for file in found)
        raise DataError(f"{path}: split '{split}' could be any of {names}; write one of them")
    if not found:
        raise DataError(f"{path}: no split '{split}'; there are {', '.join(splits(path, options))}")
    return found[0]


def image_files(path: Path, split: str, options: Mapping[str, str], images: Sequence[Entry]) -> tuple[Path, ...]:
    """The files that the entries name, in the folder of the split. Raises DataError when there is no such folder."""
    folder = image_folder(path, split, options, images)
    return tuple(folder / image["file_name"] for image in images)


def target(options: Mapping[str, str], source: LabelSet) -> CocoTarget:
    """Writes a set of this format; see `data.coco_target`."""
    if options:
        raise DataError(f"coco: a new set takes no option {next(iter(options))}")
    return CocoTarget(coco_labels(source))


def image_folder(path: Path, split: str, options: Mapping[str, str], images: Sequence[Entry]) -> Path:
    """The folder that the names of the entries start from. Raises DataError when there is none."""
    if "images" in options:
        folder = path / options["images"]
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder, named by ?images={options['images']}")
        return folder
    year = annotation_file(path, split, options).stem.removeprefix("instances_")
    named = [parent / name for parent in (path, path / "images") for name in (year, split)]
    starting = sorted(folder for folder in path.glob(f"{split}*") if folder.is_dir())
    folder = next((folder for folder in (*named, *starting) if folder.is_dir()), None)
    if folder is not None:
        return folder
    for folder in (path / "images", path):  # file names with folders of their own, or one folder for all splits
        if images and (folder / images[0]["file_name"]).is_file():
            return folder
    raise DataError(f"{path}: no folder {year}/, {split}/ or images/ with the images; name it by ?images=…")


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
    """The data set of sound entries; annotations without segmentation, extent or image are left out."""
    number_of = {image["id"]: number for number, image in enumerate(images)}
    known = [annotation for annotation in annotations if annotation["image_id"] in number_of]
    drawn = [annotation for annotation in known if has_segmentation(annotation)]
    whole = [annotation for annotation in drawn if has_extent(annotation)]
    lost = {
        "without segmentation": len(known) - len(drawn),
        "without extent": len(annotations) - len(known) + len(drawn) - len(whole),
    }
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
        remark=left_out(lost),
    )


def _shape(annotation: Entry, image: int, class_of: Mapping[int, int]) -> Shape:
    """A sound annotation, without its polygons of less than three points."""
    segmentation = annotation["segmentation"]
    has_runs = isinstance(segmentation, dict)
    x, y, width, height = annotation["bbox"]
    return Shape(
        image=image,
        id=annotation["id"],
        class_id=class_of[annotation["category_id"]],
        polygons=() if has_runs else [polygon for polygon in segmentation if len(polygon) >= 6],
        runs=segmentation if has_runs else None,
        crowd=bool(annotation.get("iscrowd", 0)),
        box=(x, y, x + width, y + height),
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
