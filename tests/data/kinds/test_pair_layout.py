"""A suffix of masks that is missing or wrong is named once."""

from pathlib import Path

import pytest
from PIL import Image

from pixelwise.data.kinds.pair_layout import list_items
from pixelwise.errors import DataError


def save(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(path)


@pytest.mark.parametrize(
    ("ending", "options", "expected"),
    [
        ("_mask", {}, "no image has a mask; 340 masks end with '_mask': add ?suffix=_mask"),
        ("_mask", {"suffix": "_msk"}, "340 masks end with '_mask': write ?suffix=_mask"),
        ("", {"suffix": "_mask"}, "340 masks have the names of the images: leave ?suffix= out"),
    ],
)
@pytest.mark.parametrize("folders", [("images", "masks"), ("images/train", "masks/train"), ("train", "trainannot")])
def test_a_suffix_that_fits_no_mask_is_one_line_with_the_right_one(
    tmp_path: Path, ending: str, options: dict[str, str], expected: str, folders: tuple[str, str]
) -> None:
    images, masks = (tmp_path / folder for folder in folders)
    for index in range(340):
        save(images / f"{index}.png", masks / f"{index}{ending}.png")
    with pytest.raises(DataError) as error:
        list_items(tmp_path, "train", options)
    assert str(error.value).startswith(f"{masks}: ")
    assert expected in str(error.value)
    right = {"suffix": ending} if ending else {}
    assert all(item.image and item.truth for item in list_items(tmp_path, "train", right))


def test_names_that_have_nothing_to_do_with_each_other_are_left_to_the_check(tmp_path: Path) -> None:
    save(*(tmp_path / "images" / f"{name}.png" for name in "ab"))
    save(*(tmp_path / "masks" / f"{name}.png" for name in ("x", "y", "a1", "z")))
    assert len(list_items(tmp_path, "train", {})) == 6
