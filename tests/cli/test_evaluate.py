"""`pixelwise evaluate`: a model, or masks that any tool wrote, evaluated on a data set."""

from __future__ import annotations

import json
import sys
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from pixelwise.cli.progress import image_bar
from pixelwise.data.spec import open_dataset
from pixelwise.errors import DataError
from pixelwise.evaluation.evaluate import evaluate, model_predictions
from pixelwise.evaluation.protocols import ProtocolPredictions, protocol_of
from pixelwise.evaluation.shards import Shard
from pixelwise.evaluation.worst_images import WorstImages
from pixelwise.inference.model_folder import ModelCard, write_model
from pixelwise.inference.predictor import Options, Predictor
from pixelwise.inference.systems import system_module
from pixelwise.labels import LabelSet
from pixelwise.metrics.mean_iou import DEFINITIONS, MeanIoU
from pixelwise.ops.resize import long_side_size, resize_image
from pixelwise.ops.resize_rule import ResizeRule
from pixelwise.ops.tiles import window_starts
from pixelwise.types import Annotation, Sample
from tests.cli.conftest import Run
from tests.drawn_scenes import draw_scene
from tests.shared_data import require

LABELS = LabelSet(
    name="drawn",
    names=("background", "disc", "square", "triangle"),
    is_thing=(False, True, True, True),
    palette=((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)),
    dataset_ids=(0, 7, 33, 8),
    void_ids=(255,),
)
"""Ids on disk are not the class ids, so that mixing them up shows."""


def write_set(root: Path, *, count: int = 5, size: tuple[int, int] = (48, 64), first: int = 0) -> Path:
    """Drawings as a `masks:` set in the ids of LABELS, void around the border; all of it is val."""
    (root / "images" / "val").mkdir(parents=True)
    (root / "masks" / "val").mkdir(parents=True)
    for number in range(first, first + count):
        height, width = size[0] + number % 2, size[1] - number % 3
        picture, truth = draw_scene(number, (height, width))
        truth = truth.copy()
        truth[:2] = 255
        Image.fromarray(picture).save(root / "images" / "val" / f"{number:03}.png")
        Image.fromarray(LABELS.dataset_ids_of(truth).astype(np.uint8)).save(root / "masks" / "val" / f"{number:03}.png")
    entries = [
        f'[[class]]\nname = "{name}"\nid = {id}\n' for name, id in zip(LABELS.names, LABELS.dataset_ids, strict=True)
    ]
    (root / "labels.toml").write_text('name = "drawn"\n' + "".join(entries))
    return root


@pytest.fixture
def drawings(tmp_path: Path) -> Path:
    return write_set(tmp_path / "drawings")


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """A small network of random weights whose predictions vary within an image."""
    torch.manual_seed(0)
    module = system_module("deeplab_v3_plus").build(num_classes=len(LABELS), backbone="mobilenet_v2")
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
    pictures = np.stack([draw_scene(seed)[0] for seed in range(4)])
    with torch.no_grad():
        module.train()(torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255)
    return module.eval()


def write_network(folder: Path, network: nn.Module, labels: LabelSet = LABELS) -> Path:
    card = ModelCard(
        task="semantic",
        system="deeplab_v3_plus",
        labels=labels,
        arguments={"backbone": "mobilenet_v2"},
        resize=ResizeRule(length=80),
    )
    write_model(folder, network.state_dict(), card)
    return folder


@pytest.fixture
def model(tmp_path: Path, network: nn.Module) -> Path:
    return write_network(tmp_path / "model", network)


def write_predictions(folder: Path, drawings: Path, *, names: Callable[[str], str] = str, noise: float = 0.3) -> Path:
    """The ground truth with noise, in ids on disk, as NAME.png."""
    generator = np.random.default_rng(0)
    for path in sorted((drawings / "masks" / "val").glob("*.png")):
        truth = np.asarray(Image.open(path))
        wrong = generator.choice(np.array(LABELS.dataset_ids, dtype=np.uint8), truth.shape)
        predicted = np.where(generator.random(truth.shape) < noise, wrong, np.where(truth == 255, 0, truth))
        target = folder / f"{names(path.stem)}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(predicted).save(target)
    return folder


def metrics_by_hand(drawings: Path, answer: Callable[[Sample], Annotation]) -> dict[str, Any]:
    dataset = open_dataset(f"masks:{drawings}@val", default_split="val")
    metric = MeanIoU(LABELS)
    for index in range(len(dataset)):
        sample = dataset[index]
        metric.update(answer(sample), sample.truth, id=sample.id)
    return metric.compute()


def means(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name != "per_class"}


# ---- a model


def test_json_is_the_object_of_the_interface(run: Run, model: Path, drawings: Path, network: nn.Module) -> None:
    code, out, err = run("evaluate", model, "--data", f"masks:{drawings}", "--json", "--workers", 0, "--quiet")
    assert (code, err, out.count("\n")) == (0, "", 1)
    result = json.loads(out)
    assert list(result) == ["model", "data", "images", "labels", "definition", "metrics", "per_class", "seconds"]
    assert result["definition"] == "voc"
    assert (result["model"], result["data"]) == (str(model), f"masks:{drawings}@val")
    assert (result["images"], result["labels"]) == (5, list(LABELS.names))
    assert list(result["metrics"]) == ["mean_iou", "pixel_accuracy", "mean_class_accuracy", "frequency_weighted_iou"]
    predictor = Predictor(
        network, ModelCard("semantic", "deeplab_v3_plus", LABELS, resize=ResizeRule(length=80)), device="cpu"
    )
    expected = metrics_by_hand(drawings, lambda sample: predictor.annotate(sample.image))
    assert result["metrics"] == means(expected)
    assert result["per_class"] == expected["per_class"]
    assert 0 < result["metrics"]["mean_iou"] < 1
    assert result["seconds"] > 0


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        (["--input-size", 64], {"input_size": 64}),
        (["--tile", "--input-size", 40], {"tile": True, "input_size": 40}),
        (["--tta"], {"tta": True}),
    ],
)
def test_options_of_prediction_reach_the_model(
    run: Run, model: Path, drawings: Path, network: nn.Module, options: list[Any], arguments: dict[str, Any]
) -> None:
    _, plain, _ = run("evaluate", model, "--data", f"masks:{drawings}", "--json", "--workers", 0)
    code, out, _ = run("evaluate", model, "--data", f"masks:{drawings}", "--json", "--workers", 0, *options)
    predictor = Predictor(
        network, ModelCard("semantic", "deeplab_v3_plus", LABELS, resize=ResizeRule(length=80)), device="cpu"
    )
    expected = metrics_by_hand(drawings, lambda sample: predictor.annotate(sample.image, Options(**arguments)))
    assert code == 0
    assert json.loads(out)["metrics"] == means(expected)
    assert json.loads(out)["metrics"] != json.loads(plain)["metrics"]


