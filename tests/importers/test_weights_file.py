"""Files of weights as training scripts, downloads and accidents leave them: read by content, or said what they are."""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import pickle
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from pixelwise.errors import CheckpointError
from pixelwise.importers.weights_file import read_foreign

WEIGHTS = {"conv.weight": torch.arange(6.0).view(2, 3), "conv.bias": torch.ones(2)}


def saved(content: object, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def safetensors_bytes(tensors: dict[str, Tensor], tmp_path: Path) -> bytes:
    save_file(tensors, tmp_path / "some.safetensors")
    return (tmp_path / "some.safetensors").read_bytes()


def refusal(path: Path) -> str:
    """The message, which has to be one line that names the file; no warning may go with it."""
    with warnings.catch_warnings(record=True) as told, pytest.raises(CheckpointError) as caught:
        read_foreign(path)
    assert not told
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".ckpt", ".bin", ".pkl", ""])
def test_a_file_is_read_by_its_content_whatever_its_suffix(tmp_path: Path, suffix: str) -> None:
    for content in (
        safetensors_bytes(WEIGHTS, tmp_path),
        saved(WEIGHTS),
        saved(WEIGHTS, _use_new_zipfile_serialization=False),
    ):
        path = tmp_path / f"weights{suffix}"
        path.write_bytes(content)
        found = read_foreign(path).tensors
        assert list(found) == list(WEIGHTS) or sorted(found) == sorted(WEIGHTS)
        assert torch.equal(found["conv.weight"], WEIGHTS["conv.weight"])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "an empty file"),
        (
            b"<!DOCTYPE html>\n<html><body>Sign in</body></html>",
            "a web page, which begins with '<!DOCTYPE html> <html>",
        ),
        (b"\n<HTML lang='en'>", "a web page, which begins with '<HTML lang='en'>'"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code>", "a page of a server, which begins with '<?xml"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 97\n", "a Git LFS pointer"),
        (b'{"message": "Not Found"}', 'a text file, which begins with \'{"message": "Not Found"}\''),
        ("straße\x1b[31m\n".encode(), "a text file, which begins with 'straße [31m'"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file"),
        (gzip.compress(b"weights", mtime=0), "a gzip archive; unpack it"),
        (b"\x93NUMPY\x01\x00", "a NumPy array"),
        (b"\x08\x07\x12\x0cpytorch\xff\xfe\x00", "a file of unknown kind, which begins with the bytes 08 07 12 0c"),
    ],
)
def test_what_no_weights_are_is_said(tmp_path: Path, content: bytes, text: str) -> None:
    for name in ("weights.pth", "weights.safetensors"):
        (tmp_path / name).write_bytes(content)
        message = refusal(tmp_path / name)
        assert f"expected weights, of safetensors or torch.save, but this is {text}" in message
        assert "\x1b" not in message


def test_archives_of_other_things_are_told_apart(tmp_path: Path) -> None:
    np.savez(tmp_path / "arrays.npz", a=np.zeros(2))
    assert "an archive of NumPy arrays" in refusal(tmp_path / "arrays.npz")
    with zipfile.ZipFile(tmp_path / "packed.pth", "w") as archive:
        archive.writestr("best/weights.pth", b"x")
    assert "a zip archive of other files (best/weights.pth); unpack it" in refusal(tmp_path / "packed.pth")


def test_cut_off_files_are_named(tmp_path: Path) -> None:
    large = {"a": torch.rand(2000)}
    for name, content, text in (
        ("new.pth", saved(large), "a file of torch.save or another zip archive that is cut off"),
        ("old.pth", saved(large, _use_new_zipfile_serialization=False), "of torch.save that is damaged or cut off"),
        ("w.safetensors", safetensors_bytes(large, tmp_path), "not a whole safetensors file"),
    ):
        (tmp_path / name).write_bytes(content[:-1000])
        message = refusal(tmp_path / name)
        assert text in message
        assert "copy it again" in message


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_torchscript_is_named_without_pythons_warnings(tmp_path: Path) -> None:
    layer = torch.nn.Linear(2, 2)
    torch.jit.save(torch.jit.script(layer), tmp_path / "script.pt")
    torch.jit.save(torch.jit.trace(layer, torch.rand(1, 2)), tmp_path / "trace.pt")
    for name in ("script.pt", "trace.pt"):
        assert "a TorchScript file" in refusal(tmp_path / name)


