"""Options with the same meaning in every command."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Device(StrEnum):
    """The device."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


DeviceOption = Annotated[Device, typer.Option("--device", help="Device; auto takes a GPU if there is one.")]
WorkersOption = Annotated[
    int, typer.Option("--workers", min=0, help="Processes that read images; 0 reads them in this one.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="No progress and no notes.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable results on stdout.")]


def _input_size(text: str) -> str:
    from pixelwise.errors import RecipeError
    from pixelwise.ops.resize_rule import ResizeRule

    try:
        return text if ResizeRule().changed(text) else ""
    except RecipeError as error:
        raise typer.BadParameter(str(error)) from None


InputSizeOption = Annotated[
    str | None,
    typer.Option(
        "--input-size",
        metavar="SIZE",
        parser=_input_size,
        help="Run on images of this size instead of the model's own: the long side in pixels; or short:SIDE, "
        "short:SIDE:LIMIT (of the long side), square:SIDE, none (as they are).",
    ),
]
TileOption = Annotated[bool, typer.Option("--tile", help="Run on overlapping windows at the image's own size.")]
TtaOption = Annotated[
    bool, typer.Option("--tta", help="Average over three scales and their mirror images: six passes, a little better.")
]
MapOption = Annotated[
    str | None,
    typer.Option("--map", metavar="MAP", help="Map from the data's classes to the model's: names, or a TOML file."),
]
DefinitionOption = Annotated[
    str | None,
    typer.Option(
        "--definition",
        metavar="NAME",
        help="Definition of the metric: voc, ade20k or cityscapes; coco, boundary, region, "
        "davis-unsupervised or, where predicted numbers are those of the ground truth, davis; panoptic or "
        "video-panoptic. By default the usual one of the data.",
    ),
]
