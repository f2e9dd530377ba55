"""The tracker against its formulas, worked by hand, and what it remembers of a clip."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import torch

from pixelwise.nn.tracker import (
    NEW,
    UNKNOWN,
    TrackHead,
    Tracks,
    assign,
    match_logits,
    match_scores,
    match_targets,
    track,
)
from pixelwise.types import Instances
from tests.models.small_vpsnet import random_parameters

# ---- track


def test_a_vector_comes_from_two_layers_and_its_products_follow_a_zero() -> None:
    torch.manual_seed(0)
    head = TrackHead(2, size=3, width=5)
    random_parameters(head)
    boxes, known = torch.randn(4, 2, 3, 3), torch.randn(2, 2, 3, 3)
    vectors, others = head(boxes), head(known)
    logits = match_logits(vectors, others)
    assert logits.shape == (4, 3)
    assert not logits[:, 0].any()
    for n, m in itertools.product(range(4), range(2)):
        one, other = (
            head.output.weight @ (head.hidden.weight @ x.flatten() + head.hidden.bias).clamp(min=0) + head.output.bias
            for x in (boxes[n], known[m])
        )
        torch.testing.assert_close(logits[n, 1 + m], one @ other)


def test_match_scores_are_worked_by_hand() -> None:
    """Two boxes, two known objects: log-softmax + log score + 2·IoU + 10 for the same class, which what is new has."""
    logits = torch.tensor([[0.0, 1.0, 2.0], [0.0, 0.0, 0.0]])
    scores = torch.tensor([0.5, 0.9])
    overlaps = torch.tensor([[0.75, 0.0], [0.25, 0.5]])
    same = torch.tensor([[True, False], [False, True]])
    total = math.log(1 + math.e + math.e**2)
    expected = [
        [
            0 - total + math.log(0.5) + 10,
            1 - total + math.log(0.5) + 1.5 + 10,
            2 - total + math.log(0.5),
        ],
        [
            -math.log(3) + math.log(0.9) + 10,
            -math.log(3) + math.log(0.9) + 0.5,
            -math.log(3) + math.log(0.9) + 1.0 + 10,
        ],
    ]
    torch.testing.assert_close(match_scores(logits, scores, overlaps, same), torch.tensor(expected))


def test_of_two_boxes_that_want_one_object_the_better_has_it() -> None:
    """Columns: new, object 0, object 1."""
    scores = torch.tensor(
        [
            [0.0, 3.0, 1.0],  # wants object 0, worse than the next
            [0.0, 5.0, 4.0],  # has object 0
            [0.0, 5.0, 4.0],  # as good, but later
            [2.0, 1.0, 0.0],  # new of itself
            [0.0, 1.0, 2.0],  # has object 1
        ]
    )
    assert assign(scores).tolist() == [NEW, 0, NEW, NEW, 1]
    assert assign(torch.zeros(2, 1)).tolist() == [NEW, NEW], "nothing is known"
    assert assign(torch.zeros(0, 3)).tolist() == []


# ---- the tracks of a clip


def nothing(length: int = 2) -> Tracks:
    return Tracks.none(torch.zeros(3, length))


def seen(known: Tracks, *objects: tuple[float, float, int], max_known: int = 9) -> tuple[list[int], Tracks]:
    """The next frame: the angle of each object's vector in degrees, its place, its class; highest-scoring first."""
    angles = torch.tensor([angle for angle, _, _ in objects]).deg2rad()
    boxes = torch.tensor([[float(at), 0, at + 10, 10] for _, at, _ in objects]).reshape(-1, 4)
    tracks, known = track(
        known,
        10 * torch.stack([angles.cos(), angles.sin()], dim=1),
        boxes,
        torch.tensor([channel for _, _, channel in objects], dtype=torch.int64),
        torch.linspace(0.9, 0.8, len(objects)),
        max_known=max_known,
    )
    return tracks.tolist(), known


