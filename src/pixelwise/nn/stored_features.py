"""Features of the regions of many images in files, for solvers that read them repeatedly."""

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
    """The stored data of an image beside its regions.

    Attributes:
        features: of each region; the last regions are the instances.
        objects: the channels of the instances.
        overlaps: IoU of each region with each instance.
    """

    features: np.ndarray
    objects: np.ndarray
    overlaps: np.ndarray


class StoredFeatures:
    """One file for each image.

    Args:
        folder: of the files.
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
        """Store an image. Raises DataError where the disk is full."""
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
        """Read an image without its regions."""
        with np.load(self.folder / f"{index}.npz", allow_pickle=False) as arrays:
            return StoredImage(*(arrays[name] for name in StoredImage._fields))

    def read_regions(self, index: int) -> Regions:
        """Read the regions of an image."""
        with np.load(self.folder / f"{index}.npz", allow_pickle=False) as arrays:
            return Regions(torch.from_numpy(arrays["superpixels"]), torch.from_numpy(arrays["members"]))
