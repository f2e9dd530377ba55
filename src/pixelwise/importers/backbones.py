"""Weights of torchvision's and timm's classifiers, as backbones."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from pixelwise.errors import CheckpointError, RecipeError
from pixelwise.importers.foreign import require_fit
from pixelwise.nn.backbones import backbone_weights, build_backbone


def convert_backbone(name: str, weights: Mapping[str, Tensor], *, source: str) -> tuple[dict[str, Tensor], int]:
    """Those of a classifier's tensors that its backbone has, under the backbone's keys.

    Args:
        name: of the backbone, see `nn.backbones.build_backbone`.
        weights: of the classifier.
        source: their file, for the message.

    Returns:
        the tensors, and how many were left out: those of the classifier's last layers.

    Raises:
        CheckpointError: there is no such backbone, or the tensors are not its own.
    """
    try:
        backbone = build_backbone(name, output_stride=32)
    except RecipeError as error:
        raise CheckpointError(str(error)) from None
    found = backbone_weights(backbone, weights)
    require_fit(found, backbone.state_dict(), source=source, expected=name)
    return found, len(weights) - len(found)
