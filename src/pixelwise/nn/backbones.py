"""Image classifiers as feature extractors, dilated where a system needs denser maps.

torchvision's ResNets, MobileNets and VGG-16 keep torchvision's own keys (`conv1.weight`, `features.0.0.weight`),
without the classifier; timm's networks, EfficientNet-Lite among them, keep timm's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torchvision
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.errors import CheckpointError, RecipeError
from pixelwise.files.tensors import read_tensors
from pixelwise.nn.backbone import Backbone
from pixelwise.nn.darknet import DarkNetBackbone
from pixelwise.nn.dilation import FirstBlock, dilate_stages
from pixelwise.nn.efficientnet_lite import NAMES as EFFICIENTNET_LITES
from pixelwise.nn.efficientnet_lite import TIMM_PREFIX, EfficientNetLiteBackbone

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
DEEP_STEM = "_deep_stem"
"""Suffix of the ResNets of PSPNet's authors: three 3×3 convolutions in place of the 7×7."""
STRIDE_IN_1X1 = "_stride_in_1x1"
"""Suffix of the ResNets of He et al.'s Caffe release: blocks are strided in their first convolution, not in the 3×3."""
DARKNET = "darknet53"
"""Our own layout, see `nn.darknet`; timm's has its prefix."""
NAMES = (
    *RESNETS,
    *(f"{name}{DEEP_STEM}" for name in RESNETS[2:]),
    *(f"{name}{STRIDE_IN_1X1}" for name in RESNETS[2:]),
    "mobilenet_v2",
    "mobilenet_v2_1280",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    *EFFICIENTNET_LITES,
    DARKNET,
    "vgg16",
    "vgg16_bn",
)
BOTTLENECK_RESNETS = tuple(name for name in NAMES if name.startswith(RESNETS[2:]))
"""ResNets whose blocks have three convolutions and whose last stage has three blocks."""
TIMM = "timm/"
"""Prefix of timm's names."""
_OTHER_FILES = "copy it again, or make a backbone of weights of torchvision's or timm's with pixelwise import"


class ResNetBackbone(Backbone):
    """He et al., Deep Residual Learning (2016); torchvision's layout, by default strided in the 3×3.

    Args:
        network: a torchvision ResNet.
        output_stride: 8, 16 or 32.
        multi_grid: factors on the dilation of the last stage's blocks, where that stage is dilated; None for 1.
        first_block: see FirstBlock.
        deep_stem: three 3×3 convolutions of 64, 64 and 128 channels in place of the 7×7, as in PSPNet's release.
        stride_in_1x1: the first convolution of a bottleneck is strided, as in the Caffe release.
    """

    def __init__(
        self,
        network: torchvision.models.ResNet,
        *,
        output_stride: int,
        multi_grid: Sequence[int] | None = None,
        first_block: FirstBlock = "previous",
        deep_stem: bool = False,
        stride_in_1x1: bool = False,
    ) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu, self.maxpool = network.conv1, network.bn1, network.relu, network.maxpool
        self.deep_stem = deep_stem
        if deep_stem:
            self.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
            self.conv2, self.bn2 = nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)
            self.conv3, self.bn3 = nn.Conv2d(64, 128, 3, padding=1, bias=False), nn.BatchNorm2d(128)
            _widen_input(network.layer1, 128)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            network.layer1,
            network.layer2,
            network.layer3,
            network.layer4,
        )
        if stride_in_1x1:
            blocks: Any = (self.layer2[0], self.layer3[0], self.layer4[0])
            for block in blocks:
                block.conv1.stride, block.conv2.stride = block.conv2.stride, (1, 1)
        layers = self._layers()
        grids = {4: tuple(multi_grid)} if multi_grid else None
        self.strides = dilate_stages(
            [list(layer.children()) for layer in layers],
            (4, 8, 16, 32),
            output_stride,
            grids=grids,
            first_block=first_block,
        )
        self.channels = tuple(_last_channels(layer) for layer in layers)

    def first_maps(self, images: Float[Tensor, "B 3 H W"], count: int) -> tuple[Float[Tensor, "B C h w"], ...]:
        """The maps after the first `count` stages."""
        x = self.relu(self.bn1(self.conv1(images)))
        if self.deep_stem:
            x = self.relu(self.bn2(self.conv2(x)))
            x = self.relu(self.bn3(self.conv3(x)))
        x = self.maxpool(x)
        maps: list[Tensor] = []
        for layer in self._layers()[:count]:
            x = layer(x)
            maps.append(x)
        return tuple(maps)

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """The stem with the first stage, and the others."""
        deep = (self.conv2, self.bn2, self.conv3, self.bn3) if self.deep_stem else ()
        first, *others = self._layers()
        return ((self.conv1, self.bn1, *deep, first), *((layer,) for layer in others))

    def shorten(self, maps: int) -> None:
        """Keep the first `maps` stages."""
        for number in range(maps, len(self.strides)):
            delattr(self, f"layer{number + 1}")
        self.strides, self.channels = self.strides[:maps], self.channels[:maps]

    def _layers(self) -> list[nn.Module]:
        return [getattr(self, f"layer{number}") for number in range(1, 5) if hasattr(self, f"layer{number}")]


