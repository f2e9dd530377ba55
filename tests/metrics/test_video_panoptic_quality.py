"""VPQ and STQ against clips worked by hand, second formulas over sets of pixels, and a real clip."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pixelwise.errors import DataError, RecipeError
from pixelwise.labels import LabelSet
from pixelwise.metrics.video_panoptic_quality import VideoPanopticQuality
from pixelwise.types import Annotation
from tests.metrics.segments import LABELS, moved, random_segments, segments, slow_counts, slow_quality
from tests.shared_data import require

SKY, CAT, DOG = range(3)
Clip = Sequence[tuple[Annotation, Annotation]]


def evaluated(*clips: Clip, labels: LabelSet = LABELS, k: Sequence[int] = (0, 5, 10, 15)) -> dict[str, Any]:
    """The metric of clips of (prediction, ground truth) pairs."""
    metric = VideoPanopticQuality(labels, k=k)
    for number, frames in enumerate(clips):
        for place, (predicted, truth) in enumerate(frames):
            metric.update(predicted, truth, id=f"{number}/{place}", clip=str(number), frame=place)
    return metric.compute()


def still(first: int, second: int) -> Annotation:
    """Two cats of two pixels each on four pixels of sky."""
    return segments([[1, 1, first, first], [1, 1, second, second]], {1: SKY, first: CAT, second: CAT})


TRUTH = still(2, 3)


def test_a_switch_of_identity_costs_vpq_of_longer_windows_alone() -> None:
    switched = [(still(5, 6), TRUTH), (still(6, 5), TRUTH)]
    kept = [(still(5, 6), TRUTH), (still(5, 6), TRUTH)]
    assert evaluated(kept)["vpq"] == 1
    result = evaluated(switched)
    assert result["vpq_k0"] == 1
    # each predicted tube has 2 of its 4 pixels in each true one: no match, 2 wrong and 2 missed
    assert (result["vpq_k5"], result["vpq_k5_things"], result["vpq_k5_stuff"]) == (0.5, 0, 1)
    assert result["vpq_k10"] is None  # no window of three frames
    assert result["vpq"] == pytest.approx((1 + 0.5) / 2)
    assert result["per_class"]["cat"]["vpq"] == pytest.approx(0.5)
    assert result["per_class"]["dog"]["vpq_k0"] is None


def test_windows_slide_by_one_labelled_frame() -> None:
    # the switch lies in one of the two windows of two frames
    clip = [(still(5, 6), TRUTH), (still(5, 6), TRUTH), (still(6, 5), TRUTH)]
    result = evaluated(clip)
    # cats: 2 matches with IoU 1 in one window, 2 wrong and 2 missed in the other
    assert result["per_class"]["cat"]["vpq_k5"] == pytest.approx(2 / (2 + 2 / 2 + 2 / 2))
    # over three frames 4 of 6 pixels are right: IoU 4 / 8, no match
    assert result["per_class"]["cat"]["vpq_k10"] == 0
    four = [*clip[:2], (still(5, 6), TRUTH), clip[2]]
    # over four frames 6 of 8 are right: IoU 6 / 10
    assert evaluated(four)["per_class"]["cat"]["vpq_k15"] == pytest.approx(0.6)


def test_void_and_crowds_hold_for_tubes() -> None:
    truth = [segments([[1, 1, 0, 0]], {1: SKY}), segments([[1, 1, 2, 2]], {1: SKY, 2: CAT}, crowd=(2,))]
    predicted = segments([[1, 1, 7, 7]], {1: SKY, 7: CAT})
    result = evaluated([(predicted, one) for one in truth])
    # the cat lies on void, then on a crowd: no error, and the crowd is not missed
    assert [result[name] for name in ("vpq_k0", "vpq_k5")] == [1, 1]
    assert result["per_class"]["cat"]["vpq_k0"] is None


def test_a_tube_has_the_class_of_its_first_frame() -> None:
    truth = [segments([[2, 2]], {2: CAT})] * 2
    predicted = [segments([[5, 5]], {5: CAT}), segments([[5, 5]], {5: DOG})]
    result = evaluated(list(zip(predicted, truth, strict=True)))
    assert result["per_class"]["cat"]["vpq_k5"] == 1
    assert result["per_class"]["cat"]["vpq_k0"] == pytest.approx(1 / 1.5)
    assert result["per_class"]["dog"]["vpq_k0"] == 0


def test_any_list_of_windows_and_any_spacing() -> None:
    metric = VideoPanopticQuality(LABELS, k=(0, 2), spacing=2)
    for place in range(2):
        metric.update(still(5, 6), TRUTH, id=str(place), clip="a", frame=place)
    result = metric.compute()
    assert [name for name in result if name.startswith("vpq") and "_t" not in name and "_st" not in name] == [
        "vpq",
        "vpq_k0",
        "vpq_k2",
    ]
    assert result["vpq_k2"] == 1
    for k, spacing in (((0, 3), 2), ((), 5), ((-5,), 5), ((0,), 0)):
        with pytest.raises(RecipeError, match=r"k \["):
            VideoPanopticQuality(LABELS, k=k, spacing=spacing)
    other = VideoPanopticQuality(LABELS)
    with pytest.raises(DataError, match=r"k = \[0, 2\] with labels every 2 frames, another of k = \[0, 5, 10, 15\]"):
        metric.merge(other)


def test_stq_worked_by_hand() -> None:
    switched = [(still(5, 6), TRUTH), (still(6, 5), TRUTH)]
    result = evaluated(switched)
    # every class is right; each cat of 4 pixels shares 2 with each of two tubes of 4: 2 · (2 · 2/6) / 4 = 1/3
    assert result["stq_sq"] == 1
    assert result["aq"] == pytest.approx(1 / 3)
    assert result["stq"] == pytest.approx(math.sqrt(1 / 3))
    dogs = [(segments([[1, 1, 5, 5], [1, 1, 6, 6]], {1: SKY, 5: DOG, 6: DOG}), TRUTH)] * 2
    result = evaluated(dogs)
    assert result["aq"] == 1  # whatever the class
    assert result["stq_sq"] == pytest.approx((1 + 0 + 0) / 3)
    assert result["per_class"]["cat"]["iou"] == 0
    nothing = evaluated([(segments([[1]], {1: SKY}), segments([[1]], {1: SKY}))])
    assert (nothing["aq"], nothing["stq"], nothing["stq_sq"]) == (None, None, 1)


def test_aq_leaves_out_crowds_and_counts_what_lies_in_void() -> None:
    predicted = segments([[5, 5, 5, 5]], {5: CAT})
    crowd = segments([[2, 2, 3, 3]], {2: CAT, 3: CAT}, crowd=(3,))
    void = segments([[2, 2, 0, 0]], {2: CAT})
    assert evaluated([(predicted, crowd)])["aq"] == 1
    assert evaluated([(predicted, void)])["aq"] == pytest.approx(2 * (2 / 4) / 2)
    assert evaluated([(predicted, void)])["stq_sq"] == 1
    # predicted void is an error of the true class
    assert evaluated([(void, predicted)])["stq_sq"] == pytest.approx(0.5)


def slow_stq(clips: Sequence[Clip], classes: int, things: Sequence[int]) -> tuple[float, float]:
    """AQ and SQ pixel by pixel."""
    right: Counter[int] = Counter()
    either: Counter[int] = Counter()
    sums: list[float] = []
    for clip in clips:
        true_tubes: dict[Any, set[Any]] = {}
        found_tubes: dict[Any, set[Any]] = {}
        for frame, (predicted, truth) in enumerate(clip):
            sides = [
                {
                    int(id): (int(label), bool(crowd))
                    for id, label, crowd in zip(
                        side.panoptic.segment_ids, side.panoptic.labels, side.panoptic.crowd, strict=True
                    )
                }
                for side in (truth, predicted)
            ]
            found_ids = predicted.panoptic.ids.numpy()
            for place, wanted in np.ndenumerate(truth.panoptic.ids.numpy()):
                found = int(found_ids[place])
                label, crowd = sides[0].get(int(wanted), (None, False))
                other, _ = sides[1].get(found, (None, False))
                if label is not None:
                    right[label] += label == other
                    either[label] += 1
                    if other is not None and other != label:
                        either[other] += 1
                if label in things and crowd:
                    continue
                if label in things:
                    true_tubes.setdefault((int(wanted), label), set()).add((frame, place))
                if other in things:
                    found_tubes.setdefault((found, other), set()).add((frame, place))
        for pixels in true_tubes.values():
            shares = [len(pixels & others) ** 2 / len(pixels | others) for others in found_tubes.values()]
            sums.append(sum(shares) / len(pixels))
    ious = [right[label] / either[label] for label in range(classes) if either[label]]
    return sum(sums) / len(sums), sum(ious) / len(ious)


def random_clips(generator: np.random.Generator) -> list[Clip]:
    """Clips of the same drawing, a little different in each frame, with predictions that lose and change ids."""
    clips = []
    for length in (1, 3, 5):
        first = random_segments(generator, (7, 8), names=[1, 2, 3, 4, 5], classes=3, crowd=True)
        panoptic = first.panoptic
        classes = dict(zip(panoptic.segment_ids.tolist(), panoptic.labels.tolist(), strict=True))
        crowds = panoptic.segment_ids[panoptic.crowd].tolist()
        frames = []
        for place in range(length):
            ids = np.roll(panoptic.ids.numpy(), place, axis=1)
            truth = segments(ids, classes, crowds)
            names = [60_000, 7, 8, 9, 10] if place != 2 else [7, 60_000, 8, 9, 11]
            frames.append((moved(truth, generator, names), truth))
        clips.append(frames)
    return clips


@pytest.mark.parametrize("seed", range(6))
def test_they_are_the_slow_formulas(seed: int) -> None:
    clips = random_clips(np.random.default_rng(seed))
    result = evaluated(*clips)
    per_k = []
    for k, length in ((0, 1), (5, 2), (10, 3), (15, 4)):
        counts: dict[int, list[float]] = {}
        for clip in clips:
            for start in range(len(clip) - length + 1):
                window = clip[start : start + length]
                predicted, truth = ([pair[side] for pair in window] for side in (0, 1))
                for label, row in slow_counts(predicted, truth).items():
                    counts[label] = [a + b for a, b in zip(counts.get(label, [0, 0, 0, 0.0]), row, strict=True)]
        for suffix, members in (("", (SKY, CAT, DOG)), ("_things", (CAT, DOG)), ("_stuff", (SKY,))):
            expected = slow_quality(counts, members)["pq"]
            assert result[f"vpq_k{k}{suffix}"] == pytest.approx(expected, abs=1e-12)
        per_k.append(result[f"vpq_k{k}"])
    assert result["vpq"] == pytest.approx(sum(per_k) / 4)
    aq, sq = slow_stq(clips, 3, (CAT, DOG))
    assert result["aq"] == pytest.approx(aq, abs=1e-12)
    assert result["stq_sq"] == pytest.approx(sq, abs=1e-12)
    assert result["stq"] == pytest.approx(math.sqrt(aq * sq), abs=1e-12)


def segments_below(annotation: Annotation, row: int) -> Annotation:
    """A part of the map."""
    panoptic = annotation.panoptic
    return Annotation(panoptic=replace(panoptic, ids=panoptic.ids[row:]))


def test_a_real_clip() -> None:
    folder = require("kitti_step") / "panoptic_maps" / "val" / "0000"
    names = tuple(f"class {index}" for index in range(19))
    labels = LabelSet(
        "step", names, tuple(index in (11, 13) for index in range(19)), ((0, 0, 0),) * 19, tuple(range(19))
    )
    maps = []
    for path in sorted(folder.glob("*.png")):
        rgb = np.asarray(Image.open(path)).astype(np.int64)[::3, ::3]
        ids = np.where(rgb[..., 0] == 255, 0, 1 + (rgb[..., 0] << 16) + (rgb[..., 1] << 8) + rgb[..., 2])
        crowds = [int(id) for id in np.unique(ids) if id and id - 1 >> 16 in (11, 13) and id - 1 & 0xFFFF == 0]
        maps.append(segments(ids, {int(id): int(id - 1) >> 16 for id in np.unique(ids) if id}, crowds))
    perfect = evaluated([(one, one) for one in maps], labels=labels)
    # crowds are ignored, so that predicting them costs nothing
    assert {perfect[name] for name in ("vpq", "vpq_k15", "stq", "aq", "stq_sq")} == {1.0}
    clip = list(pairwise(maps))  # the prediction of each frame is the one before
    result = evaluated(clip, labels=labels)
    window = clip[2:6]
    counts = slow_counts([pair[0] for pair in window], [pair[1] for pair in window])
    alone = evaluated(window, labels=labels)
    assert alone["vpq_k15"] == pytest.approx(slow_quality(counts, range(19))["pq"], abs=1e-12)
    assert 0.2 < result["vpq"] < result["vpq_k0"] < 0.9
    parts = [tuple(segments_below(one, 60) for one in pair) for pair in clip[:3]]
    aq, sq = slow_stq([parts], 19, (11, 13))
    result = evaluated(parts, labels=labels)
    assert (result["aq"], result["stq_sq"]) == (pytest.approx(aq, abs=1e-12), pytest.approx(sq, abs=1e-12))
    assert 0 < aq < 1


def test_parts_merge_to_the_same_bits_whatever_the_order() -> None:
    frames = [
        (f"{number}", place, *pair)
        for number, clip in enumerate(random_clips(np.random.default_rng(9)))
        for place, pair in enumerate(clip)
    ]
    whole, parts = VideoPanopticQuality(LABELS), [VideoPanopticQuality(LABELS) for _ in range(3)]
    for clip, place, predicted, truth in frames:
        whole.update(predicted, truth, id=f"{place}", clip=clip, frame=place)
    random.Random(2).shuffle(frames)
    for number, (clip, place, predicted, truth) in enumerate(frames):
        parts[number % 3].update(predicted, truth, id=f"{place}", clip=clip, frame=place)
    joined = VideoPanopticQuality(LABELS)
    for part in parts:
        joined.merge(VideoPanopticQuality.from_state(LABELS, "video-panoptic", json.loads(json.dumps(part.state()))))
    assert joined.compute() == whole.compute()
    assert set(joined.images) == set(whole.images)
    assert joined.images["2/0/0"].row() == whole.images["2/0/0"].row()
    assert joined.images["2/0/0"].caption() == whole.images["2/0/0"].caption()


def broken(change: Mapping[str, Any]) -> dict[str, Any]:
    metric = VideoPanopticQuality(LABELS)
    metric.update(TRUTH, TRUTH, id="a")
    return {**metric.state(), **change}


def test_what_cannot_be_counted_is_refused() -> None:
    metric = VideoPanopticQuality(LABELS)
    with pytest.raises(DataError, match="image 'x/a': a frame of the clip 'x' without its index"):
        metric.update(TRUTH, TRUTH, id="a", clip="x")
    with pytest.raises(RecipeError, match="definition 'panoptic'"):
        VideoPanopticQuality(LABELS, "panoptic")
    pairs, truth, found = ([[1, 1, 4]], [[1, 0, 0]], [[1, 0]])
    VideoPanopticQuality.from_state(LABELS, "video-panoptic", broken({"images": {"a": ["a", 0, pairs, truth, found]}}))
    for wrong in (
        ["a", 0, pairs, [], found],
        ["a", 0, pairs, [[1, 3, 0]], found],
        ["a", 0, pairs, truth, [[2, 0]]],
        ["a", 0, [[1, 1, -4]], truth, found],
    ):
        with pytest.raises(DataError, match=r"state\.images\.a: "):
            VideoPanopticQuality.from_state(LABELS, "video-panoptic", broken({"images": {"a": wrong}}))
    with pytest.raises(DataError, match=r"state\.k"):
        VideoPanopticQuality.from_state(LABELS, "video-panoptic", broken({"k": "all"}))
