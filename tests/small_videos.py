"""Videos of a few frames, written for a test and read back."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RED, GREEN, GREY = (230, 20, 20), (20, 230, 20), (20, 20, 20)


def squares(count: int, *, size: tuple[int, int] = (32, 48)) -> list[np.ndarray]:
    """A red square that moves to the right before grey, and from the sixth picture on a green one below it."""
    pictures = []
    for index in range(count):
        picture = np.full((*size, 3), GREY, dtype=np.uint8)
        picture[2:14, 2 + index % 24 : 14 + index % 24] = RED
        if index >= 5:
            picture[18:30, 20:32] = GREEN
        pictures.append(picture)
    return pictures


def write_video(
    path: Path,
    pictures: Sequence[np.ndarray],
    *,
    times: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 25),
    codec: str = "libx264",
    kind: str | None = None,
    index_first: bool = False,
    sound: bool = False,
) -> Path:
    """Write pictures u8[H, W, 3] with key frames twelve apart and, where the codec has them, frames out of order."""
    height, width = pictures[0].shape[:2]
    options = {"movflags": "faststart"} if index_first else {}
    settings = {"libx264": {"crf": "8", "g": "12"}, "mpeg4": {"qmin": "2", "qmax": "2"}}.get(codec, {})
    with av.open(str(path), "w", format=kind, options=options) as container:
        stream = container.add_stream(codec, rate=25, options=settings)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv444p" if codec == "libx264" else "yuv420p"
        stream.codec_context.time_base = time_base
        voice = container.add_stream("aac", rate=8000, layout="mono") if sound else None
        if voice is not None:
            for start in range(0, 8192, 1024):
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                silence.sample_rate, silence.pts = 8000, start
                container.mux(voice.encode(silence))
            container.mux(voice.encode(None))
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index if times is None else times[index], time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read_video(path: Path) -> tuple[list[np.ndarray], list[float]]:
    """The pictures of a video and when they are shown, in seconds; by PyAV alone."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        return [frame.to_ndarray(format="rgb24") for frame in frames], [frame.time for frame in frames]


def cut(path: Path, share: float) -> Path:
    """Leave that share of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path
