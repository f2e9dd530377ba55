"""Where the files of a set of YOLO lie: what data.yaml says, the images of each split, and the label file of an image.

Label files are found where Ultralytics looks for them (in `labels` instead of a folder `images` above the image),
beside the image, and in the `labels` of its split; in whatever capitals these names have.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixelwise.data.kinds.folders import list_images
from pixelwise.errors import DataError
from pixelwise.files.images import IMAGE_SUFFIXES
from pixelwise.files.lookup import Folders, find_files, find_place, posix_name
from pixelwise.files.text import read_lines, read_yaml

YAML = "data.yaml"

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""What data.yaml, or a folder, calls a split → the split. Other names are splits if they name a folder."""

NAME_FILES = ("labels.txt", "classes.txt", "obj.names", "_darknet.labels")
"""Files with one class name a line, the first is class 0."""

_YAMLS = (YAML, "data.yml", "dataset.yaml", "dataset.yml")
_OTHER_KEYS = ("path", "names", "nc", "download", "roboflow", "channels", "task", "backup", "classes")
_NO_LABELS = ("classes", "labels", "train", "val", "valid", "test", "notes", "names", "data")
_NOTHING = ("", "null", "~", "none")


@dataclass(frozen=True)
class Config:
    """What data.yaml says, or the obj.data of Darknet and CVAT; every value is text.

    Attributes:
        file: the file, or None where there is none.
        root: what the places are relative to besides the folder of the set, or None.
        places: split → the folders and lists that it names.
        names: number of each class, as it stands there, and its name; None where it does not say them.
        count: what it says of the number of classes, or None.
    """

    file: Path | None = None
    root: str | None = None
    places: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    names: Sequence[tuple[Any, Any]] | None = None
    count: str | None = None


def config_of(path: Path, options: Mapping[str, str]) -> Config:
    """Read data.yaml, or the file that stands for it. Raises DataError for another file, and for a set of poses."""
    file = _config_file(path, options)
    if file is None:
        return Config()
    if file.suffix == ".data":
        return _darknet(file)
    content = read_yaml(file, as_text=True)
    if not isinstance(content, dict):
        raise DataError(f"{file}: expected train, val and names in it")
    if "kpt_shape" in content:
        raise DataError(f"{file}: kpt_shape: a set of poses; its lines are boxes and key points, not polygons")
    places: dict[str, tuple[str, ...]] = {}
    for name, value in content.items():
        values = tuple(one for one in (value if isinstance(value, list) else [value]) if _says(one))
        if not values or not isinstance(name, str) or name in _OTHER_KEYS:
            continue
        if name in SPLITS or find_place(values[0], [path]) is not None:
            places[SPLITS.get(name, name)] = values
    names: Any = content.get("names")
    root, number = content.get("path"), content.get("nc")
    pairs: list[tuple[Any, Any]] | None = None
    if isinstance(names, dict):
        pairs = [*names.items()]
    elif isinstance(names, list):
        pairs = [*enumerate(names)]
    elif names is not None:
        raise DataError(f"{file}: names is {names!r}; expected a list of names, or numbers with names")
    return Config(file, root if _says(root) else None, places, pairs, number if _says(number) else None)


def _config_file(path: Path, options: Mapping[str, str]) -> Path | None:
    if "data" in options:
        return path / options["data"]
    for name in _YAMLS:
        if (path / name).is_file():
            return path / name
    others = sorted(file for suffix in ("*.yaml", "*.yml", "*.data") for file in path.glob(suffix))
    if len(others) > 1:
        names = ", ".join(file.name for file in others)
        raise DataError(f"{path}: no {YAML}, but {names}; write which of them it is, such as ?data={others[0].name}")
    return others[0] if others else None


def _darknet(file: Path) -> Config:
    """What `train = …`, `valid = …` and `names = …` say."""
    pairs = [line.partition("=") for line in read_lines(file) if "=" in line]
    content = {name.strip(): value.strip() for name, _, value in pairs}
    places = {SPLITS[name]: (value,) for name, value in content.items() if name in SPLITS and value}
    names = find_place(content.get("names", ""), [file.parent]) if content.get("names") else None
    lines = [name.strip() for name in read_lines(names)] if names is not None and names.is_file() else None
    found = [*enumerate(name for name in lines if name)] if lines is not None else None
    return Config(file, None, places, found, content.get("classes"))


def places_of(path: Path, options: Mapping[str, str]) -> tuple[dict[str, list[Path]], dict[str, str]]:
    """Split → its folders, or files that list images; and split → what data.yaml names that is not there."""
    config = config_of(path, options)
    found: dict[str, list[Path]] = {}
    missing: dict[str, str] = {}
    bases = [path / config.root, path] if config.root is not None else [path]
    for split, values in config.places.items():
        places = [find_place(value, bases) for value in values]
        if None in places:
            missing[split] = values[places.index(None)]
        else:
            found[split] = [place for place in places if place is not None]
    if config.places:
        if not found:
            split, value = next(iter(missing.items()))
            raise DataError(f"{config.file}: no folder {value}, which it names for {split}")
        return found, missing
    known = Folders()
    images = known.entry(path, "images")
    folders = sorted(folder for folder in images.glob("*/") if folder.is_dir()) if images else []
    folders += [folder for place in sorted(path.glob("*/")) if (folder := known.entry(place, "images"))]
    folders += [] if folders else [folder for name in SPLITS if (folder := known.entry(path, name)) and folder.is_dir()]
    for folder in folders:
        name = folder.parent.name if folder.name.lower() == "images" else folder.name
        found.setdefault(SPLITS.get(name.lower(), name), [folder])
    return found, {}


