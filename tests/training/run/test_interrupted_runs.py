"""A run that is stopped or killed at any moment ends, once resumed, with the very weights of one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pixelwise.inference.load import load
from tests.drawn_scenes import write_masks_tree

pytestmark = pytest.mark.slow

KILLED_RUN = str(Path(__file__).with_name("killed_run.py"))
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


def pixelwise(*words: str, killed_at: tuple[str, int] | None = None) -> subprocess.CompletedProcess[str]:
    script = [KILLED_RUN, killed_at[0], str(killed_at[1])] if killed_at else ["-m", "pixelwise"]
    return subprocess.run([sys.executable, *script, *words], capture_output=True, text=True, timeout=300)


def stop_after_steps(words: list[str], run: Path, steps: int, number: signal.Signals) -> int:
    """Start a run in a process group of its own, send the group a signal once it has made `steps`, return its code."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pixelwise", *words], start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline and len(steps_of(run)) < steps:
        time.sleep(0.02)
    if process.poll() is None:
        os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=120)
    assert "Traceback" not in errors
    return process.returncode


def steps_of(run: Path) -> list[dict]:
    path = run / "log.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    events = [json.loads(line) for line in lines if line.endswith("}")]
    return [event for event in events if event["event"] == "step"]


def weights_of(run: Path) -> dict[str, bytes]:
    """Every weight file of the finished run: best, last, and the state with optimizer and average."""
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*.safetensors"))}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_masks_tree(tmp_path_factory.mktemp("drawn"), train=11, val=3)


@pytest.fixture(scope="module")
def whole_runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each system from start to end."""
    runs: dict[str, Path] = {}
    for system in SYSTEMS:
        out = runs[system] = tmp_path_factory.mktemp("whole") / "run"
        done = pixelwise(*arguments(data, out, system), "--workers", "0")
        assert done.returncode == 0, done.stderr
        assert [step["step"] for step in steps_of(out)] == list(range(1, STEPS + 1))
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
        killed = pixelwise(*words, killed_at=moment)
        assert killed.returncode == -signal.SIGKILL, (moment, killed.stderr)
    if system == "deeplab_v3_plus":
        assert stop_after_steps(resume, out, len(steps_of(out)) + 1, signal.SIGTERM) == 143
    done = pixelwise(*resume)
    assert done.returncode == 0, done.stderr
    assert weights_of(out) == weights_of(whole)
    assert not list(out.rglob(".*")), "nothing half-written is left behind"
    for mine, other in zip(steps_of(out), steps_of(whole), strict=True):
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
    made = len(steps_of(out))
    assert 3 <= made < 10
    assert (out / "last" / "model.safetensors").exists()
    again = pixelwise(*arguments(data, out))
    assert again.returncode == 2
    assert f"--resume {out}" in again.stderr
    done = pixelwise("train", "--resume", str(out))
    assert done.returncode == 0, done.stderr
    assert weights_of(out) == weights_of(whole)
    finished = pixelwise("train", "--resume", str(out))
    assert finished.returncode == 0
    assert weights_of(out) == weights_of(whole)
