"""--set: names, kinds and limits."""

from __future__ import annotations

import pytest

from pixelwise.contracts import Optimizer, Recipe, Stage
from pixelwise.errors import CheckpointError, RecipeError
from pixelwise.models import deeplab_v3_plus
from pixelwise.training.run.recipes import model_values, named_system, one_size, recipe_values, resolve_sets

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
        (
            "step=3",
            r"--set step: unknown \(did you mean steps\?\); valid names are input_size, input_side, .*model\.dropout",
        ),
        ("steps", "NAME=VALUE"),
        ("steps=many", "expected a whole number"),
        ("steps=1.5", "expected a whole number"),
        ("steps=0", "at least 1"),
        ("batch_size=1", "freeze_batch_norm"),
        ("optimizer.lr=fast", "expected a number"),
        ("freeze_batch_norm=maybe", "true or false"),
        ("precision=int4", "expected 'auto', 'float32' or 'bfloat16'"),
        ("augmentation.scale_min=3", "larger than"),
        ("optimizer.name=adagrad", "expected 'sgd' or 'adamw'"),
        ("optimizer.lr=nan", "expected a finite number"),
        ("ema_decay=1", "expected less than 1"),
        ("ohem=0", "expected more than 0"),
        ("class_weights=heavy", "none, balanced, or a JSON list"),
        ("class_weights=[1, -2]", r"class_weights=\[1, -2\]: expected at least 0"),
        ("class_weights=[0, 0]", "none, balanced, or a JSON list"),
        ("class_weights=[1, many]", "none, balanced, or a JSON list"),
        ("augmentation.blur=2", "expected at most 1"),
        ("patience=-1", "at least 0"),
        ("optimizer.head_bias_lr_multiplier=-1", "at least 0"),
        ("optimizer.head_bias_lr_multiplier=x", r"expected a number, or null \(as head_lr_multiplier\)"),
        ("model.channels=wide", "expected a whole number"),
        ("model.rates=[6", "expected a JSON value"),
        ("crop_size=8", "at least 16"),
        ("crop_size=[64,8]", "at least 16"),
        ("crop_size=480,640", r"crop_size=480,640: expected a whole number, or \[HEIGHT,WIDTH\]"),
        ("crop_size=384,1248", r"expected a whole number, or \[HEIGHT,WIDTH\]"),
        ("crop_size=[64,64,64]", r"or \[HEIGHT,WIDTH\]"),
    ],
)
def test_what_cannot_be_is_refused_with_the_repair(assignment: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        resolve_sets([assignment], deeplab_v3_plus.RECIPE, ARGUMENTS)


def test_stages_are_named_where_there_are_several() -> None:
    recipe = Recipe(stages=(Stage(name="coarse", steps=10), Stage(name="fine", steps=20)))
    changed, _ = resolve_sets(["fine.steps=5", "coarse.optimizer.lr=0.5"], recipe, {})
    assert [stage.steps for stage in changed.stages] == [10, 5]
    assert changed.stages[0].optimizer.lr == 0.5
    with pytest.raises(RecipeError, match=r"--set coarse\.optimizer\.lr=x: expected a number"):
        resolve_sets(["fine.steps=0", "coarse.optimizer.lr=x"], recipe, {})
    with pytest.raises(RecipeError, match=r"--set coarse\.crop_size=small: expected a whole number, or \["):
        resolve_sets(["crop_size=small"], recipe, {})
    with pytest.raises(RecipeError, match=r"did you mean fine\.steps"):
        resolve_sets(["fin.steps=5"], recipe, {})


def test_a_name_without_a_stage_means_every_stage() -> None:
    recipe = Recipe(
        stages=(
            Stage(name="coarse", arguments={"output_stride": 16}),
            Stage(name="fine", steps=20, arguments={"output_stride": 8}),
        )
    )
    arguments = {"output_stride": 32, "dropout": 0.1}
    changed, chosen = resolve_sets(["fine.steps=5", "steps=7", "optimizer.lr=1", "seed=3"], recipe, arguments)
    assert [stage.steps for stage in changed.stages] == [7, 5]
    assert [stage.optimizer.lr for stage in changed.stages] == [1, 1]
    assert (changed.seed, chosen) == (3, arguments)
    changed, chosen = resolve_sets(["model.output_stride=4", "fine.model.dropout=0.5"], recipe, arguments)
    assert [dict(stage.arguments) for stage in changed.stages] == [
        {"output_stride": 4},
        {"output_stride": 4, "dropout": 0.5},
    ]
    assert chosen == {"output_stride": 4, "dropout": 0.1}
    assert recipe_values(changed)["fine.model.dropout"] == 0.5


@pytest.mark.parametrize(
    ("text", "value"),
    [("none", "none"), ("balanced", "balanced"), ("[1, 0.5, 2]", (1.0, 0.5, 2.0))],
)
def test_class_weights_are_a_word_or_a_list(text: str, value: object) -> None:
    recipe, _ = resolve_sets([f"class_weights={text}", "ohem=0.25"], deeplab_v3_plus.RECIPE, ARGUMENTS)
    assert (recipe.stages[0].class_weights, recipe.stages[0].ohem) == (value, 0.25)


@pytest.mark.parametrize(("text", "value"), [("320", 320), ("[256, 832]", (256, 832))])
def test_crops_may_have_two_sides(text: str, value: object) -> None:
    recipe, _ = resolve_sets([f"crop_size={text}"], deeplab_v3_plus.RECIPE, ARGUMENTS)
    assert recipe.stages[0].crop_size == value


def test_a_whole_number_in_a_recipe_can_be_set_to_a_fraction() -> None:
    recipe = Recipe(stages=(Stage(optimizer=Optimizer(head_lr_multiplier=10, head_bias_lr_multiplier=20)),))
    changed, _ = resolve_sets(["optimizer.head_lr_multiplier=2.5", "augmentation.rotate=10"], recipe, {})
    assert changed.stages[0].optimizer.head_lr_multiplier == 2.5
    assert changed.stages[0].augmentation.rotate == 10


def test_a_variant_brings_its_arguments() -> None:
    named = named_system("deeplab_v3_plus_mobilenet_v2")
    assert (named.system, named.arguments["backbone"]) == ("deeplab_v3_plus", "mobilenet_v2")
    assert named.recipe == deeplab_v3_plus.RECIPE
    with pytest.raises(CheckpointError, match="there is no system 'deeplab_v9'"):
        named_system("deeplab_v9")


def test_where_crops_have_the_size_of_input_one_may_say_either() -> None:
    names = ("yolact", "yolact_edge", "mask_rcnn")
    assert [named_system(name).module.TRAITS.stretches_input for name in names] == [True, True, False]
    assert one_size(["steps=3", "crop_size=64"]) == ["steps=3", "crop_size=64", "input_size=64"]
    assert one_size(["input_size=64"]) == ["input_size=64", "crop_size=64"]
    assert one_size(["input_size=80", "crop_size=64"]) == ["input_size=80", "crop_size=64"]
