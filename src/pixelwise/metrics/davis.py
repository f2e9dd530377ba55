"""DAVIS: region similarity J and contour accuracy F of objects in clips, each with mean, recall and decay.

In each frame J is the IoU of an object's mask and F the harmonic mean of precision and recall of its contour: a pixel
of one contour is right if one of the other lies within 0.8 % of the image's diagonal, rounded up. Where neither ground
truth nor prediction have the object both are 1. Recall is the share of frames above 0.5, decay the mean of the first
quarter of the frames less that of the last. Means are over all objects of all clips. Void pixels and those of crowds
are removed from all masks.

- `davis`: the semi-supervised task of 2016 and 2017. The first frame is given, so predicted ids are those of the ground
  truth; the first and the last frame are skipped. Predictions with other ids are ignored.
- `davis-unsupervised`: that of 2019. No frame is given: the tracks of a clip are matched to its objects so that the
  mean of J and F is largest; unmatched tracks are ignored. All frames count.

The first is the usual one: results have the ids of the ground truth, and matching tracks would hide swapped objects.
The second is for models without the first frame, as all of this package.

Sources: Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR 2016,
section 4; Pont-Tuset et al., "The 2017 DAVIS Challenge"; Caelles et al., "The 2019 DAVIS Challenge", and the code of
the challenges. It takes the objects of the first frame; here they are those of all frames, and a clip may have more
than 20 tracks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.optimize import linear_sum_assignment
from scipy.spatial import KDTree
from torch import Tensor

from pixelwise.errors import DataError, count
from pixelwise.labels import LabelSet
from pixelwise.metrics.per_image import PerImage, Place, require_size
from pixelwise.metrics.shared_pixels import shared_pixels
from pixelwise.types import Annotation, Instances, Masks

DEFINITIONS: dict[str, str] = {
    "davis": "J and F by DAVIS' semi-supervised definition: objects by their ids, means over objects, the first and "
    "the last frame of a clip skipped; contours match within 0.8 % of the diagonal",
    "davis-unsupervised": "J and F by DAVIS' unsupervised definition: the tracks of a clip are matched to its objects "
    "so that the mean of J and F is largest, all frames; contours match within 0.8 % of the diagonal",
}
"""One line for each definition, shown beside the numbers."""

CONTOUR_TOLERANCE = 0.008
"""Tolerance of contours, as a fraction of the diagonal."""


class TrueObject(NamedTuple):
    """An object of the ground truth in a frame: track id, class id, pixels of its mask and of its contour."""

    id: int
    label: int
    pixels: int
    contour: int


class FoundObject(NamedTuple):
    """A predicted object in a frame: track id, pixels of its mask and of its contour."""

    id: int
    pixels: int
    contour: int


class Meeting(NamedTuple):
    """Overlap of a ground truth object and a predicted one.

    Attributes:
        truth: track id.
        found: track id.
        pixels: of the intersection of both masks.
        true_near: pixels of the ground truth contour near the predicted one.
        found_near: pixels of the predicted contour near the ground truth one.
    """

    truth: int
    found: int
    pixels: int
    true_near: int
    found_near: int


class FrameObjects(NamedTuple):
    """The stored data of a frame.

    Attributes:
        clip: its clip; None for a single image, which is evaluated by itself.
        frame: its index in the clip.
        truth: the objects of the ground truth.
        found: the predicted ones.
        meetings: of the pairs that overlap.
        score: mean over the objects of (J + F) / 2 in this frame alone; None without objects.
    """

    clip: str | None
    frame: int
    truth: tuple[TrueObject, ...]
    found: tuple[FoundObject, ...]
    meetings: tuple[Meeting, ...]
    score: float | None

    @property
    def badness(self) -> tuple[bool, float, float]:
        """Sort key: worst frame first, then more objects first; a frame without any comes last."""
        return (True, 0.0, 0.0) if self.score is None else (False, self.score, -float(len(self.truth)))

    def caption(self) -> str:
        """Caption in a sheet of images."""
        return f"J&F {self.score or 0:.3f} · {count(len(self.truth), 'object')}, {len(self.found)} predicted"

    def row(self) -> dict[str, Any]:
        """Fields in `images.jsonl`."""
        return {"j_and_f": self.score, "objects": len(self.truth), "tracks": len(self.found)}


class Davis(PerImage[FrameObjects]):
    """Stores areas, contour lengths and overlaps of each frame, and evaluates tracks in `compute`.

    Frames may come in any order, clips mixed.
    """

    definitions = DEFINITIONS
    result = FrameObjects
    order = "decay needs"

    def compare(self, predicted: Annotation, truth: Annotation, at: Place) -> FrameObjects:
        """Overlaps of the objects of one frame. See PerImage. Raises DataError also for a track that occurs twice."""
        id = at.key
        truth_name, found_name = f"image '{id}': the ground truth", f"image '{id}': the prediction"
        objects, masks = _tracks(truth.instances, name=truth_name)
        found, found_masks = _tracks(predicted.instances, name=found_name)
        require_size(found_masks.size, masks.size, id=id)
        self.require_classes(objects.labels.tolist(), id=id, side="ground truth")
        void = _void(truth, objects, masks, self.labels)
        evaluated = (~objects.crowds).nonzero().flatten()
        objects, masks = objects[evaluated], masks[evaluated]
        if void is not None:
            masks, found_masks = masks.without(void), found_masks.without(void)
        assert objects.track_ids is not None
        assert found.track_ids is not None
        one = _overlaps(
            masks, found_masks, objects.track_ids.tolist(), found.track_ids.tolist(), objects.labels.tolist()
        )
        return FrameObjects(at.clip, at.frame, *one, _alone(*one, assigned=self.definition != "davis"))

    def fault(self, result: FrameObjects) -> str | None:
        """The fault of a stored result of the right types, or None."""
        known, known_found = ({row.id for row in side} for side in (result.truth, result.found))
        if any(row.truth not in known or row.found not in known_found for row in result.meetings):
            return "an object that does not exist"
        strange = next((row.label for row in result.truth if not 0 <= row.label < len(self.labels)), None)
        return None if strange is None else f"an unknown class {strange}"

    def compute(self) -> dict[str, Any]:
        """`j_and_f`, `j_mean`, `j_recall`, `j_decay`, the same of `f_`, `per_class` and `per_object`.

        `j_and_f` is the mean of `j_mean` and `f_mean`. Fractions of 1; decays may be negative. None where there is no
        object to evaluate.
        """
        results: dict[str, tuple[int, dict[str, float]]] = {}
        for name, frames in self._clips():
            for track, label, values in _followed(frames, assigned=self.definition != "davis"):
                results[f"{name}/{track}"] = (label, values)
        means = _means([values for _, values in results.values()])
        per_class: dict[str, dict[str, Any]] = {}
        for index, name in enumerate(self.labels.names):
            mine = [values for label, values in results.values() if label == index]
            per_class[name] = {
                key: value for key, value in _means(mine).items() if key in ("j_and_f", "j_mean", "f_mean")
            }
            per_class[name]["objects"] = len(mine)
        return {**means, "per_class": per_class, "per_object": {name: values for name, (_, values) in results.items()}}

    def _clips(self) -> list[tuple[str, list[FrameObjects]]]:
        """The frames of each clip that count, in their order."""
        clips: dict[tuple[bool, str], list[tuple[int, str]]] = {}
        for id, one in self.images.items():
            clips.setdefault((True, id) if one.clip is None else (False, one.clip), []).append((one.frame, id))
        evaluated: list[tuple[str, list[FrameObjects]]] = []
        for (alone, name), places in sorted(clips.items()):
            frames = [self.images[id] for _, id in sorted(places)]
            evaluated.append((name, frames if alone or self.definition != "davis" else frames[1:-1]))
        return [(name, frames) for name, frames in evaluated if frames]


def _tracks(instances: Instances | None, *, name: str) -> tuple[Instances, Masks]:
    if instances is None or instances.masks is None:
        raise DataError(f"{name} has no instance masks; expected instance annotations")
    if instances.track_ids is None:
        raise DataError(f"{name} has instances without track ids, which J and F need")
    ids, counts = instances.track_ids.unique(return_counts=True)
    if bool((counts > 1).any()):
        raise DataError(f"{name} has the track {int(ids[counts > 1][0])} twice; expected one object for each")
    instances = instances.to("cpu")
    assert instances.masks is not None
    return instances, instances.masks


def _void(truth: Annotation, objects: Instances, masks: Masks, labels: LabelSet) -> Bool[Tensor, "H W"] | None:
    """The ignored pixels; None without any."""
    void = masks[objects.crowds].union()
    if truth.semantic is not None and truth.semantic.shape == void.shape:
        void |= truth.semantic.cpu() == labels.ignore_id
    return void if bool(void.any()) else None


def _overlaps(
    masks: Masks, found_masks: Masks, ids: Sequence[int], found_ids: Sequence[int], labels: Sequence[int]
) -> tuple[tuple[TrueObject, ...], tuple[FoundObject, ...], tuple[Meeting, ...]]:
    reach = math.ceil(CONTOUR_TOLERANCE * math.hypot(*masks.size))
    contours = [contour(masks, index) for index in range(len(masks))]
    found_contours = [contour(found_masks, index) for index in range(len(found_masks))]
    areas, found_areas = masks.areas().tolist(), found_masks.areas().tolist()
    truth = tuple(TrueObject(*row) for row in zip(ids, labels, areas, map(len, contours), strict=True))
    found = tuple(FoundObject(*row) for row in zip(found_ids, found_areas, map(len, found_contours), strict=True))
    shared = shared_pixels(masks, found_masks).tolist()
    meetings = []
    for place, points in enumerate(contours):
        for other_place, other_points in enumerate(found_contours):
            near = _near(points, other_points, reach)
            other_near = _near(other_points, points, reach) if near else 0
            pixels = shared[place][other_place]
            if pixels or near:
                meetings.append(Meeting(ids[place], found_ids[other_place], pixels, near, other_near))
    return truth, found, tuple(meetings)


def contour(masks: Masks, index: int) -> Int64[np.ndarray, "P 2"]:
    """The pixels, row and column, that differ from their neighbour on the right, below, or between the two.

    A mask continues beyond the right and the lower side of the image. (Contours lie half a pixel up and to the left.)
    """
    x1, y1, x2, y2 = masks.boxes[index].tolist()
    padded = np.zeros((y2 - y1 + 2, x2 - x1 + 2), dtype=np.uint8)
    padded[1:-1, 1:-1] = masks.crop(index).numpy()
    if y2 == masks.size[0]:
        padded[-1] = padded[-2]
    if x2 == masks.size[1]:
        padded[:, -1] = padded[:, -2]
    here = padded[:-1, :-1]
    edge = (here != padded[:-1, 1:]) | (here != padded[1:, :-1]) | (here != padded[1:, 1:])
    points = np.argwhere(edge) + np.array([y1 - 1, x1 - 1])
    return points[(points >= 0).all(axis=1)]


def _near(points: Int64[np.ndarray, "P 2"], others: Int64[np.ndarray, "Q 2"], reach: int) -> int:
    """Number of points that have one of the others within reach."""
    if not len(points) or not len(others):
        return 0
    inside = (points >= others.min(axis=0) - reach) & (points <= others.max(axis=0) + reach)
    points = points[inside.all(axis=1)]
    if not len(points):
        return 0
    distances, _ = KDTree(others).query(points, distance_upper_bound=reach + 0.5)
    return int(np.count_nonzero(distances <= reach))


_NO_OBJECT, _NO_TRACK, _APART = TrueObject(-1, 0, 0, 0), FoundObject(-1, 0, 0), Meeting(-1, -1, 0, 0, 0)


def _jaccard(truth: TrueObject, found: FoundObject, meeting: Meeting) -> float:
    union = truth.pixels + found.pixels - meeting.pixels
    return meeting.pixels / union if union else 1.0


def _contour_accuracy(truth: TrueObject, found: FoundObject, meeting: Meeting) -> float:
    if not truth.contour or not found.contour:
        return 0.0 if truth.contour or found.contour else 1.0
    precision, recall = meeting.found_near / found.contour, meeting.true_near / truth.contour
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _alone(
    truth: Sequence[TrueObject], found: Sequence[FoundObject], meetings: Sequence[Meeting], *, assigned: bool
) -> float | None:
    """J&F of a single frame, with the track of the same id or the best track."""
    met = {(one.truth, one.found): one for one in meetings}
    values = []
    for annotated in truth:
        tracks = [one for one in found if assigned or one.id == annotated.id] or [_NO_TRACK]
        parts = [(annotated, one, met.get((annotated.id, one.id), _APART)) for one in tracks]
        values.append(max((_jaccard(*part) + _contour_accuracy(*part)) / 2 for part in parts))
    return math.fsum(values) / len(values) if values else None


def _followed(frames: Sequence[FrameObjects], *, assigned: bool) -> Iterable[tuple[int, int, dict[str, float]]]:
    """Track id, class id and results of each object of a clip."""
    labels: dict[int, int] = {}
    for frame in frames:
        for one in frame.truth:
            labels.setdefault(one.id, one.label)
    tracks = sorted({one.id for frame in frames for one in frame.found})
    ids = sorted(labels)
    if not assigned:
        partners = {id: id for id in ids}
    else:
        # objects beyond the number of tracks are matched to no track
        offered = [*tracks, *[None] * max(0, len(ids) - len(tracks))]
        gain = np.array([[_mean(_values(frames, id, track).mean(axis=1)) for id in ids] for track in offered])
        rows, columns = linear_sum_assignment(gain.reshape(len(offered), len(ids)), maximize=True)
        partners = {ids[column]: offered[row] for row, column in zip(rows, columns, strict=True)}
    for id in ids:
        region, outline = _values(frames, id, partners.get(id))
        yield id, labels[id], {**_statistics("j", region), **_statistics("f", outline)}


def _values(frames: Sequence[FrameObjects], id: int, track: int | None) -> Float64[np.ndarray, "2 F"]:
    """J and F of an object in each frame, matched to this track."""
    values = np.zeros((2, len(frames)))
    for place, frame in enumerate(frames):
        truth = next((one for one in frame.truth if one.id == id), _NO_OBJECT)
        found = next((one for one in frame.found if one.id == track), _NO_TRACK)
        meeting = next((one for one in frame.meetings if (one.truth, one.found) == (id, track)), _APART)
        values[:, place] = _jaccard(truth, found, meeting), _contour_accuracy(truth, found, meeting)
    return values


def _statistics(name: str, values: Float64[np.ndarray, " F"]) -> dict[str, float]:
    """Mean, recall and decay over the frames of a clip; the quarters share a frame with the next."""
    edges = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(np.int64) - 1
    first, last = values[edges[0] : edges[1] + 1], values[edges[3] : edges[4] + 1]
    return {
        f"{name}_mean": _mean(values),
        f"{name}_recall": _mean(values > 0.5),
        f"{name}_decay": _mean(first) - _mean(last),
    }


def _mean(values: np.ndarray) -> float:
    return math.fsum(values) / len(values)


def _means(results: Sequence[Mapping[str, float]]) -> dict[str, float | None]:
    names = [f"{part}_{name}" for part in ("j", "f") for name in ("mean", "recall", "decay")]
    means = {name: math.fsum(one[name] for one in results) / len(results) if results else None for name in names}
    both = [value for value in (means["j_mean"], means["f_mean"]) if value is not None]
    return {"j_and_f": sum(both) / 2 if both else None, **means}
