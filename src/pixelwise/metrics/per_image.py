"""The shared part of all metrics: a result for each image, each image once, and an exact state for JSON."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from pydantic import TypeAdapter, ValidationError

from pixelwise.errors import DataError, RecipeError
from pixelwise.labels import LabelSet
from pixelwise.types import Annotation

Result = TypeVar("Result")
Metric = TypeVar("Metric", bound="PerImage[Any]")


class Place(NamedTuple):
    """The counted image: its unique name, its clip, and its index in the clip."""

    key: str
    clip: str | None
    frame: int


class PerImage(Generic[Result]):
    """Stores a result for each image.

    Args:
        labels: the classes.
        definition: one of the metric's; the first of them unless it is given.

    Raises:
        RecipeError: an unknown definition.
    """

    definitions: ClassVar[Mapping[str, str]]
    """One line for each definition, shown beside the numbers."""
    result: ClassVar[Any]
    """The type of an image's result: a NamedTuple of numbers, strings and tuples."""
    order: ClassVar[str | None] = None
    """The part of the metric that needs the order of frames, such as `decay needs`; None without such a part."""

    def __init__(self, labels: LabelSet, definition: str | None = None) -> None:
        if definition is None:
            definition = next(iter(self.definitions))
        if definition not in self.definitions:
            raise RecipeError(f"definition '{definition}': expected one of {', '.join(self.definitions)}")
        self.labels = labels
        self.definition = definition
        self.images: dict[str, Result] = {}
        """The result of each image, by its name."""

    def update(
        self,
        predicted: Annotation,
        truth: Annotation,
        *,
        id: str,
        clip: str | None = None,
        frame: int | None = None,
    ) -> None:
        """Count one image.

        Raises DataError for an image counted before, another size, a class out of range, or annotations without the
        compared part; where the order counts, also for a frame without an index in its clip.
        """
        key = image_key(id, clip, frame)
        if key in self.images:
            raise DataError(f"image '{key}' was evaluated before; each id is counted once")
        if self.order is not None and clip is not None and frame is None:
            raise DataError(f"image '{key}': a frame of the clip '{clip}' without its index; {self.order} the order")
        self.images[key] = self.compare(predicted, truth, Place(key, clip, frame or 0))

    def compare(self, predicted: Annotation, truth: Annotation, at: Place) -> Result:
        """The result of one image. Raises DataError where it cannot be counted; then nothing has changed."""
        raise NotImplementedError

    def merge(self, other: Any) -> None:
        """Add the results of another one over other images.

        Raises DataError for an image in both, other classes, or another definition.
        """
        self.labels.require_same(other.labels, mine="this metric", theirs="the other")
        if self.definition != other.definition:
            raise DataError(f"one part is evaluated by the definition {self.definition}, another by {other.definition}")
        both = sorted(set(self.images) & set(other.images))
        if both:
            raise DataError(f"image '{both[0]}' is in both parts ({len(both)} such images); each id is counted once")
        self.images |= other.images

    def state(self) -> dict[str, Any]:
        """The results as tuples and numbers that JSON keeps exactly; `from_state` restores them."""
        return {"images": dict(self.images)}

    @classmethod
    def from_state(cls: type[Metric], labels: LabelSet, definition: str, state: Mapping[str, Any]) -> Metric:
        """Restore a metric from its state. Raises DataError for an impossible state."""
        metric = cls(labels, definition)
        metric.images = stored(dict[str, cls.result], state, "images")
        for name, one in metric.images.items():
            fault = metric.fault(one)
            if fault:
                raise DataError(f"state.images.{name}: {fault}")
        return metric

    def fault(self, result: Result) -> str | None:  # noqa: ARG002
        """The fault of a stored result of the right types, or None."""
        return None

    def require_classes(self, labels: Collection[int], *, id: str, side: str) -> None:
        """Raise DataError for a class that is not in the label set; `side` is `ground truth` or `prediction`."""
        strange = next((one for one in labels if not 0 <= one < len(self.labels)), None)
        if strange is not None:
            raise DataError(
                f"image '{id}': class {strange} in the {side} is not one of the {len(self.labels)} "
                f"of '{self.labels.name}'"
            )


def image_key(id: str, clip: str | None = None, frame: int | None = None) -> str:
    """The unique name of an image: frames of several clips may have the same id."""
    return "/".join(str(part) for part in (clip, frame, id) if part is not None)


def require_size(predicted: Sequence[int], truth: Sequence[int], *, id: str) -> None:
    """Raise DataError where the heights and widths of prediction and ground truth differ."""
    if tuple(predicted) != tuple(truth):
        raise DataError(
            f"image '{id}': the prediction is {predicted[0]}×{predicted[1]}, the ground truth {truth[0]}×{truth[1]}; "
            "predictions must have the ground truth's size"
        )


def stored(form: Any, state: Mapping[str, Any], name: str) -> Any:
    """An entry of a state, validated as this type. Raises DataError that names the first fault."""
    try:
        return TypeAdapter(form).validate_python(state.get(name))
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in ("state", name, *fault["loc"]))
        raise DataError(f"{place}: {fault['msg']}") from None


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are not None, to the same bits in any order; None without any."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
