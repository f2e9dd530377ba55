"""The same results in the same order, whoever computes them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pixelwise.files.parallel import apply


def square(number: int) -> int:
    return number * number


def process(_: int) -> int:
    return os.getpid()


@pytest.mark.parametrize("workers", [0, 2])
def test_results_come_in_order(workers: int) -> None:
    assert list(apply(square, range(20), workers=workers)) == [number * number for number in range(20)]


def test_nothing_to_do() -> None:
    assert list(apply(square, [], workers=2)) == []


def test_workers_are_other_processes() -> None:
    assert set(apply(process, range(4), workers=0)) == {os.getpid()}
    others = set(apply(process, range(40), workers=2))
    assert len(others) == 2
    assert os.getpid() not in others


def test_an_error_between_two_results_leaves_no_reader_that_the_process_waits_for() -> None:
    program = (
        "from pixelwise.files.parallel import apply\n"
        "results = apply(abs, range(100), workers=2)\n"
        "next(results)\n"
        "raise ValueError('an accident')\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.rstrip().endswith("ValueError: an accident")
