"""COCO's results of objects: the numbers of pycocotools for odd files, and one line for those that are not sound."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixelwise.data.spec import open_dataset
from pixelwise.errors import DataError
from pixelwise.evaluation.evaluate import evaluate
from pixelwise.evaluation.subject import stored_subject
from pixelwise.predictions.coco_objects import pair_objects, read_entries
from tests.coco_files import (
    CATEGORIES,
    HEIGHT,
    NUMBERS,
    WIDTH,
    official,
    polygon,
    random_box,
    runs_of,
    write_images,
    write_set,
)


def ours(root: Path, results: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    subject = stored_subject(results, [f"coco:{root}@val"])
    metric = subject.new_metric(None)
    for _ in evaluate(subject.answers, subject.dataset, metric):
        pass
    return metric.compute(), subject.notes


def require_equal(values: dict[str, Any], expected: dict[str, float | None], name: str) -> None:
    for heading in NUMBERS:
        assert values[f"{name}_{heading}"] == pytest.approx(expected[heading], abs=1e-12), f"{name}_{heading}"


class Odd:
    """A random set and results; what is odd about them depends on the seed."""

    def __init__(self, root: Path, seed: int, *, boxes_alone: bool = False, zero_boxes: bool = False) -> None:
        self.root, self.generator = root, np.random.default_rng(seed)
        self.boxes_alone, self.zero_boxes = boxes_alone, zero_boxes
        self.images = write_images(root, self.generator.choice(10**6, 6, replace=False).tolist())
        self.boxes_in_results, self.masks_in_results = seed % 3 != 1, not boxes_alone
        annotations = [self.annotation(number) for number in range(1, 60)]
        self.truth = write_set(root, self.images, annotations)
        entries = [self.found(one) for one in annotations for _ in range(int(self.generator.choice([0, 1, 1, 2])))]
        crowded = {"image_id": self.images[0]["id"], "category_id": 7, "bbox": [1, 1, 30, 30]}
        entries += [self.found(crowded) for _ in range(120)]  # more than are counted of an image
        self.generator.shuffle(entries)
        self.results = root / "results.json"
        self.results.write_text(json.dumps(entries))

    def annotation(self, number: int) -> dict[str, Any]:
        choice, box = self.generator.choice, random_box(self.generator)
        drawn: Any = [polygon(*box)] if choice([True, True, False]) else runs_of(*box)
        crowd = int(choice([0, 0, 0, 0, 1]))
        area = choice([0, 0.0, 17, 900.0, 1024, 1024.5, 9216, 9216.0, 5e4])
        stated = [0, 0, 0, 0] if self.zero_boxes and choice([True, False]) else box
        entry = {
            "id": number,
            "image_id": choice([one["id"] for one in self.images[:-1]]).item(),
            "category_id": choice([3, 7]).item(),
            "bbox": stated,
            "segmentation": runs_of(*box) if crowd else drawn,
            "area": area.item(),
            "iscrowd": crowd,
            "ignore": 1,
        }
        if self.boxes_alone and choice([True, False]):
            if choice([True, False]):
                del entry["segmentation"]
            else:
                entry["segmentation"] = []
        self.box_of = {**getattr(self, "box_of", {}), number: box}
        return entry

    def found(self, annotation: dict[str, Any]) -> dict[str, Any]:
        choice = self.generator.choice
        x, y, w, h = self.box_of.get(annotation.get("id", 0), annotation["bbox"])
        dx, dy = self.generator.uniform(-0.15, 0.15, 2)
        box = [round(max(0.0, x + dx * w), 2), round(max(0.0, y + dy * h), 2), w, h]
        as_number = choice([int, float])
        entry: dict[str, Any] = {
            "image_id": as_number(annotation["image_id"]),
            "category_id": as_number(annotation["category_id"]),
            "score": choice([1, 0, -2.5, 0.5, 3.0, round(float(self.generator.random()), 1)]).item(),
            "area": 12345,
            "id": 7,
        }
        if self.boxes_in_results:
            entry["bbox"] = box
        if self.masks_in_results:
            entry["segmentation"] = runs_of(*box)
        return entry


@pytest.mark.parametrize("seed", range(9))
def test_odd_files_get_pycocotools_numbers(tmp_path: Path, seed: int) -> None:
    odd = Odd(tmp_path, seed)
    values, _ = ours(tmp_path, odd.results)
    require_equal(values, official(odd.truth, odd.results, "segm"), "mask")
    require_equal(values, official(odd.truth, odd.results, "bbox"), "box")


@pytest.mark.parametrize("seed", range(3))
def test_annotations_without_segmentation_count_in_box_ap(tmp_path: Path, seed: int) -> None:
    odd = Odd(tmp_path, 3 * seed, boxes_alone=True)
    values, notes = ours(tmp_path, odd.results)
    require_equal(values, official(odd.truth, odd.results, "bbox"), "box")
    assert all(values[f"mask_{heading}"] is None for heading in NUMBERS)
    assert any("mask AP is not counted" in note for note in notes)


@pytest.mark.parametrize("seed", range(2))
def test_zero_boxes_with_sound_polygons_count_in_mask_ap(tmp_path: Path, seed: int) -> None:
    odd = Odd(tmp_path, seed, zero_boxes=True)
    values, notes = ours(tmp_path, odd.results)
    require_equal(values, official(odd.truth, odd.results, "segm"), "mask")
    assert any("given the box of their segmentation" in note for note in notes)


def test_masks_ignore_what_has_a_box_alone(tmp_path: Path) -> None:
    images = write_images(tmp_path, [5])
    common = {"image_id": 5, "category_id": 3, "area": 400, "iscrowd": 0}
    drawn = {**common, "id": 1, "bbox": [10, 10, 20, 20], "segmentation": [polygon(10, 10, 20, 20)]}
    boxed = {**common, "id": 2, "bbox": [60, 10, 20, 20]}
    write_set(tmp_path, images, [drawn, boxed])
    results = tmp_path / "results.json"
    found = [
        {"image_id": 5, "category_id": 3, "score": score, "segmentation": runs_of(*box), "bbox": box}
        for score, box in ((0.9, [60, 10, 20, 20]), (0.8, [10, 10, 20, 20]))
    ]
    results.write_text(json.dumps(found))
    values, _ = ours(tmp_path, results)
    assert values["mask_ap"] == values["box_ap"] == pytest.approx(1.0)
    results.write_text(json.dumps(found[1:]))
    values, _ = ours(tmp_path, results)
    assert values["mask_ap"] == pytest.approx(1.0)
    assert values["box_ap"] == pytest.approx(51 / 101)  # one of two objects was found


def test_an_annotation_with_the_id_0_is_found_and_said(tmp_path: Path) -> None:
    """pycocotools takes the id of what a detection found for whether it found anything."""
    box = [10, 10, 20, 20]
    annotation = {"id": 0, "image_id": 5, "category_id": 3, "area": 400, "iscrowd": 0, "bbox": box}
    truth = write_set(tmp_path, write_images(tmp_path, [5]), [{**annotation, "segmentation": [polygon(*box)]}])
    results = tmp_path / "results.json"
    results.write_text(json.dumps([{"image_id": 5, "category_id": 3, "score": 0.9, "segmentation": runs_of(*box)}]))
    values, notes = ours(tmp_path, results)
    assert values["mask_ap"] == pytest.approx(1.0)
    assert official(truth, results, "segm")["ap"] == 0.0
    assert any("annotation id 0" in note for note in notes)


ENTRY = {"image_id": 5, "category_id": 3, "score": 0.5, "bbox": [1, 2, 3, 4]}
DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"annotations": []}, "expected COCO results, a list of entries with image_id"),
        ([5], "entry 1: it is 5: input should be"),
        ([ENTRY, None], "entry 2: it is None: input should be"),
        ([{**ENTRY, "score": "0.5"}], "entry 1: score is '0.5': input should be a valid number"),
        ([{**ENTRY, "score": float("nan")}], "entry 1: score is nan: input should be a finite number"),
        ([{**ENTRY, "score": True}], "entry 1: score is True: input should be a valid number"),
        ([{**ENTRY, "category_id": [3]}], r"entry 1: category_id is \[3\]: input should be a valid integer"),
        ([{**ENTRY, "category_id": 3.5}], "entry 1: category_id is 3.5: input should be a valid integer"),
        ([{**ENTRY, "image_id": {}}], "entry 1: image_id"),
        ([{**ENTRY, "bbox": [1, 2, 3]}], "entry 1: bbox"),
        ([{**ENTRY, "bbox": {"x": 1}}], "entry 1: bbox"),
        ([{**ENTRY, "bbox": [1, 2, 3, "4"]}], "entry 1: bbox.3 is '4'"),
        ([{**ENTRY, "segmentation": 5}], "entry 1: segmentation"),
        ([{**ENTRY, "segmentation": ["abcdef"]}], "entry 1: segmentation"),
        ([{name: value for name, value in ENTRY.items() if name != "score"}], "entry 1: expected a field score"),
        ([{**ENTRY, "label_set": 5}], "entry 1: label_set: expected an object"),
        ([{**ENTRY, "label_set": {"names": 5}}], "entry 1: label_set"),
    ],
)
def test_unsound_results_are_refused_with_file_entry_and_field(tmp_path: Path, content: Any, text: str) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=text) as raised:
        read_entries(file)
    assert str(raised.value).startswith(f"{file}: ")
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("content", [DEEP.encode(), b"[\xff]", b"", b"nothing"])
def test_what_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "results.json"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"results\.json: not JSON"):
        read_entries(file)


@pytest.mark.parametrize(
    ("segmentation", "text"),
    [
        ({"size": [HEIGHT, WIDTH]}, "entry 0: expected an RLE with size"),
        ({"size": "ab", "counts": "x"}, "entry 0: expected an RLE with size"),
        ({"size": [HEIGHT, WIDTH], "counts": ["1"]}, "entry 0: the runs do not make a mask"),
        ({"size": [HEIGHT, WIDTH], "counts": [10**30]}, "entry 0: the runs do not make a mask"),
        ({"size": [HEIGHT, WIDTH], "counts": 5}, "entry 0: the runs do not make a mask"),
        ({"size": [9, 9], "counts": "l2"}, f"entry 0: the RLE is 9×9, the image {HEIGHT}×{WIDTH}"),
        ([[1.0, 2.0]], "entry 0: a polygon of 2 numbers"),
    ],
)
def test_a_mask_that_cannot_be_read_fails_its_image(tmp_path: Path, segmentation: Any, text: str) -> None:
    write_set(tmp_path, write_images(tmp_path, [5]), [{**ENTRY, "id": 1, "area": 9, "iscrowd": 0, "segmentation": []}])
    truth = json.loads((tmp_path / "annotations/instances_val.json").read_text())
    truth["annotations"].append({**truth["annotations"][0], "id": 2, "segmentation": [polygon(1, 1, 9, 9)]})
    (tmp_path / "annotations/instances_val.json").write_text(json.dumps(truth))
    file = tmp_path / "results.json"
    file.write_text(json.dumps([{**ENTRY, "segmentation": segmentation}]))
    dataset = open_dataset(f"coco:{tmp_path}@val", default_split="val")
    stored = pair_objects(read_entries(file), dataset)
    with pytest.raises(DataError, match=text):
        stored(dataset[0])


def test_entries_of_unknown_images_and_categories_are_named(tmp_path: Path) -> None:
    box = [1, 1, 9, 9]
    annotation = {"id": 1, "image_id": 5, "category_id": 3, "bbox": box, "area": 9, "iscrowd": 0}
    write_set(tmp_path, write_images(tmp_path, [5]), [{**annotation, "segmentation": [polygon(*box)]}])
    dataset = open_dataset(f"coco:{tmp_path}@val", default_split="val")
    file = tmp_path / "results.json"
    known = ", ".join(str(one["id"]) for one in CATEGORIES[:1])
    for change, text in (
        ({"image_id": 6}, "entry 2: image 6 is not in"),
        ({"category_id": 4}, f"entry 2: category 4 is not in .*{known}"),
        ({"bbox": None}, "entry 2: neither bbox nor segmentation"),
    ):
        file.write_text(json.dumps([ENTRY, {**ENTRY, **change}]))
        with pytest.raises(DataError, match=text):
            pair_objects(read_entries(file), dataset)
