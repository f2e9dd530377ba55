"""The interface of all backbones, and the normalisation of images for them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.errors import RecipeError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Normalize(nn.Module):
    """Subtract the mean of the RGB values that a backbone was trained with and divide by their standard deviation.

    Images are in [0, 1].
    """

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
    """Feature maps of an image, from strides 2 or 4 up to the deepest.

    Attributes:
        strides: of each map in pixels of the image, in order of depth.
        channels: of each map.
        mean: of the RGB values it was trained with, for `Normalize`.
        std: their standard deviation.
        added: keys of tensors that classifier weights lack; `load_backbone` does not change them.
    """

    strides: tuple[int, ...]
    channels: tuple[int, ...]
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    added: frozenset[str] = frozenset()

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B C h w"], ...]:
        """One map for each entry of `strides`."""
        return self.first_maps(images, len(self.strides))

    def first_maps(
        self,
        images: Float[Tensor, "B 3 H W"],  # noqa: ARG002
        count: int,
    ) -> tuple[Float[Tensor, "B C h w"], ...]:
        """The first `count` maps, at least one; later stages do not run.

        Raises:
            RecipeError: the network cannot stop at an early stage.
        """
        raise RecipeError(f"{type(self).__name__}: runs only as a whole, not its first {count} stages alone")

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """The modules that compute each map from the one before, the first from the image."""
        raise NotImplementedError

    def shorten(self, maps: int) -> None:
        """Keep the first `maps` maps and drop the later layers."""
        raise NotImplementedError

    def deepest(self, stride: int) -> int:
        """The index of the deepest map of that stride. Raises RecipeError if there is none."""
        if stride not in self.strides:
            raise RecipeError(f"the backbone has no map of stride {stride}; its strides are {self.strides}")
        return len(self.strides) - 1 - self.strides[::-1].index(stride)
