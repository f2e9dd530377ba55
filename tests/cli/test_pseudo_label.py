"""`pixelwise pseudo-label`: from photographs to a set that trains."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.data.spec import open_dataset
from pixelwise.inference.load import load
from tests.cli.conftest import Run


@pytest.fixture
def photos(place: Path) -> Path:
    generator = np.random.default_rng(0)
    (place / "photos").mkdir()
    for name in ("a", "b"):
        Image.fromarray(generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(place / "photos" / f"{name}.png")
    return place / "photos"


def test_photographs_become_a_set(run: Run, model: Path, photos: Path) -> None:
    code, out, err = run("pseudo-label", model, "--data", photos, "--out", "set", "--threshold", 0, "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert (result["out"], result["images"], result["void_share"]) == ("masks:set", 2, 0)
    dataset = open_dataset("masks:set", default_split="train")
    predicted = load(model)(photos / "a.png").semantic
    assert (dataset[0].truth.semantic == predicted).all()
    code, out, _ = run("pseudo-label", model, "--data", photos, "--out", "set", "--threshold", 0)
    assert "2 images labelled, 2 of them before" in out


@pytest.mark.parametrize("passes", [[], ["--tta"], ["--tile"]])
def test_tagged_photographs_get_their_classes_alone(run: Run, model: Path, photos: Path, passes: list[str]) -> None:
    Path("tags.json").write_text('{"a.png": ["plum"], "b.png": ["apple", "pear"]}')
    options = ["--data", photos, "--out", "set", "--threshold", 0, "--tags", "tags.json", *passes]
    code, out, _ = run("pseudo-label", model, *options)
    assert code == 0
    assert "images of each class: " in out
    dataset = open_dataset("masks:set", default_split="train")
    assert set(dataset[0].truth.semantic.unique().tolist()) == {2}
    assert set(dataset[1].truth.semantic.unique().tolist()) <= {0, 1}
    sure = np.asarray(Image.open("set/confidence/train/a.png"))
    assert (sure == 255).all()  # of the one class that is possible


def test_bad_input_is_one_line(run: Run, model: Path, photos: Path) -> None:
    for options, message in (
        (["--data", "nowhere", "--out", "set"], "nowhere"),
        (["--data", photos, "--out", "set", "--threshold", "2"], "expected a probability"),
        (["--data", photos, "--out", "set", "--tags", "none.json"], "none.json"),
        (["--data", photos, "--out", "yolo:set"], "expected masks or voc"),
        (["--data", photos, "--out", photos], "did not make it"),
    ):
        code, _, err = run("pseudo-label", model, *options)
        assert code == 2, options
        assert message in err
        assert len(err.strip().splitlines()) == 1
        assert not Path("set").exists()
