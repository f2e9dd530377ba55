"""Repaired copies of sets of clips: what is repaired, what is skipped, and that the check finds nothing more."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pixelwise.data.dataset import Dataset
from pixelwise.data.spec import DataSpec, open_dataset
from pixelwise.data.tools.check import check_dataset
from pixelwise.data.tools.repair import repair_dataset
from pixelwise.errors import DataError
from pixelwise.ops import rle
from tests.data import clip_drawing, drawing
from tests.data.formats import (
    cityscapes_dvps_set,
    cityscapes_vps_set,
    cutout_clips_set,
    davis_set,
    kitti_step_set,
    mots_set,
    vipseg_set,
    youtube_vis_set,
)
from tests.data.sets import write_tiny_set

ROAD, WALK, PERSON, CAR, VOID = 0, 1, 11, 13, 255


def repaired(spec: str, out: Path) -> tuple[Dataset, dict[str, int]]:
    """The copy of a faulty set, which has no fault any more, and what was done."""
    assert check_dataset(DataSpec.parse(spec)).faults()
    root = Path(DataSpec.parse(spec).path)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    repairs = repair_dataset(DataSpec.parse(spec), out)
    assert before == {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    (opens_as,) = repairs.opens_as
    left = check_dataset(DataSpec.parse(opens_as)).faults()
    assert not left, [(fault.kind, fault.where, fault.text) for fault in left]
    assert len([*repairs.lines()]) == len(repairs.done)
    json.dumps(dict(repairs.done))
    return open_dataset(opens_as, default_split="val"), dict(repairs.done)


def edited(file: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def dataset_id_map(data: Dataset, index: int) -> list[list[int]]:
    """Ids on disk of the classes."""
    semantic = data[index].truth.semantic
    assert semantic is not None
    return data.labels.dataset_ids_of(semantic.numpy()).tolist()


def object_ids(data: Dataset, index: int) -> dict[int, int]:
    """Track id → class id of the objects of a frame."""
    instances = data[index].truth.instances
    assert instances is not None
    assert instances.track_ids is not None
    return dict(zip(instances.track_ids.tolist(), instances.labels.tolist(), strict=True))


def test_maps_that_tell_classes_themselves(tmp_path: Path) -> None:
    root = kitti_step_set.kitti_step(tmp_path / "set")
    folder = root / "panoptic_maps" / "val" / "0003"
    channels = kitti_step_set.step_channels(0)
    channels[0, 0] = (ROAD, 0, 9)  # stuff has no number
    channels[0, 1] = (77, 0, 0)  # no such class
    clip_drawing.write_rgb(folder / "000000.png", channels)
    channels = kitti_step_set.step_channels(2)
    channels[channels[..., 0] == CAR, 0] = PERSON  # the car 300 of two frames
    clip_drawing.write_rgb(folder / "000002.png", channels)
    data, done = repaired(f"kitti-step:{root}", tmp_path / "copy")
    assert done == {"numbers_of_stuff": 1, "unknown_regions": 1, "renumbered_objects": 1}
    assert dataset_id_map(data, 0)[0] == [ROAD, VOID, ROAD, WALK, WALK, VOID]
    assert object_ids(data, 0) == object_ids(data, 1) == {12 * 65536 + 7: PERSON, 14 * 65536 + 300: CAR}
    assert object_ids(data, 2) == {12 * 65536 + 7: PERSON, 12 * 65536 + 1: PERSON}


def test_numbers_of_dvps(tmp_path: Path) -> None:
    root = cityscapes_dvps_set.cityscapes_dvps(tmp_path / "set")
    path = next((root / "video_sequence" / "val").glob("*_000001_*TrainIds.png"))
    ids = np.array(Image.open(path))
    ids[0, :4] = (3, 40_000, 1_007, 13_000)  # road with a number, no such class, sidewalk with one, cars as a crowd
    Image.fromarray(ids).save(path)
    data, done = repaired(f"cityscapes-dvps:{root}@val", tmp_path / "copy")
    assert done == {"unknown_regions": 1, "numbers_of_stuff": 2}
    written = np.array(Image.open(data.truth_path(1)))
    assert written[0].tolist() == [0, 32_000, 1_000, 13_000, 1_000, 32_000]
    assert written[1:].tolist() == ids[1:].tolist()


def test_a_clip_is_cut_where_frames_are_missing_or_sizes_change(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for frame in range(12):
        name = f"{frame:06d}.png"
        size = (4, 6) if frame < 10 else (5, 6)
        drawing.write_image(root / "images" / "train" / "0001" / name, seed=frame + 1, size_hw=size)
        channels = np.resize(kitti_step_set.step_channels(0), (*size, 3))
        clip_drawing.write_rgb(root / "panoptic_maps" / "train" / "0001" / name, channels)
    (root / "images" / "train" / "0001" / "000003.png").unlink()
    truncate(root / "panoptic_maps" / "train" / "0001" / "000006.png")
    (root / "images" / "train" / "0001-2").mkdir()  # no frames, but the name is taken once it has some
    drawing.write_image(root / "images" / "train" / "0001-2" / "000000.png", seed=77)
    clip_drawing.write_rgb(root / "panoptic_maps" / "train" / "0001-2" / "000000.png", kitti_step_set.step_channels(0))
    data, done = repaired(f"kitti-step:{root}@train", tmp_path / "copy")
    assert done == {"missing_images": 1, "unreadable_masks": 1, "cut_clips": 3}
    assert data.ids == (
        *(f"0001/{frame:06d}" for frame in range(3)),
        "0001-2/000000",
        *(f"0001-3/{frame:06d}" for frame in (4, 5)),
        *(f"0001-4/{frame:06d}" for frame in (7, 8, 9)),
        *(f"0001-5/{frame:06d}" for frame in (10, 11)),
    )


@pytest.mark.parametrize("format", ["cityscapes-vps", "vipseg"])
def test_lists_of_segments(format: str, tmp_path: Path) -> None:
    root = write_tiny_set(format, tmp_path / "set")

    def edit(content: dict[str, Any]) -> None:
        annotations = content["annotations"]
        first, second, third = annotations[0]["annotations"] if format == "vipseg" else annotations
        first["segments_info"][0]["area"] += 1
        first["segments_info"].append({"id": 12345, "category_id": 1, "iscrowd": 0})
        first["segments_info"].append(dict(first["segments_info"][1]))
        del second["segments_info"][1]  # 900, a sidewalk in the other frames
        third["segments_info"][2]["category_id"] = 11  # the car 5 becomes a person
        third["segments_info"][0]["category_id"] = 99  # the road 70000

    edited(next(root.glob("*_val*.json")), edit)
    image, map = (Path(path) for path in _files_of_second(root, format))
    ids, _ = clip_drawing.segment_ids(1)
    ids[3, 0] = 31  # in no list
    clip_drawing.write_rgb(map, clip_drawing.id_channels(ids))
    pixels = Image.new("RGB", (4, 6), (9, 9, 9))  # stored upside down: EXIF turns it to 4×6 pixels
    exif = pixels.getexif()
    exif[0x0112] = 6
    pixels.save(image, exif=exif)
    data, done = repaired(f"{format}:{root}", tmp_path / "copy")
    assert done == {
        "areas": 2,
        "segments_without_pixels": 1,
        "segments": 2,
        "given_segments": 2,
        "unlisted_regions": 1,
        "renumbered_objects": 1,
        "upright_images": 1,
    }
    assert dataset_id_map(data, 1) == [
        [ROAD, ROAD, ROAD, WALK, WALK, VOID],
        [ROAD, CAR, CAR, WALK, WALK, VOID],
        [ROAD, CAR, CAR, WALK, WALK, VOID],
        [VOID, ROAD, ROAD, WALK, PERSON, VOID],
    ]
    panoptic = data[1].truth.panoptic
    assert panoptic is not None
    assert panoptic.ids[3].tolist() == [0, 70_000, 70_000, 900, 66_000, 0]
    person, car = data.labels.names.index("person"), data.labels.names.index("car")
    assert object_ids(data, 0) == object_ids(data, 1) == {5: car, 66_000: person}
    assert object_ids(data, 2) == {1: person, 66_000: person}


def _files_of_second(root: Path, format: str) -> tuple[Path, Path]:
    if format == "vipseg":
        return root / "images" / "0003" / "00000006.png", root / "panomasksRGB" / "0003" / "00000006.png"
    stem = "0003_0001_ulm_000000_000005"
    folder = root / "val"
    return folder / "img_all" / f"{stem}_newImg8bit.png", folder / "panoptic_video" / f"{stem}_final_mask.png"


def test_entries_of_images(tmp_path: Path) -> None:
    root = cityscapes_vps_set.cityscapes_vps(tmp_path / "set")

    def edit(content: dict[str, Any]) -> None:
        first, second, third = content["images"]
        first["height"] = None
        second["width"] = 77
        content["images"].append({"id": "0003_0009", "file_name": "nowhere.png", "height": 4, "width": 6})
        content["images"].append({"id": None, "file_name": "nobody.png", "height": 4, "width": 6})
        content["annotations"].append(dict(content["annotations"][2]))
        content["annotations"].append({"image_id": "0003_0077", "file_name": "a.png", "segments_info": []})
        third["height"], third["width"] = 6, 4

    edited(root / "panoptic_gt_val_city_vps.json", edit)
    data, done = repaired(f"cityscapes-vps:{root}@val", tmp_path / "copy")
    assert done == {"sizes": 3, "images": 1, "images_without_annotation": 1, "entries": 2}
    assert len(data) == 3


def test_things_without_number_in_masks_of_vipseg(tmp_path: Path) -> None:
    root = vipseg_set.vipseg(tmp_path / "set", rgb=False)
    (root / "val.txt").write_text("0003\n0088\n")
    path = root / "panomasks" / "0003" / "00000006.png"
    ids = np.array(Image.open(path))
    ids[ids == 1402] = 14
    ids[0, :2] = (101, 999)  # road with a number; no such class
    clip_drawing.write_grey16(path, ids)
    data, done = repaired(f"vipseg:{root}@val", tmp_path / "copy")
    assert done == {"missing_clips": 1, "things_without_number": 1, "numbers_of_stuff": 1, "unknown_regions": 1}
    panoptic = data[1].truth.panoptic
    assert panoptic is not None
    assert panoptic.ids[:2].tolist() == [[1, 0, 1, 2, 2, 0], [1, 14, 14, 2, 2, 0]]


def test_masks_of_davis(tmp_path: Path) -> None:
    root = davis_set.davis(tmp_path / "set")
    (root / "ImageSets" / "2017" / "val.txt").write_text("0003\n0066\n")
    (root / "ImageSets" / "2017" / "train.txt").write_bytes(b"\xff\xfe\x9f")
    mask = np.array([[0, 1, 1, 255, 2, 0]] * 4, dtype=np.uint8)
    picture = Image.fromarray(mask)
    picture.putpalette([0] * 768)
    picture.save(root / "Annotations" / "480p" / "0003" / "00001.png")
    (root / "JPEGImages" / "480p" / "0003" / "00002.png").write_bytes(
        (root / "JPEGImages" / "480p" / "0003" / "00000.png").read_bytes()
    )
    data, done = repaired(f"davis:{root}", tmp_path / "copy")
    assert done == {"missing_clips": 1, "unusable_splits": 1}
    assert data.ids == ("0003/00000", "0003/00001", "0003/00002")  # a camera may stand still
    assert np.array_equal(np.array(Image.open(data.truth_path(1))), mask)
    assert data.image_path(0).suffix == ".png"


def test_a_set_of_davis_without_lists_stays_one(tmp_path: Path) -> None:
    root = davis_set.davis(tmp_path / "set", lists=False)
    truncate(root / "Annotations" / "480p" / "0003" / "00002.png")
    data, done = repaired(f"davis:{root}", tmp_path / "copy")
    assert done == {"unreadable_masks": 1}
    assert len(data) == 7
    assert not [*(tmp_path / "copy").rglob("*.txt")]


def test_lists_of_objects(tmp_path: Path) -> None:
    root = youtube_vis_set.youtube_vis(tmp_path / "set")
    car = [clip_drawing.car_and_person(frame)[0] for frame in range(3)]

    def edit(content: dict[str, Any]) -> None:
        first, person = content["annotations"]
        first["segmentations"][1]["size"] = [6, 4]
        first["segmentations"][2]["counts"] = "!!"
        first["areas"] = [int(car[0].sum()) + 1, None, None]
        content["annotations"].append({**person, "id": first["id"]})
        content["annotations"].append({**person, "id": None, "segmentations": [None] * 3})
        content["annotations"].append({**person, "id": 70, "segmentations": [None]})
        content["annotations"].append({**person, "id": 71, "category_id": 77})
        content["annotations"].append({**person, "id": 72, "iscrowd": "no"})
        content["videos"][0]["length"] = 8
        content["videos"].append({"id": 9, "width": 0, "height": 4, "file_names": ["x/0.png"]})

    edited(root / "val.json", edit)
    data, done = repaired(f"youtube-vis:{root}", tmp_path / "copy")
    assert done == {"videos": 1, "lengths": 1, "tracks": 3, "ids": 2, "runs": 1, "shapes": 1, "areas": 1}
    assert object_ids(data, 0) == {11: 1, 12: 2, 73: 2}
    for index, expected in enumerate([car[0], car[1], None]):
        instances = data[index].truth.instances
        assert instances is not None
        assert instances.masks is not None
        found = [instances.masks.dense_one(0).numpy().tolist()] if len(instances) else []
        assert found == ([] if expected is None else [expected.tolist()])


def test_sides_of_a_video_are_those_of_its_frames(tmp_path: Path) -> None:
    root = youtube_vis_set.youtube_vis(tmp_path / "set")
    edited(root / "val.json", lambda content: content["videos"][0].update(height=6, width=4))
    data, done = repaired(f"youtube-vis:{root}", tmp_path / "copy")
    assert done == {"sizes": 3}
    assert object_ids(data, 0) == {11: 1, 12: 2}


def test_an_rle_of_another_image_is_none_of_this(tmp_path: Path) -> None:
    """Where every RLE of a frame has another size than its image, the image is another one."""
    root = youtube_vis_set.youtube_vis(tmp_path / "set")
    drawing.write_image(root / "val" / "JPEGImages" / "0003" / "00002.png", seed=5, size_hw=(6, 4))
    data, done = repaired(f"youtube-vis:{root}", tmp_path / "copy")
    assert done == {"size_mismatches": 1}
    assert len(data) == 2


def test_lines_of_mots(tmp_path: Path) -> None:
    root = mots_set.mots(tmp_path / "set")
    text = root / "val" / "0003" / "gt" / "gt.txt"
    mask = np.zeros((4, 6), bool)
    mask[0, :2] = True
    runs = rle.encode(mask)["counts"]
    with text.open("a") as file:
        file.write(f"2 1006 1 5 6 {runs}\n")  # a size of its own, runs that fill the image
        file.write(f"2 1005 1 4 6 {runs}\n")  # the car a second time
        file.write(f"2 1007 7 4 6 {runs}\n2 1005\n9 2001 2 4 6 {runs}\n3 1009 1 4 6 0\n")
        file.write(f"3 1001 2 4 6 {runs}\n1 1001 1 4 6 {runs}\n2 1001 1 4 6 {runs}\n")  # an id of two classes
        file.write(f"2 {2**70} 1 4 6 {runs}\n")
    (root / "train" / "0002" / "gt" / "gt.txt").write_bytes(b"\xff\xfe\x9f")
    data, done = repaired(f"mots:{root}", tmp_path / "copy")
    assert done == {
        "missing_images": 1,
        "unreadable_annotations": 2,
        "runs": 1,
        "joined_masks": 1,
        "shapes": 4,
        "renumbered_objects": 1,
    }
    second = data[1].truth.instances
    assert second is not None
    assert second.masks is not None
    assert second.track_ids is not None
    place = second.track_ids.tolist().index(1005)
    assert np.array_equal(second.masks.dense_one(place).numpy() != 0, clip_drawing.car_and_person(1)[0] | mask)
    assert 1006 in second.track_ids.tolist()


def test_images_of_two_splits_stay_in_the_later(tmp_path: Path) -> None:
    root = kitti_step_set.kitti_step(tmp_path / "set")
    for kind in ("images", "panoptic_maps"):
        source = root / kind / "val" / "0003" / "000000.png"
        (root / kind / "train" / "0002" / "000000.png").write_bytes(source.read_bytes())
    data, done = repaired(f"kitti-step:{root}", tmp_path / "copy")
    assert done == {"repeated_images": 1}
    assert len(data) == 3


def test_nothing_is_written_where_nothing_is_left(tmp_path: Path) -> None:
    root = kitti_step_set.kitti_step(tmp_path / "set")
    for path in (root / "panoptic_maps").rglob("*.png"):
        truncate(path)
    with pytest.raises(DataError, match="nothing usable is left"):
        repair_dataset(DataSpec.parse(f"kitti-step:{root}"), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    stills = cutout_clips_set.cutout_clips(tmp_path / "stills")
    with pytest.raises(DataError, match="cannot be repaired"):
        repair_dataset(DataSpec.parse(f"cutout-clips:{stills}"), tmp_path / "copy")


def test_with_other_processes_the_copy_is_the_same(tmp_path: Path) -> None:
    root = cityscapes_vps_set.cityscapes_vps(tmp_path / "set")
    truncate(next((root / "val" / "img_all").glob("*0002_*")))
    for workers in (0, 2):
        repair_dataset(DataSpec.parse(f"cityscapes-vps:{root}"), tmp_path / str(workers), workers=workers)
    one, other = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "0", tmp_path / "2")
    )
    assert one == other
