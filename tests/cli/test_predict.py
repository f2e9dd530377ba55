"""`pixelwise predict` from end to end, on small images and a small network with random weights."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from pixelwise.inference.image_input import image_tensor
from pixelwise.inference.images import predict as predict_files
from pixelwise.inference.model_folder import read_model
from pixelwise.ops import rle
from tests import forked
from tests.cli.conftest import Predict
from tests.forked import Forked


def save_noise(path: Path, *, size: tuple[int, int] = (24, 20), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def save_broken(path: Path) -> Path:
    save_noise(path, size=(64, 64))
    path.write_bytes(path.read_bytes()[:-500])
    return path


def lines(out: Path) -> dict[str, dict]:
    records = [json.loads(line) for line in (out / "results.jsonl").read_text("utf-8").splitlines()]
    assert len({record["image"] for record in records}) == len(records)
    return {record["image"]: record for record in records}


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_folder(place: Path, model: Path, predict: Predict, capsys: pytest.CaptureFixture[str]):
    save_noise(place / "holiday" / "größe 1.jpg")
    save_noise(place / "holiday" / "sub" / "b.png", size=(7, 90))
    (place / "holiday" / "notes.txt").write_text("not an image")
    assert predict("holiday/", "--model", model, "--out", "out") == 0
    captured = capsys.readouterr()
    assert captured.out == "out/  2 overlays, 2 masks, results.jsonl\n"
    assert captured.err == "1 file skipped by its suffix: 1 .txt\n"
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
    place: Path, model: Path, predict: Predict, capsys: pytest.CaptureFixture[str]
):
    save_noise(place / "a" / "good.jpg")
    save_broken(place / "a" / "half.jpg")
    (place / "a" / "empty.png").write_bytes(b"")
    assert predict("a", "--model", model) == 1
    captured = capsys.readouterr()
    told = captured.err.splitlines()
    assert told[0] == "2 of 3 failed:"
    assert told[1].startswith("  a/empty.png: ")
    assert told[2].startswith("  a/half.jpg: truncated JPEG")
    assert all(line.endswith("; skipped") for line in told[1:])
    assert len(told) == 3
    assert captured.out == "out/  1 overlay, 1 mask, results.jsonl\n"
    assert set(lines(place / "out")) == {"a/good.jpg"}


def test_a_model_that_gives_no_numbers_fails_by_image_and_writes_nothing(
    place: Path, model: Path, predict: Predict, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    module, card = read_model(model)
    with torch.no_grad():
        next(module.parameters()).fill_(float("inf"))
    monkeypatch.setattr("pixelwise.inference.load.read_model", lambda _: (module, card))
    save_noise(place / "a.png")
    assert predict("a.png", "--model", model, "--out", "out") == 1
    assert "a.png: the model's scores or boxes are NaN or infinite" in capsys.readouterr().err
    assert files_below(place / "out") == {"results.jsonl"}
    assert lines(place / "out") == {}


def test_animations_and_files_of_other_kinds_are_told(
    place: Path, model: Path, predict: Predict, capsys: pytest.CaptureFixture[str]
):
    frames = [Image.new("RGB", (9, 8), (value, 0, 0)) for value in (0, 80, 160)]
    (place / "in").mkdir()
    frames[0].save(place / "in" / "a.gif", save_all=True, append_images=frames[1:])
    save_noise(place / "in" / "b.jfif")
    (place / "in" / "c.svg").write_text("<svg/>")
    (place / "in" / "d.overlay.png").write_bytes(b"x")
    assert predict("in", "--model", model, "--out", "out") == 0
    assert capsys.readouterr().err.splitlines() == [
        "1 file skipped by its suffix: 1 .svg",
        "1 file skipped, named as results are (such as .overlay.png)",
        "first frame alone predicted, the others skipped: in/a.gif has 3",
    ]
    assert files_below(place / "out") >= {"a.overlay.png", "b.overlay.png"}
    assert predict("in", "--model", model, "--out", "out", "--quiet") == 0
    assert capsys.readouterr().err == ""


def test_nothing_but_broken_images(place: Path, model: Path, predict: Predict):
    save_broken(place / "half.jpg")
    assert predict("half.jpg", "--model", model, "--quiet") == 1


def test_an_image_above_the_limit_is_skipped(
    place: Path, model: Path, predict: Predict, capsys: pytest.CaptureFixture[str]
):
    save_noise(place / "a.png", size=(50, 50))
    assert predict("a.png", "--model", model, "--max-megapixels", "0.001") == 1
    assert "a.png: 0.0 megapixels" in capsys.readouterr().err
    assert predict("a.png", "--model", model, "--max-megapixels", "0.0025") == 0


def test_a_second_run_does_only_what_is_not_done(
    place: Path, model: Path, predict: Predict, capsys: pytest.CaptureFixture[str]
):
    for index, name in enumerate("abc"):
        save_noise(place / "in" / f"{name}.png", seed=index)
    arguments = ("in", "--model", model)
    assert predict(*arguments) == 0
    before = (place / "out" / "results.jsonl").read_bytes()
    times = {path: path.stat().st_mtime_ns for path in (place / "out").iterdir()}
    capsys.readouterr()

    assert predict(*arguments) == 0
    captured = capsys.readouterr()
    assert captured.err == "3 of 3 done before, skipped; --overwrite redoes them\n"
    assert captured.out == "out/  3 overlays, 3 masks, results.jsonl\n"
    assert (place / "out" / "results.jsonl").read_bytes() == before
    assert {path: path.stat().st_mtime_ns for path in (place / "out").iterdir()} == times

    save_noise(place / "in" / "b.png", size=(30, 31), seed=9)
    (place / "out" / "c.overlay.png").unlink()
    assert predict(*arguments) == 0
    assert capsys.readouterr().err.startswith("1 of 3 done before")
    assert lines(place / "out")["in/b.png"]["size"] == [30, 31]
    assert (place / "out" / "c.overlay.png").is_file()

    for changed in (("--input-size", "40"), ("--tta",), ("--tile",), ("--score-threshold", "0.4"), ()):
        assert predict(*arguments, *changed) == 0
        assert capsys.readouterr().err == ""
        assert len(lines(place / "out")) == 3
    assert predict(*arguments, "--overwrite") == 0
    assert capsys.readouterr().err == ""
    assert len(lines(place / "out")) == 3


def test_a_torn_last_line_is_done_again(place: Path, model: Path, predict: Predict):
    for name in "ab":
        save_noise(place / "in" / f"{name}.png")
    assert predict("in", "--model", model) == 0
    path = place / "out" / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    assert predict("in", "--model", model) == 0
    assert set(lines(place / "out")) == {"in/a.png", "in/b.png"}


def test_an_image_that_breaks_later_loses_its_line(place: Path, model: Path, predict: Predict):
    save_noise(place / "a.jpg", size=(64, 64))
    assert predict("a.jpg", "--model", model) == 0
    save_broken(place / "a.jpg")
    assert predict("a.jpg", "--model", model) == 1
    assert lines(place / "out") == {}


def test_equal_stems_keep_their_suffix(place: Path, model: Path, predict: Predict):
    save_noise(place / "in" / "a.png")
    save_noise(place / "in" / "a.jpg")
    assert predict("in/*", "--model", model) == 0
    assert files_below(place / "out") >= {"a.png.overlay.png", "a.jpg.overlay.png"}
    assert "a.overlay.png" not in files_below(place / "out")


def test_another_image_of_the_same_name_takes_over(place: Path, model: Path, predict: Predict):
    save_noise(place / "one" / "a.png")
    save_noise(place / "two" / "a.png", size=(8, 9))
    for folder in ("one", "two"):
        assert predict(folder, "--model", model) == 0
    assert set(lines(place / "out")) == {"two/a.png"}


def test_results_beside_the_images_are_never_images(place: Path, model: Path, predict: Predict):
    save_noise(place / "a.png")
    for out in (".", "out"):
        for _ in range(2):
            assert predict(".", "--model", model, "--out", out) == 0
            assert set(lines(place / out)) == {"a.png"}


def test_json_goes_to_stdout(place: Path, model: Path, predict: Predict, capsys: pytest.CaptureFixture[str]):
    save_noise(place / "in" / "a.png")
    save_broken(place / "in" / "b.jpg")
    for workers in (0, 3):
        code = predict("in", "--model", model, "--json", "--workers", workers, "--overwrite")
        assert code == 1
        captured = capsys.readouterr()
        (line,) = captured.out.splitlines()
        assert json.loads(line) == lines(place / "out")["in/a.png"]
        assert captured.err.startswith("1 of 2 failed:")
    save_noise(place / "in" / "c.png")
    assert predict("in", "--model", model, "--json", "--quiet") == 1
    assert [json.loads(line)["image"] for line in capsys.readouterr().out.splitlines()] == ["in/a.png", "in/c.png"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nothing.jpg",), "nothing.jpg: no such file"),
        (("empty",), "empty: no images there"),
        (("in/*.tif",), "no images there"),
        (("in", "--model", "nothing"), "nothing: no such model"),
        (("in", "--model", "in"), "in: holds no model"),
        (("in", "--model", "MODEL", "--task", "instance"), "a model for semantic segmentation, expected instance"),
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
    predict: Predict,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    words: str,
):
    save_noise(place / "in" / "a.png")
    (place / "empty").mkdir()
    assert predict(*(str(model) if text == "MODEL" else text for text in arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert words in captured.err


@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk_is_one_line(
    place: Path,
    model: Path,
    predict: Predict,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    workers: int,
):
    for name in "abcd":
        save_noise(place / "in" / f"{name}.png")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pixelwise.inference.scene.write_png", full)
    assert predict("in", "--model", model, "--workers", workers) == 2
    captured = capsys.readouterr()
    assert captured.err == "pixelwise: out: results cannot be written (No space left on device); free some room or choose another --out\n"  # fmt: skip # noqa: E501
    assert files_below(place / "out") == {"results.jsonl"}


def test_a_name_too_long_for_its_results_is_skipped(place: Path, model: Path, predict: Predict):
    save_noise(place / "in" / f"{'x' * 250}.png")
    save_noise(place / "in" / "a.png")
    assert predict("in", "--model", model) == 1
    assert set(lines(place / "out")) == {"in/a.png"}


def frames(count: int = 3) -> list[Image.Image]:
    """Red first, then green, then blue."""
    return [Image.new("RGB", (31, 22), colour) for colour in ("red", "lime", "blue")[:count]]


def save_strange_images(folder: Path) -> None:
    folder.mkdir()
    colours = Image.fromarray(np.random.default_rng(0).integers(0, 256, (22, 31, 3), dtype=np.uint8))
    grey16 = Image.fromarray((np.arange(22 * 31).reshape(22, 31) * 96).astype(np.uint16))
    colours.convert("L").save(folder / "grey.png")
    colours.convert("1").save(folder / "black and white.png")
    grey16.save(folder / "grey 16.png")
    grey16.save(folder / "grey 16.tif")
    colours.quantize(12).save(folder / "palette.png")
    colours.convert("CMYK").save(folder / "cmyk.jpg")
    colours.convert("RGBA").save(folder / "alpha.png")
    colours.convert("LA").save(folder / "grey alpha.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    colours.save(folder / "turned.jpg", exif=exif)
    first, *others = frames()
    for suffix in ("gif", "webp", "png"):
        options = {"lossless": True} if suffix == "webp" else {}
        first.save(folder / f"animated.{suffix}", save_all=True, append_images=others, duration=100, **options)
    colours.resize((1, 1)).save(folder / "dot.png")
    colours.resize((4000, 3)).save(folder / "wide.png")
    colours.resize((3, 4000)).save(folder / "tall.png")


def test_strange_images(place: Path, model: Path, predict: Predict):
    save_strange_images(place / "in")
    count = len(list((place / "in").iterdir()))
    sizes = {"turned": [31, 22], "dot": [1, 1], "wide": [3, 4000], "tall": [4000, 3]}
    for options in ((), ("--tile",), ("--tta",)):
        assert predict("in", "--model", model, "--quiet", *options) == 0
        found = lines(place / "out")
        assert len(found) == count
        for image, record in found.items():
            assert record["size"] == sizes.get(Path(image).stem, [22, 31]), image
            assert sum(segment["area"] for segment in record["segments"]) == record["size"][0] * record["size"][1]
            with Image.open(place / "out" / record["files"][0]) as overlay:
                assert overlay.size[0] >= record["size"][1]


@pytest.mark.parametrize("name", ["animated.gif", "animated.webp", "animated.png"])
def test_of_an_animation_the_first_frame_is_predicted(place: Path, name: str):
    save_strange_images(place / "in")
    with Image.open(place / "in" / name) as picture:
        assert getattr(picture, "n_frames", 1) == 3
    red = image_tensor(place / "in" / name)[:, 5, 5].tolist()
    assert red[0] > 240
    assert max(red[1:]) < 15


def test_sixteen_bits_are_scaled_not_cut(place: Path):
    save_strange_images(place / "in")
    wanted = np.rint(np.arange(22 * 31).reshape(22, 31) * 96 / 257)
    for name in ("grey 16.png", "grey 16.tif"):
        assert np.array_equal(image_tensor(place / "in" / name)[1].numpy(), wanted)


def test_many_channels_are_refused_by_name(
    place: Path, model: Path, predict: Predict, capsys: pytest.CaptureFixture[str]
):
    (place / "in").mkdir()
    tifffile.imwrite(
        place / "in" / "spectral.tif", np.zeros((20, 30, 7), np.uint8), photometric="minisblack", planarconfig="contig"
    )
    save_noise(place / "in" / "a.png")
    assert predict("in", "--model", model, "--quiet") == 1
    assert "in/spectral.tif: a TIFF of 7 channels" in capsys.readouterr().err
    assert set(lines(place / "out")) == {"in/a.png"}


def test_a_bomb_is_refused_by_its_header(
    place: Path, model: Path, predict: Predict, capsys: pytest.CaptureFixture[str]
):
    Image.new("1", (20_000, 10_001)).save(place / "bomb.png")
    assert (place / "bomb.png").stat().st_size < 100_000
    assert predict("bomb.png", "--model", model) == 1
    told = capsys.readouterr().err
    assert "bomb.png: 200.0 megapixels (10,001×20,000), at most 200 are allowed" in told
    assert "--max-megapixels" in told


@pytest.mark.skipif(os.name == "nt", reason="names of POSIX")
def test_names_in_any_script(place: Path, model: Path, predict: Predict, monkeypatch: pytest.MonkeyPatch, capfd):
    names = [
        "снимок",
        "写真",
        "صورة",
        "e\u0301",
        "🌲",
        "two\nlines",
        "-dash",
        "--model",
        "a b",
        'q"uote',
        os.fsdecode(b"\xff\xfe"),
    ]
    for name in names:
        save_noise(place / "in" / f"{name}.png")
        save_broken(place / "in" / f"{name}!.jpg")
    assert predict("in", "--model", model, "--json") == 1
    captured = capfd.readouterr()
    assert [json.loads(line) for line in captured.out.splitlines()] == list(lines(place / "out").values())
    assert set(lines(place / "out")) == {f"in/{name}.png" for name in names}
    assert len(captured.err.splitlines()) == 1 + len(names)
    for name in names:
        assert (place / "out" / f"{name}.overlay.png").is_file()
    assert predict("in", "--model", model, "--quiet") == 1  # only the broken ones again
    assert len(lines(place / "out")) == len(names)
    monkeypatch.chdir(place / "in")
    assert predict("--model", model, "--quiet", "--", "-dash.png") == 0


def test_lines_have_the_order_of_the_images(place: Path, model: Path, predict: Predict):
    for index in range(12):
        save_noise(place / "in" / f"{index:02}.png", size=(200, 200) if index % 4 == 0 else (8, 8), seed=index)
    for workers in (0, 1, 4):
        assert predict("in", "--model", model, "--workers", workers, "--overwrite", "--quiet") == 0
        assert list(lines(place / "out")) == [f"in/{index:02}.png" for index in range(12)]


def test_many_pixels_at_once_are_taken_one_image_after_the_other(
    place: Path, model: Path, predict: Predict, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(predict_files, "PIXELS_AT_ONCE", 1_000)
    now, most = 0, 0
    original = predict_files.read_image

    def counted(path, **options):
        nonlocal now, most
        pixels = original(path, **options)
        now += 1
        most = max(most, now)
        return pixels

    def saved(scene, stem):
        nonlocal now
        now -= 1
        return original_save(scene, stem)

    original_save = predict_files.Scene.save
    monkeypatch.setattr(predict_files, "read_image", counted)
    monkeypatch.setattr(predict_files.Scene, "save", saved)
    for index, side in enumerate((20, 40, 30, 30, 50, 8)):
        save_noise(place / "in" / f"{index}.png", size=(side, 30))
    assert predict("in", "--model", model, "--workers", 4, "--quiet") == 0
    assert len(lines(place / "out")) == 6
    assert most == 1


def wait_for_lines(path: Path, count: int, process: Forked) -> None:
    process.wait_until(lambda: path.exists() and path.read_bytes().count(b"\n") >= count)
    assert process.poll() is None, process.ended().stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_an_interrupted_run_leaves_whole_results_and_is_resumed(
    place: Path, model: Path, predict: Predict, number: signal.Signals, code: int
):
    total = 60
    for index in range(total):
        save_noise(place / "in" / f"{index:03}.png", size=(200, 300), seed=index)
    process = forked.start("predict", "in", "--model", model, "--input-size", "128")
    wait_for_lines(place / "out" / "results.jsonl", 3, process)
    process.send_signal(number)
    ended = process.ended()
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr

    whole = [line for line in (place / "out" / "results.jsonl").read_text().split("\n") if line.endswith("}")]
    assert 3 <= len(whole) < total
    for line in whole:
        for name in json.loads(line)["files"]:
            with Image.open(place / "out" / name) as picture:
                picture.load()
    for path in (place / "out").glob("[!.]*.png"):
        with Image.open(path) as picture:
            picture.load()

    assert predict("in", "--model", model, "--input-size", "128", "--quiet") == 0
    assert len(lines(place / "out")) == total


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_hundreds_of_images_killed_twice_have_one_result_each(
    place: Path, model: Path, predict: Predict, capsys: pytest.CaptureFixture[str]
):
    good = save_noise(place / "good.png", size=(24, 24)).read_bytes()
    readable = set()
    (place / "in").mkdir()
    for index in range(300):
        path = place / "in" / f"{index:04}.png"
        broken = {13: b"", 150: b"no image", 210: good[:-200]}.get(index if index < 270 else 13)
        path.write_bytes(good if broken is None else broken)
        readable |= {f"in/{path.name}"} if broken is None else set()
    arguments = ("in", "--model", model, "--input-size", "8", "--quiet")
    for done in (30, 120):
        process = forked.start("predict", *arguments)
        wait_for_lines(place / "out" / "results.jsonl", done, process)
        process.send_signal(signal.SIGKILL)
        assert process.ended().returncode == -signal.SIGKILL
        torn = place / "out" / "results.jsonl"
        for line in torn.read_text("utf-8").splitlines():
            if line.endswith("}"):  # whole lines speak of whole files
                for name in json.loads(line)["files"]:
                    with Image.open(place / "out" / name) as picture:
                        picture.load()
    assert predict(*arguments) == 1
    assert capsys.readouterr().err.startswith("33 of 300 failed:")
    assert set(lines(place / "out")) == readable
    assert len(readable) == 267
    names = {name for record in lines(place / "out").values() for name in record["files"]}
    assert {name for name in files_below(place / "out") if not name.startswith(".")} == names | {"results.jsonl"}
    assert len(names) == 2 * len(readable)


def test_help_is_quick():
    command = [sys.executable, "-X", "importtime", "-m", "pixelwise", "predict", "--help"]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--input-size" in finished.stdout
    assert "torch" not in {line.rsplit("|", 1)[-1].strip() for line in finished.stderr.splitlines()}
