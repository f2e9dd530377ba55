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
`data.formats.labelme.json`; the label `__ignore__`, points and lines are left out, and the set's note counts them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pixelwise.data.formats.labelme.json import BACKGROUND, LabelmeFile, all_faults, labels_in, mask_runs, read_labelme
from pixelwise.data.formats.labelme.writer import LabelmeWriter
from pixelwise.data.kinds.class_masks_writer import writable_labels
from pixelwise.data.kinds.coco_json import labels_from
from pixelwise.data.kinds.faults import Fault, SplitReport, count
from pixelwise.data.kinds.folders import (
    EVERY_FIFTH,
    Entry,
    by_stem,
    divided,
    in_reading_order,
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
from pixelwise.files.images import image_size
from pixelwise.files.parallel import Progress
from pixelwise.labels import LabelSet

OPTIONS: Mapping[str, str] = {
    "annotations": "the folder of JSON files",
    "images": "the folder of images, where they are not beside the JSON files",
    "labels": "a published label set, or a .txt or .toml file in the folder",
}

IGNORED = "__ignore__"
"""LabelMe's name of what is not to be used."""

UNUSED = (IGNORED, BACKGROUND, "background")
"""Shapes of these names mark no object."""

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


def open_split(path: Path, split: str, options: Mapping[str, str], *, name: str) -> DrawnObjects:
    """The images of one split. Raises DataError for a file that is none of LabelMe's, and for an unusable shape."""
    files = [read_labelme(file) for file in files_of(path, split, options)]
    if not files:
        raise DataError(f"{name}: no JSON files in this split")
    labels = labels_of(path, options)
    for file in files:
        refuse(file.path, all_faults(file, known_names(labels)), noun=_NOUN)
    images = [image_of(file, path, split, options) for file in files]
    missing = [file for file, image in zip(files, images, strict=True) if image is None]
    if missing:
        raise DataError(f"{missing[0].path}: no image '{missing[0].image}'; {len(missing)} of {len(files)} are missing")
    whole = [(file, image) for file, image in zip(files, images, strict=True) if image is not None]
    note = _note(path, files, options)
    return _packed(whole, labels, name=name, note=note)


def check_split(path: Path, split: str, options: Mapping[str, str], *, workers: int, progress: Progress) -> SplitReport:
    """Read every file and its image, rasterise every object and report every fault."""
    faults: list[Fault] = []
    whole: list[tuple[LabelmeFile, Path]] = []
    labels = labels_of(path, options, skip=True)
    listed = files_of(path, split, options)
    for json_file in listed:
        try:
            file = read_labelme(json_file)
        except DataError as error:
            faults.append(Fault("unreadable annotations", str(json_file), str(error).removeprefix(f"{json_file}: ")))
            continue
        found, image = [*all_faults(file, known_names(labels))], image_of(file, path, split, options)
        faults.extend(shape_faults(json_file, found, noun=_NOUN))
        if image is None:
            faults.append(Fault("missing image", str(json_file), f"no image '{file.image}'"))
        elif not any(fault.shape is None for fault in found):
            unusable = {fault.shape for fault in found}
            sound = tuple(part for part in file.parts if part.place not in unusable)
            whole.append((replace(file, parts=sound), image))
    if not listed:
        faults.append(Fault("empty split", str(_root(path, options)), "no JSON files in this split"))
    dataset = _packed(whole, labels, name=split, note=None, sizes_needed=False)
    found, notes = inspect_images(dataset, split=split, workers=workers, progress=progress)
    note = EVERY_FIFTH if not _sub_folders(path, options) else None
    return SplitReport(
        split=split,
        title=split,
        counts=(
            count(len(listed), "image"),
            count(len(dataset.objects.ids), "object"),
            count(len(labels), "class", "classes"),
        ),
        ids=dataset.ids,
        images=dataset.images,
        faults=(*faults, *found),
        notes=((note,) if note else ()) + tuple(notes),
    )


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
    for option in ("annotations", "images"):
        if option in options:
            raise DataError(f"labelme: a new set takes no option {option}")
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


def _entries(folder: Path) -> list[Entry]:
    return [Entry(file.stem, file, file) for file in sorted(folder.glob("*.json")) if not file.name.startswith(".")]


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
    for folder in folders:
        for name in (file.image, Path(file.image).name):
            if name and (folder / name).is_file():
                return folder / name
    for folder in folders:
        if folder.is_dir() and (found := by_stem(folder).get(file.path.stem)):
            return found[0]
    return None


def known_names(labels: LabelSet) -> tuple[str, ...]:
    """What shapes may be called."""
    return (*labels.names, IGNORED, BACKGROUND)


def _packed(
    files: Sequence[tuple[LabelmeFile, Path]],
    labels: LabelSet,
    *,
    name: str,
    note: str | None,
    sizes_needed: bool = True,
) -> DrawnObjects:
    """The data set of sound files; ignored shapes and those of the background are left out."""
    sizes = [file.size or _size_of(image, needed=sizes_needed) for file, image in files]
    shapes = []
    for number, ((file, _), size) in enumerate(zip(files, sizes, strict=True)):
        for parts in file.objects():
            first = parts[0]
            if first.label in UNUSED:
                continue
            shapes.append(
                Shape(
                    image=number,
                    id=first.place,
                    class_id=labels.names.index(first.label),
                    polygons=[part.polygon for part in parts if part.polygon is not None],
                    runs=None if first.mask is None else mask_runs(*first.mask, size),
                    crowd=any(part.crowd for part in parts),
                )
            )
    return DrawnObjects(
        name=name,
        format="labelme",
        labels=labels,
        ids=tuple(file.path.stem for file, _ in files),
        images=tuple(image for _, image in files),
        truth_files=tuple(file.path for file, _ in files),
        objects=Objects.from_shapes(shapes, len(files)),
        noun=_NOUN,
        sizes=tuple(sizes),
        note=note,
    )


def _size_of(image: Path, *, needed: bool) -> tuple[int, int]:
    try:
        return image_size(image)
    except DataError:
        if needed:
            raise
        return (1, 1)  # the check reports the image


def _note(path: Path, files: Sequence[LabelmeFile], options: Mapping[str, str]) -> str | None:
    lost = Counter(fault.kind for file in files for fault in file.faults)
    ignored = sum(parts[0].label == IGNORED for file in files for parts in file.objects())
    notes = (
        None if _sub_folders(path, options) else EVERY_FIFTH,
        left_out(
            {
                "without area": lost["shape without area"] + lost["unknown shape"],
                "without extent": lost["polygon without extent"],
                f"called {IGNORED}": ignored,
            }
        ),
    )
    return "; ".join(text for text in notes if text) or None
