"""SSD's expansion and crop: picture, classes, masks and boxes stay together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pixelwise.contracts import Augmentation
from pixelwise.data.loading.crop import TrainingCrop
from pixelwise.data.loading.window import MEAN_RGB, drawn_window, in_window
from pixelwise.ops.resize_rule import ResizeRule
from pixelwise.ops.superpixels import regions_of_masks
from pixelwise.types import Annotation, Instances, Masks, Sample

HEIGHT, WIDTH = 60, 80


def sample_of_places(*, crowd: bool = False) -> Sample:
    """A picture whose pixels say where they are, blue being 255, with three rectangles for objects."""
    rows, columns = np.indices((HEIGHT, WIDTH))
    image = torch.from_numpy(np.stack([rows, columns, np.full_like(rows, 255)]).astype(np.uint8))
    masks = np.zeros((3, HEIGHT, WIDTH), dtype=bool)
    masks[0, 5:25, 10:30], masks[1, 30:55, 40:75], masks[2, 2:8, 60:78] = True, True, True
    packed = Masks.from_dense(torch.from_numpy(masks))
    instances = Instances(
        boxes=packed.boxes.float(),
        labels=torch.tensor([1, 2, 3]),
        masks=packed,
        crowd=torch.tensor([False, crowd, crowd]),
    )
    semantic = torch.from_numpy((masks * np.array([1, 2, 3])[:, None, None]).sum(axis=0).astype(np.uint8))
    flow = torch.from_numpy(np.stack([columns, rows]).astype(np.float32))
    return Sample(
        image, Annotation(semantic=semantic, instances=instances, flow=flow), "places", (HEIGHT, WIDTH),
        proposals=regions_of_masks(torch.from_numpy(masks), (HEIGHT, WIDTH)),
    )  # fmt: skip


def require_together(result: Sample, whole: Sample) -> None:
    """Each pixel of the result says its place in the whole image; what lies there must be the same."""
    inside = result.image[2] == 255
    rows, columns = (result.image[channel].long()[inside] for channel in (0, 1))
    assert (result.image[:, ~inside] == torch.tensor(MEAN_RGB)[:, None]).all()
    truth, known = result.truth, whole.truth
    assert (truth.semantic[inside] == known.semantic[rows, columns]).all()
    assert (truth.semantic[~inside] == 255).all()
    assert (truth.flow[:, inside] == known.flow[:, rows, columns]).all()
    assert truth.flow[:, ~inside].isnan().all()
    masks = truth.instances.masks.dense()
    assert masks.shape[1:] == result.image.shape[1:]
    for mask, label, box in zip(masks, truth.instances.labels.tolist(), truth.instances.boxes.tolist(), strict=True):
        assert (mask[inside] == known.instances.masks.dense()[label - 1][rows, columns]).all()
        assert not mask[~inside].any()
        ys, xs = mask.nonzero(as_tuple=True)
        if len(ys):
            assert box == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    members = result.proposals.members.int()
    regions = members[:, result.proposals.superpixels.long()]
    there = whole.proposals.superpixels[rows, columns].long()
    assert (regions[:, inside] == whole.proposals.members.int()[:, there]).all()
    assert not regions[:, ~inside].any()


@pytest.mark.parametrize("seed", range(20))
def test_expanded_and_cropped_images_keep_their_ground_truth(seed: int) -> None:
    whole, generator = sample_of_places(), np.random.default_rng(seed)
    augmentation = Augmentation(expand=float(seed % 2), sample_crop=float(seed % 3 > 0))
    require_together(drawn_window(whole, generator, augmentation, ignore_id=255), whole)


def test_a_canvas_has_up_to_four_times_the_sides_and_holds_the_whole_image() -> None:
    whole, generator = sample_of_places(), np.random.default_rng(0)
    results = [drawn_window(whole, generator, Augmentation(expand=1), ignore_id=255) for _ in range(60)]
    ratios = [result.image.shape[1] / HEIGHT for result in results]
    assert 1 <= min(ratios) < 1.3
    assert 3.5 < max(ratios) <= 4
    assert all((result.image[2] == 255).sum() == HEIGHT * WIDTH for result in results)


def test_a_crop_shows_the_centre_of_an_object_and_keeps_those_alone() -> None:
    whole, generator = sample_of_places(), np.random.default_rng(0)
    centres = {1: (15, 20), 2: (42.5, 57.5), 3: (5, 69)}
    kept = set()
    for _ in range(200):
        result = drawn_window(whole, generator, Augmentation(sample_crop=1), ignore_id=255)
        rows, columns = result.image[0], result.image[1]
        height, width = rows.shape
        assert 0.48 < height / width < 2.1, "1:2 to 2:1 before its sides are whole pixels"
        assert height >= 0.3 * HEIGHT - 1
        assert width >= 0.3 * WIDTH - 1
        shown = {
            label
            for label, (y, x) in centres.items()
            if rows.min() < y < rows.max() + 1 and columns.min() < x < columns.max() + 1
        }
        assert set(result.truth.instances.labels.tolist()) == shown
        assert shown
        kept |= {len(shown)}
    assert kept == {1, 2, 3}


def test_a_crop_shows_an_object_that_is_no_crowd() -> None:
    whole, generator = sample_of_places(crowd=True), np.random.default_rng(0)
    for _ in range(100):
        result = drawn_window(whole, generator, Augmentation(sample_crop=1), ignore_id=255)
        assert 1 in result.truth.instances.labels


def test_where_nothing_can_be_shown_the_image_stays() -> None:
    whole = sample_of_places()
    empty = replace(whole, truth=replace(whole.truth, instances=whole.truth.instances[[]]))
    result = drawn_window(empty, np.random.default_rng(0), Augmentation(sample_crop=1), ignore_id=255)
    assert torch.equal(result.image, whole.image)


def test_a_window_beside_the_image_is_empty() -> None:
    result = in_window(sample_of_places(), (100, 0, 120, 10), ignore_id=9)
    assert (result.truth.semantic == 9).all()
    assert not result.truth.instances.masks.dense().any()


def test_a_training_crop_of_an_expanded_image_is_scaled_as_a_whole() -> None:
    whole = sample_of_places()
    crop = TrainingCrop(Augmentation(scale_min=1, scale_max=1, expand=1, flip=0), 80, ResizeRule(length=80), 255)
    result = crop(whole, np.random.default_rng(3))
    assert result.image.shape == (3, 80, 80)
    assert (result.truth.semantic == 255).any()
    shares = [
        float((sample.truth.semantic == 2).sum() / (sample.truth.semantic != 255).sum()) for sample in (whole, result)
    ]
    assert shares[1] == pytest.approx(shares[0], rel=0.15)
