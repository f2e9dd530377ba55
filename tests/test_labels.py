"""Label sets: three kinds of id kept apart, maps between sets, and files that are refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pixelwise.labels
from pixelwise.errors import DataError
from pixelwise.labels import LabelMap, LabelSet, published, voc_colour

SHAPES = LabelSet(
    name="shapes",
    names=("background", "disc", "square"),
    is_thing=(False, True, True),
    palette=((0, 0, 0), (200, 0, 0), (0, 200, 0)),
    dataset_ids=(0, 7, 33),
    void_ids=(255, -1),
)
FOLDER = Path(pixelwise.labels.__file__).parent
PUBLISHED = sorted(path.stem for path in FOLDER.glob("*.toml"))


# ---- ids


def test_ids_on_disk_become_class_ids_and_come_back() -> None:
    dataset_id = np.array([[0, 7, 33], [255, -1, 7]], dtype=np.int32)
    ids = SHAPES.class_ids(dataset_id, source="a.png")
    assert ids.dtype == np.uint8
    assert ids.tolist() == [[0, 1, 2], [255, 255, 1]]
    assert SHAPES.dataset_ids_of(ids).tolist() == [[0, 7, 33], [255, 255, 7]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_files_of_every_width_are_read(dtype: type) -> None:
    assert SHAPES.class_ids(np.array([33, 255], dtype=dtype), source="a.png").tolist() == [2, 255]


@pytest.mark.parametrize("value", [1, 32, 34, 254, 256, -2, 2**31 - 1, -(2**31), 2**40])
def test_a_value_of_no_class_is_refused_with_its_place(value: int) -> None:
    dataset_id = np.array([[0, value], [value, 7]], dtype=np.int64)
    with pytest.raises(DataError) as caught:
        SHAPES.class_ids(dataset_id, source="train/000123.png")
    text = str(caught.value)
    assert text.startswith(f"train/000123.png: value {value} (2 pixels) is not in LabelSet 'shapes' (0, 7, 33, ")
    assert "\n" not in text


def test_more_than_255_classes_use_wide_ids_and_another_void() -> None:
    labels = LabelSet.from_names("many", [f"class {index}" for index in range(300)])
    assert (labels.ignore_id, labels.void_ids) == (-1, (65535,))
    ids = labels.class_ids(np.array([0, 255, 299, 65535], dtype=np.uint16), source="a.png")
    assert ids.dtype == np.int32
    assert ids.tolist() == [0, 255, 299, -1]
    assert labels.dataset_ids_of(ids).tolist() == [0, 255, 299, 65535]


def test_255_classes_still_fit_one_byte() -> None:
    labels = LabelSet.from_names("full", [f"class {index}" for index in range(255)])
    assert (labels.ignore_id, labels.void_ids) == (255, (255,))
    assert labels.class_ids(np.array([254, 255], dtype=np.uint8), source="a.png").tolist() == [254, 255]


def test_ids_are_described_as_ranges() -> None:
    assert SHAPES.describe_ids() == "0, 7, 33, -1, 255 = void"
    assert LabelSet.from_names("x", list("abc")).describe_ids() == "0-2, 255 = void"


# ---- sets


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sets_are_sound_and_survive_their_json(name: str) -> None:
    labels = published(name)
    assert labels.name == name
    assert len(set(labels.names)) == len(labels) > 1
    assert LabelSet.from_json(json.loads(json.dumps(labels.to_json()))) == labels
    ids = np.array(labels.dataset_ids)
    assert labels.class_ids(ids, source=name).tolist() == list(range(len(labels)))


def test_published_sets_have_the_published_numbers() -> None:
    voc, coco, camvid = published("voc"), published("coco"), published("camvid")
    assert (len(voc), voc.names[0], voc.names[15], voc.palette[15]) == (21, "background", "person", (192, 128, 128))
    assert voc.palette == tuple(voc_colour(index) for index in range(21))
    assert (len(coco), coco.names[1], coco.dataset_ids[-1]) == (81, "person", 90)
    assert (len(camvid), camvid.names[0], camvid.void_ids) == (11, "sky", (11,))


def test_vocs_colours_follow_its_bits() -> None:
    assert [voc_colour(index) for index in (0, 1, 2, 3, 4, 8, 255)] == [
        (0, 0, 0),
        (128, 0, 0),
        (0, 128, 0),
        (128, 128, 0),
        (0, 0, 128),
        (64, 0, 0),
        (224, 224, 192),
    ]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"names": ()}, "no classes"),
        ({"names": ("a", "b")}, "3 values in is_thing for 2 names"),
        ({"names": ("a", "b", "a")}, "a occurs more than once in names"),
        ({"dataset_ids": (0, 1, 1)}, "1 occurs more than once in dataset_ids"),
        ({"dataset_ids": (0, 1, 255)}, r"ids \[255\] are both a class and void"),
        ({"dataset_ids": (0, 1, 10**12)}, "id 1000000000000; ids on disk are below 16,777,216"),
        ({"void_ids": (-(10**12),)}, "id -1000000000000"),
        ({"palette": ((0, 0, 0), (0, 0, 0), (0, 0, 256))}, r"a colour is three numbers 0-255, not \[0, 0, 256\]"),
    ],
)
def test_fields_that_do_not_fit_are_refused(changes: dict[str, Any], text: str) -> None:
    fields = {name: getattr(SHAPES, name) for name in ("names", "is_thing", "palette", "dataset_ids", "void_ids")}
    with pytest.raises(DataError, match=f"^label set 'x': {text}"):
        LabelSet(**{"name": "x", **fields, **changes})


def test_a_set_is_read_from_toml_with_defaults(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[[class]]\nname = "floor"\n[[class]]\nname = "chair"\nthing = true\nid = 9\ncolour = [1, 2, 3]\n')
    assert LabelSet.from_toml(path) == LabelSet(
        name="mine",
        names=("floor", "chair"),
        is_thing=(False, True),
        palette=((0, 0, 0), (1, 2, 3)),
        dataset_ids=(0, 9),
    )


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("[[class]\n", "not a readable TOML file"),
        ("", "class: Field required"),
        ('class = "floor"', "class: "),
        ("[[class]]\nid = 3", r"class\.0\.name: Field required"),
        ('[[class]]\nname = "a"\nthing = "no"', r"class\.0\.thing: Input should be a valid boolean"),
        ('[[class]]\nname = "a"\nid = 3.7', r"class\.0\.id: Input should be a valid integer"),
        ('[[class]]\nname = "a"\ncolor = [1, 2, 3]', r"class\.0\.color: Extra inputs are not permitted"),
        ('[[class]]\nname = "a"\ncolour = [1, 2]', r"class\.0\.colour"),
        ('[[class]]\nname = "a"\ncolour = [1, 2, 300]', "a colour is three numbers 0-255"),
        ('[[class]]\nname = "a"\n[[class]]\nname = "a"', "a occurs more than once in names"),
        ('void_ids = [0]\n[[class]]\nname = "a"', r"ids \[0\] are both a class and void"),
    ],
)
def test_a_file_that_is_no_label_set_is_refused_by_name(tmp_path: Path, content: str, text: str) -> None:
    path = tmp_path / "labels.toml"
    path.write_text(content)
    with pytest.raises(DataError, match=f"labels.toml: .*{text}") as caught:
        LabelSet.from_toml(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.toml: no such file"):
        LabelSet.from_toml(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"bytes\.toml: not a readable text file"):
        LabelSet.from_toml(tmp_path / "bytes.toml")


@pytest.mark.parametrize("field", ["name", "names", "is_thing", "palette", "dataset_ids", "void_ids"])
def test_json_without_a_field_or_with_a_wrong_one_is_refused(field: str) -> None:
    content = SHAPES.to_json()
    with pytest.raises(DataError, match=f"label set: {field}: "):
        LabelSet.from_json({name: value for name, value in content.items() if name != field})
    with pytest.raises(DataError, match=f"label set: {field}"):
        LabelSet.from_json({**content, field: 3})


def test_sets_with_other_names_are_refused_with_both_lists() -> None:
    other = LabelSet.from_names("others", ["background", "square", "disc"])
    with pytest.raises(DataError) as caught:
        SHAPES.require_same(other, mine="model runs/a", theirs="data masks:./b")
    text = str(caught.value)
    assert "model runs/a has 'shapes' (3: background, disc, square)" in text
    assert "data masks:./b has 'others' (3: background, square, disc)" in text
    assert "--map" in text
    SHAPES.require_same(LabelSet.from_names("same names", SHAPES.names), mine="", theirs="")


def test_a_list_of_many_classes_is_cut_short() -> None:
    coco = published("coco")
    with pytest.raises(DataError, match=r"\(81: background, person, .*, … 57 more\)"):
        coco.require_same(SHAPES, mine="a", theirs="b")


# ---- maps

COLOURS = LabelSet.from_names("colours", ["red", "background", "square"])


def test_equal_names_are_mapped_and_others_ignored() -> None:
    label_map = LabelMap.by_names(SHAPES, COLOURS)
    assert label_map.table == (1, 255, 2)
    assert label_map.rows() == [("background", "background"), ("disc", "ignore"), ("square", "square")]
    mapped = label_map.apply(np.array([[0, 1], [2, 255]], dtype=np.uint8))
    assert mapped.dtype == np.uint8
    assert mapped.tolist() == [[1, 255], [2, 255]]


def test_named_pairs_go_before_equal_names_and_the_default_takes_the_rest() -> None:
    label_map = LabelMap.by_names(SHAPES, COLOURS, names={"square": "red", "background": "ignore"}, default="square")
    assert label_map.rows() == [("background", "ignore"), ("disc", "square"), ("square", "red")]


def test_maps_between_narrow_and_wide_sets() -> None:
    wide = LabelSet.from_names("wide", [*(f"class {index}" for index in range(300)), "disc"])
    there = LabelMap.by_names(SHAPES, wide).apply(np.array([0, 1, 255], dtype=np.uint8))
    assert (there.dtype, there.tolist()) == (np.int32, [-1, 300, -1])
    back = LabelMap.by_names(wide, SHAPES).apply(np.array([300, 255, -1], dtype=np.int32))
    assert (back.dtype, back.tolist()) == (np.uint8, [1, 255, 255])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"names": {"circle": "red"}}, "'circle' is not in 'shapes'"),
        ({"names": {"disc": "blue"}}, "'blue' is not in 'colours'"),
        ({"default": "blue"}, "'blue' is not in 'colours'"),
        ({"names": dict.fromkeys(SHAPES.names, "ignore")}, "no class of 'shapes' .* becomes one of 'colours'"),
    ],
)
def test_maps_with_unknown_names_or_without_effect_are_refused(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(DataError, match=f"label map: {text}"):
        LabelMap.by_names(SHAPES, COLOURS, **arguments)


def test_a_map_is_read_from_toml(tmp_path: Path) -> None:
    path = tmp_path / "map.toml"
    path.write_text('default = "red"\n[names]\ndisc = "square"\n')
    assert LabelMap.from_toml(path, SHAPES, COLOURS).table == (1, 2, 2)
    for content, text in (
        ('[name]\ndisc = "red"\n', "name: Extra inputs"),
        ("names = 3", "names: "),
        ("[names]\ndisc = 3\n", r"names\.disc: "),
        ('[names]\ndisc = "blue"\n', "'blue' is not in"),
        ("[names\n", "not a readable TOML file"),
    ):
        path.write_text(content)
        with pytest.raises(DataError, match=f"map.toml: .*{text}"):
            LabelMap.from_toml(path, SHAPES, COLOURS)


def test_the_map_that_ships_makes_voc_of_coco() -> None:
    rows = dict(LabelMap.from_toml(FOLDER / "maps" / "coco_to_voc.toml", published("coco"), published("voc")).rows())
    assert (rows["person"], rows["couch"], rows["tv"], rows["giraffe"]) == ("person", "sofa", "tvmonitor", "background")
    assert set(rows.values()) == set(published("voc").names)


def test_objects_of_any_class_take_every_class() -> None:
    anything = LabelSet.from_names("davis", ["background", "object"])
    assert anything.is_class_agnostic
    assert not SHAPES.is_class_agnostic
    label_map = LabelMap.by_names_or_objects(LabelSet.from_names("coco", ["background", "swan", "car"]), anything)
    assert label_map.table == (0, 1, 1)
    assert LabelMap.by_names_or_objects(SHAPES, COLOURS).table == LabelMap.by_names(SHAPES, COLOURS).table


def test_a_map_that_keeps_the_background_alone_is_refused() -> None:
    source = LabelSet.from_names("davis", ["background", "object"])
    with pytest.raises(DataError, match=r"no class of 'davis' \(background, object\) becomes one of"):
        LabelMap.by_names(source, LabelSet.from_names("coco", ["background", "swan"]))


def test_a_name_that_no_file_can_hold_is_refused() -> None:
    with pytest.raises(DataError, match=r"the class name 'crate\\udc00' is no Unicode text"):
        LabelSet.from_names("x", ["background", "crate\udc00"])
