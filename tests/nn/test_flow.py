"""Optical flow: its direction and order, on drawn and on real frames."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from pixelwise.errors import CheckpointError, RecipeError
from pixelwise.nn.backbones import build_backbone
from pixelwise.nn.flow import DISFlow, RAFTFlow, ZeroFlow, build_flow, load_flow
from pixelwise.ops.warp import warp
from pixelwise.training.run import initial_weights as initial_weights
from tests.shared_data import require


def texture(height: int, width: int, seed: int = 0) -> Tensor:
    """Smooth blobs, 3 channels."""
    coarse = torch.rand(1, 3, height // 8, width // 8, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False).clamp(0, 1)


def test_kinds_are_found_by_name() -> None:
    assert isinstance(build_flow("dis"), DISFlow)
    assert isinstance(build_flow("zero"), ZeroFlow)
    assert not build_flow("zero")(torch.rand(2, 3, 4, 5), torch.rand(2, 3, 4, 5)).any()
    with pytest.raises(RecipeError, match="flow 'farneback': expected one of dis, raft_small, raft_large, zero"):
        build_flow("farneback")


def test_the_flow_points_from_the_target_to_the_reference() -> None:
    """What the target shows at (x, y) the reference shows at (x + 3, y - 2)."""
    reference = texture(80, 120)
    target = reference.roll((2, -3), dims=(2, 3))
    flow = DISFlow()(target, reference)
    inner = flow[:, :, 16:-16, 16:-16]
    torch.testing.assert_close(inner.mean(dim=(0, 2, 3)), torch.tensor([3.0, -2.0]), rtol=0, atol=0.05)
    moved = warp(reference, flow)[:, :, 16:-16, 16:-16]
    assert (moved - target[:, :, 16:-16, 16:-16]).abs().mean() < 0.01
    # the other way round it would be further off than no flow at all
    wrong = warp(reference, -flow)[:, :, 16:-16, 16:-16]
    still = reference[:, :, 16:-16, 16:-16]
    assert (wrong - target[:, :, 16:-16, 16:-16]).abs().mean() > (still - target[:, :, 16:-16, 16:-16]).abs().mean()


def test_each_pair_of_a_batch_has_its_own_flow() -> None:
    reference = torch.cat([texture(48, 64, 1), texture(48, 64, 2)])
    target = torch.stack([reference[0].roll(2, 1), reference[1].roll(-3, 2)])
    together = DISFlow()(target, reference)
    for index in range(2):
        alone = DISFlow()(target[index : index + 1], reference[index : index + 1])
        assert torch.equal(alone[0], together[index])
    assert together[0, 1, 16:-16, 16:-16].mean() < -1.5
    assert together[1, 0, 16:-16, 16:-16].mean() > 2


@pytest.mark.parametrize("size", [(1, 5), (8, 40), (12, 12)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_frames_have_a_flow_too(size: tuple[int, int], dtype: torch.dtype) -> None:
    frame = torch.rand(1, 3, *size, dtype=dtype, requires_grad=True)
    flow = DISFlow()(frame, frame)
    assert flow.shape == (1, 2, *size)
    assert flow.dtype == dtype
    assert not flow.requires_grad
    assert flow.abs().max() < 0.1


@pytest.mark.parametrize("clip", ["davis2016/JPEGImages", "kitti_step/images"])
def test_flow_explains_real_frames_better_than_none(clip: str) -> None:
    files = sorted(require(clip).rglob("*.[jp][pn]g"))
    pairs = [(one, other) for one, other in pairwise(files) if one.parent == other.parent]
    assert pairs
    for one, other in pairs[:2]:
        reference, target = (_frame(path) for path in (one, other))
        flow = DISFlow()(target, reference)
        error = (warp(reference, flow, outside="border") - target).abs().mean()
        assert error < 0.8 * (reference - target).abs().mean(), (one, other)


def _frame(path: Path) -> Tensor:
    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None] / 255
    return F.interpolate(pixels, scale_factor=0.5, mode="area")


# ---- RAFT


class Remembering(nn.Module):
    """Stands for RAFT: keeps what it was given, and returns numbers of the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.given: tuple[Tensor, Tensor] | None = None

    def forward(self, one: Tensor, other: Tensor) -> list[Tensor]:
        self.given = (one, other)
        flow = torch.arange(float(one[0, 0].numel())).view(1, 1, *one.shape[2:]).expand(len(one), 2, -1, -1)
        return [torch.zeros_like(flow), flow]


