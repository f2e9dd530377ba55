"""COCO instances: annotations/instances_SPLIT*.json and the folder SPLIT*/ of images.

The truth of an image is its objects and, painted from them, the class of each pixel: the largest object first, so that
small ones stay on top; what no object covers is `background`; a crowd region that no object covers is void.

Where the JSON's categories are those of COCO 2017, the label set is the published one; else it is made from the
categories, in the order of their ids, after `background`. An annotation without extent (a box without width or height,
no polygon of three points) is left out, and the set's remark counts them; other faults are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixelwise.data.coco_boxes import is_elsewhere, leaves_image, tight_box
from pixelwise.data.coco_json import (
    Entry,
    Problem,
    annotation_problems,
    has_extent,
    image_problems,
    labels_of,
    read_json,
    repeated_annotations,
)
from pixelwise.data.coco_target import CocoTarget, coco_labels
from pixelwise.data.dataset import require_unique
from pixelwise.data.faults import Fault, Findings, SplitReport, count, readable_image, remarks, size_fault
from pixelwise.data.folders import in_reading_order
from pixelwise.data.images import read_image
from pixelwise.data.painting import painted
from pixelwise.data.parallel import Progress, apply
from pixelwise.errors import DataError
from pixelwise.labels import LabelSet
from pixelwise.ops import rle
from pixelwise.types import Annotation, Instances, Masks, Sample

OPTIONS: Mapping[str, str] = {
    "annotations": "a JSON file in the folder, instead of annotations/instances_SPLIT*.json",
    "images": "the folder of images, instead of SPLIT*/",
}


@dataclass(frozen=True, eq=False)
class Objects:
    """The annotations of many images in flat arrays: small, and shared with worker processes without copies.

    Attributes:
        starts: objects starts[i] … starts[i+1]-1 belong to image i.
        annotation_ids: as in the JSON.
        class_ids: 0…K-1.
        boxes: x1 y1 x2 y2, pixels.
        crowd: whether the region is of many objects.
        polygon_starts: polygons polygon_starts[n] … polygon_starts[n+1]-1 belong to object n.
        point_starts: where in `coordinates` each polygon begins, and the end of the last.
        coordinates: x, y of all polygons, pixels.
        runs: object → its RLE, of those that have no polygons.
    """

    starts: np.ndarray
    annotation_ids: np.ndarray
    class_ids: np.ndarray
    boxes: np.ndarray
    crowd: np.ndarray
    polygon_starts: np.ndarray
    point_starts: np.ndarray
    coordinates: np.ndarray
    runs: Mapping[int, Mapping[str, Any]]

    @classmethod
    def from_annotations(
        cls, annotations: Iterable[Entry], images: Sequence[Entry], class_of: Mapping[int, int]
    ) -> Objects:
        """Pack sound annotations, those of an image in the order of the file."""
        image_index = {image["id"]: index for index, image in enumerate(images)}
        ordered = sorted(annotations, key=lambda annotation: image_index[annotation["image_id"]])
        owners = [image_index[annotation["image_id"]] for annotation in ordered]
        polygons = [_polygons(annotation["segmentation"]) for annotation in ordered]
        flat = [polygon for of_one in polygons for polygon in of_one]
        boxes = np.array([annotation["bbox"] for annotation in ordered], dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        return cls(
            starts=np.searchsorted(np.array(owners, dtype=np.int64), np.arange(len(images) + 1)),
            annotation_ids=np.array([annotation["id"] for annotation in ordered], dtype=np.int64),
            class_ids=np.array([class_of[annotation["category_id"]] for annotation in ordered], dtype=np.int64),
            boxes=boxes.astype(np.float32),
            crowd=np.array([bool(annotation.get("iscrowd", 0)) for annotation in ordered], dtype=np.bool_),
            polygon_starts=np.cumsum([0, *(len(of_one) for of_one in polygons)]),
            point_starts=np.cumsum([0, *(len(polygon) for polygon in flat)]),
            coordinates=np.concatenate([np.zeros(0), *flat]),
            runs={
                number: annotation["segmentation"]
                for number, annotation in enumerate(ordered)
                if isinstance(annotation["segmentation"], dict)
            },
        )

    def mask(self, number: int, size: tuple[int, int], *, source: str) -> np.ndarray:
        """One object as u8 [H, W]. Raises DataError, beginning with `source` and the annotation's id."""
        name = f"{source}, annotation {self.annotation_ids[number]}"
        if number in self.runs:
            return rle.decode(self.runs[number], size=size, source=name)
        polygons = [
            self.coordinates[self.point_starts[polygon] : self.point_starts[polygon + 1]].tolist()
            for polygon in range(self.polygon_starts[number], self.polygon_starts[number + 1])
        ]
        return rle.from_polygons(polygons, size, source=name)


