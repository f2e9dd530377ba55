"""Augmentation: picture and truth stay together."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixelwise.contracts import Augmentation
from pixelwise.data.transforms import MEAN_RGB, Geometry, TrainingCrop, draw_geometry
from pixelwise.types import Annotation, Sample


def marked_sample(height: int, width: int, y: int, x: int, side: int) -> Sample:
    """A black picture with one white square, whose truth is class 1."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    semantic = torch.zeros(height, width, dtype=torch.uint8)
    image[:, y : y + side, x : x + side] = 255
    semantic[y : y + side, x : x + side] = 1
    return Sample(image, Annotation(semantic=semantic), "marked", (height, width))


@pytest.mark.parametrize("seed", range(40))
def test_a_marked_square_lands_in_the_same_place_in_both(seed: int) -> None:
    place = np.random.default_rng(seed)
    height, width = (int(side) for side in place.integers(40, 160, size=2))
    side = 9
    y, x = int(place.integers(0, height - side)), int(place.integers(0, width - side))
    crop = TrainingCrop(Augmentation(scale_min=0.7, scale_max=2.0), crop_size=96, input_size=100, ignore_id=255)
    sample = crop(marked_sample(height, width, y, x, side), np.random.default_rng((seed, 1)))
    assert sample.image.shape == (3, 96, 96)
    assert sample.truth.semantic is not None
    truth = sample.truth.semantic
    outside = truth == 255
    brightness = sample.image[0].float()
    assert (sample.image[:, outside] == torch.tensor(MEAN_RGB)[:, None]).all()
    brightness[outside] = 0
    picture = brightness > 127.5
    marked = truth == 1
    # the two readings of an edge may differ by the pixel that the edge cuts, no more
    assert not (picture & ~grown(marked)).any()
    assert not (marked & ~grown(picture)).any()
    if marked.sum() > 30:
        centres = [mask.nonzero().float().mean(dim=0) for mask in (picture, marked)]
        assert (centres[0] - centres[1]).abs().max() < 0.5


def grown(mask: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.max_pool2d(mask[None].float(), 3, stride=1, padding=1)[0] > 0


def test_a_crop_at_scale_one_is_the_picture_itself_and_padding_is_mean_and_void() -> None:
    generator = np.random.default_rng(0)
    image = torch.randint(0, 256, (3, 4, 6), dtype=torch.uint8)
    semantic = torch.arange(24, dtype=torch.uint8).view(4, 6)
    crop = TrainingCrop(Augmentation(scale_min=1, scale_max=1, flip=0), crop_size=8, input_size=6, ignore_id=255)
    result = crop(Sample(image, Annotation(semantic=semantic), "", (4, 6)), generator)
    assert torch.equal(result.image[:, :4, :6], image)
    assert torch.equal(result.truth.semantic[:4, :6], semantic)
    assert (result.truth.semantic[4:] == 255).all()
    assert (result.truth.semantic[:, 6:] == 255).all()
    assert (result.image[:, 4:].flatten(1).float().mean(dim=1) == torch.tensor(MEAN_RGB).float()).all()


def test_doubling_repeats_each_id_and_the_mirror_turns_both() -> None:
    semantic = torch.tensor([[0, 1], [2, 3]], dtype=torch.uint8)
    geometry = Geometry(source_box=(0.0, 0.0, 2.0, 2.0), filled_hw=(4, 4), crop_hw=(4, 4), flip=True)
    assert geometry.apply_ids(semantic, 255).tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [3, 3, 2, 2], [3, 3, 2, 2]]
    image = semantic.expand(3, 2, 2) * 80
    placed = geometry.place(geometry.cut(image))
    assert placed[0, 0, 0] == 80
    assert placed[0, 0, -1] == 0
    assert placed[0, -1, 0] == 240


def test_scale_is_relative_to_the_input_size() -> None:
    """A 50 × 100 and a 500 × 1000 picture give the same crop geometry in the network's pixels."""
    augmentation = Augmentation(scale_min=0.5, scale_max=0.5, flip=0)
    for size in ((50, 100), (500, 1000)):
        geometry = draw_geometry(
            np.random.default_rng(3), size, augmentation=augmentation, crop_size=320, input_size=400
        )
        assert geometry.filled_hw == (100, 200)
        assert geometry.source_box == (0, 0, size[1], size[0])


def test_colours_change_and_the_truth_does_not() -> None:
    sample = marked_sample(64, 64, 10, 10, 20)
    noisy = Sample(torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8), sample.truth, "", (64, 64))
    plain = Augmentation(scale_min=1, scale_max=1, flip=0)
    for change in ("brightness", "contrast", "saturation", "hue"):
        colourful = Augmentation(**{**plain.__dict__, change: 0.4})
        before, after = (
            TrainingCrop(augmentation, 64, 64, 255)(noisy, np.random.default_rng(5))
            for augmentation in (plain, colourful)
        )
        assert not torch.equal(before.image, after.image)
        assert torch.equal(before.truth.semantic, after.truth.semantic)


def test_everything_random_comes_from_the_generator() -> None:
    sample = marked_sample(80, 60, 30, 20, 15)
    crop = TrainingCrop(Augmentation(brightness=0.3, hue=0.1), crop_size=64, input_size=80, ignore_id=255)
    first, second, third = (crop(sample, np.random.default_rng(seed)) for seed in (7, 7, 8))
    assert torch.equal(first.image, second.image)
    assert not torch.equal(first.image, third.image)
