"""Two processes do what one would with the larger batch; the first alone speaks and writes; all stop together."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests import forked
from tests.drawn_scenes import write_masks_tree
from tests.forked import Forked
from tests.training import joint_gradients
from tests.training.run_folder import log_of, weights_of

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")]

REPOSITORY = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SETTINGS = {
    "steps": 8,
    "crop_size": 32,
    "input_size": 64,
    "evaluate_every": 4,
    "checkpoint_every": 3,
    "freeze_batch_norm": "all",
    "precision": "float32",
    "class_weights": "balanced",
    "model.channels": 8,
    "model.dropout": 0,
    "optimizer.name": "sgd",
    "optimizer.lr": 0.01,
}


def start_pair(target: Callable[..., None], *arguments: object) -> list[Forked]:
    """Two processes with the environment that torchrun gives them."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [Forked(target, *arguments, RANK=rank, LOCAL_RANK=rank, **common) for rank in "01"]


def arguments(data: Path, out: Path, **changes) -> list[str]:
    settings = [f"--set={name}={value}" for name, value in {**SETTINGS, **changes}.items()]
    words = ["train", "deeplab_v3_plus", "--data", f"masks:{data}", "--backbone", "mobilenet_v2", *settings]
    return [*words, "--out", str(out), "--workers", "0", "--device", "cpu"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_masks_tree(tmp_path_factory.mktemp("drawn"), train=7, val=3)


@pytest.fixture(scope="module")
def pair(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes, from start to end, as torchrun starts them."""
    out = tmp_path_factory.mktemp("pair") / "run"
    command = [*TORCHRUN, "-m", "pixelwise", *arguments(data, out, batch_size=2)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"{out}/  best/, last/, log.jsonl; val mean IoU") == 1
    assert done.stderr.count("7 images to train on, 3 to validate on") == 1
    assert "Warning" not in done.stderr
    return out


def test_two_processes_give_the_gradients_of_one(tmp_path: Path) -> None:
    alone = Forked(joint_gradients.write_gradients, tmp_path / "one")
    joint = start_pair(joint_gradients.write_gradients, tmp_path / "two")
    for process in (alone, *joint):
        assert process.ended().returncode == 0, process.ended().stderr
    one, two = load_file(tmp_path / "one"), load_file(tmp_path / "two")
    assert one.keys() == two.keys()
    assert {"all:main.weight", "hard:auxiliary.bias", "plain:term aux"} <= one.keys()
    for key, value in one.items():
        assert value.abs().max() > 0, key
        assert (value - two[key]).abs().max() <= 1e-10 * value.abs().max(), key


def test_a_run_of_two_processes_is_that_of_one_with_the_double_batch(data: Path, pair: Path, tmp_path: Path) -> None:
    alone = forked.run(*arguments(data, tmp_path / "run", batch_size=4))
    assert alone.returncode == 0, alone.stderr
    files = sorted(str(path.relative_to(pair)) for path in pair.rglob("*") if path.is_file())
    assert files == sorted(str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").rglob("*.*"))
    assert json.loads((pair / "recipe.json").read_text())["processes"] == 2
    for mine, other in zip(log_of(pair, "step"), log_of(tmp_path / "run", "step"), strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-3)
    first, second = (load_file(run / "last" / "model.safetensors") for run in (pair, tmp_path / "run"))
    for key, value in first.items():
        assert (value - second[key]).abs().max() <= 1e-3 * max(1.0, float(value.abs().max())), key


def test_each_image_is_evaluated_once(data: Path, pair: Path) -> None:
    words = ["evaluate", pair / "last", "--data", f"masks:{data}", "--json", "--device", "cpu", "--workers", "0"]
    evaluated = forked.run(*words)
    assert evaluated.returncode == 0, evaluated.stderr
    metrics = json.loads(evaluated.stdout)["metrics"]
    logged = log_of(pair, "evaluation")[-1]["metrics"]
    assert {name: logged[name] for name in metrics} == pytest.approx(metrics, abs=1e-9)


def test_a_signal_to_one_process_stops_both_at_the_same_step_and_they_go_on(
    data: Path, pair: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    first, second = start_pair(forked.command_line, *arguments(data, out, batch_size=2))
    first.wait_until(lambda: len(log_of(out, "step")) >= 2)
    second.send_signal(signal.SIGTERM)
    assert (first.ended().returncode, second.ended().returncode) == (143, 143)
    resume = f"torchrun --nproc-per-node 2 -m pixelwise train --resume {out}"
    assert first.ended().stderr.count(f"stopped; the state is saved: {resume}") == 1
    assert second.ended().stderr == ""
    made = log_of(out, "step")[-1]["step"]
    assert 2 <= made < SETTINGS["steps"]
    assert (out / "last" / "model.safetensors").exists()
    refused = forked.run("train", "--resume", out)
    assert refused.returncode == 2
    assert f"was started with 2 processes, here are 1, which is another batch: {resume}" in refused.stderr
    for process in start_pair(forked.command_line, "train", "--resume", str(out), "--workers", "0", "--device", "cpu"):
        assert process.ended().returncode == 0, process.ended().stderr
    assert [line["step"] for line in log_of(out, "step")] == list(range(1, SETTINGS["steps"] + 1))
    assert weights_of(out) == weights_of(pair)


def test_what_one_process_cannot_read_stops_both_with_one_line(data: Path, tmp_path: Path) -> None:
    broken = data / "train" / "003.png"
    content = broken.read_bytes()
    try:
        broken.write_bytes(content[:500])
        words = arguments(data, tmp_path / "run", batch_size=2, class_weights="none")
        stopped = [process.ended() for process in start_pair(forked.command_line, *words)]
    finally:
        broken.write_bytes(content)
    assert all(process.returncode > 0 for process in stopped)
    errors = "".join(process.stderr for process in stopped)
    assert errors.count(f"pixelwise: {broken}: truncated PNG") == 1
    assert f'File "{REPOSITORY / "src"}' not in errors  # no traceback through our own files
