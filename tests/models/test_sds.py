"""SDS: what the towers get, the solvers against slow formulas, and the refinement by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from inspect import unwrap
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pixelwise.contracts import Sizes
from pixelwise.data.loading.collate import collate
from pixelwise.errors import CheckpointError, DataError, RecipeError
from pixelwise.evaluation.evaluate import model_predictions
from pixelwise.inference.load import load
from pixelwise.inference.model_folder import ModelCard
from pixelwise.inference.predictor import Predictor
from pixelwise.models import sds
from pixelwise.models.sds import SDS, build, draw_regions
from pixelwise.nn.caffenet import CaffeNetBackbone
from pixelwise.nn.linear_svms import MinedSVM, fit_logistic
from pixelwise.nn.region_solvers import describe, fit_refiners, fit_svms
from pixelwise.ops.region_crops import crop_regions
from pixelwise.ops.region_refinement import coarse_mask, padded_box
from pixelwise.ops.resize_rule import ResizeRule
from pixelwise.ops.superpixels import Regions
from pixelwise.training.fit import Fit
from pixelwise.training.run.initial_weights import initialise
from pixelwise.training.run.plan import Plan
from pixelwise.types import Annotation, Batch
from tests.drawn_scenes import LABELS, DrawnScenes


def small(**arguments) -> SDS:
    torch.manual_seed(0)
    chosen = {"width": 8, "crop_size": 32, "proposals": 12, "box_batch_size_per_image": 8} | arguments
    return build(num_classes=len(LABELS), backbone="mobilenet_v2", **chosen)


def drawings(count: int = 2) -> Batch:
    scenes = DrawnScenes(count, first_seed=7, size_hw=(64, 96))
    return collate([scenes[index] for index in range(count)])


def quarters() -> Regions:
    """Four superpixels of 20×30 pixels each; the regions are the first, the upper half and all."""
    ids = torch.zeros(40, 60, dtype=torch.int32)
    ids[:20, 30:], ids[20:, :30], ids[20:, 30:] = 1, 2, 3
    return Regions(ids, torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]).bool())


# ---- what the towers get


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


def test_the_region_tower_gets_zero_outside_the_region() -> None:
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
    assert CaffeNetBackbone()(torch.rand(1, 3, 227, 227))[-1].shape == (1, 256, 6, 6)


# ---- sampling and training


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
    with pytest.raises(DataError, match="no instance masks"):
        system(batch.images, batch.valid_sizes, (Annotation(), Annotation()))


def test_given_proposals_are_taken() -> None:
    system, batch = small(score_threshold=0.0).eval(), drawings(1)
    with torch.no_grad():
        output = system(batch.images, batch.valid_sizes, proposals=[quarters()])
        found = system(batch.images, batch.valid_sizes, proposals=[None])
        plain = system(batch.images, batch.valid_sizes)
    assert torch.equal(found.superpixels[0], plain.superpixels[0])
    assert output.superpixels[0].shape == (64, 96)
    assert int(output.superpixels[0].max()) == 3
    annotation = system.decode(output, Sizes.of(replace(batch, original_sizes=torch.tensor([[128, 192]]))))[0]
    allowed = {(0, 0, 96, 64), (0, 0, 192, 64), (0, 0, 192, 128)}
    assert {tuple(map(int, box)) for box in annotation.instances.boxes.tolist()} <= allowed
    # any shared superpixel suppresses: all three regions share the first
    assert sorted(annotation.instances.labels.tolist()) == [1, 2, 3]


@pytest.mark.parametrize("clip", [None, "a"])
def test_stored_proposals_are_taken_in_evaluation(clip: str | None) -> None:
    card = ModelCard(task="instance", system="sds", labels=LABELS, arguments={}, resize=ResizeRule(length=60))
    answers = model_predictions(Predictor(small(score_threshold=0.0), card, device="cpu"))
    sample = replace(DrawnScenes(1, first_seed=3, size_hw=(40, 60))[0], proposals=quarters(), clip=clip, frame=0)
    found = answers(sample).instances
    assert found is not None
    assert len(found) > 0
    assert {tuple(map(int, box)) for box in found.boxes.tolist()} <= {(0, 0, 30, 20), (0, 0, 60, 20), (0, 0, 60, 40)}


def test_stored_proposals_are_taken_by_the_solvers() -> None:
    sample = replace(DrawnScenes(1, first_seed=3, size_hw=(48, 64))[0], proposals=quarters())
    image = describe(small(), sample, resize=ResizeRule(length=32))
    assert image.regions.superpixels.shape == (24, 32)
    assert len(image.regions.members) == 3 + len(sample.truth.instances)
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


def test_the_refinement_runs_on_a_padded_box() -> None:
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


def test_the_solvers_fill_the_buffers_and_change_the_predictions() -> None:
    svm = pytest.importorskip("sklearn.svm")
    samples = DrawnScenes(4, first_seed=20, size_hw=(48, 64))
    system = small(proposals=20)
    described = [describe(system, samples[index], resize=ResizeRule(length=64)) for index in range(4)]
    with torch.no_grad():
        found = [system.region_features(image.image, image.regions) for image in described]
    for progress in fit_svms(system, samples, resize=ResizeRule(length=64)):
        assert progress.done <= progress.total
    assert progress.done == progress.total
    lengths = torch.cat(found).norm(dim=1)
    assert float(system.feature_scale * lengths.mean()) == pytest.approx(20.0, rel=1e-4)
    seen = {int(label) for image in described for label in image.objects}
    assert {thing + 1 for thing in system.has_svms.nonzero().flatten().tolist()} == seen
    thing = min(seen) - 1
    scale = float(system.feature_scale)
    positives: list[np.ndarray] = []
    negatives: list[np.ndarray] = []
    for image, raw in zip(described, found, strict=True):
        features = (raw * scale).double().numpy()
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
    # the second round takes latent positives and skips easy negatives, so the two machines agree, not to the bit
    features = torch.cat(found)
    theirs = machine.decision_function((features * scale).double().numpy())
    ours = system.margins(features)[:, thing].numpy()
    assert np.corrcoef(ours, theirs)[0, 1] > 0.85
    for progress in fit_refiners(system, samples, resize=ResizeRule(length=64)):
        assert progress.done <= progress.total
    assert system.has_refiner.any()
    batch = collate([samples[0]])
    with torch.no_grad():
        answer = system(batch.images, batch.valid_sizes)
    assert len(answer.scores[0])
    assert all(0 < score < 1 for score in answer.scores[0].tolist())
    again = small(proposals=20)
    again.load_state_dict(system.state_dict())
    with torch.no_grad():
        same = again.eval()(batch.images, batch.valid_sizes)
    assert torch.equal(answer.scores[0], same.scores[0])
    assert torch.equal(answer.members[0], same.members[0])


def test_the_box_tower_is_where_the_region_tower_begins() -> None:
    system = small()
    list(sds.copy_box_tower(system, DrawnScenes(1, first_seed=0), resize=ResizeRule(length=64)))
    assert all(
        torch.equal(a, b) for a, b in zip(system.box_tower.parameters(), system.region_tower.parameters(), strict=True)
    )


# ---- the box detector and the pasting


def test_boxes_suppress_from_three_tenths_on() -> None:
    system = small(detects="boxes", score_threshold=0.0).eval()
    ids = torch.arange(10, dtype=torch.int32).repeat(4, 1)
    members = torch.zeros(4, 10, dtype=torch.bool)
    members[0, :6] = True
    members[1, 3:10] = True  # 3 of 10 columns shared with the first
    members[2, 4:10] = True  # 2 of 10
    members[3, [0, 9]] = True  # shares superpixels with all, its box with the first 6 of 10
    regions, scores = Regions(ids, members), torch.tensor([0.9, 0.8, 0.7, 0.6])
    assert system.survivors(regions, torch.arange(4), scores).tolist() == [0, 2]
    assert small().survivors(regions, torch.arange(4), scores).tolist() == [0]


def test_the_box_detectors_svms_are_those_of_a_slow_reading() -> None:
    svm = pytest.importorskip("sklearn.svm")
    samples = DrawnScenes(5, first_seed=20, size_hw=(48, 64))
    system = small(proposals=25, detects="boxes")
    x: dict[int, list[np.ndarray]] = {0: [], 1: [], 2: []}
    y: dict[int, list[int]] = {0: [], 1: [], 2: []}
    rows: list[tuple[Tensor, list[list[float]], list[int], int]] = []
    for index in range(5):
        image = describe(system, samples[index], resize=ResizeRule(length=64))
        with torch.no_grad():
            features = system.region_features(image.image, image.regions)
        rows.append((features, image.regions.boxes().tolist(), image.objects.tolist(), len(features)))
    scale = 20 / float(torch.cat([features for features, *_ in rows]).norm(dim=1).mean())
    for features, boxes, objects, count in rows:
        first = count - len(objects)
        for thing in range(3):
            mine = [boxes[first + one] for one, channel in enumerate(objects) if channel == thing + 1]
            for region in range(count):
                is_object = region >= first
                if is_object:
                    label = 1 if objects[region - first] == thing + 1 else -1
                else:
                    label = 0 if any(slow_iou(boxes[region], box) >= 0.3 for box in mine) else -1
                if label:
                    x[thing].append((features[region] * scale).double().numpy())
                    y[thing].append(label)
    list(fit_svms(system, samples, resize=ResizeRule(length=64)))
    assert float(system.feature_scale) == pytest.approx(scale, rel=1e-5)
    for thing in range(3):
        machine = svm.LinearSVC(
            loss="hinge", C=1e-3, class_weight={1: 2}, intercept_scaling=10, dual=True, random_state=0, max_iter=100_000
        )
        machine.fit(np.stack(x[thing]), y[thing])
        theirs = machine.decision_function(np.stack(x[thing]))
        ours = np.stack(x[thing]) @ system.svm_weight[thing].double().numpy() + float(system.svm_bias[thing])
        # all negatives but those that never count in the hinge loss are among ours
        np.testing.assert_allclose(ours, theirs, atol=0.02)
    with pytest.raises(RecipeError, match="detects 'masks'"):
        unwrap(build)(num_classes=3, detects="masks")


def slow_iou(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, width) * max(0.0, height)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def test_positives_become_the_candidates_that_the_first_round_likes_best() -> None:
    pytest.importorskip("sklearn.svm")
    samples, system = DrawnScenes(3, first_seed=20, size_hw=(48, 64)), small(proposals=25)
    taken: list[list[np.ndarray]] = []
    fit = MinedSVM.fit

    def watched(machine: MinedSVM) -> None:
        fit(machine)
        taken.append(machine.positives)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MinedSVM, "fit", watched)
        list(fit_svms(system, samples, resize=ResizeRule(length=64)))
    described = [describe(system, samples[index], resize=ResizeRule(length=64)) for index in range(3)]
    with torch.no_grad():
        rows = [system.region_features(image.image, image.regions) * system.feature_scale for image in described]
    for row in (row for positives in taken[-3:] for row in positives):
        image, region = next(
            (image, region)
            for image, features in enumerate(rows)
            for region in range(len(features))
            if np.allclose(features[region].numpy(), row, rtol=1e-4, atol=1e-4)
        )
        proposals = len(rows[image]) - len(described[image].objects)
        near = (described[image].overlaps[:proposals] > 0.5).any(dim=0)
        # a proposal near an object, or an object that has none
        assert (region < proposals and bool((described[image].overlaps[region] > 0.5).any())) or not near[
            region - proposals
        ]
    assert sum(map(len, taken[-3:])) == sum(len(image.objects) for image in described)


def test_the_best_regions_are_pasted_one_over_another() -> None:
    system, batch = small(score_threshold=0.0, pastes=True).eval(), drawings(1)
    system.paste_threshold.fill_(0.0)
    upper = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [1, 1, 0, 0]], dtype=torch.uint8)
    output = sds.Output(
        scores=(torch.tensor([0.9, 0.8, 0.7, 0.6]),),
        channels=(torch.tensor([2, 1, 3, 3]),),
        regions=(torch.tensor([4, 7, 9, 7]),),
        superpixels=(quarters().superpixels,),
        members=(upper,),
        paste_above=torch.tensor(0.5),
    )
    batch = replace(batch, original_sizes=torch.tensor([[40, 60]]))
    semantic = system.decode(output, Sizes.of(batch))[0].semantic
    assert [semantic[row, column].item() for row in (0, 39) for column in (0, 59)] == [2, 1, 3, 0]
    semantic = system.decode(output._replace(paste_above=torch.tensor(0.75)), Sizes.of(batch))[0].semantic
    assert [semantic[row, column].item() for row in (0, 39) for column in (0, 59)] == [2, 1, 0, 0]
    assert small().eval().decode(output._replace(paste_above=None), Sizes.of(batch))[0].semantic is None


def test_the_threshold_of_the_pasting_leaves_two_segments_an_image() -> None:
    pytest.importorskip("sklearn.svm")
    samples, system = DrawnScenes(5, first_seed=20, size_hw=(48, 64)), small(proposals=25, pastes=True)
    list(fit_svms(system, samples, resize=ResizeRule(length=64)))
    system.has_refiner.zero_()
    pasted: list[list[float]] = []
    for index in range(5):
        batch = collate([samples[index]])
        described = describe(system, samples[index], resize=ResizeRule(length=64))
        count = len(described.regions.members) - len(described.objects)
        given = described.regions._replace(members=described.regions.members[:count])
        with torch.no_grad():
            output = system.eval()(batch.images, batch.valid_sizes, proposals=[given])
        best: dict[int, float] = {}
        for score, region in zip(output.scores[0].tolist(), output.regions[0].tolist(), strict=True):
            best[region] = max(best.get(region, 0.0), score)
        pasted.append(sorted(best.values())[-10:])
    threshold = -1.0
    while sum(score > 1 / (1 + math.exp(-threshold)) for scores in pasted for score in scores) > 2 * 5:
        threshold += 0.01
    assert float(system.paste_threshold) == pytest.approx(threshold, abs=1e-4)
    assert threshold > -1


def test_a_predicted_scene_has_the_pasted_classes_too(tmp_path: Path) -> None:
    arguments = {"backbone": "mobilenet_v2", "width": 8, "crop_size": 32, "proposals": 30}
    image = DrawnScenes(1, first_seed=3)[0].image
    for pastes in (True, False):
        system = build(num_classes=len(LABELS), pastes=pastes, **arguments)
        system.paste_threshold.fill_(-2.0)
        card = ModelCard("instance", "sds", LABELS, {**arguments, "pastes": pastes}, resize=ResizeRule(length=96))
        scene = Predictor(system, card, device="cpu")(image)
        files = {path.name for path in scene.save(tmp_path / str(pastes))}
        assert (f"{pastes}.semantic.png" in files) == pastes
        assert f"{pastes}.instances.png" in files
        if pastes:
            instances = scene.annotation.instances
            labels = set(scene.annotation.semantic.unique().tolist()) - {0}
            assert labels
            assert labels <= set(instances.labels.tolist())
            covered = torch.stack([instances.masks.dense_one(index) for index in range(len(instances))]).any(dim=0)
            assert covered[scene.annotation.semantic > 0].all()


def test_the_weights_that_ship_fill_the_tower_that_is_trained_first() -> None:
    shipped = load("default").model.state_dict()
    chosen = {"backbone": "mobilenet_v2", "width": 8}
    plan = Plan("sds", chosen, sds.RECIPE, data=(), init="default")
    system = build(num_classes=len(LABELS), learns="box", **chosen)
    assert "start at random" in initialise(system, plan, sds.RECIPE.stages[0], LABELS)
    for name, tensor in system.box_tower.backbone.state_dict().items():
        assert torch.equal(tensor, shipped[f"backbone.{name}"])
    name = "features.0.0.weight"
    assert not torch.equal(system.region_tower.backbone.state_dict()[name], shipped[f"backbone.{name}"])
    narrow = build(num_classes=len(LABELS), backbone="resnet18", width=8)
    with pytest.raises(CheckpointError, match="a deeplab_v3_plus, not a sds with these arguments"):
        initialise(narrow, replace(plan, arguments={"backbone": "resnet18"}), sds.RECIPE.stages[0], LABELS)


def test_every_stage_of_the_recipe_can_be_begun() -> None:
    for stage in sds.RECIPE.stages:
        if stage.solver:
            assert callable(getattr(sds, stage.solver))
        else:
            Fit.start(small(**stage.arguments), stage)
