"""What the JSON formats share."""

from pathlib import Path
from typing import Any

import pytest

from pixelwise.data.kinds.coco_json import named_categories
from pixelwise.errors import DataError


@pytest.mark.parametrize("category", [["part"], "part", None, 3])
def test_a_category_that_is_no_object_is_named(category: Any) -> None:
    with pytest.raises(DataError, match=r"set\.json: a category is .*; expected an object"):
        named_categories([{"id": 1, "name": "part"}, category], source=Path("set.json"))


@pytest.mark.parametrize(
    ("category", "text"),
    [({"id": -(2**40), "name": "part"}, "ids are below"), ({"id": 2, "name": "a\udc00"}, "is no Unicode text")],
)
def test_a_category_that_no_label_set_can_hold_is_named_with_its_file(category: dict[str, Any], text: str) -> None:
    with pytest.raises(DataError, match=rf"^set\.json: .*{text}"):
        named_categories([{"id": 1, "name": "b"}, category], source=Path("set.json"))
