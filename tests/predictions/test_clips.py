"""Frames of clips that any tool wrote: lines of tracked videos, and folders of masks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pixelwise.data.dataset import Dataset
from pixelwise.data.spec import open_dataset
from pixelwise.errors import DataError
from pixelwise.evaluation.evaluate import evaluate
from pixelwise.evaluation.subject import Subject, stored_subject
from pixelwise.inference.scene import Scene
from pixelwise.predictions.clips import pair_lines
from pixelwise.types import Annotation, Sample
from tests.data import clip_drawing
from tests.data.formats import cityscapes_vps_set, davis_set, kitti_step_set
from tests.shared_data import require


def lines_of(dataset: Dataset, clip: str, predicted: Callable[[Sample], Annotation], **change: Any) -> str:
    """What `predict` writes of a clip."""
    text = ""
    samples = [dataset[index] for index in range(len(dataset))]
    for number, sample in enumerate(one for one in samples if one.clip == clip):
        scene = Scene(sample.image, predicted(sample), dataset.labels, 0.1, "m", is_tracked=True)
        record = {**scene.record(), "frame": number, "time": 0.04 * number, **change}
        del record["image"]
        text += f"{json.dumps(record)}\n"
    return text


def others(sample: Sample) -> Annotation:
    """The objects of the ground truth under other numbers."""
    objects = sample.truth.instances
    assert objects is not None
    assert objects.track_ids is not None
    return Annotation(
        instances=replace(objects, track_ids=9 - objects.track_ids, scores=torch.ones(len(objects)), crowd=None)
    )


def compute(subject: Subject, definition: str | None = None) -> tuple[str, dict[str, Any]]:
    metric = subject.new_metric(definition)
    for _ in evaluate(subject.answers, subject.dataset, metric, indices=subject.indices):
        pass
    return metric.definition, metric.compute()


@pytest.fixture
def davis(tmp_path: Path) -> str:
    return f"davis:{davis_set.davis(tmp_path / 'davis')}@train"


@pytest.mark.parametrize("name", ["0001.labelled.jsonl", "0001.jsonl", "0001.overlay.jsonl"])
def test_lines_of_a_video_are_matched_to_objects_of_any_class(tmp_path: Path, davis: str, name: str) -> None:
    dataset = open_dataset(davis, default_split="train")
    file = tmp_path / name
    file.write_text(lines_of(dataset, "0001", others, labels=["background", "swan"]))
    subject = stored_subject(file, [davis])
    assert len(subject.considered) == 3
    assert subject.notes == (f"{file}: lines of 1 of 2 clips; the others are skipped",)
    definition, values = compute(subject)
    assert definition == "davis-unsupervised"
    assert values["j_and_f"] == 1.0
    _, values = compute(subject, "davis")  # the numbers are not those of the ground truth
    assert values["j_and_f"] < 0.5


def test_a_folder_of_lines_has_a_file_for_each_clip(tmp_path: Path, davis: str) -> None:
    dataset = open_dataset(davis, default_split="train")
    (tmp_path / "out").mkdir()
    for clip in ("0001", "0002"):
        (tmp_path / "out" / f"{clip}.jsonl").write_text(lines_of(dataset, clip, others))
    (tmp_path / "out" / "results.jsonl").write_text("")
    subject = stored_subject(tmp_path / "out", [davis])
    assert len(subject.indices) == len(dataset) == 5
    assert compute(subject)[1]["j_and_f"] == 1.0


def test_panoptic_lines_are_evaluated_by_vpq(tmp_path: Path) -> None:
    spec = f"kitti-step:{kitti_step_set.kitti_step(tmp_path / 'step')}@val"
    dataset = open_dataset(spec, default_split="val")

    def predicted(sample: Sample) -> Annotation:
        """Ids as the models give them: K + 1 + number of things, 1 + class of stuff."""
        panoptic = sample.truth.panoptic
        assert panoptic is not None
        ids, segment_ids = torch.zeros_like(panoptic.ids), panoptic.segment_ids.clone()
        for place, (id, label) in enumerate(zip(panoptic.segment_ids.tolist(), panoptic.labels.tolist(), strict=True)):
            thing = dataset.labels.is_thing[label]
            segment_ids[place] = len(dataset.labels) + 1 + id % 1000 if thing else 1 + label
            ids[panoptic.ids == id] = segment_ids[place]
        return Annotation(panoptic=replace(panoptic, ids=ids, segment_ids=segment_ids))

    file = tmp_path / "0003.labelled.jsonl"
    file.write_text(lines_of(dataset, "0003", predicted))
    definition, values = compute(stored_subject(file, [spec]))
    assert definition == "video-panoptic"
    assert values["vpq"] == values["stq"] == 1.0


def test_lines_of_every_image_are_paired_with_the_labelled_frames(tmp_path: Path, davis: str) -> None:
    root = tmp_path / "davis"
    dataset = open_dataset(davis, default_split="train")
    text = lines_of(dataset, "0001", others)
    (root / "Annotations/480p/0001/00001.png").unlink()
    file = tmp_path / "0001.jsonl"
    file.write_text(text)
    subject = stored_subject(file, [davis])
    assert len(subject.indices) == 2
    assert compute(subject)[1]["j_and_f"] == 1.0
    file.write_text("".join(text.splitlines(keepends=True)[:1]))
    with pytest.raises(DataError, match="1 frames; the clip has 2 labelled ones and 3 images"):
        stored_subject(file, [davis])


SEGMENT = {"id": 1, "label": 1, "area": 4, "box": [0, 0, 2, 2], "score": 0.5, "track_id": 3, "rle": None}
LINE = {"frame": 0, "size": [4, 6], "labels": ["background", "swan"], "segments": [SEGMENT]}


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ({**LINE, "frame": "0"}, "line 1: frame is '0'"),
        ({**LINE, "segments": [{**SEGMENT, "label": 2}]}, "line 1: a segment of class 2 among 2 labels"),
        ({**LINE, "segments": [{**SEGMENT, "track_id": None}]}, "no instance has a track id; predict with --track"),
        ({**LINE, "labels": ["background"], "segments": []}, "no class of 'predicted'"),
        ({}, "line 1: expected a field frame"),
    ],
)
def test_lines_that_cannot_be_evaluated_are_refused(tmp_path: Path, davis: str, line: Any, text: str) -> None:
    file = tmp_path / "0001.jsonl"
    file.write_text("".join(f"{json.dumps({**line, **({'frame': n} if n else {})})}\n" for n in range(3)))
    with pytest.raises(DataError, match=text) as raised:
        pair_lines([file], open_dataset(davis, default_split="train"))
    assert str(file) in str(raised.value)


def test_lines_of_images_are_none_of_a_clip(tmp_path: Path, davis: str) -> None:
    (tmp_path / "results.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match="lines of images; name the folder with the masks"):
        stored_subject(tmp_path / "results.jsonl", [davis])


def test_clips_that_are_not_there_are_refused(tmp_path: Path, davis: str) -> None:
    dataset = open_dataset(davis, default_split="train")
    file = tmp_path / "0009.jsonl"
    file.write_text("")
    with pytest.raises(DataError, match=r"expected the name of a clip, .* there are 0001, 0002"):
        pair_lines([file], dataset)
    file = file.rename(tmp_path / "0001.jsonl")
    with pytest.raises(DataError, match="no lines in it"):
        pair_lines([file], dataset)


def test_masks_of_objects_of_any_class_are_matched_too(tmp_path: Path, davis: str) -> None:
    dataset = open_dataset(davis, default_split="train")
    for index, id in enumerate(dataset.ids):
        with Image.open(dataset.truth_path(index)) as picture:
            swapped = picture.point([0, 2, 1] + [0] * 253)
            swapped.putpalette(picture.getpalette())
            path = tmp_path / "masks" / f"{id}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            swapped.save(path)
    subject = stored_subject(tmp_path / "masks", [davis])
    definition, values = compute(subject)
    assert (definition, values["j_and_f"]) == ("davis-unsupervised", 1.0)
    assert compute(subject, "davis")[1]["j_and_f"] < 0.5


def test_frames_of_kitti_step(tmp_path: Path) -> None:
    kitti_step_set.kitti_step(tmp_path / "data")
    shutil.copytree(tmp_path / "data" / "panoptic_maps" / "val", tmp_path / "found")
    subject = stored_subject(tmp_path / "found", [f"kitti-step:{tmp_path / 'data'}"])
    definition, found = compute(subject)
    assert (subject.task, definition, found["vpq"], found["stq"]) == ("panoptic", "video-panoptic", 1, 1)
    last = tmp_path / "found" / "0003" / "000002.png"
    channels = kitti_step_set.step_channels(2)
    channels[channels[..., 0] == 13, 2] += 1  # the car gets another number in the last frame
    clip_drawing.write_rgb(last, channels)
    _, worse = compute(subject)
    assert worse["vpq"] < 1
    channels[0, 0] = (77, 0, 0)
    clip_drawing.write_rgb(last, channels)
    with pytest.raises(DataError, match=r"000002\.png: value 77.*0003/000002"):
        compute(subject)


def test_maps_of_the_real_clip_of_kitti_step() -> None:
    folder = require("kitti_step")
    subject = stored_subject(folder / "panoptic_maps", [f"kitti-step:{folder}"])
    _, found = compute(subject)
    assert len(subject.indices) == 11
    assert found["stq"] == pytest.approx(1)


def test_frames_of_davis(tmp_path: Path) -> None:
    davis_set.davis(tmp_path / "data")
    shutil.copytree(tmp_path / "data" / "Annotations" / "480p", tmp_path / "found")
    subject = stored_subject(tmp_path / "found", [f"davis:{tmp_path / 'data'}"])
    definition, found = compute(subject)
    assert (subject.task, definition, found["j_and_f"]) == ("instance", "davis-unsupervised", 1)
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "found" / "0003" / "00001.png")
    with pytest.raises(DataError, match=r"00001\.png: the mask is 9×9"):
        compute(subject)


def test_results_of_cityscapes_vps(tmp_path: Path) -> None:
    data = cityscapes_vps_set.cityscapes_vps(tmp_path / "data")
    content = json.loads((data / "panoptic_gt_val_city_vps.json").read_text())
    (tmp_path / "found").mkdir()
    shutil.copytree(data / "val" / "panoptic_video", tmp_path / "found" / "pan_pred")
    (tmp_path / "found" / "pred.json").write_text(json.dumps({"annotations": content["annotations"]}))
    subject = stored_subject(tmp_path / "found", [f"cityscapes-vps:{data}"])
    definition, found = compute(subject)
    assert (len(subject.indices), definition, found["vpq"]) == (3, "video-panoptic", 1)


def test_classes_of_frames_are_evaluated_as_those_of_images(tmp_path: Path) -> None:
    kitti_step_set.kitti_step(tmp_path / "data")
    for frame in range(3):
        path = tmp_path / "found" / "0003" / f"{frame:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(kitti_step_set.step_channels(frame)[..., 0].astype(np.uint8)).save(path)
    subject = stored_subject(tmp_path / "found", [f"kitti-step:{tmp_path / 'data'}"])
    assert subject.task == "semantic"
    assert compute(subject)[1]["mean_iou"] == 1
