"""Deformable convolution against torchvision's operator, values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.ops import deform_conv2d

from pixelwise.ops.deformable_convolution import convolve_deformed


def made(size: tuple[int, int], stride: int, *, dtype: torch.dtype, far: float) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    out = [-(-side // stride) for side in size]

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    parts = {
        "x": normal(2, 3, *size),
        "offset": far * normal(2, 18, *out),
        "weight": normal(4, 3, 3, 3),
        "bias": normal(4),
        "factor": normal(2, 9, *out),
    }
    return {name: part.requires_grad_() for name, part in parts.items()}


@pytest.mark.parametrize("is_modulated", [True, False])
@pytest.mark.parametrize(("size", "stride"), [((7, 9), 1), ((8, 6), 2), ((1, 5), 1), ((1, 1), 1)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-4)])
def test_values_and_gradients_are_those_of_torchvision(
    size: tuple[int, int], stride: int, is_modulated: bool, dtype: torch.dtype, tolerance: float
) -> None:
    """Many taps are moved out of the map."""
    parts, others = (made(size, stride, dtype=dtype, far=3.0) for _ in range(2))
    factors = [one["factor"] if is_modulated else None for one in (parts, others)]
    found = convolve_deformed(
        parts["x"], parts["offset"], parts["weight"], parts["bias"], stride=stride, padding=1, factor=factors[0]
    )
    expected = deform_conv2d(
        others["x"],
        others["offset"],
        others["weight"],
        others["bias"],
        stride=(stride, stride),
        padding=(1, 1),
        mask=factors[1],
    )
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    gradient = torch.randn(found.shape, dtype=dtype, generator=torch.Generator().manual_seed(1))
    found.backward(gradient)
    expected.backward(gradient)
    for name, part in parts.items():
        if name == "factor" and not is_modulated:
            continue
        other = others[name].grad
        assert part.grad is not None
        assert other is not None
        assert other.any(), name
        torch.testing.assert_close(part.grad, other, rtol=tolerance, atol=tolerance * float(other.abs().max()))


@torch.no_grad()
def test_without_gradients_the_values_are_the_same() -> None:
    parts = made((6, 8), 1, dtype=torch.float64, far=1.0)
    arguments = (parts["x"], parts["offset"], parts["weight"], parts["bias"])
    with torch.enable_grad():
        learning = convolve_deformed(*arguments, padding=1)
    assert learning.requires_grad
    assert torch.equal(convolve_deformed(*arguments, padding=1), learning)
    torch.testing.assert_close(learning, deform_conv2d(*arguments, padding=(1, 1)))
