"""Recipes of the papers: their rates against the formulas, their numbers, and ten steps of each on small drawings."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from pixelwise.contracts import Recipe, Stage
from pixelwise.errors import RecipeError
from pixelwise.inference.systems import system_module, system_names
from pixelwise.training.fit import Fit, Step, fit
from pixelwise.training.optimizer import schedule_factor
from pixelwise.training.run.initial_weights import carry_over, new_system
from pixelwise.training.run.plan import Plan
from pixelwise.training.run.recipes import named_system, require_possible, resolve_sets
from pixelwise.types import Sample
from tests.drawn_scenes import LABELS, DrawnClips, drawn_sample

PUBLISHED = [
    (name, recipe)
    for system in system_names()
    for recipe, recipes in system_module(system).PUBLISHED.items()
    for name in recipes
]


def detectron(step: int) -> float:
    warm = 1 / 3 + (1 - 1 / 3) * step / 500 if step < 500 else 1
    return 0.02 * warm * (1 if step < 60_000 else 0.1 if step < 80_000 else 0.01)


def detectron2(step: int, first: int = 60_000, second: int = 80_000) -> float:
    warm = 0.001 + (1 - 0.001) * step / 1000 if step < 1000 else 1
    return 0.02 * warm * (1 if step < first else 0.1 if step < second else 0.01)


def detectron2_3x(step: int) -> float:
    return detectron2(step, 210_000, 250_000)


def upsnet(*drops: int) -> Callable[[int], float]:
    def rate(step: int) -> float:
        warm = 1 / 10 * (1 - step / 1500) + step / 1500 if step < 1500 else 1
        return 0.02 * warm * 0.1 ** sum(step >= drop for drop in drops)

    return rate


def vpsnet(step: int) -> float:
    epoch = step * 8 // (8 * 2_400)
    warm = 1 - (1 - step / 500) * (1 - 1 / 3) if step < 500 else 1
    return 0.005 * warm * (1 if epoch < 8 else 0.1 if epoch < 11 else 0.01)


def yolact(step: int) -> float:
    if step <= 500:
        return (1e-3 - 1e-4) * (step / 500) + 1e-4
    return 1e-3 * 0.1 ** sum(step >= drop for drop in (280_000, 600_000, 700_000, 750_000))


def mnc(step: int) -> float:
    return 0.001 if step < 20_000 else 0.0001


def poly(lr: float, steps: int) -> Callable[[int], float]:
    return lambda step: lr * (1 - step / steps) ** 0.9


def fixed(lr: float) -> Callable[[int], float]:
    return lambda _: lr


CURVES: dict[tuple[str, str], list[Callable[[int], float]]] = {
    ("mask_rcnn", "paper"): [detectron],
    ("mask_rcnn", "paper_3x"): [detectron2_3x],
    ("panoptic_fpn", "paper"): [detectron2],
    ("panoptic_fpn", "paper_3x"): [detectron2_3x],
    ("upsnet", "paper"): [upsnet(60_000, 80_000)],
    ("upsnet_coco_resnet101_deformable", "paper"): [upsnet(210_000, 250_000)],
    ("upsnet_cityscapes_resnet50", "paper"): [upsnet(9_000)],
    ("vpsnet", "paper"): [vpsnet],
    ("yolact", "paper"): [yolact],
    ("mnc", "paper"): [mnc],
    ("pspnet", "paper"): [poly(0.01, 150_000)],
    ("deeplab_v3", "paper"): [poly(0.007, 30_000), poly(0.001, 30_000)],
    ("deeplab_v3_plus", "paper"): [poly(0.007, 30_000)],
    ("fcn", "paper"): [fixed(1e-10), fixed(1e-12), fixed(1e-14)],
    ("fcn_32s", "paper"): [fixed(1e-10)],
    ("fcn_16s", "paper"): [fixed(1e-10), fixed(1e-12)],
    ("fcn_8s_at_once", "paper"): [fixed(1e-10)],
}
"""The learning rate in each stage, by the name of the variant where it has its own, as the source's code has it."""


