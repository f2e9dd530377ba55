"""YolactEdge: the partial frames against loops over single numbers, what is excluded from them, the key frames, and
what
is trained on pairs."""

from __future__ import annotations

import math
from dataclasses import replace
from inspect import unwrap
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelwise.contracts import Sizes, flat_arguments
from pixelwise.errors import DataError, RecipeError
from pixelwise.inference.fusion import fused_copy
from pixelwise.inference.model_folder import ModelCard
from pixelwise.inference.predictor import Options, Predictor
from pixelwise.labels import LabelSet
from pixelwise.models import yolact, yolact_edge
from pixelwise.models.yolact_edge import FeatureTransform, Memory, transformed
from pixelwise.ops.resize_rule import ResizeRule
from pixelwise.training.run.initial_weights import carry_over
from pixelwise.types import Annotation, Batch
from tests.models.small_yolact import CLASSES, SIZE, batch_of, ellipses, losses_by_loops
from tests.outputs import require_equal

WIDTHS: dict[str, Any] = {"backbone": "mobilenet_v2", "channels": 16, "prototypes": 8}


def small(**arguments: Any) -> yolact_edge.YolactEdge:
    """The smallest, with statistics of noise, and all that begins as the identity perturbed."""
    torch.manual_seed(0)
    system = yolact_edge.build(num_classes=CLASSES, **{**WIDTHS, "flow_width": 8, **arguments})
    settle(system)
    with torch.no_grad():
        for part in (system.flow_net, system.refinement):
            for parameter in part.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        laterals = system(torch.rand(2, 3, *SIZE)).memory.lateral
        for number in (1, 0):  # the flow of P5 goes into that of P4
            flow = system.flow_net(laterals[:1], laterals[1:])[number].flow
            head = system.flow_net.head5 if number else system.flow_net.head4
            head.flow.weight *= 4 / flow.std()  # a quarter of the map
    return system.eval()


@torch.no_grad()
def settle(system: yolact.YOLACT) -> None:
    for module in system.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    system.backbone.train()
    system.backbone(system.normalize(torch.rand(2, 3, *SIZE)))
    output = system.eval()(torch.rand(2, 3, *SIZE))
    system.head.classes.weight *= 1.5 / output.predictions.logits.std()
    system.head.coefficients.weight *= 4


def frames(count: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    noise = [torch.rand(1, 3, 6, 8, generator=generator) for _ in range(count)]
    return [F.interpolate(one, SIZE, mode="bicubic").clamp(0, 1) for one in noise]


# ---- how features are transformed


def transformed_by_loops(features: Tensor, flow: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """The features at identity + flow / 8, where the centres of the outermost cells are at -1 and 1."""
    _, height, width = features.shape
    result = torch.zeros_like(features)
    for row in range(height):
        for column in range(width):
            x = -1 + 2 * column / (width - 1) + float(flow[0, row, column]) / 8
            y = -1 + 2 * row / (height - 1) + float(flow[1, row, column]) / 8
            x, y = (x + 1) / 2 * (width - 1), (y + 1) / 2 * (height - 1)
            left, top = math.floor(x), math.floor(y)
            for r, c in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
                if 0 <= r < height and 0 <= c < width:
                    weight = (1 - abs(y - r)) * (1 - abs(x - c))
                    result[:, row, column] += weight * features[:, r, c]
    return result * scale + bias


def test_a_flow_of_sixteen_reaches_from_one_border_to_the_other() -> None:
    features = torch.arange(16.0).reshape(1, 1, 4, 4)
    one, none = torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)

    def moved(right: float, down: float) -> list[list[float]]:
        flow = torch.tensor([right, down], dtype=torch.float32).view(1, 2, 1, 1).expand(1, 2, 4, 4)
        return transformed(features, FeatureTransform(flow, one, none))[0, 0].tolist()

    assert moved(0, 0) == features[0, 0].tolist()
    # three cells to the right; what lies beyond the border is zero
    assert moved(16, 0) == [[3, 0, 0, 0], [7, 0, 0, 0], [11, 0, 0, 0], [15, 0, 0, 0]]
    assert moved(0, -16) == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 2, 3]]
    half = torch.tensor(moved(8 / 3, 0))
    assert torch.allclose(half[0], torch.tensor([0.5, 1.5, 2.5, 1.5]), atol=1e-6)
    scaled = transformed(features, FeatureTransform(torch.zeros(1, 2, 4, 4), 2 * one, 3 * one))
    assert torch.equal(scaled, 2 * features + 3)


