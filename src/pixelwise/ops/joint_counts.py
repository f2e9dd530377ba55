"""How many pixels each segment of one map shares with each segment of another."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int32, Int64

SLAB_PIXELS = 2**17
"""So many pixels are compared at once, so that they stay in the processor's cache."""

PIXELS_IN_RUN = 4
"""Runs that are shorter on average cost more than they save."""

SMALL_ID = 2**10
"""Ids below are bins of a histogram themselves; larger ones are numbered first."""

LARGEST_TABLE = 2**25
"""Ids up to this one are numbered by a table where there are many pixels to number."""

LARGEST_HISTOGRAM = 2**24
"""Pairs of segments up to which a bin is kept for each."""


def joint_counts(
    one: Int32[np.ndarray, "H W"],
    other: Int32[np.ndarray, "H W"],
    ids: Int64[np.ndarray, " S"],
    other_ids: Int64[np.ndarray, " S2"],
) -> Int64[np.ndarray, "R 3"]:
    """The joint histogram of two maps of the same size, without its zeros.

    Where both maps stay the same for some pixels, only the first of them is looked at and the length is counted: most
    pixels of a segmentation are like the one before. Where they do not, every pixel is counted in a bin of its own.

    Args:
        one: ids.
        other: ids.
        ids: those of `one` that are told apart, larger than 0 and each once; all others are void.
        other_ids: likewise of `other`.

    Returns:
        a row for each pair that shares pixels, sorted: the place in `ids` plus 1, 0 for void, that in `other_ids`, and
        the number of pixels.
    """
    numbers, other_numbers = _Numbers(ids), _Numbers(other_ids)
    columns = other_numbers.size
    bins = numbers.size * columns
    first, second = one.ravel(), other.ravel()
    keys: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    counts = np.zeros(bins if bins <= LARGEST_HISTOGRAM else 0, dtype=np.int64)
    for start in range(0, first.size, SLAB_PIXELS):
        here, there = (part[start : start + SLAB_PIXELS] for part in (first, second))
        changes = (here[1:] != here[:-1]) | (there[1:] != there[:-1])
        starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
        if PIXELS_IN_RUN * len(starts) <= len(here):
            keys.append(numbers.of(here[starts]) * columns + other_numbers.of(there[starts]))
            lengths.append(np.diff(starts, append=len(here)))
            continue
        key = numbers.of(here) * columns
        key += other_numbers.of(there)
        if len(counts):
            counts += np.bincount(key, minlength=bins)
        else:
            unique, pixels = np.unique(key, return_counts=True)
            keys.append(unique)
            lengths.append(pixels)
    if len(counts):
        if keys:  # sums of integers below 2^53 are exact in double
            counts += np.bincount(np.concatenate(keys), np.concatenate(lengths), bins).astype(np.int64)
        found = np.flatnonzero(counts)
        keys, lengths = [found], [counts[found]]
    pairs, pixels = _summed(keys, lengths)
    pairs = numbers.place[pairs // columns] * (len(other_ids) + 1) + other_numbers.place[pairs % columns]
    pairs, pixels = _summed([pairs], [pixels])  # ids without an entry have become void
    return np.stack([pairs // (len(other_ids) + 1), pairs % (len(other_ids) + 1), pixels], axis=1)


def _summed(keys: list[np.ndarray], counts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The keys sorted, each once, with the sum of its counts."""
    key, count = (np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64) for parts in (keys, counts))
    if not len(key):
        return key, count
    order = np.argsort(key, kind="stable")
    key, count = key[order], count[order]
    firsts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
    return key[firsts], np.add.reduceat(count, firsts)


class _Numbers:
    """Numbers small enough for a histogram that stand for ids.

    Attributes:
        size: the numbers are below.
        place: of each number, the place of its id plus 1; 0 of what is no id.
    """

    def __init__(self, ids: Int64[np.ndarray, " S"]) -> None:
        self.order = np.argsort(ids, kind="stable")
        self.sorted = ids[self.order]
        self.largest = int(self.sorted[-1]) if len(ids) else 0
        self.table: np.ndarray | None = None
        self.are_ids = self.largest < SMALL_ID
        self.size = (self.largest if self.are_ids else len(ids)) + 1
        self.place = np.zeros(self.size, dtype=np.int64)
        self.place[ids if self.are_ids else slice(1, None)] = np.arange(1, len(ids) + 1)

    def of(self, values: Int32[np.ndarray, " P"]) -> Int64[np.ndarray, " P"]:
        """The number of each id; 0 of what is none."""
        if self.are_ids:
            if values.min() < 0 or values.max() >= self.size:
                values = np.where((values < 0) | (values >= self.size), 0, values)
            return values.astype(np.int64)
        # a table touches a page for each id; for a few pixels that is the most part of the work
        if self.largest <= LARGEST_TABLE and PIXELS_IN_RUN * len(values) > SLAB_PIXELS:
            if self.table is None:
                self.table = np.zeros(self.largest + 2, dtype=np.int64)
                self.table[self.sorted] = self.order + 1
            # neither the first entry nor the last is an id's, so that what is outside finds void there
            return self.table.take(values, mode="clip")
        place = np.searchsorted(self.sorted, values).clip(max=len(self.sorted) - 1)
        return np.where(self.sorted[place] == values, self.order[place] + 1, 0)
