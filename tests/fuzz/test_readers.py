"""Whatever is wrong with a file, a command says so and ends: no traceback, hang, warning, or file where none belongs.

`PIXELWISE_FUZZ_SECONDS` is how long cases are run (120); `PIXELWISE_FUZZ_SEED` is what they are drawn from (0);
`PIXELWISE_FUZZ_CASE=TARGET:NUMBER` runs that one alone. Files of cases that fail are kept, and named.
"""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from types import FrameType

import pytest

from tests.fuzz.mutations import damage
from tests.fuzz.targets import Target, run_quietly, targets
from tests.inference.simple_models import add_systems

SECONDS = float(os.environ.get("PIXELWISE_FUZZ_SECONDS", "120"))
SEED = int(os.environ.get("PIXELWISE_FUZZ_SEED", "0"))
ONE_CASE = os.environ.get("PIXELWISE_FUZZ_CASE")
LEAST_CASES = 3
"""Of each target."""
CASE_SECONDS = 20
MORE_MEMORY = 8 * 2**30
"""Bytes that a case may take beyond what the process has: too large a number is to be refused, not tried."""


class HangError(BaseException):
    """A case takes too long."""


def test_cases_are_drawn_alike_from_one_seed(tmp_path: Path) -> None:
    contents = []
    for _ in range(2):
        path = tmp_path / "a.json"
        path.write_text('{"images": [{"id": 1, "file_name": "a.png"}]}')
        damage(path, random.Random("0 coco 3"))
        contents.append({one.name: one.read_bytes() for one in tmp_path.iterdir() if one.is_file()})
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
    assert contents[0] == contents[1]


@pytest.mark.fuzz
@pytest.mark.timeout(SECONDS + 600)
def test_no_reader_breaks(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    add_systems(monkeypatch)
    monkeypatch.setattr(sys, "argv", [])
    root = tmp_path_factory.mktemp("fuzz")
    shared, work, kept = root / "shared", root / "work", root / "failures"
    shared.mkdir()
    with _quiet():
        found = targets(shared)
        for target in found:
            work.mkdir()
            target.build(work)
            work.rename(root / f"sound {target.name}")
    print(f"\nseed {SEED}, {SECONDS:g} s over {len(found)} targets", file=sys.__stdout__)
    failures: dict[str, list[str]] = defaultdict(list)
    numbers: dict[str, int] = defaultdict(int)
    spent: dict[str, float] = defaultdict(float)
    codes: Counter[int | None] = Counter()
    end = time.monotonic() + SECONDS
    with _limited_memory(), monkeypatch.context() as patch:
        for target in _in_turn(found, numbers, spent, end):
            number, start = numbers[target.name], time.monotonic()
            numbers[target.name] += 1
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(root / f"sound {target.name}", work)
            rng = random.Random(f"{SEED} {target.name} {number}")
            damaged = _damage_some(target, work / "data", rng)
            for folder in ("out", "cwd"):
                (work / folder).mkdir()
            patch.chdir(work / "cwd")
            words = [str(word) for word in target.commands(work, rng)]
            before = _files(work)
            why, code = _run(words, work, before)
            codes[code] += 1
            spent[target.name] += time.monotonic() - start
            if why:
                place = kept / f"{target.name} {number}"
                if len(failures[why]) < 3:
                    shutil.copytree(work, place, symlinks=True)
                failures[why].append(f"{target.name}:{number} ({', '.join(damaged)})\n    pixelwise {' '.join(words)}")
    total = sum(numbers.values())
    least = min(numbers.values(), default=0)
    ends = f"exit codes {dict(codes)}, {len(failures)} kinds of failure"
    print(f"{total:,} cases, {least} of the rarest target; {ends}", file=sys.__stdout__, flush=True)
    if failures:
        kinds = sorted(failures.items(), key=lambda item: -len(item[1]))
        text = "\n".join(f"{len(cases)}× {why}\n  " + "\n  ".join(cases[:3]) for why, cases in kinds)
        pytest.fail(f"seed {SEED}, files of the cases in {kept}:\n{text}", pytrace=False)
    assert ONE_CASE or least >= LEAST_CASES, numbers


def _in_turn(found: list[Target], numbers: dict[str, int], spent: dict[str, float], end: float) -> Iterator[Target]:
    """Each a few times, then always the one that has taken the least time, until the time is over."""
    if ONE_CASE:
        name, _, number = ONE_CASE.rpartition(":")
        numbers[name] = int(number)
        yield next(target for target in found if target.name == name)
        return
    for _ in range(LEAST_CASES):
        yield from found
    while time.monotonic() < end:
        yield min(found, key=lambda target: spent[target.name])


def _damage_some(target: Target, data: Path, rng: random.Random) -> list[str]:
    damaged: list[str] = []
    for _ in range(rng.choice([1, 1, 1, 2])):
        files = [path for path in sorted(data.rglob("*")) if path.is_file() or path.is_symlink()]
        free = [path for path in files if not any(part in path.relative_to(data).as_posix() for part in target.spared)]
        texts = [path for path in free if path.suffix not in (".png", ".jpg", ".mp4")]
        pool = texts if texts and rng.random() < 0.6 else free
        if pool:
            path = rng.choice(pool)
            damaged.append(path.relative_to(data).as_posix())
            damage(path, rng)
    return damaged


def _run(words: list[str], work: Path, before: dict[str, tuple[int, int]]) -> tuple[str | None, int | None]:
    """Run a command line; gives what is wrong with how it ended, and its exit code."""
    out, err = StringIO(), StringIO()
    with (
        tempfile.TemporaryFile() as below,
        _descriptor_into(below.fileno()),
        warnings.catch_warnings(record=True) as said,
    ):
        warnings.simplefilter("always")
        try:
            with redirect_stdout(out), redirect_stderr(err), _time_limit():
                code = run_quietly(*words)
        except HangError:
            return f"no end after {CASE_SECONDS} s", None
        except BaseException as error:
            return _place_of(error), None
        finally:
            below.seek(0)
            native = below.read().decode(errors="replace")
    return _fault(code, out.getvalue(), err.getvalue(), native, said, words, work, before), code


def _fault(
    code: int,
    printed: str,
    text: str,
    native: str,
    said: list[warnings.WarningMessage],
    words: list[str],
    work: Path,
    before: dict[str, tuple[int, int]],
) -> str | None:
    """What is wrong with an exit code, stdout and stderr, and files.

    Args:
        code: the exit code.
        printed: on stdout.
        text: on stderr.
        native: what libraries wrote to the process's stderr.
        said: warnings of Python.
        words: the command line.
        work: the folder of the case.
        before: its files as they were.
    """
    if native.strip():
        return f"a library prints: {_general(native)}"
    if said:
        return f"a warning: {said[0].category.__name__}: {_general(str(said[0].message))}"
    if code not in (0, 1, 2):
        return f"exit code {code}"
    if found := re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text + printed):
        return f"{found[0]!r} is printed"
    if any(len(line) > 4100 for line in (text + printed).splitlines()):
        return "a line of more than 4,100 characters"
    if code == 2:  # notes may stand before
        last = text.rstrip("\n").rpartition("\n")[2]
        if not text.endswith("\n") or not last.startswith("pixelwise: "):
            return f"not one line: {_general(text)}"
        is_of_target = "convert" in words and "label set" in last  # which no file is to blame for
        if not is_of_target and work.name not in last and not any(Path(name).name in last for name in before):
            return f"no file is named: {_general(last)}"
    if code == 1 and not text.strip() and not printed.strip():
        return "exit code 1 without a word"
    changed = _files(work).items() ^ before.items()
    strays = {name for name, _ in changed if not name.startswith(("out/", "data/"))}
    inside = {name for name, _ in changed if name.startswith("data/")}
    if inside and not any(
        str(work / "data") in word and words[at - 1] in ("--out", "--resume") for at, word in enumerate(words)
    ):
        strays |= inside
    return f"written outside: {', '.join(sorted(strays))}" if strays else None


