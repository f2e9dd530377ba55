"""Peak memory of `pixelwise predict` on one large scan, taken as a whole and through windows.

    python benchmarks/large_image.py [--side 10000] [--format jpg|tif|png] [--model default] [--input-size N]

A picture of side×side pixels is made in a temporary folder, and predicted by a process of its own for each way. Its
largest resident memory is compared with the limit of 3 GiB, and its answer's size with the picture's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from results import add_option, report

LIMIT_GIB = 3.0


def make_scan(path: Path, side: int) -> None:
    """Blobs of colour with a little noise, as a photograph has it: neither constant nor incompressible."""
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    scan = Image.new("RGB", (side, side))
    scan.paste(coarse.resize((side, side), Image.Resampling.BICUBIC))
    tile = Image.fromarray(generator.integers(0, 24, (500, 500, 3), dtype=np.uint8))
    for top in range(0, side, 1000):
        for left in range(0, side, 1000):
            scan.paste(tile, (left, top))
    scan.save(path)


def predict(scan: Path, out: Path, arguments: list[str]) -> tuple[int, float, float]:
    """Run the command; its exit code, seconds and largest resident memory in GiB."""
    command = [sys.executable, "-m", "pixelwise", "predict", str(scan), "--out", str(out), "--quiet", *arguments]
    begin = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    return os.waitstatus_to_exitcode(status), time.perf_counter() - begin, usage.ru_maxrss / 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--side", type=int, default=10_000)
    parser.add_argument("--format", choices=("jpg", "tif", "png"), default="jpg")
    parser.add_argument("--model", default="default")
    parser.add_argument("--input-size", type=int)
    add_option(parser)
    options = parser.parse_args()
    shared = ["--model", options.model]
    shared += [] if options.input_size is None else ["--input-size", str(options.input_size)]
    kept = True
    with tempfile.TemporaryDirectory() as folder:
        scan = Path(folder) / f"scan.{options.format}"
        make_scan(scan, options.side)
        size = f"{options.side**2 / 1e6:,.0f} megapixels, {scan.stat().st_size / 2**20:,.0f} MiB {options.format}"
        for name, arguments in (("whole", []), ("--tile", ["--tile"])):
            out = Path(folder) / name
            code, seconds, peak = predict(scan, out, [*shared, *arguments])
            if code:
                raise SystemExit(f"{name}: exit code {code}")
            record = json.loads((out / "results.jsonl").read_text("utf-8"))
            with Image.open(out / "scan.semantic.png") as mask:
                whole = record["size"] == [options.side] * 2 == list(mask.size)
            ok = whole and peak <= LIMIT_GIB
            kept &= ok
            verdict = "ok" if ok else "MISSED"
            report(f"{size}, {name}", f"{seconds:,.0f} s, peak {peak:.2f} GiB (limit {LIMIT_GIB:g}): {verdict}")
    return int(not kept)


if __name__ == "__main__":
    Image.MAX_IMAGE_PIXELS = None
    sys.exit(main())
