"""Recipes as dotted names and values: what `--set` changes and `recipe.json` records."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pixelwise.contracts import Recipe, Stage, SystemFile
from pixelwise.errors import RecipeError
from pixelwise.inference.systems import system_module, system_names

MODEL = "model."
"""Before the name of an argument of `build`."""

_EXPECTED = {
    "crop_size": "a whole number, or [HEIGHT,WIDTH]",
    "class_weights": "none, balanced, or a JSON list with a number for each class",
    "optimizer.head_bias_lr_multiplier": "a number, or null (as head_lr_multiplier)",
}
"""Of names that take several kinds of values."""

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "literal": "{expected}",
    "tuple": "a JSON list",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
}
"""What is expected, by how the names of pydantic's errors begin."""


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """Every number of a recipe by its dotted name.

    A recipe with one stage gives its numbers without prefix: `steps`, `optimizer.lr`. With several, `STAGE.steps`.
    Arguments of `build` that a stage changes are `model.NAME`.
    """
    values = _whole_values(recipe)
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


def named_system(name: str, recipe: str | None = None) -> NamedSystem:
    """A system, or a variant of one, with its own arguments and recipe.

    Args:
        name: of the system or the variant.
        recipe: the name of a published one, such as `paper`; None for that of small machines.

    Raises:
        CheckpointError: an unknown name.
        RecipeError: it has no recipe of that name.
    """
    others = () if name in system_names() else system_names()
    system = next((other for other in others if name in system_module(other).VARIANTS), name)
    module = system_module(system)
    arguments = {**model_values(module), **({} if name == system else module.VARIANTS[name])}
    chosen = module.RECIPES.get(name, module.RECIPE)
    if recipe is not None:
        names = published_names(module, name)
        if recipe not in names:
            known = f"expected {' or '.join(names)}, or no --recipe" if names else "it has none; use no --recipe"
            raise RecipeError(f"--recipe {recipe}: no published recipe of {name}; {known}")
        chosen = module.PUBLISHED[recipe][name]
    return NamedSystem(system, module, arguments, chosen)


def published_names(module: SystemFile, name: str) -> list[str]:
    """The names of the published recipes that a system or a variant has."""
    return [recipe for recipe, recipes in module.PUBLISHED.items() if name in recipes]


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
    chosen, values = dict(arguments), asdict(recipe)
    whole, common = _whole_values(recipe), _common_names(recipe)
    own_names = {stage.name for stage in recipe.stages} if len(recipe.stages) > 1 else set()
    said: dict[str, str] = {}
    changes: list[tuple[str, str, str]] = []
    for assignment in assignments:
        name, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals:
            raise RecipeError(f"--set {assignment}: expected NAME=VALUE")
        said[name] = text
        stage_name, _, rest = name.partition(".")
        stage_name, rest = (stage_name, rest) if stage_name in own_names else ("", name)
        if rest.removeprefix(MODEL) in chosen if rest.startswith(MODEL) else rest in common:
            changes.append((stage_name, rest, text))
        elif name in whole:
            _put(values, name, _read(text))
        else:
            raise _unknown(name, recipe, chosen)
    # what is said of one stage goes before what is said of all
    for stage_name, name, text in sorted(changes, key=lambda change: bool(change[0])):
        key = name.removeprefix(MODEL)
        if key != name and not stage_name:
            chosen[key] = _argument(text, chosen[key], name)
        for stage in values["stages"]:
            if stage_name not in ("", stage["name"]):
                continue
            if key == name:
                _put(stage, name, _read(text))
            elif stage_name or key in stage["arguments"]:
                stage["arguments"][key] = _argument(text, stage["arguments"].get(key, chosen[key]), name)
    try:
        recipe = TypeAdapter(Recipe).validate_python(values)
    except ValidationError as error:
        raise RecipeError(_fault(error, recipe, said)) from None
    require_possible(recipe)
    return recipe, chosen


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    *groups, last = name.split(".")
    for group in groups:
        values = values[group]
    values[last] = value


def _read(text: str) -> Any:
    """Lists and null as JSON; all else is text, of which pydantic makes what belongs there."""
    if text[:1] not in ("[", "{") and text != "null":
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _argument(text: str, current: Any, name: str) -> Any:
    """Read a value of the kind that stands there now."""
    if isinstance(current, tuple | list) and not text.startswith("["):
        text = f"[{text}]"
    try:
        if isinstance(current, bool | int | float | str):
            return TypeAdapter(type(current)).validate_python(text)
        value = json.loads(text)
    except ValidationError as error:
        raise RecipeError(f"--set {name}={text}: expected {_expected(error.errors()[0])}") from None
    except ValueError:
        raise RecipeError(f"--set {name}={text}: expected a JSON value") from None
    return tuple(value) if isinstance(value, list) else value


