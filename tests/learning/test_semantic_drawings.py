"""Semantic systems learn fresh drawings: far better than untrained, and than the best constant answer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from accelerate import Accelerator

from pixelwise.contracts import Augmentation, Metric, Optimizer, Stage
from pixelwise.inference.model_folder import ModelCard, system_module
from pixelwise.inference.predictor import Predictor
from pixelwise.metrics.mean_iou import MeanIoU
from pixelwise.training.evaluate import evaluate, model_answers
from pixelwise.training.fit import Fit, fit
from pixelwise.types import Annotation
from tests.drawn_scenes import LABELS, DrawnScenes

UNSEEN = DrawnScenes(40, first_seed=1_000_000)


def judge(answers) -> float:
    metric: Metric = MeanIoU(LABELS)
    for _ in evaluate(answers, UNSEEN, metric):
        pass
    return metric.compute()["mean_iou"]


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
def test_drawings_are_learnt(name: str, arguments: dict[str, Any]) -> None:
    torch.manual_seed(0)
    system = system_module(name).build(num_classes=len(LABELS), **arguments)
    card = ModelCard(task="semantic", system=name, labels=LABELS, arguments=arguments, input_size=96)
    untrained = judge(model_answers(Predictor(system, card, device="cpu")))
    constant = judge(lambda sample: Annotation(semantic=torch.zeros_like(sample.truth.semantic)))
    stage = Stage(
        steps=160,
        batch_size=8,
        crop_size=96,
        optimizer=Optimizer(name="adamw", lr=2e-3, weight_decay=1e-2, norm_weight_decay=0.0),
        augmentation=Augmentation(scale_min=0.8, scale_max=1.25),
        warmup_steps=10,
    )
    fitting = Fit.start(system, stage)
    made = list(
        fit(
            fitting,
            DrawnScenes(100_000, first_seed=0),
            accelerator=Accelerator(cpu=True),
            input_size=96,
            labels=LABELS,
            seed=0,
            workers=0,
        )
    )
    trained = judge(model_answers(Predictor(system, card, device="cpu")))
    print(f"{name}, mean IoU: untrained {untrained:.3f}, constant {constant:.3f}, trained {trained:.3f}")
    assert len(made) == stage.steps
    assert trained > 0.7
    assert trained > max(untrained, constant) + 0.35
