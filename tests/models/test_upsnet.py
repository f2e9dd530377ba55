"""UPSNet: what is particular to it; its panoptic head is tested in `tests/nn/test_panoptic_head.py`."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import deform_conv2d, nms, roi_align

from pixelwise.contracts import Sizes, flat_arguments
from pixelwise.errors import DataError, RecipeError
from pixelwise.models.upsnet import (
    IGNORED,
    PUBLISHED,
    VARIANTS,
    SemanticHead,
    UPSNet,
    _inside_boxes,
    _some_of,
    build,
)
from pixelwise.nn.roi_heads import RoIPooling
from pixelwise.training.optimizer import build_optimizer
from pixelwise.types import Annotation, Instances, Masks
from tests.contract.annotations import empty_annotation, random_batch
from tests.models.small_detectors import SIZE, SMALL, learned, objects_batch, total
from tests.perturbed import perturb_batch_norm

THINGS = (1, 3)
WITH_STUFF = {**SMALL, "thing_ids": THINGS, "score_threshold": 0.1, "smallest_stuff": 0}

CITYSCAPES = {
    "global_context": False,
    "semantic_layers": 2,
    "semantic_weight": 1.0,
    "roi_weight": 0.0,
    "panoptic_weight": 0.5,
}


def test_anchors_that_cross_the_border_are_not_trained_on() -> None:
    """Those of objects at the border are none of the image's, so that nothing of the valid part's outside is learnt."""
    batch = objects_batch(THINGS)
    batch = replace(batch, valid_sizes=torch.tensor([[64, 96], [64, 40]]))
    network = small()
    assert (network.rpn.allowed_border, network.rpn.min_pos_iou) == (0, None)
    network.rpn.samples = 10**6
    output = learned(network, batch)
    anchors = torch.cat(network.rpn([torch.zeros(1, 16, 64 // s, 96 // s) for s in (4, 8, 16, 32, 64)], SIZE).anchors)
    counts = []
    for height, width in batch.valid_sizes.tolist():
        inside = (anchors >= 0).all(dim=1) & (anchors[:, 2] <= width) & (anchors[:, 3] <= height)
        counts.append(int(inside.sum()))
    found = [len(logits) for logits in output.objects.anchor_logits]
    assert all(0 < one <= count < len(anchors) / 2 for one, count in zip(found, counts, strict=True))


def perturb(network: nn.Module) -> None:
    """Layers that begin at zero or small hide errors."""
    for name, parameter in network.named_parameters():
        if "conv_offset" in name:
            nn.init.normal_(parameter, std=0.1)
        elif not parameter.any() or name.endswith(("score.weight", "classes.weight", "predictor.weight")):
            nn.init.normal_(parameter, std=0.2)


def small(**changes: Any) -> UPSNet:
    torch.manual_seed(0)
    network = build(**{**WITH_STUFF, **changes})
    perturb_batch_norm(network)
    perturb(network)
    return network.eval()


# ---- the semantic head


@pytest.mark.parametrize("layers", [2, 3])
@torch.no_grad()
def test_the_semantic_head_is_its_formula(layers: int) -> None:
    """Deformable convolutions, ReLU, enlargement to the finest level, 1×1: with the operator itself, level by level."""
    torch.manual_seed(0)
    head = SemanticHead(8, 5, channels=4, layers=layers).double()
    perturb(head)
    levels = [torch.randn(2, 8, 16 // 2**number, 24 // 2**number).double() for number in range(4)]
    weights = head.state_dict()
    widths = [weights[f"subnet.{2 * number}.weight"].shape[:2] for number in range(layers)]
    assert widths == ([(8, 8)] if layers == 3 else []) + [(4, 8), (4, 4)]
    maps = []
    for x in levels:
        for number in range(layers):
            name = f"subnet.{2 * number}"
            offset = F.conv2d(x, weights[f"{name}.conv_offset.weight"], weights[f"{name}.conv_offset.bias"], padding=1)
            x = deform_conv2d(x, offset, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1).relu()
        maps.append(F.interpolate(x, size=(16, 24), mode="bilinear", align_corners=False))
    expected = F.conv2d(torch.cat(maps, dim=1), weights["score.weight"], weights["score.bias"])
    assert torch.allclose(head(levels), expected, atol=1e-12)
    assert len(weights) == 4 * layers + 2, "no norm, and offsets without factors"


def test_new_offsets_are_zero() -> None:
    head = SemanticHead(8, 5, channels=4)
    offsets = [parameter for name, parameter in head.named_parameters() if "conv_offset" in name]
    assert len(offsets) == 6
    assert not any(parameter.any() for parameter in offsets)


@torch.no_grad()
def test_group_norm_follows_each_convolution() -> None:
    head = SemanticHead(128, 5, channels=64, norm="group")
    norms = [part for part in head.subnet if isinstance(part, nn.GroupNorm)]
    assert [(norm.num_groups, norm.num_channels) for norm in norms] == [(32, 128), (32, 64), (32, 64)]


# ---- training


@pytest.mark.parametrize("changes", [{}, CITYSCAPES, {"has_unknown": False}, {"inclusive_boxes": True}])
def test_every_setting_trains_and_predicts(changes: dict[str, Any]) -> None:
    network = small(**changes)
    batch = objects_batch(THINGS)
    output = learned(network, batch)
    terms = network.loss(output, batch)
    assert ("roi" in terms) == (network.roi_pooling is not None)
    assert all(int(term.count) for term in terms.values())
    total(network, output, batch).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), f"the gradient of {name} is zero"
    with torch.no_grad():
        found = network.eval()(batch.images, batch.valid_sizes)
        for annotation, size in zip(network.decode(found, Sizes.of(batch)), [(50, 71), (130, 33)], strict=True):
            panoptic = annotation.panoptic
            assert panoptic is not None
            assert panoptic.ids.shape == size
            assert set(panoptic.ids.unique().tolist()) - {0} == set(panoptic.segment_ids.tolist())
            assert panoptic.areas().min() > 0
            for id, label in zip(panoptic.segment_ids.tolist(), panoptic.labels.tolist(), strict=True):
                assert (id == label + 1) if label in (0, 2, 4) else id > 5


def test_weights_of_the_terms() -> None:
    for changes, expected in (
        ({}, {"semantic": 0.2, "roi": 0.04, "panoptic": 0.1}),
        (CITYSCAPES, {"semantic": 1.0, "panoptic": 0.5}),
    ):
        network = small(**changes)
        batch = objects_batch(THINGS)
        terms = network.loss(learned(network, batch), batch)
        own = {name: term.weight for name, term in terms.items() if name in ("semantic", "roi", "panoptic")}
        assert own == expected
        assert len(terms) == 5 + len(expected)


def test_the_semantic_term_is_cross_entropy_of_every_pixel() -> None:
    network = small()
    batch = objects_batch(THINGS)
    output = learned(network, batch)
    term = network.loss(output, batch)["semantic"]
    enlarged = F.interpolate(output.logits, size=SIZE, mode="bilinear", align_corners=False)
    truth = torch.stack([one.semantic for one in batch.truth if one.semantic is not None]).long()
    expected = F.cross_entropy(enlarged, truth, ignore_index=255)
    assert torch.allclose(term.sum / term.count, expected, atol=1e-5)


def test_the_roi_term_scores_pooled_features() -> None:
    """The paper's order: features are pooled inside the true boxes, then scored; true classes at whole pixels."""
    network = small()
    batch = objects_batch(THINGS)
    seen: list[Tensor] = []
    hook = network.semantic_head.score.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    output = learned(network, batch)
    hook.remove()
    score = network.semantic_head.score
    losses = []
    for index, annotation in enumerate(batch.truth):
        assert annotation.instances is not None
        assert annotation.semantic is not None
        boxes = annotation.instances.boxes
        rois = torch.cat([torch.full((len(boxes), 1), float(index)), boxes], dim=1)
        logits = score(roi_align(seen[0], rois, 28, 1 / 4, 2, True))
        assert torch.allclose(output.roi_logits[index], logits, atol=1e-4)
        for box, target, scores in zip(boxes.long().tolist(), output.roi_targets[index], logits, strict=True):
            inside = annotation.semantic[box[1] : box[3], box[0] : box[2]].float()
            expected = F.interpolate(inside[None, None], size=(28, 28), mode="nearest")[0, 0].long()
            assert torch.equal(target, expected)
            losses.append(F.cross_entropy(scores[None], expected[None], ignore_index=255, reduction="none").flatten())
    term = network.loss(output, batch)["roi"]
    every = torch.cat(losses)
    assert torch.allclose(term.sum, every.sum(), rtol=1e-4)
    evaluated = sum(int((targets != 255).sum()) for targets in output.roi_targets)
    assert int(term.count) == evaluated


