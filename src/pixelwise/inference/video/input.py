"""Reading clips frame by frame: video files by PyAV, and folders of images.

Decisions, the same everywhere in the program:

- The time of a frame is an integer in units of the clip's time base. In a video file it counts from the file's own
  beginning, as in players; images of a folder have a constant frame rate.
- The file's rotation and mirroring are applied, as EXIF rotation is.
- A clip ends at its first damage: frames after it depend on the broken frame.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import av
import numpy as np
import torch
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from jaxtyping import UInt8
from torch import Tensor

from pixelwise.errors import DataError
from pixelwise.files.images import IMAGE_SUFFIXES, MAX_MEGAPIXELS, image_size, read_image
from pixelwise.inference.images.find import VIDEO_SUFFIXES

FRAME_RATE = 25.0
"""Default frame rate of a folder of frames, in frames per second."""

MISSING_SECONDS = 0.1
"""A stream that ends earlier than its header says by this, and by two frames, counts as truncated."""

HIGH_DYNAMIC_RANGE = (16, 18)
"""The numbers of PQ and HLG among transfer characteristics (ISO/IEC 23091-2)."""

MOST_BOXES = 1000
"""Number of parts of an unreadable MP4 that are inspected for the message."""


class DamagedClipError(DataError):
    """The clip cannot be read beyond the frames so far. Says why, without the clip's name."""


class Frame(NamedTuple):
    """A frame of a clip.

    Attributes:
        image: RGB, 0-255, upright.
        time: when it is shown, in units of the clip's time base.
        duration: in the same units.
    """

    image: UInt8[Tensor, "3 H W"]
    time: int
    duration: int


@dataclass(frozen=True)
class FolderClip:
    """Images of one size, one after the other; made by `open_images`.

    Attributes:
        path: named in messages.
        files: the images.
        max_megapixels: images with more pixels are refused.
        size_hw: as of VideoClip, like the others.
    """

    path: Path
    files: tuple[Path, ...]
    max_megapixels: float
    size_hw: tuple[int, int]
    time_base: Fraction
    pixel_aspect: Fraction = Fraction(1)
    notes: tuple[str, ...] = ()

    @property
    def length(self) -> int:
        """Number of images."""
        return len(self.files)

    def frames(self, *, after: int | None = None) -> Generator[Frame]:
        """As of VideoClip."""
        for time in range(0 if after is None else after + 1, len(self.files)):
            try:
                image = read_image(self.files[time], max_megapixels=self.max_megapixels)
            except DataError as error:
                raise DamagedClipError(f"{error}; repair or remove it") from None
            if image.shape[1:] != self.size_hw:
                height, width = image.shape[1:]
                raise DamagedClipError(
                    f"{self.files[time].name} is {height}×{width}, {_size_before(self.size_hw)}; resize or remove it"
                )
            yield Frame(image, time, 1)

    def identity(self) -> dict[str, Any]:
        """As of VideoClip."""
        digest = hashlib.sha256()
        for file in self.files:
            status = file.stat()
            digest.update(
                f"{file.as_posix()}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape")
            )
        return {"frames": len(self.files), "digest": digest.hexdigest(), "frame_rate": str(1 / self.time_base)}


def open_images(
    files: Sequence[Path],
    path: Path,
    *,
    frame_rate: float = FRAME_RATE,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> FolderClip:
    """A clip of images.

    Args:
        files: at least one, in the order of the clip.
        path: named in messages.
        frame_rate: frames per second.
        max_megapixels: frames with more pixels are refused.

    Raises:
        DataError: there are no files, or the first is not an image.
    """
    if not files:
        raise DataError(f"{path}: no images there for the frames of a clip")
    size = image_size(files[0], max_megapixels=max_megapixels)
    time_base = 1 / Fraction(frame_rate).limit_denominator(1001)
    return FolderClip(path, tuple(files), max_megapixels, size, time_base)


def by_number(files: Sequence[Path]) -> list[Path]:
    """The files by name, numbers in names by their value: `frame_2.png` stands before `frame_10.png`."""

    def key(file: Path) -> list[tuple[int, str]]:
        parts = re.split(r"(\d+)", file.name)
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]

    return sorted(files, key=key)


