"""A panoptic JSON with its faults repaired where that can be done without guessing; the PNGs stay what they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pixelwise.data.formats import cityscapes_panoptic
from pixelwise.data.formats.coco.repair import RepairedJson, from_folder, write_repaired
from pixelwise.data.formats.coco_panoptic import reader as coco_panoptic
from pixelwise.data.formats.coco_panoptic.dataset import PanopticPairs, list_split
from pixelwise.data.kinds.coco_json import Entry, is_integer
from pixelwise.data.kinds.folders import content_keys
from pixelwise.data.kinds.segment_maps import box_of, is_other_box, read_segment_ids
from pixelwise.data.spec import DataSpec
from pixelwise.data.truth.segments import regions_of_ids
from pixelwise.errors import DataError
from pixelwise.files.images import read_image
from pixelwise.files.parallel import Progress, apply

_FORMATS = {"coco-panoptic": coco_panoptic, "cityscapes-panoptic": cityscapes_panoptic}


class _Repaired(NamedTuple):
    """One image: its size and its segments, or None where it cannot be used; and what was done."""

    size: tuple[int, int] | None
    infos: tuple[Entry, ...]
    done: Mapping[str, int]


def repair_panoptic_json(
    path: Path,
    split: str,
    options: Mapping[str, str],
    file: Path,
    *,
    seen: set[Any],
    workers: int,
    progress: Progress,
    format: str = "coco-panoptic",
) -> RepairedJson:
    """Write a repaired copy of the JSON of one split of coco-panoptic or cityscapes-panoptic, as coco-panoptic.

    Areas and boxes become those of the PNG, and segments without pixels, of no category or with the id 0 or that of
    another go. An image goes if it, its annotation or its PNG is missing, unreadable or of another size, or if the PNG
    has an id that is not listed: which class its pixels have only the annotator knows.

    Args:
        path: the folder of the set.
        split: its split.
        options: of the specification.
        file: the copy.
        seen: contents of images that other splits keep; those of this split are added.
        workers: processes that read; 0 reads in this one.
        progress: is told of each image.
        format: of the set.

    Raises:
        DataError: the file as a whole is unusable, or no image is left; or its PNGs have 2 channels and no list.
        OSError: the copy cannot be written.
    """
    of_format = _FORMATS[format]
    files = of_format.files_of(path, split, options)
    if files.two_channels:
        raise DataError(f"{files.json}: with 2channel the truth stands in the PNGs alone, which are not repaired")
    listed = list_split(files, name=split, format=format)
    content, dataset = listed.content, listed.dataset
    kinds = Counter(problem.kind for problem in listed.problems if problem.fatal)
    done: Counter[str] = Counter()
    done["segments"] += sum(kinds[kind] for kind in ("segment id", "repeated segment", "unknown category"))
    done["segments"] += kinds["segment entry"]
    done["repeated_annotations"] += kinds["repeated annotation"]
    done["images"] += len(content.images) - len(dataset)
    repair = partial(_repaired, dataset=dataset, infos=listed.infos)
    read = apply(repair, range(len(dataset)), workers=workers)
    repaired = [*progress(read, total=len(dataset), what=f"repair {split}")]
    entry_of = {image["id"]: image for image in reversed(content.images) if isinstance(image.get("id"), int | str)}
    id_of = {str(id): id for id in entry_of}
    keys = content_keys(image for image in dataset.images if image.is_file())
    images: list[Entry] = []
    annotations: list[Entry] = []
    folder = of_format.image_folder(path, split, options, content.images)
    for index, one in enumerate(repaired):
        done.update(one.done)
        key = keys.get(dataset.images[index])
        if one.size is None:
            continue
        if key in seen:
            done["repeated_images"] += 1
            continue
        seen.add(key)
        entry = entry_of[id_of[dataset.ids[index]]]
        size = {"height": one.size[0], "width": one.size[1]}
        done["sizes"] += any(entry.get(side) != length for side, length in size.items())
        images.append({**entry, "file_name": str(dataset.images[index].relative_to(folder)), **size})
        map = dataset.maps[index]
        name = str(map.relative_to(files.maps)) if map.is_relative_to(files.maps) else map.name
        annotations.append({"image_id": entry["id"], "file_name": name, "segments_info": [*one.infos]})
    if not images:
        raise DataError(f"{files.json}: no usable image is left, no copy was written")
    repaired = {**content.rest, "images": images, "annotations": annotations, "categories": content.categories}
    write_repaired(file, repaired)
    query = {"json": from_folder(path, file), "masks": from_folder(path, files.maps)}
    query["images"] = options.get("images") or from_folder(path, folder)
    query |= {name: options[name] for name in ("labels",) if name in options}
    opens_as = DataSpec("coco-panoptic", str(path), None, tuple(query.items()))
    return RepairedJson({key: number for key, number in done.items() if number}, len(images), str(opens_as))


def _repaired(index: int, *, dataset: PanopticPairs, infos: Sequence[Sequence[Entry]]) -> _Repaired:
    """Read one image and its PNG, and make the list fit them."""
    try:
        _, height, width = read_image(dataset.images[index]).shape
    except DataError:
        return _Repaired(None, (), {"unreadable_images": 1})
    try:
        ids = read_segment_ids(dataset.maps[index])
    except DataError:
        return _Repaired(None, (), {"unreadable_masks": 1})
    if ids.shape != (height, width):
        return _Repaired(None, (), {"size_mismatches": 1})
    regions = regions_of_ids(ids)
    place = {int(id): number for number, id in enumerate(regions.ids)}
    listed = {info["id"] for info in infos[index]}
    if set(place) - listed - {0}:
        return _Repaired(None, (), {"unlisted_ids": 1})
    done: Counter[str] = Counter()
    kept: list[Entry] = []
    for info in infos[index]:
        number = place.get(info["id"])
        if number is None:
            done["segments_without_pixels"] += 1
            continue
        area, box = int(regions.areas[number]), box_of(regions.boxes[number])
        repaired = dict(info)
        if "area" in info and not (is_integer(info["area"]) and info["area"] == area):
            done["areas"] += 1
            repaired["area"] = area
        if "bbox" in info and is_other_box(info["bbox"], box):
            done["boxes"] += 1
            repaired["bbox"] = box
        kept.append(repaired)
    return _Repaired((height, width), tuple(kept), done)
