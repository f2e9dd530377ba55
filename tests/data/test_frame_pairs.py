"""Which frame stands before the one that is learnt, and what the two have in common."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from pixelwise.contracts import Augmentation
from pixelwise.data.collate import collate
from pixelwise.data.frame_pairs import FramePairs, augmented_pair
from pixelwise.data.transforms import TrainingCrop
from pixelwise.training.order import AugmentedSamples, StepSampler, training_batches
from pixelwise.types import Annotation, Instances, Masks, Sample

CLIPS = ("a", "a", "a", "b", "c", "c")
CROP = TrainingCrop(Augmentation(brightness=0.5), crop_size=24, input_size=32, ignore_id=255)


def frame(number: int, *, clip: str | None = "a", tracked: bool = True) -> Sample:
    """A bright object on a ramp, which lies one column further to the right in each frame."""
    shown = torch.zeros(32, 32, dtype=torch.bool)
    shown[8:16, number : number + 8] = True
    image = (torch.arange(32, dtype=torch.uint8) * 3).expand(3, 32, 32).clone()
    image[:, shown] = 200
    masks = Masks.from_dense(shown[None])
    ids = torch.tensor([7]) if tracked else None
    instances = Instances(masks.boxes.float(), torch.tensor([1]), masks, track_ids=ids)
    return Sample(image, Annotation(instances=instances), f"{clip}/{number}", (32, 32), clip=clip, frame=number)


class Clip:
    """Six frames of three clips."""

    clips = CLIPS

    def __len__(self) -> int:
        return len(CLIPS)

    def __getitem__(self, index: int) -> Sample:
        return frame(index, clip=CLIPS[index])


@pytest.mark.parametrize(
    ("offsets", "index", "wanted"),
    [
        ((-1, 1), 1, {0, 2}),
        ((-1, 1), 0, {1}),
        ((-1, 1), 2, {1}),
        ((-1, 1), 3, {3}),  # alone in its clip
        ((-1,), 5, {4}),
        ((-1,), 4, {5}),  # none before it
        ((-2,), 2, {0}),
        ((-3, -2), 1, {0}),  # as far as the clip goes
        ((4,), 0, {2}),
    ],
)
def test_references_are_of_the_clip(offsets: tuple[int, ...], index: int, wanted: set[int]) -> None:
    pairs = FramePairs(CLIPS, offsets=offsets)
    assert {pairs.reference(index, np.random.default_rng(seed)) for seed in range(40)} == wanted


def test_offsets_are_drawn_evenly() -> None:
    pairs = FramePairs(("a",) * 9, offsets=(-1, 1, 2))
    drawn = Counter(pairs.reference(4, np.random.default_rng(seed)) for seed in range(300))
    assert set(drawn) == {3, 5, 6}
    assert min(drawn.values()) > 70


@pytest.mark.parametrize("seed", range(6))
def test_frames_of_a_clip_are_cut_and_coloured_alike(seed: int) -> None:
    reference, target = augmented_pair(frame(9), frame(9), CROP, np.random.default_rng(seed))
    assert torch.equal(reference.image, target.image)
    reference, target = augmented_pair(frame(9), frame(4), CROP, np.random.default_rng(seed))
    assert (reference.frame, target.frame) == (4, 9)
    found = [one.truth.instances for one in (reference, target)]
    assert found[0] is not None
    assert found[1] is not None
    for one in found:
        assert one.track_ids is None or one.track_ids.tolist() in ([7], [])
    if len(found[0]) and len(found[1]):
        assert found[0].boxes[0, 1] == found[1].boxes[0, 1], "they move along their row alone"


def test_a_still_is_its_own_reference() -> None:
    differ = 0
    for seed in range(8):
        still = frame(9, clip=None, tracked=False)
        reference, target = augmented_pair(still, None, CROP, np.random.default_rng(seed))
        for one in (reference, target):
            assert one.truth.instances is not None
            assert one.truth.instances.track_ids is not None
            assert set(one.truth.instances.track_ids.tolist()) <= {0}
        differ += not torch.equal(reference.image, target.image)
    assert differ > 4


def test_batches_hold_each_frame_after_its_reference() -> None:
    samples = AugmentedSamples(Clip(), CROP, seed=3, pairs=FramePairs(CLIPS, offsets=(-1, 1)))
    sampler = StepSampler(6, batch_size=3, steps=(0, 2), seed=3)
    batches = list(training_batches(samples, sampler, workers=0))
    targets = []
    for batch in batches:
        assert batch.images.shape == (6, 3, 24, 24)
        assert batch.clip_index.tolist() == [0, 0, 1, 1, 2, 2]
        for reference, target in zip(batch.ids[::2], batch.ids[1::2], strict=True):
            assert reference[0] == target[0]
            assert reference != target or target == "b/3"
        targets += batch.ids[1::2]
        assert batch.frame_index.tolist() == [int(id[2:]) for id in batch.ids]
    assert sorted(targets) == sorted(f"{clip}/{index}" for index, clip in enumerate(CLIPS))
    assert collate([frame(0), frame(1)]).clip_index.tolist() == [0, 1]
