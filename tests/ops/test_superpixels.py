from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pixelwise.ops.superpixels import (
    Regions,
    as_stored,
    mean_in_superpixels,
    propose_at,
    propose_regions,
    region_overlaps,
    regions_of_masks,
    superpixels_of,
    suppress_shared,
)
from tests.drawn_scenes import draw_scene


def four_quarters() -> Tensor:
    ids = torch.zeros(4, 6, dtype=torch.int32)
    ids[:2, 3:], ids[2:, :3], ids[2:, 3:] = 1, 2, 3
    return ids


REGIONS = Regions(four_quarters(), torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]]).bool())


def test_boxes_masks_and_overlaps_by_hand() -> None:
    assert REGIONS.areas().tolist() == [6, 6, 6, 6]
    assert REGIONS.boxes().tolist() == [[0, 0, 3, 2], [0, 0, 6, 2], [3, 0, 6, 4], [0, 0, 0, 0]]
    assert REGIONS.mask(2).int().tolist() == [[0, 0, 0, 1, 1, 1]] * 4
    overlaps = region_overlaps(REGIONS.members, REGIONS.members, REGIONS.areas())
    assert overlaps[0].tolist() == pytest.approx([1, 1 / 2, 0, 0])
    assert overlaps[1].tolist() == pytest.approx([1 / 2, 1, 1 / 3, 0])


def test_overlaps_are_those_of_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 7, (9, 11), generator=generator, dtype=torch.int32)
    regions = Regions(ids, torch.rand(5, 7, generator=generator) < 0.5)
    found = region_overlaps(regions.members, regions.members[:3], regions.areas())
    for one in range(5):
        for other in range(3):
            a, b = regions.mask(one), regions.mask(other)
            assert float(found[one, other]) == pytest.approx(float((a & b).sum() / (a | b).sum()))


def test_any_shared_superpixel_suppresses() -> None:
    scores = torch.tensor([0.5, 0.9, 0.8, 0.7])
    # the second shares one superpixel with the first and one with the third; the fourth has none to share
    assert suppress_shared(REGIONS.members, scores).tolist() == [1, 3]
    assert suppress_shared(REGIONS.members, torch.tensor([0.5, 0.4, 0.8, 0.1])).tolist() == [2, 0, 3]


def test_means_over_superpixels() -> None:
    values = torch.arange(24.0).view(4, 6)
    means = mean_in_superpixels(values, four_quarters(), 5)
    assert means.tolist() == [4, 7, 16, 19, 0]


def test_masks_cut_the_superpixels() -> None:
    inner = torch.zeros(4, 6, dtype=torch.bool)
    inner[1:3, 1:5] = True
    cut = regions_of_masks([inner, ~inner], (4, 6), within=REGIONS)
    assert cut.members.shape == (6, 8)
    for index in range(4):
        assert torch.equal(cut.mask(index), REGIONS.mask(index))
    assert torch.equal(cut.mask(4), inner)
    assert torch.equal(cut.mask(5), ~inner)
    alone = regions_of_masks([inner], (4, 6))
    assert torch.equal(alone.mask(0), inner)
    assert alone.members.shape == (1, 2)
    assert regions_of_masks([], (4, 6)).members.shape == (0, 1)


def test_regions_follow_the_size_of_the_image() -> None:
    doubled = REGIONS.resized((8, 12))
    assert doubled.boxes().tolist() == (2 * REGIONS.boxes()).tolist()
    assert torch.equal(doubled.superpixels[::2, ::2], REGIONS.superpixels)


def test_the_generator_finds_flat_objects() -> None:
    image = torch.full((3, 40, 60), 40, dtype=torch.uint8)
    image[0, 5:20, 8:28] = 220
    image[1, 22:38, 30:55] = 220
    truth = [torch.zeros(40, 60, dtype=torch.bool) for _ in range(3)]
    truth[0][5:20, 8:28] = True
    truth[1][22:38, 30:55] = True
    truth[2][:] = truth[0] | truth[1]
    regions = propose_regions(image, superpixels=superpixels_of(image, sigma=0.2, smallest=10))
    assert regions.superpixels.unique().tolist() == list(range(regions.members.shape[1]))
    masks = torch.stack([regions.mask(index) for index in range(len(regions.members))])
    for one in truth[:2]:
        best = ((masks & one).sum(dim=(1, 2)) / (masks | one).sum(dim=(1, 2))).max()
        assert best > 0.9
    assert len(regions.members.unique(dim=0)) == len(regions.members)


def test_proposals_cover_drawings() -> None:
    best: list[float] = []
    for seed in range(3):
        picture, ids = draw_scene(seed)
        image = torch.from_numpy(picture.transpose(2, 0, 1).copy())
        regions = propose_regions(image, superpixels=superpixels_of(image, smallest=20))
        semantic = torch.from_numpy(np.array(ids))
        for label in set(semantic.unique().tolist()) - {0}:
            one = semantic == label
            masks = torch.stack([regions.mask(index) for index in range(len(regions.members))])
            best.append(float(((masks & one).sum(dim=(1, 2)) / (masks | one).sum(dim=(1, 2))).max()))
        again = propose_regions(image, superpixels=superpixels_of(image, smallest=20))
        assert torch.equal(regions.members, again.members)
        few = propose_regions(image, superpixels=regions.superpixels, count=5)
        assert torch.equal(few.members, regions.members[:5])
    assert sum(best) / len(best) > 0.75


def test_images_of_one_colour_or_one_pixel_have_a_region() -> None:
    for size in ((1, 1), (1, 7), (12, 9)):
        regions = propose_regions(torch.full((3, *size), 7, dtype=torch.uint8))
        assert regions.members.tolist() == [[True]]
        assert regions.boxes().tolist() == [[0, 0, size[1], size[0]]]


def test_proposals_are_found_in_a_small_image() -> None:
    picture = torch.from_numpy(draw_scene(3, (96, 160))[0].transpose(2, 0, 1).copy())
    regions = propose_at(picture, side=80, count=30)
    assert regions.superpixels.shape == (48, 80)
    assert len(regions.members) == 30
    # images that are small already keep their size
    assert propose_at(picture, side=500, count=5).superpixels.shape == (96, 160)


def test_an_image_is_as_it_was_stored() -> None:
    stored = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).expand(3, -1, -1)
    padded = torch.ones(3, 20, 24)
    padded[:, :16, :16] = stored.float() / 255
    assert torch.equal(as_stored(padded, [16, 16]), stored)
