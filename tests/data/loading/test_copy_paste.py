"""Copy-paste: the picture and the ground truth of what is pasted stay together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from pixelwise.contracts import Augmentation
from pixelwise.data.loading.batches import AugmentedSamples
from pixelwise.data.loading.copy_paste import with_parts_of
from pixelwise.data.loading.crop import TrainingCrop
from pixelwise.labels import LabelSet, published
from pixelwise.ops.resize_rule import ResizeRule
from pixelwise.types import Annotation, Sample
from tests.drawn_scenes import LABELS, DrawnScenes

VOC = published("voc")
STUFF = LabelSet.from_names("stuff", ["road", "sky", "tree"])


def sample_of(semantic: torch.Tensor, offset: int) -> Sample:
    """A picture whose colour tells the class and the image: class + offset."""
    return Sample((semantic + offset).expand(3, -1, -1), Annotation(semantic=semantic), str(offset), (4, 4))


def halves(left: int, right: int) -> torch.Tensor:
    return torch.tensor([left, left, right, right], dtype=torch.uint8).repeat(4, 1)


def test_things_are_pasted_with_their_pixels_and_background_and_void_are_not() -> None:
    below, above = sample_of(halves(3, 255), 0), sample_of(halves(0, 8), 100)
    pasted = with_parts_of(below, above, np.random.default_rng(0), labels=VOC)
    assert torch.equal(pasted.truth.semantic, halves(3, 8))
    assert torch.equal(pasted.image, halves(3, 108).expand(3, -1, -1))
    assert pasted.id == "0"
    nothing = sample_of(halves(0, 255), 100)
    assert with_parts_of(below, nothing, np.random.default_rng(0), labels=VOC) is below


def test_about_half_of_the_classes_are_chosen_and_never_none() -> None:
    below, above = sample_of(halves(2, 2), 0), sample_of(halves(0, 1), 100)
    counts = np.zeros(3)
    for seed in range(300):
        pasted = with_parts_of(below, above, np.random.default_rng(seed), labels=STUFF).truth.semantic
        assert not torch.equal(pasted, halves(2, 2))
        counts += [int((pasted == id).any()) for id in range(3)]
    # of two: the first or the second by drawing (1/2 each), one of both where neither was drawn
    assert abs(counts[0] / 300 - 5 / 8) < 0.1
    assert abs(counts[1] / 300 - 5 / 8) < 0.1


def test_the_second_image_is_another_one_and_drawn_by_the_seed() -> None:
    class Squares:
        def __len__(self) -> int:
            return 9

        def __getitem__(self, index: int) -> Sample:
            return replace(sample_of(torch.full((4, 4), index + 1, dtype=torch.uint8), 0), id=str(index))

    crop = TrainingCrop(
        Augmentation(scale_min=1, scale_max=1, flip=0), crop_size=4, resize=ResizeRule(length=4), ignore_id=255
    )

    def found(seed: int, probability: float) -> list[int]:
        samples = AugmentedSamples(
            Squares(),
            crop,
            seed=seed,
            paste=lambda one, other, generator: with_parts_of(one, other, generator, labels=VOC),
            paste_probability=probability,
        )
        values = []
        for index in range(9):
            clip = samples[(0, index)]
            assert isinstance(clip, tuple)
            (sample,) = clip
            assert sample.truth.semantic is not None
            values.append(int(sample.truth.semantic[0, 0]))
        return values

    assert found(0, 0.0) == list(range(1, 10))
    assert found(0, 1.0) == found(0, 1.0) != found(1, 1.0)
    assert sum(value != index + 1 for index, value in enumerate(found(0, 1.0))) >= 5


def test_objects_are_pasted_whole_and_hide_what_is_behind_them() -> None:
    crop = TrainingCrop(
        Augmentation(scale_min=1, scale_max=1, flip=0), crop_size=96, resize=ResizeRule(length=96), ignore_id=255
    )
    scenes = DrawnScenes(60, first_seed=0)
    vanished = 0
    for seed in range(0, 60, 2):
        below, above = (crop(scenes[index], np.random.default_rng(0)) for index in (seed, seed + 1))
        pasted = with_parts_of(below, above, np.random.default_rng(seed), labels=LABELS)
        before, other, found = below.truth.instances, above.truth.instances, pasted.truth.instances
        assert before is not None and other is not None and found is not None  # noqa: PT018
        assert before.masks is not None and other.masks is not None and found.masks is not None  # noqa: PT018
        masks = found.masks.dense()
        assert masks.sum(dim=0).max() == 1, "a pixel belongs to two objects"
        new = [
            index for index in range(len(found)) if any(torch.equal(masks[index], one) for one in other.masks.dense())
        ]
        assert 1 <= len(new) <= len(other)
        covered = masks[new].any(dim=0)
        left = [mask & ~covered for mask in before.masks.dense()]
        vanished += sum(not mask.any() for mask in left)
        assert [mask.tolist() for mask in left if mask.any()] == masks[: len(found) - len(new)].tolist()
        assert torch.equal(pasted.image, torch.where(covered, above.image, below.image))
        semantic = torch.zeros(96, 96, dtype=torch.uint8)
        for mask, label, box in zip(masks, found.labels, found.boxes, strict=True):
            semantic[mask] = label.to(torch.uint8)
            rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
            assert box.tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert torch.equal(pasted.truth.semantic, semantic)
    assert vanished
