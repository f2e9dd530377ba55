"""Copy-paste: what is cut out of one training image stands in another.

Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation", CVPR 2021; without
objects, whole classes are cut out as in ClassMix (Olsson et al., WACV 2021), with true labels for predicted ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from pixelwise.labels import LabelSet
from pixelwise.types import Instances, Sample


def with_parts_of(sample: Sample, other: Sample, generator: np.random.Generator, *, labels: LabelSet) -> Sample:
    """Paste half of the objects of another image of the same size, with their truth.

    Each object, or each class where the ground truth tells no objects apart, comes with probability one half, at least
    one. Objects behind what is pasted lose what it hides, and are gone where nothing of them is left.

    Args:
        sample: what is pasted onto.
        other: where the parts come from, with the same kinds of truth. Crowds stay, and so does the background; of a
            set that has things, things alone come.
        generator: draws the choice.
        labels: of both.
    """
    if other.truth.instances is not None:
        return _with_objects_of(sample, other, generator)
    semantic = other.truth.semantic
    if semantic is None:
        return sample
    kept_out = {labels.ignore_id, labels.background_id}
    present = [int(id) for id in semantic.unique() if int(id) not in kept_out]
    if any(labels.is_thing):
        present = [id for id in present if labels.is_thing[id]]
    if not present:
        return sample
    chosen = _half_of(present, generator)
    return _pasted(sample, other, torch.isin(semantic, torch.tensor(chosen, dtype=semantic.dtype)))


def _with_objects_of(sample: Sample, other: Sample, generator: np.random.Generator) -> Sample:
    objects, below = other.truth.instances, sample.truth.instances
    if objects is None or objects.masks is None or below is None or below.masks is None:
        return sample
    present = (~objects.crowds).nonzero().flatten().tolist()
    if not present:
        return sample
    above = objects[sorted(_half_of(present, generator))]
    assert above.masks is not None
    covered = above.masks.union()
    left = below.masks.without(covered)
    shown = (left.areas() > 0).nonzero().flatten()
    left = left[shown]
    kept = replace(below[shown], boxes=left.boxes.float(), masks=left)
    pasted = _pasted(sample, other, covered)
    return replace(pasted, truth=replace(pasted.truth, instances=Instances.concatenate([kept, above])))


def _half_of(present: Sequence[int], generator: np.random.Generator) -> list[int]:
    chosen = [one for one in present if generator.random() < 0.5]
    return chosen or [present[int(generator.integers(len(present)))]]


def _pasted(sample: Sample, other: Sample, where: Bool[Tensor, "H W"]) -> Sample:
    """The picture and the classes of the other image in these places."""
    truth = sample.truth
    if truth.semantic is not None and other.truth.semantic is not None:
        truth = replace(truth, semantic=torch.where(where, other.truth.semantic, truth.semantic))
    return replace(sample, image=torch.where(where, other.image, sample.image), truth=truth)