def leaky(x: Tensor, layer: Any, **options: int) -> Tensor:
    x = F.conv2d(x, layer[0].weight, layer[0].bias, padding=1, **options)
    return torch.where(x > 0, x, 0.1 * x)


def enlarged(x: Tensor, other: Tensor) -> Tensor:
    return F.interpolate(x, other.shape[2:], mode="bilinear", align_corners=False)


def partial_sums_by_formula(system: Any, lateral: Tensor, key: Memory) -> tuple[list[Tensor], list[Tensor]]:
    """The pyramid's sums of a partial frame, and the flows."""
    net = system.flow_net
    x3 = torch.cat([leaky(lateral, net.reduce), leaky(key.lateral, net.reduce)], dim=1)
    x3 = leaky(leaky(x3, net.encode3[0]), net.encode3[1])
    x4 = leaky(leaky(x3, net.encode4[0], stride=2), net.encode4[1])
    x5 = leaky(leaky(x4, net.encode5[0], stride=2), net.encode5[1])
    flow5 = F.conv2d(x5, net.head5.flow.weight, padding=1)
    both = [
        x4,
        F.conv2d(enlarged(x5, x4), net.enlarge_features.weight, padding=1),
        F.conv2d(enlarged(flow5, x4), net.enlarge_flow.weight, padding=1),
    ]
    sums, flows = [], []
    for head, x, features in ((net.head4, torch.cat(both, dim=1), key.p4), (net.head5, x5, key.p5)):
        flow = F.conv2d(x, head.flow.weight, padding=1)
        scale, bias = (F.conv2d(x, layer.weight, layer.bias) for layer in (head.scale, head.bias))
        sums.append(transformed_by_loops(features[0], flow[0], scale[0], bias[0])[None])
        flows.append(flow)
    p3 = enlarged(sums[0], lateral) + lateral
    small_lateral = enlarged(lateral, sums[0])
    p4 = sums[0] + leaky(torch.cat([sums[0], small_lateral], dim=1), system.refinement.layers[0])
    smaller = enlarged(small_lateral, sums[1])
    p5 = sums[1] + leaky(torch.cat([sums[1], smaller], dim=1), system.refinement.layers[1])
    return [p3, p4, p5], flows


@pytest.mark.parametrize("size", [SIZE, (75, 107)])
@torch.no_grad()
def test_a_partial_frame_follows_the_definition(size: tuple[int, int]) -> None:
    system = small().double()
    first, second = (F.interpolate(frame.double(), size) for frame in frames(2))
    memory = system(first).memory
    maps = system.backbone(system.normalize(second))
    lateral = system.fpn.lateral[0](maps[system.levels[0]])
    wanted, flows = partial_sums_by_formula(system, lateral, memory)
    for flow in flows:
        cells = flow * (torch.tensor(flow.shape[:1:-1]).view(1, 2, 1, 1) - 1) / 16
        assert cells.abs().max() > 0.7, "features move"
    for found, expected in zip(system.transform(lateral, memory), wanted, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)
    output = system(second, memory=memory)
    levels = []
    for x, layer in zip(wanted, system.fpn.output, strict=True):
        levels.append(F.conv2d(x, layer[0].weight, layer[0].bias, padding=1).relu())
    for layer in system.fpn.extra:
        levels.append(F.conv2d(levels[-1], layer.weight, layer.bias, stride=2, padding=1))
    predictions = system.predict(levels, size)
    for name in ("logits", "deltas", "coefficients", "prototypes"):
        found, expected = getattr(output.predictions, name), getattr(predictions, name)
        torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-8)
    whole = system(second)
    assert not torch.allclose(output.predictions.logits, whole.predictions.logits, atol=0.1)


@torch.no_grad()
def test_a_key_frame_is_a_yolacts_image() -> None:
    system = small()
    plain = yolact.build(num_classes=CLASSES, **WIDTHS).eval()
    plain.load_state_dict({key: value for key, value in system.state_dict().items() if key in plain.state_dict()})
    (image,) = frames(1)
    output, wanted = system(image), plain(image)
    require_equal(output[:2], tuple(wanted))
    batch = batch_of(Annotation())
    found, other = (net.decode(one, Sizes.of(batch))[0].instances for net, one in ((system, output), (plain, wanted)))
    assert len(found) == len(other) > 0
    assert torch.equal(found.masks.crops, other.masks.crops)


