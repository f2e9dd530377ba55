"""YolactEdge's release: every tensor has its place, and its flow network and refinement, read aloud from their keys,
make the same partial frames as ours."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pixelwise.cli.import_weights import Family, import_weights
from pixelwise.errors import CheckpointError
from pixelwise.importers.foreign import require_fit
from pixelwise.importers.yolact import square
from pixelwise.importers.yolact_edge import NETWORKS, convert
from pixelwise.inference.model_folder import read_model
from pixelwise.inference.systems import system_module
from pixelwise.models import yolact_edge
from tests.importers import yolact_release


def their_keys(name: str, classes: int = 40) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the released tensors, without the counters of batches."""
    depth = "yolact_resnet50" if "resnet50" in name else "yolact_base"
    keys = {
        key.replace("fpn.lat", "fpn_phase_1.lat").replace("fpn.", "fpn_phase_2."): shape
        for key, shape in yolact_release.their_keys(depth, classes).items()
    }
    if "vid" not in name:
        return keys

    def convolution(prefix: str, before: int, after: int, kernel: int = 3, *, has_bias: bool = True) -> None:
        keys[f"{prefix}.weight"] = (after, before, kernel, kernel)
        if has_bias:
            keys[f"{prefix}.bias"] = (after,)

    convolution("flow_net_pre_convs.convs.0.0", 256, 64)
    for number, (before, after) in enumerate(((128, 64), (64, 128), (128, 256)), start=1):
        convolution(f"flow_net.conv{number}.0.0", before, after)
        convolution(f"flow_net.conv{number}.1.0", after, after)
    for number, width in ((3, 256), (2, 258), (1, 130)):
        convolution(f"flow_net.pred{number}.conv", width, 2, has_bias=False)
        convolution(f"flow_net.pred{number}.scale", width, 256, 1)
        convolution(f"flow_net.pred{number}.bias", width, 256, 1)
    for number, before, after in ((3, 256, 128), (2, 258, 64)):
        convolution(f"flow_net.upfeat{number}", before, after, has_bias=False)
        convolution(f"flow_net.upflow{number}", 2, 2, has_bias=False)
    for number in (0, 1):
        convolution(f"spa.refine_convs.{number}.0", 512, 256)
    return keys


@pytest.mark.parametrize("name", list(NETWORKS))
def test_every_released_tensor_has_its_place(name: str) -> None:
    classes = 40 if "vid" in name or "vis" in name else 80
    keys = their_keys(name, classes)
    with torch.device("meta"):
        weights = {key: torch.empty(shape) for key, shape in keys.items()}
        model = convert(name, weights)
        network = system_module(model.system).build(num_classes=model.num_classes, **model.arguments)
    require_fit(model.weights, network.state_dict(), source=name, expected=name)
    assert model.system == ("yolact_edge" if "vid" in name else "yolact")
    # the flow of P3 is skipped: its prediction, and what enlarges flow and features for it
    assert len(model.skipped) == (7 if "vid" in name else 0)
    assert len(model.weights) == len(weights) - len(model.skipped)
    assert (model.num_classes, model.resize) == (classes + 1, square(550))


def test_the_number_of_weights_is_the_authors() -> None:
    keys = their_keys("yolact_edge_vid")
    counted = [key for key in keys if not key.endswith(("running_mean", "running_var"))]
    assert round(sum(torch.Size(keys[key]).numel() for key in counted) / 1e6, 2) == 54.38


def random_weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = {
        key: shape for key, shape in their_keys("yolact_edge_vid_resnet50").items() if "flow" in key or "spa" in key
    }
    added: dict[str, Tensor] = {}
    for key, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        added[key] = noise * (2 / (shape[1] * shape[2] * shape[3])) ** 0.5 if len(shape) == 4 else 0.1 * noise
    base = yolact_release.random_weights("yolact_resnet50")
    renamed = {key.replace("fpn.lat", "fpn_phase_1.lat").replace("fpn.", "fpn_phase_2."): base[key] for key in base}
    renamed["semantic_seg_conv.weight"], renamed["semantic_seg_conv.bias"] = torch.zeros(40, 256, 1, 1), torch.zeros(40)
    classes = ("prediction_layers.0.conf_layer.weight", "prediction_layers.0.conf_layer.bias")
    return {**renamed, **{key: renamed[key][: 3 * 41] for key in classes}, **added}


