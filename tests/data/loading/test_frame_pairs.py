"""Which frame stands before the one that is trained on, and what the two have in common."""

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from pixelwise.contracts import Augmentation
from pixelwise.data.dataset import Mapped, Merged, clip_of_each, flow_of
from pixelwise.data.loading.batches import AugmentedSamples, StepSampler, training_batches
from pixelwise.data.loading.collate import collate
from pixelwise.data.loading.crop import TrainingCrop, draw_geometry
from pixelwise.data.loading.frame_pairs import FramePairs, augmented_pair
from pixelwise.labels import LabelMap, LabelSet
from pixelwise.ops.resize_rule import ResizeRule
from pixelwise.ops.warp import warp
from pixelwise.types import Annotation, Instances, Masks, Sample
from tests.drawn_scenes import DrawnClips

CLIPS = ("a", "a", "a", "b", "c", "c")
CROP = TrainingCrop(Augmentation(brightness=0.5), crop_size=24, resize=ResizeRule(length=32), ignore_id=255)


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


def test_stills_beside_clips_are_their_own_references() -> None:
    """And frames keep theirs; clips of one name in two sets are two clips."""
    stills: Any = Clip()
    stills.clips = None
    joined, mapped = object.__new__(Merged), object.__new__(Mapped)
    object.__setattr__(mapped, "dataset", Clip())
    object.__setattr__(joined, "parts", (Clip(), stills, mapped))
    clips = clip_of_each(joined)
    assert clips == (*(f"1/{name}" for name in CLIPS), *[None] * 6, *(f"3/{name}" for name in CLIPS))
    pairs = FramePairs(clips, offsets=(-1, 1))
    generator = np.random.default_rng(0)
    assert [pairs.reference(index, generator) for index in (0, 3, 6, 11, 12)] == [1, 3, None, None, 13]


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


class FlowingClip(Clip):
    """Whose objects, and all else, go one column to the right in each frame."""

    def flow(self, index: int, *, reference: int | None = None) -> torch.Tensor:
        assert reference is not None
        flow = torch.zeros(2, 32, 32)
        flow[0] = reference - index
        flow[:, :, -1] = torch.nan
        return flow


@pytest.mark.parametrize("wraps", [False, True])
def test_the_flow_to_the_reference_is_cut_and_turned_like_the_frames(wraps: bool) -> None:
    label_map = LabelMap.by_names(LabelSet.from_names("one", ["ground", "box"]), LabelSet.from_names("b", ["box"]))
    clip: Any = FlowingClip()
    clip.labels, clip.name = label_map.source, "clip"
    samples: Any = Merged((Mapped(clip, label_map),)) if wraps else clip
    augmentation = Augmentation(scale_min=0.5, scale_max=2, rotate=30)
    crop = TrainingCrop(augmentation, crop_size=(40, 48), resize=ResizeRule(length=32), ignore_id=255)
    pairs = FramePairs(CLIPS, offsets=(-2, -1), flow=partial(flow_of, samples))
    mirrored = 0
    for seed in range(40):
        geometry = draw_geometry(
            np.random.default_rng(seed),
            (32, 32),
            augmentation=augmentation,
            crop_size=(40, 48),
            resize=ResizeRule(length=32),
        )
        target = pairs.with_flow(frame(2), 2, frame(0))
        assert target.truth.flow is not None
        _, result = augmented_pair(target, frame(0), crop, np.random.default_rng(seed))
        found = result.truth.flow
        assert found is not None
        assert found.shape == (2, 40, 48)
        # two columns to the left in the image; in the crop as far as its pixels are smaller, turned, and mirrored
        scale = geometry.filled_hw[1] / (geometry.source_box[2] - geometry.source_box[0])
        angle = math.radians(geometry.degrees)
        wanted = torch.tensor([-2 * scale * math.cos(angle), 2 * scale * math.sin(angle)])
        wanted[0] *= -1 if geometry.flip else 1
        known = ~found[0].isnan()
        assert known.any()
        assert (known == ~found[1].isnan()).all()
        assert (found[:, known] - wanted[:, None]).abs().max() < 0.15 * scale, "sides are rounded to whole pixels"
        assert not known[geometry.filled_hw[0] :].any(), "nothing is known of what lies outside of the image"
        mirrored += geometry.flip
    assert 5 < mirrored < 35


def test_an_unknown_flow_is_none() -> None:
    pairs = FramePairs(CLIPS, offsets=(-1,), flow=partial(flow_of, Clip()))
    assert pairs.with_flow(frame(2), 2, frame(1)).truth.flow is None
    assert pairs.with_flow(frame(2), 2, None).truth.flow is None
    assert FramePairs(CLIPS, offsets=(-1,)).with_flow(frame(2), 2, frame(1)).truth.flow is None


@pytest.mark.parametrize("seed", range(4))
def test_drawings_tell_the_flow_that_brings_a_reference_to_where_they_are(seed: int) -> None:
    clips = DrawnClips(4, first_seed=0)
    target, reference = clips[6 * seed + 5], clips[6 * seed + 1]
    assert reference.frame is not None
    flow = flow_of(clips, 6 * seed + 5, reference.frame)
    assert flow is not None
    known = ~flow[0].isnan()
    assert known.float().mean() > 0.8
    images = [sample.image[None].float() for sample in (target, reference)]
    differences = [
        (images[0] - warp(images[1], moved[None]))[0][:, known].abs()
        for moved in (flow.nan_to_num(), torch.zeros_like(flow))
    ]
    assert differences[0].max() < 24.1, "the noise of two frames"
    assert differences[1].max() > 60