@dataclass(frozen=True, eq=False)
class CocoInstances:
    """Images with the objects in them. See Dataset for the attributes; ids are the JSON's image ids.

    Attributes:
        annotation_file: the JSON file.
        images: the image files.
        sizes: height and width of each, by the JSON.
        objects: the annotations.
    """

    name: str
    labels: LabelSet
    ids: tuple[str, ...]
    annotation_file: Path
    images: tuple[Path, ...] = field(repr=False)
    sizes: tuple[tuple[int, int], ...] = field(repr=False)
    objects: Objects = field(repr=False)
    remark: str | None = None
    format: str = "coco"

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """Read one image and rasterise its objects. Raises DataError with the file, image id and annotation id."""
        index = range(len(self))[index]  # negative and too large indices as in a list
        try:
            image = read_image(self.images[index])
        except DataError as error:
            raise DataError(f"{error} (image {self.ids[index]})") from None
        size = (image.shape[1], image.shape[2])
        if size != self.sizes[index]:
            height, width = self.sizes[index]
            raise DataError(
                f"{self.images[index]}: {size[0]}×{size[1]} pixels (height×width, upright), "
                f"{self.annotation_file.name} says {height}×{width} (image {self.ids[index]})"
            )
        return Sample(image=image, truth=self.truth(index), id=self.ids[index], original_size=size)

    def truth(self, index: int) -> Annotation:
        """The objects of one image and the classes painted from them, without reading the image."""
        objects, size, numbers = self.objects, self.sizes[index], self.numbers(index)
        source = f"{self.annotation_file}: image {self.ids[index]}"
        masks = Masks.from_arrays((objects.mask(number, size, source=source) for number in numbers), size)
        chosen = slice(numbers.start, numbers.stop)
        instances = Instances(
            boxes=torch.from_numpy(objects.boxes[chosen].copy()),
            labels=torch.from_numpy(objects.class_ids[chosen].copy()),
            masks=masks,
            crowd=torch.from_numpy(objects.crowd[chosen].copy()),
        )
        semantic = painted(masks, objects.class_ids[chosen], objects.crowd[chosen], self.labels)
        return Annotation(semantic=torch.from_numpy(semantic), instances=instances)

    def numbers(self, index: int) -> range:
        """Where the objects of one image stand in `objects`."""
        return range(self.objects.starts[index], self.objects.starts[index + 1])

    def size_of(self, index: int) -> tuple[int, int]:
        """Height and width of the upright image, by the JSON."""
        return self.sizes[index]

    def image_path(self, index: int) -> Path:
        """The file of the image."""
        return self.images[index]

    def truth_path(self, index: int) -> Path:  # noqa: ARG002
        """The JSON file."""
        return self.annotation_file


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


def open_split(path: Path, split: str, options: Mapping[str, str], *, name: str) -> CocoInstances:
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
    findings: list[Findings] = []
    read = apply(partial(inspect_image, dataset=dataset), range(len(dataset)), workers=workers)
    for found in progress(read, total=len(dataset), what=split):
        findings.append(found)
        faults.extend(found.faults)
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
        remarks=tuple(remarks(findings, labels)),
    )