def test_classes_inside_a_box_of_a_fraction_of_a_pixel() -> None:
    semantic = torch.arange(12).view(3, 4)
    inside = _inside_boxes(semantic, torch.tensor([[3.8, 2.9, 4.0, 3.0], [0.0, 0, 4, 3]]))
    assert inside[0].unique().tolist() == [11]
    assert inside[1].unique().tolist() == list(range(12))


def test_a_part_of_the_objects_is_sampled() -> None:
    """Seven of ten, at least one; the pixels of the others are unknown."""
    masks = torch.zeros(10, *SIZE, dtype=torch.bool)
    for number in range(10):
        masks[number, 8:40, 8 * number : 8 * number + 8] = True
    packed = Masks.from_dense(masks)
    instances = Instances(packed.boxes.float(), torch.ones(10, dtype=torch.int64), packed)
    semantic = torch.zeros(SIZE, dtype=torch.uint8)
    semantic[masks.any(dim=0)] = 1
    batch = random_batch(SIZE, [SIZE], truth=[Annotation(semantic=semantic, instances=instances)])
    network = small()
    output = learned(network, batch)
    targets = output.panoptic_targets[0]
    assert output.panoptic_logits[0].shape == (3 + 7 + 1, 16, 24)
    seen = [int((targets == 3 + number).sum()) for number in range(8)]
    assert seen == [16] * 7 + [3 * 16], "2×8 cells each, and those of three are unknown"
    assert torch.equal(targets == 0, torch.from_numpy(~masks.any(dim=0).numpy())[::4, ::4])
    assert torch.equal(learned(network, batch, 0).panoptic_targets[0], targets)  # pyright: ignore[reportOptionalSubscript]
    others = [learned(network, batch, seed).panoptic_targets[0] for seed in range(1, 4)]  # pyright: ignore[reportOptionalSubscript]
    assert any(not torch.equal(other, targets) for other in others)
    assert [len(_some_of(instances[list(range(count))], 0.7)) for count in (0, 1, 2, 3, 10)] == [0, 1, 1, 2, 7]


