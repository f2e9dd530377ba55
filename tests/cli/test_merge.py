"""`pixelwise merge`: predictions from files, paired, merged and written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pixelwise.data.kinds.folders import labels_toml
from pixelwise.inference.scene import Scene
from pixelwise.labels import LabelSet
from pixelwise.ops.panoptic import rgb_to_ids
from pixelwise.predictions.coco_objects import entries_of_instances
from pixelwise.types import Annotation, Instances, Masks
from tests.cli.conftest import Run

LABELS = LabelSet.from_names("drawn", ["sky", "grass", "ball"])
SIZE = (6, 8)


@pytest.fixture
def run(run: Run) -> Run:
    """Runs `pixelwise merge` in this process."""
    return partial(run, "merge")


def scene(annotation: Annotation, name: str, labels: LabelSet = LABELS) -> Scene:
    image = torch.zeros(3, *SIZE, dtype=torch.uint8)
    return Scene(image=image, annotation=annotation, labels=labels, seconds=0.1, model="m", name=f"photos/{name}.jpg")


def store(folder: Path, *scenes: tuple[str, Scene]) -> Path:
    """What `predict` writes."""
    lines = []
    for name, one in scenes:
        files = [path.relative_to(folder).as_posix() for path in one.save(folder / name)]
        lines.append(json.dumps({**one.record(), "files": files}))
    (folder / "results.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def sky_over_grass() -> Annotation:
    semantic = torch.zeros(SIZE, dtype=torch.uint8)
    semantic[3:] = 1
    return Annotation(semantic=semantic)


def balls(*boxes_and_scores: tuple[tuple[int, int, int, int], float]) -> Instances:
    dense = torch.zeros(len(boxes_and_scores), *SIZE, dtype=torch.bool)
    for number, ((x1, y1, x2, y2), _) in enumerate(boxes_and_scores):
        dense[number, y1:y2, x1:x2] = True
    masks = Masks.from_dense(dense)
    return Instances(
        boxes=masks.boxes.float(),
        labels=torch.full((len(dense),), 2),
        masks=masks,
        scores=torch.tensor([score for _, score in boxes_and_scores]),
    )


@pytest.fixture
def predicted(tmp_path: Path) -> tuple[Path, Path]:
    """Two images of one model, and the objects of two of another; only `sub/a` has both."""
    semantic = store(
        tmp_path / "semantic", ("sub/a", scene(sky_over_grass(), "a")), ("b", scene(sky_over_grass(), "b"))
    )
    found = Annotation(instances=balls(((1, 2, 4, 5), 0.9), ((2, 2, 5, 5), 0.8), ((6, 0, 8, 2), 0.3)))
    instances = store(tmp_path / "instances", ("sub/a", scene(found, "a")), ("c", scene(found, "c")))
    return semantic, instances


def ids_of(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return rgb_to_ids(np.array(picture.convert("RGB")))


def test_objects_lie_on_stuff(run: Run, predicted: tuple[Path, Path], tmp_path: Path) -> None:
    """The second ball is hidden by two thirds and goes, the third is not sure enough."""
    semantic, instances = predicted
    out = tmp_path / "out"
    code, told, err = run("--semantic", semantic, "--instances", instances, "--out", out, "--smallest-stuff", 20)
    expected = np.zeros(SIZE, dtype=np.int32)
    expected[:3] = 1
    expected[2:5, 1:4] = 4
    assert np.array_equal(ids_of(out / "sub/a.panoptic.png"), expected), "grass has 18 pixels left, too few"
    assert code == 1
    assert "1 segment map, results.jsonl, panoptic_results.json" in told
    assert "c: " in err
    assert "b: no line in" in err
    assert not (out / "b.panoptic.png").exists()
    (line,) = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert line["image"] == "photos/a.jpg"
    assert line["size"] == [6, 8]
    assert line["labels"] == list(LABELS.names)
    segments = [(one["id"], one["name"], one["area"], pytest.approx(one["score"])) for one in line["segments"]]
    assert segments == [(1, "sky", 21, 1.0), (4, "ball", 9, 0.9)]
    coco = json.loads((out / "panoptic_results.json").read_text())
    assert [(one["name"], one["isthing"]) for one in coco["categories"]] == [("sky", 0), ("grass", 0), ("ball", 1)]
    (entry,) = coco["annotations"]
    assert entry["file_name"] == "sub/a.panoptic.png"
    assert [(one["id"], one["category_id"], one["area"]) for one in entry["segments_info"]] == [(1, 0, 21), (4, 2, 9)]


def test_the_options_of_the_heuristic(run: Run, predicted: tuple[Path, Path], tmp_path: Path) -> None:
    semantic, instances = predicted
    options = ("--smallest-stuff", 0, "--score-threshold", 0.2, "--largest-overlap", 0.7)
    run("--semantic", semantic, "--instances", instances, "--out", tmp_path / "out", *options)
    expected = np.ones(SIZE, dtype=np.int32)
    expected[3:] = 2
    expected[2:5, 2:5] = 5
    expected[2:5, 1:4] = 4
    expected[:2, 6:] = 6
    assert np.array_equal(ids_of(tmp_path / "out/sub/a.panoptic.png"), expected)


def test_coco_results_say_of_an_image_without_entry_that_it_has_no_objects(
    run: Run, predicted: tuple[Path, Path], tmp_path: Path
) -> None:
    semantic, _ = predicted
    file = tmp_path / "coco_results.json"
    file.write_text(json.dumps([*entries_of_instances("photos/a.jpg", balls(((1, 2, 4, 5), 0.9)), LABELS)]))
    out = tmp_path / "out"
    code, told, err = run(
        "--semantic", semantic, "--instances", file, "--out", out, "--smallest-stuff", 0, "--json"
    )  # fmt: skip
    assert (code, err) == (0, "")
    lines = [json.loads(line) for line in told.splitlines()]
    assert [[one["id"] for one in line["segments"]] for line in lines] == [[1, 2], [1, 2, 4]]
    assert ids_of(out / "b.panoptic.png").max() == 2


def test_masks_and_objects_of_any_tools(run: Run, tmp_path: Path) -> None:
    """Plain id masks beside COCO's results; pictures of other results are no masks."""
    masks, file, labels = tmp_path / "masks", tmp_path / "objects.json", tmp_path / "labels.toml"
    masks.mkdir()
    semantic = sky_over_grass().semantic
    assert semantic is not None
    Image.fromarray(semantic.numpy()).save(masks / "a.png")
    Image.fromarray(np.zeros(SIZE, dtype=np.uint8)).save(masks / "a.overlay.png")
    file.write_text(json.dumps([*entries_of_instances("a.jpg", balls(((1, 2, 4, 5), 0.9)), LABELS)]))
    labels.write_text(labels_toml(replace(LABELS, is_thing=(False, False, True))))
    out = tmp_path / "out"
    arguments = ("--semantic", masks, "--instances", file, "--labels", labels, "--out", out, "--smallest-stuff", 0)
    code, _, err = run(*arguments, "--quiet")
    assert (code, err) == (0, "")
    expected = np.ones(SIZE, dtype=np.int32)
    expected[3:] = 2
    expected[2:5, 1:4] = 4
    assert np.array_equal(ids_of(out / "a.panoptic.png"), expected)
    assert [path.name for path in sorted(out.glob("*.png"))] == ["a.panoptic.png"]


