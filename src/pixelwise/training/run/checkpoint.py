"""Checkpoints of a fit: safetensors and JSON, each written whole or not at all; the last two are kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
from pydantic import Field, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from pixelwise.errors import CheckpointError, first_fault
from pixelwise.files.atomic import recover_folder, replace_folder
from pixelwise.files.tensors import read_tensors
from pixelwise.files.text import read_json
from pixelwise.training.fit import Fit
from pixelwise.training.optimizer import set_updates

KEPT = 2


class RunProgress(NamedTuple):
    """The progress of a stage's validation.

    Attributes:
        best: the best score of the stage, or None.
        evaluated: the stage's step of the last evaluation; 0 for none.
        stale: evaluations since the best.
        offset: steps of the stages before.
    """

    best: float | None = None
    evaluated: int = 0
    stale: int = 0
    offset: int = 0


class _State(NamedTuple):
    """The content of state.json."""

    step: Annotated[int, Field(ge=0)]
    progress: RunProgress


def save_state(folder: Path, fitting: Fit, progress: RunProgress) -> None:
    """Write `folder/step-N`, then remove all but the last two.

    Args:
        folder: of the states, such as `runs/psp/state`.
        fitting: where it stands.
        progress: of the caller, returned by `load_state`.

    Raises:
        CheckpointError: the disk is full or not writable; earlier states are untouched.
    """

    def fill(new: Path) -> None:
        save_file(_contiguous(fitting.system.state_dict()), new / "network.safetensors")
        save_file(_contiguous(_optimizer_tensors(fitting)), new / "optimizer.safetensors")
        if fitting.average:
            save_file(_contiguous(fitting.average.module.state_dict()), new / "average.safetensors")
        content = {"step": fitting.step, "progress": progress._asdict()}
        (new / "state.json").write_text(json.dumps(content, indent=1), encoding="utf-8")

    try:
        replace_folder(folder / f"step-{fitting.step:08}", fill)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder}: the training state cannot be written ({error}); the one before is complete: free some room "
            "and resume"
        ) from error
    for old in _states(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def load_state(folder: Path, fitting: Fit) -> RunProgress | None:
    """Continue from the newest state, once `recover_states` was called.

    Returns:
        the caller's progress, or None without a saved state; then `fitting` is unchanged.

    Raises:
        CheckpointError: a state is damaged or belongs to another network.
    """
    states = _states(folder)
    if not states:
        return None
    newest = states[-1]
    try:
        content = TypeAdapter(_State).validate_python(read_json(newest / "state.json", error=CheckpointError))
        fitting.system.load_state_dict(_tensors(newest, "network"))
        _load_optimizer(fitting, _tensors(newest, "optimizer"))
        fitting.step = content.step
        if fitting.average:
            fitting.average.module.load_state_dict(_tensors(newest, "average"))
            set_updates(fitting.average, fitting.step)
    except (CheckpointError, ValidationError, RuntimeError) as error:
        fault = first_fault(error) if isinstance(error, ValidationError) else str(error).splitlines()[0]
        raise CheckpointError(
            f"{newest}: this training state cannot be used ({fault}); remove it to continue from the one before"
        ) from None
    return content.progress


def recover_states(folder: Path) -> bool:
    """Finish an interrupted write, for the process that writes; tell whether there is a state."""
    for leftover in folder.glob(".step-*"):
        recover_folder(folder / leftover.name[1:].rsplit(".", 1)[0])
    return bool(_states(folder))


def _states(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if (path / "state.json").is_file())


def _optimizer_tensors(fitting: Fit) -> dict[str, Tensor]:
    """The state of each parameter as `STATE:PARAMETER`, by the network's own names."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in fitting.system.named_parameters():
        for key, value in fitting.optimizer.state.get(parameter, {}).items():
            if value is not None:
                tensors[f"{key}:{name}"] = torch.as_tensor(value)
    return tensors


def _load_optimizer(fitting: Fit, tensors: dict[str, Tensor]) -> None:
    """Fill the state of the optimizer. Raises CheckpointError where a parameter has another state, or only a part."""
    parameters = dict(fitting.system.named_parameters())
    state = fitting.optimizer.state
    state.clear()
    for place, value in tensors.items():
        key, _, name = place.partition(":")
        if name not in parameters or value.shape not in ((), parameters[name].shape):
            raise CheckpointError(f"optimizer.safetensors: '{place}' of {tuple(value.shape)} is of no parameter")
        parameter = parameters[name]
        # in the parameter's own memory layout, so that the next step sums in the same order
        layout = (
            torch.empty_like(parameter, dtype=value.dtype)
            if value.shape == parameter.shape
            else torch.empty_like(value)
        )
        state[parameter][key] = layout.copy_(value)
    kinds = {frozenset(one) for one in state.values()}
    if len(kinds) > 1:
        raise CheckpointError(f"optimizer.safetensors: some parameters have less than {', '.join(max(kinds, key=len))}")


def _tensors(state: Path, name: str) -> dict[str, Tensor]:
    return read_tensors(state / f"{name}.safetensors")


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
