"""The confusion matrix as a picture: colours where they belong, names that can be read, for few classes and many."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from pixelwise.drawing.confusion_picture import ABSENT_COLOUR, RIGHT_COLOUR, WRONG_COLOUR, draw_confusion
from pixelwise.labels import Colour, LabelSet


def labels_of(count: int, name: str = "a class with quite a name, {}") -> LabelSet:
    return LabelSet.from_names("test", [name.format(index) for index in range(count)])


def places(picture: Image.Image, colour: Colour) -> np.ndarray:
    """Rows and columns of the pixels of exactly this colour."""
    return np.argwhere((np.asarray(picture) == colour).all(axis=2))


def draw(counts: list[list[int]]) -> Image.Image:
    return draw_confusion(torch.tensor(counts), labels_of(len(counts), "class {}"))


def test_right_is_on_the_diagonal_and_wrong_beside_it() -> None:
    picture = draw([[9, 0, 0, 0], [0, 0, 5, 0], [0, 0, 0, 0]])
    right, wrong, absent = (
        places(picture, colour)[places(picture, colour)[:, 0] > 60]  # beneath the scale
        for colour in (RIGHT_COLOUR, WRONG_COLOUR, ABSENT_COLOUR)
    )
    for found in (right, wrong, absent):
        assert len(found) > 500
    # first row and column; second row, third column; the whole third row
    assert right.mean(axis=0)[0] < wrong.mean(axis=0)[0] < absent.mean(axis=0)[0]
    assert right.mean(axis=0)[1] < absent.mean(axis=0)[1] < wrong.mean(axis=0)[1]
    assert len(absent) > 2.5 * len(right)


def test_void_has_a_column_only_where_it_was_predicted() -> None:
    without = draw([[9, 0, 0], [0, 9, 0]])
    with_void = draw([[9, 0, 1], [0, 9, 0]])
    assert np.asarray(with_void).shape == np.asarray(without).shape  # as wide as the title
    assert len(places(without, (255, 255, 255))) < len(places(with_void, (255, 255, 255)))


def test_rare_mistakes_are_visible() -> None:
    """A mistake of 1 in 100 has a tenth of the full colour, far from white."""
    picture = draw([[99, 1, 0], [0, 9, 0]])
    red, green, blue = (round(255 + (end - 255) * 0.1) for end in WRONG_COLOUR)
    assert len(places(picture, (red, green, blue))) > 500


@pytest.mark.parametrize("count", [1, 11, 21, 81, 150])
def test_it_grows_with_the_classes_but_stays_a_picture(count: int) -> None:
    counts = torch.zeros(count, count + 1, dtype=torch.int64)
    counts.fill_diagonal_(5)
    picture = draw_confusion(counts, labels_of(count))
    assert max(picture.size) < 2500
    # every class has its row of text: cells are no smaller than the letters
    cells = places(picture, RIGHT_COLOUR)
    cells = cells[cells[:, 0] > 60]
    assert len(cells) >= 0.5 * count * 12 * 12
