"""Reading the objects of COCO images: ours, packed, beside pycocotools' `annToMask` for each annotation.

    python benchmarks/coco_reading.py [--data ../shared/data/coco] [--split val] [--pairs 7]

Two times are taken in turn, image by image: the ground truth (masks of polygons and runs, and the classes painted from
them, which peers do not give), and the whole sample (the image decoded too; beside Pillow's RGB and pycocotools'
masks). Before, all masks are compared pixel by pixel. What is held for an image's masks is told too:
crops of the boxes beside one mask of the image's size for each object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools.coco import COCO
from results import add_option, report

from pixelwise.data.dataset import FileDataset
from pixelwise.data.spec import open_dataset

Read = Callable[[int], object]


class Peer:
    """The same images by pycocotools.

    Attributes:
        api: the JSON file, indexed.
        annotations: those of each image of the set, in the order of the file.
    """

    def __init__(self, dataset: FileDataset, file: Path) -> None:
        with redirect_stdout(StringIO()):
            self.api: Any = COCO(str(file))
        self.annotations = [self.api.imgToAnns[self.image_id(id)] for id in dataset.ids]
        self.dataset = dataset

    def image_id(self, id: str) -> int | str:
        """As it stands in the file."""
        return int(id) if id.isdigit() else id

    def masks(self, index: int) -> list[np.ndarray]:
        """One array of the image's size for each annotation."""
        return [self.api.annToMask(annotation) for annotation in self.annotations[index]]

    def sample(self, index: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """The pixels and the masks."""
        with Image.open(self.dataset.image_path(index)) as image:
            return np.asarray(image.convert("RGB")), self.masks(index)


def require_equal(dataset: FileDataset, peer: Peer) -> tuple[int, int, int]:
    """Compare every mask; the number of objects, and the bytes that all of them take here and there."""
    objects = ours = theirs = 0
    for index in range(len(dataset)):
        instances = dataset.truth(index).instances
        assert instances is not None
        assert instances.masks is not None
        masks = instances.masks
        dense = peer.masks(index)
        if len(masks) != len(dense):
            sys.exit(f"image {dataset.ids[index]}: {len(masks)} masks here, {len(dense)} there")
        for number, mask in enumerate(dense):
            if not np.array_equal(masks.dense_one(number).numpy(), mask != 0):
                sys.exit(f"image {dataset.ids[index]}, object {number}: the masks differ")
        objects += len(dense)
        ours += masks.crops.numel() + masks.boxes.numel() * 4 + masks.offsets.numel() * 8
        theirs += sum(mask.nbytes for mask in dense)
    return objects, ours, theirs


def in_turn(images: int, ours: Read, theirs: Read) -> tuple[float, float]:
    """Seconds of ours and of theirs over all images, one image by the one and then by the other."""
    spent = [0.0, 0.0]
    for index in range(images):
        order = ((0, ours), (1, theirs)) if index % 2 else ((1, theirs), (0, ours))
        for place, read in order:
            begin = time.perf_counter()
            read(index)
            spent[place] += time.perf_counter() - begin
    return spent[0], spent[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", default="../shared/data/coco")
    parser.add_argument("--split", default="val")
    parser.add_argument("--pairs", type=int, default=7, help="rounds over all images, of which the median counts")
    parser.add_argument("--json", action="store_true")
    add_option(parser)
    options = parser.parse_args()
    dataset = open_dataset(f"coco:{options.data}@{options.split}", default_split=options.split)
    assert isinstance(dataset, FileDataset)
    peer = Peer(dataset, dataset.truth_path(0))
    objects, held, held_there = require_equal(dataset, peer)
    images = len(dataset)
    told: dict[str, object] = {"images": images, "objects": objects, "bytes": [held, held_there]}
    ways: dict[str, tuple[Read, Read]] = {
        "truth": (dataset.truth, peer.masks),
        "sample": (dataset.__getitem__, peer.sample),
    }
    if not options.json:
        print(f"{images} images, {objects} objects; all masks are equal")
        print(f"masks of an image: {held / images / 1e3:,.0f} kB here, {held_there / images / 1e3:,.0f} kB there")
    for name, (ours, theirs) in ways.items():
        rounds = [in_turn(images, ours, theirs) for _ in range(options.pairs)]
        ratio = statistics.median(one / other for one, other in rounds)
        mine, other = (statistics.median(times) / images * 1e3 for times in zip(*rounds, strict=True))
        told[name] = {"milliseconds": mine, "pycocotools_milliseconds": other, "ratio": ratio}
        if not options.json:
            report(
                f"reading the {name} of {options.split}",
                f"{mine:.2f} ms for an image, pycocotools {other:.2f} ms, ratio {ratio:.2f}",
            )
    if options.json:
        print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
