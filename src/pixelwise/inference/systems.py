"""Find a system by its name: a file of `pixelwise.models`, or a module of another package.

Another package names its module in the entry points of the group `pixelwise.models`:

    [project.entry-points."pixelwise.models"]
    tiny_net = "tiny_net.system"

The module has the same contents as a file of `pixelwise.models`; see `pixelwise.contracts` and the page on the Python
API.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import warnings
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError
from torch import nn

import pixelwise.models
from pixelwise.contracts import SystemFile
from pixelwise.errors import CheckpointError, PixelwiseError, RecipeError, first_fault

GROUP = "pixelwise.models"
"""The group of entry points of other packages; an entry has the name of the system."""

_OFFERED = ("TASK", "TRAITS", "VARIANTS", "RECIPE", "RECIPES", "PUBLISHED", "build")


def system_names() -> list[str]:
    """The systems that can be built: the files under `models/`, then those of other packages. None is imported."""
    own = _own_names()
    return [*own, *sorted({point.name for point in entry_points(group=GROUP)} - set(own))]


def system_module(name: str) -> SystemFile:
    """The module of a system; a file under `models/` takes precedence over an entry point of that name.

    Raises:
        CheckpointError: no such system (lists those there are), or one of another package that cannot be imported,
            lacks a part, or has the name of another package's.
    """
    if name in _own_names():
        return cast("SystemFile", importlib.import_module(f"pixelwise.models.{name}"))
    points = list(entry_points(group=GROUP, name=name))
    if not points:
        raise CheckpointError(
            f"there is no system '{name}'; there are: {', '.join(system_names())}; "
            f"if another package brings it by an entry point of the group {GROUP}, install that package"
        )
    if len(points) > 1:
        raise CheckpointError(f"{' and '.join(sorted(map(_origin, points)))}: one name twice; uninstall one of them")
    return _loaded(points[0])


def build_system(name: str, *, num_classes: int, arguments: Mapping[str, Any]) -> nn.Module:
    """A system with random weights.

    Args:
        name: of the system.
        num_classes: of the label set.
        arguments: of its `build`, JSON values.

    Raises:
        CheckpointError: there is no such system.
        RecipeError: its `build` has no such argument, takes another type, or cannot make a network of them.
    """
    build = system_module(name).build
    parameters = inspect.signature(build, eval_str=True).parameters
    for argument, value in arguments.items():
        stated = f"{name} cannot be built with {argument}={shortened(repr(value))}"
        if argument not in parameters or argument == "num_classes":
            raise RecipeError(f"{stated}: it has no such argument; see pixelwise models {name}")
        kind = parameters[argument].annotation
        if kind is not inspect.Parameter.empty:
            try:
                TypeAdapter(kind).validate_python(value, strict=True)
            except ValidationError as error:
                raise RecipeError(f"{stated}: {first_fault(error)}") from None
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Initializing zero-element tensors")  # a width of 0
            return build(num_classes=num_classes, **arguments)
    except PixelwiseError:
        raise
    except Exception as error:  # torch, torchvision and timm raise any exception for impossible layers
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RecipeError(
            f"{name} cannot be built with {shortened(str(dict(arguments)))}: {shortened(reason)}"
        ) from None


def shortened(text: str, limit: int = 600) -> str:
    """The text, cut where it is longer."""
    return text if len(text) <= limit else f"{text[:limit]} …"


def _own_names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(pixelwise.models.__path__))


def _loaded(point: EntryPoint) -> SystemFile:
    try:
        module = point.load()
    except Exception as error:  # another package's code may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{_origin(point)} cannot be imported ({reason}); repair or uninstall it") from error
    missing = [part for part in _OFFERED if not hasattr(module, part)]
    if missing:
        raise CheckpointError(f"{_origin(point)} has no {', '.join(missing)}; expected {', '.join(_OFFERED)}")
    return cast("SystemFile", module)


def _origin(point: EntryPoint) -> str:
    package = point.dist.name if point.dist else "a package"
    return f"system '{point.name}' of {package} ({point.value})"
