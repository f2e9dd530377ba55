"""Mean IoU by ADE20K's and Cityscapes' definitions: slow formulas, maps worked by hand, and the official tool."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pixelwise.errors import DataError, RecipeError
from pixelwise.labels import LabelSet, published
from pixelwise.metrics.cityscapes import CATEGORIES, INSTANCE_SIZES
from pixelwise.metrics.mean_iou import DEFINITIONS, MeanIoU, published_definition
from pixelwise.types import Annotation, Instances, Masks

VOID = 255
BASICS = ["mean_iou", "pixel_accuracy", "mean_class_accuracy", "frequency_weighted_iou"]


def semantic(values: Any) -> Annotation:
    return Annotation(semantic=torch.from_numpy(np.array(values, dtype=np.uint8)))


# ---- ADE20K

ADE = LabelSet.from_names("ade20k", ["wall", "building", "sky", "floor", "tree", "unicorn"])


def ade_score(pairs: Sequence[tuple[np.ndarray, np.ndarray]], classes: int) -> dict[str, float]:
    """The challenge's score, on its own ids: 0 is unlabelled, classes are 1…K; areas are summed over the images."""
    common, either = np.zeros(classes), np.zeros(classes)
    right = labelled = 0
    for predicted, truth in pairs:
        predicted = predicted * (truth > 0)
        for number in range(1, classes + 1):
            common[number - 1] += ((predicted == number) & (truth == number)).sum()
            either[number - 1] += ((predicted == number) | (truth == number)).sum()
        right += ((predicted == truth) & (truth > 0)).sum()
        labelled += (truth > 0).sum()
    mean_iou = (common / (np.spacing(1) + either)).mean()
    pixel_accuracy = right / (np.spacing(1) + labelled)
    return {"mean_iou": mean_iou, "pixel_accuracy": pixel_accuracy, "score": (mean_iou + pixel_accuracy) / 2}


@pytest.mark.parametrize("seed", range(4))
def test_ade20k_is_the_challenges_formula(seed: int) -> None:
    generator = np.random.default_rng(seed)
    pairs = []
    for _ in range(3):
        size = generator.integers(3, 20, 2)
        truth = generator.integers(0, len(ADE), size)  # the last class never occurs
        wrong = generator.integers(0, len(ADE), size)
        pairs.append((np.where(generator.random(size) < 0.6, truth, wrong), truth))
    metric = MeanIoU(ADE, "ade20k")
    for index, pair in enumerate(pairs):
        predicted, truth = (np.where(ids == 0, VOID, ids - 1) for ids in pair)
        metric.update(semantic(predicted), semantic(truth), id=str(index))
    result = metric.compute()
    for name, value in ade_score(pairs, len(ADE)).items():
        assert result[name] == pytest.approx(value, abs=1e-12)
    assert result["per_class"]["unicorn"] == {"iou": 0, "accuracy": None, "pixels": 0}
    voc = MeanIoU(ADE)
    voc.merge(_renamed(metric, "voc"))
    assert voc.compute()["mean_iou"] == pytest.approx(result["mean_iou"] * 6 / 5)


def _renamed(metric: MeanIoU, definition: str) -> MeanIoU:
    return MeanIoU.from_state(metric.labels, definition, metric.state())


def test_ade20k_by_hand() -> None:
    metric = MeanIoU(ADE, "ade20k")
    metric.update(semantic([[0, 0, 1, VOID]]), semantic([[0, 1, 1, 1]]), id="a")
    # wall 1/2, building 1/3, four classes 0
    result = metric.compute()
    assert result["mean_iou"] == pytest.approx((1 / 2 + 1 / 3) / 6)
    assert result["pixel_accuracy"] == pytest.approx(2 / 4)
    assert result["score"] == pytest.approx(((1 / 2 + 1 / 3) / 6 + 2 / 4) / 2)
    assert [name for name in result if name != "per_class"] == [*BASICS, "score"]


def test_ade20k_with_every_pixel_ignored_has_no_score() -> None:
    metric = MeanIoU(ADE, "ade20k")
    metric.update(semantic([[0]]), semantic([[VOID]]), id="a")
    assert {value for name, value in metric.compute().items() if name != "per_class"} == {None}


# ---- Cityscapes

CITY = LabelSet(
    name="cityscapes",
    names=tuple(CATEGORIES),
    is_thing=tuple(name in INSTANCE_SIZES for name in CATEGORIES),
    palette=tuple((index, index, index) for index in range(len(CATEGORIES))),
    dataset_ids=(7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33),
    void_ids=(0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30),
)


