"""`pixelwise predict` from end to end, on small images and a small network with random weights."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pixelwise.cli.app import main
from pixelwise.inference.model_folder import ModelCard, write_model
from pixelwise.labels import LabelSet
from pixelwise.models import deeplab_v3_plus
from pixelwise.ops import rle

LABELS = LabelSet.from_names("fruit", ["apple", "pear", "plum"])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    arguments = {"backbone": "mobilenet_v2", "channels": 8}
    module = deeplab_v3_plus.build(num_classes=3, **arguments)
    folder = tmp_path_factory.mktemp("models") / "random"
    card = ModelCard(
        task="semantic", system="deeplab_v3_plus", labels=LABELS, arguments=arguments, input_size=32, licence="CC0"
    )
    write_model(folder, module.state_dict(), card, half=True)
    return folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save_noise(path: Path, *, size: tuple[int, int] = (24, 20), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def save_broken(path: Path) -> Path:
    save_noise(path, size=(64, 64))
    path.write_bytes(path.read_bytes()[:-500])
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["pixelwise", "predict", *map(str, arguments)])
    with pytest.raises(SystemExit) as leaving:
        main()
    return int(leaving.value.code or 0)


def lines(out: Path) -> dict[str, dict]:
    records = [json.loads(line) for line in (out / "results.jsonl").read_text("utf-8").splitlines()]
    assert len({record["image"] for record in records}) == len(records)
    return {record["image"]: record for record in records}


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_folder(place: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    save_noise(place / "holiday" / "größe 1.jpg")
    save_noise(place / "holiday" / "sub" / "b.png", size=(7, 90))
    (place / "holiday" / "notes.txt").write_text("not an image")
    assert run(monkeypatch, "holiday/", "--model", model, "--out", "out") == 0
    captured = capsys.readouterr()
    assert captured.out == "out/  2 overlays, 2 masks, results.jsonl\n"
    assert captured.err == ""
    assert files_below(place / "out") == {
        "größe 1.overlay.png", "größe 1.semantic.png", "sub/b.overlay.png", "sub/b.semantic.png", "results.jsonl"
    }  # fmt: skip
    record = lines(place / "out")["holiday/sub/b.png"]
    assert record["size"] == [7, 90]
    assert record["model"] == str(model)
    assert record["labels"] == ["apple", "pear", "plum"]
    assert record["file"]["bytes"] == (place / "holiday" / "sub" / "b.png").stat().st_size
    assert record["options"]["input_size"] == 32
    with Image.open(place / "out" / "sub" / "b.semantic.png") as picture:
        mask = np.asarray(picture)
    assert mask.shape == (7, 90)
    assert sum(segment["area"] for segment in record["segments"]) == 7 * 90
    for segment in record["segments"]:
        assert np.array_equal(rle.decode(segment["rle"]), mask == segment["id"])


def test_broken_images_are_skipped_and_told(
    place: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    save_noise(place / "a" / "good.jpg")
    save_broken(place / "a" / "half.jpg")
    (place / "a" / "empty.png").write_bytes(b"")
    assert run(monkeypatch, "a", "--model", model) == 1
    captured = capsys.readouterr()
    told = captured.err.splitlines()
    assert told[0] == "2 of 3 failed:"
    assert told[1].startswith("  a/empty.png: ")
    assert told[2].startswith("  a/half.jpg: truncated JPEG")
    assert all(line.endswith("; skipped") for line in told[1:])
    assert len(told) == 3
    assert captured.out == "out/  1 overlay, 1 mask, results.jsonl\n"
    assert set(lines(place / "out")) == {"a/good.jpg"}


def test_nothing_but_broken_images(place: Path, model: Path, monkeypatch: pytest.MonkeyPatch):
    save_broken(place / "half.jpg")
    assert run(monkeypatch, "half.jpg", "--model", model, "--quiet") == 1


def test_an_image_above_the_limit_is_skipped(
    place: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    save_noise(place / "a.png", size=(50, 50))
    assert run(monkeypatch, "a.png", "--model", model, "--max-megapixels", "0.001") == 1
    assert "a.png: 0.0 megapixels" in capsys.readouterr().err
    assert run(monkeypatch, "a.png", "--model", model, "--max-megapixels", "0.0025") == 0


def test_a_second_run_does_only_what_is_not_done(
    place: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for index, name in enumerate("abc"):
        save_noise(place / "in" / f"{name}.png", seed=index)
    arguments = ("in", "--model", model)
    assert run(monkeypatch, *arguments) == 0
    before = (place / "out" / "results.jsonl").read_bytes()
    times = {path: path.stat().st_mtime_ns for path in (place / "out").iterdir()}
    capsys.readouterr()

    assert run(monkeypatch, *arguments) == 0
    captured = capsys.readouterr()
    assert captured.err == "3 of 3 done before, skipped; --overwrite redoes them\n"
    assert captured.out == "out/  3 overlays, 3 masks, results.jsonl\n"
    assert (place / "out" / "results.jsonl").read_bytes() == before
    assert {path: path.stat().st_mtime_ns for path in (place / "out").iterdir()} == times

    save_noise(place / "in" / "b.png", size=(30, 31), seed=9)
    (place / "out" / "c.overlay.png").unlink()
    assert run(monkeypatch, *arguments) == 0
    assert capsys.readouterr().err.startswith("1 of 3 done before")
    assert lines(place / "out")["in/b.png"]["size"] == [30, 31]
    assert (place / "out" / "c.overlay.png").is_file()

    for changed in (("--input-size", "40"), ("--tta",), ("--tile",), ("--score-threshold", "0.4"), ()):
        assert run(monkeypatch, *arguments, *changed) == 0
        assert capsys.readouterr().err == ""
        assert len(lines(place / "out")) == 3
    assert run(monkeypatch, *arguments, "--overwrite") == 0
    assert capsys.readouterr().err == ""
    assert len(lines(place / "out")) == 3


def test_a_torn_last_line_is_done_again(place: Path, model: Path, monkeypatch: pytest.MonkeyPatch):
    for name in "ab":
        save_noise(place / "in" / f"{name}.png")
    assert run(monkeypatch, "in", "--model", model) == 0
    path = place / "out" / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    assert run(monkeypatch, "in", "--model", model) == 0
    assert set(lines(place / "out")) == {"in/a.png", "in/b.png"}


def test_an_image_that_breaks_later_loses_its_line(place: Path, model: Path, monkeypatch: pytest.MonkeyPatch):
    save_noise(place / "a.jpg", size=(64, 64))
    assert run(monkeypatch, "a.jpg", "--model", model) == 0
    save_broken(place / "a.jpg")
    assert run(monkeypatch, "a.jpg", "--model", model) == 1
    assert lines(place / "out") == {}


def test_equal_stems_keep_their_suffix(place: Path, model: Path, monkeypatch: pytest.MonkeyPatch):
    save_noise(place / "in" / "a.png")
    save_noise(place / "in" / "a.jpg")
    assert run(monkeypatch, "in/*", "--model", model) == 0
    assert files_below(place / "out") >= {"a.png.overlay.png", "a.jpg.overlay.png"}
    assert "a.overlay.png" not in files_below(place / "out")


def test_another_image_of_the_same_name_takes_over(place: Path, model: Path, monkeypatch: pytest.MonkeyPatch):
    save_noise(place / "one" / "a.png")
    save_noise(place / "two" / "a.png", size=(8, 9))
    for folder in ("one", "two"):
        assert run(monkeypatch, folder, "--model", model) == 0
    assert set(lines(place / "out")) == {"two/a.png"}


def test_results_beside_the_images_are_never_images(place: Path, model: Path, monkeypatch: pytest.MonkeyPatch):
    save_noise(place / "a.png")
    for out in (".", "out"):
        for _ in range(2):
            assert run(monkeypatch, ".", "--model", model, "--out", out) == 0
            assert set(lines(place / out)) == {"a.png"}


def test_json_goes_to_stdout(
    place: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    save_noise(place / "in" / "a.png")
    save_broken(place / "in" / "b.jpg")
    for workers in (0, 3):
        code = run(monkeypatch, "in", "--model", model, "--json", "--workers", workers, "--overwrite")
        assert code == 1
        captured = capsys.readouterr()
        (line,) = captured.out.splitlines()
        assert json.loads(line) == lines(place / "out")["in/a.png"]
        assert captured.err.startswith("1 of 2 failed:")
    save_noise(place / "in" / "c.png")
    assert run(monkeypatch, "in", "--model", model, "--json", "--quiet") == 1
    assert [json.loads(line)["image"] for line in capsys.readouterr().out.splitlines()] == ["in/a.png", "in/c.png"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nothing.jpg",), "nothing.jpg: no such file"),
        (("empty",), "empty: no images there"),
        (("in/*.tif",), "no images there"),
        (("in", "--model", "nothing"), "nothing: no such model"),
        (("in", "--model", "in"), "in: holds no model"),
        (("in", "--model", "MODEL", "--task", "instance"), "instance was asked for"),
        (("in", "--model", "MODEL", "--input-size", "0"), "--input-size"),
        (("in", "--model", "MODEL", "--score-threshold", "2"), "--score-threshold"),
        (("in", "--model", "MODEL", "--device", "tpu"), "--device"),
        (("in", "--model", "MODEL", "--out", "in/a.png"), "in/a.png: results cannot be written"),
        (("in", "--model", "MODEL", "--colour"), "--colour"),
        (("--model", "MODEL"), "INPUT"),
    ],
)
def test_what_cannot_be_attempted_is_one_line_and_2(
    place: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    words: str,
):
    save_noise(place / "in" / "a.png")
    (place / "empty").mkdir()
    assert run(monkeypatch, *(str(model) if text == "MODEL" else text for text in arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert words in captured.err


@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk_is_one_line(
    place: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    workers: int,
):
    for name in "abcd":
        save_noise(place / "in" / f"{name}.png")

    def full(self, path, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    assert run(monkeypatch, "in", "--model", model, "--workers", workers) == 2
    captured = capsys.readouterr()
    assert captured.err == "pixelwise: out: results cannot be written (No space left on device); free some room or choose another --out\n"  # fmt: skip # noqa: E501
    assert files_below(place / "out") == {"results.jsonl"}


def test_a_name_too_long_for_its_results_is_skipped(place: Path, model: Path, monkeypatch: pytest.MonkeyPatch):
    save_noise(place / "in" / f"{'x' * 250}.png")
    save_noise(place / "in" / "a.png")
    assert run(monkeypatch, "in", "--model", model) == 1
    assert set(lines(place / "out")) == {"in/a.png"}


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pixelwise", "predict", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_lines(path: Path, count: int, process: subprocess.Popen[str]) -> None:
    for _ in range(6000):
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    pytest.fail("no results")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_an_interrupted_run_leaves_whole_results_and_is_resumed(
    place: Path, model: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
):
    total = 60
    for index in range(total):
        save_noise(place / "in" / f"{index:03}.png", size=(200, 300), seed=index)
    process = start("in", "--model", model, "--input-size", "128")
    wait_for_lines(place / "out" / "results.jsonl", 3, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    assert "Traceback" not in errors

    whole = [line for line in (place / "out" / "results.jsonl").read_text().split("\n") if line.endswith("}")]
    assert 3 <= len(whole) < total
    for line in whole:
        for name in json.loads(line)["files"]:
            with Image.open(place / "out" / name) as picture:
                picture.load()
    for path in (place / "out").glob("[!.]*.png"):
        with Image.open(path) as picture:
            picture.load()

    assert run(monkeypatch, "in", "--model", model, "--input-size", "128", "--quiet") == 0
    assert len(lines(place / "out")) == total


def test_help_is_quick():
    command = [sys.executable, "-X", "importtime", "-m", "pixelwise", "predict", "--help"]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--input-size" in finished.stdout
    assert "torch" not in {line.rsplit("|", 1)[-1].strip() for line in finished.stderr.splitlines()}
