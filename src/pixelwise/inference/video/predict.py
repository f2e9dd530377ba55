"""Predict a clip frame by frame: reading, network and writing overlap, and a stopped run continues.

A few frames are held at a time, whatever the length of the clip: one thread reads ahead, the caller's own computes, and
another draws, compresses and writes. Frames are written in commits: the video, the lines, and last the state that
counts them, so that the next run truncates everything after the last commit.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from av.error import FFmpegError

from pixelwise.drawing.draw import DRAWN_SCORE
from pixelwise.errors import DataError
from pixelwise.inference.predictor import Options, Predictor
from pixelwise.inference.scene import Scene
from pixelwise.inference.video.freed_memory import give_back_freed_memory
from pixelwise.inference.video.input import Clip, DamagedClipError, Frame
from pixelwise.inference.video.output import VideoOutput, join
from pixelwise.inference.video.state import ClipMemory, ClipProgress, read_state, write_state
from pixelwise.inference.video.tracking import track
from pixelwise.predictions.lines import as_line

COMMIT_FRAMES = 48
"""Largest number of frames in a commit and a fragment of the video."""

COMMIT_SECONDS = 10.0
"""Seconds after which frames are committed, which bounds the work that a kill loses."""

FRAMES_AHEAD = FRAMES_BEHIND = 2
"""Number of frames that wait before the network and after it."""


@dataclass(frozen=True)
class VideoJob:
    """What a run does with a clip.

    Attributes:
        predictor: the model.
        weights: a digest of the model's folder.
        options: of the predictor.
        tracks: track the instances of a model that runs on each frame by itself.
        video: the overlays, an MP4.
        lines: a line of JSON for each frame.
    """

    predictor: Predictor
    weights: str
    options: Options
    tracks: bool
    video: Path
    lines: Path

    @property
    def state(self) -> Path:
        """The file of the run's state."""
        return self.video.with_name(f".{self.video.name}.state")

    def identity(self, clip: Clip) -> dict[str, Any]:
        """Values that must agree for a run to continue another."""
        options = asdict(self.options)
        return {
            "clip": clip.path.as_posix(),
            "file": clip.identity(),
            "model": self.predictor.name,
            "weights": self.weights,
            "options": {
                **options,
                "input_size": self.predictor.resize_rule(self.options).input_size,
                "track": self.tracks,
            },
        }


@dataclass(frozen=True)
class Begun:
    """The existing results of a clip.

    Attributes:
        progress: of the results.
        memory: for the next frame.
        is_done: whether the clip is complete.
    """

    progress: ClipProgress
    memory: ClipMemory
    is_done: bool = False


def look_for_results(clip: Clip, job: VideoJob, *, overwrite: bool = False) -> Begun:
    """Read the results of an earlier run of a clip.

    Args:
        clip: the clip.
        job: the job.
        overwrite: ignore them.

    Raises:
        DataError: there are results of another clip, model or options, or files that this program did not write.
        RecipeError: the options are impossible for the model on clips.
    """
    job.predictor.require_possible(job.options)
    if job.tracks:
        job.predictor.require_trackable()
    identity = job.identity(clip)
    nothing = Begun(ClipProgress(identity=identity), ClipMemory())
    if overwrite:
        return nothing
    try:
        found = read_state(job.state, job.predictor.device)
    except OSError as error:
        raise DataError(f"{job.video}: cannot be written ({error.strerror or error}); choose another --out") from None
    if found is None:
        for path in (job.video, job.lines):
            if path.exists():
                raise DataError(f"{path}: is there already, and not from a run like this; --overwrite replaces it")
        return nothing
    progress, memory = found
    if progress.identity != identity:
        raise DataError(f"{job.video}: was begun {_difference(progress.identity, identity)}; --overwrite begins anew")
    video, lines = (path.stat().st_size if path.exists() else -1 for path in (job.video, job.lines))
    if video == progress.joined_bytes and lines == progress.lines_bytes:
        return Begun(progress, memory, is_done=True)
    if video < progress.video_bytes or lines < progress.lines_bytes:  # a part was removed
        return nothing
    return Begun(progress, memory)


