"""PQ against maps worked by hand, a second formula over sets of pixels, and real maps."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pixelwise.errors import DataError, RecipeError
from pixelwise.labels import LabelSet
from pixelwise.metrics.panoptic_quality import PanopticQuality
from pixelwise.types import Annotation, Panoptic
from tests.metrics.segments import LABELS, moved, random_segments, segments, slow_counts, slow_quality
from tests.shared_data import require

SKY, CAT, DOG = range(3)


def evaluated(*pairs: tuple[Annotation, Annotation], labels: LabelSet = LABELS) -> dict[str, Any]:
    """The metric of (prediction, ground truth) pairs."""
    metric = PanopticQuality(labels)
    for index, (predicted, truth) in enumerate(pairs):
        metric.update(predicted, truth, id=str(index))
    return metric.compute()


def counts_of(result: dict[str, Any], name: str) -> tuple[int, int, int]:
    return tuple(result["per_class"][name][kind] for kind in ("tp", "fp", "fn"))


def test_a_map_worked_by_hand() -> None:
    truth = segments([[1, 1, 2, 2], [1, 1, 2, 2], [1, 1, 3, 3], [1, 1, 3, 3]], {1: SKY, 2: CAT, 3: CAT})
    predicted = segments([[7, 7, 8, 8], [7, 7, 8, 8], [7, 7, 8, 9], [7, 9, 9, 9]], {7: SKY, 8: CAT, 9: DOG})
    # sky: 7 of 8 shared, union 8.  cat 2 and 8: 4 shared, union 5.  cat 3: no cat has more than one half of it.
    # dog: predicted where there is none
    result = evaluated((predicted, truth))
    assert counts_of(result, "sky") == (1, 0, 0)
    assert counts_of(result, "cat") == (1, 0, 1)
    assert counts_of(result, "dog") == (0, 1, 0)
    sky, cat = 7 / 8, 4 / 5
    assert result["per_class"]["cat"]["sq"] == pytest.approx(cat)
    assert result["per_class"]["cat"]["rq"] == pytest.approx(1 / 1.5)
    assert result["per_class"]["cat"]["pq"] == pytest.approx(cat / 1.5)
    assert result["pq"] == pytest.approx((sky + cat / 1.5 + 0) / 3)
    assert result["sq"] == pytest.approx((sky + cat + 0) / 3)
    assert result["rq"] == pytest.approx((1 + 1 / 1.5 + 0) / 3)
    assert (result["pq_stuff"], result["sq_stuff"], result["rq_stuff"]) == (sky, sky, 1)
    assert result["pq_things"] == pytest.approx(cat / 1.5 / 2)


def test_an_iou_of_one_half_is_no_match() -> None:
    truth = segments([[1, 1, 1, 1], [2, 2, 2, 2]], {1: CAT, 2: SKY})
    half = segments([[5, 5, 6, 6], [6, 6, 6, 6]], {5: CAT, 6: SKY})  # cat: 2 of 4; sky: 4 of 6
    assert counts_of(evaluated((half, truth)), "cat") == (0, 1, 1)
    assert counts_of(evaluated((half, truth)), "sky") == (1, 0, 0)
    more = segments([[5, 5, 5, 6], [6, 6, 6, 6]], {5: CAT, 6: SKY})
    assert counts_of(evaluated((more, truth)), "cat") == (1, 0, 0)


def test_void_is_taken_from_what_is_predicted() -> None:
    truth = segments([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [2, 2, 2, 2]], {1: CAT, 2: SKY})
    predicted = segments([[4, 4, 4, 4], [4, 4, 4, 4], [4, 4, 4, 4], [5, 5, 5, 5]], {4: CAT, 5: SKY})
    # 4 of 12 pixels, but 8 of those are void: IoU 4 / 4
    assert evaluated((predicted, truth))["pq"] == 1


def test_what_lies_more_than_half_on_void_is_no_error() -> None:
    truth = segments([[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 1, 1], [0, 0, 1, 1]], {1: SKY})
    classes = {1: SKY, 5: CAT}
    half = segments([[1, 1, 1, 1], [1, 1, 1, 1], [1, 5, 5, 1], [1, 5, 5, 1]], classes)
    more = segments([[1, 1, 1, 1], [1, 1, 5, 1], [1, 5, 5, 1], [1, 5, 5, 1]], classes)
    assert counts_of(evaluated((half, truth)), "cat") == (0, 1, 0)  # 2 of 4 pixels are void
    assert counts_of(evaluated((more, truth)), "cat") == (0, 0, 0)  # 3 of 5 are


def test_a_crowd_is_neither_found_nor_missed() -> None:
    truth = segments([[1, 1, 2, 2], [1, 1, 2, 2], [1, 1, 3, 3], [1, 1, 3, 3]], {1: SKY, 2: CAT, 3: CAT}, crowd=(2,))
    on_crowd = segments([[1, 1, 8, 8], [1, 1, 8, 8], [1, 1, 3, 3], [1, 1, 3, 3]], {1: SKY, 8: CAT, 3: CAT})
    assert counts_of(evaluated((on_crowd, truth)), "cat") == (1, 0, 0)
    missed = segments([[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 3, 3], [1, 1, 3, 3]], {1: SKY, 3: CAT})
    assert counts_of(evaluated((missed, truth)), "cat") == (1, 0, 0)
    # a dog on a crowd of cats is wrong, and so is a cat of which no more than half lies on it
    dog = segments([[1, 1, 8, 8], [1, 1, 8, 8], [1, 1, 3, 3], [1, 1, 3, 3]], {1: SKY, 8: DOG, 3: CAT})
    assert counts_of(evaluated((dog, truth)), "dog") == (0, 1, 0)
    half = segments([[1, 8, 8, 0], [1, 8, 8, 0], [1, 1, 3, 3], [1, 1, 3, 3]], {1: SKY, 8: CAT, 3: CAT})
    assert counts_of(evaluated((half, truth)), "cat") == (1, 1, 0)


def test_void_and_all_crowds_of_the_class_count_together() -> None:
    truth = segments([[1, 2, 0, 3], [3, 3, 3, 3]], {1: CAT, 2: CAT, 3: SKY}, crowd=(1, 2))
    predicted = segments([[9, 9, 9, 9], [9, 3, 3, 3]], {9: CAT, 3: SKY})
    # 1 + 1 pixels on crowds and 1 in void of 5
    assert counts_of(evaluated((predicted, truth)), "cat") == (0, 0, 0)


def test_id_0_is_void_and_so_is_what_has_no_entry_or_no_class() -> None:
    truth = segments([[0, 0, 1, 1], [1, 1, 1, 1]], {1: SKY})
    assert evaluated((truth, truth))["pq"] == 1
    assert counts_of(evaluated((truth, truth)), "sky") == (1, 0, 0)
    for other in (
        segments([[77, -5, 1, 1], [1, 1, 1, 1]], {1: SKY}),
        segments([[4, 4, 1, 1], [1, 1, 1, 1]], {1: SKY, 4: 255}),
    ):
        result = evaluated((segments([[1, 1, 1, 1], [1, 1, 1, 1]], {1: SKY}), other))
        assert result["pq"] == 1
        assert evaluated((other, truth))["pq"] == 1


def test_classes_without_segments_are_skipped_and_segments_without_pixels_are_none() -> None:
    truth = segments([[1, 1], [1, 1]], {1: SKY, 2: CAT})
    predicted = segments([[3, 3], [3, 3]], {3: SKY, 9: DOG})
    result = evaluated((predicted, truth))
    assert result["pq"] == 1
    assert result["pq_things"] is None
    assert result["per_class"]["dog"] == {"pq": None, "sq": None, "rq": None, "tp": 0, "fp": 0, "fn": 0}


def test_counts_are_pooled_and_not_averaged_over_images() -> None:
    full = segments([[1, 1]], {1: CAT})
    nothing = segments([[0, 0]], {})
    dog = segments([[1, 1]], {1: DOG})
    result = evaluated((full, full), (nothing, full), (nothing, full), (dog, dog))
    assert result["per_class"]["cat"]["pq"] == pytest.approx(1 / 2)  # 1 / (1 + 2 / 2)
    assert result["pq"] == pytest.approx((1 / 2 + 1) / 2)


@pytest.mark.parametrize("seed", range(12))
def test_it_is_the_slow_formula(seed: int) -> None:
    generator = np.random.default_rng(seed)
    names = [[1, 2, 3, 4, 5, 6], [3, 1000, 70_000, 2**24 - 1, 9, 2**31 - 1]][seed % 2]
    pairs = []
    for _ in range(4):
        size = (int(generator.integers(1, 14)), int(generator.integers(1, 14)))
        truth = random_segments(generator, size, names=names, classes=3, crowd=True)
        pairs.append((moved(truth, generator, [11, 5, 80_000, 40, 2, 900]), truth))
    result = evaluated(*pairs)
    counts: dict[int, list[float]] = {}
    for predicted, truth in pairs:
        for label, row in slow_counts([predicted], [truth]).items():
            counts[label] = [a + b for a, b in zip(counts.get(label, [0, 0, 0, 0.0]), row, strict=True)]
    for suffix, members in (("", (SKY, CAT, DOG)), ("_things", (CAT, DOG)), ("_stuff", (SKY,))):
        for name, value in slow_quality(counts, members).items():
            assert result[f"{name}{suffix}"] == pytest.approx(value, abs=1e-12)
    for label, name in enumerate(LABELS.names):
        row = counts.get(label, [0, 0, 0, 0.0])
        assert counts_of(result, name) == tuple(row[:3])
    assert any(row[0] for row in counts.values())


def usual_counts(predicted: Annotation, truth: Annotation) -> dict[int, list[float]]:
    """PQ's counts as they are usually made, for real maps: sorted unique joint ids, and a loop over the pairs."""
    maps = [side.panoptic.ids.numpy().astype(np.int64) for side in (truth, predicted)]
    joint, pixels = np.unique(maps[0] * 2**32 + maps[1], return_counts=True)
    shared = {(int(one) >> 32, int(one) & 2**32 - 1): int(count) for one, count in zip(joint, pixels, strict=True)}
    areas = [dict(zip(*(part.tolist() for part in np.unique(side, return_counts=True)), strict=True)) for side in maps]
    sides = [
        dict(zip(side.panoptic.segment_ids.tolist(), side.panoptic.labels.tolist(), strict=True))
        for side in (truth, predicted)
    ]
    crowds = {
        id for id, many in zip(truth.panoptic.segment_ids.tolist(), truth.panoptic.crowd.tolist(), strict=True) if many
    }
    counts: dict[int, list[float]] = {}
    done: tuple[set[int], set[int]] = (set(), set())
    for (wanted, found), pixels_shared in shared.items():
        if not wanted or not found or wanted in crowds or sides[0][wanted] != sides[1][found]:
            continue
        union = areas[0][wanted] + areas[1][found] - pixels_shared - shared.get((0, found), 0)
        if pixels_shared / union > 0.5:
            row = counts.setdefault(sides[0][wanted], [0, 0, 0, 0.0])
            row[0] += 1
            row[3] += pixels_shared / union
            done[0].add(wanted)
            done[1].add(found)
    for wanted in areas[0].keys() - done[0] - crowds - {0}:
        counts.setdefault(sides[0][wanted], [0, 0, 0, 0.0])[2] += 1
    for found in areas[1].keys() - done[1] - {0}:
        free = [0, *(crowd for crowd in crowds if sides[0][crowd] == sides[1][found])]
        if sum(shared.get((one, found), 0) for one in free) / areas[1][found] <= 0.5:
            counts.setdefault(sides[1][found], [0, 0, 0, 0.0])[1] += 1
    return counts


