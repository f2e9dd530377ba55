"""Weights of segmentation_models_pytorch: DeepLabV3Plus and PSPNet on torchvision's ResNets and MobileNet V2.

The encoder is recognised by its tensors. What they do not show, the output stride, is 16 unless it is said.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from pixelwise.errors import CheckpointError
from pixelwise.importers.foreign import ImportedModel, UnknownNetworkError, number_of, renamed

NETWORKS = ("DeepLabV3Plus", "PSPNet")

_THIRD_STAGES = {(2, False): 18, (6, False): 34, (6, True): 50, (23, True): 101, (36, True): 152}
"""Blocks of the third stage, and whether they are bottlenecks: depth of the ResNet."""
_ENCODER = ((r"encoder\.", "backbone."),)
_DEEPLAB_RULES = (
    (r"decoder\.aspp\.0\.convs\.([123])\.0\.0\.", r"aspp.branches.\1.0."),
    (r"decoder\.aspp\.0\.convs\.([123])\.0\.1\.", r"aspp.branches.\1.1."),
    (r"decoder\.aspp\.0\.convs\.([123])\.1\.", r"aspp.branches.\1.2."),
    (r"decoder\.aspp\.0\.convs\.4\.1\.", "aspp.branches.4.conv.0."),
    (r"decoder\.aspp\.0\.convs\.4\.2\.", "aspp.branches.4.conv.1."),
    (r"decoder\.aspp\.0\.convs\.0\.", "aspp.branches.0."),
    (r"decoder\.aspp\.0\.project\.", "aspp.project."),
    (r"decoder\.aspp\.1\.", "after_aspp."),
    (r"decoder\.aspp\.2\.", "after_aspp.2."),
    (r"decoder\.block1\.", "decoder.project."),
    (r"decoder\.block2\.0\.", "decoder.refine.0."),
    (r"decoder\.block2\.1\.", "decoder.refine.0.2."),
    (r"segmentation_head\.0\.", "classifier."),
)
_PSPNET_RULES = (
    (r"decoder\.psp\.blocks\.(\d+)\.pool\.1\.", r"pyramid.reduce.\1."),
    (r"decoder\.conv\.", "refine."),
    (r"segmentation_head\.0\.", "classifier."),
)


def convert(architecture: str, weights: Mapping[str, Tensor], *, output_stride: int = 16) -> ImportedModel:
    """The weights under our keys; the architecture in any case. See `importers.foreign`.

    Args:
        architecture: one of NETWORKS.
        weights: of a known encoder.
        output_stride: `encoder_output_stride` of DeepLabV3Plus.
    """
    name = next((name for name in NETWORKS if name.lower() == architecture.lower()), None)
    if name is None:
        raise UnknownNetworkError(f"smp has no '{architecture}' here; there are {', '.join(NETWORKS)}")
    backbone = _encoder(weights)
    if name == "DeepLabV3Plus":
        arguments = {
            "backbone": backbone,
            "output_stride": output_stride,
            "first_block": "full",
            "rates": tuple(rate * output_stride // 16 for rate in (12, 24, 36)),
            "layout": "smp",
            "dropout": 0.5,
        }
        return ImportedModel("deeplab_v3_plus", arguments, renamed(weights, (*_ENCODER, *_DEEPLAB_RULES)))
    used = {key: tensor for key, tensor in weights.items() if not key.startswith(_unused_by_pspnet(backbone))}
    arguments = {"backbone": backbone, "layout": "smp", "auxiliary": False, "dropout": 0.2}
    return ImportedModel(
        "pspnet",
        arguments,
        renamed(used, (*_ENCODER, *_PSPNET_RULES)),
        skipped=tuple(key for key in weights if key not in used),
    )


def _encoder(weights: Mapping[str, Tensor]) -> str:
    if "encoder.features.18.0.weight" in weights:
        return "mobilenet_v2_1280"
    blocks = number_of(weights, r"encoder\.layer3\.(\d+)\.")
    depth = _THIRD_STAGES.get((blocks, "encoder.layer1.0.conv3.weight" in weights))
    if depth is None:
        first = next((key for key in weights if key.startswith("encoder.")), next(iter(weights), "nothing"))
        raise CheckpointError(
            f"the encoder of these weights is not known here ('{first}' …); "
            "those of torchvision's ResNets (resnet18 to resnet152) and MobileNet V2 are"
        )
    return f"resnet{depth}"


def _unused_by_pspnet(backbone: str) -> tuple[str, ...]:
    """Where smp's tensors of layers beyond stride 8 begin, which its PSPNet holds but does not use."""
    if backbone.startswith("resnet"):
        return ("encoder.layer3.", "encoder.layer4.")
    return tuple(f"encoder.features.{block}." for block in range(7, 19))
