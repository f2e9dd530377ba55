"""Weights of torchvision's segmentation networks and of its classifiers.

Source: `torchvision.models.segmentation`: FCN and DeepLab v3 on dilated ResNets (output stride 8) and on MobileNet V3
(output stride 16), as trained on the 20 classes of VOC that COCO has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pixelwise.errors import CheckpointError
from pixelwise.importers.foreign import ImportedModel, renamed
from pixelwise.nn.backbones import DEEP_STEM, NAMES, STRIDE_IN_1X1

_FCN = {"skips": "none", "output_stride": 8}
_DEEPLAB = {"multi_grid": (1, 1, 1), "output_stride": 8, "head_convolution": True, "dropout": 0.5}
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
}
"""torchvision's name: our system and the arguments of its `build`."""
BACKBONES = tuple(name for name in NAMES if not name.endswith((DEEP_STEM, STRIDE_IN_1X1, "_1280")))
INPUT_SIZE = 520

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
}


def convert(architecture: str, weights: Mapping[str, Tensor]) -> ImportedModel:
    """The weights under our keys.

    Args:
        architecture: one of NETWORKS.
        weights: under torchvision's keys, with or without the auxiliary classifier.

    Raises:
        CheckpointError: an unknown architecture.
    """
    if architecture not in NETWORKS:
        raise CheckpointError(f"torchvision has no '{architecture}' here; there are {', '.join(NETWORKS)}")
    system, arguments = NETWORKS[architecture]
    auxiliary = any(key.startswith("aux_classifier.") for key in weights)
    return ImportedModel(
        system, {**arguments, "auxiliary": auxiliary}, renamed(weights, _RULES[system]), input_size=INPUT_SIZE
    )
