"""COCO's average precision and recall of instances, by boxes and by masks, and boundary AP.

Ten thresholds of IoU from 0.5 to 0.95, 101 points of recall, the highest-scoring 1, 10 and 100 detections of an image;
crowds are ignored. IoUs are computed on the packed masks, where two boxes overlap; faster-coco-eval does the matching
and the curves. The numbers are pycocotools'. Instances are small below 32², large from 96² square pixels: by the `area`
in a COCO file, or else the pixels of the mask. The size of a detection is the area of its box, for masks too:
pycocotools does so if results have boxes, as those of `pixelwise predict` do; other tools write results without boxes
and so use the mask's pixels. An instance with a box alone counts in box AP and is ignored, like a crowd, in mask AP.

Sources: Lin et al., "Microsoft COCO", 2014, and the COCO API; boundary AP: Cheng et al., "Boundary IoU", CVPR 2021, the
minimum of mask and boundary IoU, at a distance of 2 % of the diagonal.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from faster_coco_eval import COCOeval_faster
from jaxtyping import Bool, Float64, Shaped
from torch import Tensor

from pixelwise.errors import DataError, count
from pixelwise.metrics.per_image import PerImage, Place, require_size
from pixelwise.metrics.shared_pixels import shared_pixels
from pixelwise.types import Annotation, Instances, Masks

DEFINITIONS: dict[str, str] = {
    "coco": "AP and AR by COCO's definition: mean over IoU 0.50 to 0.95 and 101 points of recall, 100 detections "
    "for each image, crowds ignored; sizes are areas as the file states them or of masks, and of "
    "detections' boxes",
    "boundary": "as COCO's, and boundary AP: the minimum of mask IoU and the IoU of their boundaries, 2 % of the "
    "diagonal wide",
}
"""One line for each definition, shown beside the numbers."""

EVALUATED_SCORE = 0.5
"""Lowest score of the detections that count in an image's own result."""


class Object(NamedTuple):
    """The stored data of an instance.

    Attributes:
        label: class id.
        score: in [0, 1]; 1 for ground truth.
        pixels: of its mask; None without one.
        area: in square pixels, which decides whether it is small, medium or large.
        crowd: whether it is a crowd region.
        boxed: whether it has a box alone: it counts by boxes and is ignored by masks.
    """

    label: int
    score: float
    pixels: int | None
    area: float
    crowd: bool
    boxed: bool = False

    def is_ignored(self, kind: str) -> bool:
        """Whether it is ignored for boxes, masks or boundaries."""
        return self.crowd or (self.boxed and kind != "box")


class Overlap(NamedTuple):
    """Overlap of a detection and an instance of one class: IoUs, or with a crowd the covered fraction of the detection.

    Attributes:
        found: index of the detection.
        truth: index of the ground truth instance.
        box: of their boxes.
        mask: of their masks; 0 without.
        boundary: the minimum of `mask` and the IoU of the masks' boundaries, for a crowd `mask`; 0 if not needed.
    """

    found: int
    truth: int
    box: float
    mask: float
    boundary: float


class ImageObjects(NamedTuple):
    """The stored data of one image.

    Attributes:
        truth: ground truth instances.
        found: detections, highest score first.
        overlaps: of the pairs of one class that overlap.
        f1: of the detections with a score of at least one half, matched at an IoU of one half; None without any
            instance.
    """

    truth: tuple[Object, ...]
    found: tuple[Object, ...]
    overlaps: tuple[Overlap, ...]
    f1: float | None

    @property
    def badness(self) -> tuple[bool, float, float]:
        """Sort key: worst image first, then more instances first; an image without any comes last."""
        return (True, 0.0, 0.0) if self.f1 is None else (False, self.f1, -float(len(self.truth)))

    def caption(self) -> str:
        """Caption in a sheet of images."""
        found = sum(detection.score >= EVALUATED_SCORE for detection in self.found)
        instances = f"{count(len(self.truth), 'instance')}, {found} detected with a score from {EVALUATED_SCORE}"
        return f"F1 {self.f1 or 0:.3f} · {instances}"

    def row(self) -> dict[str, Any]:
        """Fields in `images.jsonl`."""
        return {"f1": self.f1, "objects": len(self.truth), "detections": len(self.found)}


