"""A trained model for images of any size."""

from __future__ import annotations

import copy
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, Unpack, overload

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from pixelwise.contracts import Sizes, Thresholds, Traits, as_system
from pixelwise.errors import DataError, RecipeError
from pixelwise.inference.detections import join_detections, mirrored_instances, moved_instances
from pixelwise.inference.fusion import fused_copy
from pixelwise.inference.image_input import ImageInput, image_tensor
from pixelwise.inference.model_folder import ModelCard
from pixelwise.inference.scene import Scene
from pixelwise.labels import LabelSet
from pixelwise.ops.resize_rule import ResizeRule
from pixelwise.ops.superpixels import Regions
from pixelwise.ops.tiles import join_windows, window_starts
from pixelwise.types import Annotation, Instances

TTA_SCALES = (0.75, 1.0, 1.25)
"""Factors on the input size whose predictions `tta` averages, each with its mirror image: six passes."""


@dataclass(frozen=True)
class Options:
    """How a model runs on an image.

    Attributes:
        score_threshold: for a semantic model, pixels whose probability is lower become `ignore_id`; None keeps all. For
            instances and things, those with a lower score are skipped; None takes the model's own threshold.
        max_detections: largest number of instances per image, None for the model's own; no effect on semantic models.
        input_size: to which the image is brought instead of the model's own rule: the long side in pixels, or
            `short:SIDE`, `short:SIDE:LIMIT`, `square:SIDE`, `none` (see `ops.resize_rule`), whose SIDE is that of the
            windows with `tile`; None is as the model was validated.
        tile: run on overlapping windows of the image at its own size, and average where they overlap. Not for panoptic
            models.
        tta: average over three scales and their mirror images: six passes. Not for panoptic models.
    """

    score_threshold: float | None = None
    max_detections: int | None = None
    input_size: int | str | None = None
    tile: bool = False
    tta: bool = False

    def __post_init__(self) -> None:
        if self.score_threshold is not None and not 0 <= self.score_threshold <= 1:
            raise RecipeError(f"score threshold {self.score_threshold}: expected a probability from 0 to 1")
        if self.max_detections is not None and self.max_detections < 1:
            raise RecipeError(f"max detections {self.max_detections}: expected at least 1")
        ResizeRule().changed(self.input_size)  # refuses what is none


class OptionArguments(TypedDict, total=False):
    """The fields of Options as arguments of a call."""

    score_threshold: float | None
    max_detections: int | None
    input_size: int | str | None
    tile: bool
    tta: bool


IMPOSSIBLE = -1e4
"""The logit of a class that an image does not contain."""

DEFAULTS = Options()
"""The options of validation."""


class FrameMemory(NamedTuple):
    """A model's memory of the frames of a clip, for the next call of `annotate_frame`.

    Attributes:
        size_hw: of the frames.
        seen_hw: of the network's input.
        state: the system's own memory, tensors on its device.
    """

    size_hw: tuple[int, int]
    seen_hw: tuple[int, int]
    state: Any


