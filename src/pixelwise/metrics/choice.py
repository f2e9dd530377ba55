"""Which metric judges a task, and by which of its numbers weights are chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from pixelwise.contracts import Metric
from pixelwise.errors import RecipeError
from pixelwise.labels import LabelSet
from pixelwise.metrics import average_precision, mean_iou
from pixelwise.metrics.average_precision import AveragePrecision
from pixelwise.metrics.mean_iou import MeanIoU, published_definition

DEFINITIONS = {**mean_iou.DEFINITIONS, **average_precision.DEFINITIONS}
"""One line each for people who compare numbers."""

CHOSEN_BY = {"semantic": "mean_iou", "instance": "mask_ap"}
"""The metric by which the best weights of a task are chosen."""


@runtime_checkable
class ImageResult(Protocol):
    """What a metric keeps of one image."""

    @property
    def badness(self) -> tuple[bool, float, float]:
        """Sorts the worst image first; one with nothing to judge comes last."""
        ...

    def caption(self) -> str:
        """What a sheet of images says of it."""
        ...

    def row(self) -> dict[str, Any]:
        """What `images.jsonl` says of it."""
        ...


@runtime_checkable
class TaskMetric(Metric, Protocol):
    """A metric with what reports tell: the image results, and a state that JSON keeps exactly."""

    labels: LabelSet
    definition: str

    @property
    def images(self) -> Mapping[str, ImageResult]: ...  # noqa: D102

    def state(self) -> dict[str, Any]: ...  # noqa: D102


_METRICS: dict[str, Callable[[LabelSet, str], TaskMetric]] = {
    **dict.fromkeys(mean_iou.DEFINITIONS, MeanIoU),
    **dict.fromkeys(average_precision.DEFINITIONS, AveragePrecision),
}


def new_metric(task: str, labels: LabelSet, definition: str | None = None) -> TaskMetric:
    """The metric of a task, by this definition or, with None, by the usual one of the task and the label set.

    Raises:
        RecipeError: a task that nothing judges, or a definition that is none of the task.
    """
    if task not in CHOSEN_BY:
        raise RecipeError(f"task '{task}': nothing judges it; {' and '.join(CHOSEN_BY)} can be judged")
    usual = published_definition(labels) if task == "semantic" else "coco"
    known = mean_iou.DEFINITIONS if task == "semantic" else average_precision.DEFINITIONS
    if definition is not None and definition not in known:
        raise RecipeError(f"definition '{definition}': for {task} segmentation one of {', '.join(known)} is wanted")
    return _METRICS[definition or usual](labels, definition or usual)


def metric_from_state(labels: LabelSet, definition: str, state: Mapping[str, Any]) -> TaskMetric:
    """The metric that counted what `state` tells. Raises DataError or RecipeError where there can be no such."""
    if definition not in _METRICS:
        raise RecipeError(f"definition '{definition}': one of {', '.join(_METRICS)} is wanted")
    return _METRICS[definition].from_state(labels, definition, state)  # pyright: ignore[reportFunctionMemberAccess]
