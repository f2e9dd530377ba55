"""Groups, schedule and average against their formulas."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pixelwise.contracts import Optimizer, Stage
from pixelwise.models.deeplab_v3_plus import build
from pixelwise.training.optimizer import build_optimizer, schedule_factor, set_rates, weight_average


def test_groups_hold_every_parameter_once_with_its_rate_and_decay() -> None:
    model = build(num_classes=3, backbone="mobilenet_v2", channels=8)
    wanted = Optimizer(lr=0.1, head_lr_multiplier=10, weight_decay=0.01, norm_weight_decay=0.002)
    optimizer = build_optimizer(model, wanted)
    found = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    assert len(found) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        lr = 0.1 if name.startswith("backbone.") else 1.0
        decayed = name.endswith("weight") and parameter.ndim == 4
        assert found[id(parameter)] == (pytest.approx(lr), 0.01 if decayed else 0.002), name


def test_biases_have_rates_of_their_own_and_norms_do_not() -> None:
    """DeepLab's prototxt: classifier ×10, its bias ×20; VGG's biases ×2; none of them decayed."""
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    model = nn.ModuleDict({"backbone": backbone, "head": nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))})
    wanted = Optimizer(
        lr=0.1,
        bias_lr_multiplier=2,
        head_lr_multiplier=10,
        head_bias_lr_multiplier=20,
        weight_decay=0.01,
        norm_weight_decay=0,
    )
    groups = build_optimizer(Backboned(model), wanted).param_groups
    found = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    rates = {name: found[id(parameter)] for name, parameter in model.named_parameters()}
    assert rates == {
        "backbone.0.weight": (pytest.approx(0.1), 0.01),
        "backbone.0.bias": (pytest.approx(0.2), 0),
        "backbone.1.weight": (pytest.approx(0.1), 0),
        "backbone.1.bias": (pytest.approx(0.1), 0),
        "head.0.weight": (pytest.approx(1.0), 0),
        "head.0.bias": (pytest.approx(1.0), 0),
        "head.1.weight": (pytest.approx(1.0), 0.01),
        "head.1.bias": (pytest.approx(2.0), 0),
    }


class Headed(nn.Sequential):
    """Layers without a backbone."""

    backbone = None


class Backboned(nn.Module):
    def __init__(self, parts: nn.ModuleDict) -> None:
        super().__init__()
        self.backbone, self.head = parts["backbone"], parts["head"]


def test_poly_falls_by_step() -> None:
    stage = Stage(steps=100, poly_power=0.9)
    assert [schedule_factor(stage, step) for step in (0, 50, 99)] == pytest.approx([1, 0.5**0.9, 0.01**0.9])
    warm = Stage(steps=100, poly_power=0.9, warmup_steps=10)
    assert schedule_factor(warm, 4) == pytest.approx(0.5 * 0.96**0.9)


@pytest.mark.parametrize(
    ("stage", "factors"),
    [
        (Stage(steps=100, schedule="fixed"), {0: 1, 99: 1}),
        (Stage(steps=100, schedule="cosine"), {0: 1, 25: 0.5 + 0.5**1.5, 50: 0.5, 75: 0.5 - 0.5**1.5}),
        (Stage(steps=100, schedule="step", milestones=(60, 80)), {0: 1, 59: 1, 60: 0.1, 79: 0.1, 80: 0.01, 99: 0.01}),
        (Stage(steps=100, schedule="step", milestones=(60,), gamma=0.5), {59: 1, 60: 0.5}),
        (
            Stage(steps=100, schedule="fixed", warmup_steps=10, warmup_factor=0.1),
            {0: 0.1, 1: 0.19, 5: 0.55, 9: 0.91, 10: 1},
        ),
        (Stage(steps=100, schedule="fixed", warmup_steps=10), {0: 0.1, 8: 0.9, 9: 1, 10: 1}),
        (
            Stage(steps=100, schedule="fixed", warmup="constant", warmup_steps=10, warmup_factor=0.25),
            {0: 0.25, 9: 0.25, 10: 1},
        ),
        (
            Stage(steps=100, schedule="step", milestones=(5,), warmup_steps=10, warmup_factor=0.1),
            {4: 0.46, 5: 0.055, 10: 0.1},
        ),
    ],
)
def test_schedules_and_warm_ups_equal_their_formulas(stage: Stage, factors: dict[int, float]) -> None:
    assert {step: schedule_factor(stage, step) for step in factors} == pytest.approx(factors)


def test_step_decay_with_a_warm_up_equals_torchs_schedulers() -> None:
    """torch multiplies by `LinearLR` and `MultiStepLR`, as torchvision's references do."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedulers = [
        torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1e-3, total_iters=20),
        torch.optim.lr_scheduler.MultiStepLR(optimizer, [60, 80], gamma=0.1),
    ]
    stage = Stage(steps=100, schedule="step", milestones=(60, 80), warmup_steps=20, warmup_factor=1e-3)
    for step in range(100):
        assert schedule_factor(stage, step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6), step
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()


def test_rates_follow_the_factor_from_their_start() -> None:
    optimizer = build_optimizer(Headed(nn.Conv2d(1, 1, 1)), Optimizer(lr=0.2, head_lr_multiplier=2))
    for factor in (0.5, 0.25):
        set_rates(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.4 * factor] * 2)


def test_sgd_step_equals_the_formula() -> None:
    layer = nn.Linear(2, 1)
    optimizer = build_optimizer(Headed(layer), Optimizer(lr=0.1, weight_decay=0.5, norm_weight_decay=0.0, momentum=0.9))
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    velocity = torch.zeros_like(weight)
    for _ in range(3):
        optimizer.zero_grad()
        layer(torch.tensor([[1.0, 2.0]])).sum().backward()
        optimizer.step()
        velocity = 0.9 * velocity + torch.tensor([[1.0, 2.0]]) + 0.5 * weight
        weight = weight - 0.1 * velocity
    torch.testing.assert_close(layer.weight.detach(), weight)
    torch.testing.assert_close(layer.bias.detach(), bias - 0.1 * (1 + 1.9 + 2.71))


def test_average_equals_the_formula_and_counts_batches_exactly() -> None:
    layer = nn.BatchNorm1d(1)
    average = weight_average(layer, 0.9)
    expected = float(layer.weight.detach())
    for step in range(40):
        with torch.no_grad():
            layer.weight.fill_(step)
            layer.num_batches_tracked.fill_(step)
        average.update_parameters(layer)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert float(average.module.weight.detach()) == pytest.approx(expected, rel=1e-5)
    assert int(average.module.num_batches_tracked) == 39
