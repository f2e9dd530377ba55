"""Build the documentation: fill in what the code knows, then make the site with Zensical, strictly and offline.

    python tools/build_docs.py [--pages]

The pages of docs/ are copied to build/docs; a line `<!-- generated: NAME -->` becomes what `GENERATED[NAME]` returns.
The site is written to build/site; `--pages` stops before it.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import typer

from pixelwise.contracts import SystemFile

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "build" / "docs"
MARKER = re.compile(r"^<!-- generated: (\w+) -->$", flags=re.MULTILINE)


def formats() -> str:
    """A section for each format: what its module says, and its options."""
    from pixelwise.data.spec import format_named, format_names

    sections = []
    for name in format_names():
        module = importlib.import_module(f"pixelwise.data.formats.{name.replace('-', '_')}")
        rows = [(f"`?{option}=`", _text(meaning)) for option, meaning in format_named(name).options.items()]
        options = _table(("option", "meaning"), rows) if rows else "It has no options."
        sections.append(f"## {name}\n\n{_text(_told(module))}\n\n{options}")
    return "\n\n".join(sections)


def definitions() -> str:
    """What each definition of a metric says."""
    from pixelwise.metrics.choice import DEFINITIONS

    return _table(("`--definition`", "what it is"), [(f"`{name}`", text) for name, text in DEFINITIONS.items()])


def importers() -> str:
    """The families of foreign weights and their architectures."""
    from pixelwise import importers as package

    sections = []
    for path in sorted(Path(package.__path__[0]).glob("[a-z]*.py")):
        module = importlib.import_module(f"{package.__name__}.{path.stem}")
        if path.stem in ("foreign", "backbones"):
            continue
        known = ", ".join(f"`{name}`" for name in getattr(module, "NETWORKS", {}))
        sections.append(f"### {path.stem}\n\n{_text(inspect.getdoc(module))}\n\n{known}")
    return "\n\n".join(sections)


def commands() -> str:
    """Every command with its arguments and options."""
    from pixelwise.cli.app import app

    group = typer.main.get_command(app)
    return "\n\n".join(_command("pixelwise", group))


def models() -> str:
    """A section for each system: paper, variants, and the recipe beside the paper's numbers."""
    from pixelwise.inference.systems import system_module, system_names

    costs = _costs()
    by_task: dict[str, list[str]] = {}
    for name in system_names():
        by_task.setdefault(system_module(name).TASK, []).append(name)
    order = ("semantic", "instance", "panoptic")
    sections = []
    for task in sorted(by_task, key=lambda task: order.index(task) if task in order else len(order)):
        sections.append(f"## {task.capitalize()} segmentation")
        sections += [_system(name, system_module(name), costs) for name in by_task[task]]
    return "\n\n".join(sections)


def pictures() -> str:
    """What the weights that ship predict on photographs of scikit-image."""
    import skimage

    import pixelwise

    photographs = Path(skimage.__file__).parent / "data"
    lines = []
    for task in ("semantic", "instance"):
        predictor = pixelwise.load("default", task=task)
        for name in ("astronaut.png", "chelsea.png", "motorcycle_left.png"):
            target = PAGES / "images" / f"{predictor.name}_{Path(name).stem}.jpg"
            target.parent.mkdir(exist_ok=True)
            picture = predictor(photographs / name).draw(legend=False)
            picture.thumbnail((480, 360))
            picture.save(target, quality=85)
            lines.append(f"![{predictor.name} on {name}](images/{target.name}){{ width=32% }}")
    return " ".join(lines)


def benchmarks() -> str:
    """What the benchmarks wrote."""
    sections = []
    for file in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        entries = json.loads(file.read_text("utf-8"))
        if not isinstance(entries, list):  # the costs of systems, which the model zoo has
            continue
        script = ast.parse((ROOT / "benchmarks" / f"{file.stem}.py").read_text("utf-8"))
        title = (ast.get_docstring(script) or file.stem).partition("\n")[0]
        rows = [(entry["what"], entry["result"]) for entry in entries]
        origins = {f"`{entry['command']}`, {entry['date']}, {entry['machine']}": None for entry in entries}
        told = "\n".join(f"- {origin}" for origin in origins)
        sections.append(f"## {file.stem}\n\n{title}\n\n{_table(('what', 'result'), rows)}\n\n{told}")
    return "\n\n".join(sections)


