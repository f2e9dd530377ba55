"""Tiny sets of the format cityscapes-panoptic."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pixelwise.labels import published
from tests.data.drawing import SIZE_HW, write_image
from tests.data.formats.coco_panoptic_set import segment, write_segments


def cityscapes_panoptic(root: Path, splits: Mapping[str, Sequence[str]] | None = None) -> Path:
    """gtFine/cityscapes_panoptic_SPLIT.json and the folder of PNGs, leftImg8bit/: road, a group and a car."""

    labels = published("cityscapes")
    categories = [
        {"id": id, "name": name, "isthing": int(is_thing), "color": list(colour), "supercategory": name}
        for id, name, is_thing, colour in zip(
            labels.dataset_ids, labels.names, labels.is_thing, labels.palette, strict=True
        )
    ]
    ids = [[0, 7, 7, 26, 26001, 26001]] * 4
    infos = [
        segment(7, 7, area=8, bbox=[1, 0, 2, 4]),
        segment(26, 26, area=4, bbox=[3, 0, 1, 4], iscrowd=1),
        segment(26001, 26, area=8, bbox=[4, 0, 2, 4]),
    ]
    seed = 0
    for split, names in (splits or {"train": ("ulm_0_1", "ulm_0_2", "bonn_0_1"), "val": ("jena_3_4",)}).items():
        images, annotations = [], []
        for name in names:
            city = name.partition("_")[0]
            write_image(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", seed=(seed := seed + 1))
            write_segments(root / "gtFine" / f"cityscapes_panoptic_{split}" / f"{name}_gtFine_panoptic.png", ids)
            file = f"{name}_gtFine_leftImg8bit.png"
            images.append({"id": name, "file_name": file, "height": SIZE_HW[0], "width": SIZE_HW[1]})
            file = f"{name}_gtFine_panoptic.png"
            annotations.append({"image_id": name, "file_name": file, "segments_info": infos})
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "gtFine" / f"cityscapes_panoptic_{split}.json").write_text(json.dumps(content))
    return root


HAS = frozenset(("objects", "segments"))
"""What its ground truth has."""


def tiny_set(root: Path) -> Path:
    """A faultless set of a few images, with a train and a val split."""
    return cityscapes_panoptic(root)
