"""What every metric promises, whichever it is: found by walking `pixelwise.metrics`."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import pixelwise.metrics
from pixelwise.contracts import Metric
from pixelwise.errors import DataError
from pixelwise.metrics.davis import Davis
from pixelwise.metrics.mean_iou import MeanIoU
from pixelwise.types import Annotation, Masks
from tests.contract.annotations import LABELS, random_annotation

SIZE = (24, 32)


def metric_classes() -> Iterator[type]:
    for module in pkgutil.iter_modules(pixelwise.metrics.__path__, "pixelwise.metrics."):
        for _, found in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            is_metric = all(hasattr(found, name) for name in ("update", "merge", "compute"))
            if found.__module__ == module.name and is_metric and not getattr(found, "_is_protocol", False):
                yield found


CLASSES = list(metric_classes())
CITY = replace(LABELS, name="city", names=("road", "person", "car", "sky", "rider"))
"""Classes that Cityscapes' definition knows, some with objects."""

MAKERS: dict[str, Callable[[], Any]] = {
    **{found.__name__: partial(found, LABELS) for found in CLASSES},
    "MeanIoU ade20k": partial(MeanIoU, LABELS, "ade20k"),
    "MeanIoU cityscapes": partial(MeanIoU, CITY, "cityscapes"),
    "Davis unsupervised": partial(Davis, LABELS, "davis-unsupervised"),
}


@pytest.fixture(params=MAKERS.values(), ids=MAKERS)
def new_metric(request: pytest.FixtureRequest) -> Any:
    return request.param


def numbers(result: dict[str, Any]) -> dict[str, Any]:
    """The values for the whole set; the others are tables."""
    return {name: value for name, value in result.items() if not isinstance(value, dict)}


def pairs(count: int) -> list[tuple[str, Annotation, Annotation]]:
    """Ids, predictions and truths that do not agree."""
    return [
        (f"image {index}", random_annotation(SIZE, index), random_annotation(SIZE, 100 + index))
        for index in range(count)
    ]


def state_of(value: Any) -> Any:
    """What a metric holds, in a form that can be compared."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {name: state_of(item) for name, item in sorted(value.items())}
    if isinstance(value, list | tuple):
        return [state_of(item) for item in value]
    return value


def bytes_of(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, dict):
        return sum(bytes_of(item) for item in value.values())
    if isinstance(value, list | tuple):
        return sum(bytes_of(item) for item in value)
    return 8


def enlarged(annotation: Annotation, factor: int) -> Annotation:
    """The same picture of larger pixels."""

    def larger(image: torch.Tensor) -> torch.Tensor:
        return image.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)

    instances, panoptic = annotation.instances, annotation.panoptic
    dense = larger(instances.masks.dense())
    return replace(
        annotation,
        semantic=larger(annotation.semantic),
        confidence=larger(annotation.confidence),
        instances=replace(
            instances, boxes=instances.boxes * factor, masks=Masks.from_dense(dense), areas=instances.areas * factor**2
        ),
        panoptic=replace(panoptic, ids=larger(panoptic.ids)),
        saliency=larger(annotation.saliency),
        flow=larger(annotation.flow) * factor,
    )


def test_there_are_metrics() -> None:
    assert "MeanIoU" in [found.__name__ for found in CLASSES]


@pytest.mark.parametrize("metric_class", CLASSES)
def test_its_update_has_the_contracts_signature(metric_class: Any) -> None:
    wanted = inspect.signature(Metric.update).parameters
    given = inspect.signature(metric_class.update).parameters
    assert [(one.name, one.kind, one.default) for one in given.values()] == [
        (one.name, one.kind, one.default) for one in wanted.values()
    ]


def test_ground_truth_against_itself_is_perfect(new_metric: Any) -> None:
    metric = new_metric()
    for id, truth, _ in pairs(3):
        # the objects of these drawings hide each other, so they cannot all be found in classes
        truth = replace(truth, instances=None) if metric.labels == CITY else truth
        metric.update(truth, truth, id=id)
    result = metric.compute()
    assert set(result) > {"per_class"}
    # the best one or ten detections of an image cannot find more objects than that; decay is a difference
    limited = ("_ar1", "_ar10", "_decay")
    unlimited = {name: value for name, value in numbers(result).items() if not name.endswith(limited)}
    assert {value for value in unlimited.values() if value is not None} == {1.0}


def test_values_are_fractions_of_one(new_metric: Any) -> None:
    metric = new_metric()
    for id, predicted, truth in pairs(3):
        metric.update(predicted, truth, id=id)
    result = metric.compute()
    values = [value for name, value in numbers(result).items() if value is not None and not name.endswith("_decay")]
    assert values
    assert all(0 <= value < 1 for value in values)
    assert list(result["per_class"]) == list(metric.labels.names)


def test_parts_merge_to_the_whole_in_any_order(new_metric: Any) -> None:
    whole, joined, parts = new_metric(), new_metric(), [new_metric() for _ in range(3)]
    images = pairs(7)
    for id, predicted, truth in images:
        whole.update(predicted, truth, id=id)
    random.Random(1).shuffle(images)
    for place, (id, predicted, truth) in enumerate(images):
        parts[place % 3].update(predicted, truth, id=id)
    for part in parts:
        joined.merge(part)
    assert joined.compute() == whole.compute()
    assert state_of(vars(joined)) == state_of(vars(whole))


def test_an_id_is_counted_once(new_metric: Any) -> None:
    metric, other = new_metric(), new_metric()
    id, predicted, truth = pairs(1)[0]
    metric.update(predicted, truth, id=id)
    other.update(predicted, truth, id=id)
    before = state_of(vars(metric))
    with pytest.raises(DataError, match=id):
        metric.update(truth, truth, id=id)
    with pytest.raises(DataError, match=id):
        metric.merge(other)
    assert state_of(vars(metric)) == before


def test_a_prediction_of_another_size_is_refused(new_metric: Any) -> None:
    metric = new_metric()
    before = state_of(vars(metric))
    with pytest.raises(DataError, match="image 'a'"):
        metric.update(random_annotation((12, 16), 0), random_annotation(SIZE, 0), id="a")
    assert state_of(vars(metric)) == before


def test_the_state_does_not_follow_the_size_of_the_images(new_metric: Any) -> None:
    states = []
    for factor in (10, 30):
        metric = new_metric()
        metric.update(*(enlarged(random_annotation((16, 16), seed), factor) for seed in (0, 1)), id="a")
        states.append(bytes_of(vars(metric)))
    assert states[0] == states[1]
