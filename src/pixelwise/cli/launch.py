"""Several processes of one command, as `torchrun` and `accelerate launch` start them: only rank 0 prints."""

from __future__ import annotations

import os


def is_first_process() -> bool:
    """Whether this process prints; without a launcher it does."""
    return int(os.environ.get("WORLD_SIZE", "1")) <= 1 or os.environ.get("RANK", "0") == "0"
