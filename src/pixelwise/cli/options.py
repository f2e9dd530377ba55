"""Options that mean the same in every command."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Device(StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


DeviceOption = Annotated[Device, typer.Option("--device", help="Where to compute; auto takes a GPU if there is one.")]
WorkersOption = Annotated[
    int, typer.Option("--workers", min=0, help="Processes that read images; 0 reads them in this one.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="No progress and no remarks.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable results on stdout.")]
