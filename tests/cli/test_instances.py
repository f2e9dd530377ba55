"""Objects from the shell: trained, evaluated, in parts, predicted, and evaluated from the file that was written."""

from __future__ import annotations

import contextlib
import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from torch import nn

from pixelwise.data.spec import open_dataset
from pixelwise.inference.load import find_model
from pixelwise.inference.model_folder import ModelCard, read_model, write_model
from pixelwise.inference.systems import system_module
from pixelwise.ops import rle
from pixelwise.ops.resize_rule import ResizeRule
from tests.cli.conftest import Run
from tests.data.formats import davis_set
from tests.drawn_scenes import LABELS, draw_objects, objects_of

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools


ARGUMENTS = {"backbone": "mobilenet_v2", "channels": 16, "box_width": 32, "post_nms_topk": [60, 100]}
"""A small Mask R-CNN; its random weights find objects at low thresholds."""


def write_coco(root: Path, *, train: int = 4, val: int = 5) -> Path:
    """Drawings as a `coco:` set whose category ids have gaps."""
    (root / "annotations").mkdir(parents=True)
    categories = [{"id": id, "name": name} for id, name in zip((3, 7, 44), LABELS.names[1:], strict=True)]
    for split, first, count in (("train", 0, train), ("val", 100, val)):
        (root / split).mkdir()
        images, annotations = [], []
        for number in range(first + 1, first + 1 + count):
            picture, truth, numbers = draw_objects(number, (60, 80))
            name = f"{number:012}.png"
            Image.fromarray(picture).save(root / split / name)
            images.append({"id": number, "file_name": name, "height": 60, "width": 80})
            objects = objects_of(truth, numbers)
            assert objects.masks is not None
            for index, runs in enumerate(objects.masks.to_coco()):
                x1, y1, x2, y2 = objects.masks.boxes[index].tolist()
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": categories[int(objects.labels[index]) - 1]["id"],
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": int(objects.masks.areas()[index]),
                        "iscrowd": 0,
                        "segmentation": runs,
                    }
                )
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("drawings") / "coco")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, drawings: Path) -> Path:
    torch.manual_seed(0)
    network = system_module("mask_rcnn").build(num_classes=4, **ARGUMENTS, score_threshold=0.01)
    nn.init.normal_(network.box_predictor.classes.weight, std=0.5)
    nn.init.constant_(network.mask_head.predictor.bias, 2.0)  # masks that fill their boxes find something
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
    with torch.no_grad():
        network.train().features(torch.rand(2, 3, 64, 96))
    labels = open_dataset(f"coco:{drawings}@val", default_split="val").labels
    card = ModelCard(
        "instance", "mask_rcnn", labels, arguments={**ARGUMENTS, "score_threshold": 0.01}, resize=ResizeRule(length=80)
    )
    folder = tmp_path_factory.mktemp("model") / "small"
    write_model(folder, network.state_dict(), card)
    return folder


def metrics(text: str) -> dict[str, Any]:
    return {name: value for name, value in json.loads(text)["metrics"].items() if value is not None}


@pytest.fixture
def predicted(run: Run, model: Path, drawings: Path, tmp_path: Path) -> tuple[Path, list[dict[str, Any]]]:
    code, out, err = run("predict", drawings / "val", "--model", model, "--out", tmp_path / "out", "--quiet")
    assert (code, out, err) == (0, "", "")
    lines = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    return tmp_path / "out", lines


def test_the_files_of_a_prediction_agree(predicted, drawings: Path) -> None:
    out, lines = predicted
    assert len(lines) == 5
    assert sum(len(line["segments"]) for line in lines) > 20
    seen = 0
    for line in lines:
        stem = Path(line["image"]).stem
        assert line["files"] == [f"{stem}.overlay.png", f"{stem}.instances.png"]
        numbers = np.asarray(Image.open(out / f"{stem}.instances.png"))
        assert numbers.dtype == np.uint16
        assert numbers.shape == tuple(line["size"]) == (60, 80)
        scores = [segment["score"] for segment in line["segments"]]
        assert scores == sorted(scores, reverse=True)
        covered = np.zeros((60, 80), dtype=bool)
        for segment in line["segments"]:  # the highest-scoring lies on top
            mask = rle.decode(segment["rle"]).astype(bool)
            assert segment["area"] == mask.sum()
            assert (numbers[mask & ~covered] == segment["id"]).all()
            covered |= mask
            seen += bool(mask.any())
        assert not numbers[~covered].any()
    assert seen > 20
    entries = json.loads((out / "coco_results.json").read_text())
    assert len(entries) == sum(len(line["segments"]) for line in lines)
    assert {entry["category_id"] for entry in entries} <= {3, 7, 44}
    assert {entry["image_id"] for entry in entries} == {101, 102, 103, 104, 105}
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = COCO(str(drawings / "annotations" / "instances_val.json")).loadRes(str(out / "coco_results.json"))
    assert len(loaded.anns) == len(entries)


