"""YolactEdge: Liu, Rivera Soto, Xiao, Lee, "YolactEdge: Real-time Instance Segmentation on the Edge", ICRA 2021.

YOLACT for video. The whole network runs on every fifth frame, a key frame. On the frames between, the backbone stops
after C3; the sums P4 and P5 of the feature pyramid are those of the key frame, warped by a flow that a small network
predicts from the laterals of C3 of both frames, and P3 is made of the frame's own C3 and the warped P4 (section III-B).
Prototypes, head and losses are YOLACT's.

Differences from the paper, and from the authors' code where it says more:
- TensorRT with 8-bit numbers (section III-A) is a way to run a trained network, not a part of it; here it computes in
  the precision of its weights.
- The flow is not trained on FlyingChairs: it is trained with the rest on pairs of frames, and on their ground truth
  flow where the data have it (`cutout-clips` do). So flow, scale, bias and refinement are initialised as the identity,
  where the authors' begin at random. The flow and the features at the resolution of P3, which theirs computes in
  training alone, are skipped.
- One step adds the losses of a pair's later frame as a frame between and as a key frame; the authors make a step for
  each, and one for an image of COCO in between.
- The key frame of a pair lies two to five frames before the other, as in prediction; in the authors' code after it.
- The features of P5 are compared after P5's own 3×3 convolution; the authors' code takes that of P3 for them.
- Backbones whose maps shrink as the flow network's do, which are ResNets, MobileNets and DarkNet. MobileNet V2 has the
  maps of `models.yolact`; the authors take others of strides 16 and 32.
- The recipe is for small data sets on a small machine; the paper's numbers stand beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.func import functional_call

from pixelwise.contracts import Augmentation, Recipe, Sizes, Term, Thresholds, flat_arguments
from pixelwise.errors import DataError, RecipeError
from pixelwise.losses.detection import training_output
from pixelwise.models import yolact
from pixelwise.models.yolact import YOLACT, Detections, Predictions
from pixelwise.nn.backbone import Backbone
from pixelwise.nn.backbones import MobileNetV2Backbone, MobileNetV3Backbone, ResNetBackbone
from pixelwise.nn.darknet import DarkNetBackbone
from pixelwise.nn.efficientnet_lite import EfficientNetLiteBackbone
from pixelwise.ops.padding import zero_beyond
from pixelwise.ops.precision import at_least_float32
from pixelwise.ops.warp import warp
from pixelwise.types import Annotation, Batch

TASK = "instance"
TRAITS = replace(yolact.TRAITS, uses_memory=True, clip_frames=2, reference_offsets=(-5, -4, -3, -2), learns_flow=True)

_WITH_FIRST_STAGES = (
    ResNetBackbone,
    MobileNetV2Backbone,
    MobileNetV3Backbone,
    EfficientNetLiteBackbone,
    DarkNetBackbone,
)
LEAK = 0.1
"""Slope of the activations of the flow network and the refinement below zero."""

FLOW_WEIGHT = 4.0
"""Weight of the flow loss, whose distances are fractions of a cell, so that it has the scale of the others."""

Learns = Literal["images", "pairs"]
"""Parts that are trained.

- `images`: all parts of YOLACT, on single images.
- `pairs`: on a key frame and a later frame of the same clip, all but the backbone and the 1×1 convolutions of the
  pyramid, which are fixed, so that cached features of key frames stay valid.
