"""Published test protocols of semantic segmentation, by name, as their public codes have them.

- `pspnet`: Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017; `scale_process` of hszhao/semseg (`tool/test.py`).
  Windows of the crop that the network was trained on, two thirds of it apart, each with its mirror image; their
  probabilities are averaged where they overlap. In the multi-scale form the image has six scales.
- `deeplab_v3`: Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017, section 4.1;
  `predict_labels_multi_scale` of tensorflow/models. The whole image at six scales, each with its mirror image, at
  output stride 8; their probabilities are averaged at the size of the image.

Unlike `--tile` and `--tta`, both hold the probabilities of all classes at the size of the image.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from pixelwise.errors import RecipeError
from pixelwise.inference.predictor import Options, Predictor, require_takes_proposals
from pixelwise.inference.systems import build_system, system_module
from pixelwise.ops.tiles import window_starts
from pixelwise.types import Annotation, Sample

NAMES = ("pspnet", "deeplab_v3")
FORMS = "pspnet, pspnet:CROP or deeplab_v3"
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""Factors on the input size, of the multi-scale form."""
CROP, CITYSCAPES_CROP = 473, 713
"""Side of PSPNet's windows at a long side of 512, and of 2048 pixels."""
LARGE_INPUT = 1024
"""Pixels of the input from which on the windows are those of Cityscapes, where a model's crop is not known."""
OUTPUT_STRIDE = 8
"""Of DeepLab v3 in tests, whatever it had in training."""
_WITH_ASPP = ("deeplab_v3", "deeplab_v3_plus")
"""Systems whose dilations follow the output stride."""


@dataclass(frozen=True)
class Protocol:
    """How a model runs on an image in a test.

    Attributes:
        name: one of NAMES.
        scales: factors on the input size.
        crop: height and width of the windows; None for whole images.
        output_stride: of the network; None for its own.
    """

    name: str
    scales: tuple[float, ...]
    crop: tuple[int, int] | None = None
    output_stride: int | None = None

    def __str__(self) -> str:
        """In words."""
        windows = "" if self.crop is None else f"windows of {self.crop[0]}×{self.crop[1]}, "
        stride = "" if self.output_stride is None else f"output stride {self.output_stride}, "
        return f"protocol {self.name}: {windows}{stride}scales {', '.join(map(str, self.scales))}, mirrored"

    def to_json(self) -> dict[str, Any]:
        """As reports have it."""
        return {
            "name": self.name,
            "scales": list(self.scales),
            "mirrored": True,
            "crop": None if self.crop is None else list(self.crop),
            "output_stride": self.output_stride,
        }


def protocol_of(text: str, predictor: Predictor, options: Options) -> Protocol:
    """The protocol that a command line names, for a model.

    Args:
        text: one of NAMES; `pspnet:CROP` states the side of the windows, which else is the crop that the model was
            trained on, or CROP or CITYSCAPES_CROP where its card does not state it.
        predictor: the model.
        options: of prediction; `tta` is the multi-scale form of `pspnet`.

    Raises:
        RecipeError: no such protocol, options that do not go with it, or a model that it does not fit.
    """
    name, colon, crop = text.partition(":")
    if name not in NAMES or (colon and (name != "pspnet" or not (crop.isascii() and crop.isdigit() and int(crop)))):
        raise RecipeError(f"--protocol {text}: expected {FORMS}")
    if options.tile:
        raise RecipeError(f"--tile: not with --protocol {name}, which says itself how images are divided")
    if predictor.card.task != "semantic":
        raise RecipeError(
            f"--protocol {name}: for semantic models; {predictor.name} is one for {predictor.card.task} segmentation"
        )
    traits = predictor.traits
    if traits.input_size is not None or traits.stretches_input or traits.uses_memory:
        raise RecipeError(
            f"--protocol {name}: for models that run on single images of any size, which {predictor.name} does not"
        )
    if name == "pspnet":
        side = int(crop) if crop else 0
        return Protocol(
            name,
            SCALES if options.tta else (1.0,),
            crop=(side, side) if side else _crop_of(predictor, options),
        )
    if options.tta:
        raise RecipeError(f"--tta: not with --protocol {name}, which has scales and mirror images of its own")
    return Protocol(name, SCALES, output_stride=_output_stride(predictor))


def _crop_of(predictor: Predictor, options: Options) -> tuple[int, int]:
    stated = predictor.card.training.get("crop_size")
    both = stated if isinstance(stated, list | tuple) else (stated, stated)
    sides = [side for side in both if isinstance(side, int) and side > 0]
    if len(sides) == 2:
        return sides[0], sides[1]
    side = CITYSCAPES_CROP if predictor.resize_rule(options).length >= LARGE_INPUT else CROP
    return side, side


