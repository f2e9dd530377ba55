"""From scored regions to a class for each pixel: the best ones, pasted one over another.

Hariharan, Arbeláez, Girshick, Malik, "Simultaneous Detection and Segmentation", ECCV 2014, section 5 (semantic
segmentation), with the numbers of the authors' code, which follows Carreira et al.'s O2P.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

MEAN_SEGMENTS = 2.0
"""Segments of an image, on average over a set, at most."""
CANDIDATES = 10
"""Regions of an image that may be pasted."""
STEP = 0.01
LOWEST = -1.0
"""Margin from which the threshold rises."""


def best_of_regions(scores: Float[Tensor, " N"], regions: Int64[Tensor, " N"]) -> Int64[Tensor, " M"]:
    """The answers that may be pasted, best first: of each region the best class, and of all regions the best ten.

    Args:
        scores: of predictions that survived the suppression in their class.
        regions: the number of the region of each; one region may be the prediction for several classes.
    """
    order = scores.argsort(descending=True, stable=True).tolist()
    first: dict[int, int] = {}
    for answer in order:
        first.setdefault(int(regions[answer]), answer)
    return torch.tensor(list(first.values())[:CANDIDATES], dtype=torch.int64, device=scores.device)


def raised_threshold(candidates: Sequence[Float[Tensor, " _"]], *, mean: float = MEAN_SEGMENTS) -> float:
    """The first of -1, -0.99, -0.98, … which so many candidates of an image exceed at most, on average.

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
    """The answers to paste one over another, so that the best one, which comes last, hides the others.

    Args:
        scores: as in `best_of_regions`.
        regions: likewise.
        threshold: a score that is pasted is greater.
    """
    best = best_of_regions(scores, regions)
    return best[scores[best] > threshold].flip(0)
