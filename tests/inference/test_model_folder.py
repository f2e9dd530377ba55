import hashlib
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
from pixelwise.ops.resize_rule import ResizeRule
from tests.inference.simple_models import LABELS, pointwise, pointwise_card

RULE = {"side": "long", "length": 32, "limit": 0, "rounding": "nearest", "filter": "antialiased"}


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
    assert content["resize"] == RULE
    assert set(content) >= {"arguments", "preprocessing", "licence", "scores", "training", "pixelwise_version"}


def test_older_cards_hold_one_long_side(model_folder: Path):
    words = {"channels": "RGB", "range": "0 to 1", "resize": "long side to input_size, bilinear, antialiased"}
    path = model_folder / "model.json"
    content = json.loads(path.read_text())
    del content["resize"], content["card_sha256"]
    path.write_text(json.dumps({**content, "input_size": 48, "preprocessing": words}))
    card = read_card(model_folder)
    assert card.resize == ResizeRule("long", 48)
    assert card.preprocessing == {"channels": "RGB", "range": "0 to 1"}


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
    write_model(model_folder, pointwise().state_dict(), pointwise_card(resize=ResizeRule(length=64)))
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
    with pytest.raises(CheckpointError, match=r"expected a safetensors file, but this is a file of torch\.save"):
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
        ("input_size", 32, "resize: expected how images are resized, or in older cards input_size"),
        ("resize", {"side": "long"}, "resize.length"),
        ("resize", {**RULE, "side": "wide"}, "resize.side"),
        ("resize", {**RULE, "length": 0}, "input size 0"),
        ("resize", {**RULE, "length": "32"}, "resize.length"),
        ("resize", {**RULE, "limit": 32}, "input size long:32:32"),
        ("resize", None, "resize: expected how images are resized"),
        ("labels", {"name": "x"}, "label set"),
        ("arguments", {"depth": 3}, "depth"),
        ("arguments", None, "arguments"),
    ],
)
def test_wrong_fields_are_named(model_folder: Path, field: str, value: object, message: str):
    path = model_folder / "model.json"
    change_card(model_folder, {field: value})
    with pytest.raises(CheckpointError) as error:
        read_model(model_folder)
    assert str(path) in one_line(error)
    assert message in one_line(error)


def change_card(folder: Path, changes: dict[str, Any], *, without: Sequence[str] = ("card_sha256",)) -> None:
    """As whoever edits model.json by hand may do it."""
    path = folder / "model.json"
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if key not in without}))


def test_the_card_holds_the_hash_of_the_weights(model_folder: Path):
    content = json.loads((model_folder / "model.json").read_text())
    assert content["weights_sha256"] == hashlib.sha256((model_folder / "model.safetensors").read_bytes()).hexdigest()


def test_other_weights_than_those_written_are_refused(model_folder: Path, tmp_path: Path):
    """Sound ones of the same network too, as where one of two files was copied."""
    module = pointwise()
    module.classifier.bias.data += 1
    write_model(tmp_path / "other", module.state_dict(), pointwise_card())
    shutil.copy(tmp_path / "other" / "model.safetensors", model_folder)
    with pytest.raises(CheckpointError) as error:
        read_model(model_folder)
    assert str(model_folder / "model.safetensors") in one_line(error)
    assert "not the weights that model.json was written with (SHA-256 " in one_line(error)


def test_a_folder_without_hashes_is_read(model_folder: Path):
    """As versions before wrote it."""
    change_card(model_folder, {}, without=("weights_sha256", "card_sha256"))
    assert torch.equal(read_model(model_folder)[0].state_dict()["classifier.bias"], torch.tensor([1.0, 0, 0]))


def test_a_card_changed_by_hand_is_read_once_its_hash_is_removed(model_folder: Path):
    change_card(model_folder, {"licence": "CC0"}, without=())
    with pytest.raises(CheckpointError, match=r"model\.json: its fields are not those .* remove the field card_sha256"):
        read_card(model_folder)
    change_card(model_folder, {"licence": "CC0"})
    assert read_model(model_folder)[1].licence == "CC0"


def test_spaces_and_the_order_of_fields_are_no_damage(model_folder: Path):
    path = model_folder / "model.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(content.items()))))
    read_model(model_folder)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path):
    module = pointwise()
    module.classifier.weight.data[0, 0] = float("nan")
    write_model(tmp_path, module.state_dict(), pointwise_card())
    with pytest.raises(CheckpointError, match=r"model\.safetensors: 'classifier\.weight' holds NaN .*1 of 9"):
        read_model(tmp_path)


@pytest.mark.parametrize("seed", range(4))
def test_no_damage_is_read_as_another_model(model_folder: Path, seed: int):
    """Bytes of either file changed, inserted or removed: one line that names it, or the model as it was."""
    generator = random.Random(seed)
    module, card = read_model(model_folder)
    whole = {name: (model_folder / name).read_bytes() for name in ("model.safetensors", "model.json")}
    messages = []
    for _ in range(60):
        name = generator.choice(list(whole))
        damaged = bytearray(whole[name])
        for _ in range(generator.choice((1, 1, 2, 5))):
            start = generator.randrange(len(damaged))
            length = generator.choice((0, 1, 1, 1, 8))
            damaged[start : start + length] = generator.randbytes(generator.choice((0, 1, 1, 1, 8)))
        (model_folder / name).write_bytes(damaged)
        try:
            found, found_card = read_model(model_folder)
        except CheckpointError as error:
            messages.append((name, str(error)))
        else:
            assert found_card == card, damaged
            for key, tensor in module.state_dict().items():
                assert torch.equal(found.state_dict()[key], tensor)
        (model_folder / name).write_bytes(whole[name])
    assert len(messages) > 30
    for name, message in messages:
        assert str(model_folder / name) in message
        assert "\n" not in message


@pytest.mark.parametrize(
    "value", [None, True, -1, 0, 1e308, 10**30, "", "x", [], [[]], {}, {"a": {}}, float("nan"), [1, "a", None]]
)
def test_values_of_other_types_are_refused_by_name(model_folder: Path, value: object):
    """In a card without hashes, in every field and in every field of the labels."""
    content = json.loads((model_folder / "model.json").read_text())
    places = [{key: value} for key in content if not key.endswith("sha256")]
    places += [{"labels": {**content["labels"], key: value}} for key in content["labels"]]
    places += [{"arguments": {"stride": value}}, {"arguments": {"": value}}]
    messages = []
    for changes in places:
        change_card(model_folder, {**content, **changes})
        try:
            read_model(model_folder)
        except CheckpointError as error:
            messages.append(str(error))
    assert messages
    assert all(str(model_folder) in message and "\n" not in message for message in messages)


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
