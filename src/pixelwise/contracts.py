"""The contracts of systems, metrics and recipes.

Protocols, not base classes: a system is any `nn.Module` with these three methods, a metric any object with these
three. Recipes are plain values whose every number is visible.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import wraps
from typing import Annotated, Any, Literal, NamedTuple, Protocol, TypeVar, cast, get_type_hints, runtime_checkable

from jaxtyping import Float, Int64
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from pixelwise.ops.resize_rule import ResizeRule, Side
from pixelwise.types import Annotation, Batch

Built = TypeVar("Built", bound=nn.Module)

WithoutCommas = BeforeValidator(lambda value: value.replace(",", "") if isinstance(value, str) else value)
"""Of whole numbers, so that 12,000 may be written."""
Count = Annotated[int, Field(ge=0), WithoutCommas]
"""A whole number from 0 on."""
Positive = Annotated[int, Field(ge=1), WithoutCommas]
"""A whole number from 1 on."""
CropSide = Annotated[int, Field(ge=16)]
"""Of a crop, in pixels."""
Factor = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A number from 0 on."""
Probability = Annotated[float, Field(ge=0, le=1)]
"""A number from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Term:
    """One part of a loss.

    `fit` adds up `sum` and `count` over all processes and divides once, so that N processes give the gradients of one.

    Attributes:
        sum: scalar with a gradient, summed over what was counted.
        count: scalar, number of summands (pixels, boxes), or the sum of their weights; 0 gives a term of 0.
        weight: factor of the term in the total.
    """

    sum: Float[Tensor, ""]
    count: Float[Tensor, ""] | Int64[Tensor, ""]
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Traits:
    """Needs and properties of a system, beside its three methods.

    A system's file states its defaults as `TRAITS`; `traits` of a built system depend on its arguments.

    Attributes:
        input_size: the only height and width of its input; None for any.
        stretches_input: images are resized to a square, whatever their aspect ratio.
        align_corners: its logits are enlarged with the centres of the corners aligned.
        takes_proposals: `forward` has a further argument `proposals`: the regions of each image, or None.
        uses_memory: it runs on the frames of a clip in order; `forward` takes the `memory` that it returned for the
            frame before.
        gives_identities: the ids of its things are track ids within a clip.
        clip_frames: frames of a clip in each training sample: 1, or 2 for a reference and a target.
        reference_offsets: possible positions of the reference, in frames from the target.
        learns_flow: it is trained on the flow from target to reference, where the data have it.
    """

    input_size: tuple[int, int] | None = None
    stretches_input: bool = False
    align_corners: bool = False
    takes_proposals: bool = False
    uses_memory: bool = False
    gives_identities: bool = False
    clip_frames: int = 1
    reference_offsets: tuple[int, ...] = (-1, 1)
    learns_flow: bool = False


@dataclass(frozen=True, slots=True)
class Sizes:
    """Height and width of each image of a batch.

    Attributes:
        valid: in the network's input, without padding.
        original: of the result of `decode`.
    """

    valid: tuple[tuple[int, int], ...]
    original: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, batch: Batch) -> Sizes:
        """The sizes of a batch."""
        valid, original = (
            tuple((height, width) for height, width in part.tolist())
            for part in (batch.valid_sizes, batch.original_sizes)
        )
        return cls(valid, original)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Thresholds of detections; semantic systems ignore them.

    Attributes:
        score: lowest score of a detection, in [0, 1].
        max_detections: per image, those of the highest scores.
    """

    score: float = 0.0
    max_detections: int = 100

    def places(self, scores: Float[Tensor, " N"]) -> Int64[Tensor, " M"]:
        """The indices of the scores that count, given in descending order."""
        return (scores >= self.score).nonzero().flatten()[: self.max_detections]


@dataclass(frozen=True, slots=True)
class ClassRows:
    """The rows of a layer that belong to each class, so that a network with other classes can take those of common
    classes.

    Attributes:
        name: of the layer with weight and bias, or of a tensor.
        class_ids: of the classes, in the order of their rows.
        first: rows before those of the classes, such as background.
        each: rows of a class.
        groups: number of repetitions of all these rows, such as for each anchor.
        axes: of the weight along which these rows lie.
    """

    name: str
    class_ids: tuple[int, ...]
    first: int = 0
    each: int = 1
    groups: int = 1
    axes: tuple[int, ...] = (0,)

    def of(self, class_ids: Sequence[int]) -> list[int]:
        """The rows of these classes, in this order, and those before the classes.

        Raises:
            ValueError: a class has no rows here.
        """
        block = [*range(self.first)]
        for class_id in class_ids:
            start = self.first + self.class_ids.index(class_id) * self.each
            block += range(start, start + self.each)
        size = self.first + len(self.class_ids) * self.each
        return [group * size + row for group in range(self.groups) for row in block]


