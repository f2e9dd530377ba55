"""Training on fresh drawings, and evaluation on others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from pixelwise.contracts import Augmentation, Optimizer, Stage
from pixelwise.data.loading.batches import Samples
from pixelwise.evaluation.evaluate import Predictions, evaluate, model_predictions
from pixelwise.inference.model_folder import ModelCard
from pixelwise.inference.predictor import Predictor
from pixelwise.inference.systems import system_module
from pixelwise.metrics.choice import TaskMetric, new_metric
from pixelwise.ops.resize_rule import ResizeRule
from pixelwise.training.fit import Fit, fit
from tests.drawn_scenes import LABELS, DrawnClips, DrawnScenes


@dataclass
class Lesson:
    """A system, and what it is taught.

    Attributes:
        name: of the system.
        arguments: of its `build`.
        steps: optimizer steps.
        lr: learning rate, of all parts.
        batch_size: drawings, or pairs of frames, in each step.
        side: of the drawings in pixels.
        system: the network, which `learn` teaches.
    """

    name: str
    arguments: dict[str, Any]
    steps: int = 160
    lr: float = 2e-3
    batch_size: int = 8
    side: int = 96
    system: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.system = system_module(self.name).build(num_classes=len(LABELS), **self.arguments)

    @property
    def task(self) -> str:
        return system_module(self.name).TASK

    @property
    def answers(self) -> Predictions:
        """Of the network as it is now."""
        card = ModelCard(
            task=self.task,
            system=self.name,
            labels=LABELS,
            arguments=self.arguments,
            resize=ResizeRule(length=self.side),
        )
        return model_predictions(Predictor(self.system, card, device="cpu"))

    def learn(
        self, samples: Samples | None = None, *, watch: Callable[[int, dict[str, float]], None] | None = None
    ) -> None:
        """Make all steps, on scenes if nothing else is given."""
        stage = Stage(
            steps=self.steps,
            batch_size=self.batch_size,
            crop_size=self.side,
            optimizer=Optimizer(name="adamw", lr=self.lr, weight_decay=1e-2, norm_weight_decay=0.0, clip_norm=10.0),
            augmentation=Augmentation(scale_min=0.8, scale_max=1.25),
            warmup_steps=20,
        )
        fitting = Fit.start(self.system, stage)
        made = 0
        for step in fit(
            fitting,
            samples if samples is not None else DrawnScenes(100_000, first_seed=0, size_hw=(self.side, self.side)),
            accelerator=Accelerator(cpu=True),
            resize=ResizeRule(length=self.side),
            labels=LABELS,
            seed=0,
            workers=0,
        ):
            made = step.number
            if watch is not None:
                watch(made, step.terms)
        assert made == self.steps

    def judge(self, *, clips: int = 0) -> dict[str, Any]:
        """The metrics of the network as it is now, on 40 unseen scenes or on so many new clips."""
        return judge(self.answers, self.task, side=self.side, clips=clips)


def judge(answers: Predictions, task: str, *, side: int = 96, clips: int = 0) -> dict[str, Any]:
    """The metrics of any predictions on 40 new scenes, or on so many new clips."""
    size_hw, first_seed = (side, side), 1_000_000
    unseen = (
        DrawnClips(clips, first_seed=first_seed, size_hw=size_hw)
        if clips
        else DrawnScenes(40, first_seed=first_seed, size_hw=size_hw)
    )
    metric: TaskMetric = new_metric(task, LABELS, clips=bool(clips))
    for _ in evaluate(answers, unseen, metric):
        pass
    return metric.compute()