def test_a_protocol_is_named_in_the_report_and_in_its_parts(
    run: Run, model: Path, drawings: Path, network: nn.Module, tmp_path: Path
) -> None:
    arguments = (model, "--data", f"masks:{drawings}", "--workers", 0, "--protocol", "pspnet:41", "--tta")
    code, out, err = run("evaluate", *arguments, "--json")
    card = ModelCard("semantic", "deeplab_v3_plus", LABELS, resize=ResizeRule(length=80))
    predictor, options = Predictor(network, card, device="cpu"), Options(tta=True)
    predict = ProtocolPredictions(predictor, protocol_of("pspnet:41", predictor, options), options)
    assert code == 0
    assert json.loads(out)["metrics"] == means(metrics_by_hand(drawings, predict))
    stated = {
        "name": "pspnet",
        "scales": [0.5, 0.75, 1.0, 1.25, 1.5, 1.75],
        "mirrored": True,
        "crop": [41, 41],
        "output_stride": None,
    }
    assert json.loads(out)["protocol"] == stated
    assert err == "protocol pspnet: windows of 41×41, scales 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, mirrored\n"
    parts = shards(run, arguments, 2, tmp_path / "shards")
    code, merged, _ = run("evaluate", "--merge", *parts, "--json")
    assert code == 0
    assert {**json.loads(merged), "seconds": 0} == {**json.loads(out), "seconds": 0}
    other = tmp_path / "other.json"
    other.write_text(run("evaluate", *arguments[:-1], "--shard", "2/2", "--json")[1])
    code, _, err = run("evaluate", "--merge", parts[0], other)
    assert (code, err.count("\n")) == (2, 1)
    assert "only shards of one evaluation can be joined" in err
    _, out, _ = run("evaluate", *arguments)
    assert out.splitlines()[-1] == "protocol pspnet"
    _, out, _ = run("evaluate", *arguments[:-3], "--json")
    assert "protocol" not in json.loads(out)


def test_the_table_names_classes_means_and_definition(run: Run, model: Path, drawings: Path) -> None:
    _, out, _ = run("evaluate", model, "--data", f"masks:{drawings}", "--json", "--workers", 0)
    numbers = json.loads(out)
    code, out, err = run("evaluate", model, "--data", f"masks:{drawings}", "--workers", 0)
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0].startswith(f"{model} on masks:{drawings}@val: 5 images")
    rows = {line.split("  ")[0]: line.split()[-3:] for line in lines[2:6]}
    assert rows == {
        name: [f"{values['iou']:.4f}", f"{values['accuracy']:.4f}", f"{values['pixels']:,}"]
        for name, values in numbers["per_class"].items()
    }
    assert lines[6].split() == ["mean", "IoU", f"{numbers['metrics']['mean_iou']:.4f}"]
    assert "by PASCAL VOC's definition: one confusion matrix, void ignored, background included" in lines[-1]


def test_reading_processes_change_nothing(run: Run, model: Path, drawings: Path) -> None:
    results = [
        json.loads(run("evaluate", model, "--data", f"masks:{drawings}", "--json", "--workers", workers)[1])
        for workers in (0, 2)
    ]
    assert results[0]["metrics"] == results[1]["metrics"]


def test_masks_that_predict_wrote_give_the_models_numbers(
    run: Run, model: Path, drawings: Path, tmp_path: Path
) -> None:
    _, of_model, _ = run("evaluate", model, "--data", f"masks:{drawings}", "--json", "--workers", 0)
    code, _, err = run("predict", drawings / "images", "--model", model, "--out", tmp_path / "out", "--workers", 0)
    assert code == 0, err
    code, of_masks, err = run(
        "evaluate", "--predictions", tmp_path / "out", "--data", f"masks:{drawings}", "--json", "--workers", 0
    )
    assert (code, err) == (0, "")
    assert json.loads(of_masks)["model"] == str(tmp_path / "out")
    for name in ("metrics", "per_class", "images", "data", "labels"):
        assert json.loads(of_masks)[name] == json.loads(of_model)[name]


def test_a_broken_image_is_named_and_the_others_are_evaluated(run: Run, model: Path, drawings: Path) -> None:
    broken = drawings / "images" / "val" / "001.png"
    broken.write_bytes(broken.read_bytes()[:200])
    for workers in (0, 1):
        code, out, err = run("evaluate", model, "--data", f"masks:{drawings}", "--json", "--workers", workers)
        assert code == 1
        assert json.loads(out)["images"] == 4
        first, line = err.splitlines()
        assert first == "1 of 5 failed:"
        assert line.startswith(f"  {broken}: ")
        assert "'001'" in line
        assert line.endswith("; skipped")


def test_where_every_image_is_broken_there_are_no_numbers(run: Run, model: Path, drawings: Path) -> None:
    for path in (drawings / "images" / "val").iterdir():
        path.write_bytes(b"")
    code, out, err = run("evaluate", model, "--data", f"masks:{drawings}", "--json", "--workers", 0)
    assert (code, json.loads(out)["images"], json.loads(out)["metrics"]["mean_iou"]) == (1, 0, None)
    assert len(err.splitlines()) == 6
    code, out, _ = run("evaluate", model, "--data", f"masks:{drawings}", "--workers", 0)
    assert code == 1
    assert "mean IoU  " in out


