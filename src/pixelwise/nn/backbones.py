"""Image classifiers as feature extractors: torchvision's ResNets and MobileNet V2, kept dense by dilation.

Keys of the weights are torchvision's own (`conv1.weight`, `features.0.0.weight`), without the classifier.

Source of the dilation: Chen et al., DeepLab v3 (2017), section 3: where a stage would exceed the output stride, its
stride becomes 1 and its 3×3 convolutions are dilated instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
import torchvision
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pixelwise.errors import CheckpointError, RecipeError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
NAMES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "mobilenet_v2")

FirstBlock = Literal["previous", "full"]
"""Dilation of the formerly strided block of a dilated stage: that of the stage before (the original DeepLab code,
torchvision), or the stage's own (PSPNet's authors)."""


class Normalize(nn.Module):
    """Subtract the mean of ImageNet's RGB values and divide by their deviation; images are in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """Images as the backbone was trained on them."""
        return (images - self.mean) / self.std


class Backbone(nn.Module):
    """Feature maps of an image at strides 2 or 4 up to the deepest.

    Attributes:
        strides: pixels of the image for each step in each map, in order of depth.
        channels: of each map.
    """

    strides: tuple[int, ...]
    channels: tuple[int, ...]

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B C h w"], ...]:
        """One map for each entry of `strides`."""
        raise NotImplementedError

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """What computes each map from the one before, the first from the image."""
        raise NotImplementedError


class ResNetBackbone(Backbone):
    """He et al., Deep Residual Learning (2016); torchvision's layout with the stride in the 3×3 convolution.

    Args:
        network: a torchvision ResNet.
        output_stride: 8, 16 or 32.
        multi_grid: factors on the dilation of the last stage's blocks, where that stage is dilated; None for 1.
        first_block: see FirstBlock.
    """

    def __init__(
        self,
        network: torchvision.models.ResNet,
        *,
        output_stride: int,
        multi_grid: Sequence[int] | None = None,
        first_block: FirstBlock = "previous",
    ) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu, self.maxpool = network.conv1, network.bn1, network.relu, network.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            network.layer1,
            network.layer2,
            network.layer3,
            network.layer4,
        )
        stages = (self.layer1, self.layer2, self.layer3, self.layer4)
        grids = {4: tuple(multi_grid)} if multi_grid else None
        self.strides = _dilate_stages(stages, (4, 8, 16, 32), output_stride, grids=grids, first_block=first_block)
        self.channels = tuple(_last_channels(stage) for stage in stages)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B C h w"], ...]:
        """The maps after each of the four stages."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps: list[Tensor] = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.append(x)
        return tuple(maps)

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """The stem with the first stage, and the other three."""
        return ((self.conv1, self.bn1, self.layer1), (self.layer2,), (self.layer3,), (self.layer4,))


class MobileNetV2Backbone(Backbone):
    """Sandler et al., MobileNetV2 (2018), up to the last inverted residual (320 channels).

    Args:
        network: torchvision's MobileNet V2.
        output_stride: 8, 16 or 32.
        first_block: see FirstBlock.
    """

    STAGES = ((0, 2), (2, 4), (4, 7), (7, 14), (14, 18))
    """Blocks of each stage, strides 2, 4, 8, 16 and 32 of the classifier."""

    def __init__(
        self, network: torchvision.models.MobileNetV2, *, output_stride: int, first_block: FirstBlock = "previous"
    ) -> None:
        super().__init__()
        self.features = network.features[:18]
        stages = tuple(self.features[start:stop] for start, stop in self.STAGES)
        self.strides = _dilate_stages(stages, (2, 4, 8, 16, 32), output_stride, first_block=first_block)
        self.channels = tuple(_last_channels(stage) for stage in stages)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B C h w"], ...]:
        """The maps after each of the five stages."""
        x = images
        maps: list[Tensor] = []
        ends = {stop - 1 for _, stop in self.STAGES}
        for index, block in enumerate(self.features):
            x = block(x)
            if index in ends:
                maps.append(x)
        return tuple(maps)

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """The blocks of each stage."""
        return tuple(tuple(self.features[start:stop]) for start, stop in self.STAGES)


def build_backbone(
    name: str,
    *,
    output_stride: int = 16,
    multi_grid: Sequence[int] | None = None,
    first_block: FirstBlock = "previous",
) -> Backbone:
    """A backbone with random weights.

    Args:
        name: one of NAMES.
        output_stride: of the deepest map: 8, 16 or 32.
        multi_grid: factors on the dilation of a ResNet's last stage, None for 1.
        first_block: see FirstBlock.

    Raises:
        RecipeError: an unknown name or stride.
    """
    if output_stride not in (8, 16, 32):
        raise RecipeError(f"output_stride {output_stride}: 8, 16 or 32")
    if first_block not in ("previous", "full"):
        raise RecipeError(f"first_block '{first_block}': previous or full")
    if name == "mobilenet_v2":
        network = torchvision.models.mobilenet_v2(weights=None)
        return MobileNetV2Backbone(network, output_stride=output_stride, first_block=first_block)
    if name in NAMES:
        network = getattr(torchvision.models, name)(weights=None)
        return ResNetBackbone(network, output_stride=output_stride, multi_grid=multi_grid, first_block=first_block)
    raise RecipeError(f"backbone '{name}': one of {', '.join(NAMES)}")


def load_backbone(backbone: Backbone, name: str, source: Path | Literal["torchvision"]) -> int:
    """Fill a backbone with pretrained classifier weights.

    Args:
        backbone: what `build_backbone(name)` made.
        name: its name, for the download and the message.
        source: a safetensors file with torchvision's keys, or `torchvision` for its own download.

    Returns:
        how many tensors were loaded; those of the classifier are left out.

    Raises:
        CheckpointError: unreadable, or keys or shapes are not those of the backbone; names the first that differ.
    """
    if source == "torchvision":
        try:
            weights = torchvision.models.get_model(name, weights="DEFAULT").state_dict()
        except OSError as error:
            raise CheckpointError(
                f"torchvision's weights of {name} could not be downloaded ({error}); give --init a local file"
            ) from None
    else:
        try:
            weights = load_file(source)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{source}: not a readable safetensors file ({error})") from None
    wanted = backbone.state_dict()
    # files written before batch norm counted its batches lack the counter, which nothing here reads
    weights = {key: tensor for key, tensor in weights.items() if key in wanted}
    missing = [key for key in wanted if key not in weights and not key.endswith("num_batches_tracked")]
    wrong = [key for key in weights if weights[key].shape != wanted[key].shape]
    if missing or wrong:
        first = ", ".join(f"no '{key}'" for key in missing[:3]) or ", ".join(
            f"'{key}' is {tuple(weights[key].shape)}, not {tuple(wanted[key].shape)}" for key in wrong[:3]
        )
        raise CheckpointError(f"{source}: not the weights of torchvision's {name}: {first}")
    backbone.load_state_dict(weights, strict=False)
    return len(weights)


def freeze_stages(backbone: Backbone, count: int) -> None:
    """Stop the gradients of the first stages and put them into evaluation mode; call again after `train()`.

    Raises:
        RecipeError: the backbone has fewer stages.
    """
    stages = backbone.stages()
    if count > len(stages):
        raise RecipeError(f"frozen_stages={count}: the backbone has {len(stages)}")
    for part in (module for stage in stages[:count] for module in stage):
        part.eval().requires_grad_(False)


def freeze_batch_norm(network: nn.Module) -> None:
    """Put every batch norm into evaluation mode and stop its gradients; call again after `train()`."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
            for parameter in module.parameters():
                parameter.requires_grad_(False)


