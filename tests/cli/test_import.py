"""`pixelwise import` end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import load_file, save_file

import pixelwise
from tests.cli.conftest import Run
from tests.cli.test_app import require_refusal
from tests.cli.test_app import run as run_apart
from tests.importers.foreign_networks import normalized, require_equal
from tests.nn.test_backbones import perturb_batch_norm


@pytest.fixture(scope="module")
def mobile(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, Path]:
    """torchvision's smallest DeepLab v3, and its weights as torch.save writes them."""
    torch.manual_seed(0)
    network = torchvision.models.segmentation.deeplabv3_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=21, aux_loss=True
    ).eval()
    perturb_batch_norm(network)
    path = tmp_path_factory.mktemp("theirs") / "weights.pth"
    torch.save(network.state_dict(), path)
    return network, path


@torch.no_grad()
def test_a_network_of_torchvision_becomes_a_model(mobile: tuple[torch.nn.Module, Path], tmp_path: Path) -> None:
    theirs, path = mobile
    result = run_apart("import", "torchvision", "deeplabv3_mobilenet_v3_large", path, "--out", tmp_path / "dl3")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0] == f"{len(theirs.state_dict())} tensors mapped, 0 missing, 0 unexpected"
    predictor = pixelwise.load(tmp_path / "dl3")
    assert predictor.labels.name == "voc"
    images = torch.rand(1, 3, 80, 112)
    output = predictor.model(images)
    for found, key in ((output.logits, "out"), (output.aux_logits, "aux")):
        enlarged = F.interpolate(found, size=(80, 112), mode="bilinear", align_corners=False)
        require_equal(enlarged, theirs(normalized(images))[key])
    again = run_apart("import", "torchvision", "deeplabv3_mobilenet_v3_large", path, "--out", tmp_path / "dl3")
    require_refusal(again, "is there already; add --overwrite")


def test_what_a_file_is_not_is_said_in_one_line(run: Run, mobile: tuple[torch.nn.Module, Path], tmp_path: Path) -> None:
    _, path = mobile
    for words, text in (
        (["torchvision", "fcn_resnet50", path], "not the weights of torchvision fcn_resnet50"),
        (["semseg", "pspnet50", path], "not the weights of semseg pspnet50"),
        (["smp", "DeepLabV3Plus", path], "the encoder of these weights is not known here"),
        (["timm", "resnet18", path], "not the weights of timm/resnet18: "),
        (["torchvision", "maskrcnn_resnet50_fpn", path], "no roi_heads.box_predictor.cls_score among its tensors"),
        (["detectron2", "mask_rcnn_R_50_FPN", path], "no roi_heads.box_predictor.cls_score among its tensors"),
        (["detectron2", "retinanet_R_50_FPN", path], "there are mask_rcnn_R_50_FPN"),
        (["torchvision", "nothing", path], "torchvision has no 'nothing' here"),
        (["torchvision", "fcn_resnet50", tmp_path / "none.pth"], "no such file"),
        (["mmseg", "x", path], "'mmseg' is not one of"),
        (
            ["torchvision", "deeplabv3_mobilenet_v3_large", path, "--labels", "camvid"],
            "11 classes, but the weights have",
        ),
        (["torchvision", "deeplabv3_mobilenet_v3_large", path, "--labels", "nil"], "--labels nil: no such file"),
    ):
        code, out, err = run("import", *words, "--out", tmp_path / "out")
        assert (code, out) == (2, "")
        assert err.startswith("pixelwise: ")
        assert err.count("\n") == 1, err
        assert text in err
        assert not (tmp_path / "out").exists()


def test_a_classifier_becomes_a_backbone_that_a_run_begins_with(tmp_path: Path) -> None:
    classifier = torchvision.models.resnet18(weights=None)
    perturb_batch_norm(classifier)
    source = tmp_path / "resnet18.safetensors"
    save_file(classifier.state_dict(), source)
    result = run_apart("import", "torchvision", "resnet18", source, "--out", tmp_path / "b", "--json")
    report = json.loads(result.stdout)
    assert (report["missing"], report["unexpected"], report["skipped"]) == (0, 0, 2)
    stored = load_file(report["file"])
    assert "fc.weight" not in stored
    assert torch.equal(stored["layer4.1.bn2.running_var"], classifier.layer4[1].bn2.running_var)
    same = run_apart("import", "timm", "resnet18", source, "--out", tmp_path / "c.safetensors")
    assert same.returncode == 0, same.stderr
    assert "--backbone timm/resnet18 --init" in same.stdout


def test_a_folder_of_smp_tells_its_output_stride(tmp_path: Path) -> None:
    network = smp.DeepLabV3Plus("resnet18", encoder_weights=None, classes=3, encoder_output_stride=8)
    network.save_pretrained(tmp_path / "theirs")
    (tmp_path / "names.txt").write_text("road\nfield\nriver\n")
    result = run_apart(
        "import",
        "smp",
        "DeepLabV3Plus",
        tmp_path / "theirs",
        "--labels",
        tmp_path / "names.txt",
        "--out",
        tmp_path / "o",
    )
    assert result.returncode == 0, result.stderr
    predictor = pixelwise.load(tmp_path / "o")
    assert predictor.card.arguments["output_stride"] == 8
    assert predictor.labels.names == ("road", "field", "river")
