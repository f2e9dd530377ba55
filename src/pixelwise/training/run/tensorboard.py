"""Losses, rates and scores for TensorBoard."""

from __future__ import annotations

from pathlib import Path

from pixelwise.errors import RecipeError
from pixelwise.training.fit import Step
from pixelwise.training.run.run import Event
from pixelwise.training.run.validation import Evaluated


class Board:
    """A TensorBoard event file of a run.

    Args:
        folder: of the event files.

    Raises:
        RecipeError: the extra is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise RecipeError("--tensorboard: pip install 'pixelwise[track]' first") from None
        self.writer = SummaryWriter(str(folder))

    def add(self, event: Event) -> None:
        """Write a step's loss and rate, or an evaluation's means."""
        if isinstance(event, Step):
            self.writer.add_scalar("loss/total", event.loss, event.number)
            self.writer.add_scalar("lr", event.lr, event.number)
            for name, value in event.terms.items():
                self.writer.add_scalar(f"loss/{name}", value, event.number)
        elif isinstance(event, Evaluated):
            for name, value in event.metrics.items():
                if isinstance(value, float):
                    self.writer.add_scalar(f"val/{name}", value, event.step)
            self.writer.flush()
