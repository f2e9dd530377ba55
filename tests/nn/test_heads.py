"""The small head against torchvision's."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models.segmentation import fcn as theirs_fcn

from pixelwise.nn.heads import FCNHead
from tests.perturbed import perturb_batch_norm


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
