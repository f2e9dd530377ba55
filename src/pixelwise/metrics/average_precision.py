"""COCO's average precision and recall of objects, by boxes and by masks, and boundary AP.

Ten thresholds of IoU from 0.5 to 0.95, 101 points of recall, the best 1, 10 and 100 detections of an image; regions of
crowds cost nothing and give nothing. faster-coco-eval does the matching and the curves; its numbers are pycocotools'.
Sizes are counted in pixels of the masks, small below 32², large from 96²; where there is no mask, of the boxes. (The
`area` of a COCO file, that of the polygons, differs from it by a few pixels.)

Sources: Lin et al., "Microsoft COCO", 2014, and the COCO API; boundary AP: Cheng et al., "Boundary IoU", CVPR 2021,
the lesser of mask and boundary IoU, at a distance of 2 % of the diagonal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from pixelwise.errors import DataError, RecipeError
from pixelwise.labels import LabelSet
from pixelwise.metrics.mean_iou import image_key
from pixelwise.ops import rle
from pixelwise.types import Annotation, Instances

Definition = Literal["coco", "boundary"]

DEFINITIONS: dict[str, str] = {
    "coco": "AP and AR by COCO's definition: mean over IoU 0.50 to 0.95 and 101 points of recall, 100 detections "
    "for each image, crowds neither right nor wrong; sizes are areas of masks",
    "boundary": "as COCO's, and boundary AP: the lesser of mask IoU and the IoU of their boundaries, 2 % of the "
    "diagonal wide",
}
"""One line each for people who compare numbers."""

JUDGED_SCORE = 0.5
"""Detections from this score on make up what an image alone would get."""


class Object(NamedTuple):
    """An object as it is kept: truth has no score, a detection is no crowd.

    Attributes:
        label: class id.
        box: x y width height in pixels.
        counts: compressed runs of its mask, or None without one.
        score: in [0, 1].
        crowd: whether it stands for many objects.
    """

    label: int
    box: tuple[float, float, float, float]
    counts: str | None
    score: float
    crowd: bool


class ImageObjects(NamedTuple):
    """One image.

    Attributes:
        size: height and width.
        truth: what is there.
        found: what was predicted, the best first.
        f1: of the detections with a score of at least one half, matched at an IoU of one half; None without any object.
    """

    size: tuple[int, int]
    truth: tuple[Object, ...]
    found: tuple[Object, ...]
    f1: float | None

    @property
    def badness(self) -> tuple[bool, float, float]:
        """Sorts the worst image first, those with more objects before others; one without any comes last."""
        return (True, 0.0, 0.0) if self.f1 is None else (False, self.f1, -float(len(self.truth)))

    def caption(self) -> str:
        """What a sheet of images says of it."""
        found = sum(detection.score >= JUDGED_SCORE for detection in self.found)
        return f"F1 {self.f1 or 0:.3f} · {len(self.truth)} objects, {found} found with a score from {JUDGED_SCORE}"

    def row(self) -> dict[str, Any]:
        """What `images.jsonl` says of it."""
        return {"f1": self.f1, "objects": len(self.truth), "detections": len(self.found)}


class AveragePrecision:
    """Keeps the objects of each image as run lengths and matches them in `compute`.

    Args:
        labels: the classes; the things among them are judged, or all but the background where none is a thing.
        definition: `coco`, or `boundary`, which is slower.

    Raises:
        RecipeError: an unknown definition.
    """

    def __init__(self, labels: LabelSet, definition: str = "coco") -> None:
        if definition not in get_args(Definition):
            raise RecipeError(f"definition '{definition}': one of {', '.join(get_args(Definition))} is wanted")
        self.labels = labels
        self.definition = definition
        self.images: dict[str, ImageObjects] = {}
        """The objects of each image, by id."""

    def update(
        self,
        predicted: Annotation,
        truth: Annotation,
        *,
        id: str,
        clip: str | None = None,
        frame: int | None = None,
    ) -> None:
        """Keep the objects of one image. Raises DataError for a second time, another size, or an unknown class."""
        id = image_key(id, clip, frame)
        if id in self.images:
            raise DataError(f"image '{id}' was evaluated before; each id is counted once")
        if predicted.instances is None or truth.instances is None:
            which = "prediction" if predicted.instances is None else "truth"
            raise DataError(f"image '{id}': the {which} tells no objects; instance annotations are wanted")
        if predicted.instances.scores is None:
            raise DataError(f"image '{id}': the predicted objects have no scores; average precision sorts by them")
        masks = [one.masks for one in (predicted.instances, truth.instances) if one.masks is not None]
        if len({one.size for one in masks}) > 1:
            raise DataError(
                f"image '{id}': the prediction is {_size(masks[0].size)}, the truth {_size(masks[1].size)}; "
                "predictions must have the truth's size"
            )
        size = masks[0].size if masks else (0, 0)
        expected = tuple(self._objects(truth.instances, id=id))
        found = tuple(self._objects(predicted.instances, id=id))
        self.images[id] = ImageObjects(size, expected, found, _f1(expected, found, size))

    def _objects(self, instances: Instances, *, id: str) -> Iterable[Object]:
        instances = instances.to("cpu")
        if instances.scores is not None:
            instances = instances[instances.scores.argsort(descending=True, stable=True)]
        boxes = instances.boxes.double()
        runs = instances.masks.to_coco() if instances.masks is not None else [None] * len(instances)
        for index, label in enumerate(instances.labels.tolist()):
            if not 0 <= label < len(self.labels):
                raise DataError(
                    f"image '{id}': class {label} is not one of the {len(self.labels)} of '{self.labels.name}'"
                )
            x1, y1, x2, y2 = boxes[index].tolist()
            of_mask = runs[index]
            yield Object(
                label,
                (x1, y1, x2 - x1, y2 - y1),
                None if of_mask is None else of_mask["counts"],
                1.0 if instances.scores is None else float(instances.scores[index]),
                instances.crowd is not None and bool(instances.crowd[index]),
            )

    def merge(self, other: AveragePrecision) -> None:
        """Add what another one kept of other images.

        Raises DataError for an image in both, other classes, or another definition.
        """
        self.labels.require_same(other.labels, mine="this metric", theirs="the other")
        if self.definition != other.definition:
            raise DataError(f"one part is judged by the definition {self.definition}, another by {other.definition}")
        both = sorted(set(self.images) & set(other.images))
        if both:
            raise DataError(f"image '{both[0]}' is in both parts ({len(both)} such images); each id is counted once")
        self.images |= other.images

    def state(self) -> dict[str, Any]:
        """What was kept, as lists and numbers that JSON keeps exactly; `from_state` takes it back."""
        return {
            "images": {
                id: [list(image.size), [list(one) for one in image.truth], [list(one) for one in image.found], image.f1]
                for id, image in self.images.items()
            }
        }

    @classmethod
    def from_state(cls, labels: LabelSet, definition: str, state: Mapping[str, Any]) -> AveragePrecision:
        """A metric that kept what `state` tells. Raises DataError for a state that such a metric cannot have."""
        metric = cls(labels, definition)
        try:
            for id, ((height, width), truth, found, f1) in state["images"].items():
                objects = [
                    tuple(
                        Object(int(label), tuple(box), counts, float(score), bool(crowd))
                        for label, box, counts, score, crowd in side
                    )
                    for side in (truth, found)
                ]
                metric.images[id] = ImageObjects((int(height), int(width)), objects[0], objects[1], f1)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"no state of average precision ({error})") from None
        return metric

    def compute(self) -> dict[str, Any]:
        """`mask_ap`, `mask_ap50`, `mask_ap75`, `mask_ap_small` …, `mask_ar1` …, the same for `box_`, and `per_class`.

        `boundary` adds `boundary_ap` and its companions. Fractions of 1; None where there is no object to find, and for
        masks where the truth or the predictions have none.
        """
        judged = [index for index, thing in enumerate(self.labels.is_thing) if thing]
        judged = judged or [index for index in range(len(self.labels)) if index != self.labels.background_id]
        kinds = ["segm", "bbox", *(["boundary"] if self.definition == "boundary" else [])]
        means: dict[str, Any] = {}
        per_class: dict[str, dict[str, Any]] = {self.labels.names[index]: {} for index in judged}
        for kind in kinds:
            name = {"segm": "mask", "bbox": "box", "boundary": "boundary"}[kind]
            precision, recall = self._curves(kind, judged)
            for heading, value in _means(precision, recall).items():
                means[f"{name}_{heading}"] = value
            for place, index in enumerate(judged):
                values = _means(precision[:, :, place : place + 1], recall[:, place : place + 1])
                per_class[self.labels.names[index]] |= {f"{name}_{key}": values[key] for key in ("ap", "ap50", "ap75")}
        for index in judged:
            objects = (one for image in self.images.values() for one in image.truth)
            per_class[self.labels.names[index]]["objects"] = sum(
                one.label == index and not one.crowd for one in objects
            )
        return {**means, "per_class": per_class}

    def _curves(self, kind: str, judged: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """COCO's precision [T, R, K, A, M] and recall [T, K, A, M], -1 where there is nothing to find."""
        by_mask = kind != "bbox"
        # ties in scores are broken by the order of images, so that it must not depend on how they came
        ids = sorted(self.images, key=lambda id: (len(id), id) if id.isdigit() else (10**6, id))
        if by_mask and any(
            one.counts is None for image in self.images.values() for one in (*image.truth, *image.found)
        ):
            return np.full((10, 101, len(judged), 4, 3), -1.0), np.full((10, len(judged), 4, 3), -1.0)
        annotations: list[dict[str, Any]] = []
        results: list[dict[str, Any]] = []
        for number, id in enumerate(ids, start=1):
            image = self.images[id]
            for of_truth, side in ((True, image.truth), (False, image.found)):
                for one in side:
                    entry: dict[str, Any] = {"image_id": number, "category_id": one.label, "iscrowd": int(one.crowd)}
                    runs = None if one.counts is None else {"size": list(image.size), "counts": one.counts}
                    if by_mask or of_truth:
                        entry["segmentation"] = runs if runs is not None else []
                    if not by_mask or of_truth:
                        entry["bbox"] = list(one.box)
                    if of_truth:
                        entry["area"] = float(rle.area(runs)) if runs is not None else one.box[2] * one.box[3]
                        annotations.append({**entry, "id": len(annotations) + 1})
                    else:
                        results.append({**entry, "score": one.score})
        truth = COCO(
            {
                "info": {},
                "images": [
                    {"id": number, "height": self.images[id].size[0], "width": self.images[id].size[1]}
                    for number, id in enumerate(ids, start=1)
                ],
                "annotations": annotations,
                "categories": [{"id": index, "name": self.labels.names[index]} for index in judged],
            }
        )
        judging = COCOeval_faster(truth, truth.loadRes(results), iouType=kind, rle_iou_max_workers=1)  # pyright: ignore[reportArgumentType]
        judging.params.catIds = list(judged)
        if not ids:
            return np.full((10, 101, len(judged), 4, 3), -1.0), np.full((10, len(judged), 4, 3), -1.0)
        judging.evaluate()
        judging.accumulate()
        return np.asarray(judging.eval["precision"]), np.asarray(judging.eval["recall"])


