"""The state of writing a video, and the model's memory of its frames, in a file beside the video.

It is a safetensors file: tensors, and JSON in its metadata. No pickle is written or read.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pixelwise.errors import DataError
from pixelwise.files.atomic import write_file
from pixelwise.files.text import parse_json
from pixelwise.inference.video.tracking import TrackingMemory


class ClipProgress(BaseModel, frozen=True):
    """The part of a clip that is written.

    Attributes:
        identity: values that must agree for a run to continue: clip, model and options.
        frames: number of frames.
        time: of the last frame, in units of the clip's time base; None before the first.
        video_bytes: length of these frames in the fragmented video.
        fragments: their number.
        lines_bytes: length of these frames in the file of lines.
        joined_bytes: length of the ordinary video that is made at the end; None before that.
        failure: why the clip ended early; empty if it did not.
        tracking: the tracker's memory, if there is one.
    """

    identity: dict[str, Any]
    frames: int = Field(default=0, ge=0)
    time: int | None = None
    video_bytes: int = Field(default=0, ge=0)
    fragments: int = Field(default=0, ge=0)
    lines_bytes: int = Field(default=0, ge=0)
    joined_bytes: int | None = None
    failure: str = ""
    tracking: dict[str, Any] | None = None


@dataclass(frozen=True)
class ClipMemory:
    """The memory of a clip for its next frame.

    Attributes:
        model: of `Predictor.annotate_frame`.
        tracking: of `tracking.track`.
    """

    model: Any = None
    tracking: TrackingMemory | None = None


def write_state(path: Path, progress: ClipProgress, memory: ClipMemory) -> None:
    """Replace the file; a kill leaves the old one or the new one. Raises OSError where it cannot be written."""
    tensors: dict[str, Tensor] = {}
    tracking = None if memory.tracking is None else memory.tracking.to_json()
    content = progress.model_copy(update={"tracking": tracking}).model_dump_json()
    head = {"progress": content, "memory": json.dumps(_packed(memory.model, tensors))}
    write_file(path, save(tensors, metadata=head))  # the errors of `save_file` are no OSError


def read_state(path: Path, device: torch.device) -> tuple[ClipProgress, ClipMemory] | None:
    """Read the state, tensors on the device; None without a file.

    Raises:
        DataError: not a file of such a state.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            head = file.metadata()
            progress = ClipProgress.model_validate_json(head["progress"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            model = _unpacked(parse_json(head["memory"], source=path), tensors)
        tracking = None if progress.tracking is None else TrackingMemory.from_json(progress.tracking)
    # ValueError is pydantic's too; the others are for values of wrong types
    except (SafetensorError, OSError, DataError, ValueError, LookupError, TypeError, ImportError, AttributeError):
        raise DataError(f"{path}: not the state of a video that was begun; remove it, or use --overwrite") from None
    return progress, ClipMemory(model, tracking)


def _packed(value: Any, tensors: dict[str, Tensor]) -> Any:
    """JSON values for a tree of NamedTuples, tuples and plain values, whose tensors are put into `tensors`."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous().clone()  # safetensors refuses parts of one tensor
        is_last = value.ndim == 4 and value.is_contiguous(memory_format=torch.channels_last)
        return {"tensor": name, "channels_last": is_last}
    if isinstance(value, tuple):
        parts = [_packed(part, tensors) for part in value]
        if not hasattr(value, "_fields"):
            return {"tuple": parts}
        return {"type": [type(value).__module__, type(value).__qualname__], "parts": parts}
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    raise TypeError(f"a memory with a {type(value).__name__}; expected NamedTuples of tensors")


def _unpacked(packed: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `_packed`; of the types only NamedTuples of this package are made."""
    if "tensor" in packed:
        tensor = tensors[packed["tensor"]]
        return tensor.contiguous(memory_format=torch.channels_last) if packed["channels_last"] else tensor
    if "value" in packed:
        return packed["value"]
    if "tuple" in packed:
        return tuple(_unpacked(part, tensors) for part in packed["tuple"])
    module, name = packed["type"]
    if module.partition(".")[0] != __name__.partition(".")[0]:
        raise ValueError(module)
    kind = getattr(importlib.import_module(module), name)
    if not (isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")):
        raise TypeError(name)
    return kind(*(_unpacked(part, tensors) for part in packed["parts"]))
