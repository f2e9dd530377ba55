"""Evaluate a model, or stored predictions, on a data set, image by image."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch.utils.data import DataLoader, Dataset

from pixelwise.contracts import Metric
from pixelwise.data.loading.batches import Samples
from pixelwise.errors import DataError
from pixelwise.files.parallel import prepare_reader, reader_start_method
from pixelwise.inference.predictor import DEFAULTS, FrameMemory, Options, Predictor
from pixelwise.inference.video.tracking import TrackingMemory, track
from pixelwise.types import Annotation, Sample


class Predictions(Protocol):
    """A source of predictions for samples: a model, or stored predictions."""

    def __call__(self, sample: Sample) -> Annotation:
        """The prediction, at the sample's original size. Raises DataError when there is none."""
        ...


@dataclass(frozen=True)
class EvaluatedImage:
    """The outcome of an image.

    Attributes:
        index: its place in the data set.
        failure: why it was not counted, one line that names the file; None if it was.
    """

    index: int
    failure: str | None = None


def evaluate(
    answers: Predictions,
    samples: Samples,
    metric: Metric,
    *,
    workers: int = 0,
    indices: Sequence[int] | None = None,
    go_on: bool = False,
    watch: Callable[[Sample, Annotation], None] | None = None,
) -> Generator[EvaluatedImage]:
    """Predict and count samples one after the other; yield the outcome of each.

    Two images are held at most (and two more for each worker), whatever the size of the set.

    Args:
        answers: what is evaluated.
        samples: with the truth.
        metric: is updated once for each sample.
        workers: processes that read images.
        indices: which samples; None takes all.
        go_on: skips an image that cannot be read or evaluated, and yield why.
        watch: is shown every counted sample with its prediction.

    Raises:
        DataError: the first such image, unless `go_on`.
    """
    chosen = range(len(samples)) if indices is None else indices
    for index, read in zip(chosen, _read_each(samples, chosen, workers=workers), strict=True):
        try:
            if isinstance(read, DataError):
                raise read
            sample = read
            predicted = answers(sample)
            metric.update(predicted, sample.truth, id=sample.id, clip=sample.clip, frame=sample.frame)
        except DataError as error:
            if not go_on:
                raise
            yield EvaluatedImage(index, " ".join(str(error).splitlines()))
        else:
            if watch is not None:
                watch(sample, predicted)
            yield EvaluatedImage(index)


def model_predictions(predictor: Predictor, options: Options = DEFAULTS, *, tracks: bool = False) -> Predictions:
    """A model as a source of predictions, with its options.

    The frames of a clip are asked for one after the other; each is seen with what was kept of those before. That is
    forgotten when the clip changes, or does not go on.

    Args:
        predictor: the model.
        options: how it runs on an image.
        tracks: give identities to objects of a model that sees single frames; see `inference.video.tracking`.

    Raises:
        RecipeError: the model cannot look at images in that way, or its objects cannot be tracked.
    """
    predictor.require_possible(options)
    if tracks:
        predictor.require_trackable()
    return _ModelPredictions(predictor, options, tracks=tracks)


class _ModelPredictions:
    """The predictions of a model, with its memory of the current clip."""

    def __init__(self, predictor: Predictor, options: Options, *, tracks: bool) -> None:
        self._predictor, self._options, self._tracks = predictor, options, tracks
        self._begin(None)

    def __call__(self, sample: Sample) -> Annotation:
        if sample.clip is None:
            return self._predictor.annotate(sample.image, self._options, proposals=sample.proposals)
        frame = 0 if sample.frame is None else sample.frame
        if sample.clip != self._clip or frame <= self._frame:
            self._begin(sample.clip)
        self._frame = frame
        annotation, self._memory = self._predictor.annotate_frame(
            sample.image, self._memory, self._options, proposals=sample.proposals
        )
        if self._tracks:
            annotation, self._tracked = track(
                annotation.to("cpu"), self._tracked, num_classes=len(self._predictor.labels)
            )
        return annotation

    def _begin(self, clip: str | None) -> None:
        self._clip, self._frame = clip, -1
        self._memory: FrameMemory | None = None
        self._tracked: TrackingMemory | None = None


class _Reader(Dataset["Sample | DataError"]):
    """Reads the chosen samples, or gives the error: as an exception it would come with its traceback for text."""

    def __init__(self, samples: Samples, indices: Sequence[int]) -> None:
        self.samples, self.indices = samples, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Sample | DataError:
        try:
            return self.samples[self.indices[place]]
        except DataError as error:
            return error


def _read_each(samples: Samples, indices: Sequence[int], *, workers: int) -> Iterator[Sample | DataError]:
    """The selected samples in order, read by `workers` processes or by this one."""
    reader = _Reader(samples, indices)
    if not workers:
        for place in range(len(reader)):
            yield reader[place]
        return
    loader: DataLoader[Sample | DataError] = DataLoader(
        reader,
        batch_size=None,
        num_workers=workers,
        worker_init_fn=prepare_reader,
        multiprocessing_context=reader_start_method(),
    )
    yield from loader