@pytest.mark.parametrize(("name", "recipe"), PUBLISHED)
def test_rates_are_those_of_the_formula(name: str, recipe: str) -> None:
    named = named_system(name, recipe)
    curves = CURVES.get((name, recipe)) or CURVES[(named.system, recipe)]
    require_possible(named.recipe)
    for stage, curve in zip(named.recipe.stages, curves, strict=True):
        near = {step + more for step in (0, stage.warmup_steps, *stage.milestones) for more in (-1, 0, 1)}
        for step in sorted({*range(0, stage.steps, stage.steps // 97), *near, stage.steps - 1}):
            if 0 <= step < stage.steps:
                rate = stage.optimizer.lr * schedule_factor(stage, step)
                assert math.isclose(rate, curve(step), rel_tol=1e-9), (stage.name, step)


@pytest.mark.parametrize(
    ("name", "recipe", "numbers"),
    [
        # steps, images in a step, crop, momentum, decay of weights, of the rest, rates of biases, first stages frozen
        ("mask_rcnn", "paper", [(90_000, 16, 0, 0.9, 1e-4, 0, 2, 1)]),
        ("mask_rcnn", "paper_3x", [(270_000, 16, 0, 0.9, 1e-4, 1e-4, 1, 1)]),
        ("panoptic_fpn", "paper", [(90_000, 16, 0, 0.9, 1e-4, 1e-4, 1, 1)]),
        ("upsnet", "paper", [(90_000, 16, 0, 0.9, 1e-4, 0, 2, 1)]),
        ("upsnet_cityscapes_resnet50", "paper", [(12_000, 16, 0, 0.9, 1e-4, 0, 2, 1)]),
        ("vpsnet", "paper", [(28_800, 8, (800, 1600), 0.9, 1e-4, 1e-4, 1, 1)]),
        ("yolact", "paper", [(800_000, 8, 550, 0.9, 5e-4, 5e-4, 1, 0)]),
        ("mnc", "paper", [(25_000, 8, 0, 0.9, 5e-4, 0, 2, 2)]),
        ("pspnet", "paper", [(150_000, 16, 473, 0.9, 1e-4, 0, 1, 0)]),
        ("deeplab_v3", "paper", [(30_000, 16, 513, 0.9, 1e-4, 0, 1, 0)] * 2),
        ("deeplab_v3_plus", "paper", [(30_000, 16, 513, 0.9, 1e-4, 0, 1, 0)]),
        ("fcn", "paper", [(100_000, 1, 0, 0.99, 5e-4, 0, 2, 0)] * 3),
        ("fcn_8s_at_once", "paper", [(300_000, 1, 0, 0.99, 5e-4, 0, 2, 0)]),
    ],
)
def test_numbers_are_those_of_the_source(name: str, recipe: str, numbers: list[tuple[Any, ...]]) -> None:
    stages = named_system(name, recipe).recipe.stages
    assert [
        (
            stage.steps,
            stage.batch_size * stage.accumulate,
            stage.crop_size,
            stage.optimizer.momentum,
            stage.optimizer.weight_decay,
            stage.optimizer.norm_weight_decay,
            stage.optimizer.bias_lr_multiplier,
            stage.frozen_stages,
        )
        for stage in stages
    ] == numbers
    assert {stage.optimizer.name for stage in stages} == {"sgd"}


def test_a_system_without_a_published_recipe_says_which_there_are() -> None:
    with pytest.raises(RecipeError, match=r"--recipe 3x: no published recipe of mask_rcnn; expected paper or paper_3x"):
        named_system("mask_rcnn", "3x")
    with pytest.raises(RecipeError, match=r"no published recipe of fcn_resnet50; it has none"):
        named_system("fcn_resnet50", "paper")


# ---- ten steps


class SmallScenes:
    """Eight drawings of two shapes, so that whole images of a batch differ."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Sample:
        return drawn_sample(index, ((64, 96), (96, 64))[index % 2])


SMALL_DETECTOR = (
    "batch_size=2",
    "optimizer.clip_norm=1",  # frozen batch norms of a network without ImageNet's weights normalise nothing
    "augmentation.short_sides=[64,80]",
    "input_size=80",
    "input_limit=112",
    "milestones=[6,8]",
    "warmup_steps=3",
    "model.channels=32",
    "model.box_width=64",
)
SMALL: dict[tuple[str, str], tuple[str, ...]] = {
    ("mask_rcnn_mobilenet_v2_fpn", "paper"): SMALL_DETECTOR,
    ("mask_rcnn_mobilenet_v2_fpn", "paper_3x"): SMALL_DETECTOR,
    ("panoptic_fpn_mobilenet_v2", "paper"): SMALL_DETECTOR,
    ("upsnet_coco_mobilenet_v2", "paper"): SMALL_DETECTOR,
    ("vpsnet_mobilenet_v2", "paper"): (
        "batch_size=2",
        "crop_size=[64,96]",
        "input_size=96",
        "milestones=[6,8]",
        "warmup_steps=3",
        "model.channels=32",
        "model.box_width=64",
    ),
    ("yolact_mobilenet_v2", "paper"): (
        "batch_size=4",
        "crop_size=96",
        "input_size=96",
        "milestones=[4,6,8]",
        "warmup_steps=3",
        "model.channels=32",
    ),
    ("mnc_mobilenet_v2", "paper"): (
        "accumulate=2",
        "augmentation.short_sides=[64]",
        "input_size=80",
        "input_limit=112",
        "milestones=[6]",
        "model.hidden=64",
        "model.post_nms_topk=[50,50]",
    ),
    ("pspnet_mobilenet_v2", "paper"): ("batch_size=2", "crop_size=65", "input_size=97", "sync_batch_norm=false"),
    ("deeplab_v3_mobilenet_v2", "paper"): ("batch_size=2", "crop_size=65", "input_size=97", "steps=5"),
    ("deeplab_v3_plus_mobilenet_v2", "paper"): ("batch_size=2", "crop_size=65", "input_size=97"),
    ("fcn_8s", "paper"): ("model.backbone=mobilenet_v2", "steps=4", "32s.steps=2"),
}
"""What makes the recipes small enough for a test; all other numbers stay."""


@pytest.mark.parametrize(("name", "recipe"), SMALL)
def test_ten_steps_are_made_on_small_drawings(name: str, recipe: str) -> None:
    named = named_system(name, recipe)
    numbers, arguments = resolve_sets(["steps=10", *SMALL[name, recipe]], named.recipe, named.arguments)
    plan = Plan(named.system, arguments, numbers, ())
    weights: dict[str, torch.Tensor] = {}
    made: list[Step] = []
    for stage in numbers.stages:
        system = new_system(plan, stage, classes=len(LABELS))
        carry_over(system, weights)
        before = {key: value.clone() for key, value in system.state_dict().items()}
        fitting = Fit.start(system, stage)
        steps = fit(
            fitting,
            DrawnClips(2, first_seed=0, size_hw=(64, 96)) if named.module.TRAITS.uses_memory else SmallScenes(),
            accelerator=Accelerator(cpu=True),
            resize=numbers.resize,
            labels=LABELS,
            seed=0,
            workers=0,
        )
        for step in steps:
            made.append(step)
            assert step.lr == pytest.approx(stage.optimizer.lr * schedule_factor(stage, step.number - 1))
            assert math.isfinite(step.loss)
        weights = fitting.shipped_state()
        assert any(not torch.equal(value, before[key]) for key, value in weights.items())
    assert len(made) == 10


def test_every_system_with_published_recipes_makes_ten_steps() -> None:
    tried = {(named_system(name).system, recipe) for name, recipe in SMALL}
    assert tried | {("panoptic_fpn", "paper_3x")} == {(named_system(name).system, recipe) for name, recipe in PUBLISHED}


def test_the_recipe_of_small_machines_stays_the_default() -> None:
    for name, _ in PUBLISHED:
        module = named_system(name).module
        assert named_system(name).recipe == module.RECIPES.get(name, module.RECIPE)


def test_whole_images_cannot_be_pasted_into_each_other() -> None:
    recipe = Recipe(stages=(Stage(),))
    with pytest.raises(RecipeError, match=r"crop_size=0: whole images .* --set augmentation\.copy_paste=0"):
        resolve_sets(["crop_size=0", "augmentation.copy_paste=0.5"], recipe, {})
    with pytest.raises(RecipeError, match=r"crop_size=12: expected at least 16, or 0 for whole images"):
        resolve_sets(["crop_size=12"], recipe, {})
    with pytest.raises(RecipeError, match=r"schedule=step: .* add --set milestones"):
        resolve_sets(["schedule=step"], recipe, {})
    changed, _ = resolve_sets(["schedule=step", "milestones=[5,10]", "batch_norm_momentum=0.01"], recipe, {})
    assert (changed.stages[0].milestones, changed.stages[0].batch_norm_momentum) == ((5, 10), 0.01)
