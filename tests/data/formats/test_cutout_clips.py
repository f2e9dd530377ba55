"""Clips of cut-out objects: compositing by hand, flow by a literal second formula, and what the data set promises."""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from pixelwise.data.formats.cutout_clips.synthesis import CutoutClips, Layer, Motion, drawn, flow_between
from pixelwise.data.spec import open_dataset
from pixelwise.errors import DataError
from pixelwise.labels import LabelSet
from pixelwise.ops.warp import warp
from pixelwise.types import Annotation, Instances, Masks, Sample
from tests.shared_data import require

LABELS = LabelSet(
    name="boxes",
    names=("background", "crate", "ball"),
    is_thing=(False, True, True),
    palette=((0, 0, 0), (200, 0, 0), (0, 200, 0)),
    dataset_ids=(0, 1, 2),
)


@dataclass(frozen=True)
class Stills:
    """Ramps of colour with rectangles in them, so that reading between pixels is exact."""

    count: int = 5
    has_objects: bool = True
    size_hw: tuple[int, int] = (70, 90)
    name: str = "stills"
    format: str = "drawn"
    labels: LabelSet = LABELS
    note: str | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(str(index) for index in range(self.count))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        rows, columns = np.mgrid[: self.size_hw[0], : self.size_hw[1]]
        image = np.stack([columns + 7 * index, 2 * rows + 9 * index, columns + rows + 3 * index]).astype(np.uint8)
        masks = np.zeros((2, *self.size_hw), dtype=bool)
        masks[0, 10 + index : 30, 15:40] = True
        masks[1, 40:62, 50 : 80 - index] = True
        packed = Masks.from_dense(torch.from_numpy(masks))
        instances = Instances(packed.boxes.float(), torch.tensor([1, 2]), packed)
        semantic = torch.from_numpy((masks[0] * 1 + masks[1] * 2).astype(np.uint8))
        truth = Annotation(semantic=semantic, instances=instances if self.has_objects else None)
        return Sample(torch.from_numpy(image), truth, str(index), self.size_hw)

    def size_of(self, index: int) -> tuple[int, int]:
        return self.size_hw

    def image_path(self, index: int) -> Path:
        return Path(f"{index}.png")

    truth_path = image_path


def clips_of(count: int = 4, **changes: object) -> CutoutClips:
    return CutoutClips(Stills(), frames=6, count=count, size_hw=(40, 48), objects=3, **changes)  # pyright: ignore


def test_layers_lie_on_each_other_as_by_hand() -> None:
    ground = Layer(torch.full((3, 8, 8), 10, dtype=torch.uint8), np.full((8, 8), 1, np.int32), Motion((0, 0), (0, 0)))
    far = Layer(
        torch.full((3, 2, 3), 20, dtype=torch.uint8),
        np.array([[5, 5, 5], [5, 0, 5]], dtype=np.int32),
        Motion(anchor=(0, 0), middle=(1, 2), velocity=(2, 0)),
    )
    near = Layer(
        torch.full((3, 2, 2), 30, dtype=torch.uint8),
        np.full((2, 2), 6, np.int32),
        Motion(anchor=(0, 0), middle=(3, 3), velocity=(0, 1)),
    )
    before, now = (drawn((ground, far, near), (8, 8), time) for time in (0, 1))
    assert before.ids.tolist() == [
        [1, 1, 1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 1, 1, 1],
        [1, 5, 5, 5, 1, 1, 1, 1],
        [1, 5, 1, 6, 6, 1, 1, 1],
        [1, 1, 1, 6, 6, 1, 1, 1],
        [1, 1, 1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 1, 1, 1],
    ]
    assert now.ids[2:6].tolist() == [
        [1, 1, 1, 5, 5, 5, 1, 1],
        [1, 1, 1, 5, 1, 5, 1, 1],
        [1, 1, 1, 6, 6, 1, 1, 1],
        [1, 1, 1, 6, 6, 1, 1, 1],
    ]
    colours = {1: 10, 5: 20, 6: 30}
    assert now.image[1].tolist() == [[colours[id] for id in row] for row in now.ids.tolist()]
    flow = flow_between((ground, far, near), (8, 8), 1, 0)
    assert flow[:, 2, 3].tolist() == [-2, 0]
    assert flow[:, 4, 3].tolist() == [0, -1]
    assert flow[:, 0, 0].tolist() == [0, 0]
    assert flow[:, 3, 5].isnan().all()  # behind the near object before
    assert flow[:, 2, 2].isnan().all()  # where the far object was
    assert int(flow[0].isnan().sum()) == 5  # (2,1) (2,2) (3,1) of the far object's former place, (3,3)→5, (3,5)


