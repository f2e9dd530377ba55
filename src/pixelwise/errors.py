"""Errors on the user's side, as exceptions whose text is one line that tells how to repair it; and words for messages.

The command line prints the text and no traceback. Anything else that escapes is a bug of ours.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class PixelwiseError(Exception):
    """Base of every error that bad input, bad options or bad files cause."""


class DataError(PixelwiseError):
    """An image, a mask, an annotation or a data set is invalid. Names the file and the id."""


class RecipeError(PixelwiseError):
    """An option or a recipe value is unknown or impossible. Names the valid ones."""


class CheckpointError(PixelwiseError):
    """A model folder, a weight file or a training state cannot be used. Names the file and what differs."""


def first_fault(error: ValidationError) -> str:
    """The first fault that pydantic found, as `PLACE: what is expected`."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]


def count(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun: `1 image`, `1,204 images`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def in_words(text: str, number: int) -> str:
    """A line about a number of things: `{}` stands for the number, `[one|many]` for the word that fits it."""
    chosen = re.sub(r"\[([^|\]]*)\|([^\]]*)\]", lambda found: found[1 if number == 1 else 2], text)
    return chosen.format(f"{number:,}")
