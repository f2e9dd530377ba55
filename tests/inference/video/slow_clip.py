"""A clip predicted so slowly that there is time to kill the process; the tests beside predict the same."""

import time
from pathlib import Path

import pytest

from pixelwise.inference.predictor import Options, Predictor
from pixelwise.inference.video import predict
from pixelwise.inference.video.input import open_video
from pixelwise.inference.video.predict import VideoJob, look_for_results, predict_video
from tests.inference.simple_models import add_systems, panels


def job(folder: Path, predictor: Predictor | None = None, **changes) -> VideoJob:
    folder.mkdir(exist_ok=True)
    return VideoJob(
        **{
            "predictor": predictor or panels(),
            "weights": "abc",
            "options": Options(),
            "tracks": predictor is None,
            "video": folder / "out.mp4",
            "lines": folder / "out.jsonl",
            **changes,
        }
    )


def main(path: Path, folder: Path) -> None:
    """Predict a clip into a folder, and print the lines."""
    add_systems(pytest.MonkeyPatch())
    predict.COMMIT_FRAMES = 3
    clip, mine = open_video(path), job(folder)
    for line in predict_video(clip, mine, look_for_results(clip, mine)):
        print(line, flush=True)
        time.sleep(0.05)
