"""Distributed training on all ranks that `torchrun` or `accelerate launch` start; a single process is the usual case.

All ranks make each of these calls in the same order, so that all handle a signal or a fault of one at the same place.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pixelwise.errors import PixelwiseError

Result = TypeVar("Result")

LONGEST_WAIT = timedelta(hours=3)
"""Time limit of waiting for other ranks, such as while rank 0 counts classes."""


@contextmanager
def joined_processes(device: str) -> Iterator[None]:
    """A context in which the launched processes form one group.

    Args:
        device: `cpu` or `cuda`; each process takes its own GPU.
    """
    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if launched:
        PartialState(cpu=device == "cpu", timeout=LONGEST_WAIT)
    try:
        yield
    finally:
        if launched and dist.is_initialized():
            dist.destroy_process_group()


def new_accelerator(device: str, precision: str) -> Accelerator:
    """Devices and precision of this process.

    Accelerate keeps one precision for a whole process; it is reset first, so that the next run may have another.

    Args:
        device: `cpu` or `cuda`.
        precision: `float32` or `bfloat16` (in forward).
    """
    AcceleratorState._reset_state(reset_partial_state=process_count() == 1)
    return Accelerator(cpu=device == "cpu", mixed_precision="bf16" if precision == "bfloat16" else "no")


def process_count() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def process_rank() -> int:
    """Rank of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def gathered(value: Any) -> list[Any]:
    """The values of all ranks, in order."""
    values = [value] * process_count()
    if process_count() > 1:
        dist.all_gather_object(values, value)
    return values


def on_all_ranks(work: Callable[[], Result]) -> Result:
    """Run the work on every rank; where one raises a PixelwiseError, all raise it."""
    if process_count() == 1:
        return work()
    result: Any = None
    error: PixelwiseError | None = None
    try:
        result = work()
    except PixelwiseError as fault:
        error = fault
    if _largest(int(error is not None)):
        first = next(fault for fault in gathered(error) if fault is not None)
        raise error or first
    return result


def on_first_rank(work: Callable[[], Result]) -> Result:
    """Run the work on rank 0 and return its result on all ranks."""
    result = on_all_ranks(lambda: work() if process_rank() == 0 else None)
    return gathered(result)[0]


def agreed(number: int | None) -> int | None:
    """The largest number of all ranks, or None if none has one."""
    return number if process_count() == 1 else (_largest(number or 0) or None)


def copy_from_first(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors by those of rank 0."""
    if process_count() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def wrapped(system: nn.Module, device: torch.device) -> nn.Module:
    """Wrap the system so that gradients are averaged over all ranks."""
    if process_count() == 1:
        return system
    return DistributedDataParallel(system, device_ids=[device] if device.type == "cuda" else None)


def _largest(number: int) -> int:
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    tensor = torch.tensor(number, device=device)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return int(tensor)
