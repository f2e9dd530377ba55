"""DeepLab v3+ against torchvision's ASPP, a literal decoder, and what the paper says of its shape."""

from __future__ import annotations

from inspect import unwrap
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation import deeplabv3

from pixelwise.data.loading.collate import collate
from pixelwise.errors import RecipeError
from pixelwise.models.deeplab_v3_plus import build
from pixelwise.nn.aspp import ASPP
from pixelwise.types import Annotation, Sample
from tests.models.weights import convolve, copy_weights, normalized, relative_error
from tests.perturbed import perturb_batch_norm


@torch.no_grad()
def test_aspp_equals_torchvision() -> None:
    ours = ASPP(64, rates=(6, 12, 18), channels=32).eval()
    theirs = deeplabv3.ASPP(64, [6, 12, 18], 32).eval()
    perturb_batch_norm(theirs)
    state = theirs.state_dict()
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        parts = key.split(".")
        if key.startswith("convs.4."):  # theirs: pooling, convolution, norm, ReLU
            renamed[f"branches.4.conv.{int(parts[2]) - 1}.{parts[3]}"] = value
        else:
            renamed[key.replace("convs", "branches")] = value
    ours.load_state_dict(renamed)
    x = torch.randn(2, 64, 21, 17)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("align_corners", [None, True])
@torch.no_grad()
def test_forward_equals_the_paper_read_aloud(align_corners: bool | None) -> None:
    """Section 3.1 step by step, with the modules' weights and functional calls."""
    model = build(num_classes=5, backbone="resnet18", channels=24, align_corners=align_corners).eval()
    assert model.traits.align_corners == model.pixel_loss.align_corners == bool(align_corners)
    perturb_batch_norm(model)
    images = torch.rand(2, 3, 70, 90)
    maps = model.backbone(normalized(images))

    deep, branches = maps[-1], model.aspp.branches
    pooled = F.adaptive_avg_pool2d(deep, 1)
    pyramid = [convolve(deep, branches[0])]
    pyramid += [convolve(deep, branches[index], dilation=rate) for index, rate in ((1, 6), (2, 12), (3, 18))]
    pyramid += [convolve(pooled, branches[4].conv).repeat(1, 1, *deep.shape[2:])]
    encoded = convolve(torch.cat(pyramid, 1), model.aspp.project)
    early = convolve(maps[0], model.decoder.project)
    assert early.shape[1] == 48
    joined = torch.cat(
        [F.interpolate(encoded, size=early.shape[2:], mode="bilinear", align_corners=bool(align_corners)), early], 1
    )
    refined = convolve(convolve(joined, model.decoder.refine[0]), model.decoder.refine[1])
    expected = F.conv2d(refined, model.classifier.weight, model.classifier.bias)
    torch.testing.assert_close(model(images).logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("output_stride", "rates"), [(16, [6, 12, 18]), (8, [12, 24, 36])])
@pytest.mark.parametrize("backbone", ["mobilenet_v2", "resnet18"])
def test_rates_double_when_the_stride_halves(backbone: str, output_stride: int, rates: list[int]) -> None:
    model = build(num_classes=3, backbone=backbone, output_stride=output_stride, channels=16)
    found = [
        module.dilation[0]
        for module in model.aspp.modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
    ]
    assert found == rates
    model.eval()
    images = torch.rand(1, 3, 128, 192)
    assert model.backbone(images)[-1].shape[2:] == (128 // output_stride, 192 // output_stride)
    assert model(images).logits.shape == (1, 3, 32, 48)


def test_the_separable_form_has_one_depthwise_convolution_for_each_3x3() -> None:
    model = build(num_classes=3, backbone="mobilenet_v2")
    outside = [*model.aspp.modules(), *model.decoder.modules()]
    kernels = [module for module in outside if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)]
    assert len(kernels) == 5
    assert all(module.groups == module.in_channels for module in kernels)


