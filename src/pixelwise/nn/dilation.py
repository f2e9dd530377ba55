"""Dilate a classifier to keep its maps dense: strides beyond a limit become 1, and later layers are dilated.

Source: Chen et al., DeepLab v3 (2017), section 3. Published networks differ in how they treat the block whose stride is
undone; see FirstBlock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import nn

from pixelwise.errors import RecipeError

FirstBlock = Literal["previous", "full"]
"""Dilation of the formerly strided block of a dilated stage.

`previous`: that of the stage before, so that the outputs at the strided network's positions are unchanged: the original
DeepLab code and torchvision; where strides are 2 this is the "half" of CSAIL's code too. `full`: the stage's own:
PSPNet's authors, semseg, smp, and torchvision's MobileNet V3.
"""


def dilate_stages(
    stages: Sequence[Sequence[nn.Module]],
    strides: Sequence[int],
    output_stride: int,
    *,
    first_block: FirstBlock,
    grids: Mapping[int, Sequence[int]] | None = None,
) -> tuple[int, ...]:
    """Undo the strides beyond `output_stride` in place and dilate instead; returns the stride of each stage.

    Args:
        stages: each a sequence of blocks whose first may be strided.
        strides: of each stage in the classifier.
        output_stride: the largest stride to keep.
        first_block: see FirstBlock.
        grids: for a stage, by its number from 1, factors on its blocks' dilations if it is dilated.
    """
    previous = 1
    for number, (stage, stride) in enumerate(zip(stages, strides, strict=True), start=1):
        dilation = max(1, stride // output_stride)
        if dilation > 1:
            blocks = list(stage)
            grid = (grids or {}).get(number) or (1,) * len(blocks)
            if len(grid) != len(blocks):
                raise RecipeError(
                    f"multi_grid {tuple(grid)}: one factor for each of the last stage's {len(blocks)} blocks"
                )
            for index, (block, factor) in enumerate(zip(blocks, grid, strict=True)):
                before = previous if index == 0 and first_block == "previous" else dilation
                dilate_block(block, before * factor, dilation * factor)
        previous = dilation
    return tuple(min(stride, output_stride) for stride in strides)


def dilate_block(block: nn.Module, before: int, after: int) -> None:
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
