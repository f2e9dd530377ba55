"""A command line that is killed with SIGKILL at a chosen moment."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pixelwise.metrics.mean_iou import MeanIoU
from pixelwise.training.run import checkpoint
from pixelwise.training.run.log import Log
from tests.forked import command_line


def kill_on_call(owner: Any, name: str, number: int, last_words: Callable[..., None] | None = None) -> None:
    """Replace a function by one that kills the process at its `number`-th call."""
    original, calls = getattr(owner, name), 0

    def counting(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            if last_words:
                last_words(original, *arguments, **options)
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    setattr(owner, name, counting)


def write_half(save_file: Callable[..., None], tensors: Any, path: Path) -> None:
    save_file(tensors, path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def killed_command_line(moment: str, number: int, *words: str) -> None:
    """Run a command line, and kill this process at a moment of it.

    Args:
        moment: `step`, after the N-th step; `evaluation`, before the N-th image of an evaluation is counted; `write`,
            with half of the N-th file of a training state on the disk; `swap`, before the N-th rename of a finished
            folder.
        number: N.
        words: of the command line.
    """
    if moment == "step":
        kill_on_call(Log, "step", number)
    elif moment == "evaluation":
        kill_on_call(MeanIoU, "update", number)
    elif moment == "write":
        kill_on_call(checkpoint, "save_file", number, write_half)
    elif moment == "swap":
        kill_on_call(Path, "rename", number)
    command_line(*words)
