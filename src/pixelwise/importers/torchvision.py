"""Weights of torchvision's segmentation networks, of its Mask R-CNNs and of its classifiers.

Sources: `torchvision.models.segmentation`: FCN and DeepLab v3 on dilated ResNets (output stride 8) and on MobileNet V3
(output stride 16), as trained on the 20 classes of VOC that COCO has. `torchvision.models.detection`: Mask R-CNN on
ResNet-50 with a pyramid, in two versions, whose channels are COCO's category ids, 91 with gaps; the 81 that are classes
are taken. The file of 2019 (version 1) has older names. Where the batch norms are frozen, nothing is added to the
variance, as torchvision does with that file's weights, under whichever names they are stored (`overwrite_eps`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pixelwise.errors import CheckpointError
from pixelwise.importers.foreign import ImportedModel, renamed, require_known
from pixelwise.labels import published
from pixelwise.nn.backbones import DARKNET, DEEP_STEM, EFFICIENTNET_LITES, NAMES, STRIDE_IN_1X1
from pixelwise.ops.resize_rule import ResizeRule

_FCN = {"skips": "none", "output_stride": 8}
_DEEPLAB = {"multi_grid": (1, 1, 1), "output_stride": 8, "head_convolution": True, "dropout": 0.5}
_MASK_RCNN = {
    "backbone": "resnet50",
    "is_aligned": False,
    "rounded_anchors": True,
    "grid_strides": True,
    "paste": "torchvision",
    "box_beta": 1 / 9,
}
_MOBILE = {
    "backbone": "mobilenet_v3_large",
    "output_stride": 16,
    "first_block": "full",
    "rates": (12, 24, 36),
    "head_convolution": True,
    "dropout": 0.5,
}
NETWORKS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "fcn_resnet50": ("fcn", {**_FCN, "backbone": "resnet50"}),
    "fcn_resnet101": ("fcn", {**_FCN, "backbone": "resnet101"}),
    "deeplabv3_resnet50": ("deeplab_v3", {**_DEEPLAB, "backbone": "resnet50"}),
    "deeplabv3_resnet101": ("deeplab_v3", {**_DEEPLAB, "backbone": "resnet101"}),
    "deeplabv3_mobilenet_v3_large": ("deeplab_v3", _MOBILE),
    "maskrcnn_resnet50_fpn": ("mask_rcnn", _MASK_RCNN),
    "maskrcnn_resnet50_fpn_v2": (
        "mask_rcnn",
        {**_MASK_RCNN, "rpn_convolutions": 2, "box_convolutions": 4, "has_norm": True},
    ),
}
"""torchvision's name: our system and the arguments of its `build`."""
_NOT_THEIRS = (DEEP_STEM, STRIDE_IN_1X1, "_1280", DARKNET, *EFFICIENTNET_LITES)
BACKBONES = tuple(name for name in NAMES if not name.endswith(_NOT_THEIRS))
RESIZE = ResizeRule("short", 520, rounding="torchvision", filter="pillow")
"""Of `torchvision.transforms._presets.SemanticSegmentation`, which all its segmentation weights name, on pictures."""
DETECTION_RESIZE = ResizeRule("short", 800, 1333, rounding="torchvision_detection", filter="bilinear")
"""Of `torchvision.models.detection.transform.GeneralizedRCNNTransform`."""
COCO_CHANNELS = 91
"""Channels of torchvision's detectors: COCO's largest category id, and the background."""
FROZEN_NOTE = (
    "its batch norms are frozen and add nothing to the variance, as in torchvision's COCO weights; a network trained "
    "from an ImageNet backbone has batch_norm_eps 1e-05: change it in model.json, and remove card_sha256 there"
)