class AveragePrecision(PerImage[ImageObjects]):
    """Stores sizes, scores and overlaps of each image's instances, not the masks, and matches them in `compute`.

    The things among the classes are evaluated, or all but the background where none is a thing. `boundary` is slower.
    """

    definitions = DEFINITIONS
    result = ImageObjects

    def compare(self, predicted: Annotation, truth: Annotation, at: Place) -> ImageObjects:
        """Instances of one image and their overlaps. See PerImage."""
        if predicted.instances is None or truth.instances is None:
            which = "prediction" if predicted.instances is None else "ground truth"
            raise DataError(f"image '{at.key}': the {which} has no instances; expected instance annotations")
        if predicted.instances.scores is None:
            raise DataError(f"image '{at.key}': the predicted instances have no scores, by which AP sorts")
        masks = [one.masks for one in (predicted.instances, truth.instances) if one.masks is not None]
        if len(masks) == 2:
            require_size(masks[0].size, masks[1].size, id=at.key)
        expected, found = truth.instances.to("cpu"), predicted.instances.to("cpu").by_score()
        objects, detections = (
            self._objects(expected, id=at.key, by_masks=True),
            self._objects(found, id=at.key, by_masks=False),
        )
        overlaps = self._overlaps(found, expected, [_pixels(detections), _pixels(objects)])
        return ImageObjects(objects, detections, overlaps, _f1(objects, detections, overlaps))

    def _objects(self, instances: Instances, *, id: str, by_masks: bool) -> tuple[Object, ...]:
        boxes, labels = instances.boxes.double(), instances.labels.tolist()
        self.require_classes(labels, id=id, side="ground truth" if by_masks else "prediction")
        of_masks = None if instances.masks is None else instances.masks.areas().tolist()
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).tolist()
        if instances.areas is not None:
            areas = instances.areas.tolist()
        elif by_masks and of_masks is not None:
            areas = of_masks
        pixels = [None] * len(labels) if of_masks is None else of_masks
        scores = [1.0] * len(labels) if instances.scores is None else instances.scores.tolist()
        crowds, boxed = (flags.tolist() for flags in _ignored(instances))
        return tuple(map(Object, labels, scores, pixels, areas, crowds, boxed))

    def _overlaps(self, found: Instances, truth: Instances, pixels: Sequence[np.ndarray]) -> tuple[Overlap, ...]:
        same = found.labels.numpy()[:, None] == truth.labels.numpy()[None]
        crowd, boxed = _ignored(truth)
        boxes = _box_ious(found.boxes.double().numpy(), truth.boxes.double().numpy(), crowd)
        shared = edges = np.zeros_like(boxes)
        if found.masks is not None and truth.masks is not None:
            ignored = crowd | boxed
            shared = _mask_ious(found.masks, truth.masks, pixels, same, ignored)
            if self.definition == "boundary":
                some, others = boundaries(found.masks), boundaries(truth.masks)
                edges = _mask_ious(some, others, [some.areas().numpy(), others.areas().numpy()], same, ignored)
                edges = np.where(ignored[None], shared, np.minimum(shared, edges))
        rows, columns = (same & ((boxes > 0) | (shared > 0))).nonzero()
        values = (part[rows, columns].tolist() for part in (boxes, shared, edges))
        return tuple(map(Overlap, rows.tolist(), columns.tolist(), *values))

    def fault(self, result: ImageObjects) -> str | None:
        """The fault of a stored result of the right types, or None."""
        counts = len(result.found), len(result.truth)
        if any(not (0 <= one.found < counts[0] and 0 <= one.truth < counts[1]) for one in result.overlaps):
            return "an index of an instance that does not exist"
        every = (*result.truth, *result.found)
        strange = next((one.label for one in every if not 0 <= one.label < len(self.labels)), None)
        return None if strange is None else f"an unknown class {strange}"

    def compute(self) -> dict[str, Any]:
        """`mask_ap`, `mask_ap50`, `mask_ap75`, `mask_ap_small` …, `mask_ar1` …, the same for `box_`, and `per_class`.

        `boundary` adds `boundary_ap` and the like. Fractions of 1; None without ground truth instances, and for masks
        where the ground truth or the predictions have none.
        """
        evaluated = self.labels.object_ids
        kinds = ("mask", "box", *(("boundary",) if self.definition == "boundary" else ()))
        means: dict[str, Any] = {}
        per_class: dict[str, dict[str, Any]] = {self.labels.names[index]: {} for index in evaluated}
        for kind in kinds:
            precision, recall = self._curves(kind, evaluated)
            for heading, value in _means(precision, recall).items():
                means[f"{kind}_{heading}"] = value
            for place, index in enumerate(evaluated):
                values = _means(precision[:, :, place : place + 1], recall[:, place : place + 1])
                per_class[self.labels.names[index]] |= {f"{kind}_{key}": values[key] for key in ("ap", "ap50", "ap75")}
        objects = Counter(one.label for image in self.images.values() for one in image.truth if not one.crowd)
        for index in evaluated:
            per_class[self.labels.names[index]]["objects"] = objects[index]
        return {**means, "per_class": per_class}

    def _curves(self, kind: str, evaluated: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """COCO's precision [T, R, K, A, M] and recall [T, K, A, M], -1 without ground truth instances."""
        # ties in scores are broken by the order of images, which must not depend on the order of updates
        ids = sorted(self.images, key=_in_order)
        every = (one for image in self.images.values() for one in (*image.truth, *image.found))
        if not ids or (kind != "box" and any(one.pixels is None for one in every)):
            return np.full((10, 101, len(evaluated), 4, 3), -1.0), np.full((10, len(evaluated), 4, 3), -1.0)
        evaluating = _CocoEval([self.images[id] for id in ids], kind, evaluated)
        evaluating.evaluate()
        evaluating.accumulate()
        return np.asarray(evaluating.eval["precision"]), np.asarray(evaluating.eval["recall"])


def _in_order(id: str) -> tuple[bool, int, str]:
    """Sort key: numeric ids as numbers, as in pycocotools, before others."""
    is_number = id.removeprefix("-").isdecimal() and len(id) < 1000
    return not is_number, int(id) if is_number else 0, id


class _CocoEval(COCOeval_faster):
    """faster-coco-eval's matching and curves on stored instances and IoUs, without a COCO file.

    Args:
        images: in the order that breaks ties.
        kind: which IoU of the overlaps is used.
        evaluated: class ids.
    """

    def __init__(self, images: Sequence[ImageObjects], kind: str, evaluated: Sequence[int]) -> None:
        super().__init__(iouType="bbox")
        self.images, self.kind = images, kind
        self.params.catIds = list(evaluated)
        self.known: dict[tuple[int, int], list[list[float]]] = {}

    def _prepare(self) -> None:
        """Give the library its instances, and collect the IoUs of each image and class."""
        ids = itertools.count(1)
        seen: Counter[int] = Counter()
        for image in self.images:
            # classes are evaluated one by one, each on the images that have it: the library would visit every pair of
            # image and class
            (columns, widths), (rows, heights) = (_places_within_class(side) for side in (image.truth, image.found))
            numbers = {label: seen[label] for label in widths | heights}
            seen.update(numbers.keys())
            for objects, target in ((image.truth, self.gt_dataset), (image.found, self.dt_dataset)):
                for one in objects:
                    ignored = one.is_ignored(self.kind)
                    entry = {"id": next(ids), "score": one.score, "area": one.area}
                    target.append_ref(numbers[one.label], one.label, {**entry, "iscrowd": ignored, "ignore": ignored})
            for label in heights.keys() & widths.keys():
                self.known[numbers[label], label] = [[0.0] * widths[label] for _ in range(heights[label])]
            for one in image.overlaps:
                label = image.found[one.found].label
                self.known[numbers[label], label][rows[one.found]][columns[one.truth]] = getattr(one, self.kind)
        self.params.imgIds = list(range(max(seen.values(), default=0)))
        self._nonempty_iou_pairs = self.known.keys()

    def computeIoU(self, imgId: Any, catId: Any) -> Any:  # noqa: N802, N803 (the library's names)
        """IoUs of the detections of a class, highest score first, with its instances."""
        return self.known[imgId, catId][: self.params.maxDets[-1]]


def _places_within_class(objects: Sequence[Object]) -> tuple[list[int], dict[int, int]]:
    """The index of each instance among those of its class, and the number of instances of each class."""
    counts: dict[int, int] = {}
    places = []
    for one in objects:
        place = counts.get(one.label, 0)
        places.append(place)
        counts[one.label] = place + 1
    return places, counts


def _means(precision: np.ndarray, recall: np.ndarray) -> dict[str, float | None]:
    """COCO's twelve numbers from curves over some classes."""
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


def _f1(truth: Sequence[Object], found: Sequence[Object], overlaps: Sequence[Overlap]) -> float | None:
    """F1 of one image: each detection is matched to the free instance of its class that it overlaps most."""
    by_mask = all(one.pixels is not None for one in (*truth, *found))
    counted = {number for number, one in enumerate(truth) if not one.is_ignored("mask" if by_mask else "box")}
    detected = {number for number, one in enumerate(found) if one.score >= EVALUATED_SCORE}
    if not counted and not detected:
        return None
    possible = [(one.found, -(one.mask if by_mask else one.box), one.truth) for one in overlaps]
    taken: set[int] = set()
    right: set[int] = set()
    for detection, negative, number in sorted(possible):
        if -negative >= 0.5 and detection in detected - right and number in counted - taken:
            right.add(detection)
            taken.add(number)
    return 2 * len(right) / (len(counted) + len(detected))


def _ignored(instances: Instances) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
    """Flags of the crowds and of the instances with a box alone."""
    nothing = np.zeros(len(instances), dtype=np.bool_)
    crowd, boxed = (nothing if one is None else one.numpy() for one in (instances.crowd, instances.boxed))
    return crowd & ~boxed, boxed


def _pixels(objects: Sequence[Object]) -> np.ndarray:
    return np.array([one.pixels or 0 for one in objects], dtype=np.int64)


def _mask_ious(
    some: Masks,
    others: Masks,
    areas: Sequence[np.ndarray],
    evaluated: Bool[np.ndarray, "N M"],
    crowd: Bool[np.ndarray, " M"],
) -> Float64[np.ndarray, "N M"]:
    """IoU of pairs of masks of one image, computed where their boxes overlap; 0 where a pair is ignored."""
    return _ious(shared_pixels(some, others, torch.from_numpy(evaluated)).numpy(), areas[0], areas[1], crowd)


def boundaries(masks: Masks) -> Masks:
    """The pixels of each mask that lie near its edge; the image's border is an edge.

    Near is 2 % of the image's diagonal, at least a pixel, counted in steps of a 3×3 erosion.
    """
    height, width = masks.size
    distance = max(1, round(0.02 * math.hypot(height, width)))
    crops: list[Tensor] = []
    for index in range(len(masks)):
        crop = masks.crop(index)
        if crop.numel():
            # repeated 3×3 erosions equal one by a larger square; pixels outside the crop are not in the mask
            outside = F.pad(1 - crop.float(), (distance,) * 4, value=1.0)[None]
            near = F.max_pool2d(F.max_pool2d(outside, (2 * distance + 1, 1), 1), (1, 2 * distance + 1), 1)[0]
            crop = crop * (near > 0)
        crops.append(crop)
    return Masks.from_crops(crops, masks.boxes.tolist(), masks.size)


def _box_ious(
    some: Float64[np.ndarray, "N 4"], others: Float64[np.ndarray, "M 4"], crowd: Bool[np.ndarray, " M"]
) -> Float64[np.ndarray, "N M"]:
    """IoU of pairs of boxes, in the order of COCO's own arithmetic: x y width height."""
    sides, other_sides = some[:, 2:] - some[:, :2], others[:, 2:] - others[:, :2]
    ends = np.minimum((some[:, :2] + sides)[:, None], (others[:, :2] + other_sides)[None])
    common = (ends - np.maximum(some[:, None, :2], others[None, :, :2])).clip(min=0).prod(axis=2)
    return _ious(common, sides.prod(axis=1), other_sides.prod(axis=1), crowd)


def _ious(
    common: Shaped[np.ndarray, "N M"],
    areas: Shaped[np.ndarray, " N"],
    other_areas: Shaped[np.ndarray, " M"],
    crowd: Bool[np.ndarray, " M"],
) -> Float64[np.ndarray, "N M"]:
    """Intersection over union; with a crowd, over the area of the first."""
    whole = np.where(crowd[None], areas[:, None], areas[:, None] + other_areas[None] - common)
    return np.divide(common, whole, out=np.zeros(common.shape), where=common > 0)