def test_several_sets_are_evaluated_as_one(run: Run, model: Path, drawings: Path, tmp_path: Path) -> None:
    more = write_set(tmp_path / "more", count=3)  # the ids are those of the first set
    both = ("--data", f"masks:{drawings}", "--data", f"masks:{more}@val")
    code, out, _ = run("evaluate", model, *both, "--json", "--workers", 0)
    result = json.loads(out)
    assert (code, result["images"], result["data"]) == (0, 8, f"masks:{drawings}@val + masks:{more}@val")
    singles = [
        json.loads(run("evaluate", model, "--data", f"masks:{root}", "--json", "--workers", 0)[1])["per_class"]
        for root in (drawings, more)
    ]
    for name, values in result["per_class"].items():
        assert values["pixels"] == sum(single[name]["pixels"] for single in singles)


def test_notes_about_the_data_are_printed_unless_quiet(run: Run, model: Path, tmp_path: Path) -> None:
    root = write_set(tmp_path / "flat")
    for kind in ("images", "masks"):
        for path in (root / kind / "val").iterdir():
            path.rename(root / kind / path.name)
        (root / kind / "val").rmdir()
    code, out, err = run("evaluate", model, "--data", f"masks:{root}", "--json", "--workers", 0)
    assert (code, json.loads(out)["images"]) == (0, 1)
    assert "every fifth" in err
    _, _, err = run("evaluate", model, "--data", f"masks:{root}", "--json", "--workers", 0, "--quiet")
    assert err == ""


# ---- classes


def test_other_classes_are_refused_with_both_lists(
    run: Run, drawings: Path, network: nn.Module, tmp_path: Path
) -> None:
    other = write_network(
        tmp_path / "other", network, LabelSet.from_names("other", ["background", "ball", "box", "cone"])
    )
    code, out, err = run("evaluate", other, "--data", f"masks:{drawings}", "--workers", 0)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "background, ball, box, cone" in err
    assert "background, disc, square, triangle" in err
    assert "--map" in err


def test_a_map_evaluates_in_the_models_classes(run: Run, drawings: Path, network: nn.Module, tmp_path: Path) -> None:
    labels = LabelSet.from_names("other", ["round", "background", "square", "flat"])
    other = write_network(tmp_path / "other", network, labels)
    table = tmp_path / "map.toml"
    table.write_text('[names]\ndisc = "round"\n')
    code, out, err = run("evaluate", other, "--data", f"masks:{drawings}", "--map", table, "--json", "--workers", 0)
    result = json.loads(out)
    assert (code, result["labels"]) == (0, list(labels.names))
    assert [line.strip() for line in err.splitlines()] == [
        "label map drawn → other:",
        "background → background",
        "disc → round",
        "square → square",
        "triangle → ignore",
    ]
    truth = open_dataset(f"masks:{drawings}@val", default_split="val")
    counts = np.bincount(np.concatenate([truth[index].truth.semantic.flatten() for index in range(5)]), minlength=256)
    assert [values["pixels"] for values in result["per_class"].values()] == [counts[1], counts[0], counts[2], 0]
    code, out, err = run(
        "evaluate", other, "--data", f"masks:{drawings}", "--map", "names", "--json", "--workers", 0, "--quiet"
    )
    assert (code, err) == (0, "")
    assert json.loads(out)["per_class"]["round"]["pixels"] == 0


# ---- masks


def test_masks_are_read_in_the_ids_of_the_data(run: Run, drawings: Path, tmp_path: Path) -> None:
    folder = write_predictions(tmp_path / "out", drawings)
    code, out, err = run("evaluate", "--predictions", folder, "--data", f"masks:{drawings}", "--json", "--workers", 0)

    def answer(sample: Sample) -> Annotation:
        ids = LABELS.class_ids(np.array(Image.open(folder / f"{sample.id}.png")), source="")
        return Annotation(semantic=torch.from_numpy(ids))

    assert (code, err) == (0, "")
    assert json.loads(out)["metrics"] == means(metrics_by_hand(drawings, answer))
    assert json.loads(out)["model"] == str(folder)


def test_the_ground_truth_as_masks_is_perfect(run: Run, drawings: Path) -> None:
    code, out, _ = run(
        "evaluate", "--predictions", drawings / "masks", "--data", f"masks:{drawings}", "--json", "--workers", 0
    )
    assert (code, set(json.loads(out)["metrics"].values())) == (0, {1.0})


def test_the_masks_of_camvid_are_found_and_perfect(run: Run) -> None:
    camvid = require("camvid")
    code, out, err = run(
        "evaluate", "--predictions", camvid / "valannot", "--data", f"camvid:{camvid}", "--json", "--workers", 0
    )
    result = json.loads(out)
    assert (code, err, result["images"]) == (0, "", len(list((camvid / "val").iterdir())))
    assert set(result["metrics"].values()) == {1.0}
    assert min(values["pixels"] for values in result["per_class"].values()) > 0


def test_void_in_every_mask_is_said(run: Run, tmp_path: Path) -> None:
    """Masks of 0 and 255 where the classes are 0 and 1, as thresholded pictures have them."""
    ids = np.zeros((6, 8), dtype=np.uint8)
    ids[2:4, 2:5] = 1
    for name in ("a", "b"):
        for folder, content in (("masks/val", ids), ("predicted", ids * 255)):
            (tmp_path / folder).mkdir(exist_ok=True, parents=True)
            Image.fromarray(content).save(tmp_path / folder / f"{name}.png")
        (tmp_path / "images/val").mkdir(exist_ok=True, parents=True)
        Image.new("RGB", (8, 6)).save(tmp_path / "images/val" / f"{name}.png")
    (tmp_path / "labels.txt").write_text("background\npart\n")
    data = ("--data", f"masks:{tmp_path}")
    code, _, err = run("evaluate", "--predictions", tmp_path / "predicted", *data, "--quiet", "--workers", 0)
    assert code == 0
    assert err == (
        f"{tmp_path / 'predicted'}: void (255) is in every one of its 2 masks and counts as an error; 'part' is "
        "never predicted: write 1 for it where 255 is meant to be it\n"
    )
    Image.fromarray(ids).save(tmp_path / "predicted" / "b.png")
    code, _, err = run("evaluate", "--predictions", tmp_path / "predicted", *data, "--quiet", "--workers", 0)
    assert (code, err) == (0, "")


