"""Pyramid pooling against sums over literal cells and corner-aligned interpolation written out."""

from __future__ import annotations

import math
from inspect import unwrap

import pytest
import torch
from torch import Tensor, nn

from pixelwise.errors import RecipeError
from pixelwise.nn.pyramid_pooling import PyramidPooling
from tests.models.weights import convolve, relative_error
from tests.perturbed import perturb_batch_norm


def grid_of(x: Tensor, cells: int, pooling: str) -> Tensor:
    """The mean or largest value of each cell; a cell reaches from the floor of its share to the ceiling."""
    height, width = x.shape[2:]
    rows = []
    for row in range(cells):
        top, bottom = math.floor(row * height / cells), math.ceil((row + 1) * height / cells)
        line = []
        for column in range(cells):
            left, right = math.floor(column * width / cells), math.ceil((column + 1) * width / cells)
            inside = x[:, :, top:bottom, left:right].flatten(2)
            line.append(inside.mean(2) if pooling == "average" else inside.amax(2))
        rows.append(torch.stack(line, 2))
    return torch.stack(rows, 2)


def enlarged(grid: Tensor, size: tuple[int, int], *, align_corners: bool) -> Tensor:
    """Bilinear interpolation, pixel by pixel."""

    def places(cells: int, pixels: int) -> list[tuple[int, int, float]]:
        found = []
        for pixel in range(pixels):
            place = pixel * (cells - 1) / (pixels - 1) if align_corners else (pixel + 0.5) * cells / pixels - 0.5
            place = min(max(place, 0), cells - 1)
            found.append((int(place), min(int(place) + 1, cells - 1), place - int(place)))
        return found

    result = torch.empty(*grid.shape[:2], *size)
    for y, (above, below, v) in enumerate(places(grid.shape[2], size[0])):
        line = (1 - v) * grid[:, :, above] + v * grid[:, :, below]
        for x, (left, right, u) in enumerate(places(grid.shape[3], size[1])):
            result[:, :, y, x] = (1 - u) * line[:, :, left] + u * line[:, :, right]
    return result


@pytest.mark.parametrize(("bin_count", "side"), [(1, 60), (2, 30), (3, 20), (6, 10)])
@torch.no_grad()
def test_bins_tile_the_map_of_473_pixels(bin_count: int, side: int) -> None:
    """60×60 cells fall into whole squares: each pixel moves the mean of its own square, by 1 / side²."""
    seen: list[Tensor] = []
    pyramid = PyramidPooling(1, bins=(bin_count,), reduced_channels=None)
    pyramid.reduce[0].register_forward_hook(lambda *passed: seen.append(passed[2]))
    for y, x in ((0, 0), (side - 1, 59), (59, side - 1), (min(side, 59), 31)):
        one = torch.zeros(1, 1, 60, 60)
        one[0, 0, y, x] = 1
        pyramid(one)
        expected = torch.zeros(1, 1, bin_count, bin_count)
        expected[0, 0, y // side, x // side] = 1 / side**2
        torch.testing.assert_close(seen.pop(), expected)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("pooling", ["average", "max"])
@pytest.mark.parametrize("size", [(12, 18), (7, 10)])
@torch.no_grad()
def test_the_map_stands_before_its_poolings(size: tuple[int, int], pooling: str, align_corners: bool) -> None:
    """Without reduction, of sizes that the bins divide and that they do not."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size)
    pyramid = PyramidPooling(3, reduced_channels=None, pooling=pooling, align_corners=align_corners)
    assert pyramid.out_channels == 3 * (1 + 4)
    assert not list(pyramid.parameters())
    expected = [x]
    for cells in (1, 2, 3, 6):
        expected.append(enlarged(grid_of(x, cells, pooling), size, align_corners=align_corners))
    torch.testing.assert_close(pyramid(x), torch.cat(expected, 1), rtol=0, atol=2e-6)


@torch.no_grad()
def test_reduction_is_a_convolution_with_batch_norm_and_relu() -> None:
    torch.manual_seed(0)
    pyramid = PyramidPooling(8, bins=(1, 3), reduced_channels=4).eval()
    perturb_batch_norm(pyramid)
    x = torch.randn(2, 8, 9, 9)
    expected = [x]
    for cells, layers in zip((1, 3), pyramid.reduce, strict=True):
        assert layers[0].bias is None
        expected.append(enlarged(convolve(grid_of(x, cells, "average"), layers), (9, 9), align_corners=True))
    assert relative_error(pyramid(x), torch.cat(expected, 1)) <= 1e-5


@torch.no_grad()
def test_the_other_layout_ends_with_the_map_and_norms_no_single_cell() -> None:
    torch.manual_seed(0)
    pyramid = PyramidPooling(8, bins=(1, 2), reduced_channels=4, norm_of_one_bin=False, map_first=False).eval()
    perturb_batch_norm(pyramid)
    assert [type(layer) for layer in pyramid.reduce[0]] == [nn.Conv2d, nn.ReLU]
    one, two = pyramid.reduce
    assert one[0].bias is not None
    assert two[0].bias is None
    x = torch.randn(1, 8, 6, 8)
    mean = torch.einsum("bchw,dc->bd", x, one[0].weight[:, :, 0, 0]) / 48 + one[0].bias
    first = mean.clamp(min=0)[:, :, None, None].expand(-1, -1, 6, 8)
    second = enlarged(convolve(grid_of(x, 2, "average"), two), (6, 8), align_corners=True)
    assert relative_error(pyramid(x), torch.cat([first, second, x], 1)) <= 1e-5
    pyramid.train()(x)  # with a batch of one image: batch norm has four cells to average


@pytest.mark.parametrize(
    ("bins", "reduced", "expected"),
    [
        ((1, 2, 3, 6), 512, 4096),
        ((1, 2, 3, 6), None, 2048 * 5),
        ((1,), None, 2048 * 2),
        ((1, 2, 3), None, 2048 * 4),
    ],
)
def test_channels_add_up(bins: tuple[int, ...], reduced: int | None, expected: int) -> None:
    with torch.device("meta"):
        pyramid = PyramidPooling(2048, bins=bins, reduced_channels=reduced).eval()
        found = pyramid(torch.empty(1, 2048, 12, 12))
    assert pyramid.out_channels == found.shape[1] == expected


@pytest.mark.parametrize("bins", [(), (0, 1)])
def test_grids_without_cells_are_refused(bins: tuple[int, ...]) -> None:
    with pytest.raises(RecipeError, match=r"one or more grids, each of 1 cell a side or more"):
        PyramidPooling(8, bins=bins)


def test_other_poolings_are_refused() -> None:
    begin = unwrap(PyramidPooling.__init__)  # its types are not checked then
    with pytest.raises(RecipeError, match="pooling 'mean': average or max"):
        begin(PyramidPooling.__new__(PyramidPooling), 8, pooling="mean")
