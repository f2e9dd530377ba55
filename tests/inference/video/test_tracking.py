import json
from dataclasses import replace

import pytest
import torch

from pixelwise.data.truth import segments
from pixelwise.errors import DataError
from pixelwise.inference.video.tracking import NO_IDENTITY, TrackingMemory, track
from pixelwise.types import Annotation, Instances, Masks, Panoptic

NUM_CLASSES = 3
SIZE = (40, 60)

Box = tuple[int, int, int, int]


def frame(*objects: tuple[int, Box], scores: list[float] | None = None, size: tuple[int, int] = SIZE) -> Annotation:
    """Objects that fill their boxes: class and box of each."""
    boxes = [box for _, box in objects]
    masks = Masks.from_crops([torch.ones(y2 - y1, x2 - x1) for x1, y1, x2, y2 in boxes], boxes, size)
    return Annotation(
        instances=Instances(
            masks.boxes.float(),
            torch.tensor([label for label, _ in objects], dtype=torch.int64),
            masks=masks,
            scores=None if scores is None else torch.tensor(scores),
        )
    )


def identities(frames: list[Annotation], **options) -> list[list[int]]:
    memory, found = None, []
    for one in frames:
        tracked, memory = track(one, memory, num_classes=NUM_CLASSES, **options)
        found.append(tracked.instances.track_ids.tolist())
    return found


def square(x: int, y: int = 10, side: int = 10) -> Box:
    return (x, y, x + side, y + side)


def test_an_object_that_moves_keeps_its_number_and_a_new_one_gets_the_next() -> None:
    frames = [frame((1, square(10))), frame((1, square(40)), (1, square(13))), frame((1, square(15)), (1, square(42)))]
    assert identities(frames) == [[0], [1, 0], [0, 1]]
    assert track(frames[0], None, num_classes=3)[0].instances.track_ids.dtype == torch.int64


def test_objects_that_cross_keep_their_numbers_by_their_motion() -> None:
    """Two squares run towards each other, 5 pixels a frame, and through each other; they are listed in turns."""
    left, right = [4 + 5 * time for time in range(7)], [41 - 5 * time for time in range(7)]
    # from left to right the one from the left is the second after they have met
    frames = [
        frame(*sorted([(1, square(a)), (1, square(b, y=12))], key=lambda one: one[1]))
        for a, b in zip(left, right, strict=True)
    ]
    assert [a > b for a, b in zip(left, right, strict=True)] == [False] * 4 + [True] * 3
    assert identities(frames) == [[0, 1]] * 4 + [[1, 0]] * 3
    # told apart by their places alone the one that is nearer takes the number
    assert identities(frames, follows_motion=False) != [[0, 1]] * 4 + [[1, 0]] * 3


@pytest.mark.parametrize(("hidden", "number"), [(3, 0), (4, 1)])
def test_an_object_that_was_hidden_for_three_frames_is_the_same_one(hidden: int, number: int) -> None:
    frames = [frame((1, square(2))), frame((1, square(6))), *[frame()] * hidden, frame((1, square(6 + 4 * hidden + 4)))]
    assert identities(frames, kept_frames=3)[-1] == [number]
    standing = [frame((1, square(6))), *[frame()] * hidden, frame((1, square(7)))]
    assert identities(standing, kept_frames=3, follows_motion=False)[-1] == [number]


def test_a_moving_object_that_stops_behind_another_is_found_where_it_was() -> None:
    frames = [frame((1, square(2))), frame((1, square(6))), frame(), frame(), frame(), frame((1, square(7)))]
    assert identities(frames)[-1] == [0]


def test_an_object_of_another_class_is_another_object() -> None:
    frames = [frame((1, square(10))), frame((2, square(10))), frame((1, square(10)))]
    assert identities(frames) == [[0], [1], [0]]


def test_numbers_are_never_given_again() -> None:
    frames = [frame((1, square(0)), (1, square(20))), frame(), frame(), frame((1, square(0))), frame((1, square(40)))]
    assert identities(frames, kept_frames=1) == [[0, 1], [], [], [2], [3]]


def test_a_doubtful_object_takes_no_number_from_a_sure_one() -> None:
    """The doubtful one lies exactly where the object was, the sure one a little further."""
    after = frame((1, square(10)), (1, square(12)), scores=[0.1, 0.9])
    assert identities([frame((1, square(10)), scores=[0.9]), after]) == [[0], [1, 0]]


def test_the_least_overlap_of_an_object_with_itself() -> None:
    """10×10 squares 5 apart share 50 of 150 pixels."""
    frames = [frame((1, square(10))), frame((1, square(15)))]
    assert identities(frames, min_overlap=1 / 3) == [[0], [0]]
    assert identities(frames, min_overlap=0.34) == [[0], [1]]


@pytest.mark.parametrize("stop", range(1, 8))
def test_a_stored_memory_goes_on_where_it_was(stop: int) -> None:
    generator = torch.Generator().manual_seed(stop)
    frames = []
    for _ in range(8):
        places = torch.randint(0, 30, (4, 2), generator=generator).tolist()
        frames.append(frame(*[(1 + index % 2, square(x, y)) for index, (x, y) in enumerate(places)]))
    whole = identities(frames)
    memory, found = None, []
    for index, one in enumerate(frames):
        if index == stop:
            memory = TrackingMemory.from_json(json.loads(json.dumps(memory.to_json())))
        tracked, memory = track(one, memory, num_classes=NUM_CLASSES)
        found.append(tracked.instances.track_ids.tolist())
    assert found == whole
    assert len({number for numbers in whole for number in numbers}) > 4


