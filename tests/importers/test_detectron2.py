"""detectron2's layout of keys, and its conventions of boxes and masks written out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pixelwise.errors import CheckpointError
from pixelwise.importers.detectron2 import NETWORKS, convert
from pixelwise.importers.foreign import require_fit
from pixelwise.models.mask_rcnn import MaskRCNN, build
from pixelwise.ops.boxes import RCNN_WEIGHTS, decode_boxes, encode_boxes
from pixelwise.ops.thing_channels import class_ids_of
from tests.random_boxes import random_boxes

BLOCKS = {"50": (3, 4, 6, 3), "101": (3, 4, 23, 3)}


def normed(prefix: str, out_channels: int, in_channels: int, kernel: int) -> dict[str, tuple[int, ...]]:
    """A convolution without bias and its frozen batch norm."""
    norm = {f"{prefix}.norm.{part}": (out_channels,) for part in ("weight", "bias", "running_mean", "running_var")}
    return {f"{prefix}.weight": (out_channels, in_channels, kernel, kernel), **norm}


def stage(prefix: str, blocks: int, width: int, in_channels: int) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for block in range(blocks):
        begin = f"{prefix}.{block}"
        if not block:
            shapes |= normed(f"{begin}.shortcut", 4 * width, in_channels, 1)
        shapes |= normed(f"{begin}.conv1", width, in_channels if not block else 4 * width, 1)
        shapes |= normed(f"{begin}.conv2", width, width, 3)
        shapes |= normed(f"{begin}.conv3", 4 * width, width, 1)
    return shapes


def layer(prefix: str, *shape: int, bias: int | None = None) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}.weight": shape, f"{prefix}.bias": (shape[0] if bias is None else bias,)}


def shapes_of(architecture: str, classes: int) -> dict[str, tuple[int, ...]]:
    """What `MetaArch.state_dict()` holds, by detectron2's modules."""
    c4 = architecture.endswith("C4")
    depth = architecture.split("_")[3]
    body = "backbone" if c4 else "backbone.bottom_up"
    shapes = normed(f"{body}.stem.conv1", 64, 3, 7)
    for number, (blocks, width) in enumerate(zip(BLOCKS[depth], (64, 128, 256, 512), strict=True)):
        prefix = "roi_heads.res5" if c4 and number == 3 else f"{body}.res{number + 2}"
        shapes |= stage(prefix, blocks, width, 64 if not number else 2 * width)
    rpn, heads, anchors = "proposal_generator.rpn_head", "roi_heads", 15 if c4 else 3
    rpn_width = 1024 if c4 else 256
    shapes |= layer(f"{rpn}.conv", rpn_width, rpn_width, 3, 3)
    shapes |= layer(f"{rpn}.objectness_logits", anchors, rpn_width, 1, 1)
    shapes |= layer(f"{rpn}.anchor_deltas", 4 * anchors, rpn_width, 1, 1)
    vector = 2048 if c4 else 1024
    if not c4:
        for level in (2, 3, 4, 5):
            shapes |= layer(f"backbone.fpn_lateral{level}", 256, 64 * 2**level, 1, 1)
            shapes |= layer(f"backbone.fpn_output{level}", 256, 256, 3, 3)
        shapes |= layer(f"{heads}.box_head.fc1", 1024, 256 * 49)
        shapes |= layer(f"{heads}.box_head.fc2", 1024, 1024)
        for number in (1, 2, 3, 4):
            shapes |= layer(f"{heads}.mask_head.mask_fcn{number}", 256, 256, 3, 3)
    shapes |= layer(f"{heads}.box_predictor.cls_score", classes + 1, vector)
    shapes |= layer(f"{heads}.box_predictor.bbox_pred", 4 * classes, vector)
    shapes |= layer(f"{heads}.mask_head.deconv", 2048 if c4 else 256, 256, 2, 2, bias=256)
    shapes |= layer(f"{heads}.mask_head.predictor", classes, 256, 1, 1)
    # some files hold these too
    shapes |= {"pixel_mean": (3, 1, 1), "pixel_std": (3, 1, 1)}
    return shapes | {"proposal_generator.anchor_generator.cell_anchors.0": (anchors, 4)}


def weights_of(architecture: str, classes: int = 80) -> dict[str, Tensor]:
    return {key: torch.zeros(()).expand(shape) for key, shape in shapes_of(architecture, classes).items()}


def our_network(arguments: Any, classes: int) -> MaskRCNN:
    with torch.device("meta"):
        return build(num_classes=classes, **arguments)


@pytest.mark.parametrize("architecture", NETWORKS)
def test_every_tensor_finds_its_place(architecture: str) -> None:
    model = convert(f"{architecture}_3x", weights_of(architecture))
    assert model.num_classes == 81
    assert len(model.skipped) == 3
    network = our_network(model.arguments, 81)
    require_fit(model.weights, network.state_dict(), source="theirs", expected="ours")
    assert {key for key in network.state_dict() if not key.endswith("num_batches_tracked")} == set(model.weights)
    if architecture == "mask_rcnn_R_50_FPN":  # detectron2 itself counts 44.34 million
        counted = sum(math.prod(shape) for shape in shapes_of(architecture, 80).values())
        statistics = sum(math.prod(shape) for key, shape in shapes_of(architecture, 80).items() if ".norm." in key)
        assert round((counted - statistics) / 1e6, 1) in (44.2, 44.3, 44.4)


