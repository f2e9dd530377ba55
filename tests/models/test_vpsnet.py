"""VPSNet: each part against the formulas of its section, matching by hand, and memory as a value."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelwise.contracts import Sizes
from pixelwise.errors import DataError, RecipeError
from pixelwise.inference.model_folder import ModelCard
from pixelwise.inference.predictor import FrameMemory, Options, Predictor
from pixelwise.models.vpsnet import (
    FlowRefinement,
    Fuse,
    Memory,
    Output,
    SpaceTimeAttention,
    VPSNet,
    build,
    reduce_flow,
)
from pixelwise.nn.flow import DISFlow, ZeroFlow
from pixelwise.nn.tracker import match_logits
from pixelwise.ops.resize_rule import ResizeRule
from pixelwise.ops.warp import warp
from pixelwise.types import Batch
from tests.contract.annotations import LABELS, empty_annotation, random_batch
from tests.models.small_detectors import SIZE, learned, objects_batch, total
from tests.models.small_vpsnet import WITH_STUFF, gliding_squares, random_parameters, small_vpsnet
from tests.outputs import require_equal


def cells(size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    return itertools.product(range(size[0]), range(size[1]))


def random_levels(batch: int, channels: int, size: tuple[int, int], seed: int = 0) -> list[Tensor]:
    """P2 to P5 of images of that size, and P6, every second pixel of P5."""
    generator = torch.Generator().manual_seed(seed)
    levels = [
        torch.randn(batch, channels, size[0] // s, size[1] // s, generator=generator, dtype=torch.float64)
        for s in (4, 8, 16, 32)
    ]
    return [*levels, levels[-1][:, :, ::2, ::2]]


# ---- fuse


def test_levels_are_gathered_as_the_mean_of_their_nearest_cells() -> None:
    levels = random_levels(1, 3, (64, 96))
    gathered = Fuse(3).double().gather(levels)
    assert gathered.shape == (1, 3, 16, 24)
    for y, x in cells((16, 24)):
        parts = [level[0, :, y * level.shape[2] // 16, x * level.shape[3] // 24] for level in levels]
        torch.testing.assert_close(gathered[0, :, y, x], torch.stack(parts).mean(dim=0))


def test_flow_of_smaller_maps_has_smaller_values() -> None:
    """A motion of 8 pixels right and 4 up is one of 2 cells and 1 cell."""
    flow = torch.tensor([8.0, -4.0]).view(1, 2, 1, 1).expand(1, 2, 32, 64)
    reduced = reduce_flow(flow, (8, 16))
    assert torch.equal(reduced, torch.tensor([2.0, -1.0]).view(1, 2, 1, 1).expand(1, 2, 8, 16))
    varied = torch.randn(1, 2, 8, 12)
    middle = varied.unflatten(3, (3, 4)).unflatten(2, (2, 4))[:, :, :, 1:3, :, 1:3].mean(dim=(3, 5)) / 4
    torch.testing.assert_close(reduce_flow(varied, (2, 3)), middle)  # between the four pixels in the middle


def test_the_refined_flow_comes_from_target_products_and_flow_in_this_order() -> None:
    torch.manual_seed(0)
    part = FlowRefinement(4).double()
    random_parameters(part)
    target, warped = torch.randn(2, 2, 4, 6, 7, dtype=torch.float64)
    flow = torch.randn(2, 2, 6, 7, dtype=torch.float64)
    products = torch.zeros(2, 81, 6, 7, dtype=torch.float64)
    for channel, (dy, dx) in enumerate(itertools.product(range(-4, 5), repeat=2)):
        for y, x in cells((6, 7)):
            if 0 <= y + dy < 6 and 0 <= x + dx < 7:
                products[:, channel, y, x] = (target[:, :, y, x] * warped[:, :, y + dy, x + dx]).sum(dim=1) / 4
    x = torch.cat([target, products, flow], dim=1)
    widths = []
    for number in (0, 2, 4, 6):
        layer = part.convolutions[number]
        assert isinstance(layer, nn.Conv2d)
        widths.append(layer.out_channels)
        x = F.conv2d(x, layer.weight, layer.bias, padding=1)
        x = torch.where(x > 0, x, 0.1 * x) if number < 6 else x
    assert widths == [64, 64, 32, 2]
    torch.testing.assert_close(part(target, warped, flow), x)


def test_attention_weighs_frames_by_agreement_and_places_by_their_surroundings() -> None:
    torch.manual_seed(0)
    part = SpaceTimeAttention(3).double()
    random_parameters(part, scale=0.4)
    maps = [*torch.randn(2, 1, 3, 6, 8, dtype=torch.float64)]

    def apply(layer: nn.Module, x: Tensor) -> Tensor:
        assert isinstance(layer, nn.Conv2d)
        assert layer.bias is not None
        return F.conv2d(x, layer.weight, layer.bias, padding=layer.kernel_size[0] // 2)

    def leaky(x: Tensor) -> Tensor:
        return x.clamp(min=0) + 0.1 * x.clamp(max=0)

    target = apply(part.target_embedding, maps[0])
    weighted = torch.zeros(1, 6, 6, 8, dtype=torch.float64)
    for number, frame in enumerate(maps):
        embedded = apply(part.embedding, frame)
        for y, x in cells((6, 8)):
            product = torch.stack([embedded[0, c, y, x] * target[0, c, y, x] for c in range(3)]).sum()
            weighted[0, 3 * number : 3 * number + 3, y, x] = frame[0, :, y, x] / (1 + torch.exp(-product))
    joined = leaky(apply(part.fusion, weighted))
    attention = leaky(apply(part.joint, weighted))
    pooled = torch.zeros(1, 6, 3, 4, dtype=torch.float64)
    for y, x in cells((3, 4)):
        window = attention[0, :, max(2 * y - 1, 0) : 2 * y + 2, max(2 * x - 1, 0) : 2 * x + 2].flatten(1)
        pooled[0, :3, y, x] = window.max(dim=1).values
        pooled[0, 3:, y, x] = window.sum(dim=1) / 9  # what lies outside counts as zero
    small = leaky(apply(part.context, leaky(apply(part.pooled, pooled))))
    enlarged = torch.zeros(1, 3, 6, 8, dtype=torch.float64)
    for y, x in cells((6, 8)):
        for yy, wy in bilinear(y, 3):
            for xx, wx in bilinear(x, 4):
                enlarged[0, :, y, x] += wy * wx * small[0, :, yy, xx]
    factor = apply(part.factor, enlarged)
    summand = apply(part.summand[2], leaky(apply(part.summand[0], factor)))
    torch.testing.assert_close(part(maps), joined / (1 + torch.exp(-factor)) * 2 + summand)


def bilinear(place: int, length: int) -> list[tuple[int, float]]:
    """What a place of a map twice as large reads, and its weights."""
    at = min(max((place + 0.5) / 2 - 0.5, 0), length - 1)
    low = int(at)
    return [(low, 1 - (at - low)), (min(low + 1, length - 1), at - low)]


def test_fuse_warps_twice_and_adds_the_largest_of_each_cell() -> None:
    torch.manual_seed(0)
    part = Fuse(4).double()
    random_parameters(part)
    levels, other = random_levels(2, 4, (64, 96)), random_levels(2, 4, (64, 96), seed=1)
    target, reference = part.gather(levels), part.gather(other)
    flow = 8 * torch.randn(2, 2, 64, 96, dtype=torch.float64)
    quarter = F.interpolate(flow, scale_factor=0.25, mode="bilinear") / 4
    warped = warp(reference, quarter)
    warped = warp(warped, part.flow_refinement(target, warped, quarter))
    x = part.attention([target, warped])
    layer = part.refinement[0]
    assert isinstance(layer, nn.Conv2d)
    refined = F.relu(F.conv2d(x, layer.weight, layer.bias, padding=1))
    fused = part(levels, target, reference, flow)
    assert len(fused) == 5
    for before, after in zip(levels, fused, strict=True):
        height, width = before.shape[2:]
        for y, x in cells((height, width)):
            rows = slice(y * 16 // height, -(-(y + 1) * 16 // height))
            columns = slice(x * 24 // width, -(-(x + 1) * 24 // width))
            largest = refined[:, :, rows, columns].flatten(2).max(dim=2).values
            torch.testing.assert_close(after[:, :, y, x] - before[:, :, y, x], largest)


def test_the_reference_is_brought_to_where_the_target_shows_it() -> None:
    """A spot that moved 8 pixels to the left between reference and target is put on its place, not twice as far."""
    part = Fuse(1).double()
    for parameter in part.flow_refinement.parameters():
        nn.init.zeros_(parameter)
    seen: list[Tensor] = []

    def look(_: nn.Module, inputs: tuple[list[Tensor]]) -> None:
        seen.extend(inputs[0])

    part.attention.register_forward_pre_hook(look)
    target, reference = torch.zeros(2, 1, 1, 16, 24, dtype=torch.float64)
    target[..., 5, 10], reference[..., 5, 12] = 1, 1
    flow = torch.zeros(1, 2, 64, 96, dtype=torch.float64)
    flow[:, 0] = 8
    part([target], target, reference, flow)
    torch.testing.assert_close(seen[1], target)


# ---- the system


def test_anchors_are_matched_as_the_public_code_does() -> None:
    """Its configurations have `allowed_border=0` and `min_pos_iou=0.3`; see `tests/nn/test_rpn.py`."""
    rpn = small_vpsnet().rpn
    assert (rpn.allowed_border, rpn.min_pos_iou) == (0, 0.3)
    assert (rpn.positive_overlap, rpn.negative_overlap, rpn.samples, rpn.positive_fraction) == (0.7, 0.3, 256, 0.5)


def pairs(count: int = 1, **arguments: Any) -> Batch:
    """A frame and its reference, so many times."""
    return objects_batch((2, 3, 4), [(50, 71)] * 2 * count, **arguments)


@torch.no_grad()
def walk(network: VPSNet, clip: list[Tensor]) -> list[Output]:
    outputs: list[Output] = []
    memory = None
    for frame in clip:
        outputs.append(network(frame, memory=memory))
        memory = outputs[-1].memory
        assert memory is not None
    return outputs


@pytest.mark.parametrize("changes", [{}, {"has_fuse": False}, {"has_track": False}], ids=["both", "track", "fuse"])
def test_every_variant_trains_in_all_its_parts_and_predicts(changes: dict[str, Any]) -> None:
    network = small_vpsnet(**changes)
    batch = pairs(2)
    output = learned(network, batch)
    assert ("track" in network.loss(output, batch)) == changes.get("has_track", True)
    total(network, output, batch).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), f"the gradient of {name} is zero"
    network.eval()
    clip = gliding_squares(3)
    for frame, answer in zip(clip, walk(network, clip), strict=True):
        one = replace(random_batch(SIZE, [(50, 71)]), images=frame)
        panoptic = network.decode(answer, Sizes.of(one))[0].panoptic
        assert panoptic is not None
        assert panoptic.ids.shape == (50, 71)
        things = panoptic.segment_ids[panoptic.segment_ids > 5]
        assert set((things - 6).tolist()) <= set(answer.track_ids[0].tolist())
        assert len(things), "nothing was found"
        assert {*panoptic.ids.unique().tolist()} - {0} == set(panoptic.segment_ids.tolist())


def test_the_track_term_is_the_mean_cross_entropy_of_known_identities() -> None:
    """Times 0.5, as the public code's: there the weights of the background are 0, and the sum is divided by the number
    of weights above 0."""
    network = small_vpsnet()
    batch = pairs(1)
    output = learned(network, batch)
    instances = [one.instances for one in batch.truth]
    assert instances[0] is not None
    assert instances[1] is not None
    objects = output.segments.objects.positive_objects
    # by the definition: in the order of the reference's objects
    assert instances[0].track_ids is not None
    assert instances[1].track_ids is not None
    known = instances[0].track_ids.tolist()
    expected = [1 + known.index(int(instances[1].track_ids[one])) for one in objects[0]]
    assert output.match_targets[0].tolist() == expected
    logits = output.match_logits[0].double()
    rows = [-row.softmax(dim=0)[column].log() for row, column in zip(logits, expected, strict=True)]
    term = network.loss(output, batch)["track"]
    assert term.weight == 0.5
    torch.testing.assert_close((term.sum / term.count).double(), torch.stack(rows).mean(), rtol=1e-5, atol=1e-5)


def test_losses_are_those_of_targets_and_references_count_unfused() -> None:
    """UPSNet's terms do not change with what is true of the reference; its objects' vectors are of its own maps."""
    network = small_vpsnet()
    batch = pairs(1)
    changed = replace(batch, truth=(replace(empty_annotation(SIZE)), batch.truth[1]))
    terms, others = (network.loss(learned(network, one), one) for one in (batch, changed))
    assert terms.keys() == others.keys()
    for name in terms:
        assert (float(terms[name].sum.detach()) == float(others[name].sum.detach())) == (name != "track"), name
    output = learned(network, batch)
    with torch.no_grad():
        levels = network._levels(network._prepared(batch.images, batch.valid_sizes))
        references, targets = [x[:1] for x in levels], [x[1:] for x in levels]
        flow = DISFlow()(batch.images[1:], batch.images[:1])
        assert network.fuse is not None
        assert network.track_head is not None
        gathered = [network.fuse.gather(x) for x in (targets, references)]
        fused = network.fuse(targets, *gathered, flow)
        instances = batch.truth[0].instances
        boxes = output.segments.objects.positive_boxes
        assert instances is not None
        assert boxes is not None
        known = network.track_head(network.box_pooling(references, [instances.boxes]))
        found = network.track_head(network.box_pooling(fused, boxes))
    torch.testing.assert_close(output.match_logits[0], match_logits(found, known), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("who", ["nobody", "reference", "target", "no ids", "crowds"])
def test_without_objects_or_identities_the_losses_are_finite(who: str) -> None:
    network = small_vpsnet()
    batch = pairs(1)
    reference, target = batch.truth
    empty = empty_annotation(SIZE)
    if who == "nobody":
        reference = target = empty
    elif who == "reference":
        reference = empty
    elif who == "target":
        target = empty
    else:
        assert reference.instances is not None
        change: dict[str, Any] = {"track_ids": None}
        if who == "crowds":
            change = {"crowd": torch.ones(len(reference.instances), dtype=torch.bool)}
        reference = replace(reference, instances=replace(reference.instances, **change))
    batch = replace(batch, truth=(reference, target))
    output = learned(network, batch)
    terms = network.loss(output, batch)
    assert all(torch.isfinite(term.sum) for term in terms.values())
    if who in ("nobody", "target", "no ids"):
        assert int(terms["track"].count) == 0
    total(network, output, batch).backward()
    assert all(one.grad is None or torch.isfinite(one.grad).all() for one in network.parameters())


@torch.no_grad()
def test_the_memory_of_a_frame_is_its_own_map_and_its_objects() -> None:
    network = small_vpsnet()
    first, second = gliding_squares(2)
    answer = network(first)
    memory = answer.memory
    assert memory is not None
    levels = network._levels(network._prepared(first, None))
    assert network.fuse is not None
    assert torch.equal(memory.gathered, network.fuse.gather(levels))
    assert torch.equal(memory.image, first)
    assert sorted(memory.tracks.ids.tolist()) == answer.track_ids[0].tolist() == [*range(int(memory.tracks.next_id))]
    following = network(second, memory=memory)
    levels = network._levels(network._prepared(second, None))
    gathered = network.fuse.gather(levels)
    fused = network.fuse(levels, gathered, memory.gathered, DISFlow()(second, first))
    logits = network.semantic_head(fused)
    torch.testing.assert_close(following.segments.logits, logits)
    alone = network(second)
    assert not torch.allclose(alone.segments.logits, logits), "the frame before changes what is seen"


def test_clips_are_predicted_alike_one_after_the_other_or_in_turn_and_none_begins_anew() -> None:
    network = small_vpsnet()
    clips = [gliding_squares(3, seed=1), gliding_squares(3, seed=2)]
    apart = [walk(network, clip) for clip in clips]
    memories: list[Memory | None] = [None, None]
    for number in range(3):
        for index, clip in enumerate(clips):
            with torch.no_grad():
                output = network(clip[number], memory=memories[index])
            require_equal(output, apart[index][number])
            memories[index] = output.memory
    with torch.no_grad():
        require_equal(network(clips[0][0]), apart[0][0])


@torch.no_grad()
def test_memory_of_the_system_is_bounded() -> None:
    network = small_vpsnet(max_known=5)
    generator = torch.Generator().manual_seed(0)
    memory, shapes = None, set()
    for number in range(50):
        memory = network(torch.rand(1, 3, 32, 32, generator=generator), memory=memory).memory
        parts = (*memory.tracks, memory.image, memory.gathered)
        assert len(memory.tracks.ids) <= 5
        if number > 9:
            shapes.add(tuple(tuple(part.shape) for part in parts))
        assert not any(part.requires_grad for part in parts)
    assert len(shapes) == 1


@torch.no_grad()
def test_without_the_track_head_every_detection_is_new() -> None:
    tracks = [output.track_ids for output in walk(small_vpsnet(has_track=False), gliding_squares(3))]
    numbers = [number for one in tracks for number in one[0].tolist()]
    assert numbers == [*range(len(numbers))]
    assert len(numbers) > 3


def test_the_kind_of_flow_is_chosen_by_name() -> None:
    assert isinstance(small_vpsnet().flow, DISFlow)
    assert isinstance(small_vpsnet(flow="zero").flow, ZeroFlow)
    assert small_vpsnet(has_fuse=False).flow is None
    with pytest.raises(RecipeError, match="flow 'horn': expected one of dis"):
        small_vpsnet(flow="horn")
    clip = gliding_squares(2)
    still = walk(small_vpsnet(flow="zero"), clip)
    moved = walk(small_vpsnet(), clip)
    require_equal(still[0].segments.logits, moved[0].segments.logits)
    assert not torch.equal(still[1].segments.logits, moved[1].segments.logits)


def test_impossible_arguments_and_inputs_are_refused() -> None:
    for changes, text in (
        ({"has_fuse": False, "has_track": False}, "both false"),
        ({"match_weights": (1.0,)}, "match_weights.*three numbers"),
        ({"max_known": 0}, "max_known=0"),
    ):
        with pytest.raises(RecipeError, match=text):
            build(**{**WITH_STUFF, **changes})
    network = small_vpsnet()
    batch = pairs(1)
    with pytest.raises(DataError, match="1 images to train on; expected pairs"):
        network.train()(batch.images[:1], batch.valid_sizes[:1], batch.truth[:1])
    with torch.no_grad():
        answer = network.eval()(batch.images[:1])
        with pytest.raises(DataError, match="a frame of 64×64 after one of 64×96"):
            network(batch.images[:1, :, :, :60], memory=answer.memory)
        with pytest.raises(DataError, match="2 frames with the memory of one clip"):
            network(batch.images, memory=answer.memory)
        with pytest.raises(DataError, match="without ground truth"):
            network.loss(answer, batch)


@pytest.mark.parametrize("channels", [50, 40, 96])
def test_any_even_width_can_be_built(channels: int) -> None:
    """The semantic head has half of the channels, which 32 groups need not divide."""
    with torch.device("meta"):
        network = build(**{**WITH_STUFF, "channels": channels})
    norms = [part for part in network.semantic_head.subnet if isinstance(part, nn.GroupNorm)]
    assert [norm.num_channels for norm in norms] == [channels, channels // 2, channels // 2]


def test_half_precision_trains_and_predicts() -> None:
    network = small_vpsnet()
    batch = pairs(1)
    with torch.autocast("cpu", torch.bfloat16):
        output = learned(network, batch)
    loss = total(network, output, batch)
    assert torch.isfinite(loss)
    loss.backward()
    assert all(torch.isfinite(one.grad).all() for one in network.parameters() if one.grad is not None)
    network.eval()
    with torch.autocast("cpu", torch.bfloat16):
        answer = walk(network, gliding_squares(2))[-1]
    assert torch.isfinite(answer.segments.logits).all()


def test_the_predictor_walks_through_a_clip_with_memory_as_its_only_state() -> None:
    """Frames in turn of two clips, of odd sizes; each pixel's thing has the number that its track has."""
    network = small_vpsnet()
    card = ModelCard(task="panoptic", system="vpsnet", labels=LABELS, resize=ResizeRule(length=96))
    predictor = Predictor(network, card, device="cpu")
    clips = [[(255 * frame[0, :, :61, :95]).byte() for frame in gliding_squares(3, seed=seed)] for seed in (1, 2)]
    apart: list[list[Tensor]] = []
    for clip in clips:
        memory: FrameMemory | None = None
        apart.append([])
        for frame in clip:
            annotation, memory = predictor.annotate_frame(frame, memory, Options())
            assert annotation.panoptic is not None
            assert annotation.panoptic.ids.shape == (61, 95)
            apart[-1].append(annotation.panoptic.ids)
    memories: list[FrameMemory | None] = [None, None]
    for number in range(3):
        for index, clip in enumerate(clips):
            annotation, memories[index] = predictor.annotate_frame(clip[number], memories[index], Options())
            assert annotation.panoptic is not None
            assert torch.equal(annotation.panoptic.ids, apart[index][number])
    assert any(int(ids.max()) > 5 for ids in apart[0]), "no thing was found"
