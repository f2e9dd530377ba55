"""What every family of foreign weights needs: renaming its tensors, and comparing them with what a network has.

Each family is a module with the same function, `convert(architecture, weights)`: the architecture is one of its
`NETWORKS`, the weights stand under its authors' keys, and what comes back is an `ImportedModel`. It raises
CheckpointError for an unknown architecture, and where no tensor gives the logits of classes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pixelwise.errors import CheckpointError
from pixelwise.ops.resize_rule import ResizeRule

COUNTERS = ("total_ops", "total_params", "num_batches_tracked")
"""Last parts of names of tensors that only count: thop's operations and parameters, batches of batch norms."""


class UnknownNetworkError(CheckpointError):
    """A family has no network of that name, whatever the tensors are."""


class MisfitError(CheckpointError):
    """Weights are not those of the network.

    Attributes:
        differences: number of tensors that are missing, unexpected or of another shape.
    """

    def __init__(self, message: str, *, differences: int) -> None:
        super().__init__(message)
        self.differences = differences


@dataclass(frozen=True)
class ImportedModel:
    """Foreign weights of a whole network.

    Attributes:
        system: ours, a file under models/.
        arguments: of its `build`, without `num_classes`.
        weights: under our keys.
        skipped: names of tensors that the network does not use.
        notes: for the user.
        resize: how its authors bring images to the size at which they evaluate them.
        classes: with the background; None where the tensor that gives the logits tells it.
        is_sigmoid: whether the network had one channel for two classes, see `fit.model_of`.
    """

    system: str
    arguments: Mapping[str, Any]
    weights: Mapping[str, Tensor] = field(repr=False)
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    resize: ResizeRule = field(default_factory=ResizeRule)
    classes: int | None = None
    is_sigmoid: bool = False

    @property
    def num_classes(self) -> int:
        """Channels of the logits. Raises CheckpointError where no tensor gives them."""
        if self.classes is not None:
            return self.classes
        for key in ("classifier.weight", "classifier.4.weight"):
            if key in self.weights:
                return self.weights[key].shape[0]
        first = ", ".join(list(self.weights)[:3])
        raise CheckpointError(f"no weights of {self.system}: none of the tensors ({first}, …) gives logits of classes")


@dataclass(frozen=True)
class ImportedBackbone:
    """Weights of a classifier, as a backbone.

    Attributes:
        name: of the backbone, see `nn.backbones.build_backbone`.
        weights: under its keys.
        skipped: names of tensors that the backbone does not use, such as the classifier's last layers.
        notes: for the user.
    """

    name: str
    weights: Mapping[str, Tensor] = field(repr=False)
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def require_known(family: str, architecture: str, known: Collection[str]) -> None:
    """Raise UnknownNetworkError, with the networks there are, unless a family has one of that name."""
    if architecture not in known:
        raise UnknownNetworkError(f"{family} has no '{architecture}' here; there are {', '.join(known)}")


def change(weights: dict[str, Tensor], keys: Iterable[str], how: Callable[[Tensor], Tensor]) -> None:
    """Replace those of these tensors that are there."""
    weights |= {key: how(weights[key]) for key in keys if key in weights}


def in_float32(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, those of floating-point numbers in single precision."""
    return {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in weights.items()}


def surplus(weights: Collection[str], state: Collection[str]) -> tuple[str, ...]:
    """The tensors that stand beside a network's own: counters, and those of modules that it does not have.

    One too many inside of a module that it has is not among them: it shows that the file is of another network, as
    the further blocks of a deeper one do.

    Args:
        weights: names of tensors, under the network's keys.
        state: names of the network's own.
    """
    modules = {key.split(".", 1)[0] for key in state}
    return tuple(
        key
        for key in weights
        if key not in state and (key.rsplit(".", 1)[-1] in COUNTERS or key.split(".", 1)[0] not in modules)
    )


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


def require_fit(found: Mapping[str, Tensor], state: Mapping[str, Tensor], *, source: str = "", expected: str) -> None:
    """Raise MisfitError with the first keys that differ, unless names and shapes agree.

    Args:
        found: the renamed tensors.
        state: of our network; counters of batches may be missing in old files.
        source: the file, where the caller does not name it.
        expected: what it was said to be.
    """
    missing = [key for key in state if key not in found and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in found if key not in state]
    shapes = [
        f"{key} {list(found[key].shape)} instead of {list(tensor.shape)}"
        for key, tensor in state.items()
        if key in found and found[key].shape != tensor.shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    differences = [f"{len(keys)} {kind} ({first_of(keys)})" for kind, keys in kinds if keys]
    if differences:
        raise MisfitError(
            f"{source}{': ' if source else ''}not the weights of {expected}: {'; '.join(differences)}",
            differences=len(missing) + len(unexpected) + len(shapes),
        )


def require_finite(weights: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError with the first tensor that holds NaN or an infinite number."""
    for name, tensor in weights.items():
        if not tensor.is_floating_point():
            continue
        finite = tensor.to(torch.float32).isfinite()
        if not bool(finite.all()):
            count = int(finite.numel() - finite.sum())
            raise CheckpointError(
                f"'{name}' holds NaN or infinite numbers ({count:,} of {finite.numel():,}): the training diverged; "
                "take a checkpoint from before"
            )


def number_of(weights: Mapping[str, Tensor], pattern: str) -> int:
    """Count the different numbers at the pattern's group, as in `layer3\\.(\\d+)\\.`."""
    return len({match[1] for key in weights if (match := re.match(pattern, key))})


def first_of(names: Sequence[str], limit: int = 3) -> str:
    """The first names, for a message."""
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")
