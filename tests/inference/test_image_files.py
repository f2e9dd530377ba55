import os
from pathlib import Path

import pytest

from pixelwise.errors import DataError
from pixelwise.inference.images.find import find_image_files


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in (
        "photos/b.jpg", "photos/a.PNG", "photos/sub/c.jpg", "photos/sub/notes.txt", "photos/.hidden.jpg",
        "photos/.git/d.jpg", "photos/sub/deep er/größe.jpg", "other/b.jpg", "photos/out/b.overlay.png",
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def found(*inputs: str, out: str = "out") -> list[tuple[str, str]]:
    return [(image.path.as_posix(), image.stem.as_posix()) for image in find_image_files(inputs, out=Path(out))]


def test_folders_are_searched_and_keep_their_sub_folders(tree: Path):
    assert found("photos/", out="photos/out") == [
        ("photos/a.PNG", "a"),
        ("photos/b.jpg", "b"),
        ("photos/sub/c.jpg", "sub/c"),
        ("photos/sub/deep er/größe.jpg", "sub/deep er/größe"),
    ]


def test_results_are_never_inputs(tree: Path):
    everything = {"photos/a.PNG", "photos/b.jpg", "photos/sub/c.jpg", "photos/sub/deep er/größe.jpg"}
    (tree / "photos" / "b.overlay.png").write_bytes(b"x")
    (tree / "photos" / "b.semantic.png").write_bytes(b"x")
    for out in ("out", "photos", "photos/out", str(tree / "photos" / "out"), "photos/sub"):
        assert {path for path, _ in found("photos", out=out)} == everything
        assert {path for path, _ in found("photos/**/*", out=out)} == everything
    named = ("photos/b.jpg", "photos/b.overlay.png")
    assert {path for path, _ in found(*named, out="photos")} == {"photos/b.jpg"}
    assert {path for path, _ in found(*named, out="out")} == set(named)


def test_an_input_inside_the_folder_of_results(tree: Path):
    assert found("photos/sub", out="photos")[0] == ("photos/sub/c.jpg", "c")


def test_patterns(tree: Path):
    assert found("photos/*") [:2] == [("photos/a.PNG", "a"), ("photos/b.jpg", "b")]  # fmt: skip
    assert ("photos/sub/c.jpg", "sub/c") in found("photos/*")
    assert found("photos/s?b/[cd].jpg") == [("photos/sub/c.jpg", "sub/c")]
    assert found("ph*/sub/*.jpg") == [("photos/sub/c.jpg", "photos/sub/c")]
    assert ("photos/sub/deep er/größe.jpg", "sub/deep er/größe") in found("photos/**/*.jpg")


def test_a_file_whose_name_looks_like_a_pattern(tree: Path):
    (tree / "photo[1].jpg").write_bytes(b"x")
    assert found("photo[1].jpg") == [("photo[1].jpg", "photo[1]")]


def test_a_file_is_taken_whatever_its_suffix_and_once(tree: Path):
    assert found("photos/sub/notes.txt", "./photos/sub/notes.txt", "photos/sub/../sub/notes.txt") == [
        ("photos/sub/notes.txt", "notes")
    ]
    assert [path for path, _ in found("photos/b.jpg", "photos")].count("photos/b.jpg") == 1


def test_stems_that_collide_keep_their_suffix(tree: Path):
    for name in ("a.jpg", "a.png.jpg", "c.v2.jpg", "c.v2.png"):
        (tree / "photos" / name).write_bytes(b"x")
    stems = dict(found("photos", out="photos/out"))
    assert stems["photos/a.jpg"] == "a.jpg"
    assert stems["photos/a.PNG"] == "a.PNG"
    assert stems["photos/a.png.jpg"] == "a.png.jpg"
    assert stems["photos/c.v2.jpg"] == "c.v2.jpg"
    assert stems["photos/b.jpg"] == "b"
    assert len(set(stems.values())) == len(stems)


def test_stems_that_differ_by_capitals_alone_keep_their_suffix(tree: Path):
    (tree / "photos" / "B.png").write_bytes(b"x")
    stems = dict(found("photos", out="photos/out"))
    assert (stems["photos/b.jpg"], stems["photos/B.png"]) == ("b.jpg", "B.png")


def test_equal_names_of_several_inputs_keep_the_folders_above(tree: Path):
    stems = dict(found("photos", "other", "photos/sub", out="elsewhere"))
    assert stems["photos/b.jpg"] == "photos/b"
    assert stems["other/b.jpg"] == "other/b"
    assert stems["photos/sub/c.jpg"] == "sub/c"
    stems = dict(found("photos/b.jpg", "other/b.jpg"))
    assert stems == {"photos/b.jpg": "photos/b", "other/b.jpg": "other/b"}


@pytest.mark.parametrize("text", ["nothing.jpg", "nothing/", "nothing/*.jpg", "photos/sub/notes.tx?"])
def test_what_is_not_there_is_one_line(tree: Path, text: str):
    with pytest.raises(DataError) as error:
        found(text)
    assert str(Path(text)) in str(error.value)
    assert "\n" not in str(error.value)


def test_one_missing_input_among_others_stops(tree: Path):
    with pytest.raises(DataError, match=r"nothing\.jpg: no such file"):
        found("photos", "nothing.jpg")


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_folder_that_links_to_itself_ends(tree: Path):
    (tree / "photos" / "loop").symlink_to(tree / "photos")
    assert len(found("photos", out="photos/out")) == 4
