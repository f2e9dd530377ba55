"""Which metric evaluates what."""

from __future__ import annotations

import json

import pytest

from pixelwise.cli.evaluation import heading
from pixelwise.errors import RecipeError
from pixelwise.labels import LabelSet, published
from pixelwise.metrics.choice import (
    DEFINITIONS,
    EVALUATED_TASKS,
    TaskMetric,
    chosen_by,
    metric_from_state,
    new_metric,
    shown,
)
from tests.contract.annotations import random_annotation

LABELS = LabelSet.from_names("five", [f"class {index}" for index in range(5)])
TASK_OF = {
    **dict.fromkeys(("voc", "ade20k", "cityscapes"), "semantic"),
    **dict.fromkeys(("coco", "boundary", "region", "region-2015", "davis", "davis-unsupervised"), "instance"),
    **dict.fromkeys(("panoptic", "video-panoptic"), "panoptic"),
}


def test_every_definition_is_one_of_a_task() -> None:
    assert set(TASK_OF) == set(DEFINITIONS)
    assert set(TASK_OF.values()) == set(EVALUATED_TASKS)


@pytest.mark.parametrize("definition", [name for name in TASK_OF if name != "cityscapes"])
def test_a_metric_is_made_evaluates_and_comes_back_from_its_state(definition: str) -> None:
    metric = new_metric(TASK_OF[definition], LABELS, definition)
    assert isinstance(metric, TaskMetric)
    assert metric.definition == definition
    metric.update(random_annotation((16, 20), 0), random_annotation((16, 20), 1), id="a")
    values = metric.compute()
    assert set(shown(definition)) <= set(values)
    assert values[chosen_by(definition)] is not None
    image = metric.images["a"]
    assert image.badness[0] is False
    assert image.caption()
    assert json.loads(json.dumps(image.row())) == image.row()
    again = metric_from_state(LABELS, definition, json.loads(json.dumps(metric.state())))
    assert again.compute() == values
    assert again.images["a"].row() == image.row()


def test_the_usual_definition_follows_the_task_the_classes_and_the_clips() -> None:
    assert new_metric("semantic", LABELS).definition == "voc"
    assert new_metric("semantic", published("cityscapes"), clips=True).definition == "cityscapes"
    assert new_metric("instance", LABELS, clips=True).definition == "coco"
    assert new_metric("panoptic", LABELS).definition == "panoptic"
    assert new_metric("panoptic", LABELS, clips=True).definition == "video-panoptic"
    assert [chosen_by(name) for name in ("panoptic", "video-panoptic", "davis")] == ["pq", "vpq", "j_and_f"]


def test_a_task_without_a_metric_is_refused() -> None:
    with pytest.raises(RecipeError, match="task 'caption': it has no metric; semantic, instance and panoptic can be"):
        new_metric("caption", LABELS)
    with pytest.raises(RecipeError, match="for panoptic segmentation expected one of panoptic, video-panoptic"):
        new_metric("panoptic", LABELS, "coco")
    with pytest.raises(RecipeError, match="definition 'pq': expected one of voc"):
        metric_from_state(LABELS, "pq", {})


def test_headings_are_those_of_the_field() -> None:
    names = ("mean_iou", "mask_ap50", "pq_things", "vpq_k5", "vpq_k10_stuff", "stq_sq", "aq", "j_and_f", "f_mean", "tp")
    assert [heading(name) for name in names] == [
        "mean IoU",
        "mask AP50",
        "PQ things",
        "VPQ k5",
        "VPQ k10 stuff",
        "STQ SQ",
        "AQ",
        "J and F",
        "F mean",
        "TP",
    ]
