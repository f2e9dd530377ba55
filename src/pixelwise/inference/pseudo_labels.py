"""Pseudo labels: a trained model labels photographs, and what it is sure of becomes a data set to train on.

Source: Lee, "Pseudo-Label", ICML 2013 workshop; of pixels with a threshold for each class: Zou et al., "Unsupervised
Domain Adaptation for Semantic Segmentation via Class-Balanced Self-Training", ECCV 2018. Pixels of a lower confidence
become void.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pixelwise.data.kinds.class_masks_writer import PairWriter
from pixelwise.data.kinds.writing import Original
from pixelwise.data.listing import Written
from pixelwise.data.spec import DataSpec, folder_of, format_names, format_of
from pixelwise.errors import CheckpointError, DataError, RecipeError
from pixelwise.files.atomic import write_file
from pixelwise.files.images import read_image
from pixelwise.files.text import read_json
from pixelwise.inference.images.find import find_image_files
from pixelwise.inference.predictor import Options, Predictor
from pixelwise.labels import LabelSet
from pixelwise.types import Annotation

JOB_NAME = "pseudo_labels.json"
"""The file in the new set that says how it was made."""
TAGS_NAME = "tags.json"
"""The file of tags that a folder of images may have."""
CONFIDENCE = "confidence"
"""The folder of confidences, beside that of the masks: 0 to 255 for 0 to 1."""
SPLIT = "train"
"""The split of the new set."""
BACKGROUND = "background"
"""The class that needs no tag."""
DEFAULT_THRESHOLD = 0.8

Tags = Mapping[str, frozenset[str]]
"""Id or file name of an image → the names of the classes that it contains."""


@dataclass(frozen=True)
class Unlabelled:
    """An image to label.

    Attributes:
        name: of its files in the new set.
        path: of the image.
        keys: by which tags may name it.
    """

    name: str
    path: Path
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Labelled:
    """What became of an image.

    Attributes:
        image: the image.
        pixels: class id → how many pixels have it now; the set's `ignore_id` for void; empty where it was done before.
        failure: why there is no mask, in one line that names the file, or empty.
    """

    image: Unlabelled
    pixels: Mapping[int, int]
    failure: str = ""


@dataclass(frozen=True)
class Job:
    """How images are labelled, and where to.

    Attributes:
        predictor: a semantic model.
        weights: digest of its weights.
        options: see Options.
        thresholds: smallest confidence of each class.
        tags: of images; those without an entry may have any class.
        root: the folder of the new set.
        writer: of its format.
    """

    predictor: Predictor
    weights: str
    options: Options
    thresholds: tuple[float, ...]
    tags: Tags
    root: Path
    writer: PairWriter

    def record(self) -> dict[str, Any]:
        """What tells whether a folder was begun by an equal job."""
        return {
            "format_version": 1,
            "model": self.predictor.name,
            "weights_sha256": self.weights,
            "options": asdict(self.options),
            "thresholds": dict(zip(self.predictor.labels.names, self.thresholds, strict=True)),
            "tags_sha256": hashlib.sha256(
                json.dumps({key: sorted(self.tags[key]) for key in sorted(self.tags)}).encode()
            ).hexdigest(),
            "format": self.writer.format,
        }


def find_unlabelled(source: str, *, out: Path) -> tuple[list[Unlabelled], dict[str, frozenset[str]]]:
    """The images of a data set, whose masks are not read, or of a folder or pattern; and their tags.

    Args:
        source: FORMAT:PATH[@SPLIT], all splits without one; or a folder, a file or a pattern, as for `predict`.
        out: the folder of the new set, whose images are skipped.

    Returns:
        the images, and what the format's own lists, or a `tags.json` in the folder, say of them.

    Raises:
        DataError: nothing there, or two images of one name.
    """
    tags: dict[str, frozenset[str]] = {}
    if source.partition(":")[0] in format_names():
        spec = DataSpec.parse(source)
        format, folder, options = format_of(spec), folder_of(spec), dict(spec.options)
        found: dict[Path, Unlabelled] = {}
        for split in (spec.split,) if spec.split else format.splits(folder, options):
            listing = format.list_split(folder, split, options)
            tags |= listing.tags() if listing.tags else {}
            for item in listing.items:
                if item.image is not None:
                    keys = (item.id, item.name, item.image.name, item.image.stem)
                    found.setdefault(item.image, Unlabelled(item.id.replace("/", "_"), item.image, keys))
        images = list(found.values())
    else:
        folder = Path(source)
        images = [
            Unlabelled(
                file.stem.as_posix().replace("/", "_"),
                file.path,
                (file.stem.as_posix(), file.path.name, file.path.stem),
            )
            for file in find_image_files([source], out=out).files
        ]
    if not images:
        raise DataError(f"{source}: no images in it")
    by_name = sorted(images, key=lambda image: image.name)
    for name, group in groupby(by_name, key=lambda image: image.name):
        first, *others = group
        if others:
            raise DataError(f"{first.path} and {others[0].path} would both be called {name}; label one set at a time")
    if (folder / TAGS_NAME).is_file():
        tags |= read_tags(folder / TAGS_NAME)
    return images, tags


def read_tags(path: Path) -> dict[str, frozenset[str]]:
    """The classes that images are said to contain: a JSON object, image → list of class names.

    Raises:
        DataError: unreadable, or of another form; names the entry.
    """
    content = read_json(path, expected="the tags of images, an object")
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected an object, the id or file name of an image → a list of class names")
    for key, names in content.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError(f"{path}: entry '{key}': expected a list of class names")
    return {key: frozenset(names) for key, names in content.items()}


def require_known(tags: Tags, labels: LabelSet, images: Sequence[Unlabelled], *, source: str) -> None:
    """Raise DataError for a tag that is no class of the model, or for tags of none of the images."""
    for key, names in tags.items():
        strange = sorted(names - set(labels.names))
        if strange:
            raise DataError(
                f"{source}: '{key}' has the tag '{strange[0]}'; the model's classes are {', '.join(labels.names)}"
            )
    if tags and not any(key in tags for image in images for key in image.keys):
        raise DataError(
            f"{source}: tags of '{next(iter(tags))}' …, but of none of the {len(images)} images; "
            "expected their ids or file names"
        )


def read_thresholds(texts: Sequence[str], labels: LabelSet) -> tuple[float, ...]:
    """The smallest confidence of each class.

    Args:
        texts: numbers for all classes, or CLASS=NUMBER for one, in any order; without any, DEFAULT_THRESHOLD.
        labels: the classes.

    Raises:
        RecipeError: an unknown class, or a number that is no probability.
    """
    common, own = DEFAULT_THRESHOLD, dict[str, float]()
    for text in texts:
        name, equals, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if not 0 <= value <= 1:
            raise RecipeError(f"--threshold {text}: expected a probability from 0 to 1, or CLASS=PROBABILITY")
        if not equals:
            common = value
        elif name not in labels.names:
            raise RecipeError(f"--threshold {text}: no class '{name}'; the classes are {', '.join(labels.names)}")
        else:
            own[name] = value
    return tuple(own.get(name, common) for name in labels.names)


def make_writer(target: str, labels: LabelSet) -> tuple[Path, PairWriter]:
    """The folder and the writer of a new set.

    Args:
        target: a folder, in the format `masks`; or FORMAT:FOLDER of a format with a mask for each image.
        labels: the model's classes.

    Raises:
        DataError: another format, or one with other classes.
    """
    known = target.partition(":")[0] in format_names()
    spec = DataSpec.parse(target if known else f"masks:{target}")
    if spec.split is not None:
        raise DataError(f"--out {target}: the split is {SPLIT}; leave @{spec.split} out")
    format = format_of(spec)
    writer = format.writer(dict(spec.options), labels) if format.writer else None
    if not isinstance(writer, PairWriter):
        raise DataError(f"--out {target}: {spec.format} has no class mask for each image; expected masks or voc")
    writer.labels.require_same(labels, mine=f"target {target}", theirs="model")
    return Path(spec.path).expanduser(), writer


def pseudo_label(images: Sequence[Unlabelled], job: Job, *, overwrite: bool = False) -> Iterator[Labelled]:
    """Label images, one after the other, into a set that opens when all are done.

    A job that is started again labels only what is not done.

    Args:
        images: of `find_unlabelled`.
        job: the model, and where to.
        overwrite: begin anew in a folder of another job.

    Yields:
        what became of each image.

    Raises:
        DataError: the folder is that of something else, or cannot be written.
        RecipeError: the model is not semantic.
    """
    try:
        _begin(job, overwrite=overwrite)
        written: list[Written] = []
        for image in images:
            confidence = _confidence_path(job, image)
            outcome = Labelled(image, {}) if confidence.is_file() else _label(image, job, confidence)
            if not outcome.failure:
                written.append(Written(image.name, ""))
            yield outcome
        if written:
            job.writer.finish(job.root, split=SPLIT, written=written)
            job.writer.finish_set(job.root)
    except OSError as error:
        raise DataError(f"{job.root}: cannot be written ({error.strerror or error})") from None


def summary(outcomes: Sequence[Labelled], labels: LabelSet) -> dict[str, Any]:
    """Counts of a job: images, those done before, failures, the share of void, and the images of each class."""
    pixels, containing = Counter[int](), Counter[int]()
    for outcome in outcomes:
        pixels.update(outcome.pixels)
        containing.update(outcome.pixels.keys())
    total = pixels.total()
    return {
        "images": sum(not one.failure for one in outcomes),
        "done_before": sum(not one.failure and not one.pixels for one in outcomes),
        "failures": [one.failure for one in outcomes if one.failure],
        "void_share": pixels[labels.ignore_id] / total if total else None,
        "images_per_class": {name: containing[number] for number, name in enumerate(labels.names)},
    }


def _begin(job: Job, *, overwrite: bool) -> None:
    """Make the folder, or go on in one that an equal job began."""
    task = job.predictor.card.task
    if task != "semantic":
        raise RecipeError(f"{job.predictor.name}: a model for {task} segmentation; pseudo-label expects a semantic one")
    file = job.root / JOB_NAME
    if job.root.is_file():
        raise DataError(f"{job.root}: a file; expected a folder")
    if job.root.is_dir() and any(job.root.iterdir()):
        if not file.is_file():
            raise DataError(f"{job.root} is not empty, and pseudo-label did not make it; choose another folder")
        try:
            equal = read_json(file) == job.record()
        except DataError:
            equal = False
        if equal and not overwrite:
            return
        if not overwrite:
            raise DataError(
                f"{job.root}: made with another model, or other options or thresholds ({JOB_NAME}); choose another "
                "folder, or add --overwrite"
            )
        shutil.rmtree(job.root)
    job.root.mkdir(parents=True, exist_ok=True)
    write_file(file, json.dumps(job.record(), indent=2, ensure_ascii=False))


def _label(image: Unlabelled, job: Job, confidence: Path) -> Labelled:
    predictor = job.predictor
    try:
        pixels = read_image(image.path)
    except DataError as error:
        return Labelled(image, {}, str(error))
    allowed: list[int] = []
    tags = next((job.tags[key] for key in image.keys if key in job.tags), None)
    if tags is None:
        annotation = predictor.annotate(pixels, job.options)
    else:
        names = predictor.labels.names
        allowed = [number for number, name in enumerate(names) if name in tags or name == BACKGROUND]
        annotation = predictor.annotate_within(pixels, allowed, job.options)
    annotation = annotation.to("cpu")
    if annotation.semantic is None or annotation.confidence is None:
        raise CheckpointError(f"{predictor.name}: gives no confidence of its classes")
    sure = annotation.confidence.numpy()
    semantic = annotation.semantic.numpy().copy()
    table = np.array([*job.thresholds, 0.0])
    if tags is not None and not allowed:
        semantic[:] = predictor.labels.ignore_id
    semantic[sure < table[np.minimum(semantic, len(job.thresholds))]] = predictor.labels.ignore_id
    truth = Annotation(semantic=annotation.semantic.new_tensor(semantic))
    original = Original(SPLIT, image.name, image.name, image.path, pixels.permute(1, 2, 0).contiguous().numpy(), truth)
    job.writer.write(job.root, original)
    confidence.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.round(sure * 255).astype(np.uint8))
    # the last file: where it is, the others are
    save: Callable[[Path], object] = lambda path: picture.save(path, format="PNG")  # noqa: E731
    write_file(confidence, save)
    values, counts = np.unique(semantic, return_counts=True)
    return Labelled(image, dict(zip(values.tolist(), counts.tolist(), strict=True)))


def _confidence_path(job: Job, image: Unlabelled) -> Path:
    """Where the mask lies, but for the first folder."""
    mask = Path(job.writer.mask.format(split=job.writer.folders.get(SPLIT, SPLIT), name=image.name))
    return job.root / Path(CONFIDENCE, *mask.parts[1:])