@torch.no_grad()
def test_a_new_network_takes_the_key_frames_features_as_they_are() -> None:
    torch.manual_seed(0)
    system = yolact_edge.build(num_classes=CLASSES, **WIDTHS)
    settle(system)
    first, second = frames(2)
    key = system(first)
    again = system(first, memory=key.memory)
    assert torch.allclose(again.predictions.logits, key.predictions.logits, atol=1e-5)
    lateral = system.fpn.lateral[0](system.backbone(system.normalize(second))[system.levels[0]])
    _, p4, p5 = system.transform(lateral, key.memory)
    assert torch.allclose(p4, key.memory.p4, atol=1e-5)
    assert torch.allclose(p5, key.memory.p5, atol=1e-5)


# ---- clips


def watched(system: yolact_edge.YolactEdge) -> dict[str, int]:
    """Calls of each stage of the backbone and each lateral of the pyramid, from now on."""
    calls: dict[str, int] = {}

    def watch(module: nn.Module, name: str) -> None:
        calls[name] = 0

        def count(*_: object) -> None:
            calls[name] += 1

        module.register_forward_hook(count)

    for number, stage in enumerate(system.backbone.stages()):
        for place, module in enumerate(stage):
            watch(module, f"stage {number}.{place}")
    for number, module in enumerate(system.fpn.lateral):
        watch(module, f"lateral {number}")
    return calls


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "mobilenet_v3_small", "resnet18", "darknet53"])
@torch.no_grad()
def test_deeper_stages_are_skipped_in_partial_frames(backbone: str) -> None:
    torch.manual_seed(0)
    system = yolact_edge.build(num_classes=CLASSES, **{**WIDTHS, "backbone": backbone}).eval()
    memory = system(torch.rand(1, 3, 64, 64)).memory
    calls = watched(system)
    for _ in range(4):
        output = system(torch.rand(1, 3, 64, 64), memory=memory)
        memory = output.memory
    c3 = system.levels[0]
    used = {name for name, count in calls.items() if count}
    assert used == {
        *(name for name in calls if name.startswith("stage") and int(name[6]) <= c3),
        "lateral 0",
    }
    assert all(calls[name] == 4 for name in used)
    assert len(used) < len(calls) - 2
    system(torch.rand(1, 3, 64, 64), memory=memory)
    assert all(calls.values()), "the fifth frame after a key frame is one"


@pytest.mark.parametrize("interval", [1, 2, 5])
@torch.no_grad()
def test_every_so_many_frames_there_is_a_key_frame(interval: int) -> None:
    system = small(key_interval=interval)
    memory, ages, keys = None, [], []
    for number, frame in enumerate(frames(11)):
        output = system(frame, memory=memory)
        ages += output.memory.age.tolist()
        alone = system(frame)
        assert torch.equal(output.predictions.logits, alone.predictions.logits) == (number % interval == 0)
        if number % interval == 0:
            keys.append(alone.memory)
        require_equal(output.memory[:3], keys[-1][:3])  # partial frames keep what the key frame left
        memory = output.memory
    assert ages == [number % interval for number in range(11)]


@torch.no_grad()
def test_the_interval_may_be_changed_on_the_module() -> None:
    system = small()
    first, second = frames(2)
    memory = system(first).memory
    system.key_interval = 1
    assert system(second, memory=memory).memory.age.tolist() == [0]


@torch.no_grad()
def test_all_that_is_remembered_is_in_the_memory() -> None:
    system = small()
    clips = [frames(7, seed=1), frames(7, seed=2)]
    alone = []
    for clip in clips:
        memory = None
        for frame in clip:
            output = system(frame, memory=memory)
            memory = output.memory
            alone.append(output)
    memories: list[Memory | None] = [None, None]
    for number in range(7):
        for which in (0, 1):
            before = memories[which]
            copied = before and Memory(*(part.clone() for part in before))
            output = system(clips[which][number], memory=before)
            require_equal(output, alone[7 * which + number])
            require_equal(before, copied)  # a memory does not change once it is given
            memories[which] = output.memory
    assert sum(part.numel() for part in memories[0]) == 16 * (12 * 16 + 6 * 8 + 3 * 4) + 1


