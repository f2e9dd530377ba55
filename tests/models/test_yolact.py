"""YOLACT against slow formulas: its published definitions, written out once more as loops over single numbers."""

from __future__ import annotations

import math
from inspect import unwrap
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from pixelwise.contracts import Augmentation, Optimizer, Sizes, Stage, Thresholds
from pixelwise.errors import DataError, RecipeError
from pixelwise.inference.model_folder import ModelCard
from pixelwise.inference.predictor import Predictor
from pixelwise.models import yolact, yolact_edge
from pixelwise.models.yolact import (
    Detections,
    MaskIoUNet,
    match_instances,
)
from pixelwise.ops.boxes import inside_boxes, scale_boxes
from pixelwise.ops.resize_rule import ResizeRule
from pixelwise.training.fit import Fit, fit
from pixelwise.types import Annotation, Instances
from tests.drawn_scenes import LABELS, DrawnScenes
from tests.models.small_yolact import (
    CLASSES,
    SIZE,
    batch_of,
    ellipses,
    iou,
    losses_by_loops,
    matched_by_loops,
    small_yolact,
    suppressed_by_loops,
)

GRIDS = [(12, 16), (6, 8), (3, 4), (2, 2), (1, 1)]


# ---- the network


@pytest.mark.parametrize("shape", ["square", "ratios"])
@pytest.mark.parametrize("scales", [1, 3])
@torch.no_grad()
def test_anchors_are_those_of_the_definition(shape: str, scales: int) -> None:
    system = small_yolact(anchors=shape, anchor_scales=scales)
    height, width = SIZE
    wanted = []
    for (rows, columns), base in zip(GRIDS, (24, 48, 96, 192, 384), strict=True):
        for row in range(rows):
            for column in range(columns):
                for scale in range(scales):
                    for ratio in (1, 1 / 2, 2):
                        side = base * 2 ** (scale / scales)
                        w = side * math.sqrt(ratio) / 550
                        h = w if shape == "square" else side / math.sqrt(ratio) / 550
                        x, y = (column + 0.5) / columns, (row + 0.5) / rows
                        box = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
                        wanted.append(box)
    output = system(torch.rand(1, 3, *SIZE))
    torch.testing.assert_close(output.predictions.anchors[0], torch.tensor(wanted), atol=1e-4, rtol=1e-5)
    assert output.predictions.logits.shape == (1, len(wanted), CLASSES)


@torch.no_grad()
def test_sizes_at_550_pixels_are_the_papers() -> None:
    system = small_yolact()
    output = system(torch.rand(1, 3, 550, 550))
    assert output.predictions.logits.shape == (1, 19_248, CLASSES)
    assert output.predictions.prototypes.shape == (1, 8, 138, 138)
    assert 3 * 3 * sum(side**2 for side in (69, 35, 18, 9, 5)) == 57_744
    first = output.predictions.anchors[0, :3]
    sides = (first[:, 2:] - first[:, :2]).tolist()
    assert [round(width, 2) for width, _ in sides] == [24.0, 16.97, 33.94]
    assert [round(height, 2) for _, height in sides] == [24.0, 16.97, 33.94]
    assert (output.predictions.prototypes >= 0).all()
    assert output.predictions.prototypes.any()
    assert (output.predictions.coefficients.abs() <= 1).all()
    assert (output.predictions.coefficients < 0).any()


def test_the_number_of_weights_is_the_papers() -> None:
    for variant, millions in (
        ("yolact_resnet101", 50.16),
        ("yolact_resnet50", 31.16),
        ("yolact_darknet53", 47.78),
    ):
        with torch.device("meta"):
            system = yolact.build(num_classes=81, **yolact.VARIANTS[variant])
        assert round(sum(parameter.numel() for parameter in system.parameters()) / 1e6, 2) == millions
    with torch.device("meta"):
        plus = yolact.build(num_classes=81, **yolact.VARIANTS["yolact_plus_resnet50"])
    assert plus.head.boxes.out_channels == 9 * 4


def test_impossible_parts_are_refused() -> None:
    for arguments, text in (
        ({"thing_ids": [3]}, "different class ids below 3"),
        ({"anchor_sizes": (24, 48)}, "at least three levels"),
        ({"backbone": "mobilenet_v2", "deformable_interval": 1}, "only with a ResNet"),
        ({"backbone": "resnet18", "deformable_interval": 1}, "from resnet50 on"),
    ):
        with pytest.raises(RecipeError, match=text), torch.device("meta"):
            yolact.build(num_classes=3, **arguments)


