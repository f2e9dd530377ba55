"""The classes that a run is trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from pixelwise.errors import DataError
from pixelwise.labels import published
from pixelwise.training.run.data import open_training_data
from tests.data import drawing
from tests.data.formats import masks_set


@pytest.fixture
def coco(tmp_path: Path) -> str:
    """An image of which COCO's classes are told."""
    masks_set.masks(tmp_path / "a", "x", labels=None)
    drawing.write_mask(tmp_path / "a" / "masks" / "x.png", [[0, 1, 5, 17, 18, 90]] * 4)
    return f"masks:{tmp_path}/a@train?labels=coco"


def test_a_maps_target_is_trained_where_no_set_has_its_classes(coco: str) -> None:
    assert open_training_data([coco], None).labels.names == published("coco").names
    data = open_training_data([coco], "coco_to_voc")
    assert data.labels == published("voc")
    semantic = data.train[0].truth.semantic
    assert semantic is not None
    assert semantic.tolist() == [[0, 15, 1, 8, 12, 0]] * 4
    assert [one.source.name for one in data.label_maps] == ["coco"]


def test_a_map_may_have_classes_of_its_own(coco: str, tmp_path: Path) -> None:
    data = open_training_data([coco], "any_object")
    assert (data.labels.names, data.labels.object_ids) == (("background", "object"), (1,))
    semantic = data.train[0].truth.semantic
    assert semantic is not None
    assert semantic.tolist() == [[0, 1, 1, 1, 1, 1]] * 4
    own = '[[class]]\nname = "rest"\n[[class]]\nname = "person"\n'
    (tmp_path / "map.toml").write_text(f'default = "rest"\n{own}')
    assert open_training_data([coco], str(tmp_path / "map.toml")).labels.names == ("rest", "person")
    (tmp_path / "map.toml").write_text(f'target = "voc"\ndefault = "rest"\n{own}')
    with pytest.raises(DataError, match=r"map.toml: target and \[\[class\]\] both define"):
        open_training_data([coco], str(tmp_path / "map.toml"))
    (tmp_path / "map.toml").write_text(f"{own}{own}")
    with pytest.raises(DataError, match=r"map.toml: target: label set 'map': rest, person occurs more than once"):
        open_training_data([coco], str(tmp_path / "map.toml"))


def test_a_map_without_a_target_brings_all_to_the_classes_of_the_first_set(coco: str, tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text('default = "background"\n')
    assert open_training_data([coco], str(tmp_path / "map.toml")).labels.name == "coco"
    assert open_training_data([coco], "names").labels.name == "coco"


def test_a_map_that_cannot_be_used_is_refused(coco: str, tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text('target = "vocc"\n')
    with pytest.raises(DataError, match=r"map.toml: target: there is no label set 'vocc'; there are .*voc"):
        open_training_data([coco], str(tmp_path / "map.toml"))
    with pytest.raises(
        DataError, match=r"--map coco_to_vocc: no such file; expected names, a TOML file, or one of any_object"
    ):
        open_training_data([coco], "coco_to_vocc")
