"""Semantic systems trained on fresh drawings: far better than untrained, and than the best constant prediction."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pixelwise.types import Annotation
from tests.learning.drawings import Lesson, judge


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("deeplab_v3_plus", {"backbone": "resnet18", "channels": 32, "separable": True}),
        pytest.param("fcn", {"backbone": "resnet18", "skips": "8s"}, marks=pytest.mark.learning),
        pytest.param(
            "deeplab_v3", {"backbone": "resnet18", "channels": 64, "output_stride": 8}, marks=pytest.mark.learning
        ),
        pytest.param("pspnet", {"backbone": "resnet18", "channels": 64}, marks=pytest.mark.learning),
    ],
)
def test_drawings_are_segmented_after_training(name: str, arguments: dict[str, Any]) -> None:
    lesson = Lesson(name, arguments)
    untrained = lesson.judge()["mean_iou"]
    constant = judge(lambda sample: Annotation(semantic=torch.zeros_like(sample.truth.semantic)), "semantic")[
        "mean_iou"
    ]
    lesson.learn()
    trained = lesson.judge()["mean_iou"]
    print(f"{name}, mean IoU: untrained {untrained:.3f}, constant {constant:.3f}, trained {trained:.3f}")
    assert trained > 0.7
    assert trained > max(untrained, constant) + 0.35
