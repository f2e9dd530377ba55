"""Instance systems trained on fresh drawings: nearly all objects are found, with their masks."""

from __future__ import annotations

from typing import Any

import pytest

from pixelwise.models import sds
from pixelwise.ops.resize_rule import ResizeRule
from tests.drawn_scenes import DrawnScenes
from tests.learning.drawings import Lesson

TWO_STAGES = {
    "backbone": "resnet18",
    "channels": 32,
    "box_width": 64,
    "samples": 64,
    "pre_nms_topk": [300, 200],
    "post_nms_topk": [150, 80],
}
CASCADE = {
    "backbone": "resnet18",
    "anchor_sizes": [32, 56, 88],
    "hidden": 128,
    "smallest_proposal": 4,
    "box_batch_size_per_image": 32,
    "warp_samples": 1,
    "max_detections": 20,
}
LOCATIONS = {"backbone": "resnet18", "hidden": 128, "proposal_side": 96, "proposals": 300, "samples": 32}
REGIONS = {
    "backbone": "resnet18",
    "width": 64,
    "crop_size": 32,
    "proposal_side": 96,
    "proposals": 300,
    "box_batch_size_per_image": 16,
}
SMALL_ANCHORS = {"anchor_image_side": 96, "anchor_sizes": [20, 40, 64, 96, 128], "anchor_scales": 3}
ONE_STAGE = {"backbone": "resnet18", "channels": 64, "nms": "ordinary", **SMALL_ANCHORS}
LARGER = {"mnc": {"side": 160, "batch_size": 4}}
"""MNC has cells of 16 pixels and nothing finer."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "steps", "lr"),
    [
        ("mask_rcnn", TWO_STAGES, 400, 2e-3),
        pytest.param("yolact", ONE_STAGE, 1000, 3e-3, marks=pytest.mark.learning),
        pytest.param("mnc", CASCADE, 900, 8e-4, marks=pytest.mark.learning),
        pytest.param("hypercolumns", LOCATIONS, 600, 2e-3, marks=pytest.mark.learning),
    ],
)
@pytest.mark.timeout(3000)
def test_drawings_are_segmented_after_training(name: str, arguments: dict[str, Any], steps: int, lr: float) -> None:
    lesson = Lesson(name, arguments, steps=steps, lr=lr, **LARGER.get(name, {}))
    untrained = lesson.judge()
    lesson.learn()
    trained = lesson.judge()
    print(f"{name}, mask AP50: untrained {untrained['mask_ap50']:.3f}, trained {trained['mask_ap50']:.3f}")
    assert untrained["mask_ap50"] < 0.2
    assert trained["mask_ap50"] > 0.9


@pytest.mark.slow
@pytest.mark.learning
@pytest.mark.timeout(3000)
def test_sds_is_trained_on_drawings_stage_by_stage() -> None:
    untrained = Lesson("sds", REGIONS).judge()["mask_ap50"]
    before: Lesson | None = None
    scenes = DrawnScenes(100, first_seed=500_000)
    for learns, steps, lr in (("box", 200, 2e-3), ("region", 150, 2e-3), ("joint", 250, 1e-3)):
        lesson = Lesson("sds", {**REGIONS, "learns": learns}, steps=steps, lr=lr)
        if before is not None:
            lesson.system.load_state_dict(before.system.state_dict())
        if learns == "region":
            list(sds.copy_box_tower(lesson.system, scenes, resize=ResizeRule(length=96)))
        lesson.learn()
        before = lesson
    towers = lesson.judge()["mask_ap50"]
    list(sds.fit_svms(lesson.system, scenes, resize=ResizeRule(length=96)))
    machines = lesson.judge()["mask_ap50"]
    list(sds.fit_refiners(lesson.system, scenes, resize=ResizeRule(length=96)))
    refined = lesson.judge()["mask_ap50"]
    print(f"sds, mask AP50: untrained {untrained:.3f}, towers {towers:.3f}, SVMs {machines:.3f}, refined {refined:.3f}")
    assert untrained < 0.2
    assert refined > 0.9
