"""Features of the regions of many images in files, for solvers that need them again and again."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from pixelwise.errors import DataError
from pixelwise.ops.superpixels import Regions


class StoredImage(NamedTuple):
    """What is kept of an image beside its regions.

    Attributes:
        features: of each region; the last regions are the objects'.
        objects: the channels of the objects.
        overlaps: of each region with each object.
    """

    features: np.ndarray
    objects: np.ndarray
    overlaps: np.ndarray


class StoredFeatures:
    """One file for each image.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(
        self,
        index: int,
        features: Float[Tensor, "R D"],
        regions: Regions,
        *,
        objects: Int64[Tensor, " T"],
        overlaps: Float[Tensor, "R T"],
    ) -> None:
        """Keep what is known of an image. Raises DataError where there is no room."""
        try:
            np.savez(
                self.folder / f"{index}.npz",
                features=features.numpy(),
                objects=objects.numpy(),
                overlaps=overlaps.numpy(),
                superpixels=regions.superpixels.numpy(),
                members=regions.members.numpy(),
            )
        except OSError as error:
            raise DataError(
                f"{self.folder}: the features of the regions cannot be kept ({error.strerror or error}); set TMPDIR to "
                "a folder with more room, or take fewer regions with --set model.proposals=N"
            ) from None

    def read(self, index: int) -> StoredImage:
        """All of an image but its regions."""
        with np.load(self.folder / f"{index}.npz", allow_pickle=False) as arrays:
            return StoredImage(*(arrays[name] for name in StoredImage._fields))

    def read_regions(self, index: int) -> Regions:
        """The regions of an image."""
        with np.load(self.folder / f"{index}.npz", allow_pickle=False) as arrays:
            return Regions(torch.from_numpy(arrays["superpixels"]), torch.from_numpy(arrays["members"]))
