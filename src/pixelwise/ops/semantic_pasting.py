"""Paste the highest-scoring regions one over another to predict a class for each pixel.

Hariharan, Arbeláez, Girshick, Malik, "Simultaneous Detection and Segmentation", ECCV 2014, section 5 (semantic
segmentation), with the numbers of the authors' code, which follows Carreira et al.'s O2P.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

MEAN_SEGMENTS = 2.0
"""Largest mean number of segments per image over a data set."""
CANDIDATES = 10
"""Largest number of regions of an image that may be pasted."""
STEP = 0.01
LOWEST = -1.0
"""Margin from which the threshold rises."""


def best_of_regions(scores: Float[Tensor, " N"], regions: Int64[Tensor, " N"]) -> Int64[Tensor, " M"]:
    """The predictions that may be pasted, highest score first: of each region the best class, and of all regions the
    best ten.

    Args:
        scores: of predictions after NMS in their class.
        regions: index of the region of each; one region may be predicted for several classes.
    """
    order = scores.argsort(descending=True, stable=True).tolist()
    first: dict[int, int] = {}
    for answer in order:
        first.setdefault(int(regions[answer]), answer)
    return torch.tensor(list(first.values())[:CANDIDATES], dtype=torch.int64, device=scores.device)


def raised_threshold(candidates: Sequence[Float[Tensor, " _"]], *, mean: float = MEAN_SEGMENTS) -> float:
    """The first of -1, -0.99, -0.98, … which on average at most `mean` candidates of an image exceed.

    Args:
        candidates: of each image the margins of those that may be pasted.
        mean: segments of an image.
    """
    margins = torch.cat([*candidates, torch.zeros(0)]).double()
    allowed = mean * len(candidates)
    step = 0
    while int((margins > LOWEST + step * STEP).sum()) > allowed:
        step += 1
    return LOWEST + step * STEP


def paste_order(scores: Float[Tensor, " N"], regions: Int64[Tensor, " N"], *, threshold: float) -> Int64[Tensor, " M"]:
    """The predictions in the order of pasting; the highest-scoring one comes last and covers the others.

    Args:
        scores: as in `best_of_regions`.
        regions: likewise.
        threshold: pasted predictions have a greater score.
    """
    best = best_of_regions(scores, regions)
    return best[scores[best] > threshold].flip(0)