@pytest.mark.parametrize(("name", "text"), [("anchors", "square or ratios"), ("nms", "fast or ordinary")])
def test_impossible_words_are_refused(name: str, text: str) -> None:
    detector = yolact.DetectorArguments()
    object.__setattr__(detector, name, "round")  # in tests the types of what is given are checked before
    with pytest.raises(RecipeError, match=text), torch.device("meta"):
        unwrap(yolact.build)(num_classes=3, detector=detector)


@torch.no_grad()
def test_padding_does_not_matter() -> None:
    system = small_yolact()
    images = torch.rand(1, 3, *SIZE)
    sizes = torch.tensor([[70, 90]])
    other = images.clone()
    other[:, :, 70:] = 0.3
    other[:, :, :, 90:] = 0.9
    one, two = system(images, sizes=sizes), system(other, sizes=sizes)
    assert torch.equal(one.predictions.logits, two.predictions.logits)
    assert not torch.equal(one.predictions.logits, system(images).predictions.logits)


# ---- matching


@pytest.mark.parametrize("seed", range(4))
def test_matching_follows_the_definition(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(300, 2, generator=generator) * 90 - 10
    anchors = torch.cat([corners, corners + 8 + 40 * torch.rand(300, 2, generator=generator)], dim=1)
    corners = torch.rand(9, 2, generator=generator) * 80
    sides = 4 + 40 * torch.rand(9, 2, generator=generator)
    sides[0] = 0.5  # too small to be an object
    truth = Instances(
        boxes=torch.cat([corners, corners + sides], dim=1),
        labels=torch.ones(9, dtype=torch.int64),
        crowd=torch.tensor([False] * 7 + [True] * 2),
    )
    found = match_instances(anchors, truth, SIZE)
    assert found.tolist() == matched_by_loops(anchors.tolist(), truth, SIZE)
    assert set(range(1, 7)) <= set(found.tolist()), "every object has an anchor"
    assert {-1, -2} <= set(found.tolist())
    assert not {0, 7, 8} & set(found.tolist())


def test_the_best_pair_is_taken_first() -> None:
    # both objects overlap the first anchor most; the second overlaps it more, so the first gets its second best
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 30, 30], [50, 50, 60, 60]])
    truth = Instances(boxes=torch.tensor([[0.0, 0, 10, 6], [0, 0, 10, 9]]), labels=torch.tensor([1, 2]))
    assert match_instances(anchors, truth, SIZE).tolist() == [1, 0, -1]
    nothing = Instances(boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))
    assert match_instances(anchors, nothing, SIZE).tolist() == [-1, -1, -1]


# ---- detections and masks


