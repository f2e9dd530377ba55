"""The loop: terms are divided by their counts, frozen layers stay, nonsense stops it."""

from __future__ import annotations

import json
from typing import Literal

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import nn

from pixelwise.contracts import Augmentation, Optimizer, Stage, Term
from pixelwise.errors import CheckpointError, RecipeError
from pixelwise.losses.cross_entropy import PixelLoss
from pixelwise.models import mask_rcnn
from pixelwise.models.deeplab_v3_plus import build
from pixelwise.ops.resize_rule import ResizeRule
from pixelwise.training.fit import Fit, Step, fit, set_pixel_loss, total_loss
from pixelwise.training.processes import new_accelerator
from pixelwise.training.run.checkpoint import RunProgress, load_state, recover_states, save_state
from tests.drawn_scenes import LABELS, DrawnScenes

CPU = Accelerator(cpu=True)


def stage(**changes) -> Stage:
    numbers = {
        "steps": 4,
        "batch_size": 2,
        "crop_size": 48,
        "optimizer": Optimizer(name="sgd", lr=0.05),
        "augmentation": Augmentation(brightness=0.2),
    }
    return Stage(**{**numbers, **changes})


def small_system(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build(num_classes=4, backbone="mobilenet_v2", channels=8)


def make_steps(fitting: Fit, count: int | None = None) -> list[Step]:
    steps = fit(
        fitting,
        DrawnScenes(7, first_seed=0),
        accelerator=CPU,
        resize=ResizeRule(length=64),
        labels=LABELS,
        seed=1,
        workers=0,
    )
    return list(steps) if count is None else [next(steps) for _ in range(count)]


def test_each_term_is_divided_by_its_count_and_weighted() -> None:
    x = torch.tensor(2.0, requires_grad=True)
    terms = {
        "main": Term(x * 6, torch.tensor(3)),
        "aux": Term(x * 10, torch.tensor(4), 0.4),
        "none": Term(x * 0, torch.tensor(0)),
    }
    total, values = total_loss(terms, CPU)
    assert values == pytest.approx({"main": 4, "aux": 5, "none": 0, "loss": 4 + 0.4 * 5})
    total.backward()
    assert float(x.grad) == pytest.approx(6 / 3 + 0.4 * 10 / 4)


def test_a_count_below_one_divides_too() -> None:
    """A sum of small class weights: a weighted mean is no smaller for it."""
    total, values = total_loss({"main": Term(torch.tensor(0.5), torch.tensor(0.25))}, CPU)
    assert (float(total), values["main"]) == (2, 2)


def test_the_stage_sets_what_the_pixel_loss_counts() -> None:
    system = small_system()
    set_pixel_loss(system, stage(class_weights=(1.0, 2.0, 3.0, 4.0), ohem=0.5), 99)
    assert system.pixel_loss == PixelLoss(ignore_id=99, class_weights=(1.0, 2.0, 3.0, 4.0), ohem=0.5)
    set_pixel_loss(system, stage(), 255)
    assert system.pixel_loss == PixelLoss()
    set_pixel_loss(nn.Linear(1, 1), stage(), 255)
    with pytest.raises(RecipeError, match="Linear has no pixel loss"):
        set_pixel_loss(nn.Linear(1, 1), stage(ohem=0.5), 255)


def test_one_process_may_compute_in_two_precisions_one_after_the_other() -> None:
    dtypes = []
    for precision in ("bfloat16", "float32", "bfloat16"):
        with new_accelerator("cpu", precision).autocast():
            dtypes.append((torch.ones(2, 2) @ torch.ones(2, 2)).dtype)
    assert dtypes == [torch.bfloat16, torch.float32, torch.bfloat16]


def test_the_weights_move_and_the_average_follows() -> None:
    system = small_system()
    before = {key: value.clone() for key, value in system.state_dict().items()}
    fitting = Fit.start(system, stage(ema_decay=0.5))
    steps = make_steps(fitting)
    assert [step.number for step in steps] == [1, 2, 3, 4]
    assert all(step.images == 2 for step in steps)
    moved = [key for key, value in system.state_dict().items() if not torch.equal(value, before[key])]
    assert set(moved) == {key for key in before if not key.startswith("normalize")}
    key = "classifier.weight"
    shipped, raw = fitting.shipped_state()[key], system.state_dict()[key]
    assert not torch.equal(shipped, raw)
    assert (shipped - raw).abs().max() < (before[key] - raw).abs().max()


def test_frozen_batch_norm_keeps_statistics_and_weights() -> None:
    system = small_system()
    norms = {name: module for name, module in system.named_modules() if isinstance(module, nn.BatchNorm2d)}
    before = {
        name: {key: value.clone() for key, value in module.state_dict().items()} for name, module in norms.items()
    }
    make_steps(Fit.start(system, stage(freeze_batch_norm="all")))
    for name, module in norms.items():
        assert all(torch.equal(value, before[name][key]) for key, value in module.state_dict().items()), name
    assert not torch.equal(system.classifier.weight, small_system().classifier.weight)


def test_frozen_stages_keep_weights_and_statistics_and_the_rest_moves() -> None:
    system = small_system()
    before = {key: value.clone() for key, value in system.state_dict().items()}
    make_steps(Fit.start(system, stage(frozen_stages=2)))
    state = system.state_dict()
    frozen = tuple(f"backbone.features.{block}." for block in range(4))
    assert any(key.startswith(frozen) for key in state)
    for key, value in state.items():
        still = key.startswith((*frozen, "normalize"))
        assert torch.equal(value, before[key]) == still, key
    with pytest.raises(RecipeError, match="frozen_stages=9: the backbone has 5"):
        Fit.start(small_system(), stage(frozen_stages=9))


def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_images() -> None:
    fitting = Fit.start(small_system(), stage())
    with torch.no_grad():
        fitting.system.classifier.bias.fill_(float("nan"))
    with pytest.raises(RecipeError, match=r"step 1: the loss is nan on images drawing \d.*lower optimizer.lr"):
        make_steps(fitting)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_saved_state_continues_bit_for_bit(tmp_path, name: str) -> None:
    wanted = stage(steps=6, optimizer=Optimizer(name=name, lr=0.01), ema_decay=0.9)
    whole = Fit.start(small_system(), wanted)
    losses = [step.loss for step in make_steps(whole)]
    first = Fit.start(small_system(), wanted)
    make_steps(first, 3)
    save_state(tmp_path, first, RunProgress(best=0.5, evaluated=2))
    second = Fit.start(small_system(seed=9), wanted)
    assert load_state(tmp_path, second) == RunProgress(best=0.5, evaluated=2)
    assert second.step == 3
    assert [step.loss for step in make_steps(second)] == losses[3:]
    for key, value in whole.system.state_dict().items():
        assert torch.equal(value, second.system.state_dict()[key]), key
        assert torch.equal(whole.shipped_state()[key], second.shipped_state()[key]), key


def test_two_states_are_kept_and_damage_is_named(tmp_path) -> None:
    fitting = Fit.start(small_system(), stage())
    assert not recover_states(tmp_path)
    assert load_state(tmp_path, fitting) is None
    for step in range(1, 5):
        fitting.step = step
        save_state(tmp_path, fitting, RunProgress())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000004"]
    torn = tmp_path / "step-00000004" / "network.safetensors"
    torn.write_bytes(torn.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"step-00000004: this training state cannot be used .*remove it"):
        load_state(tmp_path, fitting)


def test_dropout_depends_on_the_step_and_not_on_what_was_drawn_before() -> None:
    losses = []
    for disturbance in (0, 5):
        torch.manual_seed(disturbance)
        np.random.seed(disturbance)
        system = small_system()
        system.aspp.dropout = 0.5
        fitting = Fit.start(system, stage())
        torch.rand(disturbance + 1)
        losses.append([step.loss for step in make_steps(fitting)])
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ([1], "1: Field required"),
        ({"step": -1, "progress": {}}, r"step: .*greater than or equal to 0"),
        ({"step": "many", "progress": {}}, r"step: .*valid integer"),
        ({"step": 1, "progress": {"best": "high"}}, r"progress.best: .*valid number"),
        ({"step": 1, "progress": {"evaluated": [3]}}, r"progress.evaluated: .*valid integer"),
        ({"step": 1, "progress": 3}, "progress: "),
    ],
)
def test_a_state_of_other_types_is_named(tmp_path, content: object, fault: str) -> None:
    save_state(tmp_path, Fit.start(small_system(), stage()), RunProgress())
    (state,) = tmp_path.iterdir()
    (state / "state.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=rf"step-00000000: this training state cannot be used .*{fault}"):
        load_state(tmp_path, Fit.start(small_system(), stage()))


def test_an_optimizer_with_less_than_its_state_is_named(tmp_path) -> None:
    fitting = Fit.start(small_system(), stage(optimizer=Optimizer(name="adamw", lr=0.01)))
    make_steps(fitting, 1)
    save_state(tmp_path, fitting, RunProgress())
    (state,) = tmp_path.iterdir()
    whole = load_file(state / "optimizer.safetensors")
    name = "classifier.weight"
    for changed, fault in (
        ({key: value for key, value in whole.items() if key != f"exp_avg:{name}"}, "some parameters have less than"),
        ({**whole, f"exp_avg:{name}": torch.zeros(2, 7)}, rf"'exp_avg:{name}' of \(2, 7\) is of no parameter"),
        ({**whole, "exp_avg:head.weight": torch.zeros(2)}, "'exp_avg:head.weight'"),
    ):
        save_file(changed, state / "optimizer.safetensors")
        with pytest.raises(CheckpointError, match=rf"step-00000001: this training state cannot be used .*{fault}"):
            load_state(tmp_path, Fit.start(small_system(), fitting.stage))


@pytest.mark.parametrize("freezes", [True, "all"])
def test_frozen_batch_norms_are_those_of_the_backbone_unless_all_are(freezes: bool | Literal["all"]) -> None:
    """torchvision's second Mask R-CNN has untrained norms in its pyramid and heads, which have to learn."""
    system = mask_rcnn.build(num_classes=4, backbone="resnet18", channels=16, box_width=16, has_norm=True)
    stage = Stage(steps=1, batch_size=2, crop_size=64, freeze_batch_norm=freezes)
    scenes, rule = DrawnScenes(4, first_seed=0), ResizeRule(length=64)
    next(fit(Fit.start(system, stage), scenes, accelerator=CPU, resize=rule, labels=LABELS, seed=1, workers=0))
    norms = {name: part for name, part in system.named_modules() if isinstance(part, torch.nn.BatchNorm2d)}
    of_heads = {name for name in norms if not name.startswith("backbone.")}
    assert 0 < len(of_heads) < len(norms)
    learning = {name for name, norm in norms.items() if norm.training and norm.weight.requires_grad}
    assert learning == (of_heads if freezes is True else set())
    moved = {name for name, norm in norms.items() if norm.running_mean is not None and norm.running_mean.any()}
    assert {name for name in moved if name in of_heads} == learning
