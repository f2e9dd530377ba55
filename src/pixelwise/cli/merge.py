"""`pixelwise merge`: merge semantic and instance predictions of the same images to panoptic predictions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pixelwise.cli.options import JsonOption, QuietOption
from pixelwise.cli.progress import image_bar
from pixelwise.cli.terminal import print
from pixelwise.errors import DataError

if TYPE_CHECKING:
    from pixelwise.labels import LabelSet

NAMED = 5
"""Number of unpaired images that are named."""


def merge(
    *,
    semantic: Annotated[
        Path,
        typer.Option("--semantic", metavar="DIR", help="Results of predict with a semantic model, or masks NAME.png."),
    ],
    instances: Annotated[
        list[Path],
        typer.Option(
            "--instances",
            metavar="FILE_OR_DIR",
            help="Results of an instance model: a folder, its results.jsonl, or COCO results; may be repeated.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for results.")],
    labels: Annotated[
        str | None,
        typer.Option("--labels", help="Classes of the ids: a published set such as coco_panoptic, or a TOML file."),
    ] = None,
    score_threshold: Annotated[
        float, typer.Option("--score-threshold", min=0, max=1, help="Skip instances with a lower score.")
    ] = 0.5,
    largest_overlap: Annotated[
        float,
        typer.Option("--largest-overlap", min=0, max=1, help="Skip instances of which a larger fraction is covered."),
    ] = 0.5,
    smallest_stuff: Annotated[
        int,
        typer.Option("--smallest-stuff", min=0, help="Smallest area of a class of stuff in pixels; less becomes void."),
    ] = 4096,
    quiet: QuietOption = False,
    json_lines: JsonOption = False,
) -> int:
    """Merge instance and semantic predictions to one segment for each pixel.

    For each NAME.semantic.png (or NAME.png): NAME.panoptic.png with COCO's ids and a line in results.jsonl;
    panoptic_results.json has the segments of all. Instances are pasted by descending score, and stuff on the remaining
    pixels.
    """
    from pixelwise.inference.images.merge import find_predictions, merge_files
    from pixelwise.predictions.coco_objects import CocoResults
    from pixelwise.predictions.coco_segments import PANOPTIC_RESULTS_NAME, panoptic_head
    from pixelwise.predictions.lines import ResultsFile

    found = find_predictions(semantic, instances, labels=_labels(labels))
    failures = list(found.alone.values())
    merged = 0
    try:
        with ResultsFile(out) as results:
            with image_bar(str(semantic), len(found.names), hidden=quiet or json_lines) as advance:
                for outcome in merge_files(
                    found,
                    out,
                    results,
                    score_threshold=score_threshold,
                    largest_overlap=largest_overlap,
                    smallest_stuff=smallest_stuff,
                ):
                    merged += not outcome.failure
                    failures += [outcome.failure] if outcome.failure else []
                    if json_lines and outcome.line:
                        print(outcome.line, whole=True, flush=True)
                    advance(0 if outcome.failure else 1)
            with CocoResults(out / PANOPTIC_RESULTS_NAME, head=panoptic_head(found.labels)) as coco:
                coco.add(results.panoptic_entries(found.labels))
    except OSError as error:
        raise DataError(f"{out}: results cannot be written ({error.strerror}); choose another --out") from None
    if failures:
        print(f"{len(failures)} not merged:", file=sys.stderr)
        more = [f"and {len(failures) - NAMED} more"] if len(failures) > NAMED else []
        for failure in [*failures[:NAMED], *more]:
            print(f"  {failure}", file=sys.stderr)
    if not (quiet or json_lines):
        maps = f"{merged} segment map{'' if merged == 1 else 's'}"
        print(f"{out}/  {maps}, results.jsonl, {PANOPTIC_RESULTS_NAME}")
    return 1 if failures else 0


def _labels(name: str | None) -> LabelSet | None:
    from pixelwise.labels import LabelSet, published, published_names

    if name is None or name in published_names():
        return None if name is None else published(name)
    if not Path(name).is_file():
        raise DataError(f"--labels {name}: no such file; {', '.join(published_names())} or a TOML file")
    return LabelSet.from_toml(Path(name))
