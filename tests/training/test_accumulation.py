"""Gradient accumulation: steps of small batches have the gradients of a large one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator

from pixelwise.contracts import Optimizer, Stage
from pixelwise.data.loading.collate import collate
from pixelwise.models.deeplab_v3_plus import build
from pixelwise.ops.resize_rule import ResizeRule
from pixelwise.training.fit import Fit, Step, fit, make_gradients, set_pixel_loss
from pixelwise.types import Batch
from tests.drawn_scenes import LABELS, DrawnScenes
from tests.training.joint_gradients import STAGES, TwoTerms

CPU = Accelerator(cpu=True)
SCENES = DrawnScenes(4, first_seed=0, size_hw=(64, 64))


def batches(size: int) -> list[Batch]:
    """Four images, of which the later ones are evaluated less and less, so that their counts differ."""
    samples = [SCENES[index] for index in range(4)]
    for number, sample in enumerate(samples):
        assert sample.truth.semantic is not None
        sample.truth.semantic[: 17 * number] = 255
    joined = [collate(samples[start : start + size]) for start in range(0, 4, size)]
    return [replace(batch, images=batch.images.double()) for batch in joined]


def gradients(stage: Stage, size: int, *, reduction: str = "mean") -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    torch.manual_seed(0)
    system = TwoTerms().double().train()
    Fit.start(system, stage)
    set_pixel_loss(system, stage, 255)
    terms = make_gradients(system, system, batches(size), CPU, reduction=reduction)
    return {name: one.grad for name, one in system.named_parameters() if one.grad is not None}, terms


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_four_batches_of_one_give_the_gradients_of_one_of_four(name: str, reduction: str) -> None:
    (large, terms), (small, parts) = (gradients(STAGES[name], size, reduction=reduction) for size in (4, 1))
    assert parts == pytest.approx(terms, rel=1e-12)
    assert large.keys() == small.keys()
    for key, gradient in large.items():
        torch.testing.assert_close(small[key], gradient, rtol=1e-9, atol=1e-12 * float(gradient.abs().max()) + 1e-15)


def test_a_sum_is_not_divided_by_what_was_counted() -> None:
    mean, total = (gradients(STAGES["plain"], 4, reduction=reduction)[1] for reduction in ("mean", "sum"))
    counted = sum(int((annotation.semantic != 255).sum()) for annotation in batches(4)[0].truth)
    assert total["main"] == pytest.approx(mean["main"] * counted)


def test_batch_norm_counts_each_batch_once() -> None:
    torch.manual_seed(0)
    system = TwoTerms().double().train()
    make_gradients(system, system, batches(2), CPU)
    assert {int(value) for key, value in system.state_dict().items() if key.endswith("tracked")} == {2}


def test_the_loop_reads_the_images_of_the_large_batch() -> None:
    def made(**numbers: int) -> list[Step]:
        torch.manual_seed(0)
        stage = Stage(steps=2, crop_size=48, freeze_batch_norm="all", optimizer=Optimizer(lr=0.05), **numbers)
        system = build(num_classes=4, backbone="mobilenet_v2", channels=8, dropout=0.0)
        fitting = Fit.start(system, stage)
        return list(
            fit(fitting, SCENES, accelerator=CPU, resize=ResizeRule(length=64), labels=LABELS, seed=1, workers=0)
        )

    large, small = made(batch_size=4), made(batch_size=2, accumulate=2)
    assert [step.images for step in small] == [4, 4]
    assert [step.loss for step in small] == pytest.approx([step.loss for step in large], rel=1e-4)
