"""Command lines in a process of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = [sys.executable, "-m", "pixelwise"]


def run_apart(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def require_refusal(result: subprocess.CompletedProcess[str], text: str) -> None:
    """Exit code 2, nothing on stdout, and one line on stderr that holds `text`."""
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("pixelwise: ")
    assert result.stderr.count("\n") == 1, result.stderr
    assert text in result.stderr