@pytest.mark.parametrize(
    "options", [{}, {"pickle_protocol": 4}, {"_use_new_zipfile_serialization": False}], ids=["new", "protocol 4", "old"]
)
@pytest.mark.parametrize(
    ("content", "names"),
    [
        ({"args": argparse.Namespace(lr=1), "model": WEIGHTS}, ": argparse.Namespace;"),
        ({"a": np.zeros(3)}, ": numpy.ndarray;"),
        (torchvision.models.squeezenet1_0(), ": torchvision.models.squeezenet.SqueezeNet, torch.nn.modules.container"),
        ({"model": WEIGHTS, "path": Path("x")}, ": pathlib.PosixPath;"),
    ],
    ids=["namespace", "array", "network", "path"],
)
def test_pickled_objects_are_named_by_their_class(tmp_path: Path, content: object, names: str, options: dict) -> None:
    path = tmp_path / "more.pth"
    path.write_bytes(saved(content, **options))
    assert f"holds more than tensors{names}" in refusal(path)


def test_pickles_are_named_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "was_run"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(marker),)

    torch.save({"state_dict": WEIGHTS, "more": Evil()}, tmp_path / "evil.pth")
    assert "holds more than tensors: posix.mkdir; that could run code" in refusal(tmp_path / "evil.pth")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"model": {"a": np.zeros(2)}, "b": Evil()}))
    message = refusal(tmp_path / "evil.pkl")
    assert "a pickle that torch.save did not write, of numpy.ndarray, posix.mkdir; it could run code" in message
    assert not marker.exists()


def test_dicts_inside_each_other_are_joined_by_a_dot(tmp_path: Path) -> None:
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
    content = {"epoch": 3, "ema": {"module": WEIGHTS}, "optimizer": optimizer, 7: torch.zeros(1)}
    torch.save(content, tmp_path / "nested.pth")
    found = read_foreign(tmp_path / "nested.pth")
    assert list(found.tensors) == ["ema.module.conv.weight", "ema.module.conv.bias"]
    assert found.keys == ("epoch", "ema", "optimizer", "7")
    assert found.others == ("epoch", "optimizer", "7")
    assert list(read_foreign(tmp_path / "nested.pth", part="ema.module").tensors) == list(WEIGHTS)
    with pytest.raises(CheckpointError, match=r"no tensors under 'model'; there are epoch, ema, optimizer, 7"):
        read_foreign(tmp_path / "nested.pth", part="model")


def test_another_protocol_of_pickles_is_said(tmp_path: Path) -> None:
    """PyTorch's reader of tensors alone does not take it."""
    (tmp_path / "four.pth").write_bytes(saved(WEIGHTS, pickle_protocol=4))
    assert "or written with another pickle_protocol than its own" in refusal(tmp_path / "four.pth")