def test_objects_keep_their_numbers_whatever_their_order() -> None:
    tracks, known = seen(nothing(), (0, 0, 1), (90, 50, 1))
    assert tracks == [0, 1]
    tracks, known = seen(known, (88, 53, 1), (2, 4, 1))
    assert tracks == [1, 0]
    tracks, known = seen(known, (45, 90, 2), (0, 8, 1), (91, 56, 1))
    assert tracks == [2, 0, 1], "another one comes first"
    tracks, known = seen(known)
    assert tracks == []
    tracks, known = seen(known, (92, 58, 1), (1, 12, 1))
    assert tracks == [1, 0], "they come back after a frame in which nothing was found"
    assert int(known.next_id) == 3


def test_the_loser_of_a_conflict_is_new_and_numbers_are_never_used_twice() -> None:
    """Both look like object 0: the one that overlaps it has it, though it comes second."""
    _, known = seen(nothing(), (0, 0, 1))
    tracks, known = seen(known, (0, 50, 1), (0, 1, 1))
    assert tracks == [1, 0]
    # now each of the two is known at its place
    tracks, known = seen(known, (0, 1, 1), (0, 50, 1))
    assert tracks == [0, 1]
    torch.testing.assert_close(known.boxes[:, 0], torch.tensor([50.0, 1.0]), msg="the highest-scoring last")


def test_an_object_keeps_its_class() -> None:
    """The vector says object 0 so loudly that even another class cannot deny it: then it is a new object."""
    _, known = seen(nothing(), (0, 0, 1))
    tracks, known = seen(known, (0, 0, 2))
    assert tracks == [1]
    tracks, _ = seen(known, (0, 0, 1))
    assert tracks == [0]


def test_the_track_missing_for_longest_is_forgotten_first() -> None:
    _, known = seen(nothing(), (0, 0, 1), (90, 50, 1), max_known=2)
    tracks, known = seen(known, (0, 0, 1), (180, 99, 2), max_known=2)
    assert tracks == [0, 2]
    assert known.ids.tolist() == [2, 0]
    tracks, known = seen(known, (90, 50, 1), (0, 0, 1), max_known=2)
    assert tracks == [3, 0], "object 1 is not known any more"
    assert known.ids.tolist() == [0, 3]
    assert len(known.vectors) == len(known.boxes) == len(known.channels) == 2


def test_memory_is_bounded() -> None:
    generator = np.random.default_rng(0)
    known, numbers = nothing(), set[int]()
    for _ in range(50):
        objects = [
            (float(generator.uniform(0, 360)), float(generator.uniform(0, 500)), int(generator.integers(1, 4)))
            for _ in range(int(generator.integers(0, 6)))
        ]
        tracks, known = seen(known, *objects, max_known=7)
        assert len(set(tracks)) == len(tracks)
        assert all(track in numbers or track >= len(numbers) for track in tracks)
        numbers.update(tracks)
        assert len(known.ids) <= 7
        assert int(known.next_id) == len(numbers)
    assert len(numbers) > 20


def of_tracks(*ids: int, crowd: int | None = None) -> Instances:
    count = len(ids)
    is_crowd = torch.zeros(count, dtype=torch.bool)
    if crowd is not None:
        is_crowd[crowd] = True
    return Instances(
        boxes=torch.tensor([[0.0, 0, 8, 8]]).repeat(count, 1),
        labels=torch.full((count,), 2),
        track_ids=torch.tensor(ids, dtype=torch.int64),
        crowd=is_crowd,
    )


def test_true_columns_follow_the_track_ids() -> None:
    target, reference = of_tracks(7, 5, UNKNOWN, 9), of_tracks(9, 7)
    objects = torch.tensor([0, 0, 1, 2, 3])
    assert match_targets(target, objects, reference).tolist() == [2, 2, 0, UNKNOWN, 1]
    assert match_targets(target, objects, of_tracks()).tolist() == [0, 0, 0, UNKNOWN, 0]
    assert match_targets(target, objects[:0], reference).tolist() == []
    for one, other in ((replace(target, track_ids=None), reference), (target, replace(reference, track_ids=None))):
        assert match_targets(one, objects, other).tolist() == [UNKNOWN] * 5
