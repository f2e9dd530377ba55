"""A panoptic default made of the semantic and the instance one."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from pixelwise.cli.app import main
from pixelwise.errors import CheckpointError
from pixelwise.inference import load as load_module
from pixelwise.inference.load import load, weights_digest
from pixelwise.inference.merged_predictor import MergedPredictor, joined_labels
from pixelwise.inference.model_folder import ModelCard, write_model
from pixelwise.inference.predictor import Options, Predictor
from pixelwise.inference.systems import system_module
from pixelwise.labels import LabelSet
from pixelwise.ops.resize_rule import ResizeRule
from tests.inference.simple_models import LABELS, noise, pointwise, pointwise_card

OBJECTS = LabelSet.from_names("objects", ["background", "plum", "apple"])
"""The instance model knows apples, as the semantic one, and plums besides."""


def reds(thing_ids: list[int], labels: LabelSet = OBJECTS) -> Predictor:
    arguments = {"thing_ids": thing_ids}
    card = ModelCard(task="instance", system="reds", labels=labels, resize=ResizeRule(length=48), arguments=arguments)
    return Predictor(system_module("reds").build(num_classes=len(labels), **arguments), card, device="cpu")


def merged(semantic: Predictor, thing_ids: list[int]) -> MergedPredictor:
    return MergedPredictor(semantic, reds(thing_ids), name="both")


def image() -> torch.Tensor:
    """Red on the left, green on the right, black between."""
    pixels = torch.zeros(3, 40, 60, dtype=torch.uint8)
    pixels[0, :, :20] = 255
    pixels[1, :, 40:] = 255
    return pixels


def test_objects_lie_on_the_stuff_of_the_other_model(predictor: Predictor) -> None:
    scene = merged(predictor, [2])(image())
    assert scene.labels.names == LABELS.names
    assert scene.labels.is_thing == (False, True, False)
    # apple is a thing, though the semantic model predicts it too; pear is stuff, for the instance model finds none
    assert scene.panoptic.ids[20, [5, 30, 55]].tolist() == [4, 1, 3]
    assert dict(zip(scene.panoptic.segment_ids.tolist(), scene.panoptic.labels.tolist(), strict=True)) == {
        1: 0,
        3: 2,
        4: 1,
    }
    assert scene.panoptic.scores[scene.panoptic.segment_ids == 4].tolist() == [0.75]
    assert scene.model == "both"


def test_what_only_the_instance_model_knows_is_added(predictor: Predictor) -> None:
    both = merged(predictor, [1])
    assert both.labels.names == ("background", "apple", "pear", "plum")
    assert both.labels.is_thing == (False, False, False, True)
    panoptic = both(image()).panoptic
    assert panoptic.ids[20, [5, 30, 55]].tolist() == [5, 1, 3]
    assert panoptic.labels[-1] == 3


def test_a_thing_that_no_object_covers_is_void(predictor: Predictor) -> None:
    panoptic = merged(predictor, [2])(image(), score_threshold=0.8).panoptic
    assert panoptic.ids[20, [5, 30, 55]].tolist() == [0, 1, 3]


@pytest.mark.parametrize("options", [{}, {"tile": True}, {"tta": True}, {"input_size": 30}])
def test_each_model_has_its_own_input_size(predictor: Predictor, options: dict) -> None:
    both, pixels = merged(predictor, [2]), image()
    panoptic = both(pixels, **options).panoptic
    assert panoptic.ids.shape == (40, 60)
    assert panoptic.ids[20, [5, 30, 55]].tolist() == [4, 1, 3]
    stuff = predictor(pixels, **options).semantic
    is_apple = both.instance(pixels, **options).instances.masks.dense()[0]
    assert panoptic.ids.equal(torch.where(is_apple, 4, torch.where(stuff == 1, 0, stuff.int() + 1)).int())
    frame, memory = both.annotate_frame(pixels, None, Options(**options))
    assert memory is None
    assert frame.panoptic.ids.equal(panoptic.ids)
    assert both.annotate(pixels, Options(**options)).panoptic.ids.equal(panoptic.ids)


def test_a_small_image_keeps_its_stuff(predictor: Predictor) -> None:
    """4,096 pixels, below which stuff becomes void, are more than these images have."""
    assert merged(predictor, [2])(image()[:, ::4, ::4]).panoptic.labels.tolist() == [0, 2, 1]
    assert merged(predictor, [2])(torch.zeros(3, 1, 1, dtype=torch.uint8)).panoptic.labels.tolist() == [0]
    assert merged(predictor, [2])(noise(3, 5)).panoptic.ids.shape == (3, 5)


def test_ids_on_disk_of_added_classes_are_unique() -> None:
    theirs = replace(OBJECTS, dataset_ids=(0, 2, 9), names=("background", "plum", "cherry"))
    labels, class_ids = joined_labels(LABELS, theirs, [1, 2])
    assert labels.names == ("background", "apple", "pear", "plum", "cherry")
    assert labels.dataset_ids == (0, 1, 2, 256, 9)
    assert labels.name == "fruit+objects"
    assert class_ids.tolist() == [0, 3, 4]


def test_void_stays_void_where_classes_are_more_than_255(predictor: Predictor) -> None:
    """255 is what the semantic model calls void, and the 256th class of both."""
    many = LabelSet.from_names("many", [*LABELS.names, *(f"kind {number}" for number in range(300))])
    both = MergedPredictor(predictor, reds([1, *range(3, 303)], many), name="both")
    assert len(both.labels) == 303
    both.semantic.annotate = lambda *_: replace(  # pyright: ignore[reportAttributeAccessIssue]
        Predictor.annotate(predictor, image(), Options()), semantic=torch.full((40, 60), 255, dtype=torch.uint8)
    )
    assert both(image()).panoptic.labels.tolist() == [1]


def test_the_order_of_the_models_matters(predictor: Predictor) -> None:
    with pytest.raises(CheckpointError, match="reds: a model for instance segmentation where one for semantic"):
        MergedPredictor(reds([1]), predictor, name="both")


def test_the_panoptic_default_is_made_of_two_where_none_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(load_module, "WEIGHTS_FOLDER", tmp_path)
    write_model(tmp_path / "default", pointwise().state_dict(), pointwise_card())
    with pytest.raises(CheckpointError, match="no model for the task 'panoptic' comes with the package"):
        load(task="panoptic", device="cpu")
    instance = reds([2])
    write_model(tmp_path / "default_instance", instance.model.state_dict(), instance.card)
    for name, task in (("default", "panoptic"), ("default_panoptic", None), ("default_panoptic", "panoptic")):
        both = load(name, task=task, device="cpu")
        assert both.name == "default_panoptic"
        assert both.note == "no panoptic model comes with the package: the semantic and the instance default are merged"
        assert both(image()).panoptic.ids[20, [5, 30, 55]].tolist() == [4, 1, 3]
    assert load(device="cpu").note == ""
    Image.fromarray(image().permute(1, 2, 0).numpy()).save(tmp_path / "a.png")
    command = [
        "predict",
        str(tmp_path / "a.png"),
        "--task",
        "panoptic",
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "out"),
    ]
    for quiet in ([], ["--quiet"]):
        monkeypatch.setattr("sys.argv", ["pixelwise", *command, *quiet])
        with pytest.raises(SystemExit) as caught:
            main()
        assert not caught.value.code
        assert (both.note in capsys.readouterr().err) == (not quiet)
    (line,) = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert json.loads(line)["model"] == "default_panoptic"
    assert [segment["name"] for segment in json.loads(line)["segments"]] == ["background", "pear", "apple"]
    assert (tmp_path / "out" / "panoptic_results.json").is_file()
    before = weights_digest("default", task="panoptic")
    assert before == weights_digest("default_panoptic") != weights_digest("default")
    write_model(tmp_path / "default_instance", {"score": torch.tensor(0.5)}, instance.card)
    assert weights_digest("default", task="panoptic") != before
    shipped = ModelCard(task="panoptic", system="panels", labels=LABELS)
    write_model(tmp_path / "default_panoptic", system_module("panels").build(num_classes=3).state_dict(), shipped)
    assert not isinstance(load(task="panoptic", device="cpu"), MergedPredictor)
