"""MNC: its stages read aloud, what it samples, and that later losses reach the boxes they were computed in."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pixelwise.contracts import Sizes
from pixelwise.data.loading.collate import collate
from pixelwise.errors import DataError
from pixelwise.models import mnc
from pixelwise.models.mnc import MNC, ClassStage, Output, build, corner_resizing, draw_rois, mask_overlaps
from pixelwise.ops.anchors import grid_anchors
from pixelwise.ops.boxes import RCNN_WEIGHTS, decode_boxes, encode_boxes
from pixelwise.types import Annotation, Batch
from tests.drawn_scenes import LABELS, DrawnScenes


def small(**arguments) -> MNC:
    torch.manual_seed(0)
    chosen = {
        "anchor_sizes": (16, 32, 64),
        "hidden": 16,
        "smallest_proposal": 4,
        "box_batch_size_per_image": 16,
    } | arguments
    return build(num_classes=len(LABELS), backbone="mobilenet_v2", **chosen)


def drawings(count: int = 2) -> Batch:
    scenes = DrawnScenes(count, first_seed=7, size_hw=(64, 96))
    return collate([scenes[index] for index in range(count)])


def test_masks_are_resized_at_the_corners_of_even_bins() -> None:
    mask = torch.rand(21, 21, dtype=torch.float64)
    weights = corner_resizing(21, 14).double()
    found = weights @ mask @ weights.T
    for row in range(14):
        for column in range(14):
            y, x = row * 1.5, column * 1.5
            top, left = int(y), int(x)
            bottom, right = min(top + 1, 20), min(left + 1, 20)
            wanted = (
                mask[top, left] * (1 - y % 1) * (1 - x % 1)
                + mask[top, right] * (1 - y % 1) * (x % 1)
                + mask[bottom, left] * (y % 1) * (1 - x % 1)
                + mask[bottom, right] * (y % 1) * (x % 1)
            )
            assert float(found[row, column]) == pytest.approx(float(wanted))


def test_the_class_stage_reads_the_box_and_what_the_mask_lets_through() -> None:
    torch.manual_seed(1)
    stage = ClassStage(3, hidden=5, classes=4)
    features, masks = torch.randn(2, 3, 14, 14), torch.rand(2, 21, 21)

    def layers(path: torch.nn.Sequential, x: Tensor) -> Tensor:
        x = F.max_pool2d(x, 2).flatten(1)
        x = (x @ path[0].weight.T + path[0].bias).clamp(min=0)
        return (x @ path[2].weight.T + path[2].bias).clamp(min=0)

    resizing = corner_resizing(21, 14)
    let_through = torch.stack(
        [feature * (resizing @ mask @ resizing.T) for feature, mask in zip(features, masks, strict=True)]
    )
    joined = torch.cat([layers(stage.mask_path, let_through), layers(stage.box_path, features)], dim=1)
    box_class, mask_class, deltas = stage(features, masks)
    torch.testing.assert_close(box_class, joined @ stage.box_class.weight.T + stage.box_class.bias)
    torch.testing.assert_close(mask_class, joined @ stage.mask_class.weight.T + stage.mask_class.bias)
    torch.testing.assert_close(deltas.flatten(1), joined @ stage.deltas.weight.T + stage.deltas.bias)


def test_the_sample_has_the_published_shares() -> None:
    objects = torch.tensor([[100.0, 100.0, 200.0, 200.0]])
    shifts = torch.arange(0, 120.0)[:, None] * torch.tensor([1.0, 0.0, 1.0, 0.0])
    far = torch.tensor([[500.0, 500.0, 600.0, 600.0]]).expand(50, 4)
    boxes = torch.cat([objects + shifts, far])
    places, matches = draw_rois(boxes, objects, torch.zeros(0, 4))
    overlap = torch.tensor([max(0.0, 100 - shift) / (100 + shift) for shift in range(100)] + [0.0] * 70)
    assert len(places.unique()) == len(places) == 19 + 38 + 7  # 0.3 · 64; 0.85 and 0.15 of the rest
    assert (matches == 0).sum() == 19
    assert (overlap[places[:19]] >= 0.5).all()
    near = overlap[places[19:57]]
    assert ((near >= 0.1) & (near < 0.5)).all()
    assert (overlap[places[57:]] < 0.1).all()
    # background inside a crowd is not drawn
    places, matches = draw_rois(boxes, objects, torch.tensor([[450.0, 450.0, 650.0, 650.0]]))
    assert not (places >= 120).any()
    # without objects only the share of what lies far from them is taken
    places, matches = draw_rois(boxes, torch.zeros(0, 4), torch.zeros(0, 4))
    assert len(places) == 10
    assert (matches < 0).all()


def test_mask_overlaps_are_those_of_pixels() -> None:
    # a box of 4×4 cells of 2×2 pixels; the object has 20 pixels, 12 of them in the box
    predicted = torch.zeros(1, 4, 4)
    predicted[0, 0] = torch.tensor([0.4, 0.5, 0.9, 0.39])
    target = torch.zeros(1, 4, 4)
    target[0, 0, 1:] = 1
    found = mask_overlaps(predicted, target, torch.tensor([[10.0, 10.0, 18.0, 18.0]]), torch.tensor([20]))
    assert float(found) == pytest.approx(8 / (12 + 20 - 8))


def test_losses_of_later_stages_reach_the_boxes_of_the_earlier() -> None:
    batch = drawings()
    for term, reached in (
        ("mask_1", ("rpn.deltas.weight",)),
        ("mask_class_1", ("rpn.deltas.weight", "mask_stage.mask.weight")),
        ("mask_2", ("rpn.deltas.weight", "class_stage.deltas.weight")),
    ):
        # so many proposals that some overlap objects, and masks that are not flat
        system = small(box_batch_size_per_image=32, warp_samples=1).train()
        with torch.no_grad():
            system.mask_stage.mask.weight.normal_(std=0.2)
            system.mask_stage.fc6.weight.normal_(std=0.02)
            system.mask_stage.mask.bias.fill_(1.0)  # masks that fill their boxes, so that some fit
        torch.manual_seed(2)
        output = system(batch.images, batch.valid_sizes, batch.truth)
        if term == "mask_class_1":
            assert output.phases[0].mask_labels.any()
        system.loss(output, batch)[term].sum.backward()
        parameters = dict(system.named_parameters())
        for name in reached:
            assert parameters[name].grad is not None
            assert parameters[name].grad.any(), f"{term} does not reach {name}"
        assert parameters["rpn.objectness.weight"].grad is None or not parameters["rpn.objectness.weight"].grad.any()


def test_the_gradient_of_later_stages_is_small_and_stays_inside_the_image() -> None:
    batch = drawings()
    system = small(box_batch_size_per_image=64).train()
    seen: list[Tensor] = []

    def keep(_module: torch.nn.Module, _inputs: tuple[Tensor, ...], deltas: Tensor) -> None:
        deltas.retain_grad()
        seen.append(deltas)

    system.rpn.deltas.register_forward_hook(keep)
    torch.nn.init.normal_(system.rpn.deltas.weight, std=0.02)
    torch.nn.init.normal_(system.class_stage.box_class.weight, std=5.0)
    torch.manual_seed(2)
    output = system(batch.images, batch.valid_sizes, batch.truth)
    system.loss(output, batch)["class_1"].sum.backward()
    anchors = grid_anchors(system.rpn.base_anchors_0, (4, 6), (16, 16), offset=0.5)
    limit = 1 / 512 / 2  # of two images

    def is_inside(box: list[float]) -> bool:
        return box[0] >= 0 and box[1] >= 0 and box[2] <= 96 and box[3] <= 64

    reached = 0
    assert seen[0].grad is not None
    for deltas, gradients in zip(seen[0].detach(), seen[0].grad, strict=True):
        deltas, gradients = (x.permute(1, 2, 0).reshape(-1, 4) for x in (deltas, gradients))
        boxes = decode_boxes(deltas, anchors)
        for anchor, box, gradient in zip(anchors.tolist(), boxes.tolist(), gradients.abs().tolist(), strict=True):
            assert max(gradient) <= limit * 1.0001
            if not (is_inside(anchor) and is_inside(box)):
                assert max(gradient) == 0
            reached += max(gradient) > limit * 0.9999
    assert reached


def test_the_anchors_of_sampled_proposals_are_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise nothing holds their boxes against the gradients of the later stages, and they drift away."""
    batch = drawings()
    system = small().train()

    def first_and_third(boxes: Tensor, objects: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        last = len(boxes) - 1  # a true box, which has no anchor
        return torch.tensor([0, 2, last]), torch.tensor([0, -1, len(objects) - 1])

    monkeypatch.setattr(mnc, "draw_rois", first_and_third)
    predictions = system.rpn(system.features(batch.images, batch.valid_sizes), (64, 96))
    places = system.rpn.propose(predictions, batch.valid_sizes.tolist()).places
    for drawn in (0, 64):
        system.rpn.samples = drawn
        torch.manual_seed(3)
        truth = [annotation.instances for annotation in batch.truth]
        alone = system.rpn.sample(predictions, batch.valid_sizes.tolist(), truth)
        torch.manual_seed(3)
        sample = system(batch.images, batch.valid_sizes, batch.truth).rpn
        logits, targets = [], []
        for index, place in enumerate(places):
            positive, negative = (
                set(flags.nonzero().flatten().tolist())
                for flags in (
                    torch.isin(predictions.logits[0][index], alone.logits[index][wanted])
                    for wanted in (alone.is_object[index], ~alone.is_object[index])
                )
            )
            positive = (positive | {int(place[0])}) - {int(place[2])}
            negative = (negative | {int(place[2])}) - {int(place[0])}
            logits += predictions.logits[0][index][sorted(positive) + sorted(negative)].tolist()
            own = sorted(positive).index(int(place[0]))
            target = encode_boxes(batch.truth[index].instances.boxes[:1], predictions.anchors[0][place[:1]])
            targets.append((len(positive), own, target[0]))
        torch.testing.assert_close(sample.logits, torch.tensor(logits))
        assert int(sample.is_object.sum()) == sum(count for count, _, _ in targets) == len(sample.targets)
        first = 0
        for count, own, target in targets:
            torch.testing.assert_close(sample.targets[first + own], target)
            first += count


def test_both_phases_have_the_same_weights() -> None:
    names = {name.split(".")[0] for name, _ in small().named_parameters()}
    assert names == {"backbone", "rpn", "mask_stage", "class_stage"}


def test_the_losses_are_those_of_the_code() -> None:
    system, batch = small().train(), drawings()
    output = system(batch.images, batch.valid_sizes, batch.truth)
    terms = system.loss(output, batch)
    assert {name: term.weight for name, term in terms.items() if term.weight != 1} == {"mask_1": 2.0, "mask_2": 2.0}
    for number, phase in enumerate(output.phases, start=1):
        assert (phase.box_labels > 0).sum() == len(phase.mask_logits) == len(phase.deltas)
        assert (phase.mask_labels[phase.box_labels == 0] == 0).all()
        assert ((phase.mask_labels == phase.box_labels) | (phase.mask_labels == 0)).all()
        assert set(phase.mask_targets.unique().tolist()) <= {0.0, 1.0}
        mask = terms[f"mask_{number}"]
        probability = phase.mask_logits.double().sigmoid()
        right = torch.where(phase.mask_targets == 1, probability, 1 - probability)
        assert float(mask.sum.detach()) == pytest.approx(float(-right.log().sum().detach()), rel=1e-4)
        assert int(mask.count) == phase.mask_logits.numel()
        boxes = terms[f"boxes_{number}"]
        errors = (phase.deltas - phase.delta_targets).abs().flatten().tolist()
        assert float(boxes.sum.detach()) == pytest.approx(
            sum(0.5 * e * e if e < 1 else e - 0.5 for e in errors), rel=1e-4
        )
        assert int(boxes.count) == int(terms[f"class_{number}"].count) == len(phase.class_logits)


def test_mask_targets_are_the_objects_in_the_boxes() -> None:
    batch = drawings(1)
    truth = batch.truth[0].instances
    rois = mnc.Rois(truth.boxes[:1] + torch.tensor([-3.0, 2.0, 4.0, 5.0]), torch.tensor([0]))
    targets, references, areas = mnc._mask_targets(rois, [torch.tensor([0])], [truth], side=21)
    x1, y1, x2, y2 = rois.boxes[0].tolist()
    dense = F.pad(truth.masks.dense()[0].float(), (8, 8, 8, 8))
    for row in range(21):
        for column in range(21):
            y, x = y1 + (row + 0.5) / 21 * (y2 - y1) - 0.5 + 8, x1 + (column + 0.5) / 21 * (x2 - x1) - 0.5 + 8
            top, left = math.floor(y), math.floor(x)
            part = dense[top : top + 2, left : left + 2]
            weights = torch.tensor([1 - (y - top), y - top])[:, None] * torch.tensor([1 - (x - left), x - left])
            value = float((part * weights).sum())
            assert abs(value - 0.4) < 1e-5 or float(targets[0, row, column]) == float(value >= 0.4)
    assert torch.equal(references, truth.boxes[:1])
    assert torch.equal(areas, truth.masks.areas()[:1])


@torch.no_grad()
def test_predictions_move_boxes_by_the_likeliest_channel_no_object_included() -> None:
    system, batch = small().eval(), drawings(1)
    system.class_stage.mask_class.bias[0] = 50.0
    system.class_stage.deltas.weight.zero_()
    system.class_stage.deltas.bias.copy_(torch.arange(16.0))
    output = system(batch.images, batch.valid_sizes)
    first, second = output.boxes[0].chunk(2)
    wanted = decode_boxes(torch.tensor([0.0, 1.0, 2.0, 3.0]).expand(len(first), 4), first, weights=RCNN_WEIGHTS)
    limits = torch.tensor([96.0, 64.0, 96.0, 64.0])
    torch.testing.assert_close(second, wanted.clamp(min=0).minimum(limits))
    system.class_stage.mask_class.bias[0], system.class_stage.mask_class.bias[2] = 0.0, 50.0
    first, second = system(batch.images, batch.valid_sizes).boxes[0].chunk(2)
    wanted = decode_boxes(torch.tensor([8.0, 9.0, 10.0, 11.0]).expand(len(first), 4), first, weights=RCNN_WEIGHTS)
    torch.testing.assert_close(second, wanted.clamp(min=0).minimum(limits))


def test_biases_of_all_layers_have_the_double_rate() -> None:
    optimizer = mnc.PUBLISHED["paper"]["mnc"].stages[0].optimizer
    rates = optimizer.bias_lr_multiplier, optimizer.head_bias_lr_multiplier
    assert rates == (2, 2), "of the backbone, and of what is not"


def test_decode_votes_at_the_original_size() -> None:
    system, batch = small(score_threshold=0.2).eval(), drawings(1)
    batch = replace(batch, original_sizes=torch.tensor([[128, 288]]))  # twice as high, three times as wide
    output = Output(
        boxes=(torch.tensor([[10.0, 10.0, 30.0, 40.0], [11.0, 10.0, 31.0, 40.0], [60.0, 20.0, 80.0, 60.0]]),),
        masks=(torch.ones(3, 21, 21),),
        scores=(torch.tensor([[0.1, 0.9, 0.0, 0.0], [0.4, 0.6, 0.0, 0.0], [0.5, 0.1, 0.1, 0.3]]),),
    )
    found = system.decode(output, Sizes.of(batch))[0].instances
    assert found.scores.tolist() == pytest.approx([0.9, 0.3])
    assert found.labels.tolist() == [1, 3]
    # votes of 0.6 and 0.4: where the second alone is, it is enough
    assert found.boxes.tolist() == [[30, 20, 93, 80], [180, 40, 240, 120]]
    assert found.masks.size == (128, 288)
    assert found.masks.areas().tolist() == [63 * 60, 60 * 80]


def test_images_without_objects_and_with_crowds_alone_teach_background() -> None:
    batch = drawings()
    empty = [
        annotation.instances[torch.zeros(len(annotation.instances), dtype=torch.bool)] for annotation in batch.truth
    ]
    crowds = [replace(one.instances, crowd=torch.ones(len(one.instances), dtype=torch.bool)) for one in batch.truth]
    for instances in (empty, crowds, [batch.truth[0].instances, empty[1]]):
        truth = tuple(Annotation(instances=one) for one in instances)
        system = small().train()
        terms = system.loss(system(batch.images, batch.valid_sizes, truth), batch)
        total = sum(term.weight * term.sum / max(1, int(term.count)) for term in terms.values())
        assert torch.isfinite(total)
        total.backward()
        assert all(one.grad is None or torch.isfinite(one.grad).all() for one in system.parameters())
    with pytest.raises(DataError, match="no instance masks"):
        system(batch.images, batch.valid_sizes, (Annotation(), Annotation()))


@torch.no_grad()
def test_the_papers_network_has_its_shape() -> None:
    with torch.device("meta"):
        system = build(num_classes=21)
    shapes = {name: tuple(parameter.shape) for name, parameter in system.named_parameters()}
    assert system.backbone.channels[system.level] == 512
    assert shapes["rpn.objectness.weight"] == (9, 512, 1, 1)
    assert shapes["mask_stage.fc6.weight"] == (256, 512 * 14 * 14)
    assert shapes["mask_stage.mask.weight"] == (441, 256)
    assert shapes["class_stage.box_path.0.weight"] == shapes["class_stage.mask_path.0.weight"] == (4096, 512 * 7 * 7)
    assert shapes["class_stage.mask_class.weight"] == (21, 8192)
    assert shapes["class_stage.deltas.weight"] == (84, 8192)