def test_void_in_a_mask_is_an_error(run: Run, drawings: Path, tmp_path: Path) -> None:
    folder = write_predictions(tmp_path / "out", drawings, noise=0)
    for path in folder.iterdir():
        ids = np.array(Image.open(path))
        ids[: ids.shape[0] // 2] = 255
        Image.fromarray(ids).save(path)
    _, out, _ = run("evaluate", "--predictions", folder, "--data", f"masks:{drawings}", "--json", "--workers", 0)
    assert json.loads(out)["metrics"]["pixel_accuracy"] == pytest.approx(0.52, abs=0.05)


NAMINGS: dict[str, Callable[[str], str]] = {
    "NAME.semantic.png": lambda name: f"{name}.semantic",
    "with the suffix of the image": lambda name: f"{name}.png.semantic",
    "in a sub-folder": lambda name: f"some/where/{name}",
    "in several sub-folders": lambda name: f"{int(name) % 2}/{name}.semantic",
}


@pytest.mark.parametrize("naming", NAMINGS.values(), ids=NAMINGS)
def test_masks_are_found_under_the_names_tools_give(
    run: Run, drawings: Path, tmp_path: Path, naming: Callable[[str], str]
) -> None:
    plain = write_predictions(tmp_path / "plain", drawings)
    named = write_predictions(tmp_path / "named", drawings, names=naming)
    results = [
        json.loads(run("evaluate", "--predictions", folder, "--data", f"masks:{drawings}", "--json", "--workers", 0)[1])
        for folder in (plain, named)
    ]
    assert results[0]["metrics"] == results[1]["metrics"]


def test_palette_masks_overlays_and_notes_in_the_folder(run: Run, drawings: Path, tmp_path: Path) -> None:
    folder = write_predictions(tmp_path / "out", drawings)
    _, before, _ = run("evaluate", "--predictions", folder, "--data", f"masks:{drawings}", "--json", "--workers", 0)
    for path in list(folder.iterdir()):
        picture = Image.open(path).copy()
        picture.putpalette([channel for index in range(256) for channel in (index, 0, 255 - index)])
        picture.save(folder / f"{path.stem}.semantic.png")
        Image.new("RGB", picture.size).save(folder / f"{path.stem}.overlay.png")
        Image.new("L", picture.size).save(path)  # NAME.semantic.png goes before NAME.png
    (folder / "results.jsonl").write_text("{}\n")
    code, after, err = run("evaluate", "--predictions", folder, "--data", f"masks:{drawings}", "--json", "--workers", 0)
    assert (code, err) == (0, "")
    assert json.loads(after)["metrics"] == json.loads(before)["metrics"]


def test_images_without_a_mask_are_counted_and_named(run: Run, drawings: Path, tmp_path: Path) -> None:
    folder = write_predictions(tmp_path / "out", drawings)
    (folder / "001.png").unlink()
    (folder / "003.png").unlink()
    code, out, err = run("evaluate", "--predictions", folder, "--data", f"masks:{drawings}", "--json", "--workers", 0)
    assert (code, json.loads(out)["images"]) == (1, 3)
    assert err == "2 of 5 images have no prediction: 001, 003; skipped\n"


def test_a_mask_of_another_size_or_with_unknown_ids_is_named(run: Run, drawings: Path, tmp_path: Path) -> None:
    folder = write_predictions(tmp_path / "out", drawings)
    Image.new("L", (10, 20)).save(folder / "000.png")
    Image.new("L", Image.open(folder / "002.png").size, 99).save(folder / "002.png")
    Image.new("RGB", Image.open(folder / "004.png").size, (1, 2, 3)).save(folder / "004.png")
    code, out, err = run("evaluate", "--predictions", folder, "--data", f"masks:{drawings}", "--json", "--workers", 0)
    assert (code, json.loads(out)["images"]) == (1, 2)
    lines = err.splitlines()
    assert lines[0] == "3 of 5 failed:"
    assert lines[1].startswith(f"  {folder / '000.png'}: the mask is 20×10, image '000' 48×64")
    assert lines[2].startswith(f"  {folder / '002.png'}: value 99 ")
    assert lines[3].startswith(f"  {folder / '004.png'}: a colour mask")
    assert len(lines) == 4


def test_folders_tell_masks_of_one_name_apart(run: Run, drawings: Path, tmp_path: Path) -> None:
    more = write_set(tmp_path / "more", count=5, first=50)
    for path in [*(more / "images" / "val").iterdir(), *(more / "masks" / "val").iterdir()]:
        path.rename(path.with_name(f"{int(path.stem) - 50:03}.png"))
    both = ("--data", f"masks:{drawings}", "--data", f"masks:{more}", "--json", "--workers", 0)
    out = tmp_path / "out"
    write_predictions(out / "drawings" / "images" / "val", drawings, noise=0)
    write_predictions(out / "more" / "images" / "val", more, noise=0)
    code, text, err = run("evaluate", "--predictions", out, *both)
    assert (code, err) == (0, "")
    assert json.loads(text)["metrics"]["mean_iou"] == 1
    assert json.loads(text)["images"] == 10
    flat = write_predictions(tmp_path / "flat", drawings)
    code, _, err = run("evaluate", "--predictions", flat, *both)
    assert (code, err.count("\n")) == (2, 1)
    assert "may belong to image '1/000' or to '2/000'" in err


def refusals(tmp_path: Path, drawings: Path, model: Path) -> dict[str, tuple[list[Any], str]]:
    data = ["--data", f"masks:{drawings}"]
    (tmp_path / "empty").mkdir()
    strange = tmp_path / "strange"
    strange.mkdir()
    Image.new("L", (4, 4)).save(strange / "nobody.png")
    twins = write_predictions(tmp_path / "twins", drawings)
    Image.new("L", (4, 4)).save(twins / "000.bmp")
    copies = tmp_path / "copies"
    write_predictions(copies / "a", drawings)
    write_predictions(copies / "b", drawings)
    return {
        "neither": ([*data], "expected either MODEL or --predictions PATH"),
        "both": ([model, "--predictions", twins, *data], "expected either MODEL or --predictions PATH"),
        "no data": ([model], "Missing option '--data'"),
        "no model": ([tmp_path / "none", *data], "no such model"),
        "no folder": (["--predictions", tmp_path / "none", *data], "no such folder"),
        "a file": (["--predictions", drawings / "labels.toml", *data], "is a file; expected a folder of id masks"),
        "no masks": (["--predictions", tmp_path / "empty", *data], "none of its 0 mask files is named after"),
        "others": (["--predictions", strange, *data], "expected 000.png or 000.semantic.png for image '000'"),
        "two files": (["--predictions", twins, *data], "000.bmp has the same name"),
        "two folders": (["--predictions", copies, *data], "may have its mask in"),
        "options": (["--predictions", twins, "--tta", "--tile", *data], "--tile, --tta: only with MODEL"),
        "protocol of masks": (["--predictions", twins, "--protocol", "pspnet", *data], "--protocol: only with MODEL"),
        "no protocol": ([model, "--protocol", "segnet", *data], "--protocol segnet: expected pspnet, pspnet:CROP or"),
        "tiles": ([model, "--protocol", "pspnet", "--tile", *data], "--tile: not with --protocol pspnet"),
        "tracks": ([model, "--protocol", "pspnet", "--track", *data], "--track: not with --protocol"),
        "no split": ([model, "--data", f"masks:{drawings}@test"], "no split 'test'"),
        "no size": ([model, "--input-size", 0, *data], "Invalid value for '--input-size'"),
        "two models": ([model, model, *data], "2 models; evaluate evaluates one, see pixelwise compare"),
        "definition": (
            [model, "--definition", "coco", *data],
            "definition 'coco': for semantic segmentation expected one of voc",
        ),
        "cityscapes": ([model, "--definition", "cityscapes", *data], "'background' of 'drawn' is not one of Citysc"),
        "out is a file": ([model, "--out", drawings / "labels.toml", *data], "labels.toml: cannot be written (File ex"),
        "shard 0": ([model, "--shard", "0/4", *data], "--shard 0/4: expected I/N with I from 1 to N: the shards of 4"),
        "shard 5": ([model, "--shard", "5/4", *data], "--shard 5/4: expected I/N with"),
        "shard of 0": ([model, "--shard", "1/0", *data], "--shard 1/0: expected I/N with"),
        "no shard": ([model, "--shard", "first", *data], "--shard first: expected I/N with"),
        "a minus": ([model, "--shard", "-1/4", *data], "--shard -1/4: expected I/N with"),
    }


def test_what_cannot_be_evaluated_is_refused_in_one_line(run: Run, drawings: Path, model: Path, tmp_path: Path) -> None:
    for case, (arguments, text) in refusals(tmp_path, drawings, model).items():
        code, out, err = run("evaluate", *arguments)
        assert (code, out) == (2, ""), case
        assert err.startswith("pixelwise: "), case
        assert err.count("\n") == 1, case
        assert text in err, case


# ---- definitions


@pytest.mark.parametrize("name", ["voc", "ade20k"])
def test_the_label_set_chooses_the_definition(run: Run, drawings: Path, tmp_path: Path, name: str) -> None:
    table = drawings / "labels.toml"
    table.write_text(table.read_text().replace('"drawn"', f'"{name}"', 1))
    folder = write_predictions(tmp_path / "out", drawings)
    data = ("--predictions", folder, "--data", f"masks:{drawings}", "--workers", 0)
    code, out, err = run("evaluate", *data, "--json")
    result = json.loads(out)
    assert (code, err, result["definition"]) == (0, "", name)
    assert ("score" in result["metrics"]) == (name == "ade20k")
    _, chosen, _ = run("evaluate", *data, "--json", "--definition", "ade20k")
    metrics = json.loads(chosen)["metrics"]
    assert json.loads(chosen)["definition"] == "ade20k"
    assert metrics["score"] == (metrics["mean_iou"] + metrics["pixel_accuracy"]) / 2
    _, text, _ = run("evaluate", *data)
    assert DEFINITIONS[name] in text.splitlines()[-1]


def test_cityscapes_names_categories_and_objects(run: Run, tmp_path: Path) -> None:
    root = write_set(tmp_path / "streets")
    (root / "labels.toml").write_text(
        'name = "cityscapes"\n'
        + "".join(
            f'[[class]]\nname = "{name}"\nid = {id}\n'
            for name, id in zip(("road", "car", "sky", "rider"), LABELS.dataset_ids, strict=True)
        )
    )
    folder = write_predictions(tmp_path / "out", root)
    data = ("--predictions", folder, "--data", f"masks:{root}", "--workers", 0)
    result = json.loads(run("evaluate", *data, "--json")[1])
    assert result["definition"] == "cityscapes"
    assert list(result["per_category"]) == ["flat", "vehicle", "sky", "human"]
    assert result["per_category"]["flat"]["iou"] == result["per_class"]["road"]["iou"]
    assert result["metrics"]["mean_iiou"] is None  # masks of classes tell no objects apart
    _, text, _ = run("evaluate", *data)
    assert "category" in text
    assert f"human     {result['per_category']['human']['iou']:.4f}     -" in text
    assert "mean iIoU               -" in text


# ---- shards


def shards(run: Run, arguments: Sequence[Any], count: int, folder: Path) -> list[Path]:
    """The files that every shard's stdout went to."""
    folder.mkdir(exist_ok=True)
    files = []
    for number in range(1, count + 1):
        _, out, _ = run("evaluate", *arguments, "--shard", f"{number}/{count}", "--json")
        files.append(folder / f"{number}.json")
        files[-1].write_text(out)
    return files


WITHOUT_TIME = ("model", "data", "images", "labels", "definition", "metrics", "per_class")


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_shards_join_to_exactly_the_whole(run: Run, drawings: Path, tmp_path: Path, count: int) -> None:
    folder = write_predictions(tmp_path / "out", drawings)
    arguments = ("--predictions", folder, "--data", f"masks:{drawings}", "--workers", 0)
    whole = json.loads(run("evaluate", *arguments, "--json")[1])
    files = shards(run, arguments, count, tmp_path / "shards")
    parts = [json.loads(path.read_text()) for path in files]
    ids = [id for part in parts for id in part["shard"]["state"]["images"]]
    assert sorted(ids) == [f"{number:03}" for number in range(5)]
    code, out, err = run("evaluate", "--merge", *reversed(files), "--json")
    joined = json.loads(out)
    assert (code, err) == (0, "")
    assert list(joined) == list(whole)
    assert [joined[name] for name in WITHOUT_TIME] == [whole[name] for name in WITHOUT_TIME]
    assert joined["seconds"] == pytest.approx(sum(part["seconds"] for part in parts), abs=0.01)
    assert all(part["images"] == len(part["shard"]["state"]["images"]) for part in parts)


def test_shards_of_a_model_join_and_write_a_report(run: Run, model: Path, drawings: Path, tmp_path: Path) -> None:
    arguments = (model, "--data", f"masks:{drawings}", "--workers", 0, "--definition", "ade20k", "--quiet")
    _, whole, _ = run("evaluate", *arguments, "--json", "--out", tmp_path / "whole")
    for number in (1, 2):
        folder = tmp_path / f"part{number}"
        code, out, err = run("evaluate", *arguments, "--shard", f"{number}/2", "--out", folder)
        assert (code, err) == (0, "")
        assert f", shard {number}/2: {3 if number == 1 else 2} images" in out
    (tmp_path / "joined").mkdir()
    (tmp_path / "joined" / "worst.png").write_bytes(b"of another evaluation")
    code, out, err = run(
        "evaluate", "--merge", tmp_path / "part2", tmp_path / "part1" / "evaluation.json", "--out", tmp_path / "joined"
    )
    assert (code, err) == (0, f"{tmp_path / 'joined'}: without worst.png; the --out of each shard has its own\n")
    joined = json.loads((tmp_path / "joined" / "evaluation.json").read_text())
    assert [joined[name] for name in WITHOUT_TIME] == [json.loads(whole)[name] for name in WITHOUT_TIME]
    assert out.splitlines()[0].startswith(f"{model} on masks:{drawings}@val: 5 images")
    for name in ("images.jsonl", "confusion.png"):
        assert (tmp_path / "joined" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "joined").iterdir()) == [
        "confusion.png",
        "evaluation.json",
        "images.jsonl",
    ]


