"""A kill at any moment leaves the old file or folder, or the new one, complete."""

import shutil
from pathlib import Path

import pytest

from pixelwise.files import atomic as folder_swap
from pixelwise.files.atomic import current_folder, recover_folder, replace_folder, require_writable, write_file


class Killed(BaseException):
    pass


def fill_with(text: str):
    def fill(folder: Path) -> None:
        (folder / "a.txt").write_text(text)
        (folder / "sub").mkdir()
        (folder / "sub" / "b.txt").write_text(text)

    return fill


def content(folder: Path) -> str:
    a, b = (folder / "a.txt").read_text(), (folder / "sub" / "b.txt").read_text()
    assert a == b
    return a


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Everything that changes the disk raises from its `step`-th call on, as if the process were gone."""
    calls = [0]

    def dying(function):
        def wrapper(*args, **kwargs):
            calls[0] += 1
            if calls[0] > step:
                raise Killed
            return function(*args, **kwargs)

        return wrapper

    for owner, name in (
        (Path, "mkdir"), (Path, "rename"), (Path, "write_text"), (shutil, "rmtree"), (folder_swap, "_sync")
    ):  # fmt: skip
        monkeypatch.setattr(owner, name, dying(getattr(owner, name)))


@pytest.mark.parametrize("step", range(40))
def test_a_kill_at_any_step_leaves_one_complete_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int):
    folder = tmp_path / "best"
    replace_folder(folder, fill_with("old"))
    with monkeypatch.context() as patch:
        kill_at(patch, step)
        try:
            replace_folder(folder, fill_with("new"))
            killed = False
        except Killed:
            killed = True
    found = current_folder(folder)
    assert found is not None
    assert content(found) in ({"old", "new"} if killed else {"new"})
    before = content(found)
    recover_folder(folder)
    assert content(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    replace_folder(folder, fill_with("newest"))
    assert content(folder) == "newest"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_the_steps_above_reach_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "best"
    replace_folder(folder, fill_with("old"))
    with monkeypatch.context() as patch:
        kill_at(patch, 39)
        replace_folder(folder, fill_with("new"))
    assert content(folder) == "new"


def test_a_first_write_that_is_killed_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "best"
    with monkeypatch.context() as patch:
        kill_at(patch, 4)
        with pytest.raises(Killed):
            replace_folder(folder, fill_with("new"))
    assert current_folder(folder) is None
    replace_folder(folder, fill_with("new"))
    assert content(folder) == "new"


def test_an_error_while_filling_keeps_the_old_folder_and_leaves_no_rest(tmp_path: Path):
    folder = tmp_path / "best"
    replace_folder(folder, fill_with("old"))

    def fill(new: Path) -> None:
        (new / "a.txt").write_text("half")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        replace_folder(folder, fill)
    assert content(folder) == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize("content", ["ä\r\n", "ä\r\n".encode(), lambda new: new.write_bytes("ä\r\n".encode())])
def test_a_file_is_written_whole(tmp_path: Path, content, sync: bool):
    path = tmp_path / "a.txt"
    path.write_text("before")
    write_file(path, content, sync=sync)
    assert path.read_bytes() == "ä\r\n".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.txt"
    path.write_text("before")

    def torn(new: Path) -> None:
        new.write_text("aft")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_file(path, torn)
    with monkeypatch.context() as patch:
        patch.setattr(folder_swap.os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write_file(path, "after")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
    (tmp_path / ".a.txt.new").mkdir()
    for write in (lambda: require_writable(path), lambda: write_file(path, "after")):
        with pytest.raises(OSError, match="directory"):
            write()
    assert path.read_text() == "before"
