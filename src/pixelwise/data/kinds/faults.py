"""What can be wrong with a data set, and the search for it among images that have a mask file each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pixelwise.data.listing import Fault, count
from pixelwise.data.tools.check_split import SplitReport as SplitReport
from pixelwise.errors import DataError
from pixelwise.files.images import exif_rotation, read_image
from pixelwise.labels import LabelSet


@dataclass(frozen=True)
class Findings:
    """What was found in one image and its truth.

    Attributes:
        faults: of the two.
        class_ids: the classes that occur.
        turned: whether the image has an EXIF rotation.
    """

    faults: tuple[Fault, ...]
    class_ids: frozenset[int] = frozenset()
    turned: bool = False


def size_fault(
    where: str, size: tuple[int, int], degrees: int, *, stated: tuple[int, int], by: str, is_repaired: bool = True
) -> Fault:
    """An image and its truth differ in size.

    Args:
        where: names the image.
        size: height and width of the upright image.
        degrees: by which EXIF turns it.
        stated: height and width by the truth.
        by: what states it.
        is_repaired: whether a repair turns it.
    """
    upright, truth = f"{size[0]}×{size[1]}", f"{stated[0]}×{stated[1]}"
    if degrees in (90, 270) and stated == size[::-1]:
        repair = " (pixelwise data check --fix does)" if is_repaired else ""
        text = (
            f"EXIF rotation {degrees}°, stored {truth}, upright {upright} (height×width); the {by} has the size of "
            f"the stored image: turn it{repair}, or strip the EXIF tag"
        )
        return Fault("rotated image", where, text)
    return Fault("size mismatch", where, f"the image is {upright} (height×width), the {by} {truth}")


def readable_image(path: Path, where: str) -> tuple[tuple[int, int] | None, int, Fault | None]:
    """Height and width (None if unreadable), degrees of EXIF rotation, and the fault."""
    try:
        _, height, width = read_image(path).shape
        return (height, width), exif_rotation(path), None
    except DataError as error:
        return None, 0, Fault("unreadable image", where, _without(error, path))


def notes_on(findings: Sequence[Findings], labels: LabelSet) -> Iterator[str]:
    """What is no fault: classes that never occur, and rotated images."""
    seen = frozenset[int]().union(*(found.class_ids for found in findings))
    absent = [name for index, name in enumerate(labels.names) if index not in seen]
    if absent and findings:
        shown = ", ".join(absent[:12]) + (f", … {len(absent) - 12} more" if len(absent) > 12 else "")
        yield f"{count(len(absent), 'class never occurs', 'classes never occur')}: {shown}"
    turned = sum(found.turned for found in findings)
    if turned:
        yield f"{count(turned, 'image')} with an EXIF rotation, which is applied"


def _without(error: DataError, path: Path) -> str:
    """The error's text without the file it begins with."""
    return str(error).removeprefix(f"{path}: ")
