"""log.jsonl: a line for each step and each evaluation of a run, and for a stage that ends early."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixelwise.training.fit import Step


class Log:
    """log.jsonl, to which lines are added; lines after the state that a run resumes from are dropped first.

    Args:
        path: of the file.
        keep_steps: the last step whose line stays.
        keep_evaluation: the last evaluation whose line stays.
    """

    def __init__(self, path: Path, *, keep_steps: int, keep_evaluation: int) -> None:
        self.path = path
        kept: list[str] = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                content = json.loads(line)
            except ValueError:  # torn by a kill
                continue
            limit = keep_steps if content["event"] == "step" else keep_evaluation
            if content["step"] <= limit:
                kept.append(line)
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        temporary.replace(path)

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
        """Add the line of a stage that ends before its steps are made, after evaluations without a better score."""
        self._add({"event": "early_end", "step": step, "evaluations_without_better_score": evaluations})

    def _add(self, content: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(content, ensure_ascii=False) + "\n")
