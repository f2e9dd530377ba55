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