def inspect_image(index: int, *, dataset: CocoInstances) -> Findings:
    """Read one image, compare its size with the JSON's, and rasterise its objects."""
    faults: list[Fault] = []
    path, stated = dataset.images[index], dataset.sizes[index]
    name = f"{dataset.ids[index]} '{path.name}'"
    size, degrees, fault = readable_image(path, f"image {name}")
    if fault is not None:
        faults.append(fault)
    if size is not None and size != stated:
        faults.append(size_fault(f"image {name}", size, degrees, stated=stated, by="JSON"))
    numbers = dataset.numbers(index)
    for number in numbers:
        where = f"annotation {dataset.objects.annotation_ids[number]} (image {dataset.ids[index]}, '{path.name}')"
        faults.extend(_object_faults(dataset.objects, number, stated, where))
    class_ids = frozenset(dataset.objects.class_ids[numbers.start : numbers.stop].tolist())
    ground = dataset.labels.background_id
    return Findings(tuple(faults), class_ids | ({ground} if ground is not None else set()), turned=degrees != 0)


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
) -> CocoInstances:
    """The data set of sound entries; annotations without extent or image are left out."""
    known = {image["id"] for image in images}
    whole = [annotation for annotation in annotations if has_extent(annotation) and annotation["image_id"] in known]
    lost = len(annotations) - len(whole)
    return CocoInstances(
        name=name,
        labels=labels,
        ids=tuple(str(image["id"]) for image in images),
        annotation_file=file,
        images=files,
        sizes=tuple((image["height"], image["width"]) for image in images),
        objects=Objects.from_annotations(whole, images, class_of),
        remark=f"left out: {lost} annotations without extent, see pixelwise data check" if lost else None,
    )


def _all_annotation_problems(
    annotations: Sequence[Entry], images: Sequence[Entry], class_of: Mapping[int, int]
) -> Iterator[Problem]:
    image_of = {image["id"]: image for image in images if isinstance(image.get("id"), int | str)}
    for annotation in annotations:
        yield from annotation_problems(annotation, image_of, class_of)
    yield from repeated_annotations(annotations, image_of)


def _object_faults(objects: Objects, number: int, size: tuple[int, int], where: str) -> Iterator[Fault]:
    source = "object"
    try:
        mask = objects.mask(number, size, source=source)
    except DataError as error:
        text = str(error).removeprefix(f"{source}, annotation {objects.annotation_ids[number]}: ")
        yield Fault("segmentation", where, text)
        return
    if not mask.any():
        yield Fault("object without pixels", where, "its segmentation covers no pixel of the image")
    x1, y1, x2, y2 = box = [float(value) for value in objects.boxes[number]]
    if leaves_image(box, size):
        text = f"box [{x1:g},{y1:g},{x2:g},{y2:g}] (x1,y1,x2,y2) leaves the image of {size[0]}×{size[1]} (height×width)"
        yield Fault("box outside", where, text)
    elif mask.any() and not objects.crowd[number] and is_elsewhere(box, mask != 0):
        yield Fault("box elsewhere", where, _elsewhere(box, mask != 0))


def _elsewhere(box: Sequence[float], mask: np.ndarray) -> str:
    other = tight_box(mask)
    stated, found = (",".join(f"{value:g}" for value in one) for one in (box, other))
    text = f"box [{stated}] (x1,y1,x2,y2) is not that of its segmentation, [{found}]"
    x1, y1 = box[:2]
    swapped = (x1, y1, box[2] - x1, box[3] - y1)
    return text + ("" if is_elsewhere(swapped, mask) else "; COCO wants x, y, width, height")


def _polygons(segmentation: Any) -> list[np.ndarray]:
    """The polygons of three points or more; none of an RLE."""
    if isinstance(segmentation, dict):
        return []
    return [np.array(polygon, dtype=np.float64) for polygon in segmentation if len(polygon) >= 6]


def _refuse(problems: Iterable[Problem], *, source: Path) -> None:
    problem = next((problem for problem in problems if problem.fatal), None)
    if problem is not None:
        raise DataError(f"{source}: {problem.where}: {problem.text}; pixelwise data check lists all such faults")
