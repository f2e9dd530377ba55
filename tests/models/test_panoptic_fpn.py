"""Panoptic FPN: what is particular to it; the merging is tested in `tests/nn/test_panoptic_merge.py`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pixelwise.contracts import Sizes
from pixelwise.errors import RecipeError
from pixelwise.models import mask_rcnn
from pixelwise.models.panoptic_fpn import Output, PanopticFPN, SemanticBranch, build
from tests.contract.annotations import empty_annotation, random_batch
from tests.models.small_detectors import SIZE, SMALL, objects_batch, total
from tests.perturbed import perturb_batch_norm

THINGS = (1, 3)
WITH_STUFF = {
    **SMALL,
    "thing_ids": THINGS,
    "semantic_channels": 8,
    "score_threshold": 0.1,
    "smallest_stuff": 0,
}


def small(**changes: Any) -> PanopticFPN:
    torch.manual_seed(0)
    network = build(**{**WITH_STUFF, **changes})
    perturb_batch_norm(network)
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return network.eval()


@torch.no_grad()
def test_the_branch_is_its_formula() -> None:
    """Each level: so many times convolution, group norm, ReLU and a doubling; the sum, and a 1×1 convolution."""
    torch.manual_seed(0)
    branch = SemanticBranch(6, 4, channels=8).double()
    for parameter in branch.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    weights = branch.state_dict()
    levels = [torch.randn(2, 6, 16 // 2**number, 24 // 2**number).double() for number in range(4)]
    total = torch.zeros(2, 8, 16, 24).double()
    for number, x in enumerate(levels):
        for step in range(max(number, 1)):
            name = f"levels.{number}.{step}"
            x = F.conv2d(x, weights[f"{name}.0.weight"], padding=1)
            x = F.group_norm(x, 4, weights[f"{name}.1.weight"], weights[f"{name}.1.bias"]).relu()
            if number:
                x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        total += x
    expected = F.conv2d(total, weights["score.weight"], weights["score.bias"])
    assert torch.allclose(branch([*levels, levels[-1][:, :, ::2, ::2]]), expected, atol=1e-12)
    assert len(weights) == 3 * (1 + 1 + 2 + 3) + 2


def test_the_branch_of_the_paper() -> None:
    with torch.device("meta"):
        network = build(num_classes=133, thing_ids=tuple(range(80)))
    weights = network.state_dict()
    assert weights["semantic_branch.score.weight"].shape == (54, 128, 1, 1)
    assert network.stuff == tuple(range(80, 133))


def test_a_branch_without_channels_is_refused() -> None:
    with pytest.raises(RecipeError, match="semantic_channels=0: at least 1"):
        build(**{**WITH_STUFF, "semantic_channels": 0})


def test_things_are_one_class_of_the_semantic_term() -> None:
    network = small()
    batch = objects_batch(THINGS)
    output = network.train()(batch.images, batch.valid_sizes, batch.truth)
    terms = network.loss(output, batch)
    assert terms["semantic"].weight == 0.5
    assert len(terms) == 6
    truth = torch.stack([one.semantic for one in batch.truth if one.semantic is not None]).long()
    wanted = truth.clone()
    for label, channel in ((0, 1), (1, 0), (2, 2), (3, 0), (4, 3)):
        wanted[truth == label] = channel
    enlarged = F.interpolate(output.logits, size=SIZE, mode="bilinear", align_corners=False)
    expected = F.cross_entropy(enlarged, wanted, ignore_index=255)
    assert torch.allclose(terms["semantic"].sum / terms["semantic"].count, expected, atol=1e-5)


def test_every_part_trains_also_in_half_precision() -> None:
    network = small()
    batch = objects_batch(THINGS)
    with torch.autocast("cpu", torch.bfloat16):
        output = network.train()(batch.images, batch.valid_sizes, batch.truth)
    loss = total(network, output, batch)
    assert loss.dtype == torch.float32
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    assert network.semantic_branch.score.weight.grad is not None
    assert network.semantic_branch.score.weight.grad.any()


def test_images_without_objects_have_finite_losses() -> None:
    network = small()
    batch = random_batch(SIZE, [SIZE] * 2, truth=[empty_annotation(SIZE)] * 2)
    loss = total(network, network.train()(batch.images, batch.valid_sizes, batch.truth), batch)
    assert torch.isfinite(loss)


@torch.no_grad()
def test_decoding_by_hand() -> None:
    """Stuff of class 4 on the left half, things on the right, of which one object covers the upper part."""
    network = small()
    logits = torch.zeros(1, 4, 16, 24)
    logits[0, 3, :, :12] = 5
    logits[0, 0, :, 12:] = 5
    mask = torch.ones(1, 28, 28)
    objects = mask_rcnn.Output(
        channels=(torch.tensor([2]),),
        boxes=(torch.tensor([[48.0, 0, 96, 32]]),),
        scores=(torch.tensor([0.9]),),
        mask_probabilities=(mask,),
    )
    batch = random_batch(SIZE, [(128, 96)])  # twice as high
    panoptic = network.decode(Output(logits, objects), Sizes.of(batch))[0].panoptic
    assert panoptic is not None
    expected = torch.full((128, 96), 5)
    expected[:, 48:] = 0
    expected[:64, 48:] = 6
    assert torch.equal(panoptic.ids, expected.int())
    assert panoptic.segment_ids.tolist() == [5, 6]
    assert panoptic.labels.tolist() == [4, 3]
    assert panoptic.scores is not None
    assert float(panoptic.scores[1]) == pytest.approx(0.9)


@torch.no_grad()
def test_predictions_are_merged_at_the_original_size() -> None:
    network = small()
    batch = objects_batch(THINGS)
    for annotation, size in zip(
        network.decode(network(batch.images, batch.valid_sizes), Sizes.of(batch)), [(50, 71), (130, 33)], strict=True
    ):
        panoptic = annotation.panoptic
        assert panoptic is not None
        assert panoptic.ids.shape == size
        assert set(panoptic.ids.unique().tolist()) - {0} == set(panoptic.segment_ids.tolist())
        assert all(
            (id > 5) == (label in (1, 3)) for id, label in zip(panoptic.segment_ids, panoptic.labels, strict=True)
        )