def shifted(annotation: Annotation, pixels: int) -> Annotation:
    """The map moved to the right, so that it is a fairly good prediction, under other ids."""
    panoptic = annotation.panoptic
    ids = np.roll(panoptic.ids.numpy(), pixels, axis=1)
    again = {id: place + 1 for place, id in enumerate(panoptic.segment_ids.tolist())}
    table = np.vectorize(lambda id: again.get(int(id), 0))
    unique, place = np.unique(ids, return_inverse=True)
    ids = table(unique)[place.reshape(ids.shape)]
    return segments(ids, dict(enumerate(panoptic.labels.tolist(), start=1)))


def real_pairs() -> tuple[LabelSet, list[tuple[Annotation, Annotation]]]:
    """The two COCO panoptic images, whose ids are sparse, with their ground truth shifted as a prediction."""
    folder = require("coco_panoptic_sample")
    content = json.loads((folder / "panoptic_examples.json").read_text())
    categories = content["categories"]
    order = {entry["id"]: place for place, entry in enumerate(categories)}
    labels = LabelSet(
        "coco panoptic",
        tuple(entry["name"] for entry in categories),
        tuple(bool(entry["isthing"]) for entry in categories),
        ((0, 0, 0),) * len(categories),
        tuple(range(len(categories))),
    )
    pairs = []
    for annotation in content["annotations"]:
        rgb = np.asarray(Image.open(folder / "panoptic_examples" / annotation["file_name"])).astype(np.int64)
        ids = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
        classes = {one["id"]: order[one["category_id"]] for one in annotation["segments_info"]}
        crowds = [one["id"] for one in annotation["segments_info"] if one["iscrowd"]]
        truth = segments(ids, classes, crowds)
        pairs.append((shifted(truth, 12), truth))
    return labels, pairs


