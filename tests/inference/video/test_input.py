"""Clips are read frame by frame, with their times, upright, up to their first damage."""

import gc
import struct
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from pixelwise.errors import DataError
from pixelwise.inference.video.input import DamagedClipError, Frame, by_number, is_video, open_images, open_video
from tests.small_videos import cut, squares, write_video


def close(image: torch.Tensor, picture: np.ndarray) -> bool:
    """Whether they are the same but for what compression changes."""
    return float(np.abs(image.permute(1, 2, 0).numpy().astype(float) - picture).mean()) < 3


def read_to_the_end(path: Path) -> tuple[list[Frame], str]:
    """The good frames and the damage behind them."""
    frames: list[Frame] = []
    try:
        for frame in open_video(path).frames():
            frames.append(frame)
    except DamagedClipError as damage:
        return frames, str(damage)
    pytest.fail("nobody noticed the damage")


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_the_times_of_a_variable_rate_are_kept(tmp_path: Path, name: str):
    pictures, times = squares(8), [0, 40, 80, 200, 210, 500, 1500, 1540]  # milliseconds
    clip = open_video(write_video(tmp_path / name, pictures, times=times, time_base=Fraction(1, 1000)))
    frames = list(clip.frames())
    assert [frame.time * clip.time_base for frame in frames] == [Fraction(time, 1000) for time in times]
    assert all(close(frame.image, picture) for frame, picture in zip(frames, pictures, strict=True))
    assert not clip.notes


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mts"])
def test_pictures_that_begin_later_than_the_sound_keep_their_delay(tmp_path: Path, name: str):
    kind = "mpegts" if name == "a.mts" else None
    clip = open_video(write_video(tmp_path / name, squares(4), times=[5, 6, 7, 8], sound=True, kind=kind))
    assert clip.notes == ("its sound is not copied",)
    times = [float(frame.time * clip.time_base) for frame in clip.frames()]
    assert np.diff(times) == pytest.approx([0.04] * 3, abs=0.001)
    assert 0.15 < times[0] < 0.35  # the encoder of the sound begins 0.128 s before its first sample


def test_a_clip_of_odd_size(tmp_path: Path):
    pictures = squares(3, size=(33, 47))
    clip = open_video(write_video(tmp_path / "a.mp4", pictures))
    assert (clip.size_hw, clip.length) == ((33, 47), 3)
    assert all(close(frame.image, picture) for frame, picture in zip(clip.frames(), pictures, strict=True))


@pytest.mark.parametrize(
    ("matrix", "turned"),
    [
        # a b c d of x' = a x + c y, y' = b x + d y
        ((0, 1, -1, 0), lambda picture: np.rot90(picture, -1)),
        ((-1, 0, 0, -1), lambda picture: np.rot90(picture, 2)),
        ((0, -1, 1, 0), lambda picture: np.rot90(picture, 1)),
        ((-1, 0, 0, 1), lambda picture: picture[:, ::-1]),
        ((0, 1, 1, 0), lambda picture: picture.swapaxes(0, 1)),
    ],
)
def test_rotation_and_mirroring_are_applied(tmp_path: Path, matrix: tuple[int, ...], turned):
    def bytes_of(a: int, b: int, c: int, d: int) -> bytes:
        return struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)

    path, pictures = tmp_path / "a.mp4", squares(7, size=(30, 48))
    content = write_video(path, pictures).read_bytes()
    place = content.index(bytes_of(1, 0, 0, 1), content.index(b"tkhd"))
    path.write_bytes(content[:place] + bytes_of(*matrix) + content[place + 36 :])
    clip = open_video(path)
    assert clip.size_hw == turned(pictures[0]).shape[:2]
    assert all(close(frame.image, turned(picture)) for frame, picture in zip(clip.frames(), pictures, strict=True))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mts", "a.avi", "a.h264"])
def test_reading_goes_on_after_any_frame(tmp_path: Path, name: str):
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    kind = {"mts": "mpegts"}.get(name[2:])
    clip = open_video(write_video(tmp_path / name, squares(31), codec=codec, kind=kind))
    frames = list(clip.frames())
    assert len(frames) == 31
    for index in (0, 1, 11, 12, 13, 25, 29, 30):
        rest = list(clip.frames(after=frames[index].time))
        assert [frame.time for frame in rest] == [frame.time for frame in frames[index + 1 :]]
        assert all(torch.equal(one.image, other.image) for one, other in zip(rest, frames[index + 1 :], strict=True))


