"""Packages with entry points for `pixelwise.models`, laid into a folder as pip lays them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def install_package(site: Path, name: str, systems: Mapping[str, str], **modules: str) -> None:
    """Write the modules of a package and its dist-info.

    Args:
        site: a folder of `sys.path`.
        name: of the package.
        systems: the name of each system and the module that has it.
        modules: name and source of each.
    """
    info = site / f"{name}-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n", encoding="utf-8")
    lines = [f"{system} = {module}" for system, module in systems.items()]
    (info / "entry_points.txt").write_text("\n".join(["[pixelwise.models]", *lines, ""]), encoding="utf-8")
    for module, source in modules.items():
        (site / f"{module}.py").write_text(source, encoding="utf-8")
