"""Recipes as dotted names and values: what `--set` changes and `recipe.json` records."""

from __future__ import annotations

import difflib
import inspect
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, get_args

from pixelwise.contracts import Recipe, Stage, SystemFile
from pixelwise.errors import RecipeError
from pixelwise.inference.systems import system_module, system_names
from pixelwise.ops.resize_rule import Side

MODEL = "model."
"""Before the name of an argument of `build`."""


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """Every number of a recipe by its dotted name.

    A recipe with one stage gives its numbers without prefix: `steps`, `optimizer.lr`. With several, `STAGE.steps`.
    Arguments of `build` that a stage changes are `model.NAME`.
    """
    values = {name: value for name, value in _flat(recipe) if not name.startswith(("stages", "paper"))}
    for stage in recipe.stages:
        values |= {f"{_prefix(recipe, stage)}{name}": value for name, value in _stage_values(stage).items()}
    return values


@dataclass(frozen=True)
class NamedSystem:
    """What `pixelwise train NAME` begins from.

    Attributes:
        system: name of the file under models/.
        module: that file.
        arguments: of its `build`, beside the number of classes.
        recipe: every number.
    """

    system: str
    module: SystemFile
    arguments: dict[str, Any]
    recipe: Recipe


def one_size(assignments: Sequence[str]) -> list[str]:
    """The assignments, where what is said of `crop_size` alone holds for `input_size` too, and the reverse."""
    said = {name.strip(): text for name, _, text in (one.partition("=") for one in assignments)}
    added = [
        f"{other}={said[name]}"
        for name, other in (("crop_size", "input_size"), ("input_size", "crop_size"))
        if name in said and other not in said
    ]
    return [*assignments, *added]


def named_system(name: str) -> NamedSystem:
    """A system, or a variant of one, with its own arguments and recipe. Raises CheckpointError for an unknown name."""
    for system in () if name in system_names() else system_names():
        module = system_module(system)
        if name in module.VARIANTS:
            arguments = {**model_values(module), **module.VARIANTS[name]}
            return NamedSystem(system, module, arguments, module.RECIPES.get(name, module.RECIPE))
    module = system_module(name)
    return NamedSystem(name, module, model_values(module), module.RECIPE)


def model_values(module: SystemFile) -> dict[str, Any]:
    """The arguments of a system's `build` beside `num_classes`, with their defaults."""
    parameters = inspect.signature(module.build).parameters
    return {name: parameter.default for name, parameter in parameters.items() if name != "num_classes"}


def resolve_sets(
    assignments: Sequence[str], recipe: Recipe, arguments: Mapping[str, Any]
) -> tuple[Recipe, dict[str, Any]]:
    """Apply `NAME=VALUE` assignments.

    Args:
        assignments: names of `recipe_values`, where `NAME` without a stage means all stages, and `STAGE.NAME` goes
            before it; or `model.NAME` for an argument of `build`, and `STAGE.model.NAME` for it in one stage.
        recipe: the system's own.
        arguments: of `build`, with the values so far.

    Returns:
        the changed recipe and arguments.

    Raises:
        RecipeError: an unknown name (lists the valid ones), a value of the wrong kind, or an impossible number.
    """
    chosen = dict(arguments)
    whole = {name: value for name, value in _flat(recipe) if not name.startswith(("stages", "paper"))}
    common = _stage_values(recipe.stages[0])  # the stages have the same names, but for arguments of build
    common = {name: value for name, value in common.items() if not name.startswith(MODEL)}
    own_names = {stage.name for stage in recipe.stages} if len(recipe.stages) > 1 else set()
    changes: list[tuple[str, str, str]] = []
    for assignment in assignments:
        name, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals:
            raise RecipeError(f"--set {assignment}: expected NAME=VALUE")
        stage_name, _, rest = name.partition(".")
        stage_name, rest = (stage_name, rest) if stage_name in own_names else ("", name)
        if not (rest.removeprefix(MODEL) in chosen if rest.startswith(MODEL) else rest in common):
            if name not in whole:
                raise _unknown(name, recipe, chosen)
            recipe = replace(recipe, **{name: _parse(text, whole[name], name)})
        elif rest.startswith(MODEL) and not stage_name:
            key = rest.removeprefix(MODEL)
            chosen[key] = _parse(text, chosen[key], name)
            changes.append((stage_name, rest, text))
        else:
            changes.append((stage_name, rest, text))
    # what is said of one stage goes before what is said of all
    for stage_name, name, text in sorted(changes, key=lambda change: bool(change[0])):
        recipe = replace(
            recipe,
            stages=tuple(
                _changed(stage, name, text, chosen, everywhere=not stage_name)
                if stage_name in ("", stage.name)
                else stage
                for stage in recipe.stages
            ),
        )
    require_possible(recipe)
    return recipe, chosen


