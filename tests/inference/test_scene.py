import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from pixelwise.errors import PixelwiseError
from pixelwise.files import png
from pixelwise.inference.scene import MissingPartError, Scene
from pixelwise.labels import LabelSet, published
from pixelwise.ops import rle
from pixelwise.predictions import pictures, record
from pixelwise.types import Annotation, Panoptic
from tests.inference.simple_models import LABELS, noise

SEMANTIC = torch.tensor(
    [
        [0, 0, 1, 1, 0],
        [0, 1, 1, 0, 0],
        [2, 0, 0, 0, 255],
        [2, 2, 0, 0, 255],
    ],
    dtype=torch.uint8,
)
CONFIDENCE = torch.linspace(0.05, 1, 20).view(4, 5)


def scene(labels: LabelSet = LABELS) -> Scene:
    annotation = Annotation(semantic=SEMANTIC, confidence=CONFIDENCE)
    return Scene(noise(4, 5), annotation, labels, seconds=0.25, model="fruit", name="a/b.jpg")


def test_a_part_that_the_task_does_not_give_says_which_it_gives():
    for part in ("instances", "panoptic", "saliency", "captions"):
        with pytest.raises(MissingPartError, match=f"fruit has no {part}; it has semantic, confidence"):
            getattr(scene(), part)
        assert not hasattr(scene(), part)
    assert issubclass(MissingPartError, PixelwiseError)
    assert scene().semantic is SEMANTIC
    assert scene().confidence is CONFIDENCE


def test_the_record_has_the_fields_of_the_tour():
    record = json.loads(json.dumps(scene().record()))
    assert list(record) == ["image", "size", "model", "labels", "segments", "seconds"]
    assert record["image"] == "a/b.jpg"
    assert record["size"] == [4, 5]
    assert record["model"] == "fruit"
    assert record["labels"] == ["background", "apple", "pear"]
    assert record["seconds"] == 0.25
    apple, pear = record["segments"]
    assert list(apple) == ["id", "label", "name", "area", "box", "score", "track_id", "rle"]
    assert (apple["id"], apple["label"], apple["name"], apple["area"]) == (1, 1, "apple", 4)
    assert apple["box"] == [1, 0, 4, 2]
    assert apple["score"] == pytest.approx((0.15 + 0.2 + 0.35 + 0.4) / 4, abs=1e-4)
    assert apple["track_id"] is None
    assert (pear["name"], pear["box"], pear["area"]) == ("pear", [0, 2, 2, 4], 3)
    for segment in record["segments"]:
        assert segment["rle"]["size"] == [4, 5]
        mask = coco_mask.decode({**segment["rle"], "counts": segment["rle"]["counts"].encode()})
        assert np.array_equal(mask, (segment["id"] == SEMANTIC).numpy())


def test_an_image_of_background_alone_has_no_segments():
    empty = replace(scene(), annotation=Annotation(semantic=torch.zeros(4, 5, dtype=torch.uint8)))
    assert empty.record()["segments"] == []


def test_saving_writes_the_overlay_and_the_ids(tmp_path: Path):
    files = scene().save(tmp_path / "new" / "photo.v2")
    assert files == [tmp_path / "new" / "photo.v2.overlay.png", tmp_path / "new" / "photo.v2.semantic.png"]
    assert sorted((tmp_path / "new").iterdir()) == sorted(files)
    with Image.open(files[0]) as overlay:
        assert overlay.mode == "RGB"
        assert np.array_equal(np.asarray(overlay), np.asarray(scene().draw()))
    with Image.open(files[1]) as mask:
        assert mask.mode == "P"
        assert np.array_equal(np.asarray(mask), SEMANTIC.numpy())
        palette = np.array(mask.getpalette()).reshape(-1, 3)
        assert [tuple(colour) for colour in palette[:3]] == list(LABELS.palette)
        assert tuple(palette[255]) == (224, 224, 192)