def their_partial_sums(weights: dict[str, Tensor], target: Tensor, key: yolact_edge.Memory) -> list[Tensor]:
    """`Yolact.forward` of a partial frame from the lateral on, as plain function calls."""

    def conv(x: Tensor, name: str, *, stride: int = 1) -> Tensor:
        weight = weights[f"{name}.weight"]
        return F.conv2d(x, weight, weights.get(f"{name}.bias"), stride=stride, padding=weight.shape[2] // 2)

    def leaky(x: Tensor, name: str, *, stride: int = 1) -> Tensor:
        return F.leaky_relu(conv(x, name, stride=stride), 0.1)

    def enlarged(x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)

    def deformed(x: Tensor, head: Tensor, name: str) -> tuple[Tensor, Tensor]:
        flow = conv(head, f"{name}.conv")
        n, _, h, w = flow.shape
        rows, columns = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
        grid = torch.stack([columns, rows]).expand(n, -1, -1, -1) + flow / 8
        moved = F.grid_sample(x, grid.permute(0, 2, 3, 1), padding_mode="zeros", align_corners=True)
        return moved * conv(head, f"{name}.scale") + conv(head, f"{name}.bias"), flow

    reduced = [leaky(x, "flow_net_pre_convs.convs.0.0") for x in (target, key.lateral)]
    x1 = leaky(leaky(torch.cat(reduced, dim=1), "flow_net.conv1.0.0"), "flow_net.conv1.1.0")
    x2 = leaky(leaky(x1, "flow_net.conv2.0.0", stride=2), "flow_net.conv2.1.0")
    x3 = leaky(leaky(x2, "flow_net.conv3.0.0", stride=2), "flow_net.conv3.1.0")
    p5, flow = deformed(key.p5, x3, "flow_net.pred3")
    both = [x2, conv(enlarged(x3, x2), "flow_net.upfeat3"), conv(enlarged(flow, x2), "flow_net.upflow3")]
    p4, _ = deformed(key.p4, torch.cat(both, dim=1), "flow_net.pred2")
    p3 = enlarged(p4, target) + target
    c3 = enlarged(target, p4)
    p4 = p4 + leaky(torch.cat([p4, c3], dim=1), "spa.refine_convs.0.0")
    p5 = p5 + leaky(torch.cat([p5, enlarged(c3, p5)], dim=1), "spa.refine_convs.1.0")
    return [p3, p4, p5]


@torch.no_grad()
def test_partial_frames_are_theirs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = random_weights()
    source = tmp_path / "yolact_edge_vid_resnet50_847_50000.pth"
    torch.save(weights, source)
    import_weights(Family.yolact_edge, "yolact_edge_vid_resnet50", source, out=tmp_path / "model")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{len(weights) - 7} tensors mapped, 0 missing, 0 unexpected"
    assert lines[1].startswith("7 tensors skipped that are not used: flow_net.pred1.")
    network, card = read_model(tmp_path / "model")
    assert (card.system, card.resize, len(card.labels)) == ("yolact_edge", square(550), 41)
    assert isinstance(network, yolact_edge.YolactEdge)
    first, second = torch.rand(2, 1, 3, 107, 150)
    memory = network(first).memory
    maps = network.backbone(network.normalize(second))
    lateral = F.conv2d(maps[1], weights["fpn_phase_1.lat_layers.2.weight"], weights["fpn_phase_1.lat_layers.2.bias"])
    found = network.transform(lateral, memory)
    for one, other in zip(found, their_partial_sums(weights, lateral, memory), strict=True):
        assert one.shape == other.shape
        assert float((one - other).abs().max()) <= 1e-4 * float(other.abs().max())


def test_other_weights_are_refused() -> None:
    with pytest.raises(CheckpointError, match="yolact_edge has no 'yolact_base' here; there are yolact_edge"):
        convert("yolact_base", {})
    with pytest.raises(CheckpointError, match=r"there is no semantic_seg_conv.weight"):
        convert("yolact_edge_vid", {"fc.weight": torch.zeros(1)})
