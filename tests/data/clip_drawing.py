"""What tiny sets of clips have in common: two clips to train on, one to validate on, a car and a person."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.data.drawing import SIZE_HW

CLIPS = {"train": {"0001": 3, "0002": 2}, "val": {"0003": 3}}
"""Split → clip → how many frames."""


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
