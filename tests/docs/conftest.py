"""The small files that the documentation speaks of, and its commands run in this process."""

from __future__ import annotations

import contextlib
import io
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file

from pixelwise.cli.app import main
from pixelwise.evaluation import comparison
from pixelwise.inference.model_folder import ModelCard, write_model
from pixelwise.labels import LabelSet
from pixelwise.models import pspnet
from pixelwise.ops.resize_rule import ResizeRule
from tests.drawn_scenes import LABELS, draw_scene, write_masks_tree
from tests.plugin_packages import install_package
from tests.small_videos import squares, write_video

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "examples" / "plugin"
SHORTER = ("steps=2", "batch_size=2", "crop_size=64", "input_size=64", "evaluate_every=0")
"""What trainings of the documentation are set to in tests, last, so that they take seconds."""

Shell = Callable[[str], str]
"""Runs a line of a console, and returns its stdout."""


def run_main(arguments: Sequence[str]) -> tuple[int, str]:
    """Run `pixelwise ARGUMENTS` in this process: exit code and stdout."""
    before, out = sys.argv, io.StringIO()
    sys.argv = ["pixelwise", *arguments]
    try:
        with contextlib.redirect_stdout(out):
            main()
    except SystemExit as stopped:
        return int(stopped.code or 0), out.getvalue()
    finally:
        sys.argv = before
    return 0, out.getvalue()


@pytest.fixture(scope="session")
def small_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs, a clip, two data sets, two models and weights of others."""
    root = tmp_path_factory.mktemp("documentation")
    photographs = [root / "photo.jpg", *(root / "holiday" / f"{name}.jpg" for name in ("one", "two"))]
    photographs.append(root / "photos" / "three.jpg")
    for seed, path in enumerate(photographs):
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(draw_scene(seed, (64, 80))[0]).save(path)
    write_video(root / "clip.mp4", squares(3))
    write_masks_tree(root / "scans", train=4, val=2)
    for name in ("scans", "other"):
        torch.manual_seed(0)
        arguments = {"backbone": "mobilenet_v2", "output_stride": 16}
        labels = LabelSet.from_names("labels", LABELS.names)
        network = pspnet.build(num_classes=len(labels), **arguments)
        card = ModelCard(
            task="semantic", system="pspnet", labels=labels, arguments=arguments, resize=ResizeRule(length=64)
        )
        write_model(root / "runs" / name, network.state_dict(), card)
    network = torchvision.models.segmentation.deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None)
    torch.save(network.state_dict(), root / "weights.pth")
    save_file(timm.create_model("regnetx_002", pretrained=False).state_dict(), root / "regnetx_002.safetensors")
    code, _ = run_main(["data", "convert", f"masks:{root / 'scans'}", f"coco:{root / 'warehouse'}", "--quiet"])
    assert code == 0
    return root


@pytest.fixture
def folder(small_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the small files, where the test then works."""
    shutil.copytree(small_files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def plugin(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package of examples/plugin, installed."""
    site = tmp_path_factory.mktemp("site")
    install_package(site, "pixelwise-two-scale", {"two_scale": "two_scale"})
    for place in (site, PLUGIN):
        monkeypatch.syspath_prepend(str(place))


@pytest.fixture
def shell(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Runs `pixelwise …` and `pixelwise … > FILE`; trainings are shortened, and memory is not measured."""
    monkeypatch.setattr(comparison, "peak_memory", lambda *_, **__: 2**28)  # which takes a new process of each model

    def run(line: str) -> str:
        words = shlex.split(line, comments=True)
        target = folder / words.pop() if len(words) > 2 and words[-2] == ">" else None
        if target is not None:
            words.pop()
        assert words[0] == "pixelwise", f"`{line}`: mark its block with <!-- not run: why -->"
        if words[1] == "train" and "--resume" not in words:
            words += [word for setting in SHORTER for word in ("--set", setting)]
        code, out = run_main([*words[1:], *([] if words[1] != "train" else ["--workers", "0"])])
        assert code == 0, f"`{line}` ended with exit code {code}"
        if target is not None:
            target.write_text(out, encoding="utf-8")
        return out

    return run


@pytest.fixture
def pixelwise_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """`subprocess.run` of `python -m pixelwise …` runs it in this process, which is quicker."""

    run_process = subprocess.run

    def run(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if list(command[1:3]) != ["-m", "pixelwise"]:
            return run_process(command, **options)
        code, out = run_main(command[3:])
        if options.get("check"):
            assert code == 0
        return subprocess.CompletedProcess(command, code, out, "")

    monkeypatch.setattr(subprocess, "run", run)
