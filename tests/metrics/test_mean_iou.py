"""Mean IoU against a second formula, written with sets of pixels, and against maps worked by hand."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from pixelwise.errors import DataError
from pixelwise.labels import LabelSet
from pixelwise.metrics import mean_iou
from pixelwise.metrics.mean_iou import MeanIoU
from pixelwise.types import Annotation

LABELS = LabelSet.from_names("five", ["background", "cat", "dog", "cow", "unicorn"])
VOID = 255


def maps(values: Sequence[Sequence[int]]) -> Annotation:
    return Annotation(semantic=torch.tensor(values, dtype=torch.uint8))


def measured(pairs: Sequence[tuple[Tensor, Tensor]], labels: LabelSet = LABELS) -> dict[str, Any]:
    """The metric of (prediction, ground truth) pairs."""
    metric = MeanIoU(labels)
    for index, (predicted, truth) in enumerate(pairs):
        metric.update(Annotation(semantic=predicted), Annotation(semantic=truth), id=str(index))
    return metric.compute()


def slow_formula(pairs: Sequence[tuple[Tensor, Tensor]], classes: int, void: int = VOID) -> dict[str, Any]:
    """VOC's definition, class by class, over sets of (image, row, column)."""
    truth_of: dict[int, set[tuple[int, int, int]]] = {index: set() for index in range(classes)}
    predicted_of: dict[int, set[tuple[int, int, int]]] = {index: set() for index in range(classes)}
    for image, (predicted, truth) in enumerate(pairs):
        for row in range(truth.shape[0]):
            for column in range(truth.shape[1]):
                expected, answer = int(truth[row, column]), int(predicted[row, column])
                if expected == void:
                    continue
                truth_of[expected].add((image, row, column))
                if answer != void:
                    predicted_of[answer].add((image, row, column))
    total = sum(len(pixels) for pixels in truth_of.values())
    ious, accuracies, weighted, right = {}, {}, 0.0, 0
    for index in range(classes):
        truth_pixels, predicted_pixels = truth_of[index], predicted_of[index]
        both, either = truth_pixels & predicted_pixels, truth_pixels | predicted_pixels
        if either:
            ious[index] = len(both) / len(either)
            weighted += len(truth_pixels) * ious[index]
        if truth_pixels:
            accuracies[index] = len(both) / len(truth_pixels)
        right += len(both)
    return {
        "mean_iou": sum(ious.values()) / len(ious),
        "pixel_accuracy": right / total,
        "mean_class_accuracy": sum(accuracies.values()) / len(accuracies),
        "frequency_weighted_iou": weighted / total,
        "ious": ious,
        "accuracies": accuracies,
    }


