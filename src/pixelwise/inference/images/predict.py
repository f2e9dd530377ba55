"""Predicting many files, several at a time, and resuming a run.

On the CPU one thread handles an image from reading to writing, and several images run at a time: while one is read,
drawn or compressed, another is computed, and no thread waits for another inside the network. For 200 images of VOC on
two cores that takes 1.14 of the time of the network alone, and 0.98 of that of the network and the step to ids; threads
that read and wrote beside a network that had all cores took 1.3 of the time of the network alone.
"""

from __future__ import annotations

import errno
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor

from pixelwise.errors import DataError
from pixelwise.files.images import image_size, read_image
from pixelwise.inference.images.find import ImageFile
from pixelwise.inference.predictor import Options, Predictor
from pixelwise.inference.scene import Scene
from pixelwise.predictions.lines import ResultsFile, as_line
from pixelwise.predictions.pictures import OVERLAY_SUFFIX

PIXELS_AT_ONCE = 50_000_000
"""Largest number of pixels of the images handled at a time; a larger image is handled alone."""


@dataclass(frozen=True)
class Job:
    """What a run does with each image.

    Attributes:
        predictor: the model.
        weights: a digest of the model's folder, which changes with the weights.
        options: of the predictor.
        out: the folder of results.
        max_megapixels: images with more pixels are refused.
        workers: largest number of images handled at a time (see also PIXELS_AT_ONCE), which share torch's threads;
            below 2, and for a single image, images are handled one by one with all threads. On a GPU, which takes one
            image at a time, so many images are read ahead and written behind.
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
            "options": {**options, "input_size": self.predictor.resize_rule(self.options).input_size},
        }


class _Working(NamedTuple):
    image: ImageFile
    pixels: int
    future: Future[dict[str, Any] | Outcome]


@dataclass(frozen=True)
class Outcome:
    """What became of an image.

    Attributes:
        image: the image.
        files: the written files, relative to the folder of results; empty after a failure.
        line: its line in `results.jsonl`.
        failure: why there is none, in one line that names the file.
    """

    image: ImageFile
    files: tuple[str, ...] = ()
    line: str = ""
    failure: str = ""


def done_before(images: Sequence[ImageFile], job: Job, results: ResultsFile) -> Iterable[Outcome]:
    """The images that `results` holds as done with the same model and options, in the file as it is now."""
    for image in images:
        try:
            identity = job.identity(image)
        except OSError:  # removed since; reading it raises the error
            continue
        if results.holds(identity, files=[_overlay_name(image)]):
            yield Outcome(image, files=results.files_of(identity["image"]), line=results.line_of(identity["image"]))


def predict_files(images: Sequence[ImageFile], job: Job, results: ResultsFile) -> Generator[Outcome]:
    """Predict images and write their results, one line of `results` each, in the order of the images.

    Existing results of these images are replaced. When the generator is closed or interrupted, images in progress are
    still finished and written.

    Yields:
        what became of each image, in their order, once it is on the disk.

    Raises:
        DataError: the folder of results cannot be written.
    """
    try:
        results.forget([image.path.as_posix() for image in images], files=[_overlay_name(image) for image in images])
    except OSError as error:
        raise _unwritable(job.out, error) from None
    on_gpu = job.predictor.device.type != "cpu"
    lanes = min(2 * job.workers + 1 if on_gpu and job.workers else job.workers, len(images))
    threads = torch.get_num_threads()
    turn = threading.Lock() if on_gpu else nullcontext()
    alone = partial(_predict, job=job, threads=threads, turn=turn)
    together = partial(_predict, job=job, threads=threads if on_gpu else max(1, threads // max(1, lanes)), turn=turn)
    sized = ((image, _pixels(image, job)) for image in images)
    following = next(sized, None)
    working: deque[_Working] = deque()
    job.predictor.network()  # made once, before several threads use it
    executor = ThreadPoolExecutor(max(1, lanes))
    try:
        while following or working:
            if following and not working and (lanes < 2 or following[1] > PIXELS_AT_ONCE):
                # in this thread, which an interruption reaches at once
                yield _finish(following[0], partial(alone, following[0]), job, results)
                following = next(sized, None)
            elif following and len(working) < 2 * lanes and _fits(following[1], working):
                working.append(_Working(*following, executor.submit(together, following[0])))
                following = next(sized, None)
            else:
                yield _finish(working[0].image, working.popleft().future.result, job, results)
    finally:
        for one in working:  # the generator was closed, or one failed: these are not awaited
            if not one.future.cancel():
                with suppress(Exception):
                    _finish(one.image, one.future.result, job, results)
        executor.shutdown()
        torch.set_num_threads(threads)


def _fits(pixels: int, working: Iterable[_Working]) -> bool:
    """Whether an image of so many pixels may be handled beside the others."""
    return pixels + sum(one.pixels for one in working) <= PIXELS_AT_ONCE


def _predict(
    image: ImageFile, *, job: Job, threads: int, turn: AbstractContextManager[Any]
) -> dict[str, Any] | Outcome:
    """Read, predict and write one image; return its line, or the failure."""
    if torch.get_num_threads() != threads:  # torch has one such number for each thread
        torch.set_num_threads(threads)
    try:
        identity = job.identity(image)
        pixels = read_image(image.path, max_megapixels=job.max_megapixels)
        with turn:
            scene = _look(job, pixels, image)
        record = _record(scene, image)
    except (DataError, OSError) as error:
        return _failure(image, error)
    paths = scene.save(job.out / image.stem)
    files = [path.relative_to(job.out).as_posix() for path in paths]
    return {**record, **identity, "files": files}


def _record(scene: Scene, image: ImageFile) -> dict[str, Any]:
    """The scene's line. Raises DataError, before any file is written, where JSON cannot hold a value."""
    record = scene.record()
    try:
        as_line(record)
    except DataError as error:
        raise DataError(f"{image.path}: {error}") from None
    return record


def _pixels(image: ImageFile, job: Job) -> int:
    """Number of pixels of an image by its header; 0 where that cannot be read, for which reading raises the error."""
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


def _finish(
    image: ImageFile, answer: Callable[[], dict[str, Any] | Outcome], job: Job, results: ResultsFile
) -> Outcome:
    """Wait for an image's files, and write its line."""
    try:
        record = answer()
        if isinstance(record, Outcome):
            return record
        results.append(record)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return _failure(image, error)
        raise _unwritable(job.out, error) from None
    return Outcome(image, files=tuple(record["files"]), line=as_line(record))


def _unwritable(out: Path, error: OSError) -> DataError:
    return DataError(f"{out}: results cannot be written ({error.strerror}); free some room or choose another --out")


def _failure(image: ImageFile, error: Exception) -> Outcome:
    text = str(error) if isinstance(error, DataError) else f"{image.path}: {getattr(error, 'strerror', None) or error}"
    return Outcome(image, failure=" ".join(text.split()))


def _overlay_name(image: ImageFile) -> str:
    return f"{image.stem.as_posix()}{OVERLAY_SUFFIX}"
