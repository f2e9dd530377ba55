"""The training loop, as a generator: logging, evaluation and checkpoints are the body of an ordinary `for`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel

from pixelwise.contracts import Stage, Term, as_system
from pixelwise.data.dataset import clip_of_each, flow_of
from pixelwise.data.loading.batches import AugmentedSamples, Samples, StepSampler, dropout_seed, training_batches
from pixelwise.data.loading.copy_paste import with_parts_of
from pixelwise.data.loading.crop import TrainingCrop
from pixelwise.data.loading.frame_pairs import FramePairs
from pixelwise.errors import RecipeError
from pixelwise.inference.predictor import require_takes_proposals
from pixelwise.labels import LabelSet
from pixelwise.losses.cross_entropy import HasPixelLoss
from pixelwise.nn.backbone import Backbone
from pixelwise.nn.backbones import freeze_batch_norm, freeze_stages
from pixelwise.ops.resize_rule import ResizeRule
from pixelwise.training.optimizer import build_optimizer, schedule_factor, set_rates, weight_average
from pixelwise.training.processes import on_all_ranks, process_count, wrapped
from pixelwise.types import Batch


class Step(NamedTuple):
    """A finished optimizer step.

    Attributes:
        number: steps made so far, from 1.
        loss: the weighted total.
        terms: each named part, before its weight.
        lr: rate of the backbone.
        gradient_norm: of the whole gradient before clipping; 0 without clipping.
        images: images in the step, over all processes.
    """

    number: int
    loss: float
    terms: dict[str, float]
    lr: float
    gradient_norm: float
    images: int


@dataclass(eq=False)
class Fit:
    """The state of a stage in training: everything that a checkpoint must hold.

    Attributes:
        system: the network in training.
        stage: its recipe.
        optimizer: with its momentum buffers.
        average: running average of the weights, if the stage has one.
        step: steps made so far.
    """

    system: nn.Module
    stage: Stage
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None
    step: int = 0

    @classmethod
    def start(cls, system: nn.Module, stage: Stage) -> Fit:
        """A fit before its first step, with the stage's frozen parts."""
        _freeze(system, stage)
        optimizer = build_optimizer(system, stage.optimizer)
        average = weight_average(system, stage.ema_decay) if stage.ema_decay else None
        return cls(system, stage, optimizer, average)

    def shipped_state(self) -> dict[str, Tensor]:
        """The weights to evaluate and to store: the average if there is one."""
        return (self.average.module if self.average else self.system).state_dict()


