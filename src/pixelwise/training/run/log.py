"""log.jsonl: a line for each step and each evaluation of a run, and for a stage that ends early."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixelwise.errors import CheckpointError
from pixelwise.files.atomic import write_file
from pixelwise.files.text import parse_json, read_lines
from pixelwise.training.fit import Step


class Log:
    """log.jsonl, to which lines are added; lines after the state that a run resumes from are dropped first.

    Args:
        path: of the file.
        keep_steps: the last step whose line is kept.
        keep_evaluation: the last evaluation whose line is kept.

    Raises:
        CheckpointError: the file is no text, or has lines that are no events.
    """

    def __init__(self, path: Path, *, keep_steps: int, keep_evaluation: int) -> None:
        self.path = path
        kept: list[str] = []
        for number, line in enumerate(read_lines(path, error=CheckpointError) if path.exists() else (), start=1):
            try:
                content = parse_json(line, source=f"{path}: line {number}", error=CheckpointError)
            except CheckpointError:  # incomplete after a kill
                continue
            is_event = isinstance(content, dict) and {"event", "step"} <= content.keys()
            if not is_event or not isinstance(content["step"], int):
                raise CheckpointError(f"{path}: line {number} is not a line of pixelwise; remove it to resume")
            if content["step"] <= (keep_steps if content["event"] == "step" else keep_evaluation):
                kept.append(line)
        write_file(path, "".join(f"{line}\n" for line in kept))

    def step(self, step: Step, *, seconds: float) -> None:
        """Add the line of a step, numbered from the start of the run."""
        self._add(
            {
                "event": "step",
                "step": step.number,
                "loss": step.loss,
                "terms": step.terms,
                "lr": step.lr,
                "gradient_norm": step.gradient_norm,
                "images_per_second": step.images / seconds,
            }
        )

    def evaluation(self, step: int, metrics: Mapping[str, Any], *, seconds: float) -> None:
        """Add the line of an evaluation."""
        self._add({"event": "evaluation", "step": step, "metrics": dict(metrics), "seconds": seconds})

    def early_end(self, step: int, *, evaluations: int) -> None:
        """Add the line of a stage that ends early, after evaluations without a better score."""
        self._add({"event": "early_end", "step": step, "evaluations_without_better_score": evaluations})

    def _add(self, content: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(content, ensure_ascii=False) + "\n")