def predict_video(clip: Clip, job: VideoJob, begun: Begun) -> Generator[str]:
    """Predict the frames that are not done, and write video, lines and state.

    When the generator is closed or interrupted, computed frames are still written.

    Yields:
        the line of each frame, in order, once it is drawn.

    Raises:
        DataError: the results cannot be written; or the clip is damaged: the frames before are written.
    """
    if begun.is_done:
        if begun.progress.failure:
            raise DataError(begun.progress.failure)
        return
    try:
        yield from _predict(clip, job, begun)
    except (OSError, FFmpegError) as error:
        raise DataError(
            f"{job.video}: cannot be written ({error.strerror or error}); free some room or choose another --out"
        ) from None


def _predict(clip: Clip, job: VideoJob, begun: Begun) -> Generator[str]:
    results = _Results(clip, job, begun)
    results.make_room()
    memory, failure = begun.memory, ""
    frames = clip.frames(after=begun.progress.time)
    behind: deque[Future[Any]] = deque()
    with ThreadPoolExecutor(1) as reading, ThreadPoolExecutor(1) as writing:
        ahead: deque[Future[Frame | None]] = deque(reading.submit(next, frames, None) for _ in range(FRAMES_AHEAD))
        try:
            while True:
                try:
                    frame = ahead.popleft().result()
                except DamagedClipError as damage:
                    failure = str(damage)
                    break
                if frame is None:
                    break
                ahead.append(reading.submit(next, frames, None))
                scene, memory = _look(frame, job, memory)
                behind.append(writing.submit(results.add, frame, scene, memory))
                while len(behind) > FRAMES_BEHIND:
                    yield behind.popleft().result()
            while behind:
                yield behind.popleft().result()
            failure = writing.submit(results.finish, failure).result()
        finally:
            for future in ahead:
                future.cancel()
            behind.append(writing.submit(results.commit))  # submitted before waiting, which may be interrupted again
            reading.submit(frames.close)
            with suppress(Exception):  # its error was reported, or follows another that was
                for future in behind:
                    future.result()
    if failure:
        raise DataError(failure)


def _look(frame: Frame, job: VideoJob, memory: ClipMemory) -> tuple[Scene, ClipMemory]:
    """The prediction of the model and the tracker for a frame."""
    predictor = job.predictor
    begin = time.perf_counter()
    annotation, of_model = predictor.annotate_frame(frame.image, memory.model, job.options)
    annotation = annotation.to("cpu")
    of_tracking = memory.tracking
    if job.tracks:
        least = DRAWN_SCORE if job.options.score_threshold is None else job.options.score_threshold
        annotation, of_tracking = track(annotation, of_tracking, num_classes=len(predictor.labels), min_score=least)
    seconds = time.perf_counter() - begin
    scene = Scene(
        frame.image,
        annotation,
        predictor.labels,
        seconds=seconds,
        model=predictor.name,
        is_tracked=job.tracks or predictor.gives_identities,
    )
    return scene, ClipMemory(of_model, of_tracking)


