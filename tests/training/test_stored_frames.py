"""Frames that other tools wrote, evaluated against a data set: truth as prediction is perfect, and faults are named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.errors import DataError
from pixelwise.evaluation.subject import Subject, stored_subject
from tests.data import clip_drawing
from tests.data.formats import cityscapes_vps_set, davis_set, kitti_step_set
from tests.shared_data import require


def scored(subject: Subject) -> dict:  # pyright: ignore[reportMissingTypeArgument]
    metric = subject.new_metric(None)
    for index in subject.indices:
        sample = subject.dataset[index]
        metric.update(subject.answers(sample), sample.truth, id=sample.id, clip=sample.clip, frame=sample.frame)
    return {"definition": metric.definition, **metric.compute()}


def test_frames_of_kitti_step(tmp_path: Path) -> None:
    kitti_step_set.kitti_step(tmp_path / "data")
    shutil.copytree(tmp_path / "data" / "panoptic_maps" / "val", tmp_path / "found")
    subject = stored_subject(tmp_path / "found", [f"kitti-step:{tmp_path / 'data'}"])
    found = scored(subject)
    assert (subject.task, found["definition"], found["vpq"], found["stq"]) == ("panoptic", "video-panoptic", 1, 1)
    last = tmp_path / "found" / "0003" / "000002.png"
    channels = kitti_step_set.step_channels(2)
    channels[channels[..., 0] == 13, 2] += 1  # the car gets another number in the last frame
    clip_drawing.write_rgb(last, channels)
    worse = scored(subject)
    assert worse["vpq"] < 1
    channels[0, 0] = (77, 0, 0)
    clip_drawing.write_rgb(last, channels)
    with pytest.raises(DataError, match=r"000002\.png: value 77.*0003/000002"):
        scored(subject)


def test_maps_of_the_real_clip_of_kitti_step() -> None:
    folder = require("kitti_step")
    subject = stored_subject(folder / "panoptic_maps", [f"kitti-step:{folder}"])
    found = scored(subject)
    assert len(subject.indices) == 11
    assert found["stq"] == pytest.approx(1)


def test_frames_of_davis(tmp_path: Path) -> None:
    davis_set.davis(tmp_path / "data")
    shutil.copytree(tmp_path / "data" / "Annotations" / "480p", tmp_path / "found")
    subject = stored_subject(tmp_path / "found", [f"davis:{tmp_path / 'data'}"])
    found = scored(subject)
    assert (subject.task, found["definition"], found["j_and_f"]) == ("instance", "davis", 1)
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "found" / "0003" / "00001.png")
    with pytest.raises(DataError, match=r"00001\.png: the mask is 9×9"):
        scored(subject)


def test_results_of_cityscapes_vps(tmp_path: Path) -> None:
    data = cityscapes_vps_set.cityscapes_vps(tmp_path / "data")
    content = json.loads((data / "panoptic_gt_val_city_vps.json").read_text())
    (tmp_path / "found").mkdir()
    shutil.copytree(data / "val" / "panoptic_video", tmp_path / "found" / "pan_pred")
    (tmp_path / "found" / "pred.json").write_text(json.dumps({"annotations": content["annotations"]}))
    subject = stored_subject(tmp_path / "found", [f"cityscapes-vps:{data}"])
    found = scored(subject)
    assert (len(subject.indices), found["definition"], found["vpq"]) == (3, "video-panoptic", 1)


def test_classes_of_frames_are_judged_as_those_of_images(tmp_path: Path) -> None:
    kitti_step_set.kitti_step(tmp_path / "data")
    for frame in range(3):
        path = tmp_path / "found" / "0003" / f"{frame:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(kitti_step_set.step_channels(frame)[..., 0].astype(np.uint8)).save(path)
    subject = stored_subject(tmp_path / "found", [f"kitti-step:{tmp_path / 'data'}"])
    assert subject.task == "semantic"
    assert scored(subject)["mean_iou"] == 1
