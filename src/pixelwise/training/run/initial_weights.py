"""Where the weights of a network begin: at random, with `--init`, or with those of the stage before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pixelwise.contracts import Stage, as_system
from pixelwise.errors import CheckpointError, RecipeError
from pixelwise.inference.load import find_model, shipped_models
from pixelwise.inference.model_folder import ModelCard, read_model
from pixelwise.inference.systems import system_module
from pixelwise.labels import LabelSet
from pixelwise.nn.backbone import Backbone
from pixelwise.nn.backbones import load_backbone
from pixelwise.nn.flow import RAFTFlow, load_flow
from pixelwise.training.run.plan import Plan

DOWNLOADS = ("torchvision", "timm")
BACKBONE_NAME = "backbone.safetensors"
"""The file in a folder that `pixelwise import` made of a classifier's weights."""


def new_system(plan: Plan, stage: Stage, *, classes: int) -> nn.Module:
    """The network of a stage, with random weights that depend on the plan's seed alone."""
    torch.manual_seed(plan.recipe.seed)
    return _build(plan.system, plan.arguments_of(stage), classes)


def check_init(init: str) -> str:
    """What `--init` names: a download, a shipped model, or an absolute path.

    Raises:
        CheckpointError: nothing is there.
    """
    if init in DOWNLOADS or init == "default" or init in shipped_models():
        return init
    if not Path(init).exists():
        shipped = ", ".join(shipped_models())
        raise CheckpointError(
            f"--init {init}: no such file or folder; a backbone file, a run, a shipped model ({shipped}), torchvision "
            "or timm is wanted"
        )
    inside = Path(init) / BACKBONE_NAME
    return str((inside if inside.is_file() else Path(init)).absolute())


def initialise(system: nn.Module, plan: Plan, stage: Stage, labels: LabelSet) -> str:
    """Fill a new system with the weights that the plan begins from.

    `torchvision`, `timm` or a file fills the backbone, `torchvision` the optical flow of a video system too. A run, a
    model folder or a shipped model fills everything whose name and shape agree, but nothing that belongs to classes
    where the classes differ.

    Args:
        system: of `new_system`.
        plan: whose `init` is meant.
        stage: the first.
        labels: of the data.

    Returns:
        a line that says what was not filled, or nothing.

    Raises:
        CheckpointError: nothing there, or it does not fit; names the first differences.
    """
    source = str(plan.init)
    if source in DOWNLOADS or Path(source).is_file():
        backbone = as_system(system).backbone
        if not isinstance(backbone, Backbone):
            raise RecipeError(f"--init {source}: {plan.system} has no backbone to fill")
        place: Any = source if source in DOWNLOADS else Path(source)
        load_backbone(backbone, str(plan.arguments_of(stage).get("backbone")), place)
        for part in system.modules() if source == "torchvision" else ():
            if isinstance(part, RAFTFlow):
                load_flow(part, "torchvision")
        return ""
    module, card = read_model(find_model(source))
    wanted, found = system.state_dict(), module.state_dict()
    same_classes = card.labels.names == labels.names
    of_classes = set() if same_classes else set(class_tensors(card))
    # a backbone may lie deeper, as that of a tower
    there, here = _place_of_backbone(module), _place_of_backbone(system)
    found = {here + key.removeprefix(there) if key.startswith(there) else key: value for key, value in found.items()}
    fitting = {
        key: value
        for key, value in found.items()
        if key in wanted and wanted[key].shape == value.shape and key not in of_classes
    }
    of_backbone = [key for key in wanted if key.startswith(here)]
    has_backbone = card.system != plan.system and bool(of_backbone) and all(key in fitting for key in of_backbone)
    if len(fitting) < len(wanted) // 2 and not has_backbone:
        strange = next(key for key in wanted if key not in fitting)
        raise CheckpointError(
            f"--init {source}: a {card.system}, not a {plan.system} with these arguments; no '{strange}'"
            f"{_other_arguments(plan, stage, card)}"
        )
    system.load_state_dict(fitting, strict=False)
    left_out = [key for key in wanted if key not in fitting]
    if not left_out:
        return ""
    why = "" if same_classes else f"; its classes are others ({_classes(card.labels)}, here {_classes(labels)})"
    return f"--init {source}: {_listed(left_out)} begin anew{why}"


def carry_over(system: nn.Module, weights: Mapping[str, Tensor]) -> str:
    """Fill a new system with all weights of the stage before that fit by name and shape.

    Returns:
        a line that says what was not filled and what is used no more, or nothing.
    """
    wanted = system.state_dict()
    fitting = {key: value for key, value in weights.items() if key in wanted and wanted[key].shape == value.shape}
    system.load_state_dict(fitting, strict=False)
    new = [key for key in wanted if key not in fitting]
    old = [key for key in weights if key not in wanted]
    parts = ((new, "begin anew"), (old, "are used no more"))
    return "; ".join(f"{_listed(names)} {what}" for names, what in parts if names)


def _place_of_backbone(network: nn.Module) -> str:
    """What the names of the backbone's tensors begin with."""
    backbone = as_system(network).backbone
    return next((f"{name}." for name, part in network.named_modules() if part is backbone), "backbone.")


def _build(system: str, arguments: Mapping[str, Any], classes: int) -> nn.Module:
    try:
        return system_module(system).build(num_classes=classes, **arguments)
    # an argument of another kind, one that build does not have, or a width that a layer cannot have
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise RecipeError(f"{system} cannot be built with {dict(arguments)}: {error}") from None


def class_tensors(card: ModelCard) -> list[str]:
    """The tensors of a model whose shape follows from the number of classes: with one more, they are others."""
    count = len(card.labels)
    with torch.device("meta"):
        shapes, others = (
            {key: value.shape for key, value in _build(card.system, card.arguments, classes).state_dict().items()}
            for classes in (count, count + 1)
        )
    return [key for key, shape in shapes.items() if others[key] != shape]


def _other_arguments(plan: Plan, stage: Stage, card: ModelCard) -> str:
    here = plan.arguments_of(stage)
    if card.system != plan.system:
        return ""
    others = [f"{key}={value}" for key, value in card.arguments.items() if key in here and here[key] != value]
    return f"; it was built with {', '.join(others)}" if others else ""


def _classes(labels: LabelSet) -> str:
    return f"{len(labels)} of '{labels.name}'"


def _listed(names: Sequence[str], limit: int = 3) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