@pytest.mark.parametrize("output_stride", [16, 8])
@pytest.mark.parametrize("encoder", ["mobilenet_v2", "resnet18"])
@torch.no_grad()
def test_the_other_layout_equals_smp(encoder: str, output_stride: int) -> None:
    torch.manual_seed(0)
    theirs = smp.DeepLabV3Plus(
        encoder, encoder_weights=None, classes=5, encoder_output_stride=output_stride, decoder_channels=32
    ).eval()
    perturb_batch_norm(theirs)
    ours = build(
        num_classes=5,
        backbone="mobilenet_v2_1280" if encoder == "mobilenet_v2" else encoder,
        output_stride=output_stride,
        first_block="full",
        rates=(12, 24, 36) if output_stride == 16 else (6, 12, 18),
        channels=32,
        layout="smp",
    ).eval()
    images = torch.rand(2, 3, 96, 128)
    copy_weights(theirs, ours, images)
    output = ours(images)
    assert output.logits.shape == (2, 5, 24, 32)
    enlarged = F.interpolate(output.logits, size=(96, 128), mode="bilinear", align_corners=ours.traits.align_corners)
    assert ours.traits.align_corners
    assert relative_error(enlarged, theirs(normalized(images))) <= 1e-5


@pytest.mark.parametrize(
    ("arguments", "rates", "separable"),
    [
        ({"backbone": "resnet50"}, [1, 4, 8], False),
        ({"backbone": "resnet50", "first_block": "full"}, [2, 4, 8], False),
        ({"backbone": "resnet50", "first_block": "full", "layout": "smp"}, [2, 2, 2], True),
        ({"backbone": "resnet50", "separable": True, "output_stride": 8, "first_block": "full"}, [4, 8, 16], True),
    ],
)
def test_defaults_follow_backbone_and_layout(arguments: dict[str, Any], rates: list[int], separable: bool) -> None:
    with torch.device("meta"):
        model = build(num_classes=3, **arguments)
    last = [module for module in model.backbone.layer4.modules() if isinstance(module, nn.Conv2d)]
    assert [module.dilation[0] for module in last if module.kernel_size == (3, 3)] == rates
    outside = [module for part in (model.aspp, model.decoder) for module in part.modules()]
    kernels = [module for module in outside if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)]
    assert all((module.groups == module.in_channels) == separable for module in kernels)
    assert model.decoder.project[0].weight.shape == (48, 256, 1, 1)


def test_a_resnet_of_timm_has_no_multi_grid() -> None:
    with torch.device("meta"):
        model = build(num_classes=3, backbone="resnet50d")
    assert model.backbone.strides == (2, 4, 8, 16, 16)
    assert max(module.dilation[0] for module in model.backbone.modules() if isinstance(module, nn.Conv2d)) == 2


def test_loss_is_the_mean_of_the_enlarged_scores_over_pixels_that_are_not_ignored() -> None:
    model = build(num_classes=3, backbone="resnet18", channels=8).eval()
    truth = torch.randint(0, 3, (2, 40, 48), dtype=torch.uint8)
    truth[0, :9] = 255
    batch = collate(
        [
            Sample(
                torch.randint(0, 255, (3, 40, 48), dtype=torch.uint8), Annotation(semantic=ids), str(number), (40, 48)
            )
            for number, ids in enumerate(truth)
        ]
    )
    with torch.no_grad():
        output = model(batch.images)
    term = model.loss(output, batch)["main"]
    enlarged = F.interpolate(output.logits, size=(40, 48), mode="bilinear", align_corners=False).softmax(1)
    total = 0.0
    for image in range(2):
        for y in range(40):
            for x in range(48):
                label = int(truth[image, y, x])
                if label != 255:
                    total -= float(enlarged[image, label, y, x].log())
    assert int(term.count) == 2 * 40 * 48 - 9 * 48
    assert float(term.sum) == pytest.approx(total, rel=1e-4)


def test_impossible_strides_are_refused() -> None:
    with pytest.raises(RecipeError, match="8 or 16"):
        build(num_classes=3, backbone="resnet18", output_stride=32)
    with pytest.raises(RecipeError, match="layout 'caffe': paper or smp"):
        unwrap(build)(num_classes=3, backbone="resnet18", layout="caffe")


@torch.no_grad()
def test_images_are_normalised_as_the_backbone_was_trained() -> None:
    network = build(num_classes=3, backbone="efficientnet_lite0", channels=8).eval()
    seen: list[torch.Tensor] = []
    network.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(torch.full((1, 3, 33, 33), 0.75))
    torch.testing.assert_close(seen[0], torch.full((1, 3, 33, 33), 0.5))
