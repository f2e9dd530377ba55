"""SVMs that mine their negatives, against one that is fitted to all of them."""

from __future__ import annotations

import numpy as np
import pytest

from pixelwise.nn.linear_svms import MinedSVM


def test_mining_finds_the_machine_of_all_negatives() -> None:
    svm = pytest.importorskip("sklearn.svm")
    generator = np.random.default_rng(3)
    positives = generator.normal(1.0, 1.0, (12, 6)) * 4
    images = [generator.normal(-0.4, 1.0, (60, 6)) * 4 for _ in range(8)]
    machine = MinedSVM()
    machine.positives = list(positives)
    machine.REFIT_AFTER = 20
    kept = 0
    for _ in range(3):
        for index, features in enumerate(images):
            machine.mine(index, features, range(60))
        machine.fit()
        kept = len(machine._negatives)
    assert 0 < kept < 8 * 60  # the easy ones are gone
    whole = svm.LinearSVC(
        loss="hinge", C=1e-3, class_weight={1: 2}, intercept_scaling=10, dual=True, random_state=0, max_iter=200_000
    )
    everything = np.concatenate(images)
    whole.fit(np.concatenate([positives, everything]), [1] * 12 + [-1] * len(everything))
    np.testing.assert_allclose(machine.margins(everything), whole.decision_function(everything), atol=5e-3)


def test_a_negative_is_added_once_and_only_if_it_is_hard() -> None:
    pytest.importorskip("sklearn.svm")
    machine = MinedSVM()
    machine.positives = [np.array([20.0, 0.0])]
    features = np.array([[-20.0, 0.0], [0.0, 20.0], [0.0, -20.0]])
    machine.mine(0, features, [0, 1])
    assert machine.weight is not None
    machine._negatives = {}
    machine.weight, machine.bias = np.array([0.1, 0.0]), -0.5
    assert machine.margins(features).tolist() == [-2.5, -0.5, -0.5]
    for _ in range(2):
        machine.mine(7, features, [0, 2])
    assert list(machine._negatives) == [(7, 2)]
    assert machine._added == 1


def test_without_negatives_there_is_no_machine() -> None:
    machine = MinedSVM()
    machine.positives = [np.ones(3)]
    machine.mine(0, np.zeros((0, 3)), [])
    assert machine.weight is None
    assert machine.margins(np.ones((2, 3))).tolist() == [0, 0]
