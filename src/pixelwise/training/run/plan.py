"""The plan of a run: recipe.json, from which it can be started again."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

import pixelwise
from pixelwise.contracts import Recipe, Stage
from pixelwise.errors import CheckpointError, first_fault
from pixelwise.files.atomic import write_file
from pixelwise.files.text import read_json
from pixelwise.training.processes import process_count


@dataclass(frozen=True)
class Plan:
    """The plan of a run; the content of recipe.json.

    Attributes:
        system: name of the file under models/.
        arguments: of its `build`, beside the number of classes.
        recipe: every number.
        data: data set specifications.
        label_map: `--map`, or None.
        init: initial weights: a file, a run or model folder, a shipped name, `torchvision`, `timm`, `pip`, or None for
            random ones.
        threads: of torch on the CPU; resuming with another number is not bit-exact.
        processes: that train on_all_ranks, each with batches of its own.
        command: that started the run.
        revision: of pixelwise.
        notes: for the user, about the data and the initial weights.
        chosen_on: ids of the validation images, where a set without splits was split.
    """

    system: str
    arguments: Mapping[str, Any]
    recipe: Recipe
    data: tuple[str, ...]
    label_map: str | None = None
    init: str | None = None
    threads: int = field(default_factory=torch.get_num_threads)
    processes: int = field(default_factory=process_count)
    command: str = ""
    revision: str = ""
    notes: tuple[str, ...] = ()
    chosen_on: tuple[str, ...] = ()

    def arguments_of(self, stage: Stage) -> dict[str, Any]:
        """Of `build` in one stage, beside the number of classes."""
        return {**self.arguments, **stage.arguments}

    @property
    def launcher(self) -> str:
        """The command that starts as many processes."""
        return f"torchrun --nproc-per-node {self.processes} -m pixelwise" if self.processes > 1 else "pixelwise"

    def write(self, folder: Path) -> None:
        """Write recipe.json whole or not at all."""
        content = {"format_version": 1, **asdict(self)}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_file(folder / "recipe.json", json.dumps(content, indent=2, ensure_ascii=False))
        except OSError as error:
            raise CheckpointError(f"{folder}: cannot be written ({error.strerror}); choose another --out") from error

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """Read recipe.json. Raises CheckpointError naming the file and the field."""
        path = folder / "recipe.json"
        if not path.exists():
            raise CheckpointError(f"{folder}: no recipe.json; --resume expects a folder that train --out made")
        content = read_json(path, expected="a recipe of pixelwise", error=CheckpointError)
        if not isinstance(content, dict) or "format_version" not in content:
            raise CheckpointError(f"{path}: not a recipe of pixelwise; an object with a format_version is expected")
        content.pop("format_version")
        try:
            return TypeAdapter(cls).validate_python(content)
        except ValidationError as error:
            raise CheckpointError(f"{path}: {first_fault(error)}") from None


def revision() -> str:
    """The version, and the commit where the package lies in a git checkout."""
    folder = Path(pixelwise.__file__).parent
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return pixelwise.__version__
    commit = answer.stdout.strip()
    return f"{pixelwise.__version__} ({commit})" if answer.returncode == 0 and commit else pixelwise.__version__
