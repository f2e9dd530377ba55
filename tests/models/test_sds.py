"""SDS: what the towers see, the solvers against slow formulas, and the refinement by hand."""

from __future__ import annotations

from dataclasses import replace
from inspect import unwrap

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pixelwise.data.collate import collate
from pixelwise.errors import DataError, RecipeError
from pixelwise.models import sds
from pixelwise.models.sds import SDS, build, coarse_mask, crop_regions, draw_regions, fit_logistic, padded_box
from pixelwise.ops.superpixels import Regions
from pixelwise.types import Annotation, Batch
from tests.drawn_scenes import LABELS, DrawnScenes


def small(**arguments) -> SDS:
    torch.manual_seed(0)
    chosen = {"width": 8, "crop_size": 32, "proposals": 12, "rois_per_image": 8} | arguments
    return build(num_classes=len(LABELS), backbone="mobilenet_v2", **chosen)


def drawings(count: int = 2) -> Batch:
    scenes = DrawnScenes(count, first_seed=7, size_hw=(64, 96))
    return collate([scenes[index] for index in range(count)])


def quarters() -> Regions:
    """Four superpixels of 20×30 pixels each; the regions are the first, the upper half and all."""
    ids = torch.zeros(40, 60, dtype=torch.int32)
    ids[:20, 30:], ids[20:, :30], ids[20:, 30:] = 1, 2, 3
    return Regions(ids, torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]).bool())


# ---- what the towers see


def test_crops_have_sixteen_pixels_of_context_and_the_mean_colour_outside() -> None:
    image = torch.rand(1, 3, 40, 60) + 1
    regions = Regions(torch.zeros(40, 60, dtype=torch.int32), torch.ones(1, 1, dtype=torch.bool))
    crops, masks = crop_regions(image, regions, regions.boxes(), torch.tensor([0]), size=227)
    inner = slice(16, 227 - 16)
    assert (crops[0, :, inner, inner] >= 1).all()
    assert not crops[0, :, :16].any()
    assert not crops[0, :, :, 227 - 16 :].any()
    assert (masks[0, inner, inner] == 1).all()
    assert masks.sum() == 195 * 195
    # each pixel of the inner 195 is read bilinearly, without weights over the pixels it covers
    wanted = F.interpolate(image, (195, 195), mode="bilinear", align_corners=False)
    torch.testing.assert_close(crops[:, :, inner, inner], wanted, rtol=1e-4, atol=1e-4)


def test_the_region_tower_sees_zero_outside_the_region() -> None:
    system, regions = small().eval(), quarters()
    seen: list[Tensor] = []
    system.region_tower.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    system.box_tower.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.rand(1, 3, 40, 60)
    diagonal = regions._replace(members=torch.tensor([[True, False, False, True]]))
    with torch.no_grad():
        system.region_features(system.normalize(images), diagonal)
    boxed, masked = seen
    assert torch.equal(masked[0, :, :15, :15], boxed[0, :, :15, :15])
    assert not masked[0, :, :15, 17:].any()
    assert not masked[0, :, 17:, :15].any()
    assert boxed[0, :, 17:29, 3:15].any()


def test_masking_follows_the_normalisation() -> None:
    # a picture of one bright colour: what is masked is the mean colour, not black
    system = small().eval()
    image = system.normalize(torch.ones(1, 3, 40, 60))
    crops, masks = crop_regions(image, quarters(), quarters().boxes(), torch.tensor([0]), size=32)
    values = (crops * masks[:, None]).flatten(2)[0, 0].unique().tolist()
    assert values[0] == 0
    assert values[-1] == pytest.approx((1 - 0.485) / 0.229, abs=1e-5)


@torch.no_grad()
def test_the_published_tower_has_its_shape() -> None:
    with torch.device("meta"):
        system = build(num_classes=21)
    shapes = {name: tuple(tensor.shape) for name, tensor in system.state_dict().items()}
    assert shapes["box_tower.fc6.weight"] == (4096, 9216)
    assert shapes["joint_score.weight"] == (21, 8192)
    assert shapes["svm_weight"] == (20, 8192)
    assert shapes["cell_weight"] == (20, 100, 8293)
    layers = [type(layer).__name__ for layer in system.box_tower.backbone.layers]
    assert layers[:8] == ["Conv2d", "ReLU", "MaxPool2d", "LocalResponseNorm"] * 2
    assert sds.CaffeNetBackbone()(torch.rand(1, 3, 227, 227))[0].shape == (1, 256, 6, 6)


# ---- sampling and learning