def _dilate_stages(
    stages: Sequence[nn.Module],
    strides: Sequence[int],
    output_stride: int,
    *,
    first_block: FirstBlock,
    grids: Mapping[int, Sequence[int]] | None = None,
) -> tuple[int, ...]:
    """Undo the strides beyond `output_stride` in place and dilate instead; returns the stride of each stage.

    Args:
        stages: each a sequence of blocks whose first may be strided.
        strides: what each stage has in the classifier.
        output_stride: the largest stride to keep.
        first_block: see FirstBlock.
        grids: for the stage of that number (from 1), factors on its blocks' dilations if it is dilated.
    """
    previous = 1
    for number, (stage, stride) in enumerate(zip(stages, strides, strict=True), start=1):
        dilation = max(1, stride // output_stride)
        if dilation > 1:
            blocks = list(stage.children())
            grid = (grids or {}).get(number) or (1,) * len(blocks)
            if len(grid) != len(blocks):
                raise RecipeError(
                    f"multi_grid {tuple(grid)}: one factor for each of the last stage's {len(blocks)} blocks"
                )
            for index, (block, factor) in enumerate(zip(blocks, grid, strict=True)):
                before = previous if index == 0 and first_block == "previous" else dilation
                _dilate_block(block, before * factor, dilation * factor)
        previous = dilation
    return tuple(min(stride, output_stride) for stride in strides)


def _dilate_block(block: nn.Module, before: int, after: int) -> None:
    """Undo a block's stride; up to the convolution that was strided dilate by `before`, from there on by `after`."""
    convolutions = [module for module in block.modules() if isinstance(module, nn.Conv2d)]
    strided = [index for index, module in enumerate(convolutions) if module.stride != (1, 1)]
    last_before = strided[0] if strided else -1
    for index, module in enumerate(convolutions):
        dilation = before if index <= last_before else after
        module.stride = (1, 1)
        if module.kernel_size != (1, 1):
            module.dilation = (dilation, dilation)
            module.padding = tuple(dilation * (side - 1) // 2 for side in module.kernel_size)


def _last_channels(stage: nn.Module) -> int:
    convolutions = [module for module in stage.modules() if isinstance(module, nn.Conv2d)]
    main_path = [module for module in convolutions if module.kernel_size != (1, 1) or module is convolutions[-1]]
    return main_path[-1].out_channels
