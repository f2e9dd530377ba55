"""Every command and snippet of the README and of docs/ runs, or says why it does not."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.docs.conftest import Shell

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OTHER_LANGUAGES = ("text", "toml")
"""What is shown and cannot be run."""


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        line: of its fence in the page, from 1.
        language: as the fence says.
        code: what is inside.
        mark: the comment in the line before it, such as `not run: needs a GPU`, or nothing.
    """

    line: int
    language: str
    code: str
    mark: str


def blocks(page: Path) -> Iterator[Block]:
    lines = iter(enumerate(page.read_text("utf-8").splitlines(), 1))
    before = ""
    for number, line in lines:
        if line.startswith("```"):
            code: list[str] = []
            for _, inner in lines:
                if inner.startswith("```"):
                    break
                code.append(inner)
            comment = re.fullmatch(r"<!-- (.+) -->", before)
            yield Block(number, line.removeprefix("```"), "\n".join(code), comment[1] if comment else "")
        before = line


def commands(code: str) -> list[str]:
    """What follows `$ `, with its continued lines."""
    return [line.removeprefix("$ ") for line in re.sub(r"\\\n\s*", "", code).splitlines() if line.startswith("$ ")]


def is_run(block: Block) -> bool:
    return block.language in ("console", "python") and not block.mark.startswith("not run: ")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_runs_or_says_why_not(page: Path) -> None:
    for block in blocks(page):
        assert block.language in ("console", "python", *OTHER_LANGUAGES), f"{page.name}:{block.line}"
        assert not block.mark or re.fullmatch(r"not run: .{10,}|plugin: \w+", block.mark), f"{page.name}:{block.line}"
        if block.language == "console":
            assert commands(block.code), f"{page.name}:{block.line}: no line begins with $"


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if any(map(is_run, blocks(page)))], ids=lambda page: page.stem)
def test_commands_and_snippets_run_in_their_order(
    page: Path, folder: Path, shell: Shell, request: pytest.FixtureRequest
) -> None:
    for made in re.findall(r"--out (runs/\w+)", page.read_text("utf-8")):
        shutil.rmtree(folder / made, ignore_errors=True)
    names: dict[str, object] = {}
    for block in filter(is_run, blocks(page)):
        if block.mark.startswith("plugin: "):
            request.getfixturevalue("plugin")
        if block.language == "python":
            exec(compile(block.code, f"{page.name}:{block.line}", "exec"), names)
            continue
        for command in commands(block.code):
            shell(command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_to_a_file_finds_it(page: Path) -> None:
    text = page.read_text("utf-8")
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


def test_the_readme_is_at_most_150_lines() -> None:
    assert len(PAGES[0].read_text("utf-8").splitlines()) <= 150
