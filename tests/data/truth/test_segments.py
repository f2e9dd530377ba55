"""Objects and segments cut out of maps of ids."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from pixelwise.data.truth.segments import annotation_of, mapped_segments, masks_of_ids, regions_of_ids, with_ids
from pixelwise.labels import LabelMap, LabelSet
from pixelwise.types import Panoptic

LABELS = LabelSet(
    name="street",
    names=("road", "car", "person"),
    is_thing=(False, True, True),
    palette=((128, 64, 128), (0, 0, 142), (220, 20, 60)),
    dataset_ids=(7, 26, 24),
)


def panoptic(ids: list[list[int]] | torch.Tensor, segments: list[tuple[int, int, bool]]) -> Panoptic:
    """Segments of (id, class, crowd)."""
    return Panoptic(
        ids=torch.as_tensor(ids, dtype=torch.int32),
        segment_ids=torch.tensor([segment[0] for segment in segments], dtype=torch.int32),
        labels=torch.tensor([segment[1] for segment in segments], dtype=torch.int64),
        crowd=torch.tensor([segment[2] for segment in segments], dtype=torch.bool),
    )


def test_parts_of_a_small_map() -> None:
    segments = panoptic(
        [[7, 7, 90, 90], [7, 300, 300, 0], [7, 7, 300, 5], [90, 7, 7, 7]],
        [(300, 1, False), (7, 0, False), (90, 2, True), (4, 1, False)],  # 4 has no pixel, 5 has no entry
    )
    truth = annotation_of(segments, LABELS)
    assert truth.panoptic is segments
    assert truth.semantic is not None
    assert truth.semantic.tolist() == [[0, 0, 2, 2], [0, 1, 1, 255], [0, 0, 1, 255], [2, 0, 0, 0]]
    objects = truth.instances
    assert objects is not None
    assert objects.masks is not None
    assert objects.crowd is not None
    assert objects.labels.tolist() == [2, 1]
    assert objects.crowd.tolist() == [True, False]
    assert objects.boxes.tolist() == [[0, 0, 4, 4], [1, 1, 3, 3]]
    assert objects.masks.dense().int().tolist() == [
        [[0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]],
        [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]],
    ]
    assert objects.track_ids is None
    tracked = annotation_of(segments, LABELS, clip=True).instances
    assert tracked is not None
    assert tracked.track_ids is not None
    assert tracked.track_ids.tolist() == [90, 300]


def test_a_map_without_things() -> None:
    for segments in (panoptic([[0, 0]], []), panoptic([[3, 0]], [(3, 0, False)])):
        truth = annotation_of(segments, LABELS, clip=True)
        assert truth.instances is not None
        assert truth.instances.masks is not None
        assert len(truth.instances) == len(truth.instances.masks) == 0
        assert truth.instances.masks.size == (1, 2)


@pytest.mark.parametrize("seed", range(5))
def test_masks_of_numbers(seed: int) -> None:
    generator = np.random.default_rng(seed)
    ids = (generator.integers(0, 6, (9, 7)) * 50).astype([np.uint8, np.uint16, np.int32][seed % 3])
    wanted = [int(id) for id in generator.permutation([*np.unique(ids), 37])]  # one that does not occur
    masks = masks_of_ids(ids, wanted)
    assert masks.size == (9, 7)
    for number, id in enumerate(wanted):
        assert np.array_equal(masks.dense_one(number).numpy(), ids == id)
    assert len(masks_of_ids(ids, [])) == 0


@pytest.mark.parametrize("seed", range(5))
def test_regions_against_each_id_by_itself(seed: int) -> None:
    generator = np.random.default_rng(seed)
    ids = generator.choice([0, 3, 70000, 2**24 - 1], (5, 1 + 2 * seed)).astype(np.int32)
    regions = regions_of_ids(ids)
    assert regions.ids.tolist() == sorted(set(ids.ravel().tolist()))
    for id, box, area in zip(*regions, strict=True):
        rows, columns = np.nonzero(ids == id)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert area == len(rows)


def test_no_pixels() -> None:
    assert len(regions_of_ids(np.zeros((0, 4), dtype=np.int32)).ids) == 0
    assert masks_of_ids(np.zeros((0, 4), dtype=np.int32), [3]).boxes.tolist() == [[0, 0, 0, 0]]


def test_a_large_map_takes_well_under_a_second() -> None:
    generator = np.random.default_rng(0)
    ids = torch.zeros(1024, 2048, dtype=torch.int32)
    numbers = generator.choice(2**24 - 1, 100, replace=False) + 1
    for number in numbers:
        y, x = int(generator.integers(900)), int(generator.integers(1800))
        ids[y : y + 300, x : x + 300] = int(number)
    segments = panoptic(ids, [(int(number), int(place % 3), False) for place, number in enumerate(numbers)])
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        annotation_of(segments, LABELS, clip=True)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.7


class TestMapped:
    SEGMENTS = panoptic(
        [[1, 1, 2, 2], [5, 5, 6, 6], [0, 9, 9, 7]],
        [(1, 0, False), (2, 1, False), (5, 2, False), (6, 2, True), (9, 3, False)],  # 7 has no entry
    )
    SOURCE = LabelSet(
        name="town",
        names=("road", "grass", "car", "sign"),
        is_thing=(False, False, True, True),
        palette=((0, 0, 0),) * 4,
        dataset_ids=(1, 2, 3, 4),
    )

    def mapped(self, names: dict[str, str], things: tuple[bool, bool]) -> dict[int, tuple[int, bool]]:
        """Segment id → class and crowd; the map of ids is the same, but for the ids."""
        target = LabelSet("t", ("ground", "object"), things, ((0, 0, 0),) * 2, (0, 1))
        found = mapped_segments(self.SEGMENTS, LabelMap.by_names(self.SOURCE, target, names=names))
        assert set(found.ids.unique().tolist()) - {0} == set(found.segment_ids.tolist())
        self.ids = found.ids.tolist()
        return dict(
            zip(found.segment_ids.tolist(), zip(found.labels.tolist(), found.crowd.tolist(), strict=True), strict=True)
        )

    def test_ignored_classes_become_void(self) -> None:
        assert self.mapped({"road": "ground", "car": "object"}, (False, True)) == {
            1: (0, False),
            5: (1, False),
            6: (1, True),
        }
        assert self.ids == [[1, 1, 0, 0], [5, 5, 6, 6], [0, 0, 0, 0]]

    def test_stuff_that_flows_together_is_one_segment_in_every_frame(self) -> None:
        ground = 2**24
        names = {"road": "ground", "grass": "ground", "sign": "ground", "car": "object"}
        assert self.mapped(names, (False, True)) == {ground: (0, False), 5: (1, False), 6: (1, True)}
        assert self.ids == [[ground] * 4, [5, 5, 6, 6], [0, ground, ground, 0]]
        # the id is that of the class, also where only one of the classes is in the frame
        frame = panoptic([[2, 2]], [(2, 1, False)])
        target = LabelSet("t", ("ground", "object"), (False, True), ((0, 0, 0),) * 2, (0, 1))
        other = mapped_segments(frame, LabelMap.by_names(self.SOURCE, target, names=names))
        assert other.ids.tolist() == [[ground, ground]]

    def test_stuff_that_becomes_a_thing_is_a_crowd(self) -> None:
        names = {"grass": "object", "sign": "object"}
        assert self.mapped(names, (False, True)) == {2: (1, True), 9: (1, False)}

    def test_things_keep_their_ids_among_things(self) -> None:
        assert self.mapped({"car": "object", "sign": "object"}, (False, True)) == {
            5: (1, False),
            6: (1, True),
            9: (1, False),
        }


def test_other_ids_in_the_place_of_those_of_segments() -> None:
    segments = panoptic([[4, 0], [9, 5]], [(9, 0, False), (4, 1, False), (6, 1, False)])
    assert with_ids(segments, torch.tensor([1, 2, 3], dtype=torch.int32)).tolist() == [[2, 0], [1, 0]]
    assert with_ids(panoptic([[4, 0]], []), torch.zeros(0, dtype=torch.int32)).tolist() == [[0, 0]]
