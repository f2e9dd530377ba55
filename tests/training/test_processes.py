"""Two processes do what one would with the larger batch; the first alone speaks and writes; all stop together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

from tests.drawn_scenes import write_masks_tree

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
JOINT_GRADIENTS = str(Path(__file__).with_name("joint_gradients.py"))
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SETTINGS = {
    "steps": 8,
    "crop_size": 32,
    "input_size": 64,
    "evaluate_every": 4,
    "checkpoint_every": 3,
    "freeze_batch_norm": "true",
    "precision": "float32",
    "class_weights": "balanced",
    "model.channels": 8,
    "model.dropout": 0,
    "optimizer.name": "sgd",
    "optimizer.lr": 0.01,
}


def start(*command: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def ended(*command: str) -> subprocess.CompletedProcess[str]:
    process = start(*command)
    output, errors = process.communicate(timeout=400)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def arguments(data: Path, out: Path, **changes) -> list[str]:
    settings = [f"--set={name}={value}" for name, value in {**SETTINGS, **changes}.items()]
    words = ["train", "deeplab_v3_plus", "--data", f"masks:{data}", "--backbone", "mobilenet_v2", *settings]
    return ["-m", "pixelwise", *words, "--out", str(out), "--workers", "0", "--device", "cpu"]


def log_of(run: Path, event: str) -> list[dict]:
    path = run / "log.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    events = [json.loads(line) for line in lines if line.endswith("}")]
    return [content for content in events if content["event"] == event]


def weights_of(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*.safetensors"))}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_masks_tree(tmp_path_factory.mktemp("drawn"), train=7, val=3)


@pytest.fixture(scope="module")
def pair(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes, from start to end."""
    out = tmp_path_factory.mktemp("pair") / "run"
    done = ended(*TORCHRUN, *arguments(data, out, batch_size=2))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"{out}/  best/, last/, log.jsonl; val mean IoU") == 1
    assert done.stderr.count("7 images to train on, 3 to validate on") == 1
    assert "Warning" not in done.stderr
    return out


def test_two_processes_give_the_gradients_of_one(tmp_path: Path) -> None:
    alone = ended(sys.executable, JOINT_GRADIENTS, str(tmp_path / "one"))
    assert alone.returncode == 0, alone.stderr
    joint = ended(*TORCHRUN, JOINT_GRADIENTS, str(tmp_path / "two"))
    assert joint.returncode == 0, joint.stderr
    one, two = load_file(tmp_path / "one"), load_file(tmp_path / "two")
    assert one.keys() == two.keys()
    assert {"all:main.weight", "hard:auxiliary.bias", "plain:term aux"} <= one.keys()
    for key, value in one.items():
        assert value.abs().max() > 0, key
        assert (value - two[key]).abs().max() <= 1e-10 * value.abs().max(), key


def test_a_run_of_two_processes_is_that_of_one_with_the_double_batch(data: Path, pair: Path, tmp_path: Path) -> None:
    alone = ended(sys.executable, *arguments(data, tmp_path / "run", batch_size=4))
    assert alone.returncode == 0, alone.stderr
    files = sorted(str(path.relative_to(pair)) for path in pair.rglob("*") if path.is_file())
    assert files == sorted(str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").rglob("*.*"))
    assert json.loads((pair / "recipe.json").read_text())["processes"] == 2
    for mine, other in zip(log_of(pair, "step"), log_of(tmp_path / "run", "step"), strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-3)
    first, second = (load_file(run / "last" / "model.safetensors") for run in (pair, tmp_path / "run"))
    for key, value in first.items():
        assert (value - second[key]).abs().max() <= 1e-3 * max(1.0, float(value.abs().max())), key


def test_each_image_is_judged_once(data: Path, pair: Path) -> None:
    words = ["-m", "pixelwise", "evaluate", str(pair / "last"), "--data", f"masks:{data}", "--json", "--device", "cpu"]
    evaluated = ended(sys.executable, *words, "--workers", "0")
    assert evaluated.returncode == 0, evaluated.stderr
    metrics = json.loads(evaluated.stdout)["metrics"]
    logged = log_of(pair, "evaluation")[-1]["metrics"]
    assert {name: logged[name] for name in metrics} == pytest.approx(metrics, abs=1e-9)


def test_a_signal_to_one_process_stops_both_at_the_same_step_and_they_go_on(
    data: Path, pair: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = start(*TORCHRUN, *arguments(data, out, batch_size=2))
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline and len(log_of(out, "step")) < 2:
        time.sleep(0.02)
    workers = psutil.Process(process.pid).children()
    assert len(workers) == 2
    other = next(worker for worker in workers if worker.environ()["RANK"] == "1")
    other.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=200)
    assert process.returncode != 0
    resume = f"torchrun --nproc-per-node 2 -m pixelwise train --resume {out}"
    assert errors.count(f"stopped; the state is saved: {resume}") == 1
    made = log_of(out, "step")[-1]["step"]
    assert 2 <= made < SETTINGS["steps"]
    assert (out / "last" / "model.safetensors").exists()
    refused = ended(sys.executable, "-m", "pixelwise", "train", "--resume", str(out))
    assert refused.returncode == 2
    assert f"was started with 2 processes, here are 1, which is another batch: {resume}" in refused.stderr
    done = ended(*TORCHRUN, "-m", "pixelwise", "train", "--resume", str(out), "--workers", "0", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert [line["step"] for line in log_of(out, "step")] == list(range(1, SETTINGS["steps"] + 1))
    assert weights_of(out) == weights_of(pair)


def test_what_one_process_cannot_read_stops_both_with_one_line(data: Path, tmp_path: Path) -> None:
    broken = data / "train" / "003.png"
    content = broken.read_bytes()
    try:
        broken.write_bytes(content[:500])
        stopped = ended(*TORCHRUN, *arguments(data, tmp_path / "run", batch_size=2, class_weights="none"))
    finally:
        broken.write_bytes(content)
    assert stopped.returncode != 0
    assert stopped.stderr.count(f"pixelwise: {broken}: truncated PNG") == 1
    assert f'File "{REPOSITORY / "src"}' not in stopped.stderr  # no traceback through our own files
