"""Panoptic systems trained on fresh drawings, still and moving."""

from __future__ import annotations

from typing import Any

import pytest

from tests.drawn_scenes import DrawnClips
from tests.learning.drawings import Lesson

SMALL = {
    "backbone": "resnet18",
    "channels": 32,
    "box_width": 64,
    "samples": 64,
    "smallest_stuff": 64,
    "pre_nms_topk": [300, 200],
    "post_nms_topk": [150, 80],
}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("upsnet", {**SMALL, "semantic_layers": 2}),
        pytest.param("panoptic_fpn", {**SMALL, "semantic_channels": 32}, marks=pytest.mark.learning),
    ],
)
def test_drawings_are_segmented_after_training(name: str, arguments: dict[str, Any]) -> None:
    lesson = Lesson(name, arguments, steps=250)
    untrained = lesson.judge()["pq"]
    lesson.learn()
    trained = lesson.judge()
    print(f"{name}, PQ: untrained {untrained:.3f}, trained {trained['pq']:.3f}, things {trained['pq_things']:.3f}")
    assert trained["pq"] > 0.8
    assert trained["pq"] > untrained + 0.4


@pytest.mark.slow
@pytest.mark.learning
@pytest.mark.timeout(3600)
def test_moving_drawings_are_followed() -> None:
    lesson = Lesson("vpsnet", SMALL, steps=500)
    lesson.learn(DrawnClips(20_000, first_seed=0))
    followed = lesson.judge(clips=20)
    track_head, lesson.system.track_head = lesson.system.track_head, None
    alone = lesson.judge(clips=20)
    lesson.system.track_head = track_head
    print(f"vpsnet: {followed['vpq']:.3f}, without its track head {alone['vpq']:.3f}")
    assert followed["vpq"] > 0.8
    assert alone["vpq_k0"] == pytest.approx(followed["vpq_k0"], abs=0.02)
    for window in ("vpq_k5", "vpq_k10", "vpq_k15"):
        assert alone[window] < followed[window] - 0.1
