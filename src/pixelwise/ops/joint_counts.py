"""Number of pixels that each segment of one map shares with each segment of another."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

SLAB_PIXELS = 2**17
"""Pixels that are compared at once, few enough for the processor's cache."""

PIXELS_IN_RUN = 4
"""Smallest mean run length for which counting runs is faster."""

SMALL_ID = 2**10
"""Ids below are used as bins of a histogram directly; larger ones are numbered first."""

LARGEST_TABLE = 2**22
"""Largest size of a hash table that is tried for one without collisions."""

LARGEST_HISTOGRAM = 2**24
"""Largest number of pairs of segments with a bin each."""


def joint_counts(
    one: Int32[np.ndarray, "H W"],
    other: Int32[np.ndarray, "H W"],
    ids: Int64[np.ndarray, " S"],
    other_ids: Int64[np.ndarray, " S2"],
) -> Int64[np.ndarray, "R 3"]:
    """The joint histogram of two maps of the same size, without its zeros.

    Runs of equal pixels in both maps are counted by their first pixel and their length, since most pixels of a
    segmentation equal the one before. Maps with short runs are counted pixel by pixel.

    Args:
        one: ids.
        other: ids.
        ids: the segments of `one`, larger than 0 and each once; all other ids are void.
        other_ids: likewise of `other`.

    Returns:
        a row for each pair that shares pixels, sorted: the index in `ids` plus 1 (0 for void), likewise in `other_ids`,
        and the number of pixels.
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
    """A mapping of ids to numbers small enough for a histogram.

    Attributes:
        size: the numbers are below.
        place: for each number, the index of its id plus 1; 0 for other ids.
    """

    def __init__(self, ids: Int64[np.ndarray, " S"]) -> None:
        self.ids = ids
        largest = int(ids.max()) if len(ids) else 0
        self.are_ids = largest < SMALL_ID
        self.size = (largest if self.are_ids else len(ids)) + 1
        self.place = np.zeros(self.size, dtype=np.int64)
        self.place[ids if self.are_ids else slice(1, None)] = np.arange(1, len(ids) + 1)
        self.table = None if self.are_ids else _table_of(ids)

    def of(self, values: Int32[np.ndarray, " P"]) -> Int64[np.ndarray, " P"]:
        """The number of each id; 0 for other ids."""
        if self.are_ids:
            if values.min() < 0 or values.max() >= self.size:
                values = np.where((values < 0) | (values >= self.size), 0, values)
            return values.astype(np.int64)
        if self.table is not None:
            slot = _slots(values, *self.table[:2])
            return np.where(self.table.ids.take(slot) == values, self.table.numbers.take(slot), 0)
        order = np.argsort(self.ids, kind="stable")
        place = np.searchsorted(self.ids, values, sorter=order).clip(max=len(order) - 1)
        return np.where(self.ids[order[place]] == values, order[place] + 1, 0)


class _Table(NamedTuple):
    """A hash table in which every id has a slot of its own."""

    factor: int
    bits: int
    ids: Int32[np.ndarray, " T"]
    numbers: Int64[np.ndarray, " T"]


def _slots(values: Int32[np.ndarray, " P"], factor: int, bits: int) -> np.ndarray:
    """Hash ids to the upper bits of a product, since a table indexed by ids would need 24 bits."""
    return values.astype(np.uint32) * np.uint32(factor) >> np.uint32(32 - bits)


def _table_of(ids: Int64[np.ndarray, " S"]) -> _Table | None:
    """A table without collisions, or None if it would be too large."""
    keys = ids.astype(np.int32)
    bits = min(max(10, 2 * len(ids).bit_length()), LARGEST_TABLE.bit_length() - 1)
    for attempt in range(64):
        factor = 0x9E3779B1 * (2 * attempt + 1) & 0xFFFFFFFF
        slot = _slots(keys, factor, bits)
        if len(np.unique(slot)) == len(ids):
            table = _Table(factor, bits, np.zeros(2**bits, dtype=np.int32), np.zeros(2**bits, dtype=np.int64))
            table.ids[slot] = keys
            table.numbers[slot] = np.arange(1, len(ids) + 1)
            return table
    return None