def test_a_motion_is_its_formula() -> None:
    motion = Motion((4, 3), (10, 20), (0.5, -0.25), (1, 2), (0.3, -0.4), 0.7, 0.2, 1.5, 0.1, 0.3, -0.05, True)
    for time in (-2.0, 0.0, 1.5):
        px, py = 7.0, 13.0
        cx = 10 + time + 0.3 * math.sin(0.7 * time + 0.2)
        cy = 20 + 2 * time - 0.4 * math.sin(0.7 * time + 0.2)
        angle, scale = 0.3 - 0.05 * time, 1.5 * math.exp(0.1 * time)
        dx, dy = px - cx, py - cy
        x = -(math.cos(angle) * dx + math.sin(angle) * dy) / scale + 4 + 0.5 * time
        y = (-math.sin(angle) * dx + math.cos(angle) * dy) / scale + 3 - 0.25 * time
        assert motion.to_layer(time) @ [px, py, 1] == pytest.approx([x, y])


@pytest.mark.parametrize("index", [1, 4, 8, 17, 23])
def test_flow_brings_the_frame_before_to_where_the_frame_is(index: int) -> None:
    clips = clips_of(seed=3)
    now, before, flow = clips[index].image, clips[index - 1].image, clips.flow(index).numpy()
    scene, (clip, frame) = clips.scene(index // 6), divmod(index, 6)
    assert clip == index // 6
    owner = drawn(scene.layers, clips.size_hw, frame - 1 - 2.5).owner
    here = drawn(scene.layers, clips.size_hw, frame - 2.5).owner
    compared = 0
    for row, column in zip(*np.nonzero(~np.isnan(flow[0])), strict=True):
        x, y = column + flow[0, row, column], row + flow[1, row, column]
        assert 0 <= x <= 47
        assert 0 <= y <= 39
        x0, y0 = min(int(x), 46), min(int(y), 38)
        if (owner[y0 : y0 + 2, x0 : x0 + 2] != here[row, column]).any():
            continue  # the edge of a layer: not all four pixels are of it
        fx, fy = x - x0, y - y0
        four = before[:, y0 : y0 + 2, x0 : x0 + 2].double()
        weights = torch.tensor([[(1 - fy) * (1 - fx), (1 - fy) * fx], [fy * (1 - fx), fy * fx]], dtype=torch.float64)
        # each frame is rounded to whole values, and so was an object that was made smaller before
        assert ((four * weights).sum(dim=(1, 2)) - now[:, row, column]).abs().max() <= 1.51
        compared += 1
    assert compared > 1000


def test_flow_is_what_the_motions_say_pixel_by_pixel() -> None:
    clips = clips_of(seed=8)
    layers = clips.scene(1).layers
    assert len(layers) > 1

    def seen_at(time: float, x: int, y: int) -> int:
        top = 0
        for number, layer in enumerate(layers[1:], start=1):
            u, v = layer.motion.to_layer(time) @ [x, y, 1]
            column, row = math.floor(u + 0.5), math.floor(v + 0.5)
            height, width = layer.ids.shape
            if 0 <= column < width and 0 <= row < height and layer.ids[row, column]:
                top = number
        return top

    flow = clips.flow(6 + 4).numpy()
    hidden = 0
    for y in range(0, 40, 3):
        for x in range(0, 48, 3):
            layer = seen_at(1.5, x, y)
            now, before = (layers[layer].motion.to_layer(time) for time in (1.5, 0.5))
            place = now @ [x, y, 1]
            whole = np.vstack([before, [0, 0, 1]])
            bx, by, _ = np.linalg.inv(whole) @ [*place, 1]
            visible = 0 <= bx <= 47 and 0 <= by <= 39
            visible = visible and seen_at(0.5, math.floor(bx + 0.5), math.floor(by + 0.5)) == layer
            if visible:
                assert flow[:, y, x] == pytest.approx([bx - x, by - y], abs=1e-4)
            else:
                assert np.isnan(flow[:, y, x]).all()
                hidden += 1
    assert hidden


def test_flow_to_any_frame_of_the_clip_and_to_none_before_the_first() -> None:
    clips = clips_of(seed=1)
    assert clips.flow(6).isnan().all()
    still = clips.flow(8, reference=2)
    assert still.abs().max() < 1e-6
    assert not torch.equal(clips.flow(10, reference=0).nan_to_num(), clips.flow(10).nan_to_num())


def test_ids_hold_in_a_clip_and_the_parts_of_the_ground_truth_agree() -> None:
    clips = clips_of(seed=5)
    for clip in range(4):
        class_of: dict[int, int] = {}
        seen: list[set[int]] = []
        for index in range(clip * 6, clip * 6 + 6):
            truth = clips[index].truth
            assert truth.panoptic is not None
            assert truth.instances is not None
            assert truth.instances.masks is not None
            assert truth.instances.track_ids is not None
            ids = truth.panoptic.ids
            assert set(ids.unique().tolist()) == set(truth.panoptic.segment_ids.tolist())
            tracks = truth.instances.track_ids.tolist()
            assert len(set(tracks)) == len(tracks)
            seen.append(set(tracks))
            for number, (track, label) in enumerate(zip(tracks, truth.instances.labels.tolist(), strict=True)):
                assert class_of.setdefault(track, label) == label
                assert torch.equal(truth.instances.masks.dense_one(number), ids == track)
                assert truth.semantic is not None
                assert set(truth.semantic[ids == track].tolist()) == {label}
        assert any(len(one & other) for one, other in pairwise(seen))


def test_the_camera_never_leaves_the_photograph() -> None:
    clips = clips_of(30, seed=2)
    for clip in range(30):
        ground = clips.scene(clip).layers[0]
        for time in (-2.5, 0, 2.5):
            for corner in ((0, 0), (47, 0), (0, 39), (47, 39)):
                x, y = ground.motion.to_layer(time) @ [*corner, 1]
                assert -1e-9 <= x <= ground.ids.shape[1] - 1 + 1e-9
                assert -1e-9 <= y <= ground.ids.shape[0] - 1 + 1e-9


def test_a_frame_needs_no_other_and_comes_again() -> None:
    clips, again = clips_of(seed=4), clips_of(seed=4)
    whole = [clips[index] for index in range(24)]
    alone = pickle.loads(pickle.dumps(again))[17]
    assert torch.equal(alone.image, whole[17].image)
    expected = whole[17].truth.panoptic
    assert expected is not None
    assert torch.equal(alone.truth.panoptic.ids, expected.ids)
    assert (alone.id, alone.clip, alone.frame) == ("000002/000005", "000002", 5)
    assert clips.clips[17] == "000002"
    firsts = {sample.image.numpy().tobytes() for sample in whole}
    assert len(firsts) == 24
    assert not torch.equal(clips_of(seed=9)[0].image, whole[0].image)


def test_more_clips_do_not_change_the_first() -> None:
    assert torch.equal(clips_of(4)[7].image, clips_of(40)[7].image)


def test_photographs_far_larger_than_the_frames_are_reduced_without_a_shift() -> None:
    large = CutoutClips(Stills(size_hw=(240, 200)), frames=6, count=6, size_hw=(16, 16), objects=2, seed=1)
    for index in range(1, 6):
        ground = large.scene(index).layers[0]
        assert ground.ids.shape[0] < 240
        picture, source = drawn(large.scene(index).layers, (16, 16), 0.0), large.scene(index).layers[0]
        rows, columns = np.nonzero(picture.owner == 0)
        x, _ = (source.motion.to_layer(0.0) @ np.stack([columns, rows, np.ones_like(rows)])).round(6)
        times = round(200 / ground.ids.shape[1])
        offset = (times - 1) / 2  # the middle of the pixels that became one
        number = int(np.random.default_rng((1, index)).integers(5))
        wanted = (x * times + offset) + 7 * number
        assert np.abs(picture.image[0].numpy()[rows, columns] - wanted % 256).max() <= 1.01


def test_stills_without_objects_and_senseless_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="no objects with masks"):
        CutoutClips(Stills(has_objects=False))[0]
    with pytest.raises(DataError, match="frames=0"):
        CutoutClips(Stills(), frames=0)


def test_clips_of_real_objects() -> None:
    folder = require("coco")
    clips = open_dataset(f"cutout-clips:{folder}?clips=3&frames=4&height=96&width=128", default_split="val")
    assert len(clips) == 12
    for index in (0, 3, 7):
        sample = clips[index]
        assert sample.truth.instances is not None
        assert len(sample.truth.instances) > 0
        assert sample.image.shape == (3, 96, 128)


def test_flow_warps_real_photographs() -> None:
    clips = open_dataset(f"cutout-clips:{require('coco')}?clips=4&frames=4&height=96&width=128", default_split="val")
    assert isinstance(clips, CutoutClips)
    for index in (1, 6, 11, 13):
        now, before, flow = clips[index].image.float(), clips[index - 1].image.float(), clips.flow(index)
        visible = ~flow[0].isnan()
        assert visible.float().mean() > 0.6
        warped = warp(before[None], flow.nan_to_num()[None], outside="border")[0]
        moved, still = ((one - now).abs()[:, visible].mean() for one in (warped, before))
        assert moved < 0.5 * still
