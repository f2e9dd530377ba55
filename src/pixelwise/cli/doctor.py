"""`pixelwise doctor`: report what this installation has and lacks, with advice."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import pixelwise
from pixelwise.cli.options import JsonOption
from pixelwise.cli.terminal import print
from pixelwise.errors import PixelwiseError

SMALLEST_DISK, SMALL_DISK = 100 * 10**6, 2 * 10**9
"""Free bytes below which results cannot be written, and below which a training run may fill the disk."""

_SHOWN = ("torch", "torchvision", "numpy", "Pillow", "av", "opencv-python-headless")
"""Packages that are always listed."""


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: of the examined part.
        value: its state.
        status: `ok`; `note`, an optional part is missing; or `fault`, something will fail.
        advice: how to repair it; empty if nothing is to be done.
    """

    name: str
    value: str
    status: str = "ok"
    advice: str = ""


def doctor(as_json: JsonOption = False) -> int:
    """Examine this installation: versions, devices, codecs, extras, disk, folders and shipped weights.

    Exit code 1 if there are faults, else 0.
    """
    findings = [finding for examine in _EXAMINATIONS for finding in _findings(examine)]
    faults = sum(finding.status == "fault" for finding in findings)
    if as_json:
        print(json.dumps({"faults": faults, "findings": [asdict(one) for one in findings]}), whole=True)
        return 1 if faults else 0
    width = max(len(finding.name) for finding in findings)
    marks = {"ok": "ok   ", "note": "note ", "fault": "FAULT"}
    for one in findings:
        print(f"{marks[one.status]}  {one.name:{width}}  {one.value}")
        if one.advice:
            print(f"{'':{width + 9}}→ {one.advice}")
    print({0: "no faults", 1: "1 fault"}.get(faults, f"{faults} faults"))
    return 1 if faults else 0


