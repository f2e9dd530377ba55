"""Weights of UPSNet's authors.

Source: `upsnet/models` of github.com/uber-research/UPSNet and its configurations. Images there are BGR without a
deviation, blocks are strided in their first convolution, RoIAlign has no half-pixel centres, and a box's x2 and y2 are
its last pixels. Here the first convolution's input channels are reversed, so that images are RGB. Its boxes and masks
have background channels, which are not used. On COCO its semantic logits have the 53 classes of stuff first; here they
are in the order of COCO's categories, the 80 things first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pixelwise.errors import CheckpointError
from pixelwise.importers.foreign import ImportedModel, UnknownNetworkError, change, in_float32, renamed
from pixelwise.nn.backbones import STRIDE_IN_1X1
from pixelwise.ops.resize_rule import ResizeRule

_CITYSCAPES: Mapping[str, Any] = {
    "global_context": False,
    "semantic_layers": 2,
    "semantic_weight": 1.0,
    "roi_weight": 0.0,
    "panoptic_weight": 0.5,
    "smallest_stuff": 2048,
}
NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "upsnet_resnet_50_coco": {"backbone": f"resnet50{STRIDE_IN_1X1}"},
    "upsnet_resnet_101_dcn_coco": {"backbone": f"resnet101{STRIDE_IN_1X1}", "deformable_backbone": True},
    "upsnet_resnet_50_cityscapes": {"backbone": f"resnet50{STRIDE_IN_1X1}", **_CITYSCAPES},
    "upsnet_resnet_101_cityscapes_w_coco": {"backbone": f"resnet101{STRIDE_IN_1X1}", **_CITYSCAPES},
}
"""The released file's name, without its number of steps: the arguments of our UPSNet."""
COCO_RESIZE = ResizeRule("short", 800, 1333, filter="opencv")
CITYSCAPES_RESIZE = ResizeRule("short", 1024, 2048, filter="opencv")
"""`prep_im_for_blob` of `upsnet/dataset/base_dataset.py`, with the scales of its configurations."""

PIXEL_MEAN = (122.7717, 115.9465, 102.9801)
"""Of RGB values from 0 to 255; the deviation is left at 1."""

_BACKBONE = r"resnet_backbone\."
_RULES = (
    (_BACKBONE + r"conv1\.", "backbone."),
    *(
        rule
        for stage in (2, 3, 4, 5)
        for rule in (
            (
                _BACKBONE + rf"res{stage}\.layers\.(\d+)\.conv2_offset\.",
                rf"backbone.layer{stage - 1}.\1.conv2.conv_offset.",
            ),
            (_BACKBONE + rf"res{stage}\.layers\.", f"backbone.layer{stage - 1}."),
        )
    ),
    *((rf"fpn\.fpn_p{level}_1x1\.", f"fpn.lateral.{level - 2}.0.") for level in (2, 3, 4, 5)),
    *((rf"fpn\.fpn_p{level}\.", f"fpn.output.{level - 2}.0.") for level in (2, 3, 4, 5)),
    (r"fpn\.fpn_gap\.", "fpn.context."),
    (r"rpn\.conv_proposal\.0\.", "rpn.convolutions.0.0."),
    (r"rpn\.cls_score\.", "rpn.objectness."),
    (r"rpn\.bbox_pred\.", "rpn.deltas."),
    (r"rcnn\.fc6\.0\.", "box_head.hidden.0."),
    (r"rcnn\.fc7\.0\.", "box_head.hidden.2."),
    (r"rcnn\.cls_score\.", "box_predictor.classes."),
    (r"rcnn\.bbox_pred\.", "box_predictor.deltas."),
    *((rf"mask_branch\.mask_conv{number}\.0\.", f"mask_head.convolutions.{number - 1}.0.") for number in range(1, 5)),
    (r"mask_branch\.mask_deconv1\.0\.", "mask_head.enlargement."),
    (r"mask_branch\.mask_score\.", "mask_head.predictor."),
    *(
        rule
        for number in range(3)
        for rule in (
            (rf"fcn_head\.fcn_subnet\.conv\.{number}\.0\.conv\.", f"semantic_head.subnet.{2 * number}."),
            (
                rf"fcn_head\.fcn_subnet\.conv\.{number}\.0\.conv_offset\.",
                f"semantic_head.subnet.{2 * number}.conv_offset.",
            ),
        )
    ),
    (r"fcn_head\.score\.", "semantic_head.score."),
)


def convert(architecture: str, weights: Mapping[str, Tensor]) -> ImportedModel:
    """The weights under our keys; the number of steps (`_90000`) may be named. See `importers.foreign`."""
    name = re.sub(r"_\d{4,}$", "", architecture)
    if name not in NETWORKS:
        raise UnknownNetworkError(f"upsnet has no '{architecture}' here; there are {', '.join(NETWORKS)}")
    found = renamed(weights, _RULES)
    scores, objects = found.get("semantic_head.score.weight"), found.get("box_predictor.classes.weight")
    if scores is None or objects is None:
        first = ", ".join(list(weights)[:3]) or "nothing"
        raise CheckpointError(
            f"upsnet {architecture}: no fcn_head.score or no rcnn.cls_score among its tensors ({first}, …)"
        )
    classes, things = len(scores), len(objects) - 1
    change(found, ["mask_head.predictor.weight"], lambda tensor: tensor[1:].flatten(1))
    change(found, ["mask_head.predictor.bias"], lambda tensor: tensor[1:])
    change(found, ["box_predictor.deltas.weight", "box_predictor.deltas.bias"], lambda tensor: tensor[4:])
    change(found, ["backbone.conv1.weight"], lambda tensor: tensor.flip(1))
    is_coco = "cityscapes" not in name
    if is_coco:
        for key in ("semantic_head.score.weight", "semantic_head.score.bias"):
            found[key] = found[key].roll(things, dims=0)  # stuff, then things: things, then stuff
    arguments = {
        **NETWORKS[name],
        "thing_ids": tuple(range(things)) if is_coco else tuple(range(classes - things, classes)),
        "is_aligned": False,
        "inclusive_boxes": True,
        "pixel_mean": tuple(value / 255 for value in PIXEL_MEAN),
        "pixel_std": (1 / 255,) * 3,
    }
    return ImportedModel(
        "upsnet",
        arguments,
        in_float32(found),
        resize=COCO_RESIZE if is_coco else CITYSCAPES_RESIZE,
        classes=classes,
    )
