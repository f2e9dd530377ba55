"""Install a locked requirements file and this package into the environment that runs this script.

Where a CPU-only torch is there already (its version ends in `+cpu`), the libraries that only a GPU build needs are left
out of the lock.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GPU_ONLY = re.compile(r"^(nvidia-|cuda-|triton==)")


def without_gpu_libraries(lock: str) -> str:
    """The lock without the entries that only a GPU build of torch needs; an entry is a line and its indented hashes."""
    entries = re.split(r"^(?=\S)", lock, flags=re.MULTILINE)
    return "".join(entry for entry in entries if not GPU_ONLY.match(entry))


def has_cpu_torch() -> bool:
    """Whether a CPU-only torch is installed here."""
    try:
        return metadata.version("torch").endswith("+cpu")
    except metadata.PackageNotFoundError:
        return False


def pip_install(*arguments: str) -> None:
    """Run pip of this environment; leave with its exit code if it fails."""
    code = subprocess.call([sys.executable, "-m", "pip", "install", "--quiet", *arguments])
    if code:
        sys.exit(code)


def main() -> None:
    """Install the file that is named, then this package, editable."""
    lock = (ROOT / sys.argv[1]).read_text(encoding="utf-8")
    cpu = has_cpu_torch()
    print(f"installing {sys.argv[1]} {'without GPU libraries' if cpu else '(5.7 GB with NVIDIA libraries on Linux)'} …")
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(without_gpu_libraries(lock) if cpu else lock, encoding="utf-8")
        pip_install("--require-hashes", "-r", str(requirements))
    pip_install("--no-deps", "--no-build-isolation", "-e", str(ROOT))


if __name__ == "__main__":
    main()