class _Sequence(Backbone):
    """A network that is one sequence of blocks; some of them output the maps.

    Args:
        blocks: the sequence; kept under `features`.
        ends: indices of the blocks whose outputs are the maps.
    """

    def __init__(self, blocks: nn.Sequential, ends: Sequence[int]) -> None:
        super().__init__()
        self.features = blocks
        self.ends = tuple(ends)

    def first_maps(self, images: Float[Tensor, "B 3 H W"], count: int) -> tuple[Float[Tensor, "B C h w"], ...]:
        """The maps after the first of the blocks `ends`."""
        x = images
        maps: list[Tensor] = []
        for index, block in enumerate(islice(self.features, self.ends[count - 1] + 1)):
            x = block(x)
            if index in self.ends:
                maps.append(x)
        return tuple(maps)

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """The blocks of each map."""
        starts = (0, *(end + 1 for end in self.ends[:-1]))
        blocks = list(self.features)
        return tuple(tuple(blocks[start : end + 1]) for start, end in zip(starts, self.ends, strict=True))

    def shorten(self, maps: int) -> None:
        """Keep the blocks of the first `maps` maps."""
        self.ends = self.ends[:maps]
        self.features = self.features[: self.ends[-1] + 1]
        self.strides, self.channels = self.strides[:maps], self.channels[:maps]


class MobileNetV2Backbone(_Sequence):
    """Sandler et al., MobileNetV2 (2018), up to the last inverted residual (320 channels).

    Args:
        network: torchvision's MobileNet V2.
        output_stride: 8, 16 or 32.
        first_block: see FirstBlock.
        classifier_layer: include the 1×1 convolution of 1280 channels before the classifier, as smp does.
    """

    def __init__(
        self,
        network: torchvision.models.MobileNetV2,
        *,
        output_stride: int,
        first_block: FirstBlock = "previous",
        classifier_layer: bool = False,
    ) -> None:
        super().__init__(
            network.features[: 19 if classifier_layer else 18], (1, 3, 6, 13, 18 if classifier_layer else 17)
        )
        self.strides = dilate_stages(self.stages(), (2, 4, 8, 16, 32), output_stride, first_block=first_block)
        self.channels = (16, 24, 32, 96, 1280 if classifier_layer else 320)


class MobileNetV3Backbone(_Sequence):
    """Howard et al., Searching for MobileNetV3 (2019), up to the last 1×1 convolution before the pooling.

    The maps before the deepest are those of the first, strided block of each stage, as in torchvision's segmentation
    models; only the blocks of stride 32 are dilated where `output_stride` is 16.

    Args:
        network: torchvision's MobileNet V3.
        output_stride: 8, 16 or 32.
        first_block: see FirstBlock; torchvision's dilated networks are `full`.
    """

    def __init__(
        self, network: torchvision.models.MobileNetV3, *, output_stride: int, first_block: FirstBlock = "previous"
    ) -> None:
        blocks = list(network.features)
        strided = [0, *(index for index in range(1, len(blocks)) if _is_strided(blocks[index]))]
        # a map after each strided block but the last, and one at the end
        super().__init__(network.features, (*strided[:-1], len(blocks) - 1))
        groups = [blocks[start:stop] for start, stop in zip(strided, (*strided[1:], len(blocks)), strict=True)]
        strides = tuple(2 ** (number + 1) for number in range(len(groups)))
        self.strides = dilate_stages(groups, strides, output_stride, first_block=first_block)
        self.channels = tuple(_last_channels(blocks[end]) for end in self.ends)