def test_masks_hold_the_ids_on_disk_of_the_label_set(tmp_path: Path):
    labels = replace(LABELS, dataset_ids=(7, 24, 33), void_ids=(3, 255))
    scene(labels).save(str(tmp_path / "a"))
    with Image.open(tmp_path / "a.semantic.png") as mask:
        ids = np.asarray(mask)
        palette = np.array(mask.getpalette()).reshape(-1, 3)
    dataset_id = np.array([7, 24, 33, 3])
    assert np.array_equal(ids, dataset_id[np.where(SEMANTIC == 255, 3, SEMANTIC)])
    assert tuple(palette[24]) == labels.palette[1]
    assert np.array_equal(labels.class_ids(ids, source="a"), SEMANTIC.numpy())


def test_a_void_id_below_zero_is_written_as_255(tmp_path: Path):
    scene(replace(LABELS, void_ids=(-1,))).save(tmp_path / "a")
    with Image.open(tmp_path / "a.semantic.png") as mask:
        assert np.array_equal(np.asarray(mask), SEMANTIC.numpy())


def test_ids_of_more_than_eight_bits_are_written_as_sixteen(tmp_path: Path):
    labels = replace(LABELS, dataset_ids=(0, 1000, 5))
    scene(labels).save(tmp_path / "a")
    with Image.open(tmp_path / "a.semantic.png") as mask:
        assert mask.mode == "I;16"
        assert np.asarray(mask)[0, 2] == 1000


def test_voc_masks_have_the_palette_of_voc(tmp_path: Path):
    Scene(noise(4, 5), Annotation(semantic=SEMANTIC), published("voc"), 0.0, "m").save(tmp_path / "a")
    with Image.open(tmp_path / "a.semantic.png") as mask:
        assert mask.getpalette()[15 * 3 : 16 * 3] == [192, 128, 128]


@pytest.mark.parametrize(("broken", "left"), [("write_png", []), ("Image.Image.save", ["a.overlay.png"])])
def test_a_write_that_fails_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, left: list[str]
):
    def full(*arguments, **options):
        next(Path(path) for path in arguments if isinstance(path, Path)).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"pixelwise.inference.scene.{broken}", full)
    with pytest.raises(OSError, match="No space left"):
        scene().save(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == left


@pytest.mark.parametrize("slab", [1, 7, 40, 10_000])
def test_segments_equal_the_slow_formula(monkeypatch: pytest.MonkeyPatch, slab: int):
    """Each class by a mask of the whole image, however many pixels are counted at once."""
    monkeypatch.setattr(record, "SLAB_PIXELS", slab)
    monkeypatch.setattr(pictures, "SLAB_PIXELS", slab)
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 4, (5, 3), generator=generator)
    semantic = coarse.repeat_interleave(3, 0).repeat_interleave(4, 1).to(torch.uint8)
    semantic[semantic == 3] = 255
    semantic[:, 5] = 1  # a run over the whole column, with its neighbours' ends
    semantic[0, 6] = 1
    confidence = torch.rand(15, 12, generator=generator)
    found = replace(scene(), image=noise(15, 12), annotation=Annotation(semantic=semantic, confidence=confidence))
    segments = found.record()["segments"]
    assert [segment["id"] for segment in segments] == [1, 2]
    for segment in segments:
        mask = (semantic == segment["id"]).numpy()
        rows, columns = np.nonzero(mask)
        assert segment["area"] == mask.sum()
        assert segment["box"] == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert segment["score"] == pytest.approx(confidence.numpy()[mask].mean(), abs=1e-4)
        assert segment["rle"] == rle.encode(mask)
    everywhere = replace(found, annotation=Annotation(semantic=torch.ones(15, 12, dtype=torch.uint8)))
    (segment,) = everywhere.record()["segments"]
    assert segment["rle"] == rle.encode(np.ones((15, 12), dtype=bool))
    assert segment["score"] is None
    assert segment["box"] == [0, 0, 12, 15]


