"""Pseudo labels by a model whose answers are known: colours are its classes, brightness its confidence."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from pixelwise.data.spec import open_dataset
from pixelwise.errors import DataError, RecipeError
from pixelwise.inference.predictor import Options
from pixelwise.inference.pseudo_labels import (
    Job,
    find_unlabelled,
    make_writer,
    pseudo_label,
    read_tags,
    read_thresholds,
    require_known,
    summary,
)
from pixelwise.labels import LabelSet
from pixelwise.types import Annotation

LABELS = LabelSet.from_names("pets", ["background", "cat", "dog"])


class Known:
    """Red says the class, green the confidence; a class that is not allowed becomes background."""

    labels = LABELS
    name = "known"

    def __init__(self, task: str = "semantic") -> None:
        self.card = type("Card", (), {"task": task})
        self.runs = 0

    def annotate(self, image: torch.Tensor, options: Options) -> Annotation:
        return self.annotate_within(image, range(3), options)

    def annotate_within(self, image: torch.Tensor, classes: Sequence[int], options: Options) -> Annotation:
        self.runs += 1
        found = image[0] // 100
        allowed = torch.tensor([number in classes for number in range(3)])
        return Annotation(semantic=torch.where(allowed[found.long()], found, 0), confidence=image[1] / 255)


def photograph(path: Path, *pixels: tuple[int, float]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array([[(100 * label, round(255 * sure), 0) for label, sure in pixels]], np.uint8)).save(path)


def job_of(target: str | Path, *, thresholds: Sequence[str] = ("0.5",), tags: Any = None, predictor: Any = None) -> Job:
    root, writer = make_writer(str(target), LABELS)
    predictor = cast("Any", predictor or Known())
    return Job(predictor, "abc", Options(), read_thresholds(thresholds, LABELS), tags or {}, root, writer)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    photograph(tmp_path / "photos" / "a.png", (0, 0.9), (1, 0.6), (2, 0.6), (1, 0.2))
    photograph(tmp_path / "photos" / "deep" / "b.png", (2, 1.0), (2, 0.0), (1, 0.7), (0, 0.4))
    return tmp_path / "photos"


@pytest.mark.parametrize("format", ["masks", "voc"])
def test_the_set_holds_what_the_model_is_sure_of(photos: Path, tmp_path: Path, format: str) -> None:
    out = tmp_path / "out"
    target = f"{format}:{out}" + ("?labels=" + str(tmp_path / "pets.txt") if format == "voc" else "")
    (tmp_path / "pets.txt").write_text("background\ncat\ndog\n")
    images, _ = find_unlabelled(str(photos), out=out)
    outcomes = list(pseudo_label(images, job_of(target, thresholds=["0.5", "dog=0.8"])))
    dataset = open_dataset(f"{format}:{out}", default_split="train")
    assert (dataset.ids, dataset.labels.names) == (("a", "deep_b"), LABELS.names)
    truths = [dataset[index].truth.semantic.tolist() for index in range(2)]
    assert truths == [[[0, 1, 255, 255]], [[2, 255, 1, 255]]]
    stored = np.asarray(Image.open(next((out / "confidence").rglob("a.png"))))
    assert stored.tolist() == [[round(255 * sure) for sure in (0.9, 0.6, 0.6, 0.2)]]
    counts = summary(outcomes, LABELS)
    assert counts["images_per_class"] == {"background": 1, "cat": 2, "dog": 1}
    assert (counts["images"], counts["void_share"], counts["failures"]) == (2, 0.5, [])


def test_tags_allow_their_classes_and_background(photos: Path, tmp_path: Path) -> None:
    (photos / "tags.json").write_text(json.dumps({"a": ["dog"], "b.png": []}))
    images, tags = find_unlabelled(str(photos), out=tmp_path / "out")
    list(pseudo_label(images, job_of(tmp_path / "out", tags=tags)))
    dataset = open_dataset(f"masks:{tmp_path / 'out'}", default_split="train")
    assert [dataset[index].truth.semantic.tolist() for index in range(2)] == [[[0, 0, 2, 255]], [[0, 255, 0, 255]]]


def test_tags_come_with_vocs_lists_and_its_masks_are_not_read(tmp_path: Path) -> None:
    voc = tmp_path / "voc"
    for folder in ("SegmentationClass", "ImageSets/Segmentation", "ImageSets/Main"):
        (voc / folder).mkdir(parents=True)
    photograph(voc / "JPEGImages" / "x.png", (1, 1.0), (2, 1.0))
    photograph(voc / "JPEGImages" / "y.png", (1, 1.0), (2, 1.0))
    (voc / "SegmentationClass" / "x.png").write_bytes(b"hidden")
    (voc / "ImageSets/Segmentation/train.txt").write_text("x\n")
    (voc / "ImageSets/Segmentation/val.txt").write_text("y\n")
    (voc / "ImageSets/Main/cat_train.txt").write_text("x  1\n")
    (voc / "ImageSets/Main/dog_train.txt").write_text("x -1\n")
    images, tags = find_unlabelled(f"voc:{voc}@train", out=tmp_path / "out")
    assert ([image.name for image in images], tags) == (["x"], {"x": frozenset({"cat"})})
    everything, _ = find_unlabelled(f"voc:{voc}", out=tmp_path / "out")
    assert [image.name for image in everything] == ["x", "y"]
    (voc / "ImageSets/Main/dog_train.txt").write_text("x yes\n")
    with pytest.raises(DataError, match=r"dog_train.txt, line 1: 'x yes'; expected the id of an image and 1, 0 or -1"):
        find_unlabelled(f"voc:{voc}@train", out=tmp_path / "out")


def test_a_job_goes_on_where_it_stopped_and_another_is_refused(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    images, _ = find_unlabelled(str(photos), out=out)
    first = job_of(out)
    next(iter(pseudo_label(images, first)))  # interrupted after the first image
    again = job_of(out)
    outcomes = list(pseudo_label(images, again))
    assert again.predictor.runs == 1
    assert summary(outcomes, LABELS)["done_before"] == 1
    assert len(open_dataset(f"masks:{out}", default_split="train")) == 2
    other = job_of(out, thresholds=["0.9"])
    with pytest.raises(DataError, match=r"made with another model, or other options or thresholds .*--overwrite"):
        list(pseudo_label(images, other))
    list(pseudo_label(images, other, overwrite=True))
    assert other.predictor.runs == 2
    with pytest.raises(DataError, match="is not empty, and pseudo-label did not make it"):
        list(pseudo_label(images, job_of(photos), overwrite=True))
    assert (photos / "a.png").is_file()


def test_a_damaged_photograph_is_skipped_and_named(photos: Path, tmp_path: Path) -> None:
    (photos / "c.jpg").write_bytes(b"no picture")
    images, _ = find_unlabelled(str(photos), out=tmp_path / "out")
    counts = summary(list(pseudo_label(images, job_of(tmp_path / "out"))), LABELS)
    assert counts["images"] == 2
    assert len(counts["failures"]) == 1
    assert "c.jpg" in counts["failures"][0]


def test_impossible_things_are_refused_in_one_line(photos: Path, tmp_path: Path) -> None:
    for text, message in (
        ("1.5", "expected a probability from 0 to 1"),
        ("cow=0.5", "no class 'cow'; the classes are background, cat, dog"),
        ("cat=much", "or CLASS=PROBABILITY"),
        ("nan", "expected a probability"),
    ):
        with pytest.raises(RecipeError, match=message):
            read_thresholds([text], LABELS)
    assert read_thresholds(["dog=0.9", "0.3"], LABELS) == (0.3, 0.3, 0.9)
    assert read_thresholds([], LABELS) == (0.8, 0.8, 0.8)
    for target, message in (
        ("coco:out", "coco has no class mask for each image; expected masks or voc"),
        ("voc:out", "target voc:out"),
        ("masks:out@val", "the split is train; leave @val out"),
    ):
        with pytest.raises(DataError, match=message):
            make_writer(target, LABELS)
    images, _ = find_unlabelled(str(photos), out=tmp_path / "out")
    with pytest.raises(RecipeError, match="known: a model for instance segmentation; pseudo-label expects a semantic"):
        list(pseudo_label(images, job_of(tmp_path / "out", predictor=Known("instance"))))
    assert not (tmp_path / "out").exists()
    for content, message in (
        ('["cat"]', "expected an object"),
        ('{"a": "cat"}', "entry 'a': expected a list of class names"),
    ):
        (tmp_path / "tags.json").write_text(content)
        with pytest.raises(DataError, match=message):
            read_tags(tmp_path / "tags.json")
    with pytest.raises(DataError, match="'a' has the tag 'cow'; the model's classes are background, cat, dog"):
        require_known({"a": frozenset({"cow"})}, LABELS, images, source="tags.json")
    with pytest.raises(DataError, match="tags of 'z' …, but of none of the 2 images"):
        require_known({"z": frozenset({"cat"})}, LABELS, images, source="tags.json")
    photograph(photos / "deep_b.png", (1, 1.0))
    with pytest.raises(DataError, match="would both be called deep_b"):
        find_unlabelled(str(photos), out=tmp_path / "out")
