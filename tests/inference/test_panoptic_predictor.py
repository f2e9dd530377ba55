"""Panoptic models and frames of clips through the predictor, to files and to memory."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pixelwise.cli.app import main
from pixelwise.contracts import Thresholds
from pixelwise.errors import DataError, RecipeError
from pixelwise.inference.model_folder import write_model
from pixelwise.inference.predictor import FrameMemory, Options, Predictor
from pixelwise.ops import rle
from pixelwise.ops.panoptic import rgb_to_ids
from tests.inference.simple_models import LABELS, noise, panels


def flags(height: int, width: int) -> torch.Tensor:
    """A red third, a black one, and a green one."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[0, :, : width // 3] = 255
    image[1, :, -(width // 3) :] = 255
    return image


def test_segments_at_the_size_of_the_image() -> None:
    predictor = panels()
    scene = predictor(flags(30, 60))
    assert scene.panoptic.ids.shape == (30, 60)
    assert scene.panoptic.ids[15, [5, 30, 55]].tolist() == [4, 1, 5]
    assert scene.panoptic.labels.tolist() == [0, 1, 2]
    # twice the size at which the network ran
    large = predictor(flags(60, 192), input_size=96).panoptic.ids
    assert large.shape == (60, 192)
    assert large[30, [10, 96, 180]].tolist() == [4, 1, 5]


def test_thresholds_are_those_of_the_call_and_leave_the_model_as_it_is() -> None:
    predictor = panels()
    image = flags(30, 60)
    assert 0.7 < predictor(image).panoptic.scores[1] < 0.999
    assert predictor(image, score_threshold=0.999).panoptic.labels.tolist() == [0]
    assert predictor(image, max_detections=1).panoptic.labels.tolist() == [0, 1]
    assert predictor.model.thresholds == Thresholds(0.5, 100)
    assert predictor(image).panoptic.labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize("option", ["tile", "tta"])
def test_passes_that_cannot_be_joined_are_refused(option: str) -> None:
    with pytest.raises(RecipeError, match=f"panels: --{option} is not possible with a panoptic model"):
        panels()(noise(8, 8), **{option: True})
    with pytest.raises(RecipeError, match=f"panels: --{option} is not possible"):
        panels().annotate_frame(noise(8, 8), None, Options(**{option: True}))


def test_frames_of_a_model_without_memory_are_predicted_one_by_one(predictor: Predictor) -> None:
    semantic, memory = predictor.annotate_frame(flags(30, 60), None, Options(tile=True))
    assert memory is None
    assert semantic.semantic.equal(predictor(flags(30, 60), tile=True).semantic)
    predictor = panels()
    assert not predictor.uses_memory
    image = flags(30, 60)
    annotation, memory = predictor.annotate_frame(image, None, Options())
    assert memory is None
    assert annotation.panoptic.ids.equal(predictor(image).panoptic.ids)


def test_a_video_system_gets_back_what_it_remembered() -> None:
    predictor = panels(uses_memory=True)
    assert predictor.uses_memory
    image = flags(30, 60)
    memory, ids = None, []
    for _ in range(3):
        annotation, memory = predictor.annotate_frame(image, memory, Options())
        ids.append(annotation.panoptic.segment_ids.tolist())
    assert ids == [[1, 4, 5], [1, 6, 7], [1, 8, 9]]
    assert isinstance(memory, FrameMemory)
    assert memory.state.frames.tolist() == [2]
    # the memory is a value: it can be used again, and a new clip knows nothing of it
    again = predictor.annotate_frame(image, memory, Options())[0].panoptic.segment_ids.tolist()
    assert again == predictor.annotate_frame(image, memory, Options())[0].panoptic.segment_ids.tolist() == [1, 10, 11]
    assert predictor.annotate_frame(image, None, Options())[0].panoptic.segment_ids.tolist() == [1, 4, 5]
    assert predictor(image).panoptic.segment_ids.tolist() == [1, 4, 5]


def test_the_frames_of_a_clip_have_one_size() -> None:
    predictor = panels(uses_memory=True)
    _, memory = predictor.annotate_frame(flags(30, 60), None, Options())
    with pytest.raises(DataError, match=r"a frame of 30×61, .* after one of 30×60, seen at 32×64; .* memory=None"):
        predictor.annotate_frame(flags(30, 61), memory, Options())
    with pytest.raises(DataError, match=r"seen at 48×96, after one of 30×60, seen at 32×64"):
        predictor.annotate_frame(flags(30, 60), memory, Options(input_size=96))
    annotation, _ = predictor.annotate_frame(flags(30, 61), None, Options())
    assert annotation.panoptic.segment_ids.tolist() == [1, 4, 5]


def test_a_run_writes_pictures_lines_and_the_results_of_coco(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    predictor = panels()
    write_model(tmp_path / "model", predictor.model.state_dict(), predictor.card)
    images = {"000000000017.png": flags(30, 60), "a.png": flags(9, 9), "sub/b.png": noise(20, 33)}
    for name, image in images.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> int:
        monkeypatch.setattr(
            "sys.argv", ["pixelwise", "predict", "in", "--model", "model", "--device", "cpu", *arguments]
        )
        with pytest.raises(SystemExit) as caught:
            main()
        return int(caught.value.code or 0)

    assert run() == 0
    assert "3 overlays, 3 segment maps, results.jsonl, panoptic_results.json" in capsys.readouterr().out
    lines = {line["image"]: line for line in map(json.loads, (tmp_path / "out/results.jsonl").read_text().splitlines())}
    results = json.loads((tmp_path / "out/panoptic_results.json").read_text())
    assert [category["id"] for category in results["categories"]] == list(LABELS.dataset_ids)
    assert [category["isthing"] for category in results["categories"]] == [0, 1, 1]
    assert [one["image_id"] for one in results["annotations"]] == [17, "in/a.png", "in/sub/b.png"]
    for one, (name, image) in zip(results["annotations"], images.items(), strict=True):
        # as panopticapi reads: every id of the picture has an entry, and every entry pixels
        with Image.open(tmp_path / "out" / one["file_name"]) as picture:
            ids = rgb_to_ids(np.asarray(picture))
        assert np.array_equal(ids, predictor(image).panoptic.ids.numpy())
        found, areas = np.unique(ids, return_counts=True)
        assert [(info["id"], info["area"]) for info in one["segments_info"]] == [
            (id, area) for id, area in zip(found.tolist(), areas.tolist(), strict=True) if id
        ]
        segments = lines[f"in/{name}"]["segments"]
        assert [segment["id"] for segment in segments] == [info["id"] for info in one["segments_info"]]
        for segment, info in zip(segments, one["segments_info"], strict=True):
            assert np.array_equal(rle.decode(segment["rle"]), ids == segment["id"])
            x1, y1, x2, y2 = segment["box"]
            assert info["bbox"] == [x1, y1, x2 - x1, y2 - y1]
            assert info["score"] == segment["score"]
            assert info["category_id"] == LABELS.dataset_ids[segment["label"]]
            assert segment["track_id"] is None
    before = (tmp_path / "out/panoptic_results.json").read_bytes()
    assert run() == 0
    assert (tmp_path / "out/panoptic_results.json").read_bytes() == before
    assert run("--tta", "--out", "other") == 2
    assert "model: --tta is not possible with a panoptic model" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