class VGGBackbone(_Sequence):
    """Simonyan & Zisserman, Very Deep Convolutional Networks (2015): the maps after each of the five poolings.

    Args:
        network: torchvision's VGG.
        first_padding: of the first convolution; FCN's release has 100.
        ceil_mode: round the sizes of pooled maps up, as Caffe does.
        fully_convolutional: include the two hidden layers of the classifier as convolutions of 7×7 and 1×1 (Long et
            al., FCN, section 3.1), each with ReLU and dropout; the deepest map is then theirs. Their weights have the
            classifier's keys.
        last_pooling: without it the deepest map is that of the last convolution, of stride 16, as in Fast R-CNN.
    """

    def __init__(
        self,
        network: torchvision.models.VGG,
        *,
        first_padding: int = 1,
        ceil_mode: bool = False,
        fully_convolutional: bool = False,
        last_pooling: bool = True,
    ) -> None:
        features: Any = network.features
        poolings = [index for index, layer in enumerate(features) if isinstance(layer, nn.MaxPool2d)]
        for index in poolings:
            features[index].ceil_mode = ceil_mode
        features[0].padding = (first_padding, first_padding)
        if last_pooling:
            super().__init__(features, poolings)
        else:
            super().__init__(features[:-1], (*poolings[:-1], poolings[-1] - 1))
        self.strides = (2, 4, 8, 16, 32 if last_pooling else 16)
        self.channels = (64, 128, 256, 512, 512)
        self.classifier: nn.Sequential | None = None
        if fully_convolutional:
            self.channels = (*self.channels[:-1], 4096)
            self.classifier = nn.Sequential(
                nn.Conv2d(512, 4096, 7),
                nn.ReLU(inplace=True),
                nn.Dropout(0.5),
                nn.Conv2d(4096, 4096, 1),
                nn.ReLU(inplace=True),
                nn.Dropout(0.5),
            )

    def first_maps(self, images: Float[Tensor, "B 3 H W"], count: int) -> tuple[Float[Tensor, "B C h w"], ...]:
        """The maps after each pooling, the last one after the classifier's layers where they are included."""
        maps = super().first_maps(images, count)
        if self.classifier is None or count < len(self.ends):
            return maps
        return (*maps[:-1], self.classifier(maps[-1]))

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """The layers of each pooling, the classifier's with the last."""
        stages = super().stages()
        return stages if self.classifier is None else (*stages[:-1], (*stages[-1], self.classifier))

    def shorten(self, maps: int) -> None:
        """Keep the layers of the first `maps` maps."""
        if maps < len(self.ends):
            self.classifier = None
        super().shorten(maps)


class TimmBackbone(Backbone):
    """Any network of timm that offers its feature maps (`features_only`).

    Args:
        name: timm's, without the prefix.
        output_stride: as far as timm can dilate that network.
    """

    def __init__(self, name: str, *, output_stride: int) -> None:
        super().__init__()
        self.name, self.output_stride = name, output_stride
        self.network = _timm_features(name, output_stride)
        info: Any = self.network.feature_info
        self.strides, self.channels = tuple(info.reduction()), tuple(info.channels())
        if self.strides[-1] > output_stride:
            raise RecipeError(
                f"backbone '{TIMM}{name}': timm cannot dilate it; its output stride is {self.strides[-1]}"
            )
        configuration: Any = self.network.pretrained_cfg
        self.mean, self.std = tuple(configuration["mean"]), tuple(configuration["std"])
        self.channels_last = str(getattr(self.network, "output_fmt", "NCHW")).endswith("NHWC")

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B C h w"], ...]:
        """The maps that timm lists, channels first. Raises RecipeError for a size that the network does not take."""
        try:
            maps = self.network(images)
        except AssertionError as error:  # raised by timm's windowed transformers
            raise RecipeError(
                f"backbone '{TIMM}{self.name}': it does not take images of {images.shape[2]}×{images.shape[3]} pixels "
                f"({error})"
            ) from None
        return tuple(x.permute(0, 3, 1, 2) if self.channels_last else x for x in maps)

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """The children of the network, grouped by the map that they compute.

        Raises:
            RecipeError: timm computes the maps inside larger parts.
        """
        info: Any = self.network.feature_info
        ends = list(info.module_name())
        parts: list[tuple[str, nn.Module]] = []
        for name, child in self.network.named_children():
            inside = any(end.startswith(f"{name}.") for end in ends)
            parts += (
                [(f"{name}.{part}", module) for part, module in child.named_children()] if inside else [(name, child)]
            )
        names = {*ends, *(end.replace(".", "_") for end in ends)}
        stages: list[list[nn.Module]] = [[]]
        for name, module in parts:
            stages[-1].append(module)
            if name in names and len(stages) < len(self.strides):
                stages.append([])
        if len(stages) != len(self.strides):
            raise RecipeError(f"timm does not tell where the stages of {self.name} end")
        return stages

    def shorten(self, maps: int) -> None:
        """Rebuild the network for the first `maps` maps."""
        self.network = _timm_features(self.name, self.output_stride, maps=maps)
        self.strides, self.channels = self.strides[:maps], self.channels[:maps]


