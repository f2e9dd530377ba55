"""Memory and speed of `pixelwise predict` over the length of a video.

    python benchmarks/video.py [--frames 1000] [--size 2160x3840] [--model NAME_OR_PATH] [--input-size 256]

A video of so many frames is made in a temporary folder: blobs of colour that move. The command predicts it in a process
of its own, whose resident memory and processor time are noted with each frame. Both are to stay flat, or the exit code
is 1: the straight line through the memory of the last 80 % of the frames may rise by no more than 5 % of its mean, and
the last quarter of the frames may take no more than 1.15 times as long as the first, of which the first 20 frames are
skipped. That is time by the clock, so nothing else should run; the processor time is printed beside it, and for each
tenth of the frames what the memory and the pace were.

Without --model a cheap one is taken, deeplab_v3_plus on mobilenet_v2 with two classes and random weights: what is
measured is the rest.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from results import add_option, report

from pixelwise.inference.model_folder import ModelCard, write_model
from pixelwise.labels import LabelSet
from pixelwise.models import deeplab_v3_plus
from pixelwise.ops.resize_rule import ResizeRule

MEMORY_RISE = 0.05
SPEED_RATIO = 1.15
WARM_UP = 20


def make_video(path: Path, frames: int, size: tuple[int, int]) -> None:
    height, width = size
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    large = np.asarray(coarse.resize((width + 256, height), Image.Resampling.BICUBIC))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(frames):
            left = 4 * abs(64 - index % 128)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(large[:, left : left + width]), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def make_model(folder: Path) -> Path:
    torch.manual_seed(0)
    arguments = {"backbone": "mobilenet_v2", "channels": 8}
    labels = LabelSet.from_names("halves", ["one", "other"])
    card = ModelCard(
        task="semantic", system="deeplab_v3_plus", labels=labels, arguments=arguments, resize=ResizeRule(length=256)
    )
    write_model(folder, deeplab_v3_plus.build(num_classes=2, **arguments).state_dict(), card)
    return folder


def resident_bytes(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text("ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # of the program and of the kernel for it


def relative_rise(memory: np.ndarray) -> float:
    """How much the straight line through the values rises from first to last, by their mean."""
    slope = float(np.polyfit(np.arange(len(memory)), memory, 1)[0])
    return slope * len(memory) / float(memory.mean())


def last_by_first_quarter(moments: list[float]) -> float:
    """How much longer each frame of the last quarter took than each of the first; frames to warm up are skipped."""
    moments = moments[WARM_UP:]
    quarter = len(moments) // 4
    return (moments[-1] - moments[-1 - quarter]) / (moments[quarter] - moments[0])


def print_tenths(moments: list[float], memory: np.ndarray) -> None:
    print("      frames  frames/s  memory in MiB: mean, largest")
    for begin, end in itertools.pairwise(np.linspace(0, len(moments) - 1, 11).round().astype(int).tolist()):
        pace = (end - begin) / (moments[end] - moments[begin])
        part = memory[begin : end + 1]
        print(f"{begin + 1:>5}–{end + 1:<6} {pace:>8.2f}  {part.mean():,.0f}, {part.max():,.0f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--size", default="2160x3840", help="height x width")
    parser.add_argument("--model", help="a cheap one of random weights if none is named")
    parser.add_argument("--input-size", type=int, default=256)
    add_option(parser)
    options = parser.parse_args()
    height, width = (int(side) for side in options.size.split("x"))
    if options.frames < 4 * WARM_UP:
        parser.error(f"--frames {options.frames}: expected at least {4 * WARM_UP}")
    with tempfile.TemporaryDirectory() as folder:
        clip, out = Path(folder) / "clip.mp4", Path(folder) / "out.mp4"
        make_video(clip, options.frames, (height, width))
        model = options.model or str(make_model(Path(folder) / "cheap"))
        command = [sys.executable, "-m", "pixelwise", "predict", str(clip), "--out", str(out), "--json", "--quiet"]
        command += ["--model", model, "--input-size", str(options.input_size)]
        moments, processor, resident, seconds = [], [], [], []
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            moments.append(time.perf_counter())
            processor.append(processor_seconds(process.pid))
            resident.append(resident_bytes(process.pid))
            seconds.append(json.loads(line)["seconds"])
        if process.wait() or len(moments) != options.frames:
            raise SystemExit(f"exit code {process.returncode} after {len(moments)} of {options.frames} frames")
        with av.open(str(out)) as written:
            shown = written.streams.video[0].frames
        megabytes = out.stat().st_size / 2**20
    if shown != options.frames:
        raise SystemExit(f"{shown} of {options.frames} frames in the video")

    memory = np.array(resident) / 2**20
    later = memory[len(memory) // 5 :]
    rise, ratio = relative_rise(later), last_by_first_quarter(moments)
    flat, steady = abs(rise) <= MEMORY_RISE, ratio <= SPEED_RATIO
    pace = (len(moments) - 1 - WARM_UP) / (moments[-1] - moments[WARM_UP])
    what = f"{options.model or 'a cheap model'} at {options.input_size} pixels"
    print(f"{options.frames:,} frames of {height}×{width}, {what}, {megabytes:.0f} MiB")
    print_tenths(moments, memory)
    clips = f"{options.frames:,} frames of {height}×{width}"
    alone = 1 / float(np.median(seconds))
    report(f"{clips}, speed", f"{pace:.2f} frames/s; network and step to ids alone {alone:.2f} frames/s")
    report(
        f"{clips}, memory",
        f"peak {memory.max():,.0f} MiB, mean of the last 80 % {later.mean():,.0f} MiB, rise over them "
        f"{rise:+.1%}: {'flat' if flat else 'RISES'}",
    )
    quarters, half = relative_rise(memory[len(memory) // 4 :]), relative_rise(memory[len(memory) // 2 :])
    print(f"rise over the last three quarters {quarters:+.1%}, over the last half {half:+.1%}")
    report(
        f"{clips}, time for each frame",
        f"last quarter / first {ratio:.3f}: {'flat' if steady else 'RISES'}; processor time "
        f"{last_by_first_quarter(processor):.3f}",
    )
    return int(not (flat and steady))


if __name__ == "__main__":
    sys.exit(main())