class Predictor:
    """A model with its card, ready for images.

    Images run through a private, faster copy of the model (see `inference.fusion`), made with the first image. Changes
    of `model` (weights, device, precision, parts, hooks, training mode) take effect with the next image. Only changes
    through `.data`, which torch does not count, need a call of `refresh`.

    Args:
        module: the system; it is moved to the device and put in evaluation mode.
        card: of the model.
        device: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:N`.
        name: of the model in results; by default its system's name.
        note: one line for the user before the first prediction.

    Attributes:
        model: the stored module, with its own keys.
        card: as given.
        name: as given.
        note: as given.

    Raises:
        RecipeError: the device is not there.
    """

    def __init__(
        self,
        module: nn.Module,
        card: ModelCard,
        *,
        device: str | torch.device = "auto",
        name: str | None = None,
        note: str = "",
    ) -> None:
        chosen = choose_device(device)
        self.model = module.eval().to(device=chosen, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.card = card
        self.name = name or card.system
        self.note = note
        self._fused: nn.Module | None = None
        self._fused_from: list[_Version] | None = None
        self._fused_settings: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Exclude the private copy from copies and pickles; it is made again."""
        return {**self.__dict__, "_fused": None, "_fused_from": None}

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return next(self.model.parameters()).device

    def refresh(self) -> None:
        """Make the private copy of the model again, with the next image."""
        self._fused_from = None

    @property
    def labels(self) -> LabelSet:
        """The classes of the model, in the order of its channels."""
        return self.card.labels

    @overload
    def __call__(self, image: ImageInput, **options: Unpack[OptionArguments]) -> Scene: ...

    @overload
    def __call__(self, image: Sequence[ImageInput], **options: Unpack[OptionArguments]) -> list[Scene]: ...

    def __call__(
        self, image: ImageInput | Sequence[ImageInput], **options: Unpack[OptionArguments]
    ) -> Scene | list[Scene]:
        """Predict an image or a list of images.

        Args:
            image: a path, a Pillow image, an array u8[H,W,3] or u8[H,W], a tensor u8[3,H,W] or f32[3,H,W] in [0, 1];
                or a list of them.
            options: see Options.

        Returns:
            the scene, on the CPU and at the size of the image; for a list a list.

        Raises:
            DataError: an image cannot be used.
            RecipeError: an option is impossible.
        """
        chosen = Options(**options)
        if isinstance(image, list | tuple):
            return [self.scene(image_tensor(one), chosen, name=_name_of(one)) for one in image]
        return self.scene(image_tensor(image), chosen, name=_name_of(image))  # pyright: ignore[reportArgumentType]

    def scene(self, image: UInt8[Tensor, "3 H W"], options: Options, *, name: str | None = None) -> Scene:
        """Predict an image that is already a tensor.

        Args:
            image: RGB on the CPU.
            options: see Options.
            name: of the image in results, such as its path.
        """
        begin = time.perf_counter()
        annotation = self.annotate(image, options).to("cpu")
        seconds = time.perf_counter() - begin
        return Scene(
            image=image, annotation=annotation, labels=self.labels, seconds=seconds, model=self.name, name=name
        )

    @torch.no_grad()
    def annotate(
        self, image: UInt8[Tensor, "3 H W"], options: Options = DEFAULTS, *, proposals: Regions | None = None
    ) -> Annotation:
        """Predict the annotation alone, at the size of the image and on the predictor's device, for evaluation.

        Args:
            image: RGB on the CPU.
            options: see Options.
            proposals: regions of the image for a model that takes them; by default it computes its own.

        Raises:
            RecipeError: an option is impossible for the model, or it takes no proposals.
        """
        rule = self.resize_rule(options)
        if proposals is not None:
            require_takes_proposals(self.model)
            if options.tile or options.tta:
                raise RecipeError(
                    f"{self.name}: stored proposals belong to the whole image; leave out "
                    f"{'--tile' if options.tile else '--tta'}, or ?proposals="
                )
            return self._decoded(image, rule, options, proposals=proposals)[0]
        if self.card.task == "panoptic":
            self.require_possible(options)
            return self._decoded(image, rule, options)[0]
        if self.card.task == "instance":
            return self._find_objects(image, rule, options)
        return self._classify(image, rule, options)

    @torch.no_grad()
    def annotate_within(
        self, image: UInt8[Tensor, "3 H W"], classes: Collection[int], options: Options = DEFAULTS
    ) -> Annotation:
        """As `annotate`, of some classes alone, such as those that an image is known to contain.

        Args:
            image: RGB on the CPU.
            classes: class ids; probabilities are among these.
            options: see Options.

        Raises:
            RecipeError: an option is impossible for the model, or it is not a semantic one.
        """
        if self.card.task != "semantic":
            raise RecipeError(f"{self.name}: a model for {self.card.task} segmentation, expected semantic")
        return self._classify(image, self.resize_rule(options), options, classes)

    def _classify(
        self,
        image: UInt8[Tensor, "3 H W"],
        rule: ResizeRule,
        options: Options,
        classes: Collection[int] | None = None,
    ) -> Annotation:
        """The class of each pixel."""
        if options.tile:
            size = (image.shape[1], image.shape[2])
            window = self._window(rule)
            windows = self._window_logits(image, rule, window, tta=options.tta)
            if classes is not None:
                windows = ([_within(logits, classes, 0) for logits in row] for row in windows)
            semantic, confidence = join_windows(
                windows, size_hw=size, window=window, align_corners=self.traits.align_corners
            )
            annotation = Annotation(semantic=semantic, confidence=confidence)
        else:
            size = (image.shape[1], image.shape[2])
            output = self._scores(image, rule, tta=options.tta)
            if classes is not None:
                output = output._replace(logits=_within(output.logits, classes, 1))
            annotation = as_system(self.model).decode(output, Sizes((size,), (size,)))[0]
        if options.score_threshold is not None:
            annotation = _without_doubtful(annotation, options.score_threshold, self.labels.ignore_id)
        return annotation

    @torch.no_grad()
    def annotate_frame(
        self,
        image: UInt8[Tensor, "3 H W"],
        memory: FrameMemory | None,
        options: Options,
        *,
        proposals: Regions | None = None,
    ) -> tuple[Annotation, FrameMemory | None]:
        """Predict a frame of a clip; call it for one frame after the other.

        Args:
            image: RGB on the CPU.
            memory: what the call for the frame before returned; None begins a clip.
            options: the same for all frames of a clip.
            proposals: see `annotate`.

        Returns:
            the prediction at the size of the frame, and the memory for the next frame: bounded, whatever the length of
            the clip; None for a model without `uses_memory`, which runs on each frame by itself.

        Raises:
            DataError: the frame, or the network's input, has another size than that of the frame before.
            RecipeError: an option is impossible for the model.
        """
        self.require_possible(options)
        if not self.uses_memory:
            return self.annotate(image, options, proposals=proposals), None
        if proposals is not None:
            require_takes_proposals(self.model)
        if options.tile or options.tta:
            raise RecipeError(
                f"{self.name}: {'--tile' if options.tile else '--tta'} is not possible in a clip, where the model "
                "compares frames with those before; leave it out"
            )
        size, rule = (image.shape[1], image.shape[2]), self.resize_rule(options)
        seen = rule.size_of(size)
        if memory is not None and (memory.size_hw, memory.seen_hw) != (size, seen):
            (height, width), (seen_height, seen_width) = memory.size_hw, memory.seen_hw
            raise DataError(
                f"a frame of {size[0]}×{size[1]}, seen at {seen[0]}×{seen[1]}, after one of {height}×{width}, seen at "
                f"{seen_height}×{seen_width}; the frames of a clip have one size: begin a clip with memory=None"
            )
        annotation, state = self._decoded(image, rule, options, state=None if memory is None else memory.state)
        return annotation, FrameMemory(size, seen, state)

    @property
    def traits(self) -> Traits:
        """The traits of the system."""
        return as_system(self.model).traits

    @property
    def uses_memory(self) -> bool:
        """Whether the model uses a memory of earlier frames of a clip."""
        return self.traits.uses_memory

    @property
    def gives_identities(self) -> bool:
        """Whether the ids of things are their identities within a clip."""
        return self.traits.gives_identities

    def require_trackable(self) -> None:
        """Raise RecipeError for a model without instances, or one that tracks them itself."""
        if self.gives_identities:
            raise RecipeError(f"--track: {self.name} tracks instances by itself; leave --track out")
        if self.card.task not in ("instance", "panoptic"):
            raise RecipeError(
                f"--track: {self.name} is a model for {self.card.task} segmentation, without instances; choose a "
                "model by --task instance or --task panoptic"
            )

    def require_possible(self, options: Options) -> None:
        """Raise RecipeError where the options are impossible for the model."""
        if self.card.task == "panoptic" and (options.tile or options.tta):
            raise RecipeError(
                f"{self.name}: {'--tile' if options.tile else '--tta'} is not possible with a panoptic model, as the "
                "segments of several passes are not joined; leave it out, or choose a larger --input-size"
            )

    @torch.no_grad()
    def logits(
        self, image: ImageInput, size: tuple[int, int] | None = None, *, input_size: int | str | None = None
    ) -> Float[Tensor, "K h w"]:
        """The logits, on the predictor's device.

        Args:
            image: as in a call.
            size: height and width to which they are enlarged bilinearly; None leaves them at the network's size. All
                K×H×W of them are held in memory.
            input_size: as in a call.

        Raises:
            RecipeError: the model has no semantic logits.
        """
        output = self._look(image_tensor(image), self.resize_rule(Options(input_size=input_size)))
        if getattr(output, "logits", None) is None:
            raise RecipeError(f"{self.name}: a model for {self.card.task} segmentation, without semantic logits")
        logits = output.logits.float()
        if size is None:
            return logits[0].clone()
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=self.traits.align_corners)[0]

    def _find_objects(self, image: UInt8[Tensor, "3 H W"], rule: ResizeRule, options: Options) -> Annotation:
        """Detect instances, with windows and mirror images by the options."""
        height, width = image.shape[1:]
        scales = TTA_SCALES if options.tta else (1.0,)
        parts: list[Instances] = []
        answer = Annotation()
        # with windows the model runs on the whole image too, since a large instance may fill several windows
        views = [(0, 0, image, rule)]
        if options.tile:
            window = self._window(rule)
            tops, lefts = window_starts(height, window), window_starts(width, window)
            cuts = [(top, left) for top in tops for left in lefts] if max(height, width) > window else []
            within = self._within_windows(rule)
            views += [(top, left, image[:, top : top + window, left : left + window], within) for top, left in cuts]
        for top, left, view, seen in views:
            for scale in scales:
                for mirrored in (False, True) if options.tta else (False,):
                    answer, _ = self._decoded(view, seen, options, scale=scale, mirrored=mirrored)
                    found = answer.instances
                    assert found is not None
                    found = mirrored_instances(found, view.shape[2]) if mirrored else found
                    parts.append(
                        moved_instances(found, left=left, top=top, size=(height, width)) if options.tile else found
                    )
        if len(parts) == 1:
            return replace(answer, instances=parts[0])  # SDS may predict classes of pixels, too
        limit = self._thresholds(options).max_detections
        return Annotation(instances=join_detections(parts, max_detections=limit, cut_apart=len(views) > 1))

    def _thresholds(self, options: Options) -> Thresholds:
        """The thresholds of the options, by default the model's own."""
        own = as_system(self.model).thresholds
        return Thresholds(
            score=own.score if options.score_threshold is None else options.score_threshold,
            max_detections=options.max_detections or own.max_detections,
        )

    def _decoded(
        self,
        image: UInt8[Tensor, "3 H W"],
        rule: ResizeRule,
        options: Options,
        *,
        scale: float = 1.0,
        mirrored: bool = False,
        state: Any = None,
        proposals: Regions | None = None,
    ) -> tuple[Annotation, Any]:
        """The prediction of one pass on an image, on the CPU, and the system's memory; mirrored on request."""
        network = copy.copy(self.network())  # with its own thresholds; other threads may use others
        system = as_system(network)
        system.thresholds = self._thresholds(options)
        with torch.inference_mode():
            pixels = self.prepare(image, rule, scale)
            seen = pixels.flip(3) if mirrored else pixels
            given: dict[str, Any] = {"memory": state} if self.uses_memory else {}
            if proposals is not None:
                given["proposals"] = (proposals,)
            output = network(seen, **given)
            sizes = Sizes(((pixels.shape[2], pixels.shape[3]),), ((image.shape[1], image.shape[2]),))
            annotation = system.decode(output, sizes, system.thresholds)[0]
        return annotation.to("cpu"), output.memory if self.uses_memory else None

    def _window_logits(
        self, image: UInt8[Tensor, "3 H W"], rule: ResizeRule, window: int, *, tta: bool
    ) -> Iterator[list[Float[Tensor, "K h w"]]]:
        """The logits of each row of windows, computed lazily."""
        for top in window_starts(image.shape[1], window):
            row: list[Tensor] = []
            for left in window_starts(image.shape[2], window):
                cut = image[:, top : top + window, left : left + window]
                row.append(self._scores(cut, self._within_windows(rule), tta=tta).logits[0])
            yield row

    def _scores(self, image: UInt8[Tensor, "3 H W"], rule: ResizeRule, *, tta: bool) -> Any:
        """The network's output; with `tta` its logits are the logarithms of the mean probabilities."""
        output = self._look(image, rule)
        if not tta:
            return output
        grid = output.logits.shape[2:]
        total = torch.zeros_like(output.logits, dtype=torch.float32)
        for scale in TTA_SCALES:
            for mirrored in (False, True):
                is_first = scale == 1 and not mirrored
                view = output if is_first else self._look(image, rule, scale, mirrored=mirrored)
                logits = view.logits.float()
                logits = logits.flip(3) if mirrored else logits
                logits = F.interpolate(logits, size=grid, mode="bilinear", align_corners=self.traits.align_corners)
                total += logits.softmax(dim=1)
        mean = total / (2 * len(TTA_SCALES))
        return output._replace(logits=mean.clamp_min(torch.finfo(torch.float32).tiny).log())

    @torch.inference_mode()  # here alone: its tensors refuse in-place changes, which users may make on results
    def _look(
        self, image: UInt8[Tensor, "3 H W"], rule: ResizeRule, scale: float = 1.0, *, mirrored: bool = False
    ) -> Any:
        """The network's output for the image at that size."""
        pixels = self.prepare(image, rule, scale)
        return self.network()(pixels.flip(3) if mirrored else pixels)

    def prepare(
        self, image: UInt8[Tensor, "3 H W"], rule: ResizeRule | None = None, scale: float = 1.0
    ) -> Float[Tensor, "1 3 h w"]:
        """What the network sees of an image: values in [0, 1].

        Args:
            image: RGB on the CPU.
            rule: how it is resized; None is the model's own.
            scale: factor on the rule's size.
        """
        resized = (rule or self.resize_rule()).resized(image, scale)
        parameter = next(self.model.parameters())
        pixels = resized.to(parameter.device).to(parameter.dtype).div_(255)[None]
        return pixels.contiguous(memory_format=torch.channels_last)

    def resize_rule(self, options: Options = DEFAULTS) -> ResizeRule:
        """How the model's images are resized, with these options."""
        rule = self.card.resize.changed(options.input_size)
        return rule.as_square() if self.traits.stretches_input else rule

    def _window(self, rule: ResizeRule) -> int:
        """The side of the windows through which a large image is seen."""
        if not rule.length:
            raise RecipeError(f"--tile: {self.name} has no size of its own; add --input-size, the side of the windows")
        return rule.length

    def _within_windows(self, rule: ResizeRule) -> ResizeRule:
        """How a window is resized: not at all, but for networks that run on squares."""
        return rule if self.traits.stretches_input else replace(rule, side="none", length=0, limit=0)

    def network(self) -> nn.Module:
        """The network that runs: the fused copy, or the model where there is no equal copy."""
        versions = _versions(self.model)
        if versions is None:
            return self.model
        settings = _settings(self.model)
        if self._fused_from is None or settings != self._fused_settings or not _equal(versions, self._fused_from):
            self._fused, self._fused_from, self._fused_settings = fused_copy(self.model), versions, settings
        return self.model if self._fused is None else self._fused


_Version = tuple[Tensor, int, int]
"""A tensor, the address of its values, and torch's counter of their changes."""


def _versions(model: nn.Module) -> list[_Version] | None:
    """The state of all weights; None while a part is in training mode or has hooks, which no copy would call."""
    versions: list[_Version] = []
    parts: list[nn.Module | None] = [model]
    while (
        parts
    ):  # `parameters()`, `buffers()` and `modules()` would walk the modules three times, a millisecond for each image
        part = parts.pop()
        if part is None:
            continue
        if part.training or part._forward_hooks or part._forward_pre_hooks:
            return None
        for tensor in (*part._parameters.values(), *part._buffers.values()):
            if tensor is not None:
                versions.append((tensor, tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version))
        parts.extend(part._modules.values())
    return versions


def _settings(model: nn.Module) -> dict[str, Any]:
    """The attributes of the model beside its weights: numbers, strings and flags."""
    kinds = (bool, int, float, str, tuple, Traits)
    return {name: value for name, value in vars(model).items() if name[0] != "_" and isinstance(value, kinds)}


def _equal(some: list[_Version], others: list[_Version]) -> bool:
    return len(some) == len(others) and all(
        one[0] is other[0] and one[1] == other[1] and one[2] == other[2]
        for one, other in zip(some, others, strict=True)
    )


def require_takes_proposals(system: nn.Module) -> None:
    """Raise RecipeError for proposals that the system would not use."""
    if not as_system(system).traits.takes_proposals:
        raise RecipeError(f"{type(system).__name__} takes no proposals; leave ?proposals= out of the data")


def choose_device(named: str | torch.device) -> torch.device:
    """The device of that name; `auto` is a GPU if there is one. Raises RecipeError if it does not exist."""
    if named == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(named)
    except RuntimeError:
        raise RecipeError(f"device '{named}': expected auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RecipeError(f"device '{named}': torch finds {torch.cuda.device_count()} GPUs here; use cpu or auto")
    return device


def _within(logits: Float[Tensor, "*B K h w"], classes: Collection[int], axis: int) -> Float[Tensor, "*B K h w"]:
    """The logits of some classes; those of the others are so low, and finite, that they have no probability."""
    others = [number for number in range(logits.shape[axis]) if number not in classes]
    return logits.float().index_fill(axis, torch.tensor(others, dtype=torch.long, device=logits.device), IMPOSSIBLE)


def _without_doubtful(annotation: Annotation, threshold: float, ignore_id: int) -> Annotation:
    if annotation.semantic is None or annotation.confidence is None:
        return annotation
    doubtful = annotation.confidence < threshold
    return replace(annotation, semantic=annotation.semantic.masked_fill(doubtful, ignore_id))


def _name_of(image: ImageInput) -> str | None:
    return str(image) if isinstance(image, str | Path) else None