def test_real_coco_maps() -> None:
    labels, pairs = real_pairs()
    for pair in pairs:
        result, counts = evaluated(pair, labels=labels), usual_counts(*pair)
        assert result["pq"] == pytest.approx(slow_quality(counts, range(len(labels)))["pq"], abs=1e-12)
        assert 0.1 < result["pq"] < 1
        for label, name in enumerate(labels.names):
            assert counts_of(result, name) == tuple(counts.get(label, [0, 0, 0])[:3])


def test_real_kitti_step_maps() -> None:
    folder = require("kitti_step") / "panoptic_maps" / "val" / "0000"
    labels = LabelSet(
        "step", tuple(f"class {i}" for i in range(19)), (False,) * 19, ((0, 0, 0),) * 19, tuple(range(19))
    )
    maps = []
    for path in sorted(folder.glob("*.png"))[:4]:
        rgb = np.asarray(Image.open(path)).astype(np.int64)
        ids = np.where(rgb[..., 0] == 255, 0, 1 + (rgb[..., 0] << 16) + (rgb[..., 1] << 8) + rgb[..., 2])
        maps.append(segments(ids, {int(id): int(id - 1) >> 16 for id in np.unique(ids) if id}))
    for predicted, truth in pairwise(maps):  # the frame before as a prediction
        result, counts = evaluated((predicted, truth), labels=labels), usual_counts(predicted, truth)
        expected = slow_quality(counts, range(19))
        assert {name: result[name] for name in expected} == pytest.approx(expected, abs=1e-12)
        assert 0.1 < result["pq"] < 1


