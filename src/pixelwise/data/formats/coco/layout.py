"""Where the files of a set of COCO's family lie: the JSON file of each split, and the images that it names.

The layout of COCO itself is `annotations/PREFIXsplit2017.json` with the images in `split2017/`. Other tools write
`SPLIT/_annotations.coco.json` (Roboflow), `SPLIT/annotations.json` with `SPLIT/images/` (Dataset Ninja), `labels.json`
with `data/` (FiftyOne), `annotations/instances_default.json` with `images/` (CVAT, Datumaro), `lvis_v1_SPLIT.json`
(LVIS), or `result.json` with `images/` (Label Studio).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pixelwise.data.kinds.folders import in_reading_order
from pixelwise.errors import DataError
from pixelwise.files.lookup import find_files

OTHER_NAMES = ("_annotations.coco.json", "annotations.json", "labels.json", "result.json", "coco.json")
"""What other tools call the file of a split, in a folder of the split or in that of the set."""

_SPLITS = {"valid": "val", "validation": "val", "training": "train", "testing": "test"}
"""What a folder or a file is called by other tools → the split."""

_SAMPLES = 20


def splits(path: Path, prefix: str) -> tuple[str, ...]:
    """What stands between the prefix and `.json`, without the year where that leaves it clear; or the folders' names.

    A set with one file in its own folder has the split `all`.

    Args:
        path: the folder of the set.
        prefix: such as `instances_`.

    Raises:
        DataError: there is no such file.
    """
    full = [file.stem.removeprefix(prefix) for file in path.glob(f"annotations/{prefix}*.json")]
    if full:
        short = [re.sub(r"(?<=.)\d{4}$", "", name) for name in full]
        return in_reading_order(
            name if short.count(name) == 1 else longer for name, longer in zip(short, full, strict=True)
        )
    return in_reading_order(_other_files(path, prefix))


def json_file(path: Path, split: str, prefix: str) -> Path:
    """The JSON file of a split. Raises DataError when there is none, or more than one that it could be."""
    exact = path / "annotations" / f"{prefix}{split}.json"
    if exact.is_file():
        return exact
    found = sorted(path.glob(f"annotations/{prefix}{split}*.json"))
    with_year = [file for file in found if re.fullmatch(r"\d{4}", file.stem.removeprefix(f"{prefix}{split}"))]
    found = with_year or found
    if len(found) > 1:
        names = ", ".join(f"@{file.stem.removeprefix(prefix)}" for file in found)
        raise DataError(f"{path}: split '{split}' could be any of {names}; write one of them")
    if found:
        return found[0]
    others = _other_files(path, prefix) if not any(path.glob(f"annotations/{prefix}*.json")) else {}
    if split not in others:
        raise DataError(f"{path}: no split '{split}'; there are {', '.join(splits(path, prefix))}")
    return others[split]


def _other_files(path: Path, prefix: str) -> dict[str, Path]:
    """Split → its JSON file in the layouts of other tools. Raises DataError where there is none."""
    found: dict[str, Path] = {}
    if prefix == "instances_":
        for file in sorted(path.glob("annotations/lvis_*_*.json")) or sorted(path.glob("lvis_*_*.json")):
            found[file.stem.rpartition("_")[2]] = file
        for name in OTHER_NAMES:
            for file in () if found else sorted(path.glob(f"*/{name}")):
                folder = file.parent.name
                if folder not in ("annotations", "images", "data"):
                    found[_SPLITS.get(folder, folder)] = file
        for name in () if found else OTHER_NAMES:
            for file in (path / name, path / "annotations" / name):
                if file.is_file():
                    found.setdefault("all", file)
    if not found:
        there = sorted(str(file.relative_to(path)) for place in ("*.json", "*/*.json") for file in path.glob(place))
        one = there[0] if there else "FILE"
        raise DataError(
            f"{path}: no annotations/{prefix}SPLIT.json in it, such as {prefix}train2017.json; name another file by "
            f"?annotations={one}"
        )
    return found


def image_folder(
    path: Path, split: str, year: str, *, option: str | None, names: Sequence[str], file: Path | None = None
) -> Path:
    """The folder that the names of the image entries start from: of those there are, the one with most of the images.

    Args:
        path: the folder of the set.
        split: as in the specification.
        year: the same as in the name of the JSON file.
        option: what the option `images` says, or None.
        names: of the images.
        file: the JSON file, beside which images may lie too.

    Raises:
        DataError: there is none.
    """
    if option is not None:
        folder = path / option
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder, named by ?images={option}")
        return folder
    candidates = image_folders(path, split, year, file=file)
    step = max(1, len(names) // _SAMPLES)
    samples = list(names[::step])[:_SAMPLES]
    found = [sum(one is not None for one in find_files(samples, [folder])) for folder in candidates]
    exact = [sum((folder / name).is_file() for name in samples) for folder in candidates]
    if any(found):
        return max(zip(exact, found, candidates, strict=True), key=lambda one: one[:2])[2]
    named = [folder for folder in candidates if folder != path and (file is None or folder != file.parent)]
    if named:
        return named[0]
    raise DataError(f"{path}: no folder {year}/, {split}/ or images/ with the images; name it by ?images=…")


def image_folders(path: Path, split: str, year: str, *, file: Path | None = None) -> list[Path]:
    """The folders there are in which images may lie, the likeliest first."""
    parents = (path, path / "images", path / "data")
    words = dict.fromkeys((year, split, *(other for other, short in _SPLITS.items() if short == split)))
    named = [parent / word for word in words for parent in parents]
    starting = sorted(path.glob(f"{split}*")) if split != "all" else []
    beside = [file.parent / "images", file.parent / "data", file.parent / "img", file.parent] if file else []
    under = [folder / "images" for folder in named]
    candidates = [*under, *named, *starting, *beside, path / "images", path / "data", path]
    return [folder for folder in dict.fromkeys(candidates) if folder.is_dir()]