@torch.no_grad()
def test_padding_does_not_matter_in_partial_frames() -> None:
    system = small()
    first, second = frames(2)
    sizes = torch.tensor([[70, 90]])
    memory = system(first, sizes=sizes).memory
    other = second.clone()
    other[:, :, 70:] = 0.3
    other[:, :, :, 90:] = 0.9
    one, two = (system(image, sizes=sizes, memory=memory) for image in (second, other))
    assert torch.equal(one.predictions.logits, two.predictions.logits)


@torch.no_grad()
def test_a_frame_of_another_size_is_refused() -> None:
    system = small()
    memory = system(torch.rand(1, 3, *SIZE)).memory
    with pytest.raises(DataError, match=r"1 frames with C3 of 8×8 after 1 of 12×16.*memory=None"):
        system(torch.rand(1, 3, 64, 64), memory=memory)


@torch.no_grad()
def test_the_faster_copy_gives_the_same_for_both_kinds_of_frames() -> None:
    system = small()
    fused = fused_copy(system)
    assert fused is not None
    first, second = frames(2)
    memories = [network(first).memory for network in (system, fused)]
    outputs = [network(second, memory=memory) for network, memory in zip((system, fused), memories, strict=True)]
    assert torch.allclose(outputs[0].predictions.logits, outputs[1].predictions.logits, atol=1e-3)
    system.flow_net.head4.flow.weight += 1
    assert not all(
        torch.allclose(one, other, atol=1e-3)
        for one, other in zip(system.features(first), fused.features(first), strict=True)
    ), "what is compared shows a fault in partial frames too"


def test_the_predictor_goes_through_a_clip() -> None:
    system = small(anchors="ratios")
    labels = LabelSet.from_names("six", [f"class {number}" for number in range(CLASSES)])
    predictor = Predictor(
        system, ModelCard("instance", "yolact_edge", labels, resize=ResizeRule(length=64)), device="cpu"
    )
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, 50, 70), generator=generator, dtype=torch.uint8) for _ in range(4)]
    assert predictor.network() is not system, "through the faster copy"
    memory, ages = None, []
    for number, image in enumerate(images):
        if number == 2:
            system.key_interval = 2
        annotation, memory = predictor.annotate_frame(image, memory, Options())
        ages += memory.state.age.tolist()
        alone = predictor.annotate(image)
        assert annotation.instances.masks.size == (50, 70)
        assert len(annotation.instances) > 0
        scores = (annotation.instances.scores, alone.instances.scores)
        assert (number in (0, 2)) == (scores[0].shape == scores[1].shape and torch.equal(*scores))
    assert ages == [0, 1, 0, 1]


# ---- training


def pairs() -> Batch:
    """Two clips of a key frame and a later one."""
    return batch_of(ellipses(5, 1), ellipses(0, 4), ellipses(6, 2), ellipses(1, 3, crowds=1))


def learning(**arguments: Any) -> yolact_edge.YolactEdge:
    """With anchors so large that objects of so small an image are not only forced on them."""
    system = small(anchor_sizes=(100, 150, 200, 250, 300), **arguments).double().train()
    with torch.no_grad():
        for layer in (system.head.coefficients, system.semantic):
            layer.weight /= 8  # so that no mask is saturated
    return system


def cosine(x: Tensor, y: Tensor) -> float:
    total, cells = 0.0, 0
    for one in range(len(x)):
        for row in range(x.shape[2]):
            for column in range(x.shape[3]):
                a, b = x[one, :, row, column], y[one, :, row, column]
                lengths = max(float(a.norm()), 1e-8) * max(float(b.norm()), 1e-8)
                total += 1 - float(a @ b) / lengths
                cells += 1
    return total / cells


