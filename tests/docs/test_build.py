"""The documentation is built from the code, strictly, and loads nothing from elsewhere."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from pixelwise.data.spec import format_names
from pixelwise.inference.systems import system_names

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "tools" / "build_docs.py"


def test_every_generated_part_has_its_place_in_one_page() -> None:
    pages = "".join(page.read_text("utf-8") for page in (ROOT / "docs").glob("*.md"))
    assert sorted(re.findall(r"generated: (\w+)", pages)) == sorted(runpy.run_path(str(BUILD))["GENERATED"])


def test_every_format_draws_its_layout() -> None:
    sections = runpy.run_path(str(BUILD))["GENERATED"]["formats"]().split("\n## ")
    assert len(sections) == len(format_names())
    assert [section.split()[0] for section in sections if "\n    PATH/" not in section or "── " not in section] == []


@pytest.mark.slow
def test_every_variant_has_its_costs_and_they_are_not_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    costs = runpy.run_path(str(ROOT / "benchmarks" / "costs.py"))
    stored = json.loads((ROOT / "benchmarks" / "results" / "costs.json").read_text("utf-8"))
    assert {variant: system for system, variant in costs["variants"]()} == {
        variant: cost["system"] for variant, cost in stored.items()
    }
    for system in system_names():
        variant = min(
            (name for name in stored if stored[name]["system"] == system), key=lambda name: stored[name]["parameters"]
        )
        assert costs["parameters"](variant) == stored[variant]["parameters"], variant


@pytest.mark.slow
def test_the_site_is_built_with_a_section_for_each_format_system_and_command_and_loads_nothing_from_elsewhere() -> None:
    pytest.importorskip("zensical")
    result = subprocess.run([sys.executable, str(BUILD)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    pages = {path.stem: path.read_text("utf-8") for path in (ROOT / "build" / "site").glob("*.html")}
    assert [name for name in format_names() if f'id="{name}"' not in pages["data"]] == []
    assert [name for name in system_names() if f'id="{name}"' not in pages["models"]] == []
    for command in ("predict", "train", "evaluate", "data-check"):
        assert f'id="pixelwise-{command}"' in pages["cli"]
    loads = re.compile(
        r"""<(?:script|img|iframe|source)[^>]+src=["']?(?:https?:)?//|<link[^>]+href=["']?(?:https?:)?//"""
    )
    assert {name: found[0] for name, text in pages.items() if (found := loads.search(text))} == {}
    assert all("generated:" not in text for text in pages.values())