@pytest.mark.parametrize("arguments", [{}, {"nms": "ordinary"}, {"rescores_masks": True}])
@torch.no_grad()
def test_detections_follow_the_definition(arguments: dict[str, Any]) -> None:
    system = small_yolact(max_detections=12, **arguments).double()
    output = system(batch_of(ellipses(0, 2), ellipses(1, 2)).images.double())
    for index, found in enumerate(output.detections):
        scores = output.predictions.logits[index].softmax(dim=1)[:, 1:]
        kept = [place for place in range(len(scores)) if scores[place].max() > 0.05]
        boxes = []
        for place in kept:
            x1, y1, x2, y2 = output.predictions.anchors[index, place].tolist()
            dx, dy, dw, dh = output.predictions.deltas[index, place].tolist()
            x, y = (x1 + x2) / 2 + 0.1 * dx * (x2 - x1), (y1 + y2) / 2 + 0.1 * dy * (y2 - y1)
            w, h = (x2 - x1) * math.exp(0.2 * dw), (y2 - y1) * math.exp(0.2 * dh)
            boxes.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
        values = [scores[place].tolist() for place in kept]
        if arguments.get("nms") == "ordinary":
            small_ones = [[value if value > 0.05 else 0.0 for value in row] for row in values]
            wanted = ordinary_by_loops(boxes, small_ones)[:12]
        else:
            wanted = suppressed_by_loops(boxes, values, per_class=200, fast=True)[:12]
        assert len(found.scores) == len(wanted) == 12
        expected = []
        for score, number, channel in wanted:
            mask = torch.zeros(output.predictions.prototypes.shape[2:], dtype=torch.float64)
            for prototype, coefficient in zip(
                output.predictions.prototypes[index], output.predictions.coefficients[index, kept[number]], strict=True
            ):
                mask += prototype * coefficient
            mask = mask.sigmoid()
            rows, columns = mask.shape
            for row in range(rows):
                for column in range(columns):
                    x1, y1, x2, y2 = boxes[number]
                    is_in = x1 / SIZE[1] * columns - 1 <= column < x2 / SIZE[1] * columns + 1
                    if not (is_in and y1 / SIZE[0] * rows - 1 <= row < y2 / SIZE[0] * rows + 1):
                        mask[row, column] = 0
            if system.mask_iou is not None:
                score *= float(system.mask_iou(mask[None])[0, channel])
            expected.append((score, boxes[number], channel + 1, mask))
        expected.sort(key=lambda one: -one[0])
        torch.testing.assert_close(found.scores, torch.tensor([one[0] for one in expected], dtype=torch.float64))
        torch.testing.assert_close(found.boxes, torch.tensor([one[1] for one in expected], dtype=torch.float64))
        assert found.channels.tolist() == [one[2] for one in expected]
        torch.testing.assert_close(found.masks, torch.stack([one[3] for one in expected]))


def ordinary_by_loops(boxes: list[list[float]], scores: list[list[float]]) -> list[tuple[float, int, int]]:
    kept = []
    for number in range(len(scores[0])):
        order = sorted((i for i in range(len(boxes)) if scores[i][number] > 0), key=lambda i: -scores[i][number])
        stays: list[int] = []
        for index in order[:200]:
            if all(iou(boxes[index], boxes[rival]) <= 0.5 for rival in stays):
                stays.append(index)
        kept += [(scores[index][number], index, number) for index in stays]
    return sorted(kept, reverse=True)


@torch.no_grad()
def test_thresholds_may_be_changed_on_the_module() -> None:
    system = small_yolact()
    images = batch_of(ellipses(0, 2)).images
    every = system(images).detections[0].scores
    system.thresholds = Thresholds(float(every[5]), 12)
    assert torch.equal(system(images).detections[0].scores, every[every > every[5]])
    system.thresholds = Thresholds(0.0, 3)
    assert torch.equal(system(images).detections[0].scores, every[:3])
    system.candidate_threshold = 1.0
    annotation = system.decode(system(images), Sizes.of(batch_of(Annotation())))[0]
    assert len(annotation.instances) == len(annotation.instances.masks) == 0


