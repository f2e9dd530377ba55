"""Write a video that can be played and continued whenever writing stops.

While it grows, the file is a fragmented MP4: a header, then self-contained fragments of some frames (ISO/IEC 14496-12,
8.8). Each fragment has its own encoder and muxer and is appended in one piece, so that a run continues after a kill.
`join` makes an ordinary MP4 of it at the end, which editors need.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.codec.codec import UnknownCodecError
from av.container import OutputContainer
from av.error import FFmpegError
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream
from jaxtyping import UInt8

from pixelwise.errors import DataError

VIDEO_OUTPUT_SUFFIXES = (".mp4", ".m4v", ".mov")
"""Suffixes of the files that can be written."""

ENCODERS = {
    "libx264": {"preset": "veryfast", "tune": "zerolatency", "crf": "20"},  # delays no frame
    "mpeg4": {"qmin": "2", "qmax": "4"},
}
"""H.264, or MPEG-4 where PyAV lacks it; the first available is used."""

FINEST_TIME = {"libx264": 1_000_000, "mpeg4": 65_535}
"""Largest number of time units in a second for an encoder."""

BT709 = 1
"""The number of ITU-R BT.709 among colour primaries and transfer characteristics (ISO/IEC 23091-2)."""


@dataclass
class VideoOutput:
    """A fragmented MP4 that grows.

    Attributes:
        path: the file, which exists.
        size_hw: of the frames; a column or row is repeated where a side is odd, since the codec halves colour planes.
        time_base: seconds for each unit of time.
        pixel_aspect: width of a pixel by its height.
        length: valid bytes of the file; bytes after them are overwritten.
        fragments: number in these bytes.
        encoder: a key of ENCODERS; None takes the first available.
    """

    path: Path
    size_hw: tuple[int, int]
    time_base: Fraction
    pixel_aspect: Fraction = Fraction(1)
    length: int = 0
    fragments: int = 0
    encoder: str | None = None
    _fragment: _Fragment | None = field(default=None, init=False)

    def require_possible(self) -> None:
        """Raise DataError if the encoder does not support this size."""
        self._begun(0)

    def add(self, picture: UInt8[np.ndarray, "H W 3"], time: int, duration: int) -> None:
        """Encode an RGB frame into the current fragment; times increase."""
        if self._fragment is None:
            self._fragment = self._begun(time)
        self._fragment.add(picture, time, duration)

    def _begun(self, time: int) -> _Fragment:
        encoder = self.encoder or _best_encoder()
        try:
            return _Fragment(encoder, self.size_hw, self.time_base, self.pixel_aspect, time)
        except (FFmpegError, OverflowError):
            height, width = self.size_hw
            raise DataError(
                f"{self.path}: {encoder} does not support frames of {height:,}×{width:,}; make them smaller"
            ) from None

    def append_fragment(self) -> None:
        """Append what was added since the last call to the file, and wait until it is on the disk."""
        if self._fragment is None:
            return
        content, count = self._fragment.finish(self.fragments, with_head=not self.fragments)
        self._fragment = None
        with self.path.open("r+b") as file:
            file.truncate(self.length)
            file.seek(self.length)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self.length += len(content)
        self.fragments += count


class _Fragment:
    """A header and frames in memory, with times from the first of them.

    The muxer begins a fragment at each key frame of the encoder.
    """

    def __init__(
        self, encoder: str, size_hw: tuple[int, int], time_base: Fraction, pixel_aspect: Fraction, begin: int
    ) -> None:
        self._sink = io.BytesIO()
        options = {"movflags": "empty_moov+default_base_moof+frag_keyframe"}
        self._container: OutputContainer = av.open(self._sink, "w", format="mp4", options=options)
        self._stream: VideoStream = self._container.add_stream(encoder, options=dict(ENCODERS[encoder]))  # pyright: ignore[reportAttributeAccessIssue]
        self._time_base = time_base
        self._coded_base = time_base if time_base.denominator <= FINEST_TIME[encoder] else Fraction(1, 60_000)
        self._begin = begin
        self._times_taken = -1
        height, width = size_hw
        self._pad = ((0, height % 2), (0, width % 2), (0, 0))
        context = self._stream.codec_context
        context.width, context.height, context.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        context.time_base = self._stream.time_base = self._coded_base
        context.gop_size = 100_000  # the first frame of a fragment is its only key frame
        context.max_b_frames = 0
        context.sample_aspect_ratio = pixel_aspect
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries = context.color_trc = BT709
        if encoder == "mpeg4":
            context.bit_rate = 20 * width * height
        context.open()

    def add(self, picture: UInt8[np.ndarray, "H W 3"], time: int, duration: int) -> None:
        frame = av.VideoFrame.from_ndarray(
            np.ascontiguousarray(np.pad(picture, self._pad, mode="edge")), format="rgb24"
        )
        frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
        scale = self._time_base / self._coded_base
        frame.time_base = self._coded_base
        frame.pts = max(round((time - self._begin) * scale), self._times_taken + 1)
        self._times_taken = frame.pts
        for packet in self._stream.encode(frame):
            packet.duration = max(1, round(duration * scale))
            self._container.mux(packet)

    def finish(self, before: int, *, with_head: bool) -> tuple[bytes, int]:
        """The bytes, with their time and after `before` fragments, and the number of fragments."""
        self._container.mux(self._stream.encode(None))
        units = self._stream.time_base
        assert units is not None
        self._container.close()
        begin = round(self._begin * self._time_base / units)
        parts: list[bytes] = []
        number = before
        for kind, box in _boxes(self._sink.getvalue()):
            if kind == b"moof":
                number += 1
                parts.append(_placed(box, number, begin))
            elif kind == b"mdat" or (with_head and kind in (b"ftyp", b"moov")):
                parts.append(box)
        return b"".join(parts), number - before


def join(path: Path, joined: Path) -> None:
    """Write the frames of a fragmented MP4 as an ordinary one, with its index at the front; frames are not encoded
    again.

    Raises DataError when the file holds no video any more: another program changed it while the run was stopped.
    """
    kind = "mov" if path.suffix.lower() == ".mov" else "mp4"
    with (
        av.open(str(path.absolute())) as source,
        av.open(str(joined.absolute()), "w", format=kind, options={"movflags": "faststart"}) as target,
    ):
        if not source.streams.video:
            raise DataError(
                f"{path}: holds no video any more, it was changed since it was begun; --overwrite begins anew"
            )
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                target.mux(packet)


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The boxes of a file with their kinds."""
    start = 0
    while start < len(content):
        length, kind = struct.unpack_from(">I4s", content, start)
        yield kind, content[start : start + length]
        start += length


def _placed(moof: bytes, number: int, begin: int) -> bytes:
    """A fragment's header with its number and its time shifted by `begin`."""
    changed = bytearray(moof)
    struct.pack_into(">I", changed, moof.index(b"mfhd") + 8, number)
    place = moof.index(b"tfdt")
    layout = ">Q" if moof[place + 4] == 1 else ">I"
    (time,) = struct.unpack_from(layout, moof, place + 8)
    struct.pack_into(layout, changed, place + 8, time + begin)
    return bytes(changed)


def _best_encoder() -> str:
    for name in ENCODERS:
        try:
            av.Codec(name, "w")
        except UnknownCodecError:
            continue
        return name
    raise DataError(f"PyAV was built without any of {', '.join(ENCODERS)}; install PyAV from its wheel")