@runtime_checkable
class System(Protocol):
    """A model of one paper: `forward` computes, `loss` compares with the ground truth, `decode` gives annotations.

    `loss` and `decode` own no parameters and call no submodule, so DDP, torch.compile and export wrap `forward` alone.

    Attributes:
        task: `semantic`, `instance`, `panoptic`, …
        traits: what it needs and promises.
        thresholds: of detections, in `forward` and by default in `decode`; may be set.
    """

    task: str
    traits: Traits
    thresholds: Thresholds

    @property
    def backbone(self) -> nn.Module | None:
        """The part that pretrained weights initialise and that has the backbone's learning rate; None without one."""
        ...

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        sizes: Int64[Tensor, "B 2"] | None = None,
        truth: tuple[Annotation, ...] | None = None,
        memory: Any = None,
    ) -> Any:
        """A NamedTuple of the model's file, what `decode` takes; in training with ground truth what `loss` takes.

        The two are one type where the losses compare what is predicted, as in semantic segmentation.

        Args:
            images: RGB in [0, 1]; normalisation is part of the model.
            sizes: valid height and width of each image, where padding matters.
            truth: for training, where `forward` samples boxes or is teacher-forced.
            memory: that a video system returned for the frame before.
        """
        ...

    def features(self, images: Float[Tensor, "B 3 H W"]) -> Sequence[Tensor]:
        """All maps before detections are sorted and selected, for comparing two networks."""
        ...

    def class_rows(self) -> Sequence[ClassRows]:
        """All layers and tensors whose shape follows from the number of classes."""
        ...

    def loss(self, output: Any, batch: Batch) -> dict[str, Term]:
        """The named terms of the training loss."""
        ...

    def decode(self, output: Any, sizes: Sizes, thresholds: Thresholds | None = None) -> list[Annotation]:
        """Convert the output to one annotation for each image, at its original size.

        Args:
            output: of `forward`.
            sizes: of its images.
            thresholds: of detections; None takes the system's own.
        """
        ...


def as_system(network: nn.Module) -> System:
    """Cast a module of `models.NAME.build` to System, which type checkers cannot infer."""
    return cast("System", network)


class SystemFile(Protocol):
    """The contents of a file `models/NAME.py`.

    Attributes:
        TASK: of the system.
        TRAITS: of `build` without arguments.
        VARIANTS: arguments of `build` by the name of the variant.
        RECIPE: how the system is trained.
        RECIPES: of variants with a recipe of their own.
        PUBLISHED: by name, such as `paper`, the recipes of the paper or of its public code, for machines that have the
            room: of the system and the variants that have one, by their names.
    """

    TASK: str
    TRAITS: Traits
    VARIANTS: Mapping[str, Mapping[str, Any]]
    RECIPE: Recipe
    RECIPES: Mapping[str, Recipe]
    PUBLISHED: Mapping[str, Mapping[str, Recipe]]

    @property
    def build(self) -> Callable[..., nn.Module]:
        """Make the system with random weights; takes `num_classes` and further keyword arguments, JSON values."""
        ...


def flat_arguments(build: Callable[..., Built]) -> Callable[..., Built]:
    """Let a `build` with a frozen dataclass as argument take the dataclass's fields as arguments, too.

    So `--set` and model.json have flat names, and a system that extends another passes its arguments on as one value.

    Args:
        build: with keyword arguments alone; those whose default is a dataclass are spread.
    """
    signature = inspect.signature(build, eval_str=True)
    values = {name: one.default for name, one in signature.parameters.items() if is_dataclass(one.default)}
    owners = {field.name: name for name, value in values.items() for field in fields(value)}
    kinds = {name: get_type_hints(type(value)) for name, value in values.items()}
    parameters: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        spread = fields(values[name]) if name in values else ()
        parameters += [
            parameter.replace(
                name=field.name, default=getattr(values[name], field.name), annotation=kinds[name][field.name]
            )
            for field in spread
        ] or [parameter]

    @wraps(build)
    def spread_build(**arguments: Any) -> Built:
        given = {name: arguments.pop(name, value) for name, value in values.items()}
        for name in [name for name in arguments if name in owners]:
            given[owners[name]] = replace(given[owners[name]], **{name: arguments.pop(name)})
        return build(**given, **arguments)

    vars(spread_build)["__signature__"] = signature.replace(parameters=parameters)
    return spread_build


