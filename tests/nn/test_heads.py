"""The small head against torchvision's, and labels against scores enlarged all at once."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.segmentation import fcn as theirs_fcn

from pixelwise.data.loading.collate import collate
from pixelwise.nn.heads import FCNHead, semantic_annotations
from pixelwise.types import Annotation, Sample
from tests.nn.test_backbones import perturb_batch_norm


@torch.no_grad()
def test_the_head_is_torchvisions() -> None:
    torch.manual_seed(0)
    theirs = theirs_fcn.FCNHead(32, 5).eval()
    perturb_batch_norm(theirs)
    ours = FCNHead(32, 5).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 32, 9, 7)
    torch.testing.assert_close(ours(x), theirs(x))
    assert [type(layer) for layer in ours] == [type(layer) for layer in theirs]
    assert ours[3].p == theirs[3].p == 0.1


def test_channels_and_dropout_can_be_others() -> None:
    head = FCNHead(32, 5, channels=12, dropout=0.3, dropout_of_channels=True)
    assert head[0].weight.shape == (12, 32, 3, 3)
    assert type(head[3]) is nn.Dropout2d
    assert head[3].p == 0.3


@pytest.mark.parametrize("align_corners", [True, False])
def test_each_image_is_labelled_at_its_original_size(align_corners: bool) -> None:
    sizes = [(33, 50), (20, 71)]
    image, truth = torch.zeros(3, 24, 32, dtype=torch.uint8), torch.zeros(24, 32, dtype=torch.uint8)
    batch = collate([Sample(image, Annotation(semantic=truth), str(size), size) for size in sizes])
    logits = 3 * torch.randn(2, 6, 4, 5, generator=torch.Generator().manual_seed(0))
    for annotation, scores, size in zip(
        semantic_annotations(logits, batch, align_corners=align_corners), logits, sizes, strict=True
    ):
        best = F.interpolate(scores[None], size=size, mode="bilinear", align_corners=align_corners)[0].softmax(0).max(0)
        assert annotation.semantic is not None
        assert annotation.confidence is not None
        assert torch.equal(annotation.semantic.long(), best.indices)
        torch.testing.assert_close(annotation.confidence, best.values, rtol=0, atol=1e-5)
