"""Read many files one after the other or by several processes, with an optional progress bar."""

from __future__ import annotations

import atexit
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader

Item = TypeVar("Item")
Result = TypeVar("Result")


class Progress(Protocol):
    """Passes items through and may show their number."""

    def __call__(self, items: Iterable[Item], *, total: int, what: str) -> Iterable[Item]:
        """The same items.

        Args:
            items: what is worked through.
            total: how many there will be.
            what: the name of the work, such as `train`.
        """
        ...


def silent(items: Iterable[Item], *, total: int, what: str) -> Iterable[Item]:  # noqa: ARG001
    """A Progress that shows nothing."""
    return items


def apply(function: Callable[[Item], Result], items: Sequence[Item], *, workers: int) -> Iterator[Result]:
    """`function` of each item, in their order.

    Args:
        function: of a module or a `functools.partial` of one, so that it can be sent to another process.
        items: what it is called with.
        workers: how many processes call it; 0 calls it in this one.
    """
    if not items:
        return
    loader = DataLoader(
        _Applied(function, items),  # pyright: ignore[reportArgumentType]
        batch_size=None,
        num_workers=workers,
        collate_fn=_unchanged,
        worker_init_fn=prepare_reader if workers else None,
        multiprocessing_context=reader_start_method() if workers else None,
    )
    yield from loader


def prepare_reader(_worker: int) -> None:
    """For a reading process: Ctrl-C and SIGTERM reach the whole group, and only the parent answers them.

    The parent ends its readers itself (see `_end_readers`), and they end by themselves when it is gone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    torch.set_num_threads(1)


@atexit.register
def _end_readers() -> None:
    """End the reading processes that an error left behind: Python would ask them by SIGTERM, and wait for ever."""
    readers = [process for process in multiprocessing.active_children() if process.daemon]
    if readers and hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch raises an error when one of its readers is killed
    for process in readers:
        process.kill()


def reader_start_method() -> str | None:
    """`fork` where it is safe, since it starts at once; None for Python's own choice."""
    return "fork" if sys.platform == "linux" else None


class _Applied:
    """The results as a map-style data set, which is what torch's loader spreads over processes."""

    def __init__(self, function: Callable[[Any], Any], items: Sequence[Any]) -> None:
        self.function = function
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.function(self.items[index])


def _unchanged(value: Any) -> Any:
    return value
