from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pixelwise.nn.roi_warping import limit_gradient, warp_rois


def one_sample(features: Tensor, y: float, x: float) -> Tensor:
    """Bilinear between the four cells around; the border within half a cell outside, zero beyond."""
    _, height, width = features.shape
    if y < -0.5 or y > height - 0.5 or x < -0.5 or x > width - 0.5:
        return torch.zeros(features.shape[0], dtype=features.dtype)
    y, x = max(y, 0.0), max(x, 0.0)
    top, left = int(y), int(x)
    if top >= height - 1:
        top, y = height - 1, float(height - 1)
    if left >= width - 1:
        left, x = width - 1, float(width - 1)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    return (
        features[:, top, left] * (1 - dy) * (1 - dx)
        + features[:, top, right] * (1 - dy) * dx
        + features[:, bottom, left] * dy * (1 - dx)
        + features[:, bottom, right] * dy * dx
    )


def slow_warp(features: Tensor, box: list[float], *, stride: int, size: int, samples: int) -> Tensor:
    """The layer as its authors' loops say it, on one image and box."""
    x1, y1, x2, y2 = (math.floor(value / stride + 0.5) for value in box)
    side = size * samples
    bin_h, bin_w = max(y2 - y1, 0) / side, max(x2 - x1, 0) / side
    result = torch.full((features.shape[0], size, size), -math.inf, dtype=features.dtype)
    for p in range(side):
        for q in range(side):
            value = one_sample(features, y1 + p * bin_h, x1 + q * bin_w)
            cell = result[:, p // samples, q // samples]
            result[:, p // samples, q // samples] = torch.maximum(cell, value)
    return result


@pytest.mark.parametrize("samples", [1, 2])
def test_it_is_the_layer_of_the_authors_loops(samples: int) -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 3, 7, 9, dtype=torch.float64)
    boxes = [
        [0.0, 0.0, 144.0, 112.0],
        [17.0, 30.0, 90.0, 71.0],
        [100.0, 8.0, 190.0, 100.0],  # leaves the map at the right
        [-40.0, -30.0, 60.0, 50.0],  # and at the top left
        [40.0, 40.0, 41.0, 42.0],  # one point
        [70.0, 60.0, 20.0, 10.0],  # inverted
    ]
    index = torch.tensor([1, 0, 1, 0, 1, 1])
    warped = warp_rois(features, torch.tensor(boxes, dtype=torch.float64), index, stride=16, size=4, samples=samples)
    for number, box in enumerate(boxes):
        wanted = slow_warp(features[index[number]], box, stride=16, size=4, samples=samples)
        assert torch.allclose(warped[number], wanted, atol=1e-12)


def test_samples_lie_at_the_corners_of_their_bins() -> None:
    ramp = torch.arange(8.0).expand(8, 8)[None, None]
    warped = warp_rois(ramp, torch.tensor([[0.0, 0.0, 64.0, 64.0]]), torch.tensor([0]), stride=16, size=4, samples=1)
    assert warped[0, 0, 0].tolist() == pytest.approx([0.0, 1.0, 2.0, 3.0], abs=1e-5)  # centres would give 0.5, 1.5, …
    warped = warp_rois(ramp, torch.tensor([[0.0, 0.0, 64.0, 64.0]]), torch.tensor([0]), stride=16, size=4)
    assert warped[0, 0, 0].tolist() == pytest.approx([0.5, 1.5, 2.5, 3.5], abs=1e-5)


@pytest.mark.parametrize("samples", [1, 2])
def test_gradients_are_those_of_finite_differences(samples: int) -> None:
    torch.manual_seed(1)
    features = torch.randn(2, 2, 6, 7, dtype=torch.float64, requires_grad=True)
    boxes = torch.tensor(
        [[7.3, 11.1, 60.7, 72.9], [-12.2, 21.7, 81.3, 130.4], [30.1, 5.2, 40.9, 20.3]], dtype=torch.float64
    ).requires_grad_()
    index = torch.tensor([0, 1, 1])

    def warp(features: Tensor, boxes: Tensor) -> Tensor:
        return warp_rois(features, boxes, index, stride=16, size=3, samples=samples, round_corners=False)

    assert torch.autograd.gradcheck(warp, (features, boxes), eps=1e-7, atol=1e-5)


def test_gradients_pass_the_rounding() -> None:
    torch.manual_seed(2)
    features = torch.randn(1, 2, 8, 8, dtype=torch.float64)
    boxes = torch.tensor([[19.0, 5.0, 84.0, 99.0]], dtype=torch.float64)
    rounded = torch.tensor([[16.0, 0.0, 80.0, 96.0]], dtype=torch.float64)
    gradients = []
    for box, round_corners in ((boxes, True), (rounded, False)):
        # an odd number of bins for a whole number of cells, so that few samples lie on the kinks at whole cells
        box.requires_grad_()
        warped = warp_rois(features, box, torch.tensor([0]), stride=16, size=7, samples=1, round_corners=round_corners)
        (warped * torch.arange(warped.numel()).view_as(warped)).sum().backward()
        gradients.append(box.grad)
    assert torch.equal(gradients[0], gradients[1])
    assert gradients[0].abs().min() > 0


def test_no_boxes_give_no_rows_and_a_gradient_of_zero() -> None:
    features = torch.randn(1, 2, 4, 4, requires_grad=True)
    warped = warp_rois(features, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), stride=16)
    assert warped.shape == (0, 2, 14, 14)
    warped.sum().backward()
    assert not features.grad.any()


def test_only_the_gradient_is_limited() -> None:
    x = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
    y = limit_gradient(x, 0.5)
    assert torch.equal(y, x)
    (y * torch.tensor([0.25, 7.0, -9.0])).sum().backward()
    assert x.grad.tolist() == [0.25, 0.5, -0.5]
