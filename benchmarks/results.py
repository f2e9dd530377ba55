"""What the benchmarks measured, kept in `benchmarks/results/SCRIPT.json`, which the documentation shows.

A file holds a list of measurements, each with what was measured, the result in words, the command, the date and the
machine. A new measurement takes the place of the one with the same `what`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

FOLDER = Path(__file__).parent / "results"
OPTION = "--record"


def add_option(parser: argparse.ArgumentParser) -> None:
    """Let the script take `--record`."""
    parser.add_argument(OPTION, action="store_true", help="keep the results in benchmarks/results/, for the docs")


def report(what: str, result: str) -> None:
    """Print a result; with `--record` among the script's arguments, keep it.

    Args:
        what: what was measured, the same words in every run.
        result: the numbers, with their units.
    """
    print(f"{what}: {result}", flush=True)
    if OPTION in sys.argv:
        keep(FOLDER / f"{Path(sys.argv[0]).stem}.json", what, result, command=_command())


def keep(file: Path, what: str, result: str, *, command: str) -> None:
    """Put a measurement into a file of results."""
    entries: list[dict[str, Any]] = json.loads(file.read_text("utf-8")) if file.exists() else []
    entry = {
        "what": what,
        "result": result,
        "command": command,
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
    }
    places = [place for place, other in enumerate(entries) if other["what"] == what]
    entries = [other for other in entries if other["what"] != what]
    entries.insert(places[0] if places else len(entries), entry)
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(entries, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def machine() -> str:
    """What the numbers depend on, without the name of the machine."""
    processor = platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = (line.partition(":") for line in information.read_text("utf-8", errors="replace").splitlines())
        processor = next((value.strip() for name, _, value in lines if name.strip() == "model name"), processor)
    return f"{torch.get_num_threads()} threads, {processor}, torch {torch.__version__}"


def _command() -> str:
    arguments = [argument for argument in sys.argv[1:] if argument != OPTION]
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *arguments])
