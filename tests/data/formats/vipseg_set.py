"""Tiny sets of the format vipseg."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.data.clip_drawing import CATEGORIES, CLIPS, frames, id_channels, segment_ids, write_grey16, write_rgb
from tests.data.drawing import write_image


def vipseg(root: Path, *, rgb: bool = True) -> Path:
    """With panomasksRGB and JSON files, or with panomasks, lists and categories."""
    videos: dict[str, dict[str, tuple[list[Any], list[Any]]]] = {
        split: {clip: ([], []) for clip in clips} for split, clips in CLIPS.items()
    }

    def write(split: str, clip: str, frame: int, seed: int) -> None:
        name = f"{frame * 6:08d}"
        write_image(root / "images" / clip / f"{name}.png", seed=seed)
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


HAS = frozenset(("objects", "segments", "clips", "json"))
"""What its ground truth has."""


def tiny_set(root: Path) -> Path:
    """A faultless set of a few images, with a train and a val split."""
    return vipseg(root)
