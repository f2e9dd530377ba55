"""Augmentation: picture and ground truth stay together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms.functional import gaussian_blur

from pixelwise.contracts import Augmentation
from pixelwise.data.loading.collate import collate
from pixelwise.data.loading.crop import MEAN_RGB, Geometry, TrainingCrop, cropped_instances, draw_geometry
from pixelwise.ops.resize_rule import ResizeRule
from pixelwise.ops.superpixels import regions_of_masks
from pixelwise.types import Annotation, Masks, Sample
from tests.drawn_scenes import DrawnScenes, draw_objects, objects_of


def marked_sample(height: int, width: int, y: int, x: int, side: int) -> Sample:
    """A black picture with one white square, whose ground truth is class 1."""
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
    crop = TrainingCrop(
        Augmentation(scale_min=0.7, scale_max=2.0), crop_size=96, resize=ResizeRule(length=100), ignore_id=255
    )
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


@pytest.mark.parametrize("seed", range(40))
def test_a_turned_marked_square_lands_in_the_same_place_in_both(seed: int) -> None:
    place = np.random.default_rng(seed)
    height, width = (int(side) for side in place.integers(60, 160, size=2))
    side = 15
    y, x = int(place.integers(0, height - side)), int(place.integers(0, width - side))
    scale, degrees = float(place.uniform(0.7, 2)), float(place.uniform(-60, 60))
    geometry = draw_geometry(
        place,
        (height, width),
        augmentation=Augmentation(scale_min=scale, scale_max=scale),
        crop_size=96,
        resize=ResizeRule(length=100),
    )
    sample = marked_sample(height, width, y, x, side)
    turned = replace(geometry, degrees=degrees)
    image = turned.place(turned.cut(sample.image))
    truth = turned.apply_ids(sample.truth.semantic, 255)
    outside = truth == 255
    assert (image[:, outside] == torch.tensor(MEAN_RGB)[:, None]).all()
    brightness = image[0].float()
    brightness[outside] = 0
    picture, marked = brightness > 127.5, truth == 1
    assert not (picture & ~grown(marked)).any()
    assert not (marked & ~grown(picture)).any()
    # each pixel of the ground truth comes from where a second formula says: rotate the vector from the centre
    angle = np.radians(degrees)
    x1, y1, x2, y2 = geometry.source_box
    for v, u in place.integers(0, geometry.filled_hw, size=(30, 2)):
        upright_x = x1 + (u + 0.5) / geometry.filled_hw[1] * (x2 - x1) - width / 2
        upright_y = y1 + (v + 0.5) / geometry.filled_hw[0] * (y2 - y1) - height / 2
        turned_vector = complex(upright_x, upright_y) * np.exp(1j * angle)
        source_x, source_y = turned_vector.real + width / 2, turned_vector.imag + height / 2
        inside = 0 <= source_x < width and 0 <= source_y < height
        expected = int(sample.truth.semantic[int(source_y), int(source_x)]) if inside else 255
        column = 95 - u if geometry.flip else u
        assert int(truth[v, column]) == expected


def test_a_quarter_turn_is_numpys_and_half_of_the_images_are_turned() -> None:
    semantic = torch.arange(16, dtype=torch.uint8).view(4, 4)
    quarter = Geometry((0.0, 0.0, 4.0, 4.0), (4, 4), (4, 4), flip=False, degrees=90)
    assert np.array_equal(quarter.apply_ids(semantic, 255).numpy(), np.rot90(semantic.numpy()))
    image = (semantic * 10).expand(3, 4, 4)
    assert np.array_equal(quarter.place(quarter.cut(image))[0].numpy(), np.rot90(image[0].numpy()))
    generator = np.random.default_rng(0)
    drawn = [
        draw_geometry(
            generator, (50, 80), augmentation=Augmentation(rotate=10), crop_size=64, resize=ResizeRule(length=80)
        ).degrees
        for _ in range(400)
    ]
    assert 150 < sum(degrees != 0 for degrees in drawn) < 250
    assert -10 < min(drawn) < -8
    assert 8 < max(drawn) < 10


def test_the_blur_is_the_gaussian_of_five_pixels_and_leaves_the_ground_truth() -> None:
    image = torch.randint(0, 256, (3, 31, 44), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    sample = Sample(image, Annotation(semantic=image[0] % 4), "noise", (31, 44))
    plain = Augmentation(scale_min=1, scale_max=1, flip=0)
    result = TrainingCrop(replace(plain, blur=1), 44, ResizeRule(length=44), 255)(sample, np.random.default_rng(0))
    expected = gaussian_blur(image, [5, 5])  # its own sigma for five pixels is OpenCV's, 1.1
    assert (result.image[:, :31].int() - expected.int()).abs().max() <= 1
    assert torch.equal(result.truth.semantic[:31], sample.truth.semantic)
    assert (result.image[:, 31:] == torch.tensor(MEAN_RGB)[:, None, None]).all()


def test_rotation_and_blur_that_are_off_draw_nothing() -> None:
    """So that recipes without them give the crops that they gave before there were any."""
    first, second = np.random.default_rng(4), np.random.default_rng(4)
    geometry = draw_geometry(
        first, (80, 60), augmentation=Augmentation(flip=0.5), crop_size=32, resize=ResizeRule(length=80)
    )
    scale = second.uniform(0.5, 2.0)
    height, width = round(scale * 80), round(60 * round(scale * 80) / 80)
    top, left = int(second.integers(0, height - 32 + 1)), int(second.integers(0, width - 32 + 1))
    assert geometry.source_box[:2] == pytest.approx((left * 60 / width, top * 80 / height))
    assert geometry.flip == (second.random() < 0.5)


def test_a_crop_may_be_wider_than_high() -> None:
    """Of a picture of 40×90 at its own scale: its rows from 0 on, all of them, and 60 of its columns."""
    image = torch.randint(0, 256, (3, 40, 90), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    plain = Augmentation(scale_min=1, scale_max=1, flip=0)
    lefts = set[int]()
    for seed in range(5):
        generator = np.random.default_rng(seed)
        result = TrainingCrop(plain, (48, 60), ResizeRule(length=90), 255)(
            Sample(image, Annotation(semantic=image[0]), "", (40, 90)), generator
        )
        assert result.image.shape == (3, 48, 60)
        left = next(at for at in range(31) if torch.equal(result.image[:, :40], image[:, :, at : at + 60]))
        lefts.add(left)
        assert torch.equal(result.truth.semantic[:40], image[0][:, left : left + 60])
        assert (result.image[:, 40:] == torch.tensor(MEAN_RGB)[:, None, None]).all()
        assert (result.truth.semantic[40:] == 255).all()
    assert len(lefts) > 1


def grown(mask: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.max_pool2d(mask[None].float(), 3, stride=1, padding=1)[0] > 0


def test_a_crop_at_scale_one_is_the_picture_itself_and_padding_is_mean_and_void() -> None:
    generator = np.random.default_rng(0)
    image = torch.randint(0, 256, (3, 4, 6), dtype=torch.uint8)
    semantic = torch.arange(24, dtype=torch.uint8).view(4, 6)
    crop = TrainingCrop(
        Augmentation(scale_min=1, scale_max=1, flip=0), crop_size=8, resize=ResizeRule(length=6), ignore_id=255
    )
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
            np.random.default_rng(3), size, augmentation=augmentation, crop_size=320, resize=ResizeRule(length=400)
        )
        assert geometry.filled_hw == (100, 200)
        assert geometry.source_box == (0, 0, size[1], size[0])


def test_colours_change_and_the_ground_truth_does_not() -> None:
    sample = marked_sample(64, 64, 10, 10, 20)
    noisy = Sample(torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8), sample.truth, "", (64, 64))
    plain = Augmentation(scale_min=1, scale_max=1, flip=0)
    for change in ("brightness", "contrast", "saturation", "hue"):
        colourful = Augmentation(**{**plain.__dict__, change: 0.4})
        before, after = (
            TrainingCrop(augmentation, 64, ResizeRule(length=64), 255)(noisy, np.random.default_rng(5))
            for augmentation in (plain, colourful)
        )
        assert not torch.equal(before.image, after.image)
        assert torch.equal(before.truth.semantic, after.truth.semantic)


def test_everything_random_comes_from_the_generator() -> None:
    sample = marked_sample(80, 60, 30, 20, 15)
    crop = TrainingCrop(
        Augmentation(brightness=0.3, hue=0.1), crop_size=64, resize=ResizeRule(length=80), ignore_id=255
    )
    first, second, third = (crop(sample, np.random.default_rng(seed)) for seed in (7, 7, 8))
    assert torch.equal(first.image, second.image)
    assert not torch.equal(first.image, third.image)


@pytest.mark.parametrize("degrees", [0.0, 20.0])
@pytest.mark.parametrize("seed", range(8))
def test_masks_are_cropped_as_the_ids_they_were_made_of(seed: int, degrees: float) -> None:
    scene = DrawnScenes(1, first_seed=seed, size_hw=(70, 90))[0]
    _, truth, numbers = draw_objects(seed, (70, 90))
    augmentation = Augmentation(scale_min=0.5, scale_max=2.0, rotate=degrees)
    geometry = draw_geometry(
        np.random.default_rng(seed), (70, 90), augmentation=augmentation, crop_size=64, resize=ResizeRule(length=90)
    )
    assert scene.truth.instances is not None
    found = cropped_instances(scene.truth.instances, geometry)
    expected = objects_of(
        geometry.apply_ids(torch.from_numpy(truth.copy()), 0).numpy(),
        geometry.apply_ids(torch.from_numpy(numbers.copy()), 0).numpy(),
    )
    assert found.masks is not None
    assert expected.masks is not None
    assert torch.equal(found.labels, expected.labels)
    assert torch.equal(found.boxes, expected.boxes)
    assert torch.equal(found.masks.dense(), expected.masks.dense())
    assert found.masks.size == (64, 64)


@pytest.mark.parametrize("degrees", [0.0, 20.0])
@pytest.mark.parametrize("seed", range(4))
def test_proposals_are_cropped_as_the_objects_that_they_are(seed: int, degrees: float) -> None:
    scene = DrawnScenes(1, first_seed=seed, size_hw=(70, 90))[0]
    assert scene.truth.instances is not None
    assert scene.truth.instances.masks is not None
    whole = torch.ones(1, 70, 90, dtype=torch.bool)
    regions = regions_of_masks(torch.cat([scene.truth.instances.masks.dense().bool(), whole]), (70, 90))
    crop = TrainingCrop(
        Augmentation(scale_min=0.5, scale_max=2.0, rotate=degrees),
        crop_size=64,
        resize=ResizeRule(length=90),
        ignore_id=255,
    )
    found = crop(replace(scene, proposals=regions), np.random.default_rng(seed))
    assert found.proposals is not None
    assert found.truth.instances is not None
    assert found.truth.instances.masks is not None
    assert found.truth.semantic is not None
    masks = torch.stack([found.proposals.mask(index) for index in range(len(found.proposals.members))])
    # objects of which nothing is visible are no proposals either, and padding belongs to none
    assert torch.equal(masks[:-1], found.truth.instances.masks.dense().bool())
    assert torch.equal(masks[-1], found.truth.semantic != 255)


def test_a_mask_of_one_column_has_a_mirror_image() -> None:
    mask = torch.zeros(3, 4, dtype=torch.bool)
    mask[1:, 0] = True
    geometry = Geometry((0.0, 0.0, 4.0, 3.0), (3, 4), (3, 4), flip=True)
    mirrored = geometry.apply_masks(Masks.from_arrays([mask.numpy()], (3, 4)))
    assert mirrored.boxes.tolist() == [[3, 1, 4, 3]]
    assert mirrored.crops.tolist() == [1, 1]


def drawn_sizes(
    count: int, size_hw: tuple[int, int], augmentation: Augmentation, *, resize: ResizeRule
) -> set[tuple[int, int]]:
    """The sizes of whole images under this augmentation."""
    generator = np.random.default_rng(0)
    return {
        draw_geometry(generator, size_hw, augmentation=augmentation, crop_size=0, resize=resize).crop_hw
        for _ in range(count)
    }


def test_short_sides_are_drawn_from_the_list_and_the_long_one_has_a_limit() -> None:
    """detectron2's `ResizeShortestEdge` with `sample_style=choice`."""
    once = Augmentation(scale_min=1, scale_max=1, short_sides=(640, 672, 800))
    assert drawn_sizes(60, (480, 640), once, resize=ResizeRule("short", 800, 1333)) == {
        (640, 853),
        (672, 896),
        (800, 1067),
    }
    assert drawn_sizes(60, (640, 480), once, resize=ResizeRule("short", 800, 1333)) == {
        (853, 640),
        (896, 672),
        (1067, 800),
    }
    assert drawn_sizes(60, (400, 1000), once, resize=ResizeRule("short", 800, 1333)) == {(533, 1333)}