@pytest.mark.parametrize(("original", "valid"), [((96, 128), SIZE), ((301, 173), SIZE), ((60, 211), (70, 90))])
def test_masks_are_the_whole_ones_enlarged(original: tuple[int, int], valid: tuple[int, int]) -> None:
    """The crop is made on the prototypes' grid, then the whole grid is enlarged, then it is cut at a half."""
    system = small_yolact(nms="ordinary")
    generator = torch.Generator().manual_seed(2)
    grid = (SIZE[0] // 4, SIZE[1] // 4)
    boxes = torch.tensor([[-8.0, 10, 30, 60], [60, 3, 140, 120], [20, 20, 23, 24], [85, 60, 89, 69], [500, 0, 600, 10]])
    noise = F.interpolate(torch.rand(1, 5, 6, 8, generator=generator), grid, mode="bicubic")[0].clamp(0, 1)
    masks = noise * inside_boxes(boxes, SIZE, grid)
    found = Detections(boxes, torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5]), torch.tensor([1, 5, 2, 3, 4]), masks)
    batch = batch_of(Annotation(), original=original, valid=valid)
    with torch.no_grad():
        output = system(batch.images)._replace(detections=(found,))
    instances = system.decode(output, Sizes.of(batch))[0].instances
    whole = (original[0] * SIZE[0] / valid[0], original[1] * SIZE[1] / valid[1])
    y, x = (
        ((torch.arange(pixels).double() + 0.5) / side * cells - 0.5).clamp(0, cells - 1)
        for pixels, side, cells in zip(original, whole, grid, strict=True)
    )
    y0, x0 = y.floor().long(), x.floor().long()
    y1, x1 = (y0 + 1).clamp(max=grid[0] - 1), (x0 + 1).clamp(max=grid[1] - 1)
    v, u = (y - y0)[:, None], (x - x0)[None, :]
    values = torch.stack(
        [
            (1 - v) * ((1 - u) * mask[y0][:, x0] + u * mask[y0][:, x1])
            + v * ((1 - u) * mask[y1][:, x0] + u * mask[y1][:, x1])
            for mask in masks.double()
        ]
    )
    assert len(instances) == 4, "what lies beyond the image is skipped"
    differing = instances.masks.dense() != (values[:4] > 0.5)
    assert not (differing & ((values[:4] - 0.5).abs() > 1e-5)).any()
    assert (instances.masks.areas() > 0).sum() >= 3
    if valid == SIZE:
        enlarged = F.interpolate(masks[None].double(), original, mode="bilinear", align_corners=False)[0]
        torch.testing.assert_close(enlarged, values)
    factor = torch.tensor([original[1] / valid[1], original[0] / valid[0]] * 2)
    limits = torch.tensor([original[1], original[0]] * 2)
    torch.testing.assert_close(instances.boxes, (boxes[:4] * factor).clamp(min=0).minimum(limits))
    assert instances.labels.tolist() == [1, 5, 2, 3]
    for index in (instances.masks.areas() > 0).nonzero().flatten().tolist():
        crop = instances.masks.crop(index)
        left, top, right, bottom = instances.masks.boxes[index].tolist()
        assert crop.shape == (bottom - top, right - left)
        assert all(line.any() for line in (crop[0], crop[-1], crop[:, 0], crop[:, -1])), "tight"


# ---- losses


@pytest.mark.parametrize(("plus", "limit"), [(False, 100), (False, 2), (True, 100)])
def test_the_losses_follow_the_definition(plus: bool, limit: int) -> None:
    arguments = {"anchors": "ratios", "anchor_scales": 3, "rescores_masks": True} if plus else {}
    sizes = (100, 150, 200, 250, 300)  # so that objects of so small an image are not only forced on their anchors
    system = small_yolact(masks_to_train=limit, anchor_sizes=sizes, **arguments).double()
    with torch.no_grad():
        for parameter in system.mask_iou.parameters() if system.mask_iou is not None else ():
            parameter += 0.02  # else the last ReLU gives nothing but zeros
    truth = (ellipses(0, 4), ellipses(1, 3, crowds=1), ellipses(2, 0))
    batch = batch_of(*truth)
    system.train()
    for module in system.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    output = system(batch.images.double(), truth=truth)
    terms = system.loss(output, batch)
    with torch.no_grad():
        wanted = losses_by_loops(output, [one.instances for one in truth], mask_iou=system.mask_iou)
    weights = {"class": 1, "box": 1.5, "mask": 6.125, "semantic": 1, "mask_iou": 25}
    assert set(terms) == set(weights) - (set() if plus else {"mask_iou"})
    for name, term in terms.items():
        assert term.weight == weights[name]
        found = float((term.sum / term.count).detach())
        assert found == pytest.approx(wanted[name], rel=1e-6)
        assert found > 0
    chosen = [len(anchors) for anchors in output.masked]
    assert max(chosen) == limit if limit == 2 else max(chosen) > 4


