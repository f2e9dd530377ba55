"""Weights of semseg, the PyTorch code of PSPNet's authors: PSPNet on ResNets with three convolutions for a stem.

Source: github.com/hszhao/semseg, `model/pspnet.py` and `model/resnet.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from pixelwise.importers.foreign import ImportedModel, renamed, require_known
from pixelwise.ops.resize_rule import ResizeRule

NETWORKS = {
    "pspnet50": "resnet50_deep_stem",
    "pspnet101": "resnet101_deep_stem",
    "pspnet152": "resnet152_deep_stem",
}
"""The name: the backbone."""
RESIZE = ResizeRule("long", 512, filter="bilinear")
CITYSCAPES_RESIZE = ResizeRule("long", 2048, filter="bilinear")
"""`base_size` of its configurations for each set, to which `tool/test.py` brings images."""
CITYSCAPES_CLASSES = 19

_RULES = (
    (r"layer0\.0\.", "backbone.conv1."),
    (r"layer0\.1\.", "backbone.bn1."),
    (r"layer0\.3\.", "backbone.conv2."),
    (r"layer0\.4\.", "backbone.bn2."),
    (r"layer0\.6\.", "backbone.conv3."),
    (r"layer0\.7\.", "backbone.bn3."),
    (r"layer(?=[1-4]\.)", "backbone.layer"),
    (r"ppm\.features\.(\d+)\.1\.", r"pyramid.reduce.\1.0."),
    (r"ppm\.features\.(\d+)\.2\.", r"pyramid.reduce.\1.1."),
    (r"cls\.(?=[01]\.)", "refine."),
    (r"cls\.4\.", "classifier."),
    (r"aux\.", "auxiliary."),
)


def convert(architecture: str, weights: Mapping[str, Tensor]) -> ImportedModel:
    """The weights under our keys, with or without the auxiliary classifier. See `importers.foreign`."""
    require_known("semseg", architecture, NETWORKS)
    auxiliary = any(key.startswith("aux.") for key in weights)
    arguments = {"backbone": NETWORKS[architecture], "auxiliary": auxiliary}
    found = renamed(weights, _RULES)
    scores = found.get("classifier.weight")
    is_cityscapes = scores is not None and len(scores) == CITYSCAPES_CLASSES
    return ImportedModel("pspnet", arguments, found, resize=CITYSCAPES_RESIZE if is_cityscapes else RESIZE)
