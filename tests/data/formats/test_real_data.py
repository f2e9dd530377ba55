"""The readers on slices of the published sets, where they lie beside the checkout."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pixelwise.data.dataset import FileDataset
from pixelwise.data.spec import DataSpec, open_dataset, splits_of
from pixelwise.data.tools.check import check_dataset
from pixelwise.data.tools.convert import convert_dataset
from pixelwise.data.tools.statistics import statistics_of
from pixelwise.files.images import image_size
from pixelwise.labels import published
from pixelwise.types import Sample
from tests.shared_data import require

SETS = [
    ("camvid", "camvid", {"train": 367, "val": 101}),
    ("voc", "VOCdevkit/VOC2012", {"train": 528, "val": 200}),
    ("coco", "coco", {"train": 421, "val": 88}),
    ("ade20k", "ade20k_sample", {"val": 3}),
    ("cityscapes", "cityscapes", {"val": 5}),
]


def semantic(sample: Sample) -> np.ndarray:
    assert sample.truth.semantic is not None
    return sample.truth.semantic.numpy()


@pytest.mark.parametrize(("format", "folder", "counts"), SETS)
def test_counts_and_ids(format: str, folder: str, counts: dict[str, int]) -> None:
    spec = f"{format}:{require(folder)}"
    assert splits_of(spec) == tuple(counts)
    for split, count in counts.items():
        dataset = open_dataset(f"{spec}@{split}", default_split="train")
        assert len(dataset) == len(set(dataset.ids)) == count
        assert dataset.labels == published(format)
        assert dataset.note is None
        for index in range(0, count, 7):
            sample = dataset[index]
            assert sample.original_size == dataset.size_of(index) == image_size(dataset.image_path(index))
            assert sample.image.shape[1:] == semantic(sample).shape
            assert set(np.unique(semantic(sample)).tolist()) <= {*range(len(dataset.labels)), 255}


@pytest.mark.parametrize(("format", "folder", "counts"), SETS)
def test_no_faults(format: str, folder: str, counts: dict[str, int]) -> None:
    report = check_dataset(DataSpec.parse(f"{format}:{require(folder)}@val"), workers=1)
    assert report.faults() == ()
    assert len(report.splits[0].ids) == counts["val"]


def test_voc_masks_keep_their_indices() -> None:
    root = require("VOCdevkit/VOC2012")
    dataset = open_dataset(f"voc:{root}@val", default_split="val")
    for index in range(0, len(dataset), 20):
        with Image.open(dataset.truth_path(index)) as stored:
            assert stored.mode == "P"
            assert np.array_equal(semantic(dataset[index]), np.asarray(stored))


def test_ade20k_is_published_with_one_more() -> None:
    root = require("ade20k_sample")
    with (root / "objectInfo150.csv").open() as file:
        rows = list(csv.DictReader(file))
    labels = published("ade20k")
    assert len(labels) == len(rows) == 150
    for index, row in enumerate(rows):
        words, synonyms = labels.names[index].split(), row["Name"].split(";")
        assert labels.dataset_ids[index] == int(row["Idx"])
        assert synonyms[: len(words)] == words
        assert labels.is_thing[index] == (row["Stuff"] == "0")
    dataset = open_dataset(f"ade20k:{root}@val", default_split="val")
    for index in range(len(dataset)):
        stored = np.asarray(Image.open(dataset.truth_path(index))).astype(int)
        assert np.array_equal(semantic(dataset[index]), np.where(stored == 0, 255, stored - 1))


@pytest.mark.parametrize(
    ("format", "folder", "through"),
    [("ade20k", "ade20k_sample", "coco"), ("cityscapes", "cityscapes", "masks")],
)
def test_there_and_back_again(tmp_path: Path, format: str, folder: str, through: str) -> None:
    first, second, third = f"{format}:{require(folder)}", f"{through}:{tmp_path}/b", f"{format}:{tmp_path}/c"
    for source, target in ((first, second), (second, third)):
        assert not convert_dataset(DataSpec.parse(source), DataSpec.parse(target)).failures
    before, *after = (open_dataset(spec, default_split="val") for spec in (first, second, third))
    for index in range(0, len(before), 2):
        for dataset in after:
            assert np.array_equal(semantic(dataset[index]), semantic(before[index]))
            assert dataset.image_path(index).read_bytes() == before.image_path(index).read_bytes()


def test_cityscapes_are_streets() -> None:
    dataset = open_dataset(f"cityscapes:{require('cityscapes')}@val", default_split="val")
    road, sky, vegetation = (dataset.labels.names.index(name) for name in ("road", "sky", "vegetation"))
    for index in range(len(dataset)):
        sample = dataset[index]
        ids, image = semantic(sample), sample.image.float().numpy()
        rows = np.arange(ids.shape[0])[:, None].repeat(ids.shape[1], axis=1)
        assert np.bincount(ids[ids != 255]).argmax() in (road, vegetation, 2)
        above = rows[ids == sky]
        assert above.size == 0 or above.mean() < rows[ids == road].mean()
        leaves = image[:, ids == vegetation].mean(axis=1)
        assert leaves[1] > leaves[0]  # green
        stored = np.asarray(Image.open(dataset.truth_path(index)))
        assert np.array_equal(ids == road, stored == 7)
        assert (ids == 255).sum() == np.isin(stored, [*range(7), 9, 10, 14, 15, 16, 18, 29, 30]).sum()


def test_camvid_sky_is_above_the_road_and_bright() -> None:
    dataset = open_dataset(f"camvid:{require('camvid')}@val", default_split="val")
    sky, road = (dataset.labels.names.index(name) for name in ("sky", "road"))
    for index in range(0, len(dataset), 10):
        sample = dataset[index]
        ids, brightness = semantic(sample), sample.image.float().mean(dim=0).numpy()
        rows = np.arange(ids.shape[0])[:, None].repeat(ids.shape[1], axis=1)
        assert rows[ids == sky].mean() < rows[ids == road].mean()
        assert brightness[ids == sky].mean() > brightness[ids == road].mean()


def test_camvid_is_mostly_road_and_building() -> None:
    dataset = open_dataset(f"camvid:{require('camvid')}@val", default_split="val")
    shares = sorted(statistics_of(dataset, workers=1).classes, key=lambda one: one.share)
    assert {one.name for one in shares[-2:]} == {"road", "building"}


def test_coco_objects_against_the_json() -> None:
    root = require("coco")
    dataset = open_dataset(f"coco:{root}@val", default_split="val")
    assert isinstance(dataset, FileDataset)
    content = json.loads((root / "annotations" / "instances_val2017.json").read_bytes())
    names = {category["id"]: category["name"] for category in content["categories"]}
    for index in range(0, len(dataset), 9):
        truth = dataset.truth(index)
        wanted = [one for one in content["annotations"] if str(one["image_id"]) == dataset.ids[index]]
        found = truth.instances
        assert found is not None
        assert found.masks is not None
        assert found.crowd is not None
        assert [dataset.labels.names[label] for label in found.labels] == [names[one["category_id"]] for one in wanted]
        assert found.crowd.tolist() == [bool(one["iscrowd"]) for one in wanted]
        for number, one in enumerate(wanted):
            x, y, width, height = one["bbox"]
            assert found.boxes[number].tolist() == pytest.approx([x, y, x + width, y + height], abs=1e-3)
            if one["iscrowd"]:  # whose stated area is not that of its runs
                assert np.array_equal(found.masks.dense_one(number).numpy(), _by_hand(one["segmentation"]))
            else:
                assert abs(int(found.masks.areas()[number]) - one["area"]) <= 0.1 * one["area"] + 40
        assert truth.semantic is not None
        _require_painted_by_size(truth.semantic.numpy(), found, dataset.labels.ignore_id)


def _by_hand(runs: dict[str, Any]) -> np.ndarray:
    """Uncompressed RLE, down the columns, as bool [H, W]."""
    height, width = runs["size"]
    bits = [bit for number, length in enumerate(runs["counts"]) for bit in [number % 2 == 1] * length]
    return np.array(bits).reshape(width, height).T


def _require_painted_by_size(painted: np.ndarray, instances, ignore_id: int) -> None:
    """Pixel by pixel: the class of the smallest object that covers it, else void under a crowd, else background."""
    masks, areas = instances.masks.dense().numpy(), instances.masks.areas().numpy()
    generator = np.random.default_rng(0)
    for _ in range(300):
        row, column = generator.integers(painted.shape[0]), generator.integers(painted.shape[1])
        covering = np.flatnonzero(masks[:, row, column])
        objects = [number for number in covering if not instances.crowd[number]]
        if objects:
            smallest = min(areas[number] for number in objects)
            classes = {int(instances.labels[number]) for number in objects if areas[number] == smallest}
        else:
            classes = {ignore_id if covering.size else 0}
        assert int(painted[row, column]) in classes
