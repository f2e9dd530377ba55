"""What tests of commands share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pixelwise.cli.app import main
from pixelwise.inference.model_folder import ModelCard, write_model
from pixelwise.labels import LabelSet
from pixelwise.models import deeplab_v3_plus
from pixelwise.ops.resize_rule import ResizeRule

Run = Callable[..., tuple[int, str, str]]
"""Runs a command line: exit code, stdout, stderr."""
Predict = Callable[..., int]
"""Runs `pixelwise predict` with arguments: exit code; what was printed stays with capsys."""

LABELS = LabelSet.from_names("fruit", ["apple", "pear", "plum"])


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line in this process."""

    def run(*arguments: str | Path | float) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pixelwise", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return run


@pytest.fixture
def predict(monkeypatch: pytest.MonkeyPatch) -> Predict:
    """Runs `pixelwise predict` in this process."""

    def predict(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["pixelwise", "predict", *map(str, arguments)])
        with pytest.raises(SystemExit) as leaving:
            main()
        return int(leaving.value.code or 0)

    return predict


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small semantic model of random weights, which no test changes."""
    torch.manual_seed(0)
    arguments = {"backbone": "mobilenet_v2", "channels": 8}
    module = deeplab_v3_plus.build(num_classes=3, **arguments)
    folder = tmp_path_factory.mktemp("models") / "random"
    card = ModelCard(
        task="semantic",
        system="deeplab_v3_plus",
        labels=LABELS,
        arguments=arguments,
        resize=ResizeRule(length=32),
        licence="CC0",
    )
    write_model(folder, module.state_dict(), card, half=True)
    return folder
