"""Images with a PNG of segments each: what the formats coco-panoptic and cityscapes-panoptic share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pixelwise.data.formats.coco.repair import from_folder
from pixelwise.data.formats.coco_panoptic.repair import PanopticRepairer
from pixelwise.data.kinds.coco_json import CocoJson, Entry, image_problems, is_integer, read_json
from pixelwise.data.kinds.panoptic_json import FAULTS_OF_SEGMENTS, panoptic_labels_of, panoptic_problems
from pixelwise.data.kinds.segment_maps import (
    CROWD,
    Channels,
    Listed,
    listing_faults,
    read_segment_ids,
    read_two_channels,
    segments_of_channels,
)
from pixelwise.data.listing import Fault, Findings, Item, Listing, Repair, Size, sides, without_path
from pixelwise.data.spec import DataSpec
from pixelwise.data.truth.segments import annotation_of, panoptic_of, regions_of_ids
from pixelwise.errors import DataError, count
from pixelwise.files.lookup import find_file, posix_name
from pixelwise.labels import LabelSet
from pixelwise.types import Annotation, Panoptic


class PanopticFiles(NamedTuple):
    """Where a split lies.

    Attributes:
        path: the folder of the set.
        json: the JSON file.
        maps: the folder of PNGs.
        image_folder: the folder of images, given some of their entries.
        image_in: the file of an entry in that folder.
        two_channels: whether the PNGs hold class and number, so that the JSON need not list segments.
        labels: what the categories are, whatever the JSON says of them; None where it says it.
        options: further ones with which a repaired copy opens.
    """

    path: Path
    json: Path
    maps: Path
    image_folder: Callable[[Sequence[Entry]], Path]
    image_in: Callable[[Path, Entry], Path]
    two_channels: bool = False
    labels: LabelSet | None = None
    options: Mapping[str, str] = {}


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


def panoptic_listing(files: PanopticFiles) -> Listing:
    """The listing of a split. Raises DataError where its JSON is unusable as a whole, or a folder is missing."""
    optional = {"annotations": files.two_channels, "categories": files.labels is not None}
    content = read_json(files.json, optional=[name for name, may_lack in optional.items() if may_lack])
    labels, class_of = panoptic_labels_of(
        content.categories, source=files.json, stored=content.label_set, given=files.labels
    )
    annotations = [*content.annotations]
    if files.two_channels and not annotations:  # as panopticapi's converter names the PNGs
        annotations = [
            {"image_id": image.get("id"), "file_name": f"{Path(str(image.get('file_name'))).stem}.png"}
            for image in content.images
        ]
    faults = [*image_problems(content.images)]
    image_of = {image["id"]: image for image in content.images if isinstance(image.get("id"), int | str)}
    faults += panoptic_problems(annotations, image_of, class_of, segments=not files.two_channels)
    broken = {id(fault.entry) for fault in faults if fault.fatal}
    annotation_of_image = {one["image_id"]: one for one in reversed(annotations) if id(one) not in broken}
    sound = [image for image in content.images if id(image) not in broken and image["id"] in annotation_of_image]
    chosen = [annotation_of_image[image["id"]] for image in sound]
    listed = [() if files.two_channels else one["segments_info"] for one in chosen]
    infos = tuple(tuple(info for info in of_image if id(info) not in broken) for of_image in listed)
    unsound = tuple(
        frozenset(info["id"] for info in of_image if id(info) in broken and is_integer(info.get("id")))
        for of_image in listed
    )
    left_out = sum(fault.kind == "missing annotation" for fault in faults)
    folder = files.image_folder(sound)
    items = tuple(
        Item(
            str(image["id"]),
            files.image_in(folder, image),
            _map_in(files.maps, one["file_name"]),
            size_hw=(image["height"], image["width"]),
            extra=place,
        )
        for place, (image, one) in enumerate(zip(sound, chosen, strict=True))
    )
    segments = None if files.two_channels else Segments.from_entries(infos, class_of)
    return Listing(
        items,
        labels,
        read=partial(read_segments, segments=segments),
        inspect=partial(inspect_segments, segments=segments, infos=infos, unsound=unsound),
        source=files.json,
        faults=tuple(faults),
        skipped=f"skipped: {count(left_out, 'image')} without annotation" if left_out else None,
        noun="map",
        parts=("segment", "segments"),
        truths=f"in {files.json.name} and {files.maps}",
        title=str(files.json),
        one_file=True,
        turns=False,
        repair=partial(_repair, files, content, folder, items, sound, infos, faults),
    )


def _map_in(maps: Path, name: str) -> Path:
    """The PNG of an annotation, whatever the suffix of its name is."""
    name = Path(posix_name(name)).with_suffix(".png").as_posix()
    return find_file(name, [maps]) or maps / name


def _repair(
    files: PanopticFiles,
    content: CocoJson,
    folder: Path,
    items: Sequence[Item],
    images: Sequence[Entry],
    infos: Sequence[Sequence[Entry]],
    faults: Sequence[Fault],
) -> Repair:
    """How a copy of the JSON is made; the PNGs stay. Raises DataError where nothing but the PNGs tells segments."""
    if files.two_channels:
        raise DataError(
            f"{files.json}: with 2channel the ground truth stands in the PNGs alone, which are not repaired"
        )
    kinds = Counter(fault.kind for fault in faults if fault.fatal)
    done = {
        "segments": sum(kinds[kind] for kind in FAULTS_OF_SEGMENTS),
        "repeated_annotations": kinds["repeated annotation"],
        "images": len(content.images) - len(items),
    }
    entries = [
        item._replace(extra=(image, of_image)) for item, image, of_image in zip(items, images, infos, strict=True)
    ]
    repairer = PanopticRepairer(content.rest, content.categories, folder, files.maps)
    return Repair(entries, repairer, done, lists=partial(_opens_as, files, folder), list_name="panoptic_")


def _opens_as(files: PanopticFiles, folder: Path, file: Path) -> str:
    options = {"json": from_folder(files.path, file), "masks": from_folder(files.path, files.maps)}
    options |= {"images": from_folder(files.path, folder), **files.options}
    return str(DataSpec("coco-panoptic", str(files.path), None, tuple(options.items())))


def read_segments(item: Item, labels: LabelSet, size: Size, *, segments: Segments | None) -> Annotation:
    """The segments of an image, the class of each pixel, and the objects; see `Listing.read`."""
    assert item.truth is not None
    panoptic = _panoptic(item, labels, segments)
    shape = (panoptic.ids.shape[0], panoptic.ids.shape[1])
    if shape != size:
        raise DataError(f"{item.image}: {sides(size)} pixels (height×width, upright), {item.truth} has {sides(shape)}")
    return annotation_of(panoptic, labels)


def _panoptic(item: Item, labels: LabelSet, segments: Segments | None) -> Panoptic:
    path = item.truth
    assert path is not None
    if segments is None:
        return segments_of_channels(read_two_channels(path), labels, source=path)
    ids, places = read_segment_ids(path), segments.of_image(item.extra)
    known = segments.ids[places]
    regions = regions_of_ids(ids)
    strange = (regions.ids != 0) & ~np.isin(regions.ids, known)
    if strange.any():
        raise DataError(
            f"{path}: id {regions.ids[strange][0]} ({regions.areas[strange][0]:,} pixels) has no segment in the "
            f"JSON; {int(strange.sum())} such ids in all, see pixelwise data check"
        )
    return panoptic_of(ids, known.tolist(), segments.class_ids[places].tolist(), segments.crowd[places].tolist())


def inspect_segments(
    item: Item,
    labels: LabelSet,
    size: Size | None,  # noqa: ARG001
    *,
    segments: Segments | None,
    infos: Sequence[Sequence[Entry]],
    unsound: Sequence[frozenset[int]],
) -> Findings:
    """What is wrong between the PNG of an image and what the JSON says of it; see `Listing.inspect`.

    Args:
        segments: of all images; None where PNGs have 2 channels.
        infos: the sound segments of each image, as the JSON has them.
        unsound: the ids of the others of each.
    """
    path = item.truth
    assert path is not None
    try:
        channels = read_two_channels(path) if segments is None else None
        ids = read_segment_ids(path) if channels is None else channels.ids
    except DataError as error:
        return Findings((Fault("unreadable map", str(path), without_path(error, path)),))
    stated: dict[str, Any] = {"size_hw": (ids.shape[0], ids.shape[1]), "by": f"PNG {path.name}"}
    if channels is not None:
        return _inspect_channels(channels, labels, path)._replace(**stated)
    assert segments is not None
    places, regions = segments.of_image(item.extra), regions_of_ids(ids)
    listed = [Listed(info["id"], info.get("area"), info.get("bbox")) for info in infos[item.extra]]
    faults = [*listing_faults(regions, listed, source=str(path), named=unsound[item.extra])]
    class_ids = segments.class_ids[places][np.isin(segments.ids[places], regions.ids)]
    return Findings(tuple(faults), class_ids=frozenset(class_ids.tolist()), parts=len(listed), **stated)


def _inspect_channels(channels: Channels, labels: LabelSet, map: Path) -> Findings:
    """What is wrong with a file of 2 channels.

    Numbers count from 0 in some sets, from 1 in others. Whether a thing with the number 0 lacks its number is told by
    the other images, so such faults are put aside.
    """
    class_of = {dataset_id: index for index, dataset_id in enumerate(labels.dataset_ids)}
    faults: list[Fault] = []
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
                    text = f"{areas[class_id, number]:,} pixels of a class without instances"
                    faults.append(Fault("number of stuff", f"{map}: {name}, number {number}", text))
        elif 0 in found:
            text = f"{areas[class_id, 0]:,} pixels of a thing have no number"
            zeros.append(Fault("thing without instance", f"{map}: {name}, number 0", text))
        elif min(found) < CROWD:
            from_one = f"numbers count from 1 in {map.name} ({name} {min(found)})"
    return Findings(
        tuple(faults), class_ids=frozenset(numbers), parts=len(areas), zeros=tuple(zeros), from_one=from_one
    )