@dataclass(frozen=True)
class City:
    """A drawing in Cityscapes' files: ids of classes, ids of objects, and a prediction in ids of classes."""

    label_ids: np.ndarray
    instance_ids: np.ndarray
    predicted_ids: np.ndarray

    @property
    def truth(self) -> Annotation:
        """Objects are the ids from 1000; a region of a class with objects but without such an id is a crowd."""
        things = [id for id, is_thing in zip(CITY.dataset_ids, CITY.is_thing, strict=True) if is_thing]
        ids = [
            int(id)
            for id in np.unique(self.instance_ids)
            if (id >= 1000 and id // 1000 in CITY.dataset_ids) or id in things
        ]
        masks = Masks.from_arrays((self.instance_ids == id for id in ids), self.instance_ids.shape)
        labels = [CITY.dataset_ids.index(id // 1000 if id >= 1000 else id) for id in ids]
        instances = Instances(
            masks.boxes.float(),
            torch.tensor(labels, dtype=torch.int64),
            masks=masks,
            crowd=torch.tensor([id < 1000 for id in ids], dtype=torch.bool),
        )
        return Annotation(semantic=self._classes(self.label_ids), instances=instances)

    @property
    def predicted(self) -> Annotation:
        return Annotation(semantic=self._classes(self.predicted_ids))

    @staticmethod
    def _classes(ids: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(CITY.class_ids(ids, source="drawing"))


def draw_city(seed: int) -> City:
    """Rectangles of classes, objects and crowds on void; the prediction is right on two thirds."""
    generator = np.random.default_rng(seed)
    size = (40, 60)
    label_ids = np.zeros(size, dtype=np.uint8)
    instance_ids = np.zeros(size, dtype=np.uint16)
    classes = generator.choice(range(34), 30)
    for number, id in enumerate(classes):
        y, x = generator.integers(0, size[0] - 6), generator.integers(0, size[1] - 6)
        part = np.s_[y : y + generator.integers(2, 14), x : x + generator.integers(2, 18)]
        has_objects = id in (24, 25, 26, 27, 28, 29, 30, 31, 32, 33)
        label_ids[part] = id
        instance_ids[part] = id * 1000 + number if has_objects and generator.random() < 0.8 else id
    # 29 and 30, classes of objects that are ignored, are never predicted: we have no channel for them
    wrong = generator.choice([*CITY.dataset_ids, 0, 9, 14], size).astype(np.uint8)
    coarse = np.kron(generator.random((10, 15)), np.ones((4, 4))) < 0.66
    truthful = np.where(np.isin(label_ids, (29, 30)), 26, label_ids)
    return City(label_ids, instance_ids, np.where(coarse, truthful, wrong))


def cityscapes_slowly(drawings: Sequence[City]) -> dict[str, Any]:
    """The definition, pixel sets by class and by category."""
    is_evaluated = [np.isin(one.label_ids, CITY.dataset_ids) for one in drawings]

    def iou(ids: list[int]) -> tuple[int, int, int]:
        """True positives, false positives and false negatives of classes taken as one."""
        right = too_much = missed = 0
        for one, evaluated in zip(drawings, is_evaluated, strict=True):
            truth, predicted = np.isin(one.label_ids, ids), np.isin(one.predicted_ids, ids)
            right += int((truth & predicted).sum())
            too_much += int((evaluated & ~truth & predicted).sum())
            missed += int((truth & ~predicted).sum())
        return right, too_much, missed

    def iiou(ids: list[int]) -> float | None:
        right = missed = 0.0
        for one in drawings:
            for instance in np.unique(one.instance_ids[one.instance_ids > 1000]):
                if instance // 1000 not in ids:
                    continue
                mask = one.instance_ids == instance
                name = CITY.names[CITY.dataset_ids.index(instance // 1000)]
                weight = INSTANCE_SIZES[name] / mask.sum()
                right += weight * np.isin(one.predicted_ids[mask], ids).sum()
                missed += weight * (~np.isin(one.predicted_ids[mask], ids)).sum()
        everything = right + missed + iou(ids)[1]
        return right / everything if everything else None

    def ratio(ids: list[int]) -> float | None:
        return iou(ids)[0] / sum(iou(ids)) if sum(iou(ids)) else None

    def mean(values: list[float | None]) -> float:
        known = [value for value in values if value is not None]
        return sum(known) / len(known)

    by_name = {name: [id] for name, id in zip(CITY.names, CITY.dataset_ids, strict=True)}
    categories = {
        category: [by_name[name][0] for name in CITY.names if CATEGORIES[name] == category]
        for category in dict.fromkeys(CATEGORIES.values())
    }
    class_ious = {name: ratio(ids) for name, ids in by_name.items()}
    category_ious = {name: ratio(ids) for name, ids in categories.items()}
    class_iious = {name: iiou(by_name[name]) for name in INSTANCE_SIZES}
    category_iious = {name: iiou(categories[name]) for name in ("human", "vehicle")}
    return {
        "mean_iou": mean([*class_ious.values()]),
        "mean_category_iou": mean([*category_ious.values()]),
        "mean_iiou": mean([*class_iious.values()]),
        "mean_category_iiou": mean([*category_iious.values()]),
        "ious": class_ious,
        "iious": class_iious,
        "category_ious": category_ious,
        "category_iious": category_iious,
    }


def measured(drawings: Sequence[City]) -> dict[str, Any]:
    metric = MeanIoU(CITY, "cityscapes")
    for index, one in enumerate(drawings):
        metric.update(one.predicted, one.truth, id=str(index))
    return metric.compute()


@pytest.mark.parametrize("seed", range(3))
def test_cityscapes_is_the_formula_of_pixel_sets(seed: int) -> None:
    drawings = [draw_city(10 * seed + number) for number in range(3)]
    result, expected = measured(drawings), cityscapes_slowly(drawings)
    for name in ("mean_iou", "mean_category_iou", "mean_iiou", "mean_category_iiou"):
        assert result[name] == pytest.approx(expected[name], abs=1e-11)
        assert 0 < result[name] < 1
    for name, values in result["per_class"].items():
        assert values["iou"] == pytest.approx(expected["ious"][name], abs=1e-11)
        assert values["iiou"] == pytest.approx(expected["iious"].get(name), abs=1e-11)
    for name, values in result["per_category"].items():
        assert values["iou"] == pytest.approx(expected["category_ious"][name], abs=1e-11)
        assert values["iiou"] == pytest.approx(expected["category_iious"].get(name), abs=1e-11)


def test_cityscapes_is_the_official_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    official = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    monkeypatch.setattr(official.np, "in1d", np.isin, raising=False)  # which NumPy no longer has
    monkeypatch.setattr(official.args, "JSONOutput", False)
    monkeypatch.setattr(official.args, "quiet", True)
    drawings = [draw_city(100 + number) for number in range(4)]
    lists: tuple[list[str], list[str]] = ([], [])
    for number, one in enumerate(drawings):
        for place, ids, name in (
            (0, one.predicted_ids, "predicted"),
            (1, one.label_ids, "gtFine_labelIds"),
            (None, one.instance_ids, "gtFine_instanceIds"),
        ):
            path = tmp_path / f"city_{number}_{name}.png"
            Image.fromarray(ids).save(path)
            if place is not None:
                lists[place].append(str(path))
    expected = official.evaluateImgLists(*lists, official.args)
    result = measured(drawings)
    for name, key in (
        ("mean_iou", "averageScoreClasses"),
        ("mean_iiou", "averageScoreInstClasses"),
        ("mean_category_iou", "averageScoreCategories"),
        ("mean_category_iiou", "averageScoreInstCategories"),
    ):
        assert result[name] == pytest.approx(expected[key], abs=1e-11)
    for table, iou, iiou in (
        ("per_class", "classScores", "classInstScores"),
        ("per_category", "categoryScores", "categoryInstScores"),
    ):
        for name, values in result[table].items():
            assert _nan(values["iou"]) == pytest.approx(expected[iou][name], abs=1e-11, nan_ok=True)
            assert _nan(values["iiou"]) == pytest.approx(expected[iiou][name], abs=1e-11, nan_ok=True)
    labels = official_labels()
    assert {one.name: one.category for one in labels if not one.ignoreInEval} == CATEGORIES
    assert {name: official.args.avgClassSize[name] for name in INSTANCE_SIZES} == INSTANCE_SIZES
    assert {one.name for one in labels if one.hasInstances and not one.ignoreInEval} == set(INSTANCE_SIZES)


def official_labels() -> Any:
    return pytest.importorskip("cityscapesscripts.helpers.labels").labels


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


def test_a_cityscapes_map_worked_by_hand() -> None:
    road, person, rider = (CITY.names.index(name) for name in ("road", "person", "rider"))
    truth = np.full((2, 6), road, dtype=np.uint8)
    truth[0, :4] = person  # the first, of 4 pixels
    truth[1, :2] = person  # the second, of 2
    truth[1, 5] = VOID
    predicted = truth.copy()
    predicted[0, 2] = rider  # half of the first is missed, a pixel of it for another human
    predicted[0, 3] = VOID
    predicted[0, 4:] = person  # two too many; and one on void, which costs nothing
    predicted[1, 5] = person
    masks = torch.zeros(2, 2, 6, dtype=torch.bool)
    masks[0, 0, :4], masks[1, 1, :2] = True, True
    packed = Masks.from_dense(masks)
    instances = Instances(packed.boxes.float(), torch.tensor([person, person]), masks=packed)
    metric = MeanIoU(CITY, "cityscapes")
    metric.update(semantic(predicted), Annotation(semantic=torch.from_numpy(truth), instances=instances), id="a")
    result = metric.compute()
    size = INSTANCE_SIZES["person"]
    assert result["per_class"]["person"]["iou"] == pytest.approx(4 / (6 + 2))
    assert result["per_class"]["road"]["iou"] == pytest.approx(3 / 5)
    assert result["per_class"]["rider"]["iou"] == 0
    assert result["per_class"]["sky"]["iou"] is None
    assert result["mean_iou"] == pytest.approx((4 / 8 + 3 / 5 + 0) / 3)
    # of the first object a half, of the second all
    assert result["per_class"]["person"]["iiou"] == pytest.approx(1.5 * size / (2 * size + 2))
    assert result["per_class"]["rider"]["iiou"] == 0
    assert result["per_class"]["road"]["iiou"] is None
    assert result["mean_iiou"] == pytest.approx(1.5 * size / (2 * size + 2) / 2)
    # as humans, three quarters of the first
    assert result["per_category"]["human"]["iou"] == pytest.approx(5 / (6 + 2))
    assert result["per_category"]["human"]["iiou"] == pytest.approx(1.75 * size / (2 * size + 2))
    assert result["per_category"]["sky"] == {"iou": None, "iiou": None}
    assert result["mean_category_iou"] == pytest.approx((5 / 8 + 3 / 5) / 2)
    assert result["mean_category_iiou"] == result["per_category"]["human"]["iiou"]


def test_ground_truth_of_cityscapes_is_perfect() -> None:
    drawings = [draw_city(seed) for seed in range(2)]
    evaluated = np.isin(np.arange(34), CITY.dataset_ids)
    perfect = [
        City(one.label_ids, one.instance_ids, np.where(evaluated[one.label_ids], one.label_ids, 0)) for one in drawings
    ]
    result = measured(perfect)
    assert {value for value in result.values() if not isinstance(value, dict)} == {1.0}


@pytest.mark.parametrize("where", [0, 1, 2])
def test_where_an_image_tells_no_objects_apart_there_is_no_iiou(where: int) -> None:
    drawings = [draw_city(seed) for seed in range(3)]
    metric, plain = MeanIoU(CITY, "cityscapes"), MeanIoU(CITY, "cityscapes")
    for index, one in enumerate(drawings):
        truth = one.truth
        plain.update(one.predicted, Annotation(semantic=truth.semantic), id=str(index))
        metric.update(one.predicted, Annotation(semantic=truth.semantic) if index == where else truth, id=str(index))
    result = metric.compute()
    assert result == plain.compute()
    assert (result["mean_iiou"], result["mean_category_iiou"]) == (None, None)
    assert {values["iiou"] for values in result["per_class"].values()} == {None}
    assert result["mean_iou"] == measured(drawings)["mean_iou"]


def test_shares_of_objects_do_not_depend_on_the_order() -> None:
    drawings = [draw_city(seed) for seed in range(6)]
    wholes = []
    for order in ((0, 1, 2, 3, 4, 5), (5, 3, 1, 4, 2, 0)):
        whole = MeanIoU(CITY, "cityscapes")
        for index in order:
            part = MeanIoU(CITY, "cityscapes")
            part.update(drawings[index].predicted, drawings[index].truth, id=str(index))
            whole.merge(_renamed(part, "cityscapes"))
        wholes.append(whole.compute())
    assert wholes[0] == wholes[1]


# ---- which


def test_the_definition_is_that_of_the_published_label_set() -> None:
    assert published_definition(ADE) == "ade20k"
    assert published_definition(CITY) == "cityscapes"
    for name in ("voc", "camvid", "ade20k", "cityscapes"):
        assert published_definition(published(name)) == (name if name in ("ade20k", "cityscapes") else "voc")
    for name in ("voc", "camvid", "my own"):
        assert published_definition(LabelSet.from_names(name, ["a", "b"])) == "voc"
    # another set of the name, whose classes have no category
    assert published_definition(LabelSet.from_names("cityscapes", ["road", "cow"])) == "voc"
    assert set(DEFINITIONS) == {"voc", "ade20k", "cityscapes"}


def test_definitions_that_do_not_fit_are_refused() -> None:
    with pytest.raises(RecipeError, match="definition 'coco': expected one of voc, ade20k, cityscapes"):
        MeanIoU(ADE, "coco")
    with pytest.raises(RecipeError, match="definition cityscapes: 'floor' of 'ade20k' is not one of"):
        MeanIoU(ADE, "cityscapes")
    with pytest.raises(DataError, match="by the definition ade20k, another by voc"):
        MeanIoU(ADE, "ade20k").merge(MeanIoU(ADE, "voc"))
