"""Training pairs of video systems: a frame of a clip and another frame of the same clip, its reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pixelwise.types import Sample

Augment = Callable[[Sample, np.random.Generator], Sample]


class FramePairs:
    """Places of the references of each frame.

    Args:
        clips: the clip of each sample, clip by clip in the order of time, None of a still; None for a set of stills.
        offsets: where references lie, in frames from the target, such as (-1, 1).
        flow: gives the optical flow from a sample to a frame of its clip, by their places in the set and in the clip;
            None where it is not needed, or where the set does not know it.
    """

    def __init__(
        self,
        clips: Sequence[str | None] | None,
        *,
        offsets: Sequence[int],
        flow: Callable[[int, int], Float[Tensor, "2 H W"] | None] | None = None,
    ) -> None:
        self.clips, self.offsets, self.flow = clips, tuple(offsets), flow

    def reference(self, index: int, generator: np.random.Generator) -> int | None:
        """The place of a reference, drawn from the offsets that the clip has.

        A clip that has none of them gives its frame that is next to such a place, other than the frame itself if there
        is one. None for a still.
        """
        clip = None if self.clips is None else self.clips[index]
        if clip is None:
            return None
        there = [index + offset for offset in self.offsets if self._is_of(index + offset, clip)]
        if there:
            return there[int(generator.integers(len(there)))]
        candidate = index + self.offsets[int(generator.integers(len(self.offsets)))]
        step = 1 if candidate < index else -1
        while not self._is_of(candidate, clip):
            candidate += step
        if candidate != index:
            return candidate
        return next((other for other in (index - 1, index + 1) if self._is_of(other, clip)), index)

    def with_flow(self, target: Sample, index: int, reference: Sample | None) -> Sample:
        """The frame at a place of the set, its ground truth with the flow to its reference if that is known."""
        if self.flow is None or reference is None or reference.frame is None:
            return target
        return replace(target, truth=replace(target.truth, flow=self.flow(index, reference.frame)))

    def _is_of(self, index: int, clip: str) -> bool:
        assert self.clips is not None
        return 0 <= index < len(self.clips) and self.clips[index] == clip


def augmented_pair(
    target: Sample, reference: Sample | None, augment: Augment, generator: np.random.Generator
) -> tuple[Sample, Sample]:
    """The reference and the target, both augmented.

    Frames of a clip are cut, turned and coloured alike, so that what moves is what moved. A still is its own reference,
    under an augmentation of its own: its objects keep their identities and move as a whole.

    Args:
        target: the target frame.
        reference: of the same clip; None for a still.
        augment: the augmentation.
        generator: what it draws from.
    """
    if reference is None:
        target = _numbered(target)
        return augment(target, generator), augment(target, generator)
    again = np.random.Generator(type(generator.bit_generator)())
    again.bit_generator.state = generator.bit_generator.state
    return augment(reference, again), augment(target, generator)


def _numbered(still: Sample) -> Sample:
    """The still, its objects with identities."""
    instances = still.truth.instances
    if instances is None or instances.track_ids is not None:
        return still
    return replace(
        still, truth=replace(still.truth, instances=replace(instances, track_ids=torch.arange(len(instances))))
    )
