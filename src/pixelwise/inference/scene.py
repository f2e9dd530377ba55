"""The result of a predictor's call: an image and its prediction, to draw or to store."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int32, UInt8
from PIL import Image
from torch import Tensor

from pixelwise.drawing.draw import draw
from pixelwise.errors import PixelwiseError
from pixelwise.files.atomic import write_file
from pixelwise.files.png import write_png
from pixelwise.labels import LabelSet
from pixelwise.predictions.pictures import (
    INSTANCES_SUFFIX,
    OVERLAY_SUFFIX,
    PANOPTIC_SUFFIX,
    SEMANTIC_SUFFIX,
    ids_picture,
    instance_ids,
    segment_picture,
)
from pixelwise.predictions.record import segments_of
from pixelwise.types import Annotation, Instances, Panoptic


class MissingPartError(PixelwiseError, AttributeError):
    """The model's task does not have that part. Names the parts that it has."""


@dataclass(frozen=True, eq=False)
class Scene:
    """An image and its prediction, at the image's own size and on the CPU.

    Parts that the task does not have raise MissingPartError.

    Attributes:
        image: RGB, 0-255.
        annotation: the prediction.
        labels: the classes.
        seconds: of the prediction, without reading and writing.
        model: the model's name.
        name: the image's name, such as its path; None for an image without one.
        is_tracked: whether ids of segments are those of a clip: a thing has the same one in all frames.
    """

    image: UInt8[Tensor, "3 H W"]
    annotation: Annotation
    labels: LabelSet
    seconds: float
    model: str
    name: str | None = None
    is_tracked: bool = False

    @property
    def semantic(self) -> UInt8[Tensor, "H W"] | Int32[Tensor, "H W"]:
        """Class id of each pixel, `labels.ignore_id` for void."""
        return self._part("semantic")

    @property
    def confidence(self) -> Float[Tensor, "H W"]:
        """Probability of that class, in [0, 1]."""
        return self._part("confidence")

    @property
    def instances(self) -> Instances:
        """The instances."""
        return self._part("instances")

    @property
    def panoptic(self) -> Panoptic:
        """The segments."""
        return self._part("panoptic")

    @property
    def saliency(self) -> Float[Tensor, "H W"]:
        """Saliency of each pixel, in [0, 1]."""
        return self._part("saliency")

    @property
    def captions(self) -> tuple[tuple[str, float], ...]:
        """(text, log-probability) pairs, highest first."""
        return self._part("captions")

    def draw(self, *, legend: bool = True, names: bool = False) -> Image.Image:
        """The image in the colours of its classes, with outlines and, beside or beneath it, a legend.

        With `names` class names are written into the image.
        """
        return draw(self.image, self.annotation, self.labels, legend=legend, names=names)

    def save(self, stem: str | Path) -> list[Path]:
        """Write the overlay and the parts of the task.

        Args:
            stem: path without suffix: `out/photo` gives `out/photo.overlay.png`, `out/photo.semantic.png`. Parent
                folders are made.

        Returns:
            the files, the overlay first. Each is written whole or not at all.

        Raises:
            OSError: the place cannot be written.
        """
        overlay = Path(f"{stem}{OVERLAY_SUFFIX}")
        overlay.parent.mkdir(parents=True, exist_ok=True)
        write_file(overlay, lambda new: write_png(new, self.draw()), sync=False)
        files = [overlay]
        if self.annotation.semantic is not None:
            files.append(Path(f"{stem}{SEMANTIC_SUFFIX}"))
            picture = ids_picture(self.annotation.semantic.numpy(), self.labels)
            write_file(files[-1], lambda new: picture.save(new, format="PNG"), sync=False)
        if self.annotation.instances is not None:
            files.append(Path(f"{stem}{INSTANCES_SUFFIX}"))
            objects = Image.fromarray(instance_ids(self.annotation.instances.by_score(), self.image.shape[1:]))
            write_file(files[-1], lambda new: objects.save(new, format="PNG"), sync=False)
        if self.annotation.panoptic is not None:
            files.append(Path(f"{stem}{PANOPTIC_SUFFIX}"))
            segments = segment_picture(self.annotation.panoptic)
            write_file(files[-1], lambda new: segments.save(new, format="PNG"), sync=False)
        return files

    def record(self) -> dict[str, Any]:
        """The scene as JSON values: the line of `results.jsonl`.

        A semantic scene has one segment for each class that occurs, without background; its `id` is the class id, its
        `score` the mean probability, its `box` x1 y1 x2 y2 with x2 y2 exclusive. A scene of instances has one for each,
        the highest-scoring first; its `id` is that in `photo.instances.png`, and classes pasted from the instances are
        in `photo.semantic.png` alone. A panoptic scene has one for each segment, in the order of their ids; its `id` is
        that in `photo.panoptic.png`, and things of a tracked scene have their id within the clip as `track_id`.
        """
        return {
            "image": self.name,
            "size": [self.image.shape[1], self.image.shape[2]],
            "model": self.model,
            "labels": list(self.labels.names),
            "segments": segments_of(self.annotation, self.labels, is_tracked=self.is_tracked),
            "seconds": round(self.seconds, 4),
        }

    def _part(self, name: str) -> Any:
        part = getattr(self.annotation, name)
        if part is None:
            given = [field.name for field in fields(Annotation) if getattr(self.annotation, field.name) is not None]
            raise MissingPartError(f"{self.model} has no {name}; it has {', '.join(given) or 'nothing'}")
        return part
