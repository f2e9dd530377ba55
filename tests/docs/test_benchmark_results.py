"""What the benchmarks keep."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def results() -> dict[str, Any]:
    return runpy.run_path(str(BENCHMARKS / "results.py"))


def test_a_new_measurement_takes_the_place_of_the_old_one(results: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "results" / "speed.json"
    for what, result in (("one", "1 s"), ("two", "2 s"), ("one", "0.5 s")):
        results["keep"](file, what, result, command="python benchmarks/speed.py")
    entries = json.loads(file.read_text("utf-8"))
    assert [(entry["what"], entry["result"]) for entry in entries] == [("one", "0.5 s"), ("two", "2 s")]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", entry["date"]) for entry in entries)
    assert entries[0]["command"] == "python benchmarks/speed.py"
    assert "torch" in entries[0]["machine"]


def test_a_result_is_kept_only_where_the_script_was_asked_to(
    results: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = results["report"]
    monkeypatch.setitem(report.__globals__, "FOLDER", tmp_path)
    monkeypatch.setattr("sys.argv", ["benchmarks/speed.py", "--pairs", "3"])
    report("one", "1 s")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("sys.argv", ["benchmarks/speed.py", "--pairs", "3", "--record"])
    report("one", "1 s")
    assert json.loads((tmp_path / "speed.json").read_text("utf-8"))[0]["command"] == (
        "python benchmarks/speed.py --pairs 3"
    )
    assert capsys.readouterr().out == "one: 1 s\none: 1 s\n"


def test_every_stored_result_is_of_a_script_and_tells_command_date_and_machine() -> None:
    files = sorted((BENCHMARKS / "results").glob("*.json"))
    assert len(files) >= 9
    for file in files:
        assert (BENCHMARKS / f"{file.stem}.py").exists()
        entries = json.loads(file.read_text("utf-8"))
        for entry in entries if isinstance(entries, list) else []:
            assert set(entry) == {"what", "result", "command", "date", "machine"}
            assert entry["command"].startswith(f"python benchmarks/{file.name.replace('.json', '.py')}")