def test_a_model_its_parts_and_its_files_get_the_same_numbers(
    run: Run, model: Path, drawings: Path, predicted, tmp_path: Path
) -> None:
    data = ("--data", f"coco:{drawings}")
    code, out, _ = run("evaluate", model, *data, "--json", "--workers", 0, "--out", tmp_path / "report")
    assert code == 0
    whole = json.loads(out)
    assert whole["metrics"].keys() >= {"mask_ap", "mask_ap50", "mask_ap75", "box_ap", "box_ap50"}
    assert whole["definition"] == "coco"
    assert set(whole["per_class"]) == {"disc", "square", "triangle"}
    assert whole["metrics"]["mask_ap50"] > 0, "too weak a test: nothing was found"
    report = tmp_path / "report"
    assert {path.name for path in report.iterdir()} == {
        "evaluation.json", "images.jsonl", "worst.png", "coco_results.json"
    }  # fmt: skip
    rows = [json.loads(line) for line in (report / "images.jsonl").read_text().splitlines()]
    assert [row["f1"] for row in rows] == sorted(row["f1"] for row in rows)

    for part in (1, 2):
        code, out, _ = run("evaluate", model, *data, "--json", "--workers", 0, "--shard", f"{part}/2")
        assert code == 0
        (tmp_path / f"{part}.json").write_text(out)
    code, out, _ = run("evaluate", "--merge", tmp_path / "2.json", tmp_path / "1.json", "--json")
    joined = json.loads(out)
    assert (joined["metrics"], joined["per_class"]) == (whole["metrics"], whole["per_class"])

    for results in (report / "coco_results.json", predicted[0] / "coco_results.json"):
        code, out, _ = run("evaluate", "--predictions", results, *data, "--json")
        assert code == 0
        found = metrics(out)
        assert found == pytest.approx(metrics(json.dumps(whole)), abs=1e-9)  # nothing in the files is rounded


def test_objects_of_all_classes_count_where_the_set_has_one(run: Run, model: Path, tmp_path: Path) -> None:
    data = ("--data", f"davis:{davis_set.davis(tmp_path / 'davis')}@train", "--workers", 0)
    code, out, err = run("evaluate", model, *data, "--json", "--out", tmp_path / "report")
    assert code == 0
    assert "'davis' has objects of any class: instances of all 3 classes of the model count" in err
    whole = json.loads(out)
    assert (whole["definition"], list(whole["per_class"])) == ("coco", ["object"])
    code, out, _ = run("evaluate", "--predictions", tmp_path / "report/coco_results.json", *data, "--json")
    assert code == 0
    assert metrics(out) == pytest.approx(metrics(json.dumps(whole)))
    code, out, _ = run("evaluate", model, *data, "--json", "--track")
    assert code == 0
    assert json.loads(out)["definition"] == "davis-unsupervised"
    code, out, _ = run("evaluate", model, *data, "--json", "--track", "--definition", "davis")
    assert json.loads(out)["definition"] == "davis"


def test_a_map_that_leaves_no_ground_truth_is_an_error(run: Run, model: Path, drawings: Path, tmp_path: Path) -> None:
    content = json.loads((drawings / "annotations" / "instances_val.json").read_text())
    content["categories"][0]["name"] = "disc"
    content["categories"][1]["name"], content["categories"][2]["name"] = "other", "another"
    content["annotations"] = [one for one in content["annotations"] if one["category_id"] != 3]
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val.json").write_text(json.dumps(content))
    (tmp_path / "val").symlink_to(drawings / "val")
    code, out, err = run("evaluate", model, "--data", f"coco:{tmp_path}", "--map", "names", "--quiet", "--workers", 0)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "--map: no ground truth of" in err


def test_thresholds_windows_and_mirrors(run: Run, model: Path, drawings: Path, tmp_path: Path) -> None:
    image = drawings / "val" / "000000000101.png"

    def found(*options: str | float) -> list[dict[str, Any]]:
        code, out, err = run("predict", image, "--model", model, "--out", tmp_path / "o", "--json", *options)
        assert (code, err) == (0, "")
        return json.loads(out)["segments"]

    every = found()
    assert len(found("--max-detections", 3)) == 3
    scores = [one["score"] for one in every]
    above, below = max(pairwise(scores), key=lambda pair: pair[0] - pair[1])
    kept = found("--score-threshold", (above + below) / 2)
    assert [one["score"] for one in kept] == scores[: scores.index(below)]
    assert len(found("--score-threshold", 0, "--max-detections", 300)) > len(every)
    for options in (("--tta",), ("--tile", "--input-size", 48)):
        others = found(*options)
        assert 0 < len(others) <= 100
        assert all(0 <= one["box"][0] <= one["box"][2] <= 80 for one in others)
        for one in others:
            mask = rle.decode(one["rle"])
            assert mask.shape == (60, 80)


