"""Hypercolumns: the location classifiers against loops over pixels, what masks are trained on, and the projection."""

from __future__ import annotations

import math
from dataclasses import replace
from inspect import unwrap

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from pixelwise.contracts import Sizes
from pixelwise.data.loading.collate import collate
from pixelwise.errors import DataError, RecipeError
from pixelwise.models.hypercolumns import (
    RECIPE,
    RECIPES,
    VGG_SCALES,
    Hypercolumns,
    LocationClassifiers,
    Output,
    _project,
    build,
    draw_mask_boxes,
    enlarge_boxes,
    location_weights,
)
from pixelwise.nn.roi_heads import Detections
from pixelwise.training.fit import Fit
from pixelwise.types import Annotation, Batch, Instances
from tests.drawn_scenes import LABELS, DrawnScenes

CAFFENET = "hypercolumns_caffenet"


def small(**arguments) -> Hypercolumns:
    torch.manual_seed(0)
    return build(num_classes=len(LABELS), backbone="mobilenet_v2", hidden=16, **arguments)


def drawings(count: int = 2) -> Batch:
    scenes = DrawnScenes(count, first_seed=7, size_hw=(64, 96))
    return collate([scenes[index] for index in range(count)])


def read(x: Tensor, row: float, column: float) -> Tensor:
    """Bilinear between the centres of cells, the border repeated."""
    row, column = min(max(row, 0.0), x.shape[1] - 1.0), min(max(column, 0.0), x.shape[2] - 1.0)
    top, left = int(row), int(column)
    bottom, right = min(top + 1, x.shape[1] - 1), min(left + 1, x.shape[2] - 1)
    dy, dx = row - top, column - left
    above = x[:, top, left] * (1 - dx) + x[:, top, right] * dx
    return above * (1 - dy) + (x[:, bottom, left] * (1 - dx) + x[:, bottom, right] * dx) * dy


@torch.no_grad()
def test_probabilities_not_scores_are_interpolated_between_the_classifiers() -> None:
    torch.manual_seed(3)
    things, grid, size = 3, 5, 12
    classifiers = LocationClassifiers((4, 6, 8), things, scales=(0.5, 2.0), grid=grid, size=size).double()
    for layer in (classifiers.fine, classifiers.coarse, classifiers.box):
        layer.weight.normal_()
        layer.bias.normal_()
    fine, coarse = torch.randn(2, 4, 8, 10, dtype=torch.float64), torch.randn(2, 6, 4, 5, dtype=torch.float64)
    vectors = torch.randn(2, 8, dtype=torch.float64)
    boxes = torch.tensor([[5.0, 9.0, 61.0, 50.0], [16.0, 3.0, 40.0, 31.0]], dtype=torch.float64)
    images, channels = torch.tensor([1, 0]), torch.tensor([3, 1])
    found = classifiers((fine, coarse), vectors, boxes, images, channels)
    for number in range(2):
        first = (int(channels[number]) - 1) * grid * grid
        own = slice(first, first + grid * grid)
        image = images[number]
        fine_scores = F.conv2d(fine[image] * 0.5, classifiers.fine.weight, classifiers.fine.bias, padding=1)[own]
        coarse_scores = F.conv2d(coarse[image] * 2.0, classifiers.coarse.weight, classifiers.coarse.bias)[own]
        box_scores = (classifiers.box.weight @ vectors[number] + classifiers.box.bias)[own]
        x1, y1, x2, y2 = boxes[number].tolist()
        for row in range(size):
            for column in range(size):
                y, x = y1 + (row + 0.5) / size * (y2 - y1), x1 + (column + 0.5) / size * (x2 - x1)
                scores = box_scores + read(fine_scores, y / 8 - 0.5, x / 8 - 0.5)
                scores = scores + read(coarse_scores, y / 16 - 0.5, x / 16 - 0.5)
                probabilities = scores.sigmoid().view(1, grid, grid)
                wanted = read(probabilities, (row + 0.5) * grid / size - 0.5, (column + 0.5) * grid / size - 0.5)
                assert float(found[number, row, column]) == pytest.approx(float(wanted), abs=1e-6)


def test_every_cell_hears_the_classifiers_to_a_sum_of_one() -> None:
    weights = location_weights(5, 50)
    assert weights.shape == (25, 50, 50)
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(50, 50))
    assert weights[0, 0, 0] == 1
    assert weights[12, 22:28, 22:28].min() > 0.5


def test_masks_are_trained_on_true_boxes_and_close_proposals() -> None:
    truth = drawings(1).truth[0].instances[[0, 0]]
    boxes = torch.tensor([[10.0, 10.0, 30.0, 30.0], [50.0, 10.0, 90.0, 60.0]])
    truth = replace(truth, boxes=boxes)
    near = boxes[:1] + torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 2.0, 0.0, 2.0], [8.0, 0.0, 8.0, 0.0]])
    found, owners = draw_mask_boxes(torch.cat([near, near[:1].expand(6, 4)]), truth)
    assert found[:2].tolist() == boxes.tolist()
    assert owners.tolist() == [0, 1, 0, 0, 0, 0]  # four of seven
    assert not (found == near[2]).all(dim=1).any()
    crowd = replace(truth, crowd=torch.tensor([True, False]))
    found, owners = draw_mask_boxes(near, crowd)
    assert owners.tolist() == [1]
    assert found.tolist() == boxes[1:].tolist()


