"""Writing masks of objects: a number for each object of an image, and classes.json with the class of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pixelwise.data.formats.instance_masks.classes import TABLE, add_meanings, meaning_of
from pixelwise.data.kinds.writing import Original, Writer, Written, write_ids
from pixelwise.data.truth.object_ids import object_colours, painted_ids
from pixelwise.data.truth.regions import regions_of
from pixelwise.types import Instances, Masks


@dataclass(frozen=True, kw_only=True)
class ObjectMasksWriter(Writer):
    """The format instance-masks. See Writer for the attributes.

    Attributes:
        image: where an image goes, with {split} and {name}, without its suffix.
        mask: where its mask goes.
    """

    image: str
    mask: str
    label_file: str | None = "labels.toml"

    def write(self, root: Path, original: Original) -> Written:
        """Write one image and its mask; what its numbers mean goes into the entry, for `finish`. See Writer."""
        place = {"split": original.split, "name": original.name}
        regions, lost = regions_of(original.truth, self.labels, source=original.image)
        file, losses = original.write_image(root, self.image.format(**place))
        size = (original.pixels.shape[0], original.pixels.shape[1])
        masks = Masks.from_crops(
            [torch.from_numpy(region.mask) for region in regions], [region.place for region in regions], size
        )
        instances = Instances(
            boxes=masks.boxes.float(),
            labels=torch.tensor([region.class_id for region in regions], dtype=torch.int64),
            masks=masks,
            crowd=torch.tensor([region.crowd for region in regions], dtype=torch.bool),
        )
        numbers = [*range(1, len(regions) + 1)]
        ids, hidden = painted_ids(instances, numbers, np.zeros(size, dtype=np.int32), crowds=True)
        path = root / self.mask.format(**place)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_ids(path, ids, object_colours())
        left = set(np.unique(ids).tolist())
        meanings = {
            str(number): meaning_of(self.labels.names[region.class_id], crowd=region.crowd)
            for number, region in zip(numbers, regions, strict=True)
            if number in left
        }
        return Written(original.name, file, losses | lost | hidden, {"meanings": meanings})

    def finish(self, root: Path, *, split: str, written: Sequence[Written]) -> None:
        """Add the meanings of the numbers of a split to the table."""
        add_meanings(root / TABLE, split, written)
