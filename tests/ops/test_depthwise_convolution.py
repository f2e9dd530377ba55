"""Depthwise convolution against torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pixelwise.ops.depthwise_convolution import depthwise_convolution

CASES = [
    # batch, channels, height, width, kernel, stride, padding, dilation
    (2, 5, 9, 7, (3, 3), (1, 1), (1, 1), (1, 1)),
    (2, 5, 9, 7, (5, 5), (1, 1), (2, 2), (1, 1)),
    (1, 4, 11, 8, (7, 7), (1, 1), (6, 6), (1, 1)),
    (2, 3, 6, 13, (5, 5), (1, 1), (4, 4), (2, 2)),
    (2, 16, 6, 6, (3, 3), (1, 1), (6, 6), (6, 6)),  # each map of one remainder is one pixel
    (2, 16, 4, 5, (3, 3), (1, 1), (18, 18), (18, 18)),  # most taps lie outside
    (1, 3, 12, 10, (5, 3), (1, 1), (0, 2), (1, 2)),
    (1, 3, 8, 9, (1, 1), (1, 1), (0, 0), (1, 1)),
    (1, 3, 8, 9, (3, 3), (1, 1), (4, 4), (1, 1)),  # wider margins than the kernel reaches
    (2, 8, 10, 9, (5, 5), (2, 2), (0, 0), (1, 1)),
    (2, 8, 9, 1, (3, 3), (2, 2), (1, 1), (1, 1)),
]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", CASES)
def test_results_and_gradients_are_torchs(case: tuple, dtype: torch.dtype, layout: torch.memory_format) -> None:
    batch, channels, height, width, kernel, stride, padding, dilation = case
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:  # the same values in each precision
        return torch.randn(shape, generator=generator).to(dtype).double()

    x, weight = drawn(batch, channels, height, width), drawn(channels, 1, *kernel)
    wanted = [x.requires_grad_(), weight.requires_grad_()]
    result = F.conv2d(x, weight, None, stride, padding, dilation, channels)
    gradient = drawn(*result.shape)
    result.backward(gradient)
    own = [one.detach().to(dtype).contiguous(memory_format=layout).requires_grad_() for one in wanted]
    found = depthwise_convolution(*own, stride=stride, padding=padding, dilation=dilation)
    found.backward(gradient.to(dtype))
    tolerance = {torch.float64: 1e-13, torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]
    for ours, theirs in ((found, result), (own[0].grad, x.grad), (own[1].grad, weight.grad)):
        assert ours.dtype == dtype
        assert ours.shape == theirs.shape
        torch.testing.assert_close(
            ours.double(), theirs, rtol=tolerance, atol=tolerance * float(theirs.detach().abs().max())
        )


def test_only_what_learns_gets_a_gradient() -> None:
    x, weight = torch.randn(1, 2, 5, 5), torch.randn(2, 1, 5, 5, requires_grad=True)
    depthwise_convolution(x, weight, padding=(2, 2)).sum().backward()
    assert weight.grad is not None
    fixed = weight.detach()
    x.requires_grad_()
    depthwise_convolution(x, fixed, padding=(2, 2)).sum().backward()
    assert x.grad is not None


def test_mixed_precision_computes_as_torch_does() -> None:
    x, weight = torch.randn(1, 2, 5, 5), torch.randn(2, 1, 3, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = depthwise_convolution(x, weight, padding=(1, 1))
        assert found.dtype == torch.bfloat16
        assert torch.equal(found, F.conv2d(x, weight, padding=1, groups=2))
    found.sum().backward()
    assert weight.grad.dtype == torch.float32
