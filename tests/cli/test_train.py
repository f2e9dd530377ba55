"""`pixelwise train` as a user meets it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision.models import mobilenet_v2

from pixelwise.cli.train import _Display
from pixelwise.contracts import Recipe, Stage
from pixelwise.inference.load import load
from pixelwise.training.fit import Step
from pixelwise.training.run.plan import Plan
from pixelwise.training.run.validation import Evaluated
from tests import forked
from tests.drawn_scenes import write_masks_tree

pytestmark = pytest.mark.slow
SMALL = ["--backbone", "mobilenet_v2", "--workers", "0"]
for setting in ["steps=3", "batch_size=2", "crop_size=32", "input_size=64", "model.channels=8", "evaluate_every=2"]:
    SMALL += ["--set", setting]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_masks_tree(tmp_path_factory.mktemp("drawn"), train=5, val=2)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("backbone") / "mobilenet_v2.safetensors"
    save_file(mobilenet_v2(weights=None).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def finished(data: Path, backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    done = forked.run(
        "train", "deeplab_v3_plus", "--data", f"masks:{data}", "--init", backbone, "--tensorboard", "--out", out, *SMALL
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{out}/  best/, last/, log.jsonl; val mean IoU 0.")
    assert "5 images to train on, 2 to validate on; 4 classes" in done.stderr
    return out


def test_the_run_folder_says_what_was_done(finished: Path, data: Path, backbone: Path) -> None:
    recipe = json.loads((finished / "recipe.json").read_text())
    assert recipe["data"] == [f"masks:{data}"]
    assert recipe["init"] == str(backbone)
    assert recipe["recipe"]["stages"][0]["steps"] == 3
    assert recipe["recipe"]["precision"] in ("float32", "bfloat16")
    assert recipe["arguments"]["channels"] == 8
    assert recipe["revision"].startswith("0.")
    assert "train deeplab_v3_plus" in recipe["command"]
    log = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert [(line["event"], line["step"]) for line in log] == [
        ("step", 1),
        ("step", 2),
        ("evaluation", 2),
        ("step", 3),
        ("evaluation", 3),
    ]
    assert log[0]["terms"].keys() == {"main"}
    assert log[0]["images_per_second"] > 0
    assert 0 <= log[2]["metrics"]["mean_iou"] <= 1
    assert list((finished / "tensorboard").glob("events.*"))


def test_best_is_the_better_of_the_evaluations(finished: Path) -> None:
    log = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    scores = [line["metrics"]["mean_iou"] for line in log if line["event"] == "evaluation"]
    best, last = (json.loads((finished / name / "model.json").read_text()) for name in ("best", "last"))
    assert best["scores"]["mean_iou"] == max(scores)
    assert last["scores"]["mean_iou"] == scores[-1]
    assert last["training"]["step"] == 3
    assert (best["resize"]["side"], best["resize"]["length"]) == ("long", 64)
    assert best["labels"]["names"] == ["background", "disc", "square", "triangle"]


def test_the_backbone_began_from_the_file(finished: Path, backbone: Path) -> None:
    given, trained = load_file(backbone), load_file(finished / "last" / "model.safetensors")
    first = "features.0.0.weight"
    assert (given[first] - trained[f"backbone.{first}"]).abs().max() < 0.01


def test_a_run_continues_in_another_and_drops_a_head_for_other_classes(
    finished: Path, data: Path, tmp_path: Path
) -> None:
    names = (data / "labels.txt").read_text()
    try:
        (data / "labels.txt").write_text(names + "star\n")
        words = [
            "--data",
            f"masks:{data}",
            "--init",
            finished,
            "--out",
            tmp_path / "next",
            *SMALL,
            "--set",
            "optimizer.lr=0",
        ]
        done = forked.run("train", "deeplab_v3_plus", *words, "--set", "ema_decay=0")
    finally:
        (data / "labels.txt").write_text(names)
    assert done.returncode == 0, done.stderr
    before = load_file(finished / "best" / "model.safetensors")
    after = load_file(tmp_path / "next" / "last" / "model.safetensors")
    key = "aspp.project.0.weight"
    assert (before[key] - after[key]).abs().max() == 0
    assert after["classifier.weight"].shape[0] == 5


def test_what_ships_is_tuned_to_other_classes(data: Path, tmp_path: Path) -> None:
    words = ["train", "deeplab_v3_plus", "--backbone", "mobilenet_v2", "--init", "default", "--data", f"masks:{data}"]
    settings = ["steps=1", "batch_size=2", "crop_size=32", "input_size=64", "optimizer.lr=0", "ema_decay=0"]
    done = forked.run(*words, "--workers", "0", "--out", tmp_path / "run", *[f"--set={value}" for value in settings])
    assert done.returncode == 0, done.stderr
    kept = "--init default: classifier.weight, classifier.bias keep the rows of background; its classes differ (21"
    assert kept in done.stderr
    before = load("default").model.state_dict()
    after = load_file(tmp_path / "run" / "last" / "model.safetensors")
    assert (before["decoder.refine.1.0.weight"] - after["decoder.refine.1.0.weight"]).abs().max() == 0
    assert after["classifier.weight"].shape[0] == 4
    assert torch.equal(after["classifier.weight"][0], before["classifier.weight"][0]), "both have a background"
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert recipe["init"] == "default"


def test_the_line_of_a_run_names_every_term(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    plan = Plan("pspnet", {}, Recipe(stages=(Stage(steps=40),)), ("masks:x",))
    with _Display(plan, quiet=False) as display:
        display.show(Step(7, 0.4122, {"main": 0.331, "aux": 0.203}, 0.01, 0.0, 8))
        display.show(Evaluated(7, {"mean_iou": 0.25}, best=True, chosen_by="mean_iou"))
        assert display.progress is not None
        task = display.progress.tasks[0]
    assert (task.completed, task.total) == (7, 40)
    assert task.description == "loss 0.412 (main 0.331 aux 0.203) · val mean IoU 0.250 at 7 (best)"


def test_models_shows_every_stage_and_variants() -> None:
    rows = json.loads(forked.run("models", "fcn", "--json").stdout)
    values = {row["--set"]: (row["here"], row["paper"]) for row in rows}
    assert {"32s.steps", "16s.steps", "8s.optimizer.lr", "32s.model.skips", "model.backbone"} <= values.keys()
    assert values["8s.optimizer.lr"][1] == "1e-14"


def test_two_sets_are_trained_on_together_through_a_map(data: Path, tmp_path: Path) -> None:
    other = write_masks_tree(tmp_path / "other", train=3, val=1)
    (other / "labels.txt").write_text("background\ncircle\nsquare\ntriangle\n")
    words = [
        "train",
        "deeplab_v3_plus",
        "--data",
        f"masks:{data}",
        "--data",
        f"masks:{other}@train",
        "--out",
        tmp_path / "run",
    ]
    refused = forked.run(*words, *SMALL)
    assert refused.returncode == 2
    assert "label sets differ" in refused.stderr
    assert "disc" in refused.stderr
    assert "circle" in refused.stderr
    assert not (tmp_path / "run").exists()
    (tmp_path / "map.toml").write_text('[names]\ncircle = "disc"\n')
    done = forked.run(*words, *SMALL, "--map", tmp_path / "map.toml")
    assert done.returncode == 0, done.stderr
    assert "8 images to train on, 2 to validate on" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "stepz=3"], "did you mean steps?"),
        (["--set", "sync_batch_norm=true", "--device", "cpu"], "sync_batch_norm=true needs CUDA"),
        (["--backbone", "vgg99"], "backbone 'vgg99': one of resnet18"),
        (["--init", "nowhere.safetensors"], "--init nowhere.safetensors: no such file or folder"),
        (["--data", "masks:/no/such/place"], "no folder /no/such/place"),
        (["--data", "vok:/tmp"], "data format 'vok' is not known"),
    ],
)
def test_bad_words_are_refused_in_one_line_before_anything_is_made(
    data: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    given = [] if "--data" in words else ["--data", f"masks:{data}"]
    done = forked.run("train", "deeplab_v3_plus", *given, *SMALL, *words, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    assert "expected SYSTEM, --data and --out" in forked.run("train").stderr
    unknown = forked.run("train", "deeplab_v9", "--data", "voc:x", "--out", tmp_path / "run")
    assert unknown.returncode == 2
    assert "there is no system 'deeplab_v9'; there are: " in unknown.stderr
    assert "deeplab_v3_plus" in unknown.stderr
    nothing = forked.run("train", "--resume", tmp_path)
    assert nothing.returncode == 2
    assert "no recipe.json" in nothing.stderr


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_broken_image_stops_the_run_in_one_line_and_repaired_it_goes_on(
    data: Path, tmp_path: Path, workers: str
) -> None:
    broken = data / "train" / "003.png"
    content = broken.read_bytes()
    try:
        broken.write_bytes(content[:500])
        words = ["train", "deeplab_v3_plus", "--data", f"masks:{data}", "--out", tmp_path / "run", *SMALL]
        stopped = forked.run(*words, "--workers", workers, "--quiet")
    finally:
        broken.write_bytes(content)
    assert stopped.returncode == 2
    assert stopped.stderr.startswith(f"pixelwise: {broken}: truncated PNG")
    assert stopped.stderr.count("\n") == 1
    assert "data check" in stopped.stderr
    done = forked.run("train", "--resume", tmp_path / "run", "--workers", workers)
    assert done.returncode == 0, done.stderr
    assert "the backbone starts at random" not in done.stderr
