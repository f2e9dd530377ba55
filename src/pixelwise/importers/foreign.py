"""What every family of foreign weights needs: reading a file, renaming its tensors, and comparing with what is wanted.

Here alone are pickles read, and only their tensors (`weights_only`).
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixelwise.errors import CheckpointError
from pixelwise.nn.backbones import read_weights

WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "network")
"""Names under which training scripts store the weights beside other things."""


@dataclass(frozen=True)
class ImportedModel:
    """Foreign weights of a whole network.

    Attributes:
        system: ours, a file under models/.
        arguments: of its `build`, without `num_classes`.
        weights: under our keys.
        left_out: tensors of the file that its own network does not use.
        input_size: long side in pixels at which its authors judge images.
        classes: with the background; None where the tensor that gives the scores tells it.
    """

    system: str
    arguments: Mapping[str, Any]
    weights: Mapping[str, Tensor] = field(repr=False)
    left_out: int = 0
    input_size: int = 512
    classes: int | None = None

    @property
    def num_classes(self) -> int:
        """Channels of the scores. Raises CheckpointError where no tensor gives scores."""
        if self.classes is not None:
            return self.classes
        for key in ("classifier.weight", "classifier.4.weight"):
            if key in self.weights:
                return self.weights[key].shape[0]
        first = ", ".join(list(self.weights)[:3])
        raise CheckpointError(f"no weights of {self.system}: none of the tensors ({first}, …) gives scores of classes")


def read_foreign(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or a pickled state dict, without the wrappers of training scripts.

    Raises:
        CheckpointError: no such file, or something else than tensors by name.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; the weights' file is wanted")
    if path.suffix == ".safetensors":
        return read_weights(path)
    if path.suffix == ".pkl":
        raise CheckpointError(
            f"{path}: a pickle of arrays, as detectron2's model zoo has, could run code and is not read; where you "
            "trust it, store its 'model' as tensors: torch.save({name: torch.as_tensor(array) for …}, 'weights.pth')"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).split(". ")[0].splitlines())
        raise CheckpointError(
            f"{path}: holds more than tensors, which could run code, and is not read ({reason}); "
            "store the state dict alone"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise CheckpointError(f"{path}: not a file of torch.save ({_one_line(error)}); copy it again") from None
    for name in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{path}: a state dict is wanted, tensors by name, not a {type(content).__name__}")
    prefix = "module." if content and all(key.startswith("module.") for key in content) else ""
    return {key.removeprefix(prefix): value for key, value in content.items()}


def renamed(weights: Mapping[str, Tensor], rules: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """Each tensor under the name that the first fitting rule gives it; those that no rule fits keep theirs.

    Args:
        weights: by foreign names.
        rules: a regular expression that fits the beginning of a name, and what takes its place.
    """
    result: dict[str, Tensor] = {}
    for key, tensor in weights.items():
        rule = next(((pattern, text) for pattern, text in rules if re.match(pattern, key)), None)
        result[key if rule is None else re.sub(rule[0], rule[1], key, count=1)] = tensor
    return result


def require_fit(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, source: str, expected: str) -> None:
    """Raise CheckpointError with the first keys that differ, unless names and shapes agree.

    Args:
        found: the renamed tensors.
        wanted: the state of our network; counters of batches may be missing in old files.
        source: the file.
        expected: what it was said to be.
    """
    missing = [key for key in wanted if key not in found and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in found if key not in wanted]
    shapes = [
        f"{key} {list(found[key].shape)} instead of {list(tensor.shape)}"
        for key, tensor in wanted.items()
        if key in found and found[key].shape != tensor.shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    differences = [f"{len(keys)} {kind} ({_first(keys)})" for kind, keys in kinds if keys]
    if differences:
        raise CheckpointError(f"{source}: not the weights of {expected}: {'; '.join(differences)}, in our names")


def number_of(weights: Mapping[str, Tensor], pattern: str) -> int:
    """How many different numbers stand where the pattern has its group, as in `layer3\\.(\\d+)\\.`."""
    return len({match[1] for key in weights if (match := re.match(pattern, key))})


def _first(keys: Sequence[str], limit: int = 3) -> str:
    return ", ".join(keys[:limit]) + (", …" if len(keys) > limit else "")


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).splitlines()) or type(error).__name__
    return text if len(text) <= 160 else f"{text[:157]}…"