def test_training_goes_on_and_chooses_by_mask_ap(run: Run, drawings: Path, tmp_path: Path) -> None:
    sets = ["steps=2", "batch_size=2", "crop_size=64", "evaluate_every=1", "input_size=80", "warmup_steps=0"]
    sets += ["model.channels=16", "model.box_width=32"]
    options = [part for name in sets for part in ("--set", name)]
    code, out, err = run(
        "train", "mask_rcnn", "--data", f"coco:{drawings}", "--backbone", "mobilenet_v2", *options,
        "--out", tmp_path / "run", "--workers", 0,
    )  # fmt: skip
    assert code == 0, err
    assert "val mask AP 0." in out
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    steps = [entry for entry in log if entry["event"] == "step"]
    assert set(steps[0]["terms"]) == {"rpn_objectness", "rpn_box", "class", "box", "mask"}
    card = json.loads((tmp_path / "run" / "best" / "model.json").read_text())
    assert card["task"] == "instance"
    assert "mask_ap" in card["scores"]


def test_a_run_from_a_shipped_model_takes_its_architecture_and_says_so(run: Run, tmp_path: Path) -> None:
    """The recipe's network has 256 channels, the shipped one 96: its detector goes on, only the classes are others."""
    data, out = write_coco(tmp_path / "data"), tmp_path / "run"
    for file in (data / "annotations").iterdir():
        content = json.loads(file.read_text())
        content["categories"][0]["name"] = "person"
        file.write_text(json.dumps(content))
    words = ["train", "mask_rcnn", "--backbone", "mobilenet_v2", "--init", "default_instance", "--data", f"coco:{data}"]
    settings = ["steps=1", "batch_size=1", "crop_size=64", "input_size=80", "optimizer.lr=0", "ema_decay=0"]
    code, _, err = run(*words, "--out", out, "--workers", "0", *[f"--set={setting}" for setting in settings])
    assert code == 0, err
    assert "--init default_instance: built as that model, with backbone=mobilenet_v2, channels=96" in err
    assert "keep the rows of background, person" in err
    trained, _ = read_model(out / "last")
    shipped, card = read_model(find_model("default_instance"))
    weights, expected = trained.state_dict(), shipped.state_dict()
    others = [key for key, value in expected.items() if not torch.equal(weights[key], value)]
    assert {key.rpartition(".")[0] for key in others} == {
        "box_predictor.classes", "box_predictor.deltas", "mask_head.predictor"
    }  # fmt: skip
    person = card.labels.names.index("person")
    rows = weights["box_predictor.classes.weight"], expected["box_predictor.classes.weight"]
    assert torch.equal(rows[0][1], rows[1][person])


def test_clips_of_cut_out_objects_are_trained_on_in_two_stages(run: Run, drawings: Path, tmp_path: Path) -> None:
    sets = ["steps=1", "batch_size=2", "crop_size=64", "input_size=64", "evaluate_every=0", "warmup_steps=0"]
    sets += ["model.channels=16", "model.flow_width=8"]
    options = [part for name in sets for part in ("--set", name)]
    clips = f"cutout-clips:{drawings}?clips=2&frames=4&height=60&width=80"
    code, out, err = run(
        "train", "yolact_edge", "--data", clips, "--backbone", "mobilenet_v2", *options,
        "--out", tmp_path / "run", "--workers", 0,
    )  # fmt: skip
    assert code == 0, err
    assert "val mask AP 0." in out
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    images, pairs = (entry["terms"] for entry in log if entry["event"] == "step")
    assert set(images) == {"class", "box", "mask", "semantic"}
    assert set(pairs) == {*images, *(f"key_{name}" for name in images), "matching", "flow"}
    assert pairs["flow"] > 0, "the clips tell it"


@pytest.mark.parametrize("name", ["yolact", "yolact_edge"])
def test_crops_of_another_size_than_the_networks_are_refused(
    run: Run, drawings: Path, tmp_path: Path, name: str
) -> None:
    code, out, err = run(
        "train", name, "--data", f"coco:{drawings}", "--backbone", "mobilenet_v2", "--set", "crop_size=64",
        "--set", "input_size=80", "--out", tmp_path / "run",
    )  # fmt: skip
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "crop_size=64, input_size=80" in err
    assert "set both to the same number" in err
    assert not (tmp_path / "run").exists()


