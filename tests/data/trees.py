"""Tiny data sets, drawn into a folder in the layouts of the formats."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE_HW = (4, 6)


def write_image(path: Path, *, seed: int = 0, size_hw: tuple[int, int] = SIZE_HW) -> Path:
    """An image of noise; equal seeds give equal files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_mask(path: Path, ids: Any = None) -> Path:
    """A greyscale PNG of ids; by default the left half is 0 and the right half 1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if ids is None:
        ids = np.arange(SIZE_HW[1])[None].repeat(SIZE_HW[0], axis=0) >= SIZE_HW[1] // 2
    Image.fromarray(np.asarray(ids).astype(np.uint8)).save(path)
    return path


def write_turned(path: Path, *, stored_hw: tuple[int, int] = SIZE_HW, orientation: int = 6, seed: int = 0) -> Path:
    """A JPEG whose EXIF tag says that it is to be turned."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(seed).integers(0, 256, (*stored_hw, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def camvid(root: Path, splits: Mapping[str, Sequence[str]] | None = None) -> Path:
    """SPLIT/NAME.png and SPLITannot/NAME.png; no two images are equal."""
    seed = 0
    for split, names in (splits or {"train": ("a", "b", "c"), "val": ("d", "e")}).items():
        for name in names:
            write_image(root / split / f"{name}.png", seed=(seed := seed + 1))
            write_mask(root / f"{split}annot" / f"{name}.png")
    return root