def test_parts_merge_to_the_same_bits_and_its_state_passes_json() -> None:
    generator = np.random.default_rng(3)
    images = []
    for number in range(9):
        truth = random_segments(generator, (13, 17), names=[1, 2, 3, 4, 5], classes=3)
        images.append((f"image {number}", moved(truth, generator, [6, 7, 8, 9, 10]), truth))
    whole, parts = PanopticQuality(LABELS), [PanopticQuality(LABELS) for _ in range(3)]
    for id, predicted, truth in images:
        whole.update(predicted, truth, id=id)
    random.Random(0).shuffle(images)
    for place, (id, predicted, truth) in enumerate(images):
        parts[place % 3].update(predicted, truth, id=id)
    joined = PanopticQuality(LABELS)
    for part in parts:
        joined.merge(PanopticQuality.from_state(LABELS, "panoptic", json.loads(json.dumps(part.state()))))
    assert joined.compute() == whole.compute()
    assert joined.images == whole.images


def test_each_image_has_a_row_of_its_own() -> None:
    truth = segments([[1, 1, 2, 2], [1, 1, 2, 2]], {1: SKY, 2: CAT})
    wrong = segments([[1, 1, 2, 2], [1, 1, 2, 2]], {1: SKY, 2: DOG})
    nothing = segments([[0, 0]], {})
    metric = PanopticQuality(LABELS)
    for id, predicted, expected in (("good", truth, truth), ("bad", wrong, truth), ("void", nothing, nothing)):
        metric.update(predicted, expected, id=id)
    assert sorted(metric.images, key=lambda id: metric.images[id].badness) == ["bad", "good", "void"]
    assert metric.images["bad"].row() == {"pq": 1 / 3, "sq": 1 / 3, "rq": 1 / 3, "tp": 1, "fp": 1, "fn": 1}
    assert metric.images["bad"].caption() == "PQ 0.333 · 1 of 2 segments matched, 1 false positive"
    assert metric.images["void"].row()["pq"] is None


