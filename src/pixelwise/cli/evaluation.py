"""The shared part of `evaluate` and `compare`: evaluation with a progress bar, and a list of failures."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from pixelwise.cli.progress import image_bar
from pixelwise.cli.terminal import print

if TYPE_CHECKING:
    from pixelwise.evaluation.subject import Subject
    from pixelwise.metrics.choice import TaskMetric
    from pixelwise.types import Annotation, Sample


def evaluate_images(
    subject: Subject,
    metric: TaskMetric,
    indices: Sequence[int],
    *,
    workers: int,
    hidden: bool,
    watchers: Sequence[Callable[[Sample, Annotation], None]] = (),
) -> tuple[str, ...]:
    """Evaluate the images that have a prediction; return the failures of others.

    Args:
        subject: with the predictions.
        metric: to update.
        indices: of the images.
        workers: processes that read images.
        hidden: show no bar.
        watchers: called with every counted sample and its prediction.
    """
    from pixelwise.evaluation.evaluate import evaluate

    def watch(sample: Sample, predicted: Annotation) -> None:
        for watcher in watchers:
            watcher(sample, predicted)

    outcomes = evaluate(
        subject.answers, subject.dataset, metric, workers=workers, indices=indices, go_on=True, watch=watch
    )
    failures: list[str] = []
    with image_bar(subject.name, len(indices), hidden=hidden) as advance, closing(outcomes):
        for outcome in outcomes:
            if outcome.failure:
                failures.append(outcome.failure)
            advance(1)
    return tuple(failures)


def print_failures(failures: Sequence[str], total: int) -> None:
    """Print on stderr the images that could not be evaluated."""
    if failures:
        print(f"{len(failures)} of {total} failed:", file=sys.stderr)
    for failure in failures:
        print(f"  {failure}; skipped", file=sys.stderr)


def heading(metric: str) -> str:
    """The heading of a metric: `mean IoU`, `mask AP50`, `VPQ k5`."""
    words = {"iou": "IoU", "iiou": "iIoU"}
    upper = re.compile(r"(ap|ar)\d*|pq|sq|rq|vpq|stq|aq|tp|fp|fn|j|f")
    return " ".join(word.upper() if upper.fullmatch(word) else words.get(word, word) for word in metric.split("_"))
