from pathlib import Path

import pytest

from pixelwise.inference.model_folder import write_model
from pixelwise.inference.predictor import Predictor
from tests.inference.simple_models import add_systems, pointwise, pointwise_card


@pytest.fixture(autouse=True)
def simple_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    add_systems(monkeypatch)


@pytest.fixture
def predictor() -> Predictor:
    return Predictor(pointwise(), pointwise_card(), device="cpu")


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    write_model(folder, pointwise().state_dict(), pointwise_card())
    return folder
