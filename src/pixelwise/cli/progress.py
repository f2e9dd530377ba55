"""The bar of commands that work through images or frames: on stderr, and only if that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pixelwise.cli.terminal import printable


@contextmanager
def image_bar(title: str, total: int | None, *, hidden: bool, unit: str = "images") -> Iterator[Callable[[int], None]]:
    """Show how many images are done, how many each second, and for how long.

    Args:
        title: stands before the bar.
        total: images to come; None where nobody knows.
        hidden: show nothing; so it is where stderr is no terminal.
        unit: what they are called.

    Yields:
        a function that moves the bar on by so many images.
    """
    if hidden or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TextColumn(
            "{task.completed:,}{task.fields[of]} {task.fields[unit]} · {task.fields[rate]:.1f} {task.fields[unit]}/s ·",
            markup=False,
        ),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        of = "" if total is None else f"/{total:,}"
        bar = progress.add_task(printable(title), total=total, rate=0.0, unit=unit, of=of)

        def advance(count: int) -> None:
            progress.advance(bar, count)
            task = progress.tasks[bar]
            progress.update(bar, rate=task.completed / max(task.elapsed or 0, 1e-3))

        yield advance