"""


class Memory(NamedTuple):
    """Features of the last key frame of a clip.

    Attributes:
        lateral: C3 at the width of the pyramid.
        p4: the pyramid's sum of stride 16, before its 3×3 convolution.
        p5: that of stride 32.
        age: frames since, the same for all clips of a batch.
    """

    lateral: Float[Tensor, "B D h3 w3"]
    p4: Float[Tensor, "B D h4 w4"]
    p5: Float[Tensor, "B D h5 w5"]
    age: Int64[Tensor, " B"]


class Matching(NamedTuple):
    """Features of P4 and P5 to be matched, before their 3×3 convolutions, then after them.

    Attributes:
        transformed: from the key frame's features.
        expected: of the whole network, without gradient.
        flows: of P4 and P5, see FeatureTransform.
    """

    transformed: tuple[Float[Tensor, "B D _ _"], ...]
    expected: tuple[Float[Tensor, "B D _ _"], ...]
    flows: tuple[Float[Tensor, "B 2 _ _"], ...]


class TrainingOutput(NamedTuple):
    """Inputs of the losses, of the later frame of each pair.

    Attributes:
        partial: as a frame between key frames.
        whole: as a key frame.
        matching: see Matching.
    """

    partial: yolact.TrainingOutput
    whole: yolact.TrainingOutput
    matching: Matching


class Output(NamedTuple):
    """The predictions for the next frame of each clip.

    Attributes:
        predictions: as in YOLACT.
        detections: as in YOLACT.
        memory: for the next frame.
    """

    predictions: Predictions
    detections: tuple[Detections, ...]
    memory: Memory


class FeatureTransform(NamedTuple):
    """Transform from features of the key frame to those of the frame.

    Attributes:
        flow: displacement in the key frame, right and down, in sixteenths of the distance between the centres of the
            outermost cells.
        scale: factor on the features there.
        bias: added after the factor.
    """

    flow: Float[Tensor, "B 2 h w"]
    scale: Float[Tensor, "B D h w"]
    bias: Float[Tensor, "B D h w"]


class TransformHead(nn.Module):
    """Predicts a FeatureTransform; initialised as the identity.

    Args:
        width: channels of its input.
        channels: of the features.
    """

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.flow = nn.Conv2d(width, 2, 3, padding=1, bias=False)
        self.scale = nn.Conv2d(width, channels, 1)
        self.bias = nn.Conv2d(width, channels, 1)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)
        nn.init.ones_(self.scale.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Float[Tensor, "B _ h w"]) -> FeatureTransform:
        """For each cell of the map."""
        return FeatureTransform(self.flow(x), self.scale(x), self.bias(x))


class FeatFlowNet(nn.Module):
    """Predicts the motion of P4 and P5 from two laterals of C3 (figure 3): a small FlowNet (Dosovitskiy et al., 2015).

    Args:
        channels: of laterals and features.
        width: of its first stage; the others have two and four times as many.
    """

    def __init__(self, channels: int, *, width: int = 64) -> None:
        super().__init__()
        self.reduce = _leaky(channels, width)
        self.encode3 = nn.Sequential(_leaky(2 * width, width), _leaky(width, width))
        self.encode4 = nn.Sequential(_leaky(width, 2 * width, stride=2), _leaky(2 * width, 2 * width))
        self.encode5 = nn.Sequential(_leaky(2 * width, 4 * width, stride=2), _leaky(4 * width, 4 * width))
        self.head5 = TransformHead(4 * width, channels)
        self.enlarge_features = nn.Conv2d(4 * width, 2 * width, 3, padding=1, bias=False)
        self.enlarge_flow = nn.Conv2d(2, 2, 3, padding=1, bias=False)
        self.head4 = TransformHead(4 * width + 2, channels)

    def forward(
        self, target: Float[Tensor, "B D h w"], key: Float[Tensor, "B D h w"]
    ) -> tuple[FeatureTransform, FeatureTransform]:
        """The transforms of P4 and of P5.

        Args:
            target: lateral of the frame.
            key: lateral of the key frame.
        """
        x3 = self.encode3(torch.cat([self.reduce(target), self.reduce(key)], dim=1))
        x4 = self.encode4(x3)
        x5 = self.encode5(x4)
        five = self.head5(x5)
        size = (x4.shape[2], x4.shape[3])
        x4 = torch.cat(
            [x4, self.enlarge_features(_resized(x5, size)), self.enlarge_flow(_resized(five.flow, size))], dim=1
        )
        return self.head4(x4), five


class Refinement(nn.Module):
    """Refines transformed features by the frame's own C3; initialised to add zero.

    Args:
        channels: of the features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_leaky(2 * channels, channels) for _ in range(2))
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self, lateral: Float[Tensor, "B D h w"], features: Sequence[Float[Tensor, "B D _ _"]]
    ) -> tuple[Float[Tensor, "B D _ _"], ...]:
        """The features of both levels, from the finer."""
        refined: list[Tensor] = []
        for layer, x in zip(self.layers, features, strict=True):
            # for P5 the lateral is downsampled twice, as in the authors' code
            lateral = _resized(lateral, (x.shape[2], x.shape[3]))
            refined.append(x + layer(torch.cat([x, lateral], dim=1)))
        return tuple(refined)


