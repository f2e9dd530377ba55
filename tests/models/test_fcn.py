"""FCN against the paper read aloud, receptive-field arithmetic, plain interpolation and torchvision's form of it."""

from __future__ import annotations

from collections.abc import Callable
from inspect import unwrap
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from pixelwise.data.loading.collate import collate
from pixelwise.errors import RecipeError
from pixelwise.models import fcn
from pixelwise.models.fcn import FCN, DilatedFCN, bilinear_kernel, build
from pixelwise.nn.backbone import Backbone
from pixelwise.nn.backbones import VGGBackbone
from pixelwise.types import Annotation, Sample
from tests.models.weights import copy_weights, normalized, relative_error
from tests.perturbed import perturb_batch_norm

CLASSES = 3
WIDTHS = (4, 5, 6, 7, 8)
HIDDEN = 9
FORMS = ["32s", "16s", "8s", "8s-at-once"]


def thin_vgg(network: nn.Module, first_padding: int, ceil_mode: bool, fully_convolutional: bool) -> VGGBackbone:
    """VGG-16 with a few channels, as `build` asks for it."""
    backbone = VGGBackbone(network, first_padding=first_padding, ceil_mode=ceil_mode)
    assert fully_convolutional
    backbone.channels = (*WIDTHS[:4], HIDDEN)
    backbone.classifier = nn.Sequential(
        nn.Conv2d(WIDTHS[4], HIDDEN, 7), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(HIDDEN, HIDDEN, 1), nn.ReLU()
    )
    return backbone


@pytest.fixture
def thin(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FCN]:
    """`build` on a thin VGG-16, with weights of which none is zero."""

    def made(**arguments: Any) -> FCN:
        torch.manual_seed(0)
        with torch.device("meta"):
            network = torchvision.models.VGG(nn.Sequential(), init_weights=False)
        counts = (2, 2, 3, 3, 3)
        plan = [item for width, count in zip(WIDTHS, counts, strict=True) for item in (*(width,) * count, "M")]
        network.features = torchvision.models.vgg.make_layers(plan)
        monkeypatch.setattr(fcn.torchvision.models, "vgg16", lambda **_: network)
        monkeypatch.setattr(fcn, "VGGBackbone", thin_vgg)
        model = build(num_classes=CLASSES, **arguments).eval()
        assert isinstance(model, FCN)
        for module in model.backbone.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                nn.init.normal_(module.bias, std=0.2)
        for score in (model.score, *model.score_skips):
            nn.init.normal_(score.weight, std=0.5)
            nn.init.normal_(score.bias, std=0.5)
        for deconvolution in (*model.enlarge, model.enlarge_last):
            deconvolution.weight.data += 0.02 * torch.randn(deconvolution.weight.shape)
        return model

    return made


def read_aloud(model: FCN, images: Tensor, skips: str) -> Tensor:
    """Figure 3 and the released definition of the network, step by step."""
    convolutions = [module for module in model.backbone.features if isinstance(module, nn.Conv2d)]
    x, pools, numbers = normalized(images), [], iter(range(13))
    for count in (2, 2, 3, 3, 3):
        for _ in range(count):
            number = next(numbers)
            layer = convolutions[number]
            x = F.conv2d(x, layer.weight, layer.bias, padding=1 if number else 100).relu()
        x = F.max_pool2d(x, 2, 2, ceil_mode=True)
        pools.append(x)
    fc6, fc7 = (layer for layer in model.backbone.classifier if isinstance(layer, nn.Conv2d))
    x = F.conv2d(F.conv2d(x, fc6.weight, fc6.bias).relu(), fc7.weight, fc7.bias).relu()
    score = F.conv2d(x, model.score.weight, model.score.bias)
    last = model.enlarge_last.weight
    height, width = images.shape[2:]
    if skips == "32s":
        return F.conv_transpose2d(score, last, stride=32)[:, :, 19 : 19 + height, 19 : 19 + width]
    scales = (0.01, 0.0001) if skips == "8s-at-once" else (1, 1)
    upscore = F.conv_transpose2d(score, model.enlarge[0].weight, stride=2)
    pool4 = F.conv2d(scales[0] * pools[3], model.score_skips[0].weight, model.score_skips[0].bias)
    fused = upscore + pool4[:, :, 5 : 5 + upscore.shape[2], 5 : 5 + upscore.shape[3]]
    if skips == "16s":
        return F.conv_transpose2d(fused, last, stride=16)[:, :, 27 : 27 + height, 27 : 27 + width]
    upscore = F.conv_transpose2d(fused, model.enlarge[1].weight, stride=2)
    pool3 = F.conv2d(scales[1] * pools[2], model.score_skips[1].weight, model.score_skips[1].bias)
    fused = upscore + pool3[:, :, 9 : 9 + upscore.shape[2], 9 : 9 + upscore.shape[3]]
    return F.conv_transpose2d(fused, last, stride=8)[:, :, 31 : 31 + height, 31 : 31 + width]


