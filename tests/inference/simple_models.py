"""Models that tell pixels by their colour, whose predictions are known without training; their systems lie beside."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import pixelwise.models
from pixelwise.inference.model_folder import ModelCard
from pixelwise.inference.predictor import Predictor
from pixelwise.inference.systems import system_module
from pixelwise.labels import LabelSet
from pixelwise.ops.resize_rule import ResizeRule

LABELS = LabelSet.from_names("fruit", ["background", "apple", "pear"])
SYSTEMS = Path(__file__).with_name("systems")


def add_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the systems of the folder beside this file importable as `pixelwise.models.NAME`."""
    monkeypatch.setattr(pixelwise.models, "__path__", [*pixelwise.models.__path__, str(SYSTEMS)])


def pointwise_card(**changes) -> ModelCard:
    return ModelCard(
        **{"task": "semantic", "system": "pointwise", "labels": LABELS, "resize": ResizeRule(length=32), **changes}
    )


def pointwise(*, stride: int = 1) -> torch.nn.Module:
    """Red pixels are apples, green ones pears, dark ones background."""
    module = system_module("pointwise").build(num_classes=3, stride=stride)
    with torch.no_grad():
        module.classifier.weight.copy_(torch.tensor([[-4.0, -4, 0], [6, -6, 0], [-6, 6, 0]]).view(3, 3, 1, 1))
        module.classifier.bias.copy_(torch.tensor([1.0, 0, 0]))
    return module


def panels(*, uses_memory: bool = False) -> Predictor:
    """Red pixels are one apple, green ones one pear, all else is background, which is stuff."""
    labels = replace(LABELS, is_thing=(False, True, True))
    arguments = {"uses_memory": uses_memory}
    card = ModelCard(task="panoptic", system="panels", labels=labels, resize=ResizeRule(length=64), arguments=arguments)
    return Predictor(system_module("panels").build(num_classes=3, **arguments), card, device="cpu")


def noise(height: int, width: int, *, seed: int = 0) -> torch.Tensor:
    """Pixels of all colours, 3×H×W."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