class YolactEdge(YOLACT):
    """A YOLACT that takes the deeper features of most frames from a key frame.

    Args:
        backbone: a ResNet, MobileNet or DarkNet.
        things: class ids of the things, ascending.
        detector: see YOLACT.
        flow_width: see FeatFlowNet.
        key_interval: every n-th frame of a clip is a key frame; 1 for all.
        learns: see Learns.

    Raises:
        RecipeError: a backbone whose maps the flow network's do not fit, or whose first stages cannot run alone.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        things: tuple[int, ...],
        detector: yolact.DetectorArguments,
        flow_width: int,
        key_interval: int,
        learns: Learns,
    ) -> None:
        if not isinstance(backbone, _WITH_FIRST_STAGES):
            raise RecipeError(
                f"{type(backbone).__name__}: yolact_edge takes a ResNet, MobileNet, EfficientNet-Lite or DarkNet of "
                "its own, whose first stages run alone"
            )
        super().__init__(backbone, things=things, detector=detector)
        self.flow_net = FeatFlowNet(self.fpn.channels, width=flow_width)
        self.refinement = Refinement(self.fpn.channels)
        self.key_interval, self.learns = key_interval, learns
        self.traits = replace(TRAITS, clip_frames=1) if learns == "images" else TRAITS
        frozen = (self.backbone, self.fpn.lateral) if learns == "pairs" else (self.flow_net, self.refinement)
        for part in frozen:
            part.requires_grad_(False)

    def train(self, mode: bool = True) -> YolactEdge:
        """Set the mode; batch norms of a fixed backbone keep their statistics."""
        super().train(mode)
        if self.learns == "pairs":
            self.backbone.eval()
        return self

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] (its output has more fields)
        self,
        images: Float[Tensor, "B 3 H W"],
        sizes: Int64[Tensor, "B 2"] | None = None,
        truth: tuple[Annotation, ...] | None = None,
        memory: Memory | None = None,
    ) -> Output | TrainingOutput | yolact.TrainingOutput:
        """The predictions; in training with ground truth the inputs of the losses, of single images or of pairs.

        Args:
            images: the next frame of a clip; in training on pairs, with ground truth, key frame and later frame of
                each clip in turn.
            sizes: see YOLACT, as for the others.
            truth: of each image.
            memory: of the frame before; None begins a clip.

        Raises:
            DataError: images that are not pairs, or a frame of another size than those before it.
        """
        x, size = zero_beyond(self.normalize(images), sizes), (images.shape[2], images.shape[3])
        if self.training and truth is not None:
            if self.learns == "pairs":
                return self._learn_pairs(x, size, truth)
            return self.compare(self._pyramid(x), size, truth)
        if memory is None or int(memory.age[0]) + 1 >= self.key_interval:
            sums, memory = self._whole_pass(x)
        else:
            sums, memory = self._partial_pass(x, memory), memory._replace(age=memory.age + 1)
        predictions = self.predict(self.fpn.refine(sums), size)
        return Output(predictions, self.detect(predictions), memory)

    def features(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "_ _ _ *_"], ...]:
        """Maps before detections are sorted, of images as key frames and of their mirror images as the next frames."""
        size = (images.shape[2], images.shape[3])
        sums, memory = self._whole_pass(self.normalize(images))
        others = self._partial_pass(self.normalize(images.flip(3)), memory)
        both = [self.predict(self.fpn.refine(each), size) for each in (sums, others)]
        return tuple(map for one in both for map in (one.logits, one.deltas, one.prototypes))

    def loss(  # pyright: ignore[reportIncompatibleMethodOverride] (it compares its own outputs)
        self, output: Output | TrainingOutput | yolact.TrainingOutput, batch: Batch
    ) -> dict[str, Term]:
        """YOLACT's losses. On pairs there are those of the later frame between key frames, those of it as a key frame
        (`key_…`), and the distance of the transformed features from those of the whole network: 1 - cosine, averaged
        over cells and maps. Where the ground truth has a flow, the endpoint error of the predicted flow is added: in
        cells, averaged over the cells of which at least half is known.

        Raises:
            DataError: an output of prediction, or instances without masks.
        """
        if not isinstance(output, TrainingOutput):
            return super().loss(training_output(output, yolact.TrainingOutput), batch)
        later = replace(batch, truth=batch.truth[1::2])
        terms = super().loss(output.partial, later)
        terms |= {f"key_{name}": term for name, term in super().loss(output.whole, later).items()}
        pairs = list(zip(output.matching.transformed, output.matching.expected, strict=True))
        distances = [1 - F.cosine_similarity(at_least_float32(x), at_least_float32(target)) for x, target in pairs]
        total = torch.stack([distance.flatten(1).mean(dim=1) for distance in distances]).sum()
        count = torch.tensor(len(pairs) * len(later.truth), device=total.device)
        terms["matching"] = Term(total, count)
        terms["flow"] = _flow_term(output.matching.flows, later.truth)
        return terms

    def decode(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, output: Output, sizes: Sizes, thresholds: Thresholds | None = None
    ) -> list[Annotation]:
        """As YOLACT."""
        return super().decode(yolact.Output(output.predictions, output.detections), sizes, thresholds)

    def transform(
        self, lateral: Float[Tensor, "B D h w"], memory: Memory
    ) -> tuple[Float[Tensor, "B D _ _"], Float[Tensor, "B D _ _"], Float[Tensor, "B D _ _"]]:
        """The pyramid's sums P3, P4 and P5 of a frame, made of its own C3 and the key frame's features.

        Args:
            lateral: of C3.
            memory: of the key frame.
        """
        return self._transformed(lateral, memory, self.flow_net(lateral, memory.lateral))

    def _transformed(
        self, lateral: Float[Tensor, "B D h w"], memory: Memory, transforms: Sequence[FeatureTransform]
    ) -> tuple[Float[Tensor, "B D _ _"], Float[Tensor, "B D _ _"], Float[Tensor, "B D _ _"]]:
        """As `transform`, with given transforms for P4 and P5."""
        with torch.autocast(lateral.device.type, enabled=False):
            p4, p5 = (
                transformed(features, FeatureTransform(*(at_least_float32(part) for part in transform)))
                for features, transform in zip((memory.p4, memory.p5), transforms, strict=True)
            )
        p3, p4 = self.fpn.add([lateral, p4])
        p4, p5 = self.refinement(lateral, (p4, p5))
        return p3, p4, p5

    def _whole_pass(self, x: Float[Tensor, "B 3 H W"]) -> tuple[tuple[Float[Tensor, "B D _ _"], ...], Memory]:
        """The pyramid's sums, and the memory of a key frame."""
        maps = self.backbone(x)
        laterals = self.fpn.widen([maps[level] for level in self.levels])
        sums = self.fpn.add(laterals)
        return sums, Memory(laterals[0], sums[1], sums[2], torch.zeros(len(x), dtype=torch.int64))

    def _partial_pass(self, x: Float[Tensor, "B 3 H W"], memory: Memory) -> tuple[Float[Tensor, "B D _ _"], ...]:
        """The pyramid's sums, without the backbone's stages beyond C3."""
        lateral = self.fpn.lateral[0](self.backbone.first_maps(x, self.levels[0] + 1)[-1])
        if lateral.shape != memory.lateral.shape:
            raise DataError(
                f"{lateral.shape[0]} frames with C3 of {lateral.shape[2]}×{lateral.shape[3]} after "
                f"{memory.lateral.shape[0]} of {memory.lateral.shape[2]}×{memory.lateral.shape[3]}: the frames of a "
                "clip have one size; begin a clip with memory=None"
            )
        return self.transform(lateral, memory)

    def _learn_pairs(
        self, x: Float[Tensor, "B 3 H W"], size: tuple[int, int], truth: tuple[Annotation, ...]
    ) -> TrainingOutput:
        if len(x) % 2:
            raise DataError(f"{len(x)} images: expected pairs of a key frame and a later frame")
        sums, seen = self._whole_pass(x)
        key = Memory(*(part[::2] for part in seen))
        # the backbone is fixed: C3 of the later frame need not be computed a second time
        lateral = seen.lateral[1::2]
        transforms = self.flow_net(lateral, key.lateral)
        sums, found = tuple(each[1::2] for each in sums), self._transformed(lateral, key, transforms)
        whole, partial = (self.compare(self.fpn.refine(each), size, truth[1::2]) for each in (sums, found))
        features = [self._matched(each[1:]) for each in (found, sums)]
        flows = tuple(at_least_float32(transform.flow) for transform in transforms)
        return TrainingOutput(
            partial, whole, Matching(features[0], tuple(each.detach() for each in features[1]), flows)
        )

    def _matched(self, sums: Sequence[Float[Tensor, "B D _ _"]]) -> tuple[Float[Tensor, "B D _ _"], ...]:
        """P4 and P5 before and after their 3×3 convolutions, which get no gradient from it."""
        after: list[Tensor] = []
        for x, convolution in zip(sums, list(self.fpn.output)[1:], strict=True):
            weights = {name: weight.detach() for name, weight in convolution.named_parameters()}
            after.append(functional_call(convolution, weights, (x,)))
        return (*sums, *after)