def test_again_the_same(run: Run, predicted: tuple[Path, Path], tmp_path: Path) -> None:
    arguments = ("--semantic", predicted[0], "--instances", predicted[1], "--out", tmp_path / "out")
    run(*arguments)
    run(*arguments, "--quiet")
    assert len((tmp_path / "out/results.jsonl").read_text().splitlines()) == 1
    assert len(json.loads((tmp_path / "out/panoptic_results.json").read_text())["annotations"]) == 1


def test_different_label_sets_are_refused_with_both(run: Run, predicted: tuple[Path, Path], tmp_path: Path) -> None:
    other = LabelSet.from_names("other", ["void", "ball"])
    found = Annotation(instances=balls(((1, 2, 4, 5), 0.9))[torch.tensor([], dtype=torch.int64)])
    instances = store(tmp_path / "others", ("sub/a", scene(found, "a", other)))
    code, _, err = run("--semantic", predicted[0], "--instances", instances, "--out", tmp_path / "out")
    assert code == 2
    assert "(sky, grass, ball)" in err
    assert "(void, ball)" in err
    assert not (tmp_path / "out").exists()
    code, _, err = run(
        "--semantic", predicted[0], "--instances", predicted[1], "--out", tmp_path / "out", "--labels", "voc"
    )
    assert code == 2
    assert "--labels has 21" in err