_RULES = {
    "fcn": ((r"aux_classifier\.", "auxiliary."),),
    "deeplab_v3": (
        (r"backbone\.(?=\d)", "backbone.features."),
        (r"classifier\.0\.convs\.4\.1\.", "context.branches.4.conv.0."),
        (r"classifier\.0\.convs\.4\.2\.", "context.branches.4.conv.1."),
        (r"classifier\.0\.convs\.", "context.branches."),
        (r"classifier\.0\.project\.", "context.project."),
        (r"classifier\.1\.", "refine.0."),
        (r"classifier\.2\.", "refine.1."),
        (r"classifier\.4\.", "classifier."),
        (r"aux_classifier\.", "auxiliary."),
    ),
    "mask_rcnn": (
        (r"backbone\.body\.", "backbone."),
        (r"backbone\.fpn\.inner_blocks\.(\d)\.(?=weight|bias)", r"fpn.lateral.\1.0."),
        (r"backbone\.fpn\.inner_blocks\.", "fpn.lateral."),
        (r"backbone\.fpn\.layer_blocks\.(\d)\.(?=weight|bias)", r"fpn.output.\1.0."),
        (r"backbone\.fpn\.layer_blocks\.", "fpn.output."),
        (r"rpn\.head\.conv\.(?=weight|bias)", "rpn.convolutions.0.0."),
        (r"rpn\.head\.conv\.", "rpn.convolutions."),
        (r"rpn\.head\.cls_logits\.", "rpn.objectness."),
        (r"rpn\.head\.bbox_pred\.", "rpn.deltas."),
        (r"roi_heads\.box_head\.fc6\.", "box_head.hidden.0."),
        (r"roi_heads\.box_head\.fc7\.", "box_head.hidden.2."),
        (r"roi_heads\.box_head\.5\.", "box_head.hidden.0."),
        (r"roi_heads\.box_head\.(?=[0-3]\.)", "box_head.convolutions."),
        (r"roi_heads\.box_predictor\.cls_score\.", "box_predictor.classes."),
        (r"roi_heads\.box_predictor\.bbox_pred\.", "box_predictor.deltas."),
        *(
            (rf"roi_heads\.mask_head\.mask_fcn{number + 1}\.", f"mask_head.convolutions.{number}.0.")
            for number in range(4)
        ),
        (r"roi_heads\.mask_head\.", "mask_head.convolutions."),
        (r"roi_heads\.mask_predictor\.conv5_mask\.", "mask_head.enlargement."),
        (r"roi_heads\.mask_predictor\.mask_fcn_logits\.", "mask_head.predictor."),
    ),
}


def convert(architecture: str, weights: Mapping[str, Tensor]) -> ImportedModel:
    """The weights under our keys, with or without the auxiliary classifier. See `importers.foreign`."""
    require_known("torchvision", architecture, NETWORKS)
    system, arguments = NETWORKS[architecture]
    if system == "mask_rcnn":
        return _mask_rcnn(architecture, weights)
    auxiliary = any(key.startswith("aux_classifier.") for key in weights)
    return ImportedModel(system, {**arguments, "auxiliary": auxiliary}, renamed(weights, _RULES[system]), resize=RESIZE)


def _mask_rcnn(architecture: str, weights: Mapping[str, Tensor]) -> ImportedModel:
    system, arguments = NETWORKS[architecture]
    found = renamed(weights, _RULES[system])
    scores = found.get("box_predictor.classes.weight")
    if scores is None:
        first = ", ".join(list(weights)[:3]) or "nothing"
        raise CheckpointError(
            f"torchvision {architecture}: no roi_heads.box_predictor.cls_score among its tensors ({first}, …)"
        )
    channels = torch.arange(len(scores))
    if len(scores) == COCO_CHANNELS:
        channels = torch.tensor(published("coco").dataset_ids)
    for key, tensor in found.items():
        if key.startswith("box_predictor.classes."):
            found[key] = tensor[channels]
        elif key.startswith("box_predictor.deltas.") and len(tensor) == 4 * len(scores):
            found[key] = tensor.unflatten(0, (-1, 4))[channels[1:]].flatten(0, 1)  # the background's are not used
        elif key.startswith("mask_head.predictor.") and len(tensor) == len(scores):
            found[key] = tensor[channels[1:]].flatten(1) if tensor.ndim > 1 else tensor[channels[1:]]
    notes: tuple[str, ...] = ()
    # FrozenBatchNorm2d counts no batches, BatchNorm2d does
    is_frozen = not any(key.startswith("backbone.body.") and key.endswith(".num_batches_tracked") for key in weights)
    if is_frozen and not arguments.get("has_norm"):
        arguments = {**arguments, "batch_norm_eps": 0.0}
        notes = (FROZEN_NOTE,)
    return ImportedModel(system, dict(arguments), found, resize=DETECTION_RESIZE, classes=len(channels), notes=notes)
