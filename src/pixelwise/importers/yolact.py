"""Weights of YOLACT's and YOLACT++'s authors.

Source: github.com/dbolya/yolact: `yolact.py`, `backbone.py`, and the names of the configurations in `data/config.py`.
The classes are in the order of the channels, after the background: COCO's 80.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pixelwise.errors import CheckpointError
from pixelwise.importers.foreign import ImportedModel, renamed, require_known
from pixelwise.models.yolact import VARIANTS
from pixelwise.ops.resize_rule import ResizeRule

SIDE = 550
"""Of the squares on which nearly all configurations run, in pixels."""


def square(side: int) -> ResizeRule:
    """How the authors resize an image: `BaseTransform` by OpenCV and `FastBaseTransform` by torch, both in floats."""
    return ResizeRule("square", side, filter="bilinear")


@dataclass(frozen=True)
class Configuration:
    """One of the authors' configurations.

    Attributes:
        variant: of ours, see `models.yolact.VARIANTS`.
        changes: of its arguments.
        side: of the squares on which it runs, in pixels.
    """

    variant: str
    changes: Mapping[str, Any]
    side: int = SIDE


def _resized(side: int, **changes: Any) -> Configuration:
    """With the anchors of 550 pixels rounded down, as the authors do."""
    sizes = tuple(size * side // 550 for size in (24, 48, 96, 192, 384))
    return Configuration("yolact_resnet101", {"anchor_sizes": sizes, "anchor_image_side": side, **changes}, side=side)


NETWORKS: Mapping[str, Configuration] = {
    "yolact_base": Configuration("yolact_resnet101", {}),
    "yolact_resnet50": Configuration("yolact_resnet50", {}),
    "yolact_darknet53": Configuration("yolact_darknet53", {}),
    "yolact_im400": _resized(400),
    "yolact_im700": _resized(700, masks_to_train=300),
    "yolact_resnet50_pascal": Configuration(
        "yolact_resnet50", {"anchors": "ratios", "anchor_sizes": (32, 64, 128, 256, 512)}
    ),
    "yolact_plus_base": Configuration("yolact_plus_resnet101", {}),
    "yolact_plus_resnet50": Configuration("yolact_plus_resnet50", {}),
}
"""The authors' name, as the names of their files begin."""

RULES = (
    *((rf"backbone\.layers\.{stage}\.", f"backbone.layer{stage + 1}.") for stage in range(4)),
    (r"proto_net\.", "protonet."),
    # stored from the deepest map
    *((rf"fpn\.lat_layers\.{place}\.", f"fpn.lateral.{2 - place}.0.") for place in range(3)),
    *((rf"fpn\.pred_layers\.{place}\.", f"fpn.output.{2 - place}.0.") for place in range(3)),
    (r"fpn\.downsample_layers\.", "fpn.extra."),
    (r"prediction_layers\.0\.upfeature\.", "head.tower."),
    (r"prediction_layers\.0\.bbox_layer\.", "head.boxes."),
    (r"prediction_layers\.0\.conf_layer\.", "head.classes."),
    (r"prediction_layers\.0\.mask_layer\.", "head.coefficients."),
    (r"semantic_seg_conv\.", "semantic."),
    (r"maskiou_net\.maskiou_net\.", "mask_iou.convolutions."),
)
"""Their names and ours; see `importers.foreign.renamed`."""
_DARKNET_RULES = ((r"backbone\._preconv\.", "backbone.stem."), (r"backbone\.layers\.", "backbone.layers."), *RULES)
CLASSES_KEY = "semantic_seg_conv.weight"
"""The tensor that has a row for each class but the background."""


def convert(architecture: str, weights: Mapping[str, Tensor]) -> ImportedModel:
    """Convert the weights to our keys. See `importers.foreign`.

    The first release stored the backbone twice and more levels of the pyramid; these are skipped, as the authors'
    loading skips them.
    """
    require_known("yolact", architecture, NETWORKS)
    if CLASSES_KEY not in weights:
        raise CheckpointError(f"not the weights of yolact {architecture}: there is no {CLASSES_KEY}")
    configuration = NETWORKS[architecture]
    arguments = {**VARIANTS[configuration.variant], **configuration.changes}
    used = {key: tensor for key, tensor in weights.items() if not _is_old(key)}
    return ImportedModel(
        "yolact",
        arguments,
        renamed(used, _DARKNET_RULES if arguments["backbone"] == "darknet53" else RULES),
        skipped=tuple(key for key in weights if key not in used),
        resize=square(configuration.side),
        classes=weights[CLASSES_KEY].shape[0] + 1,
    )


def _is_old(key: str) -> bool:
    return re.match(r"backbone\.layer(?!s\.)|fpn\.downsample_layers\.([2-9]|\d\d)", key) is not None
