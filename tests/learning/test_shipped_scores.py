"""The scores on the cards of the weights that ship are what is measured on all images; `make test` takes a part."""

from __future__ import annotations

import pytest

from tests.shipped_scores import INSTANCE_FOLDER, SEMANTIC_FOLDER, card_of, instance_scores, semantic_scores


@pytest.mark.slow
def test_the_score_on_the_semantic_card_is_what_is_measured() -> None:
    assert semantic_scores()["mean_iou"] == pytest.approx(card_of(SEMANTIC_FOLDER)["scores"]["mean_iou"], abs=1e-3)


@pytest.mark.slow
def test_the_precision_on_the_instance_card_is_what_is_measured() -> None:
    scores = instance_scores()
    for name in ("mask_ap", "mask_ap50", "box_ap"):
        assert scores[name] == pytest.approx(card_of(INSTANCE_FOLDER)["scores"][name], abs=3e-3)
