"""Numbers of objects: kept from format to format, within the range of each, and never beyond it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from pixelwise.data.dataset import Dataset
from pixelwise.data.formats import cityscapes_dvps, cityscapes_vps, davis, kitti_step, mots, vipseg, youtube_vis
from pixelwise.data.kinds.writing import Original, Writer, Written
from pixelwise.data.spec import DataSpec, open_dataset, splits_of
from pixelwise.data.tools.check import check_dataset
from pixelwise.data.tools.convert import convert_dataset
from pixelwise.data.truth.segments import annotation_of, panoptic_of
from pixelwise.data.truth.track_ids import composed_by, former_numbers, kept_numbers, seen_together, tracks_of
from pixelwise.errors import DataError
from pixelwise.labels import LARGEST_ID, LabelSet
from pixelwise.types import Annotation
from tests.data import clip_drawing, drawing
from tests.data.formats import cityscapes_vps_set, davis_set, kitti_step_set
from tests.data.sets import write_tiny_set
from tests.shared_data import require

STREET = replace(LabelSet.from_names("street", ["ground", "car", "person"]), is_thing=(False, True, True))
CAR, PERSON = 1, 2


def test_the_number_in_an_id() -> None:
    car, person = (14 * 65_536 + 300, 13), (12 * 65_536 + 7, 11)
    assert former_numbers([car, person], divisor=65_536) == {car: 300, person: 7}
    assert former_numbers([car, person, (5, 13)], divisor=None, own=composed_by(65_536)) == {
        car: 300,
        person: 7,
        (5, 13): 5,
    }
    assert former_numbers([car], divisor=None) == {car: car[0]}
    # the class is another than that in the id; number 0 is no object's
    strange = [(14 * 65_536 + 300, 11), (14 * 65_536, 13)]
    assert former_numbers(strange, divisor=None, own=composed_by(65_536)) == {one: one[0] for one in strange}


def test_numbers_are_kept_in_order_and_others_are_the_least_free() -> None:
    former = {"a": 3, "b": 3, "c": 1, "d": 900, "e": 0}
    assert kept_numbers(former, largest=10, clip="x", format="f") == ({"a": 3, "c": 1, "b": 2, "d": 4, "e": 5}, 3)
    assert kept_numbers(former, largest=10, smallest=0, taken=(1, 2), clip="x", format="f") == (
        {"a": 3, "e": 0, "b": 4, "c": 5, "d": 6},
        3,
    )
    groups = {"a": 1, "b": 2, "c": 1, "d": 2, "e": 2}
    assert kept_numbers(former, largest=10, groups=groups, clip="x", format="f") == (
        {"a": 3, "b": 3, "c": 1, "d": 1, "e": 2},
        2,
    )
    with pytest.raises(DataError, match="clip 'x': more than 4 objects, f holds no more"):
        kept_numbers(former, largest=4, clip="x", format="f")


@pytest.mark.parametrize("seed", range(30))
def test_numbers_by_a_slow_rule(seed: int) -> None:
    """Object by object, with a search through all others."""
    random = np.random.default_rng(seed)
    former = {number: int(random.integers(0, 12)) for number in range(int(random.integers(1, 15)))}
    groups = {key: [None, 1, 2][random.integers(3)] for key in former}
    numbers, renumbered = kept_numbers(former, largest=20, groups=groups, clip="x", format="f")
    assert renumbered == sum(numbers[key] != former[key] for key in former)
    for one, other in ((a, b) for a in former for b in former if a < b):
        if groups[one] == groups[other] or None in (groups[one], groups[other]):
            assert numbers[one] != numbers[other]
    for key, number in former.items():
        rivals = [
            one for one in former if one != key and (groups[one] == groups[key] or None in (groups[one], groups[key]))
        ]
        alone = all(former[one] != number for one in rivals)
        assert numbers[key] == number or not 1 <= number <= 20 or not alone
    assert all(1 <= number <= 20 for number in numbers.values())


def test_the_objects_of_most_frames_come_first() -> None:
    frames = [[(5, 1)], [(5, 2), (9, 1)], [(5, 2)]]
    assert tracks_of(frames) == [(5, 2), (5, 1), (9, 1)]
    former = {(5, 1): 5, (5, 2): 5, (9, 1): 9}
    assert seen_together(frames, former) == set()
    assert seen_together([*frames, [(5, 1), (5, 2)]], former) == {5}


# conversions keep numbers


def numbers_of(data: Dataset) -> list[list[tuple[str, str, int]]]:
    """Of each frame the clip, class and number of every object that is no crowd."""
    divisor = data.numbered_by
    found = []
    for index in range(len(data)):
        sample = data[index]
        instances = sample.truth.instances
        assert instances is not None
        assert instances.track_ids is not None
        assert instances.crowd is not None
        kept = (~instances.crowd).nonzero().flatten().tolist()
        objects = [(int(instances.track_ids[number]), int(instances.labels[number])) for number in kept]
        found.append(
            sorted(
                (str(sample.clip), data.labels.names[label], id % divisor if divisor else id) for id, label in objects
            )
        )
    return found


def converted(source: str, target: str) -> tuple[Dataset, dict[str, int]]:
    conversion = convert_dataset(DataSpec.parse(source), DataSpec.parse(target))
    assert not conversion.failures
    faults = check_dataset(DataSpec.parse(target)).faults()
    assert not faults, faults
    return opened(target), dict(conversion.losses)


def opened(spec: str) -> Dataset:
    """The last split: val, if there is one."""
    return open_dataset(spec, default_split=splits_of(DataSpec.parse(spec))[-1])


SEGMENTS = ("kitti-step", "cityscapes-dvps", "cityscapes-vps", "vipseg")

KEEPING = [
    *((one, other) for one in ("kitti-step", "cityscapes-dvps") for other in SEGMENTS if one != other),
    ("cityscapes-vps", "vipseg"),
    ("vipseg", "cityscapes-vps"),
    *(("davis", other) for other in SEGMENTS),
    ("davis", "mots"),
    ("mots", "cityscapes-vps"),
    ("mots", "vipseg"),
    ("mots", "cityscapes-dvps"),
    ("mots", "kitti-step"),
]
"""Pairs of formats of which the second holds every number that the drawn set of the first has."""


@pytest.mark.parametrize(("one", "other"), KEEPING)
def test_there_and_back_numbers_stay(one: str, other: str, tmp_path: Path) -> None:
    source = f"{one}:{write_tiny_set(one, tmp_path / 'a')}"
    there, losses = converted(source, f"{other}:{tmp_path / 'b'}")
    assert "renumbered_objects" not in losses
    back, losses = converted(f"{other}:{tmp_path / 'b'}", f"{one}:{tmp_path / 'c'}")
    assert "renumbered_objects" not in losses
    expected = numbers_of(open_dataset(source, default_split="val"))
    assert numbers_of(there) == numbers_of(back) == expected
    assert any(expected)


def test_numbers_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    source = f"cityscapes-vps:{cityscapes_vps_set.cityscapes_vps(tmp_path / 'a')}"
    step, losses = converted(source, f"kitti-step:{tmp_path / 'b'}")
    assert losses == {"renumbered_objects": 3}  # the person 66000 in each of three clips
    assert numbers_of(step)[0] == [("0003", "car", 5), ("0003", "person", 1)]
    _, losses = converted(f"kitti-step:{kitti_step_set.kitti_step(tmp_path / 'c')}", f"davis:{tmp_path / 'd'}")
    assert losses["renumbered_objects"] == 3  # the car 300
    _, losses = converted(f"davis:{davis_set.davis(tmp_path / 'e')}", f"youtube-vis:{tmp_path / 'f'}")
    assert losses == {"renumbered_objects": 2}  # ids of a JSON are unique, both clips of train have a 1 and a 2


def test_numbers_counted_class_by_class(tmp_path: Path) -> None:
    root = kitti_step_set.kitti_step(tmp_path / "a")
    for path in (root / "panoptic_maps").rglob("*.png"):
        channels = kitti_step_set.step_channels(int(path.stem))
        channels[channels[..., 0] == 13, 1:] = (0, 7)  # the car has the number of the person
        clip_drawing.write_rgb(path, channels)
    source = f"kitti-step:{root}"
    expected = numbers_of(open_dataset(source, default_split="val"))
    assert expected[0] == [("0003", "car", 7), ("0003", "person", 7)]
    for place, format in enumerate(("kitti-step", "cityscapes-dvps", "mots", "cityscapes-vps", "vipseg")):
        there, losses = converted(source, f"{format}:{tmp_path / str(place)}")
        assert "renumbered_objects" not in losses
        if format == "mots":  # its classes are others
            assert [[number for *_, number in frame] for frame in numbers_of(there)] == [[7, 7]] * 3
            continue
        if format not in ("cityscapes-vps", "vipseg"):  # where ids hold class and number
            assert numbers_of(there) == expected
        back, losses = converted(f"{format}:{tmp_path / str(place)}", f"kitti-step:{tmp_path / f'{place} back'}")
        assert not losses
        assert numbers_of(back) == expected
    _, losses = converted(source, f"davis:{tmp_path / 'davis'}")
    assert losses["renumbered_objects"] == 3


def test_classes_that_have_objects_in_one_format_alone(tmp_path: Path) -> None:
    """Trucks and bicycles: things of Cityscapes-DVPS, stuff of KITTI-STEP."""
    root = kitti_step_set.kitti_step(tmp_path / "a")
    channels = kitti_step_set.step_channels(0)
    channels[0, :2] = (14, 0, 0)
    clip_drawing.write_rgb(root / "panoptic_maps" / "val" / "0003" / "000000.png", channels)
    dvps, losses = converted(f"kitti-step:{root}", f"cityscapes-dvps:{tmp_path / 'b'}")
    assert losses == {"crowds_of_classes": 1}
    path = dvps.truth_path(0)
    values = np.array(Image.open(path))
    assert values[0].tolist() == [14_000, 14_000, 0, 1000, 1000, 32_000]
    step, losses = converted(f"cityscapes-dvps:{tmp_path / 'b'}", f"kitti-step:{tmp_path / 'c'}")
    assert not losses
    assert np.array_equal(np.array(Image.open(step.truth_path(0))), channels)
    values[0, 0], values[0, 1] = 14_003, 14_004
    clip_drawing.write_grey16(path, values)
    step, losses = converted(f"cityscapes-dvps:{tmp_path / 'b'}", f"kitti-step:{tmp_path / 'd'}")
    assert losses == {"flattened_objects": 2, "joined_segments": 1}
    assert np.array_equal(np.array(Image.open(step.truth_path(0))), channels)


def test_two_clips_of_one_name_stay_apart_where_splits_share_a_folder(tmp_path: Path) -> None:
    root = kitti_step_set.kitti_step(tmp_path / "a")
    for kind in ("images", "panoptic_maps"):
        (root / kind / "val" / "0003").rename(root / kind / "val" / "0001")
    source = f"kitti-step:{root}"
    for format in ("davis", "vipseg"):
        there, losses = converted(source, f"{format}:{tmp_path / format}")
        assert losses["renamed_images"] == 3
        assert {id.partition("/")[0] for id in there.ids} == {"0001-val"}
        for index in range(3):
            one, other = there[index].truth.instances, open_dataset(source, default_split="val")[index].truth.instances
            assert one is not None
            assert other is not None
            assert torch.equal(one.boxes.sort(0).values, other.boxes.sort(0).values)


def first_frames(root: Path, *, count: int) -> Path:
    """The first frames of the real clips of DAVIS 2016."""
    for source in require("davis2016").glob("*/480p/*/*"):
        if source.suffix in (".jpg", ".png") and int(source.stem) < count:
            place = root / source.relative_to(require("davis2016"))
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(source.resolve())
    return root


@pytest.mark.parametrize(("format", "other"), [("kitti-step", "cityscapes-vps"), ("davis", "vipseg")])
def test_real_clips_there_and_back(format: str, other: str, tmp_path: Path) -> None:
    folder = first_frames(tmp_path / "a", count=3) if format == "davis" else require("kitti_step")
    source = f"{format}:{folder}"
    _, there = converted(source, f"{other}:{tmp_path / 'b'}")
    _, back = converted(f"{other}:{tmp_path / 'b'}", f"{format}:{tmp_path / 'c'}")
    assert "renumbered_objects" not in {**there, **back}
    one, two = (opened(spec) for spec in (source, f"{format}:{tmp_path / 'c'}"))
    assert one.ids == two.ids
    assert numbers_of(one) == numbers_of(two)
    for index in range(0, len(one), 3):
        first, second = one[index].truth, two[index].truth
        assert first.semantic is not None
        assert second.semantic is not None
        assert torch.equal(first.semantic, second.semantic)
        if format == "kitti-step":
            assert one.truth_path(index).name == two.truth_path(index).name
            maps = [np.array(Image.open(data.truth_path(index))) for data in (one, two)]
            assert np.array_equal(maps[0], maps[1])


# no number is beyond its range


def write_strip(root: Path, target: Writer, objects: list[tuple[int, int]], *, frames: int = 1) -> list[Written]:
    """Frames of one row in which every pixel is an object of its own: (id, class)."""
    root.mkdir()
    image = drawing.write_image(root.parent / "strip.png", seed=1, size_hw=(1, len(objects)))
    ids = np.array([[id for id, _ in objects]], dtype=np.int32)
    panoptic = panoptic_of(ids, *zip(*((id, label, False) for id, label in objects), strict=True))
    truth = annotation_of(panoptic, STREET, clip=True)
    pixels = np.zeros((1, len(objects), 3), np.uint8)
    return [
        target.write(
            root, Original(split="train", name="x", id=f"c/{frame:06d}", image=image, pixels=pixels, truth=truth)
        )
        for frame in range(frames)
    ]


RANGES = [(cityscapes_dvps, "cityscapes-dvps", 999), (mots, "mots", 999), (davis, "davis", 254)]
"""Format and the largest number that it holds; mots has the number 0 as well."""


@pytest.mark.parametrize(("module", "format", "largest"), RANGES)
def test_all_numbers_of_a_range_are_kept_and_one_more_is_refused(
    module: ModuleType, format: str, largest: int, tmp_path: Path
) -> None:
    target = module.writer({}, STREET)
    objects = [(number, CAR) for number in range(1, largest + 1)]
    written = write_strip(tmp_path / "a", target, objects)
    assert target.finish(tmp_path / "a", split="train", written=written) == {"renumbered_objects": 0}
    target.finish_set(tmp_path / "a")
    data = open_dataset(f"{format}:{tmp_path / 'a'}", default_split="train")
    assert [number for _, _, number in numbers_of(data)[0]] == [number for number, _ in objects]
    more = [(number, CAR) for number in range(1, largest + 2 + (format == "mots"))]
    written = write_strip(tmp_path / "b", target, more)
    with pytest.raises(DataError, match=f"clip 'c': more than {largest:,} objects.*{format} holds no more") as caught:
        target.finish(tmp_path / "b", split="train", written=written)
    assert "\n" not in str(caught.value)


def test_the_ends_of_the_range_of_kitti_step(tmp_path: Path) -> None:
    target = kitti_step.writer({}, STREET)
    objects = [(1, CAR), (255, CAR), (256, PERSON), (65_534, PERSON), (65_535, CAR), (65_536, CAR), (2**31 - 1, CAR)]
    written = write_strip(tmp_path / "a", target, objects)
    assert target.finish(tmp_path / "a", split="train", written=written) == {"renumbered_objects": 2}
    channels = np.array(Image.open(tmp_path / "a" / "panoptic_maps" / "train" / "c" / "000000.png"))
    assert channels[0].tolist() == [
        [CAR, 0, 1],
        [CAR, 0, 255],
        [PERSON, 1, 0],
        [PERSON, 255, 254],
        [CAR, 255, 255],
        [CAR, 0, 2],
        [CAR, 0, 3],
    ]
    strips = []
    for frame in range(3):  # a third of too many objects in each frame
        ids = np.arange(1 + frame * 22_000, 1 + (frame + 1) * 22_000, dtype=np.int32).reshape(100, 220)
        panoptic = panoptic_of(ids, ids.ravel().tolist(), [CAR] * 22_000, [False] * 22_000)
        image = drawing.write_image(tmp_path / "strip.png", seed=1, size_hw=(100, 220))
        pixels, truth = np.zeros((100, 220, 3), np.uint8), Annotation(panoptic=panoptic)
        strips.append(
            target.write(
                tmp_path / "b",
                Original(split="train", name="x", id=f"c/{frame}", image=image, pixels=pixels, truth=truth),
            )
        )
    with pytest.raises(DataError, match="clip 'c': more than 65,535 objects, kitti-step holds no more"):
        target.finish(tmp_path / "b", split="train", written=strips)


@pytest.mark.parametrize(("module", "format"), [(cityscapes_vps, "cityscapes-vps"), (vipseg, "vipseg")])
def test_ids_of_pngs_are_within_24_bits(module: ModuleType, format: str, tmp_path: Path) -> None:
    target = module.writer({}, STREET)
    largest = LARGEST_ID - 1
    numbers = [(1, CAR), (largest, PERSON), (largest + 1, CAR), (2**31 - 1, PERSON), (3, 0), (LARGEST_ID + 7, 0)]
    written = write_strip(tmp_path / "a", target, numbers, frames=2)
    assert target.finish(tmp_path / "a", split="train", written=written) == {"renumbered_objects": 2}
    data = open_dataset(f"{format}:{tmp_path / 'a'}", default_split="train")
    for index in range(2):
        panoptic = data[index].truth.panoptic
        assert panoptic is not None
        assert panoptic.ids[0].tolist()[:3] == [1, largest, 2]
        assert panoptic.ids[0, 4] == 4  # the ground 3, since a new object has the 3
        assert len(set(panoptic.ids[0].tolist())) == 6
        assert int(panoptic.ids.max()) < LARGEST_ID
        assert int(panoptic.ids.min()) > 0


def test_youtube_vis_holds_any_number(tmp_path: Path) -> None:
    target = youtube_vis.writer({}, STREET)
    written = write_strip(tmp_path / "a", target, [(1, CAR), (2**31 - 1, PERSON), (999_999, CAR)])
    assert target.finish(tmp_path / "a", split="train", written=written) == {"renumbered_objects": 0}
    data = open_dataset(f"youtube-vis:{tmp_path / 'a'}", default_split="train")
    assert [number for _, _, number in numbers_of(data)[0]] == [1, 999_999, 2**31 - 1]


def test_classes_that_a_map_cannot_hold_are_refused_in_one_line() -> None:
    many = LabelSet.from_names("many", [f"class {number}" for number in range(65)])
    with pytest.raises(DataError, match="'many' has 65 classes; cityscapes-dvps holds 64"):
        cityscapes_dvps.writer({}, many)
    fits = cityscapes_dvps.writer({}, LabelSet.from_names("fits", [f"class {number}" for number in range(64)]))
    assert max(*fits.labels.dataset_ids, *fits.labels.void_ids) * 1000 + 999 <= 65_535
    with pytest.raises(DataError, match="256 classes; kitti-step holds 255"):
        kitti_step.writer({}, LabelSet.from_names("many", [f"class {number}" for number in range(256)]))