def test_what_a_shard_could_not_evaluate_is_told_at_the_end(run: Run, drawings: Path, tmp_path: Path) -> None:
    folder = write_predictions(tmp_path / "out", drawings)
    (folder / "001.png").unlink()
    Image.new("L", (10, 20)).save(folder / "004.png")
    arguments = ("--predictions", folder, "--data", f"masks:{drawings}", "--workers", 0)
    _, whole, faults = run("evaluate", *arguments, "--json")
    codes = [run("evaluate", *arguments, "--shard", f"{number}/3", "--json")[0] for number in (1, 2, 3)]
    assert codes == [0, 1, 0]  # 000 and 003, 001 and 004, 002
    code, out, err = run("evaluate", "--merge", *shards(run, arguments, 3, tmp_path / "shards"), "--json")
    assert (code, err) == (1, faults)
    assert json.loads(out)["metrics"] == json.loads(whole)["metrics"]


def test_shards_that_do_not_belong_together_are_refused(
    run: Run, model: Path, drawings: Path, network: nn.Module, tmp_path: Path
) -> None:
    arguments = (model, "--data", f"masks:{drawings}", "--workers", 0)
    first, second = shards(run, arguments, 2, tmp_path / "shards")

    def changed(**changes: Any) -> Path:
        """The second shard with other values in its `shard`, or beside it."""
        content = json.loads(second.read_text())
        for name, value in changes.items():
            part = content if name in content else content["shard"]
            part[name] = value
        path = tmp_path / f"changed{len(list(tmp_path.iterdir()))}.json"
        path.write_text(json.dumps(content))
        return path

    content = json.loads(second.read_text())
    state, block = content["shard"]["state"], content["shard"]
    other_data = write_set(tmp_path / "other", count=6)
    other = {
        "other data": (model, "--data", f"masks:{other_data}"),
        "another model": (write_network(tmp_path / "twin", network), "--data", f"masks:{drawings}"),
        "tta": (*arguments, "--tta"),
        "input size": (*arguments, "--input-size", 64),
        "another definition": (*arguments, "--definition", "ade20k"),
    }
    made = {}
    for name, line in other.items():
        made[name] = tmp_path / f"{name}.json"
        made[name].write_text(run("evaluate", *line, "--workers", 0, "--shard", "2/2", "--json")[1])
    broken, text, whole = tmp_path / "broken.json", tmp_path / "text.json", tmp_path / "whole.json"
    broken.write_bytes(second.read_bytes()[:500])
    text.write_bytes(b"\xff\xfe\x00")
    whole.write_text(run("evaluate", *arguments, "--json")[1])
    cases: list[tuple[list[Path], str]] = [
        ([first], "1 of 2 shards are missing: 2/2"),
        ([first, second, second], f"{second}: shard 2/2 again, after {second}"),
        ([first, changed(number=1)], "shard 1/2 again, after"),
        ([first, changed(count=3)], "shards 3, in"),
        ([first, made["other data"]], f"data masks:{other_data}@val, in {first} masks:{drawings}@val"),
        ([first, made["another model"]], f"model {tmp_path / 'twin'}, in {first} {model}"),
        ([first, made["tta"]], f"tta true, in {first} false; only shards of one evaluation can be joined"),
        ([first, made["input size"]], f"input_size 64, in {first} 80"),
        ([first, made["another definition"]], "definition ade20k, in"),
        ([first, changed(conditions={**block["conditions"], "weights": "0"})], "weights 0, in"),
        ([first, changed(whole={"images": 5, "ids": "other"})], "images of the data"),
        ([first, changed(label_set={**block["label_set"], "names": ["a", "b", "c", "d"]})], "(4: a, b, c, d)"),
        ([first, changed(format_version=1)], "shard format 1, this pixelwise reads 2"),
        ([first, changed(state={**state, "images": {"000": [1, 1, 1.0]}})], "in its confusion matrix"),
        ([first, changed(state={**state, "confusion": [[1.5]]})], "state.confusion.0.0"),
        ([first, changed(state=json.loads(first.read_text())["shard"]["state"])], "image '000' is in both parts"),
        ([first, changed(missing=["007"])], "the shards have 6 images, 5 are in"),
        ([first, changed(missing=[7])], "shard.missing.0: "),
        ([first, changed(number="2")], "shard.number: "),
        ([first, changed(count=10**12)], "shard.count: "),
        ([first, changed(conditions=5)], "shard.conditions: "),
        ([first, changed(conditions={"names": {"names": 5}})], "only shards of one evaluation can be joined"),
        ([first, changed(state={**state, "images": [5]})], "state.images: "),
        ([first, changed(label_set={**block["label_set"], "palette": 5})], "palette: "),
        ([first, changed(definition=["voc"])], "definition: "),
        ([first, broken], "broken.json: not "),
        ([first, text], "text.json: not "),
        ([first, whole], "whole.json: expected a shard of an evaluation"),
        ([first, tmp_path / "nowhere.json"], "nowhere.json: no such file or directory"),
        ([first, tmp_path], "evaluation.json: no such file or directory"),
    ]
    for files, wanted in cases:
        code, out, err = run("evaluate", "--merge", *files)
        assert (code, out, err.count("\n")) == (2, "", 1), wanted
        assert wanted in err, (wanted, err)
    for options, wanted in (
        ([], "--merge: expected the files of the shards"),
        ([first, second, "--tta"], "--tta: not with --merge"),
        ([first, second, "--protocol", "pspnet"], "--protocol: not with --merge"),
        ([first, second, "--data", "masks:x", "--shard", "1/2"], "--data, --shard: not with --merge"),
    ):
        code, out, err = run("evaluate", "--merge", *options)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert wanted in err


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("total", [0, 1, 6, 7, 19])
def test_every_image_is_in_one_shard(count: int, total: int) -> None:
    parts = [Shard(number, count).part_of(range(total)) for number in range(1, count + 1)]
    assert sorted(index for part in parts for index in part) == list(range(total))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_every_clip_is_in_one_shard(count: int) -> None:
    clips = ["a"] * 3 + ["b"] + ["a"] * 2 + ["c"] * 4
    parts = [Shard(number, count).part_of(range(len(clips)), clips) for number in range(1, count + 1)]
    assert sorted(index for part in parts for index in part) == list(range(len(clips)))
    assert sum(len({clips[index] for index in part}) for part in parts) == 3


