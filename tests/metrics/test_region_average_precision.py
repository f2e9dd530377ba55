from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from pixelwise.errors import DataError, RecipeError
from pixelwise.labels import LabelSet
from pixelwise.metrics.region_average_precision import RegionAveragePrecision, average_precision
from pixelwise.types import Annotation, Instances, Masks

LABELS = LabelSet.from_names("two", ["background", "cat", "dog"])


def annotation(rows: list[tuple[int, str, float]], *, crowd: list[bool] | None = None) -> Annotation:
    """Objects of one row of pixels: class id, pixels as `x` and `.`, score."""
    width = len(rows[0][1]) if rows else 10
    dense = np.array([[letter == "x" for letter in pixels] for _, pixels, _ in rows]).reshape(-1, 1, width)
    masks = Masks.from_arrays(list(dense), (1, width))
    return Annotation(
        instances=Instances(
            boxes=masks.boxes.float(),
            labels=torch.tensor([label for label, _, _ in rows], dtype=torch.int64),
            masks=masks,
            scores=torch.tensor([score for _, _, score in rows]),
            crowd=None if crowd is None else torch.tensor(crowd),
        )
    )


def evaluated(pairs: list[tuple[Annotation, Annotation]], definition: str = "region") -> dict:
    metric = RegionAveragePrecision(LABELS, definition)
    for index, (predicted, truth) in enumerate(pairs):
        metric.update(predicted, truth, id=str(index))
    return metric.compute()


def test_average_precision_by_hand() -> None:
    # precision 1, 1/2, 2/3, 2/4, 3/5 at recalls 1/4, 1/4, 2/4, 2/4, 3/4: the curve's steps are 1, 2/3 and 3/5
    assert average_precision([True, False, True, False, True], 4) == pytest.approx((1 + 2 / 3 + 3 / 5) / 4)
    # a later, higher precision counts for the recall before
    assert average_precision([False, True, True], 2) == pytest.approx(2 / 3)
    assert average_precision([], 3) == 0
    assert average_precision([False, False], 3) == 0
    assert average_precision([True], 0) is None


def test_overlaps_are_of_regions() -> None:
    truth = annotation([(1, "xxxx......", 1.0)])
    predicted = annotation([(1, "xxx..x....", 0.9)])  # 3 of 5: more than 0.5, less than 0.7
    result = evaluated([(predicted, truth)])
    assert result["region_ap_50"] == 1
    assert result["region_ap_70"] == 0
    assert result["region_ap_vol"] == pytest.approx(5 / 9)  # strict: 0.6 is not more than 0.6
    assert evaluated([(predicted, truth)], "region-2015")["region_ap_vol"] == pytest.approx(6 / 9)
    assert result["per_class"]["dog"] == {
        "region_ap_50": None,
        "region_ap_70": None,
        "region_ap_vol": None,
        "objects": 0,
    }


def test_the_two_codes_differ_where_the_best_object_is_taken() -> None:
    truth = annotation([(1, "xxxxxx....", 1.0), (1, ".xxxxxxxx.", 1.0)])  # they overlap each other
    # the second detection overlaps the first object by 6/7, the other one by 6/9
    predicted = annotation([(1, "xxxxxx....", 0.9), (1, "xxxxxxx...", 0.8)])
    assert evaluated([(predicted, truth)])["region_ap_50"] == 1
    assert evaluated([(predicted, truth)], "region-2015")["region_ap_50"] == pytest.approx(0.5)


def test_a_second_detection_of_an_object_is_wrong() -> None:
    truth = annotation([(1, "xxxx......", 1.0), (1, ".....xxxx.", 1.0)])
    predicted = annotation([(1, "xxxx......", 0.9), (1, "xxxx......", 0.8), (1, ".....xxxx.", 0.7)])
    for definition in ("region", "region-2015"):
        assert evaluated([(predicted, truth)], definition)["region_ap_50"] == pytest.approx((1 + 2 / 3) / 2)


def test_what_lies_on_a_crowd_is_ignored() -> None:
    truth = annotation([(1, "xxxx......", 1.0), (1, "....xxxxxx", 1.0)], crowd=[False, True])
    predicted = annotation([(1, ".....xx...", 0.9), (1, "xxxx......", 0.8)])
    result = evaluated([(predicted, truth)])
    assert result["region_ap_50"] == 1
    assert result["per_class"]["cat"]["objects"] == 1
    other_class = annotation([(2, ".....xx...", 0.9), (1, "xxxx......", 0.8)])
    assert evaluated([(other_class, truth)])["region_ap_50"] == 1  # no dogs: no AP for them


