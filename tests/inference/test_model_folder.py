import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pixelwise.errors import CheckpointError
from pixelwise.inference.model_folder import (
    is_model_folder,
    model_digest,
    read_card,
    read_model,
    write_model,
)
from tests.inference.conftest import LABELS, pointwise, pointwise_card


def test_what_is_written_comes_back(tmp_path: Path):
    card = pointwise_card(
        arguments={"stride": 2}, licence="CC0", scores={"mean_iou": 0.5}, training={"steps": 10, "data": "voc:x"}
    )
    module = pointwise(stride=2)
    write_model(tmp_path / "deep" / "model", module.state_dict(), card)
    again, found = read_model(tmp_path / "deep" / "model")
    assert found == card
    assert not again.training
    assert again.stride == 2
    for name, tensor in module.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    assert sorted(path.name for path in (tmp_path / "deep" / "model").iterdir()) == ["model.json", "model.safetensors"]


def test_the_json_has_the_fields_that_users_read(model_folder: Path):
    content = json.loads((model_folder / "model.json").read_text())
    assert content["format_version"] == 1
    assert content["system"] == "pointwise"
    assert content["task"] == "semantic"
    assert content["labels"]["names"] == list(LABELS.names)
    assert content["input_size"] == 32
    assert set(content) >= {"arguments", "preprocessing", "licence", "scores", "training", "pixelwise_version"}


def test_half_precision_is_stored_small_and_read_wide(tmp_path: Path):
    module = pointwise()
    module.register_buffer("counter", torch.tensor(7))
    state = {name: tensor for name, tensor in module.state_dict().items() if name != "counter"}
    write_model(tmp_path, state, pointwise_card(), half=True)
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {torch.float16}
    again, _ = read_model(tmp_path)
    for name, tensor in state.items():
        assert again.state_dict()[name].dtype == torch.float32
        assert torch.equal(again.state_dict()[name], tensor.half().float())


def test_values_beyond_half_precision_stay_as_they_are(tmp_path: Path):
    module = pointwise()
    with torch.no_grad():
        module.classifier.bias[0] = 1e6
    write_model(tmp_path, module.state_dict(), pointwise_card(), half=True)
    again, _ = read_model(tmp_path)
    assert again.classifier.bias[0] == 1e6


def test_tensors_that_share_memory_and_channels_last_ones_are_stored(tmp_path: Path):
    module = pointwise().to(memory_format=torch.channels_last)
    state = module.state_dict()
    state["classifier.bias"] = state["classifier.weight"].flatten()[:3]
    write_model(tmp_path, state, pointwise_card())
    again, _ = read_model(tmp_path)
    assert torch.equal(again.classifier.bias, state["classifier.weight"].flatten()[:3])


def test_the_digest_follows_the_content(model_folder: Path):
    before = model_digest(model_folder)
    write_model(model_folder, pointwise().state_dict(), pointwise_card())
    assert model_digest(model_folder) == before
    write_model(model_folder, pointwise().state_dict(), pointwise_card(input_size=64))
    assert model_digest(model_folder) != before


def test_a_folder_is_a_model_folder_by_either_file(tmp_path: Path):
    assert not is_model_folder(tmp_path)
    assert not is_model_folder(tmp_path / "none")
    (tmp_path / "model.json").write_text("{}")
    assert is_model_folder(tmp_path)


def one_line(error: pytest.ExceptionInfo[CheckpointError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_missing_files_are_named(model_folder: Path):
    with pytest.raises(CheckpointError) as error:
        read_model(model_folder / "none")
    assert "no such model folder" in one_line(error)
    (model_folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError) as error:
        read_model(model_folder)
    assert "model.safetensors is missing" in one_line(error)


@pytest.mark.parametrize("length", [0, 5, 60, -1])
def test_truncated_weights_are_named(model_folder: Path, length: int):
    path = model_folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError) as error:
        read_model(model_folder)
    assert str(path) in one_line(error)
    assert "copy or write it again" in one_line(error)


def test_weights_that_are_a_pickle_are_refused(model_folder: Path):
    torch.save(pointwise().state_dict(), model_folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        read_model(model_folder)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00", '{"format_version": 1}'])
def test_damaged_json_is_named(model_folder: Path, text: str):
    path = model_folder / "model.json"
    path.write_text(text)
    with pytest.raises(CheckpointError) as error:
        read_model(model_folder)
    assert str(path) in one_line(error)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("format_version", 2, "format version 2"),
        ("system", "unet", "there is no system 'unet'; there are: deeplab_v3, deeplab_v3_plus"),
        ("input_size", 0, "input_size"),
        ("input_size", "32", "input_size"),
        ("labels", {"name": "x"}, "label set"),
        ("arguments", {"depth": 3}, "depth"),
        ("arguments", None, "arguments"),
    ],
)
def test_wrong_fields_are_named(model_folder: Path, field: str, value: object, message: str):
    path = model_folder / "model.json"
    content = json.loads(path.read_text())
    content[field] = value
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError) as error:
        read_model(model_folder)
    assert str(path) in one_line(error)
    assert message in one_line(error)


def test_weights_of_another_network_are_told_by_their_first_keys(model_folder: Path):
    bias, weight = (pointwise().state_dict()[f"classifier.{name}"] for name in ("bias", "weight"))
    write_model(model_folder, {"classifier.weight": weight[:2], "head": bias}, read_card(model_folder))
    with pytest.raises(CheckpointError) as error:
        read_model(model_folder)
    text = one_line(error)
    assert "1 missing (classifier.bias)" in text
    assert "1 unexpected (head)" in text
    assert "classifier.weight [2, 3, 1, 1] instead of [3, 3, 1, 1]" in text


def test_an_unwritable_place_is_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError) as error:
        write_model(tmp_path / "file" / "model", pointwise().state_dict(), pointwise_card())
    assert str(tmp_path / "file" / "model") in one_line(error)


def test_an_interrupted_swap_is_read(model_folder: Path):
    """As a kill between the two renames leaves it: the new one is complete, the old one moved away."""
    new = model_folder.with_name(".model.new")
    write_model(new, pointwise().state_dict(), pointwise_card(licence="new"))
    model_folder.rename(model_folder.with_name(".model.old"))
    assert is_model_folder(model_folder)
    assert read_card(model_folder).licence == "new"
    assert read_model(model_folder)[1].licence == "new"
    assert new.is_dir()  # reading changes nothing