def test_a_memory_that_is_none_of_ours_is_refused() -> None:
    memory = track(frame((1, square(10))), None, num_classes=NUM_CLASSES)[1].to_json()
    with pytest.raises(DataError, match=r"tracking memory: next_number: .*begin the clip anew"):
        TrackingMemory.from_json({**memory, "next_number": "many"})
    with pytest.raises(DataError, match="tracking memory: track 0: the RLE is 40×60, the image 40×61"):
        TrackingMemory.from_json({**memory, "size": [40, 61]})


def test_the_memory_does_not_grow_with_the_clip() -> None:
    memory, sizes = None, []
    for time in range(60):
        objects = [(1, square(12 * place, y=28 * ((time + place) % 2))) for place in range(4)]
        _, memory = track(frame(*objects), memory, num_classes=NUM_CLASSES, kept_frames=4, min_overlap=0.99)
        sizes.append(len(memory.tracks))
    assert max(sizes) <= 4 * 5
    hidden = track(frame(), memory, num_classes=NUM_CLASSES, kept_frames=0)[1]
    assert hidden.tracks == ()
    assert hidden.next_number == memory.next_number


def test_an_object_that_leaves_the_frame_is_looked_for_at_its_edge() -> None:
    """It moves 3 pixels a frame to the left and up, is partly outside when it is found again, or wholly."""
    frames = [frame((1, square(9, 5))), frame((1, square(6, 2))), frame(), frame((1, (0, 0, 10, 6)))]
    assert identities(frames)[-1] == [0]
    assert identities(frames, follows_motion=False)[-1] == [1]
    away = [*frames[:2], *[frame()] * 5, frame((1, square(40)))]
    assert identities(away)[-1] == [1]


def panoptic(ids: list[list[int]], segments: dict[int, int], **more: torch.Tensor) -> Annotation:
    """The class of each segment by its id."""
    return Annotation(
        panoptic=Panoptic(
            torch.tensor(ids, dtype=torch.int32),
            torch.tensor(list(segments), dtype=torch.int32),
            torch.tensor(list(segments.values()), dtype=torch.int64),
            torch.zeros(len(segments), dtype=torch.bool),
            **more,
        )
    )


@pytest.mark.parametrize("slab", [1, 9, 1000])
def test_things_of_segments_are_renumbered_and_stuff_is_not(monkeypatch: pytest.MonkeyPatch, slab: int) -> None:
    """Of 3 classes 0 is stuff: segment 1. The things 4 and 5 change places in the numbering of the second frame."""
    monkeypatch.setattr(segments, "SLAB_PIXELS", slab)
    first = panoptic([[1, 4, 4, 0], [1, 4, 5, 5], [1, 1, 5, 5], [0, 1, 1, 1]], {1: 0, 4: 1, 5: 1})
    second = panoptic(
        [[1, 5, 5, 0], [1, 5, 4, 4], [1, 1, 4, 4], [6, 6, 9, 1]],
        {1: 0, 4: 1, 5: 1, 6: 2},
        scores=torch.tensor([0.9, 0.8, 0.7, 0.6]),
    )
    tracked, memory = track(first, None, num_classes=NUM_CLASSES)
    assert tracked.panoptic.ids.equal(first.panoptic.ids)
    tracked, memory = track(second, memory, num_classes=NUM_CLASSES)
    found = tracked.panoptic
    assert found.ids.tolist() == [[1, 4, 4, 0], [1, 4, 5, 5], [1, 1, 5, 5], [6, 6, 0, 1]]
    assert found.ids.dtype == found.segment_ids.dtype == torch.int32
    assert found.segment_ids.tolist() == [1, 5, 4, 6]
    assert found.labels.tolist() == [0, 1, 1, 2]
    assert found.scores.equal(second.panoptic.scores)
    assert [one.number for one in memory.tracks] == [1, 0, 2]
    tracked, memory = track(panoptic([[0] * 4] * 4, {}), memory, num_classes=NUM_CLASSES)
    assert len(tracked.panoptic) == 0
    assert [one.unseen for one in memory.tracks] == [1, 1, 1]


def test_a_clip_never_has_more_objects_than_there_are_ids() -> None:
    full = TrackingMemory((4, 4), (), 2**31 - 1 - NUM_CLASSES - 1)
    one = panoptic([[4] * 4] * 4, {4: 1})
    tracked, memory = track(one, full, num_classes=NUM_CLASSES)
    assert tracked.panoptic.segment_ids.tolist() == [2**31 - 1]
    with pytest.raises(DataError, match=r"segment ids hold 2,147,483,644 things; cut the clip in two"):
        track(one, replace(memory, tracks=()), num_classes=NUM_CLASSES)


def test_what_cannot_be_tracked_is_refused() -> None:
    with pytest.raises(DataError, match="leave --track out"):
        track(Annotation(semantic=torch.zeros(4, 4, dtype=torch.uint8)), None, num_classes=NUM_CLASSES)
    memory = track(frame((1, square(1))), None, num_classes=NUM_CLASSES)[1]
    with pytest.raises(DataError, match="a frame of 41×60 after one of 40×60"):
        track(frame(size=(41, 60)), memory, num_classes=NUM_CLASSES)


def test_objects_below_the_score_get_no_identity_and_take_none() -> None:
    """One sure object, and a doubtful copy of it in every frame."""
    pair = ((1, square(10)), (1, square(11)))
    frames = [frame(*pair, scores=[0.9, 0.3]), frame(*pair, scores=[0.3, 0.9]), frame(*pair, scores=[0.9, 0.5])]
    assert identities(frames, min_score=0.5) == [[0, NO_IDENTITY], [NO_IDENTITY, 0], [0, 1]]
    assert identities(frames[:2])[0] == [0, 1]
