"""`pixelwise compare`: models side by side on the same data."""

from __future__ import annotations

import csv
import io
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pixelwise.cli.evaluation import evaluate_images, heading, print_failures
from pixelwise.cli.options import (
    DefinitionOption,
    Device,
    DeviceOption,
    JsonOption,
    MapOption,
    QuietOption,
    WorkersOption,
)
from pixelwise.cli.terminal import cell, print
from pixelwise.errors import DataError, RecipeError
from pixelwise.files.atomic import require_writable, write_file

if TYPE_CHECKING:
    from pixelwise.evaluation.comparison import ComparedModel, Comparison

TABLES = (".md", ".json", ".csv")


def compare(
    models: Annotated[list[str], typer.Argument(metavar="MODEL", help="Shipped names, model folders or run folders.")],
    *,
    data: Annotated[
        list[str],
        typer.Option(
            "--data",
            metavar="SPEC",
            help="FORMAT:PATH[@SPLIT][?option=value], val by default; may be given several times.",
        ),
    ],
    label_map: MapOption = None,
    definition: DefinitionOption = None,
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, help="Number of timed passes of each model over each image.")
    ] = 5,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the table as .md, .json or .csv.")
    ] = None,
    device: DeviceOption = Device.auto,
    workers: WorkersOption = 2,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> int:
    """Compare models: mean IoU, parameters, operations, latency and memory, each at its own input size.

    Latency is the median over some images; the models take turns. Exit code 1 if an image could not be evaluated.
    """
    started = time.perf_counter()
    if out is not None:
        _require_writable(out)
    from pixelwise.evaluation.comparison import Comparison
    from pixelwise.evaluation.comparison import compare as measure
    from pixelwise.evaluation.subject import model_subject

    subjects = [model_subject(name, data, label_map, device=device.value) for name in models]
    metrics = [subject.new_metric(definition) for subject in subjects]
    definitions = {metric.definition for metric in metrics}
    if len(definitions) > 1:
        raise RecipeError(
            f"the models' classes are evaluated by different definitions ({', '.join(sorted(definitions))}); "
            "choose one by --definition"
        )
    if not quiet:
        for line in dict.fromkeys(line for subject in subjects for line in subject.notes):
            print(line, file=sys.stderr)

    hidden = quiet or as_json
    failures: dict[str, None] = {}
    for subject, metric in zip(subjects, metrics, strict=True):
        failures |= dict.fromkeys(evaluate_images(subject, metric, subject.indices, workers=workers, hidden=hidden))
    comparison: Comparison | None = None
    for event in measure(subjects, metrics, repeats=repeats, started=started):
        if isinstance(event, Comparison):
            comparison = event
        elif not hidden and sys.stderr.isatty():
            print(f"measuring {event} …", file=sys.stderr)
    assert comparison is not None
    if as_json:
        print(json.dumps(comparison.to_json(), ensure_ascii=False), whole=True)
    else:
        _print_table(comparison)
    if out is not None:
        _write(out, comparison)
    print_failures(tuple(failures), len(subjects[0].indices))
    return 1 if failures else 0


def _cells(row: ComparedModel) -> dict[str, str]:
    """A model's row of the table, by heading."""
    return {
        "model": row.model,
        "system": row.system,
        **{heading(name): _shown(value, "{:.4f}") for name, value in row.metrics.items()},
        "classes": str(row.classes),
        "parameters": f"{row.parameters / 1e6:,.2f} M",
        "GFLOPs": f"{row.gflops:,.2f}",
        "latency": f"{row.latency_ms:,.1f} ms",
        "peak memory": _shown(row.peak_memory_mib, "{:,.0f} MiB"),
        "input size": str(row.input_size),
    }


def _notes(comparison: Comparison) -> list[str]:
    """Notes on the numbers, one line each."""
    from pixelwise.metrics.choice import DEFINITIONS

    where = comparison.device
    if where == "cpu":
        memory = "growth of resident memory from loaded libraries to its peak"
        where += f", {comparison.threads} thread{'s' if comparison.threads != 1 else ''}"
    else:
        memory = "most that torch had allocated on the GPU"
    lines = [
        f"{comparison.data}: {comparison.images:,} images; {DEFINITIONS[comparison.definition]}",
        f"latency: median of {comparison.repeats} × {comparison.timed_images} predictions on {where}; the models take "
        "turns over the same images, after an untimed first round; from pixels in memory to the annotation, one image "
        "at a time",
        "GFLOPs: of the network for one of these images, on average; 1 multiply-add = 2 FLOPs; convolutions and matrix "
        "products",
        f"peak memory: {memory}, in a process for each model, over the same images; 1 MiB = 2^20 bytes",
        "input size: of the images, each model's own: the long side in pixels, or as --input-size takes it",
    ]
    if len({row.classes for row in comparison.models}) > 1:
        lines.append("the models have different classes, so their means are over different classes")
    return lines


def _print_table(comparison: Comparison) -> None:
    from rich.console import Console
    from rich.table import Table

    # as wide as the table: rich would cut its columns to the terminal
    console = Console(width=1000, highlight=False, markup=False, emoji=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    rows = [_cells(row) for row in comparison.models]
    for number, column in enumerate(rows[0]):
        table.add_column(column, justify="left" if number < 2 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(cell, row.values()))
    console.print(table)
    for line in _notes(comparison):
        print(line)


def _require_writable(path: Path) -> None:
    if path.suffix.lower() not in TABLES:
        raise RecipeError(f"--out {path}: expected a file name that ends with {', '.join(TABLES)}")
    if path.is_dir():
        raise DataError(f"{path}: is a folder; expected the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        require_writable(path)
    except OSError as error:
        raise _unwritable(path, error) from None


def _write(path: Path, comparison: Comparison) -> None:
    text = {".md": _markdown, ".json": _json_text, ".csv": _csv_text}[path.suffix.lower()](comparison)
    try:
        write_file(path, text)
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be written ({error.strerror or error}); choose another --out")


def _json_text(comparison: Comparison) -> str:
    return json.dumps(comparison.to_json(), indent=2, ensure_ascii=False) + "\n"


def _csv_text(comparison: Comparison) -> str:
    rows: list[dict[str, Any]] = comparison.to_json()["models"]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _markdown(comparison: Comparison) -> str:
    rows = [_cells(row) for row in comparison.models]
    lines = [list(rows[0]), ["---", "---", *["---:"] * (len(rows[0]) - 2)], *(list(row.values()) for row in rows)]
    table = "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
    return table + "\n" + "".join(f"- {line}\n" for line in _notes(comparison))


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
