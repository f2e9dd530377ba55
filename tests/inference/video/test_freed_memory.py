"""Freed memory goes back to the kernel."""

import sys
from pathlib import Path

import pytest

from pixelwise.inference.video.freed_memory import give_back_freed_memory


def resident_bytes() -> int:
    status = Path("/proc/self/status").read_text("ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc")
def test_freed_memory_is_given_back():
    """Blocks too small to be mapped one by one, of which the last keeps the heap from shrinking by itself."""
    blocks = [bytes([1]) * 100_000 for _ in range(1000)]
    full = resident_bytes()
    last = blocks.pop()
    del blocks
    kept = resident_bytes()
    if not give_back_freed_memory():
        pytest.skip("another C library")
    assert full - resident_bytes() > 80_000_000
    assert kept - resident_bytes() > 40_000_000, "nothing was left to give back, and the test shows nothing"
    assert last[0] == 1


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not give_back_freed_memory()
