"""Many files read one after the other, or by several processes, with or without a bar that shows how far."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from torch.utils.data import DataLoader

Item = TypeVar("Item")
Result = TypeVar("Result")


class Progress(Protocol):
    """Passes items through and may show how many have come."""

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
    loader = DataLoader(_Applied(function, items), batch_size=None, num_workers=workers, collate_fn=_unchanged)  # pyright: ignore[reportArgumentType]
    yield from loader


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
