"""The UPSNet authors' layout of keys, by their modules, and what is turned round on the way."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pixelwise.cli.app import main
from pixelwise.errors import CheckpointError
from pixelwise.importers.foreign import require_fit
from pixelwise.importers.upsnet import NETWORKS, convert
from pixelwise.labels import published
from pixelwise.models.upsnet import build

Shapes = dict[str, tuple[int, ...]]

BLOCKS = {"50": (3, 4, 6, 3), "101": (3, 4, 23, 3)}
FILES = (
    "upsnet_resnet_50_coco_90000",
    "upsnet_resnet_101_dcn_coco_270000",
    "upsnet_resnet_50_cityscapes_12000",
    "upsnet_resnet_101_cityscapes_w_coco_3000",
)


def layer(prefix: str, *shape: int, bias: int | None = None) -> Shapes:
    return {f"{prefix}.weight": shape, f"{prefix}.bias": (shape[0] if bias is None else bias,)}


def norm(prefix: str, width: int) -> Shapes:
    return {f"{prefix}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}


def shapes_of(file: str) -> Shapes:
    """What the release's `resnet_upsnet.state_dict()` holds."""
    is_coco, is_deformable = "_coco_" in file and "cityscapes" not in file, "_dcn_" in file
    things, classes = (80, 133) if is_coco else (8, 19)
    body = "resnet_backbone"
    shapes: Shapes = {f"{body}.conv1.conv1.weight": (64, 3, 7, 7), **norm(f"{body}.conv1.bn1", 64)}
    before = 64
    for number, (blocks, width) in enumerate(zip(BLOCKS[file.split("_")[2]], (64, 128, 256, 512), strict=True)):
        for block in range(blocks):
            begin = f"{body}.res{number + 2}.layers.{block}"
            shapes[f"{begin}.conv1.weight"] = (width, before, 1, 1)
            shapes[f"{begin}.conv2.weight"] = (width, width, 3, 3)
            shapes[f"{begin}.conv3.weight"] = (4 * width, width, 1, 1)
            for place, channels in ((1, width), (2, width), (3, 4 * width)):
                shapes |= norm(f"{begin}.bn{place}", channels)
            if number and is_deformable:
                shapes |= layer(f"{begin}.conv2_offset", 18, width, 3, 3)
            if not block:
                shapes[f"{begin}.downsample.0.weight"] = (4 * width, before, 1, 1)
                shapes |= norm(f"{begin}.downsample.1", 4 * width)
            before = 4 * width
    for level in (2, 3, 4, 5):
        shapes |= layer(f"fpn.fpn_p{level}_1x1", 256, 64 * 2**level, 1, 1)
        shapes |= layer(f"fpn.fpn_p{level}", 256, 256, 3, 3)
    if is_coco:
        shapes |= layer("fpn.fpn_gap", 256, 2048)
    shapes |= layer("rpn.conv_proposal.0", 256, 256, 3, 3)
    shapes |= layer("rpn.cls_score", 3, 256, 1, 1) | layer("rpn.bbox_pred", 12, 256, 1, 1)
    shapes |= layer("rcnn.fc6.0", 1024, 256 * 49) | layer("rcnn.fc7.0", 1024, 1024)
    shapes |= layer("rcnn.cls_score", things + 1, 1024) | layer("rcnn.bbox_pred", 4 * (things + 1), 1024)
    for number in (1, 2, 3, 4):
        shapes |= layer(f"mask_branch.mask_conv{number}.0", 256, 256, 3, 3)
    shapes |= layer("mask_branch.mask_deconv1.0", 256, 256, 2, 2)
    shapes |= layer("mask_branch.mask_score", things + 1, 256, 1, 1)
    widths = [(256, 256), (128, 256), (128, 128)] if is_coco else [(128, 256), (128, 128)]
    for number, (width, former) in enumerate(widths):
        begin = f"fcn_head.fcn_subnet.conv.{number}.0"
        shapes |= layer(f"{begin}.conv_offset", 18, former, 3, 3) | layer(f"{begin}.conv", width, former, 3, 3)
    return shapes | layer("fcn_head.score", classes, 512, 1, 1)


