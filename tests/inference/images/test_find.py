import glob
import os
import random
import unicodedata
from pathlib import Path

import pytest

from pixelwise.errors import DataError
from pixelwise.inference.images import find
from pixelwise.inference.images.find import VIDEO_SUFFIXES, find_image_files
from pixelwise.predictions.pictures import RESULT_SUFFIXES


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
    return [(image.path.as_posix(), image.stem.as_posix()) for image in find_image_files(inputs, out=Path(out)).files]


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


def test_two_names_that_differ_by_capitals_and_a_third_stay_where_they_belong(tree: Path):
    (tree / "case").mkdir()
    for name in ("dup.png", "DUP.png", "dup.jpg"):
        (tree / "case" / name).write_bytes(b"x")
    stems = [stem for _, stem in found("case")]
    if len(stems) == 2:
        pytest.skip("the file system does not tell capitals")
    assert sorted(stems) == ["DUP.png", "dup.jpg", "dup.png"]


def test_steps_up_in_a_pattern_stay_inside(tree: Path):
    assert [stem for _, stem in found("photos/*/../../other/*.jpg")] == ["other/b"]
    assert found("other/../*/b.jpg")[0][1] == "other/b"


def test_names_of_files_that_all_images_share_are_kept_free(tree: Path):
    for name in ("set/results.jsonl/a.png", "set/Coco_Results.json/b.png", "set/results.mp4", "set/results.png"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(b"x")
    files = find_image_files(["set"], out=Path("out"), videos=True).files
    assert {file.path.as_posix(): file.stem.as_posix() for file in files} == {
        "set/results.jsonl/a.png": "results.jsonl~2/a",
        "set/Coco_Results.json/b.png": "Coco_Results.json~2/b",
        "set/results.mp4": "results.mp4",
        "set/results.png": "results.png",
    }


@pytest.mark.parametrize("seed", range(150))
def test_results_never_share_a_name_nor_leave_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int):
    """Any files, named by folders, patterns, absolute paths, links and steps up, on a file system blind to capitals."""
    rng = random.Random(seed)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    parts = [
        "a",
        "A",
        "b",
        "ä",
        "a\u0308",
        "Ä",
        "ß",
        "SS",
        "a.png",
        "a.jpg",
        "results",
        "results.jsonl",
        "a.overlay.png",
    ]
    parts += ["coco_results.json", "a~2", "a.png~2", "b.semantic.png", "new\nline", "x y", "[a]"]
    suffixes = [".png", ".jpg", ".PNG", ".png.jpg", ".mp4", ".avi", ".overlay.png", ""]
    paths: list[Path] = []
    for _ in range(rng.randrange(2, 14)):
        folder = Path(*rng.choices(["..", "one", "One", *parts], k=rng.randrange(4)))
        path = Path(os.path.normpath(tmp_path / "here" / folder / f"{rng.choice(parts)}{rng.choice(suffixes)}"))
        path = path if tmp_path in path.parents else tmp_path / path.name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        except OSError:  # a file where a folder is needed, or the reverse
            continue
        paths.append(path)
    inputs: list[str] = []
    for path in rng.sample(paths, k=min(len(paths), 5)):
        near = os.path.relpath(path)
        folders = [os.path.relpath(path.parent), str(path.parent), "..", "."]
        patterns = [f"{glob.escape(os.path.relpath(path.parent))}/*", "../*/*", "*/../*", "**/*", "*/../../*/*"]
        inputs += rng.sample([near, str(path), *folders, *patterns], k=2)
    blind = rng.random() < 0.5
    monkeypatch.setattr(find, "is_blind_to_capitals", lambda _: blind)
    out = Path(rng.choice(["out", "../out", str(tmp_path / "elsewhere" / "out")]))
    try:
        files = find_image_files(inputs, out=out, videos=True).files
    except DataError:
        return
    assert len({os.path.abspath(file.path) for file in files}) == len(files)

    def same(name: str) -> str:
        name = unicodedata.normalize("NFD", name)
        return unicodedata.normalize("NFC", name.casefold() if blind else name)

    written = [same(name) for name in ("results.jsonl", "coco_results.json", "panoptic_results.json")]
    folders = set()
    for file in files:
        stem = file.stem.as_posix()
        assert not file.stem.is_absolute()
        assert ".." not in file.stem.parts
        is_video = file.path.suffix.lower() in VIDEO_SUFFIXES
        kinds = (".overlay.mp4", ".jsonl") if is_video else RESULT_SUFFIXES
        written += [same(stem + kind) for kind in kinds]
        folders |= {same(folder.as_posix()) for folder in file.stem.parents if folder.name}
    assert len(set(written)) == len(written)
    assert not folders & set(written)


def test_files_of_other_kinds_are_counted(tree: Path):
    (tree / "photos" / "a.CR2").write_bytes(b"x")
    (tree / "photos" / "b.semantic.png").write_bytes(b"x")
    (tree / "photos" / "program.ts").write_text("Gone: number = 1;" * 20)
    (tree / "photos" / "program2.ts").write_text("export const x = 1;")
    files = find_image_files(["photos", "photos/*"], out=Path("photos/out"), videos=True)
    assert files.passed_over == {".cr2": 1, ".txt": 1, ".ts": 2}
    assert files.results == 1
    nothing = find_image_files(["photos/b.jpg"], out=Path("out"))
    assert (nothing.passed_over, nothing.results) == ({}, 0)


def test_a_folder_without_images_says_what_it_holds(tree: Path):
    (tree / "notes").mkdir()
    (tree / "notes" / "a.txt").write_text("x")
    with pytest.raises(DataError, match=r"notes: no images there.*1 file skipped by its suffix: 1 \.txt"):
        found("notes")


def test_a_transport_stream_is_a_video(tree: Path):
    (tree / "films").mkdir()
    (tree / "films" / "a.ts").write_bytes((b"G" + bytes(187)) * 3)
    (tree / "films" / "b.asf").write_bytes(b"x")
    files = find_image_files(["films"], out=Path("out"), videos=True).files
    assert [file.stem.name for file in files] == ["a", "b"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_folder_that_links_to_itself_ends(tree: Path):
    (tree / "photos" / "loop").symlink_to(tree / "photos")
    assert len(found("photos", out="photos/out")) == 4
