"""Images with a PNG of segments each: what the formats coco-panoptic and cityscapes-panoptic share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pixelwise.data.dataset import require_unique
from pixelwise.data.kinds.coco_json import CocoJson, Entry, Problem, image_problems, is_integer, read_json
from pixelwise.data.kinds.faults import Fault, Findings, SplitReport, count, notes_on, readable_image, size_fault
from pixelwise.data.kinds.panoptic_json import panoptic_labels_of, panoptic_problems
from pixelwise.data.kinds.segment_maps import (
    CROWD,
    Channels,
    Listed,
    listing_faults,
    panoptic_of,
    read_segment_ids,
    read_two_channels,
    segments_of_channels,
)
from pixelwise.data.truth.segments import annotation_of, regions_of_ids
from pixelwise.errors import DataError
from pixelwise.files.images import read_image
from pixelwise.files.parallel import Progress, apply
from pixelwise.labels import LabelSet
from pixelwise.types import Panoptic, Sample

FindImages = Callable[[Sequence[Entry]], tuple[Path, ...]]
"""The files that entries of images mean."""


@dataclass(frozen=True)
class PanopticFiles:
    """Where a split lies.

    Attributes:
        json: the JSON file.
        maps: the folder of PNGs.
        find_images: the files that entries of images mean.
        two_channels: whether the PNGs hold class and number, so that the JSON need not list segments.
        labels: what the categories are, whatever the JSON says of them; None where it says it.
    """

    json: Path
    maps: Path
    find_images: FindImages
    two_channels: bool = False
    labels: LabelSet | None = None


@dataclass(frozen=True, eq=False)
class Segments:
    """The segments that a JSON lists, of many images in flat arrays.

    Attributes:
        starts: segments starts[i] … starts[i+1]-1 belong to image i.
        ids: of the segments.
        class_ids: 0…K-1.
        crowd: whether the region is of many objects.
    """

    starts: np.ndarray
    ids: np.ndarray
    class_ids: np.ndarray
    crowd: np.ndarray

    @classmethod
    def from_entries(cls, infos: Sequence[Sequence[Entry]], class_of: Mapping[int, int]) -> Segments:
        """Pack sound entries of `segments_info`, one list for each image."""
        flat = [info for of_image in infos for info in of_image]
        return cls(
            starts=np.cumsum([0, *(len(of_image) for of_image in infos)]),
            ids=np.array([info["id"] for info in flat], dtype=np.int32),
            class_ids=np.array([class_of[info["category_id"]] for info in flat], dtype=np.int64),
            crowd=np.array([bool(info.get("iscrowd", 0)) for info in flat], dtype=np.bool_),
        )

    def of_image(self, index: int) -> slice:
        """The places of the segments of one image."""
        return slice(int(self.starts[index]), int(self.starts[index + 1]))


@dataclass(frozen=True, eq=False)
class PanopticPairs:
    """Images, each with a PNG of segments of the same size. See Dataset for the attributes.

    Attributes:
        images: the image files.
        maps: the PNG of each.
        sizes: height and width of each by the JSON.
        segments: what the JSON lists; None where the PNGs hold class and number themselves.
    """

    name: str
    format: str
    labels: LabelSet
    ids: tuple[str, ...]
    images: tuple[Path, ...] = field(repr=False)
    maps: tuple[Path, ...] = field(repr=False)
    sizes: tuple[tuple[int, int], ...] = field(repr=False)
    segments: Segments | None = field(repr=False)
    note: str | None = None
    clips = None
    numbered_by = None

    def flow(self, index: int, *, reference: int) -> None:
        """Nobody knows the flow."""

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """Read one image and its segments. Raises DataError when either is unusable, or their sizes differ."""
        index = range(len(self))[index]  # negative and too large indices as in a list
        try:
            image = read_image(self.images[index])
            panoptic = self.read_map(index)
        except DataError as error:
            raise DataError(f"{error} (image '{self.ids[index]}')") from None
        size = (image.shape[1], image.shape[2])
        for stated, file in ((self.sizes[index], "the JSON"), (tuple(panoptic.ids.shape), self.maps[index])):
            if stated != size:
                raise DataError(
                    f"{self.images[index]}: {size[0]}×{size[1]} pixels (height×width, upright), "
                    f"{file} has {stated[0]}×{stated[1]} (image '{self.ids[index]}')"
                )
        return Sample(image=image, truth=annotation_of(panoptic, self.labels), id=self.ids[index], original_size=size)

    def read_map(self, index: int) -> Panoptic:
        """The segments of one image. Raises DataError for an unreadable PNG, or ids that nothing is known of."""
        path = self.maps[index]
        if self.segments is None:
            return segments_of_channels(read_two_channels(path), self.labels, source=path)
        ids, places = read_segment_ids(path), self.segments.of_image(index)
        known = self.segments.ids[places]
        regions = regions_of_ids(ids)
        strange = (regions.ids != 0) & ~np.isin(regions.ids, known)
        if strange.any():
            raise DataError(
                f"{path}: id {regions.ids[strange][0]} ({regions.areas[strange][0]:,} pixels) has no segment in the "
                f"JSON; {int(strange.sum())} such ids in all, see pixelwise data check"
            )
        return panoptic_of(ids, known.tolist(), self.segments.class_ids[places].tolist(),
                           self.segments.crowd[places].tolist())  # fmt: skip

    def size_of(self, index: int) -> tuple[int, int]:
        """Height and width of the upright image, by the JSON."""
        return self.sizes[index]

    def image_path(self, index: int) -> Path:
        """The file of the image."""
        return self.images[index]

    def truth_path(self, index: int) -> Path:
        """The PNG of its segments."""
        return self.maps[index]


class ListedSplit(NamedTuple):
    """What a JSON lists.

    Attributes:
        content: the JSON.
        labels: of its categories.
        problems: with its entries.
        dataset: of the sound images that have a sound annotation.
        infos: the sound segments of each of these, as they stand in the JSON.
        unsound: the ids of the other segments of each, as far as they are numbers.
    """

    content: CocoJson
    labels: LabelSet
    problems: tuple[Problem, ...]
    dataset: PanopticPairs
    infos: tuple[tuple[Entry, ...], ...]
    unsound: tuple[frozenset[int], ...]


def list_split(files: PanopticFiles, *, name: str, format: str) -> ListedSplit:
    """Read the JSON of a split and sort out what is sound. Raises DataError where it is unusable as a whole."""
    optional = {"annotations": files.two_channels, "categories": files.labels is not None}
    content = read_json(files.json, optional=[name for name, may_lack in optional.items() if may_lack])
    labels, class_of = panoptic_labels_of(
        content.categories, source=files.json, stored=content.label_set, wanted=files.labels
    )
    annotations = [*content.annotations]
    if files.two_channels and not annotations:  # as panopticapi's converter names the PNGs
        annotations = [
            {"image_id": image.get("id"), "file_name": f"{Path(str(image.get('file_name'))).stem}.png"}
            for image in content.images
        ]
    problems = [*image_problems(content.images)]
    image_of = {image["id"]: image for image in content.images if isinstance(image.get("id"), int | str)}
    problems += panoptic_problems(annotations, image_of, class_of, segments=not files.two_channels)
    broken = {id(problem.entry) for problem in problems if problem.fatal}
    annotation_of_image = {one["image_id"]: one for one in reversed(annotations) if id(one) not in broken}
    sound = [image for image in content.images if id(image) not in broken and image["id"] in annotation_of_image]
    chosen = [annotation_of_image[image["id"]] for image in sound]
    listed = [() if files.two_channels else one["segments_info"] for one in chosen]
    infos = tuple(tuple(info for info in of_image if id(info) not in broken) for of_image in listed)
    unsound = tuple(
        frozenset(info["id"] for info in of_image if id(info) in broken and is_integer(info.get("id")))
        for of_image in listed
    )
    left_out = sum(problem.kind == "missing annotation" for problem in problems)
    dataset = PanopticPairs(
        name=name,
        format=format,
        labels=labels,
        ids=tuple(str(image["id"]) for image in sound),
        images=files.find_images(sound),
        maps=tuple(files.maps / Path(one["file_name"]).with_suffix(".png") for one in chosen),
        sizes=tuple((image["height"], image["width"]) for image in sound),
        segments=None if files.two_channels else Segments.from_entries(infos, class_of),
        note=f"left out: {count(left_out, 'image')} without annotation" if left_out else None,
    )
    return ListedSplit(content, labels, tuple(problems), dataset, infos, unsound)


def open_pairs(files: PanopticFiles, *, name: str, format: str) -> PanopticPairs:
    """The data set of a split. Raises DataError for the first fault of its JSON, and for missing files."""
    listed = list_split(files, name=name, format=format)
    fatal = next((problem for problem in listed.problems if problem.fatal), None)
    if fatal is not None:
        raise DataError(f"{files.json}: {fatal.where}: {fatal.text}; pixelwise data check lists all such faults")
    dataset = listed.dataset
    if not len(dataset):
        raise DataError(f"{files.json}: no image with an annotation in it")
    require_unique(dataset.ids, source=str(files.json))
    for paths, noun in ((dataset.images, "images"), (dataset.maps, "PNGs")):
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise DataError(
                f"{missing[0]}: no such file; {len(missing)} of the {len(paths)} {noun} of {name} are missing"
            )
    return dataset


def check_pairs(files: PanopticFiles, *, split: str, format: str, workers: int, progress: Progress) -> SplitReport:
    """Look at every entry of the JSON, read every image and every PNG; report every fault.

    Raises DataError where the file as a whole is unusable, or there is no folder of images.
    """
    listed = list_split(files, name=split, format=format)
    content, dataset = listed.content, listed.dataset
    faults = [Fault(problem.kind, problem.where, problem.text) for problem in listed.problems]
    if not content.images:
        faults.append(Fault("empty split", str(files.json), "no images in it"))
    inspect = partial(inspect_image, dataset=dataset, infos=listed.infos, unsound=listed.unsound)
    read = apply(inspect, range(len(dataset)), workers=workers)
    inspected = [*progress(read, total=len(dataset), what=split)]
    counts_from_one = next((one.from_one for one in inspected if one.from_one), None)
    for one in inspected:
        faults += one.findings.faults
        if counts_from_one is not None:
            faults += (replace(fault, text=f"{fault.text}; {counts_from_one}") for fault in one.zeros)
    notes = [*notes_on([one.findings for one in inspected], dataset.labels)]
    empty = sum(not one.findings.class_ids for one in inspected)
    if empty:
        notes.append(f"{count(empty, 'image has', 'images have')} no segment; every pixel is void")
    segments = sum(map(len, listed.infos)) if dataset.segments is not None else sum(one.segments for one in inspected)
    return SplitReport(
        split=split,
        title=str(files.json),
        counts=(
            count(len(content.images), "image"),
            count(segments, "segment"),
            count(len(dataset.labels), "category", "categories"),
        ),
        ids=dataset.ids,
        images=dataset.images,
        faults=tuple(faults),
        notes=tuple(notes),
    )


class Inspected(NamedTuple):
    """What was found in one image.

    Attributes:
        findings: faults and classes.
        segments: how many there are.
        zeros: faults of things with the number 0, should other images count from 1.
        from_one: a class of things and its numbers that do not begin with 0, as text.
    """

    findings: Findings
    segments: int = 0
    zeros: tuple[Fault, ...] = ()
    from_one: str | None = None


def inspect_image(
    index: int, *, dataset: PanopticPairs, infos: Sequence[Sequence[Entry]], unsound: Sequence[Collection[int]]
) -> Inspected:
    """Read one image and its PNG, and compare them with what the JSON says.

    Args:
        index: of the image.
        dataset: of the sound images.
        infos: the sound segments of each.
        unsound: the ids of the others of each.
    """
    faults: list[Fault] = []
    image, map = dataset.images[index], dataset.maps[index]
    where = f"image {dataset.ids[index]} '{image.name}'"
    size, degrees, fault = readable_image(image, where)
    if fault is not None:
        faults.append(fault)
    elif size is not None and size != dataset.sizes[index]:
        faults.append(size_fault(where, size, degrees, stated=dataset.sizes[index], by="JSON"))
    turned = degrees != 0
    try:
        if not map.is_file():
            faults.append(Fault("missing map", str(map), f"no PNG of the segments of {where}"))
            return Inspected(Findings(tuple(faults), turned=turned))
        channels = read_two_channels(map) if dataset.segments is None else None
        ids = read_segment_ids(map) if channels is None else channels.ids
    except DataError as error:
        faults.append(Fault("unreadable map", str(map), str(error).removeprefix(f"{map}: ")))
        return Inspected(Findings(tuple(faults), turned=turned))
    shape = (ids.shape[0], ids.shape[1])
    if size is not None and shape != size:
        faults.append(size_fault(where, size, degrees, stated=shape, by=f"PNG {map.name}", is_repaired=False))
    if channels is not None:
        return _inspect_channels(channels, dataset.labels, map, faults, turned=turned)
    assert dataset.segments is not None
    places = dataset.segments.of_image(index)
    regions = regions_of_ids(ids)
    stated = [Listed(info["id"], info.get("area"), info.get("bbox")) for info in infos[index]]
    faults += listing_faults(regions, stated, source=str(map), named=unsound[index])
    class_ids = dataset.segments.class_ids[places][np.isin(dataset.segments.ids[places], regions.ids)]
    findings = Findings(tuple(faults), frozenset(class_ids.tolist()), turned=turned)
    return Inspected(findings, len(infos[index]))


def _inspect_channels(
    channels: Channels, labels: LabelSet, map: Path, faults: list[Fault], *, turned: bool
) -> Inspected:
    """What is wrong with a file of 2 channels.

    Numbers count from 0 in some sets, from 1 in others. Whether a thing with the number 0 lacks its number is told by
    the other images, so such faults are put aside.
    """
    class_of = {dataset_id: index for index, dataset_id in enumerate(labels.dataset_ids)}
    numbers: dict[int, list[int]] = {}
    areas: dict[tuple[int, int], int] = {}
    dataset_ids, counted = channels.dataset_ids.tolist(), channels.numbers.tolist()
    for dataset_id, number, area in zip(dataset_ids, counted, channels.regions.areas.tolist(), strict=True):
        if dataset_id in class_of:
            numbers.setdefault(class_of[dataset_id], []).append(number)
            areas[class_of[dataset_id], number] = area
        elif dataset_id not in labels.void_ids:
            text = f"{area:,} pixels; it is not in '{labels.name}' ({labels.describe_ids()})"
            faults.append(Fault("unknown category", f"{map}: class {dataset_id}, number {number}", text))
    zeros: list[Fault] = []
    from_one = None
    for class_id, found in numbers.items():
        name = labels.names[class_id]
        if not labels.is_thing[class_id]:
            for number in found:
                if number:
                    text = f"{areas[class_id, number]:,} pixels of a class whose objects are not told apart"
                    faults.append(Fault("number of stuff", f"{map}: {name}, number {number}", text))
        elif 0 in found:
            text = f"{areas[class_id, 0]:,} pixels of a thing have no number"
            zeros.append(Fault("thing without instance", f"{map}: {name}, number 0", text))
        elif min(found) < CROWD:
            from_one = f"numbers count from 1 in {map.name} ({name} {min(found)})"
    findings = Findings(tuple(faults), frozenset(numbers), turned=turned)
    return Inspected(findings, len(areas), tuple(zeros), from_one)
