"""`pixelwise import` end to end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import skimage
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import load_file, save_file

import pixelwise
from pixelwise.inference.load import WEIGHTS_FOLDER
from tests.cli.conftest import Run
from tests.cli.own_process import require_refusal, run_apart
from tests.importers.foreign_networks import normalized, require_equal
from tests.perturbed import perturb_batch_norm


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


def test_a_lightning_checkpoint_of_a_binary_network_is_imported(run: Run, tmp_path: Path) -> None:
    """With what Lightning and a loss put beside the weights."""
    network = smp.DeepLabV3Plus("mobilenet_v2", encoder_weights=None, classes=1).eval()
    perturb_batch_norm(network)
    state = {f"model._orig_mod.{key}": tensor for key, tensor in network.state_dict().items()}
    content = {
        "epoch": 3,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {"mean": torch.zeros(3), "criterion.weight": torch.ones(1), **state},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []}],
    }
    torch.save(content, tmp_path / "last.ckpt")
    words = ("import", "smp", "DeepLabV3Plus", tmp_path / "last.ckpt", "--out", tmp_path / "out")
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    assert out.splitlines()[:3] == [
        f"{len(state)} tensors mapped, 0 missing, 0 unexpected",
        "2 tensors skipped that are not used: state_dict.mean, state_dict.criterion.weight",
        "the tensors under 'state_dict.model' are taken",
    ]
    assert "one channel with a sigmoid: two classes, the foreground where it is above 0.5" in out
    assert pixelwise.load(tmp_path / "out").labels.names == ("background", "foreground")
    (tmp_path / "names.txt").write_text("road\n")
    code, out, err = run(*words, "--labels", tmp_path / "names.txt", "--overwrite", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["skipped"] == 2
    assert pixelwise.load(tmp_path / "out").labels.names == ("background", "road")


def test_a_part_of_a_file_can_be_chosen(run: Run, mobile: tuple[torch.nn.Module, Path], tmp_path: Path) -> None:
    theirs, _ = mobile
    other = {key: tensor + 1 if tensor.is_floating_point() else tensor for key, tensor in theirs.state_dict().items()}
    torch.save({"model": theirs.state_dict(), "model_ema": {"module": other}}, tmp_path / "both.pth")
    words = ("import", "torchvision", "deeplabv3_mobilenet_v3_large", tmp_path / "both.pth", "--overwrite", "--out")
    key = "classifier.4.bias"
    for options, expected in (((), theirs.state_dict()[key]), (("--part", "model_ema"), other[key])):
        code, _, err = run(*words, tmp_path / "out", *options)
        assert (code, err) == (0, "")
        assert torch.equal(pixelwise.load(tmp_path / "out").model.state_dict()["classifier.bias"], expected)
    code, _, err = run(*words, tmp_path / "out", "--part", "best")
    assert code == 2
    assert err == f"pixelwise: {tmp_path / 'both.pth'}: no tensors under 'best'; there are model, model_ema\n"


def test_weights_that_are_not_finite_are_refused(
    run: Run, mobile: tuple[torch.nn.Module, Path], tmp_path: Path
) -> None:
    tensors = dict(mobile[0].state_dict())
    tensors["classifier.4.weight"] = tensors["classifier.4.weight"] * float("nan")
    torch.save(tensors, tmp_path / "nan.pth")
    code, out, err = run(
        "import", "torchvision", "deeplabv3_mobilenet_v3_large", tmp_path / "nan.pth", "--out", tmp_path / "out"
    )
    assert (code, out) == (2, "")
    assert err.startswith(f"pixelwise: {tmp_path / 'nan.pth'}: 'classifier.4.weight' holds NaN or infinite numbers")
    assert not (tmp_path / "out").exists()


def test_damaged_models_are_refused_by_every_command(run: Run, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(WEIGHTS_FOLDER / "default", model)
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1000] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    image = Path(skimage.__path__[0]) / "data" / "chelsea.png"
    for words in (("predict", image, "--model", model, "--out", tmp_path / "out"),):
        code, out, err = run(*words)
        assert (code, out) == (2, "")
        assert err.startswith(f"pixelwise: {model / 'model.safetensors'}: not the weights that model.json was written")
        assert err.count("\n") == 1
