"""The part of `pixelwise predict` for clips."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pixelwise.cli.progress import image_bar
from pixelwise.cli.terminal import print
from pixelwise.errors import DataError

if TYPE_CHECKING:
    from pixelwise.inference.images.find import ImageFile
    from pixelwise.inference.video.input import Clip
    from pixelwise.inference.video.predict import Begun, VideoJob


@dataclass(frozen=True)
class ClipRun:
    """A clip, its job, and its results so far."""

    clip: Clip
    job: VideoJob
    begun: Begun


def is_video_output(out: Path) -> bool:
    """Whether `--out` names a video file, and not a folder. Raises DataError for kinds that cannot be written."""
    from pixelwise.inference.images.find import VIDEO_SUFFIXES
    from pixelwise.inference.video.output import VIDEO_OUTPUT_SUFFIXES

    suffix = out.suffix.lower()
    if suffix not in VIDEO_SUFFIXES or os.path.isdir(out):
        return False
    if suffix not in VIDEO_OUTPUT_SUFFIXES:
        raise DataError(f"--out {out}: videos are written as {', '.join(VIDEO_OUTPUT_SUFFIXES)}; name one of these")
    return True


def only_clip(inputs: Sequence[str], out: Path, *, frame_rate: float, max_megapixels: float) -> Clip:
    """The one clip of the inputs: a video file, or a folder or several images, which are its frames.

    Raises:
        DataError: there is no clip or several, or `out` would replace the clip.
    """
    from pixelwise.files.images import frame_count
    from pixelwise.inference.images.find import find_image_files, frames_in
    from pixelwise.inference.video.input import by_number, is_video, open_images, open_video

    place = Path(inputs[0])
    if len(inputs) == 1 and place.is_dir():
        files = by_number(frames_in(place))
        return open_images(files, place, frame_rate=frame_rate, max_megapixels=max_megapixels)
    files = [file.path for file in find_image_files(inputs, out=out.parent, videos=True).files]
    videos = [file for file in files if is_video(file)]
    if len(files) == 1 and videos:
        if os.path.exists(out) and out.samefile(files[0]):
            raise DataError(f"--out {out}: is the clip itself; choose another name")
        return open_video(files[0], max_megapixels=max_megapixels)
    if videos:
        raise DataError(f"--out {out}: holds one clip, and there are {len(files)} inputs; name a folder for them")
    if len(files) == 1:
        frames = frame_count(files[0], max_megapixels=max_megapixels)
        kind = "an image" if frames == 1 else f"an image of {frames:,} frames"
        advice = "name a folder for its results" + ("" if frames == 1 else ", or convert it to a video first")
        raise DataError(f"--out {out}: {files[0]} is {kind} and not a clip; {advice}")
    files = by_number(files) if len(inputs) == 1 else files
    return open_images(files, files[0].parent, frame_rate=frame_rate, max_megapixels=max_megapixels)


def video_names(video: ImageFile, out: Path) -> tuple[Path, Path]:
    """The paths of a video's results in a folder: its overlay and its lines."""
    from pixelwise.inference.images.find import LINES_SUFFIX, VIDEO_OVERLAY_SUFFIX

    return out / f"{video.stem}{VIDEO_OVERLAY_SUFFIX}", out / f"{video.stem}{LINES_SUFFIX}"


def predict_clip(run: ClipRun, *, quiet: bool, json_lines: bool) -> str:
    """Predict the rest of a clip, with a progress bar, notes and a summary.

    Returns:
        the failure, empty without one.
    """
    from pixelwise.inference.video.predict import predict_video

    clip, video = run.clip, run.job.video
    before = run.begun.progress.frames
    if json_lines and before:
        with run.job.lines.open(encoding="utf-8") as file:
            for line in _first(file, before):
                print(line.rstrip("\n"), whole=True, flush=True)
    if not quiet:
        if run.begun.is_done:
            print(f"{video}: done before, skipped; --overwrite redoes it", file=sys.stderr)
        elif before:
            print(f"{video}: {before:,} frames done before; continues after them", file=sys.stderr)
        else:
            for note in clip.notes:
                print(f"{clip.path}: {note}", file=sys.stderr)
    total = None if clip.length is None else max(0, clip.length - before)
    hidden = quiet or json_lines or run.begun.is_done
    begin, count, failure = time.monotonic(), 0, ""
    with (
        image_bar(clip.path.name, total, hidden=hidden, unit="frames") as advance,
        closing(predict_video(clip, run.job, run.begun)) as lines,
    ):
        try:
            for line in lines:
                count += 1
                advance(1)
                if json_lines:
                    print(line, whole=True, flush=True)
        except DataError as error:
            failure = str(error)
    if not (quiet or json_lines) and (before + count or not failure):
        rate = f", {count / max(time.monotonic() - begin, 1e-3):.1f} frames/s" if count else ""
        frames = "1 frame" if before + count == 1 else f"{before + count:,} frames"
        print(f"{video}  {frames}{rate}, {run.job.lines}")
    return failure


def _first(lines: Iterator[str], count: int) -> Iterator[str]:
    for _, line in zip(range(count), lines, strict=False):
        yield line
