"""Weights of images: those of rare classes come more often."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from pixelwise.errors import DataError
from pixelwise.labels import LabelSet
from pixelwise.training.class_weights import repeat_factors
from pixelwise.types import Annotation, Instances

LABELS = LabelSet.from_names("yard", ["ground", "cat", "bottle", "never"])


class Images:
    """Class ids of each image's pixels, and of its instances."""

    labels = LABELS

    def __init__(self, *images: tuple[list[int], list[int]]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        pixels, instances = self.images[index]
        if not pixels:
            raise DataError(f"image {index} is damaged")
        boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(len(instances), 1)
        found = Instances(boxes=boxes, labels=torch.tensor(instances)) if instances else None
        return SimpleNamespace(truth=Annotation(semantic=torch.tensor([pixels], dtype=torch.uint8), instances=found))


def factors(*images: tuple[list[int], list[int]]) -> list[float]:
    return list(repeat_factors(cast("Any", Images(*images))))


def test_an_image_counts_as_much_as_its_rarest_class() -> None:
    """Frequencies 1, 1/2 and 1/8: the median is 1/2, so that the bottle's image counts as the root of 4."""
    images = [([0, 1, 255], []), ([0, 1, 2], []), ([0, 1], []), ([0, 1], []), *[([0, 255], [])] * 4]
    assert factors(*images) == pytest.approx([1, 2, 1, 1, 1, 1, 1, 1])


def test_instances_count_as_pixels_do() -> None:
    assert factors(([0, 1], []), ([0, 1], [2]), *[([0, 1], [])] * 2) == pytest.approx([1, 2, 1, 1])


def test_images_without_any_class_count_alike() -> None:
    assert factors(([255], []), ([255], [])) == [1, 1]


def test_a_damaged_image_is_named() -> None:
    with pytest.raises(DataError, match="image 1 is damaged"):
        factors(([0], []), ([], []))
