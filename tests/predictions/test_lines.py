import json
from pathlib import Path

import pytest

from pixelwise.errors import DataError
from pixelwise.files import atomic
from pixelwise.labels import LabelSet
from pixelwise.predictions.lines import ResultsFile, read_image_lines


def identity(image: str, **changes) -> dict:
    return {
        "image": image,
        "file": {"bytes": 10, "modified": 1732166400.123456},
        "model": "m",
        "weights": "w",
        "options": {"tile": False},
        **changes,
    }


def add(results: ResultsFile, image: str, **changes) -> dict:
    files = [f"{Path(image).stem}.overlay.png", f"{Path(image).stem}.semantic.png"]
    for name in files:
        (results.path.parent / name).write_bytes(b"x")
    record = {**identity(image, **changes), "segments": [], "files": files}
    results.append(record)
    return record


def images(folder: Path) -> list[str]:
    return [json.loads(line)["image"] for line in (folder / "results.jsonl").read_text("utf-8").splitlines()]


def test_lines_are_found_again(tmp_path: Path):
    with ResultsFile(tmp_path / "deep" / "out") as results:
        record = add(results, "größe.jpg")
    with ResultsFile(tmp_path / "deep" / "out") as results:
        assert results.holds(identity("größe.jpg"), files=["größe.overlay.png"])
        assert json.loads(results.line_of("größe.jpg")) == record
        assert results.files_of("größe.jpg") == ("größe.overlay.png", "größe.semantic.png")
        assert not results.holds(identity("b.jpg"), files=[])
    assert "größe" in (tmp_path / "deep" / "out" / "results.jsonl").read_text("utf-8")


@pytest.mark.parametrize(
    "changes",
    [
        {"file": {"bytes": 11, "modified": 1732166400.123456}},
        {"file": {"bytes": 10, "modified": 1732166400.123457}},
        {"model": "n"},
        {"weights": "v"},
        {"options": {"tile": True}},
    ],
)
def test_an_image_is_not_done_if_anything_differs(tmp_path: Path, changes: dict):
    with ResultsFile(tmp_path) as results:
        add(results, "a.jpg")
    with ResultsFile(tmp_path) as results:
        assert results.holds(identity("a.jpg"), files=["a.overlay.png"])
        assert not results.holds(identity("a.jpg", **changes), files=["a.overlay.png"])


def test_an_image_is_not_done_without_its_files_or_under_another_name(tmp_path: Path):
    with ResultsFile(tmp_path) as results:
        add(results, "a.jpg")
    with ResultsFile(tmp_path) as results:
        assert not results.holds(identity("a.jpg"), files=["a.jpg.overlay.png"])
        (tmp_path / "a.semantic.png").unlink()
        assert not results.holds(identity("a.jpg"), files=["a.overlay.png"])


@pytest.mark.parametrize(
    "torn", [b'{"image": "c.jp', b'{"image": "\xc3', b"\n\n", b"null\n[]\n{}\n", b'{"image": 3}\n']
)
def test_a_torn_line_is_dropped_and_the_rest_kept(tmp_path: Path, torn: bytes):
    with ResultsFile(tmp_path) as results:
        add(results, "a.jpg")
        add(results, "b.jpg")
    with (tmp_path / "results.jsonl").open("ab") as file:
        file.write(torn)
    with ResultsFile(tmp_path) as results:
        assert results.holds(identity("b.jpg"), files=["b.overlay.png"])
        results.forget([], files=[])
        add(results, "c.jpg")
    assert images(tmp_path) == ["a.jpg", "b.jpg", "c.jpg"]


def test_a_last_line_that_lacks_only_its_end_counts(tmp_path: Path):
    with ResultsFile(tmp_path) as results:
        add(results, "a.jpg")
    path = tmp_path / "results.jsonl"
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    with ResultsFile(tmp_path) as results:
        assert results.holds(identity("a.jpg"), files=[])
        results.forget([], files=[])
        add(results, "b.jpg")
    assert images(tmp_path) == ["a.jpg", "b.jpg"]


def test_an_image_done_again_has_one_line(tmp_path: Path):
    with ResultsFile(tmp_path) as results:
        for image in ("a.jpg", "b.jpg", "c.jpg"):
            add(results, image)
        results.forget([], files=[])
    with ResultsFile(tmp_path) as results:
        results.forget(["b.jpg"], files=["b.overlay.png"])
        assert images(tmp_path) == ["a.jpg", "c.jpg"]
        add(results, "b.jpg", weights="v")
    assert images(tmp_path) == ["a.jpg", "c.jpg", "b.jpg"]


def test_a_line_whose_files_another_image_takes_is_dropped(tmp_path: Path):
    with ResultsFile(tmp_path) as results:
        add(results, "one/a.jpg")
    with ResultsFile(tmp_path) as results:
        results.forget(["two/a.jpg"], files=["a.overlay.png"])
    assert images(tmp_path) == []


