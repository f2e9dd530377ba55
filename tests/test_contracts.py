"""What systems state is read as such, nowhere by the names of attributes that they may have."""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

import pixelwise
from pixelwise.contracts import Sizes, Thresholds, flat_arguments
from pixelwise.types import Annotation, Batch

NETWORKS = {"model", "fused", "fitting", "predictor", "self.model"}


def test_no_file_asks_a_system_for_attributes_that_it_may_have() -> None:
    found: list[str] = []
    for path in Path(pixelwise.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("getattr", "hasattr")
            ):
                asked = ast.unparse(node.args[0])
                if asked in NETWORKS or asked.startswith(("system", "network")):
                    found.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
    assert not found


def test_sizes_are_those_of_the_batch() -> None:
    zero = torch.zeros(2, dtype=torch.int64)
    valid, original = torch.tensor([[4, 6], [3, 5]]), torch.tensor([[40, 60], [30, 51]])
    batch = Batch(torch.zeros(2, 3, 4, 6), valid, original, (Annotation(),) * 2, ("a", "b"), zero, zero)
    assert Sizes.of(batch) == Sizes(((4, 6), (3, 5)), ((40, 60), (30, 51)))


def test_thresholds_keep_the_highest_scores_from_the_threshold_on() -> None:
    scores = torch.tensor([0.9, 0.75, 0.5, 0.25])
    assert Thresholds(0.5).places(scores).tolist() == [0, 1, 2]
    assert Thresholds(0.5, 2).places(scores).tolist() == [0, 1]
    assert Thresholds(0.95).places(scores).tolist() == []


@dataclass(frozen=True)
class Widths:
    inner: int = 3
    outer: int = 4


def test_a_build_takes_the_fields_of_its_values_as_arguments() -> None:
    @flat_arguments
    def build(*, num_classes: int, widths: Widths = Widths(outer=9), has_bias: bool = True) -> nn.Linear:
        return nn.Linear(widths.inner, widths.outer * num_classes, bias=has_bias)

    parameters = inspect.signature(build).parameters
    assert {name: one.default for name, one in parameters.items() if name != "num_classes"} == {
        "inner": 3,
        "outer": 9,
        "has_bias": True,
    }
    assert build(num_classes=2).weight.shape == (18, 3)
    assert build(num_classes=2, inner=5, has_bias=False).weight.shape == (18, 5)
    assert build(num_classes=1, widths=Widths(7), outer=2).weight.shape == (2, 7)
    with pytest.raises(TypeError, match="'width'"):
        build(num_classes=1, width=2)
