"""The names of the classes in a pickle, read without executing it."""

from __future__ import annotations

import pickletools
from typing import IO

_LEGACY_PARTS = 4
"""Pickles in a file of torch.save before zip archives: magic number, version, machine, content."""
_HARMLESS = (
    "torch.",
    "torch._utils.",
    "torch.storage.",
    "torch.serialization.",
    "torch.nn.parameter.",
    "collections.",
    "builtins.",
    "__builtin__.",
    "copyreg.",
    "copy_reg.",
    "_codecs.",
)
"""Modules whose own names a pickle of tensors may hold."""
_OF_ARRAYS = ("_reconstruct", "dtype")
"""Names that stand in a pickle of NumPy arrays beside `ndarray`."""


def pickled_names(file: IO[bytes]) -> list[str]:
    """The classes and functions in a pickle, or in the pickles that follow each other, besides those of tensors.

    Nothing is imported or called. Of damaged pickles those that stand before the damage are named.

    Args:
        file: at the beginning of a pickle, of whatever protocol.

    Returns:
        full names such as `argparse.Namespace`, in their order, each once.
    """
    names: dict[str, None] = {}
    try:
        for _ in range(_LEGACY_PARTS):
            for name in _globals(file):
                names[name] = None
    # damaged bytes may raise any error in pickletools
    except Exception:
        pass
    return [name for name in names if not _is_harmless(name)]


def _globals(file: IO[bytes]) -> list[str]:
    found: list[str] = []
    strings: list[str] = []
    stored: dict[int, str] = {}
    pushed = None
    for opcode, argument, _ in pickletools.genops(file):
        name = opcode.name
        if name in ("GLOBAL", "INST"):
            found.append(str(argument).replace(" ", "."))
        elif name == "STACK_GLOBAL":
            found.append(".".join(strings[-2:]))
        elif name == "MEMOIZE":
            stored[len(stored)] = pushed or ""
            continue
        elif name in ("PUT", "BINPUT", "LONG_BINPUT") and isinstance(argument, int):
            stored[argument] = pushed or ""
            continue
        elif name in ("GET", "BINGET", "LONG_BINGET") and isinstance(argument, int):
            argument = stored.get(argument)
        pushed = argument if isinstance(argument, str) else None
        if pushed is not None:
            strings = [*strings[-1:], pushed]
    return found


def _is_harmless(name: str) -> bool:
    module, _, last = name.rpartition(".")
    return f"{module}." in _HARMLESS or (module.startswith("numpy") and last in _OF_ARRAYS)
