from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pixelwise.errors import DataError
from pixelwise.inference.image_input import image_tensor
from tests.inference.simple_models import noise


def test_every_kind_gives_the_same_tensor(tmp_path: Path):
    image = noise(5, 7)
    array = image.permute(1, 2, 0).numpy()
    Image.fromarray(array).save(tmp_path / "a.png")
    for given in (
        str(tmp_path / "a.png"),
        tmp_path / "a.png",
        Image.fromarray(array),
        array,
        np.asfortranarray(array),
        array[::-1][::-1],
        image,
        image.float() / 255,
        image.double() / 255,
        image.half() / 255,
    ):
        found = image_tensor(given)
        assert found.dtype == torch.uint8
        assert found.is_contiguous()
        assert torch.equal(found, image), type(given)


def test_grey_arrays_and_pictures_become_three_channels():
    grey = noise(4, 6)[0].numpy()
    for given in (grey, Image.fromarray(grey)):
        assert torch.equal(image_tensor(given), torch.from_numpy(grey).expand(3, -1, -1))


def test_a_picture_is_turned_upright():
    picture = Image.fromarray(noise(4, 6).permute(1, 2, 0).numpy())
    picture.getexif()[0x0112] = 6
    assert torch.equal(image_tensor(picture), noise(4, 6).rot90(-1, (1, 2)))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.zeros((4, 4, 4), np.uint8), "uint8[4, 4, 4]"),
        (np.zeros((3, 4, 5), np.uint8), "uint8[3, 4, 5]"),
        (np.zeros((4, 4, 3), np.float32), "float32[4, 4, 3]"),
        (np.zeros((2, 4, 4, 3), np.uint8), "stack as a list"),
        (np.zeros((0, 4, 3), np.uint8), "[0, 4, 3]"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), "uint8[4, 4, 3]"),
        (torch.zeros(1, 3, 4, 4), "batch as a list"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "int64[3, 4, 4]"),
        (torch.zeros(3, 0, 4), "[3, 0, 4]"),
        (torch.full((3, 2, 2), 1.5), "1.5"),
        (torch.full((3, 2, 2), -0.1), "-0.1"),
        (torch.full((3, 2, 2), float("nan")), "nan"),
        (b"bytes", "bytes"),
        (None, "NoneType"),
        ("nothing.jpg", "nothing.jpg"),
    ],
)
def test_what_is_no_image_is_one_line(given, words: str):
    with pytest.raises(DataError) as error:
        image_tensor(given)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
