"""A trained model as a folder: `model.safetensors`, the weights, and `model.json`, everything else about it.

No pickle is written or read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

import pixelwise
from pixelwise.errors import CheckpointError, DataError, PixelwiseError, RecipeError, first_fault
from pixelwise.files.atomic import current_folder, recover_folder, replace_folder
from pixelwise.files.tensors import read_tensors
from pixelwise.files.text import read_json
from pixelwise.importers.foreign import require_finite, require_fit
from pixelwise.inference.systems import build_system, system_module
from pixelwise.labels import LabelSet
from pixelwise.ops.resize_rule import Filter, ResizeRule, Rounding, Side

FORMAT_VERSION = 1
WEIGHTS_NAME = "model.safetensors"
CARD_NAME = "model.json"
WEIGHTS_HASH, CARD_HASH = "weights_sha256", "card_sha256"
"""Fields of `model.json`: the SHA-256 of the weights' file, and that of all other fields (see `_card_hash`)."""
_AGAIN = "copy or write it again"
PREPROCESSING = {"channels": "RGB", "range": "0 to 1"}
"""What every model of ours is given beside its size; normalisation is a buffer inside the model."""


@dataclass(frozen=True)
class ModelCard:
    """The content of `model.json` beside the weights.

    Attributes:
        task: `semantic`, `instance`, …
        system: the file under `models/` whose `build` makes the network.
        labels: the classes; their number is `build`'s `num_classes`.
        arguments: the other keyword arguments of `build`, as JSON values.
        resize: how images are brought to the size at which the network runs, as in validation.
        licence: of the weights.
        preprocessing: of an image before the network, in words.
        scores: metrics of the weights, fractions of 1.
        training: origin of the weights: data, steps, command, revision.
        pixelwise_version: that wrote the folder.
    """

    task: str
    system: str
    labels: LabelSet
    arguments: Mapping[str, Any] = field(default_factory=dict)
    resize: ResizeRule = field(default_factory=ResizeRule)
    licence: str = "unknown"
    preprocessing: Mapping[str, str] = field(default_factory=lambda: dict(PREPROCESSING))
    scores: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    pixelwise_version: str = pixelwise.__version__

    @property
    def rule(self) -> ResizeRule:
        """How images are resized: `resize`, as a square where the system runs on squares alone."""
        return self.resize.as_square() if system_module(self.system).TRAITS.stretches_input else self.resize

    def to_json(self) -> dict[str, Any]:
        """The content of `model.json`."""
        return {
            "format_version": FORMAT_VERSION,
            "pixelwise_version": self.pixelwise_version,
            "task": self.task,
            "system": self.system,
            "arguments": dict(self.arguments),
            "labels": self.labels.to_json(),
            "resize": dataclasses.asdict(self.resize),
            "preprocessing": dict(self.preprocessing),
            "licence": self.licence,
            "scores": dict(self.scores),
            "training": dict(self.training),
        }


class _StoredRule(BaseModel, strict=True, extra="forbid"):
    side: Side
    length: int
    limit: int
    rounding: Rounding
    filter: Filter


class _StoredCard(BaseModel, strict=True, extra="forbid"):
    """`model.json` as read, before validation."""

    format_version: int
    pixelwise_version: str = ""
    task: str
    system: str
    arguments: dict[str, Any]
    labels: dict[str, Any]
    input_size: int | None = Field(default=None, ge=1)
    resize: _StoredRule | None = None
    preprocessing: dict[str, str] = {}
    licence: str = "unknown"
    scores: dict[str, Any] = {}
    training: dict[str, Any] = {}
    weights_sha256: str | None = None
    card_sha256: str | None = None


def write_model(folder: Path | str, state_dict: Mapping[str, Tensor], card: ModelCard, *, half: bool = False) -> None:
    """Write a model folder; a kill at any moment leaves the former complete model or this one.

    `model.json` holds the SHA-256 of the weights' file and of its own fields, which detect damage.

    Args:
        folder: replaced if it exists.
        state_dict: the weights, on any device.
        card: written as `model.json`.
        half: store float32 as float16, except tensors with values beyond its range.

    Raises:
        CheckpointError: the place cannot be written.
    """
    folder = Path(folder)
    tensors = {name: _stored_tensor(tensor, half=half) for name, tensor in state_dict.items()}

    def fill(temporary: Path) -> None:
        save_file(tensors, temporary / WEIGHTS_NAME, metadata={"format": "pt"})
        content = {**card.to_json(), WEIGHTS_HASH: _file_hash(temporary / WEIGHTS_NAME)}
        content[CARD_HASH] = _card_hash(content)
        (temporary / CARD_NAME).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        # safetensors makes files that only their owner can read
        (temporary / WEIGHTS_NAME).chmod((temporary / CARD_NAME).stat().st_mode & 0o777)

    try:
        replace_folder(folder, fill)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: the model cannot be written ({error}); free some room there") from error


def recover_model(folder: Path | str) -> None:
    """Finish an interrupted replacement of the folder; for the process that writes it."""
    recover_folder(Path(folder))