def test_labels_say_which_classes_are_things(run: Run, predicted: tuple[Path, Path], tmp_path: Path) -> None:
    """With grass as a thing there is no such stuff."""
    path = tmp_path / "labels.toml"
    classes = (("sky", False), ("grass", True), ("ball", True))
    path.write_text("".join(f'[[class]]\nname = "{name}"\nthing = {str(thing).lower()}\n' for name, thing in classes))
    out = tmp_path / "out"
    run(
        "--semantic", predicted[0], "--instances", predicted[1], "--out", out, "--labels", path, "--smallest-stuff", 0
    )  # fmt: skip
    assert np.unique(ids_of(out / "sub/a.panoptic.png")).tolist() == [0, 1, 4]


def _bad_folder(root: Path) -> tuple[Any, Any]:
    return root / "nowhere", root / "instances"


def _no_masks(root: Path) -> tuple[Any, Any]:
    return root / "instances", root / "instances"


def _no_objects(root: Path) -> tuple[Any, Any]:
    return root / "semantic", root / "semantic/sub"


def _no_list(root: Path) -> tuple[Any, Any]:
    (root / "bad.json").write_text("{}")
    return root / "semantic", root / "bad.json"


def _no_pair(root: Path) -> tuple[Any, Any]:
    lines = (root / "instances/results.jsonl").read_text().splitlines()
    (root / "other.jsonl").write_text(lines[1] + "\n")
    return root / "semantic", root / "other.jsonl"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (_bad_folder, "no such folder; expected a folder of id masks"),
        (_no_masks, "no id masks, *.semantic.png as a semantic model's"),
        (_no_objects, "results.jsonl: no such file"),
        (_no_list, "expected COCO results, a list of entries"),
        (_no_pair, "no image of it is in"),
    ],
)
@pytest.mark.usefixtures("predicted")
def test_nothing_is_attempted(run: Run, tmp_path: Path, make: Callable[[Path], tuple[Any, Any]], text: str) -> None:
    semantic, instances = make(tmp_path)
    code, _, err = run("--semantic", semantic, "--instances", instances, "--out", tmp_path / "out")
    assert code == 2
    assert text in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_one_bad_image_costs_no_other(run: Run, predicted: tuple[Path, Path], tmp_path: Path) -> None:
    semantic, instances = predicted
    lines = (instances / "results.jsonl").read_text().splitlines()
    other = lines[0].replace("sub/a", "b").replace("photos/a", "photos/b")
    (instances / "results.jsonl").write_text("\n".join((lines[0], other)) + "\n")
    Image.fromarray(np.zeros((3, 3), dtype=np.uint8)).save(semantic / "b.semantic.png")
    code, _, err = run("--semantic", semantic, "--instances", instances, "--out", tmp_path / "out")
    assert code == 1
    assert "1 not merged" in err
    assert "b: " in err
    assert (tmp_path / "out/sub/a.panoptic.png").is_file()
