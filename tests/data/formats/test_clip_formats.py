"""The formats of clips: what they read, what their check finds, and what becomes of them in another format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pixelwise.data.dataset import Dataset
from pixelwise.data.spec import DataSpec, open_dataset
from pixelwise.data.tools.check import check_dataset
from pixelwise.data.tools.convert import convert_dataset
from pixelwise.data.tools.statistics import statistics_of
from pixelwise.errors import DataError
from pixelwise.ops import rle
from tests.data import clip_drawing, drawing
from tests.data.formats import (
    cutout_clips_set,
    davis_set,
    kitti_step_set,
    masks_set,
    mots_set,
    vipseg_set,
    youtube_vis_set,
)
from tests.data.sets import write_tiny_set
from tests.shared_data import require


def opened(spec: str) -> Dataset:
    return open_dataset(spec, default_split="val")


def faults_of(spec: str) -> list[tuple[str, str, str]]:
    return [(fault.kind, fault.where, fault.text) for fault in check_dataset(DataSpec.parse(spec)).faults()]


def test_kitti_step_reads_class_and_number(tmp_path: Path) -> None:
    data = opened(f"kitti-step:{kitti_step_set.kitti_step(tmp_path)}")
    truth = data[1].truth
    road, walk, person, car = (1 << 16), (2 << 16), (12 << 16) + 7, (14 << 16) + 300
    assert truth.panoptic is not None
    assert truth.panoptic.ids.tolist() == [
        [road, road, road, walk, walk, 0],
        [road, car, car, walk, walk, 0],
        [road, car, car, walk, walk, 0],
        [road, road, road, walk, person, 0],
    ]
    assert truth.instances is not None
    assert truth.instances.track_ids is not None
    assert truth.instances.track_ids.tolist() == [person, car]
    assert [data.labels.names[id] for id in truth.instances.labels.tolist()] == ["person", "car"]
    things = [name for name, is_thing in zip(data.labels.names, data.labels.is_thing, strict=True) if is_thing]
    assert things == ["person", "car"]


def test_a_thing_of_number_0_is_a_crowd_and_other_classes_have_no_objects(tmp_path: Path) -> None:
    kitti_step_set.kitti_step(tmp_path)
    channels = kitti_step_set.step_channels(0)
    channels[0, 0] = (13, 0, 0)
    channels[0, 1] = (14, 0, 0)
    clip_drawing.write_rgb(tmp_path / "panoptic_maps" / "val" / "0003" / "000000.png", channels)
    truth = opened(f"kitti-step:{tmp_path}")[0].truth
    assert truth.panoptic is not None
    assert truth.instances is not None
    crowd = {int(id): bool(one) for id, one in zip(truth.panoptic.segment_ids, truth.panoptic.crowd, strict=True)}
    assert crowd[14 << 16]
    assert not crowd[15 << 16]
    assert truth.instances.labels.tolist() == [11, 13, 13]


def test_the_real_clip_of_kitti_step_is_sound() -> None:
    spec = f"kitti-step:{require('kitti_step')}"
    report = check_dataset(DataSpec.parse(spec))
    assert not report.faults()
    assert report.splits[0].counts[:2] == ("1 clip", "11 frames")
    data = opened(spec)
    sample = data[10]
    assert (sample.clip, sample.frame, sample.id) == ("0000", 10, "0000/000010")
    pixels = np.array(Image.open(data.truth_path(10))).astype(np.int64)
    semantic = sample.truth.semantic
    assert semantic is not None
    assert np.array_equal(semantic.numpy(), pixels[..., 0])


def test_davis_2016_has_one_object() -> None:
    data = opened(f"davis:{require('davis2016')}")
    sample = data[41]
    assert (len(data), sample.clip, sample.frame) == (80, "dog", 1)
    mask = np.array(Image.open(data.truth_path(41))) == 255
    assert sample.truth.instances is not None
    assert sample.truth.instances.masks is not None
    assert sample.truth.instances.track_ids is not None
    assert sample.truth.instances.track_ids.tolist() == [1]
    assert np.array_equal(sample.truth.instances.masks.dense_one(0).numpy(), mask)
    assert data.note


def test_davis_2017_has_numbers_and_void(tmp_path: Path) -> None:
    davis_set.davis(tmp_path)
    mask = np.array([[0, 1, 1, 255, 2, 0]] * 4, dtype=np.uint8)
    picture = Image.fromarray(mask)
    picture.putpalette([0] * 768)
    picture.save(tmp_path / "Annotations" / "480p" / "0003" / "00001.png")
    truth = opened(f"davis:{tmp_path}")[1].truth
    assert truth.semantic is not None
    assert truth.semantic[0].tolist() == [0, 1, 1, 255, 1, 0]
    assert truth.instances is not None
    assert truth.instances.track_ids is not None
    assert truth.instances.track_ids.tolist() == [1, 2]


def test_lists_of_davis_name_clips_or_files(tmp_path: Path) -> None:
    davis_set.davis(tmp_path)
    old = tmp_path / "ImageSets" / "480p"
    old.mkdir()
    lines = [f"/JPEGImages/480p/0002/{n:05d}.jpg /Annotations/480p/0002/{n:05d}.png" for n in range(2)]
    (old / "val.txt").write_text("\n".join(lines) + "\n")
    assert set(opened(f"davis:{tmp_path}").clips) == {"0003"}  # pyright: ignore[reportAttributeAccessIssue]
    assert set(opened(f"davis:{tmp_path}?year=2016").clips) == {"0002"}  # pyright: ignore[reportAttributeAccessIssue]


def test_vipseg_is_the_same_with_and_without_json(tmp_path: Path) -> None:
    listed = opened(f"vipseg:{vipseg_set.vipseg(tmp_path / 'a')}")
    plain = opened(f"vipseg:{vipseg_set.vipseg(tmp_path / 'b', rgb=False)}")
    assert listed.ids == plain.ids
    assert listed.labels.names == plain.labels.names == ("road", "sidewalk", "person", "car")
    for index in range(len(listed)):
        one, other = listed[index].truth, plain[index].truth
        assert one.semantic is not None
        assert other.semantic is not None
        assert torch.equal(one.semantic, other.semantic)
        assert one.instances is not None
        assert other.instances is not None
        assert sorted(one.instances.labels.tolist()) == sorted(other.instances.labels.tolist())


def test_ignored_regions_of_mots_are_void_and_crowds(tmp_path: Path) -> None:
    mots_set.mots(tmp_path)
    text = tmp_path / "val" / "0003" / "gt" / "gt.txt"
    region = np.zeros((4, 6), bool)
    region[0, 3:] = True
    with text.open("a") as file:
        file.write(f"1 10000 10 4 6 {rle.encode(region)['counts']}\n")
    truth = opened(f"mots:{tmp_path}")[0].truth
    assert truth.semantic is not None
    assert truth.semantic.tolist() == [
        [0, 0, 0, 255, 255, 255],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 2, 0],
    ]
    assert truth.instances is not None
    assert truth.instances.crowd is not None
    assert truth.instances.crowd.tolist() == [False, False, True, True]
    assert truth.instances.labels.tolist() == [1, 2, 1, 2]


def test_kitti_mots_is_divided_as_published(tmp_path: Path) -> None:
    for clip in ("0002", "0005"):
        drawing.write_image(tmp_path / "training" / "image_02" / clip / "000000.png", seed=int(clip))
        text = tmp_path / "instances_txt" / f"{clip}.txt"
        text.parent.mkdir(exist_ok=True)
        text.write_text(f"0 1005 1 4 6 {rle.encode(clip_drawing.car_and_person(0)[0])['counts']}\n")
    train, val = (open_dataset(f"mots:{tmp_path}", default_split=split) for split in ("train", "val"))
    assert (train.ids, val.ids) == (("0005/000000",), ("0002/000000",))


# what `data check` finds


def test_an_id_that_changes_class_is_found_but_numbers_by_class_are_not(tmp_path: Path) -> None:
    kitti_step_set.kitti_step(tmp_path)
    folder = tmp_path / "panoptic_maps" / "val" / "0003"
    channels = kitti_step_set.step_channels(1)
    channels[channels[..., 0] == 13, 0] = 11  # the car 300 becomes a person
    clip_drawing.write_rgb(folder / "000001.png", channels)
    found = faults_of(f"kitti-step:{tmp_path}@val")
    assert [kind for kind, _, _ in found] == ["id changes class"] * 2
    assert "id 300" in found[0][1]
    assert "0003/000001" in found[0][1]
    assert "person" in found[0][2]
    channels[0, 0] = (13, 300 // 256, 300 % 256)  # in one frame both have the number: they are counted class by class
    clip_drawing.write_rgb(folder / "000001.png", channels)
    assert not faults_of(f"kitti-step:{tmp_path}@val")


def spoil_number_of_stuff(root: Path) -> str:
    channels = kitti_step_set.step_channels(2)
    channels[0, 0] = (0, 0, 9)
    clip_drawing.write_rgb(root / "panoptic_maps" / "val" / "0003" / "000002.png", channels)
    return "number of stuff: 000002.png"


def spoil_class(root: Path) -> str:
    channels = kitti_step_set.step_channels(2)
    channels[0, 0] = (77, 0, 0)
    clip_drawing.write_rgb(root / "panoptic_maps" / "val" / "0003" / "000002.png", channels)
    return "unknown class: class 77"


def spoil_missing_map(root: Path) -> str:
    (root / "panoptic_maps" / "val" / "0003" / "000002.png").unlink()
    return "missing truth: 0003/000002"


def spoil_missing_image(root: Path) -> str:
    (root / "images" / "val" / "0003" / "000002.png").unlink()
    return "missing image: 0003/000002"


def spoil_gap(root: Path) -> str:
    for folder in ("images", "panoptic_maps"):
        for clip in ("0001",):
            (root / folder / "train" / clip / "000002.png").rename(root / folder / "train" / clip / "000009.png")
    drawing.write_image(root / "images" / "train" / "0001" / "000002.png", seed=77)
    clip_drawing.write_rgb(root / "panoptic_maps" / "train" / "0001" / "000002.png", kitti_step_set.step_channels(2))
    return "missing frames: clip '0001'"


def spoil_size(root: Path) -> str:
    image = root / "images" / "val" / "0003" / "000001.png"
    drawing.write_image(image, seed=55, size_hw=(5, 6))
    channels = np.zeros((5, 6, 3))
    clip_drawing.write_rgb(root / "panoptic_maps" / "val" / "0003" / "000001.png", channels)
    return "size changes: 0003/000001"


@pytest.mark.parametrize(
    "spoil",
    [spoil_number_of_stuff, spoil_class, spoil_missing_map, spoil_missing_image, spoil_gap, spoil_size],
    ids=lambda one: one.__name__.removeprefix("spoil_"),
)
def test_faults_of_self_describing_maps(spoil: Callable[[Path], str], tmp_path: Path) -> None:
    kind, _, name = spoil(kitti_step_set.kitti_step(tmp_path)).partition(": ")
    found = faults_of(f"kitti-step:{tmp_path}")
    assert any(one == kind and name in where + text for one, where, text in found), found


def edited(file: Path, edit: Callable[[dict], None]) -> None:  # pyright: ignore[reportMissingTypeArgument]
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("format", ["cityscapes-vps", "vipseg"])
def test_faults_of_listed_maps(format: str, tmp_path: Path) -> None:
    write_tiny_set(format, tmp_path)
    file = next(tmp_path.glob("*_val*.json"))

    def edit(content: dict) -> None:  # pyright: ignore[reportMissingTypeArgument]
        annotations = content["annotations"]
        first, second, third = annotations[0]["annotations"] if format == "vipseg" else annotations
        first["segments_info"][0]["area"] += 1
        first["segments_info"].append({"id": 12345, "category_id": 1, "iscrowd": 0})
        del second["segments_info"][1]
        third["segments_info"][2]["category_id"] = 11
        third["segments_info"][0]["category_id"] = 99

    edited(file, edit)
    found = faults_of(f"{format}:{tmp_path}@val")
    for kind, part in (
        ("wrong area", "70000"),
        ("segment without pixels", "12345"),
        ("id without segment", "900"),
        ("id changes class", "id 5"),
        ("unknown category", "99"),
    ):
        assert any(one == kind and part in where + text for one, where, text in found), (kind, found)
    with pytest.raises(DataError, match="99"):
        opened(f"{format}:{tmp_path}")


def test_a_thing_without_instance_is_found(tmp_path: Path) -> None:
    vipseg_set.vipseg(tmp_path, rgb=False)
    path = tmp_path / "panomasks" / "0003" / "00000006.png"
    ids = np.array(Image.open(path))
    ids[ids == 1402] = 14
    clip_drawing.write_grey16(path, ids)
    found = faults_of(f"vipseg:{tmp_path}@val")
    assert [(kind, "value 14" in where, "0003/00000006" in where) for kind, where, _ in found] == [
        ("thing without instance", True, True)
    ]
    assert opened(f"vipseg:{tmp_path}")[1].truth.instances is not None


def test_faults_of_youtube_vis(tmp_path: Path) -> None:
    youtube_vis_set.youtube_vis(tmp_path)

    def edit(content: dict) -> None:  # pyright: ignore[reportMissingTypeArgument]
        car, person = content["annotations"]
        car["segmentations"][1]["size"] = [5, 6]
        person["category_id"] = 77
        car["areas"] = [int(clip_drawing.car_and_person(0)[0].sum()) + 1, None, None]
        content["annotations"].append({**car, "id": 50, "segmentations": [None]})
        content["annotations"].append({**car, "id": car["id"]})
        content["videos"].append({"id": 9, "width": 6, "height": 4, "length": 7, "file_names": ["x/0.png"]})

    edited(tmp_path / "val.json", edit)
    found = faults_of(f"youtube-vis:{tmp_path}@val")
    for kind, text in (
        ("segmentation", "0003/00001"),
        ("wrong area", "0003/00000"),
        ("unknown category", "annotation 12"),
        ("length", "annotation 50"),
        ("repeated id", "annotation 11"),
        ("length", "video 9"),
    ):
        assert any(one == kind and text in where for one, where, _ in found), (kind, text, found)


def test_faults_of_mots(tmp_path: Path) -> None:
    mots_set.mots(tmp_path)
    text = tmp_path / "val" / "0003" / "gt" / "gt.txt"
    good = rle.encode(clip_drawing.car_and_person(1)[0])["counts"]
    with text.open("a") as file:
        file.write(f"2 1006 1 5 6 {good}\n2 1007 7 4 6 {good}\n2 1005\n8 2001 2 4 6 {good}\n3 2001 1 4 6 {good}\n")
        file.write("3 1009 1 4 6 0\n")
    found = faults_of(f"mots:{tmp_path}@val")
    for kind, where in (
        ("size mismatch", "object 1006"),
        ("unknown class", "object 1007"),
        ("unusable line", "line 9"),
        ("missing image", "gt.txt"),
        ("missing frames", "0003"),
        ("track twice", "object 2001"),
        ("id changes class", "id 2001"),
        ("segmentation", "object 1009"),
    ):
        assert any(one == kind and where in place for one, place, _ in found), (kind, found)


# conversion


def truths(data: Dataset) -> list[tuple[str, torch.Tensor]]:
    found = []
    for index, id in enumerate(data.ids):
        semantic = data[index].truth.semantic
        assert semantic is not None
        found.append((id, semantic))
    return found


def tracks(data: Dataset) -> list[set[tuple[str, tuple[tuple[int, bytes], ...]]]]:
    """For each clip the objects: class, and the mask in each frame where it is visible."""
    found: dict[str, dict[int, tuple[str, list[tuple[int, bytes]]]]] = {}
    for index in range(len(data)):
        sample = data[index]
        instances = sample.truth.instances
        assert instances is not None
        assert instances.masks is not None
        assert instances.track_ids is not None
        clip = found.setdefault(str(sample.clip), {})
        for number, (track, label) in enumerate(
            zip(instances.track_ids.tolist(), instances.labels.tolist(), strict=True)
        ):
            mask = instances.masks.dense_one(number).numpy().tobytes()
            clip.setdefault(track, (data.labels.names[label], []))[1].append((sample.frame or 0, mask))
    return [{(name, tuple(masks)) for name, masks in found[clip].values()} for clip in sorted(found)]


def converted(source: str, target: str) -> tuple[Dataset, dict[str, int]]:
    conversion = convert_dataset(DataSpec.parse(source), DataSpec.parse(target))
    assert not conversion.failures
    return opened(target), dict(conversion.losses)


def test_kitti_step_to_cityscapes_vps_and_back(tmp_path: Path) -> None:
    source = f"kitti-step:{kitti_step_set.kitti_step(tmp_path / 'a')}"
    vps, losses = converted(source, f"cityscapes-vps:{tmp_path / 'b'}")
    assert not losses
    step, losses = converted(f"cityscapes-vps:{tmp_path / 'b'}", f"kitti-step:{tmp_path / 'c'}")
    assert not losses
    for data in (vps, step):
        assert not faults_of(f"{data.name.partition('@')[0]}")
        assert tracks(data) == tracks(opened(source))
        for (_, one), (_, other) in zip(truths(data), truths(opened(source)), strict=True):
            assert torch.equal(one, other)
    assert step.labels == opened(source).labels


def test_davis_to_youtube_vis_and_back(tmp_path: Path) -> None:
    source = f"davis:{davis_set.davis(tmp_path / 'a')}"
    videos, losses = converted(source, f"youtube-vis:{tmp_path / 'b'}")
    assert losses == {"renumbered_objects": 2}  # both clips of train have a 1 and a 2, the ids of a JSON are unique
    davis, losses = converted(f"youtube-vis:{tmp_path / 'b'}", f"davis:{tmp_path / 'c'}")
    assert losses == {"reencoded_images": 8}
    for data in (videos, davis):
        assert not faults_of(f"{data.name.partition('@')[0]}")
        assert tracks(data) == tracks(opened(source))


def test_mots_to_youtube_vis_and_back(tmp_path: Path) -> None:
    source = f"mots:{mots_set.mots(tmp_path / 'a')}"
    region = np.zeros((4, 6), bool)
    region[0, 3:] = True
    with (tmp_path / "a" / "val" / "0003" / "gt" / "gt.txt").open("a") as file:
        file.write(f"1 10000 10 4 6 {rle.encode(region)['counts']}\n")
    videos, losses = converted(source, f"youtube-vis:{tmp_path / 'b'}")
    assert losses == {"renumbered_objects": 2}
    mots, losses = converted(f"youtube-vis:{tmp_path / 'b'}", f"mots:{tmp_path / 'c'}")
    assert not losses
    for data in (videos, mots):
        assert not faults_of(f"{data.name.partition('@')[0]}")
        assert tracks(data) == tracks(opened(source))
        for (_, one), (_, other) in zip(truths(data), truths(opened(source)), strict=True):
            assert torch.equal(one, other)


def test_what_a_target_cannot_hold_is_counted(tmp_path: Path) -> None:
    source = f"youtube-vis:{youtube_vis_set.youtube_vis(tmp_path / 'a')}"
    _, losses = converted(source, f"davis:{tmp_path / 'b'}")
    assert losses["classless_objects"] == 8 + 3
    _, losses = converted(f"kitti-step:{kitti_step_set.kitti_step(tmp_path / 'c')}", f"youtube-vis:{tmp_path / 'd'}")
    assert losses["stuff_pixels"] > 0
    assert losses["void_pixels_as_class"] == 8 * 4
    still = f"masks:{masks_set.masks(tmp_path / 'e', [f'image {n}' for n in range(10)])}"
    conversion = convert_dataset(DataSpec.parse(still), DataSpec.parse(f"davis:{tmp_path / 'f'}"))
    assert "belongs to no clip" in conversion.failures[0]


def test_made_clips_are_written_pixel_by_pixel(tmp_path: Path) -> None:
    source = f"cutout-clips:{cutout_clips_set.cutout_clips(tmp_path / 'a')}?clips=2&frames=2&height=32&width=40"
    vps, _ = converted(source, f"cityscapes-vps:{tmp_path / 'b'}")
    made = opened(source)
    for index in range(4):
        assert torch.equal(vps[index].image, made[index].image)
    assert tracks(vps) == tracks(made)


def test_statistics_count_clips_and_tracks(tmp_path: Path) -> None:
    data = open_dataset(f"kitti-step:{kitti_step_set.kitti_step(tmp_path)}", default_split="train")
    found = statistics_of(data).to_json()
    assert (found["clips"], found["images"], found["tracks"]) == (2, 5, 4)
    assert found["per_class"]["car"]["tracks"] == 2
    assert (
        "clips"
        not in statistics_of(opened(f"masks:{masks_set.masks(tmp_path / 'm', [str(n) for n in range(5)])}")).to_json()
    )
