"""The search for faults in a whole data set: each split by its format, then what splits must not have in common."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from pixelwise.data import proposals
from pixelwise.data.kinds.folders import UNIONS, content_keys
from pixelwise.data.listing import Fault
from pixelwise.data.spec import DataSpec, folder_of, format_of
from pixelwise.data.tools.check_split import SplitReport, check_split
from pixelwise.errors import DataError, count
from pixelwise.files.images import image_size
from pixelwise.files.parallel import Progress, silent


@dataclass(frozen=True)
class Report:
    """What was found in a data set.

    Attributes:
        name: its specification.
        splits: what was found in each split.
        across: faults of several splits at once.
        notes: what is no fault, of several splits at once.
    """

    name: str
    splits: tuple[SplitReport, ...]
    across: tuple[Fault, ...]
    notes: tuple[str, ...] = ()

    def faults(self) -> tuple[Fault, ...]:
        """All faults, those of several splits last."""
        return (*(fault for split in self.splits for fault in split.faults), *self.across)


def check_dataset(spec: DataSpec, *, workers: int = 0, progress: Progress = silent) -> Report:
    """Read every file of a data set, of one split or, where the specification names none, of all.

    Raises:
        DataError: an unknown format, no such folder, or no readable split.
    """
    format, path, options = format_of(spec), folder_of(spec), dict(spec.options)
    splits = (spec.split,) if spec.split else format.splits(path, options)
    reports: list[SplitReport] = []
    unusable: list[DataError] = []
    for split in splits:
        try:
            listing = format.list_split(path, split, options)
            reports.append(check_split(listing, split=split, workers=workers, progress=progress))
        except DataError as error:
            unusable.append(error)
            fault = Fault("unusable split", split, str(error))
            reports.append(SplitReport(split, str(path), (), (), (), (fault,)))
    if len(unusable) == len(reports):
        raise unusable[0]
    if proposals.OPTION in options:
        reports = [_with_proposals(report, path, options[proposals.OPTION]) for report in reports]
    across = (*_shared_files(reports), *_identical_files(reports))
    return Report(str(spec), tuple(reports), across, tuple(_shared_ids(reports)))


def _with_proposals(report: SplitReport, folder: Path, place: str) -> SplitReport:
    """What was found in a split, and its images without proposals or with broken ones."""
    try:
        files = proposals.proposal_files(folder, place, split=report.split)
    except DataError as error:
        return replace(report, faults=(*report.faults, Fault("unusable proposals", report.split, str(error))))
    broken = {fault.where for fault in report.faults}
    faults: list[Fault] = []
    for id, image in zip(report.ids, report.images, strict=True):
        if image is None or str(image) in broken:
            continue
        try:
            files.regions(id, image_size(image))
        except DataError as error:
            faults.append(Fault("unusable proposals", f"image '{id}'", str(error)))
    return replace(report, faults=(*report.faults, *faults))


def _separate(reports: Sequence[SplitReport]) -> Iterator[tuple[SplitReport, SplitReport]]:
    """Pairs of splits that should have nothing in common."""
    yield from combinations([report for report in reports if report.split not in UNIONS], 2)


def _shared_files(reports: Sequence[SplitReport]) -> Iterator[Fault]:
    for first, second in _separate(reports):
        known = set(first.images)
        for id, image in zip(second.ids, second.images, strict=True):
            if image is not None and image in known:
                text = f"'{id}' is in {first.split} and in {second.split}; take it out of one of them"
                yield Fault("image in two splits", str(image), text)


def _shared_ids(reports: Sequence[SplitReport]) -> Iterator[str]:
    """The same name for different files may be a numbering of each split, so it is only a note."""
    for first, second in _separate(reports):
        known = dict(zip(first.ids, first.images, strict=True))
        shared = [id for id, image in zip(second.ids, second.images, strict=True) if id in known and known[id] != image]
        if shared:
            names = count(len(shared), f"id of {second.split} stands", f"ids of {second.split} stand")
            yield f"{names} in {first.split} too, for another file, such as '{shared[0]}'"


def _identical_files(reports: Sequence[SplitReport]) -> Iterator[Fault]:
    """Images that are byte for byte the same as one before, but for frames of one clip, whose camera may stand still.

    Only files of equal length are read, and no empty ones.
    """
    split_of: dict[Path, str] = {}
    clip_of: dict[Path, str] = {}
    for report in reports:
        if report.split in UNIONS:
            continue
        for id, image in zip(report.ids, report.images, strict=True):
            if image is not None and os.path.isfile(image):
                split_of[image] = report.split
                if report.of_clips:
                    clip_of[image] = id.rpartition("/")[0]
    firsts: dict[bytes | Path, Path] = {}
    for image, key in content_keys(split_of).items():
        first = firsts.setdefault(key, image)
        if first is image:
            continue
        if split_of[first] == split_of[image]:
            if image in clip_of and clip_of[image] == clip_of[first]:
                continue
            yield Fault("image twice", str(image), f"byte for byte the same as {first}")
        else:
            text = f"in {split_of[image]}, byte for byte the same as {first} in {split_of[first]}"
            yield Fault("image in two splits", str(image), f"{text}; take one of them out")
