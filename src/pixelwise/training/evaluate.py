"""Judging a model, or files that one wrote, on a data set, image by image."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch.utils.data import DataLoader, Dataset

from pixelwise.contracts import Metric
from pixelwise.data.parallel import prepare_reader, reader_start_method
from pixelwise.errors import DataError
from pixelwise.inference.predictor import Predictor
from pixelwise.training.order import Samples
from pixelwise.types import Annotation, Sample


class Answers(Protocol):
    """Something that says what it sees in a sample: a model, or files that a model wrote."""

    def __call__(self, sample: Sample) -> Annotation:
        """The prediction, at the sample's original size. Raises DataError when there is none."""
        ...


@dataclass(frozen=True)
class Judged:
    """What became of an image.

    Attributes:
        index: its place in the data set.
        failure: why it was not counted, one line that names the file; None if it was.
    """

    index: int
    failure: str | None = None


def evaluate(
    answers: Answers,
    samples: Samples,
    metric: Metric,
    *,
    workers: int = 0,
    indices: Sequence[int] | None = None,
    go_on: bool = False,
    watch: Callable[[Sample, Annotation], None] | None = None,
) -> Generator[Judged]:
    """Predict and count samples one after the other, and say so after each.

    Two images are held at most (and two more for each worker), whatever the size of the set.

    Args:
        answers: what is judged.
        samples: with the truth.
        metric: is updated once for each sample.
        workers: processes that read images.
        indices: which samples; None takes all.
        go_on: leave out an image that cannot be read or judged, and yield why.
        watch: is shown every counted sample with its prediction.

    Raises:
        DataError: the first such image, unless `go_on`.
    """
    chosen = range(len(samples)) if indices is None else indices
    for index, read in zip(chosen, _read_each(samples, chosen, workers=workers), strict=True):
        try:
            sample = read.sample()
            predicted = answers(sample)
            metric.update(predicted, sample.truth, id=sample.id, clip=sample.clip, frame=sample.frame)
        except DataError as error:
            if not go_on:
                raise
            yield Judged(index, " ".join(str(error).splitlines()))
        else:
            if watch is not None:
                watch(sample, predicted)
            yield Judged(index)


def model_answers(
    predictor: Predictor, *, input_size: int | None = None, tile: bool = False, tta: bool = False
) -> Answers:
    """A model as what is judged, with the options of prediction."""

    def answer(sample: Sample) -> Annotation:
        return predictor.annotate(sample.image, input_size=input_size, tile=tile, tta=tta)

    return answer


@dataclass(frozen=True)
class _Read:
    """A sample, or the error in its stead: an exception would leave a worker process with its traceback for text."""

    content: Sample | DataError

    def sample(self) -> Sample:
        if isinstance(self.content, DataError):
            raise self.content
        return self.content


class _Reader(Dataset[_Read]):
    """Reads the chosen samples."""

    def __init__(self, samples: Samples, indices: Sequence[int]) -> None:
        self.samples, self.indices = samples, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> _Read:
        try:
            return _Read(self.samples[self.indices[place]])
        except DataError as error:
            return _Read(error)


def _read_each(samples: Samples, indices: Sequence[int], *, workers: int) -> Iterator[_Read]:
    """The chosen samples in order, read by `workers` processes or by this one."""
    reader = _Reader(samples, indices)
    if not workers:
        for place in range(len(reader)):
            yield reader[place]
        return
    loader: DataLoader[_Read] = DataLoader(
        reader,
        batch_size=None,
        num_workers=workers,
        worker_init_fn=prepare_reader,
        multiprocessing_context=reader_start_method(),
    )
    yield from loader