@pytest.mark.parametrize(
    ("predicted", "truth", "text"),
    [
        (segments([[1, 1]], {1: CAT}), segments([[1], [1]], {1: CAT}), "the prediction is 1×2, the ground truth 2×1"),
        (segments([[1]], {1: 3}), segments([[1]], {1: CAT}), "the prediction has a segment 1 of class 3"),
        (segments([[1]], {1: CAT}), segments([[4]], {4: -1}), "the ground truth has a segment 4 of class -1"),
        (segments([[1]], {-4: CAT}), segments([[1]], {1: CAT}), "the prediction has a segment of the id -4"),
        (Annotation(), segments([[1]], {1: CAT}), "the prediction has no segments"),
        (
            segments([[1]], {1: CAT}),
            Annotation(semantic=torch.zeros(1, 1).byte()),
            "the ground truth has no segments",
        ),
    ],
)
def test_what_cannot_be_counted_is_refused(predicted: Annotation, truth: Annotation, text: str) -> None:
    metric = PanopticQuality(LABELS)
    with pytest.raises(DataError, match=f"^image 'a': {text}"):
        metric.update(predicted, truth, id="a")
    assert metric.images == {}


def test_impossible_states_and_definitions_are_refused() -> None:
    with pytest.raises(RecipeError, match="definition 'voc'"):
        PanopticQuality(LABELS, "voc")
    for row in ([3, 1, 0, 0, 1.0], [0, -1, 0, 0, 0.0], [0, 1, 0, 0, 1.5], [0, 2, 0, 0, 0.3]):
        with pytest.raises(DataError, match=r"state\.images\.a: an impossible class or counts"):
            PanopticQuality.from_state(LABELS, "panoptic", {"images": {"a": [[row]]}})
    with pytest.raises(DataError, match=r"state\.images"):
        PanopticQuality.from_state(LABELS, "panoptic", {})
    one = segments([[1]], {1: CAT})
    panoptic = one.panoptic
    twice = Panoptic(panoptic.ids, panoptic.segment_ids.repeat(2), panoptic.labels.repeat(2), panoptic.crowd.repeat(2))
    with pytest.raises(DataError, match="a segment of the id 1 twice"):
        PanopticQuality(LABELS).update(Annotation(panoptic=twice), one, id="a")
