"""Weights of YolactEdge's authors.

Source: github.com/haotian-liu/yolact_edge: `yolact_edge/yolact.py`, and the names of the configurations in
`yolact_edge/data/config.py`. Those for images (`yolact_edge`) and those of the first stage of training for video
(`yolact_edge_youtubevis`) are YOLACTs. The classes are in the order of the channels, after the background: COCO's 80,
or the 40 of YouTube-VIS by category id.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from pixelwise.errors import CheckpointError
from pixelwise.importers.foreign import ImportedModel, renamed, require_known
from pixelwise.importers.yolact import CLASSES_KEY, RULES, SIDE, square

NETWORKS: Mapping[str, tuple[str, str]] = {
    "yolact_edge": ("yolact", "resnet101"),
    "yolact_edge_resnet50": ("yolact", "resnet50"),
    "yolact_edge_youtubevis": ("yolact", "resnet101"),
    "yolact_edge_youtubevis_resnet50": ("yolact", "resnet50"),
    "yolact_edge_vid": ("yolact_edge", "resnet101"),
    "yolact_edge_vid_resnet50": ("yolact_edge", "resnet50"),
}
"""The authors' name, as the names of their files begin: our system and its backbone."""

_RULES = (
    (r"flow_net_pre_convs\.convs\.0\.", "flow_net.reduce."),
    *((rf"flow_net\.conv{number}\.", f"flow_net.encode{number + 2}.") for number in (1, 2, 3)),
    *((rf"flow_net\.pred{number}\.conv\.", f"flow_net.head{number + 2}.flow.") for number in (2, 3)),
    *((rf"flow_net\.pred{number}\.", f"flow_net.head{number + 2}.") for number in (2, 3)),
    (r"flow_net\.upfeat3\.", "flow_net.enlarge_features."),
    (r"flow_net\.upflow3\.", "flow_net.enlarge_flow."),
    (r"spa\.refine_convs\.", "refinement.layers."),
    *RULES,
)
_UNUSED = ("flow_net.pred1.", "flow_net.upfeat2.", "flow_net.upflow2.")
"""The flow at the resolution of P3, which is used in training alone."""


def convert(architecture: str, weights: Mapping[str, Tensor]) -> ImportedModel:
    """Convert the weights to our keys. See `importers.foreign`."""
    require_known("yolact_edge", architecture, NETWORKS)
    if CLASSES_KEY not in weights:
        raise CheckpointError(f"not the weights of yolact_edge {architecture}: there is no {CLASSES_KEY}")
    system, backbone = NETWORKS[architecture]
    used = {key: tensor for key, tensor in weights.items() if not key.startswith(_UNUSED)}
    # the two phases of their pyramid have the names that YOLACT's has in one
    pyramid = renamed(used, ((r"fpn_phase_[12]\.", "fpn."),))
    return ImportedModel(
        system,
        {"backbone": backbone},
        renamed(pyramid, _RULES),
        skipped=tuple(key for key in weights if key not in used),
        resize=square(SIDE),
        classes=weights[CLASSES_KEY].shape[0] + 1,
    )