def test_without_objects_there_is_nothing_but_the_semantic_loss() -> None:
    system = small_yolact(rescores_masks=True).train()
    truth = (ellipses(0, 0), ellipses(1, 0, crowds=1))
    batch = batch_of(*truth)
    terms = system.loss(system(batch.images, truth=truth), batch)
    assert set(terms) == {"class", "box", "mask", "mask_iou", "semantic"}
    for name, term in terms.items():
        assert name == "semantic" or (float(term.sum.detach()), int(term.count)) == (0.0, 0)
    sum(term.sum for term in terms.values()).backward()
    gradients = [parameter.grad for parameter in system.parameters() if parameter.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_saturated_masks_still_have_gradients() -> None:
    """A mask that is wrong by far has the full gradient, which a sigmoid in float32 would lose."""
    system = small_yolact().train()
    truth = (ellipses(0, 2),)
    batch = batch_of(*truth)
    output = system(batch.images, truth=truth)
    logits = tuple(torch.full_like(mask, -300.0).requires_grad_() for mask in output.mask_logits)
    term = system.loss(output._replace(mask_logits=logits), batch)["mask"]
    (gradient,) = torch.autograd.grad(term.sum, logits)
    assert gradient.min() < -1e-4
    assert torch.isfinite(gradient).all()


def test_the_mask_iou_network_takes_small_grids_too() -> None:
    network = MaskIoUNet(3)
    masks = torch.rand(2, 24, 32)
    padded = F.pad(masks, (0, 63 - 32, 0, 63 - 24))
    assert torch.equal(network(masks), network(padded))
    x = F.pad(masks, (0, 31, 0, 39))[:, None]
    for layer in network.convolutions:
        x = layer(x)
    assert x.shape == (2, 3, 1, 1)
    assert network(torch.rand(1, 138, 138)).shape == (1, 3)
    assert len(network(torch.rand(0, 138, 138))) == 0


def test_what_is_missing_is_said() -> None:
    system = small_yolact().train()
    batch = batch_of(ellipses(0, 2))
    with pytest.raises(DataError, match="without ground truth"):
        system.loss(system(batch.images), batch)
    with pytest.raises(DataError, match="no instance masks"):
        system(batch.images, truth=(Annotation(),))
    boxes = Annotation(instances=Instances(boxes=torch.tensor([[0.0, 0, 50, 50]]), labels=torch.tensor([1])))
    with pytest.raises(DataError, match="no instance masks"):
        system.loss(system(batch.images, truth=(boxes,)), batch_of(boxes))


@torch.no_grad()
def test_class_ids_need_not_follow_each_other() -> None:
    system = small_yolact()
    other = yolact.build(num_classes=12, thing_ids=[3, 4, 7, 9, 11], backbone="mobilenet_v2", channels=32, prototypes=8)
    other.load_state_dict(system.state_dict())
    batch = batch_of(Annotation())
    one, two = (net.eval().decode(net(batch.images), Sizes.of(batch))[0].instances for net in (system, other))
    assert [[3, 4, 7, 9, 11][label - 1] for label in one.labels.tolist()] == two.labels.tolist()
    assert torch.equal(one.scores, two.scores)


# ---- what it is fed


@pytest.mark.parametrize(("size", "video"), [((50, 80), False), ((80, 50), True)])
def test_training_feeds_what_prediction_feeds(size: tuple[int, int], video: bool) -> None:
    """But for what augmentation draws: the whole image, stretched to a square, and its objects with it."""
    torch.manual_seed(0)
    arguments: dict[str, Any] = {"num_classes": len(LABELS), "backbone": "mobilenet_v2", "channels": 16}
    system = yolact_edge.build(**arguments) if video else yolact.build(**arguments)
    fed: list[tuple[Tensor, tuple[Annotation, ...]]] = []
    system.register_forward_pre_hook(
        lambda _, images, others: fed.append((images[0].clone(), others["truth"])), with_kwargs=True
    )
    plain = Augmentation(scale_min=1, scale_max=1, flip=0)
    stage = Stage(steps=1, batch_size=1, crop_size=64, optimizer=Optimizer(lr=0), augmentation=plain)
    scenes = DrawnScenes(1, first_seed=2, size_hw=size)  # two squares, whose corners no sampling loses
    for _ in fit(
        Fit.start(system, stage),
        scenes,
        accelerator=Accelerator(cpu=True),
        resize=ResizeRule(length=64),
        labels=LABELS,
        seed=0,
        workers=0,
    ):
        pass
    ((images, truth),) = fed
    predictor = Predictor(
        system, ModelCard("instance", system.__module__, LABELS, resize=ResizeRule(length=64)), device="cpu"
    )
    wanted = predictor.prepare(scenes[0].image)[0]
    assert wanted.shape == (3, 64, 64)
    objects = scenes[0].truth.instances
    assert objects is not None
    for image, one in zip(images, truth, strict=True):
        assert (image - wanted).abs().max() < 1.5 / 255
        assert one.instances is not None
        boxes = scale_boxes(objects.boxes, size, (64, 64))
        assert (one.instances.boxes - boxes).abs().max() <= 0.5
        assert one.instances.labels.tolist() == objects.labels.tolist()
    assert len(images) == (2 if video else 1)
