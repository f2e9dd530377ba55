"""What systems state is read as such, nowhere by the names of attributes that they may have."""

from __future__ import annotations

import ast
from pathlib import Path

import torch

import pixelwise
from pixelwise.contracts import Sizes, Thresholds
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