def voc(root: Path, lists: Mapping[str, Sequence[str]], *, objects: bool = False) -> Path:
    """JPEGImages, SegmentationClass and the lists, with files for every listed id.

    With objects, two aeroplanes stand side by side where the class mask has one region.
    """
    for seed, name in enumerate(sorted({name for names in lists.values() for name in names})):
        write_image(root / "JPEGImages" / f"{name}.jpg", seed=seed)
        write_mask(root / "SegmentationClass" / f"{name}.png")
        if objects:
            write_mask(root / "SegmentationObject" / f"{name}.png", [[0, 0, 0, 1, 2, 2]] * 4)
    folder = root / "ImageSets" / "Segmentation"
    folder.mkdir(parents=True, exist_ok=True)
    for split, names in lists.items():
        (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return root


def ade20k(root: Path, splits: Mapping[str, Sequence[str]] | None = None) -> Path:
    """images/FOLDER/NAME.jpg and annotations/FOLDER/NAME.png: unlabelled, wall, building."""
    seed = 0
    for folder, names in (splits or {"training": ("a", "b", "c"), "validation": ("d", "e")}).items():
        for name in names:
            write_turned(root / "images" / folder / f"{name}.jpg", orientation=1, seed=(seed := seed + 1))
            write_mask(root / "annotations" / folder / f"{name}.png", [[0, 1, 1, 2, 2, 2]] * 4)
    return root


def cityscapes(
    root: Path, splits: Mapping[str, Sequence[str]] | None = None, *, ids: str = "labelIds", annotations: str = "gtFine"
) -> Path:
    """leftImg8bit and gtFine: ignored, road, sidewalk and car; the city is what stands before the first `_`."""
    rows = {"labelIds": [3, 7, 7, 8, 26, 26], "labelTrainIds": [255, 0, 0, 1, 13, 13]}[ids]
    seed = 0
    for split, names in (splits or {"train": ("ulm_0_1", "ulm_0_2", "bonn_0_1"), "val": ("jena_3_4",)}).items():
        for name in names:
            city = name.partition("_")[0]
            write_image(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", seed=(seed := seed + 1))
            write_mask(root / annotations / split / city / f"{name}_{annotations}_{ids}.png", [rows] * 4)
    return root


def masks(root: Path, names: Sequence[str], *, labels: str | None = "floor\nwall\n") -> Path:
    """images/ and masks/ without splits."""
    for seed, name in enumerate(names):
        write_image(root / "images" / f"{name}.png", seed=seed)
        write_mask(root / "masks" / f"{name}.png")
    if labels is not None:
        (root / "labels.txt").write_text(labels)
    return root


def instance_masks(root: Path, names: Sequence[str]) -> Path:
    """images/ and masks/ without splits: two objects of one class in each mask but the first."""
    for seed, name in enumerate(names):
        write_image(root / "images" / f"{name}.png", seed=seed)
        write_mask(root / "masks" / f"{name}.png", np.array([[0, 1, 1, 0, 7, 7]] * 4) * (seed > 0))
    return root


def shape(label: str, points: Sequence[Sequence[float]], kind: str = "polygon", **fields: Any) -> dict[str, Any]:
    """A shape of LabelMe; `fields` replace what the entry would have."""
    return {"label": label, "points": [*points], "group_id": None, "shape_type": kind, "flags": {}} | fields


def labelme_file(root: Path, name: str, shapes: Sequence[Mapping[str, Any]], *, seed: int = 0, **fields: Any) -> Path:
    """NAME.png of 8×8 and NAME.json; `fields` replace what the file would have."""
    write_image(root / f"{name}.png", seed=seed, size_hw=(8, 8))
    content = {"version": "5.5.0", "flags": {}, "shapes": list(shapes), "imagePath": f"{name}.png", "imageData": None,
               "imageHeight": 8, "imageWidth": 8}  # fmt: skip
    (root / f"{name}.json").write_text(json.dumps({**content, **fields}))
    return root / f"{name}.json"


def labelme(root: Path, splits: Mapping[str, Sequence[str]] | None = None) -> Path:
    """SPLIT/NAME.png and SPLIT/NAME.json with two crates, the first of two parts, and a truck."""
    seed = 0
    for split, names in (splits or {"train": ("a", "b", "c"), "val": ("d", "e")}).items():
        for name in names:
            shapes = [
                shape("crate", [(0, 0), (2, 0), (2, 2), (0, 2)], group_id=1),
                shape("truck", [(1, 5), (6, 8)], "rectangle"),
                shape("crate", [(3, 0), (5, 0), (5, 2), (3, 2)], group_id=1),
                shape("crate", [(6, 0), (8, 0), (8, 2)]),
            ]
            labelme_file(root / split, name, shapes, seed=(seed := seed + 1))
    return root


def yolo(root: Path, splits: Mapping[str, Sequence[str]] | None = None) -> Path:
    """images/SPLIT/NAME.png of 8×8, labels/SPLIT/NAME.txt with a crate and a truck (none in `c`), and data.yaml."""
    seed = 0
    splits = splits or {"train": ("a", "b", "c"), "val": ("d", "e")}
    for split, names in splits.items():
        for name in names:
            write_image(root / "images" / split / f"{name}.png", seed=(seed := seed + 1), size_hw=(8, 8))
            file = root / "labels" / split / f"{name}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            lines = "0 0 0 0.25 0 0.25 0.25 0 0.25\n1 0.5 0.25 1 0.25 1 1 0.5 1\n"
            file.write_text(lines if name != "c" else "")
    lines = [f"{split}: images/{split}" for split in splits]
    (root / "data.yaml").write_text("\n".join([*lines, "nc: 2", "names: [crate, truck]"]) + "\n")
    return root


def rectangle(x1: float, y1: float, x2: float, y2: float) -> list[float]:
    """The corners of a polygon."""
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def annotation(id: int, image_id: int, category_id: int, box: Sequence[float], **fields: Any) -> dict[str, Any]:
    """A rectangle x1 y1 x2 y2 as one polygon; `fields` replace what the entry would have."""
    x1, y1, x2, y2 = box
    entry = {
        "id": id,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "iscrowd": 0,
        "segmentation": [rectangle(x1, y1, x2, y2)],
    }
    return {**entry, **fields}


def coco(
    root: Path,
    annotations: Sequence[Mapping[str, Any]],
    *,
    split: str = "train",
    images: Sequence[Mapping[str, Any]] = ({"id": 7, "file_name": "a.png", "height": 8, "width": 8},),
    categories: Sequence[Mapping[str, Any]] = ({"id": 3, "name": "crate"}, {"id": 9, "name": "truck"}),
) -> Path:
    """annotations/instances_SPLIT.json, and SPLIT/ with an image for every entry."""
    content = {"images": list(images), "annotations": list(annotations), "categories": list(categories)}
    file = root / "annotations" / f"instances_{split}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    for seed, image in enumerate(images):
        if isinstance(image.get("height"), int) and "file_name" in image:
            write_image(root / split / image["file_name"], seed=seed, size_hw=(image["height"], image["width"]))
    return root


def segment(id: int, category_id: int, **fields: Any) -> dict[str, Any]:
    """An entry of segments_info; `fields` replace what it would have."""
    return {"id": id, "category_id": category_id, "iscrowd": 0} | fields


def write_segments(path: Path, ids: Any) -> Path:
    """A PNG of segment ids: R + 256·G + 65536·B."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.asarray(ids)
    Image.fromarray(np.stack([values >> shift & 255 for shift in (0, 8, 16)], axis=-1).astype(np.uint8)).save(path)
    return path


STREET = (
    {"id": 7, "name": "road", "isthing": 0, "color": [128, 64, 128]},
    {"id": 26, "name": "car", "isthing": 1, "color": [0, 0, 142]},
    {"id": 30, "name": "person", "isthing": 1},
)
"""Categories with gaps between their ids, one without colour."""

SEGMENT_IDS = [[1, 1, 300, 300, 70000, 0]] * 2 + [[1, 1, 1, 9, 9, 0]] * 2
"""Of `SIZE_HW`: road, a car, a person, a crowd of people, void."""


def coco_panoptic(
    root: Path,
    splits: Mapping[str, Sequence[str]] | None = None,
    *,
    ids: Any = None,
    segments: Sequence[Mapping[str, Any]] | None = None,
    categories: Sequence[Mapping[str, Any]] = STREET,
) -> Path:
    """annotations/panoptic_SPLIT2017.json and the folder of PNGs, SPLIT2017/ with images; the last one is void."""
    if segments is None:
        segments = [
            segment(1, 7, area=10, bbox=[0, 0, 3, 4]),
            segment(300, 26, area=4, bbox=[2, 0, 2, 2]),
            segment(70000, 30, area=2, bbox=[4, 0, 1, 2]),
            segment(9, 30, iscrowd=1, area=4, bbox=[3, 2, 2, 2]),
        ]
    ids = SEGMENT_IDS if ids is None else ids
    number = 0
    for split, names in (splits or {"train": ("a", "b", "c"), "val": ("d", "e")}).items():
        images, annotations = [], []
        for name in names:
            number += 1
            is_void = len(names) > 1 and name == names[-1]
            write_image(root / f"{split}2017" / f"{name}.png", seed=number, size_hw=np.shape(ids)[:2])
            write_segments(
                root / "annotations" / f"panoptic_{split}2017" / f"{name}.png", np.asarray(ids) * (not is_void)
            )
            images.append({"id": number, "file_name": f"{name}.png", "height": len(ids), "width": len(ids[0])})
            infos = [] if is_void else [*segments]
            annotations.append({"image_id": number, "file_name": f"{name}.png", "segments_info": infos})
        content = {"images": images, "annotations": annotations, "categories": list(categories)}
        file = root / "annotations" / f"panoptic_{split}2017.json"
        file.write_text(json.dumps(content))
    return root


def cityscapes_panoptic(root: Path, splits: Mapping[str, Sequence[str]] | None = None) -> Path:
    """gtFine/cityscapes_panoptic_SPLIT.json and the folder of PNGs, leftImg8bit/: road, a group and a car."""
    from pixelwise.labels import published

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
