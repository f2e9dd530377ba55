"""Weights of detectron2's Mask R-CNN.

Source: `modeling/` of github.com/facebookresearch/detectron2 and its configurations COCO-InstanceSegmentation. Its
backbones are those of He et al.'s Caffe release: images BGR without a deviation, blocks strided in their first
convolution. Here the first convolution's input channels are reversed, so that images are RGB. Its classes have the
background last and its boxes and masks none; here the background is first.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from pixelwise.errors import CheckpointError
from pixelwise.importers.foreign import ImportedModel, UnknownNetworkError, change, in_float32, renamed
from pixelwise.nn.backbones import STRIDE_IN_1X1
from pixelwise.ops.resize_rule import ResizeRule

NETWORKS = {
    "mask_rcnn_R_50_FPN": ("resnet50", "fpn"),
    "mask_rcnn_R_101_FPN": ("resnet101", "fpn"),
    "mask_rcnn_R_50_C4": ("resnet50", "c4"),
}
"""The configuration's name, without its schedule: the backbone, and the layout of our Mask R-CNN."""
RESIZE = ResizeRule("short", 800, 1333, rounding="detectron2", filter="pillow")
"""`ResizeShortestEdge` with `INPUT.MIN_SIZE_TEST` and `INPUT.MAX_SIZE_TEST` of its configurations, by Pillow."""

PIXEL_MEAN = (123.675, 116.28, 103.53)
"""Of RGB values from 0 to 255; the deviation is left at 1."""

_BLOCK = r"(?:backbone|backbone\.bottom_up|roi_heads)\."
_RULES = (
    (_BLOCK + r"stem\.conv1\.weight$", "backbone.conv1.weight"),
    (_BLOCK + r"stem\.conv1\.norm\.", "backbone.bn1."),
    *(
        rule
        for stage in (2, 3, 4, 5)
        for rule in (
            (_BLOCK + rf"res{stage}\.(\d+)\.conv(\d)\.norm\.", rf"backbone.layer{stage - 1}.\1.bn\2."),
            (_BLOCK + rf"res{stage}\.(\d+)\.shortcut\.norm\.", rf"backbone.layer{stage - 1}.\1.downsample.1."),
            (_BLOCK + rf"res{stage}\.(\d+)\.shortcut\.", rf"backbone.layer{stage - 1}.\1.downsample.0."),
            (_BLOCK + rf"res{stage}\.", f"backbone.layer{stage - 1}."),
        )
    ),
    *((rf"backbone\.fpn_lateral{level}\.", f"fpn.lateral.{level - 2}.0.") for level in (2, 3, 4, 5)),
    *((rf"backbone\.fpn_output{level}\.", f"fpn.output.{level - 2}.0.") for level in (2, 3, 4, 5)),
    (r"proposal_generator\.rpn_head\.conv\.", "rpn.convolutions.0.0."),
    (r"proposal_generator\.rpn_head\.objectness_logits\.", "rpn.objectness."),
    (r"proposal_generator\.rpn_head\.anchor_deltas\.", "rpn.deltas."),
    (r"roi_heads\.box_head\.fc1\.", "box_head.hidden.0."),
    (r"roi_heads\.box_head\.fc2\.", "box_head.hidden.2."),
    (r"roi_heads\.box_predictor\.cls_score\.", "box_predictor.classes."),
    (r"roi_heads\.box_predictor\.bbox_pred\.", "box_predictor.deltas."),
    *(
        (rf"roi_heads\.mask_head\.mask_fcn{number}\.", f"mask_head.convolutions.{number - 1}.0.")
        for number in range(1, 5)
    ),
    (r"roi_heads\.mask_head\.deconv\.", "mask_head.enlargement."),
    (r"roi_heads\.mask_head\.predictor\.", "mask_head.predictor."),
)
_CONSTANTS = ("pixel_mean", "pixel_std", "proposal_generator.anchor_generator.")
"""Tensors of some files that are no weights: what is subtracted, and the anchors."""


def convert(architecture: str, weights: Mapping[str, Tensor]) -> ImportedModel:
    """The weights under our keys; the schedule (`_1x`, `_3x`) may be named. See `importers.foreign`."""
    name = architecture.removesuffix("_1x").removesuffix("_3x")
    if name not in NETWORKS:
        raise UnknownNetworkError(f"detectron2 has no '{architecture}' here; there are {', '.join(NETWORKS)}")
    backbone, layout = NETWORKS[name]
    used = {key: tensor for key, tensor in weights.items() if not key.startswith(_CONSTANTS)}
    found = renamed(used, _RULES)
    classes = found.get("box_predictor.classes.weight")
    if classes is None:
        first = ", ".join(list(weights)[:3]) or "nothing"
        raise CheckpointError(
            f"detectron2 {architecture}: no roi_heads.box_predictor.cls_score among its tensors ({first}, …)"
        )
    rows = ("box_predictor.classes.weight", "box_predictor.classes.bias")
    change(found, rows, lambda tensor: tensor.roll(1, dims=0))  # the background, last there
    change(found, ["backbone.conv1.weight"], lambda tensor: tensor.flip(1))
    change(found, ["mask_head.predictor.weight"], lambda tensor: tensor.flatten(1))
    arguments = {
        "backbone": f"{backbone}{STRIDE_IN_1X1}",
        "layout": layout,
        "sampling_ratio": 0,
        "is_aligned": True,
        "rounded_anchors": False,
        "grid_strides": False,
        "paste": "detectron2",
        "post_nms_topk": (1000, 1000) if layout == "fpn" else (2000, 1000),
        "samples": 512,
        "rpn_beta": 0.0,
        "box_beta": 0.0,
        "pixel_mean": tuple(value / 255 for value in PIXEL_MEAN),
        "pixel_std": (1 / 255,) * 3,
    }
    return ImportedModel(
        "mask_rcnn",
        arguments,
        in_float32(found),
        skipped=tuple(key for key in weights if key not in used),
        resize=RESIZE,
        classes=len(classes),
    )
