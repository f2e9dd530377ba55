"""CaffeNet: the network of Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural
Networks", NIPS 2012, in the form of Caffe's reference model, whose pooling comes before the local normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.nn.backbone import Backbone


class CaffeNetBackbone(Backbone):
    """The maps after the first two poolings, the fourth and fifth convolution, and the last pooling.

    A crop of 227×227 pixels gives 6×6 cells in the last.

    Args:
        is_padded: pad by half a window before the first convolution and the first two poolings, so that a map of stride
            16 has a cell for each 16 pixels, as in Fast R-CNN's release; the classifier has no such padding.
        last_pooling: without it the deepest map is that of the fifth convolution, of stride 16.
    """

    def __init__(self, *, is_padded: bool = False, last_pooling: bool = True) -> None:
        super().__init__()
        normalization = {"size": 5, "alpha": 1e-4, "beta": 0.75}
        edge = int(is_padded)
        layers = [
            nn.Conv2d(3, 96, 11, stride=4, padding=5 * edge),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, padding=edge, ceil_mode=True),
            nn.LocalResponseNorm(**normalization),
            nn.Conv2d(96, 256, 5, padding=2, groups=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, padding=edge, ceil_mode=True),
            nn.LocalResponseNorm(**normalization),
            nn.Conv2d(256, 384, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 384, 3, padding=1, groups=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1, groups=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, ceil_mode=True),
        ]
        self.layers = nn.Sequential(*layers)
        self.ends: tuple[int, ...] = (2, 6, 11, 13, 14)
        self.strides, self.channels = (8, 16, 16, 16, 32), (96, 256, 384, 256, 256)
        if not last_pooling:
            self.shorten(4)

    def first_maps(self, images: Float[Tensor, "B 3 H W"], count: int) -> tuple[Float[Tensor, "B C h w"], ...]:
        """The first `count` maps."""
        x = images
        maps: list[Tensor] = []
        for index, layer in enumerate(self.layers[: self.ends[count - 1] + 1]):
            x = layer(x)
            if index in self.ends:
                maps.append(x)
        return tuple(maps)

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """The layers of each map."""
        layers = list(self.layers)
        starts = (0, *(end + 1 for end in self.ends[:-1]))
        return tuple(tuple(layers[start : end + 1]) for start, end in zip(starts, self.ends, strict=True))

    def shorten(self, maps: int) -> None:
        """Keep the layers of the first `maps` maps."""
        self.ends = self.ends[:maps]
        self.layers = self.layers[: self.ends[-1] + 1]
        self.strides, self.channels = self.strides[:maps], self.channels[:maps]
