"""One round trip for each type that travels, and what each promises."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from pycocotools import mask as pycoco
from torch import Tensor
from torch.utils.data import DataLoader

from pixelwise.errors import DataError
from pixelwise.labels import LabelSet
from pixelwise.ops.panoptic import ids_to_rgb, rgb_to_ids
from pixelwise.types import Annotation, Batch, Instances, Masks, Panoptic, Sample

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools

LABELS = LabelSet.from_names("fruit", ["background", "apple", "pear"])


def random_masks(count: int, size: tuple[int, int], seed: int) -> Tensor:
    """Blobs of rectangles, some of them empty or touching the borders."""
    generator = np.random.default_rng(seed)
    dense = torch.zeros(count, *size, dtype=torch.bool)
    for mask in dense:
        for _ in range(generator.integers(0, 4)):
            y1, x1 = generator.integers(0, size[0]), generator.integers(0, size[1])
            y2, x2 = generator.integers(y1, size[0]) + 1, generator.integers(x1, size[1]) + 1
            mask[y1:y2, x1:x2] ^= True
    return dense


def an_annotation(size: tuple[int, int] = (4, 6)) -> Annotation:
    """With every part."""
    masks = Masks.from_dense(random_masks(3, size, seed=1))
    return Annotation(
        semantic=torch.randint(0, 3, size, dtype=torch.uint8),
        confidence=torch.rand(size),
        instances=Instances(
            boxes=torch.rand(3, 4),
            labels=torch.tensor([1, 2, 1]),
            masks=masks,
            scores=torch.rand(3),
            track_ids=torch.tensor([4, 5, 6]),
            crowd=torch.tensor([False, True, False]),
        ),
        panoptic=Panoptic(
            ids=torch.randint(0, 3, size, dtype=torch.int32),
            segment_ids=torch.tensor([1, 2], dtype=torch.int32),
            labels=torch.tensor([1, 0]),
            crowd=torch.tensor([False, False]),
            scores=torch.rand(2),
        ),
        saliency=torch.rand(size),
        classes=torch.tensor([True, True, False]),
        class_scores=torch.rand(3),
        captions=(("an apple", -1.5),),
    )


def a_sample(id: str = "a", size: tuple[int, int] = (4, 6)) -> Sample:
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    return Sample(image=image, truth=an_annotation(size), id=id, original_size=size, clip="c", frame=2)


def a_batch() -> Batch:
    return Batch(
        images=torch.rand(2, 3, 4, 6),
        valid_sizes=torch.tensor([[4, 6], [4, 6]]),
        original_sizes=torch.tensor([[4, 6], [8, 12]]),
        truth=(an_annotation(), an_annotation()),
        ids=("a", "b"),
        clip_index=torch.tensor([0, 1]),
        frame_index=torch.tensor([0, 0]),
    )


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Every tensor in a value, however deep."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from tensors_of(item)
    elif hasattr(value, "__dataclass_fields__"):
        for field in fields(value):
            yield from tensors_of(getattr(value, field.name))


def require_equal(one: Any, other: Any) -> None:
    """Fail unless two values of the travelling types are equal in every field."""
    assert type(one) is type(other)
    if isinstance(one, Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, tuple) and one and hasattr(one[0], "__dataclass_fields__"):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            require_equal(*pair)
    elif hasattr(one, "__dataclass_fields__"):
        for field in fields(one):
            require_equal(getattr(one, field.name), getattr(other, field.name))
    else:
        assert one == other


def test_label_set_survives_its_json() -> None:
    assert LabelSet.from_json(LABELS.to_json()) == LABELS


# ---- Masks


SIZES = [(1, 1), (1, 9), (7, 1), (5, 8), (33, 17)]


@pytest.mark.parametrize("size", SIZES)
def test_dense_masks_survive_packing(size: tuple[int, int]) -> None:
    dense = random_masks(6, size, seed=sum(size))
    packed = Masks.from_dense(dense)
    assert torch.equal(packed.dense(), dense)
    assert packed.areas().tolist() == dense.sum(dim=(1, 2)).tolist()
    for index, mask in enumerate(dense):
        rows, columns = mask.any(dim=1).nonzero().flatten().tolist(), mask.any(dim=0).nonzero().flatten().tolist()
        tight = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] if rows else [0, 0, 0, 0]
        assert packed.boxes[index].tolist() == tight


@pytest.mark.parametrize("size", SIZES)
def test_packed_masks_survive_cocos_runs_which_are_pycocotools_own(size: tuple[int, int]) -> None:
    dense = random_masks(6, size, seed=sum(size))
    packed = Masks.from_dense(dense)
    encoded = packed.to_coco()
    for rle, mask in zip(encoded, dense.numpy(), strict=True):
        theirs = pycoco.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert rle == {"size": list(size), "counts": theirs["counts"].decode()}
    require_equal(Masks.from_coco(encoded, size), packed)


def test_lists_of_runs_mean_the_same_as_the_compressed_ones() -> None:
    # down the columns: one zero, two ones, three zeros, three ones, three zeros
    masks = Masks.from_coco([{"size": [3, 4], "counts": [1, 2, 3, 3, 3]}], (3, 4))
    assert masks.dense()[0].int().tolist() == [[0, 0, 1, 0], [1, 0, 1, 0], [1, 0, 1, 0]]
    assert Masks.from_coco(masks.to_coco(), (3, 4)).crops.tolist() == masks.crops.tolist()


@pytest.mark.parametrize("seed", range(8))
def test_polygons_cover_the_pixels_that_pycocotools_gives_them(seed: int) -> None:
    generator = np.random.default_rng(seed)
    size = (19, 31)
    objects = [
        [
            generator.uniform((-4, -4) * points, (35, 23) * points).round(2).tolist()
            for points in generator.integers(3, 9, generator.integers(1, 4))
        ]
        for _ in range(5)
    ]
    masks = Masks.from_coco(objects, size)
    for index, polygons in enumerate(objects):
        theirs = pycoco.decode(pycoco.merge(pycoco.frPyObjects(polygons, *size)))
        assert np.array_equal(masks.dense_one(index).numpy(), theirs.astype(bool))


def test_no_masks_and_empty_masks_go_every_way() -> None:
    none = Masks.from_dense(torch.zeros(0, 4, 5))
    empty = Masks.from_dense(torch.zeros(2, 4, 5))
    assert (len(none), none.size, none.to_coco(), none.dense().shape) == (0, (4, 5), [], (0, 4, 5))
    assert (len(empty), empty.crops.numel(), empty.boxes.tolist()) == (2, 0, [[0, 0, 0, 0]] * 2)
    assert empty.areas().tolist() == [0, 0]
    require_equal(Masks.from_coco(empty.to_coco(), (4, 5)), empty)
    require_equal(Masks.from_coco([[], []], (4, 5)), empty)
    assert empty.sample(torch.tensor([[0.0, 0, 5, 4]] * 2), (2, 2)).tolist() == torch.zeros(2, 2, 2).tolist()
    assert none.sample(torch.zeros(0, 4), (2, 2)).shape == (0, 2, 2)
    assert len(empty[[]]) == 0
    require_equal(none[torch.zeros(0, dtype=torch.bool)], none)
    require_equal(Masks.concatenate([none, empty, none]), empty)


def test_selection_by_index_and_by_bool() -> None:
    dense = random_masks(7, (9, 11), seed=3)
    masks = Masks.from_dense(dense)
    for index in ([4, 0, 0, 6], [-1, 2], [5], []):
        assert torch.equal(masks[index].dense(), dense[index])
        assert torch.equal(masks[torch.tensor(index, dtype=torch.int64)].dense(), dense[index])
        require_equal(masks[index], Masks.from_dense(dense[index]))
    kept = dense.flatten(1).any(dim=1)
    assert torch.equal(masks[kept].dense(), dense[kept])
    assert torch.equal(masks[kept.tolist()].dense(), dense[kept])
    with pytest.raises(DataError, match="a choice of 3 bools among 7"):
        masks[torch.ones(3, dtype=torch.bool)]


def test_concatenation_keeps_order_and_refuses_other_sizes() -> None:
    dense = random_masks(6, (5, 7), seed=4)
    parts = [Masks.from_dense(dense[:2]), Masks.from_dense(dense[2:3]), Masks.from_dense(dense[3:])]
    require_equal(Masks.concatenate(parts), Masks.from_dense(dense))
    with pytest.raises(DataError, match="one and the same size"):
        Masks.concatenate([parts[0], Masks.from_dense(torch.zeros(1, 7, 5))])
    with pytest.raises(DataError, match="one and the same size"):
        Masks.concatenate([])


def test_crops_need_not_be_tight_nor_of_ones() -> None:
    crop = torch.tensor([[0, 200], [0, 7]])
    masks = Masks.from_crops([crop], [[1, 0, 3, 2]], (3, 4))
    assert masks.crops.tolist() == [0, 1, 0, 1]
    assert masks.dense()[0].int().tolist() == [[0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert torch.equal(masks.crop(0), (crop != 0).to(torch.uint8))


@pytest.mark.parametrize(
    ("crop", "box", "text"),
    [
        (torch.ones(2, 2), [0, 0, 2, 3], r"mask 0: a crop of \(2, 2\) in the box \[0, 0, 2, 3\]"),
        (torch.ones(2, 2), [3, 0, 5, 2], "mask 0: the box .* leaves the image of 3×4"),
        (torch.ones(2, 2), [-1, 0, 1, 2], "mask 0: the box .* leaves the image of 3×4"),
    ],
)
def test_crops_that_do_not_fit_are_refused(crop: Tensor, box: list[int], text: str) -> None:
    with pytest.raises(DataError, match=text):
        Masks.from_crops([crop], [box], (3, 4))


def test_masks_of_another_size_are_refused() -> None:
    with pytest.raises(DataError, match="mask 1: 3×4 in an image of 4×3"):
        Masks.from_arrays([np.ones((4, 3)), np.ones((3, 4))], (4, 3))
    with pytest.raises(DataError, match="annotation 0: the RLE is 3×4, the image 4×3"):
        Masks.from_coco([{"size": [3, 4], "counts": [12]}], (4, 3))


def bilinear(mask: list[list[int]], y: float, x: float) -> float:
    """The value between pixel centres at integers, zero outside; written pixel by pixel."""
    total = 0.0
    for row in range(len(mask)):
        for column in range(len(mask[0])):
            total += max(0.0, 1 - abs(y - row)) * max(0.0, 1 - abs(x - column)) * mask[row][column]
    return total


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("cells", [(1, 1), (2, 3), (7, 7)])
def test_sampling_is_bilinear_between_pixel_centres(seed: int, cells: tuple[int, int]) -> None:
    dense = random_masks(5, (9, 12), seed)
    generator = np.random.default_rng(seed)
    corners = np.sort(generator.uniform(-3, 15, (5, 2, 2)), axis=1)  # x1 y1, x2 y2; some outside the image
    boxes = torch.tensor(corners.reshape(5, 4), dtype=torch.float32)
    sampled = Masks.from_dense(dense).sample(boxes, cells)
    for index, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        mask = dense[index].int().tolist()
        for row in range(cells[0]):
            for column in range(cells[1]):
                y = y1 + (y2 - y1) * (row + 0.5) / cells[0] - 0.5
                x = x1 + (x2 - x1) * (column + 0.5) / cells[1] - 0.5
                assert sampled[index, row, column].item() == pytest.approx(bilinear(mask, y, x), abs=1e-5)


def test_sampling_worked_by_hand() -> None:
    mask = torch.tensor([[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
    masks = Masks.from_dense(torch.stack([mask] * 4))
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4], [1, 1, 3, 3], [1.5, 1, 2.5, 2]])
    # at its own size a mask is itself
    assert torch.equal(masks.sample(boxes, (4, 4))[0], mask.float())
    # halved, each centre lies between four pixels
    assert masks.sample(boxes, (2, 2))[1].tolist() == [[0.25, 0.25], [0, 0.25]]
    # a box around the object cuts it out
    assert masks.sample(boxes, (2, 2))[2].tolist() == [[1, 1], [0, 1]]
    # one cell between two pixels of the upper row
    assert masks.sample(boxes, (1, 1))[3].tolist() == [[1]]


def test_memory_follows_the_boxes_not_the_image() -> None:
    size, side, count = (4000, 6000), 20, 50
    segmentations = []
    for index in range(count):
        start = (100 * index) * size[0] + 50 * index
        runs = [start, *([side, size[0] - side] * side)]
        segmentations.append({"size": list(size), "counts": [*runs[:-1], size[0] * size[1] - sum(runs[:-1])]})
    tracemalloc.start()
    masks = Masks.from_coco(segmentations, size)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert masks.crops.numel() == count * side * side
    assert masks.areas().tolist() == [side * side] * count
    assert masks.boxes[3].tolist() == [300, 150, 320, 170]
    # so that numpy's memory is counted, and is that of crops and of an object's columns: no mask at the image's size
    assert count * side * side <= peak < size[0] * size[1] / 10


# ---- the others


def test_instances_are_chosen_with_all_their_parts() -> None:
    instances = an_annotation().instances
    assert instances is not None
    assert instances.masks is not None
    chosen = instances[torch.tensor([False, False, True])]
    assert chosen.masks is not None
    assert (chosen.labels.tolist(), chosen.crowd.tolist(), chosen.track_ids.tolist()) == ([1], [False], [6])
    assert torch.equal(chosen.boxes, instances.boxes[2:])
    assert torch.equal(chosen.scores, instances.scores[2:])
    assert torch.equal(chosen.masks.dense(), instances.masks.dense()[2:])
    require_equal(instances[[2, 0, 1]][[1, 2, 0]], instances)
    bare = Instances(boxes=torch.rand(2, 4), labels=torch.tensor([0, 1]))
    assert bare[[1]].labels.tolist() == [1]
    assert bare[[1]].masks is None
    with pytest.raises(DataError, match="expected one for each"):
        bare[[True]]


def hand_worked_panoptic() -> Panoptic:
    """Segments 7 and 300 in a 4×4 image, a third (9) that no pixel has, and void."""
    ids = torch.tensor([[0, 7, 7, 7], [0, 7, 7, 300], [300, 300, 300, 300], [0, 0, 300, 300]], dtype=torch.int32)
    return Panoptic(
        ids=ids,
        segment_ids=torch.tensor([300, 9, 7], dtype=torch.int32),
        labels=torch.tensor([2, 1, 0]),
        crowd=torch.zeros(3, dtype=torch.bool),
    )


def test_panoptic_says_the_class_of_each_pixel() -> None:
    panoptic = hand_worked_panoptic()
    expected = [[255, 0, 0, 0], [255, 0, 0, 2], [2, 2, 2, 2], [255, 255, 2, 2]]
    semantic = panoptic.to_semantic(255)
    assert semantic.dtype == torch.uint8
    assert semantic.tolist() == expected
    wide = panoptic.to_semantic(-1)
    assert wide.dtype == torch.int32
    assert wide.tolist() == [[-1 if value == 255 else value for value in row] for row in expected]
    assert panoptic.areas().tolist() == [7, 0, 5]


def test_panoptic_without_segments_is_void() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    panoptic = Panoptic(torch.full((2, 3), 5, dtype=torch.int32), nothing.int(), nothing, nothing.bool())
    assert panoptic.to_semantic(255).tolist() == [[255] * 3] * 2
    assert panoptic.areas().tolist() == []


def test_a_pixel_of_a_segment_without_entry_is_void() -> None:
    panoptic = hand_worked_panoptic()
    unknown = replace(panoptic, ids=torch.where(panoptic.ids == 7, 8, panoptic.ids))
    assert unknown.to_semantic(255)[0].tolist() == [255] * 4
    assert unknown.areas().tolist() == [7, 0, 0]


def test_panoptic_survives_cocos_colours() -> None:
    panoptic = hand_worked_panoptic()
    rgb = ids_to_rgb(panoptic.ids.numpy())
    assert rgb[2, 0].tolist() == [300 - 256, 1, 0]
    assert torch.equal(torch.from_numpy(rgb_to_ids(rgb)), panoptic.ids)


@pytest.mark.parametrize("value", [a_sample(), a_batch(), an_annotation()], ids=lambda value: type(value).__name__)
def test_moving_moves_every_tensor(value: Any) -> None:
    tensors = list(tensors_of(value))
    assert len(tensors) > 15
    moved = value.to("meta")
    assert [tensor.device.type for tensor in tensors_of(moved)] == ["meta"] * len(tensors)
    assert [tensor.shape for tensor in tensors_of(moved)] == [tensor.shape for tensor in tensors]
    assert all(tensor.device.type == "cpu" for tensor in tensors_of(value))
    require_equal(value.to("cpu"), value)


def test_pinning_pins_every_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[int] = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: pinned.append(id(tensor)) or tensor)
    batch = a_batch()
    require_equal(batch.pin_memory(), batch)
    assert sorted(pinned) == sorted(id(tensor) for tensor in tensors_of(batch))


class _Samples(torch.utils.data.Dataset):
    def __init__(self) -> None:
        self.samples = [a_sample("a"), a_sample("b", (5, 3))]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
@pytest.mark.slow
def test_samples_come_out_of_a_worker_process_as_they_are(start_method: str) -> None:
    samples = _Samples()
    loader = DataLoader(samples, batch_size=None, num_workers=1, multiprocessing_context=start_method)
    for received, sent in zip(loader, samples.samples, strict=True):
        require_equal(received, sent)


def test_signatures_are_checked_in_tests() -> None:
    """The import hook of tests/conftest.py is at work: a wrong dtype, or sizes that differ, do not pass."""
    with pytest.raises(TypeCheckError, match="semantic"):
        Annotation(semantic=torch.zeros(2, 2))
    with pytest.raises(TypeCheckError, match="saliency"):
        Annotation(confidence=torch.zeros(2, 2), saliency=torch.zeros(2, 3))


def test_masks_without_what_hides_them_are_tight() -> None:
    dense = torch.zeros(3, 6, 8, dtype=torch.bool)
    dense[0, 1:5, 2:6] = True
    dense[1, 0:2, 0:2] = True
    hidden = torch.zeros(6, 8, dtype=torch.bool)
    hidden[0:2, :] = True
    hidden[:, 5] = True
    left = Masks.from_dense(dense).without(hidden)
    assert left.boxes.tolist() == [[2, 2, 5, 5], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert torch.equal(left.dense(), dense & ~hidden)


def test_instances_are_joined_with_what_all_of_them_have() -> None:
    masks = Masks.from_dense(torch.ones(1, 2, 3, dtype=torch.bool))
    one = Instances(torch.zeros(1, 4), torch.tensor([1]), masks=masks, scores=torch.tensor([0.5]))
    other = Instances(torch.ones(1, 4), torch.tensor([2]), masks=masks, crowd=torch.tensor([True]))
    joined = Instances.concatenate([one, other])
    assert joined.labels.tolist() == [1, 2]
    assert joined.scores is None
    assert joined.crowd is not None
    assert joined.crowd.tolist() == [False, True]
    assert joined.masks is not None
    assert len(joined.masks) == 2
    with pytest.raises(DataError, match="1 of 2 groups"):
        Instances.concatenate([one, Instances(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))])
