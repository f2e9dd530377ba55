"""Tiny sets of clips, drawn into a folder in the layouts of the formats: two clips to train on and one to judge by."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pixelwise.ops import rle
from tests.data import trees

CLIPS = {"train": {"0001": 3, "0002": 2}, "val": {"0003": 3}}
"""Split → clip → how many frames."""

SIZE_HW = (4, 6)

SEMANTIC = np.array([[0, 0, 0, 1, 1, 255]] * 4)
"""Road, sidewalk and void, in front of which a car and a person move."""


def car_and_person(frame: int) -> tuple[np.ndarray, np.ndarray]:
    """Two objects, bool [H, W]: a car that moves to the right, and a person who stands still."""
    car, person = np.zeros(SIZE_HW, bool), np.zeros(SIZE_HW, bool)
    car[1:3, frame : frame + 2] = True
    person[3, 4] = True
    return car, person


def frames(write: Callable[[str, str, int, int], None]) -> None:
    """Call with split, clip, frame and a seed that no other frame has."""
    seed = 0
    for split, clips in CLIPS.items():
        for clip, count in clips.items():
            for frame in range(count):
                write(split, clip, frame, seed := seed + 1)


def write_rgb(path: Path, channels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(channels.astype(np.uint8)).save(path)


def write_grey16(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids.astype(np.uint16)).save(path)


def step_channels(frame: int) -> np.ndarray:
    """Class, and number in two channels: car 300, person 7."""
    car, person = car_and_person(frame)
    channels = np.stack([SEMANTIC, SEMANTIC * 0, SEMANTIC * 0], axis=-1)
    channels[car] = (13, 300 // 256, 300 % 256)
    channels[person] = (11, 0, 7)
    return channels


def kitti_step(root: Path) -> Path:
    def write(split: str, clip: str, frame: int, seed: int) -> None:
        trees.write_image(root / "images" / split / clip / f"{frame:06d}.png", seed=seed)
        write_rgb(root / "panoptic_maps" / split / clip / f"{frame:06d}.png", step_channels(frame))

    frames(write)
    return root


def cityscapes_dvps(root: Path) -> Path:
    def write(split: str, clip: str, frame: int, seed: int) -> None:
        name = f"00{clip}_{frame:06d}_ulm_000000_{frame * 5:06d}"
        car, person = car_and_person(frame)
        ids = np.where(SEMANTIC == 255, 32, SEMANTIC) * 1000
        ids[car], ids[person] = 13_002, 11_001
        trees.write_image(root / "video_sequence" / split / f"{name}_leftImg8bit.png", seed=seed)
        write_grey16(root / "video_sequence" / split / f"{name}_gtFine_instanceTrainIds.png", ids)

    frames(write)
    return root


CATEGORIES = [
    {"id": 0, "name": "road", "supercategory": "", "isthing": 0, "color": [128, 64, 128]},
    {"id": 1, "name": "sidewalk", "supercategory": "", "isthing": 0, "color": [244, 35, 232]},
    {"id": 11, "name": "person", "supercategory": "", "isthing": 1, "color": [220, 20, 60]},
    {"id": 13, "name": "car", "supercategory": "", "isthing": 1, "color": [0, 0, 142]},
]


def segment_ids(frame: int) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """A map of ids above 8 bits, and its list."""
    car, person = car_and_person(frame)
    ids = np.array([[70_000, 70_000, 70_000, 900, 900, 0]] * 4)
    ids[car], ids[person] = 5, 66_000
    category = {70_000: 0, 900: 1, 5: 13, 66_000: 11}
    infos = [
        {"id": id, "category_id": category[id], "iscrowd": 0, "area": int((ids == id).sum())}
        for id in category
        if (ids == id).any()
    ]
    return ids, infos


def id_channels(ids: np.ndarray) -> np.ndarray:
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1)


def cityscapes_vps(root: Path) -> Path:
    listed: dict[str, dict[str, list[Any]]] = {split: {"images": [], "annotations": []} for split in CLIPS}

    def write(split: str, clip: str, frame: int, seed: int) -> None:
        name = f"{clip}_{frame:04d}_ulm_000000_{frame * 5:06d}"
        ids, infos = segment_ids(frame)
        trees.write_image(root / split / "img_all" / f"{name}_newImg8bit.png", seed=seed)
        write_rgb(root / split / "panoptic_video" / f"{name}_final_mask.png", id_channels(ids))
        image = {"id": name, "width": 6, "height": 4, "file_name": f"{name}_newImg8bit.png"}
        listed[split]["images"].append(image)
        entry = {"image_id": name, "file_name": f"{name}_final_mask.png", "segments_info": infos}
        listed[split]["annotations"].append(entry)

    frames(write)
    for split, content in listed.items():
        file = root / f"panoptic_gt_{split}_city_vps.json"
        file.write_text(json.dumps({**content, "categories": CATEGORIES}))
    return root


def vipseg(root: Path, *, rgb: bool = True) -> Path:
    """With panomasksRGB and JSON files, or with panomasks, lists and categories."""
    videos: dict[str, dict[str, tuple[list[Any], list[Any]]]] = {
        split: {clip: ([], []) for clip in clips} for split, clips in CLIPS.items()
    }

    def write(split: str, clip: str, frame: int, seed: int) -> None:
        name = f"{frame * 6:08d}"
        trees.write_image(root / "images" / clip / f"{name}.png", seed=seed)
        ids, infos = segment_ids(frame)
        if rgb:
            write_rgb(root / "panomasksRGB" / clip / f"{name}.png", id_channels(ids))
            images, annotations = videos[split][clip]
            images.append({"id": name, "width": 6, "height": 4, "file_name": f"{name}.png"})
            annotations.append({"image_id": name, "file_name": f"{name}.png", "segments_info": infos})
        else:
            values = {0: 0, 70_000: 1, 900: 2, 66_000: 1201, 5: 1402}  # class + 1, and · 100 + number of things
            write_grey16(root / "panomasks" / clip / f"{name}.png", np.vectorize(values.__getitem__)(ids))

    frames(write)
    if not rgb:
        (root / "panoVIPSeg_categories.json").write_text(json.dumps(CATEGORIES))
    for split, clips in videos.items():
        if rgb:
            content = {
                "videos": [{"video_id": clip, "images": images} for clip, (images, _) in clips.items()],
                "annotations": [{"video_id": clip, "annotations": found} for clip, (_, found) in clips.items()],
                "categories": CATEGORIES,
            }
            (root / f"panoptic_gt_VIPSeg_{split}.json").write_text(json.dumps(content))
        else:
            (root / f"{split}.txt").write_text("".join(f"{clip}\n" for clip in clips))
    return root


def davis(root: Path, *, lists: bool = True) -> Path:
    """As in 2017: palette masks with the numbers 1 and 2."""

    def write(split: str, clip: str, frame: int, seed: int) -> None:
        car, person = car_and_person(frame)
        trees.write_image(root / "JPEGImages" / "480p" / clip / f"{frame:05d}.png", seed=seed)
        picture = Image.fromarray((car + 2 * person).astype(np.uint8))
        picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        path = root / "Annotations" / "480p" / clip / f"{frame:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)

    frames(write)
    if lists:
        (root / "ImageSets" / "2017").mkdir(parents=True)
        for split, clips in CLIPS.items():
            (root / "ImageSets" / "2017" / f"{split}.txt").write_text("".join(f"{clip}\n" for clip in clips))
    return root


def youtube_vis_content(split: str) -> dict[str, Any]:
    """A car, number 10 · video + 1, and a person, who is seen in the first frame alone."""
    videos, annotations = [], []
    for id, (clip, count) in enumerate(CLIPS[split].items(), start=1):
        names = [f"{clip}/{frame:05d}.png" for frame in range(count)]
        videos.append({"id": id, "width": 6, "height": 4, "length": count, "file_names": names})
        runs = [[rle.encode(mask) for mask in car_and_person(frame)] for frame in range(count)]
        for number in range(2):
            seen = [of_frame[number] if number == 0 or not frame else None for frame, of_frame in enumerate(runs)]
            entry = {"id": 10 * id + number + 1, "video_id": id, "category_id": number + 1, "iscrowd": 0}
            annotations.append({**entry, "segmentations": seen})
    categories = [{"id": 1, "name": "car"}, {"id": 2, "name": "person"}]
    return {"videos": videos, "annotations": annotations, "categories": categories}


def youtube_vis(root: Path) -> Path:
    def write(split: str, clip: str, frame: int, seed: int) -> None:
        trees.write_image(root / split / "JPEGImages" / clip / f"{frame:05d}.png", seed=seed)

    frames(write)
    for split in CLIPS:
        (root / f"{split}.json").write_text(json.dumps(youtube_vis_content(split)))
    return root


def mots(root: Path) -> Path:
    """As MOTSChallenge has it, frames counted from 1."""

    def write(split: str, clip: str, frame: int, seed: int) -> None:
        trees.write_image(root / split / clip / "img1" / f"{frame + 1:06d}.png", seed=seed)
        car, person = car_and_person(frame)
        text = root / split / clip / "gt" / "gt.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        with text.open("a") as file:
            file.write(f"{frame + 1} 1005 1 4 6 {rle.encode(car)['counts']}\n")
            file.write(f"{frame + 1} 2001 2 4 6 {rle.encode(person)['counts']}\n")

    frames(write)
    return root


def cutout_clips(root: Path) -> Path:
    """Stills of the format coco, large enough for an object to be cut out."""
    for split, id in (("train", 7), ("val", 8)):
        images = [{"id": id + 10 * n, "file_name": f"{split}{n}.png", "height": 60, "width": 80} for n in range(2)]
        objects = [
            trees.annotation(10 * n + k, id + 10 * n, (3, 9)[k], ((5, 5, 35, 30), (40, 20, 70, 50))[k])
            for n in range(2)
            for k in range(2)
        ]
        trees.coco(root, objects, split=split, images=images)
        for n, image in enumerate(images):
            trees.write_image(root / split / str(image["file_name"]), seed=id + 10 * n, size_hw=(60, 80))
    return root


TREES: Mapping[str, Callable[[Path], Path]] = {
    "kitti-step": kitti_step,
    "cityscapes-dvps": cityscapes_dvps,
    "cityscapes-vps": cityscapes_vps,
    "vipseg": vipseg,
    "davis": davis,
    "youtube-vis": youtube_vis,
    "mots": mots,
    "cutout-clips": cutout_clips,
}
"""The formats of clips."""
