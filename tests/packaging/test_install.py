"""The locked requirements, and what is left of them beside a CPU-only torch."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.txt", "requirements-dev.txt")


@pytest.mark.parametrize("name", LOCKS)
def test_every_requirement_is_exact_and_hashed_and_names_no_host(name: str) -> None:
    lock = (ROOT / name).read_text(encoding="utf-8")
    entries = [entry for entry in re.split(r"^(?=\S)", lock, flags=re.MULTILINE) if entry]
    assert len(entries) > 50
    assert all(re.match(r"[a-z0-9._-]+==\S+ ", entry) and "--hash=sha256:" in entry for entry in entries)
    assert "://" not in lock
    assert "index" not in lock


@pytest.mark.parametrize("name", LOCKS)
def test_without_gpu_libraries_only_those_are_missing(name: str) -> None:
    without_gpu_libraries = runpy.run_path(str(ROOT / "tools" / "install.py"))["without_gpu_libraries"]
    lock = (ROOT / name).read_text(encoding="utf-8")
    names = re.findall(r"^([a-z0-9._-]+)==", lock, flags=re.MULTILINE)
    kept = re.findall(r"^([a-z0-9._-]+)==", without_gpu_libraries(lock), flags=re.MULTILINE)
    left_out = set(names) - set(kept)
    assert {"nvidia-cublas", "triton", "cuda-toolkit"} <= left_out
    assert all(one == "triton" or one.startswith(("nvidia-", "cuda-")) for one in left_out)
    assert {"torch", "torchvision", "numpy"} <= set(kept)
    assert without_gpu_libraries(lock).count("--hash") < lock.count("--hash")