# ---- a report in a folder


def test_the_report_holds_numbers_rows_and_pictures(run: Run, drawings: Path, tmp_path: Path) -> None:
    folder = write_predictions(tmp_path / "masks", drawings)
    wrong = np.array(Image.open(folder / "003.png"))
    Image.fromarray(np.where(wrong == 7, 33, 7).astype(np.uint8)).save(folder / "003.png")
    report = tmp_path / "some" / "report"
    code, out, err = run(
        "evaluate", "--predictions", folder, "--data", f"masks:{drawings}", "--workers", 0, "--json", "--out", report
    )
    assert (code, err) == (0, "")
    assert sorted(path.name for path in report.iterdir()) == [
        "confusion.png",
        "evaluation.json",
        "images.jsonl",
        "worst.png",
    ]
    assert (report / "evaluation.json").read_text() == out
    rows = [json.loads(line) for line in (report / "images.jsonl").read_text().splitlines()]
    assert {row["id"] for row in rows} == {f"{number:03}" for number in range(5)}
    assert rows[0]["id"] == "003"
    assert [row["mean_iou"] for row in rows] == sorted(row["mean_iou"] for row in rows)
    dataset = open_dataset(f"masks:{drawings}@val", default_split="val")
    for row in rows:
        truth = dataset[dataset.ids.index(row["id"])].truth.semantic
        assert truth is not None
        answer = LABELS.class_ids(np.array(Image.open(folder / f"{row['id']}.png")), source="")
        expected, answered = truth.numpy()[truth != 255], answer[truth.numpy() != 255]
        present = set(expected.tolist()) | set(answered.tolist())
        ious = [
            ((expected == index) & (answered == index)).sum() / ((expected == index) | (answered == index)).sum()
            for index in present
        ]
        assert row["mean_iou"] == pytest.approx(sum(ious) / len(present))
        assert row["pixel_accuracy"] == pytest.approx((expected == answered).mean())
        assert row["pixels"] == len(expected)
    for name in ("confusion.png", "worst.png"):
        assert Image.open(report / name).getcolors(maxcolors=2**16) != 1


