"""Judging a model on a data set, image by image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from torch.utils.data import DataLoader, Subset

from pixelwise.contracts import Metric
from pixelwise.inference.predictor import Predictor
from pixelwise.training.order import Samples, prepare_reader, reader_start_method
from pixelwise.types import Annotation, Sample


class Answers(Protocol):
    """Something that says what it sees in a sample: a model, or files that a model wrote."""

    def __call__(self, sample: Sample) -> Annotation:
        """The prediction, at the sample's original size."""
        ...


def evaluate(answers: Answers, samples: Samples, metric: Metric, *, workers: int = 0) -> Iterator[str]:
    """Predict and count every sample, and yield its id afterwards.

    One image is held at a time (and two for each worker), whatever the size of the set.

    Args:
        answers: what is judged.
        samples: with the truth.
        metric: is updated once for each sample.
        workers: processes that read images.
    """
    for sample in read_in_order(samples, workers=workers):
        metric.update(answers(sample), sample.truth, id=sample.id, clip=sample.clip, frame=sample.frame)
        yield sample.id


def model_answers(
    predictor: Predictor, *, input_size: int | None = None, tile: bool = False, tta: bool = False
) -> Answers:
    """A model as what is judged, with the options of prediction."""

    def answer(sample: Sample) -> Annotation:
        return predictor.annotate(sample.image, input_size=input_size, tile=tile, tta=tta)

    return answer


def read_in_order(samples: Samples, *, workers: int) -> Iterator[Sample]:
    """Every sample once, in order, read by `workers` processes or by this one."""
    if not workers:
        for index in range(len(samples)):
            yield samples[index]
        return
    loader: DataLoader[Sample] = DataLoader(
        Subset(samples, range(len(samples))),  # pyright: ignore[reportArgumentType]
        batch_size=None,
        num_workers=workers,
        worker_init_fn=prepare_reader,
        multiprocessing_context=reader_start_method(),
    )
    yield from loader


