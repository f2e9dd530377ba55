"""What a run folder holds."""

from __future__ import annotations

import json
from pathlib import Path


def log_of(run: Path, event: str) -> list[dict]:
    """The lines of one kind of the log, which may not be there yet or end in half a line."""
    path = run / "log.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    events = [json.loads(line) for line in lines if line.endswith("}")]
    return [content for content in events if content["event"] == event]


def weights_of(run: Path) -> dict[str, bytes]:
    """Every weight file: best, last, and the state with optimizer and average."""
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*.safetensors"))}
