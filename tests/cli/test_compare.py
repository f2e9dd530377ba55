"""`pixelwise compare`: models side by side on the same data."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pixelwise.errors import CheckpointError
from pixelwise.evaluation import comparison
from pixelwise.evaluation.comparison import TIMED_IMAGES, latencies, timed_images
from pixelwise.evaluation.peak_memory import peak_memory
from pixelwise.inference.model_folder import ModelCard, write_model
from pixelwise.inference.systems import system_module
from pixelwise.labels import LabelSet
from pixelwise.ops.resize_rule import ResizeRule
from tests.cli.conftest import Run
from tests.drawn_scenes import LABELS, DrawnScenes, write_masks_tree

SIZES = {"small": 48, "large": 96}
BACKBONES = {"small": "mobilenet_v2", "large": "resnet18"}
PEAK = 12 * 2**20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of random weights, and drawings."""
    folder = tmp_path_factory.mktemp("compare")
    write_masks_tree(folder / "drawings", train=1, val=3)
    for name, backbone in BACKBONES.items():
        write(folder / name, build(backbone), backbone, SIZES[name])
    return folder


def build(backbone: str) -> nn.Module:
    torch.manual_seed(0)
    return system_module("deeplab_v3_plus").build(num_classes=len(LABELS), backbone=backbone)


def write(folder: Path, module: nn.Module, backbone: str, input_size: int, labels: LabelSet = LABELS) -> None:
    card = ModelCard(
        "semantic", "deeplab_v3_plus", labels, {"backbone": backbone}, resize=ResizeRule(length=input_size)
    )
    write_model(folder, module.state_dict(), card)