def _changed(stage: Stage, name: str, text: str, arguments: Mapping[str, Any], *, everywhere: bool) -> Stage:
    if name.startswith(MODEL):
        key = name.removeprefix(MODEL)
        if everywhere and key not in stage.arguments:
            return stage
        value = _parse(text, stage.arguments.get(key, arguments[key]), name)
        return replace(stage, arguments={**stage.arguments, key: value})
    own = {"class_weights": _class_weights, "crop_size": _crop_size}.get(name)
    value = own(text) if own else _parse(text, _stage_values(stage)[name], name)
    return _replace_dotted(stage, {name: value})


def _class_weights(text: str) -> str | tuple[float, ...]:
    if text in ("none", "balanced"):
        return text
    try:
        weights = tuple(float(weight) for weight in json.loads(text))
    except (ValueError, TypeError):
        weights = ()
    if not weights or min(weights) < 0 or not math.isfinite(sum(weights)) or not sum(weights):
        raise RecipeError(f"--set class_weights={text}: none, balanced, or a JSON list with a number for each class")
    return weights


def _crop_size(text: str) -> int | tuple[int, int]:
    try:
        size = json.loads(text)
        sides = size if isinstance(size, list) else [size]
        if all(type(side) is int for side in sides) and 1 <= len(sides) <= 2:
            return sides[0] if len(sides) == 1 else (sides[0], sides[1])
    except ValueError:
        pass
    raise RecipeError(f"--set crop_size={text}: expected a whole number, or [HEIGHT,WIDTH]")


