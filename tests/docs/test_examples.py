"""The scripts of examples/ run on small data."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(folder: Path, pixelwise_here: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs a script of that name and returns what it prints."""

    def run(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.mark.slow
def test_own_data_are_checked_trained_on_evaluated_and_predicted(example, folder: Path) -> None:
    printed = example("own_data", "masks:scans", "out", "2")
    assert "4 classes" in printed
    assert "mean IoU" in printed
    assert (folder / "out" / "photo.semantic.png").exists()


@pytest.mark.slow
def test_an_own_loop_trains_a_system_and_stores_it(example, folder: Path) -> None:
    printed = example("own_loop", "masks:scans", "out", "2")
    assert "step 2: loss" in printed
    assert (folder / "out" / "model.safetensors").exists()


@pytest.mark.slow
def test_an_own_model_is_trained_by_the_command_line(example, plugin: None, folder: Path) -> None:
    printed = example("own_model", "masks:scans", "out", "2")
    assert "'system': 'two_scale'" in printed
    assert "mean IoU" in printed
    assert (folder / "out" / "run" / "best" / "model.json").exists()


@pytest.mark.slow
def test_a_video_is_followed_and_read_frame_by_frame(example, folder: Path) -> None:
    printed = example("video", "clip.mp4", "out")
    assert printed.count("frame ") == 3
    assert (folder / "out" / "clip.labelled.mp4").exists()


def test_every_example_is_tested() -> None:
    tests = Path(__file__).read_text("utf-8")
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == {name for name in names if f'example("{name}"' in tests}
    assert len(names) == 4
