"""The state of a fit on disk: safetensors and JSON, each state whole or not there, the last two kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pixelwise.errors import CheckpointError
from pixelwise.files.atomic import recover_folder, replace_folder
from pixelwise.files.text import read_json
from pixelwise.training.fit import Fit

KEPT = 2


def save_state(folder: Path, fitting: Fit, progress: dict[str, Any]) -> None:
    """Write `folder/step-N`, then remove all but the last two.

    Args:
        folder: of the states, such as `runs/psp/state`.
        fitting: where it stands.
        progress: JSON values that the caller wants back.

    Raises:
        CheckpointError: the disk is full or not writable; earlier states are untouched.
    """

    def fill(new: Path) -> None:
        save_file(_contiguous(fitting.system.state_dict()), new / "network.safetensors")
        save_file(_contiguous(_optimizer_tensors(fitting)), new / "optimizer.safetensors")
        if fitting.average:
            save_file(_contiguous(fitting.average.tensors), new / "average.safetensors")
        content = {"step": fitting.step, "progress": progress}
        (new / "state.json").write_text(json.dumps(content, indent=1), encoding="utf-8")

    try:
        replace_folder(folder / f"step-{fitting.step:08}", fill)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder}: the training state cannot be written ({error}); the one before it is whole: free some room and "
            "resume"
        ) from error
    for old in _states(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def load_state(folder: Path, fitting: Fit) -> dict[str, Any] | None:
    """Continue from the newest state, once `recover_states` was called.

    Returns:
        the caller's progress, or None where nothing was ever saved; then `fitting` is as it was.

    Raises:
        CheckpointError: a state is damaged or belongs to another network.
    """
    states = _states(folder)
    if not states:
        return None
    newest = states[-1]
    try:
        content = read_json(newest / "state.json", error=CheckpointError)
        fitting.system.load_state_dict(load_file(newest / "network.safetensors"))
        _load_optimizer(fitting, load_file(newest / "optimizer.safetensors"))
        if fitting.average:
            _copy_into(fitting.average.tensors, load_file(newest / "average.safetensors"))
        fitting.step, progress = int(content["step"]), dict(content["progress"])
    except (
        CheckpointError,
        OSError,
        SafetensorError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        RuntimeError,
    ) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{newest}: this training state cannot be used ({first_line}); remove it to go on from the one before"
        ) from None
    return progress


def recover_states(folder: Path) -> bool:
    """Finish a write that was interrupted, for the process that writes; says whether there is a state."""
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
    parameters = dict(fitting.system.named_parameters())
    state = fitting.optimizer.state
    state.clear()
    for place, value in tensors.items():
        key, _, name = place.partition(":")
        parameter = parameters[name]
        # in the parameter's own memory layout, so that the next step adds up in the same order
        layout = (
            torch.empty_like(parameter, dtype=value.dtype)
            if value.shape == parameter.shape
            else torch.empty_like(value)
        )
        state[parameter][key] = layout.copy_(value)


def _copy_into(target: dict[str, Tensor], source: dict[str, Tensor]) -> None:
    if target.keys() != source.keys():
        raise KeyError("the averaged weights have other names")
    for key, value in source.items():
        target[key].copy_(value)


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
