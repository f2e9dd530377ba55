"""Reading files of weights that other projects wrote: safetensors, torch.save of any version, Hugging Face's shards.

A file is read as what its content is, whatever its name says. Here alone are pickles read, and only their tensors
(`weights_only`).
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from pixelwise.errors import CheckpointError
from pixelwise.files.content import Content, Kind, content_of
from pixelwise.files.tensors import read_tensors
from pixelwise.files.text import read_json
from pixelwise.importers.foreign import first_of
from pixelwise.importers.pickled import pickled_names

FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Names of the file in a folder; the first that exists is read."""
DEEPEST, MOST_DICTS = 8, 1000
"""Limits on nested dicts: depth and total number."""
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.")
_RESAVE = "store its state dict alone, where the class is at hand: torch.save(model.state_dict(), 'weights.pth')"


@dataclass(frozen=True)
class ForeignWeights:
    """The tensors of a file.

    Attributes:
        tensors: by name; those inside of dicts by the names of both, joined by a dot.
        keys: of the outermost dict.
        others: keys beside the tensors that hold none.
    """

    tensors: Mapping[str, Tensor] = field(repr=False)
    keys: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def read_foreign(path: Path, *, part: str | None = None) -> ForeignWeights:
    """The tensors of a file, of the files that an index names, or of a folder with one of FILES.

    Args:
        path: the file, whatever its suffix, or the folder.
        part: take only the tensors under this name: a key of the file's dict, or the beginning of their names.

    Raises:
        CheckpointError: nothing there, damaged, or something else than tensors by name; says what it is.
    """
    path = _file_in(path)
    content = _content(path)
    if path.name.endswith(".index.json"):
        tensors, keys, others = _shards(path), (), ()
    elif (shard := _SHARD.search(path.name)) and int(shard[2]) > 1:
        raise CheckpointError(
            f"{path}: one of {int(shard[2])} files that hold the weights together; give the folder, or its .index.json"
        )
    else:
        stored = _read(path, content)
        if not isinstance(stored, Mapping):
            raise CheckpointError(f"{path}: holds a {_kind(stored)}; expected a state dict, tensors by name")
        tensors = _flat(stored)
        keys = tuple(str(key) for key in stored)
        others = tuple(key for key in keys if not any(name == key or name.startswith(f"{key}.") for name in tensors))
        if not tensors:
            held = first_of([f"{key!r}: {_kind(value)}" for key, value in stored.items()], 8) or "nothing"
            raise CheckpointError(f"{path}: no tensors by name; its dict holds {held}")
    for name, tensor in tensors.items():
        _require_plain(name, tensor, path)
    if part is not None:
        beginning = part.rstrip(".") + "."
        tensors = {name[len(beginning) :]: tensor for name, tensor in tensors.items() if name.startswith(beginning)}
        if not tensors:
            raise CheckpointError(f"{path}: no tensors under '{part}'; there are {first_of(keys, 8) or 'no parts'}")
    return ForeignWeights(tensors, keys, others)


def _file_in(path: Path) -> Path:
    if path.is_dir():
        found = next((path / name for name in FILES if (path / name).is_file()), None)
        if found is None:
            raise CheckpointError(f"{path}: a folder without {', '.join(FILES)}; give the weights' file")
        return found
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected the weights")
    return path