@pytest.mark.parametrize("size", [(33, 49), (65, 97)])
@pytest.mark.parametrize("skips", FORMS)
@torch.no_grad()
def test_forward_equals_the_paper_read_aloud(thin: Callable[..., FCN], skips: str, size: tuple[int, int]) -> None:
    model = thin(skips=skips)
    if skips == "8s-at-once":  # what is scaled down must still show
        model.score_skips[0].weight.mul_(1e2)
        model.score_skips[1].weight.mul_(1e4)
    images = torch.rand(2, 3, *size)
    assert relative_error(model(images).logits, read_aloud(model, images, skips)) <= 1e-5


@pytest.mark.parametrize("skips", FORMS)
@torch.no_grad()
def test_the_scores_have_the_size_of_the_image(thin: Callable[..., FCN], skips: str) -> None:
    model = thin(skips=skips)
    for size in ((1, 1), (65, 97), (96, 64), (224, 224), (375, 500), (31, 333)):
        assert model(torch.rand(1, 3, *size)).logits.shape == (1, CLASSES, *size)


def test_the_network_is_the_released_one() -> None:
    with torch.device("meta"):
        model = build(num_classes=21, skips="8s")
    layers = [module for module in model.backbone.modules() if isinstance(module, nn.Conv2d)]
    assert [layer.padding for layer in layers] == [(100, 100), *[(1, 1)] * 12, (0, 0), (0, 0)]
    assert [layer.kernel_size for layer in layers] == [*[(3, 3)] * 13, (7, 7), (1, 1)]
    assert [layer.out_channels for layer in layers[-2:]] == [4096, 4096]
    pools = [module for module in model.backbone.modules() if isinstance(module, nn.MaxPool2d)]
    assert [(pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode) for pool in pools] == [(2, 2, 0, True)] * 5
    assert [type(layer) for layer in model.backbone.classifier] == [nn.Conv2d, nn.ReLU, nn.Dropout] * 2
    assert [layer.p for layer in model.backbone.classifier if isinstance(layer, nn.Dropout)] == [0.5, 0.5]
    assert [score.in_channels for score in (model.score, *model.score_skips)] == [4096, 512, 256]
    deconvolutions = [*model.enlarge, model.enlarge_last]
    assert [(layer.kernel_size[0], layer.stride[0]) for layer in deconvolutions] == [(4, 2), (4, 2), (16, 8)]
    assert all(layer.bias is None and layer.padding == (0, 0) for layer in deconvolutions)
    vgg = 64 * 27 + 64 * 576 + 128 * (576 + 1152) + 256 * (1152 + 2 * 2304) + 512 * (2304 + 5 * 4608)
    biases = 2 * 64 + 2 * 128 + 3 * 256 + 6 * 512 + 2 * 4096
    hidden = 4096 * 512 * 49 + 4096 * 4096
    scores = 21 * (4096 + 512 + 256 + 3) + 21 * 21 * (16 + 16 + 256)
    assert sum(parameter.numel() for parameter in model.parameters()) == vgg + biases + hidden + scores


@pytest.mark.parametrize("skips", FORMS)
@torch.no_grad()
def test_scores_begin_at_zero(thin: Callable[..., FCN], skips: str) -> None:
    thin(skips=skips)  # puts the thin VGG in place
    model = build(num_classes=CLASSES, skips=skips).eval()
    for score in (model.score, *model.score_skips):
        assert not score.weight.any()
        assert not score.bias.any()
    assert not model(torch.rand(1, 3, 40, 40)).logits.any()


# ---- deconvolutions


def test_the_kernel_of_4_is_worked_by_hand() -> None:
    line = [0.25, 0.75, 0.75, 0.25]
    assert bilinear_kernel(4).tolist() == [[a * b for b in line] for a in line]
    assert bilinear_kernel(3).tolist() == [[0.25, 0.5, 0.25], [0.5, 1.0, 0.5], [0.25, 0.5, 0.25]]