class Metric(Protocol):
    """A metric that is updated image by image and whose state does not grow with the image size."""

    def update(
        self,
        predicted: Annotation,
        truth: Annotation,
        *,
        id: str,
        clip: str | None = None,
        frame: int | None = None,
    ) -> None:
        """Count one image. Raises DataError for an id that was counted before or sizes that differ."""
        ...

    def merge(self, other: Any) -> None:
        """Add the counts of another metric of the same kind, exactly."""
        ...

    def compute(self) -> dict[str, Any]:
        """The metrics as fractions of 1, and `per_class`: class name → its metrics."""
        ...


@dataclass(frozen=True)
class Optimizer:
    """The optimizer.

    The multipliers are factors on `lr`, as in the prototxt files of FCN, DeepLab and PSPNet. Biases are those of
    convolutions and linear layers; the shift of a normalisation layer is none.

    Attributes:
        name: `sgd` or `adamw`.
        lr: learning rate of the backbone at step 0.
        bias_lr_multiplier: for the biases of the backbone.
        head_lr_multiplier: for everything but the backbone.
        head_bias_lr_multiplier: for the biases of everything but the backbone; None takes `head_lr_multiplier`.
        weight_decay: of convolution and linear weights.
        norm_weight_decay: of biases and normalisation layers.
        momentum: SGD's momentum, or AdamW's first beta.
        clip_norm: largest norm of the whole gradient, 0 for none.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: Factor = 0.007
    bias_lr_multiplier: Factor = 1.0
    head_lr_multiplier: Factor = 1.0
    head_bias_lr_multiplier: Factor | None = None
    weight_decay: Factor = 1e-4
    norm_weight_decay: Factor = 1e-4
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    clip_norm: Factor = 0.0


@dataclass(frozen=True)
class Augmentation:
    """Random augmentation of each training image.

    Attributes:
        scale_min: smallest factor on the size.
        scale_max: largest factor on the size.
        scale_step: factors are drawn from `scale_min`, `scale_min` + `scale_step`, …, up to `scale_max`; 0 draws any.
        scale_around: the size that the factor is on: `input`, to which the run brings every image for evaluation, or
            `image`, its own.
        short_sides: the image's short side is drawn from these pixels first, and the long one is `input_limit` at most,
            as in detectron2; none leaves the size as it is.
        expand: probability that the image is put into a canvas of up to four times its sides, as SSD does; see
            `data.loading.window`.
        sample_crop: probability of SSD's crop around the centre of an object; see there.
        rotate: largest rotation in degrees, of every second image.
        blur: probability of a 5×5 Gaussian.
        flip: probability of a mirror image.
        copy_paste: probability that parts of another training image are pasted in; see `data.loading.copy_paste`.
        brightness: largest relative change.
        contrast: largest relative change.
        saturation: largest relative change.
        hue: largest shift, as a fraction of the colour circle.
        colour_probability: of each of these four.
    """

    scale_min: Annotated[float, Field(ge=0.01, allow_inf_nan=False)] = 0.5
    scale_max: Annotated[float, Field(ge=0.01, allow_inf_nan=False)] = 2.0
    scale_step: Factor = 0.0
    scale_around: Literal["input", "image"] = "input"
    short_sides: tuple[Positive, ...] = ()
    expand: Probability = 0.0
    sample_crop: Probability = 0.0
    rotate: Factor = 0.0
    blur: Probability = 0.0
    flip: Probability = 0.5
    copy_paste: Probability = 0.0
    brightness: Factor = 0.0
    contrast: Factor = 0.0
    saturation: Factor = 0.0
    hue: Factor = 0.0
    colour_probability: Probability = 1.0


@dataclass(frozen=True)
class Stage:
    """One gradient fit, or one run of a solver.

    Attributes:
        name: of the stage in the log.
        solver: empty for a gradient fit; else the name of a generator of the system's file that finds weights by other
            means, such as the SVMs of SDS: it is called with the network, the images as they are, and `resize`,
            yields SolverProgress, and leaves its solutions in the network's parameters or buffers. An interrupted one
            begins anew.
        steps: optimizer steps; 1 for a solver.
        batch_size: images of one process that go through the network at once.
        accumulate: so many batches make one step, with the gradients of one large batch; batch norm alone sees each by
            itself.
        crop_size: side of training crops in pixels, or their height and width where they are not square; 0 takes whole
            images.
        optimizer: see Optimizer.
        augmentation: see Augmentation.
        reduction: `mean` divides each term of the loss by what was counted, over all processes; `sum` does not, as in
            FCN's release, whose rates are so much smaller.
        schedule: how the rate falls, by step: `poly`, by (1 - step / steps) ** poly_power; `step`, times `gamma` at
            each of `milestones`; `cosine`, by (1 + cos(π step / steps)) / 2; `fixed`, not at all.
        poly_power: of `poly`.
        milestones: steps, of `step`.
        gamma: of `step`.
        warmup: `linear`, over `warmup_steps` the rate first rises from `warmup_factor` times its value, or from 1 /
            `warmup_steps` of it where that is 0; `constant`, it stays there so long.
        warmup_steps: see `warmup`; 0 for none.
        warmup_factor: see `warmup`.
        class_weights: of the pixel loss: `none`, `balanced` (`losses.cross_entropy.median_frequency_weights` of the
            training images), or one number for each class.
        sampling: `uniform`, each image once in an epoch; `balanced`, images of rare classes more often, see
            `training.class_weights.repeat_factors`.
        ohem: fraction of an image's pixels whose loss counts, the hardest ones.
        freeze_batch_norm: keep statistics and weights of the backbone's batch norms fixed; `all` those of pyramid and
            heads too, which an earlier stage has trained.
        sync_batch_norm: take batch-norm statistics over all processes; needs CUDA.
        batch_norm_momentum: share of a batch in the running statistics; None leaves what the network was built with.
        frozen_stages: number of first stages of the backbone with fixed weights and statistics; 0 trains all.
        ema_decay: decay of the running average of weights that is evaluated and shipped; 0 for none.
        arguments: of the system's `build` that are others in this stage than in the run, JSON values. The network
            begins with all weights of the stage before that fit it by name and shape.
    """

    name: Annotated[str, Field(pattern=r"^\w+$")] = "fit"
    solver: str = ""
    steps: Positive = 30_000
    batch_size: Positive = 16
    accumulate: Positive = 1
    crop_size: Annotated[int, Field(ge=0)] | tuple[CropSide, CropSide] = 513
    optimizer: Optimizer = field(default_factory=Optimizer)
    augmentation: Augmentation = field(default_factory=Augmentation)
    reduction: Literal["mean", "sum"] = "mean"
    schedule: Literal["poly", "step", "cosine", "fixed"] = "poly"
    poly_power: Factor = 0.9
    milestones: tuple[Positive, ...] = ()
    gamma: Factor = 0.1
    warmup: Literal["linear", "constant"] = "linear"
    warmup_steps: Count = 0
    warmup_factor: Annotated[float, Field(ge=0, le=1)] = 0.0
    class_weights: Literal["none", "balanced"] | tuple[Factor, ...] = "none"
    sampling: Literal["uniform", "balanced"] = "uniform"
    ohem: Annotated[float, Field(gt=0, le=1)] = 1.0
    freeze_batch_norm: bool | Literal["all"] = False
    sync_batch_norm: bool = False
    batch_norm_momentum: Probability | None = None
    frozen_stages: Count = 0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    arguments: Mapping[str, Any] = field(default_factory=dict)


class SolverProgress(NamedTuple):
    """Progress of a solver.

    Attributes:
        name: of the solver.
        done: finished steps.
        total: all steps.
    """

    name: str
    done: int
    total: int


@dataclass(frozen=True)
class Recipe:
    """How a system is trained.

    Attributes:
        stages: in order; the best weights are selected within each, and those of the last stage are the run's.
        input_size: long side in pixels at which images are evaluated and around which they are scaled; 0 takes the
            median long side of the validation images.
        input_side: which side that is: `long`, `short`, `square` for both, or `none` for images as they are.
        input_limit: most pixels of the long side where `input_side` is `short`; 0 for no limit.
        seed: of order, augmentation, new weights and dropout.
        precision: `float32`, `bfloat16` (in forward), or `auto`: bfloat16 where the processor computes in it.
        evaluate_every: steps between two evaluations; 0 for one at the end.
        checkpoint_every: steps between two training states, beside those at evaluations.
        patience: number of evaluations without a better score after which a stage ends early; 0 for never.
        paper: the paper's value of each number that differs here, by its dotted name.
    """

    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    input_size: Count = 0
    input_side: Side = "long"
    input_limit: Count = 0
    seed: Count = 0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    evaluate_every: Count = 500
    checkpoint_every: Positive = 100
    patience: Count = 0
    paper: dict[str, str] = field(default_factory=dict)

    @property
    def resize(self) -> ResizeRule:
        """The rule that the three numbers of the input make, for images whose size is known."""
        return ResizeRule(self.input_side, self.input_size, self.input_limit)