def transformed(features: Float[Tensor, "B D h w"], transform: FeatureTransform) -> Float[Tensor, "B D h w"]:
    """The features warped by the flow, zero beyond the map, times scale plus bias (section III-B)."""
    return warp(features, _in_cells(transform.flow)) * transform.scale + transform.bias


def _in_cells(flow: Float[Tensor, "B 2 h w"]) -> Float[Tensor, "B 2 h w"]:
    """The flow of a FeatureTransform in cells of its map."""
    height, width = flow.shape[2:]
    return flow * flow.new_tensor([(width - 1) / 16, (height - 1) / 16])[:, None, None]


def _flow_term(flows: Sequence[Float[Tensor, "B 2 _ _"]], truth: Sequence[Annotation]) -> Term:
    """Endpoint error of the flows, summed over the cells of which at least half is known."""
    total = torch.stack([flow.sum() * 0 for flow in flows]).sum()
    count = torch.tensor(0, device=total.device)
    for flow in flows:
        for found, one in zip(_in_cells(flow), truth, strict=True):
            if one.flow is None:
                continue
            known = ~one.flow[:1].isnan()
            size = (found.shape[1], found.shape[2])
            share = F.adaptive_avg_pool2d(known.to(found), size)
            cells = found.new_tensor([size[1] / known.shape[2], size[0] / known.shape[1]])[:, None, None]
            target = F.adaptive_avg_pool2d(one.flow.to(found).nan_to_num(), size) / share.clamp(min=0.5) * cells
            evaluated = share[0] >= 0.5
            total = total + torch.linalg.vector_norm(found - target, dim=0)[evaluated].sum()
            count = count + evaluated.sum()
    return Term(total, count, weight=FLOW_WEIGHT)