class _Noisy:
    """Images with their number as red value; the prediction of image i is wrong in i of 100 pixels."""

    def __init__(self, count: int) -> None:
        self.order = np.random.default_rng(0).permutation(count)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Sample:
        number = int(self.order[index])
        image = torch.zeros(3, 10, 10, dtype=torch.uint8)
        image[0] = number
        return Sample(image, Annotation(semantic=torch.ones(10, 10, dtype=torch.uint8)), str(number), (10, 10))

    @staticmethod
    def answer(sample: Sample) -> Annotation:
        wrong = torch.ones(100, dtype=torch.uint8)
        wrong[: int(sample.id)] = 2
        return Annotation(semantic=wrong.view(10, 10))


def test_the_worst_images_are_kept_small_and_drawn_first(drawings: Path) -> None:
    metric = MeanIoU(LABELS)
    worst = WorstImages(metric, count=3)
    assert worst.sheet() is None
    most = 0
    for _ in evaluate(_Noisy.answer, _Noisy(60), metric, watch=worst):
        most = max(most, len(worst.kept))
    assert most == 3
    assert [one.sample.id for one in worst.kept] == ["59", "58", "57"]
    assert worst.kept[0].caption == ("59", "mean IoU 0.205 · pixel accuracy 0.410")
    assert worst.kept[0].sample.image.shape == (3, 240, 240)  # of cells, whatever the size of the image
    sheet = worst.sheet()
    assert sheet is not None
    picture = np.asarray(sheet)
    reds = [59, 58, 57]
    rows = [np.argwhere((picture == (red, 0, 0)).all(axis=2)) for red in reds]
    assert all(len(row) >= 240 * 240 for row in rows)
    assert rows[0][0][0] < rows[1][0][0] < rows[2][0][0]
    # prediction (right) and ground truth (middle) are blends of the image with the class's colour
    disc, square = (picture.reshape(-1, 3) == colour for colour in ((255, 0, 0), (0, 255, 0)))
    assert disc.all(axis=1).any()
    assert square.all(axis=1).any()


