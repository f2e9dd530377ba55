"""`pixelwise predict` on videos from end to end, with a small network of random weights."""

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pixelwise.inference.model_folder import ModelCard, write_model
from pixelwise.models import yolact
from pixelwise.ops.resize_rule import ResizeRule
from tests import forked
from tests.cli.conftest import LABELS, Predict
from tests.small_videos import cut, read_video, squares, write_video


def records(path: Path) -> list[dict]:
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def test_a_clip_into_a_video(place: Path, model: Path, predict: Predict, capsys: pytest.CaptureFixture[str]):
    write_video(place / "clip.mp4", squares(9, size=(33, 47)), sound=True)
    assert predict("clip.mp4", "--model", model, "--out", "made/out.mp4") == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("made/out.mp4  9 frames, ")
    assert captured.out.endswith(" frames/s, made/out.jsonl\n")
    assert captured.err == "clip.mp4: its sound is not copied\n"
    lines = records(place / "made" / "out.jsonl")
    assert [line["frame"] for line in lines] == list(range(9))
    assert lines[0]["size"] == [33, 47]
    assert sum(segment["area"] for segment in lines[0]["segments"]) == 33 * 47
    pictures, times = read_video(place / "made" / "out.mp4")
    assert pictures[0].shape == (34, 48, 3)
    assert np.diff(times) == pytest.approx([0.04] * 8, abs=1e-4)

    assert predict("clip.mp4", "--model", model, "--out", "made/out.mp4") == 0
    captured = capsys.readouterr()
    assert captured.err == "made/out.mp4: done before, skipped; --overwrite redoes it\n"
    assert captured.out == "made/out.mp4  9 frames, made/out.jsonl\n"
    other = ("--input-size", 40)
    assert predict("clip.mp4", "--model", model, "--out", "made/out.mp4", *other) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "was begun with other options (input_size 32, now 40); --overwrite begins anew" in told
    assert predict("clip.mp4", "--model", model, "--out", "made/out.mp4", *other, "--overwrite") == 0


def test_lines_on_stdout(place: Path, model: Path, predict: Predict, capsys: pytest.CaptureFixture[str]):
    write_video(place / "clip.mp4", squares(5))
    for _ in range(2):  # a second run prints what is done already
        assert predict("clip.mp4", "--model", model, "--out", "out.mp4", "--json", "--quiet") == 0
        captured = capsys.readouterr()
        assert captured.out == (place / "out.jsonl").read_text("utf-8")
        assert captured.err == ""
    assert [json.loads(line)["frame"] for line in captured.out.splitlines()] == list(range(5))


def test_a_folder_and_a_pattern_of_frames(
    place: Path, model: Path, predict: Predict, capsys: pytest.CaptureFixture[str]
):
    (place / "frames" / "below").mkdir(parents=True)
    for index, picture in enumerate(squares(11)):
        Image.fromarray(picture).save(place / "frames" / f"{index}.png")
    Image.fromarray(squares(1)[0]).save(place / "frames" / "below" / "other.png")
    assert predict("frames", "--model", model, "--out", "a.mp4", "--frame-rate", 10) == 0
    pictures, times = read_video(place / "a.mp4")
    assert len(pictures) == 11
    assert np.diff(times) == pytest.approx([0.1] * 10, abs=1e-4)
    assert predict("frames/?.png", "--model", model, "--out", "b.mp4") == 0
    assert records(place / "b.jsonl")[9]["segments"] == records(place / "a.jsonl")[9]["segments"]
    assert len(records(place / "b.jsonl")) == 10


def test_videos_and_images_in_one_call(place: Path, model: Path, predict: Predict, capsys: pytest.CaptureFixture[str]):
    folder = place / "holiday"
    (folder / "sub").mkdir(parents=True)
    write_video(folder / "a.mp4", squares(4))
    write_video(folder / "a.mkv", squares(5))
    write_video(folder / "sub" / "results.mp4", squares(3))
    write_video(folder / "results.mp4", squares(3))
    Image.fromarray(squares(1)[0]).save(folder / "b.png")
    for _ in range(2):  # results that lie in the folder are no inputs of the second run
        assert predict("holiday", "--model", model, "--out", "holiday") == 0
        captured = capsys.readouterr()
        assert captured.out.splitlines()[-1] == "holiday/  1 overlay, 1 mask, results.jsonl"
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if path.name[0] != "."}
    assert written == {
        "a.mp4", "a.mp4.overlay.mp4", "a.mp4.jsonl", "a.mkv", "a.mkv.overlay.mp4", "a.mkv.jsonl", "b.png",
        "b.overlay.png", "b.semantic.png", "results.jsonl", "results.mp4",
        "results.mp4.overlay.mp4", "results.mp4.jsonl",
        "sub/results.mp4", "sub/results.overlay.mp4", "sub/results.jsonl",
    }  # fmt: skip
    assert len(records(folder / "a.mkv.jsonl")) == 5
    assert records(folder / "results.jsonl")[0]["image"] == "holiday/b.png"


