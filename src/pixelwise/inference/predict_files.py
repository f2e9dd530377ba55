"""Predicting many files: reading ahead and writing behind while the network computes, and resuming a run."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import UInt8
from torch import Tensor

from pixelwise.data.images import image_size, read_image
from pixelwise.errors import DataError
from pixelwise.inference.image_files import ImageFile
from pixelwise.inference.predictor import Options, Predictor
from pixelwise.inference.results_file import ResultsFile, as_line
from pixelwise.inference.scene import OVERLAY_SUFFIX, Scene

PIXELS_IN_FLIGHT = 50_000_000
"""Images read ahead and written behind have no more pixels together; a larger one is alone."""


@dataclass(frozen=True)
class Job:
    """What a run does with each image.

    Attributes:
        predictor: the model.
        weights: a digest of the model's folder, so that a model written anew is another model.
        options: how images are looked at.
        out: the folder of results.
        max_megapixels: images with more pixels are refused.
        workers: how many images are read ahead, and how many are written behind, at most (see also PIXELS_IN_FLIGHT);
            0 does all in turn.
    """

    predictor: Predictor
    weights: str
    options: Options
    out: Path
    max_megapixels: float
    workers: int

    def identity(self, image: ImageFile) -> dict[str, Any]:
        """What must agree for an image to count as done: path, size, time, model and options."""
        status = image.path.stat()
        options = asdict(self.options)
        return {
            "image": image.path.as_posix(),
            "file": {"bytes": status.st_size, "modified": status.st_mtime},
            "model": self.predictor.name,
            "weights": self.weights,
            "options": {**options, "input_size": self.options.input_size or self.predictor.card.input_size},
        }


class _Read(NamedTuple):
    image: ImageFile
    pixels: int
    future: Future[UInt8[Tensor, "3 H W"]]


class _Written(NamedTuple):
    image: ImageFile
    pixels: int
    future: Future[dict[str, Any]]


@dataclass(frozen=True)
class Outcome:
    """What became of an image.

    Attributes:
        image: which.
        files: what was written, relative to the folder of results; empty after a failure.
        line: its line in `results.jsonl`.
        failure: why there is none, one line that names the file.
    """

    image: ImageFile
    files: tuple[str, ...] = ()
    line: str = ""
    failure: str = ""


def done_before(images: Sequence[ImageFile], job: Job, results: ResultsFile) -> Iterator[Outcome]:
    """The images that `results` holds as done with the same model and options, in the file as it is now."""
    for image in images:
        try:
            identity = job.identity(image)
        except OSError:  # gone since it was found; reading it will say so
            continue
        if results.holds(identity, files=[_overlay_name(image)]):
            yield Outcome(image, files=results.files_of(identity["image"]), line=results.line_of(identity["image"]))


def predict_files(images: Sequence[ImageFile], job: Job, results: ResultsFile) -> Generator[Outcome]:
    """Predict images and write their results, one line of `results` each, in the order of the images.

    Results of these images that are there already are replaced. When the generator is closed or interrupted, what the
    network has answered is still written.

    Yields:
        what became of each image, once it is on the disk; failures as soon as they are known.

    Raises:
        DataError: the folder of results cannot be written.
    """
    try:
        results.forget([image.path.as_posix() for image in images], files=[_overlay_name(image) for image in images])
    except OSError as error:
        raise _unwritable(job.out, error) from None
    waiting = deque(images)
    reading: deque[_Read] = deque()
    writing: deque[_Written] = deque()

    def fits(pixels: int) -> bool:
        in_flight = sum(one.pixels for one in (*reading, *writing))
        return not in_flight or in_flight + pixels <= PIXELS_IN_FLIGHT

    with _threads(job.workers) as readers, _threads(job.workers) as writers:
        try:
            while waiting or reading:
                while waiting and len(reading) < max(1, job.workers) and fits(pixels := _pixels(waiting[0], job)):
                    image = waiting.popleft()
                    future = readers.submit(read_image, image.path, max_megapixels=job.max_megapixels)
                    reading.append(_Read(image, pixels, future))
                if not reading or len(writing) >= max(1, job.workers):
                    yield _finish(writing.popleft(), job, results)
                    continue
                image, pixels, future = reading.popleft()
                try:
                    identity = job.identity(image)
                    scene = _look(job, future.result(), image)
                except (DataError, OSError) as error:
                    yield _failure(image, error)
                    continue
                writing.append(_Written(image, pixels, writers.submit(_write, scene, identity, image, job)))
                del scene, future  # or a large image would be held while the next one is read
            while writing:
                yield _finish(writing.popleft(), job, results)
        finally:
            for one in writing:  # the generator was closed, or something failed: nobody waits for these any more
                with suppress(DataError):
                    _finish(one, job, results)


def _pixels(image: ImageFile, job: Job) -> int:
    """How many an image has, by its header; 0 where that cannot be read, which reading will say."""
    try:
        height, width = image_size(image.path, max_megapixels=job.max_megapixels)
    except DataError:
        return 0
    return height * width


def _look(job: Job, pixels: UInt8[Tensor, "3 H W"], image: ImageFile) -> Scene:
    try:
        return job.predictor.scene(pixels, job.options, name=image.path.as_posix())
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):  # torch has no class of its own for the CPU
            raise
        height, width = pixels.shape[1:]
        raise DataError(
            f"{image.path}: {height:,}×{width:,} pixels need more memory than there is; use a smaller --input-size"
        ) from None


def _write(scene: Scene, identity: dict[str, Any], image: ImageFile, job: Job) -> dict[str, Any]:
    """Write the files; the line that will say that they are whole."""
    paths = scene.save(job.out / image.stem)
    files = [path.relative_to(job.out).as_posix() for path in paths]
    return {**scene.record(), **identity, "files": files}


def _finish(written: _Written, job: Job, results: ResultsFile) -> Outcome:
    """Wait for an image's files, and write its line."""
    try:
        record = written.future.result()
        results.append(record)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return _failure(written.image, error)
        raise _unwritable(job.out, error) from None
    return Outcome(written.image, files=tuple(record["files"]), line=as_line(record))


def _unwritable(out: Path, error: OSError) -> DataError:
    return DataError(f"{out}: results cannot be written ({error.strerror}); free some room or choose another --out")


def _failure(image: ImageFile, error: Exception) -> Outcome:
    text = str(error) if isinstance(error, DataError) else f"{image.path}: {getattr(error, 'strerror', None) or error}"
    return Outcome(image, failure=" ".join(text.split()))


def _overlay_name(image: ImageFile) -> str:
    return f"{image.stem.as_posix()}{OVERLAY_SUFFIX}"


@contextmanager
def _threads(count: int) -> Iterator[Executor]:
    """Threads that, when left, finish what they have begun or been given to write and forget what was not begun."""
    executor = ThreadPoolExecutor(count) if count else _ThisThread()
    try:
        yield executor
    finally:
        executor.shutdown(wait=True)


class _ThisThread(Executor):
    """Does the work when it is submitted."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future