def test_the_losses_are_those_of_the_later_frames() -> None:
    system = learning()
    batch = pairs()
    images = batch.images.double()
    output = system(images, truth=batch.truth)
    terms = system.loss(output, batch)
    later = [batch.truth[1].instances, batch.truth[3].instances]
    weights = {"class": 1, "box": 1.5, "mask": 6.125, "semantic": 1}
    flow = terms.pop("flow")
    assert (float(flow.sum.detach()), int(flow.count)) == (0, 0), "the data know none"
    assert set(terms) == {*weights, *(f"key_{name}" for name in weights), "matching"}
    values = {name: float((term.sum / term.count).detach()) for name, term in terms.items()}
    with torch.no_grad():
        for prefix, compared in (("", output.partial), ("key_", output.whole)):
            wanted = losses_by_loops(compared, later, mask_iou=None)
            for name, weight in weights.items():
                assert values[prefix + name] == pytest.approx(wanted[name], rel=1e-6)
                assert terms[prefix + name].weight == weight
        system.eval()
        distances = []
        for clip in (0, 1):
            memory = system(images[2 * clip : 2 * clip + 1]).memory
            second = images[2 * clip + 1 : 2 * clip + 2]
            partial, whole = system(second, memory=memory), system(second)
            # what is compared is what is predicted
            assert torch.allclose(output.partial.predictions.logits[clip], partial.predictions.logits[0], atol=1e-8)
            assert torch.allclose(output.whole.predictions.logits[clip], whole.predictions.logits[0], atol=1e-8)
            maps = system.backbone(system.normalize(second))
            sums = system.fpn.join([maps[level] for level in system.levels])
            found = system.transform(system.fpn.lateral[0](maps[system.levels[0]]), memory)
            for level in (1, 2):
                distances.append(cosine(found[level], sums[level]))
                layer = system.fpn.output[level]
                distances.append(cosine(layer(found[level]), layer(sums[level])))
    assert values["matching"] == pytest.approx(sum(distances) / 8, rel=1e-6)
    assert values["matching"] > 0.1
    assert terms["matching"].weight == 1


def test_the_matching_loss_moves_what_transforms_alone() -> None:
    system = learning()
    batch = pairs()
    system.loss(system(batch.images.double(), truth=batch.truth), batch)["matching"].sum.backward()
    moved = {name.split(".")[0] for name, one in system.named_parameters() if one.grad is not None and one.grad.any()}
    assert moved == {"flow_net", "refinement"}


def test_the_flow_is_compared_with_the_true_one_in_cells() -> None:
    system = learning()
    batch = pairs()
    first = torch.randn(2, *SIZE, generator=torch.Generator().manual_seed(1)) * 20
    first[:, :40, :50] = math.nan  # six of P4's 48 cells, and two of P5's twelve, are unknown by more than half
    truth = (batch.truth[0], replace(batch.truth[1], flow=first), *batch.truth[2:])
    output = system(batch.images.double(), truth=truth)
    term = system.loss(output, replace(batch, truth=truth))["flow"]
    total, count = 0.0, 0
    for flow, side in zip((one.detach() for one in output.matching.flows), (16, 32), strict=True):
        height, width = SIZE[0] // side, SIZE[1] // side
        assert flow.shape == (2, 2, height, width)
        for row in range(height):
            for column in range(width):
                cell = first[:, row * side : (row + 1) * side, column * side : (column + 1) * side].flatten(1)
                known = [pixel for pixel in cell.T.tolist() if not math.isnan(pixel[0])]
                if 2 * len(known) < side * side:
                    continue
                x, y = (sum(pixel[axis] for pixel in known) / len(known) / side for axis in range(2))
                found = flow[0, :, row, column] * torch.tensor([width - 1, height - 1]) / 16
                total += math.hypot(float(found[0]) - x, float(found[1]) - y)
                count += 1
    assert int(term.count) == count == 52
    assert float(term.sum.detach()) == pytest.approx(total, rel=1e-5)
    term.sum.backward()
    moved = {name.split(".")[0] for name, one in system.named_parameters() if one.grad is not None and one.grad.any()}
    assert moved == {"flow_net"}


def test_a_flow_that_is_right_leaves_finite_gradients() -> None:
    torch.manual_seed(0)
    system = yolact_edge.build(num_classes=CLASSES, **{**WIDTHS, "flow_width": 8}).train()
    batch = pairs()
    truth = tuple(replace(one, flow=torch.zeros(2, *SIZE)) for one in batch.truth)
    term = system.loss(system(batch.images, truth=truth), replace(batch, truth=truth))["flow"]
    assert float(term.sum.detach()) == 0
    term.sum.backward()
    assert all(torch.isfinite(one.grad).all() for one in system.parameters() if one.grad is not None)


