from pathlib import Path

import pytest

from pixelwise.errors import CheckpointError, RecipeError
from pixelwise.inference import load as load_module
from pixelwise.inference.load import find_model, load, shipped_models
from pixelwise.inference.model_folder import write_model
from tests.inference.simple_models import pointwise, pointwise_card


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    weights = tmp_path / "weights"
    for name in ("default", "small"):
        write_model(weights / name, pointwise().state_dict(), pointwise_card())
    write_model(weights / "default_panoptic", pointwise().state_dict(), pointwise_card(task="panoptic"))
    monkeypatch.setattr(load_module, "WEIGHTS_FOLDER", weights)
    return weights


def test_shipped_names(shipped: Path):
    assert shipped_models() == {"default": "semantic", "default_panoptic": "panoptic", "small": "semantic"}
    assert find_model("default") == shipped / "default"
    assert find_model("default", task="semantic") == shipped / "default"
    assert find_model("default", task="panoptic") == shipped / "default_panoptic"
    assert find_model("small") == shipped / "small"
    assert load("small", device="cpu").name == "small"
    assert load("default", task="panoptic", device="cpu").name == "default_panoptic"
    assert load("default", device="cpu").name == "default"


def test_a_task_without_a_default_lists_what_ships(shipped: Path):
    with pytest.raises(CheckpointError) as error:
        find_model("default", task="instance")
    assert "'instance'" in str(error.value)
    assert "default (semantic), default_panoptic (panoptic), small (semantic)" in str(error.value)


def test_a_run_folder_gives_its_best_or_else_its_last(tmp_path: Path):
    run = tmp_path / "run"
    write_model(run / "last", pointwise().state_dict(), pointwise_card())
    assert find_model(run) == run / "last"
    write_model(run / "best", pointwise().state_dict(), pointwise_card())
    assert find_model(run) == run / "best"
    assert load(run, device="cpu").labels.names == ("background", "apple", "pear")


def test_a_model_folder_by_its_path(model_folder: Path):
    assert find_model(str(model_folder)) == model_folder


def test_nothing_found_says_what_there_is(shipped: Path, tmp_path: Path):
    for name, words in (("nothing", "no such model"), (str(tmp_path), "holds no model")):
        with pytest.raises(CheckpointError) as error:
            load(name)
        assert words in str(error.value)
        assert "small (semantic)" in str(error.value)
        assert "model.safetensors" in str(error.value)
        assert "\n" not in str(error.value)


def test_a_model_of_another_task_is_refused(model_folder: Path):
    with pytest.raises(CheckpointError, match="semantic segmentation, expected instance"):
        load(model_folder, task="instance")


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "cuda:x"])
def test_an_impossible_device_is_one_line(model_folder: Path, device: str):
    with pytest.raises(RecipeError, match=device):
        load(model_folder, device=device)
