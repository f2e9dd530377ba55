"""segmentation_models_pytorch's own networks and ours with the same weights give the same scores."""

from __future__ import annotations

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F

from pixelwise.errors import CheckpointError
from pixelwise.importers.smp import convert
from tests.importers.foreign_networks import normalized, ours, require_equal
from tests.perturbed import perturb_batch_norm


@pytest.mark.parametrize(
    ("name", "encoder", "output_stride"),
    [
        ("DeepLabV3Plus", "mobilenet_v2", 16),
        ("DeepLabV3Plus", "resnet18", 16),
        ("DeepLabV3Plus", "resnet50", 8),
        ("PSPNet", "mobilenet_v2", 32),
        ("PSPNet", "resnet34", 32),
        ("PSPNet", "resnet50", 32),
    ],
)
@torch.no_grad()
def test_scores_are_theirs(name: str, encoder: str, output_stride: int) -> None:
    torch.manual_seed(0)
    options = {"encoder_output_stride": output_stride} if name == "DeepLabV3Plus" else {}
    theirs = getattr(smp, name)(encoder, encoder_weights=None, classes=5, **options).eval()
    perturb_batch_norm(theirs)
    model = convert(name, theirs.state_dict(), output_stride=output_stride)
    network = ours(model)
    images = torch.rand(2, 3, 96, 128)
    expected = theirs(normalized(images))
    assert float(expected.std()) > 1e-3, "a flat answer proves nothing"
    assert network.traits.align_corners
    found = F.interpolate(network(images).logits, size=(96, 128), mode="bilinear", align_corners=True)
    require_equal(found, expected)
    assert len(model.skipped) == (0 if name == "DeepLabV3Plus" else len(theirs.state_dict()) - len(model.weights))


def test_other_encoders_are_refused_by_name() -> None:
    weights = smp.PSPNet("timm-regnetx_002", encoder_weights=None).state_dict()
    with pytest.raises(CheckpointError, match=r"the encoder of these weights is not known here \('encoder\."):
        convert("PSPNet", weights)
    with pytest.raises(CheckpointError, match="'Unet' here; there are DeepLabV3Plus, PSPNet"):
        convert("Unet", weights)
