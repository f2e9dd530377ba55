"""Instance systems learn fresh drawings: nearly all objects are found, with their masks."""

from __future__ import annotations

from typing import Any

import pytest

from tests.learning.drawings import Lesson

TWO_STAGES = {
    "backbone": "resnet18",
    "channels": 32,
    "box_width": 64,
    "samples": 64,
    "top_proposals": [300, 200],
    "kept_proposals": [150, 80],
}
SMALL_ANCHORS = {"anchor_image_side": 96, "anchor_sizes": [20, 40, 64, 96, 128], "anchor_scales": 3}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "steps", "lr"),
    [
        ("mask_rcnn", TWO_STAGES, 400, 2e-3),
        ("yolact", {"backbone": "resnet18", "channels": 64, "nms": "ordinary", **SMALL_ANCHORS}, 1000, 3e-3),
    ],
)
@pytest.mark.timeout(1200)
def test_drawings_are_learnt(name: str, arguments: dict[str, Any], steps: int, lr: float) -> None:
    lesson = Lesson(name, arguments, steps=steps, lr=lr)
    untrained = lesson.judge()
    lesson.learn()
    trained = lesson.judge()
    print(f"{name}, mask AP50: untrained {untrained['mask_ap50']:.3f}, trained {trained['mask_ap50']:.3f}")
    assert untrained["mask_ap50"] < 0.2
    assert trained["mask_ap50"] > 0.9
