"""Segments from the shell: images and clips labelled, evaluated, in parts, from files and compared, and training."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from pixelwise.data.kinds.folders import labels_toml
from pixelwise.data.truth.segments import panoptic_of
from pixelwise.evaluation import comparison
from pixelwise.inference.model_folder import ModelCard, write_model
from pixelwise.inference.systems import system_module
from pixelwise.labels import LabelSet
from pixelwise.ops.resize_rule import ResizeRule
from pixelwise.predictions.coco_segments import PanopticResults
from pixelwise.training.run.log import Log
from tests.cli.conftest import Run
from tests.drawn_scenes import LABELS as DRAWN
from tests.drawn_scenes import draw_objects
from tests.inference.simple_models import add_systems

FRUIT = replace(
    LabelSet.from_names("fruit", ["background", "apple", "pear"]), is_thing=(False, True, True), dataset_ids=(3, 7, 9)
)
SIZE = (32, 48)

# where the apple of each image is, and where the ground truth says that it is; columns of squares of 8×8
APPLES = ((2, 2), (2, 4), (2, 6))
PEAR = 30


@pytest.fixture
def run(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line in this process, which knows the systems for tests."""
    add_systems(monkeypatch)
    return run


@pytest.fixture
def model(tmp_path: Path, run: Run) -> Path:
    return write_panels(tmp_path / "model")


def write_panels(folder: Path, **arguments: bool) -> Path:
    """Red is one apple, green one pear; see the system."""
    network = system_module("panels").build(num_classes=3, **arguments)
    write_model(
        folder,
        network.state_dict(),
        ModelCard("panoptic", "panels", FRUIT, arguments, resize=ResizeRule(length=SIZE[1])),
    )
    return folder


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def channels_of(ids: np.ndarray) -> np.ndarray:
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1)


def write_coco_panoptic(root: Path, split: str, drawn: Sequence[tuple[np.ndarray, np.ndarray]], labels: LabelSet):
    """Images, and maps of numbers class · 1000 + number of the object, as a `coco-panoptic:` set."""
    categories = [
        {"id": id, "name": name, "isthing": int(is_thing), "color": [id, 0, 0]}
        for id, name, is_thing in zip(labels.dataset_ids, labels.names, labels.is_thing, strict=True)
    ]
    images, annotations = [], []
    for number, (picture, ids) in enumerate(drawn, start=1):
        ids = ids + 70_000  # more than two channels hold
        name = f"{number:012}.png"
        write(root / split / name, picture)
        write(root / "annotations" / f"panoptic_{split}" / name, channels_of(ids))
        images.append({"id": number, "file_name": name, "height": ids.shape[0], "width": ids.shape[1]})
        infos = []
        for id in np.unique(ids).tolist():
            rows, columns = np.nonzero(ids == id)
            x, y = int(columns.min()), int(rows.min())
            box = [x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y]
            category = labels.dataset_ids[(id - 70_000) // 1000]
            infos.append({"id": id, "category_id": category, "area": len(rows), "bbox": box, "iscrowd": 0})
        annotations.append({"image_id": number, "file_name": name, "segments_info": infos})
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / f"panoptic_{split}.json").write_text(json.dumps(content))


def squares(apple: int | None, pear: int | None) -> np.ndarray:
    """A red square and a green one from these columns on, on black."""
    picture = np.zeros((*SIZE, 3), np.uint8)
    for channel, left in enumerate((apple, pear)):
        if left is not None:
            picture[8:16, left : left + 8, channel] = 255
    return picture


def square_ids(apple: int | None, pear: int | None, *, apple_number: int = 1) -> np.ndarray:
    """Class · 1000 + number."""
    ids = np.zeros(SIZE, np.int64)
    for left, id in ((apple, 1000 + apple_number), (pear, 2001)):
        if left is not None:
            ids[8:16, left : left + 8] = id
    return ids


@pytest.fixture
def stills(tmp_path: Path) -> Path:
    drawn = [(squares(seen, PEAR), square_ids(said, PEAR)) for seen, said in APPLES]
    write_coco_panoptic(tmp_path / "stills", "val", drawn, FRUIT)
    return tmp_path / "stills"


