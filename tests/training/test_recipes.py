"""--set: names, kinds and limits."""

from __future__ import annotations

import pytest

from pixelwise.contracts import Recipe, Stage
from pixelwise.errors import RecipeError
from pixelwise.models import deeplab_v3_plus
from pixelwise.training.recipes import model_values, recipe_values, resolve_sets

ARGUMENTS = model_values(deeplab_v3_plus)


def test_values_reach_their_places() -> None:
    recipe, arguments = resolve_sets(
        [
            "steps=12,000",
            "optimizer.lr=2e-2",
            "augmentation.flip=0",
            "freeze_batch_norm=true",
            "seed=7",
            "model.separable=false",
        ],
        deeplab_v3_plus.RECIPE,
        ARGUMENTS,
    )
    stage = recipe.stages[0]
    assert (stage.steps, stage.optimizer.lr, stage.augmentation.flip) == (12000, 0.02, 0.0)
    assert stage.freeze_batch_norm is True
    assert recipe.seed == 7
    assert arguments["separable"] is False
    assert stage.batch_size == deeplab_v3_plus.RECIPE.stages[0].batch_size


def test_the_common_names_are_in_every_recipe() -> None:
    assert {"steps", "batch_size", "crop_size", "optimizer.lr", "seed"} <= recipe_values(deeplab_v3_plus.RECIPE).keys()


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("step=3", r"--set step: unknown \(did you mean steps\?\); valid names are input_size, seed, .*model\.dropout"),
        ("steps", "NAME=VALUE"),
        ("steps=many", "a whole number is wanted"),
        ("steps=1.5", "a whole number is wanted"),
        ("steps=0", "at least 1"),
        ("batch_size=1", "freeze_batch_norm"),
        ("optimizer.lr=fast", "a number is wanted"),
        ("freeze_batch_norm=maybe", "true or false"),
        ("precision=int4", "auto, float32 or bfloat16"),
        ("augmentation.scale_min=3", "larger than"),
        ("ema_decay=1", "up to, but not, 1"),
    ],
)
def test_what_cannot_be_is_refused_with_the_mend(assignment: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        resolve_sets([assignment], deeplab_v3_plus.RECIPE, ARGUMENTS)


def test_stages_are_named_where_there_are_several() -> None:
    recipe = Recipe(stages=(Stage(name="coarse", steps=10), Stage(name="fine", steps=20)))
    changed, _ = resolve_sets(["fine.steps=5", "coarse.optimizer.lr=0.5"], recipe, {})
    assert [stage.steps for stage in changed.stages] == [10, 5]
    assert changed.stages[0].optimizer.lr == 0.5
    with pytest.raises(RecipeError, match=r"did you mean fine\.steps"):
        resolve_sets(["fin.steps=5"], recipe, {})
