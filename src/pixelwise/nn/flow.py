"""Optical flow: the position of each pixel of one frame in another.

All kinds take two frames and give the flow from the first to the second, in pixels, right and down, so that
`ops.warp.warp(reference, flow)` approximates the target. None of them is trained here. Train or fine-tune a network
again before it uses another kind of flow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torchvision.models import get_model

from pixelwise.errors import CheckpointError, RecipeError
from pixelwise.files.tensors import read_tensors

NAMES = ("dis", "raft_small", "raft_large", "zero")

SMALLEST_SIDES = {"dis": 16, "raft": 128}
"""Smallest side in pixels; smaller frames are padded by their outermost pixels."""


class OpticalFlow(Protocol):
    """A module that estimates the flow; `build_flow` makes one."""

    def __call__(
        self, target: Float[Tensor, "B 3 H W"], reference: Float[Tensor, "B 3 H W"]
    ) -> Float[Tensor, "B 2 H W"]:
        """Displacement from each pixel of the target to the reference, right and down, in pixels.

        Args:
            target: RGB in [0, 1].
            reference: likewise.
        """
        ...


class ZeroFlow(nn.Module):
    """A flow of zero, for ablation."""

    def forward(
        self,
        target: Float[Tensor, "B 3 H W"],
        reference: Float[Tensor, "B 3 H W"],  # noqa: ARG002
    ) -> Float[Tensor, "B 2 H W"]:
        """Zeros."""
        return torch.zeros_like(target[:, :2])


class DISFlow(nn.Module):
    """Dense inverse search in OpenCV's "medium" preset, without weights and GPU.

    Source: Kroeger, Timofte, Dai, Van Gool, "Fast Optical Flow using Dense Inverse Search", ECCV 2016. Computed from
    grey values of 8 bits, on the CPU and outside of autograd.
    """

    @torch.no_grad()
    def forward(
        self, target: Float[Tensor, "B 3 H W"], reference: Float[Tensor, "B 3 H W"]
    ) -> Float[Tensor, "B 2 H W"]:
        """See OpticalFlow."""
        import cv2  # here, as no other system needs it

        height, width = target.shape[2:]
        search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        smallest = SMALLEST_SIDES["dis"]
        enlarge = (0, max(smallest - width, 0), 0, max(smallest - height, 0))
        grey = [
            [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in _pixels(F.pad(frames.float(), enlarge, "replicate"))]
            for frames in (target, reference)
        ]
        flows = [
            search.calc(one, other, None)[:height, :width]  # pyright: ignore[reportCallIssue, reportArgumentType]
            for one, other in zip(*grey, strict=True)
        ]
        return torch.from_numpy(np.stack(flows)).permute(0, 3, 1, 2).to(target)


class RAFTFlow(nn.Module):
    """torchvision's RAFT, frozen, with the weights that `load_flow` or a stored model gives it.

    Source: Teed, Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow", ECCV 2020.

    Args:
        name: `raft_small` or `raft_large`.

    Attributes:
        has_weights: whether weights were loaded; stored with them, so that random weights are refused.
    """

    has_weights: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.network = get_model(name, weights=None).requires_grad_(False)
        self.register_buffer("has_weights", torch.tensor(False))

    def train(self, mode: bool = True) -> RAFTFlow:  # noqa: ARG002
        """Stay in evaluation mode: its batch norms are fixed."""
        return super().train(False)

    @torch.no_grad()
    def forward(
        self, target: Float[Tensor, "B 3 H W"], reference: Float[Tensor, "B 3 H W"]
    ) -> Float[Tensor, "B 2 H W"]:
        """See OpticalFlow. Raises RecipeError as long as the network has no trained weights."""
        if not self.has_weights:
            raise RecipeError(
                f"flow={self.name}: it has no trained weights; --init torchvision fetches them, "
                "nn.flow.load_flow reads a file; or choose flow=dis"
            )
        height, width = target.shape[2:]
        smallest = SMALLEST_SIDES["raft"]
        # RAFT reduces eightfold, and its correlations three more times by two
        right, below = (max(smallest, side + -side % 8) - side for side in (width, height))
        pair = [
            F.pad(2 * frame.to(_dtype(self.network)) - 1, (0, right, 0, below), mode="replicate")
            for frame in (target, reference)
        ]
        with torch.autocast(target.device.type, enabled=False):
            flow = self.network(*pair)[-1]
        return flow[:, :, :height, :width].to(target.dtype)


def build_flow(name: str) -> nn.Module:
    """Build the flow of that name: `dis`, `raft_small`, `raft_large` (without weights) or `zero`.

    Raises:
        RecipeError: unknown name.
    """
    if name in ("raft_small", "raft_large"):
        return RAFTFlow(name)
    if name not in NAMES:
        raise RecipeError(f"flow '{name}': expected one of {', '.join(NAMES)}")
    return DISFlow() if name == "dis" else ZeroFlow()


def load_flow(flow: RAFTFlow, source: Path | Literal["torchvision"]) -> None:
    """Fill RAFT with trained weights.

    Args:
        flow: to be filled.
        source: a safetensors file with torchvision's keys, or `torchvision` for its own download or cache.

    Raises:
        CheckpointError: unreadable, not downloadable, or another network's weights.
    """
    if isinstance(source, Path):
        weights = read_tensors(source)
    else:
        try:
            weights = get_model(flow.name, weights="DEFAULT").state_dict()
        except OSError as error:
            raise CheckpointError(
                f"torchvision's weights of {flow.name} could not be downloaded ({error}); give a file, or flow=dis"
            ) from None
    try:
        flow.network.load_state_dict(weights)
    except RuntimeError:
        expected = flow.network.state_dict()
        strange = [key for key in expected if key not in weights or weights[key].shape != expected[key].shape]
        strange += [key for key in weights if key not in expected]
        raise CheckpointError(
            f"{source}: not the weights of torchvision's {flow.name}: {', '.join(strange[:3])} differ"
        ) from None
    flow.has_weights.fill_(True)


def _pixels(frames: Float[Tensor, "B 3 H W"]) -> UInt8[np.ndarray, "B H W 3"]:
    pixels = (255 * frames.clamp(0, 1)).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def _dtype(network: nn.Module) -> torch.dtype:
    return next(network.parameters()).dtype