@pytest.mark.parametrize("learns", ["images", "pairs"])
def test_what_is_trained_has_a_gradient_and_the_rest_none(learns: str) -> None:
    system = small(learns=learns).double().train()
    batch = pairs()
    before = {name: value.clone() for name, value in system.state_dict().items()}
    output = system(batch.images.double(), truth=batch.truth)
    terms = system.loss(output, batch)
    torch.stack([term.weight * term.sum / term.count.clamp(min=1) for term in terms.values()]).sum().backward()
    frozen = ("flow_net.", "refinement.") if learns == "images" else ("backbone.", "fpn.lateral.")
    for name, parameter in system.named_parameters():
        assert parameter.requires_grad != name.startswith(frozen), name
        assert (parameter.grad is None) == name.startswith(frozen), name
        if parameter.grad is not None:
            assert torch.isfinite(parameter.grad).all()
            assert parameter.grad.any(), name
    changed = {name for name, value in system.state_dict().items() if not torch.equal(value, before[name])}
    assert bool(changed) == (learns == "images"), "statistics of a frozen backbone stay"
    assert system.traits.clip_frames == (1 if learns == "images" else 2)
    compared = output if learns == "images" else output.partial
    assert len(compared.predictions.logits) == (4 if learns == "images" else 2)


def test_images_are_trained_on_as_in_yolact() -> None:
    system = learning(learns="images")
    system.backbone.eval()
    plain = yolact.build(num_classes=CLASSES, anchor_sizes=(100, 150, 200, 250, 300), **WIDTHS).double().train()
    plain.load_state_dict({key: value for key, value in system.state_dict().items() if key in plain.state_dict()})
    plain.backbone.eval()
    batch = pairs()
    terms, wanted = (net.loss(net(batch.images.double(), truth=batch.truth), batch) for net in (system, plain))
    assert set(terms) == set(wanted)
    for name, term in terms.items():
        assert float(term.sum.detach()) == pytest.approx(float(wanted[name].sum.detach()))
        assert int(term.count) == int(wanted[name].count)


def test_pairs_without_objects_give_finite_losses() -> None:
    system = learning()
    batch = batch_of(ellipses(0, 2), ellipses(0, 0), ellipses(1, 1), ellipses(1, 0, crowds=1))
    terms = system.loss(system(batch.images.double(), truth=batch.truth), batch)
    for name, term in terms.items():
        assert torch.isfinite(term.sum)
        if name.removeprefix("key_") in ("class", "box", "mask", "flow"):
            assert (float(term.sum.detach()), int(term.count)) == (0.0, 0)
    sum(term.sum for term in terms.values()).backward()
    gradients = [parameter.grad for parameter in system.parameters() if parameter.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_the_second_stage_begins_with_the_weights_of_the_first() -> None:
    first, second = yolact_edge.RECIPE.stages
    with torch.device("meta"):
        one, two = (
            yolact_edge.build(num_classes=CLASSES, **{**WIDTHS, **stage.arguments}) for stage in (first, second)
        )
    assert (one.learns, one.key_interval, one.traits.clip_frames) == ("images", 1, 1)
    assert (two.learns, two.key_interval, two.traits.clip_frames) == ("pairs", 5, 2)
    assert carry_over(two, one.state_dict()) == ""
    plain = yolact.build(num_classes=CLASSES, **WIDTHS).state_dict()
    new = {key.split(".")[0] for key in two.state_dict() if key not in plain}
    assert new == {"flow_net", "refinement"}
    assert set(plain) <= set(two.state_dict())


def test_impossible_things_are_refused() -> None:
    for arguments, text in (
        ({"key_interval": 0}, "key_interval 0: expected at least 1"),
        ({"learns": "clips"}, "learns 'clips': images or pairs"),
        ({"backbone": "vgg16"}, "VGGBackbone: yolact_edge takes a ResNet, MobileNet, EfficientNet-Lite or DarkNet"),
        ({"backbone": "timm/resnet18"}, "TimmBackbone: yolact_edge takes"),
        ({"anchor_sizes": (24, 48)}, "at least three levels"),
    ):
        with pytest.raises(RecipeError, match=text), torch.device("meta"):
            flat_arguments(unwrap(yolact_edge.build))(num_classes=3, **{"backbone": "mobilenet_v2", **arguments})
    system = learning()
    batch = batch_of(ellipses(0, 2), ellipses(1, 1), ellipses(2, 1))
    with pytest.raises(DataError, match="3 images: expected pairs"):
        system(batch.images.double(), truth=batch.truth)
    with pytest.raises(DataError, match="without ground truth"):
        system.loss(system(batch.images.double()), batch)