@pytest.mark.parametrize(("name", "index_first"), [("a.mp4", True), ("a.mkv", False), ("a.webm", False)])
def test_a_truncated_file_gives_its_good_frames_and_says_so(tmp_path: Path, name: str, index_first: bool):
    pictures = [np.random.default_rng(index).integers(0, 256, (32, 48, 3), np.uint8) for index in range(40)]
    path = tmp_path / name
    write_video(path, pictures, index_first=index_first, codec="libvpx" if name == "a.webm" else "libx264")
    whole = [frame.image for frame in open_video(path).frames()]
    frames, damage = read_to_the_end(cut(path, 0.6))
    assert "truncated" in damage
    assert 15 <= len(frames) <= 30
    assert all(torch.equal(frame.image, image) for frame, image in zip(frames, whole, strict=False))


def test_a_recording_with_a_gap_is_damaged_and_not_truncated(tmp_path: Path):
    """Packets of an MPEG transport stream are numbered, so that a lost one shows."""
    pictures = [np.random.default_rng(index).integers(0, 256, (32, 48, 3), np.uint8) for index in range(40)]
    path, packet = write_video(tmp_path / "a.mts", pictures, kind="mpegts"), 188
    content = path.read_bytes()
    inner = [place for place in range(0, len(content), packet) if content[place + 1 : place + 3] == b"\x01\x00"]
    lost = inner[len(inner) // 2]  # of the pictures' stream, and not the first of a frame
    path.write_bytes(content[:lost] + content[lost + packet :])
    frames, damage = read_to_the_end(path)
    assert 5 <= len(frames) < 40
    assert damage.startswith("damaged")


def test_a_file_damaged_in_the_middle_ends_there(tmp_path: Path):
    pictures = [np.random.default_rng(index).integers(0, 256, (32, 48, 3), np.uint8) for index in range(40)]
    path = write_video(tmp_path / "a.mp4", pictures, index_first=True)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = b"\xff" * 4000
    path.write_bytes(content)
    frames, damage = read_to_the_end(path)
    assert 5 <= len(frames) <= 25
    assert damage.startswith("damaged")


def test_what_is_no_video_is_told_in_one_line(tmp_path: Path):
    def told(name: str, content: bytes) -> str:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError) as refusal:
            open_video(tmp_path / name)
        return str(refusal.value).removeprefix(f"{tmp_path}/")

    assert told("a.mp4", b"") == "a.mp4: the file is empty"
    assert told("a.txt", b"hello\n" * 100).startswith("a.txt: not a video, or one without a frame (600 bytes; ")
    whole = write_video(tmp_path / "whole.mp4", squares(9)).read_bytes()
    assert told("b.mp4", whole[: len(whole) * 6 // 10]) == (
        "b.mp4: an MP4 whose index is missing, as in one that was cut short; no frame of it can be read"
    )
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16000))
    assert told("a.wav", (tmp_path / "sound.wav").read_bytes()) == (
        "a.wav: holds no video, only audio; expected a file with a video stream"
    )
    with pytest.raises(DataError, match=r"gone\.mp4: no such file"):
        open_video(tmp_path / "gone.mp4")
    with pytest.raises(DataError, match="directory"):
        open_video(tmp_path)


@pytest.mark.parametrize(
    ("name", "codec", "known", "unknown"),
    [
        ("a.mp4", "libx264", b"avc1", b"xyz1"),
        ("a.mkv", "libx264", b"V_MPEG4/ISO/AVC", b"V_MPEG9/ISO/XYZ"),
        ("a.avi", "mpeg4", b"FMP4", b"QQQQ"),
    ],
)
def test_an_unknown_codec_is_told(tmp_path: Path, name: str, codec: str, known: bytes, unknown: bytes):
    path = write_video(tmp_path / name, squares(3), codec=codec)
    path.write_bytes(path.read_bytes().replace(known, unknown))
    with pytest.raises(DataError, match=f"{name}: its codec is unknown to FFmpeg; con"):
        open_video(path)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a.mp4", r"an MP4 in which no frame can be found \(it holds nothing\)"),
        ("a.mkv", r"not a video, or one without a frame \(\d+ bytes; end of file\)"),
    ],
)
def test_a_video_of_no_frames_is_told(tmp_path: Path, name: str, told: str):
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        container.start_encoding()
    with pytest.raises(DataError, match=f"(?i){name}: {told}$"):
        open_video(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\0\0\0\x10ftypisom\0\0\0\0" + b"\0\0\0\1mdat\0\0\0\0\0\0\0\x14abcd", "whose index is missing"),
        (b"\0\0\0\1mdat\0\0\0\0\0\0\0\x14abcd" + b"\0\0\0\x0cmoovabcd", "in which no frame can be found"),
        (b"\0\0\0\0ftyp" + bytes(40), "whose index is missing"),
        (b"\0\0\0\3ftyp" + bytes(40), "whose index is missing"),
        (b"\0\0\0\1mdat" + b"\xff" * 40, "whose index is missing"),
    ],
)
def test_parts_of_an_mp4_are_told(tmp_path: Path, content: bytes, told: str):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(DataError, match=f"a.mp4: an MP4 {told}"):
        open_video(tmp_path / "a.mp4")