def build_backbone(
    name: str,
    *,
    output_stride: int = 16,
    multi_grid: Sequence[int] | None = None,
    first_block: FirstBlock = "previous",
) -> Backbone:
    """A backbone with random weights.

    Args:
        name: one of NAMES, or `timm/` and a name of timm's (which may be skipped where the name is not one of ours).
        output_stride: of the deepest map: 8, 16 or 32.
        multi_grid: factors on the dilation of a ResNet's last stage, None for 1; other networks have none.
        first_block: see FirstBlock; ignored for timm's networks, which timm dilates.

    Raises:
        RecipeError: an unknown name or stride, or a network that cannot have that stride.
    """
    if output_stride not in (8, 16, 32):
        raise RecipeError(f"output_stride {output_stride}: 8, 16 or 32")
    if first_block not in ("previous", "full"):
        raise RecipeError(f"first_block '{first_block}': previous or full")
    models: Any = torchvision.models
    if name.startswith("resnet") and name in NAMES:
        return ResNetBackbone(
            getattr(models, name.split("_")[0])(weights=None),
            output_stride=output_stride,
            multi_grid=multi_grid,
            first_block=first_block,
            deep_stem=name.endswith(DEEP_STEM),
            stride_in_1x1=name.endswith(STRIDE_IN_1X1),
        )
    if name in ("mobilenet_v2", "mobilenet_v2_1280"):
        network = models.mobilenet_v2(weights=None)
        wide = name.endswith("1280")
        return MobileNetV2Backbone(network, output_stride=output_stride, first_block=first_block, classifier_layer=wide)
    if name.startswith("mobilenet_v3") and name in NAMES:
        network = models.get_model(name, weights=None)
        return MobileNetV3Backbone(network, output_stride=output_stride, first_block=first_block)
    if name in EFFICIENTNET_LITES:
        return EfficientNetLiteBackbone(name, output_stride=output_stride, first_block=first_block)
    if name in ("vgg16", "vgg16_bn"):
        if output_stride != 32:
            raise RecipeError(f"backbone '{name}': its output stride is 32, not {output_stride}")
        return VGGBackbone(models.get_model(name, weights=None))
    if name == DARKNET:
        if output_stride != 32:
            raise RecipeError(f"backbone '{name}': its output stride is 32, not {output_stride}")
        return DarkNetBackbone()
    return TimmBackbone(_timm_name(name), output_stride=output_stride)


def load_backbone(
    backbone: Backbone, name: str, source: Path | Literal["torchvision", "timm"] | Mapping[str, Tensor]
) -> int:
    """Fill a backbone with pretrained classifier weights.

    Args:
        backbone: what `build_backbone(name)` made.
        name: its name, for the download and messages.
        source: a safetensors file with torchvision's or timm's keys, or `torchvision` or `timm` for their own download,
            or the tensors themselves.

    Returns:
        number of loaded tensors; those of the classifier are skipped.

    Raises:
        CheckpointError: the file is unreadable, or keys or shapes are not those of the backbone; it names the first
            that differ.
    """
    if isinstance(source, Mapping):
        weights, place = source, "the tensors given"
    elif isinstance(source, str):
        weights, place = _downloaded(name, source), source
    else:
        weights, place = read_tensors(source, advice=_OTHER_FILES), str(source)
    expected = backbone.state_dict()
    weights = backbone_weights(backbone, weights)
    missing = [key for key in expected if key not in weights and not key.endswith("num_batches_tracked")]
    missing = [key for key in missing if key not in backbone.added]
    wrong = [key for key in weights if weights[key].shape != expected[key].shape]
    if missing or wrong:
        first = ", ".join(f"no '{key}'" for key in missing[:3]) or ", ".join(
            f"'{key}' is {tuple(weights[key].shape)}, not {tuple(expected[key].shape)}" for key in wrong[:3]
        )
        owner = "timm" if isinstance(backbone, TimmBackbone | EfficientNetLiteBackbone) else "torchvision"
        raise CheckpointError(f"{place}: not the weights of {owner}'s {name}: {first}")
    backbone.load_state_dict(weights, strict=False)
    return len(weights)