def test_what_cannot_work_is_said_in_one_line(run: Run, model: Path, drawings: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    data = ("--data", f"coco:{drawings}")
    for entries, wanted in (
        ({"annotations": []}, "expected COCO results, a list"),
        ([{"image_id": 999, "category_id": 3, "score": 1, "bbox": [0, 0, 1, 1]}], "entry 1: image 999 is not in"),
        ([{"image_id": 101, "category_id": 4, "score": 1, "bbox": [0, 0, 1, 1]}], "entry 1: category 4 is not in"),
        ([{"image_id": 101, "category_id": 3, "bbox": [0, 0, 1, 1]}], "entry 1: expected a field score"),
        ([{"image_id": 101, "category_id": 3, "score": 1}], "entry 1: neither bbox nor segmentation"),
    ):
        results.write_text(json.dumps(entries))
        code, out, err = run("evaluate", "--predictions", results, *data)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert wanted in err
    results.write_text(
        json.dumps([{"image_id": 101, "category_id": 3, "score": 1, "segmentation": {"size": [9, 9], "counts": "l2"}}])
    )
    code, out, err = run("evaluate", "--predictions", results, *data)
    assert code == 1
    assert "image '101', entry 0: the RLE is 9×9, the image 60×80" in err
    code, out, err = run("evaluate", model, *data, "--definition", "voc")
    assert (code, err.count("\n")) == (2, 1)
    assert "expected one of coco, boundary, region, region-2015, davis, davis-unsupervised" in err


def test_stages_that_are_solved_follow_those_that_are_fitted(run: Run, drawings: Path, tmp_path: Path) -> None:
    sets = ["steps=1", "batch_size=2", "crop_size=64", "input_size=80", "warmup_steps=0", "evaluate_every=0"]
    sets += ["model.proposals=20", "model.width=16", "model.box_batch_size_per_image=8"]
    options = [part for name in sets for part in ("--set", name)]
    code, _, err = run(
        "train", "sds", "--data", f"coco:{drawings}", "--backbone", "mobilenet_v2", *options,
        "--out", tmp_path / "run", "--workers", 0,
    )  # fmt: skip
    assert code == 0, err
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log if entry["event"] == "evaluation"] == [1, 2, 3, 4, 5, 6]
    network, _ = read_model(tmp_path / "run" / "last")
    assert network.has_svms.any()
    assert network.svm_weight[network.has_svms].any(dim=1).all()


def test_stored_proposals_are_all_that_is_scored(run: Run, model: Path, tmp_path: Path) -> None:
    """With two boxes for each image nothing else is found, and they stay where they are at another scale."""
    drawings = write_coco(tmp_path / "coco", train=3, val=2)
    boxes = [[8, 10, 24, 30], [40, 12, 32, 36]]
    for split, ids in (("train", (1, 2, 3)), ("val", (101, 102))):
        entries = [{"image_id": id, "bbox": box} for id in ids for box in boxes]
        (drawings / f"{split}.json").write_text(json.dumps(entries))
    data = f"coco:{drawings}?proposals={{split}}.json"
    sets = ["steps=1", "batch_size=2", "crop_size=64", "input_size=160", "warmup_steps=0", "evaluate_every=0"]
    sets += ["model.width=16", "model.box_batch_size_per_image=8", "model.score_threshold=0", "model.proposals=1"]
    options = [part for name in sets for part in ("--set", name)]
    code, _, err = run(
        "train", "sds", "--data", data, "--backbone", "mobilenet_v2", *options,
        "--out", tmp_path / "run", "--workers", 0,
    )  # fmt: skip
    assert code == 0, err
    code, out, err = run("evaluate", tmp_path / "run", "--data", data, "--out", tmp_path / "report", "--json")
    assert code == 0, err
    found = json.loads((tmp_path / "report" / "coco_results.json").read_text())
    assert {tuple(one["bbox"]) for one in found} == {tuple(box) for box in boxes}
    code, out, err = run("evaluate", tmp_path / "run", "--data", data, "--tta")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "stored proposals belong to the whole image; leave out --tta" in err
    for words in (("evaluate", model), ("train", "mask_rcnn", "--out", tmp_path / "no")):
        code, out, err = run(*words, "--data", data, "--workers", 0)
        assert (code, out) == (2, "")
        assert err.splitlines()[-1].endswith("takes no proposals; leave ?proposals= out of the data")
    (drawings / "val.json").write_text(json.dumps([{"image_id": 101, "bbox": boxes[0]}]))
    code, out, err = run("evaluate", tmp_path / "run", "--data", data)
    assert code == 1
    assert f"{drawings}/val.json: no proposals for image '102'" in err