def slow(pairs: list[tuple[Annotation, Annotation]], label: int, threshold: float, definition: str) -> float | None:
    """All detections of a class in one list, dense masks, the curve's area by its definition."""
    ranked = sorted(
        (-float(predicted.instances.scores[index]), image, index)
        for image, (predicted, _) in enumerate(pairs)
        for index in (predicted.instances.labels == label).nonzero().flatten().tolist()
    )
    objects = sum(int((truth.instances.labels == label).sum()) for _, truth in pairs)
    if not objects:
        return None
    covered: set[tuple[int, int]] = set()
    curve: list[tuple[float, float]] = []
    hits = 0
    for rank, (_, image, index) in enumerate(ranked, start=1):
        predicted, truth = pairs[image]
        mask = predicted.instances.masks.dense()[index]
        overlaps: list[tuple[float, int]] = []
        for other in (truth.instances.labels == label).nonzero().flatten().tolist():
            one = truth.instances.masks.dense()[other]
            if definition == "region-2015" or (image, other) not in covered:
                overlaps.append((int((mask & one).sum()) / int((mask | one).sum()), other))
        best = max(overlaps, key=lambda pair: (pair[0], -pair[1]), default=(0.0, -1))
        enough = best[0] >= threshold if definition == "region-2015" else best[0] > threshold
        if enough and (image, best[1]) not in covered:
            covered.add((image, best[1]))
            hits += 1
        curve.append((hits / objects, hits / rank))
    area, last = 0.0, 0.0
    for recall in sorted({recall for recall, _ in curve}):
        area += (recall - last) * max(precision for other, precision in curve if other >= recall)
        last = recall
    return area


@pytest.mark.parametrize("definition", ["region", "region-2015"])
def test_it_is_the_slow_formula(definition: str) -> None:
    generator = np.random.default_rng(5)

    def rows(count: int) -> list[tuple[int, str, float]]:
        made = []
        for _ in range(count):
            start, length = int(generator.integers(0, 20)), int(generator.integers(3, 12))
            pixels = "".join("x" if start <= place < start + length else "." for place in range(32))
            made.append((int(generator.integers(1, 3)), pixels, float(generator.integers(1, 10_000)) / 10_000))
        return made

    pairs = [(annotation(rows(12)), annotation(rows(5))) for _ in range(6)]
    result = evaluated(pairs, definition)
    for label, name in ((1, "cat"), (2, "dog")):
        for key, threshold in (("region_ap_50", 0.5), ("region_ap_70", 0.7)):
            assert result["per_class"][name][key] == pytest.approx(slow(pairs, label, threshold, definition))
        volume = [slow(pairs, label, step / 10, definition) for step in range(1, 10)]
        assert result["per_class"][name]["region_ap_vol"] == pytest.approx(sum(volume) / 9)
    assert 0.05 < result["region_ap_50"] < 0.95


def test_images_without_objects_cost_what_is_found_in_them() -> None:
    found, nothing = annotation([(1, "xxxx......", 0.9)]), annotation([])
    truth = annotation([(1, "xxxx......", 1.0)])
    worse = annotation([(1, "xxxx......", 0.5)])
    assert evaluated([(nothing, nothing)])["region_ap_50"] is None
    assert evaluated([(nothing, truth)])["region_ap_50"] == 0
    assert evaluated([(found, nothing), (worse, truth)])["region_ap_50"] == pytest.approx(0.5)


def test_its_state_passes_json() -> None:
    metric = RegionAveragePrecision(LABELS)
    metric.update(annotation([(1, "xxx.......", 0.9)]), annotation([(1, "xxxx......", 1.0)]), id="a")
    state = json.loads(json.dumps(metric.state()))
    again = RegionAveragePrecision.from_state(LABELS, "region", state)
    assert again.images == metric.images
    assert again.compute() == metric.compute()
    with pytest.raises(DataError, match="counts of instances"):
        RegionAveragePrecision.from_state(LABELS, "region", {"images": {"a": [[1], []]}})
    with pytest.raises(DataError, match=r"state\.images\.a\.0: "):
        RegionAveragePrecision.from_state(LABELS, "region", {"images": {"a": [1, 2]}})


def test_each_image_has_a_row_of_its_own() -> None:
    truth = annotation([(1, "xxxx......", 1.0), (1, ".....xxxx.", 1.0)])
    metric = RegionAveragePrecision(LABELS)
    # one object of two found, by a detection that counts; a sure one is wrong, an unsure one is not asked
    found = annotation([(1, "xxxx......", 0.9), (2, ".....xxxx.", 0.8), (1, ".....xxxx.", 0.4)])
    for id, predicted, expected in (("a", found, truth), ("b", truth, truth), ("c", annotation([]), annotation([]))):
        metric.update(predicted, expected, id=id)
    assert metric.images["a"].row() == {"f1": 2 * 1 / (2 + 2), "objects": 2, "detections": 3}
    assert metric.images["a"].caption() == "F1 0.500 · 2 instances, 2 detected with a score from 0.5"
    assert sorted(metric.images, key=lambda id: metric.images[id].badness) == ["a", "b", "c"]
    assert metric.images["c"].f1 is None


def test_what_cannot_be_evaluated_is_refused() -> None:
    with pytest.raises(RecipeError, match="definition '2016'"):
        RegionAveragePrecision(LABELS, "2016")
    metric, other = RegionAveragePrecision(LABELS), RegionAveragePrecision(LABELS, "region-2015")
    with pytest.raises(DataError, match=r"region, another by region-2015"):
        metric.merge(other)
    truth = annotation([(1, "xxxx......", 1.0)])
    with pytest.raises(DataError, match="image 'a': the prediction has no instance masks"):
        metric.update(Annotation(), truth, id="a")
    with pytest.raises(DataError, match="image 'a': the ground truth has no instance masks"):
        metric.update(truth, Annotation(), id="a")
    with pytest.raises(DataError, match="image 'a': class 4 in the ground truth"):
        metric.update(truth, annotation([(4, "xxxx......", 1.0)]), id="a")
    assert not metric.images
