"""Reading safetensors files."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pixelwise.errors import CheckpointError
from pixelwise.files.content import Kind, content_of


def read_tensors(path: Path, *, advice: str = "copy it again") -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name.

    Args:
        path: the file.
        advice: what to do about one that is damaged or something else.

    Raises:
        CheckpointError: it cannot be read, is not whole, or is no such file; says what it is.
    """
    try:
        content = content_of(path)
        if content.kind is not Kind.SAFETENSORS:
            raise CheckpointError(f"{path}: expected a safetensors file, but this is {content.words}; {advice}")
        return load_file(path)
    except OSError as error:
        raise CheckpointError(f"{path}: {(error.strerror or str(error)).lower()}; {advice}") from None
    # what a damaged header makes it raise, besides its own
    except (
        SafetensorError,
        ArithmeticError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        reason = " ".join(str(error).split())
        size = path.stat().st_size
        raise CheckpointError(f"{path}: not a whole safetensors file ({reason}; {size:,} bytes); {advice}") from None