def test_a_kill_while_lines_are_dropped_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with ResultsFile(tmp_path) as results:
        add(results, "a.jpg")
        add(results, "b.jpg")
    with ResultsFile(tmp_path) as results, monkeypatch.context() as patch:
        patch.setattr(atomic.os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            results.forget(["a.jpg"], files=[])
    assert images(tmp_path) == ["a.jpg", "b.jpg"]


def test_a_name_that_is_not_unicode_is_escaped(tmp_path: Path):
    with ResultsFile(tmp_path) as results:
        results.append({**identity("a\udcff.jpg"), "files": []})
    with ResultsFile(tmp_path) as results:
        assert results.holds(identity("a\udcff.jpg"), files=[])


SEGMENT = {"id": 1, "label": 0, "area": 4, "box": [0, 0, 2, 2], "score": 0.5, "track_id": None, "rle": None}
LINE = {"image": "photos/a.jpg", "labels": ["sky", "ball"], "files": ["a.instances.png"], "segments": [SEGMENT]}


@pytest.mark.parametrize(
    "line",
    [
        {**LINE, "files": 5},
        {**LINE, "files": [1]},
        {**LINE, "segments": {}},
        {**LINE, "segments": [{**SEGMENT, "box": "x"}]},
        {**LINE, "segments": [{**SEGMENT, "label": 2}]},
        {**LINE, "segments": [{**SEGMENT, "label": "sky"}]},
        {**LINE, "segments": [None]},
    ],
)
def test_a_line_of_other_types_is_none_of_ours(tmp_path: Path, line: dict):
    (tmp_path / "results.jsonl").write_text(json.dumps({**identity("a.jpg"), **line, "image": "a.jpg"}) + "\n")
    with ResultsFile(tmp_path) as results:
        assert not results.holds(identity("a.jpg"), files=[])
        assert list(results.coco_entries(LabelSet.from_names("set", ["sky", "ball"]))) == []


@pytest.mark.parametrize("content", [b'{"image": "\xed\xa0\x80"}\n', b"\xff\xfe\n", b"[" * 50_000 + b"\n"])
def test_bytes_that_are_no_line_are_none(tmp_path: Path, content: bytes):
    (tmp_path / "results.jsonl").write_bytes(content)
    with ResultsFile(tmp_path) as results:
        add(results, "a.jpg")
        results.forget([], files=[])
    assert images(tmp_path) == ["a.jpg"]
    (tmp_path / "results.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=r"results.jsonl: line 1: .*expected a line of `pixelwise predict`"):
        read_image_lines(tmp_path / "results.jsonl")


def test_entries_are_of_lines_with_the_same_classes(tmp_path: Path):
    labels = LabelSet.from_names("set", ["sky", "ball"])
    with ResultsFile(tmp_path) as results:
        results.append({**identity("a.jpg"), **LINE, "image": "a.jpg"})
        results.append({**identity("b.jpg"), **LINE, "image": "b.jpg", "labels": ["grass"], "files": []})
        found = list(results.coco_entries(labels))
    assert found == [{"image_id": "a.jpg", "category_id": 0, "bbox": [0, 0, 2, 2], "score": 0.5}]


def test_lines_of_images_are_read_by_the_names_of_their_results(tmp_path: Path):
    path = tmp_path / "results.jsonl"
    again = {**LINE, "segments": [SEGMENT, {**SEGMENT, "label": 1}]}
    path.write_text("".join(f"{json.dumps(line)}\n" for line in (LINE, again)) + '{"image": "cut sh')
    stored = read_image_lines(path)
    assert stored.names == ["sky", "ball"]
    assert list(stored.lines) == ["a"]
    assert stored.lines["a"].classes == {0, 1}
    assert [one.label for one in stored.lines["a"].segments()] == [0, 1]
    path.write_text(f"{json.dumps(LINE)}\n{json.dumps({**LINE, 'labels': ['ball']})}\n")
    with pytest.raises(DataError, match="line 2 has other labels than those before"):
        read_image_lines(path)
    path.write_text(f"{json.dumps({**LINE, 'segments': [{**SEGMENT, 'score': 'high'}]})}\n")
    with pytest.raises(DataError, match=r"results.jsonl: line 1: segments\.0\.score is 'high'"):
        read_image_lines(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_json_does_not_have_is_never_written(tmp_path: Path, value: float):
    with ResultsFile(tmp_path) as results:
        with pytest.raises(DataError, match="NaN or infinite"):
            results.append({**identity("a.jpg"), "segments": [{"score": value}], "files": []})
        add(results, "b.jpg")
    assert images(tmp_path) == ["b.jpg"]
