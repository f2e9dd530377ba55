"""The training loop, as a generator: logging, evaluation and checkpoints are the body of an ordinary `for`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn
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
    input_size: int,
    labels: LabelSet,
    seed: int,
    workers: int,
) -> Iterator[Step]:
    """Run the remaining steps of a stage; yield each step.

    Between two items `fitting` is consistent and may be saved; later steps depend on it and on the arguments alone.

    Args:
        fitting: its step, weights and optimizer are updated.
        samples: training images.
        accelerator: device, precision and processes.
        input_size: long side around which images are scaled.
        labels: the classes of the ground truth.
        seed: of order, augmentation and dropout.
        workers: processes that read images.

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
        input_size,
        labels.ignore_id,
        stretches_input=as_system(system).traits.stretches_input,
    )
    sampler = StepSampler(
        len(samples),
        batch_size=stage.batch_size,
        steps=(fitting.step, stage.steps),
        seed=seed,
        process=(accelerator.process_index, accelerator.num_processes),
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
    )
    while fitting.step < stage.steps:
        batch = on_all_ranks(lambda: next(batches))
        system.train()
        _freeze(system, stage)
        torch.manual_seed(dropout_seed(seed, fitting.step, accelerator.process_index))
        factor = schedule_factor(stage, fitting.step)
        set_rates(fitting.optimizer, factor)
        fitting.optimizer.zero_grad(set_to_none=True)
        terms = make_gradients(network, system, batch.to(accelerator.device), accelerator)
        if not math.isfinite(terms["loss"]):
            raise RecipeError(
                f"step {fitting.step + 1}: the loss is {terms['loss']} on images {', '.join(batch.ids[:4])} …; "
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
            images=len(batch) * accelerator.num_processes,
        )


def _pairs(system: nn.Module, samples: Samples) -> FramePairs | None:
    """The pairs of frames of a system that is trained on them, else None."""
    traits = as_system(system).traits
    if traits.clip_frames == 1:
        return None
    flow = partial(flow_of, samples) if traits.learns_flow else None
    return FramePairs(clip_of_each(samples), offsets=traits.reference_offsets, flow=flow)


def make_gradients(network: nn.Module, system: nn.Module, batch: Batch, accelerator: Accelerator) -> dict[str, float]:
    """Run forward and backward on one batch; gradients are those of the joined batches of all processes.

    Args:
        network: the system, or `processes.wrapped` of it.
        system: with the loss.
        batch: of this process, on its device.
        accelerator: precision and processes.

    Returns:
        the terms over all processes, and the weighted total as `loss`.

    Raises:
        RecipeError: the batch has proposals, and the system takes none.
    """
    images = batch.images.contiguous(memory_format=torch.channels_last)
    given: dict[str, Any] = {}
    if any(regions is not None for regions in batch.proposals or ()):
        require_takes_proposals(system)
        given["proposals"] = batch.proposals
    with accelerator.autocast():
        output = network(images, batch.valid_sizes, truth=batch.truth, **given)
    total, terms = total_loss(as_system(system).loss(output, batch), accelerator)
    accelerator.backward(total)
    return terms


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


def total_loss(terms: dict[str, Term], accelerator: Accelerator) -> tuple[Tensor, dict[str, float]]:
    """Divide each term by its count over all processes and add up.

    Returns:
        the total for `backward` (times the number of processes, since DDP averages their gradients), and the values of
        the terms over all processes with the total as `loss`.
    """
    counts = torch.stack([torch.as_tensor(term.count, device=accelerator.device).double() for term in terms.values()])
    counts: Any = accelerator.reduce(counts, "sum")
    counts = torch.where(counts > 0, counts, 1)
    parts = [term.sum / count.to(term.sum.dtype) for term, count in zip(terms.values(), counts, strict=True)]
    total = torch.stack([part * term.weight for part, term in zip(parts, terms.values(), strict=True)]).sum()
    values: Any = accelerator.reduce(torch.stack([*(part.detach() for part in parts), total.detach()]), "sum")
    return total * accelerator.num_processes, dict(zip((*terms, "loss"), values.tolist(), strict=True))


def _freeze(system: nn.Module, stage: Stage) -> None:
    if stage.freeze_batch_norm:
        freeze_batch_norm(system)
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
