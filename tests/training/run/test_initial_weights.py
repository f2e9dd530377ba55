"""What `--init` takes from a model: its architecture, its weights, and the rows of the classes that both have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pixelwise.contracts import ClassRows, Recipe, Stage, as_system
from pixelwise.errors import CheckpointError
from pixelwise.inference.model_folder import ModelCard, write_model
from pixelwise.inference.systems import system_module
from pixelwise.labels import LabelSet
from pixelwise.training.run.initial_weights import init_arguments, initialise, shared_rows
from pixelwise.training.run.plan import Plan

OLD = LabelSet.from_names("old", ["background", "bird", "cat", "person"])
NEW = LabelSet.from_names("new", ["background", "person", "tree", "bird", "rock"])
SHARED = {"bird": (1, 3), "person": (3, 1)}
"""The class ids of each class of both sets, in the old and in the new one."""
SMALL = {"backbone": "mobilenet_v2", "channels": 8}
DETECTOR = {**SMALL, "box_width": 16}


def test_rows_stand_in_the_order_of_the_classes_in_every_group() -> None:
    rows = ClassRows("head", (2, 5, 7), first=1, each=2, groups=2)
    assert rows.of([7, 2]) == [0, 5, 6, 1, 2, 7, 12, 13, 8, 9]
    with pytest.raises(ValueError, match="not in tuple"):
        rows.of([4])


def box_scores(network: Any) -> Callable[[int], list[Tensor]]:
    """What a detector's heads say of each class."""
    x = torch.linspace(-1, 1, 16)[None]
    logits, deltas = network.box_predictor(x)
    features = torch.linspace(-1, 1, 8 * 14 * 14).view(1, 8, 14, 14)
    return lambda class_id: [
        logits[:, network.things.index(class_id) + 1],
        deltas[:, network.things.index(class_id)],
        network.mask_head(features, torch.tensor([network.things.index(class_id) + 1])),
    ]


def pixel_scores(network: Any) -> Callable[[int], list[Tensor]]:
    logits = network(torch.linspace(0, 1, 3 * 64 * 64).view(1, 3, 64, 64)).logits
    return lambda class_id: [logits[:, class_id]]


def anchor_scores(network: Any) -> Callable[[int], list[Tensor]]:
    x = torch.linspace(-1, 1, 8 * 3 * 3).view(1, 8, 3, 3)
    logits, semantic = network.head(x)[0], network.semantic(x)
    return lambda class_id: [
        logits[..., network.things.index(class_id) + 1],
        semantic[:, network.things.index(class_id)],
    ]


@pytest.mark.parametrize(
    ("system", "arguments", "scores"),
    [
        ("mask_rcnn", DETECTOR, box_scores),
        ("deeplab_v3_plus", {**SMALL, "separable": False}, pixel_scores),
        ("fcn", {"backbone": "mobilenet_v2", "skips": "16s"}, pixel_scores),
        ("yolact", {**SMALL, "prototypes": 4, "anchor_scales": 2}, anchor_scores),
        ("upsnet", DETECTOR, box_scores),
    ],
)
@torch.no_grad()
def test_a_class_of_the_same_name_keeps_what_the_heads_say_of_it(
    system: str, arguments: dict[str, Any], scores: Callable[[Any], Callable[[int], list[Tensor]]]
) -> None:
    torch.manual_seed(0)
    module = system_module(system)
    old, new = (module.build(num_classes=len(labels), **arguments).eval() for labels in (OLD, NEW))
    for parameter in old.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    rows = shared_rows(as_system(old), OLD, as_system(new), NEW)
    other = {key: value for key, value in old.state_dict().items() if key not in rows}
    fresh = {key: value.clone() for key, value in new.state_dict().items()}
    new.load_state_dict({**other, **rows}, strict=False)
    before, after = scores(old), scores(new)
    for name, (old_id, new_id) in SHARED.items():
        for expected, found in zip(before(old_id), after(new_id), strict=True):
            torch.testing.assert_close(found, expected, msg=lambda text, name=name: f"{name}: {text}")
    for rows_of_layer in as_system(new).class_rows():
        key = rows_of_layer.name if rows_of_layer.name in fresh else f"{rows_of_layer.name}.weight"
        untouched = [row for row in rows_of_layer.of([2, 4]) if row not in rows_of_layer.of([])]
        assert torch.equal(new.state_dict()[key][untouched], fresh[key][untouched]), "new classes start at random"


def test_the_rows_of_stuff_follow_the_one_of_all_things() -> None:
    module = system_module("panoptic_fpn")
    arguments = {**DETECTOR, "semantic_channels": 8}
    old = module.build(num_classes=4, thing_ids=[3], **arguments)
    new = module.build(num_classes=5, thing_ids=[1, 4], **arguments)
    bias = shared_rows(as_system(old), OLD, as_system(new), NEW)["semantic_branch.score.bias"]
    old_bias, new_bias = (one.state_dict()["semantic_branch.score.bias"] for one in (old, new))
    # things, then background, bird, cat; things, then background, tree, bird
    assert bias.tolist() == [*old_bias[:2].tolist(), float(new_bias[2]), float(old_bias[2])]
    assert "box_predictor.classes.bias" in shared_rows(as_system(old), OLD, as_system(new), NEW), "person is a thing"


def stored(folder: Path, **arguments: Any) -> Path:
    torch.manual_seed(3)
    chosen = {**DETECTOR, **arguments}
    network = system_module("mask_rcnn").build(num_classes=len(OLD), **chosen)
    write_model(folder, network.state_dict(), ModelCard("instance", "mask_rcnn", OLD, chosen))
    return folder


def test_the_architecture_is_that_of_a_model_of_the_same_system(tmp_path: Path) -> None:
    folder = stored(tmp_path / "model", thing_ids=[1, 3], samples=64)
    recipe = Recipe(stages=(Stage(arguments={"samples": 32}),))
    assert init_arguments(str(folder), "mask_rcnn", recipe) == DETECTOR
    assert init_arguments(str(folder), "panoptic_fpn", recipe) == {}
    assert init_arguments("torchvision", "mask_rcnn", recipe) == {}


def test_an_argument_that_was_set_is_named_with_both_numbers(tmp_path: Path) -> None:
    folder = stored(tmp_path / "model")
    for changes, error in (({"box_width": 24}, None), ({"channels": 12, "backbone": "resnet18"}, CheckpointError)):
        arguments = {**DETECTOR, **changes}
        stage = Stage()
        plan = Plan("mask_rcnn", arguments, Recipe(stages=(stage,)), ("coco:x",), init=str(folder))
        network = system_module("mask_rcnn").build(num_classes=len(OLD), **arguments)
        if error is None:
            note = initialise(network, plan, stage, OLD)
            assert "start at random; it was built with box_width=16, here 24" in note
            continue
        with pytest.raises(error, match=r"it was built with backbone=mobilenet_v2, here resnet18, channels=8, here 12"):
            initialise(network, plan, stage, OLD)
