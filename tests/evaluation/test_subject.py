"""What is evaluated: results that were written under a map are read back with the same numbers, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pixelwise.data.label_maps import with_labels
from pixelwise.data.spec import open_dataset
from pixelwise.errors import DataError, RecipeError
from pixelwise.evaluation.evaluate import evaluate
from pixelwise.evaluation.subject import stored_subject
from pixelwise.labels import LabelSet
from pixelwise.metrics.average_precision import AveragePrecision
from pixelwise.predictions.coco_objects import CocoResults, coco_image_ids, entries_of_instances
from pixelwise.predictions.coco_segments import PanopticResults
from pixelwise.types import Annotation, Instances, Masks, Sample
from tests.coco_files import polygon, write_images, write_set
from tests.data.formats import coco_panoptic_set

MODEL = LabelSet.from_json(
    {**LabelSet.from_names("model", ["background", "animal", "plant"]).to_json(), "is_thing": [False, True, True]}
)
MAP = 'default = "ignore"\n[names]\n"kind 3" = "animal"\n"kind 7" = "animal"\n'


def predicted(sample: Sample) -> Annotation:
    """One of the animals, a plant that is not there, in the classes of the model."""
    objects = sample.truth.instances
    assert objects is not None
    assert objects.masks is not None
    plant = Masks.from_crops([torch.ones(9, 9)], [[0, 0, 9, 9]], objects.masks.size)
    masks = Masks.concatenate([objects.masks[[0]], plant])
    return Annotation(
        instances=Instances(
            masks.boxes.float() + 0.123, torch.tensor([1, 2]), masks=masks, scores=torch.tensor([0.77777777, 0.3])
        )
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    images = write_images(tmp_path / "set", [1, 2])
    boxes = {(1, 3): [5, 5, 40, 40], (1, 7): [60, 5, 40, 40], (2, 40): [5, 5, 30, 30], (2, 7): [50, 50, 40, 40]}
    annotations = [
        {"id": id, "image_id": image, "category_id": category, "bbox": box, "area": 1200, "iscrowd": 0}
        | {"segmentation": [polygon(*map(float, box))]}
        for id, ((image, category), box) in enumerate(boxes.items(), start=1)
    ]
    write_set(tmp_path / "set", images, annotations)
    (tmp_path / "map.toml").write_text(MAP)
    return tmp_path


def computed(path: Path, spec: str, label_map: str | None) -> dict[str, Any]:
    subject = stored_subject(path, [spec], label_map)
    metric = subject.new_metric(None)
    for _ in evaluate(subject.answers, subject.dataset, metric):
        pass
    return metric.compute()


def test_results_under_a_map_are_read_with_the_same_map_alone(root: Path) -> None:
    spec, label_map = f"coco:{root / 'set'}@val", str(root / "map.toml")
    mapped = with_labels(open_dataset(spec, default_split="val"), MODEL, label_map)
    metric = AveragePrecision(MODEL)
    ids = coco_image_ids(mapped.ids)
    file = root / "coco_results.json"
    with CocoResults(file, mapped=MODEL) as results:
        for index in range(len(mapped)):
            sample = mapped[index]
            answer = predicted(sample)
            assert answer.instances is not None
            metric.update(answer, sample.truth, id=sample.id)
            results.add(entries_of_instances(ids[sample.id], answer.instances, MODEL))
    assert 0 < metric.compute()["mask_ap"] < 1
    assert computed(file, spec, label_map) == metric.compute()
    with pytest.raises(DataError, match=r"written with a --map, in the classes of 'model' .*; give the same --map"):
        computed(file, spec, None)
    plain = root / "plain.json"
    entries = json.loads(file.read_text())
    plain.write_text(json.dumps([{**one, "label_set": None, "category_id": 3} for one in entries]))
    with pytest.raises(RecipeError, match="was not written with a map"):
        computed(plain, spec, label_map)


def test_segments_under_a_map_are_read_with_it_alone(tmp_path: Path) -> None:
    spec = f"coco-panoptic:{coco_panoptic_set.coco_panoptic(tmp_path / 'set')}@val"
    (tmp_path / "map.toml").write_text('[names]\nroad = "plant"\ncar = "animal"\n')
    mapped = with_labels(open_dataset(spec, default_split="val"), MODEL, str(tmp_path / "map.toml"))
    file = tmp_path / "panoptic_results.json"
    with PanopticResults(file, mapped.ids, MODEL, mapped=True) as results:
        for index in range(len(mapped)):
            panoptic = mapped[index].truth.panoptic
            assert panoptic is not None
            results.add(mapped.ids[index], panoptic)
    assert computed(file, spec, str(tmp_path / "map.toml"))["pq"] == 1.0
    with pytest.raises(DataError, match="give the same --map"):
        computed(file, spec, None)


def test_masks_take_no_map(root: Path) -> None:
    (root / "masks").mkdir()
    with pytest.raises(RecipeError, match="masks and lines are evaluated without one"):
        stored_subject(root / "masks", [f"coco:{root / 'set'}@val"], "names")