def small_raft(monkeypatch: pytest.MonkeyPatch) -> RAFTFlow:
    flow = RAFTFlow("raft_small")
    flow.network = Remembering()
    flow.has_weights.fill_(True)
    return flow


@pytest.mark.parametrize(
    ("size", "padded"), [((130, 41), (136, 128)), ((128, 160), (128, 160)), ((1, 129), (128, 136))]
)
def test_raft_gets_padded_frames_from_minus_one_to_one(
    size: tuple[int, int], padded: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = small_raft(monkeypatch)
    target, reference = torch.rand(2, 1, 3, *size)
    found = flow(target, reference)
    assert isinstance(flow.network, Remembering)
    given = flow.network.given
    assert given is not None
    height, width = size
    for image, frame in zip(given, (target, reference), strict=True):
        assert image.shape[2:] == padded
        torch.testing.assert_close(image[:, :, :height, :width], 2 * frame - 1)
        assert torch.equal(
            image[:, :, height:, 0], image[:, :, height - 1 : height, 0].expand(-1, -1, padded[0] - height)
        )
    expected = torch.arange(float(padded[0] * padded[1])).view(padded)[:height, :width]
    assert torch.equal(found[0, 0], expected), "the last of the iterations, without the padding"


def test_raft_without_weights_gives_no_flow_and_its_weights_are_stored(tmp_path: Path) -> None:
    flow = build_flow("raft_small")
    assert isinstance(flow, RAFTFlow)
    frame = texture(128, 128)
    with pytest.raises(RecipeError, match="flow=raft_small: it has no trained weights"):
        flow(frame, frame)
    assert not any(parameter.requires_grad for parameter in flow.parameters())
    assert not any(part.training for part in flow.train().modules())
    save_file(RAFTFlow("raft_small").network.state_dict(), tmp_path / "raft.safetensors")
    load_flow(flow, tmp_path / "raft.safetensors")
    found = flow(frame, frame)
    assert found.shape == (1, 2, 128, 128)
    assert torch.isfinite(found).all()
    other = RAFTFlow("raft_small")
    other.load_state_dict(flow.state_dict())
    assert torch.equal(other(frame, frame), found), "without load_flow"


def test_other_weights_are_refused_for_raft(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"other\.safetensors: not the weights of torchvision's raft_small"):
        load_flow(RAFTFlow("raft_small"), tmp_path / "other.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="expected a safetensors file, but this is a text file"):
        load_flow(RAFTFlow("raft_small"), tmp_path / "broken.safetensors")


@pytest.mark.parametrize(("init", "fetched"), [("torchvision", ["raft_small"]), ("timm", [])])
def test_weights_are_fetched_only_when_torchvisions_are_asked_for(
    init: str, fetched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(initial_weights, "load_backbone", lambda *_: 0)
    monkeypatch.setattr(initial_weights, "load_flow", lambda flow, _: asked.append(flow.name))
    plan: Any = SimpleNamespace(init=init, system="vpsnet", arguments_of=lambda _: {"backbone": "resnet18"})
    system = nn.Module()
    system.backbone, system.flow = build_backbone("resnet18"), RAFTFlow("raft_small")
    stage: Any = None
    labels: Any = None
    assert initial_weights.initialise(system, plan, stage, labels) == ""
    assert asked == fetched
