"""Systems of other packages, found by their entry points."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pixelwise.errors import CheckpointError
from pixelwise.inference.model_folder import ModelCard, read_model, write_model
from pixelwise.inference.systems import system_module, system_names
from pixelwise.labels import LabelSet
from tests.plugin_packages import install_package

SYSTEM = """
from torch import nn
from pixelwise.contracts import Recipe, Stage, Traits
TASK, TRAITS, VARIANTS, RECIPE, RECIPES = "semantic", Traits(), {}, Recipe(stages=(Stage(),)), {}
def build(*, num_classes, width=3):
    return nn.Conv2d(3, num_classes, width)
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages."""
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def test_a_system_of_another_package_is_named_after_those_that_ship_and_built(site: Path) -> None:
    install_package(site, "tiny", {"aaa_tiny": "tiny_module"}, tiny_module=SYSTEM)
    assert system_names()[-1] == "aaa_tiny"
    assert system_module("aaa_tiny").build(num_classes=4).weight.shape == (4, 3, 3, 3)


def test_its_model_folder_is_read_while_it_is_installed_and_names_it_afterwards(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_package(site, "tiny", {"tiny": "tiny_module"}, tiny_module=SYSTEM)
    card = ModelCard(
        task="semantic", system="tiny", labels=LabelSet.from_names("two", ["a", "b"]), arguments={"width": 1}
    )
    write_model(tmp_path / "model", system_module("tiny").build(num_classes=2, width=1).state_dict(), card)
    network, _ = read_model(tmp_path / "model")
    assert network.state_dict()["weight"].shape == (2, 3, 1, 1)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"no system 'tiny'.*install that package"):
        read_model(tmp_path / "model")


def test_a_file_under_models_goes_before_an_entry_point_of_its_name(site: Path) -> None:
    install_package(site, "tiny", {"pspnet": "tiny_module"}, tiny_module=SYSTEM)
    assert system_names().count("pspnet") == 1
    assert system_module("pspnet").__name__ == "pixelwise.models.pspnet"


def test_two_packages_with_one_name_are_both_named(site: Path) -> None:
    for name in ("one", "other"):
        install_package(site, name, {"tiny": f"{name}_module"}, **{f"{name}_module": SYSTEM})
    with pytest.raises(CheckpointError, match=r"of one \(one_module\) and .*of other \(other_module\): one name twice"):
        system_module("tiny")


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("import nowhere_to_be_found", "cannot be imported .*nowhere_to_be_found"),
        ("raise RuntimeError('too early')", "cannot be imported .*too early"),
        ("TASK, VARIANTS = 'semantic', {}", "has no TRAITS, RECIPE, RECIPES, build; expected TASK, TRAITS, "),
    ],
)
def test_a_package_that_is_broken_is_named_with_its_fault(site: Path, source: str, fault: str) -> None:
    install_package(site, "broken", {"tiny": "broken_module"}, broken_module=source)
    with pytest.raises(CheckpointError, match=rf"system 'tiny' of broken \(broken_module\) {fault}"):
        system_module("tiny")