def test_the_mask_loss_weighs_boxes_by_their_area() -> None:
    system, batch = small(learns="masks").train(), drawings()
    output = system(batch.images, batch.valid_sizes, batch.truth)
    assert output.boxes is None
    assert output.masks.probabilities.shape[1:] == (50, 50)
    assert (output.masks.weights <= 64 * 96 / 224**2).all()
    term = system.loss(output, batch)["mask"]
    wanted = 0.0
    for probability, target, weight in zip(
        output.masks.probabilities.double(), output.masks.targets, output.masks.weights, strict=True
    ):
        right = torch.where(target == 1, probability, 1 - probability)
        wanted -= float(weight) * float(right.log().sum().detach())
    assert float(term.sum.detach()) == pytest.approx(wanted, rel=1e-4)
    assert int(term.count) == len(output.masks.weights)
    assert term.weight == 1 / 2500


def test_what_is_trained_is_what_the_stage_says() -> None:
    batch = drawings()
    for learns, terms in (("all", {"class", "box", "mask"}), ("boxes", {"class", "box"}), ("masks", {"mask"})):
        system = small(learns=learns).train()
        output = system(batch.images, batch.valid_sizes, batch.truth)
        losses = system.loss(output, batch)
        assert set(losses) == terms
        sum(term.sum for term in losses.values()).backward()
        trained = {name.split(".")[0] for name, one in system.named_parameters() if one.grad is not None}
        wanted = {"all": {"backbone", "box_head", "box_predictor", "mask_classifiers"}}
        wanted |= {"boxes": wanted["all"] - {"mask_classifiers"}, "masks": {"mask_classifiers"}}
        assert trained == wanted[learns]
    with pytest.raises(RecipeError, match="learns 'nothing'"):
        unwrap(build)(num_classes=3, backbone="mobilenet_v2", learns="nothing")


def test_masks_are_projected_to_superpixels() -> None:
    superpixels = torch.zeros(8, 12, dtype=torch.int32)
    superpixels[:, 4:] = 1
    superpixels[:, 8:] = 2
    mask = torch.zeros(1, 50, 50)
    mask[:, :, :30] = 0.9
    # the box covers columns 2 to 11: 0.9 on columns 2 to 7, so half of the first superpixel and all of the second
    boxes = torch.tensor([[2.0, 0.0, 12.0, 8.0]])
    packed = _project(mask, boxes, superpixels, (16, 24))
    assert packed.boxes.tolist() == [[0, 0, 16, 16]]  # means of 0.45 and 0.9 reach 0.4
    mask[:, :, :30] = 0.7
    assert _project(mask, boxes, superpixels, (16, 24)).boxes.tolist() == [[8, 0, 16, 16]]  # 0.35 does not
    tiny = torch.tensor([[2.0, 2.0, 4.0, 4.0]])
    alone = _project(torch.ones(1, 50, 50), tiny, superpixels, (8, 12))
    assert alone.boxes.tolist() == [[2, 2, 4, 4]]  # no superpixel reaches it
    assert int(alone.areas()) == 4


def test_decode_gives_boxes_and_masks_of_the_original_size() -> None:
    batch = replace(drawings(1), original_sizes=torch.tensor([[128, 192]]))
    found = Detections(torch.tensor([[10.0, 10.0, 40.0, 50.0]]), torch.tensor([2]), torch.tensor([0.8]))
    output = Output(detections=(found,), masks=(torch.ones(1, 50, 50),), superpixels=None)
    instances = small(projects=False).eval().decode(output, Sizes.of(batch))[0].instances
    assert instances.boxes.tolist() == [[20, 20, 80, 100]]
    assert instances.labels.tolist() == [2]
    assert instances.masks.boxes.tolist() == [[20, 20, 80, 100]]
    assert int(instances.masks.areas()) == 60 * 80


def test_images_without_objects_teach_background() -> None:
    batch = drawings()
    empty: list[Instances] = [one.instances[torch.zeros(len(one.instances), dtype=torch.bool)] for one in batch.truth]
    for instances in (empty, [empty[0], batch.truth[1].instances]):
        system = small().train()
        output = system(batch.images, batch.valid_sizes, tuple(Annotation(instances=one) for one in instances))
        total = sum(term.weight * term.sum / max(1, int(term.count)) for term in system.loss(output, batch).values())
        assert math.isfinite(float(total.detach()))
        total.backward()
    with pytest.raises(DataError, match="no instance masks"):
        system(batch.images, batch.valid_sizes, (Annotation(), Annotation()))


