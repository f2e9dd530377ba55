"""Parameter groups, the schedule, and the running average of weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from pixelwise.contracts import Optimizer, Stage, as_system


def build_optimizer(system: nn.Module, optimizer: Optimizer) -> torch.optim.Optimizer:
    """SGD or AdamW over up to six groups: backbone or head; weights (decayed), biases, or normalisation.

    A system says which part is its backbone by the attribute `backbone`; the rest is head. Each group keeps its rate at
    step 0 as `base_lr`.
    """
    groups = [
        {"params": parameters, "base_lr": lr, "lr": lr, "weight_decay": decay, "name": name}
        for name, parameters, lr, decay in _groups(system, optimizer)
        if parameters
    ]
    if optimizer.name == "sgd":
        return torch.optim.SGD(groups, lr=optimizer.lr, momentum=optimizer.momentum)
    return torch.optim.AdamW(groups, lr=optimizer.lr, betas=(optimizer.momentum, 0.999))


def _groups(system: nn.Module, optimizer: Optimizer) -> Iterator[tuple[str, list[nn.Parameter], float, float]]:
    backbone = as_system(system).backbone
    in_backbone = set() if backbone is None else {id(parameter) for parameter in backbone.parameters()}
    # of every kind of convolution and linear layer; a normalisation has weights of one dimension
    names = dict(system.named_parameters())
    biases = {
        id(parameter)
        for name, parameter in names.items()
        if name.endswith("bias") and getattr(names.get(f"{name[:-4]}weight"), "ndim", 0) > 1
    }
    parameters = [parameter for parameter in system.parameters() if parameter.requires_grad]
    head, head_bias = optimizer.head_lr_multiplier, optimizer.head_bias_lr_multiplier
    for part, of_backbone, multiplier, bias_multiplier in (
        ("backbone", True, 1.0, optimizer.bias_lr_multiplier),
        ("head", False, head, head if head_bias is None else head_bias),
    ):
        chosen = [parameter for parameter in parameters if (id(parameter) in in_backbone) == of_backbone]
        # one-dimensional parameters that are no biases belong to normalisation layers
        thin = [parameter for parameter in chosen if parameter.ndim <= 1]
        lr, decay = optimizer.lr * multiplier, optimizer.norm_weight_decay
        yield f"{part} weights", [p for p in chosen if p.ndim > 1], lr, optimizer.weight_decay
        yield f"{part} biases", [p for p in thin if id(p) in biases], optimizer.lr * bias_multiplier, decay
        yield f"{part} norms", [p for p in thin if id(p) not in biases], lr, decay


def schedule_factor(stage: Stage, step: int) -> float:
    """Factor on every rate in a step (from 0): that of the schedule all along, times that of the warm-up.

    Sources: poly, Liu et al. (ParseNet), as DeepLab v2 uses it, section 4.1; steps and both warm-ups, Detectron's and
    detectron2's `WarmupMultiStepLR`; cosine, Loshchilov & Hutter (SGDR), without restarts.
    """
    return _warmup_factor(stage, step) * _decay_factor(stage, step)


def _warmup_factor(stage: Stage, step: int) -> float:
    if step >= stage.warmup_steps:
        return 1.0
    start = stage.warmup_factor
    if stage.warmup == "constant":
        return start
    # from 0 the first step would change nothing, so that it is the second of as many steps
    done = (step + (start == 0)) / stage.warmup_steps
    return start + (1 - start) * done


def _decay_factor(stage: Stage, step: int) -> float:
    if stage.schedule == "poly":
        return (1 - step / stage.steps) ** stage.poly_power
    if stage.schedule == "step":
        return stage.gamma ** sum(step >= milestone for milestone in stage.milestones)
    if stage.schedule == "cosine":
        return (1 + math.cos(math.pi * step / stage.steps)) / 2
    return 1.0


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set each group's rate to `factor` times its rate at step 0."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def weight_average(network: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average of weights and batch-norm statistics; counters are copied.

    Source: Polyak & Juditsky (1992); with the warm-up min(decay, (1 + n) / (10 + n)) of TensorFlow's implementation, so
    that early averages do not remember the start.
    """

    def move(averages: Sequence[Tensor], values: Sequence[Tensor], count: int | Tensor) -> None:
        step = int(count) - 1
        for average, value in zip(averages, values, strict=True):
            if average.is_floating_point():
                average.lerp_(value, 1 - min(decay, (1 + step) / (10 + step)))
            else:
                average.copy_(value)

    averaged = AveragedModel(network, multi_avg_fn=move, use_buffers=True)  # pyright: ignore[reportArgumentType]
    set_updates(averaged, 0)
    return averaged


def set_updates(averaged: AveragedModel, count: int) -> None:
    """Set the number of updates of the average; the initial weights count as one more."""
    averaged.n_averaged.fill_(count + 1)
