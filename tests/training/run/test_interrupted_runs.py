"""A run that is stopped or killed at any moment ends, once resumed, with the very weights of one that was not."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from pixelwise.inference.load import load
from tests import forked
from tests.drawn_scenes import write_masks_tree
from tests.forked import Forked
from tests.training.run.killed_run import killed_command_line
from tests.training.run_folder import log_of, weights_of

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")]

SETTINGS = {
    "batch_size": 4,
    "crop_size": 48,
    "input_size": 64,
    "evaluate_every": 4,
    "checkpoint_every": 2,
    "warmup_steps": 2,
    "ema_decay": 0.9,
}
SYSTEMS = {
    "deeplab_v3_plus": {"steps": 10, "model.channels": 8},
    "fcn": {"steps": 5, "16s.steps": 3, "8s.steps": 2},  # three stages, whose networks grow
}
STEPS = 10


def arguments(data: Path, out: Path, system: str = "deeplab_v3_plus") -> list[str]:
    settings = {**SETTINGS, **SYSTEMS[system]}
    words = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    return ["train", system, "--data", f"masks:{data}", "--backbone", "mobilenet_v2", *words, "--out", str(out)]


def stop_after_steps(words: list[str], run: Path, steps: int, number: signal.Signals) -> int:
    """Start a run, send its group a signal once it has made so many steps, and return its exit code."""
    process = forked.start(*words)
    process.wait_until(lambda: len(log_of(run, "step")) >= steps)
    process.send_signal(number, to_group=True)
    ended = process.ended()
    assert "Traceback" not in ended.stderr
    return ended.returncode


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_masks_tree(tmp_path_factory.mktemp("drawn"), train=11, val=3)


@pytest.fixture(scope="module")
def whole_runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each system from start to end."""
    runs: dict[str, Path] = {}
    for system in SYSTEMS:
        out = runs[system] = tmp_path_factory.mktemp("whole") / "run"
        done = forked.run(*arguments(data, out, system), "--workers", "0")
        assert done.returncode == 0, done.stderr
        assert [step["step"] for step in log_of(out, "step")] == list(range(1, STEPS + 1))
    return runs


@pytest.mark.parametrize(
    ("system", "workers", "moments"),
    [
        # before anything was saved; within an epoch; within an evaluation; within a state; between the two renames of
        # best/
        (
            "deeplab_v3_plus",
            "0",
            [("step", 1), ("step", 3), ("evaluation", 2), ("write", 5), ("swap", 4), ("evaluation", 5)],
        ),
        # within the last evaluation of a stage; within the first state of the next; in the midst of it; as it begins
        ("fcn", "2", [("evaluation", 4), ("write", 7), ("step", 2), ("write", 10)]),
    ],
)
def test_a_run_killed_again_and_again_ends_with_the_same_weights(
    data: Path, whole_runs: dict[str, Path], tmp_path: Path, system: str, workers: str, moments: list[tuple[str, int]]
) -> None:
    out, whole = tmp_path / "run", whole_runs[system]
    resume = ["train", "--resume", str(out), "--workers", workers]
    for number, moment in enumerate(moments):
        words = resume if number else [*arguments(data, out, system), "--workers", workers]
        killed = Forked(killed_command_line, *moment, *words).ended()
        assert killed.returncode == -signal.SIGKILL, (moment, killed.stderr)
    if system == "deeplab_v3_plus":
        assert stop_after_steps(resume, out, len(log_of(out, "step")) + 1, signal.SIGTERM) == 143
    done = forked.run(*resume)
    assert done.returncode == 0, done.stderr
    assert weights_of(out) == weights_of(whole)
    assert not list(out.rglob(".*")), "nothing half-written is left behind"
    for mine, other in zip(log_of(out, "step"), log_of(whole, "step"), strict=True):
        assert (mine["step"], mine["loss"], mine["lr"]) == (other["step"], other["loss"], other["lr"])


def test_each_stage_is_built_with_its_arguments_and_ships_with_them(whole_runs: dict[str, Path]) -> None:
    run = whole_runs["fcn"]
    for name in ("best", "last"):
        card = json.loads((run / name / "model.json").read_text())
        assert (card["arguments"]["skips"], card["training"]["stage"]) == ("8s", "8s")
    assert [path.name for path in (run / "state").iterdir()] == ["2-8s"]
    predictor = load(run)
    assert len(predictor.model.score_skips) == 2


def test_ctrl_c_saves_the_state_and_says_how_to_go_on(data: Path, whole_runs: dict[str, Path], tmp_path: Path) -> None:
    whole = whole_runs["deeplab_v3_plus"]
    out = tmp_path / "run"
    assert stop_after_steps([*arguments(data, out), "--workers", "2"], out, 3, signal.SIGINT) == 130
    made = len(log_of(out, "step"))
    assert 3 <= made < 10
    assert (out / "last" / "model.safetensors").exists()
    again = forked.run(*arguments(data, out))
    assert again.returncode == 2
    assert f"--resume {out}" in again.stderr
    done = forked.run("train", "--resume", str(out))
    assert done.returncode == 0, done.stderr
    assert weights_of(out) == weights_of(whole)
    finished = forked.run("train", "--resume", str(out))
    assert finished.returncode == 0
    assert weights_of(out) == weights_of(whole)
