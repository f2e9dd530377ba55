"""DeepLab v3 against torchvision's networks, the paper read aloud, and the rates of the paper's tables."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from pixelwise.data.loading.collate import collate
from pixelwise.errors import RecipeError
from pixelwise.models.deeplab_v3 import VARIANTS, Cascade, build
from pixelwise.types import Annotation, Sample
from tests.models.weights import convolve, copy_weights, normalized, relative_error
from tests.perturbed import perturb_batch_norm

CLASSES = 5


def rates(network: nn.Module) -> list[int]:
    """Of the 3×3 convolutions."""
    return [
        module.dilation[0]
        for module in network.modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
    ]


@pytest.mark.parametrize(
    ("name", "stride", "arguments"),
    [
        ("deeplabv3_resnet50", 8, {"backbone": "resnet50", "output_stride": 8, "multi_grid": (1, 1, 1)}),
        # torchvision's head has the rates 12, 24, 36 even at output stride 16
        (
            "deeplabv3_mobilenet_v3_large",
            16,
            {"backbone": "mobilenet_v3_large", "first_block": "full", "rates": (12, 24, 36)},
        ),
    ],
)
@torch.no_grad()
def test_scores_equal_torchvision(name: str, stride: int, arguments: dict[str, Any]) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(
        name, weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=True
    ).eval()
    perturb_batch_norm(theirs)
    ours = build(num_classes=CLASSES, head_convolution=True, auxiliary=True, **arguments).eval()
    images = torch.rand(1, 3, 97, 129)
    copy_weights(theirs, ours, images)
    expected, output = theirs(normalized(images)), ours(images)
    assert output.logits.shape == (1, CLASSES, -(-97 // stride), -(-129 // stride))
    for found, key in ((output.logits, "out"), (output.aux_logits, "aux")):
        enlarged = F.interpolate(found, size=(97, 129), mode="bilinear", align_corners=False)
        assert relative_error(enlarged, expected[key]) <= 1e-5


@pytest.mark.parametrize("image_pooling", [True, False])
@pytest.mark.parametrize(("output_stride", "expected"), [(16, (6, 12, 18)), (8, (12, 24, 36))])
@torch.no_grad()
def test_forward_equals_the_paper_read_aloud(
    output_stride: int, expected: tuple[int, ...], image_pooling: bool
) -> None:
    """Section 3.3, figure 5: the branches side by side, a 1×1 convolution, the scores."""
    torch.manual_seed(0)
    model = build(
        num_classes=CLASSES, backbone="resnet18", output_stride=output_stride, channels=24, image_pooling=image_pooling
    ).eval()
    perturb_batch_norm(model)
    images = torch.rand(2, 3, 130, 210)
    deep = model.backbone(normalized(images))[-1]
    assert deep.shape[2:] == (-(-130 // output_stride), -(-210 // output_stride))
    branches = model.context.branches
    pyramid = [convolve(deep, branches[0])]
    pyramid += [convolve(deep, branches[1 + number], dilation=rate) for number, rate in enumerate(expected)]
    if image_pooling:
        mean = deep.sum(dim=(2, 3)) / (deep.shape[2] * deep.shape[3])
        pyramid.append(convolve(mean[:, :, None, None], branches[4].conv).repeat(1, 1, *deep.shape[2:]))
    assert len(pyramid) == len(branches)
    x = convolve(torch.cat(pyramid, 1), model.context.project)
    found = model(images)
    assert found.aux_logits is None
    assert relative_error(found.logits, F.conv2d(x, model.classifier.weight, model.classifier.bias)) <= 1e-5


@torch.no_grad()
def test_the_form_for_mobile_networks_has_no_dilated_branch() -> None:
    """MobileNetV2, section 6.3: a 1×1 convolution and image pooling, at output stride 16."""
    torch.manual_seed(0)
    model = build(num_classes=CLASSES, **VARIANTS["deeplab_v3_mobilenet_v2"]).eval()
    perturb_batch_norm(model)
    assert rates(model.context) == []
    images = torch.rand(1, 3, 64, 96)
    deep = model.backbone(normalized(images))[-1]
    assert deep.shape[1:] == (320, 4, 6)
    context = model.context
    pooled = convolve(deep.mean(dim=(2, 3), keepdim=True), context.branches[1].conv).expand(-1, -1, 4, 6)
    x = convolve(torch.cat([convolve(deep, context.branches[0]), pooled], 1), context.project)
    assert x.shape[1] == 256
    expected = F.conv2d(x, model.classifier.weight, model.classifier.bias)
    assert relative_error(model(images).logits, expected) <= 1e-5


# ---- rates of the last stage and of a cascade


@pytest.mark.parametrize(
    ("output_stride", "first_block", "expected"),
    [
        (16, "full", [2, 4, 8]),  # the paper's: 2 × (1, 2, 4)
        (8, "full", [4, 8, 16]),
        # torchvision's ResNets are strided in the first of the three; it keeps the rate of the stage before
        (16, "previous", [1, 4, 8]),
        (8, "previous", [2, 8, 16]),
    ],
)
def test_multi_grid_multiplies_the_rates_of_block_4(output_stride: int, first_block: str, expected: list[int]) -> None:
    with torch.device("meta"):
        backbone = build(
            num_classes=CLASSES, backbone="resnet50", output_stride=output_stride, first_block=first_block
        ).backbone
    assert rates(backbone.layer4) == expected
    third = {8: [2 if first_block == "full" else 1, 2, 2, 2, 2, 2], 16: [1] * 6}
    assert rates(backbone.layer3) == third[output_stride]


@pytest.mark.parametrize(
    ("output_stride", "expected"),
    [
        # figure 3 b: block 4 has rate 2, block 5 rate 4, block 6 rate 8, block 7 rate 16; times (1, 2, 1)
        (16, [[2, 4, 2], [4, 8, 4], [8, 16, 8], [16, 32, 16]]),
        (8, [[4, 8, 4], [8, 16, 8], [16, 32, 16], [32, 64, 32]]),
    ],
)
def test_each_block_of_a_cascade_is_dilated_twice_as_much(output_stride: int, expected: list[list[int]]) -> None:
    with torch.device("meta"):
        model = build(
            num_classes=CLASSES,
            output_stride=output_stride,
            first_block="full",
            **VARIANTS["deeplab_v3_cascade_resnet101"],
        )
        logits = model(torch.empty(2, 3, 513, 513, device="meta")).logits
    found = rates(model.context)
    assert [rates(model.backbone.layer4), *(found[start : start + 3] for start in (0, 3, 6))] == expected
    assert model.classifier.in_channels == 2048
    assert logits.shape == (2, CLASSES, 512 // output_stride + 1, 512 // output_stride + 1)
    assert all(module.stride == (1, 1) for module in model.context.modules() if isinstance(module, nn.Conv2d))


@torch.no_grad()
def test_a_unit_of_a_cascade_is_a_dilated_bottleneck() -> None:
    torch.manual_seed(0)
    cascade = Cascade(1, output_stride=16, multi_grid=(1, 2)).eval()
    perturb_batch_norm(cascade)
    x = torch.randn(1, 2048, 9, 11)
    expected = x
    for unit, rate in zip(cascade, (4, 8), strict=True):
        inside = convolve(convolve(expected, (unit.conv1, unit.bn1)), (unit.conv2, unit.bn2), dilation=rate)
        norm = unit.bn3
        inside = F.batch_norm(
            F.conv2d(inside, unit.conv3.weight), norm.running_mean, norm.running_var, norm.weight, norm.bias
        )
        expected = (inside + expected).relu()
    assert relative_error(cascade(x), expected) <= 1e-5


def test_four_units_a_block_follow_the_multi_grid() -> None:
    with torch.device("meta"):
        assert rates(Cascade(2, output_stride=16, multi_grid=(1, 2, 1, 4))) == [4, 8, 4, 16, 8, 16, 8, 32]


# ---- loss and refusals


@torch.no_grad()
def test_the_auxiliary_scores_count_half() -> None:
    torch.manual_seed(0)
    model = build(num_classes=CLASSES, backbone="resnet18", auxiliary=True, channels=16).eval()
    assert model.auxiliary[0].in_channels == 256, "the third stage"
    truth = torch.randint(0, CLASSES, (40, 48), dtype=torch.uint8)
    truth[:7] = 255
    image = torch.randint(0, 255, (3, 40, 48), dtype=torch.uint8)
    batch = collate([Sample(image, Annotation(semantic=truth), "one", (40, 48))])
    output = model(batch.images)
    terms = model.loss(output, batch)
    assert {name: term.weight for name, term in terms.items()} == {"main": 1.0, "aux": 0.5}

    def total(scores: Tensor) -> float:
        probabilities = F.interpolate(scores, size=(40, 48), mode="bilinear", align_corners=False)[0].softmax(0)
        return -float(probabilities[:, 7:].gather(0, truth[7:].long()[None]).log().sum())

    assert float(terms["main"].sum) == pytest.approx(total(output.logits), rel=1e-5)
    assert float(terms["aux"].sum) == pytest.approx(total(output.aux_logits), rel=1e-5)
    assert int(terms["aux"].count) == 33 * 48


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output_stride": 32}, "output_stride 32: deeplab_v3 has 8 or 16"),
        ({"cascade": 3}, "cascade=3: it copies the last block of resnet50, .*; resnet18 has none"),
        ({"cascade": -1}, "cascade=-1: 0 for ASPP, or how many blocks"),
        ({"multi_grid": (1, 2, 4)}, r"multi_grid \(1, 2, 4\): one factor for each of the last stage's 2 blocks"),
        ({"backbone": "resnet50x"}, "backbone 'resnet50x': one of resnet18, "),
    ],
)
def test_parts_that_do_not_go_together_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=f"^{message}"):
        build(num_classes=CLASSES, **{"backbone": "resnet18", **arguments})


def test_a_resnet_of_timm_is_none_of_ours() -> None:
    """Its name begins like ours and its blocks have three convolutions, but timm dilates it, without multi-grid."""
    with torch.device("meta"):
        model = build(num_classes=CLASSES, backbone="resnet50d")
    assert model.backbone.strides == (2, 4, 8, 16, 16)
    assert set(rates(model.backbone)) == {1, 2}
    assert rates(model.context) == [6, 12, 18]
