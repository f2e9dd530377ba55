"""Copy-paste: what is cut out of one training image stands in another.

Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation", CVPR 2021; without
objects, whole classes are cut out as in ClassMix (Olsson et al., WACV 2021), with true labels for predicted ones.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from pixelwise.labels import LabelSet
from pixelwise.types import Sample


def with_classes_of(sample: Sample, other: Sample, generator: np.random.Generator, *, labels: LabelSet) -> Sample:
    """Paste half of the classes of another image of the same size, with their labels.

    Args:
        sample: what is pasted onto; its truth is `semantic` alone.
        other: where the classes come from. Each of its classes comes with probability one half, at least one; of a set
            that has things, things alone, else all but the background.
        generator: draws the choice.
        labels: of both.
    """
    if sample.truth.semantic is None or other.truth.semantic is None:
        return sample
    kept_out = {labels.ignore_id, labels.background_id}
    present = [int(id) for id in other.truth.semantic.unique() if int(id) not in kept_out]
    if any(labels.is_thing):
        present = [id for id in present if labels.is_thing[id]]
    if not present:
        return sample
    chosen = [id for id in present if generator.random() < 0.5] or [present[int(generator.integers(len(present)))]]
    pasted = torch.isin(other.truth.semantic, torch.tensor(chosen, dtype=other.truth.semantic.dtype))
    semantic = torch.where(pasted, other.truth.semantic, sample.truth.semantic)
    image = torch.where(pasted, other.image, sample.image)
    return replace(sample, image=image, truth=replace(sample.truth, semantic=semantic))