def test_crowds_are_unknown() -> None:
    network = small()
    batch = objects_batch(THINGS)
    truth = []
    for one in batch.truth:
        assert one.instances is not None
        truth.append(replace(one, instances=replace(one.instances, crowd=torch.ones(len(one.instances)).bool())))
    output = learned(network, replace(batch, truth=tuple(truth)))
    for one, targets, logits in zip(truth, output.panoptic_targets, output.panoptic_logits, strict=True):
        assert logits.shape[0] == 3 + 1
        cells = one.semantic[::4, ::4]
        assert torch.equal(targets == 3, (cells == 1) | (cells == 3))
        assert torch.equal(targets == IGNORED, cells == 255)
    loss = total(network, output, batch)
    loss.backward()
    assert torch.isfinite(loss)


def test_images_without_objects_have_finite_losses() -> None:
    network = small()
    batch = random_batch(SIZE, [SIZE] * 2, truth=[empty_annotation(SIZE)] * 2)
    output = learned(network, batch)
    loss = total(network, output, batch)
    assert torch.isfinite(loss)
    loss.backward()
    assert all(one.grad is None or torch.isfinite(one.grad).all() for one in network.parameters())


def test_it_trains_in_half_precision() -> None:
    network = small()
    batch = objects_batch(THINGS)
    with torch.autocast("cpu", torch.bfloat16):
        output = learned(network, batch)
    loss = total(network, output, batch)
    assert loss.dtype == torch.float32
    loss.backward()
    assert torch.isfinite(loss)


def test_losses_without_ground_truth_are_named() -> None:
    network = small()
    batch = objects_batch(THINGS)
    with pytest.raises(DataError, match="without ground truth"), torch.no_grad():
        network.loss(network(batch.images), batch)


# ---- predictions


@torch.no_grad()
def test_better_objects_suppress_those_of_other_classes() -> None:
    network = small(nms_threshold=0.3, max_detections=100)
    found = network(torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(1)))
    assert len(found.boxes[0]) > 1
    assert (found.scores[0].diff() <= 0).all()
    kept = nms(found.boxes[0], found.scores[0], 0.3)
    assert len(kept) == len(found.boxes[0]), "of whatever class"
    network.suppresses_across_classes = False
    more = network(torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(1)))
    assert len(more.boxes[0]) > len(found.boxes[0])


