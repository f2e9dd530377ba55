"""Ctrl-C and SIGTERM as a flag that the loop checks, instead of an exception in the middle of a step."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Self

from pixelwise.training.processes import agreed


class Interruption:
    """A context in which the first SIGINT or SIGTERM is only recorded; a second SIGINT interrupts at once.

    Attributes:
        signal: number of the signal to this process, or None.
        answered: number of the signal for which the run stops, on all ranks.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.answered: int | None = None
        self._former: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._former[number] = signal.signal(number, self._remember)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def asked(self) -> bool:
        """Whether to stop here because one process got a signal; call it on all ranks at the same place."""
        self.answered = agreed(self.signal)
        return self.answered is not None

    @property
    def exit_code(self) -> int | None:
        """130 after Ctrl-C, 143 after SIGTERM, None if the run did not stop for a signal."""
        return None if self.answered is None else 128 + self.answered

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
