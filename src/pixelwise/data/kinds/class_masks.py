"""Data sets of one mask of class ids for each image."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from pixelwise.data.dataset import require_unique
from pixelwise.data.truth.colours import ids_of_colours
from pixelwise.errors import DataError
from pixelwise.files.images import image_size, read_colours, read_ids, read_image
from pixelwise.labels import LabelSet
from pixelwise.types import Annotation, Sample


@dataclass(frozen=True)
class SemanticPairs:
    """Images, each with a mask file of the same size that holds ids. See Dataset for the attributes.

    Attributes:
        images: the image files.
        masks: the mask file of each.
        colours: whether the masks are pictures in the colours of the label set, instead of ids.
    """

    name: str
    format: str
    labels: LabelSet
    ids: tuple[str, ...]
    images: tuple[Path, ...] = field(repr=False)
    masks: tuple[Path, ...] = field(repr=False)
    note: str | None = None
    colours: bool = False

    def __post_init__(self) -> None:
        require_unique(self.ids, source=self.name)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """Read one image and its mask. Raises DataError when either is unusable, or their sizes differ."""
        image_path, mask_path = self.images[index], self.masks[index]
        try:
            image = read_image(image_path)
            semantic = read_semantic(mask_path, self.labels, colours=self.colours)
        except DataError as error:
            raise DataError(f"{error} (image '{self.ids[index]}')") from None
        size = (image.shape[1], image.shape[2])
        if semantic.shape != size:
            raise DataError(
                f"{mask_path}: the mask is {semantic.shape[0]}×{semantic.shape[1]}, "
                f"its image {image_path} {size[0]}×{size[1]} (image '{self.ids[index]}')"
            )
        truth = Annotation(semantic=torch.from_numpy(semantic))
        return Sample(image=image, truth=truth, id=self.ids[index], original_size=size)

    def size_of(self, index: int) -> tuple[int, int]:
        """Height and width of the upright image, from its header."""
        return image_size(self.images[index])

    def image_path(self, index: int) -> Path:
        """The file of the image."""
        return self.images[index]

    def truth_path(self, index: int) -> Path:
        """The mask file."""
        return self.masks[index]


def read_semantic(path: Path, labels: LabelSet, *, colours: bool = False) -> np.ndarray:
    """Read a mask file as class ids [H, W].

    Args:
        path: the file.
        labels: what its ids, or its colours, mean.
        colours: whether it holds colours.

    Raises:
        DataError: an unusable file, or an id or a colour that is not of the label set.
    """
    if colours:
        return ids_of_colours(read_colours(path), labels, source=str(path))
    return labels.class_ids(read_ids(path), source=str(path))
