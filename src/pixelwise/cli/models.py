"""`pixelwise models`: list all systems, or one's recipe, stage by stage, beside its paper's numbers."""

from __future__ import annotations

import json
import shutil
import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pixelwise.cli.options import JsonOption
from pixelwise.cli.terminal import cell, print

if TYPE_CHECKING:
    from pixelwise.contracts import SystemFile


def models(
    system: Annotated[
        str | None, typer.Argument(help="Show the recipe of this system or variant beside the paper's.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the systems and the weights that ship, or show one system's recipe."""
    rows = recipe_rows(system) if system else _system_rows()
    if as_json:
        print(json.dumps(rows, ensure_ascii=False), whole=True)
    elif system:
        _print_recipe(rows)
    else:
        _print_systems(rows)


def _print_systems(rows: list[dict[str, Any]]) -> None:
    width = shutil.get_terminal_size().columns
    for row in rows:
        print(f"{row['system']}  ({row['task']})")
        lines = {
            "paper": row["paper"],
            "variants": ", ".join(row["variants"]),
            "shipped weights": ", ".join(row["shipped weights"]),
        }
        for name, text in lines.items():
            if text:
                start = f"  {name}: "
                for line in textwrap.wrap(text, width, initial_indent=start, subsequent_indent=" " * 4):
                    print(line)


def _print_recipe(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*(cell(str(value)) for value in row.values()))
    Console(highlight=False).print(table)


def _system_rows() -> list[dict[str, Any]]:
    from pixelwise.inference.load import find_model, shipped_models
    from pixelwise.inference.model_folder import read_card
    from pixelwise.inference.systems import system_module, system_names

    shipped = {name: read_card(find_model(name)).system for name in shipped_models()}
    rows: list[dict[str, Any]] = []
    for name in system_names():
        module = system_module(name)
        rows.append(
            {
                "system": name,
                "task": module.TASK,
                "paper": _paper(module),
                "variants": list(module.VARIANTS),
                "shipped weights": [weights for weights, system in shipped.items() if system == name],
            }
        )
    return rows


def _paper(module: SystemFile) -> str:
    """The paper in the module's docstring: `NAME: the paper.`"""
    first = (module.__doc__ or "").split(".\n")[0]
    return " ".join(first.partition(": ")[2].split()) or " ".join(first.split())


def recipe_rows(system: str) -> list[dict[str, Any]]:
    """The numbers of a recipe, each beside the paper's."""
    from pixelwise.training.run.recipes import named_system, recipe_values

    named = named_system(system)
    values = recipe_values(named.recipe) | {f"model.{name}": value for name, value in named.arguments.items()}
    stages = {f"{stage.name}." for stage in named.recipe.stages} if len(named.recipe.stages) > 1 else set()
    rows: list[dict[str, Any]] = []
    for name, value in values.items():
        stage = next((stage for stage in stages if name.startswith(stage)), "")
        paper = named.recipe.paper.get(name, named.recipe.paper.get(name.removeprefix(stage), ""))
        rows.append({"--set": name, "here": "" if value is None else value, "paper": paper})
    return rows
