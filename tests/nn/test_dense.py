"""Labels against scores enlarged all at once."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pixelwise.contracts import Sizes, Traits
from pixelwise.nn.backbones import build_backbone
from pixelwise.nn.dense import DenseSystem


class Output(NamedTuple):
    logits: Tensor


@pytest.mark.parametrize("align_corners", [True, False])
def test_each_image_is_labelled_at_its_original_size(align_corners: bool) -> None:
    sizes = ((33, 50), (20, 71))
    system = DenseSystem(build_backbone("resnet18"), Traits(align_corners=align_corners), num_classes=6)
    logits = 3 * torch.randn(2, 6, 4, 5, generator=torch.Generator().manual_seed(0))
    annotations = system.decode(Output(logits), Sizes(((24, 32),) * 2, sizes))
    for annotation, scores, size in zip(annotations, logits, sizes, strict=True):
        best = F.interpolate(scores[None], size=size, mode="bilinear", align_corners=align_corners)[0].softmax(0).max(0)
        assert annotation.semantic is not None
        assert annotation.confidence is not None
        assert torch.equal(annotation.semantic.long(), best.indices)
        torch.testing.assert_close(annotation.confidence, best.values, rtol=0, atol=1e-5)