class _Results:
    """The three files of a clip, written by one thread."""

    def __init__(self, clip: Clip, job: VideoJob, begun: Begun) -> None:
        self._clip, self._job = clip, job
        self._progress, self._memory = begun.progress, begun.memory
        self._video = VideoOutput(
            job.video,
            size_hw=clip.size_hw,
            time_base=clip.time_base,
            pixel_aspect=clip.pixel_aspect,
            length=begun.progress.video_bytes,
            fragments=begun.progress.fragments,
        )
        self._waiting: list[bytes] = []
        self._frames, self._time = begun.progress.frames, begun.progress.time
        self._committed = time.monotonic()
        self._is_broken = False

    def make_room(self) -> None:
        """Make the files, or truncate them to the state.

        Raises:
            DataError: a file has the place of a folder, or the frames are too large for a video.
        """
        folder = self._job.video.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            file = next(place for place in (folder, *folder.parents) if place.exists() and not place.is_dir())
            raise DataError(f"{file}: is a file, expected a folder for results; choose another --out") from None
        self._video.require_possible()
        if not self._progress.frames:
            write_state(self._job.state, self._progress, self._memory)
        for path, length in (
            (self._job.video, self._progress.video_bytes),
            (self._job.lines, self._progress.lines_bytes),
        ):
            with path.open("ab") as file:
                file.truncate(length)

    def add(self, frame: Frame, scene: Scene, memory: ClipMemory) -> str:
        """Draw a frame and store it for the next commit; return its line."""
        if self._is_broken:  # frames after a lost one would take its place
            raise DataError(f"{self._job.video}: a frame before this could not be written")
        self._is_broken = True
        record = scene.record()
        del record["image"]
        seconds = round(float(frame.time * self._clip.time_base), 6)
        try:
            line = as_line({"frame": self._frames, "time": seconds, **record})
        except DataError as error:
            raise DataError(f"{self._clip.path}: frame {self._frames}: {error}") from None
        self._video.add(np.asarray(scene.draw(legend=False, names=True)), frame.time, frame.duration)
        self._waiting.append(f"{line}\n".encode())
        self._frames, self._time, self._memory = self._frames + 1, frame.time, memory
        if len(self._waiting) >= COMMIT_FRAMES or time.monotonic() - self._committed >= COMMIT_SECONDS:
            self._commit()
        self._is_broken = False
        return line

    def commit(self) -> None:
        """Write the added frames to the disk."""
        if self._waiting and not self._is_broken:
            self._is_broken = True
            self._commit()
            self._is_broken = False

    def _commit(self) -> None:
        self._require_untouched()
        self._video.append_fragment()
        content = b"".join(self._waiting)
        with self._job.lines.open("ab") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self._progress = self._progress.model_copy(
            update={
                "frames": self._frames,
                "time": self._time,
                "video_bytes": self._video.length,
                "fragments": self._video.fragments,
                "lines_bytes": self._progress.lines_bytes + len(content),
            }
        )
        write_state(self._job.state, self._progress, self._memory)
        self._waiting = []
        give_back_freed_memory()
        self._committed = time.monotonic()

    def _require_untouched(self) -> None:
        """Raise DataError if the files were changed since this run wrote them."""
        for path, length in (
            (self._job.video, self._video.length),
            (self._job.lines, self._progress.lines_bytes),
        ):
            if not path.exists() or path.stat().st_size != length:
                raise DataError(
                    f"{path}: was changed while this run wrote it, perhaps by another run; start one of them again"
                )

    def finish(self, damage: str) -> str:
        """Commit the rest and make an ordinary video of the fragments; return the failure, which names the clip."""
        self.commit()
        failure = ""
        if damage:
            seconds = float((self._time or 0) * self._clip.time_base)
            last = f"its last good frame is {self._frames - 1}, at {seconds:.2f} s"
            failure = f"{self._clip.path}: {damage}; {last}, and all up to it is written"
        if self._frames:
            video = Path(os.path.realpath(self._job.video))  # a link stays a link
            joined = video.with_name(f".{video.name}.tmp")
            join(video, joined)
            length = joined.stat().st_size
            self._progress = self._progress.model_copy(update={"joined_bytes": length, "failure": failure})
            write_state(self._job.state, self._progress, ClipMemory())
            os.replace(joined, video)
        return failure


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """The difference of two identities, as words that follow `was begun`."""
    if before.get("clip") != now["clip"] or before.get("file") != now["file"]:
        return f"from another clip, or this one has changed since ({before.get('clip')})"
    if (before.get("model"), before.get("weights")) != (now["model"], now["weights"]):
        return f"with another model, {before.get('model')} and not {now['model']}, or its weights have changed"
    former: dict[str, Any] = before.get("options", {})
    changed = [
        f"{name} {former.get(name)}, now {value}" for name, value in now["options"].items() if former.get(name) != value
    ]
    return f"with other options ({'; '.join(changed)})"