def _content(path: Path) -> Content:
    try:
        return content_of(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None


def _read(path: Path, content: Content) -> Any:
    if content.kind is Kind.SAFETENSORS:
        return read_tensors(path)
    if content.kind is Kind.TORCH:
        return _read_torch(path)
    if content.kind is Kind.TORCHSCRIPT:
        raise CheckpointError(
            f"{path}: a TorchScript file, a program and not weights alone; store its state dict: "
            "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')"
        )
    if content.kind is Kind.PICKLE:
        with path.open("rb") as file:
            names = pickled_names(file)
        raise CheckpointError(
            f"{path}: a pickle that torch.save did not write, of {first_of(names) or 'plain values'}; it could run "
            "code and is not read; where you trust it, store the tensors alone: "
            "torch.save({name: torch.as_tensor(array) for …}, 'weights.pth')"
        )
    raise CheckpointError(f"{path}: expected weights, of safetensors or torch.save, but this is {content.words}")


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # an open file: torch.load takes a path that ends in .safetensors for such a file
            with path.open("rb") as file:
                return torch.load(file, map_location="cpu", weights_only=True)
    # damaged bytes may raise any error
    except Exception as error:
        names = _names_in(path)
        if names:
            raise CheckpointError(
                f"{path}: holds more than tensors: {first_of(names)}; that could run code and is not read; {_RESAVE}"
            ) from None
        if isinstance(error, pickle.UnpicklingError):
            raise CheckpointError(
                f"{path}: a file of torch.save that is damaged, or written with another pickle_protocol than its own; "
                "copy it again, or store it without that option"
            ) from None
        raise CheckpointError(
            f"{path}: a file of torch.save that is damaged or cut off ({_one_line(error)}); copy it again"
        ) from None


def _names_in(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.rsplit("/", 1)[-1] == "data.pkl")
            with archive.open(name) as file:
                return pickled_names(file)
    except zipfile.BadZipFile:
        with path.open("rb") as file:
            return pickled_names(file)
    except (OSError, ValueError, NotImplementedError, RuntimeError, StopIteration):
        return []


def _shards(path: Path) -> dict[str, Tensor]:
    """The tensors that an index of Hugging Face places in several files beside it."""
    expected = "an index of shards, with a weight_map of tensor names to file names"
    index = read_json(path, expected=expected, error=CheckpointError)
    places = index.get("weight_map") if isinstance(index, dict) else None
    names = places.values() if isinstance(places, dict) else ()
    if not names or not all(isinstance(name, str) and name == Path(name).name for name in names):
        raise CheckpointError(f"{path}: expected {expected} beside it")
    places = cast("dict[str, str]", places)
    files = sorted(set(places.values()))
    tensors: dict[str, Tensor] = {}
    for name in files:
        shard = path.with_name(name)
        if not shard.is_file():
            missing = [name for name in files if not path.with_name(name).is_file()]
            raise CheckpointError(
                f"{shard}: missing; {path.name} names {len(files)} files, {len(missing)} of which are not there"
            )
        stored = _read(shard, _content(shard))
        held = _flat(stored) if isinstance(stored, Mapping) else {}
        for key in (key for key, place in places.items() if place == name):
            if key not in held:
                raise CheckpointError(f"{shard}: holds no tensor '{key}', which {path.name} places there")
            tensors[key] = held[key]
    return tensors


def _flat(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The tensors under text keys, those of inner dicts too. Dicts by number, as optimizers have, hold no weights.

    No deeper than DEEPEST and of MOST_DICTS at most: a damaged file can hold a dict inside of itself.
    """
    tensors: dict[str, Tensor] = {}
    count = 0

    def collect(inner: Mapping[Any, Any], beginning: str, depth: int) -> None:
        nonlocal count
        count += 1
        for key, value in inner.items():
            if not isinstance(key, str):
                continue
            if isinstance(value, Tensor):
                tensors[beginning + key] = value.detach()
            elif isinstance(value, Mapping) and depth < DEEPEST and count < MOST_DICTS:
                collect(value, f"{beginning}{key}.", depth + 1)

    collect(content, "", 1)
    return tensors


def _require_plain(name: str, tensor: Tensor, path: Path) -> None:
    what = None
    if tensor.is_meta:
        what = "without values (on the device 'meta')"
    elif tensor.layout is not torch.strided:
        what = "sparse"
    elif tensor.is_quantized:
        what = "quantized"
    elif tensor.is_complex():
        what = "of complex numbers"
    if what is not None:
        raise CheckpointError(f"{path}: '{name}' is {what}; expected plain numbers: store the weights as float32")


def _kind(value: object) -> str:
    if isinstance(value, Mapping):
        return f"dict of {len(value)}"
    return type(value).__name__


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else f"{text[:157]}…"
