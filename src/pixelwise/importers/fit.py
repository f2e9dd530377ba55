"""Find a network's weights among the tensors of a file.

Training scripts put weights inside of other modules and dicts (`module.`, `model.`, `state_dict`, `ema`, attributes of
Lightning's modules), and other tensors beside them. So a file is read in several ways: as a whole, then as the tensors
under each name, the outermost names first. The first reading that fits the network counts.
"""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from pixelwise.errors import CheckpointError
from pixelwise.importers.foreign import (
    ImportedBackbone,
    ImportedModel,
    MisfitError,
    UnknownNetworkError,
    first_of,
    require_finite,
    require_fit,
    surplus,
)
from pixelwise.importers.weights_file import ForeignWeights

WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Parts of names that torch.compile, FSDP and activation checkpointing put in, wherever they stand."""
PARALLEL = "module"
"""The same of DataParallel; but a layer may have this name."""
AVERAGES = frozenset({"ema", "teacher", "momentum", "average", "averaged", "swa"})
"""Words in the names of copies, which come after the weights themselves."""
FEWEST = 10
"""Tensors of the smallest part of a file that is tried."""
DEEPEST = 6
"""Names inside each other below which the weights may lie."""
MOST_READINGS = 150
AUXILIARY = "auxiliary."
"""Where the names of an auxiliary classifier, which training alone uses, begin in our systems."""

Weights = Mapping[str, Tensor]
Imported = TypeVar("Imported", ImportedModel, ImportedBackbone)


def fit(convert: Callable[[Weights], Imported], file: ForeignWeights) -> Imported:
    """Convert the first reading of the file that fits.

    Args:
        convert: raises CheckpointError where the tensors do not fit.
        file: what was read.

    Returns:
        with the names of all tensors of the file that were skipped, and notes on what was taken.

    Raises:
        CheckpointError: no part of the file fits, and what the closest one lacks; or weights are not finite.
    """
    failures: list[CheckpointError] = []
    for beginning, names in _readings(file.tensors):
        weights = {key: file.tensors[name] for key, name in names.items()}
        try:
            found = convert(weights)
        except UnknownNetworkError:
            raise
        except CheckpointError as error:
            failures.append(error)
            continue
        try:
            require_finite(found.weights)
        except CheckpointError:  # by the name in the file, where a conversion leaves the number there as it is
            require_finite({name: weights[key] for key, name in names.items() if key not in found.skipped})
            raise
        taken = set(names.values())
        outside = tuple(name for name in file.tensors if name not in taken)
        notes = _notes(file, beginning, names)
        return replace(found, skipped=(*outside, *found.skipped), notes=(*notes, *found.notes))
    error = min(failures, key=lambda error: getattr(error, "differences", float("inf")))
    is_nested = not set(file.keys) <= set(file.tensors)
    parts = f"; the file holds {first_of(file.keys, 8)}" if is_nested else ""
    names = ", in our names" if isinstance(error, MisfitError) else ""
    raise CheckpointError(f"{error}{names}{parts}")


def model_of(convert: Callable[[Weights], ImportedModel], weights: Weights, *, expected: str) -> ImportedModel:
    """The weights of a whole network, as our system has them.

    A network with one channel, whose sigmoid is the probability of the foreground, gets a channel of zeros before it:
    the softmax of (0, x) is (1 - sigmoid(x), sigmoid(x)), and x is the larger where sigmoid(x) > 0.5. An auxiliary
    classifier that does not fit, as where the main one was replaced, is skipped, and so is what stands beside the
    network (see `foreign.surplus`).

    Args:
        convert: of a family; gives the weights under our keys.
        weights: a reading of a file.
        expected: what the file was said to be, for messages.

    Raises:
        CheckpointError: the tensors are not those of the network.
    """
    try:
        model = _with_two_classes(convert(weights))
        state = _state_of(model)
    # of shapes that no such network has
    except (IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(f"not the weights of {expected}: tensors of other shapes ({reason})") from None
    skipped = surplus(model.weights, state)
    found = {key: tensor for key, tensor in model.weights.items() if key not in skipped}
    if model.arguments.get("auxiliary") and not _fits(_auxiliary(found), _auxiliary(state)):
        skipped += tuple(_auxiliary(found))
        found = {key: tensor for key, tensor in found.items() if not key.startswith(AUXILIARY)}
        state = {key: tensor for key, tensor in state.items() if not key.startswith(AUXILIARY)}
        model = replace(
            model,
            arguments={**model.arguments, "auxiliary": False},
            notes=(*model.notes, "the auxiliary classifier does not fit the main one and is skipped"),
        )
    require_fit(found, state, expected=expected)
    return replace(model, weights=found, skipped=(*model.skipped, *skipped))


def _with_two_classes(model: ImportedModel) -> ImportedModel:
    if model.num_classes != 1 or model.classes is not None:
        return model
    weights = {
        key: torch.cat([torch.zeros_like(tensor), tensor])
        if key.startswith(("classifier.", AUXILIARY)) and tensor.shape[:1] == (1,)
        else tensor
        for key, tensor in model.weights.items()
    }
    note = "one channel with a sigmoid: two classes, the foreground where it is above 0.5"
    return replace(model, weights=weights, notes=(*model.notes, note), is_sigmoid=True)


def _state_of(model: ImportedModel) -> dict[str, Tensor]:
    """The names and shapes of our network, without its numbers."""
    with torch.device("meta"):
        module = importlib.import_module(f"pixelwise.models.{model.system}")
        return module.build(num_classes=model.num_classes, **model.arguments).state_dict()


def _auxiliary(weights: Weights) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in weights.items() if key.startswith(AUXILIARY)}


def _fits(found: Weights, state: Weights) -> bool:
    try:
        require_fit(found, state, expected="")
    except MisfitError:
        return False
    return True


def _readings(tensors: Iterable[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """What the names begin with, and the rest of each with its name in the file.

    First all names as they are, but for what wrappers put into them.
    """
    plain = {_without(WRAPPERS, name): name for name in tensors}
    bare = {_without((PARALLEL,), key): name for key, name in plain.items()}
    variants = [plain] if bare.keys() == plain.keys() else [plain, bare]
    for names in variants:
        yield "", names
    for names in variants:
        for beginning in _beginnings(names)[:MOST_READINGS]:
            yield beginning, _under(beginning, names)


def _beginnings(names: Iterable[str]) -> list[str]:
    """What enough names begin with, up to a dot: the shortest first, and averaged copies last."""
    counts: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        for depth in range(1, min(len(parts), DEEPEST + 1)):
            counts[".".join(parts[:depth]) + "."] += 1
    found = [beginning for beginning, count in counts.items() if count >= FEWEST]
    return sorted(found, key=lambda name: (bool(AVERAGES & set(re.split(r"[._]", name.lower()))), name.count(".")))


def _under(beginning: str, names: Mapping[str, str]) -> dict[str, str]:
    return {key[len(beginning) :]: name for key, name in names.items() if key.startswith(beginning)}


def _without(words: Sequence[str], name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in words)


def _notes(file: ForeignWeights, beginning: str, names: Mapping[str, str]) -> list[str]:
    notes = [f"the tensors under '{beginning.rstrip('.')}' are taken"] if beginning else []
    for other in _beginnings(file.tensors) if beginning else ():
        under = {name.removeprefix(other) for name in file.tensors if name.startswith(other)}
        is_apart = not any(name.startswith(other) for name in names.values())
        if is_apart and under == names.keys():
            notes.append(
                f"those under '{other.rstrip('.')}' have the same names; --part {other.rstrip('.')} takes them"
            )
    if file.others:
        notes.append(f"skipped beside the tensors: {first_of(file.others, 5)}")
    return notes
