"""Proposals from files, for systems that take them (`models.sds`): regions of each image, found by another program.

`FORMAT:PATH?proposals=PLACE` adds them to the samples of any data set; PLACE is in the folder of the set unless it is
absolute, and `{split}` in it stands for the split. Two forms are read:

- a folder with `<image id>.npz` for each image: `superpixels`, whole numbers [H, W], and `members`, bools [R, S], where
  column s stands for the s-th smallest number in `superpixels` (MCG's form, whose proposals are sets of superpixels);
- a JSON file with a list of `{"image_id": …, "segmentation": RLE}`, highest score first, as COCO's results have it;
  entries may have `bbox` [x, y, width, height] in place of a segmentation, which stands for all pixels of the box.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from pixelwise.data.dataset import Wrapped
from pixelwise.errors import DataError
from pixelwise.files.text import read_json
from pixelwise.ops import rle
from pixelwise.ops.superpixels import Regions, regions_of_masks
from pixelwise.types import Sample

OPTION = "proposals"
"""Of every format."""
MEANING = "a folder of .npz files or a JSON file with regions of each image, for systems that take them"


class ProposalFiles:
    """The proposals of a set of images.

    Args:
        path: a folder or a JSON file; see above.
        count: so many first ones of each image at most.

    Raises:
        DataError: neither is there, or the JSON is not such a list.
    """

    def __init__(self, path: Path, *, count: int = 2000) -> None:
        self.path, self.count = path, count
        self.entries: dict[str, list[dict[str, Any]]] | None = None
        if path.is_dir():
            return
        entries = read_json(path, expected="a folder of .npz files or a JSON file")
        if not isinstance(entries, list) or not all(isinstance(one, dict) and "image_id" in one for one in entries):
            raise DataError(f"{path}: expected a list of proposals with image_id")
        self.entries = {}
        for entry in entries:
            self.entries.setdefault(str(entry["image_id"]), []).append(entry)

    def regions(self, id: str, size: tuple[int, int]) -> Regions:
        """The regions of an image of that height and width.

        Raises DataError, with the file and the image, where there are none, or they are broken or of another size.
        """
        if self.entries is None:
            return self._read(self.path / f"{id}.npz", size)
        if id not in self.entries:
            raise DataError(f"{self.path}: no proposals for image '{id}'")
        return regions_of_masks(self._masks(id, self.entries[id][: self.count], size), size)

    def _read(self, path: Path, size: tuple[int, int]) -> Regions:
        try:
            with np.load(path, allow_pickle=False) as arrays:
                superpixels, members = arrays["superpixels"], arrays["members"]
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise DataError(f"{path}: expected superpixels and members ({error})") from None
        if superpixels.shape != tuple(size):
            shape = "×".join(map(str, superpixels.shape))
            raise DataError(f"{path}: superpixels of {shape}, the image is {size[0]}×{size[1]} (height×width)")
        numbers, places = np.unique(superpixels, return_inverse=True)
        if members.ndim != 2 or members.shape[1] != len(numbers):
            shape = "×".join(map(str, members.shape))
            raise DataError(
                f"{path}: members of {shape} for {len(numbers)} superpixels; expected regions × superpixels"
            )
        ids = places.reshape(size).astype(np.int32)
        return Regions(torch.from_numpy(ids), torch.from_numpy(members[: self.count].astype(bool)))

    def _masks(self, id: str, entries: list[dict[str, Any]], size: tuple[int, int]) -> Iterator[Bool[Tensor, "H W"]]:
        for number, entry in enumerate(entries):
            source = f"{self.path}: image '{id}', proposal {number}"
            if "segmentation" in entry:
                if not isinstance(entry["segmentation"], dict):
                    raise DataError(f"{source}: its segmentation is no RLE; expected an object with size and counts")
                yield torch.from_numpy(rle.decode(entry["segmentation"], size=size, source=source)).bool()
                continue
            try:
                x, y, width, height = (float(value) for value in entry["bbox"])
                left, top, right, bottom = (max(0, round(value)) for value in (x, y, x + width, y + height))
            except (KeyError, TypeError, ValueError, OverflowError):  # the last two of NaN and infinities
                raise DataError(f"{source}: expected a segmentation, or a bbox of four numbers") from None
            mask = torch.zeros(size, dtype=torch.bool)
            mask[top:bottom, left:right] = True
            yield mask


def proposal_files(folder: Path, place: str, *, split: str) -> ProposalFiles:
    """The proposals that the option of a specification names, in the folder of the set. Raises DataError without."""
    return ProposalFiles(folder / Path(place.replace("{split}", split)).expanduser())


@dataclass(frozen=True)
class Proposed(Wrapped):
    """A set whose samples bring their proposals."""

    files: ProposalFiles

    def __getitem__(self, index: int) -> Sample:
        """The sample with its proposals. Raises DataError where they are not there, or not of this image."""
        sample = self.dataset[index]
        return replace(sample, proposals=self.files.regions(sample.id, (sample.image.shape[1], sample.image.shape[2])))