def test_titles_in_any_encoding_do_not_matter(tmp_path: Path):
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Grosse Fahrt"
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for picture in squares(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    assert b"Grosse" in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(b"Grosse", b"Gro\xdfe "))  # ISO 8859-1
    assert len(list(open_video(path).frames())) == 3


@pytest.mark.parametrize(("transfer", "told"), [(1, False), (16, True), (18, True)])
def test_a_high_dynamic_range_is_noted(tmp_path: Path, transfer: int, told: bool):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p10le"
        stream.codec_context.color_trc = transfer
        for picture in squares(3):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p10le")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    clip = open_video(path)
    assert len(list(clip.frames())) == 3
    assert [("high dynamic range" in note) for note in clip.notes] == [True] * told


def test_frames_above_the_limit_are_refused(tmp_path: Path):
    path = write_video(tmp_path / "a.mp4", squares(2))
    with pytest.raises(DataError, match=r"frames of 0\.0 megapixels \(32×48\), at most 0\.001 are allowed"):
        open_video(path, max_megapixels=0.001)


def test_what_is_taken_for_a_video(tmp_path: Path):
    video = write_video(tmp_path / "a.mp4", squares(3))
    assert is_video(video)
    assert is_video(video.rename(tmp_path / "recording"))
    picture = tmp_path / "picture"
    Image.fromarray(squares(1)[0]).save(picture, format="PNG")
    (tmp_path / "notes.txt").write_text("hello\n" * 100)
    assert not is_video(picture)
    assert not is_video(tmp_path / "notes.txt")
    assert not is_video(tmp_path / "photo.jpg")
    assert is_video(tmp_path / "gone.MP4")  # opening it says what is wrong


def test_a_folder_of_frames(tmp_path: Path):
    pictures = squares(11)
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"frame_{index}.png")
    files = by_number(sorted(tmp_path.iterdir()))
    assert [file.name for file in files] == [f"frame_{index}.png" for index in range(11)]
    clip = open_images(files, tmp_path, frame_rate=12.5)
    assert (clip.length, clip.size_hw, clip.time_base) == (11, (32, 48), Fraction(2, 25))
    frames = list(clip.frames())
    assert [frame.time for frame in frames] == list(range(11))
    assert all(
        np.array_equal(frame.image.permute(1, 2, 0), picture) for frame, picture in zip(frames, pictures, strict=True)
    )
    assert [frame.time for frame in clip.frames(after=8)] == [9, 10]
    before = clip.identity()
    cut(files[6], 0.5)
    assert clip.identity() != before
    seen = clip.frames()
    assert [next(seen).time for _ in range(6)] == list(range(6))
    with pytest.raises(DamagedClipError, match=r"frame_6\.png: truncated PNG.*; repair or remove it"):
        next(seen)
    Image.fromarray(pictures[0][:20]).save(files[2])
    seen = clip.frames(after=1)
    with pytest.raises(DamagedClipError, match=r"frame_2\.png is 20×48, the frames before are 32×48; resize or rem"):
        next(seen)
    with pytest.raises(DataError, match="no images there for the frames of a clip"):
        open_images([], tmp_path)


def test_a_frame_of_another_size_ends_the_clip(tmp_path: Path):
    first = write_video(tmp_path / "a.h264", squares(6)).read_bytes()
    second = write_video(tmp_path / "b.h264", squares(6, size=(40, 64))).read_bytes()
    (tmp_path / "a.h264").write_bytes(first + second)
    frames, damage = read_to_the_end(tmp_path / "a.h264")
    assert len(frames) == 6
    assert damage == "the next frame is 40×64, the frames before are 32×48"


def test_colours_of_the_standard_for_large_pictures(tmp_path: Path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = 1, 1
        frame = av.VideoFrame(32, 32, "yuv420p")
        # pure green by ITU-R BT.709 in 8 bits: Y 173, Cb 42, Cr 26
        for plane, value in zip(frame.planes, (173, 42, 26), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    image = next(iter(open_video(path).frames())).image
    assert (image[:, 16, 16].int() - torch.tensor([0, 255, 0])).abs().max() <= 3


def test_frames_that_were_read_are_let_go(tmp_path: Path):
    write_video(tmp_path / "a.mp4", squares(30))
    gc.collect()
    gc.disable()  # what would be found in circles stays, and is counted
    try:
        for _ in open_video(tmp_path / "a.mp4").frames():
            pass
        assert sum(isinstance(one, av.VideoFrame) for one in gc.get_objects()) < 5
    finally:
        gc.enable()
