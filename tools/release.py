"""Check what must hold before a release, then build wheel and sdist into dist/.

    python tools/release.py [--check]

The version of the package, CITATION.cff and the newest section of CHANGELOG.md agree; nothing is uncommitted; the
addresses of pyproject.toml are real. `--check` builds nothing. Publishing is left to a person.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def faults(root: Path) -> list[str]:
    """What keeps the folder of a checkout from being released, a line each."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    version = _found(r'__version__ = "(.+)"', root / "src" / "pixelwise" / "__init__.py")
    cited = _found(r"version: (\S+)", root / "CITATION.cff")
    changed = _found(r"## \[?(\d[^\]\s]*)", root / "CHANGELOG.md")
    found = [
        f"pyproject.toml: {name} is {url}; expected the address of the project"
        for name, url in project["urls"].items()
        if ".example" in url
    ]
    if cited != version:
        found.append(f"CITATION.cff: version {cited}; expected {version}, that of the package")
    if changed != version:
        found.append(f"CHANGELOG.md: the newest section is {changed}; expected {version}, that of the package")
    status = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True).stdout
    if status:
        found.append(f"git: {len(status.splitlines())} files are not committed")
    return found


def _found(pattern: str, file: Path) -> str | None:
    match = re.search(rf"^{pattern}", file.read_text("utf-8"), flags=re.MULTILINE)
    return match[1] if match else None


def main() -> int:
    """Print the faults, or build."""
    found = faults(ROOT)
    for fault in found:
        print(f"release: {fault}", file=sys.stderr)
    if found or "--check" in sys.argv:
        return int(bool(found))
    return subprocess.call(["uv", "build", "--no-build-isolation", "--clear"], cwd=ROOT)


if __name__ == "__main__":
    sys.exit(main())