@dataclass(frozen=True)
class VideoClip:
    """The first stream of pictures of a video file; made by `open_video`.

    Attributes:
        path: of the file.
        size_hw: of the upright frames.
        time_base: seconds for each unit of a frame's time.
        length: number of frames by the file's header; None if unknown.
        has_sound: whether there is an audio stream.
        pixel_aspect: width of a pixel by its height.
        is_high_dynamic_range: whether its transfer function is of ITU-R BT.2100 (PQ or HLG).
    """

    path: Path
    size_hw: tuple[int, int]
    time_base: Fraction
    length: int | None
    has_sound: bool
    pixel_aspect: Fraction
    is_high_dynamic_range: bool = False

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on what the results lack."""
        sound = ("its sound is not copied",) if self.has_sound else ()
        brightness = "its brightness has a high dynamic range (PQ or HLG) and is read as that of an ordinary video"
        return (*sound, brightness) if self.is_high_dynamic_range else sound

    def frames(self, *, after: int | None = None) -> Generator[Frame]:
        """The frames in order; only those after the time `after` if given.

        Raises:
            DamagedClipError: the clip is damaged after these frames.
        """
        if after is None:
            yield from self._frames()
            return
        try:
            yield from self._frames(after=after, seeks=True)
        except _LostPlaceError:  # the file has no usable index: count from its beginning
            yield from self._frames(after=after)

    def _frames(self, *, after: int | None = None, seeks: bool = False) -> Generator[Frame]:
        with _opened(self.path) as (container, stream):
            beginning = _beginning(container, stream)
            step = _step(stream)
            last, shown = None, step
            turn: Turn | None = None
            is_placed = not seeks
            if seeks and after is not None:
                try:
                    container.seek(after + (beginning or 0), stream=stream)
                except FFmpegError:
                    raise _LostPlaceError from None
            try:
                for frame in _decoded(container, stream):
                    if frame.pts is None and not is_placed:
                        raise _LostPlaceError
                    if beginning is None:
                        beginning = frame.pts or 0
                    time = (0 if last is None else last + step) if frame.pts is None else max(0, frame.pts - beginning)
                    time = time if last is None else max(time, last + 1)
                    last, shown = time, frame.duration or step
                    is_placed |= time == after
                    if after is not None and time <= after:
                        continue
                    if not is_placed:
                        raise _LostPlaceError
                    turn = turn or _turn(frame)
                    image = _upright(frame, turn)
                    if image.shape[:2] != self.size_hw:
                        height, width = image.shape[:2]
                        raise DamagedClipError(f"the next frame is {height}×{width}, {_size_before(self.size_hw)}")
                    planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
                    yield Frame(planes, time, shown)
            except DamagedClipError:
                if not is_placed:
                    raise _LostPlaceError from None
                raise
            if not is_placed:
                raise _LostPlaceError
            end = _known_end(container, stream)
            if end is None or last is None:
                return
            read = (last + shown) * self.time_base
            if end - read > max(MISSING_SECONDS, 2 * step * self.time_base):
                raise DamagedClipError(f"truncated, it should have gone on to {float(end):.2f} s")

    def identity(self) -> dict[str, Any]:
        """JSON values that change when the file does."""
        status = self.path.stat()
        return {"bytes": status.st_size, "modified": status.st_mtime}


Clip = VideoClip | FolderClip
"""Frames of one size that follow each other."""


Turn = tuple[int, int, int, int]
"""Of pixels on the screen: x' = a x + c y, y' = b x + d y, up to a factor."""


class _LostPlaceError(Exception):
    """Seeking in a file reached a wrong frame."""


def open_video(path: Path, *, max_megapixels: float = MAX_MEGAPIXELS) -> VideoClip:
    """A clip of a video file, of which the first frame is decoded.

    Raises:
        DataError: the file is not there, is not a video, holds no pictures or none that can be decoded, or its frames
            have more pixels than `max_megapixels`.
    """
    with _opened(path) as (container, stream):
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > max_megapixels * 1e6:
            raise DataError(
                f"{path}: frames of {width * height / 1e6:,.1f} megapixels ({height:,}×{width:,}), at most "
                f"{max_megapixels:,g} are allowed; raise --max-megapixels if the file is to be trusted"
            )
        with closing(_decoded(container, stream)) as frames:
            try:
                first = next(frames, None)
            except DamagedClipError as damage:
                raise DataError(f"{path}: a video of which no frame can be decoded ({damage})") from None
        if first is None:
            raise DataError(f"{path}: a video of which no frame can be decoded")
        image = _upright(first, _turn(first))
        aspect = stream.codec_context.sample_aspect_ratio or Fraction(1)
        end = _known_end(container, stream)
        rate = stream.average_rate
        length = stream.frames or (round(end * rate) if end is not None and rate else None)
        return VideoClip(
            path=path,
            size_hw=(image.shape[0], image.shape[1]),
            time_base=_time_base(stream),
            length=length,
            has_sound=bool(container.streams.audio),
            pixel_aspect=aspect if image.shape[:2] == (first.height, first.width) else 1 / aspect,
            is_high_dynamic_range=first.color_trc in HIGH_DYNAMIC_RANGE,
        )


def is_video(path: Path) -> bool:
    """Whether a file is a video: by its suffix, or, for an unknown suffix, by its content."""
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES or suffix in IMAGE_SUFFIXES:
        return suffix in VIDEO_SUFFIXES
    try:
        image_size(path)
        return False
    except DataError:
        pass
    try:
        with _opened(path):
            return True
    except DataError:
        return False


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    with file:
        if not os.fstat(file.fileno()).st_size:
            raise DataError(f"{path}: the file is empty")
        try:
            container = av.open(_Nameless(file), "r", metadata_errors="replace")  # titles in any encoding
        except (FFmpegError, OSError) as error:
            raise DataError(f"{path}: {_why_unusable(path, error.strerror or str(error))}") from None
        with container:
            # cover art of an audio file is a stream of one frame
            streams = [one for one in container.streams.video if not one.disposition & one.disposition.attached_pic]
            if not container.streams:
                raise DataError(f"{path}: {_why_unusable(path, 'it holds nothing')}")
            if not streams:
                held = ", ".join(sorted({one.type for one in container.streams}))
                raise DataError(f"{path}: holds no video, only {held}; expected a file with a video stream")
            readable = next((one for one in streams if one.codec_context is not None), None)
            if readable is None:
                raise DataError(f"{path}: its codec is unknown to FFmpeg; convert it")
            yield container, readable


class _Nameless:
    """A file for PyAV, which would take its path for an address or a pattern, and any .txt for a video."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def _why_unusable(path: Path, reason: str) -> str:
    kinds = _kinds_of_boxes(path)
    if b"moov" in kinds:
        return f"an MP4 in which no frame can be found ({reason})"
    if kinds and kinds[0] in (b"ftyp", b"mdat", b"wide", b"free"):
        return "an MP4 whose index is missing, as in one that was cut short; no frame of it can be read"
    return f"not a video, or one without a frame ({path.stat().st_size:,} bytes; {reason})"


