"""J and F against masks worked by hand, and a second formula with dilated contours of whole masks."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import binary_dilation
from skimage.morphology import disk

from pixelwise.errors import DataError, RecipeError
from pixelwise.labels import LabelSet
from pixelwise.metrics.davis import Davis, contour
from pixelwise.types import Annotation, Instances, Masks
from tests.shared_data import require

LABELS = LabelSet("davis", ("background", "object"), (False, True), ((0, 0, 0),) * 2, (0, 1))
SQUARE = [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
Frame = tuple[Annotation, Annotation]


def tracks(ids: Sequence[Sequence[int]] | np.ndarray, *, void: int = 0, crowd: Sequence[int] = ()) -> Annotation:
    """Objects of a map of track ids; `void` marks pixels that are ignored."""
    numbers = np.asarray(ids)
    found = [int(id) for id in np.unique(numbers) if id not in (0, void)]
    masks = Masks.from_arrays([numbers == id for id in found], numbers.shape)
    semantic = np.where(numbers == 0, 0, 1)
    if void:
        semantic[numbers == void] = 255
    return Annotation(
        semantic=torch.from_numpy(semantic).byte(),
        instances=Instances(
            boxes=masks.boxes.float(),
            labels=torch.ones(len(found), dtype=torch.int64),
            masks=masks,
            track_ids=torch.tensor(found, dtype=torch.int64),
            crowd=torch.tensor([id in crowd for id in found], dtype=torch.bool),
        ),
    )


def evaluated(*clips: Sequence[Frame], definition: str = "davis") -> dict[str, Any]:
    metric = Davis(LABELS, definition)
    for number, frames in enumerate(clips):
        for place, (predicted, truth) in enumerate(frames):
            metric.update(predicted, truth, id=f"{number}/{place}", clip=f"clip {number}", frame=place)
    return metric.compute()


def test_contours_by_hand() -> None:
    masks = Masks.from_arrays([np.array(SQUARE), np.ones((4, 4))], (4, 4))
    # half a pixel up and to the left: all pixels whose right, lower or diagonal neighbour differs
    around = {(0, 0), (0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1), (2, 2)}
    assert {tuple(point) for point in contour(masks, 0).tolist()} == around
    assert contour(masks, 1).tolist() == []  # the mask goes on beyond the image


def test_a_frame_worked_by_hand() -> None:
    truth = tracks(np.array(SQUARE))
    half = tracks([[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    metric = Davis(LABELS)
    metric.update(half, truth, id="a")
    result = metric.compute()
    assert result["j_mean"] == pytest.approx(2 / 4)
    assert result["j_recall"] == 0  # more than one half counts
    # tolerance: 0.8 % of 5.7 pixels, rounded up to 1; the contour of the half is 6 pixels, all near the true one;
    # of the true 8 all are at most a pixel from it: precision and recall 1
    assert result["f_mean"] == 1
    assert (result["f_recall"], result["j_decay"], result["f_decay"]) == (1, 0, 0)
    assert result["j_and_f"] == pytest.approx(0.75)
    assert result["per_class"]["object"] == {"j_and_f": 0.75, "j_mean": 0.5, "f_mean": 1.0, "objects": 1}
    assert result["per_class"]["background"]["j_mean"] is None


def test_the_first_and_the_last_frame_are_skipped_except_of_single_images() -> None:
    truth, nothing = tracks(np.array(SQUARE)), tracks(np.zeros((4, 4)))
    clip = [(nothing, truth), (truth, truth), (nothing, truth)]
    assert evaluated(clip)["j_mean"] == 1
    assert evaluated(clip, definition="davis-unsupervised")["j_mean"] == pytest.approx(1 / 3)
    assert evaluated(clip[:2])["j_mean"] is None
    metric = Davis(LABELS)
    metric.update(truth, truth, id="alone")
    assert metric.compute()["j_mean"] == 1


def test_an_object_that_neither_has_is_right_and_one_that_is_missed_is_not() -> None:
    truth, nothing = tracks(np.array(SQUARE)), tracks(np.zeros((4, 4)))
    clip = [(truth, truth), (truth, truth), (nothing, nothing), (nothing, truth), (truth, nothing), (truth, truth)]
    result = evaluated(clip)
    assert result["per_object"]["clip 0/1"]["j_mean"] == pytest.approx((1 + 1 + 0 + 0) / 4)
    assert result["f_mean"] == pytest.approx(0.5)


def test_ids_must_agree_unless_tracks_are_assigned() -> None:
    truth = tracks([[1, 1, 0, 2], [1, 1, 0, 2]])
    other = tracks([[7, 7, 0, 5], [7, 7, 3, 5]])
    frames = [(other, truth)] * 4
    assert evaluated(frames)["j_mean"] == 0
    result = evaluated(frames, definition="davis-unsupervised")
    assert result["j_mean"] == 1  # track 3 has no object and costs nothing
    changed = [(other, truth)] * 3 + [(tracks([[5, 5, 0, 7], [5, 5, 0, 7]]), truth)]
    assert evaluated(changed, definition="davis-unsupervised")["j_mean"] == pytest.approx(3 / 4)
    few = evaluated([(tracks([[7, 7, 0, 0], [7, 7, 0, 0]]), truth)], definition="davis-unsupervised")
    assert few["j_mean"] == pytest.approx(0.5)


def test_void_and_crowds_are_ignored() -> None:
    truth = tracks([[1, 1, 9, 9], [1, 1, 9, 9]], void=9)
    predicted = tracks([[1, 1, 1, 1], [1, 1, 1, 1]])
    assert evaluated([(predicted, truth)] * 3)["j_mean"] == 1
    crowd = tracks([[1, 1, 4, 4], [1, 1, 4, 4]], crowd=(4,))
    result = evaluated([(predicted, crowd)] * 3)
    assert (result["j_mean"], result["per_class"]["object"]["objects"]) == (1, 1)


def slow_frame(predicted: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """J and F of two masks."""

    def edges(mask: np.ndarray) -> np.ndarray:
        more = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
        return (mask != more[:-1, 1:]) | (mask != more[1:, :-1]) | (mask != more[1:, 1:])

    either = (predicted | truth).sum()
    region = (predicted & truth).sum() / either if either else 1.0
    one, other = edges(predicted), edges(truth)
    if not one.any() or not other.any():
        return region, float(one.any() == other.any())
    near = disk(math.ceil(0.008 * np.linalg.norm(truth.shape)))
    precision = (one & binary_dilation(other, near)).sum() / one.sum()
    recall = (other & binary_dilation(one, near)).sum() / other.sum()
    return region, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def slow_means(values: np.ndarray) -> dict[str, float]:
    """The mean over objects [N, 2, F] of mean, recall and decay."""
    edges = np.round(np.linspace(1, values.shape[2], 5) + 1e-10).astype(int) - 1
    decay = values[:, :, : edges[1] + 1].mean(axis=2) - values[:, :, edges[3] :].mean(axis=2)
    table = {"mean": values.mean(axis=2), "recall": (values > 0.5).mean(axis=2), "decay": decay}
    return {f"{part}_{name}": each[:, place].mean() for name, each in table.items() for place, part in enumerate("jf")}


def random_clip(generator: np.random.Generator, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Maps [F, H, W] of three moving ellipses as ground truth and as prediction; some touch the border, some vanish."""
    height, width = 60, 150
    y, x = np.mgrid[:height, :width]
    maps = np.zeros((2, length, height, width), dtype=np.int64)
    for id in (1, 2, 3):
        centre, radius = generator.random(2) * (height, width), 6 + generator.random(2) * (12, 30)
        for frame in range(length):
            for side in range(2):
                if generator.random() < 0.1:
                    continue
                at = centre + frame * np.array([1.0, 3.0]) + side * generator.normal(0, 3, 2)
                maps[side, frame][((y - at[0]) / radius[0]) ** 2 + ((x - at[1]) / radius[1]) ** 2 < 1] = id
    return maps[0], maps[1]


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_slow_formula(seed: int) -> None:
    truth, predicted = random_clip(np.random.default_rng(seed), 7)
    frames = [(tracks(one), tracks(other)) for one, other in zip(predicted, truth, strict=True)]
    ids = [int(id) for id in np.unique(truth) if id]
    pairs = {
        (id, other): np.array(
            [slow_frame(one == other, wanted == id) for one, wanted in zip(predicted, truth, strict=True)]
        ).T
        for id in ids
        for other in (1, 2, 3)
    }
    inner = [int(id) for id in np.unique(truth[1:-1]) if id]
    expected = slow_means(np.array([pairs[id, id][:, 1:-1] for id in inner]))
    result = evaluated(frames)
    assert {name: result[name] for name in expected} == pytest.approx(expected)
    assert result["j_and_f"] == pytest.approx((expected["j_mean"] + expected["f_mean"]) / 2)
    best = max(
        permutations((1, 2, 3), len(ids)),
        key=lambda chosen: sum(pairs[pair].mean() for pair in zip(ids, chosen, strict=True)),
    )
    expected = slow_means(np.array([pairs[pair] for pair in zip(ids, best, strict=True)]))
    result = evaluated(frames, definition="davis-unsupervised")
    assert {name: result[name] for name in expected} == pytest.approx(expected)
    assert 0.2 < result["j_mean"] < 0.95


