"""Detect stored masks that hold void everywhere, mostly 255 in place of a class."""

from __future__ import annotations

from pathlib import Path

import torch

from pixelwise.labels import LabelSet
from pixelwise.types import Annotation, Sample


class VoidPredictions:
    """Counts the masks with void and the classes that occur. Call it with every evaluated sample."""

    def __init__(self, labels: LabelSet) -> None:
        self._labels = labels
        self._masks = self._with_void = 0
        self._seen = torch.zeros(len(labels), dtype=torch.bool)

    def __call__(self, sample: Sample, predicted: Annotation) -> None:
        """Count one mask, where the ground truth has a class."""
        if predicted.semantic is None or sample.truth.semantic is None:
            return
        present = predicted.semantic[sample.truth.semantic != self._labels.ignore_id].unique().long()
        void = present == self._labels.ignore_id
        self._masks += 1
        self._with_void += bool(void.any())
        self._seen[present[~void]] = True

    def note(self, source: Path) -> str | None:
        """One line where every mask holds void in place of a class, which is never right; else None."""
        if not self._masks or self._with_void < self._masks:
            return None
        never = [name for name, seen in zip(self._labels.names, self._seen.tolist(), strict=True) if not seen]
        void = ", ".join(map(str, self._labels.void_ids))
        text = f"{source}: void ({void}) is in every one of its {self._masks:,} masks and counts as an error"
        if len(never) != 1:
            return text
        number = self._labels.dataset_ids[self._labels.names.index(never[0])]
        return f"{text}; '{never[0]}' is never predicted: write {number} for it where {void} is meant to be it"