@pytest.mark.parametrize("size", [3, 4, 5, 16, 32, 64])
def test_kernels_are_those_of_the_formula(size: int) -> None:
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 else factor - 0.5
    expected = [
        [(1 - abs(row - centre) / factor) * (1 - abs(column - centre) / factor) for column in range(size)]
        for row in range(size)
    ]
    torch.testing.assert_close(bilinear_kernel(size), torch.tensor(expected), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("skips", "kernels"), [("32s", [64]), ("16s", [4, 32]), ("8s", [4, 4, 16]), ("8s-at-once", [4, 4, 16])]
)
@pytest.mark.parametrize(
    ("learn_upsampling", "learns"), [("none", (False, False)), ("intermediate", (True, False)), ("all", (True, True))]
)
def test_deconvolutions_begin_bilinear_and_are_trained_as_stated(
    thin: Callable[..., FCN],
    skips: str,
    kernels: list[int],
    learn_upsampling: str,
    learns: tuple[bool, bool],
) -> None:
    thin(skips=skips)  # puts the thin VGG in place
    model = build(num_classes=CLASSES, skips=skips, learn_upsampling=learn_upsampling)
    deconvolutions = [*model.enlarge, model.enlarge_last]
    assert [layer.weight.shape[2] for layer in deconvolutions] == kernels
    for layer in deconvolutions:
        for one in range(CLASSES):
            for other in range(CLASSES):
                kernel = bilinear_kernel(layer.weight.shape[2])
                assert torch.equal(layer.weight[one, other], kernel if one == other else torch.zeros_like(kernel))
    assert [layer.weight.requires_grad for layer in deconvolutions] == [*[learns[0]] * (len(kernels) - 1), learns[1]]


# ---- where the scores lie