def _fault(error: ValidationError, recipe: Recipe, said: Mapping[str, str]) -> str:
    """The first fault, by the name that `--set` has for its place."""
    faults = error.errors()
    name = _name(faults[0]["loc"], recipe)
    of_place = [fault for fault in faults if _name(fault["loc"], recipe) == name]
    key = name if name in said else name.partition(".")[2]
    limit = next((fault for fault in of_place if "_than" in fault["type"]), None)
    expected = _expected(limit) if limit else _EXPECTED.get(key) or _EXPECTED.get(name) or _expected(of_place[0])
    return f"--set {name}={said.get(key, faults[0]['input'])}: expected {expected}"


def _name(loc: Sequence[str | int], recipe: Recipe) -> str:
    """The name of a recipe at a place that pydantic names, which goes on with the members of unions and lists."""
    place = "".join(f"{part}." for part in loc)
    for number, stage in enumerate(recipe.stages):
        place = place.replace(f"stages.{number}.", _prefix(recipe, stage))
    return next((name for name in recipe_values(recipe) if place.startswith(f"{name}.")), place[:-1])


def _expected(fault: Mapping[str, Any]) -> str:
    kind = next((text for start, text in _KINDS.items() if fault["type"].startswith(start)), None)
    return kind.format(**fault.get("ctx", {})) if kind else fault["msg"]


def _unknown(name: str, recipe: Recipe, arguments: Mapping[str, Any]) -> RecipeError:
    common = _common_names(recipe) if len(recipe.stages) > 1 else []
    valid = list(dict.fromkeys([*recipe_values(recipe), *common, *(f"{MODEL}{key}" for key in arguments)]))
    near = difflib.get_close_matches(name, valid, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return RecipeError(f"--set {name}: unknown{hint}; valid names are {', '.join(valid)}")


def _prefix(recipe: Recipe, stage: Stage) -> str:
    return "" if len(recipe.stages) == 1 else f"{stage.name}."


def _whole_values(recipe: Recipe) -> dict[str, Any]:
    return {name: value for name, value in asdict(recipe).items() if name not in ("stages", "paper")}


def _common_names(recipe: Recipe) -> list[str]:
    """The stages have the same names, but for arguments of `build`."""
    return [name for name in _stage_values(recipe.stages[0]) if not name.startswith(MODEL)]


def _stage_values(stage: Stage) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in asdict(stage).items():
        prefix = MODEL if name == "arguments" else f"{name}."
        values |= {f"{prefix}{key}": one for key, one in value.items()} if isinstance(value, dict) else {name: value}
    del values["name"]
    return values


def require_possible(recipe: Recipe) -> None:
    """Raise RecipeError for numbers that do not go on_all_ranks."""
    if recipe.input_side == "none" and recipe.input_size:
        raise RecipeError(f"input_side=none with input_size={recipe.input_size}: images stay as they are; expected 0")
    if recipe.input_limit and (recipe.input_side != "short" or recipe.input_limit < recipe.input_size):
        raise RecipeError(
            f"--set input_limit={recipe.input_limit}: of the long side, where input_side is short, and at least "
            f"input_size={recipe.input_size}; 0 for none"
        )
    if recipe.patience and not recipe.evaluate_every:
        raise RecipeError("patience counts evaluations; add --set evaluate_every=N")
    for stage in recipe.stages:
        prefix = _prefix(recipe, stage)
        if stage.augmentation.scale_min > stage.augmentation.scale_max:
            raise RecipeError(f"{prefix}augmentation.scale_min is larger than {prefix}augmentation.scale_max")
        if not isinstance(stage.class_weights, str) and not any(stage.class_weights):
            raise RecipeError(
                f"--set {prefix}class_weights={list(stage.class_weights)}: expected {_EXPECTED['class_weights']}"
            )
        sides = (stage.crop_size,) if isinstance(stage.crop_size, int) else ()
        if any(0 < side < 16 for side in sides):
            raise RecipeError(f"--set {prefix}crop_size={stage.crop_size}: expected at least 16, or 0 for whole images")
        if not stage.crop_size and stage.augmentation.copy_paste:
            raise RecipeError(
                f"{prefix}crop_size=0: whole images have several sizes, which cannot be pasted into each other; add "
                f"--set {prefix}augmentation.copy_paste=0"
            )
        if 0 < recipe.input_limit < max(stage.augmentation.short_sides, default=0):
            raise RecipeError(
                f"{prefix}augmentation.short_sides={list(stage.augmentation.short_sides)}: expected at most "
                f"input_limit={recipe.input_limit}, which the long side may have"
            )
        if stage.schedule == "step" and not stage.milestones:
            raise RecipeError(f"{prefix}schedule=step: expected the steps of a lower rate; add --set milestones=[N,…]")
        if stage.batch_size == 1 and not stage.freeze_batch_norm:
            raise RecipeError(
                f"{prefix}batch_size=1 gives batch norm nothing to average; add --set {prefix}freeze_batch_norm=true"
            )
