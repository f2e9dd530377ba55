"""Masks whose colours stand for classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.data.spec import DataSpec, open_dataset
from pixelwise.data.tools.check import check_dataset
from pixelwise.data.truth.colours import ids_of_colours, match_colours
from pixelwise.errors import DataError
from pixelwise.labels import LabelSet, published, voc_colour
from tests.data.formats import masks_set


def coloured(root: Path, pixels: np.ndarray) -> str:
    masks_set.masks(root, "a")
    Image.fromarray(pixels).save(root / "masks" / "a.png")
    return f"masks:{root}@train?palette=labels"


def picture(*colours: tuple[int, int, int]) -> np.ndarray:
    """4×6, one colour for each column."""
    return np.array(colours, dtype=np.uint8)[None].repeat(4, axis=0)


FLOOR, WALL = voc_colour(0), voc_colour(1)


def test_every_class_by_its_colour_and_every_void_by_that_of_void() -> None:
    labels = published("voc")
    pixels = np.array([*labels.palette, (224, 224, 192)], dtype=np.uint8)[None]
    assert ids_of_colours(pixels, labels, source="x").tolist() == [[*range(21), 255]]


def test_black_is_void_unless_a_class_is_black() -> None:
    black = np.zeros((1, 2, 3), dtype=np.uint8)
    assert ids_of_colours(black, published("camvid"), source="x").tolist() == [[255, 255]]
    assert ids_of_colours(black, published("voc"), source="x").tolist() == [[0, 0]]


def test_unknown_colours_are_named_and_counted() -> None:
    labels = LabelSet.from_names("two", ["floor", "wall"])
    pixels = picture(FLOOR, WALL, (1, 2, 3), (1, 2, 3), (9, 9, 9), WALL)
    ids, unknown = match_colours(pixels, labels)
    assert ids.tolist() == [[0, 1, 255, 255, 255, 1]] * 4
    assert unknown == {(1, 2, 3): 8, (9, 9, 9): 4}
    with pytest.raises(DataError) as caught:
        ids_of_colours(pixels, labels, source="b.png")
    assert str(caught.value) == (
        "b.png: colour (1, 2, 3) (8 pixels) is not in the palette of LabelSet 'two'; "
        "2 unknown colour(s) with 12 pixels in all"
    )


def test_a_set_of_colour_masks_opens(tmp_path: Path) -> None:
    dataset = open_dataset(coloured(tmp_path, picture(FLOOR, WALL, WALL, WALL, WALL, FLOOR)), default_split="train")
    semantic = dataset[0].truth.semantic
    assert semantic is not None
    assert semantic.tolist() == [[0, 1, 1, 1, 1, 0]] * 4


def test_palette_files_are_read_by_their_colours(tmp_path: Path) -> None:
    spec = coloured(tmp_path, picture(FLOOR))
    mask = Image.fromarray(np.full((4, 6), 7, dtype=np.uint8))
    mask.putpalette([0] * 21 + [*WALL])
    mask.save(tmp_path / "masks" / "a.png")
    semantic = open_dataset(spec, default_split="train")[0].truth.semantic
    assert semantic is not None
    assert semantic.unique().tolist() == [1]


def test_two_classes_of_one_colour_are_refused(tmp_path: Path) -> None:
    masks_set.masks(tmp_path, "a")
    with pytest.raises(DataError, match="road and skyscraper have the same colour"):
        open_dataset(f"masks:{tmp_path}@train?labels=ade20k&palette=labels", default_split="train")
    assert open_dataset(f"masks:{tmp_path}@train?labels=ade20k", default_split="train").labels == published("ade20k")


def test_a_jpeg_is_refused(tmp_path: Path) -> None:
    spec = coloured(tmp_path, picture(FLOOR, WALL, WALL, WALL, WALL, FLOOR))
    (tmp_path / "masks" / "a.png").rename(tmp_path / "masks" / "b.png")
    Image.new("RGB", (6, 4)).save(tmp_path / "masks" / "a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg: a JPEG mask"):
        open_dataset(spec, default_split="train")[0]


def test_another_palette_is_refused(tmp_path: Path) -> None:
    masks_set.masks(tmp_path, "a")
    with pytest.raises(DataError, match="palette=voc; expected labels"):
        open_dataset(f"masks:{tmp_path}@train?palette=voc", default_split="train")


def test_the_check_knows_colours(tmp_path: Path) -> None:
    spec = coloured(tmp_path, picture(FLOOR, WALL, WALL, WALL, WALL, FLOOR))
    assert check_dataset(DataSpec.parse(spec)).faults() == ()
    Image.fromarray(picture(FLOOR, (7, 7, 7), WALL, WALL, WALL, FLOOR)).save(tmp_path / "masks" / "a.png")
    (fault,) = check_dataset(DataSpec.parse(spec)).faults()
    assert (fault.kind, fault.where) == ("unknown colours", str(tmp_path / "masks" / "a.png"))
    assert "colour (7, 7, 7) (4 pixels)" in fault.text
    (fault,) = check_dataset(DataSpec.parse(f"masks:{tmp_path}@train")).faults()
    assert fault.kind == "colour mask"
    assert "pixelwise data convert 'masks:…?palette=labels'" in fault.text
