"""The gradients of one step in float64, by one process or by several together.

Every process takes its share of the same four images, of which the later ones have more and more void.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pixelwise.contracts import Optimizer, Stage, Term
from pixelwise.data.loading.collate import collate
from pixelwise.losses.cross_entropy import PixelLoss, stack_semantic
from pixelwise.nn.backbones import build_backbone
from pixelwise.training.fit import Fit, make_gradients, set_pixel_loss
from pixelwise.training.processes import joined_processes, new_accelerator, process_count, process_rank, wrapped
from pixelwise.types import Batch
from tests.drawn_scenes import DrawnScenes

STAGES = {
    "all": Stage(freeze_batch_norm="all", class_weights=(0.5, 2.0, 1.0, 7.0)),
    "hard": Stage(freeze_batch_norm="all", class_weights=(0.5, 2.0, 1.0, 7.0), ohem=0.3),
    "plain": Stage(freeze_batch_norm="all", optimizer=Optimizer(name="adamw")),
}


class Output(NamedTuple):
    logits: Tensor
    aux_logits: Tensor


class TwoTerms(nn.Module):
    """A main and an auxiliary score, as PSPNet has them."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = build_backbone("mobilenet_v2", output_stride=16)
        self.main = nn.Conv2d(self.backbone.channels[-1], 4, 1)
        self.auxiliary = nn.Conv2d(self.backbone.channels[-2], 4, 1)
        self.pixel_loss = PixelLoss()

    def forward(self, images: Tensor, sizes: Tensor | None = None, truth: object = None) -> Output:
        maps = self.backbone(images)
        return Output(self.main(maps[-1]), self.auxiliary(maps[-2]))

    def loss(self, output: Output, batch: Batch) -> dict[str, Term]:
        truth = stack_semantic(batch.truth)
        return {
            "main": self.pixel_loss(output.logits, truth),
            "aux": self.pixel_loss(output.aux_logits, truth, weight=0.4),
        }


def share_of_batch() -> Batch:
    scenes = DrawnScenes(4, first_seed=0, size_hw=(64, 64))
    size = len(scenes) // process_count()
    samples = [scenes[index] for index in range(process_rank() * size, (process_rank() + 1) * size)]
    for sample in samples:
        number = int(sample.id.split()[-1])
        sample.truth.semantic[: 17 * number] = 255
    batch = collate(samples)
    return replace(batch, images=batch.images.double())


def write_gradients(out: Path) -> None:
    """Write those of this process and of the others that were launched with it, once."""
    gradients: dict[str, Tensor] = {}
    with joined_processes("cpu"):
        for name, stage in STAGES.items():
            torch.manual_seed(0)
            system = TwoTerms().double().train()
            Fit.start(system, stage)
            set_pixel_loss(system, stage, 255)
            network = wrapped(system, torch.device("cpu"))
            terms = make_gradients(network, system, [share_of_batch()], new_accelerator("cpu", "float32"))
            for key, parameter in system.named_parameters():
                if parameter.grad is not None:
                    gradients[f"{name}:{key}"] = parameter.grad
            for key, value in terms.items():
                gradients[f"{name}:term {key}"] = torch.tensor(value, dtype=torch.float64)
        if process_rank() == 0:
            save_file({key: value.contiguous() for key, value in gradients.items()}, out)
