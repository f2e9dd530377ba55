"""torchvision's Mask R-CNNs and ours with the same weights find the same objects."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from skimage import data
from torch import Tensor
from torchvision.models import detection

from pixelwise.contracts import Sizes
from pixelwise.errors import CheckpointError
from pixelwise.importers.foreign import ImportedModel
from pixelwise.importers.torchvision import convert
from pixelwise.labels import published
from pixelwise.models.mask_rcnn import MaskRCNN, build
from pixelwise.types import Annotation, Batch
from tests.importers.foreign_networks import ours
from tests.importers.torchvision_detectors import require_same_objects, their_model

NAMES = ("maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2")
PROPOSALS, DETECTIONS = 80, 15
"""Less than usual, for speed; the numbers that are usual are compared by themselves."""


def batch_of(images: Tensor, valid: list[tuple[int, int]], original: list[tuple[int, int]]) -> Batch:
    count = len(images)
    zeros = torch.zeros(count, dtype=torch.int64)
    return Batch(
        images=images,
        valid_sizes=torch.tensor(valid),
        original_sizes=torch.tensor(original),
        truth=(Annotation(),) * count,
        ids=("",) * count,
        clip_index=zeros,
        frame_index=zeros,
    )


def our_model(model: ImportedModel, **changes: Any) -> MaskRCNN:
    network = ours(ImportedModel(model.system, {**model.arguments, **changes}, model.weights, classes=model.classes))
    assert isinstance(network, MaskRCNN)
    return network


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_what_is_found_is_theirs(name: str) -> None:
    # one photograph that is brought to half its size, and one that is smaller and padded
    astronaut, cat = (
        torch.from_numpy(picture).permute(2, 0, 1).float() / 255 for picture in (data.astronaut(), data.chelsea())
    )
    images = [astronaut[:, :400, :512], cat[:, 50:250, 80:310]]
    theirs = their_model(
        name,
        images[1:],
        min_size=200,
        max_size=256,
        rpn_pre_nms_top_n_test=PROPOSALS,
        rpn_post_nms_top_n_test=PROPOSALS,
        box_detections_per_img=DETECTIONS,
    )
    network = our_model(
        convert(name, theirs.state_dict()),
        pre_nms_topk=(2000, PROPOSALS),
        post_nms_topk=(2000, PROPOSALS),
        max_detections=DETECTIONS,
    )
    resized = F.interpolate(images[0][None], scale_factor=0.5, mode="bilinear", recompute_scale_factor=True)
    padded = torch.full((2, 3, 200, 256), 0.7)  # what lies beyond the valid size is ignored
    padded[0], padded[1, :, :, :230] = resized[0], images[1]
    batch = batch_of(padded, [(200, 256), (200, 230)], [(400, 512), (200, 230)])
    expected = theirs(images)
    annotations = network.decode(network(batch.images, batch.valid_sizes), Sizes.of(batch))
    assert len({int(label) for one in expected for label in one["labels"]}) > 2
    for found, one in zip(annotations, expected, strict=True):
        require_same_objects(found, one, at_least=10)


@pytest.mark.parametrize("name", NAMES)
def test_the_usual_numbers_are_theirs(name: str) -> None:
    with torch.device("meta"):
        theirs: Any = getattr(detection, name)(weights=None, weights_backbone=None)
        weights = {key: torch.empty(tensor.shape, device="cpu") for key, tensor in theirs.state_dict().items()}
        arguments = convert(name, weights).arguments
        network = build(num_classes=91, **arguments)
    rpn, heads = theirs.rpn, theirs.roi_heads
    assert network.rpn.pre_nms_topk == (rpn._pre_nms_top_n["training"], rpn._pre_nms_top_n["testing"])
    assert network.rpn.post_nms_topk == (rpn._post_nms_top_n["training"], rpn._post_nms_top_n["testing"])
    assert network.rpn.nms_threshold == rpn.nms_thresh
    assert network.rpn.smallest_side == rpn.min_size
    assert network.rpn.positive_overlap == rpn.proposal_matcher.high_threshold
    assert network.rpn.negative_overlap == rpn.proposal_matcher.low_threshold
    assert network.rpn.samples == rpn.fg_bg_sampler.batch_size_per_image
    assert network.rpn.positive_fraction == rpn.fg_bg_sampler.positive_fraction
    assert network.thresholds.score == heads.score_thresh
    assert network.nms_threshold == heads.nms_thresh
    assert network.thresholds.max_detections == heads.detections_per_img
    assert network.samples == heads.fg_bg_sampler.batch_size_per_image
    assert network.positive_fraction == heads.fg_bg_sampler.positive_fraction
    # a channel of boxes and of masks for the background, which nothing uses, is skipped here
    background = 4 * (1024 + 1) + 256 + 1
    counts = [sum(parameter.numel() for parameter in one.parameters()) for one in (theirs, network)]
    assert counts[0] - counts[1] == background


def test_of_91_channels_those_that_are_classes_are_taken() -> None:
    ids = torch.tensor(published("coco").dataset_ids)
    weights = {
        "roi_heads.box_predictor.cls_score.weight": torch.arange(91.0)[:, None].expand(-1, 8),
        "roi_heads.box_predictor.cls_score.bias": torch.arange(91.0),
        "roi_heads.box_predictor.bbox_pred.weight": torch.arange(364.0)[:, None].expand(-1, 8),
        "roi_heads.mask_predictor.mask_fcn_logits.weight": torch.arange(91.0)[:, None, None, None].expand(-1, 8, 1, 1),
        "roi_heads.mask_predictor.mask_fcn_logits.bias": torch.arange(91.0),
    }
    model = convert("maskrcnn_resnet50_fpn", weights)
    assert model.num_classes == 81
    found = model.weights
    assert found["box_predictor.classes.bias"].tolist() == ids.tolist()
    assert found["box_predictor.classes.weight"][:, 3].tolist() == ids.tolist()
    assert found["box_predictor.deltas.weight"][:, 0].tolist() == [
        float(4 * channel + part) for channel in ids[1:] for part in range(4)
    ]
    assert found["mask_head.predictor.weight"].shape == (80, 8)
    assert found["mask_head.predictor.bias"].tolist() == ids[1:].tolist()
    # the fork is the 43rd class, and COCO's 48th category
    assert published("coco").names[43] == "fork"
    assert found["box_predictor.classes.bias"][43] == 48


def test_the_names_of_2019_are_known_too() -> None:
    with torch.device("meta"):
        theirs = detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4)
    new = {key: torch.empty(tensor.shape) for key, tensor in theirs.state_dict().items()}
    old = {}
    for key, tensor in new.items():
        for block in ("inner_blocks", "layer_blocks"):
            key = key.replace(f"{block}.0.0.", f"{block}.0.").replace(f"{block}.1.0.", f"{block}.1.")
            key = key.replace(f"{block}.2.0.", f"{block}.2.").replace(f"{block}.3.0.", f"{block}.3.")
        key = key.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        for number in range(4):
            key = key.replace(f"mask_head.{number}.0.", f"mask_head.mask_fcn{number + 1}.")
        if not key.endswith("num_batches_tracked"):
            old[key] = tensor
    assert "roi_heads.mask_head.mask_fcn4.bias" in old
    # torchvision itself reads them so
    assert not theirs.load_state_dict(old, strict=False, assign=True).unexpected_keys
    renamed = convert("maskrcnn_resnet50_fpn", old)
    expected = {key for key in convert("maskrcnn_resnet50_fpn", new).weights if not key.endswith("num_batches_tracked")}
    assert set(renamed.weights) == expected


@torch.no_grad()
def test_frozen_batch_norms_add_nothing_whatever_the_style_of_keys() -> None:
    """The weights of 2019 as torchvision stores them again, under its newer keys: the eps is that of the weights."""
    with torch.device("meta"):
        frozen = detection.MaskRCNN(
            detection.backbone_utils.resnet_fpn_backbone(backbone_name="resnet50", weights=None), num_classes=4
        )
        counted = detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4)
    new = {key: torch.empty(tensor.shape) for key, tensor in frozen.state_dict().items()}
    assert "rpn.head.conv.0.0.weight" in new
    old = {key.replace("rpn.head.conv.0.0.", "rpn.head.conv."): tensor for key, tensor in new.items()}
    for weights in (new, old):
        model = convert("maskrcnn_resnet50_fpn", weights)
        assert model.arguments["batch_norm_eps"] == 0.0
        assert "batch norms are frozen" in model.notes[0]
    new = {key: torch.empty(tensor.shape) for key, tensor in counted.state_dict().items()}
    old = {key.replace("rpn.head.conv.0.0.", "rpn.head.conv."): tensor for key, tensor in new.items()}
    for weights in (new, old):
        model = convert("maskrcnn_resnet50_fpn", weights)
        assert "batch_norm_eps" not in model.arguments
        assert not model.notes


def test_other_files_are_named() -> None:
    with pytest.raises(CheckpointError, match=r"no roi_heads\.box_predictor\.cls_score among its tensors \(conv1"):
        convert("maskrcnn_resnet50_fpn", {"conv1.weight": torch.zeros(1)})