def _kinds_of_boxes(path: Path) -> list[bytes]:
    """The types of the boxes of a file, read as an MP4: the complete ones, and always the first."""
    kinds: list[bytes] = []
    length, end = path.stat().st_size, 0
    with path.open("rb") as file:
        while len(kinds) < MOST_BOXES and len(head := file.read(16)) >= 8:
            size, kind = struct.unpack_from(">I4s", head)
            if size == 1 and len(head) == 16:  # the size follows the type
                (size,) = struct.unpack_from(">Q", head, 8)
            end += size
            if kinds and end > length:
                break
            kinds.append(kind)
            if size < 8 or end > length:  # 0: up to the end
                break
            file.seek(end)
    return kinds


def _decoded(container: InputContainer, stream: VideoStream) -> Generator[VideoFrame]:
    """The frames of a stream. Raises DamagedClipError after the last that are good."""
    context = stream.codec_context
    damage: str | None = None
    has_begun = False
    packets = container.demux(stream)
    while damage is None:
        frames: list[VideoFrame] = []
        try:
            packet = next(packets, None)
            if packet is None:
                return
            if packet.is_corrupt:
                damage = "damaged" if _goes_on(packets) else "truncated"
            else:
                frames = packet.decode()  # pyright: ignore[reportAssignmentType]
        except FFmpegError as error:
            damage = f"damaged ({error.strerror or error})"
        if damage is not None:
            frames = _left(context.decode)  # frames that the decoder still holds
        for frame in frames:
            if frame.is_corrupt:
                if has_begun:  # a recording has no usable frame before its first key frame
                    raise DamagedClipError(damage or "damaged")
                continue
            has_begun = True
            yield frame
    raise DamagedClipError(damage)