def is_model_folder(folder: Path | str) -> bool:
    """Whether the folder holds a model, complete or with one of its two files missing."""
    found = current_folder(Path(folder))
    return found is not None and ((found / CARD_NAME).exists() or (found / WEIGHTS_NAME).exists())


def read_model(folder: Path | str) -> tuple[nn.Module, ModelCard]:
    """Build the network that `model.json` names and load its weights, widened to float32.

    Returns:
        the module in evaluation mode on the CPU, and its card.

    Raises:
        CheckpointError: a file is missing or damaged, the system is unknown, or the weights do not fit it or are not
            finite.
    """
    found = _existing(Path(folder))
    card, stored = _read_card(found)
    state = _read_weights(found / WEIGHTS_NAME, stored.weights_sha256)
    module = _build(card, found / CARD_NAME)
    require_fit(
        state, module.state_dict(), source=str(found / WEIGHTS_NAME), expected=f"{card.system} as {CARD_NAME} has it"
    )
    module.load_state_dict(state, strict=False)
    return module.eval(), card


def read_card(folder: Path | str) -> ModelCard:
    """Read `model.json` alone. Raises CheckpointError naming the file and the field."""
    return _read_card(_existing(Path(folder)))[0]


def _read_card(found: Path) -> tuple[ModelCard, _StoredCard]:
    path = found / CARD_NAME
    content = _read_json(path)
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format version {version}, this pixelwise {pixelwise.__version__} reads {FORMAT_VERSION}; "
            "use the pixelwise that wrote it"
        )
    try:
        stored = _StoredCard.model_validate(content)
        labels = LabelSet.from_json(stored.labels)
        rule = _stored_rule(stored)
    except ValidationError as error:
        raise CheckpointError(f"{path}: {first_fault(error)}; write the model again") from None
    except (DataError, RecipeError) as error:
        raise CheckpointError(f"{path}: {error}; write the model again") from None
    if stored.card_sha256 is not None and stored.card_sha256 != _card_hash(content):
        raise CheckpointError(
            f"{path}: its fields are not those that were written ({CARD_HASH} differs): it is damaged, copy or write "
            f"the model again; if you changed it yourself, remove the field {CARD_HASH}"
        )
    fields = {field.name: getattr(stored, field.name) for field in dataclasses.fields(ModelCard)}
    # older cards have words on resizing, and the long side alone
    preprocessing = {name: text for name, text in stored.preprocessing.items() if name != "resize"}
    return ModelCard(**{**fields, "labels": labels, "resize": rule, "preprocessing": preprocessing}), stored


def _stored_rule(stored: _StoredCard) -> ResizeRule:
    if stored.resize and not stored.input_size:
        return ResizeRule(**dict(stored.resize))
    if stored.input_size and not stored.resize:
        return ResizeRule(length=stored.input_size)
    raise RecipeError("resize: expected how images are resized, or in older cards input_size, the long side")


def model_digest(folder: Path | str) -> str:
    """A digest of the folder's content of 16 hexadecimal digits. Raises CheckpointError if it is incomplete."""
    found = _existing(Path(folder))
    digest = hashlib.sha256((found / CARD_NAME).read_bytes())
    with (found / WEIGHTS_NAME).open("rb") as file:
        hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()[:16]


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _card_hash(content: Mapping[str, Any]) -> str:
    """The SHA-256 of all fields but itself, as JSON with sorted keys and without spaces."""
    fields = {key: value for key, value in content.items() if key != CARD_HASH}
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _stored_tensor(tensor: Tensor, *, half: bool) -> Tensor:
    stored = tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
    if half and stored.dtype == torch.float32:
        narrow = stored.half()
        return narrow if torch.equal(narrow.isfinite(), stored.isfinite()) else stored
    return stored


def _existing(folder: Path) -> Path:
    found = current_folder(folder)
    if found is None:
        raise CheckpointError(f"{folder}: no such model folder")
    for name in (CARD_NAME, WEIGHTS_NAME):
        if not (found / name).is_file():
            raise CheckpointError(f"{found}: {name} is missing; a model folder holds {CARD_NAME} and {WEIGHTS_NAME}")
    return found


def _read_json(path: Path) -> dict[str, Any]:
    content = read_json(path, expected="the card of a model; copy or write it again", error=CheckpointError)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object, not a {type(content).__name__}")
    return content


def _read_weights(path: Path, expected_hash: str | None) -> dict[str, Tensor]:
    stored = read_tensors(path, advice=_AGAIN)
    found_hash = expected_hash and _file_hash(path)
    if found_hash != expected_hash:
        raise CheckpointError(
            f"{path}: not the weights that {CARD_NAME} was written with (SHA-256 {found_hash:.8}…, expected "
            f"{expected_hash:.8}…), but damaged ones or those of another model; {_AGAIN}"
        )
    weights = {
        name: tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
        for name, tensor in stored.items()
    }
    try:
        require_finite(weights)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return weights


def _build(card: ModelCard, source: Path) -> nn.Module:
    try:
        return build_system(card.system, num_classes=len(card.labels), arguments=card.arguments)
    except PixelwiseError as error:
        raise CheckpointError(f"{source}: {error}") from None
