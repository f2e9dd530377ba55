"""From files to detections and maps: torchvision's transforms and networks, and `import` and `predict` with the same.

The weights are random, and spread so that there are many detections and classes.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torchvision.models import segmentation
from torchvision.transforms._presets import SemanticSegmentation
from torchvision.transforms.functional import to_tensor

import pixelwise
from pixelwise.cli.import_weights import Family, import_weights
from pixelwise.inference.predictor import Predictor
from tests.importers.torchvision_detectors import require_same_objects, their_model
from tests.perturbed import perturb_batch_norm
from tests.photographs import photographs


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("photographs")
    paths = {name: folder / f"{name}.png" for name in photographs()}
    for name, photograph in photographs().items():
        Image.fromarray(photograph).save(paths[name])
    return paths


def imported(network: nn.Module, name: str, folder: Path) -> Predictor:
    torch.save(network.state_dict(), folder / f"{name}.pth")
    import_weights(Family.torchvision, name, folder / f"{name}.pth", out=folder / "model")
    return pixelwise.load(folder / "model", device="cpu")


@pytest.mark.slow
@torch.no_grad()
def test_detections_in_files_are_those_of_torchvisions_mask_rcnn(files: dict[str, Path], tmp_path: Path) -> None:
    name = "maskrcnn_resnet50_fpn"
    theirs = their_model(name, [to_tensor(Image.open(files["square"]))])
    predictor = imported(theirs, name, tmp_path)
    for path in files.values():
        (expected,) = theirs([to_tensor(Image.open(path))])
        # at most 100, as torchvision's own default; those of random weights are small
        found = predictor(path, score_threshold=0.05).annotation
        require_same_objects(found, expected, at_least=100, pixels_at_least=100)


@torch.no_grad()
def test_maps_of_files_are_those_of_torchvisions_deeplab(files: dict[str, Path], tmp_path: Path) -> None:
    name = "deeplabv3_mobilenet_v3_large"
    torch.manual_seed(0)
    theirs = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=21, aux_loss=True).eval()
    perturb_batch_norm(theirs)
    transform = SemanticSegmentation(resize_size=520)
    scores = theirs(transform(Image.open(files["square"]))[None])["out"][0].flatten(1)
    last = theirs.classifier[-1]
    last.bias.copy_((last.bias - scores.mean(dim=1)) / scores.std(dim=1))
    last.weight.div_(scores.std(dim=1).view(-1, 1, 1, 1))
    predictor = imported(theirs, name, tmp_path)
    for path in files.values():
        picture = Image.open(path)
        logits = theirs(transform(picture)[None])["out"]
        expected = F.interpolate(logits, size=picture.size[::-1], mode="bilinear", align_corners=False)[0]
        assert len(expected.argmax(dim=0).unique()) > 5, "a flat map proves nothing"
        assert (predictor(path).semantic == expected.argmax(dim=0)).float().mean() > 0.999
        found = predictor.logits(path, size=(logits.shape[2], logits.shape[3]))
        assert (found - logits[0]).abs().max() < 1e-3 * logits.abs().max()
