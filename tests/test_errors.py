"""Words for messages: numbers with their nouns."""

from __future__ import annotations

import pytest

from pixelwise.data.tools.convert import LOSSES
from pixelwise.data.tools.repair import REPAIRS
from pixelwise.errors import count, in_words


def test_a_number_has_its_noun_in_the_singular_or_the_plural() -> None:
    assert [count(1, "image"), count(0, "image"), count(1204, "image")] == ["1 image", "0 images", "1,204 images"]
    assert [count(1, "class", "classes"), count(2, "class", "classes")] == ["1 class", "2 classes"]


@pytest.mark.parametrize(
    ("number", "line"),
    [(1, "1 box has its label"), (2, "2 boxes have their label"), (1500, "1,500 boxes have their label")],
)
def test_a_line_agrees_with_its_number(number: int, line: str) -> None:
    assert in_words("{} [box has its|boxes have their] label", number) == line


@pytest.mark.parametrize("text", [*REPAIRS.values(), *LOSSES.values()])
def test_every_line_of_a_repair_or_a_loss_has_a_singular(text: str) -> None:
    one, many = in_words(text, 1), in_words(text, 2)
    assert one != many.replace("2", "1", 1)
    assert not {"[", "|", "]", "{"} & {*one, *many}