def backbone_weights(backbone: Backbone, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Select the tensors of a classifier that the backbone has, under its keys.

    Old files lack batch norm's counter of batches, which is not needed. A linear layer that is a convolution in the
    backbone is reshaped.
    """
    # timm's feature extractor flattens leading sequences: `network.stages_0.` was `stages.0.`
    stored = {key.replace(".", "_", 1): tensor for key, tensor in weights.items()} | dict(weights)
    found: dict[str, Tensor] = {}
    for key, expected in backbone.state_dict().items():
        tensor = stored.get(key, stored.get(key.removeprefix("network.")))
        if tensor is not None:
            reshapes = expected.ndim == 4 and tensor.ndim == 2 and tensor.numel() == expected.numel()
            found[key] = tensor.reshape(expected.shape) if reshapes else tensor
    return found


def freeze_stages(backbone: Backbone, count: int) -> None:
    """Stop the gradients of the first stages and set them to evaluation mode; call again after `train()`.

    Raises:
        RecipeError: the backbone has fewer stages.
    """
    stages = backbone.stages()
    if count > len(stages):
        raise RecipeError(f"frozen_stages={count}: the backbone has {len(stages)}")
    for part in (module for stage in stages[:count] for module in stage):
        part.eval().requires_grad_(False)


def freeze_batch_norm(network: nn.Module) -> None:
    """Set every batch norm to evaluation mode and stop its gradients; call again after `train()`."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
            for parameter in module.parameters():
                parameter.requires_grad_(False)


def _widen_input(layer: nn.Module, channels: int) -> None:
    """Set the input channels of the first block of a ResNet's stage."""
    block = layer[0]  # pyright: ignore[reportIndexIssue]
    for holder, name in ((block, "conv1"), (block.downsample, "0")):
        old = getattr(holder, name)
        setattr(holder, name, nn.Conv2d(channels, old.out_channels, old.kernel_size, stride=old.stride, bias=False))


def _is_strided(block: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d) and module.stride != (1, 1) for module in block.modules())


def _last_channels(stage: nn.Module) -> int:
    convolutions = [module for module in stage.modules() if isinstance(module, nn.Conv2d)]
    main_path = [module for module in convolutions if module.kernel_size != (1, 1) or module is convolutions[-1]]
    return main_path[-1].out_channels


def _timm_name(name: str) -> str:
    """timm's name without our prefix. Raises RecipeError if timm has no such network."""
    import timm

    bare = name.removeprefix(TIMM)
    if not timm.is_model(bare):
        raise RecipeError(f"backbone '{name}': one of {', '.join(NAMES)}, or {TIMM} and a name of timm's")
    return bare


def _timm_features(name: str, output_stride: int, *, maps: int | None = None) -> nn.Module:
    import timm

    options: dict[str, Any] = {} if output_stride == 32 else {"output_stride": output_stride}
    if maps is not None:
        options["out_indices"] = tuple(range(maps))
    try:
        return timm.create_model(name, pretrained=False, features_only=True, **options)
    except (RuntimeError, TypeError, ValueError, NotImplementedError, AssertionError, AttributeError) as error:
        reason = " ".join(str(error).splitlines())
        detail = "" if not reason or "output_stride" in reason else f" ({reason})"
        raise RecipeError(
            f"backbone '{TIMM}{name}': timm cannot give its maps at output stride {output_stride}{detail}"
        ) from None


def _downloaded(name: str, source: str) -> Mapping[str, Tensor]:
    """The weights that torchvision or timm offer. Raises CheckpointError if they have none or cannot fetch them."""
    if source == "timm":
        import timm

        name = f"{TIMM_PREFIX}{name}" if name in EFFICIENTNET_LITES else _timm_name(name)
        try:
            return timm.create_model(name, pretrained=True).state_dict()
        except (OSError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).splitlines())
    elif name.endswith((DEEP_STEM, STRIDE_IN_1X1, DARKNET)) or name in EFFICIENTNET_LITES or name not in NAMES:
        raise CheckpointError(f"torchvision has no weights of {name}; give --init a local file")
    else:
        try:
            return torchvision.models.get_model(name.removesuffix("_1280"), weights="DEFAULT").state_dict()
        except OSError as error:
            reason = str(error)
    raise CheckpointError(f"{source}'s weights of {name} could not be downloaded ({reason}); give --init a local file")
