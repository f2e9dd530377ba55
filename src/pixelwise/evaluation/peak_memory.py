"""Peak memory of a model, measured in a process of its own.

`python -m pixelwise.evaluation.peak_memory` is that process: a request as JSON on stdin, bytes on stdout.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from pixelwise.errors import CheckpointError
from pixelwise.files.images import read_image
from pixelwise.inference.load import find_model, load
from pixelwise.inference.model_folder import read_card
from pixelwise.inference.systems import system_module

STATUS, REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")
"""Linux: files in which a process reads its memory and resets its peak."""


def peak_memory(model: str, images: Sequence[Path], *, device: str, threads: int) -> int | None:
    """Bytes for loading a model and predicting images, beyond the loaded libraries.

    On a GPU the most that torch had allocated there; on the CPU the growth of the resident memory to its peak.

    Args:
        model: as for `load`.
        images: are looked at one after the other.
        device: `cpu`, `cuda` or `cuda:N`.
        threads: with which torch computes.

    Returns:
        None where the system does not tell the peak.

    Raises:
        CheckpointError: the process failed.
    """
    request = {"model": model, "images": [str(path) for path in images], "device": device, "threads": threads}
    command = [sys.executable, "-m", "pixelwise.evaluation.peak_memory"]
    result = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, check=False)
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise CheckpointError(f"{model}: the process that measures memory ended with {result.returncode}: {last}")
    return json.loads(result.stdout)


def measured_here(model: str, images: Sequence[Path], *, device: str) -> int | None:
    """The same in this process, which should do nothing else."""
    pictures = [read_image(path) for path in images]
    system_module(read_card(find_model(model)).system)  # imports do not count as the model's memory
    before = _restarted_peak()
    predictor = load(model, device=device)
    for picture in pictures:
        predictor.annotate(picture)
    if predictor.device.type == "cuda":
        return torch.cuda.max_memory_allocated(predictor.device)
    after = _peak()
    return None if before is None or after is None else max(0, after - before)


def _restarted_peak() -> int | None:
    """The resident bytes now, after resetting the peak; or the peak so far, where it cannot be reset."""
    try:
        REFERENCES.write_text("5")
        return _status("VmRSS")
    except OSError:
        return _peak()


def _peak() -> int | None:
    try:
        return _status("VmHWM")
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return None
    # bytes on macOS, the one system with this module and without /proc that is supported
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _status(name: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])


def _main() -> None:
    request = json.load(sys.stdin)
    torch.set_num_threads(request["threads"])
    images = [Path(path) for path in request["images"]]
    print(json.dumps(measured_here(request["model"], images, device=request["device"])))


if __name__ == "__main__":
    _main()
