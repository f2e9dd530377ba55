"""`pixelwise data`: check, show, count and convert data sets."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from pixelwise.cli.options import JsonOption, QuietOption, WorkersOption
from pixelwise.cli.terminal import cell, print, printable
from pixelwise.errors import DataError

if TYPE_CHECKING:
    from pixelwise.data.dataset import Dataset
    from pixelwise.data.listing import Fault
    from pixelwise.data.tools.check import Report
    from pixelwise.data.tools.convert import Conversion
    from pixelwise.data.tools.repair import Repairs
    from pixelwise.data.tools.statistics import Statistics
    from pixelwise.files.parallel import Progress
    from pixelwise.types import Sample

Item = TypeVar("Item")

SHOWN_OF_A_KIND = 10
"""Number of faults of one kind that are printed for each split; --json holds them all."""

data_app = typer.Typer(help="Check, show, count and convert data sets.", no_args_is_help=True)

SpecArgument = Annotated[
    str, typer.Argument(metavar="SPEC", help="FORMAT:PATH[@SPLIT][?option=value&…], such as voc:./VOC2012@val.")
]


@data_app.command()
def check(
    spec: SpecArgument,
    *,
    fix: Annotated[
        Path | None,
        typer.Option(
            "--fix", metavar="FILE", help="Write a repaired copy: a JSON file of coco and coco-panoptic, else a folder."
        ),
    ] = None,
    workers: WorkersOption = 2,
    quiet: QuietOption = False,
    json_report: JsonOption = False,
) -> int:
    """Read every file of a data set and list all faults.

    Without @SPLIT all splits are read, and compared with each other. Exit code 1 if there are faults.
    """
    from pixelwise.data.spec import DataSpec
    from pixelwise.data.tools.check import check_dataset
    from pixelwise.data.tools.repair import repair_dataset, require_repairable

    parsed, progress = DataSpec.parse(spec), _bar(hidden=quiet or json_report)
    if fix is not None:
        require_repairable(parsed, fix)
    report = check_dataset(parsed, workers=workers, progress=progress)
    if not json_report:
        _print_report(report, notes=not quiet)
    repairs = None
    if fix is not None and report.faults():
        repairs = repair_dataset(parsed, fix, workers=workers, progress=progress)
    if json_report:
        print(json.dumps(_report_json(report) | {"repaired": _repairs_json(repairs)}, ensure_ascii=False), whole=True)
    elif repairs is not None:
        _print_repairs(repairs)
    elif fix is not None:
        print(f"{fix}: not written, there is nothing to repair")
    if repairs is not None and repairs.remaining:
        first = repairs.remaining[0]
        raise DataError(
            f"--fix {fix}: the copy still has {len(repairs.remaining):,} of the faults, such as {first.where}: "
            f"{first.text}; repair these by hand"
        )
    return 1 if report.faults() else 0


@data_app.command()
def show(
    spec: SpecArgument,
    *,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The image to write.")] = Path("sheet.png"),
    count: Annotated[int, typer.Option("--count", min=1, help="Number of images.")] = 16,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the selection of images.")] = 0,
    quiet: QuietOption = False,
) -> int:
    """Draw images with their ground truth on one sheet, with the names of the classes.

    Without @SPLIT the images are those of train, or of the first split there is.
    """
    import numpy as np

    from pixelwise.drawing.contact_sheet import contact_sheet

    _require_picture_name(out)
    dataset = _opened(spec, quiet=quiet)
    order = np.random.default_rng(seed).permutation(len(dataset))[:count]
    failures: list[str] = []
    sheet = contact_sheet(_readable(dataset, sorted(order.tolist()), failures), dataset.labels)
    try:
        sheet.save(out)
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror or error}); choose another --out") from None
    _print_failures(failures, len(order))
    print(f"{out}: {len(order) - len(failures)} of the {len(dataset):,} images of {dataset.name}")
    return 1 if failures else 0


@data_app.command()
def stats(
    spec: SpecArgument,
    *,
    workers: WorkersOption = 2,
    quiet: QuietOption = False,
    json_report: JsonOption = False,
) -> int:
    """Count images, sizes, classes, instances and colours.

    Instances are small below 32² pixels and large from 96² on, as in COCO's evaluation.

    Without @SPLIT the images are those of train, or of the first split there is.
    """
    from pixelwise.data.tools.statistics import statistics_of

    dataset = _opened(spec, quiet=quiet or json_report)
    statistics = statistics_of(dataset, workers=workers, progress=_bar(hidden=quiet or json_report))
    if json_report:
        content = {"data": dataset.name, "labels": dataset.labels.name, "note": dataset.note}
        print(json.dumps(content | statistics.to_json(), ensure_ascii=False), whole=True)
    else:
        _print_statistics(dataset, statistics)
    _print_failures(statistics.failures, len(dataset))
    return 1 if statistics.failures else 0


@data_app.command()
def convert(
    source: SpecArgument,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="The set to write, such as coco:./scans-coco.")],
    *,
    label_map: Annotated[
        str | None,
        typer.Option("--map", metavar="MAP", help="Map from the source's classes to the target's: names, or a file."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the set of that format in its place.")
    ] = False,
    workers: WorkersOption = 2,
    quiet: QuietOption = False,
    json_report: JsonOption = False,
) -> int:
    """Write a data set in another format, and print what the target cannot hold, counted.

    Without @SPLIT all splits are converted. Images are copied unchanged where the target allows their file type. TARGET
    may have options: labels=NAME_OR_FILE (all but coco and cityscapes), images, masks and suffix (masks,
    instance-masks), ids=trainIds and annotations=gtCoarse (cityscapes), encoding=2channel (coco-panoptic),
    classes=things (coco), without which each other class of an image becomes one annotation. Instances are kept in
    coco, labelme, yolo, instance-masks, voc, cityscapes and coco-panoptic; segments keep their ids in coco-panoptic.
    Clips keep their tracks in kitti-step, cityscapes-dvps, cityscapes-vps, vipseg, davis, youtube-vis and mots, and
    track ids where the target can hold them. Masks of colours are read by masks:PATH?palette=labels.
    """
    from functools import partial

    from pixelwise.data.label_maps import read_label_map
    from pixelwise.data.spec import DataSpec
    from pixelwise.data.tools.convert import convert_dataset

    conversion = convert_dataset(
        DataSpec.parse(source),
        DataSpec.parse(target),
        map_labels=None if label_map is None else partial(read_label_map, label_map),
        overwrite=overwrite,
        workers=workers,
        progress=_bar(hidden=quiet or json_report),
    )
    if json_report:
        print(json.dumps(_conversion_json(conversion), ensure_ascii=False), whole=True)
    else:
        _print_conversion(conversion, notes=not quiet)
    _print_failures(conversion.failures, sum(conversion.images.values()) + len(conversion.failures))
    return 1 if conversion.failures else 0


def _opened(text: str, *, quiet: bool) -> Dataset:
    """Open the set, and print its note on stderr."""
    from pixelwise.data.spec import DataSpec, open_dataset, splits_of

    spec = DataSpec.parse(text)
    dataset = open_dataset(spec, default_split=spec.split or splits_of(spec)[0])
    if dataset.note and not quiet:
        print(f"{dataset.name}: {dataset.note}", file=sys.stderr)
    return dataset


def _readable(dataset: Dataset, indices: Sequence[int], failures: list[str]) -> Iterator[Sample]:
    for index in indices:
        try:
            yield dataset[index]
        except DataError as error:
            failures.append(str(error))
    if len(failures) == len(indices):
        raise DataError(f"{dataset.name}: none of {len(indices)} images could be read; the first: {failures[0]}")


def _require_picture_name(path: Path) -> None:
    from PIL import Image

    if path.suffix.lower() not in Image.registered_extensions():
        raise DataError(f"{path}: expected the name of an image file, such as sheet.png")
    if not path.parent.is_dir():
        raise DataError(f"{path}: no folder {path.parent} to write it to")


def _print_failures(failures: Sequence[str], total: int) -> None:
    if failures:
        print(f"{len(failures)} of {total} failed:", file=sys.stderr)
    for failure in failures:
        print(f"  {failure}; skipped", file=sys.stderr)


def _print_report(report: Report, *, notes: bool) -> None:
    for split in report.splits:
        print(f"{split.title}: {', '.join(split.counts) or 'unusable'}")
        _print_faults(split.faults)
        _print_notes(split.notes if notes else ())
    if report.across or (notes and report.notes):
        print("between the splits:")
        _print_faults(report.across)
        _print_notes(report.notes if notes else ())
    faults = report.faults()
    kinds = len({fault.kind for fault in faults})
    print(f"{kinds} {'kind' if kinds == 1 else 'kinds'} of fault, {len(faults):,} in all" if faults else "no faults")


def _print_repairs(repairs: Repairs) -> None:
    from pixelwise.errors import count

    what = "a copy in which faults remain" if repairs.remaining else "a repaired copy"
    print(f"{repairs.path}: {what}, {count(repairs.images, 'image')}")
    for line in repairs.lines():
        print(f"  {line}")
    for spec in repairs.opens_as:
        print(f"  opens as {spec}")


def _repairs_json(repairs: Repairs | None) -> dict[str, object] | None:
    if repairs is None:
        return None
    return {
        "path": str(repairs.path),
        "images": repairs.images,
        "done": dict(repairs.done),
        "opens_as": list(repairs.opens_as),
        "remaining": [_fault_json(fault) for fault in repairs.remaining],
    }


def _print_faults(faults: Sequence[Fault]) -> None:
    """Print faults by kind, one line each, and at most some of each kind."""
    for kind in dict.fromkeys(fault.kind for fault in faults):
        same = [fault for fault in faults if fault.kind == kind]
        for fault in same[:SHOWN_OF_A_KIND]:
            print(f"  {fault.where}: {fault.text}")
        if len(same) > SHOWN_OF_A_KIND:
            print(f"  … {len(same) - SHOWN_OF_A_KIND:,} more ({kind})")


def _print_notes(notes: Sequence[str]) -> None:
    for note in notes:
        print(f"  note: {note}")


def _report_json(report: Report) -> dict[str, object]:
    from collections import Counter

    faults = report.faults()
    return {
        "data": report.name,
        "splits": [
            {
                "split": split.split,
                "title": split.title,
                "counts": list(split.counts),
                "images": len(split.ids),
                "faults": [_fault_json(fault) for fault in split.faults],
                "notes": list(split.notes),
            }
            for split in report.splits
        ],
        "between_splits": {
            "faults": [_fault_json(fault) for fault in report.across],
            "notes": list(report.notes),
        },
        "kinds": dict(Counter(fault.kind for fault in faults)),
        "faults": len(faults),
    }


def _fault_json(fault: Fault) -> dict[str, str]:
    return {"kind": fault.kind, "where": fault.where, "text": fault.text}


def _print_conversion(conversion: Conversion, *, notes: bool) -> None:
    from pixelwise.data.label_maps import describe_label_map
    from pixelwise.errors import count

    if notes and conversion.label_map is not None:
        for line in describe_label_map(conversion.label_map):
            print(line)
    splits = ", ".join(f"{split} {number:,}" for split, number in conversion.images.items())
    total = count(sum(conversion.images.values()), "image")
    print(
        f"{conversion.target}: {total} of {conversion.source}" + (f" ({splits})" if splits else "; nothing was written")
    )
    for line in conversion.lines():
        print(f"  {line}")
    _print_notes(conversion.notes if notes else ())


def _conversion_json(conversion: Conversion) -> dict[str, object]:
    return {
        "source": conversion.source,
        "target": conversion.target,
        "images": sum(conversion.images.values()),
        "splits": dict(conversion.images),
        "losses": dict(conversion.losses),
        "notes": list(conversion.notes),
        "failures": list(conversion.failures),
        "map": None if conversion.label_map is None else dict(conversion.label_map.rows()),
    }


def _print_statistics(dataset: Dataset, statistics: Statistics) -> None:
    from rich.console import Console
    from rich.table import Table

    from pixelwise.data.tools.statistics import SIZES
    from pixelwise.errors import count

    rgb = tuple(" ".join(f"{value:.4f}" for value in values) for values in (statistics.mean_rgb, statistics.std_rgb))
    counts = [
        count(statistics.images, "image"),
        count(statistics.pixels, "pixel"),
        count(len(dataset.labels), "class", "classes"),
    ]
    if statistics.clips:
        counts[:1] = [count(statistics.clips, "clip"), count(statistics.images, "frame")]
    if statistics.tracks is not None:
        counts[2:2] = [count(statistics.tracks, "track")]
    print(f"{dataset.name}: {', '.join(counts)}")
    for side, (low, median, high) in (("height", statistics.heights), ("width", statistics.widths)):
        print(f"{side}: {low:,} to {high:,}, median {median:,g}")
    print(f"colour (R G B, 0 to 1): mean {rgb[0]}, standard deviation {rgb[1]}")
    found = statistics.objects
    if found is not None:
        sizes = f"{found.small:,} small, {found.medium:,} medium, {found.large:,} large"
        crowds = f", and {count(found.crowds, 'crowd')}" if found.crowds else ""
        print(f"{count(found.objects, 'instance')} ({sizes}){crowds} in {count(found.images, 'image')}")
    more = () if found is None else ("objects", *SIZES)
    table = Table("id", "class", "share of pixels", "images", *more, box=None, pad_edge=False)
    for column in (table.columns[0], *table.columns[2:]):
        column.justify = "right"
    for index, one in enumerate(statistics.classes):
        counts = [getattr(one.objects, name) for name in more]
        table.add_row(str(index), cell(one.name), f"{one.share:.2%}", f"{one.images:,}", *(f"{n:,}" for n in counts))
    table.add_row("", "void", f"{statistics.void_share:.2%}", "")
    Console(file=sys.stdout, highlight=False, markup=False).print(table)


def _bar(*, hidden: bool) -> Progress:
    """A progress bar on stderr, if that is a terminal."""
    from pixelwise.files.parallel import silent

    if hidden or not sys.stderr.isatty():
        return silent

    def bar(items: Iterable[Item], *, total: int, what: str) -> Iterable[Item]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("images ·"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            yield from progress.track(items, total=total, description=printable(what))

    return bar
