"""Every image is counted once: how metrics name images, and refuse the second time."""

from __future__ import annotations

from collections.abc import Collection

from pixelwise.errors import DataError


def image_key(id: str, clip: str | None = None, frame: int | None = None) -> str:
    """The name of an image among all: frames of several clips may have the same id."""
    return "/".join(str(part) for part in (clip, frame, id) if part is not None)


def new_key(counted: Collection[str], id: str, clip: str | None = None, frame: int | None = None) -> str:
    """The name of an image that is about to be counted. Raises DataError where it was counted before."""
    key = image_key(id, clip, frame)
    if key in counted:
        raise DataError(f"image '{key}' was evaluated before; each id is counted once")
    return key


def require_apart(one: Collection[str], other: Collection[str]) -> None:
    """Raise DataError for an image that both parts counted."""
    both = sorted(set(one) & set(other))
    if both:
        raise DataError(f"image '{both[0]}' is in both parts ({len(both)} such images); each id is counted once")