@torch.no_grad()
def test_the_releases_network_has_its_shape() -> None:
    with torch.device("meta"):
        system = build(num_classes=21)
    shapes = {name: tuple(parameter.shape) for name, parameter in system.named_parameters()}
    assert shapes["mask_classifiers.fine.weight"] == (500, 256, 3, 3)
    assert shapes["mask_classifiers.coarse.weight"] == (500, 512, 1, 1)
    assert shapes["mask_classifiers.box.weight"] == (500, 4096)
    assert shapes["box_head.hidden.0.weight"] == (4096, 512 * 7 * 7)
    assert system.mask_classifiers.scales == VGG_SCALES == (0.0027, 0.063)
    assert system.levels == (2, 3, 4)
    assert system.pooling.kind == "pool"


@torch.no_grad()
def test_the_smaller_network_of_the_paper_reads_pool2_conv4_and_fc7() -> None:
    with torch.device("meta"):
        system = build(num_classes=21, backbone="caffenet")
    shapes = {name: tuple(parameter.shape) for name, parameter in system.named_parameters()}
    assert shapes["mask_classifiers.fine.weight"] == (500, 256, 3, 3)
    assert shapes["mask_classifiers.coarse.weight"] == (500, 384, 1, 1)
    assert shapes["mask_classifiers.box.weight"] == (500, 4096)
    assert shapes["box_head.hidden.0.weight"] == (4096, 256 * 6 * 6)
    assert system.mask_classifiers.strides == (16, 16)
    torch.manual_seed(0)
    system = build(num_classes=4, backbone="caffenet", hidden=8, proposals=20).eval()
    layers, images = system.backbone.layers, torch.rand(1, 3, 95, 128)
    seen: dict[int, Tensor] = {}
    for number in (6, 10, 11, 13):
        layers[number].register_forward_hook(lambda _, __, result, number=number: seen.update({number: result.clone()}))
    pool2, conv4, conv5 = system.features(images)
    assert isinstance(layers[6], torch.nn.MaxPool2d)
    assert torch.equal(pool2, seen[6])
    assert torch.equal(conv4, seen[10].relu())
    assert torch.equal(conv5, seen[13])
    # 24×32 cells after the first convolution, 13×17 after the first pooling
    assert pool2.shape[1:] == (256, 7, 9)
    found = system(images)
    assert found.detections[0].boxes.shape[1] == 4
    assert found.masks[0].shape[1:] == (50, 50)


def test_boxes_are_read_as_roi_align_reads_them() -> None:
    torch.manual_seed(2)
    x = torch.randn(3, 2, 7, 9, dtype=torch.float64, requires_grad=True)
    boxes = torch.tensor([[0.0, 0.0, 9.0, 7.0], [1.3, 2.1, 4.6, 6.9], [8.2, 0.4, 8.9, 0.9]], dtype=torch.float64)
    found = enlarge_boxes(x, boxes, 6)
    rois = torch.cat([torch.arange(3.0, dtype=torch.float64)[:, None], boxes], dim=1)
    wanted = roi_align(x, rois, 6, 1.0, sampling_ratio=1, aligned=True)
    torch.testing.assert_close(found, wanted)
    weights = torch.randn_like(found)
    (ours,) = torch.autograd.grad((found * weights).sum(), x)
    (theirs,) = torch.autograd.grad((wanted * weights).sum(), x)
    torch.testing.assert_close(ours, theirs)
    assert enlarge_boxes(x[:0], boxes[:0], 6).shape == (0, 2, 6, 6)


def test_every_stage_of_the_recipe_can_be_begun() -> None:
    for backbone, recipe in (("resnet18", RECIPE), ("mobilenet_v2", RECIPE), ("caffenet", RECIPES[CAFFENET])):
        for stage in recipe.stages:
            system = build(num_classes=3, backbone=backbone, hidden=8, **stage.arguments)
            Fit.start(system, stage)
            learns = {name.split(".")[0] for name, one in system.named_parameters() if one.requires_grad}
            assert ("backbone" in learns) == (stage.name == "all")
            assert "mask_classifiers" in learns
    assert RECIPES[CAFFENET].stages[0].frozen_stages == 0


def test_training_in_half_precision_keeps_boxes_and_masks_exact() -> None:
    batch = drawings()
    learned: list[Output] = []
    for enabled in (False, True):
        system = small().train()
        boxes: list[Tensor] = []
        system.mask_classifiers.register_forward_pre_hook(lambda _, inputs, boxes=boxes: boxes.append(inputs[2]))
        torch.manual_seed(1)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            learned.append(system(batch.images, batch.valid_sizes, batch.truth))
            total = sum(term.sum for term in system.loss(learned[-1], batch).values())
        total.backward()
        assert boxes[0].dtype == torch.float32
        assert math.isfinite(float(total.detach()))
    whole, half = learned
    assert half.masks.probabilities.dtype == torch.float32
    assert torch.equal(whole.masks.targets, half.masks.targets)
    assert (whole.masks.probabilities - half.masks.probabilities).abs().mean() < 0.01
