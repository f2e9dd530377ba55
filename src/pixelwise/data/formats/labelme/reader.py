"""LabelMe: a JSON file for each image, beside it or in a folder of its own.

    PATH/
    ├── labels.txt         may be missing
    ├── train/
    │   ├── 0001.jpg
    │   └── 0001.json      shapes: label, points, shape_type
    └── val/

Layouts: `SPLIT/` with the files of a split, or all files in PATH, of which every fifth by name then goes to `val`.
`?annotations=` names the folder of the JSON files, `?images=` that of the images, where they are not beside the JSON.

The classes are those of a `labels.toml` or `labels.txt` in PATH, or of `?labels=`, and without one the names that stand
in the files, in alphabetical order; `background` comes before them. What counts as an object is told in
`data.formats.labelme.json`. Shapes are painted in their order, as LabelMe's own scripts do: one of `_background_` is a
hole in those before it, and one of `__ignore__` is void. Points and lines are skipped, and the set's note counts them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from pixelwise.data.formats.labelme.json import (
    BACKGROUND,
    IGNORED,
    UNUSED,
    LabelmeFile,
    all_faults,
    labels_in,
    mask_runs,
    object_runs,
    read_labelme,
)
from pixelwise.data.formats.labelme.repair import repair_of
from pixelwise.data.formats.labelme.writer import LabelmeWriter
from pixelwise.data.kinds.class_masks_writer import writable_labels
from pixelwise.data.kinds.coco_json import labels_from
from pixelwise.data.kinds.folders import (
    EVERY_FIFTH,
    divided,
    in_reading_order,
    list_images,
    require_split,
    stored_labels,
)
from pixelwise.data.kinds.object_lists import (
    Objects,
    Shape,
    faults_in,
    inspect_objects,
    joined,
    read_objects,
    similar_names,
    skipped,
)
from pixelwise.data.listing import Fault, Item, Listing, without_path
from pixelwise.data.truth.painting import HOLE
from pixelwise.errors import DataError, count
from pixelwise.files.images import IMAGE_SUFFIXES, image_size
from pixelwise.files.lookup import Folders, find_file
from pixelwise.labels import LabelSet

OPTIONS: Mapping[str, str] = {
    "annotations": "the folder of JSON files",
    "images": "the folder of images, where they are not beside the JSON files",
    "labels": "a published label set, or a .txt or .toml file in the folder",
}

_NOUN = "shape"


def splits(path: Path, options: Mapping[str, str]) -> tuple[str, ...]:
    """The sub-folders with JSON files; `train` and `val` where there are none. Fewer than five files make no `val`."""
    folders = _sub_folders(path, options)
    if folders:
        return in_reading_order(folder.name for folder in folders)
    entries = _entries(_root(path, options))
    if not entries:
        raise DataError(
            f"{_root(path, options)}: no JSON files in it or in its sub-folders; name their folder by ?annotations=…"
        )
    return ("train", "val")[: 1 + bool(divided(entries, "val"))]


def list_split(path: Path, split: str, options: Mapping[str, str]) -> Listing:
    """The images of one split with the shapes in their JSON files."""
    labels = labels_of(path, options, skip=True)
    faults: list[Fault] = []
    files: list[tuple[LabelmeFile, Path]] = []
    repaired: list[Item] = []
    listed = files_of(path, split, options)
    for json_file in listed:
        try:
            file = read_labelme(json_file)
        except DataError as error:
            faults.append(Fault("unreadable annotations", str(json_file), without_path(error, json_file)))
            repaired.append(Item(json_file.stem, None, json_file))
            continue
        found, image = [*all_faults(file, known_names(labels))], image_of(file, path, split, options)
        faults += faults_in(json_file, found, noun=_NOUN)
        repaired.append(Item(json_file.stem, image, json_file))
        if image is None:
            is_embedded = "; the file holds it (imageData), pixelwise data check --fix writes it out"
            text = f"no image '{file.image}'{is_embedded if file.embedded else ''}"
            faults.append(Fault("missing image", str(json_file), text))
        elif not any(fault.shape is None for fault in found):
            unusable = {fault.shape for fault in found if fault.fatal}
            files.append((replace(file, parts=tuple(one for one in file.parts if one.place not in unusable)), image))
    objects = _packed(files, labels)
    items = tuple(
        Item(file.path.stem, image, file.path, size_hw=file.size, extra=number)
        for number, (file, image) in enumerate(files)
    )
    return Listing(
        items,
        labels,
        read=partial(read_objects, objects=objects, noun=_NOUN),
        inspect=partial(inspect_objects, objects=objects, noun=_NOUN),
        source=_root(path, options),
        faults=tuple(faults),
        notes=(
            *(() if _sub_folders(path, options) else (EVERY_FIFTH,)),
            *_without_file(path, split, options, listed, repaired),
            *similar_names(labels),
        ),
        skipped=_skipped([file for file, _ in files]),
        truths=f"in the JSON files of {listed[0].parent if listed else path}",
        noun="JSON file",
        parts=("object", "objects"),
        repair=partial(repair_of, tuple(repaired), labels, known_names(labels)),
    )


def _without_file(
    path: Path, split: str, options: Mapping[str, str], listed: Sequence[Path], items: Sequence[Item]
) -> Iterator[str]:
    """The note of images that have no JSON file."""
    folders = {file.parent for file in listed}
    if "images" in options:
        folders = {folder for folder in (path / options["images"] / split,) if folder.is_dir()}
    used = {item.image.resolve() for item in items if item.image}
    images = [image for folder in sorted(folders) for image in list_images(folder) if image.resolve() not in used]
    stems = {file.stem for file in listed}
    if not _sub_folders(path, options):  # the other split's
        stems |= {file.stem for file in _root(path, options).glob("*.json")}
    lonely = [image for image in images if image.stem not in stems]
    if lonely:
        yield f"{count(len(lonely), 'image')} without JSON file, such as {lonely[0].name}: skipped"


def labels_of(path: Path, options: Mapping[str, str], *, skip: bool = False) -> LabelSet:
    """The label set of the folder; the names in all splits where no file says it.

    Args:
        path: the folder of the data set.
        options: of the specification.
        skip: pass over files that cannot be read, instead of raising DataError.
    """
    stored = stored_labels(path, options)
    if stored is not None and not stored[1]:
        return stored[0]
    if stored is not None:
        names = [name for name in stored[0].names if name != IGNORED]
    else:
        found: set[str] = set()
        for split in splits(path, options):
            for file in files_of(path, split, options):
                try:
                    found.update(labels_in([read_labelme(file)]))
                except DataError:
                    if not skip:
                        raise
        names = sorted(found - {IGNORED})
    objects = [name for name in names if name not in (BACKGROUND, "background")]
    return labels_from([*enumerate(objects, 1)], name=path.resolve().name)


def writer(options: Mapping[str, str], source: LabelSet) -> LabelmeWriter:
    """Writes SPLIT/ with images and JSON files, and labels.toml."""
    return LabelmeWriter(writable_labels(options, source=source, default=None))


def _root(path: Path, options: Mapping[str, str]) -> Path:
    folder = path / options.get("annotations", ".")
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder, named by ?annotations={options['annotations']}")
    return folder


def _sub_folders(path: Path, options: Mapping[str, str]) -> list[Path]:
    root = _root(path, options)
    if any(root.glob("*.json")):
        return []
    return [folder for folder in sorted(root.iterdir()) if folder.is_dir() and any(folder.glob("*.json"))]


def _entries(folder: Path) -> list[Item]:
    return [Item(file.stem, file, file) for file in sorted(folder.glob("*.json")) if not file.name.startswith(".")]


def files_of(path: Path, split: str, options: Mapping[str, str]) -> list[Path]:
    """The JSON files of a split."""
    folders, found = _sub_folders(path, options), splits(path, options)
    require_split(split, found if folders else ("train", "val"), source=path)
    root = _root(path, options)
    entries = _entries(root / split) if folders else divided(_entries(root), split)
    return [entry.image for entry in entries if entry.image]


def image_of(file: LabelmeFile, path: Path, split: str, options: Mapping[str, str]) -> Path | None:
    """Where the image of a file lies: where the file says, in the folder of images, or beside it under its name."""
    folders = [file.path.parent]
    if "images" in options:
        folders = [path / options["images"], path / options["images"] / split, *folders]
    found = find_file(file.image, folders) if file.image else None
    if found is not None:
        return found
    known = Folders()
    for folder in folders:
        for suffix in sorted(IMAGE_SUFFIXES):
            image = known.entry(folder, f"{file.path.stem}{suffix}")
            if image is not None and image.is_file():
                return image
    return None


def known_names(labels: LabelSet) -> tuple[str, ...]:
    """What shapes may be called."""
    return (*labels.names, IGNORED, BACKGROUND)


def _packed(files: Sequence[tuple[LabelmeFile, Path]], labels: LabelSet) -> Objects:
    """The shapes of sound files; those of the background are holes, and ignored ones are void."""
    shapes: list[Shape] = []
    for number, (file, image) in enumerate(files):
        for parts in file.objects():
            first, masks = parts[0], [part.mask for part in parts if part.mask is not None]
            size = (file.size or _size_of(image)) if masks else (1, 1)
            is_ignored = first.label == IGNORED
            runs = None
            if masks:
                runs = mask_runs(*masks[0], size) if len(parts) == 1 else object_runs(parts, size)
            shapes.append(
                Shape(
                    image=number,
                    id=first.place,
                    class_id=HOLE if first.label in UNUSED else labels.names.index(first.label),
                    polygons=() if masks else [part.polygon for part in parts if part.polygon is not None],
                    runs=runs,
                    crowd=is_ignored or any(part.crowd or part.void for part in parts),
                    boxed=first.void and not is_ignored and not first.crowd,
                )
            )
    return Objects.from_shapes(shapes, len(files), in_order=True)


def _size_of(image: Path) -> tuple[int, int]:
    try:
        return image_size(image)
    except DataError:
        return (1, 1)  # the image is a fault of its own


def _skipped(files: Sequence[LabelmeFile]) -> str | None:
    lost = Counter(fault.kind for file in files for fault in file.faults)
    boxes = sum(part.void for file in files for part in file.parts)
    flat = lost["polygon without extent"] + lost["unknown shape"] - boxes
    unknown = f"ignored in training and evaluation: the boxes of {count(boxes, 'shape')} without outline"
    return joined(
        skipped({"without area": lost["shape without area"], "without extent": flat}), unknown if boxes else None
    )
