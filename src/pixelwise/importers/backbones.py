"""Weights of torchvision's and timm's classifiers, as backbones."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import torchvision
from torch import Tensor

from pixelwise.errors import RecipeError
from pixelwise.importers.foreign import (
    ImportedBackbone,
    MisfitError,
    UnknownNetworkError,
    first_of,
    require_fit,
    surplus,
)
from pixelwise.nn.backbone import Backbone
from pixelwise.nn.backbones import TIMM, backbone_weights, build_backbone


def convert_backbone(name: str, weights: Mapping[str, Tensor]) -> ImportedBackbone:
    """Select the tensors of a classifier that its backbone has, under the backbone's keys.

    Args:
        name: of the backbone, see `nn.backbones.build_backbone`.
        weights: of the classifier.

    Raises:
        CheckpointError: an unknown backbone, or tensors of another network.
    """
    backbone, whole = _networks(name)
    found = backbone_weights(backbone, weights)
    require_fit(found, backbone.state_dict(), expected=name)
    skipped = tuple(key for key in weights if not _is_used(key, found))
    beside = surplus(skipped, whole)
    strange = [key for key in skipped if key not in whole and key not in beside]
    if strange:
        raise MisfitError(
            f"not the weights of {name}: {len(strange)} unexpected ({first_of(strange)})", differences=len(strange)
        )
    return ImportedBackbone(name, found, skipped=skipped)


def _is_used(key: str, found: Mapping[str, Tensor]) -> bool:
    """Whether a classifier's tensor is among the backbone's; see `nn.backbones.backbone_weights` for timm's names."""
    joined = key.replace(".", "_", 1)
    return any(name in found for name in (key, f"network.{key}", f"network.{joined}"))


@cache
def _networks(name: str) -> tuple[Backbone, frozenset[str]]:
    """The backbone, and the names of the tensors of its classifier."""
    try:
        backbone = build_backbone(name, output_stride=32)
    except RecipeError as error:
        raise UnknownNetworkError(str(error)) from None
    if name.startswith(TIMM):
        import timm

        classifier = timm.create_model(name.removeprefix(TIMM), pretrained=False)
    else:
        classifier = torchvision.models.get_model(name, weights=None)
    return backbone, frozenset(classifier.state_dict())
