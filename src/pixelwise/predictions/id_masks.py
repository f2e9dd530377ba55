"""Class masks by any tool: a folder of ids on disk, paired with a data set by name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from pixelwise.data.dataset import Dataset
from pixelwise.data.kinds.class_masks import read_semantic
from pixelwise.errors import DataError
from pixelwise.files.images import IMAGE_SUFFIXES
from pixelwise.labels import LabelSet
from pixelwise.types import Annotation, Sample

_SEMANTIC = ".semantic"
"""Ending of the names of masks that `pixelwise predict` writes, before the suffix."""

_LOSSY = (".jpg", ".jpeg")
"""Suffixes that are paired only without others, so that reading them raises their error."""


@dataclass(frozen=True)
class StoredMasks:
    """Predictions with the mask file of each sample.

    Attributes:
        labels: its ids on disk are those in the files.
        files: the mask of each image, by the image's index in the data set.
        ids: the id of each of these images.
    """

    labels: LabelSet
    files: Mapping[int, Path]
    ids: Mapping[str, int]

    def __call__(self, sample: Sample) -> Annotation:
        """Read the class mask of a sample. Raises DataError when it cannot be read, or has another size."""
        path = self.files[self.ids[sample.id]]
        semantic = read_semantic(path, self.labels)
        height, width = sample.image.shape[1:]
        if semantic.shape != (height, width):
            raise DataError(
                f"{path}: the mask is {semantic.shape[0]}×{semantic.shape[1]}, image '{sample.id}' {height}×{width} "
                "(height×width); predictions must have the image's size"
            )
        return Annotation(semantic=torch.from_numpy(semantic))


def find_masks(folder: Path, dataset: Dataset) -> StoredMasks:
    """Pair the mask files of a folder and its sub-folders with the images of a data set.

    A file is paired with the image whose id, or whose file name with or without suffix, equals the file's name without
    suffix (and without `.semantic`). Among equal names in several sub-folders the one with most common folders is
    taken. Images without a file are skipped. `NAME.semantic.png` takes precedence over `NAME.png`.

    Raises:
        DataError: no such folder, no image has a file, or pairs are ambiguous.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {what}; expected a folder of id masks")
    named = _named_files(folder)
    files: dict[int, Path] = {}
    owner: dict[Path, str] = {}
    for index, id in enumerate(dataset.ids):
        path = _best(named, _names_of(id, dataset.image_path(index)), id)
        if path is None:
            continue
        if path in owner:
            raise DataError(
                f"{path}: may belong to image '{owner[path]}' or to '{id}'; keep the sub-folders of the data set"
            )
        files[index], owner[path] = path, id
    if not files:
        example = Path(dataset.image_path(0)).stem
        count = sum(len(paths) for paths in named.values())
        raise DataError(
            f"{folder}: none of its {count:,} mask files is named after one of the {len(dataset):,} images of "
            f"{dataset.name}; expected {example}.png or {example}.semantic.png for image '{dataset.ids[0]}'"
        )
    return StoredMasks(dataset.labels, files, {dataset.ids[index]: index for index in files})


Name = tuple[str, ...]
"""Folders and name of a file, without suffix."""


def _named_files(folder: Path) -> Mapping[str, list[tuple[Name, Path]]]:
    """The mask files by their last names."""
    ranked: dict[Name, tuple[int, Path]] = {}
    for path in sorted(folder.rglob("*")):
        suffix = path.suffix.lower()
        if suffix not in IMAGE_SUFFIXES or path.name.startswith(".") or not path.is_file():
            continue
        rank = 2 if suffix in _LOSSY else 0 if path.stem.endswith(_SEMANTIC) else 1
        name = (*path.relative_to(folder).parts[:-1], path.stem.removesuffix(_SEMANTIC))
        other_rank, other = ranked.get(name, (9, path))
        if rank == other_rank:
            raise DataError(f"{path}: {other.name} has the same name; keep one of the two")
        if rank < other_rank:
            ranked[name] = (rank, path)
    named: dict[str, list[tuple[Name, Path]]] = defaultdict(list)
    for name, (_, path) in ranked.items():
        named[name[-1]].append((name, path))
    return named


def _names_of(id: str, image: Path) -> tuple[Name, ...]:
    """Possible names of the mask of an image."""
    folders = image.parts[:-1]
    return tuple(id.split("/")), (*folders, image.stem), (*folders, image.name)


def _best(named: Mapping[str, list[tuple[Name, Path]]], names: Iterable[Name], id: str) -> Path | None:
    """The file with most folders in common with one of the names."""
    agreement: dict[Path, int] = {}
    for name in names:
        for other, path in named.get(name[-1], ()):
            agreement[path] = max(agreement.get(path, 0), _common_end(name, other))
    furthest = [path for path, length in agreement.items() if length == max(agreement.values())]
    if len(furthest) > 1:
        raise DataError(
            f"image '{id}' may have its mask in {furthest[0]} or in {furthest[1]}; keep one of them, "
            "or the sub-folders of the data set"
        )
    return furthest[0] if furthest else None


def _common_end(one: Name, other: Name) -> int:
    length = 0
    while length < min(len(one), len(other)) and one[-1 - length] == other[-1 - length]:
        length += 1
    return length
