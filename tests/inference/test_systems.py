"""Systems of other packages, found by their entry points."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pixelwise.contracts import as_system
from pixelwise.errors import CheckpointError, RecipeError
from pixelwise.inference.model_folder import ModelCard, read_model, write_model
from pixelwise.inference.systems import build_system, system_module, system_names
from pixelwise.labels import LabelSet
from tests.plugin_packages import install_package

SYSTEM = """
from torch import nn
from pixelwise.contracts import Recipe, Stage, Traits
TASK, TRAITS, VARIANTS, RECIPES, PUBLISHED, RECIPE = "semantic", Traits(), {}, {}, {}, Recipe(stages=(Stage(),))
def build(*, num_classes, width=3):
    return nn.Conv2d(3, num_classes, width)
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages."""
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def test_a_system_of_another_package_is_named_after_those_that_ship_and_built(site: Path) -> None:
    install_package(site, "tiny", {"aaa_tiny": "tiny_module"}, tiny_module=SYSTEM)
    assert system_names()[-1] == "aaa_tiny"
    assert system_module("aaa_tiny").build(num_classes=4).weight.shape == (4, 3, 3, 3)


def test_its_model_folder_is_read_while_it_is_installed_and_names_it_afterwards(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_package(site, "tiny", {"tiny": "tiny_module"}, tiny_module=SYSTEM)
    card = ModelCard(
        task="semantic", system="tiny", labels=LabelSet.from_names("two", ["a", "b"]), arguments={"width": 1}
    )
    write_model(tmp_path / "model", system_module("tiny").build(num_classes=2, width=1).state_dict(), card)
    network, _ = read_model(tmp_path / "model")
    assert network.state_dict()["weight"].shape == (2, 3, 1, 1)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"no system 'tiny'.*install that package"):
        read_model(tmp_path / "model")


def test_a_file_under_models_goes_before_an_entry_point_of_its_name(site: Path) -> None:
    install_package(site, "tiny", {"pspnet": "tiny_module"}, tiny_module=SYSTEM)
    assert system_names().count("pspnet") == 1
    assert system_module("pspnet").__name__ == "pixelwise.models.pspnet"


def test_two_packages_with_one_name_are_both_named(site: Path) -> None:
    for name in ("one", "other"):
        install_package(site, name, {"tiny": f"{name}_module"}, **{f"{name}_module": SYSTEM})
    with pytest.raises(CheckpointError, match=r"of one \(one_module\) and .*of other \(other_module\): one name twice"):
        system_module("tiny")


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("import nowhere_to_be_found", "cannot be imported .*nowhere_to_be_found"),
        ("raise RuntimeError('too early')", "cannot be imported .*too early"),
        (
            "TASK, VARIANTS = 'semantic', {}",
            "has no TRAITS, RECIPE, RECIPES, PUBLISHED, build; expected TASK, TRAITS",
        ),
    ],
)
def test_a_package_that_is_broken_is_named_with_its_fault(site: Path, source: str, fault: str) -> None:
    install_package(site, "broken", {"tiny": "broken_module"}, broken_module=source)
    with pytest.raises(CheckpointError, match=rf"system 'tiny' of broken \(broken_module\) {fault}"):
        system_module("tiny")


@pytest.mark.parametrize("name", [name for name in system_names() if name not in ("panels", "pointwise", "reds")])
def test_the_defaults_of_every_system_are_of_the_types_that_its_build_states(name: str) -> None:
    """As they come back from model.json."""
    parameters = inspect.signature(system_module(name).build).parameters.values()
    defaults = {one.name: one.default for one in parameters if one.name != "num_classes"}
    with torch.device("meta"):
        network = build_system(name, num_classes=3, arguments=json.loads(json.dumps(defaults)))
    assert as_system(network).traits == system_module(name).TRAITS


@pytest.mark.parametrize(
    ("name", "arguments", "fault"),
    [
        ("mask_rcnn", {"channels": "96"}, "channels='96': Input should be a valid integer"),
        ("mask_rcnn", {"max_detections": None}, "max_detections=None: Input should be a valid integer"),
        ("mask_rcnn", {"score_threshold": "high"}, "score_threshold='high': Input should be a valid number"),
        ("mask_rcnn", {"width": 3}, "width=3: it has no such argument; see pixelwise models mask_rcnn"),
        ("mask_rcnn", {"num_classes": 3}, "num_classes=3: it has no such argument"),
        ("mask_rcnn", {"layout": "c5"}, "layout='c5': Input should be 'fpn' or 'c4'"),
        ("mask_rcnn", {"channels": 0}, "'channels': 0"),
        ("mask_rcnn", {"pixel_mean": [0.5]}, "'pixel_mean': \\[0.5\\]"),
        ("mask_rcnn", {"thing_ids": [7]}, "thing_ids"),
        ("yolact", {"anchor_sizes": [24, "48", 96]}, "anchor_sizes=.*1: Input should be a valid number"),
        ("deeplab_v3", {"rates": [6, -1]}, "rates .*: at least 1 each"),
        ("deeplab_v3", {"rates": {"6": 1}}, "rates="),
        ("deeplab_v3_plus", {"channels": -8}, "'channels': -8"),
        ("mask_rcnn", {"pre_nms_topk": [100, 0]}, "pre_nms_topk .*expected two numbers from 1 on"),
        ("upsnet", {"samples": 1.5}, "samples=1.5: Input should be a valid integer"),
        ("sds", {"proposals": [300]}, "proposals=\\[300\\]: Input should be a valid integer"),
        ("pspnet", {"backbone": ["resnet50"]}, "backbone=\\['resnet50'\\]: Input should be a valid string"),
    ],
)
def test_arguments_that_cannot_be_are_refused_in_one_line(name: str, arguments: dict[str, Any], fault: str) -> None:
    start = {} if "backbone" in arguments else {"backbone": "mobilenet_v2"}
    with pytest.raises(RecipeError, match=fault) as refused, torch.device("meta"):
        build_system(name, num_classes=3, arguments={**start, **arguments})
    assert "\n" not in str(refused.value)


def test_a_card_whose_arguments_do_not_fit_is_named(tmp_path: Path) -> None:
    network = system_module("pspnet").build(num_classes=2, backbone="mobilenet_v2", output_stride=16)
    card = ModelCard("semantic", "pspnet", LabelSet.from_names("two", ["a", "b"]), {"output_stride": "16"})
    write_model(tmp_path / "model", network.state_dict(), card)
    with pytest.raises(CheckpointError, match=r"model\.json: pspnet cannot be built with output_stride='16': Input"):
        read_model(tmp_path / "model")
