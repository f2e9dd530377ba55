"""The metric of each task, and the number by which the best weights are selected."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from pixelwise.contracts import Metric
from pixelwise.errors import RecipeError
from pixelwise.labels import LabelSet
from pixelwise.metrics import (
    average_precision,
    davis,
    mean_iou,
    panoptic_quality,
    region_average_precision,
    video_panoptic_quality,
)
from pixelwise.metrics.average_precision import AveragePrecision
from pixelwise.metrics.davis import Davis
from pixelwise.metrics.mean_iou import MeanIoU, published_definition
from pixelwise.metrics.panoptic_quality import PanopticQuality
from pixelwise.metrics.region_average_precision import RegionAveragePrecision
from pixelwise.metrics.video_panoptic_quality import VideoPanopticQuality, ks_of


@runtime_checkable
class ImageResult(Protocol):
    """The stored result of one image."""

    @property
    def badness(self) -> tuple[bool, float, float]:
        """Sort key: worst image first; one with nothing to evaluate comes last."""
        ...

    def caption(self) -> str:
        """Caption in a sheet of images."""
        ...

    def row(self) -> dict[str, Any]:
        """Fields in `images.jsonl`."""
        ...


@runtime_checkable
class TaskMetric(Metric, Protocol):
    """A metric with results for each image and an exact state for JSON."""

    labels: LabelSet
    definition: str

    @property
    def images(self) -> Mapping[str, ImageResult]: ...  # noqa: D102

    def state(self) -> dict[str, Any]: ...  # noqa: D102


class _Family(NamedTuple):
    """The definitions of one metric.

    Attributes:
        task: of the predictions.
        metric: makes it from the label set and the name of a definition.
        shown: numbers in tables of models; the first selects the best weights.
        definitions: by name, one line each.
    """

    task: str
    metric: Callable[[LabelSet, str], TaskMetric]
    shown: tuple[str, ...]
    definitions: Mapping[str, str]


_FAMILIES = (
    _Family("semantic", MeanIoU, ("mean_iou", "pixel_accuracy"), mean_iou.DEFINITIONS),
    _Family("instance", AveragePrecision, ("mask_ap", "mask_ap50", "box_ap"), average_precision.DEFINITIONS),
    _Family(
        "instance",
        RegionAveragePrecision,
        ("region_ap_50", "region_ap_70", "region_ap_vol"),
        region_average_precision.DEFINITIONS,
    ),
    _Family("instance", Davis, ("j_and_f", "j_mean", "f_mean"), davis.DEFINITIONS),
    _Family("panoptic", PanopticQuality, ("pq", "sq", "rq", "pq_things", "pq_stuff"), panoptic_quality.DEFINITIONS),
    _Family("panoptic", VideoPanopticQuality, ("vpq", "stq", "aq"), video_panoptic_quality.DEFINITIONS),
)

_BY_NAME = {name: family for family in _FAMILIES for name in family.definitions}

DEFINITIONS = {name: line for family in _FAMILIES for name, line in family.definitions.items()}
"""One line for each definition, shown beside the numbers."""

EVALUATED_TASKS = tuple(dict.fromkeys(family.task for family in _FAMILIES))
"""The tasks that have a metric."""


def shown(definition: str) -> tuple[str, ...]:
    """The numbers that a table of models shows."""
    return _BY_NAME[definition].shown


def chosen_by(definition: str) -> str:
    """The number by which the best weights are selected."""
    return shown(definition)[0]


def new_metric(
    task: str,
    labels: LabelSet,
    definition: str | None = None,
    *,
    clips: bool = False,
    windows: Sequence[int] | None = None,
) -> TaskMetric:
    """Make the metric of a task, by this definition or, with None, by the usual one of the task and the label set.

    Args:
        task: of the predictions.
        labels: the classes.
        definition: one of the task's.
        clips: whether the images are frames of clips.
        windows: of VPQ, lengths in labelled frames; those of Cityscapes-VPS if not given.

    Raises:
        RecipeError: a task without a metric, a definition of another task, or windows for a definition without them.
    """
    if task not in EVALUATED_TASKS:
        raise RecipeError(f"task '{task}': it has no metric; {_listed(EVALUATED_TASKS)} can be evaluated")
    known = [name for name, family in _BY_NAME.items() if family.task == task]
    if definition is not None and definition not in known:
        raise RecipeError(f"definition '{definition}': for {task} segmentation expected one of {', '.join(known)}")
    if definition is None:
        usual = {"semantic": published_definition(labels), "instance": "coco"}
        definition = usual.get(task, "video-panoptic" if clips else "panoptic")
    if windows is None:
        return _BY_NAME[definition].metric(labels, definition)
    if definition not in video_panoptic_quality.DEFINITIONS:
        raise RecipeError(
            f"windows {list(windows)}: the definition '{definition}' has none; "
            f"{', '.join(video_panoptic_quality.DEFINITIONS)} has, which evaluates clips"
        )
    return VideoPanopticQuality(labels, definition, k=ks_of(windows))


def metric_from_state(labels: LabelSet, definition: str, state: Mapping[str, Any]) -> TaskMetric:
    """Restore a metric from its state. Raises DataError or RecipeError for an impossible state."""
    if definition not in _BY_NAME:
        raise RecipeError(f"definition '{definition}': expected one of {', '.join(_BY_NAME)}")
    family = _BY_NAME[definition]
    return family.metric.from_state(labels, definition, state)  # pyright: ignore[reportFunctionMemberAccess]


def _listed(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