def _findings(examine: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings of one examination; an exception of a broken package is a finding too."""
    try:
        yield from examine()
    except Exception as error:  # importing a broken package may raise anything
        text = " ".join(str(error).split())[:300]
        yield Finding(
            examine.__name__.strip("_"), f"{type(error).__name__}: {text}", "fault", "install pixelwise again"
        )


def _versions() -> Iterator[Finding]:
    yield Finding("pixelwise", pixelwise.__version__)
    yield Finding("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _packages() -> Iterator[Finding]:
    """The packages that pixelwise requires, by its metadata."""
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    try:
        needed = [Requirement(text) for text in requires("pixelwise") or ()]
    except PackageNotFoundError:
        yield Finding("installation", "runs from its source", "note", "install it: pip install -e .")
        needed = []
    core = [one for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    for one in core:
        try:
            found = version(one.name)
        except PackageNotFoundError:
            yield Finding(one.name, "missing", "fault", f"pip install '{one.name}{one.specifier}'")
            continue
        if not one.specifier.contains(found, prereleases=True):
            advice = f"needs {one.specifier}: pip install '{one.name}{one.specifier}'"
            yield Finding(one.name, found, "fault", advice)
        elif one.name in _SHOWN:
            yield Finding(one.name, found)
    extras = sorted({extra for one in needed for extra in _extras(one)} - {"dev", "docs"})
    for extra in extras:
        missing = [one.name for one in needed if extra in _extras(one) and not _is_installed(one.name)]
        if missing:
            advice = f"pip install 'pixelwise[{extra}]'"
            yield Finding(f"extra {extra}", f"{', '.join(missing)} missing", "note", advice)
        else:
            yield Finding(f"extra {extra}", "installed")


def _extras(requirement: object) -> list[str]:
    """The extras that a requirement belongs to."""
    return re.findall(r"extra == ['\"]([^'\"]+)['\"]", str(getattr(requirement, "marker", "")))


def _is_installed(name: str) -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _torch() -> Iterator[Finding]:
    import torch

    try:
        from torchvision.ops import nms

        nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except (ImportError, RuntimeError) as error:
        text = " ".join(str(error).split())[:200]
        yield Finding("torchvision operators", text, "fault", "install torch and torchvision of matching versions")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            found = torch.cuda.get_device_properties(index)
            yield Finding(f"device cuda:{index}", f"{found.name}, {found.total_memory / 2**30:.0f} GiB")
    elif torch.version.cuda:
        advice = "where there is an NVIDIA GPU, install its driver (nvidia-smi must list it)"
        yield Finding("device", "cpu; torch has CUDA, but there is no GPU", "note", advice)
    else:
        yield Finding("device", "cpu; torch without CUDA")
    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    set_by = next((name for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name in os.environ), None)
    advice = f"unset {set_by} to use every core" if set_by and threads < cores else ""
    yield Finding("threads", f"{threads} of {cores} cores", "note" if advice else "ok", advice)


def _images() -> Iterator[Finding]:
    from PIL import features

    from pixelwise.files.images import HEIF_SUFFIXES, IMAGE_SUFFIXES, INSTALL_HEIF

    needed, others = {"JPEG": "jpg", "PNG": "zlib"}, {"WebP": "webp", "AVIF": "avif", "JPEG 2000": "jpg_2000"}
    others["TIFF"] = "libtiff"
    wheel = "install Pillow from its wheel: pip install --force-reinstall --only-binary=:all: Pillow"
    lacking = [name for name, feature in needed.items() if not features.check(feature)]
    missing = [name for name, feature in others.items() if not features.check(feature)]
    if lacking or missing:
        value = f"no {', '.join([*lacking, *missing])}"
        yield Finding("image codecs", value, "fault" if lacking else "note", wheel)
    else:
        yield Finding("image codecs", ", ".join([*needed, *others]))
    if HEIF_SUFFIXES <= IMAGE_SUFFIXES:
        yield Finding("HEIC", "pillow-heif")
    else:
        yield Finding("HEIC", "not read; pillow-heif is missing", "note", INSTALL_HEIF)


def _video() -> Iterator[Finding]:
    import av

    from pixelwise.inference.video.output import ENCODERS

    written = [name for name in ENCODERS if _has_codec(name, "w")]
    advice = "install PyAV from its wheel: pip install --force-reinstall --only-binary=:all: av"
    if not written:
        yield Finding("video encoders", f"none of {', '.join(ENCODERS)}", "fault", advice)
    elif written[0] != next(iter(ENCODERS)):
        yield Finding("video encoders", f"{', '.join(written)}; no H.264", "note", advice)
    else:
        yield Finding("video encoders", ", ".join(written))
    decoders = {"H.264": "h264", "HEVC": "hevc", "VP9": "vp9", "AV1": "av1", "MPEG-4": "mpeg4", "ProRes": "prores"}
    missing = [name for name, codec in decoders.items() if not _has_codec(codec, "r")]
    found = ", ".join(name for name in decoders if name not in missing)
    value = found if not missing else f"{found}; no {', '.join(missing)}"
    version = av.library_versions.get("libavcodec", ())
    yield Finding("video decoders", value, "note" if missing else "ok", advice if missing else "")
    yield Finding("FFmpeg", f"libavcodec {'.'.join(map(str, version))}")


def _has_codec(name: str, mode: Literal["r", "w"]) -> bool:
    import av
    from av.codec.codec import UnknownCodecError

    try:
        av.Codec(name, mode)
    except UnknownCodecError:
        return False
    return True


def _folders() -> Iterator[Finding]:
    here, temporary = Path.cwd(), Path(tempfile.gettempdir())
    for name, folder, advice in (
        ("this folder", here, "results go to --out; name a folder that can be written"),
        ("temporary files", temporary, "set TMPDIR to a folder that can be written"),
    ):
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            yield Finding(name, f"{folder}: cannot be written ({error.strerror})", "fault", advice)
            continue
        free = shutil.disk_usage(folder).free
        status = "fault" if free < SMALLEST_DISK else "note" if free < SMALL_DISK else "ok"
        value = f"{folder}: {free / 10**9:,.1f} GB free"
        yield Finding(name, value, status, "" if status == "ok" else "free some room, or use another disk")


def _weights() -> Iterator[Finding]:
    from pixelwise.inference.load import WEIGHTS_FOLDER, shipped_models
    from pixelwise.inference.model_folder import read_model

    again = "install pixelwise again"
    try:
        names = shipped_models()
    except PixelwiseError as error:
        yield Finding("shipped weights", str(error), "fault", again)
        return
    if "default" not in names:
        yield Finding("shipped weights", f"no default model in {WEIGHTS_FOLDER}", "fault", again)
    for name, task in names.items():
        try:
            read_model(WEIGHTS_FOLDER / name)
        except PixelwiseError as error:
            yield Finding(f"weights {name}", str(error), "fault", again)
        else:
            yield Finding(f"weights {name}", f"{task}, intact")


_EXAMINATIONS = (_versions, _packages, _torch, _images, _video, _folders, _weights)
