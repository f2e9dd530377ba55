"""PSPNet against the paper read aloud and segmentation_models_pytorch's network of that name."""

from __future__ import annotations

from inspect import unwrap
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelwise.contracts import Sizes
from pixelwise.data.loading.collate import collate
from pixelwise.errors import RecipeError
from pixelwise.models.pspnet import VARIANTS, build
from pixelwise.types import Annotation, Sample
from tests.models.weights import convolve, copy_weights, layers_as_they_run, normalized, relative_error
from tests.perturbed import perturb_batch_norm

CLASSES = 4


def aligned(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"pooling": "max"}, {"reduce": False}, {"bins": (1,), "reduce": False}, {"bins": (2, 5), "output_stride": 16}],
    ids=["B1236 AVE DR", "B1236 MAX DR", "B1236 AVE", "B1 AVE", "other bins"],
)
@torch.no_grad()
def test_forward_equals_the_paper_read_aloud(arguments: dict[str, Any]) -> None:
    """Sections 3.2 and 3.3, figure 3, in the forms of table 1."""
    torch.manual_seed(0)
    model = build(num_classes=CLASSES, backbone="resnet18", **arguments).eval()
    perturb_batch_norm(model)
    images = torch.rand(2, 3, 121, 105)
    *_, third, fourth = model.backbone(normalized(images))
    stride = arguments.get("output_stride", 8)
    assert fourth.shape[2:] == (120 // stride + 1, 104 // stride + 1)
    joined = [fourth]
    bins = arguments.get("bins", (1, 2, 3, 6))
    for cells, layers in zip(bins, model.pyramid.reduce, strict=True):
        pool = nn.AdaptiveMaxPool2d if "pooling" in arguments else nn.AdaptiveAvgPool2d
        grid = pool(cells)(fourth)
        if arguments.get("reduce", True):
            grid = convolve(grid, layers)
            assert grid.shape[1] == 512 // len(bins)
        joined.append(aligned(grid, fourth.shape[2:]))
    x = convolve(torch.cat(joined, 1), model.refine)
    expected = F.conv2d(x, model.classifier.weight, model.classifier.bias)
    output = model(images)
    assert relative_error(output.logits, expected) <= 1e-5
    auxiliary = model.auxiliary
    expected = F.conv2d(convolve(third, auxiliary), auxiliary[4].weight, auxiliary[4].bias)
    assert relative_error(output.aux_logits, expected) <= 1e-5


def test_the_network_is_the_released_one() -> None:
    with torch.device("meta"):
        model = build(num_classes=21, **VARIANTS["pspnet_resnet50"])
        output = model.train()(torch.empty(2, 3, 473, 473))
    assert output.logits.shape == output.aux_logits.shape == (2, 21, 60, 60)
    found = [
        module.dilation[0]
        for module in model.backbone.modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
    ]
    assert found == [*[1] * 3, *[1] * (3 + 4), *[2] * 6, *[4] * 3], "every block of a dilated stage"
    assert [layers[0].weight.shape for layers in model.pyramid.reduce] == [(512, 2048, 1, 1)] * 4
    assert model.refine[0].weight.shape == (512, 4096, 3, 3)
    assert model.classifier.weight.shape == (21, 512, 1, 1)
    assert model.auxiliary[0].weight.shape == (256, 1024, 3, 3)
    assert model.auxiliary[4].weight.shape == (21, 256, 1, 1)
    for dropout in (model.dropout, model.auxiliary[3]):
        assert type(dropout) is nn.Dropout2d
        assert dropout.p == 0.1
    # classifier's layers of He et al. (25,557,032 with the last) with the deep stem, and what stands after them
    stem = 64 * 27 + 64 * 576 + 128 * 576 + 2 * (64 + 64 + 128) - (64 * 147 + 2 * 64)
    backbone = 25_557_032 - 2_049_000 + stem + 64 * (64 + 256)
    pyramid = 4 * (512 * 2048 + 2 * 512)
    head = 512 * 4096 * 9 + 2 * 512 + 21 * 513
    auxiliary = 256 * 1024 * 9 + 2 * 256 + 21 * 257
    assert sum(parameter.numel() for parameter in model.parameters()) == backbone + pyramid + head + auxiliary


def test_dropout_takes_whole_channels() -> None:
    torch.manual_seed(0)
    model = build(num_classes=CLASSES, backbone="resnet18", dropout=0.5).train()
    seen: list[Tensor] = []
    for layer in (model.classifier, model.auxiliary[4]):
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(torch.rand(2, 3, 97, 97))
    for x in seen:
        missing = (x == 0).flatten(2).all(2).float().mean()
        assert 0.35 < float(missing) < 0.65


@pytest.mark.parametrize("arguments", [{}, {"auxiliary_weight": 0.9}])
@torch.no_grad()
def test_loss_enlarges_with_corners_aligned(arguments: dict[str, float]) -> None:
    torch.manual_seed(0)
    model = build(num_classes=CLASSES, backbone="resnet18", **arguments).eval()
    truth = torch.randint(0, CLASSES, (41, 49), dtype=torch.uint8)
    truth[:9] = 255
    image = torch.randint(0, 255, (3, 41, 49), dtype=torch.uint8)
    batch = collate([Sample(image, Annotation(semantic=truth), "one", (41, 49))])
    output = model(batch.images)
    terms = model.loss(output, batch)
    weight = arguments.get("auxiliary_weight", 0.4)
    assert {name: term.weight for name, term in terms.items()} == {"main": 1.0, "aux": weight}
    for term, scores in ((terms["main"], output.logits), (terms["aux"], output.aux_logits)):
        probabilities = aligned(scores, (41, 49))[0].softmax(0)[:, 9:]
        expected = -probabilities.gather(0, truth[9:].long()[None]).log().sum()
        assert float(term.sum) == pytest.approx(float(expected), rel=1e-5)
        assert int(term.count) == 32 * 49


@torch.no_grad()
def test_decode_enlarges_with_corners_aligned() -> None:
    torch.manual_seed(0)
    model = build(num_classes=CLASSES, backbone="resnet18").eval()
    image = torch.randint(0, 255, (3, 41, 49), dtype=torch.uint8)
    truth = torch.zeros(41, 49, dtype=torch.uint8)
    batch = collate([Sample(image, Annotation(semantic=truth), "one", (60, 71))])
    output = model(batch.images)._replace(logits=3 * torch.randn(1, CLASSES, 6, 7))
    (annotation,) = model.decode(output, Sizes.of(batch))
    best = aligned(output.logits, (60, 71))[0].softmax(0).max(0)
    assert (annotation.semantic == best.indices).float().mean() > 0.999
    torch.testing.assert_close(annotation.confidence, best.values, rtol=0, atol=1e-5)


@pytest.mark.parametrize("encoder", ["resnet18", "resnet34", "mobilenet_v2"])
@torch.no_grad()
def test_the_other_layout_equals_smp(encoder: str) -> None:
    torch.manual_seed(0)
    theirs = smp.PSPNet(encoder, encoder_weights=None, classes=CLASSES).eval()
    perturb_batch_norm(theirs)
    if encoder == "mobilenet_v2":  # theirs goes on to the map after and throws it away
        theirs.encoder.features = theirs.encoder.features[:7]
    ours = build(num_classes=CLASSES, backbone=encoder, layout="smp", dropout=0.2).eval()
    images = torch.rand(2, 3, 96, 128)
    copy_weights(theirs, ours, images)
    output = ours(images)
    assert output.aux_logits is None
    assert output.logits.shape == (2, CLASSES, 12, 16)
    assert relative_error(aligned(output.logits, (96, 128)), theirs(normalized(images))) <= 1e-5
    dropouts = [module for module in theirs.modules() if isinstance(module, nn.Dropout2d)]
    assert [module.p for module in dropouts] == [ours.dropout.p]
    used = layers_as_they_run(ours, images)
    unused = [module for module in ours.modules() if isinstance(module, nn.Conv2d) and module not in used]
    assert not unused, "nothing is kept beyond the pooled map"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output_stride": 32}, "output_stride 32: pspnet has 8 or 16"),
        ({"layout": "semseg"}, "layout 'semseg': paper or smp"),
        ({"bins": ()}, r"bins \(\): one or more grids"),
        ({"backbone": "vgg16"}, "backbone 'vgg16': its output stride is 32, not 8"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=f"^{message}"):
        unwrap(build)(num_classes=CLASSES, **{"backbone": "resnet18", **arguments})  # its types are not checked then
