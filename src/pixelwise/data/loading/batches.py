"""Which sample comes when, and with which random numbers: functions of the seed and the place alone.

So any step can be repeated without having run those before it, with any number of worker processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int64
from torch.utils.data import DataLoader, Dataset, Sampler

from pixelwise.data.loading.collate import collate
from pixelwise.data.loading.frame_pairs import FramePairs, augmented_pair
from pixelwise.errors import DataError
from pixelwise.files.parallel import prepare_reader, reader_start_method
from pixelwise.types import Batch, Sample

REPEAT = 2**32
"""Between the epochs of an image that is drawn several times in one."""


class Samples(Protocol):
    """What is trained on."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...


class StepSampler(Sampler[list[tuple[int, int]]]):
    """The (epoch, index) pairs of each step, from any step on.

    The order is endless: epoch after epoch, each a permutation of (seed, epoch); batches may straddle two epochs. With
    `weights` an epoch has as many places, and an image as many of them as its share says, rounded up or down by
    (seed, epoch); repeated images have other epochs in their pairs, REPEAT apart, so that each is augmented anew.

    Args:
        length: number of samples.
        batch_size: of each process.
        steps: first step and the step after the last.
        seed: of the permutations.
        process: rank of this process and number of all; together they read what one would with the larger batch.
        weights: of each sample, positive; None draws all equally often.
    """

    def __init__(
        self,
        length: int,
        *,
        batch_size: int,
        steps: tuple[int, int],
        seed: int,
        process: tuple[int, int] = (0, 1),
        weights: Sequence[float] | None = None,
    ) -> None:
        self.length, self.batch_size, self.steps, self.seed, self.process = length, batch_size, steps, seed, process
        self.weights = weights

    def __len__(self) -> int:
        return self.steps[1] - self.steps[0]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        rank, world = self.process
        epoch_of_order, order = -1, np.empty((0, 2), dtype=np.int64)
        for step in range(*self.steps):
            pairs: list[tuple[int, int]] = []
            for place in range(self.batch_size):
                position = (step * world + rank) * self.batch_size + place
                epoch, index = divmod(position, self.length)
                if epoch != epoch_of_order:
                    order, epoch_of_order = self._order(epoch), epoch
                repeat, sample = (int(value) for value in order[index])
                pairs.append((epoch + repeat * REPEAT, sample))
            yield pairs

    def _order(self, epoch: int) -> Int64[np.ndarray, "N 2"]:
        """How often each sample of an epoch came before in it, and its index."""
        generator = np.random.default_rng((self.seed, epoch))
        if self.weights is None:
            order = generator.permutation(self.length)
            return np.stack([np.zeros_like(order), order], axis=1)
        ends = np.cumsum(np.asarray(self.weights, dtype=np.float64))
        places = (np.arange(self.length) + generator.random()) * (ends[-1] / self.length)
        drawn = np.minimum(np.searchsorted(ends, places, side="right"), self.length - 1)
        repeats = np.arange(self.length) - np.searchsorted(drawn, drawn)
        return np.stack([repeats, drawn], axis=1)[generator.permutation(self.length)]


class AugmentedSamples(Dataset["tuple[Sample, ...] | DataError"]):
    """Samples by (epoch, index), each augmented with a generator of (seed, epoch, index); frames after a reference.

    A sample that cannot be read is its error: an exception would leave a reading process with its traceback for text.

    Args:
        samples: what is trained on.
        augment: brings samples to one size.
        seed: of the augmentation.
        paste: joins an augmented sample with a second one.
        paste_probability: of `paste`.
        pairs: where frames have their references; None for a system that is trained on single images.
    """

    def __init__(
        self,
        samples: Samples,
        augment: Callable[[Sample, np.random.Generator], Sample],
        *,
        seed: int,
        paste: Callable[[Sample, Sample, np.random.Generator], Sample] | None = None,
        paste_probability: float = 0.0,
        pairs: FramePairs | None = None,
    ) -> None:
        self.samples, self.augment, self.seed = samples, augment, seed
        self.paste, self.paste_probability, self.pairs = paste, paste_probability, pairs

    def __getitem__(self, place: tuple[int, int]) -> tuple[Sample, ...] | DataError:
        epoch, index = place
        try:
            generator = np.random.default_rng((self.seed, epoch, index, 1))
            if self.pairs is not None:
                other = self.pairs.reference(index, generator)
                reference = None if other is None else self.samples[other]
                target = self.pairs.with_flow(self.samples[index], index, reference)
                return augmented_pair(target, reference, self.augment, generator)
            sample = self.augment(self.samples[index], generator)
            generator = np.random.default_rng((self.seed, epoch, index, 3))
            if self.paste and generator.random() < self.paste_probability:
                other = self.samples[int(generator.integers(len(self.samples)))]
                sample = self.paste(sample, self.augment(other, generator), generator)
            return (sample,)
        except DataError as error:
            return error


def training_batches(
    samples: AugmentedSamples,
    sampler: StepSampler,
    *,
    workers: int,
    pin_memory: bool = False,
    ignore_id: int = 255,
) -> Iterator[Batch]:
    """The batches of the sampler's steps, read by `workers` processes, or by this one if 0.

    Args:
        samples: what is trained on.
        sampler: which of them make a batch.
        workers: processes that read.
        pin_memory: so that a GPU may fetch them.
        ignore_id: see `collate`.

    Raises:
        DataError: an image or its ground truth cannot be used; names the file.
    """
    loader: DataLoader[Any] = DataLoader(
        samples,  # pyright: ignore[reportArgumentType]
        batch_sampler=sampler,  # pyright: ignore[reportArgumentType]
        num_workers=workers,
        collate_fn=partial(_collate_or_error, ignore_id=ignore_id),
        pin_memory=pin_memory,
        worker_init_fn=prepare_reader if workers else None,
        multiprocessing_context=reader_start_method() if workers else None,
    )
    for batch in loader:
        if isinstance(batch, DataError):
            raise DataError(f"{batch}; repair it (pixelwise data check finds every such file), then --resume the run")
        yield batch


def _collate_or_error(clips: Sequence[tuple[Sample, ...] | DataError], *, ignore_id: int) -> Batch | DataError:
    error = next((clip for clip in clips if isinstance(clip, DataError)), None)
    frames = [clip for clip in clips if not isinstance(clip, DataError)]
    return error or collate(
        [frame for clip in frames for frame in clip], clip_frames=len(frames[0]), ignore_id=ignore_id
    )


def dropout_seed(seed: int, step: int, rank: int) -> int:
    """Seed of everything that the network draws in one step of one process."""
    return int(np.random.SeedSequence((seed, step, rank, 2)).generate_state(1, np.uint64)[0] >> 1)


def sizes_median(sizes: Sequence[tuple[int, int]], *, short: bool = False) -> int:
    """Median long side, or short one, in pixels."""
    return int(np.median([min(size) if short else max(size) for size in sizes]))
