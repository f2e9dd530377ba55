"""Masks of boxes pasted into images, in two conventions."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from pixelwise.ops import paste
from pixelwise.ops.paste import Convention, enlarged_part, paste_masks
from pixelwise.types import Masks

SIZE = (61, 83)


def pasted(masks: Tensor, boxes: Tensor, convention: Convention, *, threshold: float = 0.5) -> Masks:
    return Masks(*paste_masks(masks, boxes, SIZE, convention=convention, threshold=threshold), size=SIZE)


def detectron2s(masks: Tensor, boxes: Tensor, threshold: float = 0.5) -> Tensor:
    """`_do_paste_mask` over the whole image."""
    height, width = SIZE
    y, x = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    y = (y[None] - boxes[:, 1:2]) / (boxes[:, 3:4] - boxes[:, 1:2]) * 2 - 1
    x = (x[None] - boxes[:, 0:1]) / (boxes[:, 2:3] - boxes[:, 0:1]) * 2 - 1
    grid = torch.stack([x[:, None].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], dim=3)
    return F.grid_sample(masks[:, None], grid, align_corners=False)[:, 0] >= threshold


def examples(count: int = 60, cells: int = 28) -> tuple[Tensor, Tensor]:
    """Smooth masks as networks make them, and boxes of every size, some as thin as a pixel, some leaving the image."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(count, 1, 5, 5, generator=generator) * 4 + 1
    masks = F.interpolate(coarse, size=(cells, cells), mode="bicubic").sigmoid()[:, 0]
    corners = torch.rand(count, 2, generator=generator) * torch.tensor([70.0, 50.0]) - 5
    sides = torch.rand(count, 2, generator=generator) ** 2 * torch.tensor([60.0, 50.0]) + 0.3
    return masks, torch.cat([corners, (corners + sides).clamp(min=3)], dim=1)


def require_equal(found: Masks, expected: Tensor) -> None:
    """But for the pixels that rounding decides."""
    assert found.size == SIZE
    assert expected.any(dim=(1, 2)).sum() > len(expected) // 2
    differing = int((found.dense() != expected).sum())
    assert differing <= max(1, int(expected.sum()) // 1000)


@pytest.mark.parametrize("slab_pixels", [2**20, 100])
def test_they_are_torchvisions(slab_pixels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paste, "SLAB_PIXELS", slab_pixels)
    masks, boxes = examples()
    expected = paste_masks_in_image(masks[:, None], boxes, SIZE)[:, 0] >= 0.5
    require_equal(pasted(masks, boxes, "torchvision"), expected)


@pytest.mark.parametrize("threshold", [0.5, 0.3, 0.8])
def test_they_are_detectron2s(threshold: float) -> None:
    masks, boxes = examples()
    require_equal(pasted(masks, boxes, "detectron2", threshold=threshold), detectron2s(masks, boxes, threshold))


def test_a_full_mask_by_hand() -> None:
    masks, boxes = torch.ones(1, 28, 28), torch.tensor([[10.0, 20.0, 38.0, 48.0]])
    continuous = pasted(masks, boxes, "detectron2").dense()[0]
    expected = torch.zeros(SIZE, dtype=torch.bool)
    expected[20:48, 10:38] = True
    assert torch.equal(continuous, expected)
    # one pixel wider and higher: the enlarged box is 9 19 39 49, its last pixels are included
    legacy = pasted(masks, boxes, "torchvision").dense()[0]
    rows, columns = legacy.any(dim=1).nonzero().flatten(), legacy.any(dim=0).nonzero().flatten()
    assert (int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])) == (20, 48, 10, 38)


@pytest.mark.parametrize("convention", ["torchvision", "detectron2"])
def test_crops_lie_one_after_the_other_in_their_boxes(convention: Convention) -> None:
    masks, boxes = examples()
    boxes[3] = torch.tensor([200.0, 5.0, 220.0, 20.0])  # beside the image
    boxes[4] = torch.tensor([5.0, 5.0, 5.0, 20.0])  # without area
    found = paste_masks(masks, boxes, SIZE, convention=convention)
    assert set(found.crops.unique().tolist()) <= {0, 1}
    areas = ((found.boxes[:, 2] - found.boxes[:, 0]) * (found.boxes[:, 3] - found.boxes[:, 1])).tolist()
    offsets = [*found.offsets.tolist(), len(found.crops)]
    assert [end - start for start, end in pairwise(offsets)] == areas
    assert (found.boxes[:, 2] <= SIZE[1]).all()
    assert (found.boxes[:, 3] <= SIZE[0]).all()
    assert (found.boxes >= 0).all()
    assert found.boxes[3].tolist() == [0, 0, 0, 0]
    # the crops' boxes are hardly larger than the boxes themselves
    clipped = torch.stack([boxes[:, i].clamp(0, SIZE[1 - i % 2]) for i in range(4)], dim=1)
    limit = (clipped[:, 2] - clipped[:, 0]) * 30 / 28 + 2, (clipped[:, 3] - clipped[:, 1]) * 30 / 28 + 2
    assert (torch.tensor(areas) <= limit[0] * limit[1]).all()


def test_no_masks_give_none() -> None:
    found = paste_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), SIZE)
    assert len(found.crops) == 0
    assert found.boxes.shape == (0, 4)
    assert len(Masks(*found, size=SIZE)) == 0


def test_a_part_of_an_enlarged_mask_is_that_of_the_whole() -> None:
    mask = torch.randn(7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = F.interpolate(mask[None, None], size=(23, 3), mode="bilinear", align_corners=False)[0, 0]
    part = enlarged_part(mask, (-2, 5, 1, 28), (0, 9, 1, 20))
    assert torch.allclose(part, whole[4:15, 2:3])
