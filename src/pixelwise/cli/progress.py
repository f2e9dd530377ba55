"""The progress bar of commands over images or frames: on stderr, and only if that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pixelwise.cli.terminal import printable


@contextmanager
def image_bar(title: str, total: int | None, *, hidden: bool, unit: str = "images") -> Iterator[Callable[[int], None]]:
    """Show the number of finished images, their rate and the time.

    Args:
        title: before the bar.
        total: number of images; None if unknown.
        hidden: show nothing, as where stderr is no terminal.
        unit: name of the items.

    Yields:
        a function that advances the bar by a number of images.
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