def every_image(path: Path) -> list[Path]:
    """The images of a set without splits: those in `images`, or in its own folder if label files lie beside them."""
    folder = Folders().entry(path, "images")
    if folder is not None and folder.is_dir():
        return list_images(folder)
    images = list_images(path)
    return images if any(file.name.lower().endswith(".txt") and is_label(file) for file in path.iterdir()) else []


def images_in(places: Sequence[Path], path: Path, config: Config) -> list[Path]:
    """The images of folders, with their sub-folders, and of lists, whether they are there or not."""
    images: list[Path] = []
    for place in places:
        if place.is_dir():
            images += _images_below(place)
            continue
        names = [name.strip() for name in read_lines(place) if name.strip()]
        names = [name for name in names if Path(posix_name(name)).suffix.lower() in IMAGE_SUFFIXES]
        bases = [place.parent, path, *([path / config.root] if config.root is not None else [])]
        files = find_files(names, bases)
        images += [file or place.parent / posix_name(name) for name, file in zip(names, files, strict=True)]
    return images


def _images_below(folder: Path) -> list[Path]:
    subs = sorted(sub for sub in folder.iterdir() if sub.is_dir() and not sub.name.startswith("."))
    return [*list_images(folder), *(image for sub in subs for image in _images_below(sub))]


def ids_of(images: Sequence[Path]) -> tuple[str, ...]:
    """The ids of images: their names, with the suffix or the sub-folder where several have one name."""
    stems, names = Counter(image.stem for image in images), Counter(image.name for image in images)
    if all(number == 1 for number in names.values()):
        return tuple(image.stem if stems[image.stem] == 1 else image.name for image in images)
    parent = Path(os.path.commonpath([image.parent for image in images]))
    whole = [image.relative_to(parent).with_suffix("").as_posix() for image in images]
    times = Counter(whole)
    return tuple(
        id if times[id] == 1 else image.relative_to(parent).as_posix() for id, image in zip(whole, images, strict=True)
    )


def label_place(image: Path) -> Path:
    """Where the label file of an image is written: under `labels` instead of the last `images`, else beside it."""
    parts = list(image.parts)
    places = [place for place, part in enumerate(parts[:-1]) if part.lower() == "images"]
    if places:
        parts[places[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


class LabelFiles:
    """The label files of images, found in whatever capitals their folders and suffixes have."""

    def __init__(self) -> None:
        self.folders = Folders()

    def of(self, image: Path) -> Path | None:
        """The label file of an image, or None."""
        name = f"{image.stem}.txt"
        return next((file for folder in self.places(image) if (file := self._file(folder, name))), None)

    def misnamed(self, image: Path) -> Path | None:
        """A label file that has the suffix of its image in its name: `a.png.txt`, where `a.txt` is read."""
        name = f"{image.name}.txt"
        return next((file for folder in self.places(image) if (file := self._file(folder, name))), None)

    def places(self, image: Path) -> Iterator[Path]:
        """The folders there are in which the label file of an image may lie."""
        parts = image.parts
        for place in reversed([place for place, part in enumerate(parts[:-1]) if part.lower() == "images"]):
            folder = self.folders.path(Path(*parts[:place]), ("labels", *parts[place + 1 : -1]))
            if folder is not None:
                yield folder
        yield image.parent
        for folder, names in ((image.parent, ["labels"]), (image.parent.parent, ["labels", image.parent.name])):
            found = self.folders.path(folder, names)
            if found is not None:
                yield found

    def unclaimed(self, images: Iterable[Path], claimed: set[Path]) -> list[Path]:
        """Label files in the folders of these images' label files that belong to no image."""
        folders = dict.fromkeys(folder for image in images for folder in self.places(image))
        below = dict.fromkeys(Path(place) for folder in folders for place, _, _ in os.walk(folder))
        files = (file for folder in below for file in sorted(folder.iterdir()) if file.suffix.lower() == ".txt")
        return [file for file in files if file not in claimed and is_label(file)]

    def _file(self, folder: Path, name: str) -> Path | None:
        file = self.folders.entry(folder, name)
        return file if file is not None and file.is_file() else None


def is_label(file: Path) -> bool:
    """Whether a text file holds numbers alone, as label files do; lists and names of classes do not."""
    if file.stem.lower() in _NO_LABELS or file.name.startswith("."):
        return False
    try:
        line = next((line for line in read_lines(file) if line.strip()), "")
    except DataError:
        return False
    try:
        return all(isinstance(float(word), float) for word in line.split())
    except ValueError:
        return False


def looked_for(images: Sequence[Path]) -> str:
    """Where the label files of images were looked for."""
    folder = label_place(images[0]).parent
    beside = "" if folder == images[0].parent else " and beside the images"
    return f"in {folder}/*.txt{beside}"


def _says(value: Any) -> bool:
    return isinstance(value, str) and value.strip().lower() not in _NOTHING