def test_segments_of_more_than_255_classes():
    names = [f"class {index}" for index in range(300)]
    semantic = torch.tensor([[299, -1], [256, 299]], dtype=torch.int32)
    annotation = Annotation(semantic=semantic, confidence=torch.tensor([[0.5, 0.9], [0.25, 1.0]]))
    many = Scene(noise(2, 2), annotation, LabelSet.from_names("many", names), 0.0, "m")
    found = [(segment["id"], segment["area"], segment["score"]) for segment in many.record()["segments"]]
    assert found == [(256, 1, 0.25), (299, 2, 0.75)]


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (20, 31)])
def test_a_png_is_what_was_drawn(tmp_path: Path, size: tuple[int, int]):
    picture = Image.fromarray(noise(*size).permute(1, 2, 0).numpy())
    png.write_png(tmp_path / "a.png", picture)
    with Image.open(tmp_path / "a.png") as found:
        found.verify()  # the checksums
    with Image.open(tmp_path / "a.png") as found:
        assert (found.format, found.mode) == ("PNG", "RGB")
        assert np.array_equal(np.asarray(found), np.asarray(picture))


SEGMENTS = Panoptic(
    ids=torch.tensor([[1, 1, 4, 4], [1, 5, 5, 4], [0, 5, 5, 1], [1, 1, 1, 7]], dtype=torch.int32),
    segment_ids=torch.tensor([5, 1, 4, 6], dtype=torch.int32),
    labels=torch.tensor([1, 0, 2, 2]),
    crowd=torch.zeros(4, dtype=torch.bool),
    scores=torch.tensor([0.9, 0.5, 0.8, 0.7]),
)
"""Stuff 1, the things 4 (pear) and 5 (apple); 6 has no pixel, 7 no entry."""


@pytest.mark.parametrize("slab", [1, 7, 1000])
@pytest.mark.parametrize("is_tracked", [False, True])
def test_segments_of_a_panoptic_scene(monkeypatch: pytest.MonkeyPatch, slab: int, is_tracked: bool):
    monkeypatch.setattr(record, "SLAB_PIXELS", slab)
    monkeypatch.setattr(pictures, "SLAB_PIXELS", slab)
    found = Scene(noise(4, 4), Annotation(panoptic=SEGMENTS), LABELS, 0.0, "m", is_tracked=is_tracked)
    segments = json.loads(json.dumps(found.record()["segments"]))
    plain = [{name: value for name, value in segment.items() if name != "rle"} for segment in segments]
    tracks = (None, 0, 1) if is_tracked else (None, None, None)
    for one in plain:
        one["score"] = round(one["score"], 6)  # of 32 bits
    assert plain == [
        {"id": 1, "label": 0, "name": "background", "area": 7, "box": [0, 0, 4, 4], "score": 0.5, "track_id": None},
        {"id": 4, "label": 2, "name": "pear", "area": 3, "box": [2, 0, 4, 2], "score": 0.8, "track_id": tracks[1]},
        {"id": 5, "label": 1, "name": "apple", "area": 4, "box": [1, 1, 3, 3], "score": 0.9, "track_id": tracks[2]},
    ]
    for segment in segments:
        assert segment["rle"] == rle.encode((SEGMENTS.ids == segment["id"]).numpy())
    bare = replace(found, annotation=Annotation(panoptic=replace(SEGMENTS, scores=None)))
    assert [segment["score"] for segment in bare.record()["segments"]] == [None] * 3


@pytest.mark.parametrize("slab", [1, 7, 1000])
def test_a_panoptic_picture_has_the_ids_in_red_green_and_blue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slab: int
):
    monkeypatch.setattr(record, "SLAB_PIXELS", slab)
    monkeypatch.setattr(pictures, "SLAB_PIXELS", slab)
    ids = torch.tensor([[0, 1, 255, 256], [65535, 65536, 2**24 - 1, 7]], dtype=torch.int32)
    found = Scene(noise(2, 4), Annotation(panoptic=replace(SEGMENTS, ids=ids)), LABELS, 0.0, "m")
    files = found.save(tmp_path / "a")
    assert [path.name for path in files] == ["a.overlay.png", "a.panoptic.png"]
    with Image.open(files[1]) as picture:
        assert picture.mode == "RGB"
        assert np.asarray(picture).tolist() == [
            [[0, 0, 0], [1, 0, 0], [255, 0, 0], [0, 1, 0]],
            [[255, 255, 0], [0, 0, 1], [255, 255, 255], [7, 0, 0]],
        ]
