"""Wheel and sdist are built, and the wheel works in an environment of its own."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src" / "pixelwise"
FILES = [path.relative_to(SOURCES.parent) for path in SOURCES.rglob("*.*") if path.suffix != ".pyc" and path.is_file()]
UV = Path(sys.executable).parent / "uv"


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The two files, by their suffix; the wheel is built from the sdist."""
    out = tmp_path_factory.mktemp("dist")
    options = ["--no-build-isolation", "--offline", "--python", sys.executable, "-o", str(out)]
    built = subprocess.run([UV, "build", *options, ROOT], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-2000:]
    return {path.suffix: path for path in out.iterdir() if path.suffix in (".whl", ".gz")}


def names_in(distribution: Path) -> set[PurePosixPath]:
    if distribution.suffix == ".whl":
        with zipfile.ZipFile(distribution) as archive:
            return {PurePosixPath(name) for name in archive.namelist()}
    with tarfile.open(distribution) as archive:
        return {PurePosixPath(*PurePosixPath(name).parts[1:]) for name in archive.getnames()}


@pytest.mark.slow
def test_both_hold_every_file_of_the_package_and_the_licence(distributions: dict[str, Path]) -> None:
    expected = {"py.typed", "voc.toml", "coco_to_voc.toml", "model.safetensors", "model.json"}
    assert {path.name for path in FILES} >= expected
    for kind, prefix in ((".whl", ""), (".gz", "src")):
        names = names_in(distributions[kind])
        assert [path for path in FILES if PurePosixPath(prefix, *path.parts) not in names] == []
        assert any(name.name == "LICENSE" for name in names)


@pytest.mark.slow
def test_the_installed_wheel_predicts(distributions: dict[str, Path], tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    scripts = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    python = scripts / "python"
    install = [UV, "pip", "install", "--offline", "--no-deps", "--python", python, distributions[".whl"]]
    subprocess.run(install, check=True, capture_output=True)
    site = printed(python, "import sysconfig; print(sysconfig.get_path('purelib'))", tmp_path)
    here = printed(Path(sys.executable), "import sysconfig; print(sysconfig.get_path('purelib'))", tmp_path)
    # dependencies come from this environment, without its editable pixelwise: .pth files count where they lie alone
    (Path(site) / "dependencies.pth").write_text(f"{here}\n", encoding="utf-8")
    used = printed(python, "import pixelwise; print(pixelwise.__file__)", tmp_path)
    assert Path(site) in Path(used).parents
    Image.new("RGB", (40, 30), "navy").save(tmp_path / "photo.png")
    command = [scripts / "pixelwise", "predict", "photo.png", "--out", "out", "--workers", "0"]
    result = subprocess.run(command, cwd=tmp_path, env=environment(scripts), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "photo.semantic.png").exists()


def printed(python: Path, code: str, folder: Path) -> str:
    """What a Python prints."""
    command = [python, "-c", code]
    result = subprocess.run(
        command, cwd=folder, env=environment(python.parent), check=True, stdout=subprocess.PIPE, text=True
    )
    return result.stdout.strip()


def environment(scripts: Path) -> dict[str, str]:
    """Variables without those that would lead to other packages."""
    return {"PATH": str(scripts), "OMP_NUM_THREADS": "1"}