def architecture() -> str:
    """ARCHITECTURE.md, without its title."""
    return (ROOT / "ARCHITECTURE.md").read_text("utf-8").partition("\n")[2].strip()


GENERATED: Mapping[str, Callable[[], str]] = {
    function.__name__: function
    for function in (formats, definitions, importers, commands, models, pictures, benchmarks, architecture)
}


def main() -> int:
    """Write the pages, then the site."""
    shutil.rmtree(PAGES, ignore_errors=True)
    shutil.copytree(ROOT / "docs", PAGES)
    for page in sorted(PAGES.glob("*.md")):
        text = page.read_text("utf-8")
        page.write_text(MARKER.sub(lambda found: GENERATED[found[1]](), text), encoding="utf-8")
    if "--pages" in sys.argv:
        return 0
    shutil.rmtree(ROOT / "build" / "site", ignore_errors=True)
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "-f", str(ROOT / "mkdocs.yml")]
    return subprocess.call(command, cwd=ROOT)


def _told(module: ModuleType) -> str:
    """The docstring of a format: of a package that says little, that of its reader."""
    told = inspect.getdoc(module) or ""
    if "\n\n" in told or not hasattr(module, "__path__"):
        return told
    return inspect.getdoc(importlib.import_module(f"{module.__name__}.reader")) or told


def _text(docstring: str | None) -> str:
    """A docstring as Markdown: what its prose has of Markdown's signs is escaped; drawings, indented, stay."""
    lines: list[str] = []
    for line in (docstring or "").strip().split("\n"):
        if line.startswith("- ") and lines and lines[-1] and not lines[-1].startswith(("- ", "  ")):
            lines.append("")  # a list begins after an empty line
        lines.append(line if line.startswith("    ") else _escaped(line))
    return "\n".join(lines)


def _escaped(line: str) -> str:
    parts = re.split(r"(`[^`]+`)", line)
    return "".join(
        part if part.startswith("`") else re.sub(r"([\[\]*|])", r"\\\1", part).replace("<", "&lt;") for part in parts
    )


def _costs() -> Mapping[str, Mapping[str, Any]]:
    return json.loads((ROOT / "benchmarks" / "results" / "costs.json").read_text("utf-8"))


def _system(name: str, module: SystemFile, costs: Mapping[str, Mapping[str, Any]]) -> str:
    head, _, rest = (inspect.getdoc(module) or "").partition("\n\n")
    rows = []
    for variant, arguments in module.VARIANTS.items():
        cost = costs.get(variant, {})
        told = ", ".join(f"{key} {_value(value)}" for key, value in arguments.items())
        million = f"{cost['parameters'] / 1e6:.1f} M" if cost else "–"
        rows.append((f"`{variant}`", told, million, f"{cost['gflops']:,.0f}" if cost else "–"))
    variants = _table(("variant", "arguments", "parameters", "GFLOPs"), rows)
    recipe = _table(("`--set`", "here", "paper"), list(_recipe(name)))
    details = f'??? note "Recipe of {name}, beside the paper\'s"\n\n{_indented(recipe)}'
    if module.PUBLISHED:
        details += f"\n\n`--recipe` takes {', '.join(f'`{recipe}`' for recipe in module.PUBLISHED)}."
    return f"### {name}\n\n{_text(head)}\n\n{_text(rest)}\n\n{variants}\n\n{details}"


def _recipe(name: str) -> Iterator[tuple[str, str, str]]:
    from pixelwise.cli.models import recipe_rows

    for row in recipe_rows(name):
        yield f"`{row['--set']}`", _value(row["here"]), str(row["paper"])


def _value(value: Any) -> str:
    return json.dumps(value) if isinstance(value, list | tuple | bool) else str(value)


def _command(name: str, command: Any) -> Iterator[str]:
    context = typer.Context(command, info_name=name)
    if hasattr(command, "commands"):
        for part, one in command.commands.items():
            yield from _command(f"{name} {part}", one)
        return
    records = (parameter.get_help_record(context) for parameter in command.params)
    rows = [(f"`{names}`", _text(told)) for names, told in filter(None, records)]
    usage = " ".join(command.collect_usage_pieces(context))
    told = inspect.cleandoc(command.help or "").replace("\f", "")
    table = _table(("argument or option", "meaning"), rows)
    yield f"## {name}\n\n```text\n{name} {usage}\n```\n\n{_text(told)}\n\n{table}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(_cell(str(cell)) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split())


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.splitlines())


if __name__ == "__main__":
    sys.exit(main())