# ---- several passes over an image, by the slow formula


def looks(network: nn.Module, image: torch.Tensor, long_side: int, *, mirrored: bool = False) -> torch.Tensor:
    """Scores K×h×w of the image at so many pixels."""
    pixels = resize_image(image, long_side_size((image.shape[1], image.shape[2]), long_side)).float()[None] / 255
    with torch.no_grad():
        logits = network(pixels.flip(3) if mirrored else pixels).logits
    return (logits.flip(3) if mirrored else logits)[0]


def enlarged(scores: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    return F.interpolate(scores[None], size=tuple(size), mode="bilinear", align_corners=False)[0]


def average_of_six(network: nn.Module, image: torch.Tensor, input_size: int) -> torch.Tensor:
    grid = looks(network, image, input_size).shape[1:]
    total = torch.zeros(len(LABELS), *grid)
    for scale in (0.75, 1.0, 1.25):
        for mirrored in (False, True):
            scores = looks(network, image, round(scale * input_size), mirrored=mirrored)
            total += enlarged(scores, grid).softmax(dim=0)
    return enlarged((total / 6).log(), image.shape[1:]).argmax(dim=0)


def average_of_windows(network: nn.Module, image: torch.Tensor, window: int) -> torch.Tensor:
    height, width = image.shape[1:]
    total, count = torch.zeros(len(LABELS), height, width), torch.zeros(height, width)
    for top in window_starts(height, window):
        for left in window_starts(width, window):
            cut = image[:, top : top + window, left : left + window]
            size = cut.shape[1:]
            place = (slice(top, top + size[0]), slice(left, left + size[1]))
            total[:, *place] += enlarged(looks(network, cut, max(size)), size).softmax(dim=0)
            count[place] += 1
    assert count.min() >= 1
    assert count.max() >= 4
    return (total / count).argmax(dim=0)


@pytest.mark.parametrize("options", [{"tta": True}, {"tile": True, "input_size": 40}], ids=["tta", "tile"])
def test_several_passes_are_averages_of_probabilities(
    drawings: Path, network: nn.Module, options: dict[str, Any]
) -> None:
    predictor = Predictor(
        network, ModelCard("semantic", "deeplab_v3_plus", LABELS, resize=ResizeRule(length=80)), device="cpu"
    )
    dataset = open_dataset(f"masks:{drawings}@val", default_split="val")
    seen: dict[str, torch.Tensor] = {}

    def keep(sample: Sample, predicted: Annotation) -> None:
        assert predicted.semantic is not None
        seen[sample.id] = predicted.semantic

    list(evaluate(model_predictions(predictor, Options(**options)), dataset, MeanIoU(LABELS), watch=keep))
    same, once = [], []
    for index in range(len(dataset)):
        sample = dataset[index]
        slow = average_of_windows if "tile" in options else average_of_six
        expected = slow(network, sample.image, options.get("input_size", 80))
        plain = predictor.annotate(sample.image, Options(input_size=options.get("input_size"))).semantic
        same.append((seen[sample.id] == expected).float().mean())
        once.append((seen[sample.id] == plain).float().mean())
    assert min(same) > 0.999
    assert max(once) < 0.99


# ---- manners


def test_an_interruption_ends_with_130(run: Run, model: Path, drawings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Predictor, "annotate", interrupted)
    assert run("evaluate", model, "--data", f"masks:{drawings}", "--workers", 1) == (130, "", "")


def test_the_bar_goes_to_stderr_and_only_to_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for is_terminal, hidden in ((False, False), (True, True), (True, False)):
        monkeypatch.setattr(sys.stderr, "isatty", lambda is_terminal=is_terminal: is_terminal)
        with image_bar("evaluating", 3, hidden=hidden) as advance:
            advance(2)
        out, err = capsys.readouterr()
        assert out == ""
        assert ("2/3 images" in err) == (is_terminal and not hidden)


class _Watched:
    """Tiny images; keeps no sample alive, but counts how many others do."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
        self.most = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if index == 13:
            raise DataError("13.png: broken")
        image = torch.full((3, 8, 9), index % 256, dtype=torch.uint8)
        self.alive.add(image)
        self.most = max(self.most, len(self.alive))
        truth = Annotation(semantic=torch.full((8, 9), index % 4, dtype=torch.uint8))
        return Sample(image=image, truth=truth, id=str(index), original_size=(8, 9))


def test_one_sample_is_held_at_a_time_and_the_state_grows_by_a_row_each() -> None:
    samples, metric = _Watched(300), MeanIoU(LABELS)
    before = metric.confusion.shape
    outcomes = list(evaluate(lambda sample: sample.truth, samples, metric, go_on=True))
    assert samples.most <= 2
    assert [outcome.index for outcome in outcomes] == list(range(300))
    assert [outcome for outcome in outcomes if outcome.failure] == [outcomes[13]]
    assert outcomes[13].failure == "13.png: broken"
    assert metric.confusion.shape == before
    assert len(metric.images) == 299
    growing = {name for name, value in vars(metric).items() if isinstance(value, dict | list | set)}
    assert growing == {"images"}


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_in_training_stops_at_the_first_broken_image(workers: int) -> None:
    outcomes = evaluate(lambda sample: sample.truth, _Watched(20), MeanIoU(LABELS), workers=workers)
    seen: list[int] = []

    def judge() -> None:
        seen.extend(outcome.index for outcome in outcomes)

    with pytest.raises(DataError, match=r"^13\.png: broken$"):
        judge()


@pytest.mark.parametrize("indices", [[4, 0, 2], []])
def test_chosen_samples_alone_are_evaluated(indices: Sequence[int]) -> None:
    metric = MeanIoU(LABELS)
    outcomes = evaluate(lambda sample: sample.truth, _Watched(20), metric, indices=indices)
    assert [outcome.index for outcome in outcomes] == list(indices)
    assert list(metric.images) == [str(index) for index in indices]