def _files(work: Path) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for path in work.rglob("*"):
        status = path.lstat()
        if not path.is_dir():
            found[path.relative_to(work).as_posix()] = (status.st_size, status.st_mtime_ns)
    return found


def _place_of(error: BaseException) -> str:
    """Type and text of an exception, and the last place of ours that it passed."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/src/pixelwise/" in frame.filename]
    last = ours[-1] if ours else frames[-1]
    place = f"{last.filename.rpartition('/src/')[2]}:{last.lineno} ({last.name})"
    return f"{place}: {type(error).__name__}: {_general(str(error))}"


def _general(text: str) -> str:
    """The beginning of a text without what differs from case to case."""
    return re.sub(r"0x[0-9a-f]+|\d+", "N", " ".join(text.split()))[:160]


@contextmanager
def _time_limit() -> Iterator[None]:
    def stop(_: int, __: FrameType | None) -> None:
        raise HangError

    former = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, CASE_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


@contextmanager
def _limited_memory() -> Iterator[None]:
    former = resource.getrlimit(resource.RLIMIT_AS)
    taken = (
        int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if sys.platform == "linux" else 0
    )
    if taken:
        resource.setrlimit(resource.RLIMIT_AS, (taken + MORE_MEMORY, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, former)


@contextmanager
def _descriptor_into(target: int) -> Iterator[None]:
    """What libraries write to the process's stderr goes to that descriptor."""
    former = os.dup(2)
    os.dup2(target, 2)
    try:
        yield
    finally:
        os.dup2(former, 2)
        os.close(former)


@contextmanager
def _quiet() -> Iterator[None]:
    with redirect_stdout(StringIO()):
        yield
