"""Videos grow by whole fragments, and are ordinary ones at the end."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pixelwise.errors import DataError
from pixelwise.inference.video.output import ENCODERS, VideoOutput, join
from tests.small_videos import read_video, squares

BASE = Fraction(1, 1000)
TIMES = [0, 40, 80, 200, 210, 500, 1500, 1540, 1580, 1620, 1700]
PICTURES = [np.ascontiguousarray(picture) for picture in squares(11, size=(33, 47))]


def output(path: Path, **changes) -> VideoOutput:
    return VideoOutput(path, **{"size_hw": (33, 47), "time_base": BASE, **changes})


def written(path: Path, *, commits: tuple[int, ...] = (3, 8), **changes) -> VideoOutput:
    path.touch()
    video = output(path, **changes)
    for index, (picture, time) in enumerate(zip(PICTURES, TIMES, strict=True)):
        video.add(picture, time, 40)
        if index in commits:
            video.append_fragment()
    video.append_fragment()
    return video


@pytest.mark.parametrize("encoder", list(ENCODERS))
@pytest.mark.parametrize("joined", [False, True])
def test_pictures_and_times_are_read_back(tmp_path: Path, encoder: str, joined: bool):
    path = tmp_path / "a.mp4"
    assert written(path, encoder=encoder).length == path.stat().st_size
    if joined:
        join(path, tmp_path / "b.mp4")
        path = tmp_path / "b.mp4"
        with av.open(str(path)) as container:
            assert container.streams.video[0].frames == len(TIMES)
        assert path.read_bytes().index(b"moov") < path.read_bytes().index(b"mdat")
    pictures, times = read_video(path)
    assert times == pytest.approx([time / 1000 for time in TIMES], abs=1e-6)
    for picture, wanted in zip(pictures, PICTURES, strict=True):
        assert picture.shape == (34, 48, 3)
        assert np.abs(picture[:33, :47].astype(int) - wanted).mean() < 6
        # the doubled row and column, the colours of which are those of their neighbours
        assert np.abs(picture[33].astype(int) - picture[32]).mean() < 6
        assert np.abs(picture[:, 47].astype(int) - picture[:, 46]).mean() < 6


def test_every_commit_leaves_a_video_that_plays(tmp_path: Path):
    path = tmp_path / "a.mp4"
    path.touch()
    video = output(path)
    for index, (picture, time) in enumerate(zip(PICTURES, TIMES, strict=True)):
        video.add(picture, time, 40)
        if index % 3 == 2:
            video.append_fragment()
            assert len(read_video(path)[0]) == index + 1


def test_another_run_goes_on_and_writes_over_what_a_kill_left(tmp_path: Path):
    whole, path = tmp_path / "whole.mp4", tmp_path / "a.mp4"
    written(whole, commits=(5,))
    path.touch()
    first = output(path)
    for picture, time in zip(PICTURES[:6], TIMES[:6], strict=True):
        first.add(picture, time, 40)
    first.append_fragment()
    path.write_bytes(path.read_bytes() + b"half of a fragment")
    second = output(path, length=first.length, fragments=first.fragments)
    for picture, time in zip(PICTURES[6:], TIMES[6:], strict=True):
        second.add(picture, time, 40)
    second.append_fragment()
    assert path.read_bytes() == whole.read_bytes()


def test_one_frame_and_none(tmp_path: Path):
    path = tmp_path / "a.mp4"
    path.touch()
    video = output(path)
    video.append_fragment()
    assert path.stat().st_size == 0
    video.add(PICTURES[0], 7000, 40)
    video.append_fragment()
    assert read_video(path)[1] == [7.0]


def test_the_shape_of_pixels_is_kept(tmp_path: Path):
    written(tmp_path / "a.mp4", pixel_aspect=Fraction(16, 11))
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].codec_context.sample_aspect_ratio == Fraction(16, 11)


@pytest.mark.parametrize("base", [Fraction(1001, 30000), Fraction(1, 90_000), Fraction(1, 1_000_000_000)])
def test_units_of_time(tmp_path: Path, base: Fraction):
    path = tmp_path / "a.mp4"
    path.touch()
    video = output(path, time_base=base)
    times = [round(index / 29.97 / base) for index in range(7)]
    for index, time in enumerate(times):
        video.add(PICTURES[index], time, times[1])
        if index == 3:
            video.append_fragment()
    video.append_fragment()
    assert read_video(path)[1] == pytest.approx([float(time * base) for time in times], abs=1e-4)


@pytest.mark.parametrize("encoder", list(ENCODERS))
def test_pictures_that_cannot_be_encoded_are_told(tmp_path: Path, encoder: str):
    output(tmp_path / "a.mp4", size_hw=(8, 4096), encoder=encoder).require_possible()
    for size, told in (((20_000, 8), "20,000×8"), ((8, 70_000), "8×70,000")):
        video = output(tmp_path / "a.mp4", size_hw=size, encoder=encoder)
        with pytest.raises(DataError, match=f"a.mp4: {encoder} does not support frames of {told}; make them smaller"):
            video.require_possible()


def test_a_file_that_holds_no_video_any_more_is_named(tmp_path: Path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        sound = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux([*sound.encode(frame), *sound.encode(None)])
    with pytest.raises(DataError, match=r"a\.mp4: holds no video any more"):
        join(tmp_path / "a.mp4", tmp_path / "b.mp4")