def _means(precision: np.ndarray, recall: np.ndarray) -> dict[str, float | None]:
    """COCO's twelve numbers of curves over some classes."""
    areas = ("small", "medium", "large")
    return {
        "ap": _mean(precision[..., 0, 2]),
        "ap50": _mean(precision[0, ..., 0, 2]),
        "ap75": _mean(precision[5, ..., 0, 2]),
        **{f"ap_{area}": _mean(precision[..., place, 2]) for place, area in enumerate(areas, start=1)},
        **{f"ar{count}": _mean(recall[..., 0, place]) for place, count in enumerate((1, 10, 100))},
        **{f"ar_{area}": _mean(recall[..., place, 2]) for place, area in enumerate(areas, start=1)},
    }


def _mean(values: np.ndarray) -> float | None:
    counted = values[values > -1]
    return float(counted.mean()) if counted.size else None


def _f1(truth: Sequence[Object], found: Sequence[Object], size: tuple[int, int]) -> float | None:
    """Of an image alone: each detection takes the free object of its class that it overlaps most."""
    wanted = [one for one in truth if not one.crowd]
    claimed = [one for one in found if one.score >= JUDGED_SCORE]
    if not wanted and not claimed:
        return None
    overlaps = _ious(claimed, wanted, size)
    right = 0
    for row, one in enumerate(claimed):
        same = [
            column for column, other in enumerate(wanted) if other.label == one.label and overlaps[row, column] >= 0.5
        ]
        if same:
            right += 1
            overlaps[:, max(same, key=lambda column: overlaps[row, column])] = 0
    return 2 * right / (len(wanted) + len(claimed))


def _ious(some: Sequence[Object], others: Sequence[Object], size: tuple[int, int]) -> np.ndarray:
    if not some or not others:
        return np.zeros((len(some), len(others)))
    both = (*some, *others)
    if any(one.counts is None for one in both):
        return rle.ious([list(one.box) for one in some], [list(one.box) for one in others])
    runs = [[{"size": list(size), "counts": one.counts} for one in side] for side in (some, others)]
    return rle.ious(*runs)


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"