def _goes_on(packets: Iterator[Packet]) -> bool:
    """Whether one of the remaining packets has content."""
    try:
        return any(packet.size for packet in packets)
    except FFmpegError:
        return False


def _left(decode: Callable[[None], Any]) -> list[VideoFrame]:
    try:
        return decode(None)
    except FFmpegError:
        return []


def _time_base(stream: VideoStream) -> Fraction:
    return stream.time_base or Fraction(1, 90_000)


def _step(stream: VideoStream) -> int:
    """Usual duration of a frame."""
    rate = stream.average_rate or stream.guessed_rate or Fraction(FRAME_RATE)
    return max(1, round(1 / (rate * _time_base(stream))))


def _beginning(container: InputContainer, stream: VideoStream) -> int | None:
    """Start time of the file, which may be that of the audio; None if unknown."""
    if container.start_time is None:
        return stream.start_time
    beginning = round(Fraction(container.start_time, av.time_base) / _time_base(stream))
    return beginning if stream.start_time is None else min(beginning, stream.start_time)


def _known_end(container: InputContainer, stream: VideoStream) -> Fraction | None:
    """End of the video stream by the file's header, in seconds from its beginning."""
    base = _time_base(stream)
    beginning = _beginning(container, stream) or 0
    if stream.duration is not None:
        return ((stream.start_time or 0) - beginning + stream.duration) * base
    written = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))  # in Matroska
    if written:
        hours, minutes, seconds = written.groups()
        return Fraction(hours) * 3600 + Fraction(minutes) * 60 + Fraction(seconds)
    if container.duration is not None and len(container.streams) == 1:
        return Fraction(container.duration, av.time_base)
    return None


def _turn(frame: VideoFrame) -> Turn:
    """Rotation and mirroring of the frames by the file."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return (1, 0, 0, 1)
    a, b, _, c, d, *_ = np.frombuffer(bytes(data), dtype=np.int32).tolist()
    return (a, b, c, d)


def _upright(frame: VideoFrame, turn: Turn) -> UInt8[np.ndarray, "H W 3"]:
    """RGB, turned and mirrored."""
    image = frame.to_ndarray(format="rgb24")
    a, b, c, d = turn
    turned = abs(b) > abs(a)
    if turned:
        image, a, d = image.swapaxes(0, 1), c, b
    image = image[:, ::-1] if a < 0 else image
    return image[::-1] if d < 0 else image


def _size_before(size_hw: tuple[int, int]) -> str:
    return f"the frames before are {size_hw[0]}×{size_hw[1]}"