@pytest.fixture
def run(run: Run, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Run:
    """Runs a command line in this process and in the folder; memory is not measured."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(comparison, "peak_memory", lambda *_, **__: PEAK)
    return run


BOTH = ("compare", "small", "large", "--data", "masks:drawings", "--workers", 0, "--repeats", 1)


def operations(module: nn.Module, size: tuple[int, int]) -> int:
    """Two for each multiplication of the convolutions, counted as they run."""
    total = 0

    def count(convolution: nn.Module, _: Any, output: torch.Tensor) -> None:
        nonlocal total
        weight = convolution.weight
        assert isinstance(weight, torch.Tensor)
        total += 2 * output.numel() * weight[0].numel()

    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(count)
    with torch.no_grad():
        module.eval()(torch.zeros(1, 3, *size))
    return total


def test_json_tells_what_each_model_costs_and_gives(run: Run) -> None:
    code, out, err = run(*BOTH, "--json")
    assert (code, err, out.count("\n")) == (0, "", 1)
    result = json.loads(out)
    rows = {row["model"]: row for row in result.pop("models")}
    assert result.pop("seconds") > 0
    assert result == {
        "data": "masks:drawings@val",
        "images": 3,
        "definition": "voc",
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "repeats": 1,
        "timed_images": 3,
    }
    assert list(rows) == ["small", "large"]
    for name, row in rows.items():
        module = build(BACKBONES[name])
        _, alone, _ = run("evaluate", name, "--data", "masks:drawings", "--workers", 0, "--json")
        metrics = json.loads(alone)["metrics"]
        assert row["latency_ms"] > 0
        assert row == {
            "model": name,
            "system": "deeplab_v3_plus",
            "classes": 4,
            "mean_iou": metrics["mean_iou"],
            "pixel_accuracy": metrics["pixel_accuracy"],
            "parameters": sum(parameter.numel() for parameter in module.parameters()),
            "gflops": pytest.approx(operations(module, (round(SIZES[name] * 64 / 80), SIZES[name])) / 1e9),
            "latency_ms": row["latency_ms"],
            "peak_memory_mib": 12,
            "input_size": SIZES[name],
        }


def test_the_table_names_models_units_and_what_was_done(run: Run, folder: Path) -> None:
    code, out, err = run(*BOTH, "--out", "tables/table.md")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    rows = {line.split()[0]: line for line in lines[:3]}
    assert list(rows) == ["model", "small", "large"]
    assert rows["small"].split()[-3:] == ["12", "MiB", "48"]
    assert "1 multiply-add = 2 FLOPs" in out
    assert "median of 1 × 3 predictions on cpu, 1 thread; the models take turns" in out
    assert "by PASCAL VOC's definition" in out
    assert "different classes" not in out
    markdown = (folder / "tables" / "table.md").read_text().splitlines()
    assert markdown[0].startswith("| model | system | mean IoU | ")
    assert [line.split(" | ")[0] for line in markdown[1:4]] == ["| ---", "| small", "| large"]
    assert {line.count("|") for line in markdown[:4]} == {11}
    assert [line.removeprefix("- ") for line in markdown[5:]] == lines[3:]
    assert [path.name for path in (folder / "tables").iterdir()] == ["table.md"]


@pytest.mark.parametrize("suffix", ["json", "csv"])
def test_the_table_as_a_file_for_machines(run: Run, folder: Path, suffix: str) -> None:
    code, out, _ = run(*BOTH, "--json", "--out", f"table.{suffix}")
    text = (folder / f"table.{suffix}").read_text()
    assert code == 0
    if suffix == "json":
        assert json.loads(text) == json.loads(out)
    else:
        rows = list(csv.DictReader(text.splitlines()))
        assert rows == [{name: str(value) for name, value in row.items()} for row in json.loads(out)["models"]]


def test_models_of_other_classes_need_a_map_and_are_told(run: Run, folder: Path) -> None:
    other = LabelSet.from_names("other", ["background", "disc", "square"])
    module = system_module("deeplab_v3_plus").build(num_classes=3, backbone="mobilenet_v2")
    write(folder / "other", module, "mobilenet_v2", 48, other)
    arguments = ("compare", "small", "other", "--data", "masks:drawings", "--workers", 0, "--repeats", 1)
    code, out, err = run(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "label sets differ" in err
    assert "--map" in err
    code, out, err = run(*arguments, "--map", "names")
    assert code == 0
    assert "triangle → ignore" in err
    assert "the models have different classes, so their means are over different classes" in out
    assert run(*arguments, "--map", "names", "--quiet")[2] == ""


def test_nothing_is_measured_if_a_model_cannot_be_loaded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr("pixelwise.evaluation.evaluate.evaluate", refuse)
    monkeypatch.setattr(comparison, "compare", refuse)
    for arguments, text in {
        ("small", "nowhere", "--data", "masks:drawings"): "nowhere: no such model",
        ("small", "drawings", "--data", "masks:drawings"): "drawings: holds no model",
        ("small", "large", "--data", "masks:drawings@test"): "no split 'test'",
        (
            "small",
            "large",
            "--data",
            "masks:drawings",
            "--out",
            "table.txt",
        ): "expected a file name that ends with .md",
        ("small", "large", "--data", "masks:drawings", "--out", "drawings/labels.txt/t.md"): "cannot be written",
        ("small", "--data", "masks:drawings", "--definition", "cityscapes"): "is not one of Cityscapes' classes",
        ("small", "--data", "masks:drawings", "--repeats", "0"): "Invalid value for '--repeats'",
        ("--data", "masks:drawings"): "Missing argument 'MODEL",
        ("small",): "Missing option '--data'",
    }.items():
        code, out, err = run("compare", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1), arguments
        assert text in err


def test_a_broken_image_is_skipped_for_all(run: Run, folder: Path) -> None:
    write_masks_tree(folder / "broken", train=1, val=3)
    path = folder / "broken" / "val" / "002.png"
    path.write_bytes(path.read_bytes()[:200])
    code, out, err = run(*BOTH[:4], "masks:broken", *BOTH[5:], "--json")
    result = json.loads(out)
    assert (code, result["images"], result["timed_images"]) == (1, 2, 2)
    first, line = err.splitlines()
    assert first == "1 of 3 failed:"
    assert "'002'" in line


def test_models_take_turns_and_the_first_round_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    calls: list[tuple[str, int]] = []

    def answer(name: str, seconds: float) -> Callable[[torch.Tensor], None]:
        def answer(picture: torch.Tensor) -> None:
            nonlocal clock
            # slow at first sight, and slower by the time
            clock += 100 if (name, int(picture)) not in calls else seconds + 0.001 * len(calls)
            calls.append((name, int(picture)))

        return answer

    monkeypatch.setattr(comparison.time, "perf_counter", lambda: clock)
    pictures = [torch.tensor(0), torch.tensor(1)]
    times = latencies([answer("a", 1), answer("b", 2)], pictures, repeats=3, wait=lambda: None)
    assert calls[:4] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert calls[4:8] == [("a", 0), ("b", 0), ("b", 1), ("a", 1)]
    assert [len(each) for each in times] == [6, 6]
    assert sorted(calls[4:]) == sorted(3 * [(name, picture) for name in "ab" for picture in (0, 1)])
    assert max(times[0]) < 1.1
    assert min(times[1]) > 2


def test_images_to_time_are_spread_over_the_data(folder: Path) -> None:
    class Paths(DrawnScenes):
        name = "drawings"

        def image_path(self, index: int) -> Path:
            asked.append(index)
            return folder / "drawings" / "val" / "001.png"

    for count, expected in ((3, [0, 1, 2]), (TIMED_IMAGES, [*range(8)]), (71, [0, 10, 20, 30, 40, 50, 60, 70])):
        asked: list[int] = []
        assert len(timed_images(Paths(count, first_seed=0))) == len(expected)  # pyright: ignore[reportArgumentType]
        assert asked == expected


@pytest.mark.slow
def test_memory_is_that_of_the_model_alone(folder: Path) -> None:
    """At least its weights, far less than all the libraries, and more for the model that holds more."""
    image = folder / "drawings" / "val" / "001.png"
    taken = {name: peak_memory(str(folder / name), [image], device="cpu", threads=1) for name in SIZES}
    weights = {
        name: 4 * sum(parameter.numel() for parameter in build(backbone).parameters())
        for name, backbone in BACKBONES.items()
    }
    small, large = taken["small"], taken["large"]
    if small is None or large is None:
        pytest.skip("this system does not tell the peak")
    assert weights["small"] < small < 300 * 2**20
    assert weights["large"] < large < 500 * 2**20
    assert large - small > 0.5 * (weights["large"] - weights["small"])


@pytest.mark.slow
def test_a_process_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"measures memory ended with 1: .*no such model"):
        peak_memory(str(tmp_path / "nowhere"), [], device="cpu", threads=1)