def write_step(root: Path, split: str, clips: dict[str, list[tuple[np.ndarray, np.ndarray]]], labels: LabelSet) -> None:
    """Frames and their maps as a `kitti-step:` set."""
    for clip, frames in clips.items():
        for number, (picture, ids) in enumerate(frames):
            write(root / "images" / split / clip / f"{number:06}.png", picture)
            step = np.stack([np.take(labels.dataset_ids, ids // 1000), ids * 0, ids % 1000], axis=-1)
            write(root / "panoptic_maps" / split / clip / f"{number:06}.png", step)
    (root / "labels.toml").write_text(labels_toml(labels))


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Three clips; in the second the apple of the last frame is another than that of the first two."""
    moving = [(2, 30, 1), (4, 30, 1), (6, 30, 1)]
    changing = [(2, 20, 1), (3, 20, 1), (36, 20, 2)]
    alone = [(None, 4, 1), (None, 5, 1)]
    drawn = {
        name: [(squares(apple, pear), square_ids(apple, pear, apple_number=number)) for apple, pear, number in frames]
        for name, frames in {"a": moving, "b": changing, "c": alone}.items()
    }
    write_step(tmp_path / "clips", "val", drawn, FRUIT)
    return tmp_path / "clips"


def evaluated(run: Run, *arguments: str | Path | float) -> dict[str, Any]:
    code, out, err = run("evaluate", *arguments, "--json", "--workers", 0)
    assert (code, err) == (0, "")
    return json.loads(out)


SHIFTED = (1 + 48 / 80 + 0) / (1 + 1 + 1 / 2 + 1 / 2)
"""PQ of the apples: found, found where the squares share 48 of 80 pixels, and once not where it is."""

GROUND = (1 + 1392 / 1424 + 1376 / 1440) / 3
"""PQ of the background, which lacks the 16 or 32 pixels of either square that the other has not."""


def test_numbers_worked_by_hand(run: Run, model: Path, stills: Path) -> None:
    result = evaluated(run, model, "--data", f"coco-panoptic:{stills}")
    assert result["definition"] == "panoptic"
    assert (result["images"], result["labels"]) == (3, list(FRUIT.names))
    metrics = result["metrics"]
    assert metrics.keys() >= {"pq", "sq", "rq", "pq_things", "pq_stuff"}
    assert metrics["pq"] == pytest.approx((SHIFTED + GROUND + 1) / 3)
    assert metrics["pq_things"] == pytest.approx((SHIFTED + 1) / 2)
    assert metrics["pq_stuff"] == pytest.approx(GROUND)
    assert metrics["sq"] == pytest.approx((1.6 / 2 + GROUND + 1) / 3)
    assert metrics["rq"] == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert set(result["per_class"]) == set(FRUIT.names)
    assert result["per_class"]["apple"]["pq"] == pytest.approx(SHIFTED)
    code, out, _ = run("evaluate", model, "--data", f"coco-panoptic:{stills}", "--workers", 0)
    assert code == 0
    (row,) = [line.split() for line in out.splitlines() if line.strip().startswith("apple")]
    assert f"{SHIFTED:.4f}" in row
    assert "PQ" in out


def test_what_predict_wrote_is_evaluated_as_the_model(run: Run, model: Path, stills: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("predict", stills / "val", "--model", model, "--out", out, "--quiet") == (0, "", "")
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    results = json.loads((out / "panoptic_results.json").read_text())
    assert [one["image_id"] for one in results["annotations"]] == [1, 2, 3]
    for line, one, (seen, _) in zip(lines, results["annotations"], APPLES, strict=True):
        stem = Path(line["image"]).stem
        assert line["files"] == [f"{stem}.overlay.png", f"{stem}.panoptic.png"]
        assert one["file_name"] == f"{stem}.panoptic.png"
        rgb = np.asarray(Image.open(out / one["file_name"])).astype(np.int64)
        ids = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
        expected = square_ids(seen, PEAR)
        class_of = {info["id"]: info["category_id"] for info in one["segments_info"]}
        assert np.array_equal(np.vectorize(class_of.__getitem__)(ids), np.take(FRUIT.dataset_ids, expected // 1000))
        assert {info["id"]: info["area"] for info in one["segments_info"]} == {
            id: int((ids == id).sum()) for id in np.unique(ids).tolist()
        }
    whole = evaluated(run, model, "--data", f"coco-panoptic:{stills}")
    for path in (out, out / "panoptic_results.json"):
        again = evaluated(run, "--predictions", path, "--data", f"coco-panoptic:{stills}")
        assert (again["metrics"], again["per_class"]) == (whole["metrics"], whole["per_class"])


def test_the_report_of_images_holds_their_segments(run: Run, model: Path, stills: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    whole = evaluated(run, model, "--data", f"coco-panoptic:{stills}", "--out", report)
    assert sorted(path.name for path in report.iterdir()) == [
        "confusion.png",
        "evaluation.json",
        "images.jsonl",
        "panoptic_results",
        "panoptic_results.json",
        "worst.png",
    ]
    for number, (seen, _) in enumerate(APPLES, start=1):
        rgb = np.asarray(Image.open(report / "panoptic_results" / f"{number}.png")).astype(np.int64)
        ids = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
        entry = json.loads((report / "panoptic_results.json").read_text())["annotations"][number - 1]
        assert (entry["image_id"], entry["file_name"]) == (number, f"{number}.png")
        class_of = {info["id"]: info["category_id"] for info in entry["segments_info"]}
        expected = np.take(FRUIT.dataset_ids, square_ids(seen, PEAR) // 1000)
        assert np.array_equal(np.vectorize(class_of.__getitem__)(ids), expected)
        for info in entry["segments_info"]:
            rows, columns = np.nonzero(ids == info["id"])
            assert info["area"] == len(rows)
            x, y, width, height = info["bbox"]
            assert (x, y) == (columns.min(), rows.min())
            assert (x + width, y + height) == (columns.max() + 1, rows.max() + 1)
    for place in (report, report / "panoptic_results.json"):
        again = evaluated(run, "--predictions", place, "--data", f"coco-panoptic:{stills}")
        assert (again["metrics"], again["per_class"]) == (whole["metrics"], whole["per_class"])
    assert Image.open(report / "confusion.png").getcolors(maxcolors=2**16) != 1


def test_the_report_of_clips_keeps_who_is_who(run: Run, model: Path, clips: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    data = ("--data", f"kitti-step:{clips}")
    tracked = evaluated(run, model, *data, "--track", "--out", report)
    pngs = sorted(path.relative_to(report / "panoptic_results").as_posix() for path in report.rglob("0*.png"))
    assert pngs == [
        *(f"{clip}/{number:06}.png" for clip in "ab" for number in range(3)),
        "c/000000.png",
        "c/000001.png",
    ]
    again = evaluated(run, "--predictions", report / "panoptic_results.json", *data)
    assert (again["metrics"], again["per_class"]) == (tracked["metrics"], tracked["per_class"])
    assert (report / "confusion.png").is_file()
    code, _, err = run("evaluate", "--predictions", report, *data, "--shard", "1/2", "--out", tmp_path / "part")
    assert (code, err) == (0, "")
    listed = json.loads((tmp_path / "part" / "panoptic_results.json").read_text())["annotations"]
    assert {entry["file_name"].partition("/")[0] for entry in listed} < {"a", "b", "c"}


@pytest.mark.parametrize(
    ("ids", "names"),
    [
        (("a", "A"), ("a.png", "A_2.png")),
        (("../a", "a", "/a", "x/../a"), ("a.png", "a_2.png", "a_3.png", "x/a.png")),
        (("..", "b/c", "b_c"), ("image.png", "b/c.png", "b_c.png")),
    ],
)
def test_every_png_has_a_name_of_its_own_below_the_folder(
    ids: Sequence[str], names: Sequence[str], tmp_path: Path
) -> None:
    panoptic = panoptic_of(np.full((2, 3), 5, np.int32), [5], [1], [False])
    with PanopticResults(tmp_path / "r.json", ids, FRUIT) as results:
        for id in ids:
            results.add(id, panoptic)
    written = [path.relative_to(tmp_path / "r").as_posix() for path in tmp_path.rglob("*.png")]
    assert sorted(written) == sorted(names)
    content = json.loads((tmp_path / "r.json").read_text())
    assert [entry["file_name"] for entry in content["annotations"]] == [*names]
    assert content["annotations"][0]["segments_info"] == [
        {"id": 5, "category_id": 7, "iscrowd": 0, "area": 6, "bbox": [0, 0, 3, 2]}
    ]


def test_images_in_parts(run: Run, model: Path, stills: Path, tmp_path: Path) -> None:
    same_in_parts(run, tmp_path, model, "--data", f"coco-panoptic:{stills}")


@pytest.mark.parametrize("options", [(), ("--track",)])
def test_clips_in_parts(run: Run, model: Path, clips: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    """Two of three clips, and the third."""
    counts = same_in_parts(run, tmp_path, model, "--data", f"kitti-step:{clips}", *options)
    assert counts == [5, 3]


def same_in_parts(run: Run, folder: Path, *arguments: str | Path) -> list[int]:
    """Two shards join to the whole; gives their images."""
    whole = evaluated(run, *arguments)
    counts = []
    for part in (1, 2):
        shard = evaluated(run, *arguments, "--shard", f"{part}/2")
        (folder / f"{part}.json").write_text(json.dumps(shard))
        counts.append(shard["images"])
    joined = evaluated(run, "--merge", folder / "2.json", folder / "1.json")
    assert (joined["metrics"], joined["per_class"]) == (whole["metrics"], whole["per_class"])
    assert joined["images"] == whole["images"] == sum(counts)
    return counts


def test_tracking_tells_two_apples_apart(run: Run, model: Path, clips: Path) -> None:
    """By itself the model calls every apple 4, so that the last one of clip b goes on with the id of the first."""
    data = ("--data", f"kitti-step:{clips}")
    plain, tracked = evaluated(run, model, *data), evaluated(run, model, *data, "--track")
    assert plain["definition"] == "video-panoptic"
    assert plain["metrics"].keys() >= {"vpq", "vpq_k5", "stq", "stq_sq", "aq"}
    assert plain["images"] == 8
    perfect = {name: value for name, value in tracked["metrics"].items() if isinstance(value, float)}
    assert perfect["vpq"] == perfect["stq"] == perfect["aq"] == 1
    assert plain["metrics"]["aq"] < 1
    assert plain["metrics"]["vpq"] < 1
    # the frames by themselves are the same
    assert plain["metrics"]["stq_sq"] == tracked["metrics"]["stq_sq"] == 1
    # at two frames: apples of clip a 2 of 2, of clip b the window of frames 0 1, and then one tube of 128 pixels that
    # is half of either apple: no match
    two = plain["per_class"]["apple"]["vpq_k5"]
    assert two == pytest.approx(3 / (3 + 1 / 2 + 2 / 2))


def test_windows_of_any_length(run: Run, model: Path, stills: Path, clips: Path, tmp_path: Path) -> None:
    """Windows of one and of three labelled frames; as the metric counts them when told so in Python."""
    data = ("--data", f"kitti-step:{clips}")
    usual, chosen = evaluated(run, model, *data)["metrics"], evaluated(run, model, *data, "--windows", "1,3")["metrics"]
    assert [name for name in chosen if name.startswith("vpq_k") and name.count("_") == 1] == ["vpq_k0", "vpq_k10"]
    assert chosen["vpq"] == pytest.approx((usual["vpq_k0"] + usual["vpq_k10"]) / 2)
    same_in_parts(run, tmp_path, model, *data, "--windows", "1,3")
    for windows, fault in (("1,x", "such as 1,2,3,4"), ("0", "at least 1 each"), ("", "such as 1,2,3,4")):
        code, _, err = run("evaluate", model, *data, "--windows", windows)
        assert (code, err.count("\n")) == (2, 1)
        assert fault in err
    code, _, err = run("evaluate", model, "--data", f"coco-panoptic:{stills}", "--windows", "1,2")
    assert (code, err.count("\n")) == (2, 1)
    assert "the definition 'panoptic' has none" in err


def test_a_model_with_memory_changes_its_ids(run: Run, clips: Path, tmp_path: Path) -> None:
    """The system for tests counts frames by its ids: single frames are perfect, tubes are not."""
    model = write_panels(tmp_path / "memory", uses_memory=True)
    metrics = evaluated(run, model, "--data", f"kitti-step:{clips}")["metrics"]
    assert metrics["stq_sq"] == metrics["vpq_k0"] == 1
    assert metrics["aq"] < 1
    code, _, err = run("evaluate", model, "--data", f"kitti-step:{clips}", "--track")
    assert (code, err.count("\n")) == (2, 1)
    assert "tracks instances by itself" in err


def test_models_side_by_side(
    run: Run, model: Path, stills: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "peak_memory", lambda *_, **__: 2**20)
    other = write_panels(tmp_path / "other", uses_memory=True)
    for data, metric in ((f"coco-panoptic:{stills}", "pq"), (f"kitti-step:{clips}", "vpq")):
        code, out, err = run(
            "compare", model, other, "--data", data, "--workers", 0, "--repeats", 1, "--json", "--device", "cpu"
        )
        assert (code, err) == (0, "")
        rows = {row["model"]: row for row in json.loads(out)["models"]}
        for name in (model, other):
            alone = evaluated(run, name, "--data", data)["metrics"][metric]
            assert rows[str(name)][metric] == alone


SMALL = {
    "panoptic_fpn": ["model.channels=8", "model.box_width=16", "model.semantic_channels=8"],
    "upsnet": ["model.channels=8", "model.box_width=16", "model.semantic_layers=2"],
    "vpsnet": ["model.channels=8", "model.box_width=16", "model.flow=dis"],
}


def drawn(number: int, frame: int = 0) -> tuple[np.ndarray, np.ndarray]:
    picture, classes, numbers = draw_objects(number, (48, 64), frame=frame)
    return picture, classes.astype(np.int64) * 1000 + numbers


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Stills and clips, as specifications."""
    root = tmp_path_factory.mktemp("drawings")
    for split, first in (("train", 0), ("val", 50)):
        write_coco_panoptic(root / "stills", split, [drawn(number) for number in range(first, first + 2)], DRAWN)
        clip = {f"{first:04}": [drawn(first, frame) for frame in range(3)]}
        write_step(root / "clips", split, clip, DRAWN)
    stills, clips = f"coco-panoptic:{root / 'stills'}", f"kitti-step:{root / 'clips'}"
    return {"panoptic_fpn": stills, "upsnet": stills, "vpsnet": clips}


@pytest.mark.parametrize("system", SMALL)
def test_an_interrupted_training_ends_as_one_that_was_not(
    run: Run, drawings: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    sets = ["steps=2", "batch_size=1", "crop_size=[40,64]", "input_size=64", "evaluate_every=0", "warmup_steps=0"]
    sets += ["model.post_nms_topk=[20,20]", "precision=float32", *SMALL[system]]
    options = [part for name in sets for part in ("--set", name)]
    arguments = ("train", system, "--data", drawings[system], "--backbone", "mobilenet_v2", *options, "--workers", 0)
    code, out, err = run(*arguments, "--out", tmp_path / "whole")
    assert code == 0, err
    assert ("val VPQ 0." if system == "vpsnet" else "val PQ 0.") in out

    step = Log.step

    def interrupted(*given: Any, **named: Any) -> None:
        step(*given, **named)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Log, "step", interrupted)
        code, _, err = run(*arguments, "--out", tmp_path / "cut")
    assert code == 130, err
    code, _, err = run("train", "--resume", tmp_path / "cut", "--workers", 0)
    assert code == 0, err
    for folder in ("whole", "cut"):
        log = [json.loads(line) for line in (tmp_path / folder / "log.jsonl").read_text().splitlines()]
        assert [entry["step"] for entry in log if entry["event"] == "step"] == [1, 2]
    whole, cut = (load_file(tmp_path / folder / "last" / "model.safetensors") for folder in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    card = json.loads((tmp_path / "cut" / "best" / "model.json").read_text())
    assert card["task"] == "panoptic"
    assert ("vpq" if system == "vpsnet" else "pq") in card["scores"]


def test_frames_of_one_name_in_two_clips_stay_apart(
    run: Run, model: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each clip has a 000000.png; paths are written in two ways."""
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    images = (clips / "images" / "val").relative_to(tmp_path)
    assert run("predict", images, "--model", model, "--out", out, "--quiet") == (0, "", "")
    found = [one["image_id"] for one in json.loads((out / "panoptic_results.json").read_text())["annotations"]]
    assert len(set(found)) == len(found) == 8
    assert "clips/images/val/b/000002.png" in found
    whole = evaluated(run, model, "--data", f"kitti-step:{clips}")
    for data in (clips, clips.relative_to(tmp_path)):
        again = evaluated(run, "--predictions", out, "--data", f"kitti-step:{data}")
        assert (again["images"], again["metrics"]) == (8, whole["metrics"])