def tensors_of(file: str, device: str) -> dict[str, Tensor]:
    return {key: torch.empty(shape, device=device) for key, shape in shapes_of(file).items()}


@pytest.mark.parametrize("file", FILES)
def test_every_tensor_of_the_releases_has_a_place(file: str) -> None:
    model = convert(file, tensors_of(file, "meta"))
    with torch.device("meta"):
        network = build(num_classes=model.num_classes, **model.arguments)
    require_fit(model.weights, network.state_dict(), source=file, expected=file)
    assert len(model.weights) == len(shapes_of(file))
    assert json.loads(json.dumps(model.arguments)).keys() == model.arguments.keys()
    labels = published("coco_panoptic" if model.num_classes == 133 else "cityscapes")
    assert len(labels) == model.num_classes
    things = tuple(index for index, is_thing in enumerate(labels.is_thing) if is_thing)
    assert network.things == things, "in the order of the label set"


def numbered(file: str) -> dict[str, Tensor]:
    """Scores that tell their channel, all else one number."""
    tensors = {key: torch.ones(1) for key in shapes_of(file)}
    shapes = shapes_of(file)
    for key in ("rcnn.cls_score", "mask_branch.mask_score", "fcn_head.score", "rcnn.bbox_pred"):
        for part in ("weight", "bias"):
            shape = shapes[f"{key}.{part}"]
            rows = torch.arange(float(shape[0])).view(-1, *(1,) * (len(shape) - 1))
            tensors[f"{key}.{part}"] = rows.expand(shape)
    tensors["resnet_backbone.conv1.conv1.weight"] = torch.arange(3.0).view(1, 3, 1, 1).expand(64, 3, 7, 7)
    return tensors


def test_scores_stand_in_the_order_of_cocos_categories() -> None:
    """Things before stuff there, the background first and unread; colours RGB."""
    weights = convert(FILES[0], numbered(FILES[0])).weights
    assert weights["semantic_head.score.bias"].tolist() == [*range(53, 133), *range(53)]
    assert weights["semantic_head.score.weight"][:, 0, 0, 0].tolist() == [*range(53, 133), *range(53)]
    assert weights["box_predictor.classes.bias"].tolist() == [*range(81)]
    assert weights["box_predictor.deltas.bias"].tolist() == [*range(4, 324)]
    assert weights["mask_head.predictor.bias"].tolist() == [*range(1, 81)]
    assert weights["mask_head.predictor.weight"].shape == (80, 256)
    assert weights["backbone.conv1.weight"][0, :, 0, 0].tolist() == [2, 1, 0]


def test_cityscapes_keeps_its_order() -> None:
    weights = convert(FILES[2], numbered(FILES[2])).weights
    assert weights["semantic_head.score.bias"].tolist() == [*range(19)]


def test_what_is_something_else_is_named() -> None:
    with pytest.raises(CheckpointError, match=f"there are {', '.join(NETWORKS)}"):
        convert("upsnet_resnet_18", {})
    with pytest.raises(CheckpointError, match=r"no fcn_head\.score or no rcnn\.cls_score among its tensors"):
        convert(FILES[0], {"conv1.weight": torch.ones(1)})


def test_the_command_reads_a_pickle_of_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names under `module.`, as the release's training stores them."""
    file = tmp_path / "upsnet.pth"
    torch.manual_seed(0)
    stored = {f"module.{key}": torch.rand(shape, dtype=torch.float16) for key, shape in shapes_of(FILES[2]).items()}
    torch.save(stored, file)
    out = tmp_path / "model"
    arguments = ("import", "upsnet", FILES[2], file, "--out", out)
    monkeypatch.setattr(sys, "argv", ["pixelwise", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code in (0, None), capsys.readouterr().err
    assert f"{len(stored)} tensors mapped, 0 missing, 0 unexpected" in capsys.readouterr().out
    card = json.loads((out / "model.json").read_text())
    assert card["task"] == "panoptic"
    assert card["labels"]["name"] == "cityscapes"
