"""Models evaluated on clips: frames one after the other, with what was kept of those before."""

import pickle
import weakref
from dataclasses import replace

import pytest
import torch

from pixelwise.errors import RecipeError
from pixelwise.evaluation.evaluate import evaluate, model_predictions
from pixelwise.inference.model_folder import ModelCard
from pixelwise.inference.predictor import Options, Predictor
from pixelwise.labels import LabelSet
from pixelwise.metrics.video_panoptic_quality import VideoPanopticQuality
from pixelwise.ops.resize_rule import ResizeRule
from pixelwise.types import Annotation, Panoptic, Sample
from tests.inference.systems.panels import Panels
from tests.inference.systems.pointwise import Pointwise

LABELS = replace(LabelSet.from_names("fruit", ["background", "apple", "pear"]), is_thing=(False, True, True))


def predictor(*, uses_memory: bool) -> Predictor:
    card = ModelCard(task="panoptic", system="panels", labels=LABELS, resize=ResizeRule(length=32))
    return Predictor(Panels(num_classes=3, uses_memory=uses_memory), card, device="cpu")


def sample(clip: str | None, frame: int | None, *, apple: int | None = None, pear: int | None = None) -> Sample:
    """A red square at `apple`, a green one at `pear`; one pixel a frame apart."""
    image = torch.zeros(3, 16, 32, dtype=torch.uint8)
    for channel, left in enumerate((apple, pear)):
        if left is not None:
            image[channel, 4:12, left : left + 8] = 255
    return Sample(image, Annotation(), f"{clip}/{frame}", (16, 32), clip=clip, frame=frame)


class Counted:
    """A metric that keeps the segment ids of each prediction."""

    def __init__(self) -> None:
        self.ids: dict[str, list[int]] = {}

    def update(self, predicted: Annotation, truth: Annotation, *, id: str, clip: str | None, frame: int | None) -> None:
        self.ids[id] = predicted.panoptic.segment_ids.tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_memory_lasts_as_long_as_a_clip(workers: int) -> None:
    samples = [sample(clip, frame, apple=2, pear=20) for clip in ("a", "b") for frame in range(3)]
    metric = Counted()
    list(evaluate(model_predictions(predictor(uses_memory=True)), samples, metric, workers=workers))
    assert list(metric.ids) == ["a/0", "a/1", "a/2", "b/0", "b/1", "b/2"]
    assert list(metric.ids.values()) == 2 * [[1, 4, 5], [1, 6, 7], [1, 8, 9]]


def test_a_memory_is_forgotten_where_a_clip_begins_anew_and_with_a_still() -> None:
    answers = model_predictions(predictor(uses_memory=True))

    def ids(one: Sample) -> list[int]:
        return answers(one).panoptic.segment_ids.tolist()

    frames = [sample("a", frame, apple=2, pear=20) for frame in (0, 4, 9)]
    assert [ids(one) for one in frames] == [[1, 4, 5], [1, 6, 7], [1, 8, 9]]
    assert ids(frames[2]) == [1, 4, 5]
    assert ids(frames[0]) == [1, 4, 5]
    assert ids(frames[1]) == [1, 6, 7]
    still = sample(None, None, apple=2)
    assert ids(still) == ids(still) == [1, 4]


def test_tracking_gives_the_objects_of_a_model_without_memory_identities() -> None:
    """The pear comes first; by class it would be 5 in all frames, the apple 4."""
    clip = [sample("a", 0, pear=20), sample("a", 1, apple=1, pear=19), sample("a", 2, apple=2)]
    other = [sample("b", 0, apple=2), sample("b", 1, apple=3, pear=20)]
    plain, tracked = Counted(), Counted()
    list(evaluate(model_predictions(predictor(uses_memory=False)), clip + other, plain))
    list(evaluate(model_predictions(predictor(uses_memory=False), tracks=True), clip + other, tracked))
    assert list(plain.ids.values()) == [[1, 5], [1, 4, 5], [1, 4], [1, 4], [1, 4, 5]]
    assert list(tracked.ids.values()) == [[1, 4], [1, 5, 4], [1, 5], [1, 4], [1, 4, 5]]


class Gliding:
    """A clip of any length, whose frames are made when they are asked for; the apple and the pear go to and fro."""

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.seen: list[weakref.ref[torch.Tensor]] = []

    def __len__(self) -> int:
        return self.frames

    def __getitem__(self, index: int) -> Sample:
        place = abs(12 - index % 24)
        one = sample("a", index, apple=place, pear=24 - place if place < 8 else None)
        ids = one.image[0].int() // 255 * 3 + one.image[1].int() // 255 * 4 + 1
        found = torch.unique(ids).int()
        truth = Panoptic(ids, found, (found - 3).clamp(min=0).long(), torch.zeros(len(found), dtype=torch.bool))
        self.seen.append(weakref.ref(one.image))
        return replace(one, truth=Annotation(panoptic=truth))


@pytest.mark.parametrize("uses_memory", [False, True])
def test_what_is_kept_of_a_clip_does_not_grow_with_its_length(uses_memory: bool) -> None:
    """No images, a memory of one size, and of each frame a table of which segments share how many pixels."""
    clip, metric = Gliding(120), VideoPanopticQuality(LABELS)
    answers = model_predictions(predictor(uses_memory=uses_memory), tracks=not uses_memory)
    sizes, alive = [], []
    for _ in evaluate(answers, clip, metric):
        sizes.append(len(pickle.dumps((answers._memory, answers._tracked))))
        alive.append(sum(reference() is not None for reference in clip.seen))
    assert max(alive) <= 2
    assert max(sizes[60:]) <= max(sizes[:60])
    rows = [sum(len(table) for table in one.overlaps) for one in metric.images.values()]
    assert len(rows) == 120
    assert max(rows[60:]) <= max(rows[:60]) <= 12
    assert metric.compute()["vpq"] is not None


def test_tracking_is_refused_where_it_makes_no_sense() -> None:
    with pytest.raises(RecipeError, match="--track: panels tracks instances by itself"):
        model_predictions(predictor(uses_memory=True), tracks=True)
    card = ModelCard(task="semantic", system="pointwise", labels=LABELS)
    semantic = Predictor(Pointwise(num_classes=3), card, device="cpu")
    with pytest.raises(RecipeError, match="--track: pointwise is a model for semantic segmentation, without instances"):
        model_predictions(semantic, tracks=True)
    with pytest.raises(RecipeError, match="--tile is not possible with a panoptic model"):
        model_predictions(predictor(uses_memory=False), Options(tile=True))
