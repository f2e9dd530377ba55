"""Safe printing to a terminal: names of files and classes may hold control characters."""

from __future__ import annotations

import builtins
import re
from typing import TextIO

LONGEST_LINE = 4000
"""Number of characters of a line that are printed."""
LONGEST_CELL = 200
"""Number of characters of a name in a table."""

# C0, DEL and C1; line separators and directions of Unicode, which move what stands around them; bytes that are no text
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with control characters written as `\\u001b`, as JSON does it, so that JSON stays JSON."""
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def print(text: str, *, whole: bool = False, file: TextIO | None = None, flush: bool = False) -> None:
    """Print one line in printable characters. All commands print by this function.

    Args:
        text: the line, cut after `LONGEST_LINE` characters.
        whole: do not cut, for JSON.
        file: stdout unless it is given.
        flush: flush at once.
    """
    text = printable(text)
    if not whole and len(text) > LONGEST_LINE:
        text = f"{text[:LONGEST_LINE]}… ({len(text) - LONGEST_LINE:,} more characters)"
    builtins.print(text, file=file, flush=flush)


def cell(text: str) -> str:
    """The text for a cell of a table: in printable characters, and not too long."""
    text = printable(text)
    return text if len(text) <= LONGEST_CELL else f"{text[:LONGEST_CELL]}…"
