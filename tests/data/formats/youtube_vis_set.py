"""Tiny sets of the format youtube-vis."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pixelwise.ops import rle
from tests.data.clip_drawing import CLIPS, car_and_person, frames
from tests.data.drawing import write_image


def youtube_vis_content(split: str) -> dict[str, Any]:
    """A car, number 10 · video + 1, and a person, who is in the first frame alone."""
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
        write_image(root / split / "JPEGImages" / clip / f"{frame:05d}.png", seed=seed)

    frames(write)
    for split in CLIPS:
        (root / f"{split}.json").write_text(json.dumps(youtube_vis_content(split)))
    return root


HAS = frozenset(("objects", "clips", "json"))
"""What its ground truth has."""


def tiny_set(root: Path) -> Path:
    """A faultless set of a few images, with a train and a val split."""
    return youtube_vis(root)