def test_channels_are_turned_and_the_background_comes_first() -> None:
    weights = weights_of("mask_rcnn_R_50_FPN", 3)
    stem = torch.arange(3.0)[None, :, None, None].expand(64, 3, 7, 7)
    weights["backbone.bottom_up.stem.conv1.weight"] = stem
    weights["roi_heads.box_predictor.cls_score.bias"] = torch.tensor([10.0, 20, 30, 99])
    weights["roi_heads.box_predictor.cls_score.weight"] = torch.tensor([10.0, 20, 30, 99])[:, None].expand(4, 1024)
    weights["roi_heads.box_predictor.bbox_pred.bias"] = torch.arange(12.0)
    weights["roi_heads.mask_head.predictor.bias"] = torch.tensor([1.0, 2, 3])
    found = convert("mask_rcnn_R_50_FPN", weights).weights
    assert found["backbone.conv1.weight"][5, :, 0, 0].tolist() == [2, 1, 0]
    assert found["box_predictor.classes.bias"].tolist() == [99, 10, 20, 30]
    assert found["box_predictor.classes.weight"][:, 7].tolist() == [99, 10, 20, 30]
    # detectron2's class 1 is channel 2 here, class id 2 of a label set with a background; its box and mask follow
    network = our_network(convert("mask_rcnn_R_50_FPN", weights).arguments, 4)
    assert class_ids_of(torch.tensor([2]), network.things).tolist() == [2]
    assert found["box_predictor.deltas.bias"].unflatten(0, (-1, 4))[2 - 1].tolist() == [4, 5, 6, 7]
    assert found["mask_head.predictor.bias"][2 - 1] == 2


def test_images_are_normalised_as_in_detectron2() -> None:
    """BGR from 0 to 255 less the mean, through its first convolution, is ours on RGB from 0 to 1."""
    torch.manual_seed(0)
    weights = weights_of("mask_rcnn_R_50_FPN", 1)
    kernel = torch.randn(64, 3, 7, 7)
    weights["backbone.bottom_up.stem.conv1.weight"] = kernel
    model = convert("mask_rcnn_R_50_FPN", weights)
    network = build(num_classes=2, **model.arguments)
    image = torch.rand(1, 3, 32, 32)
    theirs = image.flip(1) * 255 - torch.tensor([103.530, 116.280, 123.675]).view(1, 3, 1, 1)
    expected = torch.nn.functional.conv2d(theirs, kernel, stride=2, padding=3)
    stem = model.weights["backbone.conv1.weight"]
    found = torch.nn.functional.conv2d(network.normalize(image), stem, stride=2, padding=3)
    assert torch.allclose(found, expected, atol=1e-2, rtol=1e-5)


def test_its_conventions_are_the_arguments() -> None:
    network = our_network(convert("mask_rcnn_R_50_FPN", weights_of("mask_rcnn_R_50_FPN")).arguments, 81)
    assert network.rpn.strides == (4, 8, 16, 32, 64)
    assert network.rpn.post_nms_topk == (1000, 1000)
    assert (network.box_pooling.is_aligned, network.box_pooling.sampling_ratio) == (True, 0)
    assert network.paste == "detectron2"
    assert (network.rpn_beta, network.box_beta) == (0.0, 0.0)
    block: Any = network.backbone.layer2[0]  # pyright: ignore[reportIndexIssue]
    assert (block.conv1.stride, block.conv2.stride) == ((2, 2), (1, 1))


def test_its_box_coding_is_ours() -> None:
    """`Box2BoxTransform` written out, box by box."""
    sources, targets = random_boxes(20, 0), random_boxes(20, 1)
    for source, target in zip(sources.tolist(), targets.tolist(), strict=True):
        widths = [box[2] - box[0] for box in (source, target)]
        heights = [box[3] - box[1] for box in (source, target)]
        x = [box[0] + 0.5 * width for box, width in zip((source, target), widths, strict=True)]
        y = [box[1] + 0.5 * height for box, height in zip((source, target), heights, strict=True)]
        deltas = [
            10 * (x[1] - x[0]) / widths[0],
            10 * (y[1] - y[0]) / heights[0],
            5 * math.log(widths[1] / widths[0]),
            5 * math.log(heights[1] / heights[0]),
        ]
        found = encode_boxes(torch.tensor(target), torch.tensor(source), weights=RCNN_WEIGHTS)
        assert found.tolist() == pytest.approx(deltas, abs=1e-3)
        dw = min(deltas[2] * 9 / 5, math.log(1000 / 16))
        centre, half = deltas[0] / 10 * widths[0] + x[0], 0.5 * math.exp(dw) * widths[0]
        decoded = decode_boxes(found * torch.tensor([1.0, 1, 9, 1]), torch.tensor(source), weights=RCNN_WEIGHTS)
        assert decoded[[0, 2]].tolist() == pytest.approx([centre - half, centre + half], rel=1e-3)


def test_what_is_no_mask_r_cnn_of_detectron2_is_named() -> None:
    with pytest.raises(CheckpointError, match="'panoptic' here; there are mask_rcnn_R_50_FPN"):
        convert("panoptic", {})
    with pytest.raises(CheckpointError, match=r"no roi_heads\.box_predictor\.cls_score among its tensors \(a, …\)"):
        convert("mask_rcnn_R_50_FPN", {"a": torch.zeros(1)})