def test_factors_are_drawn_around_the_image_or_the_input_size_in_steps_or_not() -> None:
    steps = Augmentation(scale_min=0.5, scale_max=1, scale_step=0.25, scale_around="image")
    assert drawn_sizes(60, (40, 80), steps, resize=ResizeRule(length=160)) == {(20, 40), (30, 60), (40, 80)}
    common = replace(steps, scale_around="input")
    assert drawn_sizes(60, (40, 80), common, resize=ResizeRule(length=160)) == {(40, 80), (60, 120), (80, 160)}
    every = drawn_sizes(400, (40, 80), replace(steps, scale_step=0), resize=ResizeRule(length=160))
    assert {min(size) for size in every} == set(range(20, 41))
    third = replace(steps, scale_min=1, scale_max=2, scale_step=0.4)  # 1, 1.4, 1.8
    assert {size[1] for size in drawn_sizes(60, (50, 100), third, resize=ResizeRule(length=160))} == {100, 140, 180}


def test_whole_images_of_a_batch_are_padded_with_what_is_not_evaluated() -> None:
    scenes = DrawnScenes(2, first_seed=0, size_hw=(40, 60))
    crop = TrainingCrop(
        Augmentation(scale_min=1, scale_max=1, flip=0), crop_size=0, resize=ResizeRule(length=60), ignore_id=7
    )
    small, large = (crop(scenes[number], np.random.default_rng(0)) for number in range(2))
    small = replace(small, image=small.image[:, :30, :50], truth=shrunk(small.truth, (30, 50)))
    batch = collate([small, large], ignore_id=7)
    assert batch.images.shape == (2, 3, 40, 60)
    assert batch.valid_sizes.tolist() == [[30, 50], [40, 60]]
    for annotation, (height, width) in zip(batch.truth, batch.valid_sizes.tolist(), strict=True):
        assert annotation.semantic.shape == (40, 60)
        assert annotation.instances.masks.dense().shape[1:] == (40, 60)
        assert (annotation.semantic[height:] == 7).all()
        assert (annotation.semantic[:, width:] == 7).all()
        assert not annotation.instances.masks.dense()[:, height:].any()
    assert torch.equal(batch.truth[0].semantic[:30, :50], small.truth.semantic)


def shrunk(truth: Annotation, size: tuple[int, int]) -> Annotation:
    height, width = size
    masks = Masks.from_dense(truth.instances.masks.dense()[:, :height, :width])
    instances = replace(truth.instances, masks=masks, boxes=masks.boxes.float())
    return replace(truth, semantic=truth.semantic[:height, :width], instances=instances)


def test_each_colour_change_comes_with_its_probability() -> None:
    sample = marked_sample(32, 32, 8, 8, 9)
    sample = replace(sample, image=sample.image.clamp(40, 200))
    numbers = {"scale_min": 1.0, "scale_max": 1.0, "flip": 0.0, "brightness": 0.5}
    changed = {}
    for probability in (0.0, 0.5, 1.0):
        crop = TrainingCrop(Augmentation(**numbers, colour_probability=probability), 32, ResizeRule(length=32), 255)
        results = [crop(sample, np.random.default_rng(seed)).image for seed in range(100)]
        changed[probability] = sum(not torch.equal(image, sample.image) for image in results)
    assert changed[0.0] == 0
    assert 30 < changed[0.5] < 70
    assert changed[1.0] > 90
