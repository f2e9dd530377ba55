"""`pixelwise evaluate`: a model, or masks that any tool wrote, judged on a data set."""

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
from PIL import Image
from torch import nn

from pixelwise.cli.app import main
from pixelwise.cli.progress import image_bar
from pixelwise.data.spec import open_dataset
from pixelwise.errors import DataError
from pixelwise.inference.model_folder import ModelCard, system_module, write_model
from pixelwise.inference.predictor import Predictor
from pixelwise.labels import LabelSet
from pixelwise.metrics.mean_iou import MeanIoU
from pixelwise.training.evaluate import evaluate
from pixelwise.types import Annotation, Sample
from tests.drawn_scenes import draw_scene
from tests.shared_data import require

LABELS = LabelSet(
    name="drawn",
    names=("background", "disc", "square", "triangle"),
    is_thing=(False, True, True, True),
    palette=((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)),
    native_ids=(0, 7, 33, 8),
    void_ids=(255,),
)
"""Ids on disk are not the class ids, so that mixing them up is seen."""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line in this process: exit code, stdout, stderr."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pixelwise", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return run


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
        Image.fromarray(LABELS.native_of(truth).astype(np.uint8)).save(root / "masks" / "val" / f"{number:03}.png")
    entries = [
        f'[[class]]\nname = "{name}"\nid = {id}\n' for name, id in zip(LABELS.names, LABELS.native_ids, strict=True)
    ]
    (root / "labels.toml").write_text('name = "drawn"\n' + "".join(entries))
    return root


@pytest.fixture
def drawings(tmp_path: Path) -> Path:
    return write_set(tmp_path / "drawings")


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """A small network of random weights whose answers vary within an image."""
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
        input_size=80,
    )
    write_model(folder, network.state_dict(), card)
    return folder


@pytest.fixture
def model(tmp_path: Path, network: nn.Module) -> Path:
    return write_network(tmp_path / "model", network)


def write_predictions(folder: Path, drawings: Path, *, names: Callable[[str], str] = str, noise: float = 0.3) -> Path:
    """The truth with noise, in ids on disk, as NAME.png."""
    generator = np.random.default_rng(0)
    for path in sorted((drawings / "masks" / "val").glob("*.png")):
        truth = np.asarray(Image.open(path))
        wrong = generator.choice(np.array(LABELS.native_ids, dtype=np.uint8), truth.shape)
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
    assert list(result) == ["model", "data", "images", "labels", "metrics", "per_class", "seconds"]
    assert (result["model"], result["data"]) == (str(model), f"masks:{drawings}@val")
    assert (result["images"], result["labels"]) == (5, list(LABELS.names))
    assert list(result["metrics"]) == ["mean_iou", "pixel_accuracy", "mean_class_accuracy", "frequency_weighted_iou"]
    predictor = Predictor(network, ModelCard("semantic", "deeplab_v3_plus", LABELS, input_size=80), device="cpu")
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
    predictor = Predictor(network, ModelCard("semantic", "deeplab_v3_plus", LABELS, input_size=80), device="cpu")
    expected = metrics_by_hand(drawings, lambda sample: predictor.annotate(sample.image, **arguments))
    assert code == 0
    assert json.loads(out)["metrics"] == means(expected)
    assert json.loads(out)["metrics"] != json.loads(plain)["metrics"]


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
    assert "by PASCAL VOC's definition: one confusion matrix, void not judged, background included" in lines[-1]


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


def test_a_broken_image_is_named_and_the_others_are_judged(run: Run, model: Path, drawings: Path) -> None:
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
        assert line.endswith("; left out")


def test_where_every_image_is_broken_there_are_no_numbers(run: Run, model: Path, drawings: Path) -> None:
    for path in (drawings / "images" / "val").iterdir():
        path.write_bytes(b"")
    code, out, err = run("evaluate", model, "--data", f"masks:{drawings}", "--json", "--workers", 0)
    assert (code, json.loads(out)["images"], json.loads(out)["metrics"]["mean_iou"]) == (1, 0, None)
    assert len(err.splitlines()) == 6
    code, out, _ = run("evaluate", model, "--data", f"masks:{drawings}", "--workers", 0)
    assert code == 1
    assert "mean IoU  " in out


def test_several_sets_are_judged_as_one(run: Run, model: Path, drawings: Path, tmp_path: Path) -> None:
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


def test_remarks_about_the_data_are_made_unless_quiet(run: Run, model: Path, tmp_path: Path) -> None:
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


def test_a_map_judges_in_the_models_classes(run: Run, drawings: Path, network: nn.Module, tmp_path: Path) -> None:
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


def test_the_truth_as_masks_is_perfect(run: Run, drawings: Path) -> None:
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
    assert err == "2 of 5 images have no prediction: 001, 003; left out\n"


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
        "neither": ([*data], "evaluate wants either MODEL or --predictions DIR"),
        "both": ([model, "--predictions", twins, *data], "evaluate wants either MODEL or --predictions DIR"),
        "no data": ([model], "Missing option '--data'"),
        "no model": ([tmp_path / "none", *data], "no such model"),
        "no folder": (["--predictions", tmp_path / "none", *data], "no such folder"),
        "a file": (["--predictions", drawings / "labels.toml", *data], "is a file; a folder of id masks is wanted"),
        "no masks": (["--predictions", tmp_path / "empty", *data], "none of its 0 mask files is named after"),
        "others": (["--predictions", strange, *data], "000.png or 000.semantic.png is wanted for image '000'"),
        "two files": (["--predictions", twins, *data], "000.bmp has the same name"),
        "two folders": (["--predictions", copies, *data], "may have its mask in"),
        "options": (["--predictions", twins, "--tta", "--tile", *data], "--tile, --tta: only with MODEL"),
        "no split": ([model, "--data", f"masks:{drawings}@test"], "no split 'test'"),
        "no size": ([model, "--input-size", 0, *data], "Invalid value for '--input-size'"),
    }


def test_what_cannot_be_judged_is_refused_in_one_line(run: Run, drawings: Path, model: Path, tmp_path: Path) -> None:
    for case, (arguments, text) in refusals(tmp_path, drawings, model).items():
        code, out, err = run("evaluate", *arguments)
        assert (code, out) == (2, ""), case
        assert err.startswith("pixelwise: "), case
        assert err.count("\n") == 1, case
        assert text in err, case


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
        with image_bar("judging", 3, hidden=hidden) as advance:
            advance(2)
        out, err = capsys.readouterr()
        assert out == ""
        assert ("2/3 images" in err) == (is_terminal and not hidden)


class _Watched:
    """Tiny images; keeps no sample alive, but sees how many others do."""

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
    assert {name for name, value in vars(metric).items() if value is not metric.images} == {"labels", "confusion"}


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_in_training_stops_at_the_first_broken_image(workers: int) -> None:
    outcomes = evaluate(lambda sample: sample.truth, _Watched(20), MeanIoU(LABELS), workers=workers)
    seen: list[int] = []

    def judge() -> None:
        seen.extend(outcome.index for outcome in outcomes)

    with pytest.raises(DataError, match=r"^13\.png: broken$"):
        judge()


@pytest.mark.parametrize("indices", [[4, 0, 2], []])
def test_chosen_samples_alone_are_judged(indices: Sequence[int]) -> None:
    metric = MeanIoU(LABELS)
    outcomes = evaluate(lambda sample: sample.truth, _Watched(20), metric, indices=indices)
    assert [outcome.index for outcome in outcomes] == list(indices)
    assert list(metric.images) == [str(index) for index in indices]
