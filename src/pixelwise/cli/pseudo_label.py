"""`pixelwise pseudo-label`: a model labels photographs, and what it is sure of becomes a data set."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pixelwise.cli.options import Device, DeviceOption, InputSizeOption, JsonOption, QuietOption, TileOption, TtaOption
from pixelwise.cli.progress import image_bar
from pixelwise.cli.terminal import print

if TYPE_CHECKING:
    from pixelwise.inference.pseudo_labels import Labelled


def pseudo_label(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A shipped name, a model folder or a run folder.")],
    *,
    data: Annotated[
        str,
        typer.Option("--data", help="FORMAT:PATH[@SPLIT], whose masks are not read, or a folder or pattern of images."),
    ],
    out: Annotated[
        str, typer.Option("--out", metavar="FOLDER", help="The set to write: a folder, or masks:FOLDER or voc:FOLDER.")
    ],
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            "--threshold",
            help="Smallest confidence of a pixel, or CLASS=CONFIDENCE for one class; may be repeated. Default 0.8.",
        ),
    ] = None,
    tags: Annotated[
        Path | None,
        typer.Option("--tags", metavar="FILE", help="JSON: image → list of its classes; only these are labelled."),
    ] = None,
    input_size: InputSizeOption = None,
    tile: TileOption = False,
    tta: TtaOption = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a set that another job made.")] = False,
    device: DeviceOption = Device.auto,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> int:
    """Label images with a trained model, to train another one on them.

    Pixels of a lower confidence than the threshold of their class become void. Where the set has tags (VOC's
    ImageSets/Main, a tags.json in the folder, or --tags) an image gets their classes and background alone. The folder
    is a set for train --data, with the confidence of each pixel in confidence/. A run that is started again labels only
    what is not done.
    """
    from pixelwise.inference.load import load, weights_digest
    from pixelwise.inference.predictor import Options
    from pixelwise.inference.pseudo_labels import (
        Job,
        find_unlabelled,
        make_writer,
        read_tags,
        read_thresholds,
        require_known,
        summary,
    )
    from pixelwise.inference.pseudo_labels import pseudo_label as label

    predictor = load(model, device=device.value)
    root, writer = make_writer(out, predictor.labels)
    thresholds = read_thresholds(threshold or [], predictor.labels)
    images, known = find_unlabelled(data, out=root)
    if tags is not None:
        known = read_tags(tags)
    require_known(known, predictor.labels, images, source=str(tags or data))
    options = Options(input_size=input_size, tile=tile, tta=tta)
    job = Job(predictor, weights_digest(model), options, thresholds, known, root, writer)
    outcomes: list[Labelled] = []
    with image_bar(data, len(images), hidden=quiet or as_json) as advance:
        for outcome in label(images, job, overwrite=overwrite):
            outcomes.append(outcome)
            advance(1)
    counts = summary(outcomes, predictor.labels)
    for failure in counts["failures"]:
        print(f"{failure}; skipped", file=sys.stderr)
    if as_json:
        print(json.dumps({"out": f"{writer.format}:{root}", **counts}, ensure_ascii=False), whole=True)
    elif not quiet:
        void = counts["void_share"]
        before = f", {counts['done_before']:,} of them before" if counts["done_before"] else ""
        print(
            f"{writer.format}:{root}: {counts['images']:,} images labelled{before}"
            + ("" if void is None else f"; {void:.1%} of the pixels are void")
        )
        found = [f"{name} {number:,}" for name, number in counts["images_per_class"].items() if number]
        if found:
            print(f"images of each class: {', '.join(found)}")
    return 1 if counts["failures"] else 0
