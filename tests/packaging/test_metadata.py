"""What the project says of itself agrees with itself."""

from __future__ import annotations

import re
import runpy
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import pixelwise

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_every_dependency_has_a_lower_bound_and_none_an_upper_one(project: dict[str, Any]) -> None:
    own = re.compile(r"pixelwise\[[\w,]+\]")
    extras = [one for extra in project["optional-dependencies"].values() for one in extra if not own.fullmatch(one)]
    for requirement in [*project["dependencies"], *extras]:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+(\[\w+\])?>=[\d.]+", requirement), requirement


def test_the_locked_version_of_each_dependency_keeps_its_lower_bound(project: dict[str, Any]) -> None:
    lock = (ROOT / "requirements.txt").read_text("utf-8")
    locked = dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", lock, flags=re.MULTILINE))
    for requirement in project["dependencies"]:
        name, bound = requirement.lower().split(">=")
        assert tuple(map(int, bound.split("."))) <= tuple(map(int, re.findall(r"\d+", locked[name.replace("_", "-")])))


def test_the_workflow_tries_the_oldest_and_the_newest_dependencies_on_three_systems() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text("utf-8"))
    tried = workflow["jobs"]["test"]["strategy"]["matrix"]["include"]
    assert {one["os"].split("-")[0] for one in tried} == {"ubuntu", "macos", "windows"}
    assert {one["resolution"] for one in tried} == {"lowest-direct", "highest"}


@pytest.mark.parametrize(
    "name",
    [
        "CITATION.cff",
        ".pre-commit-config.yaml",
        *(f".github/ISSUE_TEMPLATE/{part}.yml" for part in ("bug", "proposal", "config")),
    ],
)
def test_files_for_other_programs_are_yaml(name: str) -> None:
    assert isinstance(yaml.safe_load((ROOT / name).read_text("utf-8")), dict)


def test_the_citation_has_the_version_of_the_package() -> None:
    assert str(yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["version"]) == pixelwise.__version__


def test_a_release_is_refused_with_every_reason(tmp_path: Path) -> None:
    faults = runpy.run_path(str(ROOT / "tools" / "release.py"))["faults"]
    for name in ("pyproject.toml", "CITATION.cff", "CHANGELOG.md", "src/pixelwise/__init__.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    assert sum("expected the address of the project" in fault for fault in faults(tmp_path)) == 5
    for name, old, new in (
        ("pyproject.toml", ".example", ".org"),
        ("CHANGELOG.md", "## Unreleased", f"## {pixelwise.__version__} - 2026-11-28"),
    ):
        text = (tmp_path / name).read_text("utf-8")
        (tmp_path / name).write_text(text.replace(old, new), encoding="utf-8")
    assert faults(tmp_path) == []
    (tmp_path / "CITATION.cff").write_text("version: 0.0.1\n", encoding="utf-8")
    assert faults(tmp_path) == [f"CITATION.cff: version 0.0.1; expected {pixelwise.__version__}, that of the package"]
