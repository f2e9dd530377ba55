"""The weights that ship: what they recognise, how they are written down, and that scale does not matter to them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image
from safetensors import safe_open

import pixelwise
from pixelwise.inference.model_folder import read_model
from pixelwise.inference.predictor import Predictor
from tests.shared_data import require
from tests.shipped_scores import INSTANCE_FOLDER, SEMANTIC_FOLDER, card_of, instance_scores, semantic_scores

PHOTOS = Path(skimage.__path__[0]) / "data"


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return pixelwise.load("default", device="cpu")


@pytest.fixture(scope="module")
def finder() -> Predictor:
    return pixelwise.load("default", task="instance", device="cpu")


@pytest.mark.parametrize(
    ("photo", "name", "least_share"),
    [("chelsea.png", "cat", 0.3), ("astronaut.png", "person", 0.2), ("motorcycle_left.png", "motorbike", 0.1)],
)
def test_the_photographs_of_the_demo_are_recognised(
    predictor: Predictor, photo: str, name: str, least_share: float
) -> None:
    scene = predictor(PHOTOS / photo)
    shares = np.bincount(scene.semantic.numpy().ravel(), minlength=21) / scene.semantic.numel()
    wanted = predictor.labels.names.index(name)
    assert shares[wanted] > least_share
    assert shares[wanted] == shares[1:].max(), "the class of the photograph is the largest object in it"


@pytest.mark.parametrize(
    ("photo", "name", "least_share"),
    [("chelsea.png", "cat", 0.3), ("astronaut.png", "person", 0.1), ("motorcycle_left.png", "motorbike", 0.1)],
)
def test_the_objects_of_the_demo_are_found(finder: Predictor, photo: str, name: str, least_share: float) -> None:
    scene = finder(PHOTOS / photo)
    best = scene.instances[[0]]
    assert best.scores is not None
    assert best.masks is not None
    assert float(best.scores) > 0.7
    assert finder.labels.names[int(best.labels)] == name
    assert int(best.masks.areas()) / scene.image[0].numel() > least_share


@pytest.mark.parametrize("photo", ["chelsea.png", "motorcycle_left.png", "coffee.png"])
def test_what_is_not_of_the_classes_is_no_aeroplane(finder: Predictor, photo: str) -> None:
    """As earlier weights took cups and engines for."""
    instances = finder(PHOTOS / photo, score_threshold=0.5).instances
    assert finder.labels.names.index("aeroplane") not in instances.labels.tolist()


def test_the_panoptic_default_merges_the_two_others() -> None:
    predictor = pixelwise.load("default", task="panoptic", device="cpu")
    scene = predictor(PHOTOS / "chelsea.png")
    names = [predictor.labels.names[label] for label in scene.panoptic.labels.tolist()]
    assert "cat" in names
    assert "merged" in predictor.note


@pytest.mark.parametrize(("folder", "most_bytes"), [(SEMANTIC_FOLDER, 12_000_000), (INSTANCE_FOLDER, 20_000_000)])
def test_the_file_is_small_and_in_half_precision(folder: Path, most_bytes: int) -> None:
    path = folder / "model.safetensors"
    assert path.stat().st_size <= most_bytes
    with safe_open(path, "pt") as file:
        kinds = {
            file.get_slice(key).get_dtype() for key in list(file.keys()) if not key.endswith("num_batches_tracked")
        }
    assert kinds == {"F16"}


@pytest.mark.parametrize(
    ("folder", "task", "number"), [(SEMANTIC_FOLDER, "semantic", "mean_iou"), (INSTANCE_FOLDER, "instance", "mask_ap")]
)
def test_the_card_says_where_the_weights_come_from(folder: Path, task: str, number: str) -> None:
    card = card_of(folder)
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert card["task"] == task
    assert card["labels"]["names"][15] == "person"
    assert f"{card['scores'][number]:.4f}" in text
    for word in (card["training"]["command"], card["training"]["revision"], card["licence"], "VOC", "COCO"):
        assert word in text


@pytest.mark.parametrize("folder", [SEMANTIC_FOLDER, INSTANCE_FOLDER])
def test_the_card_names_the_weights_by_their_hash(folder: Path) -> None:
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert card_of(folder)["weights_sha256"] == digest
    assert f"| SHA-256 | `{digest}` |" in (folder / "README.md").read_text(encoding="utf-8")
    read_model(folder)  # which verifies the hash of the card's fields too


def agreement(predictor: Predictor, picture: Image.Image, factor: int) -> float:
    """The share of pixels of the enlarged picture that get the class of the small one's pixel beneath them."""
    large = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.BICUBIC)
    small_ids, large_ids = predictor(picture).semantic, predictor(large).semantic
    assert large_ids.shape == (picture.height * factor, picture.width * factor)
    enlarged = small_ids.repeat_interleave(factor, 0).repeat_interleave(factor, 1)
    return float((enlarged == large_ids).float().mean())


@pytest.mark.slow
def test_an_eightfold_enlargement_gets_the_same_classes(predictor: Predictor) -> None:
    picture = Image.open(PHOTOS / "astronaut.png").convert("RGB").resize((500, 375))
    assert agreement(predictor, picture, 8) >= 0.95


@pytest.mark.slow
def test_enlarged_voc_images_get_the_same_classes(predictor: Predictor) -> None:
    """On average: a picture about which the network is in two minds may tip over."""
    folder = require("VOCdevkit") / "VOC2012"
    names = (folder / "ImageSets" / "Segmentation" / "val.txt").read_text().split()[:36:12]
    found = [agreement(predictor, Image.open(folder / "JPEGImages" / f"{name}.jpg"), 8) for name in names]
    assert sum(found) / len(found) >= 0.96, found


@pytest.mark.slow
def test_a_part_of_the_images_scores_as_when_the_weights_were_stored() -> None:
    """The cards tell the scores of all images, which tests/learning/ measures; these are new with new weights."""
    assert semantic_scores(every=5)["mean_iou"] == pytest.approx(0.4432, abs=1e-3)
    scores = instance_scores(every=4)
    for name, expected in (("mask_ap", 0.1832), ("mask_ap50", 0.3130), ("box_ap", 0.1800)):
        assert scores[name] == pytest.approx(expected, abs=3e-3)


def test_three_lines_of_python(tmp_path: Path) -> None:
    """As in the README."""
    predictor = pixelwise.load("default")
    scene = predictor(PHOTOS / "chelsea.png")
    scene.draw().save(tmp_path / "overlay.png")
    assert scene.semantic.dtype == torch.uint8
    assert scene.semantic.shape == scene.image.shape[1:]
    assert Image.open(tmp_path / "overlay.png").width >= scene.image.shape[2]