class GivenMaps(Backbone):
    """Predictions with the same maps whatever it is shown."""

    strides = (8, 16, 32)

    def __init__(self, maps: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.maps, self.channels = maps, tuple(x.shape[1] for x in maps)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.maps


def place_in_the_image(layers: list[nn.Module], cell: float) -> float:
    """Row of the image at the centre of what a cell behind these layers covers."""
    for layer in reversed(layers):
        kernel, stride, padding = (
            side[0] if isinstance(side, tuple) else side for side in (layer.kernel_size, layer.stride, layer.padding)
        )
        cell = float(cell * stride - padding + (kernel - 1) / 2)
    return cell


@pytest.mark.parametrize("skips", ["32s", "16s", "8s"])
@torch.no_grad()
def test_enlarged_scores_lie_over_their_pixels(skips: str) -> None:
    """A single cell's score, of each map in turn: its centre of mass is where the padded VGG-16 has it."""
    size = 200
    with torch.device("meta"):
        network = build(num_classes=1, skips=skips).backbone
    layers = [
        layer for layer in (*network.features, *network.classifier) if isinstance(layer, nn.Conv2d | nn.MaxPool2d)
    ]
    pools = [number for number, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    paths = {8: layers[: pools[2] + 1], 16: layers[: pools[3] + 1], 32: layers}
    image = torch.empty(1, 3, size, size, device="meta")
    cells = {stride: nn.Sequential(*path)(image).shape[2] for stride, path in paths.items()}
    strides = {"32s": [32], "16s": [32, 16], "8s": [32, 16, 8]}[skips]
    for stride in strides:
        maps = {key: torch.zeros(1, 1, count, count) for key, count in cells.items()}
        cell = next(number for number in range(cells[stride]) if place_in_the_image(paths[stride], number) > 80)
        maps[stride][0, 0, cell, cell] = 1
        model = FCN(
            GivenMaps((maps[8], maps[16], maps[32])),
            num_classes=1,
            skip_strides=fcn.SKIP_STRIDES[skips],
            skip_scales=[1.0] * (len(strides) - 1),
            skip_offsets=[fcn.VGG_SKIP_OFFSETS[key] for key in strides[1:]],
            output_offset=fcn.VGG_OUTPUT_OFFSETS[strides[-1]],
            padded=False,
        )
        for score in (model.score, *model.score_skips):
            nn.init.ones_(score.weight)
        found = model(torch.zeros(1, 3, size, size)).logits[0, 0]
        centre = (found.sum(1) * torch.arange(size)).sum() / found.sum()
        assert float(centre) == pytest.approx(place_in_the_image(paths[stride], cell), abs=1e-3)


@torch.no_grad()
def test_other_backbones_are_enlarged_as_by_interpolation() -> None:
    """With half-pixel centres, away from the borders, beyond which a deconvolution has nothing."""
    torch.manual_seed(0)
    maps = tuple(torch.randn(1, 2, 256 // stride, 320 // stride) for stride in (8, 16, 32))
    options: dict[str, Any] = {"num_classes": 2, "output_offset": 0, "padded": True}
    single = FCN(GivenMaps(maps), skip_strides=(), skip_scales=(), skip_offsets=(), **options)
    double = FCN(GivenMaps(maps), skip_strides=(16, 8), skip_scales=(1.0, 1.0), skip_offsets=(0, 0), **options)
    for model in (single, double):
        for score in (model.score, *model.score_skips):
            score.weight.copy_(torch.eye(2)[:, :, None, None])

    def enlarged(x: Tensor, factor: int) -> Tensor:
        return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)

    images = torch.zeros(1, 3, 256, 320)
    inside = (slice(None), slice(None), slice(16, -16), slice(16, -16))
    torch.testing.assert_close(single(images).logits[inside], enlarged(maps[2], 32)[inside], rtol=0, atol=1e-5)
    # here each border of a coarse map has spoilt a cell of the next before that is enlarged again
    inside = (slice(None), slice(None), slice(48, -48), slice(48, -48))
    fused = enlarged(enlarged(maps[2], 2) + maps[1], 2) + maps[0]
    torch.testing.assert_close(double(images).logits[inside], enlarged(fused, 8)[inside], rtol=0, atol=1e-5)


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2", "vgg16_bn", "timm/convnext_atto"])
@torch.no_grad()
def test_any_size_is_scored_whole_on_any_backbone(backbone: str) -> None:
    """VGG and ConvNeXt drop the rest of a division; the mean colour fills it up, and the far sides are cropped."""
    torch.manual_seed(0)
    model = build(num_classes=CLASSES, backbone=backbone, skips="8s").eval()
    for score in (model.score, *model.score_skips):
        nn.init.normal_(score.weight, std=0.1)
    for height, width in ((65, 97), (31, 64)):
        images = torch.rand(1, 3, height, width)
        filled = model.normalize.mean.expand(1, 3, -(-height // 32) * 32, -(-width // 32) * 32).clone()
        filled[:, :, :height, :width] = images
        found = model(images).logits
        assert found.shape == (1, CLASSES, height, width)
        assert relative_error(found, model(filled).logits[:, :, :height, :width]) <= 1e-5


# ---- torchvision's form


@torch.no_grad()
def test_the_dilated_form_equals_torchvision() -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.segmentation.fcn_resnet50(
        weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=True
    ).eval()
    perturb_batch_norm(theirs)
    ours = build(num_classes=CLASSES, backbone="resnet50", skips="none", auxiliary=True).eval()
    images = torch.rand(1, 3, 65, 97)
    copy_weights(theirs, ours, images)
    expected, output = theirs(normalized(images)), ours(images)
    for found, key in ((output.logits, "out"), (output.aux_logits, "aux")):
        assert found.shape[2:] == (9, 13)
        enlarged = F.interpolate(found, size=(65, 97), mode="bilinear", align_corners=False)
        assert relative_error(enlarged, expected[key]) <= 1e-5


@torch.no_grad()
def test_the_auxiliary_scores_count_half() -> None:
    model = build(num_classes=CLASSES, backbone="resnet18", skips="none", auxiliary=True).eval()
    truth = torch.randint(0, CLASSES, (40, 48), dtype=torch.uint8)
    image = torch.randint(0, 255, (3, 40, 48), dtype=torch.uint8)
    batch = collate([Sample(image, Annotation(semantic=truth), "one", (40, 48))])
    output = model(batch.images)
    terms = model.loss(output, batch)
    assert {name: term.weight for name, term in terms.items()} == {"main": 1.0, "aux": 0.5}
    for term, scores in ((terms["main"], output.logits), (terms["aux"], output.aux_logits)):
        probabilities = F.interpolate(scores, size=(40, 48), mode="bilinear", align_corners=False).softmax(1)
        expected = -probabilities[0].gather(0, truth.long()[None]).log().sum()
        assert float(term.sum) == pytest.approx(float(expected), rel=1e-5)
    assert isinstance(model, DilatedFCN)


# ---- what does not go together


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"skips": "4s"}, "skips '4s': 32s, 16s, 8s, 8s-at-once or none"),
        ({"learn_upsampling": "some"}, "learn_upsampling 'some': none, intermediate or all"),
        ({"auxiliary": True}, "auxiliary: with skips=none alone, not with 8s"),
        ({"skips": "none", "backbone": "vgg16"}, "backbone 'vgg16': its output stride is 32, not 8"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        unwrap(build)(num_classes=CLASSES, **{"backbone": "resnet18", **arguments})  # its types are not checked then
    assert str(caught.value) == message