@torch.no_grad()
def test_padding_changes_no_prediction() -> None:
    """But for the mean of the padded map, which Cityscapes' setting is without."""
    network = small(**CITYSCAPES).double()
    nn.init.normal_(network.semantic_head.score.weight, std=3.0)  # so that pixels differ
    image = torch.rand(1, 3, 50, 70, generator=torch.Generator().manual_seed(0)).double()
    padded = torch.full((1, 3, 64, 128), 0.7).double()
    padded[:, :, :50, :70] = image
    answers = []
    for pixels in (image, padded):
        batch = random_batch((pixels.shape[2], pixels.shape[3]), [(75, 105)])
        batch = replace(batch, images=pixels, valid_sizes=torch.tensor([[50, 70]]))
        answers.append(network.decode(network(pixels, batch.valid_sizes), Sizes.of(batch))[0].panoptic)
    one, other = answers
    assert one is not None
    assert other is not None
    assert one.ids.shape == (75, 105)
    assert (one.ids == other.ids).float().mean() > 0.99
    assert len(one) > 1


# ---- recipe


@pytest.mark.parametrize("name", ["upsnet", "upsnet_coco_resnet101_deformable"])
def test_the_papers_biases_have_twice_the_rate_wherever_they_are(name: str) -> None:
    """`get_params_lr` of the public code: of the backbone, the pyramid and all heads; and no bias is decayed."""
    network = build(**{**WITH_STUFF, **VARIANTS.get(name, {}), "backbone": "resnet50"})
    weights = dict(network.named_parameters())
    optimizer = build_optimizer(network, PUBLISHED["paper"][name].stages[0].optimizer)
    rates = {
        id(one): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for one in group["params"]
    }
    for key, parameter in network.named_parameters():
        if key.endswith("bias") and weights[f"{key[:-4]}weight"].ndim > 1:  # no normalisation's
            assert rates[id(parameter)] == (pytest.approx(0.04), 0), key
        elif parameter.ndim > 1:
            assert rates[id(parameter)] == (pytest.approx(0.02), 1e-4), key


# ---- parts


@torch.no_grad()
def test_global_context_is_added_to_the_deepest_sum() -> None:
    network = small().double()
    fpn = network.fpn
    assert fpn is not None
    assert fpn.context is not None
    maps = [torch.randn(2, width, 16 // 2**number, 16 // 2**number).double()
            for number, width in enumerate((24, 32, 96, 320))]  # fmt: skip
    deepest = fpn.join(maps)[-1]
    expected = fpn.lateral[-1](maps[-1]) + fpn.context(maps[-1].mean(dim=(2, 3)))[:, :, None, None]
    assert torch.allclose(deepest, expected)


@torch.no_grad()
def test_boxes_whose_last_pixels_count() -> None:
    """RoIAlign ends a pixel earlier, anchors have whole sides in the middle of their cells."""
    x = torch.randn(1, 3, 16, 16)
    boxes = torch.tensor([[4.0, 8.0, 36.0, 40.0]])
    pooled = RoIPooling((4,), size=7, inclusive_boxes=True)([x], [boxes])
    assert torch.allclose(pooled, roi_align(x, torch.tensor([[0.0, 4, 8, 35, 39]]), 7, 1 / 4, 2, False), atol=1e-6)
    rpn = small(inclusive_boxes=True).rpn
    assert rpn.anchor_offset == 0.5
    assert rpn.least_side == 1
    finest = rpn.get_buffer("base_anchors_0")
    assert ((finest[:, 2:] - finest[:, :2]).tolist()) == [[48, 24], [32, 32], [24, 48]]


def test_a_deformable_backbone() -> None:
    with torch.device("meta"):
        network = build(num_classes=5, backbone="resnet50", deformable_backbone=True)
    names = network.state_dict()
    assert names["backbone.layer2.0.conv2.conv_offset.weight"].shape[0] == 18
    assert "backbone.layer2.0.conv2.bias" not in names
    assert "backbone.layer1.0.conv2.conv_offset.weight" not in names


def test_impossible_arguments_are_refused() -> None:
    plain = flat_arguments(inspect.unwrap(build))
    for changes, text in (
        ({"channels": 1}, "channels=1: at least 2"),
        ({"semantic_layers": 1}, "semantic_layers"),
        ({"semantic_norm": "batch"}, "semantic_norm 'batch'"),
        ({"kept_objects": 0.0}, "kept_objects"),
        ({"deformable_backbone": True}, "takes a ResNet"),
    ):
        with pytest.raises(RecipeError, match=text):
            plain(**{**WITH_STUFF, **changes})
