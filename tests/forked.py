"""Processes that are forked from one that has imported everything, so that their start takes no seconds.

On Windows, where nothing is forked, they are started anew.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

PRELOADED = [
    "pixelwise.cli.app",
    "pixelwise.evaluation.evaluate",
    "pixelwise.inference.images.predict",
    "pixelwise.inference.video.predict",
    "pixelwise.models.deeplab_v3_plus",
    "pixelwise.models.fcn",
    "pixelwise.training.run.run",
]


class Forked:
    """A process that calls a function, in a group of its own, whose output is caught in files."""

    def __init__(self, target: Callable[..., None], *arguments: object, **environment: str) -> None:
        self._folder = TemporaryDirectory(prefix="forked-")
        self.out, self.err = (Path(self._folder.name) / name for name in ("out", "err"))
        server = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
        server.set_forkserver_preload(PRELOADED)
        self._process = server.Process(
            target=_run, args=(os.getcwd(), str(self.out), str(self.err), environment, target, arguments)
        )
        self._process.start()

    def poll(self) -> int | None:
        """The exit code, or minus the signal; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: int, *, to_group: bool = False) -> None:
        """To the process, or to those that it started as well; nothing, once it has ended."""
        if self.poll() is None:
            (os.killpg if to_group else os.kill)(self._process.pid, number)

    def wait_until(self, is_so: Callable[[], bool], timeout: float = 240) -> None:
        """Wait until something is so, or the process has ended."""
        deadline = time.monotonic() + timeout
        while self.poll() is None and not is_so():
            assert time.monotonic() < deadline, self.err.read_text()
            time.sleep(0.01)

    def ended(self, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """Wait for its end: exit code, what it printed and what it said of errors."""
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            self.send_signal(signal.SIGKILL, to_group=True)
            raise TimeoutError(self.err.read_text())
        return subprocess.CompletedProcess([], code, self.out.read_text(), self.err.read_text())


def start(*words: object, **environment: str) -> Forked:
    """Start a command line of pixelwise."""
    return Forked(command_line, *map(str, words), **environment)


def run(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command line of pixelwise, from start to end."""
    return start(*words, **environment).ended()


def command_line(*words: str) -> None:
    """Run a command line of pixelwise in this process."""
    from pixelwise.cli.app import main

    sys.argv = ["pixelwise", *words]
    main()


def _run(
    folder: str, out: str, err: str, environment: dict[str, str], target: Callable[..., None], arguments: tuple
) -> None:
    if os.name == "posix":
        os.setsid()
    os.chdir(folder)
    os.environ.update(environment)
    for path, number in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    try:
        target(*arguments)
    finally:
        atexit._run_exitfuncs()  # which a process of multiprocessing does not call
