"""torchvision's own networks and ours with the same weights give the same scores."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision

from pixelwise.errors import CheckpointError
from pixelwise.importers.foreign import require_fit
from pixelwise.importers.torchvision import NETWORKS, convert
from pixelwise.inference.systems import system_module
from tests.importers.foreign_networks import normalized, ours, require_equal
from tests.perturbed import perturb_batch_norm


@pytest.mark.parametrize("auxiliary", [True, False])
@pytest.mark.parametrize("name", [name for name, (system, _) in NETWORKS.items() if system != "mask_rcnn"])
@torch.no_grad()
def test_scores_are_theirs(name: str, auxiliary: bool) -> None:
    if "101" in name and not auxiliary:
        pytest.skip("the depth changes nothing about the missing head")
    torch.manual_seed(0)
    build = getattr(torchvision.models.segmentation, name)
    theirs = build(weights=None, weights_backbone=None, num_classes=7, aux_loss=auxiliary).eval()
    perturb_batch_norm(theirs)
    network = ours(convert(name, theirs.state_dict()))
    images = torch.rand(2, 3, 97, 65)
    expected, found = theirs(normalized(images)), network(images)
    for key, logits in (("out", found.logits), ("aux", found.aux_logits)):
        if key not in expected:
            assert logits is None
            continue
        assert float(expected[key].std()) > 1e-3, "a flat answer proves nothing"
        require_equal(F.interpolate(logits, size=(97, 65), mode="bilinear", align_corners=False), expected[key])


def test_another_network_is_named_with_the_first_keys_that_differ() -> None:
    weights = torchvision.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None).state_dict()
    model = convert("deeplabv3_resnet50", weights)
    network = system_module(model.system).build(num_classes=21, **model.arguments)
    with pytest.raises(CheckpointError, match=r"w\.pth: not the weights of .*missing \(context\.branches"):
        require_fit(model.weights, network.state_dict(), source="w.pth", expected="torchvision deeplabv3_resnet50")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(
        CheckpointError, match=r"no weights of fcn: none of the tensors \(a, …\) gives logits of classes"
    ):
        _ = convert("fcn_resnet50", {"a": torch.zeros(1)}).num_classes
    with pytest.raises(CheckpointError, match="'lraspp' here; there are fcn_resnet50"):
        convert("lraspp", {})
