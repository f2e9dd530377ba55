"""YOLACT's release, read aloud from its keys, and ours with the same weights give the same guesses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pixelwise.cli.import_weights import Family, import_weights
from pixelwise.errors import CheckpointError
from pixelwise.importers.foreign import require_fit
from pixelwise.importers.yolact import NETWORKS, convert, square
from pixelwise.inference.model_folder import read_model
from pixelwise.models import yolact
from tests.importers.yolact_release import (
    STAGES,
    random_weights,
    their_keys,
)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_every_released_tensor_has_its_place(name: str) -> None:
    keys = their_keys(name, classes=20 if "pascal" in name else 80)
    with torch.device("meta"):
        weights = {key: torch.empty(shape) for key, shape in keys.items()}
        model = convert(name, weights)
        network = yolact.build(num_classes=model.num_classes, **model.arguments)
    require_fit(model.weights, network.state_dict(), source=name, expected=name)
    assert len(model.weights) == len(weights)
    assert not model.skipped
    assert model.num_classes == (21 if "pascal" in name else 81)


def test_the_configurations_are_the_authors() -> None:
    with torch.device("meta"):
        models = {
            name: convert(name, {key: torch.empty(shape) for key, shape in their_keys(name).items()})
            for name in NETWORKS
        }
    anchors = {name: model.arguments.get("anchors", "square") for name, model in models.items()}
    assert {name for name, shape in anchors.items() if shape == "ratios"} == {
        "yolact_resnet50_pascal",
        "yolact_plus_base",
        "yolact_plus_resnet50",
    }
    assert models["yolact_im400"].arguments["anchor_sizes"] == (17, 34, 69, 139, 279)
    assert models["yolact_im700"].arguments["anchor_sizes"] == (30, 61, 122, 244, 488)
    assert models["yolact_im700"].arguments["masks_to_train"] == 300
    assert {name: model.resize.length for name, model in models.items()} == {
        **dict.fromkeys(NETWORKS, 550),
        "yolact_im400": 400,
        "yolact_im700": 700,
    }


def test_what_the_first_release_stored_beside_is_skipped() -> None:
    with torch.device("meta"):
        weights = {key: torch.empty(shape) for key, shape in their_keys("yolact_resnet50").items()}
        old = {
            "backbone.layer1.0.conv1.weight": torch.empty(64, 64, 1, 1),
            "fpn.downsample_layers.2.bias": torch.empty(256),
        }
        model = convert("yolact_resnet50", {**weights, **old})
    assert len(model.skipped) == 2
    assert len(model.weights) == len(weights)


def test_other_weights_are_refused() -> None:
    with pytest.raises(CheckpointError, match="yolact has no 'yolact_base2' here; there are yolact_base"):
        convert("yolact_base2", {})
    with pytest.raises(CheckpointError, match=r"there is no semantic_seg_conv.weight"):
        convert("yolact_base", {"fc.weight": torch.zeros(1)})
    with torch.device("meta"):
        model = convert("yolact_darknet53", {k: torch.empty(s) for k, s in their_keys("yolact_resnet50").items()})
        network = yolact.build(num_classes=81, **model.arguments)
    with pytest.raises(CheckpointError, match=r"not the weights of yolact_darknet53: 260 missing \(backbone\.stem"):
        require_fit(model.weights, network.state_dict(), source="w.pth", expected="yolact_darknet53")


def their_forward(weights: dict[str, Tensor], images: Tensor) -> dict[str, Tensor]:
    """`yolact.py` on a ResNet-50 as plain function calls; images RGB in [0, 1]."""

    def norm(x: Tensor, key: str) -> Tensor:
        return F.batch_norm(
            x, *(weights[f"{key}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        )

    def conv(x: Tensor, key: str, **options: int) -> Tensor:
        return F.conv2d(x, weights[f"{key}.weight"], weights.get(f"{key}.bias"), **options)

    mean, std = (torch.tensor(three).view(3, 1, 1) for three in ((103.94, 116.78, 123.68), (57.38, 57.12, 58.40)))
    bgr = images.flip(1) * 255
    x = ((bgr - mean) / std).flip(1)
    x = F.max_pool2d(F.relu(norm(conv(x, "backbone.conv1", stride=2, padding=3), "backbone.bn1")), 3, 2, 1)
    maps = []
    for stage, count in enumerate(STAGES["resnet50"]):
        for block in range(count):
            key, stride = f"backbone.layers.{stage}.{block}", 2 if stage and not block else 1
            y = F.relu(norm(conv(x, f"{key}.conv1"), f"{key}.bn1"))
            y = F.relu(norm(conv(y, f"{key}.conv2", stride=stride, padding=1), f"{key}.bn2"))
            y = norm(conv(y, f"{key}.conv3"), f"{key}.bn3")
            if not block:
                x = norm(conv(x, f"{key}.downsample.0", stride=stride), f"{key}.downsample.1")
            x = F.relu(x + y)
        maps.append(x)
    levels: list[Tensor] = []
    for place, x in enumerate(reversed(maps[1:])):
        lateral = conv(x, f"fpn.lat_layers.{place}")
        if levels:
            lateral = lateral + F.interpolate(levels[-1], x.shape[2:], mode="bilinear", align_corners=False)
        levels.append(lateral)
    levels = [F.relu(conv(x, f"fpn.pred_layers.{place}", padding=1)) for place, x in enumerate(levels)][::-1]
    for place in range(2):
        levels.append(conv(levels[-1], f"fpn.downsample_layers.{place}", stride=2, padding=1))
    x = levels[0]
    for place in (0, 2, 4):
        x = F.relu(conv(x, f"proto_net.{place}", padding=1))
    x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    proto = F.relu(conv(F.relu(conv(x, "proto_net.8", padding=1)), "proto_net.10"))
    found: dict[str, list[Tensor]] = {"bbox_layer": [], "conf_layer": [], "mask_layer": []}
    for level in levels:
        x = F.relu(conv(level, "prediction_layers.0.upfeature.0", padding=1))
        for key, size in (("bbox_layer", 4), ("conf_layer", 81), ("mask_layer", 32)):
            y = conv(x, f"prediction_layers.0.{key}", padding=1).permute(0, 2, 3, 1)
            found[key].append(y.reshape(len(y), -1, size))
    answers = {key: torch.cat(parts, dim=1) for key, parts in found.items()}
    return {**answers, "mask_layer": answers["mask_layer"].tanh(), "proto": proto}


@torch.no_grad()
def test_guesses_are_theirs() -> None:
    weights = random_weights("yolact_resnet50")
    model = convert("yolact_resnet50", weights)
    network = yolact.build(num_classes=81, **model.arguments).eval()
    network.load_state_dict(model.weights, strict=False)
    images = torch.rand(1, 3, 107, 150)
    output, theirs = network(images), their_forward(weights, images)
    pairs = {
        "bbox_layer": output.predictions.deltas,
        "conf_layer": output.predictions.logits,
        "mask_layer": output.predictions.coefficients,
        "proto": output.predictions.prototypes,
    }
    for key, found in pairs.items():
        wanted = theirs[key]
        assert found.shape == wanted.shape
        assert wanted.std() > 0.05 * wanted.abs().max()
        assert float((found - wanted).abs().max()) <= 1e-4 * float(wanted.abs().max()), key


def test_the_command_makes_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = random_weights("yolact_resnet50")
    source = tmp_path / "yolact_resnet50_54_800000.pth"
    torch.save(weights, source)
    import_weights(Family.yolact, "yolact_resnet50", source, out=tmp_path / "model")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{len(weights)} tensors mapped, 0 missing, 0 unexpected"
    assert lines[-1].endswith("labels 'coco'")
    network, card = read_model(tmp_path / "model")
    assert (card.system, card.resize, len(card.labels)) == ("yolact", square(550), 81)
    assert torch.equal(network.fpn.lateral[2][0].weight, weights["fpn.lat_layers.0.weight"])
