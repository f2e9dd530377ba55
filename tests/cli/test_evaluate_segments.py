"""`pixelwise evaluate --predictions`: panoptic results that any tool wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pixelwise.data.spec import open_dataset
from pixelwise.errors import DataError
from pixelwise.predictions.coco_segments import StoredSegments, find_segments, pair_segments, read_segment_list
from tests.cli.conftest import Run
from tests.data.formats import coco_panoptic_set


@pytest.fixture
def spec(tmp_path: Path) -> str:
    """Two images of val, the second all void."""
    return f"coco-panoptic:{coco_panoptic_set.coco_panoptic(tmp_path / 'set')}@val"


ROAD_CAR_PERSON = [[1, 1, 2, 2, 3, 0]] * 2 + [[1, 1, 1, 0, 0, 0]] * 2
"""All segments of the ground truth but the crowd, under other ids."""

SEGMENTS = ((1, 7), (2, 26), (3, 30))


def write_results(
    file: Path,
    ids: Any = ROAD_CAR_PERSON,
    segments: Sequence[tuple[int, int]] = SEGMENTS,
    *,
    images: Sequence[int | str] = (4, 5),
    folder: Path | None = None,
    **more: Any,
) -> Path:
    """A panoptic JSON, and the same PNG for each image."""
    annotations = []
    for image in images:
        name = f"{Path(str(image)).stem}.png"
        coco_panoptic_set.write_segments((folder or file.with_suffix("")) / name, ids)
        infos = [{"id": id, "category_id": category} for id, category in segments]
        annotations.append({"image_id": image, "file_name": name, "segments_info": infos})
    file.write_text(json.dumps({"annotations": annotations, **more}))
    return file


def answers(file: Path, spec: str) -> StoredSegments:
    return pair_segments(read_segment_list(file), open_dataset(spec, default_split="val"))


def evaluated(run: Run, path: Path, spec: str) -> dict[str, Any]:
    code, out, err = run("evaluate", "--predictions", path, "--data", spec, "--json", "--workers", 0)
    assert code == 0, err
    return json.loads(out)


def test_all_but_the_crowd_is_perfect(run: Run, tmp_path: Path, spec: str) -> None:
    result = evaluated(run, write_results(tmp_path / "results.json"), spec)
    assert result["definition"] == "panoptic"
    assert result["images"] == 2
    assert result["metrics"]["pq"] == result["metrics"]["pq_things"] == result["metrics"]["pq_stuff"] == 1


def test_half_a_car_is_no_car(run: Run, tmp_path: Path, spec: str) -> None:
    ids = np.array(ROAD_CAR_PERSON)
    ids[0, 2:4] = 0  # 2 of the car's 4 pixels: an IoU of exactly one half
    metrics = evaluated(run, write_results(tmp_path / "results.json", ids), spec)["metrics"]
    assert metrics["pq"] == pytest.approx(2 / 3)
    assert metrics["pq_things"] == pytest.approx(1 / 2)


@pytest.mark.parametrize("images", [(4, 5), ("4", "5"), ("d", "e"), ("d.png", "e.png")])
def test_images_by_id_or_file(run: Run, tmp_path: Path, spec: str, images: Sequence[int | str]) -> None:
    assert evaluated(run, write_results(tmp_path / "results.json", images=images), spec)["metrics"]["pq"] == 1


def test_pngs_beside_the_json_in_a_folder(run: Run, tmp_path: Path, spec: str) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    write_results(folder / "panoptic_results.json", folder=folder)
    (folder / "coco_results.json").write_text("[]")
    assert evaluated(run, folder, spec)["metrics"]["pq"] == 1


def test_what_a_path_holds(tmp_path: Path) -> None:
    results = write_results(tmp_path / "results.json")
    (tmp_path / "objects.json").write_text('[{"segments_info": 1}]')
    (tmp_path / "other.json").write_text('{"images": []}')
    assert find_segments(results) == find_segments(tmp_path) == results
    for path in ("objects.json", "other.json", "none.json", "results"):
        assert find_segments(tmp_path / path) is None
    write_results(tmp_path / "again.json")
    with pytest.raises(DataError, match=r"again\.json and results\.json are panoptic results; name one of them"):
        find_segments(tmp_path)


def test_a_long_json_is_recognised_by_what_stands_at_its_end(tmp_path: Path) -> None:
    file = write_results(tmp_path / "results.json")
    file.write_text(json.dumps({"info": "x" * (2**20 - 20)} | json.loads(file.read_text())))
    assert find_segments(file) == file


def test_images_without_prediction_are_named_and_others_passed_over(run: Run, tmp_path: Path, spec: str) -> None:
    file = write_results(tmp_path / "results.json", images=(4, 77))
    code, out, err = run("evaluate", "--predictions", file, "--data", spec, "--json", "--workers", 0)
    assert code == 1
    assert json.loads(out)["images"] == 1
    assert "1 of 2 images have no prediction: 5; skipped" in err
    with pytest.raises(DataError, match="none of its 1 annotations is of one of the 2 images"):
        answers(write_results(tmp_path / "results.json", images=(77,)), spec)


def test_segments_without_pixels_are_none_and_scores_are_kept(tmp_path: Path, spec: str) -> None:
    file = write_results(tmp_path / "results.json", segments=(*SEGMENTS, (9, 26)))
    content = json.loads(file.read_text())
    for number, info in enumerate(content["annotations"][0]["segments_info"]):
        info["score"] = number / 4
    file.write_text(json.dumps(content))
    dataset = open_dataset(spec, default_split="val")
    found = answers(file, spec)(dataset[0]).panoptic
    assert found is not None
    assert found.segment_ids.tolist() == [1, 2, 3]
    assert found.labels.tolist() == [0, 1, 2]
    assert not found.crowd.any()
    assert found.scores is not None
    assert torch.equal(found.scores, torch.tensor([0, 0.25, 0.5]))
    second = answers(file, spec)(dataset[1]).panoptic
    assert second is not None
    assert second.scores is None


def test_a_faulty_png_fails_its_image_alone(run: Run, tmp_path: Path, spec: str) -> None:
    file = write_results(tmp_path / "results.json")
    cases = [
        ([[1, 1, 2, 2, 3, 8]] * 4, "5.png: id 8 (4 pixels) has no segment in the JSON (image '5'); 1 such ids in all"),
        ([[1, 1, 2, 2, 3]] * 4, "5.png: the PNG is 4×5, image '5' 4×6 (height×width)"),
    ]
    for ids, text in cases:
        coco_panoptic_set.write_segments(tmp_path / "results" / "5.png", ids)
        code, out, err = run("evaluate", "--predictions", file, "--data", spec, "--json", "--workers", 0)
        assert code == 1
        assert json.loads(out)["images"] == 1
        assert text in err


@pytest.mark.parametrize(
    ("segments", "text"),
    [
        ([(0, 7)], "segments_info.0.id is 0: input should be greater than 0"),
        ([(1, 7), (1, 7)], "image 4: two segments have the id 1"),
        ([(1, 8)], "image 4, segment 1: category 8 is not in 'val2017' (7, 26, 30, 0 = void)"),
    ],
)
def test_unsound_segments_are_refused(tmp_path: Path, spec: str, segments: list[tuple[int, int]], text: str) -> None:
    file = write_results(tmp_path / "results.json", segments=segments)
    with pytest.raises(DataError) as caught:
        answers(file, spec)
    assert str(caught.value) == f"{file}: annotation 1: {text}"


def test_categories_are_told_apart_by_their_names(tmp_path: Path, spec: str) -> None:
    """As our own conversions number them anew."""
    names = {dataset_id: name for name, dataset_id in zip(("road", "car", "person"), (7, 26, 30), strict=True)}
    others = {7: 30, 26: 7, 30: 1}
    categories = [{"id": others[dataset_id], "name": names[dataset_id], "isthing": 1} for dataset_id in names]
    plain = answers(write_results(tmp_path / "a.json"), spec)
    segments = [(id, others[dataset_id]) for id, dataset_id in SEGMENTS]
    file = write_results(tmp_path / "b.json", segments=segments, categories=categories)
    named = answers(file, spec)
    assert [map.segments for map in named.maps.values()] == [map.segments for map in plain.maps.values()]


def test_categories_of_other_names_are_refused(tmp_path: Path, spec: str) -> None:
    file = write_results(tmp_path / "results.json", categories=[{"id": 26, "name": "truck", "isthing": 1}])
    with pytest.raises(DataError, match="category 26 is 'truck', but 'car' in 'val2017' of the data set"):
        answers(file, spec)


def test_one_image_twice_and_other_contents_are_refused(tmp_path: Path, spec: str) -> None:
    file = write_results(tmp_path / "results.json", images=(4, "d"))
    with pytest.raises(DataError, match="annotation 2: another one is of image '4' too"):
        answers(file, spec)
    for text in ('{"annotations": 3}', "[]"):
        file.write_text(text)
        with pytest.raises(DataError, match="expected panoptic results, an object with a list 'annotations'"):
            answers(file, spec)