def test_regions_not_boxes_decide_but_in_the_box_towers_stage() -> None:
    # the object is the diagonal; the last region is the object itself
    regions = Regions(quarters().superpixels, torch.tensor([[1, 1, 1, 1], [1, 0, 0, 1]]).bool())
    truth = torch.tensor([[0.0, 0.0, 60.0, 40.0]])
    arguments = {"count": 8, "foreground_fraction": 0.25}
    chosen, labels = draw_regions(regions, truth, torch.tensor([3]), torch.zeros(0, 4), by_box=False, **arguments)
    assert dict(zip(chosen.tolist(), labels.tolist(), strict=True))[1 if 1 in chosen else 0] == 3
    smaller = regions._replace(members=torch.tensor([[1, 1, 1, 0], [1, 0, 0, 1]]).bool())
    chosen, labels = draw_regions(smaller, truth, torch.tensor([3]), torch.zeros(0, 4), by_box=False, **arguments)
    assert dict(zip(chosen.tolist(), labels.tolist(), strict=True)) == {1: 3, 0: 0}  # overlap 1/4
    chosen, labels = draw_regions(smaller, truth, torch.tensor([3]), torch.zeros(0, 4), by_box=True, **arguments)
    assert labels.tolist() == [3, 3]  # the boxes are the same
    crowd = torch.tensor([[0.0, 0.0, 60.0, 40.0]])
    chosen, _ = draw_regions(regions, truth[:0], torch.zeros(0, dtype=torch.int64), crowd, by_box=False, **arguments)
    assert not len(chosen)


def test_each_stage_teaches_its_tower() -> None:
    batch = drawings()
    towers = {
        "box": {"box_tower", "box_score"},
        "region": {"region_tower", "region_score"},
        "joint": {"box_tower", "region_tower", "joint_score"},
    }
    for learns, wanted in towers.items():
        system = small(learns=learns).train()
        output = system(batch.images, batch.valid_sizes, batch.truth)
        term = system.loss(output, batch)["class"]
        assert int(term.count) == len(output.labels) <= 16
        assert output.labels.max() > 0
        term.sum.backward()
        assert {name.split(".")[0] for name, one in system.named_parameters() if one.grad is not None} == wanted
    with pytest.raises(RecipeError, match="learns 'all'"):
        unwrap(build)(num_classes=3, learns="all")
    with pytest.raises(DataError, match="no objects with masks"):
        system(batch.images, batch.valid_sizes, (Annotation(), Annotation()))


def test_given_proposals_are_taken() -> None:
    system, batch = small(score_threshold=0.0).eval(), drawings(1)
    system.given_proposals = (quarters(),)
    with torch.no_grad():
        output = system(batch.images, batch.valid_sizes)
    assert output.superpixels[0].shape == (64, 96)
    assert int(output.superpixels[0].max()) == 3
    annotation = system.decode(output, replace(batch, original_sizes=torch.tensor([[128, 192]])))[0]
    allowed = {(0, 0, 96, 64), (0, 0, 192, 64), (0, 0, 192, 128)}
    assert {tuple(map(int, box)) for box in annotation.instances.boxes.tolist()} <= allowed
    # any shared superpixel suppresses: all three regions share the first
    assert sorted(annotation.instances.labels.tolist()) == [1, 2, 3]


def test_stored_proposals_are_taken_by_the_solvers() -> None:
    class Stored:
        def regions(self, id: str, size: tuple[int, int]) -> Regions:
            assert (id, size) == ("drawing 3", (48, 64))
            return quarters().resized(size)

    sample = DrawnScenes(1, first_seed=3, size_hw=(48, 64))[0]
    image = sds.describe(small(), sample, input_size=32, proposals=Stored())
    assert image.regions.superpixels.shape == (24, 32)
    assert len(image.features) == 3 + len(sample.truth.instances)
    assert image.overlaps[3:].diagonal().tolist() == [1.0] * len(sample.truth.instances)


# ---- the solvers


def test_logistic_regression_reaches_its_minimum() -> None:
    torch.manual_seed(4)
    x = torch.cat([torch.randn(60, 4, dtype=torch.float64), torch.ones(60, 1, dtype=torch.float64)], dim=1)
    y = (x[:, :2] + 0.5 * torch.randn(60, 2, dtype=torch.float64) > 0.2).double()
    weight = fit_logistic(x, y, penalty=0.01)
    residual = (x @ weight.T).sigmoid() - y
    gradient = residual.T @ x / len(x) + 0.01 * torch.cat([weight[:, :-1], 1e-3 * weight[:, -1:]], dim=1)
    assert gradient.abs().max() < 2e-5
    always = fit_logistic(x, torch.ones(60, 1, dtype=torch.float64))
    assert ((x @ always.T).sigmoid() > 0.95).all()


