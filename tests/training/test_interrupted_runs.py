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

from tests.drawn_scenes import write_masks_tree

pytestmark = pytest.mark.slow

KILLED_RUN = str(Path(__file__).with_name("killed_run.py"))
SETTINGS = {
    "steps": 10,
    "batch_size": 4,
    "crop_size": 48,
    "input_size": 64,
    "evaluate_every": 4,
    "checkpoint_every": 2,
    "model.channels": 8,
    "warmup_steps": 2,
    "ema_decay": 0.9,
}


def arguments(data: Path, out: Path) -> list[str]:
    settings = [part for name, value in SETTINGS.items() for part in ("--set", f"{name}={value}")]
    return [
        "train",
        "deeplab_v3_plus",
        "--data",
        f"masks:{data}",
        "--backbone",
        "mobilenet_v2",
        *settings,
        "--out",
        str(out),
    ]


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
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from start to end."""
    out = tmp_path_factory.mktemp("whole") / "run"
    done = pixelwise(*arguments(data, out), "--workers", "0")
    assert done.returncode == 0, done.stderr
    assert [step["step"] for step in steps_of(out)] == list(range(1, 11))
    return out


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_run_killed_again_and_again_ends_with_the_same_weights(
    data: Path, whole: Path, tmp_path: Path, workers: str
) -> None:
    out = tmp_path / "run"
    resume = ["train", "--resume", str(out), "--workers", workers]
    # before anything was saved; within an epoch; within an evaluation; within a state; between the two renames of best/
    moments = [("step", 1), ("step", 3), ("evaluation", 2), ("write", 5), ("swap", 4), ("evaluation", 5)]
    for number, moment in enumerate(moments):
        words = resume if number else [*arguments(data, out), "--workers", workers]
        killed = pixelwise(*words, killed_at=moment)
        assert killed.returncode == -signal.SIGKILL, (moment, killed.stderr)
    assert stop_after_steps(resume, out, len(steps_of(out)) + 1, signal.SIGTERM) == 143
    done = pixelwise(*resume)
    assert done.returncode == 0, done.stderr
    assert weights_of(out) == weights_of(whole)
    assert not list(out.rglob(".*")), "nothing half-written is left behind"
    for mine, other in zip(steps_of(out), steps_of(whole), strict=True):
        assert (mine["step"], mine["loss"], mine["lr"]) == (other["step"], other["loss"], other["lr"])


def test_ctrl_c_saves_the_state_and_says_how_to_go_on(data: Path, whole: Path, tmp_path: Path) -> None:
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
