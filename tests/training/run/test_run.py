"""A run in this process: when it ends, what it begins from, what it writes down."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pixelwise.contracts import Augmentation, Optimizer, Recipe, Stage
from pixelwise.errors import CheckpointError, DataError, RecipeError
from pixelwise.inference.load import load
from pixelwise.inference.model_folder import ModelCard, write_model
from pixelwise.inference.systems import system_module, system_names
from pixelwise.labels import LabelSet
from pixelwise.models.deeplab_v3_plus import build
from pixelwise.training.class_weights import repeat_factors
from pixelwise.training.fit import Step
from pixelwise.training.interruption import Interruption
from pixelwise.training.run import run as run_module
from pixelwise.training.run.data import TrainingData
from pixelwise.training.run.initial_weights import carry_over, class_tensors
from pixelwise.training.run.plan import Plan
from pixelwise.training.run.run import Event, Note, resume, run, start
from pixelwise.training.run.validation import Evaluated
from tests.drawn_scenes import LABELS, write_masks_tree

ARGUMENTS = {"backbone": "mobilenet_v2", "channels": 8}


@pytest.fixture(autouse=True)
def _memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "keep_freed_memory", lambda: None)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_masks_tree(tmp_path_factory.mktemp("drawn"), train=5, val=2)


def recipe(*, patience: int = 0, evaluate_every: int = 2, **changes) -> Recipe:
    numbers = {"steps": 2, "batch_size": 2, "crop_size": 32, "optimizer": Optimizer(lr=0.01)}
    stage = Stage(**{**numbers, "augmentation": Augmentation(), **changes})
    return Recipe((stage,), input_size=64, precision="float32", patience=patience, evaluate_every=evaluate_every)


def started(folder: Path, data: Path, wanted: Recipe, **changes) -> tuple[Plan, TrainingData]:
    words = {"system": "deeplab_v3_plus", "arguments": ARGUMENTS, "init": None}
    return start(folder, recipe=wanted, data=(f"masks:{data}",), label_map=None, command="test", **{**words, **changes})


def events_of(folder: Path, opened: tuple[Plan, TrainingData], *, stop_after: int | None = None) -> list[Event]:
    events: list[Event] = []
    with Interruption() as interruption:
        for event in run(folder, *opened, device="cpu", workers=0, interruption=interruption):
            events.append(event)
            if isinstance(event, Step) and event.number == stop_after:
                interruption.signal = 15
    return events


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_patience_ends_a_run_that_gets_no_better_also_after_an_interruption(data: Path, tmp_path: Path) -> None:
    still = recipe(steps=9, patience=2, evaluate_every=1, freeze_batch_norm="all", optimizer=Optimizer(lr=0.0))
    for name, stops in (("whole", ()), ("broken", (1, 2, 3))):
        folder = tmp_path / name
        opened = started(folder, data, still)
        for stop in stops:
            events_of(folder, opened, stop_after=stop)
            opened = resume(folder)
        events = events_of(folder, opened)
        evaluated = [(event.step, event.best) for event in events if isinstance(event, Evaluated)]
        assert evaluated[-1] == (3, False)
        if name == "whole":
            assert evaluated == [(1, True), (2, False), (3, False)]
        assert events[-1] == Note("ended at step 3: no better score in 2 evaluations")
        log = log_of(folder)
        assert [line["step"] for line in log if line["event"] == "step"] == [1, 2, 3]
        assert [line["step"] for line in log if line["event"] == "evaluation"] == [1, 2, 3]
        assert log[-1] == {"event": "early_end", "step": 3, "evaluations_without_better_score": 2}
        assert events_of(folder, resume(folder)) == []
        assert log_of(folder) == log
    first, second = ((tmp_path / name / "last" / "model.safetensors").read_bytes() for name in ("whole", "broken"))
    assert first == second


def test_balanced_weights_are_counted_once_and_written_down(data: Path, tmp_path: Path) -> None:
    plan, _ = started(tmp_path / "run", data, recipe(class_weights="balanced"))
    pixels, seen = np.zeros(4), np.zeros(4)
    for path in sorted((data / "trainannot").glob("*.png")):
        truth = np.asarray(Image.open(path))
        for label in range(4):
            here = int((truth == label).sum())
            pixels[label] += here
            seen[label] += truth.size if here else 0
    frequencies = pixels / seen
    weights = plan.recipe.stages[0].class_weights
    assert weights == pytest.approx(np.median(frequencies) / frequencies, rel=1e-5)
    assert Plan.read(tmp_path / "run") == plan
    with pytest.raises(RecipeError, match=r"class_weights: 2 numbers for the 4 classes background, disc"):
        started(tmp_path / "other", data, recipe(class_weights=(1.0, 2.0)))
    assert not (tmp_path / "other").exists()


def test_balanced_sampling_draws_alike_after_an_interruption(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    plain = run_module.fit

    def spied(*arguments: Any, **options: Any) -> Any:
        drawn.append(options["weights"])
        return plain(*arguments, **options)

    monkeypatch.setattr(run_module, "fit", spied)
    opened = started(tmp_path / "run", data, recipe(steps=2, sampling="balanced"))
    events_of(tmp_path / "run", opened, stop_after=1)
    events_of(tmp_path / "run", resume(tmp_path / "run"))
    assert drawn[0] == drawn[1] == repeat_factors(opened[1].train)
    assert len(set(drawn[0])) > 1
    events_of(tmp_path / "uniform", started(tmp_path / "uniform", data, recipe(steps=1)))
    assert drawn[2] is None


def test_synchronised_batch_norm_is_refused_without_cuda(data: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"sync_batch_norm=true needs CUDA; .*freeze_batch_norm=true"):
        started(tmp_path / "run", data, recipe(sync_batch_norm=True))
    assert not (tmp_path / "run").exists()


def test_an_auxiliary_term_stands_in_the_log_beside_the_main_one(data: Path, tmp_path: Path) -> None:
    arguments = {"backbone": "mobilenet_v2", "skips": "none", "auxiliary": True}
    opened = started(tmp_path / "run", data, recipe(steps=1), system="fcn", arguments=arguments)
    events_of(tmp_path / "run", opened)
    line = log_of(tmp_path / "run")[0]
    assert list(line["terms"]) == ["main", "aux"]
    assert line["loss"] == pytest.approx(line["terms"]["main"] + 0.5 * line["terms"]["aux"], rel=1e-5)


def stored_model(folder: Path, names: Sequence[str], **arguments) -> Path:
    torch.manual_seed(5)
    chosen = {**ARGUMENTS, **arguments}
    card = ModelCard("semantic", "deeplab_v3_plus", LabelSet.from_names("theirs", list(names)), chosen)
    write_model(folder, build(num_classes=len(names), **chosen).state_dict(), card)
    return folder


def test_a_head_for_as_many_other_classes_is_dropped_too(data: Path, tmp_path: Path) -> None:
    for names, kept in ((LABELS.names, True), (["sky", "road", "car", "tree"], False)):
        source = stored_model(tmp_path / f"model {kept}", names)
        folder = tmp_path / f"run {kept}"
        still = recipe(steps=1, freeze_batch_norm="all", optimizer=Optimizer(lr=0.0))
        plan, opened = started(folder, data, still, init=str(source))
        others = f"its classes differ (4 of 'theirs', here 4 of '{data.name}')"
        head = f"classifier.weight, classifier.bias start at random; {others}"
        assert plan.notes == (() if kept else (f"--init {source}: {head}",))
        events_of(folder, (plan, opened))
        found, trained = load(source).model.state_dict(), load(folder).model.state_dict()
        assert torch.equal(found["aspp.project.0.weight"], trained["aspp.project.0.weight"])
        assert torch.equal(found["classifier.weight"], trained["classifier.weight"]) == kept


def test_norms_of_heads_need_more_than_one_image(data: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"batch_size=1 gives .*\(aspp\..*, …\); .*freeze_batch_norm=all"):
        started(tmp_path / "run", data, recipe(batch_size=1, freeze_batch_norm=True))
    started(tmp_path / "run", data, recipe(batch_size=1, freeze_batch_norm="all"))


def test_a_model_of_another_build_is_refused_with_its_arguments(data: Path, tmp_path: Path) -> None:
    source = stored_model(tmp_path / "model", LABELS.names, backbone="resnet18")
    with pytest.raises(CheckpointError, match=r"not a deeplab_v3_plus with these arguments; .*backbone=resnet18"):
        started(tmp_path / "run", data, recipe(), init=str(source))


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        (("system",), "pspnett", "there is no system 'pspnett'"),
        (("arguments", "channels"), "8", "channels='8': Input should be a valid integer"),
        (("arguments", "width"), 8, "width=8: it has no such argument"),
        (("arguments", "channels"), 0, "deeplab_v3_plus cannot be built with .*'channels': 0"),
        (("recipe", "stages"), [], r"recipe\.stages: .*at least 1 item"),
        (("recipe", "stages", 0, "name"), "../../up", r"recipe\.stages\.0\.name: String should match"),
        (("recipe", "stages", 0, "steps"), 0, r"stages\.0\.steps: .*greater than or equal to 1"),
        (("recipe", "stages", 0, "steps"), "x", r"recipe\.stages\.0\.steps: Input should be a valid integer"),
        (("recipe", "stages", 0, "optimizer"), 3, r"recipe\.stages\.0\.optimizer: "),
    ],
)
def test_a_recipe_that_cannot_be_carried_out_is_named(
    data: Path, tmp_path: Path, place: tuple[Any, ...], value: object, fault: str
) -> None:
    started(tmp_path / "run", data, recipe())
    path = tmp_path / "run" / "recipe.json"
    content = json.loads(path.read_text())
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=rf"recipe\.json: .*{fault}") as refused:
        resume(tmp_path / "run")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("system", [name for name in system_names() if system_module(name).TASK == "semantic"])
def test_the_tensors_of_the_classes_are_found_in_every_system(system: str) -> None:
    labels = LabelSet.from_names("seven", [f"class {number}" for number in range(7)])
    found = class_tensors(ModelCard("semantic", system, labels))
    assert found
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in system_module(system).build(num_classes=7).state_dict().items()}
    assert all(7 in shapes[key] for key in found)
    assert not any(key.startswith("backbone.") for key in found)


def test_the_next_stage_takes_what_fits_and_says_what_does_not() -> None:
    before, after = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    state = {"weight": before.weight.detach(), "bias": torch.zeros(7), "skip": torch.zeros(1)}
    bias = after.bias.detach().clone()
    assert carry_over(after, state) == "bias start at random; skip are not used any more"
    assert torch.equal(after.weight, before.weight)
    assert torch.equal(after.bias, bias)
    assert carry_over(after, after.state_dict()) == ""


def test_images_dealt_out_to_choose_on_are_recorded_and_stay(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "flat"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    image = Image.fromarray(np.full((40, 48, 3), 90, np.uint8))
    mask = Image.fromarray(np.zeros((40, 48), np.uint8))
    for number in range(10):
        image.save(folder / "images" / f"{number:02}.png")
        mask.save(folder / "masks" / f"{number:02}.png")
    (folder / "labels.txt").write_text((data / "labels.txt").read_text())
    plan, opened = started(tmp_path / "run", folder, recipe())
    assert plan.chosen_on == opened.val.ids
    assert len(plan.chosen_on) == 2
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["chosen_on"] == list(opened.val.ids)
    assert resume(tmp_path / "run")[0].chosen_on == plan.chosen_on
    for kind in ("images", "masks"):
        (folder / kind / "00.png").unlink()
    with pytest.raises(DataError, match="images were added or removed since the run began"):
        resume(tmp_path / "run")
    assert started(tmp_path / "other", data, recipe())[0].chosen_on == (), "a set with splits records none"