def _output_stride(predictor: Predictor) -> int | None:
    """OUTPUT_STRIDE, for a system that can have it with the same weights."""
    return OUTPUT_STRIDE if predictor.card.system in _WITH_ASPP else None


class ProtocolPredictions:
    """The predictions of a model under a protocol.

    Args:
        predictor: the model.
        protocol: of `protocol_of`, for this model.
        options: of prediction; their input size counts.
    """

    def __init__(self, predictor: Predictor, protocol: Protocol, options: Options) -> None:
        self._predictor, self._protocol = _at_output_stride(predictor, protocol.output_stride), protocol
        self._rule = predictor.resize_rule(options)
        # the padding has the mean colour, which is zero after the normalisation
        mean = getattr(getattr(predictor.model, "normalize", None), "mean", None)
        self._mean: Tensor | float = 0.5 if mean is None else mean

    def __call__(self, sample: Sample) -> Annotation:
        """The most probable class of each pixel, and its probability."""
        if sample.proposals is not None:
            require_takes_proposals(self._predictor.model)
        confidence, ids = self.probabilities(sample.image).max(dim=0)
        kind = torch.uint8 if len(self._predictor.labels) <= 255 else torch.int32
        return Annotation(semantic=ids.to(kind), confidence=confidence).to("cpu")

    @torch.inference_mode()
    def probabilities(self, image: UInt8[Tensor, "3 H W"]) -> Float[Tensor, "K H W"]:
        """The averaged probabilities of each class, at the size of the image."""
        size = (image.shape[1], image.shape[2])
        total: Tensor | None = None
        for scale in self._protocol.scales:
            pixels = self._predictor.prepare(image, self._rule, scale)
            if self._protocol.crop is None:
                found = self._mirrored(pixels, size)
            else:
                windows = self._windows(pixels, self._protocol.crop)
                found = F.interpolate(windows[None], size=size, mode="bilinear", align_corners=False)[0]
            total = found if total is None else total.add_(found)
        assert total is not None
        return total.div_(len(self._protocol.scales))

    def _mirrored(self, pixels: Float[Tensor, "1 3 h w"], size: tuple[int, int]) -> Float[Tensor, "K H W"]:
        """The mean of the probabilities of an image and of its mirror image, of logits enlarged to a size."""
        network, align_corners = self._predictor.network(), self._predictor.traits.align_corners
        views: list[Tensor] = []
        for is_mirrored in (False, True):
            logits = network(pixels.flip(3) if is_mirrored else pixels).logits.float()
            logits = logits.flip(3) if is_mirrored else logits
            views.append(F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners).softmax(dim=1))
        return (views[0] + views[1]).div_(2)[0]

    def _windows(self, pixels: Float[Tensor, "1 3 h w"], crop: tuple[int, int]) -> Float[Tensor, "K h w"]:
        """The mean of the probabilities of all windows over each pixel; a smaller image is padded on all sides."""
        height, width = pixels.shape[2:]
        below, beside = max(crop[0] - height, 0), max(crop[1] - width, 0)
        top, left = below // 2, beside // 2
        whole = pixels
        if below or beside:
            whole = F.pad(pixels - self._mean, (left, beside - left, top, below - top)) + self._mean
        total: Tensor | None = None
        count = torch.zeros(whole.shape[2:], device=whole.device)
        for y, x in _corners((whole.shape[2], whole.shape[3]), crop):
            rows, columns = slice(y, y + crop[0]), slice(x, x + crop[1])
            window = self._mirrored(whole[:, :, rows, columns], crop)
            total = window.new_zeros(len(window), *whole.shape[2:]) if total is None else total
            total[:, rows, columns] += window
            count[rows, columns] += 1
        assert total is not None
        return total.div_(count)[:, top : top + height, left : left + width]


def _corners(size: tuple[int, int], crop: tuple[int, int]) -> Iterator[tuple[int, int]]:
    for y in window_starts(size[0], crop[0]):
        for x in window_starts(size[1], crop[1]):
            yield y, x


def _at_output_stride(predictor: Predictor, output_stride: int | None) -> Predictor:
    """The model with its weights in a network of this output stride."""
    card = predictor.card
    if output_stride is None:
        return predictor
    default = inspect.signature(system_module(card.system).build).parameters["output_stride"].default
    if card.arguments.get("output_stride", default) == output_stride:
        return predictor
    card = replace(card, arguments={**card.arguments, "output_stride": output_stride})
    network = build_system(card.system, num_classes=len(card.labels), arguments=card.arguments)
    network.load_state_dict(predictor.model.state_dict())
    return Predictor(network, card, device=predictor.device, name=predictor.name, note=predictor.note)
