"""YolactEdge trained on moving drawings: frames between key frames are predicted nearly as well as these."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pixelwise.evaluation.evaluate import Predictions, evaluate
from pixelwise.metrics.choice import new_metric
from pixelwise.training.run.initial_weights import carry_over
from pixelwise.types import Annotation, Sample
from tests.drawn_scenes import LABELS, DrawnClips
from tests.learning.drawings import Lesson

SMALL = {
    "backbone": "resnet18",
    "channels": 64,
    "nms": "ordinary",
    "anchor_image_side": 96,
    "anchor_sizes": [20, 40, 64, 96, 128],
    "anchor_scales": 3,
}
KEY_INTERVAL = 5


def evaluated(answers: Predictions, title: str) -> dict[str, dict[str, float]]:
    """Scores on unseen clips: of key frames, of the frames between, and of those three and four frames late."""
    metrics = {name: new_metric("instance", LABELS, clips=True) for name in ("key", "partial", "late")}

    def watch(sample: Sample, predicted: Annotation) -> None:
        assert sample.frame is not None
        age = sample.frame % KEY_INTERVAL
        for name in ("partial", "late")[: 1 + (age > 2)] if age else ("key",):
            metrics[name].update(predicted, sample.truth, id=sample.id)

    every = new_metric("instance", LABELS, clips=True)
    for _ in evaluate(answers, DrawnClips(20, first_seed=1_000_000), every, watch=watch):
        pass
    scores: dict[str, dict[str, float]] = {}
    for name, metric in metrics.items():
        values = metric.compute()
        scores[name] = {key: values[key] for key in ("mask_ap50", "mask_ap", "box_ap")}
    print(title, *(f"{name} {key} {value:.3f}" for name, one in scores.items() for key, value in one.items()))
    return scores


@pytest.mark.slow
@pytest.mark.learning
@pytest.mark.timeout(3600)
def test_features_of_key_frames_are_moved() -> None:
    stills = Lesson("yolact_edge", {**SMALL, "learns": "images", "key_interval": 1}, steps=1000, lr=3e-3)
    stills.learn()
    arguments: dict[str, Any] = {**SMALL, "learns": "pairs", "key_interval": KEY_INTERVAL}
    lesson = Lesson("yolact_edge", arguments, steps=500, lr=2e-3)
    carry_over(lesson.system, stills.system.state_dict())
    system: Any = lesson.system
    new = {name: system.get_submodule(name).state_dict() for name in ("flow_net", "refinement")}
    new = {name: {key: value.clone() for key, value in state.items()} for name, state in new.items()}
    lesson.learn(DrawnClips(20_000, first_seed=0))
    moved = evaluated(lesson.answers, "learned:")
    with torch.no_grad():
        for head in (system.flow_net.head4, system.flow_net.head5):
            head.flow.weight.zero_()
    without_flow = evaluated(lesson.answers, "without the flow:")
    for name, state in new.items():
        system.get_submodule(name).load_state_dict(state)
    unmoved = evaluated(lesson.answers, "key frames' features as they are:")
    assert moved["key"] == without_flow["key"] == unmoved["key"]
    assert moved["key"]["mask_ap50"] > 0.9
    assert moved["partial"]["mask_ap50"] > 0.9
    assert moved["partial"]["mask_ap"] > moved["key"]["mask_ap"] - 0.02
    for score in ("mask_ap50", "mask_ap", "box_ap"):
        assert moved["late"][score] > unmoved["late"][score] + 0.03
    assert moved["late"]["box_ap"] > without_flow["late"]["box_ap"] + 0.01