def test_the_refinement_looks_at_a_padded_box() -> None:
    box = padded_box(quarters().boxes()[0])
    assert box.tolist() == pytest.approx([-30 * 16 / 195, -20 * 16 / 195, 30 * 211 / 195, 20 * 211 / 195])
    cells = coarse_mask(quarters(), 0, box).view(10, 10)
    # cells of 3.49×2.33 pixels from -2.46 and -1.64 on: the first centre lies outside, the ninth inside
    assert cells[0].sum() == 0
    assert (cells[1:9, 1:9] == 1).all()
    assert cells[9].sum() == 0


def test_superpixels_are_kept_by_their_mean_and_membership() -> None:
    system, regions = small(), quarters()
    system.has_refiner[1] = True
    # no weight on features; the grid says the left half, surely
    left = torch.zeros(10, 10)
    left[:, :5] = 1
    system.cell_weight[1, :, -1] = (left.flatten() * 2 - 1) * 10
    system.superpixel_weight[1] = torch.tensor([4.0, 0.0, -1.6])
    chosen = system.refine(regions, 2, torch.zeros(16), 1)
    assert chosen.tolist() == [True, False, True, False]
    # who was a member before is believed where the weights say so
    system.superpixel_weight[1] = torch.tensor([0.0, 4.0, -2.0])
    assert system.refine(regions, 1, torch.zeros(16), 1).tolist() == [True, True, False, False]
    # nothing would be left: the region stays
    system.superpixel_weight[1] = torch.tensor([0.0, 0.0, -2.0])
    assert system.refine(regions, 1, torch.zeros(16), 1).tolist() == [True, True, False, False]
    assert system.refine(regions, 0, torch.zeros(16), 0).tolist() == [True, False, False, False]


def test_the_solvers_fill_the_buffers_and_change_the_answers() -> None:
    svm = pytest.importorskip("sklearn.svm")
    samples = DrawnScenes(4, first_seed=20, size_hw=(48, 64))
    system = small(proposals=20)
    described = [sds.describe(system, samples[index], input_size=64) for index in range(4)]
    for progress in sds.fit_svms(system, samples, input_size=64):
        assert progress.done <= progress.total
    assert progress.done == progress.total
    lengths = torch.cat([image.features.norm(dim=1) for image in described])
    assert float(system.feature_scale * lengths.mean()) == pytest.approx(20.0, rel=1e-4)
    seen = {int(label) for image in described for label in image.objects}
    assert {thing + 1 for thing in system.has_svms.nonzero().flatten().tolist()} == seen
    thing = min(seen) - 1
    scale = float(system.feature_scale)
    positives: list[np.ndarray] = []
    negatives: list[np.ndarray] = []
    for image in described:
        features = (image.features * scale).double().numpy()
        objects = len(features) - len(image.objects)
        for index, overlaps in enumerate(image.overlaps):
            mine = overlaps[image.objects == thing + 1]
            if index >= objects:
                is_negative = int(image.objects[index - objects]) != thing + 1
            else:
                is_negative = not len(mine) or float(mine.max()) < 0.2
            if is_negative:
                negatives.append(features[index])
        positives += [features[objects + one] for one, label in enumerate(image.objects.tolist()) if label == thing + 1]
    machine = svm.LinearSVC(
        loss="hinge", C=1e-3, class_weight={1: 2}, intercept_scaling=10, dual=True, random_state=0, max_iter=10_000
    )
    machine.fit(np.stack(positives + negatives), [1] * len(positives) + [-1] * len(negatives))
    # the second round takes latent positives and leaves out easy negatives, so the two machines agree, not to the bit
    features = torch.cat([image.features for image in described])
    theirs = machine.decision_function((features * scale).double().numpy())
    ours = system.margins(features)[:, thing].numpy()
    assert np.corrcoef(ours, theirs)[0, 1] > 0.85
    for progress in sds.fit_refiners(system, samples, input_size=64):
        assert progress.done <= progress.total
    assert system.has_refiner.any()
    batch = collate([samples[0]])
    with torch.no_grad():
        found = system(batch.images, batch.valid_sizes)
    assert len(found.scores[0])
    assert all(0 < score < 1 for score in found.scores[0].tolist())
    again = small(proposals=20)
    again.load_state_dict(system.state_dict())
    with torch.no_grad():
        same = again.eval()(batch.images, batch.valid_sizes)
    assert torch.equal(found.scores[0], same.scores[0])
    assert torch.equal(found.members[0], same.members[0])


def test_the_box_tower_is_where_the_region_tower_begins() -> None:
    system = small()
    list(sds.copy_box_tower(system, DrawnScenes(1, first_seed=0), input_size=64))
    assert all(
        torch.equal(a, b) for a, b in zip(system.box_tower.parameters(), system.region_tower.parameters(), strict=True)
    )
