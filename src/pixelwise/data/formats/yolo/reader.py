"""YOLO's polygons: a text file for each image, in the folder `labels` where the images lie in `images`.

Layouts: a `data.yaml` with `train:`, `val:` (or `test:`) and `names:`; without it `images/SPLIT/` and `labels/SPLIT/`,
`SPLIT/images/` and `SPLIT/labels/`, or `images/` and `labels/`, of which every fifth image by name then goes to `val`.
An image without text file has no objects.

The classes are those of `?labels=` or of a `labels.toml` in PATH, else the names in `data.yaml`, else a `labels.txt` or
`classes.txt` with one name a line, the first is class 0; `background` comes before them. Lines that are boxes are left
out, and the set's note counts them; a set in which every line is a box is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count as count_from
from pathlib import Path
from typing import Any

from pixelwise.data.formats.yolo.text import YoloFile, all_faults, read_yolo
from pixelwise.data.formats.yolo.writer import YoloWriter, yolo_labels
from pixelwise.data.kinds.class_masks_writer import writable_labels
from pixelwise.data.kinds.coco_json import labels_from
from pixelwise.data.kinds.faults import Fault, SplitReport, count
from pixelwise.data.kinds.folders import (
    EVERY_FIFTH,
    Entry,
    divided,
    in_reading_order,
    list_images,
    read_labels,
    require_split,
    stored_labels,
)
from pixelwise.data.kinds.object_lists import (
    DrawnObjects,
    Objects,
    Shape,
    inspect_images,
    left_out,
    refuse,
    shape_faults,
)
from pixelwise.errors import DataError
from pixelwise.files.images import IMAGE_SUFFIXES
from pixelwise.files.parallel import Progress
from pixelwise.files.text import read_lines, read_yaml
from pixelwise.labels import LabelSet

OPTIONS: Mapping[str, str] = {
    "labels": "a published label set, or a .txt or .toml file in the folder",
    "data": "a file of the folder that is to be taken for data.yaml",
}

_NOUN = "line"
_YAML = "data.yaml"
_SPLITS = {"train": "train", "val": "val", "valid": "val", "test": "test"}
"""What data.yaml, or a folder, calls a split → the split. Other names are splits if they name a folder."""

_OTHER_KEYS = ("path", "names", "nc", "download")


def splits(path: Path, options: Mapping[str, str]) -> tuple[str, ...]:
    """The splits that data.yaml names or that have folders; `train` and `val` where there are none."""
    found = _places(path, options)
    if found:
        return in_reading_order(found)
    entries = _every_image(path)
    if not entries:
        raise DataError(f"{path}: no {_YAML} and no images/ with labels/ in it; those of YOLO are wanted")
    return ("train", "val")[: 1 + bool(divided(entries, "val"))]


def open_split(path: Path, split: str, options: Mapping[str, str], *, name: str) -> DrawnObjects:
    """The images of one split. Raises DataError for an unusable line, and where every line is a box."""
    images, labels = images_of(path, split, options), labels_of(path, options)
    if not images:
        raise DataError(f"{name}: no images in this split")
    files = [read_yolo(label_file(image)) for image in images]
    known = class_numbers(labels, path, options)
    for file in files:
        refuse(file.path, all_faults(file, known), noun=_NOUN)
    boxes = sum(len(file.boxes) for file in files)
    if boxes and not any(file.lines for file in files):
        raise DataError(f"{name}: all {boxes:,} lines are boxes; boxes alone do not say which pixels are the object's")
    return _packed(images, files, labels, name=name, note=_note(path, files, options))


def check_split(path: Path, split: str, options: Mapping[str, str], *, workers: int, progress: Progress) -> SplitReport:
    """Read every image and its lines, rasterise every object and report every fault."""
    images, labels = images_of(path, split, options), labels_of(path, options)
    faults: list[Fault] = [] if images else [Fault("empty split", str(path), f"no images in {split}")]
    files: list[YoloFile] = []
    known = class_numbers(labels, path, options)
    for image in images:
        try:
            file = read_yolo(label_file(image))
        except DataError as error:
            where = str(label_file(image))
            faults.append(Fault("unreadable annotations", where, str(error).removeprefix(f"{where}: ")))
            file = YoloFile(label_file(image), (), (), ())
        faults.extend(shape_faults(file.path, all_faults(file, known), noun=_NOUN))
        files.append(replace(file, lines=tuple(line for line in file.lines if line.class_id in known)))
    dataset = _packed(images, files, labels, name=split, note=None)
    found, notes = inspect_images(dataset, split=split, workers=workers, progress=progress)
    note = () if _places(path, options) else (EVERY_FIFTH,)
    return SplitReport(
        split=split,
        title=split,
        counts=(
            count(len(images), "image"),
            count(len(dataset.objects.ids), "object"),
            count(len(labels), "class", "classes"),
        ),
        ids=dataset.ids,
        images=dataset.images,
        faults=(*faults, *found),
        notes=(*note, *notes),
    )


def labels_of(path: Path, options: Mapping[str, str]) -> LabelSet:
    """The label set, whose ids on disk are the numbers in the text files. Raises DataError where nothing says it."""
    stored = stored_labels(path, options) if "labels" in options or (path / "labels.toml").is_file() else None
    if stored is not None and not stored[1]:
        return yolo_labels(stored[0]) if "labels" in options else stored[0]
    content = _content(path, options)
    if stored is not None:
        names: Sequence[Any] | Mapping[Any, Any] = stored[0].names
    elif content.get("names") is not None:
        names = content["names"]
    else:
        files = [path / name for name in ("labels.txt", "classes.txt") if (path / name).is_file()]
        if not files:
            raise DataError(f"{path}: no names in {_YAML}, and no labels.txt or classes.txt with one class name a line")
        names = read_labels(files[0]).names
    pairs = list(names.items()) if isinstance(names, Mapping) else list(enumerate(names if _is_list(names) else ()))
    if not pairs or not all(isinstance(id, int) and id >= 0 and isinstance(one, str) for id, one in pairs):
        raise DataError(f"{path / _YAML}: names is {names!r}; a list of names, or numbers with names, is wanted")
    if len({one for _, one in pairs}) < len(pairs):
        raise DataError(f"{path / _YAML}: a name stands more than once in names")
    labels = labels_from(sorted(pairs), name=path.resolve().name)
    if labels.background_id is None or "background" in (one for _, one in pairs):
        return labels
    free = next(id for id in count_from(max(id for id, _ in pairs) + 1) if id not in labels.void_ids)
    return replace(labels, dataset_ids=(free, *labels.dataset_ids[1:]))


def class_numbers(labels: LabelSet, path: Path, options: Mapping[str, str]) -> tuple[int, ...]:
    """The numbers that lines may begin with: those of all classes, without a background that no list of names has."""
    names = _content(path, options).get("names") or ()
    if "background" in (names.values() if isinstance(names, Mapping) else names):
        return labels.dataset_ids
    return tuple(id for index, id in enumerate(labels.dataset_ids) if index != labels.background_id)


def ids_of(images: Sequence[Path]) -> tuple[str, ...]:
    """The ids of the images of a split: their names, with the suffix where several have one stem."""
    stems = Counter(image.stem for image in images)
    return tuple(image.stem if stems[image.stem] == 1 else image.name for image in images)


def label_file(image: Path) -> Path:
    """Where the lines of an image are: under `labels` instead of the last `images` in its path, else beside it."""
    parts = list(image.parts)
    places = [place for place, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


def writer(options: Mapping[str, str], source: LabelSet) -> YoloWriter:
    """Writes images/SPLIT/, labels/SPLIT/, data.yaml and labels.toml."""
    if "data" in options:
        raise DataError("yolo: a new set takes no option data")
    return YoloWriter(yolo_labels(writable_labels(options, source=source, default=None)))


def _is_list(names: Any) -> bool:
    return isinstance(names, list | tuple)


def _content(path: Path, options: Mapping[str, str]) -> Mapping[str, Any]:
    """What stands in data.yaml; nothing where there is none."""
    file = path / options.get("data", _YAML)
    if "data" not in options and not file.is_file():
        return {}
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise DataError(f"{file}: train, val and names are wanted in it")
    return content


def _places(path: Path, options: Mapping[str, str]) -> dict[str, list[Path]]:
    """Split → its folders, or files that list images; by data.yaml, else by the folders."""
    content, found = _content(path, options), dict[str, list[Path]]()
    for name, value in content.items():
        values = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]
        if values and (name in _SPLITS or (name not in _OTHER_KEYS and (path / values[0]).is_dir())):
            places = [_place(path, content.get("path"), value, options) for value in values]
            found[_SPLITS.get(name, name)] = places
    if found:
        return found
    folders = [folder for place in ("images/*/", "*/images/") for folder in sorted(path.glob(place))]
    for folder in folders:
        name = folder.name if folder.parent.name == "images" else folder.parent.name
        found.setdefault(_SPLITS.get(name, name), [folder])
    return found


def _place(path: Path, root: Any, value: str, options: Mapping[str, str]) -> Path:
    """A place of data.yaml: below its `path`, below its own folder, or as Roboflow writes it, with `../` before."""
    plain = value
    while plain.startswith("../"):
        plain = plain.removeprefix("../")
    bases = [path / root] if isinstance(root, str) else []
    for base in (*bases, path):
        for name in (value, plain):
            if (base / name).exists():
                return base / name
    raise DataError(f"{path / options.get('data', _YAML)}: no folder {value}")


def _every_image(path: Path) -> list[Entry]:
    if not (path / "images").is_dir() or not (path / "labels").is_dir():
        return []
    return [Entry(image.stem, image, image) for image in list_images(path / "images")]


def images_of(path: Path, split: str, options: Mapping[str, str]) -> list[Path]:
    """The images of a split, whether they are there or not."""
    places = _places(path, options)
    require_split(split, tuple(places) or ("train", "val"), source=path)
    if not places:
        return [entry.image for entry in divided(_every_image(path), split) if entry.image]
    images: list[Path] = []
    for place in places[split]:
        images += list_images(place) if place.is_dir() else _listed(place)
    return images


def _listed(file: Path) -> list[Path]:
    paths = [file.parent / name.strip() for name in read_lines(file) if name.strip()]
    return [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES]


def _packed(
    images: Sequence[Path], files: Sequence[YoloFile], labels: LabelSet, *, name: str, note: str | None
) -> DrawnObjects:
    class_of = {id: index for index, id in enumerate(labels.dataset_ids)}
    shapes = [
        Shape(image=number, id=line.place, class_id=class_of[line.class_id], polygons=[line.polygon])
        for number, file in enumerate(files)
        for line in file.lines
        if class_of[line.class_id] != labels.background_id
    ]
    return DrawnObjects(
        name=name,
        format="yolo",
        labels=labels,
        ids=ids_of(images),
        images=tuple(images),
        truth_files=tuple(file.path for file in files),
        objects=Objects.from_shapes(shapes, len(images), fractions=True),
        noun=_NOUN,
        note=note,
    )


def _note(path: Path, files: Sequence[YoloFile], options: Mapping[str, str]) -> str | None:
    lost = Counter(fault.kind for file in files for fault in file.faults)
    notes = (
        None if _places(path, options) else EVERY_FIFTH,
        left_out({"without segmentation": lost["no segmentation"], "without extent": lost["polygon without extent"]}),
    )
    return "; ".join(text for text in notes if text) or None
