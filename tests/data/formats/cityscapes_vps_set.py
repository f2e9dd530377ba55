"""Tiny sets of the format cityscapes-vps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.data.clip_drawing import CATEGORIES, CLIPS, frames, id_channels, segment_ids, write_rgb
from tests.data.drawing import write_image


def cityscapes_vps(root: Path) -> Path:
    listed: dict[str, dict[str, list[Any]]] = {split: {"images": [], "annotations": []} for split in CLIPS}

    def write(split: str, clip: str, frame: int, seed: int) -> None:
        name = f"{clip}_{frame:04d}_ulm_000000_{frame * 5:06d}"
        ids, infos = segment_ids(frame)
        write_image(root / split / "img_all" / f"{name}_newImg8bit.png", seed=seed)
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


HAS = frozenset(("objects", "segments", "clips", "json"))
"""What its ground truth has."""


def tiny_set(root: Path) -> Path:
    """A faultless set of a few images, with a train and a val split."""
    return cityscapes_vps(root)
