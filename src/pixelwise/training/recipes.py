"""Recipes as dotted names and values: what `--set` changes and `recipe.json` records."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from types import ModuleType
from typing import Any

from pixelwise.contracts import Recipe
from pixelwise.errors import RecipeError


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """Every number of a recipe by its dotted name.

    A recipe with one stage gives its numbers without prefix: `steps`, `optimizer.lr`. With several, `NAME.steps`.
    """
    values = {name: value for name, value in _flat(recipe) if not name.startswith(("stages", "paper"))}
    for stage in recipe.stages:
        prefix = "" if len(recipe.stages) == 1 else f"{stage.name}."
        values |= {f"{prefix}{name}": value for name, value in _flat(stage) if name != "name"}
    return values


def model_values(module: ModuleType) -> dict[str, Any]:
    """The arguments of a system's `build` beside `num_classes`, with their defaults."""
    parameters = inspect.signature(module.build).parameters
    return {name: parameter.default for name, parameter in parameters.items() if name != "num_classes"}


def resolve_sets(
    assignments: Sequence[str], recipe: Recipe, arguments: Mapping[str, Any]
) -> tuple[Recipe, dict[str, Any]]:
    """Apply `NAME=VALUE` assignments.

    Args:
        assignments: names of `recipe_values`, or `model.NAME` for an argument of `build`.
        recipe: the system's own.
        arguments: of `build`, with the values so far.

    Returns:
        the changed recipe and arguments.

    Raises:
        RecipeError: an unknown name (lists the valid ones), a value of the wrong kind, or an impossible number.
    """
    values, chosen = recipe_values(recipe), dict(arguments)
    changes: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        name = name.strip()
        if not equals:
            raise RecipeError(f"--set {assignment}: NAME=VALUE is wanted")
        if name.startswith("model.") and name.removeprefix("model.") in chosen:
            key = name.removeprefix("model.")
            chosen[key] = _parse(text, chosen[key], name)
        elif name in values:
            changes[name] = _parse(text, values[name], name)
        else:
            valid = [*values, *(f"model.{key}" for key in chosen)]
            near = difflib.get_close_matches(name, valid, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise RecipeError(f"--set {name}: unknown{hint}; valid names are {', '.join(valid)}")
    changed = _changed(recipe, changes)
    _require_possible(changed)
    return changed, chosen


def _changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    stages = []
    for stage in recipe.stages:
        prefix = "" if len(recipe.stages) == 1 else f"{stage.name}."
        own = {name.removeprefix(prefix): value for name, value in changes.items() if name.startswith(prefix)}
        stages.append(
            _replace_dotted(stage, {name: value for name, value in own.items() if name in dict(_flat(stage))})
        )
    whole = {name: value for name, value in changes.items() if name in {field.name for field in fields(recipe)}}
    return replace(recipe, stages=tuple(stages), **whole)


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
            yield f"{prefix}{field.name}", content


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
        raise RecipeError(f"--set {name}={text}: {kind} is wanted") from None
    return text


def _require_possible(recipe: Recipe) -> None:
    least = {
        "steps": 1,
        "batch_size": 1,
        "crop_size": 16,
        "optimizer.lr": 0,
        "seed": 0,
        "input_size": 0,
        "augmentation.scale_min": 0.01,
        "evaluate_every": 0,
        "checkpoint_every": 1,
        "warmup_steps": 0,
        "frozen_stages": 0,
    }
    values = recipe_values(recipe)
    for name, value in values.items():
        smallest = next((limit for key, limit in least.items() if name == key or name.endswith(f".{key}")), None)
        if smallest is not None and value < smallest:
            raise RecipeError(f"--set {name}={value}: at least {smallest} is wanted")
    if recipe.precision not in ("auto", "float32", "bfloat16"):
        raise RecipeError(f"--set precision={recipe.precision}: auto, float32 or bfloat16")
    for stage in recipe.stages:
        if stage.augmentation.scale_min > stage.augmentation.scale_max:
            raise RecipeError("augmentation.scale_min is larger than augmentation.scale_max")
        if not 0 <= stage.ema_decay < 1:
            raise RecipeError(f"--set ema_decay={stage.ema_decay}: 0 (none) up to, but not, 1")
        if stage.batch_size == 1 and not stage.freeze_batch_norm:
            raise RecipeError("batch_size=1 gives batch norm nothing to average; add --set freeze_batch_norm=true")