def test_a_dict_inside_of_itself_ends(tmp_path: Path) -> None:
    content: dict = {"a": torch.zeros(1)}
    content |= {f"inner{number}": content for number in range(50)}
    torch.save(content, tmp_path / "ring.pth")
    assert "a" in read_foreign(tmp_path / "ring.pth").tensors


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([torch.zeros(1)], "holds a list; expected a state dict, tensors by name"),
        (torch.zeros(3), "holds a Tensor; expected a state dict"),
        ({"epoch": 1, "lr": 0.1}, "no tensors by name; its dict holds 'epoch': int, 'lr': float"),
        ({0: torch.zeros(1), ("a", 1): torch.ones(2)}, "its dict holds 0: Tensor, ('a', 1): Tensor"),
        ({1: {"a": torch.zeros(1)}}, "its dict holds 1: dict of 1"),
        ({}, "its dict holds nothing"),
        ({"a": torch.zeros(3).to_sparse()}, "'a' is sparse; expected plain numbers"),
        ({"a": torch.zeros(3, dtype=torch.complex64)}, "'a' is of complex numbers"),
        ({"a": torch.zeros(3, device="meta")}, "'a' is without values"),
    ],
    ids=["list", "tensor", "numbers", "keys", "outer key", "nothing", "sparse", "complex", "meta"],
)
def test_what_is_no_state_dict_is_described(tmp_path: Path, content: object, text: str) -> None:
    torch.save(content, tmp_path / "other.pth")
    assert text in refusal(tmp_path / "other.pth")


def write_shards(folder: Path, *, suffix: str) -> Path:
    """The two tensors of WEIGHTS in a file each, and the index of both."""
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    places = {}
    for number, (key, tensor) in enumerate(WEIGHTS.items(), start=1):
        places[key] = f"{stem}-{number:05}-of-00002.{suffix}"
        tensors = {key: tensor, f"other{number}": torch.zeros(1)}
        content = safetensors_bytes(tensors, folder) if suffix == "safetensors" else saved(tensors)
        (folder / places[key]).write_bytes(content)
    index = folder / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 32}, "weight_map": places}))
    return index


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards_are_read_by_their_index_or_folder(tmp_path: Path, suffix: str) -> None:
    index = write_shards(tmp_path, suffix=suffix)
    for path in (index, tmp_path):
        found = read_foreign(path).tensors
        assert sorted(found) == sorted(WEIGHTS)
        assert torch.equal(found["conv.weight"], WEIGHTS["conv.weight"])
    first, second = sorted(tmp_path.glob(f"*-of-*.{suffix}"))
    assert "one of 2 files that hold the weights together; give the folder" in refusal(first)
    save_file({"x": torch.zeros(1)}, second)
    with pytest.raises(
        CheckpointError, match=rf"{second.name}: holds no tensor 'conv.bias', which {index.name} places"
    ):
        read_foreign(index)
    second.unlink()
    with pytest.raises(CheckpointError, match=rf"{second.name}: missing; {index.name} names 2 files, 1 of which"):
        read_foreign(index)


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "{", "[" * 5000])
def test_an_index_that_is_none_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(content)
    assert "expected an index of shards, with a weight_map" in refusal(path)
    path.write_text('{"weight_map": {"a": "../other.safetensors"}}')
    assert "file names beside it" in refusal(path)


def test_places_without_weights_are_named(tmp_path: Path) -> None:
    assert "no such file; expected the weights" in refusal(tmp_path / "none.pth")
    assert "a folder without model.safetensors, model.safetensors.index.json" in refusal(tmp_path)


@pytest.mark.parametrize("seed", range(3))
def test_damaged_bytes_end_in_one_line(tmp_path: Path, seed: int) -> None:
    generator = np.random.default_rng(seed)
    path = tmp_path / "damaged.pth"
    layers = {"model": WEIGHTS, "epoch": 3, "names": ["a", "b"]}
    wholes = [
        saved(layers),
        saved(layers, _use_new_zipfile_serialization=False),
        safetensors_bytes(WEIGHTS, tmp_path),
        pickle.dumps({"a": np.zeros(3)}),
    ]
    messages = []
    for number in range(200):
        content = bytearray(wholes[number % len(wholes)])
        for _ in range(generator.integers(1, 6)):
            start = generator.integers(len(content))
            content[start : start + generator.integers(0, 3)] = generator.bytes(generator.integers(0, 3))
        path.write_bytes(content)
        try:
            read_foreign(path)
        except CheckpointError as error:
            messages.append(str(error))
    assert len(messages) > 20
    assert all(message.startswith(str(path)) and "\n" not in message for message in messages)
