"""Track ids, kept where a set is converted to another format.

In memory an object is known by an id. Formats whose files hold class and number make it of both, as (class + 1) ·
divisor + number; of the others the id is the number. What a file cannot hold, or what another object of the clip has
already, gets another number, and is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from itertools import chain
from typing import TypeVar

from pixelwise.errors import DataError

Track = tuple[int, int]
"""An object of a clip: its id in memory, and its class id."""

Key = TypeVar("Key", bound=Hashable)


def tracks_of(frames: Iterable[Iterable[Track]]) -> list[Track]:
    """The objects of a clip, by descending number of frames, then in order of appearance."""
    return [track for track, _ in Counter(chain.from_iterable(frames)).most_common()]


def former_numbers(
    tracks: Sequence[Track], *, divisor: int | None, own: Callable[[int, int], int | None] | None = None
) -> dict[Track, int]:
    """The number that each object of a clip had.

    Args:
        tracks: the objects.
        divisor: of the format they come from, or None where an id is the number.
        own: the number in an id that the format to be written has made, given id and class id, or None in another. It
            is asked where `divisor` is None, for ids that went through a format whose ids are free; they are too large
            to be numbers of that format.
    """
    if divisor is not None:
        return {track: track[0] % divisor for track in tracks}
    former: dict[Track, int] = {}
    for id, class_id in tracks:
        number = None if own is None else own(id, class_id)
        former[id, class_id] = id if number is None else number
    return former


def composed_by(divisor: int, *, first: int = 1) -> Callable[[int, int], int | None]:
    """What tells the number in an id (class + 1) · divisor + number; see `former_numbers`.

    Args:
        divisor: of the format.
        first: the least number.
    """

    def own(id: int, class_id: int) -> int | None:
        quotient, number = divmod(id, divisor)
        return number if quotient == class_id + 1 and number >= first else None

    return own


def kept_numbers(
    former: Mapping[Key, int],
    *,
    largest: int,
    smallest: int = 1,
    groups: Mapping[Key, Hashable] | None = None,
    taken: Collection[int] = (),
    clip: str,
    format: str,
) -> tuple[dict[Key, int], int]:
    """The number of each object, and how many are others than before.

    Objects keep theirs in the order in which they are given; a new number is the least that is free, from 1 on.

    Args:
        former: the number that each had.
        largest: that the format holds.
        smallest: that it holds.
        groups: objects of different groups may have the same number; those of the group None with none.
        taken: numbers that no object may have.
        clip: for the error.
        format: for the error.

    Raises:
        DataError: there are more objects than numbers.
    """
    groups = groups or {}
    numbers: dict[Key, int] = {}
    used: dict[Hashable, set[int]] = {}

    def is_free(key: Key, number: int) -> bool:
        group = groups.get(key)
        rivals = used.values() if group is None else (used.get(group, ()), used.get(None, ()))
        return number not in taken and not any(number in others for others in rivals)

    for key, number in former.items():
        if smallest <= number <= largest and is_free(key, number):
            numbers[key] = number
            used.setdefault(groups.get(key), set()).add(number)
    nexts: dict[Hashable, int] = {}
    for key in former:
        if key in numbers:
            continue
        group = groups.get(key)
        number = nexts.get(group, max(1, smallest))
        while number <= largest and not is_free(key, number):
            number += 1
        if number > largest:
            kind = "objects" if group is None else "objects of one class"
            raise DataError(
                f"clip '{clip}': more than {largest:,} {kind}, {format} holds no more in a clip; cut the clip, or "
                f"write cityscapes-vps, vipseg or youtube-vis"
            )
        numbers[key] = number
        used.setdefault(group, set()).add(number)
        nexts[group] = number + 1
    return numbers, sum(numbers[key] != number for key, number in former.items())


def seen_together(frames: Iterable[Iterable[Track]], former: Mapping[Track, int]) -> set[int]:
    """The numbers that a frame has in several classes, so that objects are numbered class by class."""
    together: set[int] = set()
    for frame in frames:
        times = Counter(former[track] for track in set(frame))
        together.update(number for number, count in times.items() if count > 1)
    return together