def test_damaged_videos_are_told(place: Path, model: Path, predict: Predict, capsys: pytest.CaptureFixture[str]):
    pictures = [np.random.default_rng(index).integers(0, 256, (32, 48, 3), np.uint8) for index in range(40)]
    cut(write_video(place / "cut.mp4", pictures, index_first=True), 0.6)
    (place / "none.mp4").write_bytes(b"nothing" * 100)
    assert predict("cut.mp4", "--model", model, "--out", "out.mp4") == 1
    told = capsys.readouterr().err
    assert told.startswith("pixelwise: cut.mp4: truncated; its last good frame is ")
    assert told.count("\n") == 1
    count = len(records(place / "out.jsonl"))
    assert len(read_video(place / "out.mp4")[0]) == count >= 15
    assert f"last good frame is {count - 1}, " in told

    assert predict("cut.mp4", "none.mp4", "--model", model) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "2 of 2 failed:"
    assert told[1].startswith("  none.mp4: not a video, or one without a frame (700 bytes; ")
    assert told[1].endswith("; skipped")
    assert told[2].startswith("  cut.mp4: truncated; its last good frame is ")
    assert len(read_video(place / "out" / "cut.overlay.mp4")[0]) == count


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("none.mp4",), "none.mp4: not a video, or one without a frame (700 bytes; "),
        (("none.mp4", "--out", "out.mp4"), "none.mp4: not a video, or one without a frame (700 bytes; "),
        (("gone.mp4",), "gone.mp4: no such file or folder"),
        (("clip.mp4", "--out", "out.avi"), "--out out.avi: videos are written as .mp4, .m4v, .mov"),
        (("clip.mp4", "--out", "clip.mp4"), "--out clip.mp4: is the clip itself"),
        (("clip.mp4", "a.png", "--out", "out.mp4"), "--out out.mp4: holds one clip, and there are 2 inputs"),
        (("a.png", "--out", "out.mp4"), "--out out.mp4: a.png is an image and not a clip"),
        (("empty", "--out", "out.mp4"), "empty: no images there for the frames of a clip"),
        (("clip.mp4", "--track"), "is a model for semantic segmentation, without instances"),
        (("a.png", "--track"), "--track: tracks instances in videos, and there is no video"),
    ],
)
def test_what_cannot_be_attempted(
    place: Path,
    model: Path,
    predict: Predict,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    told: str,
):
    write_video(place / "clip.mp4", squares(3))
    Image.fromarray(squares(1)[0]).save(place / "a.png")
    (place / "none.mp4").write_bytes(b"nothing" * 100)
    (place / "empty").mkdir()
    before = (place / "clip.mp4").read_bytes()
    assert predict(*arguments, "--model", model) == 2
    captured = capsys.readouterr()
    assert told in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert (place / "clip.mp4").read_bytes() == before
    assert not list(place.glob("out*"))


def test_a_file_in_the_place_of_a_folder(
    place: Path, model: Path, predict: Predict, capsys: pytest.CaptureFixture[str]
):
    write_video(place / "clip.mp4", squares(3))
    (place / "notes").write_text("mine")
    assert predict("clip.mp4", "--model", model, "--out", "notes/below/out.mp4") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "pixelwise: notes: is a file, expected a folder for results; choose another --out\n"
    assert predict("clip.mp4", "--model", model, "--out", f"{'long' * 64}.mp4") == 2
    assert "File name too long" in capsys.readouterr().err
    assert (place / "notes").read_text() == "mine"


def test_objects_are_followed(place: Path, predict: Predict, capsys: pytest.CaptureFixture[str]):
    torch.manual_seed(0)
    arguments = {"backbone": "resnet18", "channels": 16, "prototypes": 8}
    card = ModelCard(
        task="instance",
        system="yolact",
        labels=LABELS,
        arguments=arguments,
        resize=ResizeRule(length=64),
        licence="CC0",
    )
    write_model(place / "model", yolact.build(num_classes=3, **arguments).state_dict(), card)
    write_video(place / "clip.mp4", squares(4))
    threshold = ("--score-threshold", 0, "--max-detections", 5)
    assert predict("clip.mp4", "--model", "model", "--out", "out.mp4", "--track", *threshold) == 0
    lines = records(place / "out.jsonl")
    assert all(line["segments"] for line in lines)
    tracks = [{segment["track_id"] for segment in line["segments"]} for line in lines]
    assert None not in set.union(*tracks)
    assert tracks[0] & tracks[1]


@pytest.mark.parametrize(("number", "times", "code"), [(signal.SIGINT, 2, 130), (signal.SIGTERM, 1, 143)])
def test_an_interrupted_clip_is_gone_on_with(
    place: Path, model: Path, predict: Predict, number: int, times: int, code: int
):
    write_video(place / "clip.mp4", squares(80))
    arguments = ("clip.mp4", "--model", model)
    process = forked.start("predict", *arguments, "--out", "out.mp4", "--json")
    process.wait_until(lambda: process.out.exists() and process.out.read_text().count("\n") >= 5)
    for _ in range(times):
        process.send_signal(number)
        time.sleep(0.01)
    ended = process.ended()
    assert ended.returncode == code
    assert "Traceback" not in ended.stderr
    before = len(records(place / "out.jsonl"))
    assert 5 <= before < 80
    assert len(read_video(place / "out.mp4")[0]) == before
    assert predict(*arguments, "--out", "out.mp4", "--quiet") == 0
    assert predict(*arguments, "--out", "whole.mp4", "--quiet") == 0
    assert records(place / "out.jsonl") == records(place / "whole.jsonl")
    assert read_video(place / "out.mp4")[1] == read_video(place / "whole.mp4")[1]
