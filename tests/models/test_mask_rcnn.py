"""Mask R-CNN: what is particular to it; parity with torchvision is tested with the importers."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pixelwise.contracts import Sizes, Thresholds, flat_arguments
from pixelwise.errors import DataError, RecipeError
from pixelwise.models.mask_rcnn import RECIPES, VARIANTS, MaskRCNN, Output, build
from pixelwise.nn.roi_heads import RoIPooling
from pixelwise.nn.rpn import RPN
from pixelwise.ops.boxes import clip_boxes
from pixelwise.types import Annotation, Instances, Masks
from tests.contract.annotations import empty_annotation, random_batch
from tests.models.small_detectors import SIZE, SMALL, learned, objects_batch, total
from tests.perturbed import perturb_batch_norm

THINGS = (1, 2, 3, 4)


def small(**changes: Any) -> MaskRCNN:
    torch.manual_seed(0)
    network = build(**{**SMALL, **changes})
    perturb_batch_norm(network)
    for parameter in (network.box_predictor.classes.weight, network.box_predictor.deltas.weight):
        torch.nn.init.normal_(parameter, std=0.1)
    torch.nn.init.normal_(network.mask_head.predictor.weight, std=0.3)
    return network.eval()


# ---- layouts


@pytest.mark.parametrize(
    "changes",
    [
        {"layout": "c4", "backbone": "resnet18"},
        {"rpn_convolutions": 2, "box_convolutions": 2, "has_norm": True},
        {"roi_pooling": "pool"},
        {"backbone": "timm/resnet10t"},
        {"is_aligned": False, "rounded_anchors": True, "grid_strides": True, "paste": "torchvision"},
        {"sampling_ratio": 0},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_every_layout_trains_in_all_its_parts_and_predicts(changes: dict[str, Any]) -> None:
    network = small(**changes)
    batch = objects_batch(THINGS)
    output = learned(network, batch)
    total(network, output, batch).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), f"the gradient of {name} is zero"
    with torch.no_grad():
        found = network.eval()(batch.images, batch.valid_sizes)
        for annotation, size in zip(network.decode(found, Sizes.of(batch)), [(50, 71), (130, 33)], strict=True):
            instances = annotation.instances
            assert instances is not None
            assert instances.masks is not None
            assert len(instances) == len(instances.masks) > 0
            assert instances.masks.size == size
            assert set(instances.labels.tolist()) <= {1, 2, 3, 4}
            assert torch.equal(clip_boxes(instances.boxes, size), instances.boxes)


def test_c4_predicts_masks_with_half_the_cells() -> None:
    network = small(layout="c4", backbone="resnet18")
    with torch.no_grad():
        found = network(torch.rand(1, 3, *SIZE))
    assert found.mask_probabilities[0].shape[1:] == (14, 14)
    assert network.fpn is None
    assert "backbone.layer4.1.conv2.weight" in network.state_dict(), "so that a classifier's weights fill the head"


def test_c4_has_the_papers_numbers() -> None:
    """Section 3.1: N is 64 for C4 and 512 for FPN, and the proposals at test time are 300 and 1000."""
    for name, samples, proposals in (("mask_rcnn_resnet50_c4", 64, 300), ("mask_rcnn_resnet50_fpn", 512, 1000)):
        with torch.device("meta"):
            network = build(num_classes=5, **VARIANTS[name])
        assert (network.samples, network.rpn.post_nms_topk[1]) == (samples, proposals)
    assert "samples" not in RECIPES["mask_rcnn_resnet50_c4"].stages[0].arguments, "it is trained with these"
    network = small(**{**dict.fromkeys(("samples", "post_nms_topk")), "layout": "c4", "backbone": "resnet18"})
    output = learned(network, objects_batch(THINGS))
    assert [len(channels) for channels in output.channels] == [64, 64]


def test_impossible_arguments_are_refused() -> None:
    for changes, text in (
        ({"layout": "c4"}, "layout c4 takes a ResNet"),
        ({"post_nms_topk": (1, 2, 3)}, "post_nms_topk.*two numbers from 1 on"),
        ({"thing_ids": (9,)}, "thing_ids"),
    ):
        with pytest.raises(RecipeError, match=text):
            build(**{**SMALL, **changes})


@pytest.mark.parametrize("changes", [{"layout": "c5"}, {"roi_pooling": "warp"}, {"paste": "caffe"}])
def test_impossible_words_are_refused(changes: dict[str, str]) -> None:
    plain = flat_arguments(inspect.unwrap(build))  # as users call it; in tests its types are checked before
    with pytest.raises(RecipeError, match=f"'{next(iter(changes.values()))}': "):
        plain(**{**SMALL, **changes})


# ---- training


def test_masks_are_of_positives_and_their_targets_of_the_proposal() -> None:
    """One object, a proposal that is its left half moved: the target is what the proposal shows of it."""
    network = small()
    mask = torch.zeros(1, *SIZE, dtype=torch.bool)
    mask[0, 16:48, 32:64] = True
    truth = Annotation(
        instances=Instances(
            boxes=torch.tensor([[32.0, 16, 64, 48]]), labels=torch.tensor([3]), masks=Masks.from_dense(mask)
        )
    )
    batch = random_batch(SIZE, [SIZE], truth=[truth])
    output = learned(network, batch)
    positives = int((output.channels[0] > 0).sum())
    assert output.mask_logits[0].shape == output.mask_targets[0].shape == (positives, 28, 28)
    assert output.channels[0][:positives].tolist() == [3] * positives
    # the true box is itself among the proposals, of which the mask is full
    exact = (output.box_targets[0].abs().max(dim=1).values < 1e-6).nonzero().flatten()
    assert len(exact) >= 1
    assert output.mask_targets[0][exact[0]].min() == 1
    assert set(output.mask_targets[0].unique().tolist()) <= {0, 1}


def test_mask_targets_of_a_shifted_proposal() -> None:
    from pixelwise.models.mask_rcnn import _mask_targets

    mask = torch.zeros(2, *SIZE, dtype=torch.bool)
    mask[1, 16:48, 32:64] = True
    boxes = torch.tensor([[48.0, 32, 80, 64], [32, 16, 64, 48]])
    targets = _mask_targets(Masks.from_dense(mask), torch.tensor([1, 1]), boxes, 28)
    expected = torch.zeros(28, 28)
    expected[:14, :14] = 1
    assert torch.equal(targets[0], expected)
    assert targets[1].min() == 1


def test_only_the_mask_of_the_true_class_has_a_loss() -> None:
    network = small()
    batch = objects_batch(THINGS)
    truth = []
    for one in batch.truth:
        assert one.instances is not None
        truth.append(replace(one, instances=replace(one.instances, labels=torch.full_like(one.instances.labels, 2))))
    batch = replace(batch, truth=tuple(truth))
    term = network.loss(learned(network, batch), batch)["mask"]
    (term.sum / term.count).backward()
    gradient = network.mask_head.predictor.weight.grad
    assert gradient is not None
    assert gradient.any(dim=1).tolist() == [False, True, False, False]


def test_what_is_sampled_follows_the_seed() -> None:
    network = small()
    batch = objects_batch(THINGS)
    losses = [float(total(network, learned(network, batch, seed), batch).detach()) for seed in (3, 3, 4)]
    assert losses[0] == losses[1] != losses[2]


def test_images_without_objects_have_finite_losses() -> None:
    network = small()
    batch = random_batch(SIZE, [SIZE] * 2, truth=[empty_annotation(SIZE)] * 2)
    output = learned(network, batch)
    terms = network.loss(output, batch)
    assert {name for name, term in terms.items() if int(term.count)} == {"rpn_objectness", "rpn_box", "class", "box"}
    assert all(float(terms[name].sum.detach()) == 0 for name in ("rpn_box", "box", "mask"))
    total(network, output, batch).backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)


def test_crowds_are_neither_targets_nor_background() -> None:
    network = small(samples=10**4)
    batch = objects_batch(THINGS)
    truth = []
    for one in batch.truth:
        instances = one.instances
        assert instances is not None
        whole = torch.ones(1, *SIZE, dtype=torch.bool)
        crowd = Instances(
            boxes=torch.tensor([[0.0, 0, SIZE[1], SIZE[0]]]),
            labels=torch.tensor([1]),
            masks=Masks.from_dense(whole),
            crowd=torch.tensor([True]),
        )
        truth.append(replace(one, instances=crowd))
    output = learned(network, replace(batch, truth=tuple(truth)))
    assert [len(channels) for channels in output.channels] == [0, 0]
    assert not torch.cat(output.anchor_is_object).any()
    loss = total(network, output, batch)
    loss.backward()
    assert torch.isfinite(loss)


def test_ground_truth_without_masks_and_losses_without_ground_truth_are_named() -> None:
    network = small()
    batch = objects_batch(THINGS)
    bare = []
    for one in batch.truth:
        assert one.instances is not None
        bare.append(replace(one, instances=replace(one.instances, masks=None)))
    with pytest.raises(DataError, match="2 of 2 images have no instance masks"):
        network(batch.images, truth=tuple(bare))
    with pytest.raises(DataError, match="without ground truth"), torch.no_grad():
        network.loss(network(batch.images), batch)


def test_it_trains_in_half_precision() -> None:
    network = small()
    batch = objects_batch(THINGS)
    with torch.autocast("cpu", torch.bfloat16):
        output = learned(network, batch)
    loss = total(network, output, batch)
    assert loss.dtype == torch.float32
    loss.backward()
    assert torch.isfinite(loss)


# ---- predictions


@torch.no_grad()
def test_what_lies_beyond_the_valid_size_is_ignored() -> None:
    network = small().double()
    images = torch.rand(2, 3, 80, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sizes = torch.tensor([[80, 64], [60, 100]])
    together = network(images, sizes)
    for index, (height, width) in enumerate(sizes.tolist()):
        # another value beyond the valid size, and less of it: the network itself pads to 96×128
        other = torch.full((1, 3, 90, 110), 0.3, dtype=torch.float64)
        other[0, :, :height, :width] = images[index, :, :height, :width]
        alone = network(other, sizes[index : index + 1])
        assert len(alone.boxes[0]) == len(together.boxes[index]) > 0
        assert (alone.boxes[0][:, 2] <= width).all()
        assert (alone.boxes[0][:, 3] <= height).all()
        assert torch.allclose(alone.scores[0], together.scores[index], atol=1e-6)
        assert torch.allclose(alone.boxes[0], together.boxes[index], atol=1e-4)
        assert torch.allclose(alone.mask_probabilities[0], together.mask_probabilities[index], atol=1e-5)


@torch.no_grad()
def test_masks_are_predicted_in_the_final_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small()
    seen: list[list[Tensor]] = []
    look = RoIPooling.forward

    def remember(part: RoIPooling, levels: Any, boxes: list[Tensor]) -> Tensor:
        if part is network.mask_pooling:
            seen.append(list(boxes))
        return look(part, levels, boxes)

    monkeypatch.setattr(RoIPooling, "forward", remember)
    output = network(torch.rand(2, 3, *SIZE))
    assert len(seen) == 1
    for boxes, found in zip(seen[0], output.boxes, strict=True):
        assert torch.equal(boxes, found)


@torch.no_grad()
def test_thresholds_may_be_set_afterwards() -> None:
    network = small()
    images = torch.rand(1, 3, *SIZE)
    every = network(images)
    middle = float(every.scores[0].median())
    network.thresholds = Thresholds(middle, 12)
    fewer = network(images)
    assert torch.equal(fewer.scores[0], every.scores[0][every.scores[0] > middle])
    network.thresholds = Thresholds(0.05, 3)
    assert torch.equal(network(images).scores[0], every.scores[0][:3])
    network.thresholds, network.nms_threshold = Thresholds(0.05, 12), 0.0
    boxes, channels = network(images).boxes[0], network(images).channels[0]
    for channel in channels.unique():
        of_class = boxes[channels == channel]
        overlaps = (torch.minimum(of_class[:, None, 2:], of_class[None, :, 2:])
                    - torch.maximum(of_class[:, None, :2], of_class[None, :, :2])).clamp(min=0).prod(dim=2)  # fmt: skip
        assert (overlaps - overlaps.diag().diag()).max() <= 1e-3


def test_decoding_by_hand() -> None:
    """A box of the network's input in an image of other proportions, of a label set whose things are 2 and 4."""
    network = small(thing_ids=(2, 4))
    mask = torch.zeros(1, 28, 28)
    mask[:, :, :14] = 1  # the left half
    output = Output(
        channels=(torch.tensor([2]),),
        boxes=(torch.tensor([[16.0, 8, 48, 40]]),),
        scores=(torch.tensor([0.9]),),
        mask_probabilities=(mask,),
    )
    batch = random_batch(SIZE, [(128, 48)])  # twice as high, half as wide
    instances = network.decode(output, Sizes.of(batch))[0].instances
    assert instances is not None
    assert instances.masks is not None
    assert instances.labels.tolist() == [4]
    assert instances.boxes.tolist() == [[8, 16, 24, 80]]
    expected = torch.zeros(128, 48, dtype=torch.bool)
    expected[16:80, 8:16] = True
    assert torch.equal(instances.masks.dense_one(0), expected)


@torch.no_grad()
def test_features_are_those_that_predictions_come_from() -> None:
    network = small()
    images = torch.rand(1, 3, *SIZE)
    levels: list[Tensor] = []

    def remember(part: RPN, inputs: Any) -> None:
        levels.extend(inputs[0])

    hook = network.rpn.register_forward_pre_hook(remember)
    network(images)
    hook.remove()
    features = network.features(images)
    assert len(levels) == 5
    for one, other in zip(levels, features, strict=False):
        assert torch.equal(one, other)
    assert len(features) == 5 + 5 + 5 + 3
