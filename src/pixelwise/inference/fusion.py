"""A faster copy of a network with the same predictions.

Batch norm in evaluation mode is a factor and a summand for each channel, and goes into the convolution before it. On
the CPU the activation and the addition of a residual block are then computed by the convolution too, while its result
is still in the cache, and weights are laid out once instead of at every call. For that oneDNN's operators are called by
the names that torch's own compiler calls them by; they are not part of torch's public interface, so a copy is used only
if its output for a small image equals the network's.

Measured with DeepLab v3 on ResNet-50, 512×512 pixels, as fractions of torchvision's time: channels last 0.80, with all
of the above 0.76 (two cores), with Winograd's algorithm for 3×3 convolutions of many channels 0.66 (CPU time of one
core). TorchScript's `optimize_for_inference` gave 0.95. The copy takes as much memory as the network, and four times
its 3×3 kernels of many channels on top.

Neighbours in an `nn.Sequential` and the blocks of the backbones are fused. Everything else stays unchanged.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import mobilenetv2, mobilenetv3, resnet

from pixelwise.contracts import as_system
from pixelwise.nn.backbones import ResNetBackbone
from pixelwise.nn.convolution import DepthwiseConv2d
from pixelwise.nn.dense import DenseSystem
from pixelwise.nn.efficientnet_lite import EfficientNetLiteBackbone, ResidualBlock
from pixelwise.ops.winograd import tile_count, transform_kernels, winograd_convolution

TRIAL_SIZE = (64, 96)
"""Height and width of the image on which a copy is compared with its network, where that has no size of its own."""

TOLERANCE = 1e-3
"""Largest difference of the copy's outputs, as a fraction of the largest output."""

WINOGRAD_CHANNELS = 128
"""Number of channels, in and out, from which a 3×3 convolution is faster by Winograd's algorithm: 172 ms against 95 for
512 channels of 64×64 on one core, 11 against 8 for 128.
"""

WINOGRAD_BYTES = 256 * 2**20
"""Largest transformed map; above, the direct convolution needs less memory."""

_ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    nn.Hardswish: ("hardswish", []),
}
"""oneDNN's name of each activation, and its parameters."""


class FusedConv(nn.Module):
    """A convolution that also adds another map to its result, and applies an activation.

    Args:
        conv: with the weights; batch norm is folded into them.
        activation: a module of `_ACTIVATIONS`, or None.
        adds: whether another map will be added.
    """

    def __init__(self, conv: nn.Conv2d, activation: nn.Module | None = None, *, adds: bool = False) -> None:
        super().__init__()
        self.bias = None if conv.bias is None else conv.bias.detach()
        self.activation = activation
        self.name, self.numbers = ("none", []) if activation is None else _ACTIVATIONS[type(activation)]
        self.weight = conv.weight.detach().contiguous(memory_format=torch.channels_last)
        self.geometry: tuple[Any, ...] = (list(conv.stride), conv.padding, list(conv.dilation), conv.groups)
        self.is_packed = _can_pack(conv)
        self.is_matrix = self.is_packed and not adds and _is_matrix(conv)
        self.kernels: Tensor | None = None
        if self.is_packed:
            self.geometry = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
            if not adds and _suits_winograd(conv):
                self.kernels = transform_kernels(self.weight)
            if self.is_matrix:
                matrix = self.weight.flatten(1).contiguous()
                self.weight = torch.ops.mkldnn._reorder_linear_weight(matrix, None)
            else:
                self.weight = torch.ops.mkldnn._reorder_convolution_weight(self.weight, *self.geometry, None)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """The activation of the convolution plus `other`."""
        if not self.is_packed:
            x = F.conv2d(x, self.weight, self.bias, *self.geometry)
            x = x if other is None else x.add_(other)
            return x if self.activation is None else self.activation(x)
        compute = torch.ops.mkldnn
        if other is not None:
            unary = None if self.activation is None else self.name
            return compute._convolution_pointwise.binary(
                x, other, self.weight, self.bias, *self.geometry, "add", 1.0, unary, self.numbers, ""
            )
        if self.is_matrix:  # as a product of matrices: a third faster for 1024 channels and more, else the same
            pixels = x.permute(0, 2, 3, 1)
            pixels = compute._linear_pointwise(pixels, self.weight, self.bias, self.name, self.numbers, "")
            return pixels.permute(0, 3, 1, 2)
        if self.kernels is not None and _pays(x, dilation := self.geometry[2][0]):
            x = winograd_convolution(x, self.kernels, dilation=dilation)
            x = x if self.bias is None else x.add_(self.bias[:, None, None])
            return x if self.activation is None else self.activation(x)
        return compute._convolution_pointwise(x, self.weight, self.bias, *self.geometry, self.name, self.numbers, "")


