"""Linear models that are solved exactly: SVMs with hard negative mining, logistic regressions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


class MinedSVM:
    """A linear SVM of one class with hard negatives mined image by image.

    Hariharan et al., "Simultaneous Detection and Segmentation", ECCV 2014, section 3.3, with the numbers of the
    authors' code: hinge loss, liblinear. Easy negatives, beyond the margin, are neither added nor kept.

    Attributes:
        positives: one row each.
        weight: of the features; None before the first fit.
        bias: of the SVM.
    """

    COST: float = 1e-3
    POSITIVE_WEIGHT: float = 2.0
    BIAS: float = 10.0
    MINE_ABOVE: float = -1.0001
    EVICT_BELOW: float = -1.2
    REFIT_AFTER: int = 2000

    def __init__(self) -> None:
        self.positives: list[np.ndarray] = []
        self.weight: np.ndarray | None = None
        self.bias = 0.0
        self._negatives: dict[tuple[int, int], np.ndarray] = {}
        self._added = 0

    def margins(self, features: np.ndarray) -> np.ndarray:
        """Margins of rows of features; 0 before the first fit."""
        if self.weight is None:
            return np.zeros(len(features))
        return features @ self.weight + self.bias

    def mine(self, image: int, features: np.ndarray, rows: Sequence[int]) -> None:
        """Add the hard negatives of an image; fit before any other fit, or once enough new ones are added.

        Args:
            image: index of the image; a negative is added once.
            features: of its regions.
            rows: indices of the regions that are negatives.
        """
        chosen = np.asarray(rows, dtype=np.int64)
        hard = chosen[self.margins(features[chosen]) >= self.MINE_ABOVE]
        for row in hard.tolist():
            if (image, row) not in self._negatives:
                self._negatives[image, row] = features[row].copy()  # a copy, so that the others can be freed
                self._added += 1
        if self.weight is None or self._added > self.REFIT_AFTER:
            self.fit()

    def fit(self) -> None:
        """Solve on the present examples; do nothing without positives or without negatives."""
        from sklearn.svm import LinearSVC

        if not self.positives or not self._negatives:
            return
        wrong = np.stack(list(self._negatives.values()))
        x = np.concatenate([np.stack(self.positives), wrong]).astype(np.float64)
        y = np.concatenate([np.ones(len(self.positives)), -np.ones(len(wrong))])
        machine: Any = LinearSVC(
            loss="hinge",
            C=self.COST,
            class_weight={1: self.POSITIVE_WEIGHT},
            intercept_scaling=self.BIAS,  # pyright: ignore[reportArgumentType]
            dual=True,  # pyright: ignore[reportArgumentType]
            random_state=0,
            max_iter=10_000,
        )
        machine.fit(x, y)
        self.weight, self.bias = machine.coef_[0], float(machine.intercept_[0])
        kept = self.margins(wrong) > self.EVICT_BELOW
        self._negatives = {key: row for (key, row), keep in zip(self._negatives.items(), kept, strict=True) if keep}
        self._added = 0


def fit_logistic(x: Float[Tensor, "N D"], y: Float[Tensor, "N K"], *, penalty: float = 1e-3) -> Float[Tensor, "K D"]:
    """The weights of K logistic regressions that minimise mean log-loss plus half the penalty times squared weights.

    Args:
        x: the last column is the constant 1, whose weight is not penalised.
        y: 0 or 1.
        penalty: of the squared weights.
    """
    weight = torch.zeros(y.shape[1], x.shape[1], dtype=x.dtype, requires_grad=True)
    solver = torch.optim.LBFGS([weight], max_iter=200, tolerance_grad=1e-5, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        loss = F.binary_cross_entropy_with_logits(x @ weight.T, y, reduction="sum") / len(x)
        # the intercept has a thousandth of the penalty, so that cells that are always 1 have a finite solution
        loss = loss + 0.5 * penalty * (weight[:, :-1].square().sum() + 1e-3 * weight[:, -1].square().sum())
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(closure)  # pyright: ignore[reportArgumentType]
    return weight.detach()
