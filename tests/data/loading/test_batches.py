"""Order and augmentation are functions of the seed and the place alone."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from pixelwise.contracts import Augmentation
from pixelwise.data.loading.batches import AugmentedSamples, StepSampler, dropout_seed, training_batches
from pixelwise.data.loading.copy_paste import with_parts_of
from pixelwise.data.loading.crop import TrainingCrop
from pixelwise.labels import LabelSet
from pixelwise.ops.resize_rule import ResizeRule
from pixelwise.types import Annotation, Sample


def places(**options) -> list[list[tuple[int, int]]]:
    return list(StepSampler(10, seed=3, **options))


def test_every_epoch_is_another_permutation() -> None:
    flat = [place for step in places(batch_size=4, steps=(0, 5)) for place in step]
    epochs = [[index for epoch, index in flat if epoch == number] for number in (0, 1)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10))
    assert epochs[0] != epochs[1]


def test_any_step_can_be_reached_directly() -> None:
    assert places(batch_size=4, steps=(3, 9)) == places(batch_size=4, steps=(0, 9))[3:]


def test_processes_share_the_larger_batch() -> None:
    whole = places(batch_size=6, steps=(0, 4))
    parts = [places(batch_size=3, steps=(0, 4), process=(rank, 2)) for rank in (0, 1)]
    assert [first + second for first, second in zip(*parts, strict=True)] == whole


def test_weighted_images_are_drawn_as_often_as_their_share_says() -> None:
    weights = [1, 1, 1, 1, 1, 1, 1, 1, 1, 6]
    options = {"batch_size": 10, "weights": weights}
    epochs = places(steps=(0, 30), **options)
    counts = [sum(index == 9 for _, index in epoch) for epoch in epochs]
    assert sum(counts) == pytest.approx(30 * 10 * 6 / 15, abs=30)
    assert set(counts) <= {4, 5}
    assert {index for epoch in epochs for _, index in epoch} == set(range(10))
    # of an image that comes twice each is augmented anew
    assert all(len(set(epoch)) == 10 for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert places(steps=(3, 9), **options) == epochs[3:9]
    parts = [places(batch_size=5, steps=(0, 4), process=(rank, 2), weights=weights) for rank in (0, 1)]
    assert [first + second for first, second in zip(*parts, strict=True)] == epochs[:4]


class Noise:
    """Ten images, each its own."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Sample:
        generator = np.random.default_rng(index)
        image = torch.from_numpy(generator.integers(0, 256, (3, 50, 60), dtype=np.uint8))
        semantic = torch.from_numpy(generator.integers(0, 3, (50, 60), dtype=np.uint8))
        return Sample(image, Annotation(semantic=semantic), str(index), (50, 60))


@pytest.mark.slow
def test_batches_do_not_depend_on_the_number_of_readers() -> None:
    crop = TrainingCrop(
        Augmentation(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1), 48, ResizeRule(length=60), 255
    )
    paste = partial(with_parts_of, labels=LabelSet.from_names("noise", ["ground", "one", "two"]))
    samples = AugmentedSamples(Noise(), crop, seed=1, paste=paste, paste_probability=0.5)
    sampler = StepSampler(10, batch_size=4, steps=(1, 6), seed=1)
    read = [list(training_batches(samples, sampler, workers=workers)) for workers in (0, 2)]
    assert len(read[0]) == len(read[1]) == 5
    for first, second in zip(*read, strict=True):
        assert first.ids == second.ids
        assert torch.equal(first.images, second.images)
        assert all(
            torch.equal(one.semantic, other.semantic) for one, other in zip(first.truth, second.truth, strict=True)
        )


def test_dropout_seeds_differ_by_step_and_rank() -> None:
    seeds = {dropout_seed(0, step, rank) for step in range(50) for rank in range(4)}
    assert len(seeds) == 200
    assert dropout_seed(0, 3, 1) == dropout_seed(0, 3, 1)
