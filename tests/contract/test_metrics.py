"""What every metric promises, whichever it is: found by walking `pixelwise.metrics`."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import pixelwise.metrics
from pixelwise.contracts import Metric
from pixelwise.errors import DataError
from pixelwise.types import Annotation
from tests.contract.annotations import LABELS, random_annotation

SIZE = (24, 32)


def metric_classes() -> Iterator[type]:
    for module in pkgutil.iter_modules(pixelwise.metrics.__path__, "pixelwise.metrics."):
        for _, found in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if found.__module__ == module.name and all(hasattr(found, name) for name in ("update", "merge", "compute")):
                yield found


CLASSES = list(metric_classes())


@pytest.fixture(params=CLASSES, ids=[found.__name__ for found in CLASSES])
def metric_class(request: pytest.FixtureRequest) -> Any:
    return request.param


def pairs(count: int) -> list[tuple[str, Annotation, Annotation]]:
    """Ids, predictions and truths that do not agree."""
    return [
        (f"image {index}", random_annotation(SIZE, index), random_annotation(SIZE, 100 + index))
        for index in range(count)
    ]


def state_of(value: Any) -> Any:
    """What a metric holds, in a form that can be compared."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {name: state_of(item) for name, item in sorted(value.items())}
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


def test_there_are_metrics() -> None:
    assert "MeanIoU" in [found.__name__ for found in CLASSES]


def test_its_update_has_the_contracts_signature(metric_class: Any) -> None:
    wanted = inspect.signature(Metric.update).parameters
    given = inspect.signature(metric_class.update).parameters
    assert [(one.name, one.kind, one.default) for one in given.values()] == [
        (one.name, one.kind, one.default) for one in wanted.values()
    ]


def test_truth_against_itself_is_perfect(metric_class: Any) -> None:
    metric = metric_class(LABELS)
    for id, truth, _ in pairs(3):
        metric.update(truth, truth, id=id)
    result = metric.compute()
    assert set(result) > {"per_class"}
    assert {value for name, value in result.items() if name != "per_class"} == {1.0}


def test_values_are_fractions_of_one(metric_class: Any) -> None:
    metric = metric_class(LABELS)
    for id, predicted, truth in pairs(3):
        metric.update(predicted, truth, id=id)
    result = metric.compute()
    assert all(0 <= value < 1 for name, value in result.items() if name != "per_class")
    assert list(result["per_class"]) == list(LABELS.names)


def test_parts_merge_to_the_whole_in_any_order(metric_class: Any) -> None:
    whole, joined, parts = metric_class(LABELS), metric_class(LABELS), [metric_class(LABELS) for _ in range(3)]
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


def test_an_id_is_counted_once(metric_class: Any) -> None:
    metric, other = metric_class(LABELS), metric_class(LABELS)
    id, predicted, truth = pairs(1)[0]
    metric.update(predicted, truth, id=id)
    other.update(predicted, truth, id=id)
    before = state_of(vars(metric))
    with pytest.raises(DataError, match=id):
        metric.update(truth, truth, id=id)
    with pytest.raises(DataError, match=id):
        metric.merge(other)
    assert state_of(vars(metric)) == before


def test_a_prediction_of_another_size_is_refused(metric_class: Any) -> None:
    metric = metric_class(LABELS)
    before = state_of(vars(metric))
    with pytest.raises(DataError, match="image 'a'"):
        metric.update(random_annotation((12, 16), 0), random_annotation(SIZE, 0), id="a")
    assert state_of(vars(metric)) == before


def test_the_state_does_not_follow_the_size_of_the_images(metric_class: Any) -> None:
    states = []
    for size in ((16, 16), (320, 320)):
        metric = metric_class(LABELS)
        metric.update(random_annotation(size, 0), random_annotation(size, 1), id="a")
        states.append(bytes_of(vars(metric)))
    assert states[0] == states[1]