def fit(
    fitting: Fit,
    samples: Samples,
    *,
    accelerator: Accelerator,
    resize: ResizeRule,
    labels: LabelSet,
    seed: int,
    workers: int,
    weights: Sequence[float] | None = None,
) -> Iterator[Step]:
    """Run the remaining steps of a stage; yield each step.

    Between two items `fitting` is consistent and may be saved; later steps depend on it and on the arguments alone.

    Args:
        fitting: its step, weights and optimizer are updated.
        samples: training images.
        accelerator: device, precision and processes.
        resize: to which size images are brought where they are evaluated, around which they are scaled.
        labels: the classes of the ground truth.
        seed: of order, augmentation and dropout.
        workers: processes that read images.
        weights: how often each training image is drawn, in relation to the others; None draws all equally often.

    Raises:
        RecipeError: the loss is not finite; names the step and the images.
    """
    stage, system = fitting.stage, fitting.system
    system.to(accelerator.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    set_pixel_loss(system, stage, labels.ignore_id)
    if stage.sync_batch_norm and process_count() > 1:
        system = nn.SyncBatchNorm.convert_sync_batchnorm(system)
    network = wrapped(system, accelerator.device)
    augment = TrainingCrop(
        stage.augmentation,
        stage.crop_size,
        resize.as_square() if as_system(system).traits.stretches_input else resize,
        labels.ignore_id,
    )
    sampler = StepSampler(
        len(samples),
        batch_size=stage.batch_size,
        steps=(fitting.step * stage.accumulate, stage.steps * stage.accumulate),
        seed=seed,
        process=(accelerator.process_index, accelerator.num_processes),
        weights=weights,
    )
    batches = training_batches(
        AugmentedSamples(
            samples,
            augment,
            seed=seed,
            paste=partial(with_parts_of, labels=labels),
            paste_probability=stage.augmentation.copy_paste,
            pairs=_pairs(system, samples),
        ),
        sampler,
        workers=workers,
        pin_memory=accelerator.device.type == "cuda",
        ignore_id=labels.ignore_id,
    )
    while fitting.step < stage.steps:
        parts = [on_all_ranks(lambda: next(batches)) for _ in range(stage.accumulate)]
        system.train()
        _freeze(system, stage)
        first = fitting.step * stage.accumulate
        seeds = [dropout_seed(seed, first + number, accelerator.process_index) for number in range(len(parts))]
        factor = schedule_factor(stage, fitting.step)
        set_rates(fitting.optimizer, factor)
        fitting.optimizer.zero_grad(set_to_none=True)
        terms = make_gradients(network, system, parts, accelerator, seeds=seeds, reduction=stage.reduction)
        if not math.isfinite(terms["loss"]):
            raise RecipeError(
                f"step {fitting.step + 1}: the loss is {terms['loss']} on images {', '.join(parts[0].ids[:4])} …; "
                "lower optimizer.lr or set optimizer.clip_norm"
            )
        norm = _clip(system, stage.optimizer.clip_norm)
        fitting.optimizer.step()
        if fitting.average:
            fitting.average.update_parameters(system)
        fitting.step += 1
        yield Step(
            number=fitting.step,
            loss=terms.pop("loss"),
            terms=terms,
            lr=stage.optimizer.lr * factor,
            gradient_norm=norm,
            images=sum(len(part) for part in parts) * accelerator.num_processes,
        )


def _pairs(system: nn.Module, samples: Samples) -> FramePairs | None:
    """The pairs of frames of a system that is trained on them, else None."""
    traits = as_system(system).traits
    if traits.clip_frames == 1:
        return None
    flow = partial(flow_of, samples) if traits.learns_flow else None
    return FramePairs(clip_of_each(samples), offsets=traits.reference_offsets, flow=flow)


def make_gradients(
    network: nn.Module,
    system: nn.Module,
    batches: Sequence[Batch],
    accelerator: Accelerator,
    *,
    seeds: Sequence[int] = (),
    reduction: str = "mean",
) -> dict[str, float]:
    """Forward and backward of one step, whose gradients are those of all batches of all processes joined.

    What a term of the loss is divided by is counted over all batches first. Where there are several, they go through
    the network twice for that: to be counted, and to be learned.

    Args:
        network: the system, or `processes.wrapped` of it.
        system: with the loss.
        batches: of this process, one after the other on its device.
        accelerator: precision and processes.
        seeds: of what the network draws, one for each batch; none leaves the generator as it is.
        reduction: see `Stage`.

    Returns:
        the terms over all batches and processes, and the weighted total as `loss`.

    Raises:
        RecipeError: the batch has proposals, and the system takes none.
    """

    def terms_of(called: nn.Module, number: int) -> dict[str, Term]:
        if seeds:
            torch.manual_seed(seeds[number])
        return _terms(called, system, batches[number].to(accelerator.device), accelerator)

    if len(batches) == 1:
        total, values = total_loss(terms_of(network, 0), accelerator, reduction=reduction)
        accelerator.backward(total)
        return values
    counts: dict[str, Tensor] = {}
    statistics = [buffer.clone() for buffer in system.buffers()]
    with torch.no_grad():
        for number in range(len(batches)):
            for name, term in terms_of(system, number).items():
                counts[name] = counts.get(name, 0) + torch.as_tensor(term.count, device=accelerator.device).double()
        for buffer, before in zip(system.buffers(), statistics, strict=True):
            buffer.copy_(before)
    summed: dict[str, float] = {}
    for number in range(len(batches)):
        terms = terms_of(network, number)
        terms = {name: replace(term, count=counts[name]) for name, term in terms.items()}
        total, values = total_loss(terms, accelerator, reduction=reduction)
        accelerator.backward(total)
        summed = {name: summed.get(name, 0.0) + value for name, value in values.items()}
    return summed


def _terms(network: nn.Module, system: nn.Module, batch: Batch, accelerator: Accelerator) -> dict[str, Term]:
    images = batch.images.contiguous(memory_format=torch.channels_last)
    given: dict[str, Any] = {}
    if any(regions is not None for regions in batch.proposals or ()):
        require_takes_proposals(system)
        given["proposals"] = batch.proposals
    with accelerator.autocast():
        output = network(images, batch.valid_sizes, truth=batch.truth, **given)
    return as_system(system).loss(output, batch)


def set_pixel_loss(system: nn.Module, stage: Stage, ignore_id: int) -> None:
    """Set the class weights and the OHEM fraction of a system with a pixel loss.

    Raises:
        RecipeError: the stage sets either, and the system has no `pixel_loss`.
    """
    weights = stage.class_weights
    if isinstance(system, HasPixelLoss):
        class_weights = None if isinstance(weights, str) else weights
        system.pixel_loss = replace(
            system.pixel_loss, ignore_id=ignore_id, class_weights=class_weights, ohem=stage.ohem
        )
    elif weights != "none" or stage.ohem < 1:
        raise RecipeError(
            f"class_weights={weights}, ohem={stage.ohem}: {type(system).__name__} has no pixel loss; "
            "leave both at their defaults"
        )


def total_loss(
    terms: dict[str, Term], accelerator: Accelerator, *, reduction: str = "mean"
) -> tuple[Tensor, dict[str, float]]:
    """Divide each term by its count over all processes and add up; with the reduction `sum`, undivided.

    Returns:
        the total for `backward` (times the number of processes, since DDP averages their gradients), and the values of
        the terms over all processes with the total as `loss`.
    """
    counts = torch.stack([torch.as_tensor(term.count, device=accelerator.device).double() for term in terms.values()])
    counts: Any = accelerator.reduce(counts, "sum")
    counts = torch.where((counts > 0) & (reduction == "mean"), counts, 1)
    parts = [term.sum / count.to(term.sum.dtype) for term, count in zip(terms.values(), counts, strict=True)]
    total = torch.stack([part * term.weight for part, term in zip(parts, terms.values(), strict=True)]).sum()
    values: Any = accelerator.reduce(torch.stack([*(part.detach() for part in parts), total.detach()]), "sum")
    return total * accelerator.num_processes, dict(zip((*terms, "loss"), values.tolist(), strict=True))


def backbones_of(system: nn.Module) -> list[nn.Module]:
    """The parts that pretrained weights fill; without pyramids and heads."""
    return [module for module in system.modules() if isinstance(module, Backbone)]


def _freeze(system: nn.Module, stage: Stage) -> None:
    if stage.batch_norm_momentum is not None:
        for module in system.modules():
            if isinstance(module, _BatchNorm):
                module.momentum = stage.batch_norm_momentum
    if stage.freeze_batch_norm:
        for module in [system] if stage.freeze_batch_norm == "all" else backbones_of(system):
            freeze_batch_norm(module)
    if stage.frozen_stages:
        backbone = as_system(system).backbone
        if not isinstance(backbone, Backbone):
            raise RecipeError(f"frozen_stages={stage.frozen_stages}: {type(system).__name__} has no backbone")
        freeze_stages(backbone, stage.frozen_stages)


def _clip(system: nn.Module, largest: float) -> float:
    if not largest:
        return 0.0
    parameters = [parameter for parameter in system.parameters() if parameter.grad is not None]
    return float(nn.utils.clip_grad_norm_(parameters, largest))