def test_real_masks() -> None:
    folder = require("davis2016") / "Annotations" / "480p" / "car-shadow"
    maps = [(np.asarray(Image.open(path).convert("L")) > 127).astype(int) for path in sorted(folder.glob("*.png"))[:5]]
    frames = [(tracks(one), tracks(other)) for one, other in pairwise(maps)]
    slow = np.array([slow_frame(one > 0, other > 0) for one, other in pairwise(maps)]).T
    result = evaluated(frames)
    expected = slow_means(slow[None, :, 1:-1])
    assert {name: result[name] for name in expected} == pytest.approx(expected)
    assert 0.5 < result["j_mean"] < 1


def test_parts_merge_to_the_same_bits_and_its_state_passes_json() -> None:
    frames = []
    for number in range(2):
        truth, predicted = random_clip(np.random.default_rng(5 + number), 5)
        pairs = [(tracks(one), tracks(other)) for one, other in zip(predicted, truth, strict=True)]
        frames += [(f"{number}", place, *pair) for place, pair in enumerate(pairs)]
    for definition in ("davis", "davis-unsupervised"):
        whole, parts = Davis(LABELS, definition), [Davis(LABELS, definition) for _ in range(3)]
        for clip, place, one, other in frames:
            whole.update(one, other, id=f"{place}", clip=clip, frame=place)
        random.Random(4).shuffle(frames)
        for number, (clip, place, one, other) in enumerate(frames):
            parts[number % 3].update(one, other, id=f"{place}", clip=clip, frame=place)
        joined = Davis(LABELS, definition)
        for part in parts:
            joined.merge(Davis.from_state(LABELS, definition, json.loads(json.dumps(part.state()))))
        assert joined.images == whole.images
        assert joined.compute() == whole.compute()