class FusedResidual(nn.Module):
    """A residual block whose last convolution adds the shortcut.

    Args:
        body: the layers before the last convolution.
        last: the last convolution, with the activation after the addition.
        shortcut: the layers of the shortcut.
    """

    def __init__(self, body: nn.Module, last: FusedConv, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.last, self.shortcut = body, last, shortcut

    def forward(self, x: Tensor) -> Tensor:
        """The sum of body and shortcut."""
        return self.last(self.body(x), self.shortcut(x))


def fused_copy(network: nn.Module) -> nn.Module | None:
    """Make a copy of a network in evaluation mode that computes the same outputs faster, without auxiliary logits.

    Returns:
        the copy, on the same device; None where the network cannot be copied, or the copy's outputs for a small image
        differ.
    """
    try:
        fused = copy.deepcopy(network).eval().requires_grad_(False)
        if isinstance(fused, DenseSystem):
            fused.auxiliary = None
        _fuse_children(fused)
        return fused if _agree(network, fused) else None
    except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return None  # an unknown network structure, or a torch whose operators have changed


@torch.inference_mode()
def _agree(network: nn.Module, fused: nn.Module) -> bool:
    tensor = next(network.parameters())
    height, width = as_system(network).traits.input_size or TRIAL_SIZE
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    image = image.to(tensor.device, tensor.dtype).contiguous(memory_format=torch.channels_last)
    return all(
        expected.shape == found.shape
        and float((found - expected).abs().max()) <= TOLERANCE * float(expected.abs().max())
        for expected, found in zip(as_system(network).features(image), as_system(fused).features(image), strict=True)
    )


def _fuse_children(parent: nn.Module) -> None:
    """Fuse the children of a module in place."""
    if type(parent).forward is nn.Sequential.forward:
        _fuse_sequence(parent)
    elif isinstance(parent, ResNetBackbone):
        _fuse_stem(parent)
    elif isinstance(parent, EfficientNetLiteBackbone):
        _fuse_run_of(parent, ("conv_stem", "bn1", "act1"))
    for name, child in parent.named_children():
        if _is_plain(child):
            setattr(parent, name, FusedConv(child))
        else:
            block = _fused_block(child)
            setattr(parent, name, block)
            if block is child:
                _fuse_children(child)


def _fuse_sequence(sequence: nn.Module) -> None:
    """Fuse neighbours; fused modules become Identity, so that the others keep their indices."""
    names = [*sequence._modules]
    index = 0
    while index < len(names):
        run = [sequence._modules[name] for name in names[index : index + 3]]
        conv, length = _fused_run(run)
        if conv is not None:
            setattr(sequence, names[index], conv)
            for name in names[index + 1 : index + length]:
                setattr(sequence, name, nn.Identity())
        index += length


def _fused_run(run: Sequence[nn.Module | None], *, adds: bool = False) -> tuple[FusedConv | None, int]:
    """A convolution fused with the batch norm and activation after it, and the number of fused modules."""
    conv = run[0]
    if not _is_plain(conv):
        return None, 1
    length = 1
    norm = run[1] if len(run) > 1 else None
    if _is_foldable(norm):
        conv, length = fuse_conv_bn_eval(conv, norm), 2
    activation = run[length] if len(run) > length else None
    if type(activation) in _ACTIVATIONS:
        return FusedConv(conv, activation, adds=adds), length + 1
    return FusedConv(conv, adds=adds), length


def _fuse_stem(backbone: ResNetBackbone) -> None:
    """The first convolutions of a ResNet, each followed by its batch norm and the one ReLU."""
    for number in ("1", "2", "3"):
        conv, norm = getattr(backbone, f"conv{number}", None), getattr(backbone, f"bn{number}", None)
        fused, length = _fused_run([conv, norm, backbone.relu])
        if length == 3:  # else the ReLU that is left would be applied twice, which changes nothing
            setattr(backbone, f"conv{number}", fused)
            setattr(backbone, f"bn{number}", nn.Identity())
    if all(not isinstance(module, nn.BatchNorm2d) for module in backbone.children()):
        setattr(backbone, "relu", nn.Identity())  # noqa: B010 (of another type)


def _fuse_run_of(parent: nn.Module, names: Sequence[str]) -> None:
    """Fuse children that are called one after the other."""
    fused, length = _fused_run([getattr(parent, name) for name in names])
    if fused is not None:
        setattr(parent, names[0], fused)
        for name in names[1:length]:
            setattr(parent, name, nn.Identity())


def _fused_block(block: nn.Module) -> nn.Module:
    """A residual block of torchvision's, fused; any other module as it is."""
    if type(block) in (resnet.BasicBlock, resnet.Bottleneck):
        return _fused_resnet_block(block)
    if type(block) is mobilenetv2.InvertedResidual and block.use_res_connect:
        return _fused_inverted_residual(block.conv, block)
    if type(block) is mobilenetv3.InvertedResidual and block.use_res_connect:
        return _fused_inverted_residual(block.block, block)
    if type(block) is ResidualBlock:
        return _fused_inverted_residual(block, block)
    return block


def _fused_resnet_block(block: Any) -> nn.Module:
    count = 2 if type(block) is resnet.BasicBlock else 3
    convs: list[FusedConv] = []
    for number in range(1, count + 1):
        run = [getattr(block, f"conv{number}"), getattr(block, f"bn{number}"), block.relu]
        conv, length = _fused_run(run, adds=number == count)
        if conv is None or length != 3:
            return block
        convs.append(conv)
    shortcut = nn.Identity() if block.downsample is None else block.downsample
    _fuse_children(shortcut)
    return FusedResidual(nn.Sequential(*convs[:-1]), convs[-1], shortcut)


def _fused_inverted_residual(layers: nn.Sequential, block: nn.Module) -> nn.Module:
    """The last convolution and its batch norm stand at the end, or in a sequence at the end."""
    parts = [*layers[:-1], *layers[-1]] if type(layers[-1]).forward is nn.Sequential.forward else [*layers]  # pyright: ignore[reportGeneralTypeIssues, reportArgumentType]
    while isinstance(parts[-1], nn.Identity):
        parts.pop()
    conv, length = _fused_run(parts[-2:], adds=True)
    if conv is None or length != 2 or conv.activation is not None:
        return block
    body = nn.Sequential(*parts[:-2])
    _fuse_children(body)
    return FusedResidual(body, conv, nn.Identity())


def _is_plain(module: nn.Module | None) -> TypeGuard[nn.Conv2d]:
    """Whether a module is a convolution as torch computes it, with zeros beyond the border."""
    return (
        isinstance(module, nn.Conv2d)
        and type(module).forward in (nn.Conv2d.forward, DepthwiseConv2d.forward)
        and module.padding_mode == "zeros"
    )


def _is_foldable(norm: nn.Module | None) -> TypeGuard[nn.BatchNorm2d]:
    return isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None


def _can_pack(conv: nn.Conv2d) -> bool:
    """Whether oneDNN supports it: float32 on a supported CPU."""
    return (
        conv.weight.device.type == "cpu"
        and conv.weight.dtype == torch.float32
        and not isinstance(conv.padding, str)
        and torch.backends.mkldnn.is_available()
    )


def _is_matrix(conv: nn.Conv2d) -> bool:
    """Whether it is a 1×1 convolution."""
    return conv.kernel_size == (1, 1) and conv.stride == (1, 1) and conv.padding == (0, 0) and conv.groups == 1


def _suits_winograd(conv: nn.Conv2d) -> bool:
    return (
        conv.kernel_size == (3, 3)
        and conv.stride == (1, 1)
        and conv.groups == 1
        and conv.padding == conv.dilation
        and conv.dilation[0] == conv.dilation[1]
        and min(conv.in_channels, conv.out_channels) >= WINOGRAD_CHANNELS
    )


def _pays(x: Tensor, dilation: int) -> bool:
    """Whether Winograd's algorithm is the faster one for a map of that size: few tiles of few wasted pixels are not."""
    batch, channels, height, width = x.shape
    tiles = batch * tile_count(height, width, dilation=dilation)
    wasted = 16 * tiles > 1.6 * batch * height * width
    return not wasted and tiles >= 64 and 36 * tiles * channels * x.element_size() <= WINOGRAD_BYTES