def random_pairs(seed: int, classes: int = 4, void: int = VOID) -> list[tuple[Tensor, Tensor]]:
    """Noisy predictions of random maps, with void in both; the fifth class never occurs."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.tensor([*range(classes), void], dtype=torch.int32)
    pairs = []
    for _ in range(3):
        size = torch.randint(1, 12, (2,), generator=generator).tolist()
        truth = values[torch.randint(0, classes + 1, size, generator=generator)]
        noise = values[torch.randint(0, classes + 1, size, generator=generator)]
        predicted = torch.where(torch.rand(size, generator=generator) < 0.6, truth, noise)
        dtype = torch.uint8 if void == VOID else torch.int32
        pairs.append((predicted.to(dtype), truth.to(dtype)))
    return pairs


@pytest.mark.parametrize("slab", [1, 7, 2**22])
@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_ratio_of_common_to_joined_pixels(seed: int, slab: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mean_iou, "SLAB_PIXELS", slab)
    pairs = random_pairs(seed)
    result, expected = measured(pairs), slow_formula(pairs, len(LABELS))
    for name in ("mean_iou", "pixel_accuracy", "mean_class_accuracy", "frequency_weighted_iou"):
        assert result[name] == pytest.approx(expected[name], abs=1e-12)
    for index, name in enumerate(LABELS.names):
        per_class = result["per_class"][name]
        assert per_class["iou"] == pytest.approx(expected["ious"].get(index))
        assert per_class["accuracy"] == pytest.approx(expected["accuracies"].get(index))
    assert result["per_class"]["unicorn"] == {"iou": None, "accuracy": None, "pixels": 0}


def test_sets_of_more_than_255_classes() -> None:
    labels = LabelSet.from_names("many", [f"class {index}" for index in range(300)])
    pairs = random_pairs(1, classes=300, void=-1)
    result, expected = measured(pairs, labels), slow_formula(pairs, 300, void=-1)
    assert result["mean_iou"] == pytest.approx(expected["mean_iou"])
    assert result["mean_class_accuracy"] == pytest.approx(expected["mean_class_accuracy"])


def test_a_four_by_four_map_worked_by_hand() -> None:
    truth = maps([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 2, VOID], [2, 2, 2, VOID]])
    predicted = maps([[0, 0, 0, 1], [0, 0, 1, 1], [2, 3, 2, 1], [2, VOID, 2, 0]])
    # background: 4 of 4 found, and 1 too many (the void pixel that was called 0 does not count): 4/5
    # cat: 3 of 4 (the void pixel called 1 does not count): 3/4.  dog: 4 of 6, one called cow, one void: 4/6
    # cow: none, 1 too many: 0/1.  unicorn: neither
    metric = MeanIoU(LABELS)
    metric.update(predicted, truth, id="a")
    result = metric.compute()
    ious = [4 / 5, 3 / 4, 4 / 6, 0]
    assert [result["per_class"][name]["iou"] for name in LABELS.names] == [*map(pytest.approx, ious), None]
    assert result["mean_iou"] == pytest.approx(sum(ious) / 4)
    assert result["pixel_accuracy"] == pytest.approx(11 / 14)
    assert result["mean_class_accuracy"] == pytest.approx((1 + 3 / 4 + 4 / 6) / 3)
    assert result["frequency_weighted_iou"] == pytest.approx((4 * 4 / 5 + 4 * 3 / 4 + 6 * 4 / 6) / 14)
    assert [values["pixels"] for values in result["per_class"].values()] == [4, 4, 6, 0, 0]
    # the image alone: the same, since there is no other
    assert metric.images == {"a": (11, 14, result["mean_iou"])}


def test_classes_are_pooled_over_images_and_not_averaged_per_image() -> None:
    small = (torch.zeros(1, 1, dtype=torch.uint8), torch.ones(1, 1, dtype=torch.uint8))
    large = (torch.ones(1, 9, dtype=torch.uint8), torch.ones(1, 9, dtype=torch.uint8))
    assert measured([small, large])["per_class"]["cat"]["iou"] == pytest.approx(9 / 10)


def test_ground_truth_against_itself_is_perfect() -> None:
    result = measured([(truth, truth) for _, truth in random_pairs(3)])
    names = ("mean_iou", "pixel_accuracy", "mean_class_accuracy", "frequency_weighted_iou")
    assert [result[name] for name in names] == [1, 1, 1, 1]


@pytest.mark.parametrize("pairs", [[], [(torch.zeros(2, 2).byte(), torch.full((2, 2), VOID).byte())]])
def test_with_everything_ignored_there_is_no_number(pairs: list[tuple[Tensor, Tensor]]) -> None:
    result = measured(pairs)
    assert {value for name, value in result.items() if name != "per_class"} == {None}
    assert all(values == {"iou": None, "accuracy": None, "pixels": 0} for values in result["per_class"].values())


def test_a_prediction_of_nothing_but_void_is_all_wrong() -> None:
    result = measured([(torch.full((2, 2), VOID).byte(), torch.zeros(2, 2).byte())])
    assert (result["mean_iou"], result["pixel_accuracy"]) == (0, 0)


def test_parts_merge_to_exactly_the_whole_in_any_order() -> None:
    pairs = [pair for seed in range(4) for pair in random_pairs(seed)]
    names = [f"image {index}" for index in range(len(pairs))]
    whole = MeanIoU(LABELS)
    for name, (predicted, truth) in zip(names, pairs, strict=True):
        whole.update(Annotation(semantic=predicted), Annotation(semantic=truth), id=name)
    shuffled = list(zip(names, pairs, strict=True))
    random.Random(0).shuffle(shuffled)
    parts = [MeanIoU(LABELS), MeanIoU(LABELS), MeanIoU(LABELS)]
    for place, (name, (predicted, truth)) in enumerate(shuffled):
        part = parts[min(place // 4, 2)]
        part.update(Annotation(semantic=predicted), Annotation(semantic=truth), id=name)
    joined = MeanIoU(LABELS)
    for part in reversed(parts):
        joined.merge(part)
    assert joined.compute() == whole.compute()
    assert torch.equal(joined.confusion, whole.confusion)
    assert joined.images == whole.images


def test_an_image_is_counted_once() -> None:
    metric, other = MeanIoU(LABELS), MeanIoU(LABELS)
    one = maps([[0, 1]])
    metric.update(one, one, id="a")
    before = metric.compute()
    with pytest.raises(DataError, match="image 'a' was evaluated before"):
        metric.update(one, one, id="a")
    other.update(one, one, id="b")
    other.update(one, one, id="a")
    with pytest.raises(DataError, match="image 'a' is in both parts"):
        metric.merge(other)
    assert metric.compute() == before


def test_frames_of_clips_are_told_apart() -> None:
    metric = MeanIoU(LABELS)
    one = maps([[0, 1]])
    for clip, frame in (("x", 0), ("x", 1), ("y", 0), (None, None)):
        metric.update(one, one, id="a", clip=clip, frame=frame)
    assert list(metric.images) == ["x/0/a", "x/1/a", "y/0/a", "a"]
    with pytest.raises(DataError, match="image 'x/1/a' was evaluated before"):
        metric.update(one, one, id="a", clip="x", frame=1)


@pytest.mark.parametrize(
    ("predicted", "truth", "text"),
    [
        (maps([[0, 1]]), maps([[0], [1]]), "the prediction is 1×2, the ground truth 2×1"),
        (maps([[0, 5]]), maps([[0, 1]]), "class 5 in the prediction is not one of the 5 of 'five'"),
        (maps([[0, 1]]), maps([[0, 254]]), "class 254 in the ground truth"),
        (Annotation(semantic=torch.tensor([[-3]], dtype=torch.int32)), maps([[0]]), "class -3 in the prediction"),
        (Annotation(saliency=torch.zeros(1, 1)), maps([[0]]), "the prediction has no class map"),
        (maps([[0]]), Annotation(), "the ground truth has no class map"),
    ],
)
def test_what_cannot_be_counted_is_refused_and_leaves_no_trace(
    predicted: Annotation, truth: Annotation, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mean_iou, "SLAB_PIXELS", 1)  # so that the first pixel was counted before the fault is met
    metric = MeanIoU(LABELS)
    with pytest.raises(DataError, match=f"^image 'a': .*{text}"):
        metric.update(predicted, truth, id="a")
    assert not metric.confusion.any()
    assert metric.images == {}


def test_metrics_of_other_classes_do_not_merge() -> None:
    with pytest.raises(DataError, match="label sets differ"):
        MeanIoU(LABELS).merge(MeanIoU(LabelSet.from_names("other", ["a"])))


def state_bytes(metric: MeanIoU) -> int:
    tensors = [value for value in vars(metric).values() if isinstance(value, Tensor)]
    assert tensors
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def test_the_state_does_not_grow_with_the_size_of_the_images() -> None:
    metrics = {}
    for size in ((10, 10), (2000, 3000)):
        metric = metrics[size] = MeanIoU(LABELS)
        one = Annotation(semantic=torch.zeros(size, dtype=torch.uint8))
        metric.update(one, one, id="a")
        assert metric.images == {"a": (math.prod(size), math.prod(size), 1.0)}
    small, large = metrics.values()
    assert state_bytes(small) == state_bytes(large) == 8 * len(LABELS) * (len(LABELS) + 1 + 3)


def test_each_image_has_a_row_of_its_own() -> None:
    pairs = random_pairs(6)
    metric = MeanIoU(LABELS)
    for index, (predicted, truth) in enumerate(pairs):
        metric.update(Annotation(semantic=predicted), Annotation(semantic=truth), id=str(index))
    for index, pair in enumerate(pairs):
        alone = slow_formula([pair], len(LABELS))
        evaluated = int((pair[1] != VOID).sum())
        assert metric.images[str(index)] == (
            round(alone["pixel_accuracy"] * evaluated),
            evaluated,
            pytest.approx(alone["mean_iou"]),
        )
    void = torch.full((2, 2), VOID).byte()
    metric.update(Annotation(semantic=void), Annotation(semantic=void), id="void")
    assert metric.images["void"] == (0, 0, None)
    rows = [*metric.images.values()]
    assert sorted(rows, key=lambda row: row.badness)[-1] is rows[-1]


def test_the_state_travels_through_json_unchanged() -> None:
    metric = MeanIoU(LABELS)
    for index, (predicted, truth) in enumerate(random_pairs(9)):
        metric.update(Annotation(semantic=predicted), Annotation(semantic=truth), id=f"ä/{index}")
    state = json.loads(json.dumps(metric.state()))
    again = MeanIoU.from_state(LABELS, "voc", state)
    assert again.compute() == metric.compute()
    assert again.images == metric.images
    assert torch.equal(again.confusion, metric.confusion)
    with pytest.raises(DataError, match="image 'ä/1' was evaluated before"):
        again.update(maps([[0]]), maps([[0]]), id="ä/1")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"confusion": [[0] * 6] * 4}, "state.confusion: expected 5 rows of 6 counts"),
        ({"confusion": [[0] * 6] * 4 + [[0, 0, 0, 0, 0, -1]]}, "state.confusion: expected 5 rows of 6 counts"),
        ({"confusion": [[0, 1], [2]]}, "state.confusion: expected 5 rows of 6 counts"),
        ({"objects": [[0] * 3]}, "state.objects: expected 5 rows of 3 counts"),
        ({"images": {}}, r"0 pixels in its images, 2 in its confusion matrix"),
    ],
)
def test_a_state_that_cannot_be_is_refused(changes: dict[str, Any], text: str) -> None:
    metric = MeanIoU(LABELS)
    metric.update(maps([[0, 1]]), maps([[0, 2]]), id="a")
    with pytest.raises(DataError, match=text):
        MeanIoU.from_state(LABELS, "voc", {**metric.state(), **changes})