def _unknown(name: str, recipe: Recipe, arguments: Mapping[str, Any]) -> RecipeError:
    several = len(recipe.stages) > 1
    common = [key for key in _stage_values(recipe.stages[0]) if not key.startswith(MODEL)] if several else []
    valid = list(dict.fromkeys([*recipe_values(recipe), *common, *(f"{MODEL}{key}" for key in arguments)]))
    near = difflib.get_close_matches(name, valid, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return RecipeError(f"--set {name}: unknown{hint}; valid names are {', '.join(valid)}")


def _prefix(recipe: Recipe, stage: Stage) -> str:
    return "" if len(recipe.stages) == 1 else f"{stage.name}."


def _stage_values(stage: Stage) -> dict[str, Any]:
    values = {name: value for name, value in _flat(stage) if name not in ("name", "arguments")}
    return values | {f"{MODEL}{name}": value for name, value in stage.arguments.items()}


def _replace_dotted(value: Any, changes: Mapping[str, Any]) -> Any:
    direct = {name: change for name, change in changes.items() if "." not in name}
    for field in fields(value):
        nested = {
            name.removeprefix(f"{field.name}."): change
            for name, change in changes.items()
            if name.startswith(f"{field.name}.")
        }
        if nested:
            direct[field.name] = _replace_dotted(getattr(value, field.name), nested)
    return replace(value, **direct)


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field in fields(value):
        content = getattr(value, field.name)
        if is_dataclass(content):
            yield from _flat(content, f"{prefix}{field.name}.")
        else:
            # 10 stands in a recipe for 10.0, and 2.5 may be set in its place
            yield f"{prefix}{field.name}", float(content) if field.type == "float" else content


def _parse(text: str, current: Any, name: str) -> Any:
    """Read a value of the kind that stands there now."""
    text = text.strip()
    try:
        if isinstance(current, bool):
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
        if isinstance(current, int):
            return int(text.replace(",", ""))
        if isinstance(current, float):
            return float(text)
        if isinstance(current, tuple | list):
            return tuple(json.loads(text if text.startswith("[") else f"[{text}]"))
        if current is None:
            return json.loads(text)
    except (KeyError, ValueError):
        kind = {bool: "true or false", int: "a whole number", float: "a number"}.get(type(current), "a JSON value")
        raise RecipeError(f"--set {name}={text}: expected {kind}") from None
    return text


def require_possible(recipe: Recipe) -> None:
    """Raise RecipeError for a number that cannot be, or for numbers that do not go together."""
    if not recipe.stages:
        raise RecipeError("a recipe has at least one stage")
    strange = next((stage.name for stage in recipe.stages if not re.fullmatch(r"\w+", stage.name)), None)
    if strange is not None:
        raise RecipeError(f"stage {strange!r}: its name becomes that of a folder; expected letters, digits and _")
    least = {
        "steps": 1,
        "batch_size": 1,
        "crop_size": 16,
        "optimizer.lr": 0,
        "optimizer.bias_lr_multiplier": 0,
        "optimizer.head_lr_multiplier": 0,
        "seed": 0,
        "input_size": 0,
        "input_limit": 0,
        "augmentation.scale_min": 0.01,
        "augmentation.rotate": 0,
        "evaluate_every": 0,
        "checkpoint_every": 1,
        "patience": 0,
        "warmup_steps": 0,
        "frozen_stages": 0,
    }
    values = recipe_values(recipe)
    for name, value in values.items():
        smallest = next((limit for key, limit in least.items() if name == key or name.endswith(f".{key}")), None)
        if smallest is not None and (min(value) if isinstance(value, tuple) else value) < smallest:
            raise RecipeError(f"--set {name}={value}: expected at least {smallest}")
    if recipe.input_side not in get_args(Side):
        raise RecipeError(f"--set input_side={recipe.input_side}: expected {', '.join(get_args(Side))}")
    if recipe.input_side == "none" and recipe.input_size:
        raise RecipeError(f"input_side=none with input_size={recipe.input_size}: images stay as they are; expected 0")
    if recipe.input_limit and (recipe.input_side != "short" or recipe.input_limit < recipe.input_size):
        raise RecipeError(
            f"--set input_limit={recipe.input_limit}: of the long side, where input_side is short, and at least "
            f"input_size={recipe.input_size}; 0 for none"
        )
    if recipe.precision not in ("auto", "float32", "bfloat16"):
        raise RecipeError(f"--set precision={recipe.precision}: auto, float32 or bfloat16")
    if recipe.patience and not recipe.evaluate_every:
        raise RecipeError("patience counts evaluations; add --set evaluate_every=N")
    for stage in recipe.stages:
        prefix = _prefix(recipe, stage)
        augmentation = stage.augmentation
        if augmentation.scale_min > augmentation.scale_max:
            raise RecipeError(f"{prefix}augmentation.scale_min is larger than {prefix}augmentation.scale_max")
        for name in ("flip", "blur", "copy_paste"):
            if not 0 <= getattr(augmentation, name) <= 1:
                raise RecipeError(
                    f"--set {prefix}augmentation.{name}={getattr(augmentation, name)}: a probability, 0 to 1"
                )
        bias = stage.optimizer.head_bias_lr_multiplier
        if bias is not None and not (isinstance(bias, int | float) and bias >= 0):
            raise RecipeError(
                f"--set {prefix}optimizer.head_bias_lr_multiplier={bias}: null (as head_lr_multiplier), or at least 0"
            )
        if not 0 < stage.ohem <= 1:
            raise RecipeError(f"--set {prefix}ohem={stage.ohem}: a fraction above 0, up to 1 (all)")
        if not 0 <= stage.ema_decay < 1:
            raise RecipeError(f"--set {prefix}ema_decay={stage.ema_decay}: 0 (none) up to, but not, 1")
        if stage.batch_size == 1 and not stage.freeze_batch_norm:
            raise RecipeError(
                f"{prefix}batch_size=1 gives batch norm nothing to average; add --set {prefix}freeze_batch_norm=true"
            )