def test_each_frame_has_a_row_of_its_own() -> None:
    truth = tracks(np.array(SQUARE))
    metric = Davis(LABELS)
    pairs = {
        "good": (truth, truth),
        "bad": (tracks(np.zeros((4, 4))), truth),
        "none": (truth, tracks(np.zeros((4, 4)))),
    }
    for id, (predicted, expected) in pairs.items():
        metric.update(predicted, expected, id=id)
    assert sorted(metric.images, key=lambda id: metric.images[id].badness) == ["bad", "good", "none"]
    assert metric.images["bad"].row() == {"j_and_f": 0.0, "objects": 1, "tracks": 0}
    assert metric.images["good"].caption() == "J&F 1.000 · 1 object, 1 predicted"


def without(annotation: Annotation, part: str) -> Annotation:
    instances = annotation.instances
    parts = {name: getattr(instances, name) for name in ("boxes", "labels", "masks", "track_ids") if name != part}
    return Annotation(instances=Instances(**parts))


def test_what_cannot_be_evaluated_is_refused() -> None:
    metric, truth = Davis(LABELS), tracks(np.array(SQUARE))
    with pytest.raises(RecipeError, match="definition 'coco'"):
        Davis(LABELS, "coco")
    with pytest.raises(DataError, match=r"davis, another by davis-unsupervised"):
        metric.merge(Davis(LABELS, "davis-unsupervised"))
    for predicted, expected, text in (
        (Annotation(), truth, "the prediction has no instance masks"),
        (truth, without(truth, "masks"), "the ground truth has no instance masks"),
        (without(truth, "track_ids"), truth, "the prediction has instances without track ids"),
        (tracks(np.zeros((2, 2))), truth, "the prediction is 2×2, the ground truth 4×4"),
    ):
        with pytest.raises(DataError, match=f"image 'a': {text}"):
            metric.update(predicted, expected, id="a")
    with pytest.raises(DataError, match="a frame of the clip 'x' without its index"):
        metric.update(truth, truth, id="a", clip="x")
    twice = Annotation(instances=Instances.concatenate([truth.instances, truth.instances]))
    with pytest.raises(DataError, match="the prediction has the track 1 twice"):
        metric.update(twice, truth, id="a")
    assert metric.images == {}
    with pytest.raises(DataError, match=r"state\.images\.a: an object that does not exist"):
        Davis.from_state(LABELS, "davis", {"images": {"a": [None, 0, [[1, 1, 4, 4]], [], [[1, 2, 4, 4, 4]], 1.0]}})
    with pytest.raises(DataError, match=r"state\.images"):
        Davis.from_state(LABELS, "davis", {})