def _leaky(in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Sequential:
    """A 3×3 convolution and its activation."""
    layer = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1)
    nn.init.kaiming_normal_(layer.weight, a=LEAK)
    nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]
    return nn.Sequential(layer, nn.LeakyReLU(LEAK, inplace=True))


def _resized(x: Float[Tensor, "B _ _ _"], size: tuple[int, int]) -> Float[Tensor, "B _ _ _"]:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


@flat_arguments
def build(
    *,
    num_classes: int,
    detector: yolact.DetectorArguments = yolact.DETECTOR,
    flow_width: int = 64,
    key_interval: int = 5,
    learns: Learns = "pairs",
) -> YolactEdge:
    """YolactEdge with random weights.

    Args:
        num_classes: background included.
        detector: its fields are arguments of their own; the backbone is a ResNet, MobileNet or DarkNet of
            `nn.backbones.NAMES`.
        flow_width: channels of the flow network's first stage.
        key_interval: every n-th frame of a clip is a key frame.
        learns: see Learns.

    Raises:
        RecipeError: arguments that do not fit together.
    """
    if key_interval < 1:
        raise RecipeError(f"key_interval {key_interval}: expected at least 1, which makes each frame a key frame")
    if learns not in ("images", "pairs"):
        raise RecipeError(f"learns '{learns}': images or pairs")
    backbone, things = yolact.network_parts(num_classes, detector)
    return YolactEdge(
        backbone, things=things, detector=detector, flow_width=flow_width, key_interval=key_interval, learns=learns
    )


VARIANTS = {
    "yolact_edge_resnet101": {"backbone": "resnet101"},
    "yolact_edge_resnet50": {"backbone": "resnet50"},
    "yolact_edge_darknet53": {"backbone": "darknet53"},
    "yolact_edge_mobilenet_v2": {"backbone": "mobilenet_v2", "anchors": "ratios"},
}

_IMAGES = replace(yolact.RECIPE.stages[0], name="images", arguments={"learns": "images", "key_interval": 1})
RECIPE = Recipe(
    stages=(
        _IMAGES,
        replace(
            _IMAGES,
            name="pairs",
            steps=2_000,
            augmentation=Augmentation(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05),
            arguments={},
        ),
    ),
    input_size=320,
    input_side="square",
    paper={
        "input_size": "550",
        "images.steps": "500,000, each of a frame of YouTube-VIS and an image of COCO",
        "images.optimizer.lr": "5e-4, falling as a cosine",
        "pairs.steps": "200,000, after 400,000 of the flow alone on FlyingChairs",
        "pairs.optimizer.lr": "2e-4, falling as a cosine",
        **{
            f"{stage}.{name}": value
            for stage in ("images", "pairs")
            for name, value in {
                "batch_size": "8",
                "crop_size": "550",
                "optimizer.name": "sgd",
                "optimizer.head_lr_multiplier": "1",
                "optimizer.weight_decay": "5e-4",
                "optimizer.norm_weight_decay": "5e-4",
                "optimizer.clip_norm": "0",
                "poly_power": "a cosine",
                "warmup_steps": "500",
                "ema_decay": "none",
            }.items()
        },
        "images.augmentation.copy_paste": "0",
    },
)
RECIPES: dict[str, Recipe] = {}
PUBLISHED: dict[str, dict[str, Recipe]] = {}
